"""How much memory an episode can take at most, refused before the first frame where there is less.

Everything that grows with an episode is bounded by ``max_frames`` and ``max_pixels``: the KV caches of the
videos that are held, and the features of their patches. The weights are not counted: they are there already.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from topreward_ros.core.frames import FEWEST_FRAMES
from topreward_ros.scoring import device
from topreward_ros.scoring.base import ScorerError, ScorerSettings
from topreward_ros.scoring.qwen3_vl.language import TOKEN_STEP
from topreward_ros.scoring.qwen3_vl.video_cache import TEXT_PER_PATCH

if TYPE_CHECKING:
    from transformers import Qwen3VLForConditionalGeneration


class MemoryNeed(NamedTuple):
    """Memory that scoring an episode of any length takes at most, beside the weights."""

    kv_cache: int  #: [bytes] of one video
    videos: int  #: that are cached: the episode, what the next thinning leaves of it, and the static one
    features: int  #: [bytes] of all patches

    @property
    def total(self) -> int:
        """[bytes] of everything together."""
        return self.kv_cache * self.videos + self.features


def memory_need(config: Any, settings: ScorerSettings, frame_pixels: int, size: int) -> MemoryNeed:
    """The need of ``settings.max_frames`` frames of ``frame_pixels`` pixels each, as they are shown.

    ``config`` is the model's Qwen3VLConfig, ``size`` the bytes of one number. The tokens of the prompts, some
    hundreds, come on top.
    """
    text, vision = config.text_config, config.vision_config
    shown, kept = ((frames + 1) // 2 for frames in (settings.shown_frames, settings.max_frames))
    pads = -(-frame_pixels // (vision.patch_size * vision.spatial_merge_size) ** 2)
    head_size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    per_token = text.num_hidden_layers * 2 * text.num_key_value_heads * head_size * size
    layers = 1 + len(vision.deepstack_visual_indexes)
    return MemoryNeed(
        kv_cache=(shown * (pads + TEXT_PER_PATCH) + TOKEN_STEP) * per_token,
        videos=1 + (not settings.fixed_length) + settings.static_baseline,
        # Two patches more: that of the static video, and one that is replaced while the old is still there.
        features=(kept + 2) * pads * text.hidden_size * layers * size,
    )


def check_memory(model: Qwen3VLForConditionalGeneration, settings: ScorerSettings, frame_pixels: int) -> None:
    """Raise `ScorerError` now for what would run out of memory in the middle of an episode.

    ``model`` is on its device; ``frame_pixels`` is the most that a frame can have.
    """

    name = "fixed_length" if settings.fixed_length else "max_frames"
    frames_now = settings.fixed_length or settings.max_frames

    def need_of(frames: int) -> MemoryNeed:
        changed = (
            replace(settings, fixed_length=frames)
            if settings.fixed_length
            else replace(settings, max_frames=frames)
        )
        return memory_need(model.config, changed, frame_pixels, model.dtype.itemsize)

    need = need_of(frames_now)
    free = device.free_memory(model.device)
    if need.total <= free:
        return
    even = range(frames_now // 2 * 2, 0, -2)  # a model merges two frames into one patch
    fitting = next((frames for frames in even if need_of(frames).total <= free), 0)
    fewer = (
        f"{name} to {fitting}, or a smaller max_pixels"
        if fitting >= FEWEST_FRAMES
        else "a smaller max_pixels"
    )
    raise ScorerError(
        f"{settings.shown_frames} frames of up to {frame_pixels} pixels need {need.total / 1e9:.2f} GB "
        f"beside the weights ({need.videos} times {need.kv_cache / 1e9:.2f} GB of KV cache, "
        f"{need.features / 1e9:.2f} GB of features), and {free / 1e9:.2f} GB are free on {model.device}: "
        f"set {fewer}, or another device"
    )
