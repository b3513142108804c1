"""Which messages of a monitor count: not those that are too old or overtaken. Whether it is another process.

Ages go by the steady clock. The time for which this process was stopped is no age: it could hear nothing
then. Stamps of publication only tell what overtook what, where the steady clock agrees. An event that is
played from a bag is no restart of the monitor.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from topreward_ros.core.events import EventType
from topreward_ros.core.frames import NS_PER_S
from topreward_ros.core.retry_words import Heard, Moment, Seen

_STOPPED_NS = NS_PER_S  # without a tick: this process was stopped
_CATCH_UP_NS = NS_PER_S // 2  # after that, to hear what came meanwhile
_LATE_NS = 5 * NS_PER_S  # the most by which a message is overtaken
_AGREED_NS = NS_PER_S // 2  # between the clocks, where one message has overtaken another
_MOST_KNOWN = 1000  # events that are remembered


@dataclass(slots=True)
class _Newest:
    """The newest message of a kind, by its publication."""

    published_ns: int = 0  # by the publisher's clock
    steady_ns: int = 0  # the same moment, by ours

    def passes(self, published_ns: int, age_s: float, now: Moment) -> bool:
        """Whether this message is not older than the newest, which it is from then on.

        It is older where both clocks say so. Where they do not, the publisher's clock was set, or there is
        another publisher: then the message is the newest, because it is the last that came.
        """
        steady_ns = now.steady_ns - round(age_s * NS_PER_S)
        behind_ns = self.published_ns - published_ns
        is_explained = abs(behind_ns - (self.steady_ns - steady_ns)) <= _AGREED_NS
        if 0 < behind_ns <= _LATE_NS and is_explained:
            return False
        self.published_ns, self.steady_ns = published_ns, steady_ns
        return True


class Hearing:
    """What one supervisor has heard so far, as far as it says which message counts."""

    def __init__(self) -> None:
        self.is_anew = False  #: whether the monitor seems to be another process
        self._newest_event = _Newest()
        self._newest_report = _Newest()
        self._highest = 0  # sequence number of the monitor
        self._known: dict[int, tuple[str, EventType]] = {}  # episode and type of the newest events, by number
        self._publishers: frozenset[str] = frozenset()
        self._ticked_ns: int | None = None
        self._stops: deque[tuple[int, int]] = deque(maxlen=100)  # from when until when this process stopped
        self._catches_up_until_ns = 0

    def is_old(self, age_s: float, max_age_s: float, now: Moment) -> bool:
        """Whether a message of ``age_s`` is too old to count, not counting while this process was stopped."""
        ticked_ns = now.steady_ns if self._ticked_ns is None else self._ticked_ns
        stops = [*self._stops]
        if now.steady_ns - ticked_ns > _STOPPED_NS:  # it goes on, and no tick has said so yet
            stops.append((ticked_ns, now.steady_ns))
        published_ns = now.steady_ns - round(age_s * NS_PER_S)
        stopped_ns = sum(max(0, end - max(begin, published_ns)) for begin, end in stops)
        return age_s - stopped_ns / NS_PER_S > max_age_s

    def is_overtaken(self, report: Seen, now: Moment) -> bool:
        """Whether a report, which is not old, was published before one that was here already."""
        published_ns = report.published_ns
        return published_ns > 0 and not self._newest_report.passes(published_ns, report.age_s, now)

    def follow(self, event: Heard, now: Moment, *, is_old: bool) -> None:
        """Notice where the monitor's numbers begin anew, which may mean that it is another process."""
        key = (event.episode_id, event.type)
        known = self._known.get(event.sequence)
        stamped = event.published_ns > 0 and event.published_ns != self._newest_event.published_ns
        is_newest = stamped and not is_old and self._newest_event.passes(event.published_ns, event.age_s, now)
        if known == key:
            return
        if event.sequence > self._highest:
            self._highest = event.sequence
        elif is_newest or known is not None:
            self.is_anew = True
            self._known.clear()
            self._highest = event.sequence
        self._known[event.sequence] = key
        while len(self._known) > _MOST_KNOWN:
            del self._known[next(iter(self._known))]

    def follow_publishers(self, identities: frozenset[str]) -> None:
        """Take who publishes events at present, by any name that no other publisher ever has."""
        if self._publishers and identities - self._publishers:
            self.is_anew = True
        self._publishers |= identities

    def tick(self, now: Moment) -> int:
        """Take that time has passed; for how long this process was stopped [ns], 0 where it was not."""
        since_ns = 0 if self._ticked_ns is None else now.steady_ns - self._ticked_ns
        self._ticked_ns = now.steady_ns
        if since_ns <= _STOPPED_NS:
            return 0
        begin_ns = now.steady_ns - since_ns
        is_always_late = bool(self._stops) and self._stops[-1][1] == begin_ns
        if not is_always_late:  # else what does not come would never be noticed
            self._catches_up_until_ns = now.steady_ns + _CATCH_UP_NS
        self._stops.append((begin_ns, now.steady_ns))
        return since_ns

    def has_caught_up(self, now: Moment) -> bool:
        """Whether what was sent while this process was stopped has had the time to be heard."""
        return now.steady_ns >= self._catches_up_until_ns
