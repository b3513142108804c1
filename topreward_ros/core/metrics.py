"""What curves of scores and the decisions made on them are worth, in numbers.

Every measure stands here once: calibration, evaluation, the prompt sweep and the training of the embedded
model use the same functions. No curve is scored and no file is read here.

What is undefined is NaN: the correlation of a constant curve, a ratio of none, an AUC of one class. A value
that is missing or NaN where a number must stand is a ValueError, since to leave it out would change the
number: whoever calls decides what an episode without a score counts as.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import isnan, nan
from statistics import NormalDist

import numpy as np

from topreward_ros.core.intervals import (
    DRAWS,
    LEVEL,
    Interval,
    bootstrap_interval,
    rate_interval,
    share_interval,
)

PREFIXES = 15  #: at which the order of a curve is judged (TOPReward, section 5.1)
BINS = 10  #: of the calibration error
_SECONDS_PER_HOUR = 3600.0
_FREEZE_SECONDS = 10.0  # [s] for which false progress is stated

Values = Sequence[float] | np.ndarray


# ---- the order of a curve ---------------------------------------------------------------------------


def ranks(values: Values) -> np.ndarray:
    """Ranks from 1 of ``values`` (N,); equal values share the mean of their ranks.

    >>> ranks([0.3, 0.1, 0.3, 0.2]).tolist()
    [3.5, 1.0, 3.5, 2.0]
    """
    _, place, counts = np.unique(_numbers(values, "value"), return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[place])


@lru_cache(maxsize=256)  # a bootstrap asks thousands of times for those of the same curves
def even_places(count: int, most: int = PREFIXES) -> np.ndarray:
    """At most ``most`` places among ``count``, evenly spread from the first to the last: (K,) int, rising.
    The array cannot be written to.

    >>> even_places(5, 3).tolist(), even_places(2).tolist()
    ([0, 2, 4], [0, 1])
    """
    spread = np.linspace(0, count - 1, most) if count else np.array([])
    places = np.unique(spread.round().astype(int))
    places.setflags(write=False)
    return places


def value_order_correlation(rewards: Values) -> float:
    """VOC of a curve (K,), one value per prefix: Spearman's rank correlation of value and time at 15 evenly
    spread prefixes (TOPReward, section 5.1).

    It is NaN for a constant curve, for fewer than two prefixes, and where one of those prefixes has no
    number. It tells nothing about success: a failed attempt may rise as steadily.

    >>> round(value_order_correlation([-3.0, -4.0, -2.0, -1.0]), 9)
    0.8
    >>> value_order_correlation([-1.0, -1.0])
    nan
    """
    values = np.asarray(rewards, dtype=np.float64)
    places = even_places(len(values))
    chosen = values[places]
    if len(chosen) < 2 or np.isnan(chosen).any() or (chosen == chosen[0]).all():
        return nan
    return float(np.corrcoef(ranks(chosen), np.arange(1.0, len(places) + 1))[0, 1])  # places rise


@dataclass(frozen=True, slots=True)
class StaticSweep:
    """How much a reward rises by the number of images alone, whatever they show.

    The VOC says nothing of how much: rounding that happens to rise has a VOC of 1, so the range belongs
    beside it.
    """

    voc: float  #: of the static video; near 0 is wanted; NaN where its curve is constant, which is best
    range: float  #: largest minus smallest reward of the static video, in the unit of the rewards
    share: float  #: that range over the range of the real video; NaN where the real curve is constant


def static_sweep(static_rewards: Values, rewards: Values) -> StaticSweep:
    """Compare the curve of the static video, the first frame repeated, with that of the real one, both (K,).

    >>> static_sweep([-4.0, -3.75, -3.5], [-4.0, -2.0, 0.0])
    StaticSweep(voc=1.0, range=0.5, share=0.125)
    """
    static_range, real_range = _range(static_rewards), _range(rewards)
    share = static_range / real_range if real_range > 0 else nan
    return StaticSweep(value_order_correlation(static_rewards), static_range, share)


def false_progress(seconds: Values, progress: Values, begin: float, end: float) -> float:
    """Progress that is made per 10 s while the picture is frozen, in the middle of an episode.

    ``seconds`` (K,), rising, and ``progress`` (K,) are those of a film that stands still from ``begin`` to
    ``end`` [s]. The change from the first prefix within to the last is scaled to 10 s; it is signed, as a
    progress that falls is false, too. NaN with fewer than two prefixes within, or where one of the two has no
    progress. A freeze that is shorter than 10 s is extrapolated; 10 s are to be preferred.

    >>> false_progress([0, 5, 10, 15, 20], [0.0, 0.25, 0.5, 0.5, 0.9], begin=5, end=15)
    0.25
    """
    times, values = np.asarray(seconds, np.float64), np.asarray(progress, np.float64)
    if times.shape != values.shape or (np.diff(times) <= 0).any():
        raise ValueError("every progress needs a time, and the times must rise")
    within = np.flatnonzero((times >= begin) & (times <= end))
    if len(within) < 2:
        return nan
    first, last = within[0], within[-1]
    rise = (values[last] - values[first]) / (times[last] - times[first])
    return float(rise * _FREEZE_SECONDS)


# ---- successes against failures -----------------------------------------------------------------------


def roc_auc(successes: Values, failures: Values) -> float:
    """Share of pairs in which the success scores higher; ties count half (Mann and Whitney 1947). NaN without
    successes or failures.

    >>> roc_auc([0.9, 0.5], [0.5, 0.1])
    0.875
    """
    high, low = _numbers(successes, "success"), _numbers(failures, "failure")
    if not (len(high) and len(low)):
        return nan
    of_successes = ranks(np.concatenate([high, low]))[: len(high)]
    least = len(high) * (len(high) + 1) / 2  # the sum of ranks when every failure scores higher
    return float((of_successes.sum() - least) / (len(high) * len(low)))


def roc_auc_interval(
    successes: Values, failures: Values, draws: int = DRAWS, seed: int = 0, level: float = LEVEL
) -> Interval:
    """Bootstrap interval of the AUC, successes and failures drawn on their own.

    Of fewer, and where all draws are alike because all successes score above all failures, or below, its
    bounds are the least and the greatest AUC that are not refuted, with the variance that Newcombe gives
    (2006, method 5). It is unknown with fewer than two of one.

    >>> roc_auc_interval([2, 3, 4], [1, 1, 1]).high, round(roc_auc_interval([2, 3, 4], [1, 1, 1]).low, 3)
    (1.0, 0.501)
    """
    high, low = _numbers(successes, "success"), _numbers(failures, "failure")
    drawn = bootstrap_interval(roc_auc, high, low, draws=draws, seed=seed, level=level)
    if drawn.is_known or min(len(high), len(low)) < 2:
        return drawn
    auc = roc_auc(high, low)
    return Interval(
        _least_auc(auc, len(high), len(low), level), 1 - _least_auc(1 - auc, len(high), len(low), level)
    )


def _least_auc(observed: float, successes: int, failures: int, level: float) -> float:
    """The least true AUC under which the ``observed`` one is no surprise."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    middle = (successes + failures) / 2 - 1

    def is_refuted(auc: float) -> bool:
        spread = 1 + middle * (1 - auc) / (2 - auc) + middle * auc / (1 + auc)
        return (observed - auc) ** 2 > z * z * auc * (1 - auc) / (successes * failures) * spread

    low, high = 0.0, observed
    for _ in range(60):
        half = (low + high) / 2
        low, high = (half, high) if is_refuted(half) else (low, half)
    return (low + high) / 2 if observed else 0.0


