"""Templates of the question: the paper's, or those of a file, which may ask for other answers.

A file of templates is plain text, a template per line, with ``{instruction}`` where the instruction goes.
What cannot be seen in a line does not count, by the rule of `core.instruction`. Empty lines and lines that
begin with ``#`` are skipped. The line ``answers: " 1"=1 " 2"=2`` names other answers than True and False,
with their values. In such a file ``\\n`` in a template is a line break, and ``reply: "ANSWER:"`` says what
the assistant's turn begins with before the answer, so that the question is asked as a chat.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from topreward_ros.core.instruction import InstructionError, clean_instruction
from topreward_ros.core.plain_files import PlainFileError, read_plain
from topreward_ros.core.printable import printable
from topreward_ros.core.text_files import TextFileError, read_text
from topreward_ros.defaults import config_file
from topreward_ros.scoring.base import ScorerError, ScorerSettings
from topreward_ros.scoring.question.answer_set import TRUE_FALSE, AnswerSet, read_answer_set

INSTRUCTION_PLACEHOLDER = "{instruction}"  #: where the instruction goes in a template

#: The question of TOPReward, as in the authors' code.
PAPER = (
    "The above video shows a robot manipulation trajectory that completes the following task: "
    f"{INSTRUCTION_PLACEHOLDER} Decide whether the above statement is True or not. The answer is:"
)

MAX_TEMPLATES = 64  #: of a file

#: Questions with other answers that ship, each the file NAME.txt in ``config/``.
PRESETS = ("roboreward", "yes_no")

_DIRECTIVE = re.compile(r"(answers|reply)\s*:")
_LONGEST_REPLY = 200  # characters
_SHOWN = 200  # of them in a message
_MOST_BYTES = 100 << 20  # of a file, whatever is asked in it


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, in one wording or several, and which answers are read."""

    templates: tuple[str, ...] = (PAPER,)
    answers: AnswerSet | None = None  #: None: True and False
    reply: str = ""  #: what the assistant's turn begins with; empty: as ``chat_template`` says

    @property
    def head(self) -> str:
        """The lines of a file that say which answers are read; empty for True and False."""
        lines = f"answers: {self.answers}\n" if self.answers else ""
        return lines + (f'reply: "{self.reply}"\n' if self.reply else "")

    @property
    def shown(self) -> str:
        """What is asked, for a message: the file may be one that a search wrote for itself, and says nothing
        then. Of several wordings the first that is not the paper's."""
        first = next((it for it in self.templates if it != PAPER), PAPER)
        more = f" and {len(self.templates) - 1} more" if len(self.templates) > 1 else ""
        answers = f", with the answers {self.answers}" if self.answers else ""
        return f"'{printable(first, _SHOWN)}'{more}{printable(answers, _SHOWN)}"


PAPERS = Question()


def file_line(template: str, question: Question) -> str:
    """``template`` as it stands in a file whose other lines are those of ``question``."""
    return (template.replace("\n", "\\n") if question.answers else template) + "\n"


def file_of(templates: Iterable[str], question: Question) -> str:
    """A file of ``templates`` with the answers of ``question``."""
    return question.head + "".join(file_line(template, question) for template in templates)


def kind_of(template: str, question: Question) -> str:
    """What ``template`` has in common with those that it can be averaged with: how it ends, without a
    reply."""
    return "" if question.reply else ending(template) + _end_space(template)


def read_question(name: str) -> Question:
    """The question of a file, or the paper's for an empty name.

    ``name`` is a path, or the name of a file that ships in ``config/``, or of one of `PRESETS`. Raises
    `ScorerError` that names file and line.
    """
    if not name:
        return PAPERS
    if name.lower().endswith(".safetensors"):
        raise ScorerError(
            f"prompts {name!r} is a soft prompt, which only a Qwen3-VL in this process can be asked: name a "
            "file of templates instead"
        )
    path = _find(name)
    try:
        text = read_text(path)
    except TextFileError as error:
        raise ScorerError(
            f"prompts {name!r}, a file with a template per line, or one of {', '.join(PRESETS)}: {error}"
        ) from error
    lines: dict[int, str] = {}
    directives: dict[str, tuple[int, str]] = {}  # each with its line
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            cleaned = clean_instruction(line, f"{path}, line {number},")
        except InstructionError as error:
            raise ScorerError(str(error)) from error
        directive = _DIRECTIVE.match(cleaned)
        if directive and INSTRUCTION_PLACEHOLDER not in cleaned:  # with it `problem_with` refuses the line
            if directive[1] in directives:
                first = directives[directive[1]][0]
                raise ScorerError(
                    f"{path}, line {number}: {directive[1]} stands in line {first}, too: take one of them out"
                )
            directives[directive[1]] = (number, line.partition(":")[2].strip())
        elif cleaned and not cleaned.startswith("#"):
            lines[number] = cleaned
    answers, reply = _answers_in(directives, path), _reply_in(directives, path)
    templates: dict[str, int] = {}  # each with its line
    for number, template in lines.items():
        if answers is not None:
            template = template.replace("\\n", "\n")
        problem = problem_with(template, templates, reply, answers)
        if problem:
            raise ScorerError(f"{path}, line {number}: {problem}")
        templates[template] = number
    if not templates:
        raise ScorerError(f"{path} has no template: write one per line, for example {PAPER!r}")
    return Question(tuple(templates), answers, reply)


