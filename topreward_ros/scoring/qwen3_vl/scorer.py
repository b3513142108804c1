"""Exact incremental scoring with Qwen3-VL: log p(" True") after a video that grows by a frame per call.

Everything is computed once. A prefix is a list of temporal patches, two frames each. What was committed
for the last prefix is compared with the patches of this one (`video_memory`): the common beginning is kept,
the rest is rolled back, and what is new runs together with all prompts. A new episode, a skipped tick, a
thinned prefix and a step back are all this one case. So is an odd last frame: it makes a patch with itself,
which the completed patch replaces.

The numbers are those of one plain forward pass per prompt over the whole stream, to rounding: what was scored
before decides only how the same sums are grouped (about 1e-5 nat in float32).

With several prompts the score is the mean of their log-probabilities. The contrastive score, log p(" True") -
log p(" False"), is given as the log-probability of True where only the two are possible, log sigmoid of that
difference: the same order of values, and nats at most 0 as everywhere.

The stream is that of transformers 4.57, which the method's authors pinned:

    <|im_start|>user\\n<0.2 seconds><|vision_start|>N pads<|vision_end|><1.2 seconds>... The above video ...

It is built here, without the processor; positions and attention mask are explicit, so nothing depends on
a state inside the model. This module does not choose frames, keep time, or interpret a score.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch

from topreward_ros.core.frames import EpisodeBuffer, Frame
from topreward_ros.scoring.base import (
    PrefixScore,
    PrefixScorer,
    ScorerError,
    ScorerInfo,
    ScorerSettings,
    check_frames,
    in_a_line,
)
from topreward_ros.scoring.device import OutOfMemory, errors_named, free_memory, give_back, is_out_of_memory
from topreward_ros.scoring.frame_budget import FrameBudget
from topreward_ros.scoring.patches import Preprocessing
from topreward_ros.scoring.question.prompts import PromptTokens
from topreward_ros.scoring.qwen3_vl.cuda_graphs import Recorder
from topreward_ros.scoring.qwen3_vl.episode_cache import Engine, EpisodeMemory, layout_of, score_together
from topreward_ros.scoring.qwen3_vl.language import LanguageModel
from topreward_ros.scoring.qwen3_vl.video_cache import memory_need
from topreward_ros.scoring.qwen3_vl.vision import VisionModel

if TYPE_CHECKING:
    from transformers import Qwen3VLForConditionalGeneration

_log = logging.getLogger(__name__)

_PREFILLED_AT_ONCE = 4  # patches per step between two ticks; a tick waits for one step at most
_MOST_AT_ONCE = 8  # episodes; a pass of more tokens is no faster
_LEAD = 4  # the cache behind the next thinning is begun when this part of the budget is still to come


class Qwen3VLScorer(PrefixScorer):
    """Scores prefixes with a loaded `Qwen3VLForConditionalGeneration`; `registry` loads one.

    A `Qwen3VLMoeForConditionalGeneration` has the same parts, and is scored with in the same way.
    """

    def __init__(
        self,
        model: Qwen3VLForConditionalGeneration,
        tokens: PromptTokens,
        preprocessing: Preprocessing,
        settings: ScorerSettings,
        info: ScorerInfo,
        recorder: Recorder | None = None,
    ) -> None:
        """``recorder``: of the model's device, where ticks may be recorded."""
        self.info = info
        self._model = model
        self._settings = settings
        self._recorder = recorder
        vision: Any = model.config.vision_config
        self._engine = Engine(
            VisionModel(model.model.visual, recorder),
            LanguageModel(model, recorder),
            tokens,
            preprocessing,
            settings,
            info.max_pixels,
            vision.patch_size,
            vision.spatial_merge_size,
        )
        self._episode = EpisodeMemory(self._engine)
        self._side_by_side: dict[Frame, EpisodeMemory] = {}  # by first frame, if several at once
        self._most_at_once = 0  # of these; 0: not looked at yet
        self._budget = FrameBudget(info, settings)

    def score(self, instruction: str, prefix: Sequence[Frame]) -> PrefixScore:
        """See `PrefixScorer.score`."""
        check_frames(prefix)
        while True:
            kept = self._budget.within(prefix)
            with suppress(OutOfMemory), errors_named(len(kept), self._forget), torch.inference_mode():
                return score_together(self._engine, [self._episode], [(instruction, kept)])[0]
            self._lower_budget(len(kept))

    def score_all(self, requests: Sequence[tuple[str, Sequence[Frame]]]) -> list[PrefixScore | ScorerError]:
        """See `PrefixScorer.score_all`: every episode has a memory of its own, and all share each pass."""
        if len(requests) > 1:
            try:
                with torch.inference_mode():
                    return [*self._score_side_by_side(requests)]
            except ScorerError:
                pass  # of one of them, which will say so again
            except Exception as error:
                if is_out_of_memory(error):
                    self._most_at_once = max(1, len(requests) // 2)
                _log.warning(
                    "%d episodes could not be scored together (%s): now one by one, and later at most %d",
                    *(len(requests), in_a_line(error), self.episodes_at_once()),
                )
        if self._side_by_side:  # only here is the error gone, and what its frames held on to
            self._side_by_side.clear()
            give_back(self._model.device)
        outcomes = super().score_all(requests)
        if len(requests) > 1:
            self._forget()
        return outcomes

    def _score_side_by_side(self, requests: Sequence[tuple[str, Sequence[Frame]]]) -> list[PrefixScore]:
        for _, prefix in requests:
            check_frames(prefix)
        known = self._side_by_side
        self._side_by_side = {
            prefix[0]: known.get(prefix[0]) or EpisodeMemory(self._engine) for _, prefix in requests
        }
        known.clear()  # the memory of episodes that are over
        kept = [(instruction, self._budget.within(prefix)) for instruction, prefix in requests]
        return score_together(self._engine, list(self._side_by_side.values()), kept)

    def episodes_at_once(self) -> int:
        """See `PrefixScorer.episodes_at_once`."""
        if not self._most_at_once:
            model = self._model
            need = memory_need(model.config, self._settings, self.info.max_pixels, model.dtype.itemsize)
            self._most_at_once = max(1, min(_MOST_AT_ONCE, free_memory(model.device) // need.total))
        return self._most_at_once

    def close(self) -> None:
        """See `PrefixScorer.close`."""
        device = self._model.device
        self._forget()
        self._side_by_side.clear()
        if self._recorder is not None:
            self._recorder.drop()
        del self._episode, self._engine, self._model
        give_back(device)

    # ---- between the ticks --------------------------------------------------------------------------

    def ahead(self, instruction: str, buffer: EpisodeBuffer) -> Iterator[None]:
        """See `PrefixScorer.ahead`: recordings, the baseline to come, the cache behind the next thinning."""
        yield from self.record_ahead()
        episode, settings = self._episode, self._settings
        rate, max_frames = settings.sample_rate, settings.max_frames
        if rate <= 0 or self._budget.is_lowered:  # what comes next is known of a whole budget only
            return
        if episode.left_behind:
            self._step(self._compare_layouts, instruction)
            yield
        stride = buffer.stride
        for ticks, (next_stride, prefix) in enumerate(buffer.forecast(rate, max_frames)):
            if not episode.prefix or prefix[0] is not episode.prefix[0]:
                return  # memory ran out, or the window slides: nothing of what is known will hold
            if next_stride != stride:
                stride = next_stride
                if ticks <= max_frames // _LEAD:
                    yield from self._prefill(instruction, [frame for frame in prefix if frame.image.size])
            if settings.static_baseline and episode.prefix:
                layout = layout_of(instruction, episode.pair_up(prefix))
                if not episode.knows_static(layout):  # of this start, as the prefix begins with it
                    self._step(episode.score_static, instruction, prefix[0], layout)
                    yield

    def record_ahead(self) -> Iterator[None]:
        """The part of `ahead` that makes recordings, one per step."""
        while self._recorder is not None and self._recorder.has_missed:
            self._step(self._recorder.record_missed)
            yield

    def _step(self, work: Callable[..., object], *arguments: Any) -> None:
        """Do a piece of work that a later score will need. Without memory for it, all is forgotten."""
        prefix = self._episode.prefix  # forgotten with the rest when memory runs out
        with suppress(OutOfMemory), errors_named(len(prefix), self._forget), torch.inference_mode():
            work(*arguments)
            return
        self._lower_budget(len(prefix))

    def _prefill(self, instruction: str, prefix: list[Frame]) -> Iterator[None]:
        """Bring the other cache to where the next thinning will leave the video, some patches a step."""
        episode = self._episode
        prompts = episode.prompts(instruction)
        video = [patch for patch in episode.pair_up(prefix) if patch.first is not patch.second]
        while episode.prefix and (known := episode.prefilled(video)) < len(video):
            self._step(episode.prefill, video[: known + _PREFILLED_AT_ONCE], prompts)
            yield

    def _compare_layouts(self, instruction: str) -> None:
        """Say how far the score stepped because the prefix was thinned: the same moment, seen both ways."""
        episode = self._episode
        frames = len(episode.left_behind)
        before = episode.score_left_behind(instruction)
        _log.info(
            "prefix thinned from %d to %d frames: log p(True) is %.3f instead of %.3f nat at the same moment",
            *(frames, len(episode.prefix), episode.newest_score.log_prob, before.log_prob),
        )

    # ---- when something fails -----------------------------------------------------------------------

    def _forget(self) -> None:
        self._episode.forget()
        if self._recorder is not None:
            self._recorder.forget_all()

    def _lower_budget(self, frames: int) -> None:
        """Go on with half of ``frames``, after memory ran out with them."""
        if self._recorder is not None:
            self._recorder.drop()
        give_back(self._model.device)
        self._budget.lower(frames)
