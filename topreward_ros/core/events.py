"""The types of events, and the detector that decides when an episode has succeeded.

The detector is a threshold on the score with smoothing, hysteresis, dwell, arming and a latch. Each of these
answers a known failure of a bare threshold: one noisy score (smoothing, dwell), a sub-goal that looks like
the goal for a moment (dwell), a score that hovers at the threshold (hysteresis), a scene that already looks
finished at reset (arming), a SUCCESS that fires twice (latch). When the other events fire is decided in
episode.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from math import isfinite, nan

from topreward_ros.core.frames import NS_PER_S


class EventType(IntEnum):
    """What happened; the values are those of TaskEvent.msg."""

    EPISODE_STARTED = 0
    SUCCESS = 1
    FAILURE = 2
    STALL = 3
    REGRESSION = 4
    TIMEOUT = 5
    STALE_IMAGES = 6
    FROZEN_IMAGES = 7
    ABORTED = 8
    EPISODE_ENDED = 9
    SCORER_ERROR = 10


@dataclass(frozen=True, slots=True)
class SuccessSettings:
    """When a task counts as done."""

    threshold: float  #: [nat], <= 0, on the smoothed log-probability; 0 never fires
    hysteresis: float  #: [nat], >= 0: see `lower_threshold`
    dwell: float  #: [s], >= 0: how long the smoothed score must stay up
    min_scores: int  #: >= 1 scores that must have come while it stayed up
    smoothing: int  #: span of the exponential moving average in scores; 1: none

    @property
    def lower_threshold(self) -> float:
        """[nat] A smoothed score below it arms the detector and ends a dwell in progress."""
        return self.threshold - self.hysteresis


class SuccessDetector:
    """Fires once per episode, on the scores of that episode in order of their stamps.

    >>> detector = SuccessDetector(SuccessSettings(-0.2, 0.5, dwell=1.0, min_scores=2, smoothing=1))
    >>> [detector.add(k * NS_PER_S, r) for k, r in enumerate([-3.0, -0.1, -0.1, -0.1])]
    [False, False, True, False]
    """

    def __init__(self, settings: SuccessSettings) -> None:
        self.settings = settings  #: may be replaced at any time; takes effect with the next score
        self.smoothed = nan  #: [nat] moving average of the scores so far
        self.armed = False  #: the smoothed score has been below the lower threshold
        self.fired = False
        self._up_since_ns: int | None = None
        self._up_scores = 0

    def add(self, stamp_ns: int, log_prob: float) -> bool:
        """Take the next score (stamp in ns, score in nats); True at the one moment of success."""
        if not isfinite(log_prob):
            return False
        settings = self.settings
        weight = 2.0 / (settings.smoothing + 1.0) if isfinite(self.smoothed) else 1.0
        self.smoothed = log_prob if weight == 1.0 else self.smoothed + weight * (log_prob - self.smoothed)

        if self.smoothed < settings.lower_threshold:
            self.armed = True
            self._up_since_ns = None
            return False
        is_up = self.smoothed >= settings.threshold and settings.threshold < 0.0
        if not self.armed or self.fired or (self._up_since_ns is None and not is_up):
            return False
        if self._up_since_ns is None:
            self._up_since_ns, self._up_scores = stamp_ns, 0
        self._up_scores += is_up
        held_s = (stamp_ns - self._up_since_ns) / NS_PER_S
        self.fired = is_up and held_s >= settings.dwell and self._up_scores >= settings.min_scores
        return self.fired