def file_digest(name: str) -> str:
    """A hash of the file that ``name`` leads to, a soft prompt or one of templates; empty for what ships, and
    for none. Raises `ScorerError`."""
    path = Path(name).expanduser()
    if not name or not path.is_file():
        return ""
    try:
        return sha256(read_plain(path, _MOST_BYTES)).hexdigest()
    except PlainFileError as error:
        raise ScorerError(f"prompts '{printable(name, 200)}' {error}: name another file") from error
    except OSError as error:
        said = error.strerror or error
        raise ScorerError(f"prompts '{printable(name, 200)}' cannot be read ({said})") from error


def read_templates(name: str) -> tuple[str, ...]:
    """As `read_question`, the templates alone. Raises `ScorerError`, also for a file of other answers."""
    question = read_question(name)
    if question.answers is not None:
        raise ScorerError(
            f"prompts {name!r} has answers of its own ({question.answers}), and here True and False are "
            "asked for: name a file without a line 'answers:'"
        )
    return question.templates


def asked_question(settings: ScorerSettings) -> Question:
    """The question that ``settings`` ask for. Raises `ScorerError`."""
    question = read_question(settings.prompts)
    if settings.contrastive and question.answers is not None:
        raise ScorerError(
            f"contrastive is true, which is of True and False, and prompts {settings.prompts!r} has answers "
            "of its own, which are always scored against each other: set contrastive to false"
        )
    return question


def preset_advice(model: str, question: Question) -> str:
    """What to tell the user of a ``model`` that was trained on another question; empty: nothing."""
    if question.answers is not None or "roboreward" not in model.lower():
        return ""
    return (
        f"model {printable(model, 200)} looks like RoboReward, which was trained to answer 1 to 5 and not "
        "True or False: prompts 'roboreward' asks it so, see docs/models.md"
    )


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
        return config_file(f"{name}.txt" if name in PRESETS else name)
    except FileNotFoundError:
        return path


def _answers_in(directives: dict[str, tuple[int, str]], path: Path) -> AnswerSet | None:
    if "answers" not in directives:
        return None
    number, text = directives["answers"]
    try:
        return read_answer_set(text)
    except ScorerError as error:
        raise ScorerError(f"{path}, line {number}: {error}") from error


def _reply_in(directives: dict[str, tuple[int, str]], path: Path) -> str:
    if "reply" not in directives:
        return ""
    number, text = directives["reply"]
    where = f"{path}, line {number}: "
    if "answers" not in directives:
        raise ScorerError(f"{where}reply is for answers of the file's own: write a line 'answers:', too")
    inside = text[1:-1]
    if len(text) < 3 or text[0] != '"' or text[-1] != '"' or '"' in inside or not inside.strip():
        raise ScorerError(
            f"{where}{printable(text, 60)!r} is no beginning of a reply: write the words in quotes, as in "
            'reply: "ANSWER:"'
        )
    if len(inside) > _LONGEST_REPLY or not inside.isprintable():
        raise ScorerError(
            f"{where}the reply has more than {_LONGEST_REPLY} characters, or some that cannot be printed: "
            "shorten it"
        )
    return inside


def problem_with(
    template: str, before: Mapping[str, int], reply: str = "", answers: AnswerSet | None = None
) -> str:
    """Why ``template`` cannot follow those ``before`` it (each with its line); empty where it can."""
    if directive := _DIRECTIVE.match(template):
        return (
            f"a line that begins with '{directive[1]}:' is no template, and must not have "
            f"{INSTRUCTION_PLACEHOLDER}: begin the template with another word, or take "
            f"{INSTRUCTION_PLACEHOLDER} out"
        )
    count = template.count(INSTRUCTION_PLACEHOLDER)
    if count != 1:
        return f"it has {count} times {INSTRUCTION_PLACEHOLDER} and must have it once: {template!r}"
    if template in before:
        return f"it is the same as line {before[template]}: take one of them out"
    if before and not reply:
        first, line = next(iter(before.items()))
        if ending(template) != ending(first):
            return (
                f"it ends in {ending(template)!r} and line {line} in {ending(first)!r}: the same answer "
                "must follow all of them, so end them alike"
            )
        if _end_space(template) != _end_space(first):
            return (
                f"of it and line {line} one ends in a line break, and the other in another or none: the same "
                "answer must follow all of them, so end them alike"
            )
    if not reply and not ending(template):
        words = " or ".join(text.strip() for text in (answers or TRUE_FALSE).texts)
        return f"it ends in {template[-1]!r}: let {words} be the next word, as after 'The answer is:'"
    if len(before) >= MAX_TEMPLATES:
        return f"it is one more than {MAX_TEMPLATES}: take some out"
    return ""


def _end_space(template: str) -> str:
    """The line breaks and spaces that end ``template``."""
    return template[len(template.rstrip()) :]


def ending(template: str) -> str:
    """The text after the last full sentence, which the answer completes.

    >>> ending("Is it done: {instruction}? True or False. The answer is:")
    'The answer is:'
    """
    return re.split(r"[.?!]", template.rpartition(INSTRUCTION_PLACEHOLDER)[2])[-1].strip()