@dataclass(frozen=True, slots=True)
class Decisions:
    """How often "this is a success" was right; each ratio is NaN where it would be one of none."""

    hits: int  #: successes that were called so
    misses: int  #: successes that were not
    false_alarms: int  #: failures that were called successes
    rejections: int  #: failures that were not

    @property
    def recall(self) -> float:
        """Share of the successes that were called so."""
        return _ratio(self.hits, self.hits + self.misses)

    @property
    def precision(self) -> float:
        """Share of the calls that were right; it depends on how many failures were shown."""
        return _ratio(self.hits, self.hits + self.false_alarms)

    @property
    def false_alarm_rate(self) -> float:
        """Share of the failures that were called successes."""
        return _ratio(self.false_alarms, self.false_alarms + self.rejections)

    def recall_interval(self, level: float = LEVEL) -> Interval:
        """Exact interval of the recall."""
        return share_interval(self.hits, self.hits + self.misses, level)

    def precision_interval(self, level: float = LEVEL) -> Interval:
        """Exact interval of the precision, for the number of calls that there were."""
        return share_interval(self.hits, self.hits + self.false_alarms, level)

    def false_alarm_interval(self, level: float = LEVEL) -> Interval:
        """Exact interval of the share of false alarms."""
        return share_interval(self.false_alarms, self.false_alarms + self.rejections, level)


