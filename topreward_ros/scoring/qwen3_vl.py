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
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from topreward_ros.core.frames import EpisodeBuffer, Frame
from topreward_ros.core.progress import NO_SCORE
from topreward_ros.scoring import patches
from topreward_ros.scoring.answers import read_answers
from topreward_ros.scoring.base import (
    PrefixScore,
    PrefixScorer,
    ScorerError,
    ScorerInfo,
    ScorerSettings,
    check_frames,
    in_a_line,
    seconds_of,
)
from topreward_ros.scoring.device import (
    OutOfMemory,
    errors_named,
    free_memory,
    give_back,
    is_out_of_memory,
    out_of_memory,
    send,
)
from topreward_ros.scoring.language import LanguageModel, Pass, PatchFeatures
from topreward_ros.scoring.patches import Preprocessing
from topreward_ros.scoring.prompt_tree import PromptTree, make_prompt_tree
from topreward_ros.scoring.prompts import PromptTokens, told_time
from topreward_ros.scoring.recording import Recorder
from topreward_ros.scoring.static_scores import Layout, StaticScores
from topreward_ros.scoring.video_memory import Patch, VideoMemory, answers_of, memory_need
from topreward_ros.scoring.vision import VisionModel

if TYPE_CHECKING:
    from transformers import Qwen3VLForConditionalGeneration

_log = logging.getLogger(__name__)

