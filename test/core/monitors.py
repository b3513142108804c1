"""Settings of monitors for tests."""

from __future__ import annotations

from topreward_ros.core.detectors.failure import FailureSettings
from topreward_ros.core.detectors.of_pictures import PictureSettings
from topreward_ros.core.detectors.of_progress import ProgressSettings
from topreward_ros.core.detectors.regression import RegressionSettings
from topreward_ros.core.detectors.stall import StallSettings
from topreward_ros.core.events import SuccessSettings
from topreward_ros.core.frames import Window
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.core.progress import ProgressMode
from topreward_ros.core.rewards import RewardSettings, RewardType

SETTINGS = MonitorSettings(
    camera_fixed=True,
    sample_rate=2.0,
    max_frames=16,
    window=Window.EPISODE,
    progress_mode=ProgressMode.STATIC_BASELINE,
    reward=RewardSettings(RewardType.PROGRESS_DELTA, 2.0, 2.0),
    success=SuccessSettings(threshold=-0.22, hysteresis=0.5, dwell=1.0, min_scores=2, smoothing=1),
    progress=ProgressSettings(  # off: many tests show one score for long
        stall=StallSettings(after=0.0, rise=0.1, slope=0.02, nominal_duration=0.0),
        regression=RegressionSettings(sigma=0.0, dwell=2.0),
        failure=FailureSettings(threshold=0.0, after=10.0, dwell=2.0),
    ),
    pictures=PictureSettings(frozen_timeout=2.0, covered_timeout=2.0),
    end_episode_on_success=True,
    episode_timeout=0.0,
    stale_timeout=5.0,
)
