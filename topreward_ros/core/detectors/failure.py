"""FAILURE: an episode in which the task will not be done as things are.

A low score alone never says so: the same score is low because the robot has only begun, because the task
reads low, or because the camera sees little of it. So there are two ways, and none of them is on by itself:

- the *conformal band* of a calibration: how low the progress of successful runs was at each age of their
  episode. The band is simultaneous: a share `alpha` of successful runs leaves it anywhere at all, so that
  one score below it is enough;
- a rule of the user's own: progress stays below `threshold` for `dwell`, not before `after`.

How a band is fitted is none of this module's business (core/calibration).
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from math import inf, isfinite

from topreward_ros.core.detectors.sample import Finding, Sample
from topreward_ros.core.events import EventType
from topreward_ros.core.frames import NS_PER_S

#: Share of the successful runs that may leave a band.
ALPHA = 0.05
#: Scores below the threshold that the rule needs during its dwell: never one alone, nor two around a pause.
_FEWEST = 3


def fewest_successes(alpha: float = ALPHA) -> int:
    """How many successful runs a band needs at least: with fewer, no run could be called out of the ordinary.

    With n runs, a new one is the lowest of all n + 1 with a probability of 1 / (n + 1).

    >>> fewest_successes(0.05)
    19
    """
    runs = 1
    while (runs + 1) * alpha < 1.0 - 1e-9:
        runs += 1
    return runs


@dataclass(frozen=True, slots=True)
class ConformalBand:
    """How low the progress of successful runs was at each age of their episode.

    ``lower`` is given at ``seconds`` and holds on straight lines between them. Before the first and after the
    last of them it says nothing: a run that takes longer than any success did is the timeout's business.

    >>> band = ConformalBand((0.0, 10.0), (0.0, 0.5), successes=20)
    >>> band.at(5.0), band.at(11.0)
    (0.25, -inf)
    """

    seconds: tuple[float, ...]  #: [s] ages of the episode, ascending, from 0 on
    lower: tuple[float, ...]  #: progress of the stage, [0, 1]; -inf where the band says nothing
    successes: int  #: runs that it was fitted to
    alpha: float = ALPHA  #: share of successful runs that leave it

    def __post_init__(self) -> None:
        """Raises ValueError where it is none."""
        if len(self.seconds) != len(self.lower) or len(self.seconds) < 2:
            raise ValueError(
                f"a band needs as many values as seconds, two at least, and has {len(self.lower)} "
                f"and {len(self.seconds)}"
            )
        if not all(isfinite(second) and second >= 0.0 for second in self.seconds) or any(
            later <= earlier for earlier, later in pairwise(self.seconds)
        ):
            raise ValueError("the seconds of a band must ascend, from 0 or later")
        if not all(low == -inf or 0.0 <= low <= 1.0 for low in self.lower):
            raise ValueError("the lower edge of a band must lie between 0 and 1, or be -inf")
        if not 0.0 < self.alpha < 1.0:
            raise ValueError(f"alpha = {self.alpha:g}: must lie between 0 and 1")
        if self.successes < (fewest := fewest_successes(self.alpha)):
            raise ValueError(
                f"a band at alpha = {self.alpha:g} needs {fewest} successful runs, and has {self.successes}"
            )

    def at(self, elapsed_s: float) -> float:
        """The lower edge at an age of the episode [s]; -inf where the band says nothing."""
        if not self.seconds[0] <= elapsed_s <= self.seconds[-1]:
            return -inf
        right = min(bisect_right(self.seconds, elapsed_s), len(self.seconds) - 1)
        left = right - 1
        share = (elapsed_s - self.seconds[left]) / (self.seconds[right] - self.seconds[left])
        below, above = self.lower[left], self.lower[right]
        if -inf in (below, above):
            return -inf if share not in (0.0, 1.0) else (below, above)[round(share)]
        return below + share * (above - below)


@dataclass(frozen=True, slots=True)
class FailureSettings:
    """When an episode counts as failed."""

    threshold: float  #: [0, 1] progress of the user's own rule; 0: there is none
    after: float  #: [s] since the episode began, or its last cut, before which the rule says nothing
    dwell: float  #: [s] for which progress must stay below the threshold
    band: ConformalBand | None = None  #: of the successful runs of a calibration


class FailureDetector:
    """Fires once, at the first score that is below the band, or that ends the dwell of the rule.

    A score without progress says nothing, and begins the dwell anew. Of a pause between two scores half of
    the dwell counts at most: nobody saw what happened meanwhile.

    >>> detector = FailureDetector(FailureSettings(threshold=0.2, after=10.0, dwell=2.0))
    >>> found = [detector.update(Sample(k * 10**9, k, 0.1)) for k in range(11)]
    >>> [k for k, finding in enumerate(found) if finding]
    [10]
    """

    def __init__(self, settings: FailureSettings) -> None:
        self._settings = settings
        self._low_at_ns: int | None = None  # stamp of the last score, where it was below the threshold
        self._low_s = 0.0  # for so long scores were below it
        self._low_scores = 0
        self._began_s: float | None = 0.0  # age of the episode at its last cut; None: at the next score
        self._band_holds = True
        self.fired = False

    @property
    def settings(self) -> FailureSettings:
        """In force. They may be replaced at any time, and take effect with the next score; another threshold
        begins the dwell anew."""
        return self._settings

    @settings.setter
    def settings(self, settings: FailureSettings) -> None:
        if settings.threshold != self._settings.threshold:
            self._low_at_ns = None
        self._settings = settings

    def begin_anew(self) -> None:
        """Progress counts from another start now: what successful runs had reached by then says nothing.
        The rule waits as at the begin of an episode."""
        self._low_at_ns, self._began_s, self._band_holds = None, None, False

    def update(self, sample: Sample) -> Finding | None:
        """Take the next score."""
        if self.fired:
            return None
        if self._began_s is None:
            self._began_s = sample.elapsed_s
        if not isfinite(sample.progress):
            self._low_at_ns = None
            return None
        found = self._below_band(sample) or self._by_rule(sample)
        self.fired = found is not None
        return found

    def _below_band(self, sample: Sample) -> Finding | None:
        band = self._settings.band
        if band is None or not self._band_holds:
            return None
        lower = band.at(sample.elapsed_s)
        if not sample.progress < lower:
            return None
        return Finding(
            EventType.FAILURE,
            f"progress is {sample.progress:.3f} after {sample.elapsed_s:.1f} s, below {lower:.3f}: of "
            f"successful runs, {band.alpha:.0%} are expected below the band of {band.successes} of them",
            lower,
        )

    def _by_rule(self, sample: Sample) -> Finding | None:
        settings = self._settings
        if not sample.progress < settings.threshold:
            self._low_at_ns = None
            return None
        if self._low_at_ns is None:
            self._low_at_ns, self._low_s, self._low_scores = sample.stamp_ns, 0.0, 0
        step_s, self._low_at_ns = (sample.stamp_ns - self._low_at_ns) / NS_PER_S, sample.stamp_ns
        self._low_s += min(step_s, settings.dwell / (_FEWEST - 1))
        self._low_scores += 1
        watched_s = sample.elapsed_s - (self._began_s or 0.0)
        # Of a sum of many steps the last bits are lost.
        held = self._low_s >= settings.dwell - 1e-6
        if watched_s < settings.after or not held or self._low_scores < _FEWEST:
            return None
        return Finding(
            EventType.FAILURE,
            f"progress is {sample.progress:.3f} and was below failure_threshold = {settings.threshold:g} "
            f"for {self._low_s:.1f} s in {self._low_scores} scores, "
            f"{sample.elapsed_s:.1f} s into the episode",
            settings.threshold,
        )
