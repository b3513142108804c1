"""The settings of a `TaskMonitor`, and how one task or its calibration changes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

from topreward_ros.core.calibration.task import NO_CALIBRATIONS, Calibrations, TaskCalibration
from topreward_ros.core.detectors.of_pictures import PictureSettings
from topreward_ros.core.detectors.of_progress import ProgressSettings
from topreward_ros.core.events import SuccessSettings
from topreward_ros.core.frames import Window
from topreward_ros.core.progress import ProgressMode
from topreward_ros.core.rewards import RewardSettings, RewardType


@dataclass(frozen=True, slots=True)
class MonitorSettings:
    """Everything that turns stamps, frames and scores into progress, rewards and events."""

    camera_fixed: (
        bool  #: the camera does not move, so that a picture that changes as a whole is another scene
    )
    sample_rate: float  #: [Hz]
    max_frames: int  #: frame budget of a prefix, even and >= 4
    window: Window  #: which frames go when the budget is full
    progress_mode: ProgressMode
    reward: RewardSettings
    success: SuccessSettings
    progress: ProgressSettings  #: when STALL, REGRESSION and FAILURE come
    pictures: PictureSettings  #: when FROZEN_IMAGES and COVERED_IMAGES come
    end_episode_on_success: bool
    episode_timeout: float  #: [s] in stamp time; 0: none
    stale_timeout: float  #: [s] without an image that can be used, by arrival
    calibrations: Calibrations = NO_CALIBRATIONS  #: of the tasks that have one

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> MonitorSettings:
        """Take the settings from parameters named as in config/monitor.yaml, ignoring the others. The file of
        calibrations is not read here."""
        return cls(
            camera_fixed=parameters["camera_fixed"],
            sample_rate=parameters["sample_rate"],
            max_frames=parameters["max_frames"],
            window=Window(parameters["window"]),
            progress_mode=ProgressMode(parameters["progress_mode"]),
            reward=RewardSettings(
                type=RewardType[parameters["reward_type"].upper()],
                advantage_tau=parameters["advantage_tau"],
                advantage_max=parameters["advantage_max"],
            ),
            success=SuccessSettings(
                threshold=parameters["success_threshold"],
                hysteresis=parameters["success_hysteresis"],
                dwell=parameters["success_dwell"],
                min_scores=parameters["success_min_scores"],
                smoothing=parameters["success_smoothing"],
                confirm_rate=parameters["confirm_rate"],
            ),
            progress=ProgressSettings.from_parameters(parameters),
            pictures=PictureSettings.from_parameters(parameters),
            end_episode_on_success=parameters["end_episode_on_success"],
            episode_timeout=parameters["episode_timeout"],
            stale_timeout=parameters["stale_timeout"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """What one task has of its own, in place of the settings, for as long as it is watched by one wish."""

    timeout: float = 0.0  #: [s] over all of its episodes; 0: `episode_timeout`, for each of them
    success_threshold: float | None = None  #: [nat]; None: that of the settings

    def of(self, settings: MonitorSettings) -> MonitorSettings:
        """The settings with the threshold of this task."""
        if self.success_threshold is None:
            return settings
        return replace(settings, success=replace(settings.success, threshold=self.success_threshold))


NO_OVERRIDES = Overrides()


def calibrated_settings(settings: MonitorSettings, calibration: TaskCalibration) -> MonitorSettings:
    """The settings with what is known of a task: its detector, if it has one, how long it takes, how
    successful runs go."""
    progress, nominal_s = settings.progress, calibration.nominal_duration
    stall = replace(progress.stall, nominal_duration=nominal_s) if isfinite(nominal_s) else progress.stall
    failure = replace(progress.failure, band=calibration.bands.get(settings.progress_mode.value))
    return replace(
        settings,
        success=calibration.detector or settings.success,
        progress=replace(progress, stall=stall, failure=failure),
    )
