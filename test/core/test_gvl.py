"""What is asked for GVL, and how an answer is read."""

from __future__ import annotations

from math import isnan

import pytest

from topreward_ros.core.gvl import GvlError, order, question, values_of


def test_the_texts_stand_around_the_pictures() -> None:
    texts = question("open the drawer", 3)
    assert len(texts) == 5  # before the start, then before each of three frames, and at the end
    assert "open the drawer" in texts[0] and "open the drawer" in texts[-1]
    assert texts[1].endswith("Frame 1:") and texts[2:4] == ["Frame 2:", "Frame 3:"]
    assert sorted(order(15, 3)) == list(range(15)) and order(15, 3) == order(15, 3) != order(15, 4)


def test_values_come_back_in_the_order_of_time() -> None:
    text = "Sure!\n**Frame 1:** at 3 o'clock, 10% or 20 %\nframe 2 - shut, 0%\nFrame 3: open: 100.0 percent"
    assert values_of(text, [1, 0, 2]) == [0.0, 0.2, 1.0]
    again = "Frame 1: 10%, Frame 2: 20%. On second thoughts, Frame 1: 30%, Frame 9: 50%, Frame 0: 7%"
    assert values_of(again, [0, 1]) == [0.3, 0.2]
    assert values_of("Frame 1: 250%\nFrame 2: 3%", [0, 1]) == [1.0, 0.03]
    some = values_of("Frame 1: 1%\nFrame 3: 3%\nFrame 2: I cannot tell", [0, 1, 2])
    assert some[0] == 0.01 and isnan(some[1]) and some[2] == 0.03


@pytest.mark.parametrize(
    "text", ["", "I cannot see frames.", "50% 60% 70%", "Frame 1: 50%", "Frame 7: 1% Frame 8: 2%"]
)
def test_an_answer_without_percentages_is_refused(text: str) -> None:
    with pytest.raises(GvlError, match="wrote no percentages"):
        values_of(text, [0, 1, 2])
