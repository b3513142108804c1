"""The steps in which a supervisor's decision is carried out, as data; retry.py carries them out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from topreward_ros.core.retry_words import Phase


class Kind(Enum):
    """What a step does."""

    CALL = "call"  #: makes one call
    RELEASE = "release"  #: lets the monitor end the episode, if it still watches it
    PAUSE = "pause"
    BEGIN = "begin"  #: gives the monitor a task
    AWAIT_END = "await_end"  #: until the episode that was told to end has ended
    REST = "rest"  #: ends the steps, in a phase


@dataclass(frozen=True, slots=True)
class Step:
    """One step; which fields matter follows from its kind."""

    kind: Kind
    purpose: str = ""  #: of the call
    index: int = 0  #: of the call among those of its purpose
    ns: int = 0  #: of the pause
    phase: Phase = Phase.STOPPED  #: in which to rest
    why: str = ""  #: it rests

    def saved(self) -> list[Any]:
        """The step as JSON has it."""
        return [self.kind.value, self.purpose, self.index, self.ns, self.phase.name, self.why]

    @classmethod
    def restored(cls, saved: Any) -> Step:
        """The step that `saved` gave. Raises `KeyError`, `TypeError` or `ValueError` where it is none."""
        kind, purpose, index, ns, phase, why = saved
        return cls(Kind(kind), str(purpose), int(index), int(ns), Phase[phase], str(why))


@dataclass(slots=True)
class Try:
    """The step under way that waits for somebody else."""

    token: int
    give_up_ns: int  #: when what is not there is given up
    limit_ns: int | None = None  #: for the answer; None: nothing was sent
    share_until_ns: int | None = None  #: the end of its share of the time, where the process ends
    again_ns: int | None = None  #: when to try again; None: not now
    refusals: int = 0
    why: str = ""  #: it has not worked so far
