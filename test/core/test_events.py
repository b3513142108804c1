"""When success fires, and when it must not."""

from math import nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topreward_ros.core.events import SuccessDetector, SuccessSettings
from topreward_ros.core.frames import NS_PER_S

SETTINGS = SuccessSettings(threshold=-0.22, hysteresis=0.5, dwell=2.0, min_scores=3, smoothing=3)
LOW, MIDDLE, HIGH = -5.0, -0.5, -0.01  # below the lower threshold, between both, above the upper


def fire_times(
    scores: list[float], settings: SuccessSettings = SETTINGS, period_s: float = 0.5
) -> list[float]:
    detector = SuccessDetector(settings)
    return [k * period_s for k, r in enumerate(scores) if detector.add(int(k * period_s * NS_PER_S), r)]


def bare(**changes: float) -> SuccessSettings:
    """Threshold and hysteresis only."""
    values = {"threshold": -0.22, "hysteresis": 0.5, "dwell": 0.0, "min_scores": 1, "smoothing": 1}
    return SuccessSettings(**{**values, **changes})  # type: ignore[arg-type]


def test_fires_once_after_rise_and_dwell() -> None:
    # smoothing 3 needs -5 -> -0.22: five halvings of 4.99; up from the fifth high score on (2.5 s), then 2 s
    times = fire_times([LOW] * 2 + [HIGH] * 30)
    assert times == [pytest.approx(2.0 + 2.0 + 1.0, abs=0.51)]


def test_never_fires_when_already_true_at_the_start() -> None:
    assert fire_times([HIGH] * 50) == []
    assert fire_times([HIGH] * 10 + [MIDDLE] * 10 + [HIGH] * 50) == []  # never was below the lower threshold


def test_arms_once_it_was_below() -> None:
    assert len(fire_times([HIGH] * 10 + [LOW] * 3 + [HIGH] * 50)) == 1


def test_one_noisy_score_does_not_fire() -> None:
    assert fire_times([LOW] * 10 + [HIGH] + [LOW] * 30, bare(smoothing=3)) == []


def test_subgoal_shorter_than_the_dwell_does_not_fire() -> None:
    assert fire_times([LOW] * 5 + [HIGH] * 4 + [LOW] * 5, bare(dwell=2.0)) == []
    assert fire_times([LOW] * 5 + [HIGH] * 5 + [LOW] * 5, bare(dwell=2.0)) == [4.5]


def test_hovering_at_the_threshold_does_not_restart_the_dwell() -> None:
    scores = [LOW] * 3 + [HIGH, MIDDLE, HIGH, MIDDLE, HIGH]
    assert fire_times(scores, bare(dwell=2.0)) == [3.5]


def test_falling_below_the_lower_threshold_restarts_the_dwell() -> None:
    scores = [LOW] * 3 + [HIGH] * 3 + [LOW] + [HIGH] * 5
    assert fire_times(scores, bare(dwell=2.0)) == [5.5]


def test_fires_only_while_it_is_up() -> None:
    scores = [LOW, HIGH, MIDDLE, MIDDLE, MIDDLE, MIDDLE, MIDDLE, HIGH]
    assert fire_times(scores, bare(dwell=1.0)) == [3.5]


def test_needs_enough_scores_whatever_the_time() -> None:
    assert fire_times([LOW, HIGH, HIGH, HIGH], bare(min_scores=3), period_s=60.0) == [180.0]


def test_zero_threshold_never_fires() -> None:
    assert fire_times([LOW] * 3 + [0.0] * 50, bare(threshold=0.0)) == []


def test_nan_is_no_score() -> None:
    assert fire_times([LOW, nan, HIGH, nan, HIGH], bare(min_scores=2)) == [2.0]


@given(
    scores=st.lists(st.floats(-10.0, 0.0), max_size=80),
    threshold=st.floats(-5.0, -0.01),
    hysteresis=st.floats(0.0, 3.0),
    dwell=st.floats(0.0, 5.0),
    min_scores=st.integers(1, 6),
    smoothing=st.integers(1, 8),
)
def test_what_must_hold_whenever_it_fires(
    scores: list[float], threshold: float, hysteresis: float, dwell: float, min_scores: int, smoothing: int
) -> None:
    settings = SuccessSettings(threshold, hysteresis, dwell, min_scores, smoothing)
    detector = SuccessDetector(settings)
    fired = []
    smoothed: list[float] = []
    for k, r in enumerate(scores):
        if detector.add(k * NS_PER_S // 2, r):
            fired.append(k)
        smoothed.append(detector.smoothed)
    assert len(fired) <= 1
    for k in fired:
        below = [i for i in range(k) if smoothed[i] < settings.lower_threshold]
        assert below, "fired without ever having been armed"
        since = [i for i in range(below[-1] + 1, k + 1) if smoothed[i] >= threshold]
        assert smoothed[k] >= threshold
        assert (k - since[0]) / 2 >= dwell and len(since) >= min_scores
    # and it is not late: nobody waits for a success that every rule allows
    if not fired:
        for k in range(len(scores)):
            below = [i for i in range(k) if smoothed[i] < settings.lower_threshold]
            since = [i for i in range(below[-1] + 1, k + 1) if smoothed[i] >= threshold] if below else []
            allowed = since and smoothed[k] >= threshold and (k - since[0]) / 2 >= dwell
            assert not (allowed and len(since) >= min_scores)
