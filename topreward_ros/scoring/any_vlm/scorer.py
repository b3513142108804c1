"""Scoring with any image-text-to-text model of transformers: one whole forward pass per prefix and prompt.

The question is that of `qwen3_vl`, in the token stream of the model's family (family.py). The numbers mean
the same: mean of log p(" True") over the prompts, log p(" False") beside it, or what a file's own answers are
worth, and the static baseline. Passes
share nothing but static baselines and, in families that resize frames themselves (video_families.py), resized
frames; so the cost of a score grows with the length of the episode. `qwen3_vl` is the fast way, for Qwen3-VL.
"""

from __future__ import annotations

import inspect
from collections.abc import Set
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch

from topreward_ros.core.frames import Frame
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.scoring.any_vlm.family import Family, Video
from topreward_ros.scoring.base import (
    PrefixScore,
    ScorerInfo,
    ScorerSettings,
    SequentialScorer,
    check_frames,
)
from topreward_ros.scoring.device import OutOfMemory, as_scorer_errors, release_cached_memory
from topreward_ros.scoring.frame_budget import FrameBudget
from topreward_ros.scoring.question.answers import AnswerReader
from topreward_ros.scoring.question.prompts import Framing, InstructionReader, written_time
from topreward_ros.scoring.question.templates import Question, fill
from topreward_ros.scoring.shown_video import shown_video
from topreward_ros.scoring.static_baselines import BaselineKey, StaticBaselines


class TransformersVlmScorer(SequentialScorer):
    """Scores prefixes with a loaded model of the kind `AutoModelForImageTextToText`; `registry` loads one."""

    def __init__(
        self, model: Any, family: Family, question: Question, settings: ScorerSettings, info: ScorerInfo
    ) -> None:
        self.info = info
        self._model = model
        self._family = family
        self._templates = question.templates
        self._settings = settings
        framing = Framing.of(question, settings)
        gap, self._answer_tokens = family.answer_tokens(question, framing)
        self._suffix = family.suffix(framing) + gap
        self._answers = AnswerReader(question.answers, settings.contrastive, info.model_id)
        self._reader = InstructionReader()
        self._budget = FrameBudget(info, settings)
        parameters = inspect.signature(model.forward).parameters
        self._options = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}
        self.forget()

    def forget(self) -> None:
        """See `PrefixScorer.forget`."""
        self._family.forget()
        self._static_baselines: dict[Frame, StaticBaselines] = {}  # by the first frame of an episode

    def keep(self, starts: Set[Frame]) -> None:
        """See `SequentialScorer.keep`."""
        kept = {start: known for start, known in self._static_baselines.items() if start in starts}
        self._static_baselines = kept

    def score_one(self, request: ScoreRequest) -> PrefixScore:
        """See `PrefixScorer.score`."""
        check_frames(request.prefix)
        while True:
            thinned = self._budget.within(request)
            frames = len(thinned.prefix)
            with suppress(OutOfMemory), as_scorer_errors(frames, self.forget), torch.inference_mode():
                return self._score(thinned)
            release_cached_memory(self._model.device)
            self._budget.lower(frames)

    def close(self) -> None:
        """See `PrefixScorer.close`."""
        self.forget()
        device = self._model.device
        del self._model
        release_cached_memory(device)

    def _score(self, request: ScoreRequest) -> PrefixScore:
        instruction, prefix = request.instruction, request.prefix
        settings = self._settings
        shown = shown_video(prefix, settings.sample_rate, settings.front_padding, settings.fixed_length)
        video = Video(tuple(it.frame for it in shown), tuple(written_time(it.seconds) for it in shown))
        score = self._ask(instruction, video)
        if self._settings.static_baseline and not request.extra:
            score = self._with_static(score, instruction, video)
        return replace(score, num_frames=len(prefix))

    def _ask(self, instruction: str, video: Video) -> PrefixScore:
        """The score of ``video`` without a baseline."""
        text = self._family.escaped(self._reader.cut(instruction))
        questions = [fill(template, text) + self._suffix for template in self._templates]
        answers = torch.stack([self._run(inputs) for inputs in self._family.inputs(video, questions)])
        context = f"{len(video.frames)} frames"
        return self._answers.read(answers, context, self._model.dtype)

    def _run(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Log-probabilities (answers,) of the answers as the next token after a stream."""
        device, dtype = self._model.device, self._model.dtype
        given = {
            name: value.to(device, dtype if value.dtype is torch.float32 else None)
            for name, value in inputs.items()
        }
        logits = self._model(**given, **self._options, use_cache=False).logits  # (1, tokens, vocabulary)
        log_probs: torch.Tensor = logits[0, -1].float().log_softmax(-1)
        return log_probs[list(self._answer_tokens)]

    def _with_static(self, score: PrefixScore, instruction: str, video: Video) -> PrefixScore:
        """``score`` with the static baseline of ``video``, see `Video.static`."""
        start = video.frames[0]
        baselines = self._static_baselines.setdefault(start, StaticBaselines())
        baselines.use_start(start)
        times = video.seconds if self._family.uses_times else ()
        key: BaselineKey = (instruction, len(video.frames), *times)
        if key not in baselines:
            baselines[key] = self._ask(instruction, video.static())
        return baselines.complete(score, key)
