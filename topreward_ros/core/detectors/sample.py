"""What detectors are given, and what they give back."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

from topreward_ros.core.events import EventType


@dataclass(frozen=True, slots=True)
class Sample:
    """What one score says of an episode."""

    stamp_ns: int  #: of the newest frame that was scored, less what a clock that was set added [ns]
    elapsed_s: float  #: age of the episode at that frame [s]
    progress: float  #: [0, 1] of the stage; NaN where it is not known
    what: str = "progress against the static baseline"  #: of which progress STALL and REGRESSION speak


@dataclass(frozen=True, slots=True)
class Finding:
    """What a detector found, once."""

    kind: EventType
    message: str  #: for a human: the value, the limit, what to do about it
    threshold: float = nan  #: what was crossed, in the unit that TaskEvent.msg states
