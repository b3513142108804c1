"""A scorer that asks a served model: a request per prompt for every prefix, and as many for its baseline.

Nothing is computed here, and nothing is kept on the server: each request carries all frames of its prefix.
What one score needs is asked for at the same time, up to `AT_ONCE` requests for all episodes together.
"""

from __future__ import annotations

import threading
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import isfinite, nan
from statistics import fmean

import numpy as np
import simplejpeg
from PIL import Image

from topreward_ros.core.frames import Frame
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.scoring.base import (
    PrefixScore,
    PrefixScorer,
    ScorerError,
    ScorerInfo,
    ScorerSettings,
    check_frames,
    without_traceback,
)
from topreward_ros.scoring.frame_size import frame_size
from topreward_ros.scoring.openai_api.log_probs import LogProb
from topreward_ros.scoring.openai_api.style import SentVideo, Style
from topreward_ros.scoring.openai_api.video import plain
from topreward_ros.scoring.question.answers import AnswerReader
from topreward_ros.scoring.question.prompts import InstructionReader, encodable
from topreward_ros.scoring.question.templates import Question, fill
from topreward_ros.scoring.shown_video import shown_video
from topreward_ros.scoring.static_baselines import BaselineKey, StaticBaselines

AT_ONCE = 8  #: requests
JPEG_QUALITY = 95

_EPISODES = 4  # that are scored at a time

Answer = tuple[LogProb, ...]  # of True and False, or of each of a file's own
Job = Callable[[], Answer]


class ServedScorer(PrefixScorer):
    """Scores prefixes with a model that is asked in a ``style``."""

    def __init__(self, style: Style, question: Question, settings: ScorerSettings, info: ScorerInfo) -> None:
        self.info = info
        self._style = style
        self._templates = question.templates
        self._answers = AnswerReader(question.answers, settings.contrastive, info.model_id)
        self._one_decides = question.answers is None and not settings.contrastive
        self._settings = settings
        self._reader = InstructionReader()
        self.forget()

    def begin(self, trial: SentVideo) -> None:
        """Come to terms with the server, and ask it once about ``trial``. Raises `ScorerError`."""
        self._style.begin(trial, fill(self._templates[0], "lift"))

    def forget(self) -> None:
        """See `PrefixScorer.forget`."""
        self._episodes: dict[Frame, _Episode] = {}  # by their first frame

    def episodes_at_once(self) -> int:
        """See `PrefixScorer.episodes_at_once`."""
        return _EPISODES

    def score_all(
        self, requests: Sequence[ScoreRequest], kept: Sequence[Frame] = ()
    ) -> list[PrefixScore | ScorerError]:
        """See `PrefixScorer.score_all`."""
        starts = {*kept, *(request.prefix[0] for request in requests if request.prefix)}
        self._episodes = {start: known for start, known in self._episodes.items() if start in starts}
        plans = [self._plan(request) for request in requests]
        jobs = [job for plan in plans if not isinstance(plan, ScorerError) for job in plan.jobs]
        answers = iter(_in_parallel(jobs))
        outcomes: list[PrefixScore | ScorerError] = []
        for plan in plans:
            if isinstance(plan, ScorerError):
                outcomes.append(plan)
            else:
                outcomes.append(self._outcome(plan, [next(answers) for _ in plan.jobs]))
        return outcomes

    def close(self) -> None:
        """See `PrefixScorer.close`."""
        self.forget()
        self._style.client.close()

    def _plan(self, request: ScoreRequest) -> _Plan | ScorerError:
        """What is to be asked for a request."""
        try:
            check_frames(request.prefix)
            video = self._video(request.prefix)
        except ScorerError as error:
            return without_traceback(error)
        instruction = self._reader.cut(request.instruction)
        questions = [fill(template, plain(encodable(instruction))) for template in self._templates]
        plan = _Plan(request, [self._job(video, question) for question in questions])
        if self._settings.static_baseline and not request.extra:
            times = video.seconds if self._style.uses_times else ()
            plan.key = (instruction, len(video.pictures), *times)
            baselines = self._episodes[request.prefix[0]].baselines
            if plan.key not in baselines:
                plan.jobs += [self._job(video.static(), question) for question in questions]
        return plan

    def _job(self, video: SentVideo, question: str) -> Job:
        return lambda: self._style.ask(video, question)

    def _video(self, prefix: Sequence[Frame]) -> SentVideo:
        settings = self._settings
        shown = shown_video(prefix, settings.sample_rate, settings.front_padding, settings.fixed_length)
        start = prefix[0]
        size = frame_size(*_sides(start.image), self._style.unit, self.info.max_pixels)
        episode = self._episodes.setdefault(start, _Episode())
        held = episode.pictures
        episode.pictures = {
            frame: held.get(frame) or encoded(_sized(frame.image, size, self._style.unit)) for frame in prefix
        }
        return SentVideo(
            tuple(episode.pictures[it.frame] for it in shown),
            tuple(it.seconds for it in shown),
            size[0] * size[1] * len(shown),
        )

    def _outcome(self, plan: _Plan, answers: Sequence[Answer | ScorerError]) -> PrefixScore | ScorerError:
        told: list[Answer] = []
        for answer in answers:
            if isinstance(answer, ScorerError):
                return answer
            told.append(answer)
        count = len(self._templates)
        try:
            score = self._averaged(told[:count])
            if not plan.key:
                return replace(score, num_frames=len(plan.request.prefix))
            baselines = self._episodes[plan.request.prefix[0]].baselines
            if told[count:]:
                baselines[plan.key] = self._averaged(told[count:])
        except ScorerError as error:
            return without_traceback(error)
        static = baselines[plan.key]
        note = score.note or (static.note and f"of the first frame held still: {static.note}")
        complete = baselines.complete(score, plan.key)
        return replace(complete, num_frames=len(plan.request.prefix), note=note)

    def _averaged(self, answers: Sequence[Answer]) -> PrefixScore:
        """The score, without a baseline, of the answers to all prompts; NaN with a note where one is not
        told."""
        score = self._answers.averaged([[answer.value for answer in row] for row in answers])
        if isfinite(score.log_prob):
            return score
        lacking, text = next(
            (answer, text)
            for row in answers
            for answer, text in zip(row, self._answers.texts, strict=True)
            if not isfinite(answer.value)
        )
        bound = fmean(row[0].bound for row in answers) if self._one_decides else nan
        note = self._style.unknown(lacking, text.strip())
        return replace(score, log_prob=nan, log_prob_bound=bound, note=note)


