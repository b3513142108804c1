"""A log that gives each warning once, however often its cause is noticed."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

_APART_S = 10.0  # what comes and goes, or changes with each score, would fill a log
_NEWS_AFTER_S = 5.0  # what was just found out may change again: others come and go


@dataclass(slots=True)
class _Told:
    """What was said of a subject last."""

    text: str
    when_s: float
    is_over: bool = False  # since then
    news: str = ""  # what would be said now
    news_since_s: float = 0.0

    def is_recent(self) -> bool:
        return time.monotonic() - self.when_s < _APART_S


class SayOnce:
    """Logs a warning once per subject until the subject is forgotten, and every 10 s at most.

    Not thread-safe.
    """

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._told: dict[Hashable, _Told] = {}

    def warn(self, subject: Hashable, text: Callable[[], str]) -> None:
        """Log what ``text`` returns, unless this was done for ``subject`` before.

        ``text`` is called only where it is needed. It returns an empty string while there is nothing to
        warn of, and is then asked again the next time.
        """
        if self._is_new(subject) and (warning := text()):
            self._tell(subject, warning, warning)

    def warn_of_change(self, subject: Hashable, text: str) -> None:
        """Log ``text``, unless it was logged of ``subject`` last. An empty text: it is over."""
        told = self._told.get(subject)
        if not text:
            self.forget(subject)
        elif told is None or (not told.is_recent() and (told.is_over or told.text != text)):
            self._tell(subject, text, text)

    def warn_of_news(self, subject: Hashable, advice: str, text: Callable[[], str]) -> None:
        """Log what ``text`` returns; and again where ``advice`` has been another than was told for a while.

        What is to be done depends on what other processes are known, and that comes by and by: the first
        advice may be wrong, and nobody would learn so. Others that come and go are no news.
        """
        told, now = self._told.get(subject), time.monotonic()
        if self._is_new(subject):
            self._tell(subject, advice, text())
        elif told is None or told.is_over:
            return  # too soon
        elif advice != told.news:
            told.news, told.news_since_s = advice, now
        elif advice != told.text and now - told.news_since_s >= _NEWS_AFTER_S and not told.is_recent():
            self._tell(subject, advice, text())

    def has_told(self, subject: Hashable) -> bool:
        """Whether something was said of ``subject`` that is not over."""
        return subject in self._told and not self._told[subject].is_over

    def note_advice(self, subject: Hashable, advice: Callable[[], str]) -> None:
        """What is to be done about ``subject`` was told by somebody else; `warn_of_news` goes on from it.

        ``advice`` is called where nothing was told before.
        """
        if not self.has_told(subject):
            self._told[subject] = _Told(advice(), time.monotonic())

    def forget(self, subject: Hashable) -> None:
        """Log the next warning of ``subject`` again: the problem was over in between."""
        if subject in self._told:
            self._told[subject].is_over = True

    def _is_new(self, subject: Hashable) -> bool:
        """Whether a warning would be the first, or the first since it was over, and not too soon."""
        told = self._told.get(subject)
        return told is None or (told.is_over and not told.is_recent())

    def _tell(self, subject: Hashable, told: str, text: str) -> None:
        self._told[subject] = _Told(told, time.monotonic())
        self._logger.warning(text)
