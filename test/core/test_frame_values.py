"""From scores to one number per frame: what is held, what is filled in, and discounted sums of it."""

from __future__ import annotations

from math import nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topreward_ros.core.frame_values import discounted_values, held, imputed
from topreward_ros.core.rewards import Imputation


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.integers(1, 30), st.data())
def test_what_is_held_knows_nothing_of_later_scores(
    values: list[float], end: int, data: st.DataObject
) -> None:
    rows = sorted(data.draw(st.sets(st.integers(0, end - 1), min_size=1, max_size=len(values))))
    values = values[: len(rows)]
    whole = held(values, rows, end)
    for known in range(len(rows)):
        begin = held(values[: known + 1], rows[: known + 1], end)
        until = rows[known + 1] if known + 1 < len(rows) else end
        assert np.array_equal(whole[:until], begin[:until], equal_nan=True)
    assert np.isnan(whole[: rows[0]]).all() and not np.isnan(whole[rows[0] :]).any()


def test_a_nan_is_held_as_well() -> None:
    assert np.array_equal(held([0.5, nan, 0.7], [0, 2, 3], 5), [0.5, 0.5, nan, 0.7, 0.7], equal_nan=True)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (Imputation.ZERO, [0, -4, 0, 0, -1, 0]),
        (Imputation.INTERPOLATE, [-4, -4, -3, -2, -1, -1]),
        (Imputation.DUPLICATE, [-4, -4, -4, -4, -1, -1]),
    ],
)
def test_rewards_are_filled_in_as_in_the_authors_code(how: Imputation, expected: list[float]) -> None:
    assert imputed([-4.0, -1.0], [1, 4], 6, how).tolist() == expected
    assert imputed([-4.0, nan, -1.0], [1, 2, 4], 6, how).tolist() == expected, "NaN is no reward"
    assert np.isnan(imputed([nan], [1], 6, how)).all()


def test_values_by_hand() -> None:
    rewards = np.array([1.0, 0.0, 2.0, -1.0])
    made = discounted_values(rewards, 0.9)
    assert made.tolist() == pytest.approx([1 + 0.81 * 2 - 0.729, 0.9 * 2 - 0.81, 2 - 0.9, -1.0])
    assert discounted_values(rewards, 0.0).tolist() == rewards.tolist()
    assert discounted_values(rewards, 1.0)[0] == 2.0
