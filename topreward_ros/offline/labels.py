"""labels.csv: what people say of recorded episodes, a line each: did it succeed, when, at what task.

Columns: ``file``, ``success``, and if you like ``task``, ``done_s``, ``episode``, ``attempt``. What stands in
the files is not looked at here (`labelled_episodes`). A line that cannot be used is a problem of its own; the
others stay.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from math import isfinite
from pathlib import Path
from unicodedata import normalize

from topreward_ros.core.errors import UserError
from topreward_ros.core.instruction import InstructionError, clean_task
from topreward_ros.core.nearest import misspelt
from topreward_ros.core.printable import printable
from topreward_ros.core.text_files import read_text

LABELS = "labels.csv"  #: in a folder of recordings, or in that of a LeRobot dataset
COLUMNS = ("file", "task", "success", "done_s", "episode", "attempt")
_YES = frozenset(("1", "1.0", "true", "yes", "y", "success", "succeeded"))
_NO = frozenset(("0", "0.0", "false", "no", "n", "failure", "failed", "fail"))
_DELIMITERS = (",", ";", "\t")
_MISSPELT = 0.75  # how alike names of columns are: taks is the task, title is a column of somebody's own
_DIGITS = 9  # of an episode's number, at most
_LONGEST_NAME = 200  # characters of an attempt's


class LabelError(UserError):
    """A label, or a file of labels, cannot be used."""


@dataclass(frozen=True, slots=True)
class Label:
    """What is said of one episode, or of all in a file."""

    where: str  #: where it is said, for a human: "labels.csv, line 3", "--success"
    file: Path
    succeeded: bool | None  #: None: not known
    task: str = ""  #: a stage per line; empty: as the recording says
    done_s: float | None = None  #: when it was done [s] since the episode's first frame; None: not known
    episode: int | None = None  #: which one in the file, from 0; None: the only one, or all of a dataset
    #: what all films of one attempt have in common, those of several cameras: its name, and the folder of the
    #: labels; empty: nothing
    attempt: str = ""


@dataclass(frozen=True, slots=True)
class LabelFile:
    """What stands in a CSV file of labels."""

    labels: list[Label]
    problems: list[str]  #: a sentence for each line that cannot be used
    files: list[Path]  #: that the lines name, also those that cannot be used


def read_labels(path: Path, *, of_dataset: bool = False) -> LabelFile:
    """Read the CSV file ``path``.

    Paths are relative to the file's folder. ``of_dataset``: the folder is a LeRobot dataset, which a line
    without a file is about. Fields are separated by commas, semicolons or tabs, as the first line has it.
    Raises `LabelError` and `TextFileError` for the file as a whole.
    """
    shown, folder = printable(str(path)), path.parent.resolve()
    text = read_text(path)
    head = text.split("\n", 1)[0]
    delimiter = max(_DELIMITERS, key=head.count)
    rows = csv.reader(StringIO(text), delimiter=delimiter, strict=True)
    begun = 0  # lines that are read already, before the row that is read next
    try:
        names = [name.strip().casefold() for name in next(rows, [])]
        _check_names(names, shown, of_dataset)
        labels: list[Label] = []
        files: list[Path] = []
        problems = _misspelt(names, shown)
        begun = rows.line_num
        for row in rows:
            where, begun = f"{shown}, line {rows.line_num}", rows.line_num
            if not any(field.strip() for field in row):
                continue
            fields = dict(zip(names, (field.strip() for field in row), strict=False))
            file = _file(fields, path.parent)
            files.append(file)
            if len(row) > len(names):
                problems.append(
                    f"{where}: it has {len(row)} fields and there are {len(names)} columns: put a field with "
                    f"a '{delimiter}' in it in quotes"
                )
                continue
            try:
                labels.append(_label(fields, where, file, of_dataset, folder))
            except (LabelError, InstructionError) as error:
                problems.append(str(error))
    except csv.Error as error:
        raise LabelError(
            f"{shown}, line {begun + 1}: from here on it is no CSV ({error}): close each quote, write one "
            "inside of quotes twice, or save it as CSV"
        ) from error
    if not labels and not problems:
        raise LabelError(f"{shown} has no line of labels: write one per episode below the first")
    return LabelFile(labels, problems, files)


def _file(fields: Mapping[str, str], folder: Path) -> Path:
    """The file that a line names; ``folder``: that of the labels, which a line without one is about."""
    file = fields.get("file", "")
    return folder / os.path.expanduser(file) if file else folder  # as it is, if nobody has that name


def _check_names(names: Sequence[str], shown: str, of_dataset: bool) -> None:
    needed = ("success", "episode") if of_dataset and "file" not in names else ("file", "success")
    missing = [name for name in needed if name not in names]
    if missing:
        raise LabelError(
            f"{shown} has no column {' and '.join(missing)}: its first line must name the columns, "
            f"{','.join(needed)} and if you like {','.join(name for name in COLUMNS if name not in needed)}"
        )
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise LabelError(f"{shown} has the column {printable(twice[0])} twice: leave one of them")


def _misspelt(names: Sequence[str], shown: str) -> list[str]:
    """A sentence for each column that is not known and looks like one that is, and is missing."""
    missing = [name for name in COLUMNS if name not in names]
    found = []
    for name in names:
        close = "" if name in COLUMNS else misspelt(name, missing, _MISSPELT)
        if close:
            found.append(
                f"{shown}: the column {printable(name, 60)} is not used: if it is meant, call it {close}"
            )
    return found


def _label(fields: Mapping[str, str], where: str, file: Path, of_dataset: bool, resolved: Path) -> Label:
    """The label in a line about ``file``; ``resolved``: the folder of the labels as it is known whoever names
    it. Raises `LabelError` and `InstructionError`."""
    if not fields.get("file") and not of_dataset:
        raise LabelError(f"{where}: it names no file")
    succeeded = _verdict(fields.get("success", ""), where)
    done_s = _time(fields.get("done_s", ""), where)
    if done_s is not None and not succeeded:
        said = "no success" if succeeded is False else "nothing of success"
        raise LabelError(
            f"{where}: it says {said}, and that it was done at {done_s:g} s, which contradict each other: "
            "correct one"
        )
    return Label(
        where,
        file,
        succeeded,
        clean_task(fields.get("task", ""), where),
        done_s,
        _number(fields.get("episode", ""), where),
        _attempt(fields.get("attempt", ""), where, resolved),
    )


def _verdict(text: str, where: str) -> bool | None:
    if text.casefold() in _YES | _NO:
        return text.casefold() in _YES
    if not text:
        return None
    raise LabelError(
        f"{where}: success is '{printable(text, 60)}': write 1 or 0, or nothing where nobody knows"
    )


def _time(text: str, where: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        value = float("nan")
    if not (isfinite(value) and value >= 0):
        raise LabelError(
            f"{where}: done_s is '{printable(text, 60)}': write seconds since the episode's first frame, or "
            "nothing"
        )
    return value


def _attempt(text: str, where: str, folder: Path) -> str:
    if len(text) > _LONGEST_NAME or not text.isprintable():
        raise LabelError(
            f"{where}: attempt is '{printable(text, 60)}': write a name of up to {_LONGEST_NAME} characters, "
            "the same for all films of one attempt, or nothing"
        )
    return f"{normalize('NFC', text)} in {folder}" if text else ""


def _number(text: str, where: str) -> int | None:
    if not text:
        return None
    digits = text.lstrip("0")
    if not (text.isascii() and text.isdecimal() and len(digits) <= _DIGITS):
        raise LabelError(
            f"{where}: episode is '{printable(text, 60)}': write a whole number from 0 on, or nothing"
        )
    return int(digits or "0")
