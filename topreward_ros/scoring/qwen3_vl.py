"""Exact incremental scoring with Qwen3-VL: log p(" True") after a video that grows by a frame per call.

Everything is computed once. A prefix is a list of temporal patches, two frames each. What was committed
for the last prefix is compared with the patches of this one: the common beginning is kept, the rest is
rolled back, and what is new is appended. A new episode, a skipped tick, a thinned prefix and a step back
are all this one case. So is an odd last frame: it makes a patch with itself, which the completed patch
replaces. The prompt runs behind the video and is never committed.

The numbers are those of one plain forward pass over the whole stream, and do not depend on what was
scored before: patches are always computed one by one, so every call repeats the same arithmetic.

The stream is that of transformers 4.57, which the method's authors pinned:

    <|im_start|>user\\n<0.2 seconds><|vision_start|>N pads<|vision_end|><1.2 seconds>... The above video ...

It is built here, without the processor; positions and attention mask are explicit, so nothing depends on
a state inside the model. This module does not choose frames, keep time, or interpret a score.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, nan
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from transformers.cache_utils import Cache

from topreward_ros.core.frames import Frame
from topreward_ros.scoring import patches
from topreward_ros.scoring.base import PrefixScore, PrefixScorer, ScorerError, ScorerInfo, ScorerSettings
from topreward_ros.scoring.patches import Preprocessing
from topreward_ros.scoring.prompts import PromptTokens

if TYPE_CHECKING:
    from transformers import Qwen3VLForConditionalGeneration

#: Room for the tokens of a patch that are not pads: its time, and where vision starts and ends.
_TEXT_PER_PATCH = 16


class Patch(NamedTuple):
    """Two frames that become one step of the video, and their time. Equal only for the same objects."""

    first: Frame
    second: Frame  #: the same as ``first`` for an odd last frame
    seconds: float  #: mean time of the two since the episode's first frame


class PatchFeatures(NamedTuple):
    """What the vision model makes of a patch. A token stands for a block of merged pixel patches."""

    rows: int  #: of tokens
    columns: int
    embeddings: torch.Tensor  #: (rows * columns, hidden), take the place of the pads' embeddings
    deepstack: list[torch.Tensor]  #: (rows * columns, hidden) each, added after the first language layers


class Qwen3VLScorer(PrefixScorer):
    """Scores prefixes with a loaded `Qwen3VLForConditionalGeneration`; `registry` loads one."""

    def __init__(
        self,
        model: Qwen3VLForConditionalGeneration,
        tokens: PromptTokens,
        preprocessing: Preprocessing,
        settings: ScorerSettings,
        info: ScorerInfo,
    ) -> None:
        self.info = info
        self._model = model
        self._tokens = tokens
        self._preprocessing = preprocessing
        self._settings = settings
        vision: Any = model.config.vision_config
        self._patch: int = vision.patch_size  # [pixels], side of what the vision model takes as one input
        self._merge: int = vision.spatial_merge_size  # side of the block of patches that makes one token
        self._forget()

    def _forget(self) -> None:
        """Start as new: nothing seen, nothing computed, no cache allocated."""
        self._size = (0, 0)  # (height, width) of the frames as the model sees them
        self._resized: dict[Frame, torch.Tensor] = {}  # the newest frames, each (3, height, width) uint8
        self._features: dict[tuple[Frame, Frame], PatchFeatures] = {}
        self._video = _VideoState(self._model, self._tokens, self._settings.max_frames)
        self._static_video = _VideoState(self._model, self._tokens, self._settings.max_frames)
        self._static_scores: dict[tuple[str, tuple[float, ...]], float] = {}

    def score(self, instruction: str, prefix: Sequence[Frame]) -> PrefixScore:
        """See `PrefixScorer.score`."""
        video = _pair_up(prefix)
        try:
            with torch.inference_mode():
                return self._score(instruction, video)
        except ScorerError:
            self._forget()
            raise
        except Exception as error:
            self._forget()
            if not is_out_of_memory(error):
                raise ScorerError(f"the model failed on {len(prefix)} frames: {error}") from error
        # Out of the handler, so that the error no longer holds on to what filled the memory.
        _free(self._model.device)
        raise ScorerError(
            f"out of memory on {self.info.device} with {len(prefix)} frames of up to {self.info.max_pixels} "
            f"pixels: set a smaller max_pixels (now {self._settings.max_pixels}) or max_frames "
            f"(now {self._settings.max_frames}), or another device"
        )

    def close(self) -> None:
        """See `PrefixScorer.close`."""
        device = self._model.device
        self._forget()
        del self._video, self._static_video, self._model
        _free(device)

    # ---- the hot path, from frames to numbers -------------------------------------------------------

    def _score(self, instruction: str, video: list[Patch]) -> PrefixScore:
        start = video[0].first
        self._use_size_of(start)
        prompt = self._tokens.after_video(instruction)

        log_true, log_false = self._video.answer(video, [self._see(patch) for patch in video], prompt)
        static = nan
        if self._settings.static_baseline:
            static = self._score_static(instruction, prompt, video)

        kept = {(patch.first, patch.second) for patch in video} | {(start, start)}
        self._features = {frames: features for frames, features in self._features.items() if frames in kept}
        newest = video[-1]
        self._resized = {
            f: pixels for f, pixels in self._resized.items() if f in (newest.first, newest.second)
        }
        return PrefixScore(log_true, log_false, log_prob_static=static)

    def _score_static(self, instruction: str, prompt: list[int], video: list[Patch]) -> float:
        """log p(" True") of the first frame repeated at the times of ``video``."""
        start = video[0].first
        if len(self._static_scores) >= 1024 or not self._static_video.starts_with(start):
            self._static_scores.clear()  # another episode, or a very long one
        layout = (instruction, tuple(patch.seconds for patch in video))
        if layout not in self._static_scores:
            still = [Patch(start, start, patch.seconds) for patch in video]
            features = [self._see(patch) for patch in still]
            self._static_scores[layout], _ = self._static_video.answer(still, features, prompt)
        return self._static_scores[layout]

    def _use_size_of(self, frame: Frame) -> None:
        """All frames of an episode are seen at the size of its first; features of another size are void."""
        height, width = frame.image.shape[:2]
        unit = self._patch * self._merge
        size = patches.frame_size(height, width, unit, self.info.max_pixels)
        if size != self._size:
            self._forget()
            self._size = size

    def _see(self, patch: Patch) -> PatchFeatures:
        """Vision features of a patch, computed when it is first seen. Patches do not look at each other."""
        frames = (patch.first, patch.second)
        if frames not in self._features:
            for frame in frames:
                if frame not in self._resized:
                    self._resized[frame] = patches.resize(frame.image, self._size)
            first, second = (self._resized[frame] for frame in frames)
            # (rows * columns, 3 * 2 * patch * patch)
            pixels = patches.cut(first, second, self._preprocessing, self._patch, self._merge)
            rows, columns = self._size[0] // self._patch, self._size[1] // self._patch
            device, dtype = self._model.device, self._model.dtype
            grid = torch.tensor([[1, rows, columns]], device=device)
            seen = self._model.model.visual(pixels.to(device, dtype), grid_thw=grid)
            self._features[frames] = PatchFeatures(
                rows // self._merge, columns // self._merge, seen.pooler_output, seen.deepstack_features
            )
        return self._features[frames]


def patch_positions(start: int, before: int, rows: int, columns: int) -> tuple[torch.Tensor, int]:
    """M-RoPE positions (3, before + rows * columns + 1) of a patch's tokens, and the position after them.

    The three count time, row and column. In text all three count tokens; a patch stands at one time and
    spreads in rows and columns, and the text after it goes on behind its longer side.
    """
    corner = start + before
    after = corner + max(rows, columns)
    positions = torch.empty(3, before + rows * columns + 1, dtype=torch.long)
    positions[:, :before] = torch.arange(start, corner)
    grid = positions[:, before:-1].view(3, rows, columns)
    grid[0] = corner
    grid[1] = torch.arange(corner, corner + rows)[:, None]
    grid[2] = torch.arange(corner, corner + columns)[None, :]
    positions[:, -1] = after
    return positions, after + 1


class _Committed(NamedTuple):
    """A patch in the cache, and where the stream stands after it."""

    patch: Patch
    length: int  #: tokens so far
    position: int  #: next M-RoPE position; a patch takes fewer positions than tokens


class _VideoState:
    """The language model's memory of one video: a cache, and the patches committed to it."""

    def __init__(self, model: Qwen3VLForConditionalGeneration, tokens: PromptTokens, max_frames: int) -> None:
        self._model = model
        self._tokens = tokens
        self._max_patches = (max_frames + 1) // 2
        self._cache = _CommittedCache()
        self._committed: list[_Committed] = []

    def starts_with(self, frame: Frame) -> bool:
        return bool(self._committed) and self._committed[0].patch.first is frame

    def answer(
        self, video: list[Patch], features: list[PatchFeatures], prompt: list[int]
    ) -> tuple[float, float]:
        """Log-probabilities of the true and the false answer after ``video`` and ``prompt``."""
        known = self._roll_back_to(video)
        if not known:  # room for the whole episode: too little memory shows now, not in the middle of it
            pads = features[0].rows * features[0].columns
            self._cache.reserve(self._max_patches * (pads + _TEXT_PER_PATCH) + len(prompt))
        for patch, seen in zip(video[known:], features[known:], strict=True):
            self._append(patch, seen)
        return self._ask(prompt)

    def _roll_back_to(self, video: list[Patch]) -> int:
        """Forget the committed patches from the first that differs; returns how many are left."""
        known = 0
        for done, patch in zip(self._committed, video, strict=False):
            if done.patch != patch:
                break
            known += 1
        del self._committed[known:]
        self._cache.length = self._committed[-1].length if self._committed else 0
        return known

    def _append(self, patch: Patch, seen: PatchFeatures) -> None:
        """Run the language model over one patch and commit it."""
        before = self._tokens.before_patch(patch.seconds, first=not self._committed)
        pads = seen.rows * seen.columns
        ids = [*before, *[self._tokens.video_pad] * pads, self._tokens.vision_end]

        embeddings = self._embed(ids)  # (1, tokens, hidden)
        where = slice(len(before), len(before) + pads)
        embeddings[0, where] = seen.embeddings.to(embeddings.dtype)
        is_pad = torch.zeros(1, len(ids), dtype=torch.bool, device=embeddings.device)
        is_pad[0, where] = True

        positions, after = patch_positions(self._position(), len(before), seen.rows, seen.columns)
        self._run(embeddings, positions, is_pad, seen.deepstack)
        self._cache.length += len(ids)
        self._committed.append(_Committed(patch, self._cache.length, after))

    def _ask(self, prompt: list[int]) -> tuple[float, float]:
        """Run the prompt behind the committed patches, commit nothing, and read the answer tokens."""
        start = self._position()
        positions = torch.arange(start, start + len(prompt)).expand(3, -1)
        hidden = self._run(self._embed(prompt), positions)  # (1, tokens, hidden)
        logits = self._model.lm_head(hidden[:, -1])  # (1, vocabulary)
        log_probs = torch.log_softmax(logits[0].float(), dim=-1)
        answers = log_probs[[self._tokens.answer_true, self._tokens.answer_false]].tolist()
        if not all(isfinite(value) for value in answers):
            raise ScorerError(
                f"log p(True), log p(False) are {answers} after {len(self._committed)} patches in "
                f"{self._model.dtype}: try dtype float32, or check the weights"
            )
        return answers[0], answers[1]

    def _position(self) -> int:
        return self._committed[-1].position if self._committed else 0

    def _embed(self, ids: list[int]) -> torch.Tensor:
        embedded: torch.Tensor = self._model.get_input_embeddings()(
            torch.tensor([ids], device=self._model.device)
        )
        return embedded

    def _run(
        self,
        embeddings: torch.Tensor,
        positions: torch.Tensor,
        is_pad: torch.Tensor | None = None,
        deepstack: list[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Last hidden states (1, tokens, hidden) of tokens that follow what is committed.

        ``embeddings`` (1, tokens, hidden), ``positions`` (3, tokens), ``is_pad`` (1, tokens).
        """
        tokens = embeddings.shape[1]
        total = self._cache.length + tokens
        self._cache.reserve(total)
        device = embeddings.device
        sees = torch.ones(tokens, total, dtype=torch.bool, device=device).tril(self._cache.length)
        hidden: torch.Tensor = self._model.model.language_model(
            inputs_embeds=embeddings,
            attention_mask=sees[None, None],  # (1, 1, tokens, total)
            position_ids=positions[:, None].to(device),  # (3, 1, tokens)
            past_key_values=self._cache,
            visual_pos_masks=is_pad,
            deepstack_visual_embeds=deepstack,
        ).last_hidden_state
        return hidden


class _CommittedCache(Cache):
    """Keys and values in place: written behind ``length``, kept only when ``length`` is moved past them."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.length = 0
        self._capacity = 0
        self._stores: list[torch.Tensor] = []  # per layer (2, 1, heads, capacity, head size): keys, values

    def reserve(self, tokens: int) -> None:
        """Make room for ``tokens`` in all; grows by a quarter at least, so that copies stay rare."""
        if tokens <= self._capacity:
            return
        self._capacity = max(tokens, self._capacity + self._capacity // 4)
        for layer, old in enumerate(self._stores):
            self._stores[layer] = old.new_empty(*old.shape[:3], self._capacity, old.shape[4])
            self._stores[layer][..., : self.length, :] = old[..., : self.length, :]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Called by each language layer, with (1, heads, tokens, head size); returns all up to these."""
        if layer_idx == len(self._stores):
            _, heads, _, head_size = key_states.shape
            self._stores.append(key_states.new_empty(2, 1, heads, self._capacity, head_size))
        total = self.length + key_states.shape[2]
        store = self._stores[layer_idx][..., :total, :]
        store[0][..., self.length :, :] = key_states
        store[1][..., self.length :, :] = value_states
        return store[0], store[1]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.length


def _pair_up(prefix: Sequence[Frame]) -> list[Patch]:
    """The temporal patches of a prefix; an odd last frame, or one alone, is repeated."""
    if not prefix:
        raise ScorerError("a prefix of no frames cannot be scored: pass at least one")
    for frame in prefix:
        shape, dtype = frame.image.shape, frame.image.dtype
        if len(shape) != 3 or shape[2] != 3 or 0 in shape or dtype != np.uint8:
            raise ScorerError(f"a frame is {dtype} of shape {shape}: pass uint8 of shape (height, width, 3)")
    start = prefix[0].stamp_ns
    seconds = [(frame.stamp_ns - start) / 1e9 for frame in prefix]
    last = len(prefix) - 1
    return [
        Patch(prefix[i], prefix[j], (seconds[i] + seconds[j]) / 2)
        for i in range(0, len(prefix), 2)
        for j in [min(i + 1, last)]
    ]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether PyTorch or Python gave up for want of memory, on any device."""
    said = str(error)
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
        sign in said for sign in ("allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")
    )


def _free(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
