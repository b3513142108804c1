"""What a `TaskMonitor` gives to be published: the state of progress, rewards, events."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from math import nan

from topreward_ros.core.events import EventType
from topreward_ros.core.frames import NO_STAMP, Stamp
from topreward_ros.core.progress import NO_SCORE, PrefixScore
from topreward_ros.core.rewards import RewardType


class State(IntEnum):
    """Where the watched task stands; the values are those of TaskProgress.msg."""

    UNKNOWN = 0
    IDLE = 1
    WAITING_FOR_IMAGES = 2
    RUNNING = 3
    STALLED = 4
    SUCCEEDED = 5
    FAILED = 6
    STALE = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressReport:
    """State as of the newest scored frame: what TaskProgress.msg carries.

    Its texts stand for as long as they hold, and but for `news` they are latched: they name limits and points
    in time, and no duration that goes on.
    """

    state: State
    instruction: str = ""  #: of the present stage
    episode_id: str = ""
    stamp: Stamp = NO_STAMP  #: of the newest frame in the prefix; `NO_STAMP` before the first score
    progress: float = nan  #: [0, 1] of the whole task, or NaN
    task: str = ""  #: all stages, one per line
    stage: int = 0  #: the present one, from 1; 0 without a task
    stages: int = 0  #: how many there are; 0 without a task
    stage_progress: float = nan  #: [0, 1] of the present stage alone, or NaN
    score: PrefixScore = NO_SCORE
    elapsed_ns: int = 0  #: since the first frame of the episode
    waits: str = ""  #: for a human: why nothing is scored in this state; empty: something is, or has ended
    trouble: str = ""  #: for a human: why no score comes, or none is believed; stands until one is
    news: str = ""  #: for a human: what is true of this score alone
    standing: str = ""  #: what is so with every score of this stage: of its calibration
    calibrated: bool = False  #: the threshold is that of a calibration of this stage, which is not weak

    @property
    def num_frames(self) -> int:
        """Frames that were scored; 0 before the first score."""
        return self.score.num_frames

    @property
    def message(self) -> str:
        """All that is said to a human."""
        trouble = "" if self.trouble in self.waits else self.trouble
        return "; ".join(filter(None, [self.waits, trouble, self.news, self.standing]))

    @property
    def lasting(self) -> ProgressReport:
        """The report without what is true of one score alone: for who reads it later."""
        return replace(self, news="")

    @property
    def warning(self) -> str:
        """The trouble and the news, unless these only say what is so with every score of a model that states
        progress."""
        is_usual = self.score.states_progress and self.news == self.score.note
        return "; ".join(filter(None, [self.trouble, "" if is_usual else self.news]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reward:
    """The reward of one step: what TaskReward.msg carries."""

    episode_id: str
    stamp: Stamp  #: of the newest frame in the prefix
    step: int
    type: RewardType
    reward: float
    episode_return: float
    terminated: bool = False
    truncated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened once: what TaskEvent.msg carries."""

    type: EventType
    sequence: int
    episode_id: str
    instruction: str
    stamp: Stamp  #: of the newest frame when it happened
    progress: float
    log_prob: float
    threshold: float
    message: str
    stage: int = 1  #: that the episode is of, from 1
    stages: int = 1  #: how many the task has
    calibrated: bool = False  #: as in `ProgressReport`
    elapsed_ns: int = 0  #: of TIMEOUT: age of the task's episodes then, by the clock that the message names


Output = ProgressReport | Reward | Event
