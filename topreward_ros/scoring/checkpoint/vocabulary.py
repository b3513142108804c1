"""Which instructions a model understands, for a model that was trained on a list of them.

A small model knows the wordings that it was trained on and no others; to any other it gives numbers that
mean nothing. Here it is decided whether an instruction is known, what to say when it is not, and how a
known one is handed to the model. A model without a list is taken to understand everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from topreward_ros.core.instruction import normalized_instruction
from topreward_ros.core.nearest import nearest
from topreward_ros.core.stages import written_break_warning
from topreward_ros.scoring.base import ScorerInfo
from topreward_ros.scoring.question.prompts import AUTHORS, Framing, PromptTokens
from topreward_ros.scoring.question.templates import PAPER

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from topreward_ros.scoring.question.soft_prompt import SoftPrompt

#: Shown beside every number for an unknown instruction.
UNKNOWN_INSTRUCTION = "the model does not know this instruction"

#: A model that understands any instruction.
GENERAL_MODEL = "Qwen/Qwen3-VL-8B-Instruct"

_LONGEST_QUOTE = 100  # characters of an instruction in a warning


def is_known(instruction: str, info: ScorerInfo) -> bool:
    """Whether the model understands ``instruction``; an empty one counts as understood."""
    text = normalized_instruction(instruction)
    return not info.instructions or not text or text in _normalized_instructions(info.instructions)


@lru_cache(maxsize=4)
def _normalized_instructions(instructions: tuple[str, ...]) -> frozenset[str]:
    return frozenset(map(normalized_instruction, instructions))


def task_warnings(task: str, info: ScorerInfo, option: str) -> list[str]:
    """What to tell the user of a task, a stage per line: a line break that is none, and what the model does
    not know.

    ``option`` is how the user chooses a model, up to its name: 'model:=' or '--model '.
    """
    unknown = [unknown_instruction_warning(stage, info, option) for stage in task.split("\n")]
    return list(filter(None, [written_break_warning(task), *unknown]))


def unknown_instruction_warning(instruction: str, info: ScorerInfo, option: str) -> str:
    """What to tell the user of an instruction that the model does not know; empty for a known one.

    ``option`` is how the user chooses a model, up to its name: 'model:=' or '--model '.
    """
    if is_known(instruction, info):
        return ""
    asked = " ".join(instruction.split())[:_LONGEST_QUOTE]
    meant = nearest(normalized_instruction(asked), info.instructions)
    close = f", of which '{meant}' is the closest" if meant else " that has none like it"
    return (
        f"model '{info.model_id}' does not know the instruction '{asked}', so its numbers will mean nothing: "
        f"it only understands a list of instructions{close} "
        f"(`topreward models info {info.model_id}` shows all); {option}{GENERAL_MODEL} understands any"
    )


def made_for(info: ScorerInfo) -> str:
    """What a model was made for that knows a list of instructions, as a clause; empty: it knows any, or its
    notes do not say."""
    if not info.instructions or not info.summary:
        return ""
    return f"{info.summary}: before other scenes its numbers mean nothing, whatever the instruction"


class TrainedPromptTokens(PromptTokens):
    """Prompt tokens in which a known instruction has the very wording that the model was trained on."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        instructions: Sequence[str],
        templates: Sequence[str] = (PAPER,),
        framing: Framing = AUTHORS,
        soft: SoftPrompt | None = None,
    ) -> None:
        super().__init__(tokenizer, templates, framing, soft)
        self._trained = {normalized_instruction(wording): wording for wording in reversed(instructions)}
        self._trained |= {wording: wording for wording in instructions}

    def after_video(self, instruction: str) -> list[list[int]]:
        """See `PromptTokens.after_video`."""
        normalized = normalized_instruction(instruction)
        trained = self._trained.get(instruction) or self._trained.get(normalized, instruction)
        return super().after_video(trained)
