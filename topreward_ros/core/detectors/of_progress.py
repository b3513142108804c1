"""The detectors that follow progress: STALL, REGRESSION and FAILURE, asked together at each score.

After SUCCESS nobody asks them any more, and FAILURE comes at most once, as it ends the episode.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from topreward_ros.core.detectors.failure import ConformalBand, FailureDetector, FailureSettings
from topreward_ros.core.detectors.regression import RegressionDetector, RegressionSettings
from topreward_ros.core.detectors.sample import Finding, Sample
from topreward_ros.core.detectors.stall import StallDetector, StallSettings
from topreward_ros.core.events import EventType


@dataclass(frozen=True, slots=True)
class ProgressSettings:
    """What is noticed in the progress of an episode."""

    stall: StallSettings
    regression: RegressionSettings
    failure: FailureSettings

    @classmethod
    def from_parameters(
        cls, parameters: Mapping[str, Any], band: ConformalBand | None = None
    ) -> ProgressSettings:
        """Take the settings from parameters named as in config/monitor.yaml; ``band``: of a calibration."""
        return cls(
            StallSettings(
                after=parameters["stall_after"],
                rise=parameters["stall_rise"],
                slope=parameters["stall_slope"],
                nominal_duration=parameters["nominal_duration"],
            ),
            RegressionSettings(
                sigma=parameters["regression_sigma"],
                dwell=parameters["regression_dwell"],
            ),
            FailureSettings(
                threshold=parameters["failure_threshold"],
                after=parameters["failure_after"],
                dwell=parameters["failure_dwell"],
                band=band,
            ),
        )


class ProgressDetectors:
    """STALL, REGRESSION and FAILURE of one episode."""

    def __init__(self, settings: ProgressSettings) -> None:
        self._stall = StallDetector(settings.stall)
        self._regression = RegressionDetector(settings.regression)
        self._failure = FailureDetector(settings.failure)
        self._settings = settings

    @property
    def settings(self) -> ProgressSettings:
        """In force. They may be replaced at any time, and act at the next score."""
        return self._settings

    @settings.setter
    def settings(self, settings: ProgressSettings) -> None:
        self._settings = settings
        self._stall.settings = settings.stall
        self._regression.settings = settings.regression
        self._failure.settings = settings.failure

    @property
    def stalled(self) -> bool:
        """Whether progress stands still."""
        return self._stall.stalled

    def update(self, sample: Sample, baseline_progress: float) -> list[Finding]:
        """Take the next score. Where it shows that the task failed, nothing else is said.

        FAILURE goes by the progress of ``sample``, in the mode that is published: bands and thresholds are of
        that. STALL and REGRESSION go by ``baseline_progress``, that against the static baseline, in every
        mode: their limits are of it, and other modes hardly move before the end. NaN where it is not scored;
        that of a model which states progress itself where there is one.
        """
        failure = self._failure.update(sample)
        followed = replace(sample, progress=baseline_progress)
        others = [self._stall.update(followed), self._regression.update(followed)]
        return [failure] if failure else [finding for finding in others if finding]

    def begin_anew(self) -> None:
        """Progress counts from another start now: the prefix is that of another scene."""
        self._stall.begin_anew()
        self._regression.begin_anew()
        self._failure.begin_anew()


def failed(findings: list[Finding]) -> Finding | None:
    """The finding that ends the episode, if there is one."""
    return next((finding for finding in findings if finding.kind is EventType.FAILURE), None)
