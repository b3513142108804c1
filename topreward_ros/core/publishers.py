"""Which messages on a topic come from the one publisher that is followed, and how many of them were lost.

Two publishers on one camera topic have each their own time, and scored together they make nonsense. rclpy
does not say who sent a message, but each publisher numbers its messages from 1, and all are of one camera and
one clock: a message belongs to the publisher that is like it and whose newest number is the nearest below.
One publisher is followed; another is, once that one is gone. Times of arrival are by any steady clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from topreward_ros.core.frames import NS_PER_S, RecentIntervals

# How many messages may have been lost at once: so many, and so many per second of silence. A larger step is
# that of another publisher.
_LOST_AT_ONCE = 10
_LOST_PER_S = 1000
# A publisher is gone after so many of its longer intervals, and so long.
_GONE_INTERVALS = 4
_SHORTEST_GONE_NS = NS_PER_S // 2
_FORGOTTEN_NS = 60 * NS_PER_S
_MOST_OTHERS = 8  # publishers that are known beside the one that is followed
_SAME_CLOCK_NS = NS_PER_S  # how much later or earlier than before a message of a publisher may arrive


@dataclass(slots=True)
class _Publisher:
    sequence: int  # of its newest message
    arrival_ns: int
    delay_ns: int  # between the stamp of its newest message and its arrival: that clocks differ is no matter
    frame_id: bytes
    intervals: RecentIntervals

    def is_like(self, delay_ns: int, frame_id: bytes) -> bool:
        return self.frame_id == frame_id and abs(delay_ns - self.delay_ns) <= _SAME_CLOCK_NS

    def may_have_sent(self, sequence: int, arrival_ns: int) -> bool:
        silent_s = (arrival_ns - self.arrival_ns) / NS_PER_S
        return 0 < sequence - self.sequence <= 1 + _LOST_AT_ONCE + _LOST_PER_S * silent_s

    def is_gone(self, now_ns: int) -> bool:
        patience_ns = max(_SHORTEST_GONE_NS, _GONE_INTERVALS * self.intervals.longer())
        return now_ns - self.arrival_ns > patience_ns


class Publishers:
    """The publishers of one topic, told apart by the numbers of their messages.

    >>> publishers = Publishers()
    >>> [publishers.take(sequence, k, k, b"camera") for k, sequence in enumerate((7, 100, 8, 101, 10))]
    [True, False, True, False, True]
    >>> publishers.lost, publishers.of_others
    (1, 2)
    """

    def __init__(self) -> None:
        self.lost = 0  #: messages of the publisher that is followed that did not come
        self.of_others = 0  #: messages of other publishers, which are not to be used
        self.changes = 0  #: how often another publisher was followed
        self._known: list[_Publisher] = []
        self._followed: _Publisher | None = None

    def restart(self) -> None:
        """Follow whoever comes next: the topic is another one."""
        self._known, self._followed = [], None

    def take(
        self,
        sequence: int | None,
        arrival_ns: int,
        stamp_ns: int,
        frame_id: bytes,
        *,
        alone: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Note a message; returns whether it is to be used, because the publisher that is followed sent it.

        ``sequence``: its number, or None where the middleware gives none. ``stamp_ns``, ``frame_id``: of its
        header. ``alone``: whether there is one publisher only, so that another one has taken the place of
        the one before, and stamps that jump are its own; asked only where that matters.
        """
        if sequence is None:
            return True
        delay_ns = arrival_ns - stamp_ns
        possible = [
            known
            for known in self._known
            if known.may_have_sent(sequence, arrival_ns) and (known.is_like(delay_ns, frame_id) or alone())
        ]
        # Of two with the same number, the one that was silent longer.
        sender = max(possible, key=lambda known: (known.sequence, -known.arrival_ns), default=None)
        lost = 0
        if sender is None:
            sender = _Publisher(sequence, arrival_ns, delay_ns, frame_id, RecentIntervals())
            self._forget(arrival_ns)
            self._known.append(sender)
        else:
            lost = sequence - sender.sequence - 1
            sender.intervals.add(arrival_ns - sender.arrival_ns)
            sender.sequence, sender.arrival_ns = sequence, arrival_ns
            sender.delay_ns, sender.frame_id = delay_ns, frame_id
        if sender is not self._followed:
            if self._followed is not None and not (self._followed.is_gone(arrival_ns) or alone()):
                self.of_others += 1
                return False
            self.changes += self._followed is not None
            self._followed = sender
            lost = 0
        self.lost += lost
        return True

    def _forget(self, now_ns: int) -> None:
        """Forget all but the newest of those that sent something lately: stamps that jump look like many."""
        lately = [known for known in self._known if now_ns - known.arrival_ns < _FORGOTTEN_NS]
        others = [known for known in lately if known is not self._followed]
        self._known = [known for known in lately if known is self._followed] + others[-_MOST_OTHERS:]
