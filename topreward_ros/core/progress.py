"""From a score to progress: one number in [0, 1] that needs no look at the future.

The paper's min-max over the episode (TOPReward eq. 2) does look ahead; it is here for offline use
and no live mode offers it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import exp, isfinite, nan

import numpy as np

from topreward_ros.core.calibration.probability import ProbabilityMap


@dataclass(frozen=True, slots=True)
class PrefixScore:
    """Log-probabilities of the answer after one prefix, in nats (all <= 0, or NaN when absent).

    A model that is served may not tell one that is small; then `note` says so.
    """

    log_prob: float  #: r: log p(" True"), mean over the prompts
    log_prob_false: float  #: log p(" False") from the same pass, mean over the prompts
    log_prob_static: float = nan  #: r_static: log p(" True") of the first frame repeated; NaN when off
    log_prob_std: float = nan  #: standard deviation of log p(" True") over prompts; NaN with one
    num_frames: int = 0  #: frames of the prefix that were scored: all, or fewer once memory ran out
    by_prompt: tuple[float, ...] = ()  #: log p(" True") of each prompt, in the order of the file
    static_by_prompt: tuple[float, ...] = ()  #: r_static of each; empty when off
    log_prob_bound: float = nan  #: what r is at most, where it is not told and NaN; NaN: nothing is known
    note: str = ""  #: why r, or r_static, is NaN, for a human; empty: it is not


NO_SCORE = PrefixScore(nan, nan)  #: placeholder before the first score


class ProgressMode(Enum):
    """How a live score becomes progress."""

    STATIC_BASELINE = "static_baseline"  #: 1 - r / r_static: 0 for a robot that does nothing, 1 at certainty
    RAW_PROBABILITY = "raw_probability"  #: exp(r): the probability itself, length bias and all
    CALIBRATED = "calibrated"  #: how likely it is that the task is done, learnt from labelled episodes


# Above this r_static is certainty to within float32, and the ratio of two such numbers is noise.
_CERTAIN_NAT = -1e-6


def looks_finished_at_start(score: PrefixScore, success_threshold: float) -> bool:
    """Whether the first frame alone, held still, already reads as success (thresholds in nats)."""
    return score.log_prob_static > min(success_threshold, _CERTAIN_NAT)


def live_progress(
    score: PrefixScore,
    mode: ProgressMode,
    success_threshold: float,
    probability: ProbabilityMap | None = None,
) -> float:
    """Progress in [0, 1], or NaN when it has no meaning: the start already looks finished, or the score is no
    number.

    ``probability``: of the calibration of the task; where it has none, `ProgressMode.CALIBRATED` means
    `ProgressMode.STATIC_BASELINE`.

    >>> live_progress(PrefixScore(-1.0, -0.5, log_prob_static=-4.0), ProgressMode.STATIC_BASELINE, -0.22)
    0.75
    >>> live_progress(PrefixScore(-5.0, -0.5, log_prob_static=-4.0), ProgressMode.STATIC_BASELINE, -0.22)
    0.0
    """
    if not isfinite(score.log_prob):
        return nan
    if mode is ProgressMode.RAW_PROBABILITY:
        return exp(min(score.log_prob, 0.0))  # rounding may leave it a little above
    if looks_finished_at_start(score, success_threshold):
        return nan
    if mode is ProgressMode.CALIBRATED and probability is not None:
        return probability.of(score.log_prob)
    if not isfinite(score.log_prob_static):
        return nan
    return min(max(1.0 - score.log_prob / score.log_prob_static, 0.0), 1.0)


def episode_minmax(log_probs: np.ndarray) -> np.ndarray:
    """The paper's normalised progress of a whole episode (TOPReward eq. 2). Offline only.

    ``log_probs``: (K,) in nats, one per prefix. Returns (K,) in [0, 1]; all NaN when the values are
    constant or there is only one, since then there is no order in them to show. What is NaN stays NaN.

    >>> episode_minmax(np.array([-3.0, -2.0, -1.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    log_probs = np.asarray(log_probs, dtype=np.float64)
    told = log_probs[~np.isnan(log_probs)]
    spread = np.ptp(told) if told.size else 0.0
    if not spread > 0:
        return np.full(log_probs.shape, nan)
    return np.asarray((log_probs - told.min()) / spread)
