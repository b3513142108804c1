"""From a score to progress: one number in [0, 1] that needs no look at the future.

The paper's min-max over the episode (TOPReward eq. 2) does look ahead; it is here for offline use
and no live mode offers it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import exp, isfinite, isnan, log, nan

import numpy as np

from topreward_ros.core.calibration.probability import ProbabilityMap

_LEAST_SHARE = 1e-30  # of a probability whose logarithm is taken: about the least of float32


@dataclass(frozen=True, slots=True)
class PrefixScore:
    """What a model says after one prefix: log-probabilities of the answer in nats (all <= 0, or NaN when
    absent), or, of a model with heads of its own, progress and success.

    A model that is served may not tell a log-probability that is small; then `note` says so.
    """

    log_prob: float  #: r: log p(" True"), mean over the prompts
    log_prob_false: float  #: log p(" False") from the same pass, mean over the prompts
    log_prob_static: float = nan  #: r_static: log p(" True") of the first frame repeated; NaN when off
    log_prob_std: float = nan  #: standard deviation of log p(" True") over prompts; NaN with one
    num_frames: int = 0  #: frames of the prefix that were scored: all, or fewer once memory ran out
    by_prompt: tuple[float, ...] = ()  #: log p(" True") of each prompt, in the order of the file
    static_by_prompt: tuple[float, ...] = ()  #: r_static of each; empty when off
    log_prob_bound: float = nan  #: what r is at most, where it is not told and NaN; NaN: nothing is known
    note: str = ""  #: why r, or r_static, is NaN, or says little, for a human; empty: all is well
    answer_share: float = nan  #: of all probability, that of the answers together, [0, 1]; NaN: not known
    stated_progress: float = nan  #: progress in [0, 1] that the model states itself; NaN: it does not
    success_probability: float = nan  #: [0, 1], of a model that states it; NaN: it does not

    @property
    def states_progress(self) -> bool:
        """Whether the model states progress itself, so that nothing has to be made of r."""
        return not isnan(self.stated_progress)

    @property
    def success_log_prob(self) -> float:
        """What is compared with thresholds of success [nat], <= 0: ln of the success probability where the
        model states one, else r, else ln of the progress that it states; NaN where it says nothing.

        >>> round(PrefixScore(nan, nan, success_probability=0.8).success_log_prob, 3)
        -0.223
        """
        if not isnan(self.success_probability):
            return log(min(max(self.success_probability, _LEAST_SHARE), 1.0))
        if isnan(self.log_prob) and self.states_progress:
            return log(min(max(self.stated_progress, _LEAST_SHARE), 1.0))
        return self.log_prob


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

    A progress that the model states itself is taken as it is. ``probability``: of the calibration of the
    task; where it has none, `ProgressMode.CALIBRATED` means `ProgressMode.STATIC_BASELINE`.

    >>> live_progress(PrefixScore(-1.0, -0.5, log_prob_static=-4.0), ProgressMode.STATIC_BASELINE, -0.22)
    0.75
    >>> live_progress(PrefixScore(-5.0, -0.5, log_prob_static=-4.0), ProgressMode.STATIC_BASELINE, -0.22)
    0.0
    """
    if score.states_progress:
        if mode is ProgressMode.CALIBRATED and probability is not None:
            return probability.of(score.success_log_prob)
        return min(max(score.stated_progress, 0.0), 1.0)
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
