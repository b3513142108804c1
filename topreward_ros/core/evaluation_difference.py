"""Two evaluations side by side: by how much each measure differs, and whether that is more than noise.

Where both scored the same episodes, the difference has an interval by a bootstrap that draws episodes, each
with its results in both: what is common to both, such as a hard episode, cancels out. Where they are few, or
all differ alike, as 0 of 6 from 6 of 6, draws say nothing, and the intervals of both measures stand in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan

import numpy as np

from topreward_ros.core import metrics
from topreward_ros.core.evaluation import ALL, DECISIONS, EvaluatedEpisode, Measure, Mode
from topreward_ros.core.intervals import (
    DRAWS,
    FEWEST,
    UNKNOWN,
    Interval,
    bootstrap_interval,
    difference_interval,
    share_difference_interval,
)


@dataclass(frozen=True, slots=True)
class Difference:
    """A measure in two evaluations."""

    scope: str
    mode: str
    name: str
    first: float  #: NaN where it was not taken
    second: float
    interval: Interval  #: of second minus first; `UNKNOWN` where the episodes are not the same, or too few
    lack: str = ""  #: why it is `UNKNOWN`, in a few words; empty: it is known, or this measure has none

    @property
    def is_more_than_noise(self) -> bool:
        """Whether the interval is known and does not hold 0."""
        return self.interval.is_known and not self.interval.low <= 0 <= self.interval.high


def differences(
    first: Sequence[Measure],
    second: Sequence[Measure],
    episodes: tuple[Sequence[EvaluatedEpisode], Sequence[EvaluatedEpisode]],
    thresholds: tuple[float, float],
    draws: int = DRAWS,
) -> list[Difference]:
    """Each measure that one of both has, in the order of ``first``.

    ``episodes`` and ``thresholds`` [nat]: of the first and the second evaluation; ``draws``: of the
    bootstraps.
    """
    values = [{(it.scope, it.mode, it.name): it.value for it in measures} for measures in (first, second)]
    keys = list(dict.fromkeys((*values[0], *values[1])))
    pairs = _pairs(*episodes)
    nothing = UNKNOWN, ""
    return [
        Difference(
            *key,
            values[0].get(key, nan),
            values[1].get(key, nan),
            *(_interval(*key, pairs, thresholds, draws) if all(key in it for it in values) else nothing),
        )
        for key in keys
    ]


def common(first: Sequence[EvaluatedEpisode], second: Sequence[EvaluatedEpisode]) -> int:
    """How many episodes are in both, with the same frames, task and label."""
    return len(_pairs(first, second))


_Pair = tuple[EvaluatedEpisode, EvaluatedEpisode]


def _pairs(first: Sequence[EvaluatedEpisode], second: Sequence[EvaluatedEpisode]) -> list[_Pair]:
    others = {(it.identity, it.task, it.succeeded): it for it in second}
    found = [(it, others.get((it.identity, it.task, it.succeeded))) for it in first]
    return [(one, other) for one, other in found if other is not None]


def _interval(
    scope: str,
    mode: str,
    name: str,
    pairs: Sequence[_Pair],
    thresholds: tuple[float, float],
    draws: int,
) -> tuple[Interval, str]:
    """The interval, and why there is none."""
    wanted = [pair for pair in pairs if scope in (ALL, pair[0].task)]
    if mode == DECISIONS and name in _SHARES:
        outcome, called = _SHARES[name]
        group = [pair for pair in wanted if pair[0].succeeded is outcome]
        return _told(
            share_difference_interval(
                [(called(one, thresholds[0]), called(two, thresholds[1])) for one, two in group], draws
            ),
            len(group),
        )
    if mode not in set(Mode):  # of a file of another version
        return UNKNOWN, ""
    if name in ("voc_success", "voc_failure"):
        group = [pair for pair in wanted if pair[0].succeeded is (name == "voc_success")]
        return _of_means(group, lambda it, threshold: _voc(it, Mode(mode), threshold), thresholds, draws)
    if name != "auc":
        return UNKNOWN, ""
    high, low = (
        np.array([_finals(pair, Mode(mode), thresholds) for pair in wanted if pair[0].succeeded is kind])
        for kind in (True, False)
    )
    if min(len(high), len(low)) < 2:
        return _told(UNKNOWN, min(len(high), len(low)))
    drawn = bootstrap_interval(
        lambda a, b: metrics.roc_auc(a[:, 1], b[:, 1]) - metrics.roc_auc(a[:, 0], b[:, 0]),
        high,
        low,
        draws=draws,
    )
    if drawn.is_known:
        return drawn, ""
    pairs_of = [(high[:, k], low[:, k]) for k in range(2)]
    (first, its), (second, of_second) = (
        (metrics.roc_auc(*them), metrics.roc_auc_interval(*them, draws)) for them in pairs_of
    )
    return _told(difference_interval(first, its, second, of_second), min(len(high), len(low)))


def _told(interval: Interval, count: int) -> tuple[Interval, str]:
    """``interval`` of so many episodes of the rarer kind, and why it is unknown."""
    if interval.is_known:
        return interval, ""
    if not count:
        return interval, "no episode in both"
    return interval, "too few" if count < FEWEST else "all alike"


#: Of which episodes a decision's share is, successes or not, and of which of them it holds.
_SHARES: Mapping[str, tuple[bool, Callable[[EvaluatedEpisode, float], bool]]] = {
    "recall": (True, lambda it, _: it.is_detected),
    "recall_at_end": (True, lambda it, threshold: it.plain.ends_above(threshold)),
    "false_alarms": (False, lambda it, _: it.plain.success_s is not None),
}


def _finals(pair: _Pair, mode: Mode, thresholds: tuple[float, float]) -> list[float]:
    return [it.plain.final(mode, threshold) for it, threshold in zip(pair, thresholds, strict=True)]


def _voc(episode: EvaluatedEpisode, mode: Mode, threshold: float) -> float:
    return metrics.value_order_correlation(episode.plain.values(mode, threshold))


def _of_means(
    pairs: Sequence[_Pair],
    value: Callable[[EvaluatedEpisode, float], float],
    thresholds: tuple[float, float],
    draws: int,
) -> tuple[Interval, str]:
    """Interval of the mean difference of a value per episode, of those in which both are defined."""
    changes = [value(two, thresholds[1]) - value(one, thresholds[0]) for one, two in pairs]
    defined = [change for change in changes if not isnan(change)]
    interval = bootstrap_interval(lambda it: float(np.mean(it)), defined, draws=draws) if defined else UNKNOWN
    return _told(interval, len(defined))
