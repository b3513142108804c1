"""What scores are worth on labelled episodes: from curves to a flat list of measures, per task and over all.

An episode was scored as it was recorded and, where asked, as several controls: films made of it of which it
is known what a score should do. The measures themselves stand in metrics.py; here it is decided on which
values they are taken. No file is read and nothing is scored here.

A curve is looked at in several modes: the log-probability itself, each live kind of progress, and the paper's
progress, which looks ahead. What was decided (SUCCESS) is the monitor's, with its settings, whatever the
mode. An episode whose final progress is NaN, because its start already looks finished or nothing could be
seen, has made no progress: it counts as 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import isfinite, isnan, nan

import numpy as np

from topreward_ros.core import metrics
from topreward_ros.core.calibration.told import Row
from topreward_ros.core.intervals import DRAWS, Interval, bootstrap_interval
from topreward_ros.core.progress import PrefixScore, ProgressMode, episode_minmax, live_progress

LAST = 3  #: prefixes whose mean is the final value (TOPReward, section 5.2)
FREEZE_S = 10.0  #: [s] for which the picture stands still in the middle of a control
ALL = ""  #: the scope of all tasks together
DECISIONS = "decisions"  #: the mode of measures on what the monitor decided


class Control(StrEnum):
    """What is done to an episode; the values stand in results."""

    PLAIN = "plain"  #: nothing
    IDLE = "idle"  #: the first frame, with the noise of a camera: footage of a robot that does nothing
    REVERSED = "reversed"  #: the last frame first
    FASTER = "stretched_0.5"  #: in half the time
    SLOWER = "stretched_2"  #: in twice the time
    FROZEN = "frozen"  #: the picture stands still for `FREEZE_S` in the middle, and goes on
    COVERED = "covered"  #: the lens is covered after a quarter
    WRONG_INSTRUCTION = "wrong_instruction"  #: the frames as they are; the instruction is of another task


class Mode(StrEnum):
    """How a curve is looked at; the values stand in results."""

    LIVE = "live"  #: progress as the monitor gave it, by its settings
    LOG_PROB = "log_prob"  #: r itself [nat]
    STATIC_BASELINE = "static_baseline"  #: progress as live
    RAW_PROBABILITY = "raw_probability"  #: progress as live
    EPISODE_MINMAX = "episode_minmax"  #: the paper's, which looks ahead


_LIVE = {
    Mode.STATIC_BASELINE: ProgressMode.STATIC_BASELINE,
    Mode.RAW_PROBABILITY: ProgressMode.RAW_PROBABILITY,
}


@dataclass(frozen=True, slots=True)
class Run:
    """What scoring one film of an episode gave: K scores."""

    instruction: str  #: a stage per line
    times_s: tuple[float, ...]  #: of the newest frame of each prefix [s]
    scores: tuple[PrefixScore, ...]
    stages: tuple[int, ...]  #: that was watched at each, from 1
    progress: tuple[float, ...]  #: of the whole task as the monitor gave it, [0, 1] or NaN
    duration_s: float  #: time of the last frame that was looked at [s]
    events: tuple[tuple[float, str], ...] = ()  #: time [s] and type of what the monitor said
    #: Of success [nat], that was in force at each score; empty: that of the settings at all.
    thresholds: tuple[float, ...] = ()
    told: tuple[
        Row, ...
    ] = ()  #: what a detector was told, with every look that there may be; empty: not kept

    @property
    def success_s(self) -> float | None:
        """When SUCCESS came [s]; None: it did not."""
        return next((time_s for time_s, kind in self.events if kind == "SUCCESS"), None)

    def values(self, mode: Mode, threshold: float) -> np.ndarray:
        """The curve (K,) in a mode: nats, or progress of the whole task in [0, 1] or NaN.

        ``threshold``: of success [nat], by which a start is known that looks finished already, where the run
        does not know which one was in force.
        """
        log_probs = np.array([score.success_log_prob for score in self.scores], np.float64)
        if mode is Mode.LOG_PROB:
            return log_probs
        if mode is Mode.LIVE:
            return np.array(self.progress, np.float64)
        stages = np.array(self.stages, int)
        if mode is Mode.EPISODE_MINMAX:
            own = np.full(len(log_probs), nan)
            for stage in set(self.stages):
                own[stages == stage] = episode_minmax(log_probs[stages == stage])
        else:
            limits = self.thresholds or [threshold] * len(self.scores)
            pairs = zip(self.scores, limits, strict=True)
            own = np.array([live_progress(score, _LIVE[mode], limit) for score, limit in pairs], np.float64)
        return np.asarray((stages - 1 + own) / (self.instruction.count("\n") + 1))

    def static(self) -> Run:
        """The same of the static video, the first frame repeated, which is scored beside each prefix; NaN
        where it was not."""
        statics = [score.log_prob_static for score in self.scores]
        scores = tuple(PrefixScore(static, nan, log_prob_static=static) for static in statics)
        return replace(self, scores=scores, events=())

    def final(self, mode: Mode, threshold: float) -> float:
        """The mean of the last `LAST` values; a progress that is NaN counts as 0."""
        last = self.values(mode, threshold)[-LAST:]
        if mode is not Mode.LOG_PROB:
            last = np.where(np.isnan(last), 0.0, last)
        return float(np.mean(last)) if len(last) else nan

    def ends_above(self, threshold: float) -> bool:
        """Whether the final log-probability is at or above the threshold in force, ``threshold`` [nat] where
        the run does not know it."""
        limit = self.thresholds[-1] if self.thresholds else threshold
        return self.final(Mode.LOG_PROB, limit) >= limit


@dataclass(frozen=True, slots=True)
class EvaluatedEpisode:
    """A labelled episode with the runs that were made of it."""

    name: str
    identity: str  #: hash of its frames
    task: str
    succeeded: bool | None
    done_s: float | None  #: when it was done [s]
    runs: Mapping[Control, Run]  #: those that have a score; never without `Control.PLAIN`

    @property
    def plain(self) -> Run:
        """As it was recorded."""
        return self.runs[Control.PLAIN]

    @property
    def is_early(self) -> bool:
        """Whether SUCCESS came before it was done, which is a false alarm; not where nobody said when."""
        at_s = self.plain.success_s
        return at_s is not None and self.done_s is not None and metrics.is_early(at_s, self.done_s)

    @property
    def is_detected(self) -> bool:
        """Whether SUCCESS came, and not too early."""
        return self.plain.success_s is not None and not self.is_early


@dataclass(frozen=True, slots=True)
class Measure:
    """A number, and how sure it is."""

    scope: str  #: a task, or `ALL`
    mode: str  #: a `Mode`, or `DECISIONS`
    name: str  #: key of `KINDS`
    value: float  #: NaN where it is not defined
    low: float  #: ends of its 95 % interval; NaN where nothing can be said
    high: float
    count: int  #: episodes, pairs or events that it is taken of


@dataclass(frozen=True, slots=True)
class Kind:
    """What a measure is called, and how it is read."""

    label: str
    unit: str = ""  #: empty: a share or a correlation
    wanted: str = ""  #: "high", "low", "zero"; empty: neither
    about: str = ""  #: a sentence for who reads the table


KINDS: Mapping[str, Kind] = {
    "auc": Kind("ROC-AUC", wanted="high", about="a success ends higher than a failure; 0.5 is chance"),
    "voc_success": Kind("VOC, successes", wanted="high", about="how steadily the value rises with time"),
    "voc_failure": Kind("VOC, failures", about="if as steady as in successes, VOC does not tell them apart"),
    "voc_unknown": Kind("VOC, success not known", wanted="high", about="how steadily the value rises"),
    "static_voc": Kind("static VOC", wanted="zero", about="of the first frame repeated: the length bias"),
    "static_range": Kind("static range", "value", wanted="low", about="by how much a static video moves"),
    "static_share": Kind(
        "static share", wanted="low", about="static range over the range of the real video, of successes"
    ),
    "reversed_voc": Kind(
        "VOC, reversed", wanted="low", about="of successes, run backwards: below 0 where the value falls"
    ),
    "stretched_0.5": Kind("shift, x0.5", "value", wanted="zero", about="of the final value in half the time"),
    "stretched_2": Kind("shift, x2", "value", wanted="zero", about="of the final value in twice the time"),
    "false_progress": Kind(
        "false progress per 10 s", "value", wanted="zero", about="while the picture stands still midway"
    ),
    "instruction_share": Kind(
        "own instruction wins",
        wanted="high",
        about="share of films that end higher with their own instruction",
    ),
    "instruction_difference": Kind("own minus wrong", "value", wanted="high", about="in final value"),
    "ece": Kind("ECE", wanted="low", about="final progress read as the probability of success"),
    "ece_by_chance": Kind("ECE by chance", about="of probabilities that are right, with so few episodes"),
    "ranking": Kind("pairwise ranking", wanted="high", about="within tasks, as Robometer reports it"),
    "ranking_tau": Kind("Kendall's tau", wanted="high", about="mean over the tasks"),
    "ranking_margin": Kind("margin", "value", wanted="high", about="successes minus failures, mean of tasks"),
    "confusion_own": Kind("own task", "value", wanted="high", about="final value, mean of the diagonal"),
    "confusion_other": Kind("other tasks", "value", wanted="low", about="final value, mean of all else"),
    "recall": Kind(
        "recall of SUCCESS", wanted="high", about="share of the successes in which it came, not early"
    ),
    "precision": Kind("precision of SUCCESS", wanted="high", about="share of the events that were right"),
    "false_alarms": Kind("false alarms", wanted="low", about="share of the failures in which SUCCESS came"),
    "recall_at_end": Kind("recall at the end", wanted="high", about="final log p at or above the threshold"),
    "precision_at_end": Kind("precision at the end", wanted="high", about="by the same rule"),
    "delay_median": Kind("delay, median", "s", wanted="low", about="SUCCESS after the labelled done_s"),
    "delay_p95": Kind("delay, p95", "s", wanted="low"),
    "early": Kind(
        "early",
        wanted="low",
        about=f"share of those events that came over {metrics.EARLY_S:g} s before it was done: wrong, too",
    ),
    "idle_alarms": Kind("false alarms per idle hour", "1/h", wanted="low", about="nothing moves"),
    "covered_alarms": Kind("false alarms per covered hour", "1/h", wanted="low", about="the lens is covered"),
    "wrong_alarms": Kind(
        "SUCCESS for a wrong instruction", wanted="low", about="share of successes at another task"
    ),
}


def modes_beside(progress_mode: str) -> tuple[Mode, ...]:
    """The modes in which curves are looked at: all, `Mode.LIVE` only where no other is the same."""
    return tuple(it for it in Mode if it is not Mode.LIVE or progress_mode not in set(_LIVE))


def evaluate(
    episodes: Sequence[EvaluatedEpisode],
    threshold: float,
    modes: Sequence[Mode],
    seed: int = 0,
    draws: int = DRAWS,
) -> list[Measure]:
    """Every measure of all ``episodes``, and of each task where there are several.

    ``threshold``: of success [nat], of runs that do not know theirs; ``modes``: of `modes_beside`; ``seed``
    and ``draws``: of the bootstraps.
    What cannot be measured, because the control or the label is not there, is left out.
    """
    tasks = list(dict.fromkeys(episode.task for episode in episodes))
    scopes = {ALL: list(episodes)}
    if len(tasks) > 1:
        scopes |= {task: [it for it in episodes if it.task == task] for task in tasks}
    measures: list[Measure] = []
    for scope, group in scopes.items():
        taker = _Taker(scope, group, threshold, seed, draws)
        for mode in modes:
            taker.take_mode(mode)
        if any(it.events for episode in group for it in episode.runs.values()):
            taker.take_decisions()
        measures += taker.measures
    return measures


def confusion(episodes: Sequence[EvaluatedEpisode], mode: Mode, threshold: float) -> metrics.TaskConfusion:
    """Mean final values by instruction and task of the film, of episodes that did not fail."""
    instructions, tasks, values = [], [], []
    known = {episode.task for episode in episodes}
    for episode in episodes:
        if episode.succeeded is False:
            continue
        for control in (Control.PLAIN, Control.WRONG_INSTRUCTION):
            run = episode.runs.get(control)
            if run is not None and run.instruction in known:
                instructions.append(run.instruction)
                tasks.append(episode.task)
                values.append(run.final(mode, threshold))
    return metrics.confuse_tasks(instructions, tasks, values)


class _Taker:
    """Takes the measures of one scope."""

    def __init__(
        self, scope: str, episodes: Sequence[EvaluatedEpisode], threshold: float, seed: int, draws: int
    ) -> None:
        self.measures: list[Measure] = []
        self._scope, self._episodes, self._threshold, self._seed = scope, episodes, threshold, seed
        self._draws = draws
        self._successes = [it for it in episodes if it.succeeded]
        self._failures = [it for it in episodes if it.succeeded is False]

    def _add(self, mode: str, name: str, value: float, count: int, interval: Interval | None = None) -> None:
        if count:
            low, high = (interval.low, interval.high) if interval else (nan, nan)
            self.measures.append(Measure(self._scope, str(mode), name, value, low, high, count))

    def _add_mean(self, mode: str, name: str, values: Sequence[float]) -> None:
        """The mean of those that are defined, with its bootstrap interval over all tasks."""
        defined = [value for value in values if not isnan(value)]
        interval = None
        if self._scope == ALL and len(defined) > 1:
            interval = bootstrap_interval(_mean, defined, seed=self._seed, draws=self._draws)
        self._add(mode, name, _mean(defined), len(defined), interval)

    def take_mode(self, mode: Mode) -> None:
        """What the curves show in a mode."""
        finals = {id(it): it.plain.final(mode, self._threshold) for it in self._episodes}
        if mode is Mode.STATIC_BASELINE and not any(
            isfinite(score.log_prob_static) or score.states_progress
            for it in self._episodes
            for score in it.plain.scores
        ):
            return  # it was not scored
        for name, group in (("voc_success", self._successes), ("voc_failure", self._failures)):
            self._add_mean(mode, name, [self._voc(it.plain, mode) for it in group])
        if not self._successes and not self._failures:  # nobody knows: better than nothing
            self._add_mean(mode, "voc_unknown", [self._voc(it.plain, mode) for it in self._episodes])
        high, low = ([finals[id(it)] for it in group] for group in (self._successes, self._failures))
        if high and low:
            interval = metrics.roc_auc_interval(high, low, self._draws, self._seed)
            self._add(mode, "auc", metrics.roc_auc(high, low), len(high) + len(low), interval)
        self._take_controls(mode)
        self._take_instructions(mode)
        if mode in _LIVE or mode is Mode.LIVE:
            self._take_calibration(mode, high, low)
        if self._scope == ALL and high and low:
            known = [*self._successes, *self._failures]
            ranking = metrics.rank_attempts(
                [finals[id(it)] for it in known],
                [bool(it.succeeded) for it in known],
                [it.task for it in known],
            )
            self._add(mode, "ranking", ranking.accuracy, ranking.pairs)
            self._add(mode, "ranking_tau", ranking.kendall_tau, len(ranking.by_task))
            self._add(mode, "ranking_margin", ranking.margin, len(ranking.by_task))

    def _voc(self, run: Run, mode: Mode) -> float:
        return metrics.value_order_correlation(run.values(mode, self._threshold))

    def _pairs(self, control: Control, *, moving: bool = False) -> list[tuple[Run, Run]]:
        """The plain run and that of the control. ``moving``: not of failures, in which there may be nothing
        to see."""
        return [
            (it.plain, it.runs[control])
            for it in self._episodes
            if control in it.runs and not (moving and it.succeeded is False)
        ]

    def _take_controls(self, mode: Mode) -> None:
        for name, (pick, moving) in _SWEEP.items():
            runs = [it.plain for it in self._episodes if not (moving and it.succeeded is False)]
            sweeps = [
                metrics.static_sweep(*(it.values(mode, self._threshold) for it in (run.static(), run)))
                for run in runs
            ]
            if mode is not Mode.LIVE:
                self._add_mean(mode, name, [pick(sweep) for sweep in sweeps])
        reversed_runs = [run for _, run in self._pairs(Control.REVERSED, moving=True)]
        self._add_mean(mode, "reversed_voc", [self._voc(run, mode) for run in reversed_runs])
        for control in (Control.FASTER, Control.SLOWER):
            self._add_mean(mode, control.value, [self._shift(*pair, mode) for pair in self._pairs(control)])
        self._add_mean(
            mode,
            "false_progress",
            [self._false_progress(*pair, mode) for pair in self._pairs(Control.FROZEN)],
        )

    def _shift(self, plain: Run, other: Run, mode: Mode) -> float:
        return other.final(mode, self._threshold) - plain.final(mode, self._threshold)

    def _false_progress(self, plain: Run, frozen: Run, mode: Mode) -> float:
        begin = frozen_from(plain.duration_s)
        values = frozen.values(mode, self._threshold)
        return metrics.false_progress(frozen.times_s, values, begin, begin + FREEZE_S)

    def _take_instructions(self, mode: Mode) -> None:
        pairs = [
            (
                it.plain.final(mode, self._threshold),
                it.runs[Control.WRONG_INSTRUCTION].final(mode, self._threshold),
            )
            for it in self._episodes
            if Control.WRONG_INSTRUCTION in it.runs and it.succeeded is not False
        ]
        if pairs:
            own, other = zip(*pairs, strict=True)
            made = metrics.instruction_sensitivity(own, other)
            self._add(mode, "instruction_share", made.share, made.videos)
            self._add(mode, "instruction_difference", made.difference, made.videos)
        if self._scope == ALL and len({it.task for it in self._episodes}) > 1:
            made_of = confusion(self._episodes, mode, self._threshold)
            cells = int(np.isfinite(made_of.progress).sum())
            self._add(mode, "confusion_own", made_of.own, cells)
            self._add(mode, "confusion_other", made_of.other, cells * isfinite(made_of.other))

    def _take_calibration(self, mode: Mode, high: Sequence[float], low: Sequence[float]) -> None:
        stated, happened = [*high, *low], [True] * len(high) + [False] * len(low)
        if not (high and low):
            return

        def error(pairs: np.ndarray) -> float:
            return metrics.expected_calibration_error(pairs[:, 0], pairs[:, 1].astype(bool).tolist())

        pairs = np.column_stack([stated, happened])
        interval = None
        if self._scope == ALL:
            interval = bootstrap_interval(error, pairs, seed=self._seed, draws=self._draws)
        self._add(mode, "ece", error(pairs), len(stated), interval)
        by_chance = metrics.calibration_error_by_chance(stated, seed=self._seed, draws=self._draws)
        self._add(mode, "ece_by_chance", by_chance, len(stated))

    def take_decisions(self) -> None:
        """What the monitor decided."""
        called = metrics.count_decisions(
            [it.is_detected for it in self._successes],
            [it.plain.success_s is not None for it in self._failures],
        )
        early = sum(it.is_early for it in self._successes)
        self._add_decisions(called, "recall", "precision", "false_alarms", early)
        at_end = metrics.count_decisions(
            *(
                [it.plain.ends_above(self._threshold) for it in group]
                for group in (self._successes, self._failures)
            )
        )
        self._add_decisions(at_end, "recall_at_end", "precision_at_end", "")
        timed = [it for it in self._successes if it.done_s is not None]
        delays = metrics.detection_delays([it.plain.success_s for it in timed], [it.done_s for it in timed])  # type: ignore[misc]
        self._add(DECISIONS, "delay_median", delays.median, delays.detected)
        self._add(DECISIONS, "delay_p95", delays.p95, delays.detected)
        self._add(DECISIONS, "early", delays.early / max(1, delays.detected), delays.detected)
        for name, controls in _FOOTAGE.items():
            runs = [run for control in controls for _, run in self._pairs(control)]
            alarms = sum(run.success_s is not None for run in runs)
            rate = metrics.false_alarms_per_hour(alarms, sum(run.duration_s for run in runs))
            self._add(DECISIONS, name, rate.per_hour, len(runs), rate.interval)
        wrong = [
            it.runs[Control.WRONG_INSTRUCTION]
            for it in self._successes
            if Control.WRONG_INSTRUCTION in it.runs
        ]
        if wrong:
            made = metrics.count_decisions([], [run.success_s is not None for run in wrong])
            self._add(
                DECISIONS, "wrong_alarms", made.false_alarm_rate, len(wrong), made.false_alarm_interval()
            )

    def _add_decisions(
        self, made: metrics.Decisions, recall: str, precision: str, false_alarms: str, early: int = 0
    ) -> None:
        """``early``: successes that were called too early, which is wrong, too."""
        self._add(DECISIONS, recall, made.recall, made.hits + made.misses, made.recall_interval())
        calls = replace(made, false_alarms=made.false_alarms + early)
        self._add(
            DECISIONS, precision, calls.precision, calls.hits + calls.false_alarms, calls.precision_interval()
        )
        if false_alarms:
            count = made.false_alarms + made.rejections
            self._add(DECISIONS, false_alarms, made.false_alarm_rate, count, made.false_alarm_interval())


#: What is taken of a static sweep, and whether of episodes alone in which something was done.
_SWEEP: Mapping[str, tuple[Callable[[metrics.StaticSweep], float], bool]] = {
    "static_voc": (lambda sweep: sweep.voc, False),
    "static_range": (lambda sweep: sweep.range, False),
    "static_share": (lambda sweep: sweep.share, True),
}
_FOOTAGE = {"idle_alarms": (Control.IDLE,), "covered_alarms": (Control.COVERED,)}


def frozen_from(duration_s: float) -> float:
    """When [s] the picture of the control `Control.FROZEN` stops, in an episode of that length [s]."""
    return duration_s / 2


def _mean(values: Sequence[float] | np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else nan
