"""Templates of the question: the paper's, or an ensemble of them from a file.

A file of templates is plain text, a template per line, with ``{instruction}`` where the instruction goes.
What cannot be seen in a line does not count, by the rule of `core.instruction`. Empty lines and lines that
begin with ``#`` are skipped.
"""

from __future__ import annotations

import re
from pathlib import Path

from topreward_ros.core.instruction import InstructionError, clean_instruction
from topreward_ros.core.text_files import TextFileError, read_text
from topreward_ros.defaults import config_file
from topreward_ros.scoring.base import ScorerError

INSTRUCTION_PLACEHOLDER = "{instruction}"  #: where the instruction goes in a template

#: The question of TOPReward, as in the authors' code.
PAPER = (
    "The above video shows a robot manipulation trajectory that completes the following task: "
    f"{INSTRUCTION_PLACEHOLDER} Decide whether the above statement is True or not. The answer is:"
)

MAX_TEMPLATES = 64  #: of a file


def read_templates(name: str) -> tuple[str, ...]:
    """The templates of a file, or the paper's alone for an empty name.

    ``name`` is a path, or the name of a file that ships in ``config/``. Raises `ScorerError` that names file
    and line.
    """
    if not name:
        return (PAPER,)
    path = _find(name)
    try:
        text = read_text(path)
    except TextFileError as error:
        raise ScorerError(f"prompts {name!r}, a file with a template per line: {error}") from error
    templates: dict[str, int] = {}  # each with its line
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            template = clean_instruction(line, f"{path}, line {number},")
        except InstructionError as error:
            raise ScorerError(str(error)) from error
        if not template or template.startswith("#"):
            continue
        problem = _problem_with(template, templates)
        if problem:
            raise ScorerError(f"{path}, line {number}: {problem}")
        templates[template] = number
    if not templates:
        raise ScorerError(f"{path} has no template: write one per line, for example {PAPER!r}")
    return tuple(templates)


def fill(template: str, instruction: str) -> str:
    """The question about ``instruction``, which is joined in, not formatted: its braces stay braces.

    >>> fill("Is it done: {instruction}? Answer:", "open {it}")
    'Is it done: open {it}? Answer:'
    """
    head, _, tail = template.partition(INSTRUCTION_PLACEHOLDER)
    return head + instruction + tail


def _find(name: str) -> Path:
    """The path of the user's file, or else of the shipped one; the file at it may be missing."""
    path = Path(name).expanduser()
    if path.is_file() or path.name != name:
        return path
    try:
        return config_file(name)
    except FileNotFoundError:
        return path


def _problem_with(template: str, before: dict[str, int]) -> str:
    """Why ``template`` cannot follow those ``before`` it (each with its line); empty where it can."""
    count = template.count(INSTRUCTION_PLACEHOLDER)
    if count != 1:
        return f"it has {count} times {INSTRUCTION_PLACEHOLDER} and must have it once: {template!r}"
    if template in before:
        return f"it is the same as line {before[template]}: take one of them out"
    if before:
        first, line = next(iter(before.items()))
        if ending(template) != ending(first):
            return (
                f"it ends in {ending(template)!r} and line {line} in {ending(first)!r}: the same answer "
                "must follow all of them, so end them alike"
            )
    if not ending(template):
        return f"it ends in {template[-1]!r}: let True or False be the next word, as after 'The answer is:'"
    if len(before) >= MAX_TEMPLATES:
        return f"it is one more than {MAX_TEMPLATES}: take some out"
    return ""


def ending(template: str) -> str:
    """The text after the last full sentence, which the answer completes.

    >>> ending("Is it done: {instruction}? True or False. The answer is:")
    'The answer is:'
    """
    return re.split(r"[.?!]", template.rpartition(INSTRUCTION_PLACEHOLDER)[2])[-1].strip()
