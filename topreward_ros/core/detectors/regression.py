"""REGRESSION: progress fell back, by more than it flickers, and stays there.

A one-sided CUSUM (Page, 1954) of the steps by which progress falls: from score to score, S grows by the fall
less k = 0.5 sigma, and is never below 0; above h = 5 sigma there is a fall. Small steps add up, flicker
cancels out. Scores that come faster than every 0.5 s share that k by their time, because a fall is shared by
as many steps: else every slow fall would be flicker at a high rate.

The steps are those of the square root of progress. What progress flickers by grows with the progress itself
(measured: bench/RESULTS.md), and the root makes that about the same everywhere: a fall from 0.05 to 0.02
counts as much as one from 0.5 to 0.41. So one sigma holds at any level.

A fall must last: an arm that passes before the object hides what was done for a second or two.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, sqrt

from topreward_ros.core.detectors.sample import Finding, Sample
from topreward_ros.core.events import EventType
from topreward_ros.core.frames import NS_PER_S

SLACK = 0.5  #: k [sigma]: falls smaller than this from score to score are flicker
SLACK_PERIOD = 0.5  #: [s] between two scores, from which on they have all of that slack
LIMIT = 5.0  #: h [sigma]: a sum above this is a fall


@dataclass(frozen=True, slots=True)
class RegressionSettings:
    """When progress counts as fallen back."""

    sigma: float  #: standard deviation of the steps of sqrt(progress) while nothing happens; 0: never fires
    dwell: float  #: [s] for which a fall must last


class RegressionDetector:
    """Fires once per fall; the next fall is looked for once progress has risen by as much as makes a fall.

    A score without progress says nothing: what it was before is compared with what it is afterwards. Of a
    pause between two scores half of the dwell counts at most: nobody saw that it lasted.

    >>> detector = RegressionDetector(RegressionSettings(sigma=0.02, dwell=1.0))
    >>> rises_and_falls = [0.0, 0.2, 0.4, 0.39, 0.4, 0.2, 0.1, 0.1, 0.1]
    >>> found = [detector.update(Sample(k * 10**9 // 2, k / 2, p)) for k, p in enumerate(rises_and_falls)]
    >>> [k for k, finding in enumerate(found) if finding]
    [7]
    """

    def __init__(self, settings: RegressionSettings) -> None:
        self.settings = settings  #: may be replaced at any time, and act at the next score
        self.begin_anew()

    def begin_anew(self) -> None:
        """Progress counts from another start now."""
        self._before: float | None = None  # sqrt of the last known progress
        self._before_ns = 0  # its stamp
        self._sum = 0.0
        self._peak = 0.0  # sqrt of progress from which it fell
        self._low_s: float | None = None  # for how long the sum has been above its limit; None: it is not
        self._lowest: float | None = None  # sqrt of progress since the event; None: there was none

    def update(self, sample: Sample) -> Finding | None:
        """Take the next score."""
        if not self.settings.sigma > 0.0:
            self.begin_anew()  # what falls while it is off is none of a later fall
            return None
        if not isfinite(sample.progress):
            return None
        root, sigma = sqrt(max(sample.progress, 0.0)), self.settings.sigma
        before, self._before = self._before, root
        step_s, self._before_ns = (sample.stamp_ns - self._before_ns) / NS_PER_S, sample.stamp_ns
        if self._lowest is not None and not self._has_recovered(root, LIMIT * sigma):
            return None
        if before is None:
            return None
        if self._sum == 0.0:
            self._peak = before
        self._sum = max(0.0, self._sum + (before - root) - SLACK * sigma * min(1.0, step_s / SLACK_PERIOD))
        if self._sum <= LIMIT * sigma:
            self._low_s = None
            return None
        if self._low_s is None:
            self._low_s = 0.0
        else:
            self._low_s += min(step_s, self.settings.dwell / 2)
        if self._low_s < self.settings.dwell - 1e-6:  # of a sum of many steps the last bits are lost
            return None
        return self._fallen(sample, root)

    def _has_recovered(self, root: float, by: float) -> bool:
        """Whether progress has risen again since the event, so that it can fall anew."""
        assert self._lowest is not None
        self._lowest = min(self._lowest, root)
        if root - self._lowest <= by:
            return False
        self._lowest = None
        return True

    def _fallen(self, sample: Sample, root: float) -> Finding:
        held_s = self._low_s
        fall, limit = self._sum, LIMIT * self.settings.sigma
        peak = self._peak**2
        self._sum, self._low_s, self._lowest = 0.0, None, root
        return Finding(
            EventType.REGRESSION,
            f"{sample.what} fell from {peak:.3f} to {sample.progress:.3f} and stayed "
            f"there for {held_s:.1f} s: a sum of falls of {fall:.3f} above {limit:.3f} = {LIMIT:g} "
            "regression_sigma, in square roots of progress",
            limit,
        )
