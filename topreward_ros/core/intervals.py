"""How far a number that was measured on a few episodes may be off.

The bootstrap serves any statistic. It fails where all went well: of 10 successes that were all detected,
every draw says 1, although a true share of 0.7 would be no surprise. So shares and rates have exact
intervals. Nothing changes from one call to the next: the same values, draws and seed give the same interval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import cos, exp, isfinite, isnan, lgamma, log, nan, pi, sin, sqrt, tan
from statistics import NormalDist

import numpy as np

LEVEL = 0.95  #: how often such an interval holds the true value
DRAWS = 2000  #: of a bootstrap; 50 of them lie beyond each bound
FEWEST = 5  #: elements that a bootstrap can say anything of
_HALVINGS = 60  # of a bisection


@dataclass(frozen=True, slots=True)
class Interval:
    """Where the true value is likely to be; both bounds are NaN where nothing can be said."""

    low: float
    high: float

    @property
    def is_known(self) -> bool:
        """Whether both bounds are numbers."""
        return not (isnan(self.low) or isnan(self.high))


UNKNOWN = Interval(nan, nan)  #: an interval of which nothing can be said


def bootstrap_interval(
    statistic: Callable[..., float],
    *strata: Sequence[float] | np.ndarray,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """Percentile bootstrap (Efron 1979) of ``statistic(*strata)``.

    ``strata``: arrays whose first axis counts what is drawn, for example the episodes. Each of them, for
    example successes and failures, is drawn anew with replacement on its own, so that every draw has as many
    of each as were measured. It is widened for the smallest stratum, as in `interval_of_draws`: of ten, draws
    alone would hold the true value 90 times of 100 instead of 95. It is `UNKNOWN` where a stratum has fewer
    than `FEWEST`, of which even the range of the draws says too little, where a draw gives NaN, and where all
    draws are equal: they then say nothing about what was not measured.

    >>> bootstrap_interval(np.mean, [1.0, 2.0, 3.0, 4.0, 5.0]).is_known
    True
    >>> bootstrap_interval(np.mean, [1.0, 2.0, 3.0, 4.0])
    Interval(low=nan, high=nan)
    """
    if draws < 1:
        raise ValueError(f"a bootstrap of {draws} draws says nothing: draw once at least")
    groups = [np.asarray(stratum) for stratum in strata]
    fewest = min((len(group) for group in groups), default=0)
    if fewest < FEWEST:
        return UNKNOWN
    rng = np.random.default_rng(seed)
    return interval_of_draws(
        [statistic(*(drawn(group, rng) for group in groups)) for _ in range(draws)], level, fewest
    )


def drawn(group: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As many elements of ``group`` (N, ...) as it has, drawn with replacement."""
    return np.asarray(group[rng.integers(0, len(group), len(group))])


def interval_of_draws(values: Sequence[float], level: float = LEVEL, clusters: int = 0) -> Interval:
    """The interval between two quantiles of a statistic's bootstrap draws (K,); `UNKNOWN` where one is NaN,
    and where all are equal.

    ``clusters``: of how few a draw is made, for example tasks. Draws of few are too much alike, and the
    interval is widened for that: the expanded percentile interval (Hesterberg 2015), down to the least and
    greatest draw.
    """
    tail, draws = _tail(level), np.asarray(values, np.float64)
    if np.isnan(draws).any() or (draws == draws[0]).all():
        return UNKNOWN
    if clusters:
        if clusters < 2:
            return UNKNOWN
        far = sqrt(clusters / (clusters - 1)) * student_bound(level, clusters - 1)
        tail = NormalDist().cdf(-far)
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(float(low), float(high))


def mean_interval(values: Sequence[float], level: float = LEVEL, overlap: float = 0.0) -> Interval:
    """Student's t interval of the mean of ``values`` (N,); `UNKNOWN` of fewer than two, and where all are
    equal.

    ``overlap``: of values of cross-validation the size of the part held out over that of the others, by which
    the interval is widened, as what is chosen on the others is much the same (Nadeau and Bengio 2003). No
    draw bounds it, as draws of few do: it may end far beyond the least and greatest value.

    >>> mean_interval([0.0, 0.2]).low < -1
    True
    """
    numbers = np.asarray(values, np.float64)
    if len(numbers) < 2 or np.isnan(numbers).any() or (numbers == numbers[0]).all():
        return UNKNOWN
    mean, count = float(numbers.mean()), len(numbers)
    far = student_bound(level, count - 1) * float(numbers.std(ddof=1)) * sqrt(1 / count + overlap)
    return Interval(mean - far, mean + far)


def spread_interval(value: float, draws: Sequence[float], count: int, level: float = LEVEL) -> Interval:
    """The interval of ``value`` by the spread of its bootstrap ``draws`` (K,), each of ``count`` elements.

    Of a mean it is `mean_interval`, and as there no draw bounds it. `UNKNOWN` of fewer than two elements,
    where a draw is NaN, and where all are equal.
    """
    numbers = np.asarray(draws, np.float64)
    if count < 2 or np.isnan(numbers).any() or (numbers == numbers[0]).all():
        return UNKNOWN
    far = student_bound(level, count - 1) * float(numbers.std()) * sqrt(count / (count - 1))
    return Interval(value - far, value + far)


def student_bound(level: float, freedom: int) -> float:
    """The t within which Student's distribution with so many degrees of ``freedom`` lies at this ``level``.

    >>> round(student_bound(0.95, 1), 3), round(student_bound(0.95, 9), 3)
    (12.706, 2.262)
    """
    _tail(level)
    low, high = 0.0, pi / 2  # of the angle whose tangent is t / sqrt(freedom)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_share(middle, freedom) < level else (low, middle)
    return tan((low + high) / 2) * sqrt(freedom)


