"""Labelled curves for tests: scores that rise when a task is done, and scores that do not."""

from __future__ import annotations

from math import nan
from typing import Any

import numpy as np

from topreward_ros.core.calibration.curves import LabelledCurve, Look, log_prob_of
from topreward_ros.core.calibration.probability import Kind, ProbabilityMap
from topreward_ros.core.calibration.task import Setup, TaskCalibration
from topreward_ros.core.events import SuccessSettings

BASE = SuccessSettings(threshold=-0.22, hysteresis=0.5, dwell=2.0, min_scores=3, smoothing=3)
RATE = 2.0  # [Hz]
_START = -4.0  # log-odds of a scene in which nothing was done


def curve(name: str, odds: list[float], done_s: float = nan, *, success: bool) -> LabelledCurve:
    """Log-odds of the score, `RATE` of them per second; progress is that of the static baseline."""
    static = log_prob_of(_START)
    looks = [
        Look(
            round(k / RATE * 1e9),
            log_prob_of(value),
            static,
            min(max(1 - log_prob_of(value) / static, 0.0), 1.0),
        )
        for k, value in enumerate(odds)
    ]
    return LabelledCurve(name, success, tuple(looks), done_s)


def drawn(
    successes: int,
    failures: int,
    *,
    seed: int = 0,
    apart: float = 6.0,
    spread: float = 0.7,
    told: bool = True,
) -> list[LabelledCurve]:
    """Episodes of 12 s: successes rise by ``apart`` when they are done, failures by a third of that."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(successes + failures):
        done_s = float(rng.uniform(4.0, 8.0))
        rise = apart if number < successes else apart / 3
        level = rise + rng.normal(0, spread)
        times = np.arange(24) / RATE
        odds = _START + level / (1 + np.exp(-4 * (times - done_s))) + rng.normal(0, 0.2, 24)
        success = number < successes
        known = done_s if success and told else nan
        made.append(curve(f"episode-{number:02d}", odds.tolist(), known, success=success))
    return made


def setup(**other: Any) -> Setup:
    """A setup, but for what is given."""
    usual: dict[str, Any] = {
        "model": "embedded",
        "revision": "abc",
        "prompt_hash": "0123",
        "layout": "v4.57",
        "chat_template": False,
        "contrastive": False,
        "dtype": "float32",
        "max_pixels": 307200,
        "sample_rate": RATE,
        "max_frames": 64,
        "window": "episode",
        "front_padding": 0,
        "fixed_length": 0,
        "camera_layout": "primary",
        "cameras": (),
    }
    return Setup(**(usual | other))


def calibration(task: str, threshold: float, **other: Any) -> TaskCalibration:
    """A calibration that fires at once at a threshold [nat], two scores in a row."""
    usual: dict[str, Any] = {
        "success": SuccessSettings(threshold, hysteresis=0.5, dwell=0.0, min_scores=2, smoothing=1),
        "probability": ProbabilityMap(Kind.PLATT, (1.0,), slope=1.0),
        "successes": 10,
        "failures": 10,
        "allowed_false_alarms": 0.02,
    }
    return TaskCalibration(task=task, **(usual | other))
