"""What the times of a video's packets say: what is lost, where another recording begins, how far it reaches.

Numbers alone, no FFmpeg: video_track.py hands them over. Times are in units of the track where none is given.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Sequence
from fractions import Fraction

#: A second recording in a file begins where the time goes back by more [s].
_BACKWARDS_S = 1.0
FOLLOWING = 8  #: packets by whose times it is known whether one time is wrong
_REMEMBERED = 256  # packets whose order is known, at least as many as a decoder may hold
_DEEPEST_ORDER = 16  # packets by which a code may decode a frame before others that are shown earlier
#: How much longer than others one frame may wait from its decoding to its turn [s].
_LONGEST_WAIT_S = 3600.0
LONGEST_DELAY = 64  #: packets, at least, that a decoder may take before it gives the frame of the first


class LostFrames:
    """Which frames of a recording never come, by the times [units of the track] of their packets.

    A decoder fails some packets before or after the frames that come next to the one that is lost, because
    it has threads and an order of its own: a failure tells that frames are lost, the times tell which.
    """

    def __init__(self, unit: Fraction | None) -> None:
        """``unit`` [s] of the times."""
        self._far = _BACKWARDS_S / unit if unit else float("inf")
        self._expected: set[int] = set()
        self._numbers: dict[int, int] = {}  # of the newest packets, by their times
        self._newest: int | None = None  # time of the newest frame
        self._failures = 0  # those whose frames are not known yet
        self._failed_at = 0  # count of packets at the newest of them
        self._failed_since: int | None = None  # time of the newest frame at the first of them
        self._shown: deque[tuple[int, int]] = deque(maxlen=_DEEPEST_ORDER)  # numbers and times of the newest
        self._passed: set[int] = set()  # times that were passed over without a failure since the key frame
        self._is_broken = False  # pictures are built on what is lost or damaged
        #: When the first frame was to be shown, once one came or all are lost.
        self.begin: int | None = None

    def expect(self, time: int, number: int) -> None:
        """A packet was read whose frame is to be shown at ``time``; ``number``: how many there were."""
        self._expected.add(time)
        self._numbers[time] = number
        if len(self._numbers) > _REMEMBERED:
            del self._numbers[next(iter(self._numbers))]

    def lose(self, times: Sequence[int], number: int) -> None:
        """Packets are missing whose frames were to be shown at ``times``."""
        for time in times:
            self.expect(time, number)
            self._is_broken = True

    def damage(self) -> None:
        """A damaged frame is shown, nobody knows when."""
        self._is_broken = True

    def fail(self, count: int) -> int:
        """Decoding failed after ``count`` packets. How many frames are lost behind the newest, if known."""
        self._is_broken = True
        if not self._expected:
            return 1
        if not self._failures:
            self._failed_since = self._newest
        self._failures += 1
        self._failed_at = count
        return 0

    def is_late(self, time: int | None) -> bool:
        """Whether a frame comes behind one that is shown later though it was decoded before, as behind a
        damage. Where no damage is known it must be far behind: there are files whose times are wrong."""
        if time is None or self._newest is None or time > self._newest:
            return False
        if not self._is_broken and not self._failures and time > self._newest - self._far:
            return False
        number, newest = self._numbers.get(time), self._numbers.get(self._newest)
        return number is None or newest is None or number <= newest + _DEEPEST_ORDER

    def late(self) -> tuple[int, int | None]:
        """A frame is late. How many were lost before of which no failure told, and the time of the first."""
        self._is_broken = True
        passed, self._passed = self._passed, set()
        return len(passed), min(passed, default=None)

    def before(self, time: int | None, is_key: bool, is_damaged: bool) -> tuple[int, int | None]:
        """A frame is shown at ``time``. How many are lost between it and the one before.

        And the time of the first frame that was shown before, and may be built on those or on this damaged
        one, as it was decoded behind them; None: there is no such frame.
        """
        lost, wrong = 0, [time] if is_damaged else []
        if is_key:
            self._passed.clear()
        if time is not None:
            missing = {one for one in self._behind_newest() if one < time}
            lost = self._settle(missing)
            wrong += missing if lost else ()
            self._expected.discard(time)
            if self._newest is None:
                self.begin = min([*missing, time]) if lost else time
            self._newest = time
        self._is_broken = is_damaged or (not is_key and (self._is_broken or lost > 0))
        first = min((self._numbers[one] for one in wrong if one in self._numbers), default=None)
        built = [at for number, at in self._shown if first is not None and number > first]
        if time is not None and time in self._numbers:
            self._shown.append((self._numbers[time], time))
        return lost, min(built, default=None)

    def overdue(self, count: int) -> tuple[int, int | None]:
        """How many failures no lost frame belongs to, long after the newest at ``count`` packets, and since
        when."""
        if not self._failures or count - self._failed_at <= LONGEST_DELAY:
            return 0, None
        failures, self._failures = self._failures, 0
        return failures, self._failed_since

    def rest(self) -> tuple[int, int | None]:
        """How many are lost behind the last frame, and failures that no lost frame belongs to; since when."""
        failures, missing = self._failures, self._settle(self._behind_newest())
        return max(missing, failures), self._failed_since if failures > missing else None

    def _behind_newest(self) -> set[int]:
        return {one for one in self._expected if self._newest is None or one > self._newest}

    def _settle(self, missing: set[int]) -> int:
        """How many of the frames that never came are lost by a damage; others have none to be shown."""
        self._expected -= missing
        if not self._failures and not self._is_broken:
            self._passed |= missing
            return 0
        self._failures = max(0, self._failures - len(missing))
        return len(missing)


class PacketClock:
    """Where the times of packets begin anew, with another recording, and which of them are wrong.

    The times of decoding rise through a recording, whatever is lost of it. Where one goes back, far or at a
    key frame, and the next goes on from there, another recording begins; one that goes back far alone, or
    lies far ahead of those that follow, is wrong. So is one at which a frame is shown, where that lies much
    farther ahead than that of the packet before, and beyond what is decoded next. A wait that is new is
    believed where two packets in a row have it.
    """

    def __init__(self, unit: Fraction | None) -> None:
        """``unit`` [s] of the times."""
        self._far = _BACKWARDS_S / unit if unit else float("inf")
        self._longest_wait = _LONGEST_WAIT_S / unit if unit else float("inf")
        self._newest: int | None = None
        self._wait: int | None = None  # from decoding to showing, as it was believed last
        self._doubted: int | None = None  # another one, of the packet before

    def note(self, shown: int, decoded: int, following: Sequence[int], is_key: bool) -> tuple[bool, bool]:
        """Whether the times of a packet are right, and whether a recording begins with it.

        ``following``: when those that come next are decoded.
        """
        newest = decoded if self._newest is None else self._newest
        is_far = decoded < newest - self._far
        is_back = is_far or (is_key and decoded < newest)
        begins = is_back and bool(following) and decoded <= following[0] < newest
        if begins:
            self._wait = self._doubted = None
        elif is_far or any(newest <= one < decoded - self._far for one in following):
            return False, False
        self._newest = decoded if begins else max(newest, decoded)
        return self._waits(shown - decoded, [one - decoded for one in following]), begins

    def _waits(self, wait: int, following: Sequence[int]) -> bool:
        """Whether a frame waits so long; ``following``: until when those that come next are decoded."""
        longer = self._longest_wait
        if len(following) == FOLLOWING:
            longer = min(longer, max(*following, 0) + self._far)
        known = [self._wait] if self._doubted is None else [self._wait, self._doubted]
        if all(one is not None and not -self._longest_wait <= wait - one <= longer for one in known):
            self._doubted = wait
            return False
        self._wait, self._doubted = wait, None
        return True


class Reach:
    """How far the packets of a track reach, without times that cannot be right.

    An MP4 states how long its packets are to be decoded, and for each how much later it is shown; the last
    ones may be shown long after the length that is stated.
    """

    def __init__(self, is_mp4: bool, unit: Fraction | None) -> None:
        """``unit`` [s] of the times."""
        self._is_mp4 = is_mp4
        self._unit = unit or Fraction(0)
        self._first: int | None = None
        self._ends = array("q")

    @property
    def is_known(self) -> bool:
        return self._first is not None

    def note(self, shown: int, decoded: int | None, length: int) -> None:
        """Note a packet by its times, which are believed."""
        time = decoded if self._is_mp4 and decoded is not None else shown
        self._first = time if self._first is None else min(self._first, time)
        self._ends.append(time + length)

    def seconds(self, start: int, limit_s: float) -> tuple[float, int]:
        """From ``start``, or from the first packet if that is earlier, to the end of the last one [s].

        Packets of an MP4 that end after more than ``limit_s`` are left out, and counted.
        """
        assert self._first is not None
        limit = self._first + limit_s / self._unit if self._is_mp4 and self._unit else float("inf")
        near = [end for end in self._ends if end <= limit]
        first = min(self._first, start)
        return float((max(near, default=first) - first) * self._unit), len(self._ends) - len(near)
