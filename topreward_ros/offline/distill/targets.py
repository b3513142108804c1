"""What a student is to say after each frame of a film: from a teacher's curve, and from a label if any.

A teacher's score becomes progress in [0, 1] as the live monitor does it: what the teacher states itself, else
1 - r / r_static. Where nobody scored the static video, as in curves of other programs, the middle of all
first scores of the task stands for it: a film begins with nothing done. The student is trained to
log p(" True") = `stories.LOWEST` * (1 - progress), whatever the scale of its teacher was.

A label has the last word on the outcome: after a success is done the target is near certainty, and in a
failure it stays below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, nan

import numpy as np

from topreward_ros.core.errors import UserError
from topreward_ros.core.evaluation import EvaluatedEpisode, Run
from topreward_ros.core.printable import printable
from topreward_ros.core.progress import ProgressMode, live_progress
from topreward_ros.offline.distill.films import Film
from topreward_ros.offline.distill.stories import Footage

FAILED = 0.8  #: the highest target in a film that is labelled as a failure
_SURELY = 0.99  # the highest target that a teacher alone can give: log-odds are to be finite
_DONE = 0.9  # share of a film's highest progress from which on its success counts as done, without a time
_SAYS_DONE = 0.9  # progress from which on a teacher takes a film without a label for a success
_MOVES = 0.3  # of progress, so that a film shown backwards is another thing
_LEAST_KNOWN = 0.5  # of the scores of a film have to be numbers
LEAST_CHANGE = 0.05  #: of progress over all films, so that there is something to learn


class TargetError(UserError):
    """A teacher's curves cannot be learnt from."""


def baselines(runs: Sequence[Run]) -> dict[str, float]:
    """By instruction what stands for r_static [nat] where it was not scored: the middle of first scores."""
    firsts: dict[str, list[float]] = {}
    for run in runs:
        first = next((score.log_prob for score in run.scores if isfinite(score.log_prob)), nan)
        if isfinite(first):
            firsts.setdefault(run.instruction, []).append(first)
    return {instruction: float(np.median(values)) for instruction, values in firsts.items()}


def progress_of(run: Run, baseline: float) -> np.ndarray:
    """(K,) progress in [0, 1] or NaN of a teacher's curve, see above. ``baseline``: of `baselines`."""
    never = 1.0  # [nat]: no start looks finished, as the film shows what came of it
    made = []
    for score in run.scores:
        value = live_progress(score, ProgressMode.STATIC_BASELINE, never)
        if not isfinite(value) and isfinite(score.log_prob) and baseline < 0:
            value = min(max(1 - score.log_prob / baseline, 0.0), 1.0)
        made.append(value)
    return np.array(made, np.float64)


def footage(film: Film, teacher: EvaluatedEpisode, baseline: float) -> Footage:
    """A film with the target at each of its frames. Raises `TargetError`."""
    run = teacher.plain
    said, times = progress_of(run, baseline), np.array(run.times_s)
    known = np.isfinite(said)
    if not known.any() or known.mean() < _LEAST_KNOWN:
        raise TargetError(
            f"{film.episode.name}: of {len(said)} scores of the teacher {int((~known).sum())} are no "
            "numbers: it is left out"
        )
    progress = np.minimum(np.interp(film.times_s, times[known], said[known]), _SURELY)
    succeeded, certain = film.episode.succeeded, film.episode.succeeded is True
    if succeeded is None:
        done = progress >= _SAYS_DONE
        succeeded = bool(done[-1])
        done = done if succeeded else np.zeros(len(done), bool)
    elif succeeded:
        done = _done(film, progress)
    else:
        done, progress = np.zeros(len(progress), bool), np.minimum(progress, FAILED)
    return Footage(
        film.frames,
        film.rate,
        progress,
        np.maximum.accumulate(done),
        succeeded,
        reversible=bool(np.ptp(progress) >= _MOVES),
        lasting=True,
        certain=certain,
        known={"state": np.where(done, np.maximum(progress, _SURELY), progress) if certain else progress},
    )


def _done(film: Film, progress: np.ndarray) -> np.ndarray:
    """(N,) bool: from when on a success is done: as its label says, else by the curve; at last at its end."""
    if film.episode.done_s is not None:
        done = film.times_s >= film.episode.done_s
    else:
        low = progress < _DONE * progress.max()
        last_low = int(np.flatnonzero(low)[-1]) if low.any() else -1
        done = np.arange(len(progress)) > last_low
    done[-1] = True
    return done


def check_targets(made: Mapping[str, Footage]) -> None:
    """Raise `TargetError` where the curves of ``made``, by the names of films, teach nothing."""
    values = np.concatenate([it.progress for it in made.values()])
    if np.ptp(values) < LEAST_CHANGE:
        first = printable(next(iter(made)), 200)
        raise TargetError(
            f"the teacher says about the same of every frame (progress {values.min():.3f} to "
            f"{values.max():.3f}, the first film is {first}): there is nothing to learn; take a teacher that "
            "knows the task, see `topreward score` and `topreward evaluate`"
        )
