"""What a supervisor's policy (retry.py) is told, and what it tells whoever owns it to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

from topreward_ros.core.events import EventType
from topreward_ros.core.outputs import State
from topreward_ros.core.rules import Call


class Phase(IntEnum):
    """What the supervisor is doing; the values are those of SupervisorState.msg."""

    STOPPED = 0  #: not begun, or stopped; waits for ~/start
    BEGINNING = 1  #: gives the monitor a task; in a dry run: waits for an episode of anybody
    WATCHING = 2  #: an episode is under way
    UNDECIDED = 3  #: the episode is over, and no rule acted so far
    ACTING = 4  #: carries out a decision
    DONE = 5  #: the list of tasks is over, or max_episodes


@dataclass(frozen=True, slots=True)
class Moment:
    """When something is told to the policy."""

    steady_ns: int  #: of a clock that never stops or goes back
    stamp_ns: int = 0  #: of the clock that people read; for the history alone


@dataclass(frozen=True, slots=True)
class Heard:
    """An event of a monitor, as it was received."""

    sequence: int
    episode_id: str
    type: EventType
    calibrated: bool = False
    message: str = ""
    instruction: str = ""
    stage: int = 0  #: of a task in stages, from 1; 0: not known
    age_s: float = 0.0  #: [s] since its publication
    published_ns: int = 0  #: by the publisher's clock; 0: not known


@dataclass(frozen=True, slots=True)
class Seen:
    """A report of a monitor (TaskProgress), as it was received."""

    episode_id: str
    state: State
    instruction: str = ""
    stage: int = 0  #: of a task in stages, from 1; 0: not known
    age_s: float = 0.0  #: [s] since its publication
    published_ns: int = 0  #: by the publisher's clock; 0: not known


class Level(Enum):
    """How much a line of the log matters."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Log:
    """Something to say."""

    level: Level
    text: str


@dataclass(frozen=True, slots=True)
class MakeCall:
    """Make a call, and tell its outcome by `RetryPolicy.answer`: at once, where it is not there.

    Where it is there, `RetryPolicy.sending` is told first, and then the snapshot is kept: the next process
    must not make the call again.
    """

    token: int
    purpose: str
    call: Call


@dataclass(frozen=True, slots=True)
class SetTask:
    """Give the monitor a task, and tell the outcome likewise; an empty one ends the episode."""

    token: int
    instruction: str
    episode_id: str
    stage: int = 0  #: to begin with, of a task in stages; 0: the first


@dataclass(frozen=True, slots=True)
class Save:
    """Keep `RetryPolicy.snapshot`, before anything that follows is done."""


Command = Log | MakeCall | SetTask | Save


class Outcome(Enum):
    """What became of a call or a task."""

    DONE = "done"
    REFUSED = "refused"
    ABSENT = "absent"  #: nothing was sent
    WRONG_TYPE = "wrong type"  #: nothing was sent


@dataclass(slots=True)
class Decision:
    """What was decided about an episode, and what came of it."""

    stamp_ns: int
    episode_id: str
    instruction: str
    reason: str  #: event or condition, or who asked
    action: str
    detail: str  #: what was heard
    outcome: str = ""  #: of the calls
