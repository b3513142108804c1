"""Every wording of the question, and what `topreward prompts` says of them: texts, the file and the JSON.

Scores come from prompt_scores.py; which wording is best is decided in core/prompt_choice.py.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from topreward_ros.core.counted import counted
from topreward_ros.core.measures import Measure
from topreward_ros.core.printable import printable
from topreward_ros.core.prompt_choice import Choice, Rated, Verdict
from topreward_ros.core.prompt_worth import Members
from topreward_ros.offline.code_version import code_hash, package_version
from topreward_ros.offline.json_values import json_value
from topreward_ros.offline.labelled_episodes import LabelledEpisode
from topreward_ros.scoring.base import RANDOM_WEIGHTS, ScorerError, ScorerInfo
from topreward_ros.scoring.question.templates import (
    INSTRUCTION_PLACEHOLDER,
    Question,
    file_line,
    file_of,
    kind_of,
    read_question,
)

JSON_FORMAT = "topreward_prompts/1"  #: raise the number when a field changes its meaning or goes
SOFT = "the soft prompt"  #: what a candidate is called that is no template
SHIPPED = ("", "ten_prompts.txt")  #: of True and False: the paper's question, and the file that ships


@dataclass(frozen=True, slots=True)
class Templates:
    """All templates, each once, and the files in which they stand."""

    texts: tuple[str, ...]
    default: Members  #: what `prompts` says now
    files: dict[str, Members]  #: by the name as it was given
    question: Question  #: whose answers and reply are those of all

    @property
    def kinds(self) -> tuple[str, ...]:
        """How each template ends, before the answer; only those that end alike can be averaged."""
        return tuple(kind_of(text, self.question) for text in self.texts)

    def name_of(self, members: Members) -> str:
        """What a candidate is called: the default, a file as it is, or the numbers of its templates from
        1."""
        if members == self.default:
            return "default"
        for file, inside in self.files.items():
            if members == inside and len(inside) > 1:
                return printable(Path(file).name, 60)
        if INSTRUCTION_PLACEHOLDER not in self.texts[members[0]]:
            return SOFT
        return " + ".join(str(place + 1) for place in members)


def read_all_templates(default: str, files: Sequence[str]) -> Templates:
    """The templates of ``default`` (as the parameter ``prompts`` has it), of ``files``, and where the default
    asks for True and False those that ship.

    Raises `ScorerError` for a file that cannot be read, and for one with other answers than the default.
    """
    usual = read_question(default)
    places: dict[str, int] = {}
    members: dict[str, Members] = {}
    shipped = SHIPPED if usual.answers is None else ()
    for name in dict.fromkeys([default, *shipped, *files]):
        question = read_question(name)
        if question.head != usual.head:
            raise ScorerError(
                f"prompts {name!r} asks for {_asked_for(question)}, and the default "
                f"{f'{default!r} ' if default else ''}for {_asked_for(usual)}: a sweep compares wordings for "
                f"the same answers; give it such files alone, or make this the default (--set prompts={name})"
            )
        inside = [places.setdefault(text, len(places)) for text in question.templates]
        members[name] = tuple(sorted(inside))
    named = {name: inside for name, inside in members.items() if name}
    return Templates(tuple(places), members[default], named, usual)


def _asked_for(question: Question) -> str:
    reply = f" behind {question.reply!r}" if question.reply else ""
    return f"the answers {question.answers}{reply}" if question.answers else "True and False"


def usable(episodes: Sequence[LabelledEpisode]) -> tuple[list[LabelledEpisode], list[str]]:
    """The episodes that the sweep can take, and a sentence for each of the others."""
    made, problems = [], []
    for episode in episodes:
        if episode.succeeded is None:
            problems.append(f"{episode.name}: nobody has said whether it succeeded, so it is left out")
        elif "\n" in episode.task:
            problems.append(
                f"{episode.name}: its task has stages, and a curve of all is of one; it is left out"
            )
        else:
            made.append(episode)
    return made, problems


# ---- what is said of it -----------------------------------------------------------------------------


def verdict_text(choice: Choice, templates: Templates) -> str:
    """What was found: whether to choose by these data is better than the default, by how much, what to do."""
    kind = "tasks" if choice.of_tasks else "episodes of one task"
    usual, mine = np.mean(choice.held_out_default), np.mean(choice.held_out)
    measure = {Measure.BOTH: "the mean of AUC and of VOC less |static VOC|"}.get(
        choice.measure, choice.measure.name
    )
    change = f"{measure} goes from {usual:.3f} to {mine:.3f} ({choice.gain:+.3f}"
    if choice.interval.is_known:
        change += f", 95 % of {choice.interval.low:+.3f} to {choice.interval.high:+.3f})"
    else:
        change += ", in every part)" if choice.verdict is Verdict.NO_DIFFERENCE else ")"
    best = templates.name_of(choice.best.members)
    if choice.verdict is Verdict.TOO_FEW:
        return (
            f"Too few {kind} had no part in the choice to tell a gain from noise: {choice.lacking}. "
            f"{change[0].upper()}{change[1:]}. Keep the default."
        )
    verdict, advice = {
        Verdict.BETTER: ("beats the default beyond noise", f"Use {best}."),
        Verdict.NO_DIFFERENCE: ("does not beat the default beyond noise", "Keep the default."),
        Verdict.WORSE: ("does worse than the default", "Keep the default."),
    }[choice.verdict]
    what = best if best == SOFT else "the best"
    return f"On {kind} that had no part in the choice, {what} {verdict}: {change}. {advice}"


def prompts_file(
    choice: Choice,
    templates: Templates,
    episodes: Sequence[LabelledEpisode],
    info: ScorerInfo,
    command: str = "sweep",
) -> str:
    """A file that ``prompts`` takes: what is recommended, and above it why.

    ``command``: of `topreward prompts`, that chose.
    """
    data = sha256("".join(sorted(episode.identity for episode in episodes)).encode()).hexdigest()[:16]
    count = len({episode.task for episode in episodes})
    tasks = "one task" if count == 1 else f"{count} tasks"
    weights = f", {RANDOM_WEIGHTS}: it means nothing" if info.random_weights else ""
    head = [
        f"Templates of the question, chosen by `topreward prompts {command}`.",
        f"{counted(len(episodes), 'episode')} of {tasks} (data {data}), "
        f"scored by {info.model_id} ({info.revision}){weights}.",
        verdict_text(choice, templates),
    ]
    lines = [f"# {printable(text, 1000)}\n" for text in head]
    lines.append(
        file_of([templates.texts[place] for place in choice.recommended.members], templates.question)
    )
    if choice.verdict is not Verdict.BETTER and choice.best.members != choice.default.members:
        lines.append("# The best by these data alone, too good by nature, to try on others:\n")
        best = (templates.texts[place] for place in choice.best.members)
        lines += [f"# {file_line(text, templates.question)}" for text in best]
    return "".join(lines)


def sweep_json(
    choice: Choice,
    templates: Templates,
    episodes: Sequence[LabelledEpisode],
    info: ScorerInfo,
    parameters: dict[str, Any],
    problems: Sequence[str],
    search: dict[str, Any] | None = None,
) -> str:
    """The result as JSON text.

    ``format``: ``topreward_prompts/1``; ``verdict``; ``too_few``: why the data allow none, or None; ``gain``
    and its ``interval``; ``measure``;
    ``templates`` with ``number`` from 1, text and rating; ``leading``: the best candidates by the numbers of
    their templates; ``held_out``: per part what was chosen on the others, its value and the default's;
    ``recommended``; ``model``, ``parameters``, ``version`` and hash of the ``code``, ``episodes`` with the
    hashes of their frames; ``problems``; ``search``: None of a sweep, else how it was searched, its
    ``rounds`` and the tasks that it was ``trained`` on.
    """

    def rating(rated: Rated) -> dict[str, Any]:
        value = asdict(rated)
        return {"templates": [place + 1 for place in value.pop("members")], **value}

    content = {
        "format": JSON_FORMAT,
        "verdict": choice.verdict.value,
        "measure": choice.measure.value,
        "too_few": choice.lacking or None,
        "gain": choice.gain,
        "interval": [choice.interval.low, choice.interval.high],
        "candidates": choice.candidates,
        "default": rating(choice.default),
        "best": rating(choice.best),
        "recommended": rating(choice.recommended),
        "templates": [
            {"number": place + 1, "text": text, **rating(rated)}
            for place, (text, rated) in enumerate(zip(templates.texts, choice.singles, strict=True))
        ],
        "leading": [rating(rated) for rated in choice.leading],
        "held_out_are": "tasks" if choice.of_tasks else "episodes",
        "held_out": [
            {"part": part, "templates": [place + 1 for place in members], "value": value, "default": usual}
            for part, members, value, usual in zip(
                choice.parts, choice.chosen, choice.held_out, choice.held_out_default, strict=True
            )
        ],
        "model": {
            name: value for name, value in asdict(info).items() if name not in ("instructions", "prompt_hash")
        },
        "parameters": parameters,
        "version": package_version(),
        "code": code_hash(),
        "episodes": [
            {"name": it.name, "task": it.task, "succeeded": it.succeeded, "identity": it.identity}
            for it in episodes
        ],
        "problems": list(problems),
        "search": search,
    }
    return json.dumps(json_value(content), indent=2, ensure_ascii=True, allow_nan=False) + "\n"
