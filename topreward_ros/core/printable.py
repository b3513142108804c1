"""How text from outside (an instruction, a file name, an error of a library) is made fit to be shown."""

from __future__ import annotations


def printable(text: str, longest: int = 10_000, *, stand_in: str = " ") -> str:
    """``text`` on one line, without what could command a terminal, and cut where it is too long.

    Every character that cannot be printed, line breaks included, is replaced by ``stand_in``. The result
    has at most ``longest`` characters; a cut is marked by three dots at the end.

    >>> printable("open\\nthe \\x1b[2J drawer", longest=14)
    'open the  [...'
    """
    if len(text) > longest:
        text = text[: longest - 3] + "..."
    return "".join(character if character.isprintable() else stand_in for character in text)
