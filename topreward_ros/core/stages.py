"""The stages of a task: which of them is watched, and what its progress means for the whole.

A task is text; each of its lines is a stage (`core.instruction.clean_task`), and most tasks have one. Every
stage is watched as an episode of its own, with a prefix, a baseline and a success of its own. Who begins and
ends episodes is decided in episode.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from topreward_ros.core.errors import UserError
from topreward_ros.core.printable import printable


class StageError(UserError):
    """A task does not have the stage that somebody asked for."""


@dataclass(frozen=True, slots=True)
class Stages:
    """The stages of one task, and the present one.

    >>> stages = Stages.of("open the drawer\\ntake out the cup")
    >>> stages.current, stages.is_last, stages.whole(0.5)
    ('open the drawer', False, 0.25)
    >>> stages.following().current, stages.following().whole(0.5)
    ('take out the cup', 0.75)
    """

    names: tuple[str, ...]  #: at least one, the instruction of each
    number: int = 1  #: of the present one, from 1

    @classmethod
    def of(cls, task: str, first: int = 0) -> Stages:
        """The stages of a task that is clean and not empty, from number ``first`` on; 0: from the first.

        Raises `StageError`.
        """
        names = tuple(task.split("\n"))
        if first > len(names):
            has = "one stage" if len(names) == 1 else f"{len(names)} stages"
            raise StageError(f"stage {first} of a task that has {has}: give 1 to {len(names)}, or 0")
        return cls(names, max(first, 1))

    @property
    def task(self) -> str:
        """The whole task, a stage per line."""
        return "\n".join(self.names)

    @property
    def current(self) -> str:
        """The instruction of the present stage."""
        return self.names[self.number - 1]

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.names)

    @property
    def is_last(self) -> bool:
        """Whether the task is done once the present stage is."""
        return self.number == self.count

    def following(self) -> Stages:
        """The same with the next stage; behind the last one comes the first, as the task was done."""
        return replace(self, number=self.number % self.count + 1)

    def whole(self, progress: float) -> float:
        """Progress of the whole task: (stages done + ``progress`` of the present one) / stages, in [0, 1];
        NaN where that is NaN.

        >>> Stages.of("stack the cup").whole(0.123)
        0.123
        """
        return (self.number - 1 + progress) / self.count


def on_one_line(task: str) -> str:
    """A task as people are shown it where there is one line.

    >>> on_one_line("open the drawer\\ntake out the cup")
    'open the drawer, then take out the cup'
    """
    return ", then ".join(task.split("\n"))


def written_break_warning(task: str) -> str:
    """What to tell the user of a task in which a line break is written out, as shells pass it on; empty:
    there is none.

    >>> written_break_warning("open the drawer\\ntake out the cup")
    ''
    >>> "is one stage" in written_break_warning(r"open the drawer\\ntake out the cup")
    True
    """
    found = next((line for line in task.split("\n") if r"\n" in line), None)
    if found is None:
        return ""
    return (
        f"'{printable(found, 200)}' has a backslash and an n, which are no line break, so it is one stage: "
        "between stages write real line breaks, in bash $'a\\nb', in YAML \"a\\nb\", or repeat --task"
    )


def numbered(name: str, stage: int, stages: int) -> str:
    """How the name of a stage is shown; that of a task without a list stays as it is.

    >>> numbered("take out the cup", 2, 3), numbered("stack the cup", 1, 1)
    ('2/3 take out the cup', 'stack the cup')
    """
    return f"{stage}/{stages} {name}" if stages > 1 else name
