"""How a successful run usually looks: its duration, and how low its progress is at each age.

The lower band is functional and conformal (Diquigiovanni, Fontana and Vantini, "Conformal prediction bands
for multivariate functional data", 2022, one-sided, modulated by the spread at each age): over all ages
together, no more than a share `ALPHA` of new successful runs is expected to fall below it anywhere. How far a
run falls below the mean, in units of the spread, is measured with the mean and spread of the others
(leave-one-out, as in the jackknife+ of Barber et al., 2021), because nineteen runs are too few to be split.
That holds for runs like the recorded ones: those of another operator may be slower.

Curves are taken as log-odds of progress, which have no edges, and back. After its last score a curve keeps
its value: a success stays one. Scores may come faster than the band has values, and a detector sees straight
lines between these: so the value of a run at one of them is its lowest score between the ones before and
after it. A run that is above the band at all of these is above it at each of its scores. An edge at which
progress cannot be told from none is 0, below which nothing falls: the first score of a run has no progress
at all. What FAILURE does with a band is decided in core/detectors/failure.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, isfinite, nan
from statistics import median

import numpy as np

from topreward_ros.core.calibration.curves import LabelledCurve, Look
from topreward_ros.core.detectors.failure import ALPHA, ConformalBand, fewest_successes

STEP_S = 0.5  #: [s] between two values of a band
_MOST_STEPS = 2400  # so that a recording of hours makes no endless file
_LEAST_SPREAD = 0.1  # in log-odds of progress
_EDGE = 1e-3  # progress closer to 0 or 1 is taken for this, and an edge that is no higher says nothing
_DIGITS = 1e4  # the edge is cut to so many parts: downwards, so that no run falls by it


def band_of(
    successes: Sequence[LabelledCurve], progress: Callable[[Look], float], alpha: float = ALPHA
) -> ConformalBand | None:
    """The lower band of successful runs; None for fewer than its ``alpha`` needs.

    ``progress``: that of a score, [0, 1], or NaN, which counts as the one before.
    """
    curves = [made for curve in successes if (made := _progress(curve, progress))]
    count = len(curves)
    if count < fewest_successes(alpha):
        return None
    end_s = max(curve.end_s for curve in successes)
    times = np.arange(min(int(end_s / STEP_S) + 2, _MOST_STEPS)) * STEP_S
    sampled = np.array([_log_odds(_lowest(curve, times)) for curve in curves])
    depths = []
    for number in range(count):
        others = np.delete(sampled, number, axis=0)
        depths.append(float(((others.mean(axis=0) - sampled[number]) / _spread(others)).max()))
    # Never above the mean: so no more than `alpha` of these very runs are below it either.
    depth = max(sorted(depths)[ceil((1 - alpha) * (count + 1)) - 1], 0.0)
    lower = 1 / (1 + np.exp(depth * _spread(sampled) - sampled.mean(axis=0)))
    lower = np.floor(lower * _DIGITS) / _DIGITS
    lower[lower <= _EDGE] = 0.0
    return ConformalBand(tuple(times.tolist()), tuple(lower.tolist()), count, alpha)


def _spread(curves: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(curves.std(axis=0, ddof=1), _LEAST_SPREAD))


def _progress(curve: LabelledCurve, progress: Callable[[Look], float]) -> list[tuple[float, float]]:
    """Time [s] and progress where there is one."""
    made = ((look.time_s, progress(look)) for look in curve.looks)
    return [(time_s, value) for time_s, value in made if isfinite(value)]


def _log_odds(values: np.ndarray) -> np.ndarray:
    values = np.clip(values, _EDGE, 1 - _EDGE)
    return np.asarray(np.log(values / (1 - values)))


def _lowest(curve: list[tuple[float, float]], times: np.ndarray) -> np.ndarray:
    """The lowest value between the times before and after each, both left out. Where there is none, it is the
    newest one; before the first one, that."""
    stamps, values = np.array(curve).T
    first = np.searchsorted(stamps, times - STEP_S, side="right")
    after = np.searchsorted(stamps, times + STEP_S, side="left")
    newest = values[np.maximum(np.searchsorted(stamps, times, side="right") - 1, 0)]
    spans = zip(first, after, newest, strict=True)
    return np.array([values[i:k].min() if i < k else value for i, k, value in spans])


def nominal_duration(done_s: Sequence[float]) -> float:
    """How long the task usually takes: the median of the times until it was done [s], or NaN without any."""
    known = [time_s for time_s in done_s if isfinite(time_s)]
    return round(float(median(known)), 3) if known else nan