def _student_share(angle: float, freedom: int) -> float:
    """P(|T| <= sqrt(freedom) tan(angle)) (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    is_odd = freedom % 2
    term = total = cos(angle) if is_odd else 1.0
    for k in range(2 + is_odd, freedom, 2):
        term *= (k - 1) / k * cos(angle) ** 2
        total += term
    if not is_odd:
        return sin(angle) * total
    return 2 / pi * (angle + (sin(angle) * total if freedom > 1 else 0.0))


def share_interval(hits: int, count: int, level: float = LEVEL) -> Interval:
    """Exact interval of a share, ``hits`` of ``count`` (Clopper and Pearson 1934); `UNKNOWN` of none.

    >>> share = share_interval(10, 10)
    >>> round(share.low, 3), share.high
    (0.692, 1.0)
    """
    tail = _tail(level)
    if not 0 <= hits <= count:
        raise ValueError(f"{hits} of {count} is no share")
    if count == 0:
        return UNKNOWN

    def at_most(most: int, share: float) -> float:
        return _sum_of_exp([_log_binomial(number, count, share) for number in range(most + 1)])

    low = 0.0 if hits == 0 else _where(lambda share: at_most(hits - 1, share), 1 - tail, 1.0)
    high = 1.0 if hits == count else _where(lambda share: at_most(hits, share), tail, 1.0)
    return Interval(low, high)


def difference_interval(first: float, its: Interval, second: float, of_second: Interval) -> Interval:
    """The interval of ``second`` minus ``first`` by those of both (square and add: Newcombe 1998, Zou and
    Donner 2008); `UNKNOWN` where one of them is.

    It needs no spread of the differences, which a few that are all alike have not. What the same episodes
    have in common does not cancel out, so that it is rather too wide than too narrow.

    >>> none, all_ = share_interval(0, 6), share_interval(6, 6)
    >>> difference_interval(0.0, none, 1.0, all_).low > 0, difference_interval(1.0, all_, 1.0, all_).low < 0
    (True, True)
    """
    if not (its.is_known and of_second.is_known):
        return UNKNOWN
    change = second - first
    below = sqrt((second - of_second.low) ** 2 + (its.high - first) ** 2)
    above = sqrt((of_second.high - second) ** 2 + (first - its.low) ** 2)
    return Interval(change - below, change + above)


def share_difference_interval(pairs: Sequence[tuple[bool, bool]], draws: int = DRAWS) -> Interval:
    """The interval of the second share minus the first, of elements that have their result in both.

    By a bootstrap of the elements, in which what is common to both cancels out; where they are few, or the
    difference is the same in all of them, by the exact interval of each share. `UNKNOWN` of none.

    >>> share_difference_interval([(False, True)] * 6).low > 0
    True
    >>> share_difference_interval([(False, True)] * 2).low > 0
    False
    """
    changes = [float(second) - float(first) for first, second in pairs]
    drawn_of = bootstrap_interval(lambda it: float(np.mean(it)), changes, draws=draws)
    if drawn_of.is_known or not pairs:
        return drawn_of
    count = len(pairs)
    hits = [sum(pair[k] for pair in pairs) for k in range(2)]
    first, second = (share_interval(number, count) for number in hits)
    return difference_interval(hits[0] / count, first, hits[1] / count, second)


def rate_interval(events: int, exposure: float, level: float = LEVEL) -> Interval:
    """Exact interval of the rate of ``events`` that were seen in ``exposure``, per unit of it (Garwood 1936).

    It is `UNKNOWN` without exposure. That nothing was seen in one hour leaves up to 3.7 per hour:

    >>> rate = rate_interval(0, 1.0)
    >>> rate.low, round(rate.high, 2)
    (0.0, 3.69)
    """
    tail = _tail(level)
    if events < 0 or not (isfinite(exposure) and exposure >= 0):
        raise ValueError(f"{events} events in an exposure of {exposure} make no rate")
    if exposure == 0:
        return UNKNOWN

    def at_most(most: int, mean: float) -> float:
        return _sum_of_exp([_log_poisson(number, mean) for number in range(most + 1)])

    far = events + 1.0
    while at_most(events, far) > tail:
        far *= 2
    low = 0.0 if events == 0 else _where(lambda mean: at_most(events - 1, mean), 1 - tail, far)
    return Interval(low / exposure, _where(lambda mean: at_most(events, mean), tail, far) / exposure)


def _tail(level: float) -> float:
    """The probability beyond each bound."""
    if not 0 < level < 1:
        raise ValueError(f"the level of an interval lies between 0 and 1, and {level} does not")
    return (1 - level) / 2


def _where(falling: Callable[[float], float], value: float, highest: float) -> float:
    """The argument in [0, ``highest``] at which a function that falls has this value, by bisection."""
    low, high = 0.0, highest
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > value else (low, middle)
    return (low + high) / 2


def _log_binomial(number: int, count: int, share: float) -> float:
    ways = lgamma(count + 1) - lgamma(number + 1) - lgamma(count - number + 1)
    return ways + number * _log(share) + (count - number) * _log(1 - share)


def _log_poisson(number: int, mean: float) -> float:
    return number * _log(mean) - mean - lgamma(number + 1)


def _log(value: float) -> float:
    """A logarithm that 0 has, too: so low that its power is 0, and that 0 times it is 0."""
    return log(value) if value > 0 else -1e300


def _sum_of_exp(logarithms: list[float]) -> float:
    return sum(map(exp, logarithms))
