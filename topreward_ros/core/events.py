"""The types of events, and the detector that decides when an episode has succeeded.

The detector is a threshold on the score with smoothing, dwell, arming and a latch. Each of these answers a
known failure of a bare threshold: one noisy score (smoothing, dwell), a sub-goal that looks like the goal for
a moment (dwell), a scene that already looks finished at reset (arming), a SUCCESS that fires twice (latch).
The dwell is one stretch of scores without a break, all of them at or above the threshold. When the other
events fire is decided in episode.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from math import inf, isfinite, isnan, nan

from topreward_ros.core.frames import NS_PER_S, RecentIntervals


class EventType(IntEnum):
    """What happened; the values are those of TaskEvent.msg."""

    EPISODE_STARTED = 0
    SUCCESS = 1
    FAILURE = 2
    STALL = 3
    REGRESSION = 4
    TIMEOUT = 5
    STALE_IMAGES = 6
    FROZEN_IMAGES = 7
    ABORTED = 8
    EPISODE_ENDED = 9
    SCORER_ERROR = 10
    SUBTASK_SUCCESS = 11
    COVERED_IMAGES = 12


@dataclass(frozen=True, slots=True)
class SuccessSettings:
    """When a task counts as done."""

    threshold: float  #: [nat], <= 0, on the smoothed log-probability; 0 never fires
    hysteresis: float  #: [nat], >= 0: see `lower_threshold`
    dwell: float  #: [s], >= 0: how long the smoothed score must stay at or above the threshold
    min_scores: int  #: >= 1 scores in a row that arm the detector, and that must come while it stays up
    smoothing: int  #: span of the exponential moving average in scores; 1: none
    confirm_rate: float = 0.0  #: [Hz] of looks at the newest frame while SUCCESS waits for its dwell; 0: none

    @property
    def lower_threshold(self) -> float:
        """[nat] Scores below it arm the detector."""
        return self.threshold - self.hysteresis


_FEW_PERIODS = 4  # between two scores; a longer time is a gap


class SuccessDetector:
    """Fires once per episode, on the scores of that episode in order of their stamps.

    It is armed by `min_scores` scores in a row below the lower threshold, smoothed and unsmoothed, or by as
    many readings of the start, held still, below it: there was something to be done. The dwell runs while the
    smoothed score is at or above the threshold. A gap (four periods of the scores without one), a stamp
    earlier than the last, a score that is no number and `interrupt` begin the dwell and the row of low scores
    anew. Another threshold or hysteresis begins the dwell anew; how low the scores and the start were is
    kept, and the new lower threshold decides whether that arms it. Extra looks (looks.py) give it scores like
    others, at `confirm_rate`, while the newest score is up and the dwell is not over.

    >>> detector = SuccessDetector(SuccessSettings(-0.2, 0.5, dwell=1.0, min_scores=1, smoothing=1))
    >>> [detector.add(k * NS_PER_S, r) for k, r in enumerate([-3.0, -0.1, -0.3, -0.1, -0.1])]
    [False, False, False, False, True]
    """

    def __init__(self, settings: SuccessSettings, period_s: float = 0.0) -> None:
        """``period_s``: between two scores, at least; a slower pace is learnt from the scores."""
        self._settings = settings
        self.smoothed = nan  #: [nat] moving average of the scores so far
        self.fired = False
        self.broken_off = ""  #: why the newest score, or the interruption after it, ended a dwell; else empty
        self._period_ns = round(period_s * NS_PER_S)
        self._intervals = RecentIntervals()  # between scores, without single gaps
        self._gap_ns = 0  # before the newest score, if that came after one
        self._newest_ns: int | None = None
        self._row: list[float] = []  # the higher one of score and average, of the newest scores [nat]
        self._is_up = False  # the newest score is at or above the threshold, whatever the average is
        self._all_below = inf  # all of some `min_scores` in a row were at this or below [nat]
        self._lowest_starts: list[float] = []  # readings of the start, sorted; no more than `min_scores`
        self._changed = ""  # what ended a dwell since the last score
        self._up_since_ns: int | None = None
        self._up_scores = 0
        self._lowest = 0.0  # smoothed score of the dwell

    def add(self, stamp_ns: int, log_prob: float, log_prob_static: float = nan) -> bool:
        """Take the next score (stamp in ns, score in nats); True at the one moment of success.

        ``log_prob_static``: of the first frame held still, for as long [nat]; NaN if that is not known.
        """
        changed, self._changed = self._changed, ""
        self.broken_off = ""
        if gap := self._gap(stamp_ns):
            self.interrupt(gap)
        self.broken_off = self.broken_off or changed
        if not isfinite(log_prob):
            self.interrupt("a score was not a finite number")
            return False
        settings = self.settings
        self._is_up = log_prob >= settings.threshold
        weight = 2.0 / (settings.smoothing + 1.0) if isfinite(self.smoothed) else 1.0
        self.smoothed = log_prob if weight == 1.0 else self.smoothed + weight * (log_prob - self.smoothed)

        self._row = [*self._row, max(self.smoothed, log_prob)][-settings.min_scores :]
        if len(self._row) == settings.min_scores:
            self._all_below = min(self._all_below, max(self._row))
        if not isnan(log_prob_static):
            self._lowest_starts = sorted([*self._lowest_starts, log_prob_static])[: settings.min_scores]
        if self.smoothed < settings.threshold or settings.threshold >= 0.0:
            self._up_since_ns = None
            return False
        if not self.armed or self.fired:
            return False
        if self._up_since_ns is None:
            self._up_since_ns, self._up_scores, self._lowest = stamp_ns, 0, 0.0
        self._up_scores += 1
        self._lowest = min(self._lowest, self.smoothed)
        held_s = (stamp_ns - self._up_since_ns) / NS_PER_S
        self.fired = held_s >= settings.dwell and self._up_scores >= settings.min_scores
        return self.fired

    @property
    def settings(self) -> SuccessSettings:
        """The settings in force. They may be replaced at any time, and take effect with the next score; a
        dwell at another threshold is another dwell."""
        return self._settings

    @settings.setter
    def settings(self, settings: SuccessSettings) -> None:
        for name in ("threshold", "hysteresis"):
            before, after = getattr(self._settings, name), getattr(settings, name)
            if before != after and self._dwells:
                self._changed = f"success_{name} was changed from {before:g} to {after:g} nat"
                self._up_since_ns = None
        self._settings = settings

    @property
    def confirm_rate(self) -> float:
        """[Hz] at which further scores would help to decide now; 0: none would."""
        settings = self._settings
        waits = self._is_up and self.armed and not self.fired and settings.threshold < 0.0
        return settings.confirm_rate if waits else 0.0

    @property
    def armed(self) -> bool:
        """Whether enough scores, or readings of the start, were below the lower threshold in force."""
        return self._scores_were_low or self._start_was_low

    @property
    def _scores_were_low(self) -> bool:
        return self._all_below < self._settings.lower_threshold

    @property
    def _start_was_low(self) -> bool:
        starts, settings = self._lowest_starts, self._settings
        return (
            len(starts) >= settings.min_scores and starts[settings.min_scores - 1] < settings.lower_threshold
        )

    @property
    def _dwells(self) -> bool:
        return self._up_since_ns is not None and not self.fired

    def anew(self) -> SuccessDetector:
        """A detector for another scene of the same episode. What fired once does not fire again."""
        other = type(self)(self.settings, self._period_ns / NS_PER_S)
        other.fired = self.fired
        return other

    def interrupt(self, why: str) -> None:
        """What was seen does not belong together: the dwell and the row of low scores begin anew. ``why`` is
        kept in `broken_off` if that ended a dwell."""
        self.broken_off = why if self._dwells else ""
        self._up_since_ns, self._is_up = None, False
        self._row = []

    def break_off(self, why: str) -> None:
        """As `interrupt`, between two scores: the next one tells."""
        self._changed = why if self._dwells else self._changed
        self._up_since_ns, self._is_up = None, False
        self._row = []

    def success_text(self) -> str:
        """What was true when it fired."""
        assert self.fired and self._newest_ns is not None and self._up_since_ns is not None
        settings = self.settings
        held_s = (self._newest_ns - self._up_since_ns) / NS_PER_S
        what = "it" if self._scores_were_low else "the first frame, held still,"
        smoothed = "smoothed " if settings.smoothing > 1 else ""
        return (
            f"{smoothed}log-probability {self.smoothed:.3f} nat, at or above {settings.threshold:g} nat for "
            f"{held_s:.1f} s in {self._up_scores} scores, none below {self._lowest:.3f} nat; {what} had been "
            f"below {settings.lower_threshold:g} nat"
        )

    def _gap(self, stamp_ns: int) -> str:
        """Why the scores before this stamp do not belong to it; empty: they do."""
        before_ns, self._newest_ns = self._newest_ns, stamp_ns
        step_ns = 0 if before_ns is None else stamp_ns - before_ns
        if step_ns < 0:
            return f"the stamps of the scores went back by {-step_ns / NS_PER_S:.1f} s"
        # Most steps are short enough by the period alone, without a look at the intervals.
        is_gap = step_ns > _FEW_PERIODS * self._period_ns and step_ns > _FEW_PERIODS * (
            max(self._period_ns, self._intervals.longer()) or step_ns
        )
        if is_gap and 0 < step_ns <= _FEW_PERIODS * self._gap_ns:
            self._intervals = RecentIntervals()  # the second in a row: scores come at another pace
            is_gap = False
        self._gap_ns = step_ns if is_gap else 0
        if step_ns > 0 and not is_gap:
            self._intervals.add(step_ns)
        return f"no score for {step_ns / NS_PER_S:.1f} s" if is_gap else ""


#: Makes a detector of SUCCESS from settings and the time [s] between two scores.
NewDetector = Callable[[SuccessSettings, float], SuccessDetector]
