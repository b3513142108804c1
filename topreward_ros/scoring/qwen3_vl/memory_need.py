"""How much memory an episode takes, so that what cannot fit is refused before the first frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from topreward_ros.scoring.qwen3_vl.language import TOKEN_STEP
from topreward_ros.scoring.qwen3_vl.video_cache import TEXT_PER_PATCH

if TYPE_CHECKING:
    from topreward_ros.scoring.base import ScorerSettings


class MemoryNeed(NamedTuple):
    """Memory that scoring an episode of any length takes at most, beside the weights."""

    keys_and_values: int  #: [bytes] of one video
    videos: int  #: that are cached: the episode, what the next thinning leaves of it, and the static one
    features: int  #: [bytes] of all patches

    @property
    def total(self) -> int:
        return self.keys_and_values * self.videos + self.features


def memory_need(config: Any, settings: ScorerSettings, frame_pixels: int, size: int) -> MemoryNeed:
    """Memory for ``settings.max_frames`` frames of ``frame_pixels`` pixels, in numbers of ``size`` bytes.

    ``config``: of the model, a Qwen3VLConfig. The tokens of the prompts, some hundreds, come on top.
    """
    text, vision = config.text_config, config.vision_config
    patches = (settings.max_frames + 1) // 2
    pads = -(-frame_pixels // (vision.patch_size * vision.spatial_merge_size) ** 2)
    head_size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    per_token = text.num_hidden_layers * 2 * text.num_key_value_heads * head_size * size
    layers = 1 + len(vision.deepstack_visual_indexes)
    return MemoryNeed(
        (patches * (pads + TEXT_PER_PATCH) + TOKEN_STEP) * per_token,
        2 + settings.static_baseline,
        (patches + 2)
        * pads
        * text.hidden_size
        * layers
        * size,  # the static one, and one that is being replaced
    )
