"""What a monitor tells its detector of SUCCESS in an episode, written down, and told to other detectors.

Written down is every score that some detector may want: those of frames that are due, and extra looks
(core/looks.py) at the newest frame whenever there may be one, whether a detector would wait for it or not. So
any detector can be asked afterwards when it would have fired, without a model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from functools import partial
from math import inf, nan

from topreward_ros.core.events import NewDetector, SuccessDetector, SuccessSettings
from topreward_ros.core.frames import NS_PER_S
from topreward_ros.core.looks import JITTER

#: `Told`, number of the detector, stamp [s], r and r_static [nat]. Of ANEW the third is the number of the
#: detector that is made. What does not apply is NaN.
Row = Sequence[float]


class Told(IntEnum):
    """What a detector was told."""

    DUE = 0  #: the score of a frame that was due
    EXTRA = 1  #: that of an extra look
    INTERRUPTED = 2  #: `SuccessDetector.interrupt`
    BROKEN_OFF = 3  #: `SuccessDetector.break_off`
    ANEW = 4  #: `SuccessDetector.anew`


class DetectorLog:
    """Writes down what the detectors of one episode are told."""

    def __init__(self, confirm_rate: float) -> None:
        """``confirm_rate`` [Hz]: at which they look, those that are due included."""
        self.told: list[Row] = []
        self.confirm_rate = confirm_rate
        self.extra = False  #: whether the score that comes next is one of an extra look
        self._detectors = 0

    @property
    def new_detector(self) -> NewDetector:
        """What makes the detectors, for a `TaskMonitor`."""
        return partial(_Recorder, self)

    def number(self) -> int:
        """The number of another detector."""
        self._detectors += 1
        return self._detectors - 1


class _Recorder(SuccessDetector):
    """Writes down what it is told, never fires, and always wants a look."""

    def __init__(self, log: DetectorLog, settings: SuccessSettings, period_s: float) -> None:
        super().__init__(settings, period_s)
        self._log = log
        self._number = log.number()

    @property
    def confirm_rate(self) -> float:
        return self._log.confirm_rate

    def add(self, stamp_ns: int, log_prob: float, log_prob_static: float = nan) -> bool:
        what = Told.EXTRA if self._log.extra else Told.DUE
        self._log.told.append((what, self._number, stamp_ns / NS_PER_S, log_prob, log_prob_static))
        return False

    def interrupt(self, why: str) -> None:
        self._log.told.append((Told.INTERRUPTED, self._number, nan, nan, nan))

    def break_off(self, why: str) -> None:
        self._log.told.append((Told.BROKEN_OFF, self._number, nan, nan, nan))

    def anew(self) -> SuccessDetector:
        other = _Recorder(self._log, self.settings, 0.0)
        self._log.told.append((Told.ANEW, self._number, other._number, nan, nan))
        return other


def fired_at(
    told: Iterable[Row], new_detector: NewDetector, settings: SuccessSettings, period_s: float
) -> float:
    """When [s] a detector announces success that is told the same; NaN: never.

    Of the extra looks it is told those that it wants. ``period_s``: see `SuccessDetector`.
    """
    detectors: dict[float, SuccessDetector] = {}
    looked_s = -inf
    for what, number, stamp_s, log_prob, log_prob_static in told:
        detector = detectors.get(number)
        if detector is None:  # the first one, or made when stamps were wrong: the episode begins anew
            detector = detectors[number] = new_detector(settings, period_s)
        if what == Told.INTERRUPTED:
            detector.interrupt("as recorded")
        elif what == Told.BROKEN_OFF:
            detector.break_off("as recorded")
        elif what == Told.ANEW:
            detectors[stamp_s] = detector.anew()
        else:
            if what == Told.EXTRA:
                rate = detector.confirm_rate
                if not (rate > 0.0 and stamp_s - looked_s >= (1.0 - JITTER) / rate):
                    continue
            looked_s = stamp_s
            if detector.add(round(stamp_s * NS_PER_S), log_prob, log_prob_static):
                return float(stamp_s)
    return nan
