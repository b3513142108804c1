"""Settings of monitors for tests."""

from __future__ import annotations

from topreward_ros.core.episode import MonitorSettings
from topreward_ros.core.events import SuccessSettings
from topreward_ros.core.frames import Window
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
    end_episode_on_success=True,
    episode_timeout=0.0,
    stale_timeout=5.0,
)
