"""From the scores of an episode to one number for each of its recorded frames.

A score belongs to the frame that was the newest of its prefix; between two scored frames there is none. What
stands there is said by name: the last known number (`held`, which looks at no later frame), or one of the
ways in which the code of TOPReward's authors fills in rewards (`imputed`). Monte-Carlo values are the
discounted sums of such rewards. Which reward a score has is told by `core.rewards`; no file is read here.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, nan

import numpy as np

from topreward_ros.core.rewards import Imputation


def held(values: Sequence[float], rows: Sequence[int], end: int) -> np.ndarray:
    """The last known of ``values`` at each frame: (``end``,) float64, NaN before the first.

    ``rows``: the frames that the values belong to, from 0, ascending. A value that is NaN is held as well:
    from there on nothing is known.

    >>> held([0.0, 0.5], [1, 3], 5).tolist()
    [nan, 0.0, 0.0, 0.5, 0.5]
    """
    made = np.full(end, nan)
    for value, row in zip(values, rows, strict=True):
        made[row:] = value
    return made


def imputed(rewards: Sequence[float], rows: Sequence[int], count: int, how: Imputation) -> np.ndarray:
    """A reward for each of ``count`` frames: (``count``,) float64; all NaN where no reward is finite.

    ``rewards`` belong to the frames ``rows``, ascending; one that is not finite counts as not there.

    >>> [imputed([1.0, 3.0], [1, 3], 5, how).tolist() for how in Imputation]
    [[0.0, 1.0, 0.0, 3.0, 0.0], [1.0, 1.0, 2.0, 3.0, 3.0], [1.0, 1.0, 1.0, 3.0, 3.0]]
    """
    known = [(row, reward) for row, reward in zip(rows, rewards, strict=True) if isfinite(reward)]
    if not known:
        return np.full(count, nan)
    places, numbers = np.array([row for row, _ in known]), np.array([reward for _, reward in known])
    if how is Imputation.ZERO:
        made = np.zeros(count)
        made[places] = numbers
        return made
    if how is Imputation.INTERPOLATE:
        return np.asarray(np.interp(np.arange(count), places, numbers))
    newest = np.searchsorted(places, np.arange(count), side="right") - 1
    return np.asarray(numbers[np.maximum(newest, 0)])


def discounted_values(rewards: np.ndarray, gamma: float) -> np.ndarray:
    """Monte-Carlo values V(t) = r(t) + gamma r(t + 1) + gamma² r(t + 2) + ... to the end of the episode.

    ``rewards``: (T,), of the frames of one episode. Returns (T,) float64. ``gamma`` in [0, 1].

    >>> discounted_values(np.array([1.0, 0.0, 4.0]), 0.5).tolist()
    [2.0, 2.0, 4.0]
    """
    values = np.zeros(len(rewards))
    after = 0.0
    for t in range(len(rewards) - 1, -1, -1):
        after = float(rewards[t]) + gamma * after
        values[t] = after
    return values
