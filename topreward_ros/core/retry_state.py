"""What a supervisor keeps for its next process, and how it stands in a file.

When to keep it is for retry.py to say, where to for nodes/supervisor.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any

from topreward_ros.core.errors import UserError
from topreward_ros.core.printable import printable
from topreward_ros.core.retry_steps import Step
from topreward_ros.core.retry_words import Decision, Phase

_VERSION = 1
_values_of = attrgetter(*(field.name for field in fields(Decision)))  # plain ones, which need no deep copy


class StateError(UserError):
    """The file with a supervisor's state cannot be used."""


@dataclass(frozen=True, slots=True)
class SavedState:
    """A supervisor between two commands."""

    phase: Phase
    message: str
    task_index: int
    task: str  #: of that index, by which it is found where the list has changed
    stage: int  #: of the task, from 1; 0: not known
    episodes: int
    retries: Mapping[str, int]
    watch: tuple[str, str, int] | None  #: first name, present name and part of the episode that is watched
    steps: tuple[Step, ...]  #: that are to be carried out
    sent: bool  #: the first of them is a call that was sent, and its answer was not there
    history: tuple[Decision, ...]

    def to_json(self) -> dict[str, Any]:
        """The state as JSON has it."""
        return {
            "version": _VERSION,
            "phase": self.phase.name,
            "message": self.message,
            "task_index": self.task_index,
            "task": self.task,
            "stage": self.stage,
            "episodes": self.episodes,
            "retries": dict(self.retries),
            "watch": None if self.watch is None else list(self.watch),
            "steps": [step.saved() for step in self.steps],
            "sent": self.sent,
            "history": [list(_values_of(decision)) for decision in self.history],
        }

    @classmethod
    def from_json(cls, saved: Any) -> SavedState:
        """The state that `to_json` gave. Raises `StateError` for anything else."""
        try:
            if saved["version"] != _VERSION:
                raise ValueError(f"version {saved['version']!r}")
            watch = saved["watch"]
            return cls(
                phase=Phase[saved["phase"]],
                message=str(saved["message"]),
                task_index=int(saved["task_index"]),
                task=str(saved["task"]),
                stage=int(saved["stage"]),
                episodes=int(saved["episodes"]),
                retries={str(name): int(count) for name, count in saved["retries"].items()},
                watch=None if watch is None else (str(watch[0]), str(watch[1]), int(watch[2])),
                steps=tuple(Step.restored(step) for step in saved["steps"]),
                sent=bool(saved["sent"]),
                history=tuple(Decision(int(it[0]), *map(str, it[1:])) for it in saved["history"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
            raise StateError(f"it is no state of a supervisor ({printable(repr(error), 100)})") from error
