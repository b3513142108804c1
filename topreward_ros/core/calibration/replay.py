"""The monitor's own SUCCESS detector, replayed on labelled curves with other settings: when would it fire?

A calibration needs no model of the detector: it asks the very one that decides live. The thresholds that are
tried lie on a fixed grid of log-odds, which no episode has a part in, so that an episode can be left out of a
choice by leaving out its column.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import isfinite, nan

import numpy as np

from topreward_ros.core.calibration.curves import LabelledCurve, log_odds, log_prob_of
from topreward_ros.core.calibration.told import fired_at
from topreward_ros.core.events import SuccessDetector, SuccessSettings

#: Thresholds that are tried, in log-odds: from a probability of 0.7 % to all but certainty.
GRID = np.round(np.arange(-5.0, 10.01, 0.2), 1)

#: When an episode's SUCCESS would have come with some settings [s]; NaN: never.
Replay = Callable[[LabelledCurve, SuccessSettings], float]


@dataclass(frozen=True, slots=True)
class Fires:
    """When SUCCESS would have come, for every detector, threshold and episode."""

    detectors: tuple[SuccessSettings, ...]  #: (C) whatever their threshold says
    at_s: np.ndarray  #: (C, K, N) [s], K thresholds of `GRID`; NaN: never


def replayer(sample_rate: float) -> Replay:
    """Replay the present detector for scores that come at ``sample_rate`` [Hz], extra looks beside."""

    def replay(curve: LabelledCurve, settings: SuccessSettings) -> float:
        return fired_at(curve.rows, SuccessDetector, settings, 1.0 / sample_rate)

    return replay


def candidates(base: SuccessSettings, sample_rate: float) -> tuple[SuccessSettings, ...]:
    """The detectors that are tried: the ``base`` with other smoothing, dwell and number of scores, each with
    its extra looks and without.

    A dwell that is shorter than the scores need to come (at ``sample_rate`` [Hz], or as fast as it looks) is
    the same as none. One score alone is no witness, however well it does on what was recorded: a picture may
    be bad that no labelled episode has.
    """
    made = []
    looks = (0.0, base.confirm_rate) if base.confirm_rate > sample_rate else (0.0,)
    for looking, smoothing, scores, dwell in product(looks, (1, 2, 3), (2, 3), (0.0, 0.5, 1.0, 2.0)):
        if dwell and dwell <= (scores - 1) / max(sample_rate, looking):
            continue
        detector = replace(base, smoothing=smoothing, min_scores=scores, dwell=dwell)
        made.append(replace(detector, confirm_rate=looking))
    return tuple(made)


def fires(
    curves: Sequence[LabelledCurve],
    detectors: Sequence[SuccessSettings],
    replay: Replay,
    on_episode: Callable[[], None] | None = None,
) -> Fires:
    """Replay every detector with every threshold of `GRID` on every curve."""
    at_s = np.full((len(detectors), len(GRID), len(curves)), nan)
    thresholds = [log_prob_of(odds) for odds in GRID]
    for n, curve in enumerate(curves):
        best = log_odds(curve.best_log_prob) if isfinite(curve.best_log_prob) else -np.inf
        within = int(np.searchsorted(GRID, best, side="right"))  # no score reaches those beyond
        for c, detector in enumerate(detectors):
            for k in range(within):
                at_s[c, k, n] = replay(curve, replace(detector, threshold=thresholds[k]))
        if on_episode is not None:
            on_episode()
    return Fires(tuple(detectors), at_s)
