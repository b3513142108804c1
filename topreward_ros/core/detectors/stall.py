"""STALL: progress has not risen for a while, and does not rise now.

Both are asked, because each alone is wrong: a robot that dropped something and picks it up again makes no new
best for long, and yet goes on; one that waits for two seconds before it grasps has no slope, and yet is at
work. A robot that has not begun is stalled as well, once it has not begun for as long.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import islice
from math import isfinite

import numpy as np

from topreward_ros.core.detectors.sample import Finding, Sample
from topreward_ros.core.events import EventType
from topreward_ros.core.frames import NS_PER_S

#: Share of the nominal duration of the task for which progress may stand still.
SHARE_OF_NOMINAL = 0.25
_FEWEST = 3  # scores: of a pause between two of them no more than this share of the patience counts
_MOST_KEPT = 256  # scores of the slope's window; a longer one is thinned


@dataclass(frozen=True, slots=True)
class StallSettings:
    """When an episode counts as stalled."""

    after: float  #: [s] without a new best, at least; 0: never
    rise: float  #: of progress above the best so far, that makes a new best; flicker and drift make less
    slope: float  #: [1/s] rise of progress, from which on it goes on
    nominal_duration: float  #: [s] that a success of this task usually takes; 0: not known

    @property
    def patience(self) -> float:
        """[s] For so long progress may make no new best."""
        return max(self.after, SHARE_OF_NOMINAL * self.nominal_duration)


class StallDetector:
    """Fires when progress stands still, and again when it does after it went on; `stalled` in between.

    Progress goes on by a new best, or by a slope over the last `patience` seconds; what it had reached before
    counts no more then. A score without progress says nothing. Of a pause between two scores a third of the
    patience counts at most: nobody saw what happened meanwhile.

    >>> detector = StallDetector(StallSettings(after=10.0, rise=0.05, slope=0.02, nominal_duration=0.0))
    >>> found = [detector.update(Sample(k * 10**9, k, min(0.1 * k, 0.5))) for k in range(16)]
    >>> [k for k, finding in enumerate(found) if finding], detector.stalled
    ([15], True)
    >>> detector.update(Sample(16 * 10**9, 16, 0.6)), detector.stalled
    (None, False)
    """

    def __init__(self, settings: StallSettings) -> None:
        self.settings = settings  #: may be replaced at any time, and act at the next score
        self.stalled = False
        self._window: deque[tuple[int, float]] = deque()  # stamps and progress of the last scores
        self._best: float | None = None  # None: there was no score yet
        self._newest_ns = 0
        self._stood_ns = 0  # since the best; whole numbers, as sums of seconds come short by their last bits

    def update(self, sample: Sample) -> Finding | None:
        """Take the next score."""
        if not isfinite(sample.progress):
            return None
        patience = self.settings.patience
        self._keep(sample, patience)
        step_ns, self._newest_ns = sample.stamp_ns - self._newest_ns, sample.stamp_ns
        if self._best is None or sample.progress > self._best + self.settings.rise:
            self._go_on(sample)
            return None
        self._stood_ns += min(step_ns, round(patience / _FEWEST * NS_PER_S))
        if not self.settings.after:
            if self.stalled:
                self._go_on(sample)
            return None
        if not self.stalled and self._stood_ns < round(patience * NS_PER_S):
            return None
        slope = _slope(self._window)
        if slope >= self.settings.slope:
            if self.stalled:
                self._go_on(sample)
            return None
        if self.stalled:
            return None
        self.stalled = True
        return Finding(
            EventType.STALL,
            f"{sample.what} is {sample.progress:.3f} and has not risen by stall_rise "
            f"= {self.settings.rise:g} above {self._best:.3f} for {self._stood_ns / NS_PER_S:.1f} s, "
            f"{self._limit_text()}; it rises by "
            f"{slope:.3f} /s (stall_slope = {self.settings.slope:g} /s)",
            patience,
        )

    def begin_anew(self) -> None:
        """Progress counts from another start now."""
        self.stalled, self._best = False, None
        self._window.clear()

    def _go_on(self, sample: Sample) -> None:
        self.stalled = False
        self._best, self._stood_ns = sample.progress, 0

    def _keep(self, sample: Sample, patience: float) -> None:
        if len(self._window) == _MOST_KEPT:
            self._window = deque(islice(self._window, 0, None, 2))
        self._window.append((sample.stamp_ns, sample.progress))
        while (sample.stamp_ns - self._window[0][0]) / NS_PER_S > patience:
            self._window.popleft()

    def _limit_text(self) -> str:
        settings = self.settings
        if settings.patience > settings.after:
            return f"a quarter of nominal_duration = {settings.nominal_duration:g} s"
        return f"stall_after = {settings.after:g} s"


def _slope(window: deque[tuple[int, float]]) -> float:
    """By how much progress rises in a second: the slope of the line of least squares through the window, or
    the median of the slopes between any two of its points (Theil and Sen), whichever is more; 0 where it has
    too few points.

    The line sees a step wherever it is; the median does not see the few points of before a sudden drop.

    >>> _slope(deque([(0, 0.0), (10**9, 0.1), (2 * 10**9, 0.2)]))
    0.1
    >>> _slope(deque([(0, 0.9), (10**9, 0.0), (2 * 10**9, 0.1), (3 * 10**9, 0.2), (4 * 10**9, 0.3)]))
    0.1
    """
    if len(window) < _FEWEST:
        return 0.0
    times = np.array([(stamp_ns - window[-1][0]) / NS_PER_S for stamp_ns, _ in window])
    progress = np.array([progress for _, progress in window])
    from_middle = times - times.mean()
    spread = float(from_middle @ from_middle)
    if not spread > 0.0:
        return 0.0
    line = float(from_middle @ (progress - progress.mean())) / spread
    earlier, later = np.triu_indices(len(window), 1)
    steps_s = times[later] - times[earlier]
    apart = steps_s > 0.0
    slopes = (progress[later] - progress[earlier])[apart] / steps_s[apart]
    return round(max(line, float(np.median(slopes))), 9)  # the last bits depend on the processor