class _Episode:
    """What is kept of an episode: its encoded pictures, and its baselines."""

    def __init__(self) -> None:
        self.pictures: dict[Frame, str] = {}
        self.baselines = StaticBaselines()


class _Plan:
    """What is asked for one request: the video with each prompt, and perhaps the first frame held still."""

    def __init__(self, request: ScoreRequest, jobs: list[Job]) -> None:
        self.request = request
        self.jobs = jobs
        self.key: BaselineKey = ()  # of its baseline; empty: none is wanted


def _sides(image: np.ndarray) -> tuple[int, int]:
    height, width = image.shape[:2]
    return height, width


def _sized(image: np.ndarray, size: tuple[int, int], unit: int) -> np.ndarray:
    """A picture (H, W, 3) at ``size`` (height, width) where it is larger, or where the model takes
    multiples of ``unit`` alone."""
    if image.shape[:2] == size:
        return image
    if unit == 1 and image.shape[0] * image.shape[1] <= size[0] * size[1]:
        return image
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))


def encoded(image: np.ndarray) -> str:
    """A picture (H, W, 3) uint8 RGB as JPEG in base64."""
    made = simplejpeg.encode_jpeg(np.ascontiguousarray(image), JPEG_QUALITY, "RGB", "444")
    return b64encode(made).decode()


def _in_parallel(jobs: Sequence[Job]) -> list[Answer | ScorerError]:
    """Do ``jobs`` at the same time, in threads that no end of the process waits for."""
    made: list[Answer | ScorerError] = [ScorerError("it was not asked for")] * len(jobs)
    waiting = deque(enumerate(jobs))
    unforeseen: list[BaseException] = []

    def work() -> None:
        while waiting:
            try:
                number, job = waiting.popleft()
            except IndexError:  # another thread took the last one
                return
            try:
                made[number] = job()
            except ScorerError as error:
                made[number] = without_traceback(error)
            except BaseException as error:
                unforeseen.append(error)
                return

    others = [
        threading.Thread(target=work, name="asking", daemon=True) for _ in range(min(AT_ONCE, len(jobs)) - 1)
    ]
    for thread in others:
        thread.start()
    work()
    for thread in others:
        thread.join()
    if unforeseen:
        raise unforeseen[0]
    return made
