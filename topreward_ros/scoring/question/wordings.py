"""New wordings of the question: parts of known ones recombined, and texts that somebody wrote, checked.

A template has three parts and an ending, at which its sentences are cut:

    Looking at this video of a robot, the task '{instruction}' has been completed.   what is said of the task
    The goal state has been achieved.                                                what is claimed, may lack
    True or False?                                                                   what is asked, may lack
    The answer is:                                                                   what the answer completes

Whether a wording is any good is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from topreward_ros.core.instruction import InstructionError, clean_instruction
from topreward_ros.scoring.question.templates import (
    INSTRUCTION_PLACEHOLDER,
    PAPERS,
    Question,
    ending,
    problem_with,
)

LONGEST_WORDING = 500  #: characters of one that was written; the longest that ships has 171
_DRAWS = 50  # for one new wording, before it is said that there is none
_DECAY = 0.8  # of the chance of a parent from one to the next in their order
_SENTENCES = re.compile(r"(?<=[.?!])\s+")
_LIST_MARK = re.compile(r"^(?:[-\u2022]|\(?\d{1,3}[.):]|\d\.\d+:?)\s+")
_MARKUP = re.compile(r"[<>|`*#\\\[\]]|://")
_QUOTES = "\"'\u201c\u201d"
_LONGEST_TEXT, _MOST_LINES = 100_000, 500  # of what is looked at


class Parts(NamedTuple):
    """A template, cut at its sentences."""

    task: str  #: all up to the end of the sentence that has the instruction
    claim: str  #: the sentences behind it; may be empty
    asked: str  #: the last sentence; may be empty
    ending: str  #: see `templates.ending`

    def template(self) -> str:
        """The template of these parts."""
        return " ".join(filter(None, self))


def parts_of(template: str) -> Parts:
    """The parts of a template that `read_templates` takes.

    >>> parts_of("Task: {instruction}. It is done. True or False? The answer is:")
    Parts(task='Task: {instruction}.', claim='It is done.', asked='True or False?', ending='The answer is:')
    >>> parts_of("The video shows: {instruction} Decide whether it is True. The answer is:").claim
    ''
    """
    before, _, after = template.partition(INSTRUCTION_PLACEHOLDER)
    last = ending(template)
    after = after.removesuffix(last).rstrip()
    if re.match(r"\s+[A-Z]", after):  # the instruction ends the sentence, without a full stop
        rest, sentences = "", _SENTENCES.split(after.strip())
    else:
        rest, *sentences = _SENTENCES.split(after)
    sentences = list(filter(None, sentences))
    asked = sentences.pop() if sentences else ""
    return Parts(before + INSTRUCTION_PLACEHOLDER + rest, " ".join(sentences), asked, last)


def recombined(
    ranked: Sequence[str],
    known: Mapping[str, object],
    count: int,
    rng: np.random.Generator,
    question: Question = PAPERS,
) -> list[str]:
    """Up to ``count`` new templates, each of the parts of up to three of ``ranked``, the best first.

    Better ones are drawn more often, while there is something new of them. None is in ``known``, and all end
    as the first of ``ranked`` does. ``question``: whose answers they ask for.
    """
    parts = [each for each in map(parts_of, ranked) if each.ending == ending(ranked[0])]
    made: dict[str, None] = {}
    for _ in range(count):
        for draw in range(_DRAWS):  # the more in vain, the less it matters how good a parent is
            chances = _DECAY ** (np.arange(len(parts)) * (1 - draw / _DRAWS))
            places = rng.choice(len(parts), 3, p=chances / chances.sum())
            task, claim, asked = (parts[place] for place in places)
            template = Parts(task.task, claim.claim, asked.asked, parts[0].ending).template()
            is_new = template not in known and template not in made
            if is_new and not problem_with(template, {}, question.reply, question.answers):
                made[template] = None
                break
    return list(made)


def wordings_in(text: str, known: Mapping[str, object], last: str, question: Question = PAPERS) -> list[str]:
    """The new templates in a text that somebody wrote, one per line, as many as are good.

    The text is not trusted: a line counts if it is a template that ends in ``last``, of plain words and of at
    most `LONGEST_WORDING` characters. Marks of a list and quotes around it are taken away, and ``last`` is
    added where a line stops before it.

    >>> wordings_in('Sure!\\n1. "Did it do {instruction}? True or False?"\\n{instruction} <b>', {}, "Answer:")
    ['Did it do {instruction}? True or False? Answer:']
    """
    made: dict[str, None] = {}
    for line in text[:_LONGEST_TEXT].splitlines()[:_MOST_LINES]:
        template = _wording_in(line, last, question)
        if template and template not in known:
            made[template] = None
    return list(made)


def _wording_in(line: str, last: str, question: Question) -> str:
    """The template in a line; empty where there is none."""
    if len(line) > 2 * LONGEST_WORDING:
        return ""
    try:
        template = clean_instruction(line)
    except InstructionError:
        return ""
    template = _LIST_MARK.sub("", template)
    if template[:1] in _QUOTES and template[-1:] in _QUOTES:
        template = template[1:-1].strip()
    if not template:
        return ""
    if last and template[-1] in ".?!":
        template = f"{template} {last}"
    if len(template) > LONGEST_WORDING or not template.isprintable() or _MARKUP.search(template):
        return ""
    if problem_with(template, {}, question.reply, question.answers) or ending(template) != last:
        return ""
    return template
