"""When pictures of another size are the same view, and when they are not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topreward_ros.core.shapes import Shape, View, ViewJudge, same_shape

SIDES = st.integers(1, 5000)


@given(SIDES, SIDES, st.floats(0.05, 20.0))
def test_another_resolution_is_the_same_shape(height: int, width: int, scale: float) -> None:
    shape = (height, width)
    resized = (max(1, round(height * scale)), max(1, round(width * scale)))
    if min(height, width) * scale >= 0.5:  # else a side became 1 that should have vanished
        assert same_shape(shape, resized)


@given(SIDES, SIDES, SIDES, SIDES)
def test_alike_both_ways_round_and_turned(a: int, b: int, c: int, d: int) -> None:
    alike = same_shape((a, b), (c, d))
    assert same_shape((b, a), (d, c)) == alike
    assert same_shape((a, b), (a, b))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ((480, 640), (240, 320), True),
        ((1080, 1920), (1088, 1920), True),
        ((768, 1366), (720, 1280), True),
        ((480, 640), (640, 480), False),
        ((480, 640), (360, 640), False),
        ((480, 640), (720, 1280), False),
        ((800, 1280), (720, 1280), False),
        ((2, 3), (3, 2), False),
    ],
)
def test_sizes_of_cameras(one: Shape, other: Shape, same: bool) -> None:
    assert same_shape(one, other) is same_shape(other, one) is same


def views(shapes: list[Shape]) -> list[View]:
    judge = ViewJudge()
    return [judge.judge(shape) for shape in shapes]


def test_pictures_of_another_shape_change_the_view_once_several_in_a_row_agree() -> None:
    wide, high, square = (48, 64), (64, 48), (50, 50)
    same, other, changed = View.SAME, View.OTHER, View.CHANGED
    assert views([wide, high, wide, high, high, wide]) == [same, other, same, other, other, same]
    assert views([wide, high, square, high, square]) == [same, other, other, other, other]
    assert views([wide, high, high, (128, 96)]) == [same, other, other, changed]
