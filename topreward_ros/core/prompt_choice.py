"""Which wording of the question, or which ensemble of wordings, is best, and whether that is more than noise.

The best of many on some data looks better than it is. So the choice is judged on what it has not seen: each
task in turn is held out, the best on the others is chosen, and compared with the default on the one held out.
Where there is one task alone, its episodes are held out in parts instead, which says nothing of other tasks.

Scores of every template come from elsewhere; here is arithmetic alone. An ensemble's score is the mean of the
log-probabilities of its templates, as the scorers have it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import combinations
from math import comb, isnan, nan
from typing import Any, Protocol, TypeVar

import numpy as np

from topreward_ros.core.intervals import DRAWS, Interval, drawn, interval_of_draws
from topreward_ros.core.measures import Measure
from topreward_ros.core.metrics import roc_auc, static_sweep, value_order_correlation

LAST_PREFIXES = 3  #: whose mean reward is the score of an episode (TOPReward, section 5.2)
PARTS = 5  #: of the episodes of one task, of which each is held out once
_MOST_CANDIDATES = 3000
_SAME = 9  # decimals from which on two values are one: what is left is rounding

Members = tuple[int, ...]  #: the templates of a candidate, by their places among all


class Verdict(Enum):
    """What the comparison on held-out data says of choosing by these data."""

    BETTER = "better"  #: the whole interval of the gain lies above 0
    NO_DIFFERENCE = "no_difference"  #: 0 lies in it, or nothing can be said
    #: It lies below 0: what is best on some tasks is not best on others. Where two candidates are almost the
    #: same it may be the way of judging: without a task that speaks for one, the other is chosen, and loses.
    WORSE = "worse"


class Attempt(Protocol):
    """What is said of an episode."""

    @property
    def task(self) -> str:
        """In natural language."""

    @property
    def succeeded(self) -> bool | None:
        """Whether it was done."""


AnyAttempt = TypeVar("AnyAttempt", bound=Attempt)


@dataclass(frozen=True, slots=True)
class PromptScores:
    """The rewards of one episode by template."""

    task: str
    succeeded: bool
    log_probs: np.ndarray  #: (K, P) [nat] of K prefixes and P templates
    static: np.ndarray  #: (K, P) [nat] of the static video


@dataclass(frozen=True, slots=True)
class Rated:
    """What a candidate is worth on all data."""

    members: Members
    value: float  #: mean over the tasks of the measure
    auc: float  #: mean over the tasks that have both outcomes; NaN where none has
    voc: float  #: mean over the successes; NaN without any
    static_voc: float  #: of the first frame repeated, mean over all episodes; near 0 is wanted
    static_share: float  #: range of that curve over that of the real one, median


@dataclass(frozen=True, slots=True)
class Choice:
    """What was found."""

    measure: Measure
    parts: tuple[str, ...]  #: that were held out in turn: tasks, or parts of the only one
    of_tasks: bool  #: whether tasks were held out
    candidates: int  #: how many were compared
    default: Rated
    best: Rated  #: on all data: too good by nature
    singles: tuple[Rated, ...]  #: every template alone, in their order
    leading: tuple[Rated, ...]  #: the best of all, in order
    chosen: tuple[Members, ...]  #: for each part that was held out, the best on the others
    held_out: tuple[float, ...]  #: what each of these is worth on its part
    held_out_default: tuple[float, ...]  #: what the default is
    gain: float  #: mean of the differences
    interval: Interval  #: of the gain, by bootstrap over the parts and the episodes in them, for few parts

    @property
    def verdict(self) -> Verdict:
        """Whether to choose by these data is better than the default, beyond noise."""
        if self.interval.low > 0:
            return Verdict.BETTER
        return Verdict.WORSE if self.interval.high < 0 else Verdict.NO_DIFFERENCE

    @property
    def recommended(self) -> Rated:
        """The best where it is better beyond noise; the default otherwise."""
        return self.best if self.verdict is Verdict.BETTER else self.default


class ChoiceError(ValueError):
    """The data do not allow the comparison; the text says what is lacking."""


def candidates(
    default: Members, files: Sequence[Members], kinds: Sequence[str], largest: int
) -> tuple[list[Members], int]:
    """The candidates, each once, the default first; and the size up to which all ensembles are among them.

    ``files``: the templates of each file as it is; ``kinds``: how each template ends, as those that end in
    another way cannot be averaged. All ensembles of up to ``largest`` templates come, of each size as far as
    there are not too many.

    >>> candidates((0,), [(0, 1, 2)], ["", "", ""], largest=2)
    ([(0,), (1,), (2,), (0, 1, 2), (0, 1), (0, 2), (1, 2)], 2)
    """
    count = len(kinds)
    found = dict.fromkeys([default, *((place,) for place in range(count)), *files])
    reached = 1
    for size in range(2, min(largest, count) + 1):
        if len(found) + comb(count, size) > _MOST_CANDIDATES:
            break
        of_one_kind = (
            some for some in combinations(range(count), size) if len({kinds[k] for k in some}) == 1
        )
        found.update(dict.fromkeys(of_one_kind))
        reached = size
    return list(found), reached


def choose(
    episodes: Sequence[PromptScores],
    found: Sequence[Members],
    measure: Measure,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Choice:
    """Choose among the candidates ``found``, of which the first is the default. Raises `ChoiceError`."""
    parts, of_tasks = held_out_parts(episodes, measure)
    tables = [_Table(part, measure) for part in parts.values()]
    values = np.array([[table.value(members) for table in tables] for members in found])  # (found, parts)
    totals = values.mean(axis=1)
    best = _highest(totals)
    chosen = [_highest(np.delete(values, place, axis=1).mean(axis=1)) for place in range(len(tables))]
    held_out = [float(values[row, place]) for place, row in enumerate(chosen)]
    gains = _drawn_gains([found[row] for row in chosen], found[0], tables, draws, seed)
    order = np.argsort(-totals.round(_SAME), kind="stable")
    rate = _Rating(episodes, dict(zip(found, totals.tolist(), strict=True)))
    singles = [members for members in found if len(members) == 1]
    return Choice(
        measure=measure,
        parts=tuple(parts),
        of_tasks=of_tasks,
        candidates=len(found),
        default=rate(found[0]),
        best=rate(found[best]),
        singles=tuple(map(rate, sorted(singles))),
        leading=tuple(rate(found[row]) for row in order[:10]),
        chosen=tuple(found[row] for row in chosen),
        held_out=tuple(held_out),
        held_out_default=tuple(values[0].tolist()),
        gain=float(np.mean(np.array(held_out) - values[0])),
        interval=interval_of_draws(gains, clusters=len(tables)),
    )


def _highest(values: np.ndarray) -> int:
    """The place of the highest value; of several that are the same, the first: the simplest."""
    return int(np.argmax(values.round(_SAME)))


# ---- what is held out -------------------------------------------------------------------------------


def held_out_parts(
    episodes: Sequence[AnyAttempt], measure: Measure
) -> tuple[dict[str, list[AnyAttempt]], bool]:
    """The episodes by what is held out together, with a name for it; and whether that is a task each.

    Tasks of which the measure says nothing are left out. Raises `ChoiceError` where nothing can be held out.
    """
    by_task = _by_task(episodes)
    usable = {task: some for task, some in by_task.items() if _fewest(some, measure)}
    if not usable:
        raise ChoiceError(
            "no task has both successes and failures, between which the measure auc tells: label more "
            "episodes, or measure voc, which takes successes alone"
            if measure is Measure.AUC
            else "no episode is labelled a success, and the measure voc is of those: label some"
        )
    if len(usable) > 1:
        return usable, True
    (only,) = usable.values()
    count = min(PARTS, _fewest(only, measure))
    if count < 2:
        kinds = "successes and two failures" if measure is Measure.AUC else "successes"
        raise ChoiceError(f"one part of the data must be held out: label two tasks, or two {kinds}")
    return {f"part {k + 1} of {count}": list(_part(only, k, count)) for k in range(count)}, False


def _by_task(episodes: Sequence[AnyAttempt]) -> dict[str, list[AnyAttempt]]:
    by_task: dict[str, list[AnyAttempt]] = {}
    for episode in episodes:
        by_task.setdefault(episode.task, []).append(episode)
    return by_task


def _fewest(episodes: Sequence[Attempt], measure: Measure) -> int:
    """How many episodes there are of the outcome that has fewest, of those that the measure needs."""
    successes = sum(bool(episode.succeeded) for episode in episodes)
    return min(successes, len(episodes) - successes) if measure is Measure.AUC else successes


def _part(episodes: Sequence[AnyAttempt], part: int, count: int) -> Iterator[AnyAttempt]:
    """Every ``count``-th success and failure."""
    for outcome in (True, False):
        yield from [episode for episode in episodes if episode.succeeded is outcome][part::count]


# ---- what a candidate is worth ----------------------------------------------------------------------


class _Table:
    """What the measure needs of the episodes in one part."""

    def __init__(self, episodes: Sequence[PromptScores], measure: Measure) -> None:
        self._measure = measure
        self._successes = [episode.log_probs for episode in episodes if episode.succeeded]
        self._finals = [
            np.array([final_scores(it.log_probs) for it in episodes if it.succeeded is outcome])
            for outcome in (True, False)
        ]

    def samples(self, members: Members) -> list[np.ndarray]:
        """A number for each episode (N,), for each outcome that the measure needs."""
        if self._measure is Measure.AUC:
            return [finals[:, members].mean(axis=1) for finals in self._finals]
        return [np.array([_voc(log_probs[:, members].mean(axis=1)) for log_probs in self._successes])]

    def value(self, members: Members) -> float:
        """The measure of a candidate."""
        return self.statistic(self.samples(members))

    def statistic(self, samples: Sequence[np.ndarray]) -> float:
        """The measure of such numbers."""
        return roc_auc(*samples) if self._measure is Measure.AUC else float(samples[0].mean())


def final_scores(log_probs: np.ndarray) -> np.ndarray:
    """The score of an episode by template (P,), of its ``log_probs`` (K, P) [nat]."""
    return np.asarray(log_probs[-LAST_PREFIXES:].mean(axis=0))


def _voc(log_probs: np.ndarray) -> float:
    """The VOC; a curve that has no order counts as one without any."""
    voc = value_order_correlation(log_probs)
    return 0.0 if isnan(voc) else voc


def _drawn_gains(
    chosen: Sequence[Members], default: Members, tables: Sequence[_Table], draws: int, seed: int
) -> list[float]:
    """Bootstrap draws of the mean gain: parts are drawn with replacement, and in each its episodes by
    outcome.

    Both candidates have the same episodes in a draw. The choice is not made anew.
    """
    rng = np.random.default_rng(seed)
    pairs = [
        [np.stack(two, axis=1) for two in zip(table.samples(members), table.samples(default), strict=True)]
        for table, members in zip(tables, chosen, strict=True)
    ]  # by part and outcome: (N, 2)

    def gain(part: int) -> float:
        some = [drawn(pair, rng) for pair in pairs[part]]
        mine, usual = (tables[part].statistic([pair[:, column] for pair in some]) for column in (0, 1))
        return mine - usual

    places = range(len(tables))
    return [float(np.mean([gain(part) for part in rng.choice(places, len(places))])) for _ in range(draws)]


class _Rating:
    """Makes `Rated` of candidates whose values are known."""

    def __init__(self, episodes: Sequence[PromptScores], values: dict[Members, float]) -> None:
        self._episodes = episodes
        self._values = values
        tasks = _by_task(episodes).values()
        self._tasks = [_Table(some, Measure.AUC) for some in tasks if _fewest(some, Measure.AUC)]

    def __call__(self, members: Members) -> Rated:
        curves = [episode.log_probs[:, members].mean(axis=1) for episode in self._episodes]
        vocs = [_voc(curve) for curve, it in zip(curves, self._episodes, strict=True) if it.succeeded]
        sweeps = [
            static_sweep(episode.static[:, members].mean(axis=1), curve)
            for episode, curve in zip(self._episodes, curves, strict=True)
        ]
        return Rated(
            members,
            self._values[members],
            _mean_of_known([table.value(members) for table in self._tasks]),
            _mean_of_known(vocs),
            _mean_of_known([sweep.voc for sweep in sweeps]),
            _mean_of_known([sweep.share for sweep in sweeps], np.median),
        )


def _mean_of_known(values: Sequence[float], mean: Callable[[list[float]], Any] = np.mean) -> float:
    known = [value for value in values if not isnan(value)]
    return float(mean(known)) if known else nan
