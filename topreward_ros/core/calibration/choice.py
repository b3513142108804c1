"""Which detector and which threshold: the least expected delay at the false-alarm rate that the user names.

A dozen episodes do not say how often something happens that happens once in fifty. So the scores of every
episode are taken to be off by a normal error, as wide as a kernel density estimate of so many episodes would
have it (Silverman 1986): with it the share of failures that fire falls smoothly as the threshold rises, and
a threshold that just misses the highest failure is not taken for safe. A success that is missed costs as much
time as doing the task once more.

SUCCESS that comes more than `EARLY_S` before the task is done is a false alarm, too, at whatever episode.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite, nan
from statistics import median

import numpy as np

from topreward_ros.core.calibration.curves import LabelledCurve, log_odds, log_prob_of, score_error
from topreward_ros.core.calibration.replay import GRID, Fires
from topreward_ros.core.events import SuccessSettings
from topreward_ros.core.metrics import EARLY_S


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known of the episodes, by their number."""

    success: np.ndarray  #: (N,) bool
    done_s: np.ndarray  #: (N,) [s] when it was done; NaN for failures
    missed_s: np.ndarray  #: (N,) [s] what a SUCCESS that never comes costs, from ``done_s`` on
    peak: np.ndarray  #: (N,) log-odds of the best score


def truth_of(curves: Sequence[LabelledCurve]) -> Truth:
    """The truth of curves; where nobody said when a success was done, its score says it (`settled_s`)."""
    done = np.array([_done_s(curve) for curve in curves])
    nominal = median(done[np.isfinite(done)])
    return Truth(
        success=np.array([curve.success for curve in curves]),
        done_s=done,
        missed_s=np.full(len(curves), max(float(nominal), 1.0)),
        peak=np.array([log_odds(min(curve.best_log_prob, 0.0)) for curve in curves]),
    )


def _done_s(curve: LabelledCurve) -> float:
    if not curve.success:
        return nan
    return curve.done_s if isfinite(curve.done_s) else settled_s(curve)


def settled_s(curve: LabelledCurve) -> float:
    """When the score rose for good [s]: the first look of the last stretch that stays above the middle
    between the lowest and the last score, in log-odds."""
    finite = [(it.time_s, log_odds(it.log_prob)) for it in curve.looks if isfinite(it.log_prob)]
    odds = [value for _, value in finite]
    middle = (min(odds) + odds[-1]) / 2
    since = finite[-1][0]
    for time_s, value in reversed(finite):
        if value < middle:
            break
        since = time_s
    return since


@dataclass(frozen=True, slots=True)
class Choice:
    """A detector with its threshold, and what is expected of it."""

    settings: SuccessSettings
    place: tuple[int, int]  #: in `Fires`: detector, threshold
    false_alarms: float  #: expected share of failures that fire
    early: float  #: expected share of successes that fire before they are done
    recall: float  #: expected share of successes that fire once they are done
    cost_s: float  #: expected time from done to SUCCESS, missed ones included [s]


@dataclass(frozen=True, slots=True)
class Expected:
    """What is expected of every detector (C) at every threshold (K) of `GRID`, each (C, K)."""

    false_alarms: np.ndarray  #: share of failures that fire
    early: np.ndarray  #: share of successes that fire before they are done
    recall: np.ndarray  #: share of successes that fire once they are done
    cost_s: np.ndarray  #: time from done to SUCCESS, missed ones included [s]


def expected(fires: Fires, truth: Truth, left_out: int | None = None) -> Expected:
    """What is expected of new episodes. ``left_out``: an episode that counts for nothing; both kinds must be
    among the others."""
    kept = np.arange(len(truth.success)) != (-1 if left_out is None else left_out)
    failures, successes = kept & ~truth.success, kept & truth.success
    kernel = _kernel(score_error(truth.peak[failures], truth.peak[successes]))
    since = fires.at_s[:, :, successes] - truth.done_s[successes]
    fired = np.isfinite(since)
    early = _and_below(np.where(fired, since < -EARLY_S, False))
    false = _and_below(np.isfinite(fires.at_s[:, :, failures]))
    cost = np.where(fired & ~early, np.maximum(since, 0.0), truth.missed_s[successes])
    return Expected(
        *(_smooth(values.mean(axis=2), kernel) for values in (false, early, fired & ~early, cost))
    )


def choose(fires: Fires, truth: Truth, false_alarms: float, left_out: int | None = None) -> Choice:
    """The best of what was replayed, at the rate of ``false_alarms`` that is allowed, [0, 1].

    ``left_out``: see `expected`. Where no choice has so few false alarms, that with the fewest is taken.
    """
    of_all = expected(fires, truth, left_out)
    worst = np.maximum(of_all.false_alarms, of_all.early)
    allowed = worst <= false_alarms
    if not allowed.any():
        allowed = worst <= worst.min() + 1e-9
    best = np.where(allowed, np.round(of_all.cost_s, 6), inf)
    c, k = np.unravel_index(int(np.argmin(best)), best.shape)  # the first of equal ones
    return Choice(
        replace(fires.detectors[c], threshold=round(log_prob_of(float(GRID[k])), 6)),
        (int(c), int(k)),
        false_alarms=float(of_all.false_alarms[c, k]),
        early=float(of_all.early[c, k]),
        recall=float(of_all.recall[c, k]),
        cost_s=float(of_all.cost_s[c, k]),
    )


def _and_below(wrong: np.ndarray) -> np.ndarray:
    """(C, K, N): what is wrong at a threshold is wrong at all lower ones. An episode that keeps quiet there
    does so because its start was not low enough to arm the detector, which another start may be."""
    return np.asarray(np.maximum.accumulate(wrong[:, ::-1], axis=1)[:, ::-1])


def _kernel(error: float) -> np.ndarray:
    """Weights (K, K): how much the share at a threshold of the grid counts for that at another one."""
    apart = (GRID[:, None] - GRID[None, :]) / error
    weights = np.exp(-0.5 * apart * apart)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _smooth(shares: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """(C, K), along the thresholds."""
    return np.asarray(shares @ kernel.T)
