"""How large a student may be: shapes that are timed on this machine before anything is trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
from tokenizers import Tokenizer

from topreward_ros.core.errors import UserError
from topreward_ros.core.frames import NS_PER_S, Frame
from topreward_ros.core.output_files import temporary_folder
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.offline.distill.model_folder import write_model
from topreward_ros.offline.distill.network import EMBEDDED, Size, Student, draw_weights, make_config
from topreward_ros.scoring.base import PrefixScorer, ScorerSettings
from topreward_ros.scoring.registry import load_scorer

FRAMES = 32  #: of the prefix whose tick is timed
_TIMED = 5  # ticks around that, of each round
_ROUNDS = 3


class BudgetError(UserError):
    """No student is quick enough."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A student that might be trained."""

    name: str
    size: Size
    frame_pixels: int  #: of one frame, at most


#: From the largest to the smallest. Those of the embedded model's size can start from its weights.
CANDIDATES = (
    Candidate("large", Size(384, 4, 256, 6), 48 * 1024),
    Candidate("embedded, larger frames", EMBEDDED, 50 * 1024),
    Candidate("embedded", EMBEDDED, 34 * 1024),
    Candidate("embedded, smaller frames", EMBEDDED, 20 * 1024),
    Candidate("embedded, smallest frames", EMBEDDED, 12 * 1024),
    Candidate("small", Size(96, 3, 64, 3), 20 * 1024),
    Candidate("smallest", Size(96, 2, 64, 2), 12 * 1024),
)


@dataclass(frozen=True, slots=True)
class Timed:
    """A candidate, and what a tick of it takes here."""

    candidate: Candidate
    milliseconds: float  #: of a tick, as `tick_milliseconds` has it


@dataclass(frozen=True, slots=True)
class Choice:
    """The candidate that is taken, what was timed for it, and what it starts from."""

    candidate: Candidate
    timings: tuple[Timed, ...]  #: in their order; none: it was named
    mend: str = ""  #: what gives a student weights that are trained already; empty: this one has them
    source: str = "the embedded model"  #: whose weights these are

    @property
    def goes_on(self) -> bool:
        """Whether the training goes on from weights that are trained already."""
        return not self.mend

    @property
    def start(self) -> str:
        """What it starts from, and what that costs: a sentence."""
        if self.goes_on:
            return f"it goes on from the weights of {self.source}"
        return (
            "it starts FROM DRAWN WEIGHTS and knows nothing yet: it needs far more films and steps than one "
            f"that goes on from the embedded model's, which took 10,000 steps; {self.mend} to have these"
        )


def tick_milliseconds(scorer: PrefixScorer, height: int, width: int, instruction: str) -> float:
    """Time [ms] of one CPU thread that a tick takes with about `FRAMES` frames (height, width) [px].

    ``scorer``: works in the thread that calls it, and in no other. It is the time for which the CPU worked on
    the tick, and the least of some rounds: how much else the machine has to do must not decide on a size.
    """
    rng = np.random.default_rng(0)
    times = np.full((_ROUNDS, 2 * _TIMED), np.nan)  # rounds, ticks
    for times_of_round in times:
        video = [
            Frame(number * NS_PER_S // 2, rng.integers(0, 255, (height, width, 3), np.uint8))
            for number in range(FRAMES + _TIMED)
        ]
        for end in range(1, len(video) + 1):
            start = time.thread_time()
            scorer.score(ScoreRequest.of_frames(instruction, video[:end]))
            if end > FRAMES - _TIMED:
                times_of_round[end - FRAMES + _TIMED - 1] = time.thread_time() - start
    return float(np.median(times.min(axis=0)) * 1e3)


def timed(
    candidates: Sequence[Candidate],
    tokenizer: Tokenizer,
    settings: ScorerSettings,
    picture: tuple[int, int],
    instruction: str,
) -> Generator[Timed, None, None]:
    """Time candidates one after the other, with drawn weights, on one thread of the CPU.

    ``picture``: height and width [px] of the frames of a camera. Raises `ScorerError`, `OutputFileError`.
    """
    one = replace(settings, device="cpu", threads=1)
    for candidate in candidates:
        student = Student(tokenizer, make_config(tokenizer, candidate.size))
        draw_weights(student, 0)
        with temporary_folder("topreward-sizes-") as place:
            write_model(
                place,
                student.state_dict(),
                make_config(tokenizer, candidate.size),
                tokenizer,
                candidate.frame_pixels,
                "a shape that is timed",
                {},
            )
            with closing(load_scorer(str(place), one)) as scorer:
                yield Timed(candidate, tick_milliseconds(scorer, *picture, instruction))


def chosen(found: Iterator[Timed], budget_ms: float, on_timed: Callable[[Timed], None]) -> list[Timed]:
    """What was timed up to the first candidate that keeps the budget, which is the last one.

    Raises `BudgetError` where none keeps it.
    """
    timings = []
    for one in found:
        on_timed(one)
        timings.append(one)
        if one.milliseconds <= budget_ms:
            return timings
    quickest = min(timings, key=lambda it: it.milliseconds)
    raise BudgetError(
        f"--budget-ms {budget_ms:g}: the quickest student, '{quickest.candidate.name}', takes "
        f"{quickest.milliseconds:.1f} ms for a tick with {FRAMES} frames on one thread of this CPU: "
        "allow more"
    )


def warm_start(candidate: Candidate, timings: Sequence[Timed], size: Size | None) -> str:
    """What to do for a student that goes on from weights that are trained already; empty: this one does.

    ``size``: of these weights; None: the user asked for drawn ones.
    """
    if size is None:
        return "leave out --start-from nothing"
    if candidate.size == size:
        return ""
    able = [it.milliseconds for it in timings if it.candidate.size == size]
    if able:
        return f"give --budget-ms {ceil(min(able))}"
    of_its_size = [it for it in CANDIDATES if it.size == size]
    nearest = min(of_its_size, key=lambda it: abs(it.frame_pixels - candidate.frame_pixels))
    return f"give --size '{nearest.name}'"
