"""What ~/debug_image shows, from an array and numbers; the pixels are looked at, not only the shape."""

from __future__ import annotations

from dataclasses import replace
from math import inf, nan

import numpy as np
import pytest

from topreward_ros.core.outputs import State
from topreward_ros.views.debug_picture import _CURVE, _STATE_COLOURS, ascii_text, debug_picture
from topreward_ros.views.messages import Sample

IMAGE = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
SAMPLE = Sample(
    episode_id="e1", instruction="open the drawer", state=State.RUNNING, stamp_ns=1, progress=0.0,
    log_prob=-1.0, log_prob_false=-0.5, log_prob_static=-4.0, num_frames=1, elapsed_s=0.0, latency_s=0.1,
    message="",
)  # fmt: skip


def curve(*values: float) -> list[Sample]:
    return [replace(SAMPLE, progress=value, elapsed_s=float(k)) for k, value in enumerate(values)]


def of_colour(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Where the panel under a picture of 640x480 has a colour, (rows, 640) bool."""
    found: np.ndarray = (picture[480:] == colour).all(axis=2)
    return found


def bar_width(picture: np.ndarray) -> int:
    return int(of_colour(picture, _CURVE)[52].sum())  # a row through the bar


def test_nothing_of_the_scene_is_hidden_or_changed() -> None:
    before = IMAGE.copy()
    picture = debug_picture(IMAGE, curve(0.1, 0.2))
    assert picture.dtype == np.uint8 and picture.shape[1:] == (640, 3) and picture.shape[0] > 600
    assert np.array_equal(picture[:480], IMAGE) and np.array_equal(IMAGE, before)


def test_the_bar_is_as_long_as_the_progress_and_empty_without_one() -> None:
    widths = [bar_width(debug_picture(IMAGE, curve(value))) for value in (0.0, nan, 0.25, 0.5, 1.0, 7.0)]
    assert widths[0] == widths[1] == 0
    assert widths[2] == pytest.approx(155, abs=2) and widths[3] == pytest.approx(310, abs=2)
    assert widths[4] == pytest.approx(620, abs=2) and widths[5] == widths[4]


def test_the_curve_rises_where_progress_does_and_has_a_gap_where_it_is_not_known() -> None:
    rising = of_colour(debug_picture(IMAGE, curve(*(k / 10 for k in range(11)))), _CURVE)[75:]
    columns = [np.flatnonzero(rising[:, x]).mean() for x in range(60, 620, 40)]
    assert columns == sorted(columns, reverse=True) and columns[0] - columns[-1] > 40
    gap = debug_picture(IMAGE, curve(0.5, 0.5, 0.5, nan, nan, nan, nan, 0.5, 0.5, 0.5))
    there = of_colour(gap, _CURVE)[75:].any(axis=0)
    assert there[60:150].all() and not there[200:440].any() and there[520:600].all()


@pytest.mark.parametrize("state", _STATE_COLOURS)
def test_the_state_has_its_colour(state: State) -> None:
    badges = of_colour(debug_picture(IMAGE, [replace(SAMPLE, state=state)]), _STATE_COLOURS[state])
    assert badges[8:40, 10:60].mean() > 0.6


def test_text_is_seen_and_a_warning_has_a_row_of_its_own() -> None:
    plain = debug_picture(IMAGE, curve(0.5))
    other = debug_picture(IMAGE, [replace(SAMPLE, progress=0.5, instruction="close it")])
    assert plain.shape == other.shape and not np.array_equal(plain, other)
    warned = debug_picture(IMAGE, [replace(SAMPLE, progress=0.5, message="random weights")])
    assert warned.shape[0] > plain.shape[0]


@pytest.mark.parametrize(
    ("height", "width", "shown"),
    [(120, 160, (240, 320)), (1080, 1920, (540, 960)), (2160, 1080, (960, 480)), (3000, 3, (960, 320)),
     (3, 4000, (1, 960)), (1, 1, (320, 320))],
)  # fmt: skip
def test_any_size_becomes_one_that_can_be_read_and_sent(
    height: int, width: int, shown: tuple[int, int]
) -> None:
    picture = debug_picture(np.full((height, width, 3), 200, np.uint8), curve(0.5))
    assert picture.shape[1] == shown[1]
    grey = (picture == 200).all(axis=2).any(axis=1)
    assert grey[: shown[0]].all() and not grey[shown[0]]
    assert picture.nbytes < 5_000_000


@pytest.mark.parametrize("value", [nan, inf, -inf, -1.0, 1.5, 3.4e38, -3.4e38])
def test_numbers_that_cannot_be_break_nothing(value: float) -> None:
    wild = replace(SAMPLE, state=77, progress=value, elapsed_s=value, stage=9, stages=2)
    for scores in ([wild], [SAMPLE, wild], [wild, SAMPLE]):
        assert np.array_equal(debug_picture(IMAGE, scores)[:480], IMAGE)


def test_letters_that_opencv_lacks() -> None:
    assert ascii_text("Öffne die Schublade 引き出し\x1b[2J") == "Offne die Schublade ???? [2J"
    assert len(ascii_text("x" * 10_000)) == 400
