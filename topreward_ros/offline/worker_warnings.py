"""Warnings of several processes that meet the same thing, such as a server that is gone, told once.

A process that does jobs has its warnings told by the one that started it. What it tells there is plain text,
with what it is of: until that is over, it is not told again, whichever process says so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from topreward_ros.core.printable import printable

_LONGEST = 2000  # characters of a text
_PACKAGE = "topreward_ros"
_SUBJECT, _IS_OVER = "subject", "is_over"  # of a record, as `of` gives them


@dataclass(frozen=True, slots=True)
class Warned:
    """A warning."""

    text: str
    subject: str  #: what it is of; of most the text itself
    is_over: bool  #: it says that what was told of the subject is over


def of(subject: str, *, is_over: bool = False) -> dict[str, object]:
    """What a logger takes as ``extra`` for a warning of a ``subject`` that lasts."""
    return {_SUBJECT: subject, _IS_OVER: is_over}


class TellOnce:
    """Tells each warning once, until its subject is over, which is told once, too."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._told: set[str] = set()

    def hear(self, warned: Warned) -> None:
        """Tell it, unless its subject is told."""
        if warned.is_over is not (warned.subject in self._told):
            return
        if warned.is_over:
            self._told.remove(warned.subject)
        else:
            self._told.add(warned.subject)
        self._tell(warned.text)


def send_warnings(send: Callable[[Warned], None]) -> None:
    """From now on give the warnings of this package in this process to ``send``, in whatever thread. One that
    raises `OSError` has lost its listener."""
    logger = logging.getLogger(_PACKAGE)
    logger.addHandler(_Sender(send))
    logger.propagate = False


class _Sender(logging.Handler):
    def __init__(self, send: Callable[[Warned], None]) -> None:
        super().__init__(logging.WARNING)
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        text = printable(self.format(record), _LONGEST)
        with suppress(OSError):
            self._send(
                Warned(text, getattr(record, _SUBJECT, None) or text, getattr(record, _IS_OVER, False))
            )
