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

# How far ahead of the newest stamp another one may lie and still be in line, and how far back and still be
# out of order: so many of the camera's longer intervals, and at least so long.
_REACH_INTERVALS = 4
_SHORTEST_REACH_NS = NS_PER_S // 2
_FIRST_REACH_NS = 2 * NS_PER_S  # ahead, while no interval is known: the camera may be slow
_LONGEST_LATENESS_NS = 2 * NS_PER_S  # back, for a camera whose stamps are that uneven
_ORDINARY_INTERVALS = 2  # a step of no more than so many longer intervals says nothing against its stamp
_LONGEST_FIRST_PAUSE_NS = 60 * NS_PER_S  # after a first stamp; one that lies farther back was wrong
_UNEVEN = 4  # gaps between stamps that agree on an earlier time differ by no more than this factor


class Judgement(Enum):
    """What a stamp says about its image."""

    IN_LINE = "in line"  #: later than the newest one by an ordinary interval: its image can be used
    OUT_OF_ORDER = "out of order"  #: a little earlier than the newest one, or the same: not used
    OUT_OF_LINE = "out of line"  #: far from the newest one, and nothing confirms it yet: not used
    WENT_BACK = "went back"  #: the last of several that agree on an earlier time: its image can be used
    JUMPED = "jumped"  #: the last of several that agree on a later time: its image can be used
    BEGAN_ANEW = "began anew"  #: as the two before; the one or two stamps that stood against them were wrong

    @property
    def usable(self) -> bool:
        """Whether the image can be used."""
        return self not in (Judgement.OUT_OF_ORDER, Judgement.OUT_OF_LINE)


