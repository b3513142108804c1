"""Scores become progress, and nothing that has no meaning becomes a number."""

from math import exp, isnan, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topreward_ros.core.progress import PrefixScore, ProgressMode, episode_minmax, live_progress

THRESHOLD = -0.22
NATS = st.floats(-60.0, 0.0)


@given(r=NATS, static=NATS)
def test_static_baseline_is_the_closed_share_of_the_gap(r: float, static: float) -> None:
    progress = live_progress(
        PrefixScore(r, -1.0, log_prob_static=static), ProgressMode.STATIC_BASELINE, THRESHOLD
    )
    if static > THRESHOLD:
        assert isnan(progress)
    else:
        assert progress == pytest.approx(np.clip((static - r) / static, 0.0, 1.0), abs=1e-12)


@given(static=st.floats(-60.0, THRESHOLD))
def test_idle_robot_reads_zero_and_certainty_reads_one(static: float) -> None:
    mode = ProgressMode.STATIC_BASELINE
    assert live_progress(PrefixScore(static, -1.0, static), mode, THRESHOLD) == 0.0
    assert live_progress(PrefixScore(0.0, -1.0, static), mode, THRESHOLD) == 1.0


def test_certain_start_never_divides_by_zero() -> None:
    """With the threshold off (0), an r_static of exactly 0 is still refused."""
    assert isnan(live_progress(PrefixScore(-1.0, -1.0, 0.0), ProgressMode.STATIC_BASELINE, 0.0))


def test_missing_baseline_is_no_progress() -> None:
    assert isnan(live_progress(PrefixScore(-1.0, -1.0, nan), ProgressMode.STATIC_BASELINE, THRESHOLD))


@given(r=NATS)
def test_raw_probability(r: float) -> None:
    assert live_progress(PrefixScore(r, -1.0), ProgressMode.RAW_PROBABILITY, THRESHOLD) == exp(r)


def test_minmax_of_constant_or_single_is_nan_not_one() -> None:
    assert np.isnan(episode_minmax(np.array([-2.0, -2.0]))).all()
    assert np.isnan(episode_minmax(np.array([-2.0]))).all()
    assert episode_minmax(np.array([])).shape == (0,)


@given(st.lists(st.floats(-50, 0), min_size=2, max_size=30).filter(lambda values: np.ptp(values) > 1e-9))
def test_minmax_keeps_order_and_spans_the_unit_interval(values: list[float]) -> None:
    scaled = episode_minmax(np.array(values))
    assert scaled.min() == 0.0 and scaled.max() == pytest.approx(1.0)
    assert (np.diff(scaled[np.argsort(values, kind="stable")]) >= 0).all()