def count_decisions(called_successes: Sequence[bool], called_failures: Sequence[bool]) -> Decisions:
    """Count decisions: whether each success and each failure was called a success.

    >>> made = count_decisions([True, True, False], [False, True])
    >>> round(made.recall, 3), round(made.precision, 3), made.false_alarm_rate
    (0.667, 0.667, 0.5)
    """
    for called in (*called_successes, *called_failures):
        if not isinstance(called, bool | np.bool_):
            raise ValueError(f"a decision is True or False, and {called!r} is neither")
    hits, false_alarms = int(sum(called_successes)), int(sum(called_failures))
    return Decisions(hits, len(called_successes) - hits, false_alarms, len(called_failures) - false_alarms)


def decisions_at(threshold: float, successes: Values, failures: Values) -> Decisions:
    """What comes of calling a success whatever scores at or above ``threshold``.

    >>> decisions_at(0.5, successes=[0.9, 0.5], failures=[0.4])
    Decisions(hits=2, misses=0, false_alarms=0, rejections=1)
    """
    if isnan(threshold):
        raise ValueError("the threshold is NaN, and no score is above or below it")
    high, low = _numbers(successes, "success") >= threshold, _numbers(failures, "failure") >= threshold
    return count_decisions(high.tolist(), low.tolist())


EARLY_S = 1.0  #: before the time at which a task is said to be done; people press a key about so well


def is_early(success_s: float, done_s: float) -> bool:
    """Whether a SUCCESS came so long before the task was done, both [s], that it is a false alarm; not where
    one of both is NaN."""
    return success_s < done_s - EARLY_S


@dataclass(frozen=True, slots=True)
class Delays:
    """How long after the true success the event came, over the episodes in which it came at all."""

    median: float  #: [s]; NaN where it never came
    p95: float  #: [s], interpolated linearly; NaN where it never came
    detected: int  #: episodes in which it came
    missed: int  #: episodes in which it never came: beside the delays, not in them
    early: int  #: of the detected, those in which it came too early (`is_early`): their delays are negative


def detection_delays(events: Sequence[float | None], truths: Sequence[float]) -> Delays:
    """Delay [s] of each episode's event after the true success, both as times [s] of the same clock.

    An event that never came is None or NaN. Every success has a time: one that is NaN is a ValueError.

    >>> detection_delays([1.5, None, 3.5, 2.5], [1.0, 1.0, 3.0, 3.0])
    Delays(median=0.5, p95=0.5, detected=3, missed=1, early=0)
    """
    came = np.array([nan if event is None else event for event in events], np.float64)
    true = _numbers(truths, "true success")
    if len(came) != len(true):
        raise ValueError(f"{len(came)} events and {len(true)} true successes do not belong together")
    if np.isinf(came).any() or np.isinf(true).any():
        raise ValueError("a time of an event or a success is infinite: say None for an event that never came")
    delays = (came - true)[~np.isnan(came)]
    missed, early = len(came) - len(delays), int(sum(map(is_early, came, true)))
    if not len(delays):
        return Delays(nan, nan, 0, missed, 0)
    median, p95 = np.quantile(delays, [0.5, 0.95])
    return Delays(float(median), float(p95), len(delays), missed, early)


@dataclass(frozen=True, slots=True)
class AlarmRate:
    """False alarms per hour of footage in which nothing is to be called."""

    per_hour: float  #: NaN without footage
    interval: Interval  #: exact; without any alarm in one hour it reaches up to 3.7 per hour


def false_alarms_per_hour(alarms: int, seconds: float, level: float = LEVEL) -> AlarmRate:
    """The rate of ``alarms`` in ``seconds`` of footage, for example of an idle robot.

    >>> false_alarms_per_hour(3, 1800.0).per_hour
    6.0
    """
    hours = seconds / _SECONDS_PER_HOUR
    interval = rate_interval(alarms, hours, level)
    return AlarmRate(_ratio(alarms, hours), interval)


# ---- calibration --------------------------------------------------------------------------------------


