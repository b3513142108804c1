"""From progress to the reward of one score, and its running return."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
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
