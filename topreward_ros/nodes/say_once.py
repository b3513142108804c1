"""A log that gives each warning once, however often its cause is noticed."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any


class SayOnce:
    """Logs a warning once per subject, until the subject is forgotten. Not thread-safe."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._said: set[Hashable] = set()

    def warn(self, subject: Hashable, text: Callable[[], str]) -> None:
        """Log what ``text`` returns, unless this was done for ``subject`` before.

        ``text`` is called only where it is needed. It returns an empty string while there is nothing to
        warn of, and is then asked again the next time.
        """
        if subject not in self._said and (warning := text()):
            self._said.add(subject)
            self._logger.warning(warning)

    def forget(self, subject: Hashable) -> None:
        """Log the next warning of ``subject`` again: the problem was over in between."""
        self._said.discard(subject)
