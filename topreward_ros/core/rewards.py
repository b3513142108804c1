"""From progress to the reward of one score, and its running return.

Here, too, are the settings of what is made of progress and rewards for each frame of a recorded dataset:
weights (`sample_weights`) and rewards between scores (`frame_values`), which need NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from math import exp, isfinite, nan


class RewardType(IntEnum):
    """What a reward is; the values are those of TaskReward.msg."""

    LOG_PROB = 0
    PROGRESS = 1
    PROGRESS_DELTA = 2
    ADVANTAGE_WEIGHT = 3


def advantage_weight(progress_delta: float, tau: float, delta_max: float) -> float:
    """TOPReward eq. 3: clip(tau * exp(s_k - s_(k-1)), 0, delta_max).

    With the paper's tau = delta_max = 2 every step forward gives 2 and a fall from 1 to 0 gives 0.74.

    >>> advantage_weight(0.1, 2.0, 2.0)
    2.0
    >>> round(advantage_weight(-1.0, 2.0, 2.0), 2)
    0.74
    """
    return min(max(tau * exp(progress_delta), 0.0), delta_max)


@dataclass(frozen=True, slots=True)
class RewardSettings:
    """Which reward to give. Parameters of the advantage weight as in TOPReward eq. 3."""

    type: RewardType
    advantage_tau: float
    advantage_max: float


@dataclass(frozen=True, slots=True)
class RabcSettings:
    """RA-BC's settings, with LeRobot's defaults, which its training repeats."""

    chunk_size: int = 50  #: frames over which progress is compared
    kappa: float = 0.01  #: progress over a chunk from which on a frame counts in full
    epsilon: float = 1e-6  #: least standard deviation, and what is added to divisors


class Imputation(Enum):
    """What the reward of a frame without a score is."""

    ZERO = "zero"  #: 0: the sum over the episode stays what the scores gave
    INTERPOLATE = "interpolate"  #: on a line between the scores around it; looks ahead
    DUPLICATE = "duplicate"  #: that of the last score before it; the first one stands before the first score


class RewardStream:
    """The rewards of one episode, one per score."""

    def __init__(self, settings: RewardSettings) -> None:
        self._settings = settings
        self._last_progress = nan
        self.type = settings.type
        self.steps = 0  #: rewards given so far
        self.episode_return = 0.0  #: sum of the finite rewards given so far

    def step(self, log_prob: float, progress: float) -> float:
        """The reward of the next score; NaN where it is computed from a progress that is NaN."""
        reward = self._reward(log_prob, progress)
        if isfinite(progress):
            self._last_progress = progress
        return self._count(reward)

    def close(self) -> float:
        """The reward, 0, of the last step of an episode that is truncated; it has no score of its own."""
        return self._count(0.0)

    def _reward(self, log_prob: float, progress: float) -> float:
        if self.type is RewardType.LOG_PROB:
            return log_prob
        if self.type is RewardType.PROGRESS:
            return progress
        # The first score has nothing before it: a step of 0.
        delta = progress - (self._last_progress if isfinite(self._last_progress) else progress)
        if self.type is RewardType.PROGRESS_DELTA:
            return delta
        if not isfinite(delta):
            return nan
        return advantage_weight(delta, self._settings.advantage_tau, self._settings.advantage_max)

    def _count(self, reward: float) -> float:
        self.steps += 1
        if isfinite(reward):
            self.episode_return += reward
        return reward