def expected_calibration_error(probabilities: Values, outcomes: Sequence[bool], bins: int = BINS) -> float:
    """ECE: how far stated probabilities (N,) are from what happened (N,), the mean over bins, weighted by how
    many fall into them, of |mean probability - share of successes| (Naeini et al. 2015). NaN of none.

    The bins are equally wide, (a, b] but the lowest, which holds 0: the edges are then the same for every
    model and data set, and the many equal values at 0 and 1 that a progress has fall into one bin, where bins
    of equal counts would have to part them. Few episodes leave few in a bin and an error even where the
    probabilities are right; `calibration_error_by_chance` says how much.

    >>> round(expected_calibration_error([0.9, 0.9, 0.1, 0.1], [True, False, False, False]), 9)
    0.25
    """
    stated = _numbers(probabilities, "probability")
    happened = np.asarray(outcomes, np.float64)
    if len(stated) != len(happened):
        raise ValueError(f"{len(stated)} probabilities and {len(happened)} outcomes do not belong together")
    outside = stated[(stated < 0) | (stated > 1)]
    if len(outside):
        raise ValueError(f"a probability lies in [0, 1], and {outside[0]} does not")
    if not np.isin(happened, (0, 1)).all():
        raise ValueError("an outcome is True or False")
    if bins < 1:
        raise ValueError(f"{bins} bins hold nothing")
    if not len(stated):
        return nan
    place = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], stated)  # an edge belongs to the bin below it
    gaps = np.bincount(place, stated - happened, bins)
    return float(np.abs(gaps).sum() / len(stated))


def calibration_error_by_chance(
    probabilities: Values, bins: int = BINS, draws: int = DRAWS, seed: int = 0
) -> float:
    """The mean ECE of ``probabilities`` that are right: outcomes are drawn from them. What is not above this
    is no sign of a bad calibration.

    >>> calibration_error_by_chance([0.0, 1.0]), round(calibration_error_by_chance([0.5]), 2)
    (0.0, 0.5)
    """
    stated = _numbers(probabilities, "probability")
    if not len(stated):
        return nan
    drawn = np.random.default_rng(seed).random((draws, len(stated))) < stated
    return float(np.mean([expected_calibration_error(stated, outcomes, bins) for outcomes in drawn]))


# ---- instructions and tasks -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InstructionSensitivity:
    """How well the score of a video tells its own instruction from another one."""

    share: float  #: of the videos that score higher with their own; ties count half; NaN of none
    difference: float  #: mean of own minus other, in the unit of the scores; NaN of none
    videos: int


def instruction_sensitivity(own: Values, other: Values) -> InstructionSensitivity:
    """Compare the scores (N,) of videos with their own instruction and (N,) with another one, pair by pair.

    >>> instruction_sensitivity(own=[-0.5, -1.0], other=[-2.5, -1.0])
    InstructionSensitivity(share=0.75, difference=1.0, videos=2)
    """
    right, wrong = _numbers(own, "score"), _numbers(other, "score with another instruction")
    if len(right) != len(wrong):
        raise ValueError(f"{len(right)} and {len(wrong)} scores make no pairs")
    if not len(right):
        return InstructionSensitivity(nan, nan, 0)
    return InstructionSensitivity(_wins(right, wrong), float(np.mean(right - wrong)), len(right))


@dataclass(frozen=True, slots=True)
class Ranking:
    """How well scores rank the attempts at one task, as Robometer reports it (`rank_attempts`)."""

    accuracy: float  #: share of pairs, pooled over all tasks, in which the better attempt scores higher
    pairs: int
    kendall_tau: float  #: mean over the tasks of their Kendall's tau-a
    margin: float  #: mean over the tasks of mean score of their best grade minus that of their worst
    by_task: Mapping[str, float]  #: accuracy of each task that has a pair


