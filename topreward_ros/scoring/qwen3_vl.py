"""Exact incremental scoring with Qwen3-VL: log p(" True") after a video that grows by a frame per call.

Everything is computed once. A prefix is a list of temporal patches, two frames each. What was committed
for the last prefix is compared with the patches of this one (`video_memory`): the common beginning is kept,
the rest is rolled back, and what is new runs together with all prompts. A new episode, a skipped tick, a
thinned prefix and a step back are all this one case. So is an odd last frame: it makes a patch with itself,
which the completed patch replaces.

The numbers are those of one plain forward pass per prompt over the whole stream, to rounding: what was scored
before decides only how the same sums are grouped (below 1e-5 nat in float32).

With several prompts the score is the mean of their log-probabilities. The contrastive score, log p(" True") -
log p(" False"), is given as the log-probability of True where only the two are possible, log sigmoid of that
difference: the same order of values, and nats at most 0 as everywhere.

The stream is that of transformers 4.57, which the method's authors pinned:

    <|im_start|>user\\n<0.2 seconds><|vision_start|>N pads<|vision_end|><1.2 seconds>... The above video ...

It is built here, without the processor; positions and attention mask are explicit, so nothing depends on
a state inside the model. This module does not choose frames, keep time, or interpret a score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite, nan
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from topreward_ros.core.frames import Frame
from topreward_ros.scoring import patches
from topreward_ros.scoring.base import PrefixScore, PrefixScorer, ScorerError, ScorerInfo, ScorerSettings
from topreward_ros.scoring.patches import Preprocessing
from topreward_ros.scoring.prompt_tree import PromptTree, make_prompt_tree
from topreward_ros.scoring.prompts import PromptTokens
from topreward_ros.scoring.video_memory import Patch, PatchFeatures, VideoMemory

if TYPE_CHECKING:
    from transformers import Qwen3VLForConditionalGeneration

#: Patches in one pass of the vision model at most, so that catching up on a long video needs bounded memory.
_SEEN_AT_ONCE = 8


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
        self._video = VideoMemory(self._model, self._tokens, self._settings.max_frames)
        self._static_video = VideoMemory(self._model, self._tokens, self._settings.max_frames)
        self._static_scores: dict[tuple[str, tuple[float, ...]], float] = {}

    def score(self, instruction: str, prefix: Sequence[Frame]) -> PrefixScore:
        """See `PrefixScorer.score`."""
        video = pair_up(prefix)
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
        prompts = make_prompt_tree(self._tokens.after_video(instruction))

        score = self._read(self._video.answer(video, self._see(video), prompts), len(video))
        static = nan
        if self._settings.static_baseline:
            static = self._score_static(instruction, prompts, video)

        kept = {(patch.first, patch.second) for patch in video} | {(start, start)}
        self._features = {frames: features for frames, features in self._features.items() if frames in kept}
        newest = video[-1]
        self._resized = {
            f: pixels for f, pixels in self._resized.items() if f in (newest.first, newest.second)
        }
        return replace(score, log_prob_static=static)

    def _read(self, answers: torch.Tensor, seen: int) -> PrefixScore:
        """From log-probabilities (prompts, 2) of the true and the false answer after ``seen`` patches."""
        if self._settings.contrastive:
            difference = answers[:, 0] - answers[:, 1]
            answers = torch.stack([difference, -difference], dim=1).sigmoid().log()
        pairs = answers.tolist()  # the only wait for the device
        if not all(isfinite(value) for pair in pairs for value in pair):
            raise ScorerError(
                f"log p(True), log p(False) are {', '.join(map(str, pairs))} after {seen} patches in "
                f"{self._model.dtype}: try dtype float32, or check the weights"
            )
        true, false = zip(*pairs, strict=True)
        return PrefixScore(fmean(true), fmean(false), log_prob_std=stdev(true) if len(true) > 1 else nan)

    def _score_static(self, instruction: str, prompts: PromptTree, video: list[Patch]) -> float:
        """log p(" True") of the first frame repeated at the times of ``video``."""
        start = video[0].first
        if len(self._static_scores) >= 1024 or not self._static_video.starts_with(start):
            self._static_scores.clear()  # another episode, or a very long one
        layout = (instruction, tuple(patch.seconds for patch in video))
        if layout not in self._static_scores:
            still = [Patch(start, start, patch.seconds) for patch in video]
            answers = self._static_video.answer(still, self._see(still), prompts)
            self._static_scores[layout] = self._read(answers, len(still)).log_prob
        return self._static_scores[layout]

    def _use_size_of(self, frame: Frame) -> None:
        """All frames of an episode are seen at the size of its first; features of another size are void."""
        height, width = frame.image.shape[:2]
        unit = self._patch * self._merge
        size = patches.frame_size(height, width, unit, self.info.max_pixels)
        if size != self._size:
            self._forget()
            self._size = size

    def _see(self, video: list[Patch]) -> list[PatchFeatures]:
        """Features of every patch, computed when it is first seen. Patches do not look at each other."""
        new = dict.fromkeys((patch.first, patch.second) for patch in video)
        unseen = [frames for frames in new if frames not in self._features]
        for start in range(0, len(unseen), _SEEN_AT_ONCE):
            self._see_new(unseen[start : start + _SEEN_AT_ONCE])
        return [self._features[patch.first, patch.second] for patch in video]

    def _see_new(self, pairs: list[tuple[Frame, Frame]]) -> None:
        cut = []
        for pair in pairs:
            for frame in pair:
                if frame not in self._resized:
                    self._resized[frame] = patches.resize(frame.image, self._size)
            first, second = (self._resized[frame] for frame in pair)
            # (rows * columns, 3 * 2 * patch * patch)
            cut.append(patches.cut(first, second, self._preprocessing, self._patch, self._merge))
        rows, columns = self._size[0] // self._patch, self._size[1] // self._patch
        device, dtype = self._model.device, self._model.dtype
        grid = torch.tensor([[1, rows, columns]] * len(pairs), device=device)
        seen = self._model.model.visual(torch.cat(cut).to(device, dtype), grid_thw=grid)
        rows, columns = rows // self._merge, columns // self._merge
        embeddings = seen.pooler_output.split(rows * columns)
        deepstack = [layer.split(rows * columns) for layer in seen.deepstack_features]
        for number, pair in enumerate(pairs):
            # Copies, so that one pair that is kept does not keep the memory of all.
            layers = [layer[number].clone() for layer in deepstack]
            self._features[pair] = PatchFeatures(rows, columns, embeddings[number].clone(), layers)


def pair_up(prefix: Sequence[Frame]) -> list[Patch]:
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
