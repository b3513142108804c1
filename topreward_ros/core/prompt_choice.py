"""Which wording of the question, or which ensemble of wordings, is best, and whether that is more than noise.

The best of many on some data looks better than it is. So the choice is judged on what it has not seen: each
task in turn is held out, the best on the others is chosen, and compared with the default on the one held out.
Where there is one task alone, its episodes are held out in parts instead, which says nothing of other tasks.

Where candidates were made by what others were worth, as in a search, no task that had a part in that may
judge them. Then some tasks are laid aside from the start (`search_split`), and `choose` looks at them once.

Scores of every template come from elsewhere, and what a candidate is worth on some from prompt_worth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import combinations
from math import comb, isnan, nan
from typing import Any, Protocol, TypeVar

import numpy as np

from topreward_ros.core.counted import counted
from topreward_ros.core.errors import UserError
from topreward_ros.core.intervals import (
    DRAWS,
    FEWEST,
    UNKNOWN,
    Interval,
    drawn,
    mean_interval,
    spread_interval,
)
from topreward_ros.core.measures import Measure
from topreward_ros.core.metrics import static_sweep
from topreward_ros.core.prompt_worth import Members, PromptScores, Table, order_of

_FEWEST_HALF = 2  # of each outcome, in each half of a single task
PARTS = 5  #: of the episodes of one task, of which each is held out once
FEWEST_TASKS = 3  #: that can judge: of two, noise alone has both signs alike every second time
_MOST_CANDIDATES = 3000
_SAME = 9  # decimals from which on two values are one: what is left is rounding


class Verdict(Enum):
    """What the comparison on held-out data says of choosing by these data."""

    BETTER = "better"  #: the whole interval of the gain lies above 0
    NO_DIFFERENCE = "no_difference"  #: 0 lies in it, or there is no difference at all
    TOO_FEW = "too_few"  #: held-out data are too few to tell a gain from noise, whatever they say
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
    interval: Interval  #: of the gain, by the parts; where one part judges, by its episodes
    lacking: str  #: why these data are too few for a verdict; empty where they are not

    @property
    def verdict(self) -> Verdict:
        """Whether to choose by these data is better than the default, beyond noise."""
        if self.lacking:
            return Verdict.TOO_FEW
        if self.interval.low > 0:
            return Verdict.BETTER
        return Verdict.WORSE if self.interval.high < 0 else Verdict.NO_DIFFERENCE

    @property
    def recommended(self) -> Rated:
        """The best where it is better beyond noise; the default otherwise."""
        return self.best if self.verdict is Verdict.BETTER else self.default


class ChoiceError(UserError):
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
    laid_aside: Sequence[PromptScores] = (),
    tested: Members | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Choice:
    """Choose among the candidates ``found``, of which the first is the default. Raises `ChoiceError`.

    With episodes ``laid_aside`` all ``episodes`` choose, and those alone judge what was chosen; of them only
    the scores of the default and of the best need be known. Where one was chosen already it is ``tested``.
    """
    if laid_aside:
        parts, of_tasks = judging_parts(laid_aside, measure)
        values = _values(_usable(episodes, measure), found, measure)
    else:
        parts, of_tasks = held_out_parts(episodes, measure)
        values = _values(parts, found, measure)
    tables = [Table(part, measure) for part in parts.values()]
    totals = values.mean(axis=1)
    best = _highest(totals) if tested is None else list(found).index(tested)
    if laid_aside:
        chosen = [best] * len(tables)
    else:
        chosen = [_highest(np.delete(values, place, axis=1).mean(axis=1)) for place in range(len(tables))]
    held_out = [table.value(found[row]) for table, row in zip(tables, chosen, strict=True)]
    usual = [table.value(found[0]) for table in tables]
    gains = np.array(held_out) - usual
    lacking = too_few(parts, of_tasks, measure)
    if lacking:
        interval = UNKNOWN
    elif len(tables) == 1:
        interval = _interval_in(tables[0], found[best], found[0], draws, seed)
    else:
        overlap = 0.0 if of_tasks else 1 / (len(tables) - 1)
        interval = mean_interval(gains.round(_SAME).tolist(), overlap=overlap)
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
        held_out_default=tuple(usual),
        gain=float(gains.mean()),
        interval=interval,
        lacking=lacking,
    )


def worth(episodes: Sequence[PromptScores], found: Sequence[Members], measure: Measure) -> list[float]:
    """What each of ``found`` is worth on ``episodes``: the mean over their tasks, as `choose` has it."""
    values = _values(_usable(episodes, measure), found, measure).mean(axis=1)
    return [float(value) for value in values.round(_SAME)]


def _values(parts: dict[str, list[PromptScores]], found: Sequence[Members], measure: Measure) -> np.ndarray:
    """The measure of each candidate in each part: (found, parts)."""
    tables = [Table(part, measure) for part in parts.values()]
    return np.array([[table.value(members) for table in tables] for members in found])


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
    usable = _usable(episodes, measure)
    if len(usable) > 1:
        return usable, True
    (only,) = usable.values()
    count = min(PARTS, _fewest(only, measure))
    if count < 2:
        raise ChoiceError(
            f"one part of the data must be held out: label two tasks, or two {_kinds(measure, 'two')}"
        )
    return {f"part {k + 1} of {count}": list(_part(only, k, count)) for k in range(count)}, False


def judging_parts(
    laid_aside: Sequence[AnyAttempt], measure: Measure
) -> tuple[dict[str, list[AnyAttempt]], bool]:
    """As `held_out_parts`, of episodes that judge what others chose: those of one task stay together.

    Raises `ChoiceError`.
    """
    usable = _usable(laid_aside, measure)
    if len(usable) > 1:
        return usable, True
    (only,) = usable.values()
    return {"all that is laid aside": only}, False


def too_few(parts: Mapping[str, Sequence[Attempt]], of_tasks: bool, measure: Measure) -> str:
    """Why episodes in such ``parts`` cannot tell a gain from noise, and what can; empty where they can."""
    fewest = min(_fewest(part, measure) for part in parts.values())
    if of_tasks:
        if len(parts) < FEWEST_TASKS:
            judges = counted(len(parts), "task judges", "tasks judge")
            return f"{judges}, and it takes {FEWEST_TASKS} at least: label more tasks"
        fewest = sum(_fewest(part, measure) for part in parts.values())
        if fewest < FEWEST:
            return (
                f"the {len(parts)} tasks judge by {fewest} {_kinds(measure, str(fewest))} in all, and it "
                f"takes {FEWEST} of each at least: label more episodes"
            )
        return ""
    if len(parts) == 1 and fewest < FEWEST:
        return (
            f"one task judges, by {fewest} {_kinds(measure, str(fewest))}, and it takes {FEWEST} of each at "
            "least: label more episodes of it, or more tasks"
        )
    if 1 < len(parts) < PARTS:
        return (
            f"the only task has {len(parts)} {_kinds(measure, str(len(parts)))}, and it takes {PARTS} at "
            "least: label more episodes of it, or more tasks"
        )
    return ""


def search_split(
    episodes: Sequence[AnyAttempt], measure: Measure, count: int = 0, seed: int = 0
) -> tuple[list[AnyAttempt], list[AnyAttempt]]:
    """The episodes by which to search, and those that are laid aside for the one test behind it.

    ``count`` tasks are laid aside, drawn by ``seed``; 0: half of them, and of four or more `FEWEST_TASKS` at
    least. Of a single task half of the episodes
    are, of either outcome. Raises `ChoiceError` where that leaves one of the two with too little.
    """
    usable = _usable(episodes, measure)
    if count < 0 or (count and count >= len(usable)):
        raise ChoiceError(
            f"{count} tasks cannot be laid aside of {len(usable)} that the measure {measure.value} can use: "
            "leave at least one to search by, or label more tasks"
        )
    if len(usable) == 1:
        (only,) = usable.values()
        if _fewest(only, measure) < 2 * _FEWEST_HALF:
            raise ChoiceError(
                "half of the only task is laid aside to judge what is found: label a second task, or four "
                f"{_kinds(measure, 'four')}"
            )
        halves = (list(_part(only, 0, 2)), list(_part(only, 1, 2)))
    else:
        order = np.random.default_rng(seed).permutation(len(usable))
        half = len(usable) // 2
        usual = max(half, FEWEST_TASKS) if len(usable) > FEWEST_TASKS else half
        aside = {list(usable)[place] for place in order[: count or usual]}
        halves = (
            [it for task, some in usable.items() if task not in aside for it in some],
            [it for task, some in usable.items() if task in aside for it in some],
        )
    held_out_parts(halves[1], measure)
    return halves


def _usable(episodes: Sequence[AnyAttempt], measure: Measure) -> dict[str, list[AnyAttempt]]:
    """The episodes by task, of tasks of which the measure says something. Raises `ChoiceError`: of none."""
    usable = {task: some for task, some in _by_task(episodes).items() if _fewest(some, measure)}
    if not usable:
        raise ChoiceError(
            "no episode is labelled a success, and the measure voc is of those: label some"
            if measure is Measure.VOC
            else f"no task has both successes and failures, between which the measure {measure.value} tells: "
            "label more episodes, or measure voc, which takes successes alone"
        )
    return usable


def _kinds(measure: Measure, number: str) -> str:
    return "successes" if measure is Measure.VOC else f"successes and {number} failures"


def _by_task(episodes: Sequence[AnyAttempt]) -> dict[str, list[AnyAttempt]]:
    by_task: dict[str, list[AnyAttempt]] = {}
    for episode in episodes:
        by_task.setdefault(episode.task, []).append(episode)
    return by_task


def _fewest(episodes: Sequence[Attempt], measure: Measure) -> int:
    """How many episodes there are of the outcome that has fewest, of those that the measure needs."""
    successes = sum(bool(episode.succeeded) for episode in episodes)
    return successes if measure is Measure.VOC else min(successes, len(episodes) - successes)


def _part(episodes: Sequence[AnyAttempt], part: int, count: int) -> Iterator[AnyAttempt]:
    """Every ``count``-th success and failure."""
    for outcome in (True, False):
        yield from [episode for episode in episodes if episode.succeeded is outcome][part::count]


# ---- noise, and what is said of each -----------------------------------------------------------------


def _interval_in(table: Table, chosen: Members, default: Members, draws: int, seed: int) -> Interval:
    """Of the gain in one part, by draws of its episodes by outcome; both candidates have the same ones."""
    pairs = [np.stack(two, axis=1) for two in zip(table.samples(chosen), table.samples(default), strict=True)]

    def gain(*some: np.ndarray) -> float:  # of each outcome (N, 2, ...)
        mine, usual = (table.statistic([pair[:, column] for pair in some]) for column in (0, 1))
        return mine - usual

    rng = np.random.default_rng(seed)
    gains = [gain(*(drawn(pair, rng) for pair in pairs)) for _ in range(draws)]
    return spread_interval(gain(*pairs), gains, min(map(len, pairs)))


class _Rating:
    """Makes `Rated` of candidates whose values are known."""

    def __init__(self, episodes: Sequence[PromptScores], values: dict[Members, float]) -> None:
        self._episodes = episodes
        self._values = values
        tasks = _by_task(episodes).values()
        self._tasks = [Table(some, Measure.AUC) for some in tasks if _fewest(some, Measure.AUC)]

    def __call__(self, members: Members) -> Rated:
        curves = [episode.log_probs[:, members].mean(axis=1) for episode in self._episodes]
        vocs = [order_of(curve) for curve, it in zip(curves, self._episodes, strict=True) if it.succeeded]
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