def rank_attempts(scores: Values, grades: Values, tasks: Sequence[str]) -> Ranking:
    """Rank attempts (N,) within their tasks by final score, as Robometer does (arXiv 2603.02115;
    `robometer/evals/compile_results.py`, policy ranking, at c7f38e2).

    ``grades``: how good each attempt was, for example 0 for a failure, 1 for a success, or 1, 2 and 3 with
    suboptimal ones between. Only pairs of one task and of different grades count. Tau-a is taken of every
    choice of one attempt per grade, and its mean over all choices is that of the signs over all pairs of
    grades, which is what is computed. Ties of scores count half a pair here, and 0 in tau; Robometer's
    accuracy counts a tie as right or wrong, as the order of the attempts falls.

    >>> ranked = rank_attempts([0.9, 0.2, 0.5, 0.4], [1, 0, 1, 0], ["open", "open", "open", "close"])
    >>> ranked.accuracy, ranked.pairs, ranked.kendall_tau, round(ranked.margin, 3)
    (1.0, 2, 1.0, 0.5)
    """
    values, quality = _numbers(scores, "score"), _numbers(grades, "grade")
    if not len(values) == len(quality) == len(tasks):
        raise ValueError(
            f"{len(values)} scores, {len(quality)} grades, {len(tasks)} tasks do not belong together"
        )
    by_task: dict[str, float] = {}
    taus, margins = [], []
    wins, pairs = 0.0, 0
    for task in dict.fromkeys(tasks):
        mine = np.array([name == task for name in tasks])
        groups = [values[mine & (quality == grade)] for grade in np.unique(quality[mine])]
        if len(groups) < 2:
            continue
        matches = list(combinations(groups, 2))
        aucs = [roc_auc(better, worse) for worse, better in matches]
        sizes = [len(better) * len(worse) for worse, better in matches]
        won = sum(auc * size for auc, size in zip(aucs, sizes, strict=True))
        by_task[task] = won / sum(sizes)
        wins, pairs = wins + won, pairs + sum(sizes)
        taus.append(float(2 * np.mean(aucs) - 1))
        margins.append(float(np.mean(groups[-1]) - np.mean(groups[0])))
    return Ranking(_ratio(wins, pairs), pairs, _mean(taus), _mean(margins), by_task)


@dataclass(frozen=True, slots=True)
class TaskConfusion:
    """What every instruction makes of the videos of every task (`confuse_tasks`)."""

    tasks: tuple[str, ...]  #: T, sorted
    progress: (
        np.ndarray
    )  #: (T, T) mean final progress; row: instruction, column: task of the video; NaN of none
    own: float  #: mean of the diagonal, where instruction and video fit; near 1 is wanted
    other: float  #: mean of all else; near 0 is wanted
    missing: int  #: pairs of tasks of which there is no video; they are in neither mean

    @property
    def difference(self) -> float:
        """Mean of the diagonal minus mean of all else: Robometer's `normalized_trace_minus_offdiag`."""
        return self.own - self.other


def confuse_tasks(instructions: Sequence[str], tasks: Sequence[str], progress: Values) -> TaskConfusion:
    """Confusion matrix of tasks as Robometer reports it: the mean of the final ``progress`` (N,) of videos of
    ``tasks`` (N,) that were scored with ``instructions`` (N,), each named by its task (arXiv 2603.02115;
    `run_confusion_matrix_eval` at c7f38e2, which has 0 where there is no video, and counts it).

    >>> made = confuse_tasks(["open", "open", "close"], ["open", "close", "close"], [0.9, 0.2, 0.7])
    >>> made.tasks, made.progress.tolist()
    (('close', 'open'), [[0.7, nan], [0.2, 0.9]])
    >>> round(made.own, 3), made.other, made.missing
    (0.8, 0.2, 1)
    """
    values = _numbers(progress, "final progress")
    if not len(values) == len(instructions) == len(tasks):
        raise ValueError(
            f"{len(instructions)} instructions, {len(tasks)} tasks and {len(values)} values are no videos"
        )
    cells: dict[tuple[str, str], list[float]] = defaultdict(list)
    for instruction, task, value in zip(instructions, tasks, values, strict=True):
        cells[instruction, task].append(float(value))
    names = tuple(sorted({*instructions, *tasks}))
    means = np.full((len(names), len(names)), nan)
    for (instruction, task), found in cells.items():
        means[names.index(instruction), names.index(task)] = _mean(found)
    diagonal = np.eye(len(names), dtype=bool)
    known = ~np.isnan(means)
    own, other = means[diagonal & known], means[~diagonal & known]
    return TaskConfusion(names, means, _mean(own), _mean(other), int((~known).sum()))


# ---- helpers ----------------------------------------------------------------------------------------------


def _numbers(values: Values, what: str) -> np.ndarray:
    """``values`` as an array (N,) without NaN; ``what`` one of them is called."""
    array = np.asarray(values, np.float64)
    if array.ndim != 1:
        raise ValueError(f"expected a list of numbers, one per {what}, not the shape {array.shape}")
    if np.isnan(array).any():
        place = int(np.flatnonzero(np.isnan(array))[0])
        raise ValueError(f"{what} number {place + 1} of {len(array)} is NaN: decide first what it counts as")
    return array


def _range(values: Values) -> float:
    numbers = np.asarray(values, np.float64)
    return float(np.ptp(numbers)) if numbers.size else nan


def _wins(own: np.ndarray, other: np.ndarray) -> float:
    return float(np.mean((own > other) + 0.5 * (own == other)))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else nan


def _mean(values: Sequence[float] | np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else nan
