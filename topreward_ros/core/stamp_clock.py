"""The clock that stamps belong to: does it run, and do stamps fit it? It is told the time and reads no clock.

With simulated time it is /clock, which may be absent (then it says 0), or stand still. Latencies mean
nothing then, and neither do they where stamps lie in the future. Which images are used does not depend on it.
"""

from __future__ import annotations

from datetime import datetime, timezone
from enum import Enum

from topreward_ros.core.frames import NS_PER_S

_STANDS_AFTER_NS = 2 * NS_PER_S
_FUTURE_NS = NS_PER_S  # worth a warning; clocks of two computers differ by less
_PAST_NS = 3600 * NS_PER_S  # no camera is as late


class Fault(Enum):
    """What may be wrong with a clock or with stamps."""

    ABSENT = (
        "use_sim_time is set, but no time comes on /clock: start the simulator or `ros2 bag play --clock`"
    )
    STANDS = "the time on /clock stands still: latencies cannot be told, images are watched all the same"
    FUTURE = (
        "image stamps lie {age} in the future, at {stamp}: the clocks differ, or use_sim_time does; "
        "latencies cannot be told"
    )
    PAST = (
        "image stamps lie {age} in the past, at {stamp}, and so latencies say nothing: the camera's "
        "driver has no clock, or a bag is played without `--clock` and use_sim_time"
    )

    def text(self, stamp_ns: int | None, now_ns: int) -> str:
        """What to say of a newest stamp at a time."""
        stamp_ns = stamp_ns or 0
        age = f"{abs(now_ns - stamp_ns) / NS_PER_S:.1f} s"
        return self.value.format(age=age, stamp=utc_text(stamp_ns))


def utc_text(time_ns: int) -> str:
    """A point in time [ns since 1970], for a human.

    >>> utc_text(1_700_000_000 * NS_PER_S)
    '2023-11-14 22:13:20 UTC'
    """
    return f"{datetime.fromtimestamp(time_ns // NS_PER_S, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


class StampClock:
    """Follows a clock, looked at from time to time."""

    def __init__(self) -> None:
        self._time_ns = 0
        self._moved_ns: int | None = None  # steady time at which it was seen to have moved
        self._paused_ns = 0  # for how long it stood, in pauses that are over and were not asked for yet

    def look(self, time_ns: int, steady_ns: int) -> int:
        """Take what the clock says, at ``steady_ns`` of one that never stops. Returns the same, or 0 where
        that is no time: before the first, and while the clock stands.

        >>> clock, looks = StampClock(), ((0, 0), (7, 1), (7, 2), (7, 4), (8, 5))
        >>> [clock.look(time_ns, steady_s * NS_PER_S) for time_ns, steady_s in looks]
        [0, 7, 7, 0, 8]
        """
        if self._moved_ns is None:
            self._time_ns, self._moved_ns = time_ns, steady_ns
        elif time_ns != self._time_ns:
            if (stood_ns := steady_ns - self._moved_ns) > _STANDS_AFTER_NS:
                self._paused_ns += max(0, stood_ns - max(0, time_ns - self._time_ns))
            self._time_ns, self._moved_ns = time_ns, steady_ns
        return 0 if steady_ns - self._moved_ns > _STANDS_AFTER_NS else time_ns

    def pauses(self, time_ns: int, steady_ns: int) -> tuple[int, int]:
        """For how long [ns] the clock stood since the last call, in pauses that are over, and for how long it
        has been standing. One that goes in steps, however slow, makes no pause by that.

        >>> clock, looks = StampClock(), ((7, 0), (7, 1), (7, 4), (8, 5), (8, 6))
        >>> steps = [clock.pauses(time_s * NS_PER_S, steady_s * NS_PER_S) for time_s, steady_s in looks]
        >>> [(over_ns // NS_PER_S, stands_ns // NS_PER_S) for over_ns, stands_ns in steps]
        [(0, 0), (0, 0), (0, 4), (4, 0), (0, 0)]
        """
        self.look(time_ns, steady_ns)
        assert self._moved_ns is not None
        over_ns, self._paused_ns = self._paused_ns, 0
        stood_ns = steady_ns - self._moved_ns
        return over_ns, stood_ns if stood_ns > _STANDS_AFTER_NS else 0

    def fault(self, stamp_ns: int | None, time_ns: int, steady_ns: int, silent_ns: int = 0) -> Fault | None:
        """What is wrong, with the newest stamp of an image or with the clock; None: nothing.

        ``silent_ns``: for how long no image has come. A stamp that is old by that is not wrong.
        """
        now_ns = self.look(time_ns, steady_ns)
        if time_ns == 0:
            return Fault.ABSENT
        if now_ns == 0:
            return Fault.STANDS
        if stamp_ns is None:
            return None
        if stamp_ns - now_ns > _FUTURE_NS:
            return Fault.FUTURE
        return Fault.PAST if now_ns - silent_ns - stamp_ns > _PAST_NS else None
