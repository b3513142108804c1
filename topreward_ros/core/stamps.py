"""Which stamps of a camera can be believed: those in line, and a new time line once several agree on it.

A camera's driver may deliver images out of order, and may stamp a single image wrongly by seconds or hours.
Neither says anything about time. A bag that is played again, a clock that was set and a camera that paused
move every stamp that follows. The judgement goes by the sequence of stamps alone, so that bags at any rate,
simulated time, files and live cameras get the same one. What follows from it is decided in episode.py.
"""

from __future__ import annotations

from enum import Enum
from itertools import pairwise

from topreward_ros.core.frames import NS_PER_S, RecentIntervals

#: Stamps in a row that must agree before they are believed against those before them.
AGREEING = 3

# How far from the newest stamp another one may lie and still be in line, or out of order: so many of the
# camera's longer intervals, and at least so long. A stamp this far ahead is taken, so images that go back by
# no more than this may be the good ones behind a wrong one: both limits are one.
_REACH_INTERVALS = 4
_SHORTEST_REACH_NS = NS_PER_S // 2
_FIRST_REACH_NS = 2 * NS_PER_S  # for the second stamp: the camera may be slow
_LONGEST_FIRST_PAUSE_NS = 60 * NS_PER_S  # after a first stamp; one that lies farther back was wrong
_UNEVEN = 4  # gaps between stamps that agree on an earlier time differ by no more than this factor


class Judgement(Enum):
    """What a stamp says about its image."""

    IN_LINE = "in line"  #: later than the newest one by an ordinary interval: its image can be used
    OUT_OF_ORDER = "out of order"  #: a little earlier than the newest one, or the same: not used
    OUT_OF_LINE = "out of line"  #: far from the newest one, and nothing confirms it yet: not used
    WENT_BACK = "went back"  #: the last of several that agree on an earlier time: its image can be used
    JUMPED = "jumped"  #: the last of several that agree on a later time: its image can be used
    BEGAN_ANEW = "began anew"  #: as the two before, where only one stamp stands against them: that was wrong

    @property
    def usable(self) -> bool:
        """Whether the image can be used."""
        return self not in (Judgement.OUT_OF_ORDER, Judgement.OUT_OF_LINE)


