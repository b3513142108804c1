"""How large a student may be: shapes that are timed on this machine before anything is trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

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
    milliseconds: float  #: the median of a tick on one thread of the CPU, with `FRAMES` frames


def tick_milliseconds(scorer: PrefixScorer, height: int, width: int, instruction: str) -> float:
    """Median time [ms] of a tick with about `FRAMES` frames (height, width) [px] in the prefix."""
    rng = np.random.default_rng(0)
    times = []
    for _ in range(_ROUNDS):
        video = [
            Frame(number * NS_PER_S // 2, rng.integers(0, 255, (height, width, 3), np.uint8))
            for number in range(FRAMES + _TIMED)
        ]
        for end in range(1, len(video) + 1):
            start = time.perf_counter()
            scorer.score(ScoreRequest.of_frames(instruction, video[:end]))
            if abs(end - FRAMES) <= _TIMED:
                times.append(time.perf_counter() - start)
    return float(np.median(times) * 1e3)


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


def chosen(found: Iterator[Timed], budget_ms: float, on_timed: Callable[[Timed], None]) -> Timed:
    """The first candidate that keeps the budget. Raises `BudgetError` where none does."""
    quickest = None
    for one in found:
        on_timed(one)
        if one.milliseconds <= budget_ms:
            return one
        if quickest is None or one.milliseconds < quickest.milliseconds:
            quickest = one
    assert quickest is not None, "there are candidates"
    raise BudgetError(
        f"--budget-ms {budget_ms:g}: the quickest student, '{quickest.candidate.name}', takes "
        f"{quickest.milliseconds:.1f} ms for a tick with {FRAMES} frames on this machine: allow more, or "
        "free it from other work while it is timed"
    )
