"""How many messages of a stream were lost lately, and whether this process was too late for them.

It is told of every message that came, and of the gap in the numbers before it (publishers.py). It judges the
newest minute, or the newest few dozen messages of a slow camera: what was lost an hour ago needs no advice.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from topreward_ros.core.frames import NS_PER_S

_WINDOW_NS = 60 * NS_PER_S
_FEWEST_SENT = 30  # messages, before anything is said


@dataclass(slots=True)
class _Second:
    begun_ns: int
    received: int = 0
    lost: int = 0
    gaps: int = 0
    late_gaps: int = 0


class Losses:
    """The newest minute of one publisher's messages.

    >>> losses = Losses()
    >>> for k in range(40):
    ...     losses.note(k * NS_PER_S, lost=1, late=True)
    >>> losses.share(), losses.came_late()
    (0.5, True)
    >>> losses.forget()
    >>> losses.share()
    0.0
    """

    def __init__(self) -> None:
        self._seconds: deque[_Second] = deque()

    def forget(self) -> None:
        """Begin anew: another publisher is followed, or what was lost is nobody's fault."""
        self._seconds.clear()

    def note(self, arrival_ns: int, lost: int = 0, *, late: bool = False) -> None:
        """A message came after ``lost`` that did not; ``late``: this process took it long after it came."""
        if not self._seconds or arrival_ns - self._seconds[-1].begun_ns >= NS_PER_S:
            self._seconds.append(_Second(arrival_ns))
        second = self._seconds[-1]
        second.received += 1
        second.lost += lost
        second.gaps += lost > 0
        second.late_gaps += lost > 0 and late
        oldest = self._seconds[0]
        is_old = arrival_ns - oldest.begun_ns > _WINDOW_NS
        if is_old and self._sent() - oldest.received - oldest.lost >= _FEWEST_SENT:
            self._seconds.popleft()

    def share(self) -> float:
        """Which share of the messages that were sent is lost [0, 1]; 0 before there were some dozens."""
        sent = self._sent()
        return sum(second.lost for second in self._seconds) / sent if sent >= _FEWEST_SENT else 0.0

    def came_late(self) -> bool:
        """Whether most gaps were seen when this process had not kept up."""
        gaps = sum(second.gaps for second in self._seconds)
        return sum(second.late_gaps for second in self._seconds) > gaps / 2

    def _sent(self) -> int:
        return sum(second.received + second.lost for second in self._seconds)
