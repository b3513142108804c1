"""Which frames of a stream are scored: those that are due, and extra looks between them.

An extra look is the score of the newest frame behind the prefix of the frames that were due. It is a further
witness for the detector of SUCCESS and for nothing else: the frame is not kept, and there is no progress and
no reward of it. It is decided by stamps, and by the scores of all frames before: where one of them is not
there yet, nobody looks. So a recording gives the looks of the live monitor, where that scores in time.
"""

from __future__ import annotations

from enum import Enum
from math import inf

from topreward_ros.core.frames import NS_PER_S, FrameSchedule

JITTER = 0.05  #: of the period of extra looks, by which a frame may come early


class Look(Enum):
    """Why a frame is scored."""

    NONE = "none"  #: it is not
    DUE = "due"  #: the schedule takes it into the prefix
    EXTRA = "extra"  #: for the detector of SUCCESS alone


class LookSchedule:
    """Decides for each frame of a stream, in order of stamps, whether it is scored.

    >>> schedule = LookSchedule(2.0)
    >>> def look(ms):
    ...     seen = schedule.observe(ms * 1_000_000, confirm_rate=5.0)
    ...     if seen is not Look.NONE:
    ...         schedule.take(seen)
    ...         schedule.answered(ms * 1_000_000)
    ...     return seen.value
    >>> [look(ms) for ms in range(0, 800, 100)]  # a 10 Hz camera
    ['due', 'none', 'extra', 'none', 'extra', 'due', 'none', 'extra']
    """

    def __init__(self, sample_rate: float) -> None:
        """``sample_rate`` [Hz], > 0: at which frames are due."""
        self._sample_rate = sample_rate
        self._schedule = FrameSchedule(sample_rate)
        self._observed: tuple[int, int | None] = 0, None  # stamp and arrival of the newest frame [ns]
        self._due: tuple[int, int | None] = 0, None  # the same, of the newest one that was taken as due
        self._taken_ns: int | None = None  # stamp of the newest frame that was taken
        self._unanswered_ns: int | None = None  # the same, while it has no score
        self._holds = False  # until the next frame that is due, nobody looks

    def observe(self, stamp_ns: int, arrival_ns: int | None = None, *, confirm_rate: float = 0.0) -> Look:
        """Register the next frame of the stream, and say why it is to be scored. Stamps must increase.

        ``arrival_ns``: by any steady clock; None: frames do not arrive. ``confirm_rate`` [Hz]: at which the
        newest frame is looked at, those that are due included; up to the sample rate: only these are.
        """
        due = self._schedule.observe(stamp_ns)
        self._observed = stamp_ns, arrival_ns
        if due:
            return Look.DUE
        waits = self._unanswered_ns is not None or self._holds
        if confirm_rate <= self._sample_rate or self._taken_ns is None or waits:
            return Look.NONE
        earliest_ns = self._taken_ns + (1.0 - JITTER) * NS_PER_S / confirm_rate
        return Look.EXTRA if stamp_ns >= earliest_ns else Look.NONE

    def take(self, look: Look) -> None:
        """The frame that was observed last is scored."""
        self._taken_ns = self._unanswered_ns = self._observed[0]
        if look is Look.DUE:
            self._schedule.take()
            self._due, self._holds = self._observed, False

    def answered(self, stamp_ns: int) -> None:
        """The frame of this stamp has its score, or will have none."""
        if self._unanswered_ns is not None and stamp_ns >= self._unanswered_ns:
            self._unanswered_ns = None

    def hold(self) -> None:
        """Do not look again before a frame is due: an extra look had no answer."""
        self._holds = True

    def time_left_s(self) -> float:
        """For how long [s] a scorer may be busy with the frame that was observed last until the next one is
        due; infinite where frames do not arrive.

        By the pace of the stamps since the last frame that was due: a recording may be played fast. Time is
        never taken to pass more slowly than the stamps say.
        """
        (due_ns, due_arrival_ns), (stamp_ns, arrival_ns) = self._due, self._observed
        if arrival_ns is None or due_arrival_ns is None or stamp_ns <= due_ns:
            return inf
        pace = min(1.0, (arrival_ns - due_arrival_ns) / (stamp_ns - due_ns))
        return max(0.0, pace * (self._schedule.next_ns() - stamp_ns) / NS_PER_S)