class StampJudge:
    """Judges the stamps of one camera, in order of arrival.

    A stamp far from the newest good one is out of line, until `AGREEING` of them in a row increase (evenly,
    if they are earlier) and no good one comes in between. After a single stamp, two are enough, unless that
    one goes on from before `restart`. The very first stamp of a time line, when it comes again, may be that
    of a bag played again, however short.

    A stamp ahead by less than the reach is taken and may yet be wrong, and so may the next one ahead of it.
    So the way back is measured from the newest stamp that the ones before it bear out.

    >>> judge = StampJudge()
    >>> [judge.judge(t * 100_000_000).value for t in (50, 51, 90, 52, 1, 53)]  # two are wrong
    ['in line', 'in line', 'out of line', 'in line', 'out of line', 'in line']
    >>> judge.out_of_line
    2
    >>> [judge.judge(t * 100_000_000).value for t in (0, 1, 2, 3)]  # a bag is played again
    ['out of line', 'out of line', 'went back', 'in line']
    """

    def __init__(self, interval_ns: int | None = None) -> None:
        """``interval_ns``: between the frames of a file, whose first stamp cannot be wrong."""
        self.newest_ns: int | None = None  #: the newest stamp that could be believed
        self.moved_ns = 0  #: by how much time went back (< 0) or jumped (> 0) when it last did
        self.out_of_order = 0  #: images so far whose stamps were out of order or repeated
        self.out_of_line = 0  #: images so far whose stamps were out of line and that no others confirmed
        self._is_file = interval_ns is not None
        self._before_ns: int | None = None  # the newest stamp before the last restart, if it was well founded
        self._in_line = 0  # stamps of this time line so far
        self._start_ns = 0  # the first of them
        self._founded_ns = 0  # the newest of them that those before it bear out
        self._ordinary = 0  # ordinary steps in a row, up to the newest stamp
        self._pause_ns = 0  # by which time jumped last
        self._intervals = RecentIntervals([interval_ns] if interval_ns else ())
        self._lateness = RecentIntervals()  # how far behind the newest stamp the last images were
        self._suspects: list[int] = []  # stamps out of line, in a row and increasing
        self._late_suspects = 0  # stamps a little earlier than the newest of them

    def restart(self) -> None:
        """Believe the next stamp, wherever it lies: whoever calls this has begun something new."""
        self._drop_suspects()
        if self._in_line >= AGREEING:
            self._before_ns = self._founded_ns
        self.newest_ns = None
        self._in_line = 0
        typical_ns = self._intervals.typical()  # a start for what comes, and no more
        self._intervals = RecentIntervals([] if typical_ns is None else [round(typical_ns)])
        self._lateness = RecentIntervals()

    def judge(self, stamp_ns: int) -> Judgement:
        """Judge the next stamp of the stream [ns]."""
        if self.newest_ns is None:
            return self._begin(stamp_ns)
        step_ns = stamp_ns - self.newest_ns
        if 0 < step_ns <= self._reach_ns():
            return self._go_on(stamp_ns, step_ns)
        late = step_ns <= 0 and not self._is_earlier(stamp_ns)
        if self._suspects and stamp_ns > self._suspects[-1] and (not late or self._follows(stamp_ns)):
            return self._suspect(stamp_ns)
        if late:
            self._drop_suspects()
            self.out_of_order += 1
            self._lateness.add(-step_ns)
            return Judgement.OUT_OF_ORDER
        if self._suspects:
            if self._suspects[-1] - stamp_ns <= self._reach_ns():
                self._late_suspects += 1
                return Judgement.OUT_OF_LINE
            if stamp_ns <= 0:  # a missing stamp says nothing, not even against the suspects
                self.out_of_line += 1
                return Judgement.OUT_OF_LINE
        self._drop_suspects()
        self._suspects = [stamp_ns]
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
        self._move(self._suspects[-AGREEING:])
        return self.newest_ns

    def _begin(self, stamp_ns: int) -> Judgement:
        """Take the first stamp of all, or after a restart."""
        self.newest_ns = self._start_ns = self._founded_ns = stamp_ns
        self._in_line, self._ordinary = 1, 0
        return Judgement.IN_LINE

    def _go_on(self, stamp_ns: int, step_ns: int) -> Judgement:
        """Take a stamp in line, ``step_ns`` after the newest one."""
        self._drop_suspects()
        is_ordinary = step_ns <= _ORDINARY_INTERVALS * self._intervals.longer()
        self._ordinary = self._ordinary + 1 if is_ordinary else 0
        self._intervals.add(step_ns)
        self._lateness.add(0)
        self.newest_ns = stamp_ns
        self._in_line += 1
        if self._ordinary >= AGREEING - 1 or self._in_line < AGREEING:
            self._founded_ns = stamp_ns
        self._founded_ns = max(self._founded_ns, stamp_ns - _LONGEST_LATENESS_NS)
        return Judgement.IN_LINE

    def _reach_ns(self) -> float:
        """How far ahead of the newest stamp the next one may lie."""
        intervals_ns = self._intervals.longer()
        return max(_SHORTEST_REACH_NS if intervals_ns else _FIRST_REACH_NS, _REACH_INTERVALS * intervals_ns)

    def _is_earlier(self, stamp_ns: int) -> bool:
        """Whether a stamp that is not ahead lies so far back that it may be of an earlier time."""
        if stamp_ns == self._start_ns and stamp_ns != self.newest_ns:
            return True
        reach_ns: float = _SHORTEST_REACH_NS
        if self._in_line >= AGREEING:  # fewer have no standing of their own
            lateness_ns = min(2 * self._lateness.longer(), _LONGEST_LATENESS_NS)
            reach_ns = max(reach_ns, _REACH_INTERVALS * self._intervals.longer(), lateness_ns)
        return stamp_ns < self._founded_ns - reach_ns

    def _follows(self, stamp_ns: int) -> bool:
        """Whether a stamp that may be late and no more is a witness for the suspects: the next after them."""
        if self._suspects[0] == self._start_ns:
            return True
        return stamp_ns - self._suspects[-1] <= _ORDINARY_INTERVALS * (self._intervals.typical() or 0)

    def _goes_on_from_before(self, stamp_ns: int) -> bool:
        """Whether a stamp continues the time line that there was before the last restart."""
        if self._before_ns is None:
            return False
        return 0 < stamp_ns - self._before_ns <= max(_FIRST_REACH_NS, self._reach_ns())

    def _started_between(self, stamp_ns: int) -> bool:
        """Whether the time line in force goes on from before the last restart as well as a stamp does."""
        return self._before_ns is not None and self._before_ns < self._start_ns < stamp_ns

    def _suspect(self, stamp_ns: int) -> Judgement:
        """Add a stamp to those out of line, and go over to their time line if they agree."""
        self._suspects.append(stamp_ns)
        young = self._in_line < AGREEING and not self._goes_on_from_before(self._start_ns)
        for count in (self._in_line + 1 if young else AGREEING, AGREEING):
            newest = self._suspects[-count:]
            if len(newest) == count and self._agree(newest):
                return self._move(newest)
        self.out_of_line += len(self._suspects[:-AGREEING])
        self._suspects = self._suspects[-AGREEING:]
        return Judgement.OUT_OF_LINE

    def _agree(self, suspects: list[int]) -> bool:
        """Whether so many suspects make a time line."""
        assert self.newest_ns is not None
        # Ahead, a camera may be slow or come in bursts, and no good stamp has contradicted them.
        if suspects[0] > self.newest_ns:
            return True
        if not self._is_earlier(suspects[0]):
            return False
        gaps = _gaps(suspects)
        close_ns = (
            _REACH_INTERVALS * self._intervals.longer() if self._in_line >= AGREEING else self._reach_ns()
        )
        # The camera may be slower than before: then regularity tells.
        return max(gaps) <= close_ns or (len(gaps) >= AGREEING - 1 and max(gaps) <= _UNEVEN * min(gaps))

    def _move(self, suspects: list[int]) -> Judgement:
        """Go over to the time line of ``suspects``, the newest ones. Returns what that means."""
        assert self.newest_ns is not None
        self.out_of_line += len(self._suspects) - len(suspects)
        self.moved_ns = suspects[0] - self.newest_ns
        judgement = self._meaning(suspects)
        if judgement is Judgement.BEGAN_ANEW:
            self.out_of_line += self._in_line
        if gaps := _gaps(suspects):  # the old intervals say nothing: the camera may have become slower
            self._intervals = RecentIntervals(gaps)
        if self.moved_ns > 0:
            self._learn_pause()
        if judgement is not Judgement.JUMPED:
            self._start_ns = suspects[0]
        self.newest_ns = self._founded_ns = suspects[-1]
        self._in_line, self._ordinary = len(suspects), 0
        self._before_ns = None
        self._lateness = RecentIntervals()
        self._suspects, self._late_suspects = [], 0
        return judgement

    def _meaning(self, suspects: list[int]) -> Judgement:
        """What it means that ``suspects`` are believed, and not the time line in force."""
        went_back = self.moved_ns < 0
        if self._in_line < AGREEING:
            if self._goes_on_from_before(suspects[0]) and not self._started_between(suspects[0]):
                return Judgement.BEGAN_ANEW
            if went_back and suspects[0] > self._start_ns:  # only what came after the start was wrong
                return Judgement.BEGAN_ANEW
        pause_ns = max(_LONGEST_FIRST_PAUSE_NS, _UNEVEN * max(_gaps(suspects), default=0))  # of a slow camera
        if self._in_line == 1 and (went_back or (self.moved_ns > pause_ns and not self._is_file)):
            return Judgement.BEGAN_ANEW
        return Judgement.WENT_BACK if went_back else Judgement.JUMPED

    def _learn_pause(self) -> None:
        """Time has jumped: a single pause is not an interval, several are (a camera that comes in bursts)."""
        if self._pause_ns and self._in_line <= RecentIntervals.KEPT:
            self._intervals.add(min(self._pause_ns, self.moved_ns))
        self._pause_ns = self.moved_ns

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
