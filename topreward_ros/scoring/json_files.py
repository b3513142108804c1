"""JSON files of a checkpoint: the object in one, or a sentence that says what is wrong with the file."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any

from topreward_ros.core.json_text import JsonError, parsed_json
from topreward_ros.core.text_files import TextFileError, read_text
from topreward_ros.scoring.base import ScorerError, in_a_line

_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_RESTORE = "restore it from the checkpoint"


def read_json(path: Path, mend: str = _RESTORE) -> dict[str, Any]:
    """The object in the file ``path``. Raises `ScorerError`, which ends in ``mend`` where it holds none."""
    text = read_checkpoint_text(path)
    try:
        content = parsed_json(text)
    except JsonError as error:
        raise ScorerError(f"{path} cannot be read ({in_a_line(error)}): {mend}") from error
    if not isinstance(content, dict):
        raise ScorerError(f"{path} cannot be read (it must hold one object): {mend}")
    return content


def read_checkpoint_text(path: Path) -> str:
    """The text in the file ``path`` of a checkpoint. Raises `ScorerError`."""
    try:
        return read_text(path)
    except TextFileError as error:
        raise ScorerError(str(error)) from error


def refuse_byte_order_mark(path: Path) -> None:
    """Raise `ScorerError` for a file with a byte order mark that other libraries read as well.

    They take none, and say nothing that would help. A file that is not there is left to its reader.
    """
    try:
        with path.open("rb") as file:
            begin = file.read(4)
    except OSError:
        return
    if begin.startswith(_MARKS):
        raise ScorerError(
            f"{path} begins with a byte order mark, as editors on Windows write it, which transformers does "
            "not read: save it in UTF-8 without one"
        )
