"""A log that gives each warning once, however often its cause is noticed."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from math import inf
from typing import Any

_CHANGES_EVERY_S = 10.0  # what is said of each score, with its numbers, would fill a log
_NEWS_AFTER_S = 3.0  # what was just found out may change again: others are discovered one after the other


class SayOnce:
    """Logs a warning once per subject, until the subject is forgotten. Not thread-safe."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._said: set[Hashable] = set()
        self._changing: dict[Hashable, tuple[str, float]] = {}  # as it was logged last, and when [s]
        self._advice: dict[Hashable, tuple[str, float]] = {}  # as it was given last, and when [s]

    def warn(self, subject: Hashable, text: Callable[[], str]) -> None:
        """Log what ``text`` returns, unless this was done for ``subject`` before.

        ``text`` is called only where it is needed. It returns an empty string while there is nothing to
        warn of, and is then asked again the next time.
        """
        if subject not in self._said and (warning := text()):
            self._said.add(subject)
            self._logger.warning(warning)

    def warn_of_change(self, subject: Hashable, text: str) -> None:
        """Log ``text``, unless it was logged of ``subject`` last, and every 10 s at most.

        An empty text: it is over.
        """
        now = time.monotonic()
        told, when = self._changing.get(subject, ("", -inf))
        if text == told:
            return
        if not text:
            self._changing[subject] = "", when
        elif now - when >= _CHANGES_EVERY_S:
            self._changing[subject] = text, now
            self._logger.warning(text)

    def note_advice(self, subject: Hashable, advice: Callable[[], str]) -> None:
        """What is to be done about ``subject`` was told by somebody else; `warn_of_news` goes on from it.

        ``advice`` is called where nothing was noted before.
        """
        if subject not in self._advice:
            self._advice[subject] = advice(), time.monotonic()

    def warn_of_news(self, subject: Hashable, advice: str, text: Callable[[], str]) -> None:
        """Log what ``text`` returns where ``advice`` is not what was told of ``subject`` last.

        What is to be done depends on what other processes are known, and that comes by and by: the first
        advice may be wrong, and nobody would learn so. The first time is logged by `warn`, or by whoever
        calls `note_advice`.
        """
        now = time.monotonic()
        told, when = self._advice.get(subject, (advice, now))
        if told != advice and now - when >= _NEWS_AFTER_S:
            self._advice[subject] = advice, now
            self._logger.warning(text())

    def forget(self, subject: Hashable) -> None:
        """Log the next warning of ``subject`` again: the problem was over in between."""
        self._said.discard(subject)
        self._changing.pop(subject, None)
        self._advice.pop(subject, None)