#: Patches in one pass of the vision model at most, so that catching up on a long video needs bounded memory.
_SEEN_AT_ONCE = 8
_PREFILLED_AT_ONCE = 4  # patches per step between two ticks; a tick waits for one step at most
_MOST_AT_ONCE = 8  # episodes; a pass of more tokens is no faster
_LEAD = 4  # the cache behind the next thinning is begun when this part of the budget is still to come
_FEWEST_FRAMES = 4


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
        parts: _Parts | None = None,
    ) -> None:
        """``recorder``: where ticks may be recorded, of the device; ``parts``: to share, of ``model``."""
        self.info = info
        self._model = model
        self._parts = parts or _Parts(
            VisionModel(model.model.visual, recorder), LanguageModel(model, recorder)
        )
        self._recorder = recorder
        self._tokens = tokens
        self._preprocessing = preprocessing
        self._settings = settings
        vision: Any = model.config.vision_config
        self._patch: int = vision.patch_size  # [pixels], side of what the vision model takes as one input
        self._merge: int = vision.spatial_merge_size  # side of the block of patches that makes one token
        self._budget = settings.max_frames  # less after memory has run out
        self._lanes: dict[Frame, Qwen3VLScorer] = {}  # one per episode, where several are scored together
        self._most_at_once = 0  # of these; 0: not looked at yet
        self._forget()

    def _forget(self) -> None:
        """Start as new: nothing seen, nothing computed, no cache allocated."""
        self._size = (0, 0)  # (height, width) of the frames as the model sees them
        self._resized: dict[Frame, torch.Tensor] = {}  # the newest frames, each (3, height, width) uint8
        self._features: dict[tuple[Frame, Frame], PatchFeatures] = {}
        self._video = self._new_memory()
        self._next_video = self._new_memory()
        self._static_video = self._new_memory()
        self._static_scores = StaticScores()
        self._prompt_trees: dict[str, PromptTree] = {}  # of the newest instruction
        self._prefix: Sequence[Frame] = ()  # that was scored last
        self._newest_score = NO_SCORE
        self._left_behind: Sequence[Frame] = ()  # the newest prefix as it would be had it not been thinned

    def _new_memory(self) -> VideoMemory:
        return VideoMemory(self._parts.language, self._tokens, self._settings.max_frames)

    def score(self, instruction: str, prefix: Sequence[Frame]) -> PrefixScore:
        """See `PrefixScorer.score`."""
        check_frames(prefix)
        while True:
            kept = self._within_budget(prefix)
            with suppress(OutOfMemory), errors_named(len(kept), self._forget), torch.inference_mode():
                return score_together([self], [(instruction, kept)])[0]
            self._lower_budget(kept)

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
        if self._lanes:  # only here is the error gone, and what its frames held on to
            self._lanes.clear()
            give_back(self._model.device)
        outcomes = super().score_all(requests)
        if len(requests) > 1:
            self._forget()
        return outcomes

    def _score_side_by_side(self, requests: Sequence[tuple[str, Sequence[Frame]]]) -> list[PrefixScore]:
        for _, prefix in requests:
            check_frames(prefix)
        known = self._lanes
        self._lanes = {prefix[0]: known.get(prefix[0]) or self._beside() for _, prefix in requests}
        known.clear()  # the memory of episodes that are over
        lanes = list(self._lanes.values())
        pairs = zip(lanes, requests, strict=True)
        return score_together(lanes, [(task, lane._within_budget(prefix)) for lane, (task, prefix) in pairs])

    def episodes_at_once(self) -> int:
        """See `PrefixScorer.episodes_at_once`."""
        if not self._most_at_once:
            model = self._model
            need = memory_need(model.config, self._settings, self.info.max_pixels, model.dtype.itemsize)
            self._most_at_once = max(1, min(_MOST_AT_ONCE, free_memory(model.device) // need.total))
        return self._most_at_once

    def _beside(self) -> Qwen3VLScorer:
        """Another scorer on the same model, for another episode."""
        known = (self._model, self._tokens, self._preprocessing, self._settings, self.info)
        return Qwen3VLScorer(*known, self._recorder, self._parts)

    def ahead(self, instruction: str, buffer: EpisodeBuffer) -> Iterator[None]:
        """See `PrefixScorer.ahead`: recordings, the baseline to come, the cache behind the next thinning."""
        if self._recorder is not None and self._recorder.has_missed:
            self._step(self._recorder.record_missed)
            yield
        rate, max_frames = self._settings.sample_rate, self._settings.max_frames
        if rate <= 0 or self._budget < max_frames:  # what comes next is known of a whole budget only
            return
        if self._left_behind:
            self._step(self._compare_layouts, instruction)
            yield
        stride = buffer.stride
        for ticks, (next_stride, prefix) in enumerate(buffer.forecast(rate, max_frames)):
            if not self._prefix or prefix[0] is not self._prefix[0]:
                return  # memory ran out, or the window slides: nothing of what is known will hold
            if next_stride != stride:
                stride = next_stride
                if ticks <= max_frames // _LEAD:
                    kept = [frame for frame in prefix if frame.image.size]
                    yield from self._prefill(kept, self._prompts(instruction))
            if self._settings.static_baseline and self._prefix:
                layout: Layout = (instruction, *(patch.seconds for patch in self._pair_up(prefix)))
                if layout not in self._static_scores:  # of this start, as the prefix begins with it
                    self._step(self._score_static, instruction, prefix[0], layout)
                    yield

    def close(self) -> None:
        """See `PrefixScorer.close`."""
        device = self._model.device
        self._forget()
        self._lanes.clear()
        del self._video, self._next_video, self._static_video, self._parts, self._model
        give_back(device)

    # ---- the hot path, from frames to numbers -------------------------------------------------------

    def _take_up(self, prefix: Sequence[Frame]) -> list[Patch]:
        """The patches of a prefix that is to be scored next."""
        self._use_size_of(prefix[0])
        video = self._pair_up(prefix)
        if self._next_video.known(video) > self._video.known(video):  # thinned, and prepared for
            self._video, self._next_video = self._next_video, self._video
            self._left_behind = [*self._prefix, prefix[-1]]
        else:
            self._left_behind = ()  # too late to compare: the moment has gone
        return video

    def _unseen(self, video: list[Patch]) -> list[tuple[Frame, Frame]]:
        """Pairs of frames of which features will be wanted, and are not known."""
        new = dict.fromkeys((patch.first, patch.second) for patch in video[self._video.known(video) :])
        if self._settings.static_baseline:
            new[video[0].first, video[0].first] = None
        return [frames for frames in new if frames not in self._features]

    def _ask(self, instruction: str, video: list[Patch]) -> _Question:
        """What is to be run for the score of ``video``."""
        layout: Layout = (instruction, *(patch.seconds for patch in video))
        passes = [self._video.ask(video, self._see, self._prompts(instruction))]
        self._static_scores.use_start(video[0].first)
        if self._settings.static_baseline and layout not in self._static_scores:
            passes.append(self._ask_static(instruction, video[0].first, layout))
        return _Question(video, layout, passes)

    def _conclude(
        self, question: _Question, answers: Sequence[torch.Tensor], prefix: Sequence[Frame]
    ) -> PrefixScore:
        score = self._read(answers[0], len(question.video))
        if len(answers) > 1:
            self._keep_static(question.layout, answers[1])
        if self._settings.static_baseline:
            score = replace(score, log_prob_static=self._static_scores[question.layout])
        self._keep_features_of(question.video)
        self._prefix, self._newest_score = prefix, score
        return score

    def _read(self, answers: torch.Tensor, seen: int) -> PrefixScore:
        """From log-probabilities (prompts, 2) of the true and the false answer after ``seen`` patches."""
        return read_answers(answers, self._settings.contrastive, f"{seen} patches", self._model.dtype)

    def _ask_static(self, instruction: str, start: Frame, layout: Layout) -> Pass:
        still = [Patch(start, start, float(seconds)) for seconds in layout[1:]]
        return self._static_video.ask(still, self._see, self._prompts(instruction))

    def _keep_static(self, layout: Layout, answers: torch.Tensor) -> None:
        self._static_scores[layout] = self._read(answers, len(layout) - 1).log_prob

    def _prompts(self, instruction: str) -> PromptTree:
        if instruction not in self._prompt_trees:
            self._prompt_trees.clear()
            self._prompt_trees[instruction] = make_prompt_tree(self._tokens.after_video(instruction))
        return self._prompt_trees[instruction]

    def _pair_up(self, prefix: Sequence[Frame]) -> list[Patch]:
        return pair_up(prefix, self._settings.sample_rate)

    def _keep_features_of(self, video: list[Patch]) -> None:
        """Of patches that a thinned prefix may still have; and pixels of the newest frames alone."""
        start, newest = video[0].first, video[-1]
        kept = {(patch.first, patch.second) for patch in video} | {(start, start)}
        self._features = {frames: features for frames, features in self._features.items() if frames in kept}
        self._resized = {
            f: pixels for f, pixels in self._resized.items() if f in (newest.first, newest.second)
        }

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
        see_together([(self, [frames for frames in new if frames not in self._features])])
        return [self._features[patch.first, patch.second] for patch in video]

    def _cut(self, frames: tuple[Frame, Frame]) -> torch.Tensor:
        """The vision model's input for a patch, (rows * columns, 3 * 2 * patch * patch) float32."""
        for frame in frames:
            if frame not in self._resized:
                self._resized[frame] = patches.resize(frame.image, self._size)
        first, second = (self._resized[frame] for frame in frames)
        return patches.cut(first, second, self._preprocessing, self._patch, self._merge)

    # ---- between the ticks --------------------------------------------------------------------------

    def _step(self, work: Callable[..., object], *arguments: Any) -> None:
        """Do a piece of work that a later score will need. Without memory for it, all is forgotten."""
        prefix = self._prefix  # forgotten with the rest when memory runs out
        with suppress(OutOfMemory), errors_named(len(prefix), self._forget), torch.inference_mode():
            work(*arguments)
            return
        self._lower_budget(prefix)

    def _score_static(self, instruction: str, start: Frame, layout: Layout) -> None:
        (answers,) = answers_of(
            self._parts.language, self._tokens, [self._ask_static(instruction, start, layout)]
        )
        self._keep_static(layout, answers)

    def _prefill(self, prefix: list[Frame], prompts: PromptTree) -> Iterator[None]:
        """Bring the other cache to where the next thinning will leave the video, some patches a step."""
        video = [patch for patch in self._pair_up(prefix) if patch.first is not patch.second]
        while self._prefix and (known := self._next_video.known(video)) < len(video):
            self._step(self._next_video.commit, video[: known + _PREFILLED_AT_ONCE], self._see, prompts)
            yield

    def _compare_layouts(self, instruction: str) -> None:
        """Say how far the score stepped because the prefix was thinned: the same moment, seen both ways."""
        video = self._pair_up(self._left_behind)
        asked = self._next_video.ask(video, self._see, self._prompts(instruction))
        before = self._read(answers_of(self._parts.language, self._tokens, [asked])[0], len(video))
        _log.info(
            "prefix thinned from %d to %d frames: log p(True) is %.3f instead of %.3f nat at the same moment",
            len(self._left_behind),
            len(self._prefix),
            self._newest_score.log_prob,
            before.log_prob,
        )
        self._left_behind = ()

    # ---- when something fails -----------------------------------------------------------------------

    def _lower_budget(self, prefix: Sequence[Frame]) -> None:
        """Go on with half the frames after memory ran out. Raises `ScorerError` where that is too few."""
        give_back(self._model.device)
        budget = len(prefix) // 4 * 2
        said, mend = out_of_memory(len(prefix), self.info, self._settings)
        if budget < _FEWEST_FRAMES:
            raise ScorerError(f"{said}: {mend}")
        self._budget = budget
        _log.warning("%s: from now on at most %d are scored, every second pair goes; %s", said, budget, mend)

    def _within_budget(self, prefix: Sequence[Frame]) -> Sequence[Frame]:
        """All frames, until memory ran out once: then thinned as the episode's buffer would do it."""
        if len(prefix) <= self._budget or self._budget >= self._settings.max_frames:
            return prefix
        buffer = EpisodeBuffer(self._budget)
        for frame in prefix:
            buffer.append(frame)
        return buffer.prefix()


class _Parts(NamedTuple):
    """What runs the two halves of a model; scorers of several episodes share them."""

    vision: VisionModel
    language: LanguageModel


class _Question(NamedTuple):
    """What is to be run for one score."""

    video: list[Patch]
    layout: Layout
    passes: list[Pass]  #: the video's, and the still one's where its answer is not known


def score_together(
    scorers: Sequence[Qwen3VLScorer], requests: Sequence[tuple[str, Sequence[Frame]]]
) -> list[PrefixScore]:
    """Scores of one prefix each, by scorers on one model: the hot path, from frames to numbers.

    One pass of the vision model over what is new, one pass of the language model over that and all prompts,
    one wait for the device.
    """
    videos = [scorer._take_up(prefix) for scorer, (_, prefix) in zip(scorers, requests, strict=True)]
    see_together([(scorer, scorer._unseen(video)) for scorer, video in zip(scorers, videos, strict=True)])
    questions = [
        scorer._ask(instruction, video)
        for scorer, (instruction, _), video in zip(scorers, requests, videos, strict=True)
    ]
    first = scorers[0]
    passes = [one for question in questions for one in question.passes]
    answers = iter(answers_of(first._parts.language, first._tokens, passes))
    return [
        scorer._conclude(question, [next(answers) for _ in question.passes], prefix)
        for scorer, question, (_, prefix) in zip(scorers, questions, requests, strict=True)
    ]


def see_together(wanted: Sequence[tuple[Qwen3VLScorer, Sequence[tuple[Frame, Frame]]]]) -> None:
    """Let the vision model see pairs of frames, for scorers on one model, and keep the features there."""
    by_size: dict[tuple[int, int], list[tuple[Qwen3VLScorer, tuple[Frame, Frame]]]] = {}
    for scorer, pairs in wanted:
        by_size.setdefault(scorer._size, []).extend((scorer, frames) for frames in pairs)
    for (height, width), unseen in by_size.items():
        for start in range(0, len(unseen), _SEEN_AT_ONCE):
            some = unseen[start : start + _SEEN_AT_ONCE]
            one = some[0][0]
            pixels = torch.stack([scorer._cut(frames) for scorer, frames in some])
            pixels = send(pixels, one._model.device).to(one._model.dtype)
            rows, columns = height // one._patch, width // one._patch
            seen = one._parts.vision(pixels, rows, columns)
            for number, (scorer, frames) in enumerate(some):
                # Copies, so that one patch that is kept does not keep the memory of all.
                layers = [layer[number].clone() for layer in seen.deepstack]
                scorer._features[frames] = PatchFeatures(
                    rows // one._merge, columns // one._merge, seen.embeddings[number].clone(), layers
                )


def pair_up(prefix: Sequence[Frame], sample_rate: float = 0.0) -> list[Patch]:
    """The temporal patches of a prefix; an odd last frame, or one alone, is repeated."""
    seconds = seconds_of(prefix, sample_rate)
    last = len(prefix) - 1
    return [
        Patch(prefix[i], prefix[j], told_time((seconds[i] + seconds[j]) / 2))
        for i in range(0, len(prefix), 2)
        for j in [min(i + 1, last)]
    ]
