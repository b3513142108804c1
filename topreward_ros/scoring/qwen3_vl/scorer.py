"""Exact incremental scoring with Qwen3-VL: log p(" True") after a video that grows by a frame per call.

A score computes only what the last one did not. A prefix is a list of temporal patches, two frames each.
The patches committed to the KV cache for the last prefix are compared with those of this one (`video_cache`):
the common beginning stays, the rest is rolled back, and what is new runs together with all prompts. A new
episode, a skipped tick, a thinned prefix and a step back are all this one case. So is an odd last frame: it
makes a patch with itself, which the completed patch replaces.

The numbers are those of one plain forward pass per prompt over the whole stream, to rounding: what was scored
before decides only how the same sums are grouped (about 1e-5 nat in float32).

With several prompts the score is the mean of their log-probabilities. The contrastive score is the
log-probability of True where only the two are possible; of other answers than True and False the score is the
logarithm of their expected value (question/answer_set.py): nats at most 0 as everywhere.

The token stream is that of transformers 4.57, which the method's authors pinned:

    <|im_start|>user\\n<0.2 seconds><|vision_start|>N pads<|vision_end|><1.2 seconds>... The above video ...

It is built here, without the processor; positions and attention mask are explicit, so nothing depends on
a state inside the model. This module does not choose frames, keep time, or interpret a score. tick.py
runs a tick; this module manages episodes, memory that runs out, and the work between two ticks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from topreward_ros.core.frames import Frame
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.scoring.base import (
    PrefixScore,
    PrefixScorer,
    ScorerError,
    ScorerInfo,
    ScorerSettings,
    check_frames,
    in_a_line,
    without_traceback,
)
from topreward_ros.scoring.device import (
    OutOfMemory,
    as_scorer_errors,
    free_memory,
    is_out_of_memory,
    release_cached_memory,
)
from topreward_ros.scoring.frame_budget import FrameBudget
from topreward_ros.scoring.patches import Preprocessing
from topreward_ros.scoring.question.answers import AnswerReader
from topreward_ros.scoring.question.prompts import PromptTokens
from topreward_ros.scoring.qwen3_vl.compiling import ALWAYS, compile_layers
from topreward_ros.scoring.qwen3_vl.cuda_graphs import GraphRunner
from topreward_ros.scoring.qwen3_vl.engine import Engine
from topreward_ros.scoring.qwen3_vl.episode_cache import EpisodeCache, baseline_key
from topreward_ros.scoring.qwen3_vl.language import LanguageModel
from topreward_ros.scoring.qwen3_vl.memory_need import memory_need
from topreward_ros.scoring.qwen3_vl.temporal_patch import Patch
from topreward_ros.scoring.qwen3_vl.tick import encode, run_tick
from topreward_ros.scoring.qwen3_vl.vision import VisionModel

if TYPE_CHECKING:
    from transformers import Qwen3VLForConditionalGeneration

_log = logging.getLogger(__name__)

_PREFILL_STEP = 4  # patches prefilled per step between two ticks; a tick waits for one step at most
_MOST_TOGETHER = 8  # episodes of a pass; one of more tokens is no faster
_MOST_EPISODES = 1024  # whose caches are kept, where there is memory
_LEAD = 4  # prefilling for the next thinning begins when a quarter of max_frames is still to come


class Qwen3VLScorer(PrefixScorer):
    """Scores prefixes with a loaded `Qwen3VLForConditionalGeneration`; `registry` loads one.

    A `Qwen3VLMoeForConditionalGeneration` has the same parts and is scored in the same way.
    """

    def __init__(
        self,
        model: Qwen3VLForConditionalGeneration,
        tokens: PromptTokens,
        preprocessing: Preprocessing,
        settings: ScorerSettings,
        info: ScorerInfo,
        graphs: GraphRunner | None = None,
    ) -> None:
        """``graphs``: of the model's device, where ticks may run as CUDA graphs."""
        self.info = info
        self._model = model
        self._settings = settings
        self._graphs = graphs
        vision: Any = model.config.vision_config
        vision_model, language_model = VisionModel(model.model.visual, graphs), LanguageModel(model, graphs)
        if graphs is not None:
            compile_layers(settings.compile, graphs, vision_model, language_model)
        elif settings.compile == ALWAYS:
            _log.warning(
                "compile: true has no effect: what is compiled runs in CUDA graphs alone, and there are none "
                "(the model is on %s, cuda_graphs is %s)",
                *(model.device, str(settings.cuda_graphs).lower()),
            )
        self._engine = Engine(
            vision=vision_model,
            language=language_model,
            tokens=tokens,
            reader=AnswerReader(tokens.answer_set, settings.contrastive, info.model_id),
            preprocessing=preprocessing,
            settings=settings,
            max_pixels=info.max_pixels,
            patch_side=vision.patch_size,
            merge_side=vision.spatial_merge_size,
        )
        self.frame_unit = vision.patch_size * vision.spatial_merge_size
        self._episodes: dict[Frame, EpisodeCache] = {}  # those of the last call, by first frame
        self._most_together = _MOST_TOGETHER
        self._most_episodes = 0  # that are kept; 0: not computed yet
        self._budget = FrameBudget(info, settings)

    def score_all(
        self, requests: Sequence[ScoreRequest], kept: Sequence[Frame] = ()
    ) -> list[PrefixScore | ScorerError]:
        """See `PrefixScorer.score_all`: every episode has its own caches, and all share each pass."""
        if len(requests) > 1:
            try:
                return [*self._run_tick([self._budget.within(request) for request in requests], kept)]
            except ScorerError:
                pass  # one request failed; scoring one by one tells which
            except Exception as error:
                if is_out_of_memory(error):
                    self._most_together = max(1, len(requests) // 2)
                    self._most_episodes = max(self._most_together, len(self._episodes) // 2)
                _log.warning(
                    "%d episodes could not be scored together (%s): now one by one, and later at most %d",
                    *(len(requests), in_a_line(error), self.episodes_at_once()),
                )
            # Only here is the error gone, and with it the tensors that its traceback held.
            self.forget()
            release_cached_memory(self._model.device)
        starts = [request.prefix[0] for request in requests if request.prefix]
        return [self._score_alone(request, [*starts, *kept]) for request in requests]

    def _score_alone(self, request: ScoreRequest, kept: Sequence[Frame]) -> PrefixScore | ScorerError:
        """The score of one request, or what went wrong. Where memory runs out, fewer episodes are kept, and
        when it is the only one, half as many frames."""
        try:
            while True:
                within = self._budget.within(request)
                frames = len(within.prefix)
                with suppress(OutOfMemory), as_scorer_errors(frames, partial(self._forget_one, request)):
                    return self._run_tick([within], kept)[0]
                self._save_memory(frames, len(self._episodes))
        except ScorerError as error:
            return without_traceback(error)

    def _run_tick(self, requests: Sequence[ScoreRequest], kept: Sequence[Frame]) -> list[PrefixScore]:
        for request in requests:
            check_frames(request.prefix)
        with torch.inference_mode():
            return run_tick(self._engine, self._episodes_of(requests, kept), requests)

    def _episodes_of(self, requests: Sequence[ScoreRequest], kept: Sequence[Frame]) -> list[EpisodeCache]:
        """The caches of the requests' episodes; a new episode reuses the cache of one that is left out."""
        starts = [request.prefix[0] for request in requests]
        others = [start for start in dict.fromkeys(kept) if start in self._episodes and start not in starts]
        if others:
            del others[max(0, self.episodes_kept() - len(starts)) :]
        stay = {*starts, *others}
        left_out = [episode for start, episode in self._episodes.items() if start not in stay]
        self._episodes = {
            start: self._episodes.get(start) or (left_out.pop() if left_out else EpisodeCache(self._engine))
            for start in (*starts, *others)
        }
        if left_out:  # fewer episodes than before: what they held is of no use here
            left_out.clear()
            release_cached_memory(self._model.device)
        return [self._episodes[start] for start in starts]

    def episodes_at_once(self) -> int:
        """See `PrefixScorer.episodes_at_once`."""
        return min(self._most_together, self.episodes_kept())

    def episodes_kept(self) -> int:
        """Of how many episodes the caches fit into memory, those included that are scored."""
        if not self._most_episodes:
            model = self._model
            need = memory_need(model.config, self._settings, self.info.max_pixels, model.dtype.itemsize)
            fit = free_memory(model.device) // need.total
            # More than are scored together only gain time: half of the memory stays free for others.
            self._most_episodes = max(1, min(_MOST_TOGETHER, fit), min(_MOST_EPISODES, fit // 2))
        return self._most_episodes

    def close(self) -> None:
        """See `PrefixScorer.close`."""
        self.forget()
        device = self._model.device
        if self._graphs is not None:
            self._graphs.discard_graphs()
        del self._episodes, self._engine, self._model
        release_cached_memory(device)

    # ---- between two ticks ----------------------------------------------------------------------------

    def ahead(self, request: ScoreRequest) -> Iterator[None]:
        """See `PrefixScorer.ahead`: CUDA graphs, the baseline to come, the cache for the next thinning."""
        yield from self.capture_ahead()
        episode = self._episodes.get(request.prefix[0])
        rate, max_frames = self._settings.sample_rate, self._settings.max_frames
        # The future is predictable only for frames at a known rate that the episode's buffer alone thins.
        if episode is None or rate <= 0 or self._budget.is_lowered:
            return
        if self._settings.fixed_length:
            return  # one baseline holds for the episode, and no prefix is the beginning of a later one
        if episode.unthinned:
            self._step(self._compare_thinned, episode, request.instruction)
            yield
        stride = request.buffer.stride
        for ticks, (next_stride, prefix) in enumerate(request.buffer.forecast(rate, max_frames)):
            if not episode.prefix or prefix[0] is not episode.prefix[0]:
                return  # memory ran out, or the window slides: the prediction does not hold
            if next_stride != stride:
                stride = next_stride
                if ticks <= max_frames // _LEAD:
                    known = [frame for frame in prefix if frame.image.size]
                    yield from self._prefill(episode, request.instruction, known)
            if self._settings.static_baseline and episode.prefix:
                video = episode.patches_of(prefix)
                if not episode.knows_static(baseline_key(request.instruction, video)):
                    self._step(self._score_static, episode, request.instruction, video)
                    yield

    def capture_ahead(self) -> Iterator[None]:
        """The part of `ahead` that captures CUDA graphs, one per step."""
        while self._graphs is not None and self._graphs.has_pending:
            self._step(self._graphs.capture_pending)
            yield

    def _step(self, work: Callable[..., object], *arguments: Any) -> None:
        """Do a piece of work that a later score will need. Where it fails, all caches are dropped."""
        frames = max((len(episode.prefix) for episode in self._episodes.values()), default=0)
        held = len(self._episodes)
        with suppress(OutOfMemory), as_scorer_errors(frames, self.forget), torch.inference_mode():
            work(*arguments)
            return
        self._save_memory(frames, held)

    def _prefill(self, episode: EpisodeCache, instruction: str, prefix: list[Frame]) -> Iterator[None]:
        """Prefill the KV cache for the next thinning, some patches a step."""
        video = episode.patches_of(prefix)
        if video and not video[-1].is_complete:
            del video[-1]
        while episode.prefix and (known := episode.prefilled(video)) < len(video):
            self._step(self._prefill_some, episode, instruction, video[: known + _PREFILL_STEP])
            yield

    def _prefill_some(self, episode: EpisodeCache, instruction: str, video: list[Patch]) -> None:
        encode(self._engine, [(episode, episode.not_encoded_next(video))])
        episode.prefill(instruction, video)

    def _score_static(self, episode: EpisodeCache, instruction: str, video: list[Patch]) -> None:
        """Compute the baseline that the score of ``video`` will need."""
        key = baseline_key(instruction, video)
        (answers,) = self._engine.answer([episode.prepare_static_pass(instruction, key)])
        episode.add_static(key, self._engine.read(answers, len(video)))

    def _compare_thinned(self, episode: EpisodeCache, instruction: str) -> None:
        """Log how far the score stepped because the prefix was thinned, at the same moment."""
        frames = len(episode.unthinned)
        video = episode.patches_of(episode.unthinned)
        encode(self._engine, [(episode, episode.not_encoded_next(video))])
        (answers,) = self._engine.answer([episode.prepare_unthinned_pass(instruction, video)])
        before = self._engine.read(answers, len(video))
        _log.info(
            "prefix thinned from %d to %d frames: log p(True) is %.3f instead of %.3f nat at the same moment",
            *(frames, len(episode.prefix), episode.newest_score.log_prob, before.log_prob),
        )

    # ---- when something fails -------------------------------------------------------------------------

    def forget(self) -> None:
        """See `PrefixScorer.forget`; caches may be partly written."""
        for episode in self._episodes.values():
            episode.forget()
        self._episodes.clear()
        if self._graphs is not None:
            self._graphs.discard_all_pending()

    def _forget_one(self, request: ScoreRequest) -> None:
        """Drop what is kept of the request's episode, which may be partly written."""
        episode = self._episodes.get(request.prefix[0]) if request.prefix else None
        if episode is not None:
            episode.forget()
        if self._graphs is not None:
            self._graphs.discard_all_pending()

    def _save_memory(self, frames: int, held: int) -> None:
        """Go on with fewer episodes than ``held``, or with half of ``frames`` of a single one, after memory
        ran out with them."""
        self.forget()
        if held > 1:
            self._most_episodes = held // 2
            _log.warning(
                "out of memory with %d episodes: from now on at most %d are kept, and the others are read "
                "anew for every score",
                *(held, self._most_episodes),
            )
        if self._graphs is not None:
            self._graphs.discard_graphs()
        release_cached_memory(self._model.device)
        if held <= 1:
            self._budget.lower(frames)
