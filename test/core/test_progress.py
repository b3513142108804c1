"""Scores become progress, and nothing that has no meaning becomes a number."""

from math import exp, isnan, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topreward_ros.core.progress import PrefixScore, ProgressMode, episode_minmax, live_progress

THRESHOLD = -0.22
NATS = st.floats(-60.0, 0.0)


def static_baseline(r: float, static: float) -> float:
    score = PrefixScore(r, -1.0, log_prob_static=static)
    return live_progress(score, ProgressMode.STATIC_BASELINE, THRESHOLD)


@pytest.mark.parametrize(
    ("r", "static", "progress"),
    [(-3.0, -4.0, 0.25), (-1.0, -4.0, 0.75), (-0.3, -3.0, 0.9), (-0.01, -0.25, 0.96), (-8.0, -4.0, 0.0)],
)
def test_static_baseline_by_hand(r: float, static: float, progress: float) -> None:
    assert static_baseline(r, static) == pytest.approx(progress, abs=1e-12)


@given(r=NATS, nearer=NATS, static=NATS)
def test_static_baseline_rises_with_the_score_within_the_unit_interval(
    r: float, nearer: float, static: float
) -> None:
    progress = [static_baseline(value, static) for value in sorted((r, nearer))]
    if static > THRESHOLD:
        assert isnan(progress[0]) and isnan(progress[1]), "the start looks finished"
    else:
        assert 0.0 <= progress[0] <= progress[1] <= 1.0


@given(share=st.floats(0.0, 1.0), static=st.floats(-60.0, THRESHOLD))
def test_static_baseline_is_a_share_whatever_the_size_of_the_gap(share: float, static: float) -> None:
    assert static_baseline((1.0 - share) * static, static) == pytest.approx(share, abs=1e-12)


@given(static=st.floats(-60.0, THRESHOLD))
def test_idle_robot_reads_zero_and_certainty_reads_one(static: float) -> None:
    mode = ProgressMode.STATIC_BASELINE
    assert live_progress(PrefixScore(static, -1.0, static), mode, THRESHOLD) == 0.0
    assert live_progress(PrefixScore(0.0, -1.0, static), mode, THRESHOLD) == 1.0


def test_certain_start_never_divides_by_zero() -> None:
    """With the threshold off (0), an r_static of exactly 0 is still refused."""
    assert isnan(live_progress(PrefixScore(-1.0, -1.0, 0.0), ProgressMode.STATIC_BASELINE, 0.0))


@given(stated=st.floats(0.0, 1.0), success=st.floats(0.0, 1.0))
def test_what_the_model_states_itself_is_taken_as_it_is(stated: float, success: float) -> None:
    score = PrefixScore(nan, nan, stated_progress=stated, success_probability=success)
    for mode in ProgressMode:
        assert live_progress(score, mode, THRESHOLD) == stated
    assert exp(score.success_log_prob) == pytest.approx(success, abs=1e-9)
    alone = PrefixScore(nan, nan, stated_progress=stated)
    assert exp(alone.success_log_prob) == pytest.approx(stated, abs=1e-9)


def test_a_score_that_says_nothing_is_neither_progress_nor_success() -> None:
    assert isnan(live_progress(PrefixScore(nan, nan), ProgressMode.STATIC_BASELINE, THRESHOLD))
    assert isnan(PrefixScore(nan, nan).success_log_prob)
    assert PrefixScore(-1.5, -1.0).success_log_prob == -1.5


def test_missing_baseline_is_no_progress() -> None:
    assert isnan(live_progress(PrefixScore(-1.0, -1.0, nan), ProgressMode.STATIC_BASELINE, THRESHOLD))


@pytest.mark.parametrize(("r", "progress"), [(0.0, 1.0), (-0.693147180560, 0.5), (-2.302585092994, 0.1)])
def test_raw_probability_by_hand(r: float, progress: float) -> None:
    """Of the natural logarithms of 1, 1/2 and 1/10, whatever the baseline is."""
    for static in (nan, -4.0, 0.0):
        score = PrefixScore(r, -1.0, log_prob_static=static)
        assert live_progress(score, ProgressMode.RAW_PROBABILITY, THRESHOLD) == pytest.approx(
            progress, abs=1e-12
        )


def test_minmax_of_constant_or_single_is_nan_not_one() -> None:
    assert np.isnan(episode_minmax(np.array([-2.0, -2.0]))).all()
    assert np.isnan(episode_minmax(np.array([-2.0]))).all()
    assert episode_minmax(np.array([])).shape == (0,)


@given(st.lists(st.floats(-50, 0), min_size=2, max_size=30).filter(lambda values: np.ptp(values) > 1e-9))
def test_minmax_keeps_order_and_spans_the_unit_interval(values: list[float]) -> None:
    scaled = episode_minmax(np.array(values))
    assert scaled.min() == 0.0 and scaled.max() == pytest.approx(1.0)
    assert (np.diff(scaled[np.argsort(values, kind="stable")]) >= 0).all()
