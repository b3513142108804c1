"""From a score to the probability that the task is done, fitted to the ends of labelled episodes.

Three ways, by how much is known: two anchors and a straight line, for a handful of episodes; a logistic curve
on the log-odds of the score (Platt, "Probabilistic outputs for support vector machines", 1999), from
`PLATT_FROM` episodes of each kind; a monotone step curve (isotonic regression by pooling adjacent violators),
from `ISOTONIC_FROM`. All are monotone: a higher score is never a lower probability.

A few episodes never make certainty, however far apart the scores of both kinds are. `surest` is what so many
may say at most, and no map goes beyond it; both fits have it as targets instead of 0 and 1, as Platt has
others. The line of two anchors is no steeper than the scores of so few are sure.

Which probability it is: that of the labelled episodes' mix. Where successes are rarer on the robot than among
what was labelled, the true one is lower.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from math import exp, isnan, nan

import numpy as np

from topreward_ros.core.calibration.curves import log_odds, score_error

PLATT_FROM = 10  #: episodes of each kind
ISOTONIC_FROM = 50  #: episodes of each kind
_FEWEST_OF_END = 10  # episodes
_STEPS = 100  # of Newton's method; it takes about ten
_ENOUGH = 1e-10


class Kind(Enum):
    """How a score becomes a probability."""

    ANCHORS = "anchors"  #: a line between the medians of both kinds: a sketch, not a probability
    PLATT = "platt"
    ISOTONIC = "isotonic"


@dataclass(frozen=True, slots=True)
class ProbabilityMap:
    """A piecewise linear curve, or a logistic one, over the log-odds of the score, within ``bounds``.

    Of anchors and isotonic: ``probability`` at ``log_odds``, straight in between, level outside. Of Platt:
    ``log_odds`` is where the probability is 1/2, ``slope`` how steep it is there.

    >>> round(ProbabilityMap(Kind.PLATT, (1.0,), slope=2.0).of(-0.3132617), 3)
    0.5
    >>> round(ProbabilityMap(Kind.ANCHORS, (-1.0, 3.0), (0.0, 1.0)).of(-0.3132617), 3)
    0.5
    """

    kind: Kind
    log_odds: tuple[float, ...]  #: increasing
    probability: tuple[float, ...] = ()  #: not decreasing, as many; empty with Platt
    slope: float = nan  #: > 0 with Platt
    bounds: tuple[float, float] = (0.0, 1.0)  #: what the episodes that it is fitted to may say: see `surest`

    def of(self, log_prob: float) -> float:
        """The probability [0, 1] that a score [nat] means; NaN for NaN."""
        odds = log_odds(log_prob)
        if isnan(odds):
            return nan
        low, high = self.bounds
        return min(max(self._of_odds(odds), low), high)

    def _of_odds(self, odds: float) -> float:
        if self.kind is Kind.PLATT:
            return _logistic(self.slope * (odds - self.log_odds[0]))
        at = bisect_right(self.log_odds, odds)
        if at == 0:
            return self.probability[0]
        if at == len(self.log_odds):
            return self.probability[-1]
        low, high = self.log_odds[at - 1], self.log_odds[at]
        share = (odds - low) / (high - low)
        return self.probability[at - 1] + share * (self.probability[at] - self.probability[at - 1])


def surest(successes: int, failures: int) -> tuple[float, float]:
    """The lowest and the highest probability that so many episodes of each kind may say.

    Of n episodes of a kind none was of the other: its share is taken for (0 + 1/2)/(n + 1) (Jeffreys 1946).

    >>> surest(9, 2)
    (0.16666666666666666, 0.95)
    """
    return 0.5 / (failures + 1), (successes + 0.5) / (successes + 1)


def kind_for(successes: int, failures: int) -> Kind:
    """What so many episodes of each kind are enough for."""
    fewest = min(successes, failures)
    if fewest >= ISOTONIC_FROM:
        return Kind.ISOTONIC
    return Kind.PLATT if fewest >= PLATT_FROM else Kind.ANCHORS


def fit_probability(ends: Sequence[float], success: Sequence[bool], kind: Kind) -> ProbabilityMap | None:
    """Fit a map of a kind to the log-odds at the ``ends`` of episodes, at least one of each kind.

    None where the score says nothing of success: the better it is, the less likely success would be.
    """
    odds, labels = np.asarray(ends, dtype=float), np.asarray(success, dtype=bool)
    bounds = surest(int(labels.sum()), int((~labels).sum()))
    if kind is Kind.ANCHORS:
        return _anchors(odds[~labels], odds[labels], bounds)
    targets = np.where(labels, bounds[1], bounds[0])
    if kind is Kind.ISOTONIC:
        # The first and the last step are of several episodes: one odd score at an end says little.
        fewest = min(_FEWEST_OF_END, (len(odds) + 1) // 2)
        low, high = np.sort(odds)[[fewest - 1, -fewest]]
        places, values = isotonic(np.clip(odds, low, high), targets)
        if values[0] == values[-1]:
            return None
        return ProbabilityMap(kind, tuple(places), tuple(values), bounds=bounds)
    slope, offset = logistic_fit(odds, targets)
    return ProbabilityMap(kind, (-offset / slope,), slope=slope, bounds=bounds) if slope > 0 else None


def _anchors(
    failures: np.ndarray, successes: np.ndarray, bounds: tuple[float, float]
) -> ProbabilityMap | None:
    """The line from 0 at the median of ``failures`` to 1 at that of ``successes``, both log-odds (n,), as far
    as the bounds allow.

    Medians that are nearer to each other than twice the error of a score are moved apart to that: where
    scores lie so close, which of them is higher is little more than chance.
    """
    low, high = float(np.median(failures)), float(np.median(successes))
    if not low < high:
        return None
    middle, half = (low + high) / 2, max((high - low) / 2, score_error(failures, successes))
    places = tuple(middle + (2 * bound - 1) * half for bound in bounds)
    return ProbabilityMap(Kind.ANCHORS, places, bounds, bounds=bounds)


def logistic_fit(values: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    """Slope and offset of the logistic curve σ(slope · value + offset) of least cross-entropy to the targets.

    By Newton's method with halved steps; ``values`` and ``targets``: (n,), targets between 0 and 1. Where all
    values are the same the slope is 0.
    """
    if not np.ptp(values) > 0:
        mean = float(targets.mean())
        return 0.0, float(np.log(mean / (1 - mean)))
    centre, scale = values.mean(), values.std()
    x = np.stack([(values - centre) / scale, np.ones_like(values)], axis=1)

    def loss(weights: np.ndarray) -> float:
        z = x @ weights
        return float((np.logaddexp(0, z) - targets * z).sum())

    weights = np.zeros(2)
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-(x @ weights)))
        gradient = x.T @ (p - targets)
        hessian = (x * (p * (1 - p))[:, None]).T @ x + 1e-12 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        share = 1.0
        while share > 1e-8 and loss(weights - share * step) > loss(weights):
            share /= 2
        weights = weights - share * step
        if np.abs(share * step).max() < _ENOUGH:
            break
    slope = float(weights[0] / scale)
    return slope, float(weights[1] - weights[0] * centre / scale)


def isotonic(values: np.ndarray, targets: np.ndarray) -> tuple[list[float], list[float]]:
    """The non-decreasing curve of least squared error to ``targets`` over ``values``, both (n,).

    Returns where it bends and its values there: the first and the last value of every level stretch.
    """
    places, which = np.unique(values, return_inverse=True)
    weights = np.bincount(which).astype(float)
    means = np.bincount(which, weights=targets) / weights
    blocks: list[list[float]] = []  # first place, last place, weight, mean
    for place, weight, mean in zip(places, weights, means, strict=True):
        blocks.append([place, place, weight, mean])
        while len(blocks) > 1 and blocks[-2][3] >= blocks[-1][3]:
            _, last, more, its = blocks.pop()
            first, _, weight_before, before = blocks.pop()
            total = weight_before + more
            blocks.append([first, last, total, (before * weight_before + its * more) / total])
    bends = [(place, mean) for first, last, _, mean in blocks for place in sorted({first, last})]
    return [float(place) for place, _ in bends], [float(mean) for _, mean in bends]


def _logistic(value: float) -> float:
    return 1 / (1 + exp(-value)) if value > 0 else exp(value) / (1 + exp(value))
