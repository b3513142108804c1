"""Labelled episodes, as a calibration sees them: when the model looked, what it said, and what was true.

Where the scores come from is not known here; they are those that the live monitor would have had.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, expm1, inf, isfinite, log, log1p, nan

import numpy as np

from topreward_ros.core.calibration.told import Row, Told
from topreward_ros.core.frames import NS_PER_S

# Beyond it a log-probability is certainty or its opposite to within what float32 tells apart.
_MOST_LOG_ODDS = 14.0
_NARROWEST = 0.4  # error of a score in log-odds, at least


def log_odds(log_prob: float) -> float:
    """log(p / (1 - p)) of a log-probability [nat], cut to ±14, where float32 ends; NaN stays NaN.

    Scores near 0 nat that differ a lot in certainty lie next to each other; their log-odds do not.

    >>> round(log_odds(-0.22), 3), log_odds(0.0), log_odds(-100.0)
    (1.402, 14.0, -14.0)
    """
    if log_prob != log_prob:
        return nan
    if log_prob >= 0.0:
        return _MOST_LOG_ODDS
    return min(max(log_prob - log(-expm1(log_prob)), -_MOST_LOG_ODDS), _MOST_LOG_ODDS)


def log_prob_of(odds: float) -> float:
    """The log-probability [nat] of log-odds: the inverse of `log_odds`.

    >>> round(log_prob_of(1.402), 3), round(log_prob_of(-14.0), 3)
    (-0.22, -14.0)
    """
    return -log1p(exp(-odds)) if odds > 0 else odds - log1p(exp(odds))


@dataclass(frozen=True, slots=True)
class Look:
    """One score of an episode."""

    stamp_ns: int  #: of the newest frame of the prefix, since the first frame of the episode
    log_prob: float  #: r [nat]
    log_prob_static: float = nan  #: of the first frame held still [nat]; NaN where it was not scored
    progress: float = nan  #: [0, 1] or NaN, as live without a calibration

    @property
    def time_s(self) -> float:
        """[s] since the first frame of the episode."""
        return self.stamp_ns / NS_PER_S


@dataclass(frozen=True, slots=True)
class LabelledCurve:
    """The scores of an episode from its first frame to its last, SUCCESS or not, and what is known of it."""

    name: str  #: for a human
    success: bool  #: the label: the task was done at the end
    looks: tuple[Look, ...]  #: in order of stamps, at least one of them a finite score
    done_s: float = nan  #: when it was done, since the first frame [s]; NaN: not known, or it was not
    duration_s: float = nan  #: until the last frame [s]; NaN: until the last look
    told: tuple[Row, ...] = ()  #: all that a detector was told, extra looks included; empty: the looks alone

    @property
    def end_s(self) -> float:
        """When the recording ends [s]."""
        return self.duration_s if isfinite(self.duration_s) else self.looks[-1].time_s

    @property
    def end_log_odds(self) -> float:
        """What the model says at the end: log-odds of the last finite score."""
        return next((log_odds(it.log_prob) for it in reversed(self.looks) if isfinite(it.log_prob)), nan)

    @property
    def best_log_prob(self) -> float:
        """The highest finite score [nat] that a detector may be told; -inf where there is none."""
        scores = (log_prob for what, _, _, log_prob, _ in self.rows if what in (Told.DUE, Told.EXTRA))
        return max((it for it in scores if isfinite(it)), default=-inf)

    @property
    def rows(self) -> tuple[Row, ...]:
        """All that a detector is told."""
        return self.told or tuple(
            (Told.DUE, 0, it.time_s, it.log_prob, it.log_prob_static) for it in self.looks
        )


def of_class(curves: Sequence[LabelledCurve], *, success: bool) -> list[LabelledCurve]:
    """Those with a label."""
    return [curve for curve in curves if curve.success is success]


def score_error(*classes: np.ndarray) -> float:
    """How far a score may be off, in log-odds: Silverman's bandwidth for the spread within the classes."""
    spread = np.concatenate([scores - np.median(scores) for scores in classes])
    low, high = np.quantile(spread, [0.25, 0.75])
    width = min(float(spread.std()), float(high - low) / 1.34) or float(spread.std())
    fewest = min(len(scores) for scores in classes)
    return float(max(0.9 * width * float(fewest) ** -0.2, _NARROWEST))
