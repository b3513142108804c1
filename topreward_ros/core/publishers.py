"""Which messages on a topic come from the one publisher that is followed, and how many of them were lost.

Two publishers on one camera topic have each their own time, and scored together they make nonsense. rclpy
does not say who sent a message, but each publisher numbers its messages from 1, and all are of one camera and
one clock: a message belongs to the publisher that is like it, whose pace it fits, and whose newest number is
the nearest below. Two with the same numbers, pace and delay cannot be told apart. One publisher is followed;
another is, once that one is gone. Times of arrival are by any steady clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from topreward_ros.core.frames import NS_PER_S, RecentIntervals

# How many messages may have been lost at once: so many, and so many per second of silence. A larger step is
# that of another publisher.
_LOST_AT_ONCE = 10
_LOST_PER_S = 1000
# A publisher is gone after so many of its longer intervals, and so long.
_GONE_INTERVALS = 4
_SHORTEST_GONE_NS = NS_PER_S // 2
_FORGOTTEN_NS = 60 * NS_PER_S
_MIXED_FOR_NS = 10 * NS_PER_S
_MOST_OTHERS = 8  # publishers that are known beside the one that is followed
_SAME_CLOCK_NS = NS_PER_S  # how much later or earlier than before a message of a publisher may arrive
_FITS = 0.25  # of the time from one message to the next: how early or late one comes that fits its publisher
_FAR_SOONER = 8  # a message that comes in such a part of that time is of another publisher
_SAME_DELAY_NS = NS_PER_S // 200
_FEW_MESSAGES = 3  # of a publisher that just took the place of another, or of stamps that jump


@dataclass(slots=True)
class _Publisher:
    sequence: int  # of its newest message
    arrival_ns: int
    delay_ns: int  # between the stamp of its newest message and its arrival: that clocks differ is no matter
    frame_id: bytes
    stamp_ns: int
    first_ns: int  # arrival of its first message
    count: int = 1
    intervals: RecentIntervals = field(default_factory=RecentIntervals)  # between arrivals
    pace: RecentIntervals = field(default_factory=RecentIntervals)  # the time for one number, where there is

    def take(self, sequence: int, arrival_ns: int, stamp_ns: int, frame_id: bytes) -> None:
        """Note its newest message."""
        self.intervals.add(arrival_ns - self.arrival_ns)
        self.pace.add(self._step_ns(arrival_ns, stamp_ns) // (sequence - self.sequence))
        self.sequence, self.arrival_ns, self.stamp_ns = sequence, arrival_ns, stamp_ns
        self.delay_ns, self.frame_id = arrival_ns - stamp_ns, frame_id
        self.count += 1

    def _step_ns(self, arrival_ns: int, stamp_ns: int) -> int:
        """The time since its newest message, by the stamps where they say one."""
        by_stamps_ns = stamp_ns - self.stamp_ns
        return by_stamps_ns if by_stamps_ns > 0 else arrival_ns - self.arrival_ns

    def fits(self, sequence: int, arrival_ns: int, stamp_ns: int) -> bool:
        """Whether a message comes when its publisher is expected to send it."""
        pace_ns = self.pace.typical() or 0
        due_ns = (sequence - self.sequence) * pace_ns
        return abs(self._step_ns(arrival_ns, stamp_ns) - due_ns) <= _FITS * pace_ns

    def is_far_sooner(self, sequence: int, arrival_ns: int, stamp_ns: int) -> bool:
        """Whether a message comes far sooner than its publisher can have sent it, by stamp and by arrival."""
        due_ns = (sequence - self.sequence) * (self.pace.typical() or 0)
        latest_ns = max(arrival_ns - self.arrival_ns, self._step_ns(arrival_ns, stamp_ns))
        return latest_ns * _FAR_SOONER < due_ns

    def off_by(self, delay_ns: int) -> int:
        """How unlike its own the delay of a message is; 0: so alike that it tells nothing."""
        return abs(delay_ns - self.delay_ns) // _SAME_DELAY_NS

    def is_like(self, delay_ns: int, frame_id: bytes) -> bool:
        return self.frame_id == frame_id and abs(delay_ns - self.delay_ns) <= _SAME_CLOCK_NS

    def may_have_sent(self, sequence: int, arrival_ns: int) -> bool:
        silent_s = (arrival_ns - self.arrival_ns) / NS_PER_S
        return 0 < sequence - self.sequence <= 1 + _LOST_AT_ONCE + _LOST_PER_S * silent_s

    def is_gone(self, now_ns: int) -> bool:
        # One of its intervals may be a pause, or have ended with a message of another one.
        patience_ns = max(_SHORTEST_GONE_NS, _GONE_INTERVALS * self.intervals.longer(gaps=1))
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
        self._mixed_ns: int | None = None  # when a message came that may be of either of two
        self._forgiven = False
        self._known: list[_Publisher] = []
        self._followed: _Publisher | None = None

    def restart(self) -> None:
        """Follow whoever comes next: the topic is another one."""
        self._known, self._followed, self._mixed_ns = [], None, None

    def forgive(self) -> None:
        """This process was stopped: what was lost since then is nobody's fault."""
        self._forgiven = True

    def has_stopped(self, now_ns: int) -> bool:
        """Whether the one that is followed has sent nothing for longer than it let one wait lately."""
        return self._followed is None or self._followed.is_gone(now_ns)

    def heard(self, now_ns: int) -> int:
        """How many publishers send messages, as far as they can be told apart."""
        followed = self._followed
        if followed is None:
            return 0
        rivals = [
            known
            for known in self._known
            if known is not followed
            and known.count >= _FEW_MESSAGES
            and known.first_ns < followed.arrival_ns  # else it may have taken its place
            and not known.is_gone(now_ns)
        ]
        return len(rivals) + (not followed.is_gone(now_ns))

    def newest_other_ns(self) -> int | None:
        """When the newest message of a publisher that is not followed came; None where there is none."""
        return max((k.arrival_ns for k in self._known if k is not self._followed), default=None)

    def are_mixed(self, now_ns: int) -> bool:
        """Whether two publishers cannot be told apart, so that messages of both may be used."""
        return self._mixed_ns is not None and now_ns - self._mixed_ns < _MIXED_FOR_NS

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
        sender = self._sender(sequence, arrival_ns, stamp_ns, frame_id, alone)
        lost = 0
        if sender is None:
            delay_ns = arrival_ns - stamp_ns
            sender = _Publisher(sequence, arrival_ns, delay_ns, frame_id, stamp_ns, arrival_ns)
            self._forget(arrival_ns)
            self._known.append(sender)
        else:
            lost = sequence - sender.sequence - 1
            sender.take(sequence, arrival_ns, stamp_ns, frame_id)
        if sender is not self._followed:
            if self._followed is not None and not (self._followed.is_gone(arrival_ns) or alone()):
                self.of_others += 1
                return False
            self._change_to(sender, arrival_ns)
            lost = 0
        if lost and self._forgiven:
            self._forgiven, lost = False, 0
        self.lost += lost
        return True

    def _sender(
        self, sequence: int, arrival_ns: int, stamp_ns: int, frame_id: bytes, alone: Callable[[], bool]
    ) -> _Publisher | None:
        """Which of those that are known sent a message; None: none of them."""
        message = sequence, arrival_ns, stamp_ns
        delay_ns = arrival_ns - stamp_ns
        possible = [
            known
            for known in self._known
            if known.may_have_sent(sequence, arrival_ns)
            and ((known.is_like(delay_ns, frame_id) and not known.is_far_sooner(*message)) or alone())
        ]
        fitting = [known for known in possible if known.fits(*message)]
        nearest = min((known.off_by(delay_ns) for known in fitting), default=0)
        fitting = [known for known in fitting if known.off_by(delay_ns) == nearest]
        newest = max((known.sequence for known in fitting), default=0)
        if sum(known.sequence == newest for known in fitting) > 1:
            self._mixed_ns = arrival_ns
        # Of two with the same number, the one that was silent longer.
        return max(fitting or possible, key=lambda known: (known.sequence, -known.arrival_ns), default=None)

    def _change_to(self, sender: _Publisher, now_ns: int) -> None:
        """Follow another publisher. Those that are gone do not come back: their numbers are of no use."""
        if self._followed is not None:
            self.changes += 1
            self._known = [k for k in self._known if k is sender or not k.is_gone(now_ns)]
        self._followed = sender

    def _forget(self, now_ns: int) -> None:
        """Forget all but the newest of those that sent something lately: stamps that jump look like many."""
        lately = [known for known in self._known if now_ns - known.arrival_ns < _FORGOTTEN_NS]
        others = [known for known in lately if known is not self._followed]
        self._known = [known for known in lately if known is self._followed] + others[-_MOST_OTHERS:]
