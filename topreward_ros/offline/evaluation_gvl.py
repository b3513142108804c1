"""Films as curves by GVL (core/gvl.py): a model that writes says how far each of some shuffled frames is.

A film gives at most 15 frames, evenly spread over those that are due at the sample rate, of one answer of the
model. The order in which they are shown depends on the film alone. There is no monitor, and so no event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from hashlib import sha256
from math import isnan, nan

import cv2
import numpy as np

from topreward_ros.core.errors import UserError
from topreward_ros.core.evaluation import Run
from topreward_ros.core.frames import NS_PER_S, FrameSchedule
from topreward_ros.core.gvl import FRAMES, TOKENS_PER_FRAME, order, question, values_of
from topreward_ros.core.metrics import even_places
from topreward_ros.core.progress import PrefixScore
from topreward_ros.core.stages import on_one_line
from topreward_ros.offline.evaluation_runs import EvaluationSettings, Film
from topreward_ros.offline.text_model import TextModel
from topreward_ros.offline.video import FrameError, Video, VideoError
from topreward_ros.scoring.base import ScorerInfo
from topreward_ros.scoring.checkpoint.checkpoint import open_checkpoint
from topreward_ros.scoring.served_models import refuse_served


class GvlScorer:
    """Curves by what a model writes of frames."""

    def __init__(self, settings: EvaluationSettings) -> None:
        """Load the model. Raises `ScorerError` for one that writes nothing, or sees no pictures."""
        refuse_served(settings.model, "GVL, which has the model write text,")
        checkpoint = open_checkpoint(settings.model, settings.scorer.adapter)
        self._model = TextModel(checkpoint, settings.scorer, sees=True)
        self._rate, self._pixels = settings.monitor.sample_rate, settings.scorer.max_pixels
        device, dtype = self._model.place
        asked = "\0".join(question("", FRAMES))
        self.info = ScorerInfo(
            model_id=checkpoint.model_id,
            revision=checkpoint.revision,
            random_weights=checkpoint.has_random_weights,
            device=device,
            dtype=dtype,
            prompt_hash=sha256(asked.encode()).hexdigest()[:16],
            max_pixels=self._pixels,
        )

    @staticmethod
    def expected(_: Film, __: EvaluationSettings) -> int:
        """A step is an answer."""
        return 1

    def scored(
        self, films: Sequence[Film], on_step: Callable[[float], None]
    ) -> Iterable[tuple[Film, Run | UserError]]:
        """See `FilmScorer.scored`."""
        for film in films:
            try:
                made: Run | UserError = gvl_run(film, self._rate, self._pixels, self._model.write)
            except UserError as error:
                made = UserError(f"{film.episode.name}: {error}")
            on_step(1)
            yield film, made

    def close(self) -> None:
        """Free memory."""
        del self._model


def gvl_run(
    film: Film, rate: float, pixels: int, write: Callable[[Sequence[str | np.ndarray], int], str]
) -> Run:
    """The curve of a film. ``write``: what answers texts and pictures, see `TextModel.write`.

    Raises `UserError` for a film that cannot be read, and for an answer without percentages.
    """
    times_s, pictures, duration_s = _frames(film.open(rate), rate, pixels)
    shown = order(len(pictures), int(film.key[:8], 16))
    task = on_one_line(film.instruction)
    texts = question(task, len(pictures))
    parts: list[str | np.ndarray] = [texts[0], pictures[0]]
    for text, place in zip(texts[1:-1], shown, strict=True):
        parts += [text, pictures[place]]
    answer = write([*parts, texts[-1]], TOKENS_PER_FRAME * len(pictures))
    values = values_of(answer, shown)
    known = [k for k, value in enumerate(values) if not isnan(value)]
    return Run(
        film.instruction,
        tuple(times_s[k] for k in known),
        (PrefixScore(nan, nan, num_frames=1),) * len(known),
        (1,) * len(known),
        tuple(values[k] for k in known),
        duration_s,
    )


def _frames(video: Video, rate: float, pixels: int) -> tuple[list[float], list[np.ndarray], float]:
    """Times [s] and pictures of the frames that are shown, and the time of the last of all [s]."""
    schedule = FrameSchedule(rate)
    due, newest_ns = [], -1
    with closing(iter(video)) as frames:
        for k, (stamp_ns, _) in enumerate(frames):
            if stamp_ns > newest_ns:
                newest_ns = stamp_ns
                if schedule.observe(stamp_ns):
                    schedule.take()
                    due.append(k)
    wanted = {due[place] for place in even_places(len(due), FRAMES)}
    times_s, pictures = [], []
    with closing(iter(video)) as frames:
        for k, (stamp_ns, read) in enumerate(frames):
            if k not in wanted:
                continue
            try:
                pictures.append(_shrunk(read(), pixels))
            except FrameError:  # is left out, as live
                continue
            times_s.append(stamp_ns / NS_PER_S)
    if len(pictures) < 2:
        raise VideoError("fewer than two of its frames can be read: leave the episode out")
    return times_s, pictures, newest_ns / NS_PER_S


def _shrunk(picture: np.ndarray, pixels: int) -> np.ndarray:
    """A picture (H, W, 3) of at most so many pixels, of the same shape."""
    height, width = picture.shape[:2]
    factor = (pixels / (height * width)) ** 0.5
    if factor >= 1:
        return picture
    size = max(1, int(width * factor)), max(1, int(height * factor))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))
