"""Rewards of one episode, step by step."""

from math import e, isnan, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topreward_ros.core.rewards import RewardSettings, RewardStream, RewardType, advantage_weight

PROGRESS = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=50)


def stream(kind: RewardType) -> RewardStream:
    return RewardStream(RewardSettings(kind, advantage_tau=2.0, advantage_max=2.0))


@given(PROGRESS)
def test_progress_deltas_telescope(values: list[float]) -> None:
    rewards = stream(RewardType.PROGRESS_DELTA)
    for value in values:
        rewards.step(-1.0, value)
    assert rewards.episode_return == pytest.approx(values[-1] - values[0], abs=1e-9)
    assert rewards.steps == len(values)


def test_meaningless_progress_is_skipped_not_counted_as_zero() -> None:
    rewards = stream(RewardType.PROGRESS_DELTA)
    given_rewards = [rewards.step(-1.0, s) for s in (nan, 0.25, nan, 0.75)]
    assert [isnan(r) for r in given_rewards] == [True, False, True, False]
    assert given_rewards[1] == 0.0 and given_rewards[3] == 0.5
    assert rewards.episode_return == 0.5


def test_the_plain_kinds_pass_their_value_through() -> None:
    assert stream(RewardType.LOG_PROB).step(-3.5, 0.25) == -3.5
    assert stream(RewardType.PROGRESS).step(-3.5, 0.25) == 0.25


@given(delta=st.floats(-1.0, 1.0))
def test_advantage_weight_of_the_paper(delta: float) -> None:
    """tau = delta_max = 2: everything from 0 up saturates, and the range is [2/e, 2]."""
    weight = advantage_weight(delta, 2.0, 2.0)
    assert 2.0 / e - 1e-12 <= weight <= 2.0
    assert (weight == 2.0) == (delta >= 0.0) or abs(delta) < 1e-12


def test_advantage_stream_uses_the_change_of_progress() -> None:
    rewards = stream(RewardType.ADVANTAGE_WEIGHT)
    assert rewards.step(-1.0, 1.0) == 2.0
    assert rewards.step(-1.0, 0.0) == pytest.approx(2.0 / e)
    assert isnan(rewards.step(-1.0, nan))


def test_closing_gives_a_step_of_zero() -> None:
    rewards = stream(RewardType.PROGRESS)
    rewards.step(-1.0, 0.5)
    assert rewards.close() == 0.0
    assert (rewards.steps, rewards.episode_return) == (2, 0.5)