class StampJudge:
    """Judges the stamps of one camera, in order of arrival.

    A stamp far from the newest good one is out of line, until `AGREEING` of them in a row increase (evenly,
    if they are earlier) and no good one comes in between. After a single stamp, two are enough. The very
    first stamp of a time line, when it comes again, may be that of a bag played again, however short.

    >>> judge = StampJudge()
    >>> [judge.judge(t * 100_000_000).value for t in (50, 51, 90, 52, 1, 53)]  # two are wrong
    ['in line', 'in line', 'out of line', 'in line', 'out of line', 'in line']
    >>> judge.out_of_line
    2
    >>> [judge.judge(t * 100_000_000).value for t in (0, 1, 2, 3)]  # a bag is played again
    ['out of line', 'out of line', 'went back', 'in line']
    """

    def __init__(self, interval_ns: int | None = None) -> None:
        """``interval_ns``: the interval of the camera's images, where it is known beforehand."""
        self.newest_ns: int | None = None  #: the newest stamp that could be believed
        self.moved_ns = 0  #: by how much time went back (< 0) or jumped (> 0) when it last did
        self.out_of_order = 0  #: images so far whose stamps were out of order or repeated
        self.out_of_line = 0  #: images so far whose stamps were out of line and that no others confirmed
        self._in_line = 0  # stamps of this time line so far
        self._start_ns = 0  # the first of them
        self._pause_ns = 0  # by which time jumped last
        self._intervals = RecentIntervals([interval_ns] if interval_ns else ())
        self._suspects: list[int] = []  # stamps out of line, in a row and increasing
        self._late_suspects = 0  # stamps a little earlier than the newest of them

    def restart(self) -> None:
        """Believe the next stamp, wherever it lies: whoever calls this has begun something new."""
        self._drop_suspects()
        self.newest_ns = None
        self._in_line = 0
        typical_ns = self._intervals.typical()  # a start for what comes, and no more
        self._intervals = RecentIntervals([] if typical_ns is None else [round(typical_ns)])

    def judge(self, stamp_ns: int) -> Judgement:
        """Judge the next stamp of the stream [ns]."""
        if self.newest_ns is None:
            return self._believe(stamp_ns)
        reach_ns = self._reach_ns()
        step_ns = stamp_ns - self.newest_ns
        if 0 < step_ns <= reach_ns:
            self._intervals.add(step_ns)
            return self._believe(stamp_ns)
        if self._suspects and stamp_ns > self._suspects[-1]:
            return self._suspect(stamp_ns, reach_ns)
        begins_again = stamp_ns == self._start_ns and step_ns < 0
        if -reach_ns <= step_ns <= 0 and not begins_again:
            self._drop_suspects()
            self.out_of_order += 1
            return Judgement.OUT_OF_ORDER
        if self._suspects and self._suspects[-1] - stamp_ns <= reach_ns:
            self._late_suspects += 1
            return Judgement.OUT_OF_LINE
        self._drop_suspects()
        self._suspects = [stamp_ns]
        return Judgement.OUT_OF_LINE

    def _suspect(self, stamp_ns: int, reach_ns: float) -> Judgement:
        """Add a stamp to those out of line, and look whether they agree."""
        self._suspects.append(stamp_ns)
        if self._suspects_agree(reach_ns):
            return self._move()
        self.out_of_line += len(self._suspects[:-AGREEING])
        self._suspects = self._suspects[-AGREEING:]
        return Judgement.OUT_OF_LINE

    @property
    def unsettled(self) -> bool:
        """Whether the newest stamps are out of line, and may yet be confirmed."""
        return bool(self._suspects)

    def settle(self) -> int | None:
        """The stream has ended: the newest stamp, if it lay ahead and only the end left it unconfirmed.

        It is believed then, because a file's last image may follow a long pause. Else None.
        """
        if not self._suspects or self.newest_ns is None or self._suspects[0] < self.newest_ns:
            return None
        self._move()
        return self.newest_ns

    def _believe(self, stamp_ns: int) -> Judgement:
        self._drop_suspects()
        if self.newest_ns is None:
            self._start_ns = stamp_ns
        self.newest_ns = stamp_ns
        self._in_line += 1
        return Judgement.IN_LINE

    def _reach_ns(self) -> float:
        shortest_ns = _FIRST_REACH_NS if self._in_line == 1 else _SHORTEST_REACH_NS
        return max(shortest_ns, _REACH_INTERVALS * self._intervals.longer())

    def _suspects_agree(self, reach_ns: float) -> bool:
        """Whether the newest suspects make a time line, and a better founded one than that in force."""
        assert self.newest_ns is not None
        newest = self._suspects[-AGREEING:]
        if len(newest) < min(AGREEING, self._in_line + 1):
            return False
        # Ahead, a camera may be slow or come in bursts, and no good stamp has contradicted them.
        if newest[0] > self.newest_ns or max(_gaps(newest)) <= reach_ns:
            return True
        gaps = _gaps(newest)  # slower than before: then regularity tells
        return len(newest) == AGREEING and max(gaps) <= _UNEVEN * min(gaps)

    def _move(self) -> Judgement:
        """Go over to the time line of the suspects."""
        assert self.newest_ns is not None
        believed = self._suspects[-AGREEING:]
        self.out_of_line += len(self._suspects) - len(believed)
        self.moved_ns = believed[0] - self.newest_ns
        if self.moved_ns < 0:
            self._start_ns = believed[0]
        self.newest_ns = believed[-1]
        in_line, self._in_line = self._in_line, len(believed)
        if gaps := _gaps(believed):  # the old intervals say nothing: the camera may have become slower
            self._intervals = RecentIntervals(gaps)
        if self.moved_ns > 0:
            if (
                self._pause_ns and in_line <= RecentIntervals.KEPT
            ):  # a single pause is not an interval, several are
                self._intervals.add(min(self._pause_ns, self.moved_ns))
            self._pause_ns = self.moved_ns
        self._suspects, self._late_suspects = [], 0
        pause_ns = max(_LONGEST_FIRST_PAUSE_NS, _UNEVEN * max(gaps, default=0))  # of a slow camera
        if in_line == 1 and not 0 < self.moved_ns <= pause_ns:
            self.out_of_line += 1
            self._start_ns = believed[0]
            return Judgement.BEGAN_ANEW
        return Judgement.WENT_BACK if self.moved_ns < 0 else Judgement.JUMPED

    def _drop_suspects(self) -> None:
        self.out_of_line += len(self._suspects) + self._late_suspects
        self._suspects, self._late_suspects = [], 0


class MissingStamps:
    """Decides when the time of arrival stands in for a stamp that is missing (zero or below).

    It does so for a camera that never stamps, and for one that has stopped to. A single image without a stamp
    among others that have one keeps its zero, which is out of line.

    >>> missing = MissingStamps()
    >>> [missing.filled(0, 70), missing.filled(71, 72), missing.filled(0, 73), missing.filled(74, 75)]
    [70, 71, 0, 74]
    """

    def __init__(self) -> None:
        self._missing = AGREEING  # images without a stamp in a row, up to `AGREEING`

    def filled(self, stamp_ns: int, arrival_ns: int) -> int:
        """``stamp_ns``, or ``arrival_ns`` where that is to stand in for it [ns]."""
        if stamp_ns > 0:
            self._missing = 0
            return stamp_ns
        self._missing = min(self._missing + 1, AGREEING)
        return arrival_ns if self._missing >= AGREEING else stamp_ns


def _gaps(stamps: list[int]) -> list[int]:
    return [later - earlier for earlier, later in pairwise(stamps)]
