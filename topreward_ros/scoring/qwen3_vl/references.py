"""Two other ways to the same numbers, to compare with: slower, for tests and the benchmark.

`PlainForward` is one ordinary forward pass of transformers per prefix and prompt, as LeRobot's port of
TOPReward does it. `PrefixCache` keeps keys and values of the complete patches in transformers' own cache and
runs odd tail and prompt behind them, once per prompt, as the method's authors describe their code.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers.cache_utils import DynamicCache

from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.scoring import patches
from topreward_ros.scoring.base import PrefixScore, ScorerInfo, SequentialScorer
from topreward_ros.scoring.patches import Preprocessing
from topreward_ros.scoring.question.answers import AnswerReader
from topreward_ros.scoring.question.prompts import PromptTokens
from topreward_ros.scoring.qwen3_vl.temporal_patch import Patch, pair_up, patch_positions
from topreward_ros.scoring.shown_video import shown_video

if TYPE_CHECKING:
    from transformers import Qwen3VLForConditionalGeneration


class _Reference(SequentialScorer):
    """What both ways share: the token stream of a video, patch by patch, and the answer tokens."""

    def __init__(
        self,
        model: Qwen3VLForConditionalGeneration,
        tokens: PromptTokens,
        preprocessing: Preprocessing,
        info: ScorerInfo,
        sample_rate: float = 0.0,
    ) -> None:
        self.info = info
        self._sample_rate = sample_rate
        self._model = model
        self._tokens = tokens
        self._reader = AnswerReader(tokens.answer_set, contrastive=False, model=info.model_id)
        self._preprocessing = preprocessing
        vision: Any = model.config.vision_config
        self._patch_side: int = vision.patch_size
        self._merge_side: int = vision.spatial_merge_size

    def score_one(self, request: ScoreRequest) -> PrefixScore:
        """See `PrefixScorer.score`; without a static baseline."""
        instruction, prefix = request.instruction, request.prefix
        video = pair_up(shown_video(prefix, self._sample_rate))
        height, width = prefix[0].image.shape[:2]
        size = patches.frame_size(height, width, self._patch_side * self._merge_side, self.info.max_pixels)
        with torch.inference_mode():
            answers = [self._answer(video, size, ids) for ids in self._tokens.after_video(instruction)]
        return replace(self._reader.averaged(answers), num_frames=len(prefix))

    def close(self) -> None:
        """See `PrefixScorer.close`."""
        del self._model

    @abstractmethod
    def _answer(self, video: list[Patch], size: tuple[int, int], prompt: list[int]) -> list[float]:
        """Log-probabilities of the answers after ``video``, resized to ``size``, and ``prompt``."""

    def _pixels(self, patch: Patch, size: tuple[int, int]) -> torch.Tensor:
        first, second = (patches.resize(frame.image, size) for frame in (patch.first, patch.second))
        return patches.cut(first, second, self._preprocessing, self._patch_side, self._merge_side)

    def _ids(self, patch: Patch, first: bool, size: tuple[int, int]) -> tuple[list[int], int]:
        """Token ids of a patch, and how many stand before its pads."""
        before = self._tokens.before_patch(patch.seconds, first)
        side = self._patch_side * self._merge_side
        pads = [self._tokens.video_pad] * (size[0] // side * (size[1] // side))
        return [*before, *pads, self._tokens.vision_end], len(before)

    def _read(self, logits: torch.Tensor) -> list[float]:
        read: list[float] = torch.log_softmax(logits.float(), dim=-1)[list(self._tokens.answers)].tolist()
        return read


@contextmanager
def _learned_embeddings(
    model: Qwen3VLForConditionalGeneration, learned: Sequence[tuple[int, np.ndarray]]
) -> Iterator[None]:
    """Within, the vectors of a soft prompt stand in the place of the embeddings from their places on."""

    def put(module: Any, arguments: Any, embeddings: torch.Tensor) -> torch.Tensor:
        embeddings = embeddings.clone()
        for place, vectors in learned:
            embeddings[0, place : place + len(vectors)] = torch.from_numpy(vectors).to(embeddings)
        return embeddings

    hook = model.get_input_embeddings().register_forward_hook(put)
    try:
        yield
    finally:
        hook.remove()


class PlainForward(_Reference):
    """A whole forward pass for every prefix and prompt; the model finds positions and mask by itself."""

    def _answer(self, video: list[Patch], size: tuple[int, int], prompt: list[int]) -> list[float]:
        ids = [token for k, patch in enumerate(video) for token in self._ids(patch, k == 0, size)[0]]
        stream = torch.tensor([[*ids, *prompt]], device=self._model.device)
        learned = [(len(ids) + place, vectors) for place, vectors in self._tokens.learned(len(prompt))]
        pixels = torch.cat([self._pixels(patch, size) for patch in video])
        grid = [[len(video), size[0] // self._patch_side, size[1] // self._patch_side]]
        with _learned_embeddings(self._model, learned):
            logits = self._model(
                input_ids=stream,
                pixel_values_videos=pixels.to(self._model.device, self._model.dtype),
                video_grid_thw=torch.tensor(grid, device=self._model.device),
                mm_token_type_ids=2 * (stream == self._tokens.video_pad).int(),
                use_cache=False,
                logits_to_keep=1,
            ).logits
        return self._read(logits[0, -1])


class PrefixCache(_Reference):
    """Complete patches stay in a growing KV cache; odd last patch and prompt run behind it."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._start_over()

    def _start_over(self) -> None:
        self._cache = DynamicCache()
        self._kept: list[Patch] = []
        self._position = 0

    def _answer(self, video: list[Patch], size: tuple[int, int], prompt: list[int]) -> list[float]:
        complete = [patch for patch in video if patch.first is not patch.second]
        if self._kept != complete[: len(self._kept)]:
            self._start_over()
        for patch in complete[len(self._kept) :]:
            self._position = self._run_patch(patch, size, first=not self._kept)
            self._kept.append(patch)
        length, position = self._cache.get_seq_length(), self._position
        if len(complete) < len(video):
            position = self._run_patch(video[-1], size, first=not complete)
        positions = torch.arange(position, position + len(prompt)).expand(3, -1)
        with _learned_embeddings(self._model, self._tokens.learned(len(prompt))):
            embeddings = self._model.get_input_embeddings()(torch.tensor([prompt], device=self._model.device))
        hidden = self._run(embeddings, positions)
        self._cache.crop(length - self._cache.get_seq_length())  # by how many tokens, as a negative number
        return self._read(self._model.lm_head(hidden[0, -1]))

    def _run_patch(self, patch: Patch, size: tuple[int, int], first: bool) -> int:
        """Add a patch to the cache; returns the position after it."""
        ids, before = self._ids(patch, first, size)
        device, dtype = self._model.device, self._model.dtype
        rows, columns = size[0] // self._patch_side, size[1] // self._patch_side
        grid = torch.tensor([[1, rows, columns]], device=device)
        encoded = self._model.model.visual(self._pixels(patch, size).to(device, dtype), grid_thw=grid)
        embeddings = self._model.get_input_embeddings()(torch.tensor([ids], device=device))
        is_pad = torch.tensor([ids], device=device) == self._tokens.video_pad
        embeddings = embeddings.masked_scatter(is_pad[..., None], encoded.pooler_output.to(embeddings.dtype))
        rows, columns = rows // self._merge_side, columns // self._merge_side
        start = self._position
        positions, after = patch_positions(start, before, rows, columns)
        self._run(embeddings, positions, is_pad, encoded.deepstack_features)
        return after

    def _run(
        self,
        embeddings: torch.Tensor,
        positions: torch.Tensor,
        is_pad: torch.Tensor | None = None,
        deepstack: list[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        hidden: torch.Tensor = self._model.model.language_model(
            inputs_embeds=embeddings,
            position_ids=positions[:, None].to(embeddings.device),
            past_key_values=self._cache,
            use_cache=True,
            visual_pos_masks=is_pad,
            deepstack_visual_embeds=deepstack,
        ).last_hidden_state
        return hidden
