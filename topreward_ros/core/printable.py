"""How text from outside is made fit to be shown: on a terminal, in a log, in a picture.

From outside is whatever we did not write: an instruction, an id, a file name, the encoding of an image, the
notes of a checkpoint, the error of a library. It is made printable where it is shown and not before: ids and
instructions in messages, and JSON, keep it as it came.

What cannot be printed is what `str.isprintable` says: control characters (C0 and C1, so every escape sequence
and every line break), marks of direction, separators of lines and paragraphs, lone surrogates, which stand
for bytes that were no UTF-8, and code points without a character. This covers all that XML 1.0 (section 2.2)
forbids.
"""

from __future__ import annotations

import logging
import traceback
import warnings
from typing import Any, TextIO


def printable(text: str, longest: int = 10_000, *, stand_in: str = " ") -> str:
    """``text`` on one line, without what could command a terminal, and cut where it is too long.

    Every character that cannot be printed, line breaks included, is replaced by ``stand_in``. The result
    has at most ``longest`` characters; a cut is marked by three dots at the end.

    >>> printable("open\\nthe \\x1b[2J drawer", longest=14)
    'open the  [...'
    """
    if len(text) > longest:
        text = text[: longest - 3] + "..."
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else stand_in for character in text)


class _PrintableRecord(logging.LogRecord):
    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        if self.exc_info and self.exc_info[0]:
            # The error quotes as it likes; no line of it may begin as one of ours does.
            lines = "".join(traceback.format_exception(*self.exc_info)).splitlines()
            self.exc_text = "\n".join("    " + printable(line) for line in lines)

    def getMessage(self) -> str:
        return printable(super().getMessage())


def make_libraries_printable() -> None:
    """Make printable what this process's libraries log and warn of through Python: they quote files, too.

    For the beginning of a program; it acts on the whole process.
    """
    logging.setLogRecordFactory(_PrintableRecord)
    warnings.showwarning = _show_warning


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    logging.getLogger("py.warnings").warning("%s:%d: %s: %s", filename, lineno, category.__name__, message)
