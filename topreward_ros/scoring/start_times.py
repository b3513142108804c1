"""How long the parts of a start took, for whoever wonders what it waits for."""

from __future__ import annotations

from time import perf_counter


class StartTimes:
    """Seconds by part, in the order in which the parts were done. The clock runs from construction on."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}
        self._since_s = perf_counter()

    def done(self, part: str) -> None:
        """All that came since the last call was ``part``."""
        now_s = perf_counter()
        self.parts[part] = self.parts.get(part, 0.0) + now_s - self._since_s
        self._since_s = now_s

    def add(self, later: StartTimes) -> None:
        """Count the parts of ``later``, which came after these."""
        for part, seconds in later.parts.items():
            self.parts[part] = self.parts.get(part, 0.0) + seconds

    def __str__(self) -> str:
        """For a log.

        >>> times = StartTimes()
        >>> times.parts |= {"libraries": 1.25, "weights": 2.5}
        >>> print(times)
        3.8 s (libraries 1.2 s, weights 2.5 s)
        """
        parts = ", ".join(f"{part} {seconds:.1f} s" for part, seconds in self.parts.items())
        return f"{sum(self.parts.values()):.1f} s ({parts})"
