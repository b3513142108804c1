"""Weights of training samples from the progress of recorded frames: RA-BC's and TOP-AWR's.

RA-BC (reward-aligned behaviour cloning, SARM, arXiv 2509.25358, eq. 8 and 9) asks how far progress rises over
the next chunk of actions, and is computed as LeRobot's `RABCWeights` does, whose precision is followed:
differences of progress in float64, weights in float32. TOP-AWR (TOPReward eq. 3) weighs each action by the
exponential of the progress that the stretch between two scores brought. No file is read here.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import isfinite

import numpy as np

from topreward_ros.core.rewards import RabcSettings, advantage_weight

#: Weight of a frame of which nothing is known: neither preferred nor left out.
UNKNOWN_WEIGHT = 1.0


@dataclass(frozen=True, slots=True)
class RabcWeights:
    """RA-BC's weights of all frames, and the statistics that they come from."""

    weights: np.ndarray  #: (N,) float32 in [0, 1], before a batch is normalised
    delta_mean: float  #: mean of the progress over a chunk, at least 0
    delta_std: float  #: its standard deviation, at least epsilon

    def normalised(self, epsilon: float) -> np.ndarray:
        """The weights with a mean of 1, as a batch of all frames would have them: (N,) float32."""
        total = self.weights.sum(dtype=np.float32) + np.float32(epsilon)
        return np.asarray(self.weights * np.float32(len(self.weights)) / total)


def rabc_weights(
    index: np.ndarray, episode: np.ndarray, progress: np.ndarray, settings: RabcSettings
) -> RabcWeights:
    """RA-BC's weight of each frame.

    ``index``: (N,) absolute rows of the dataset, each once; ``episode``: (N,); ``progress``: (N,), NaN where
    it is not known. A frame is compared with the one ``chunk_size`` later, or with the last of its episode;
    where one of the two is missing or NaN its weight is `UNKNOWN_WEIGHT`.

    >>> rows, one = np.arange(4), np.zeros(4, int)
    >>> settings = RabcSettings(chunk_size=1)
    >>> rabc_weights(rows, one, np.array([0.0, 0.5, 0.4, np.nan]), settings).weights.tolist()
    [1.0, 0.0, 1.0, 1.0]
    """
    order = np.argsort(index, kind="stable")
    sorted_index, sorted_episode = index[order], episode[order]
    sorted_progress = np.asarray(progress[order], dtype=np.float64)
    last = {number: sorted_index[sorted_episode == number].max() for number in np.unique(episode)}
    target = np.minimum(
        sorted_index + settings.chunk_size, np.array([last[number] for number in sorted_episode], index.dtype)
    )
    place = np.searchsorted(sorted_index, target)  # the last row of an episode is always there
    later = np.where(sorted_index[place] == target, sorted_progress[place], np.nan)
    deltas = later - sorted_progress
    known = deltas[np.isfinite(deltas)]
    mean = max(float(known.mean()), 0.0) if known.size else 0.0
    std = max(float(known.std()), settings.epsilon) if known.size else settings.epsilon
    weights = np.empty(len(index), np.float32)
    weights[order] = _weights_of(deltas.astype(np.float32), mean, std, settings)
    return RabcWeights(weights, mean, std)


def _weights_of(deltas: np.ndarray, mean: float, std: float, settings: RabcSettings) -> np.ndarray:
    """Eq. 9: 1 above kappa, eq. 8 from 0 to kappa, 0 below 0. ``deltas``: (N,) float32; so is the result."""
    soft = (deltas - np.float32(mean - 2 * std)) / np.float32(4 * std + settings.epsilon)
    weights = np.where(deltas >= 0, np.clip(soft, 0, 1), np.float32(0))
    weights[deltas > np.float32(settings.kappa)] = 1
    weights[np.isnan(deltas)] = UNKNOWN_WEIGHT
    return np.asarray(weights, np.float32)


def advantage_weights(progress: np.ndarray, scored: np.ndarray, tau: float, delta_max: float) -> np.ndarray:
    """TOP-AWR's weight of the action of each frame of one episode: (T,) float32.

    ``progress``: (T,) as it is known at each frame; ``scored``: (T,) bool, the frames that have a score of
    their own. An action between two scores k - 1 and k has clip(tau exp(s_k - s_(k-1)), 0, delta_max). One
    after the last score, or beside a progress that is NaN, has `UNKNOWN_WEIGHT`.

    >>> progress, scored = np.array([0.5, 0.5, 0.0, 0.0]), np.array([True, False, True, False])
    >>> [round(float(w), 3) for w in advantage_weights(progress, scored, 2.0, 2.0)]
    [1.213, 1.213, 1.0, 1.0]
    """
    weights = np.full(len(progress), UNKNOWN_WEIGHT, np.float32)
    rows = np.flatnonzero(scored)
    for start, end in pairwise(rows):
        delta = float(progress[end]) - float(progress[start])
        if isfinite(delta):
            weights[start:end] = advantage_weight(delta, tau, delta_max)
    return weights
