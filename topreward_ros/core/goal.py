"""What becomes of a goal of the action MonitorTask: what a monitor says in, one outcome out.

`GoalWatch` follows one goal through the episodes of its task and decides when the goal is over, and by which
of the codes of MonitorTask.action. It publishes nothing and reads no clock. Who takes the goal away (another
goal, another task, a cancellation, the end of the monitor) tells it so by `end`.

A goal always gets an answer. One with a time limit (its own, or the monitor's `episode_timeout`) rides out
what may pass: images that do not come for a while, scores that cannot be computed; when time is up, the code
says what was missing. One without a limit ends at once when images stop, when scoring fails three times in a
row, or when the scorer hangs, for nothing else would end it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from math import nan

from topreward_ros.core.events import EventType
from topreward_ros.core.frames import NS_PER_S
from topreward_ros.core.outputs import Event, Output, ProgressReport, State

_HAS_IMAGES = (State.WAITING_FOR_IMAGES, State.RUNNING, State.STALLED)
ERRORS_IN_A_ROW = 3  #: scores that could not be computed, which end a goal without a time limit


class GoalCode(IntEnum):
    """Why a goal ended; the values are those of MonitorTask.action."""

    NONE = 0
    TASK_FAILED = 100
    TASK_TIMEOUT = 101
    NO_IMAGES = 200
    STALE_IMAGES = 201
    SCORER_ERROR = 300
    INVALID_GOAL = 400
    PREEMPTED = 401
    CANCELED = 402
    NOT_WATCHING = 403


@dataclass(frozen=True, slots=True, kw_only=True)
class GoalOutcome:
    """How a goal ended: what the result of MonitorTask carries."""

    code: GoalCode
    message: str = ""  #: for a human; empty where the code is NONE
    episode_id: str = ""  #: the newest one
    progress: float = nan  #: [0, 1] of the whole task, or NaN
    elapsed_ns: int = 0  #: of all its episodes, by the stamps of their images; to the end of a time limit
    stage: int = 0  #: the one that it ended in, from 1; 0: none began
    stages: int = 0

    @property
    def succeeded(self) -> bool:
        """Whether the task was done."""
        return self.code is GoalCode.NONE


class GoalWatch:
    """One goal, from the moment at which its task was set. It is over once it has given an outcome.

    >>> from topreward_ros.core.frames import Stamp
    >>> watch = GoalWatch()
    >>> watch.take(ProgressReport(state=State.WAITING_FOR_IMAGES, episode_id="pick"), 0.0)
    >>> watch.look(10 * NS_PER_S, 0, 30.0)  # the clock, for the first time
    >>> watch.look(41 * NS_PER_S, 0, 30.0).message
    'no image that can be used came within 30 s'
    """

    def __init__(self) -> None:
        self._report = ProgressReport(state=State.IDLE)
        self._earlier_ns = 0  # length of the episodes before the present one
        self._seen = False  # whether a frame of any episode of this goal came
        self._waiting = True  # for the first frame of an episode
        self._waited_ns = 0  # for it
        self._looked_ns: int | None = None
        self._stale = ""  # why no image can be used
        self._errors: list[str] = []  # of the scorer, since the last score
        self.over = False

    def take(self, output: Output, limit_s: float) -> GoalOutcome | None:
        """What follows from an output of the monitor, in the order in which they were made.

        ``limit_s``: the time limit that holds at the moment [s]; 0: none.
        """
        if self.over:
            return None
        if isinstance(output, ProgressReport):
            self._take_report(output)
            return None
        return self._take_event(output, limit_s) if isinstance(output, Event) else None

    def look(self, now_ns: int, paused_ns: int, limit_s: float, *, stands_ns: int = 0) -> GoalOutcome | None:
        """What follows from the clock: an episode that waits for its first image has no age that could end
        it.

        ``now_ns``: of any steady clock; ``paused_ns`` and ``stands_ns``: for so long simulated time stood
        still, in pauses that are over since the last call, and up to now.
        """
        since_ns = 0 if self._looked_ns is None else now_ns - self._looked_ns - paused_ns
        self._looked_ns = now_ns
        if self.over or not self._waiting:
            return None
        self._waited_ns = max(0, self._waited_ns + since_ns)
        if not 0.0 < limit_s <= (self._waited_ns - stands_ns) / NS_PER_S:
            return None
        why = f": {self._stale}" if self._stale else ""
        said = f"no image that can be used came within {limit_s:g} s{why}"
        return self._no_images(said, self._earlier_ns + self._waited_ns - stands_ns)

    def scorer_hangs(self, why: str, limit_s: float) -> GoalOutcome | None:
        """What follows from a scorer that gives no answer."""
        return None if self.over or limit_s > 0.0 else self.end(GoalCode.SCORER_ERROR, why)

    def end(self, code: GoalCode, message: str = "", elapsed_ns: int | None = None) -> GoalOutcome:
        """The goal is over now, for a reason that only the caller knows, or for one that was found here.

        ``elapsed_ns``: age of its episodes; None: up to the newest score.
        """
        self.over = True
        report = self._report
        return GoalOutcome(
            code=code,
            message=message,
            episode_id=report.episode_id,
            progress=report.progress,
            elapsed_ns=self._earlier_ns + report.elapsed_ns if elapsed_ns is None else elapsed_ns,
            stage=report.stage,
            stages=report.stages,
        )

    def _take_report(self, report: ProgressReport) -> None:
        if not report.episode_id:
            return  # the monitor is idle: whoever made it so says why
        if report.episode_id != self._report.episode_id:
            self._earlier_ns += self._report.elapsed_ns
            self._waiting, self._waited_ns, self._errors = True, 0, []
        if report.state in _HAS_IMAGES:  # and not FAILED, just before TIMEOUT
            self._stale = ""
        if report.stamp != self._report.stamp and report.num_frames:
            self._errors = []  # a score
        self._report = report

    def _take_event(self, event: Event, limit_s: float) -> GoalOutcome | None:
        if event.type is EventType.EPISODE_STARTED:
            self._seen, self._waiting = True, False
        elif event.type is EventType.SUCCESS:
            return self.end(GoalCode.NONE)
        elif event.type is EventType.FAILURE:
            return self.end(GoalCode.TASK_FAILED, event.message)
        elif event.type is EventType.TIMEOUT:
            return self._time_is_up(event.message, event.elapsed_ns)
        elif event.type is EventType.STALE_IMAGES:
            self._stale = event.message
            if not limit_s > 0.0:
                return self._no_images(event.message)
        elif event.type is EventType.SCORER_ERROR:
            self._errors = [*self._errors, event.message][-ERRORS_IN_A_ROW:]
            if not limit_s > 0.0 and len(self._errors) == ERRORS_IN_A_ROW:
                return self.end(GoalCode.SCORER_ERROR, self._scorer_text())
        return None

    def _time_is_up(self, message: str, elapsed_ns: int) -> GoalOutcome:
        if self._stale:
            return self._no_images(f"{message}; {self._stale}", elapsed_ns)
        if self._errors:
            return self.end(GoalCode.SCORER_ERROR, f"{message}; {self._scorer_text()}", elapsed_ns)
        return self.end(GoalCode.TASK_TIMEOUT, message, elapsed_ns)

    def _no_images(self, message: str, elapsed_ns: int | None = None) -> GoalOutcome:
        return self.end(GoalCode.STALE_IMAGES if self._seen else GoalCode.NO_IMAGES, message, elapsed_ns)

    def _scorer_text(self) -> str:
        return f"the last {len(self._errors)} of its prefixes could not be scored: {self._errors[-1]}"
