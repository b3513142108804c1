"""What a model is shown of a prefix: padding before it, or as many frames as it always gets."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topreward_ros.core.frames import NS_PER_S, Frame
from topreward_ros.scoring.base import ScorerError, ScorerSettings
from topreward_ros.scoring.checkpoint.checkpoint import open_checkpoint
from topreward_ros.scoring.checkpoint.folder import EMBEDDED_FOLDER
from topreward_ros.scoring.registry import check_wish, load_scorer
from topreward_ros.scoring.shown_video import shown_video

RATE = 2.0
PIXELS = np.zeros((1, 1, 3), np.uint8)
EVEN = st.integers(2, 40).map(lambda half: 2 * half)


def frames(count: int) -> list[Frame]:
    return [Frame(5 * NS_PER_S + round(number / RATE * NS_PER_S), PIXELS) for number in range(count)]


def numbers(prefix: list[Frame], **settings: int) -> list[int]:
    """Which frames of the prefix are shown, by their number."""
    return [prefix.index(shown.frame) for shown in shown_video(prefix, RATE, **settings)]


def test_without_settings_a_prefix_is_shown_as_it_is() -> None:
    prefix = frames(5)
    assert numbers(prefix) == [0, 1, 2, 3, 4]
    assert [shown.seconds for shown in shown_video(prefix, RATE)] == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert shown_video(prefix, RATE) == shown_video(prefix)


def test_padding_shows_the_first_frame_and_then_the_prefix_one_period_later() -> None:
    prefix = frames(3)
    shown = shown_video(prefix, RATE, front_padding=4)
    assert numbers(prefix, front_padding=4) == [0, 0, 0, 0, 0, 1, 2]
    assert [it.seconds for it in shown] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]


def test_frames_that_do_not_come_on_schedule_keep_their_distances_behind_padding() -> None:
    prefix = [Frame(0, PIXELS), Frame(round(7.3 * NS_PER_S), PIXELS)]
    assert [it.seconds for it in shown_video(prefix, RATE, front_padding=2)] == [0.0, 0.5, 1.0, 8.3]


@pytest.mark.parametrize(
    ("count", "length", "expected"),
    [
        (1, 4, [0, 0, 0, 0]),  # the static video of four frames
        (2, 4, [0, 1, 0, 1]),
        (3, 4, [0, 1, 2, 2]),  # an odd last frame makes a pair with itself
        (8, 4, [0, 1, 6, 7]),
        (8, 8, [0, 1, 2, 3, 4, 5, 6, 7]),
        (12, 6, [0, 1, 6, 7, 10, 11]),  # pairs 0, 2.5 and 5: half is rounded up
    ],
)
def test_a_fixed_length_takes_pairs_at_even_distances(count: int, length: int, expected: list[int]) -> None:
    assert numbers(frames(count), fixed_length=length) == expected


@given(count=st.integers(1, 200), length=EVEN)
def test_a_fixed_length_is_that_long_in_order_and_ends_with_the_newest_pair(count: int, length: int) -> None:
    prefix = frames(count)
    shown = numbers(prefix, fixed_length=length)
    assert len(shown) == length
    assert shown[::2] == sorted(shown[::2])  # a pair may be repeated: 0, 1, 0, 1
    assert shown[-1] == count - 1
    assert shown[0] == 0
    pairs = {*zip(shown[::2], shown[1::2], strict=True)}
    assert all(first % 2 == 0 and second in {first + 1, count - 1} for first, second in pairs)
    seconds = [it.seconds for it in shown_video(prefix, RATE, fixed_length=length)]
    assert seconds == [number / RATE for number in range(length)]


@given(count=st.integers(1, 60), other=st.integers(1, 60), length=EVEN)
def test_an_idle_robot_is_shown_as_the_same_video_however_long_it_is_idle(
    count: int, other: int, length: int
) -> None:
    one, another = (
        [(it.frame.image.tobytes(), it.seconds) for it in shown_video(frames(n), RATE, fixed_length=length)]
        for n in (count, other)
    )
    assert one == another


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"front_padding": 8}, "front_padding is 8: .* with max_frames 56 at most a frame keeps its size"),
        ({"front_padding": 8, "max_frames": 56}, ""),
        ({"fixed_length": 64}, ""),
        (
            {"fixed_length": 128},
            "fixed_length is 128: .* with fixed_length 64 at most a frame keeps its size",
        ),
        (
            {"front_padding": 62},
            "front_padding is 62: .* with 60 at most, and fewer max_frames, a frame keeps its size",
        ),
        ({"max_frames": 66}, "max_frames is 66: .* with max_frames 64 at most a frame keeps its size"),
        (
            {"max_frames": 1024},
            "max_frames is 1024: .* at most 2176 of them instead of 34816, .* with max_frames 64 at most",
        ),
        ({"max_frames": 66, "front_padding": 8}, "max_frames is 66: .* with max_frames 56 at most"),
        (
            {"max_frames": 100, "front_padding": 62},
            "front_padding is 62: .* with 60 at most, and fewer max_frames, a frame keeps its size",
        ),
    ],
)
def test_frames_that_are_shown_smaller_are_told(
    settings: ScorerSettings, changes: dict[str, int], said: str
) -> None:
    """The shipped model has the pixels of 64 frames of its size."""
    usual = {"sample_rate": RATE, "max_frames": 64, "max_pixels": 307_200}
    wished = replace(settings, **(usual | changes))  # type: ignore[arg-type]
    advice = check_wish("embedded", wished)
    assert re.match(said, advice) if said else not advice
    checkpoint = open_checkpoint("embedded")
    assert (checkpoint.frame_pixels(wished) == checkpoint.notes.frame_pixels) == (not said)


def test_what_costs_nothing_is_said_by_what_a_checkpoint_has(
    settings: ScorerSettings, tmp_path: Path
) -> None:
    """More than the shipped max_frames is no matter where a video has pixels for them; and one that has few
    gives a frame less from the start, which nobody has chosen."""
    folder = shutil.copytree(EMBEDDED_FOLDER, tmp_path / "model")
    (folder / "topreward.json").unlink()
    file = folder / "video_preprocessor_config.json"
    content = json.loads(file.read_text())
    for pixels, frames, said in (
        (25_165_824, 80, ""),  # those of the released Qwen3-VL: 307,200 for each of 81
        (25_165_824, 256, "at most 98304 of them instead of 307200, .* with max_frames 80 at most"),
        (64_000, 64, ""),
        (64_000, 128, ""),  # no frame is smaller than one unit, of 1024 pixels
        (128_000, 128, "at most 1024 of them instead of 2000, .* with max_frames 64 at most"),
    ):
        file.write_text(json.dumps(content | {"size": {"longest_edge": pixels}}))
        wished = replace(settings, max_frames=frames, max_pixels=307_200)
        advice = check_wish(str(folder), wished)
        assert re.search(said, advice) if said else not advice, (pixels, frames, advice)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"front_padding": 3}, "front_padding is 3: it must be even"),
        ({"fixed_length": 7}, "fixed_length is 7: it must be even"),
        ({"fixed_length": 2}, "fixed_length is 2: it must be at least 4"),
        ({"front_padding": -2}, "front_padding is -2: it must be at least 0"),
        (
            {"front_padding": 8, "fixed_length": 16},
            "front_padding is 8 and fixed_length 16: set one of them to 0",
        ),
        ({"front_padding": 8, "sample_rate": 0.0}, "front_padding is 8: that needs frames at a known rate"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    settings: ScorerSettings, changes: dict[str, float], reason: str
) -> None:
    with pytest.raises(ScorerError, match=reason):
        load_scorer("embedded", replace(settings, **({"sample_rate": RATE} | changes)))  # type: ignore[arg-type]
