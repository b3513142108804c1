"""A list of stages out of what a model wrote: what is no list is refused, and nothing is made up.

The model is asked for a numbered list (`question`). Only lines that are numbered, 1, 2, 3 in order, count:
a model that goes on in prose, counts wrongly, or writes nonsense has no such lines, or too many. Whether the
stages are good is for a person to judge.
"""

from __future__ import annotations

import re

from topreward_ros.core.errors import UserError
from topreward_ros.core.instruction import InstructionError, clean_instruction
from topreward_ros.core.printable import printable

MOST_STAGES = 20
_LONGEST_STAGE = 200  # characters
_NUMBERED = re.compile(r"\s*(?:\*\*)?(?:step\s+)?(\d{1,3})\s*[.):](?:\*\*)?\s+(.*)", re.IGNORECASE)
_THOUGHTS = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)


class PlanError(UserError):
    """What a model wrote is no list of stages."""


def question(task: str, *, sees: bool) -> str:
    """What to ask a model; ``task`` on one line, ``sees``: whether it is shown a picture."""
    shown = "The picture shows the scene before it begins. " if sees else ""
    return (
        f"A robot arm has this task: {task}\n{shown}"
        f"Break the task down into at most {MOST_STAGES} stages, in the order in which they are done. Each "
        "stage is one short command, such as: open the drawer. A camera must be able to see when it is done. "
        "Answer with a numbered list, one stage per line, and nothing else."
    )


def stages_of(text: str) -> list[str]:
    """The stages of a list that a model wrote, each a clean instruction. Raises `PlanError`.

    >>> stages_of("Sure!\\n1. Open the drawer.\\n2. **Take out** the cup\\n")
    ['Open the drawer', 'Take out the cup']
    """
    found = [
        match.groups() for line in _THOUGHTS.sub("", text).splitlines() if (match := _NUMBERED.match(line))
    ]
    quote = printable(" ".join(text.split()), 200)
    if [int(number) for number, _ in found] != list(range(1, len(found) + 1)) or not found:
        raise PlanError(
            f"the model did not write a numbered list: '{quote}'; write the stages yourself, or use a model "
            "that follows instructions"
        )
    if len(found) > MOST_STAGES:
        raise PlanError(f"the model wrote {len(found)} stages, and at most {MOST_STAGES} were asked for")
    return [_stage(number, text) for number, text in found]


def _stage(number: str, text: str) -> str:
    try:
        stage = clean_instruction(text.replace("**", "").replace("`", "")).removesuffix(".")
    except InstructionError as error:
        raise PlanError(f"stage {number} of the model's list cannot be read: {error}") from error
    letters = sum(character.isalpha() or character.isspace() for character in stage)
    if len(stage) > _LONGEST_STAGE or not stage or letters < 0.7 * len(stage):
        raise PlanError(
            f"stage {number} of the model's list is no short command: '{printable(stage, 80)}'; write the "
            "stages yourself, or use a model that follows instructions"
        )
    return stage
