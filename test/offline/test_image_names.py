"""Images of a folder come in the order of their numbers, and what is a guess is said."""

from __future__ import annotations

import random

import pytest

from topreward_ros.offline.image_names import in_order


def stamps(
    count: int = 60, period_ns: int = 33_333_333, start_ns: int = 1_700_000_000_070_000_001
) -> list[int]:
    return [start_ns + k * period_ns for k in range(count)]


CERTAIN = {
    "numbers": ["frame2", "frame10", "frame100"],
    "decimal fractions of unequal length": ["1700000000.05", "1700000000.1", "1700000000.25", "1700000001"],
    "quarters": [f"{k * 0.25!r}" for k in range(20)],
    "seconds as Python writes them": [f"{k / 30 + 1.7e9!r}" for k in range(90)],
    "seconds and nanoseconds without zeros": [f"{t // 10**9}.{t % 10**9}" for t in stamps()],
    "seconds and microseconds without zeros": [f"cam_{t // 10**9}.{t % 10**9 // 1000}" for t in stamps()],
    "part and count": [f"{k // 12 + 1}.{k % 12 + 1}" for k in range(36)],
    "three numbers": ["1.2.9", "1.2.10", "1.10.1"],
    "dates": ["2026-1-2", "2026-01-03", "2026-1-10", "2026-02-01"],
    "dates and times": ["2026-1-1_9-05-00.5", "2026-1-1_10-00-00.05", "2026-1-1_10-00-00.5"],
    "minus": [f"frame_{k}" for k in range(-12, 12)],
    "minus and fraction": ["-1", "-0.5", "-0.25", "0.25", "1"],
    "hexadecimal with 0x": [f"f0x{k:x}" for k in range(8, 30)],
    "digits of other scripts": ["f\u0661", "f\u0662", "f\u0661\u0660"],
    "upper and lower case": ["IMG_1", "img_2", "IMG_3"],
    "sizes": ["9x480", "10x480"],
}


@pytest.mark.parametrize("stems", CERTAIN.values(), ids=CERTAIN)
def test_order_that_is_certain(stems: list[str]) -> None:
    names = [f"{stem}.png" for stem in stems]
    shuffled = random.Random(7).sample(names, len(names))
    assert in_order(shuffled) == (names, [])


UNCERTAIN = {
    "a copy": (["IMG_1.jpg", "IMG_1 (1).jpg", "IMG_2.jpg"], "IMG_1 (1).jpg looks like a copy of IMG_1.jpg"),
    "a copy by Windows": (["IMG_1.jpg", "IMG_1 - Copy.jpg"], "looks like a copy of IMG_1.jpg"),
    "two readings": (["5.25.png", "5.5.png"], "5.25.png is read before 5.5.png, their numbers as decimal"),
    "hexadecimal": ([f"{k:04x}.png" for k in range(7, 30)], "read as hexadecimal numbers, from 0007.png"),
    "no numbers": (["first.png", "last.png", "middle.png"], "alphabetical order"),
    "a stray picture": ([f"{k:03}.png" for k in range(9)] + ["mask.png"], "such as 000.png and mask.png"),
    "two cameras": (["left_1.png", "left_2.png", "right_1.png", "right_2.png"], "a folder of its own"),
    "one number twice": (["1.jpg", "1.png", "2.png"], "1.jpg and 1.png have the same number"),
    "zeros in front or not": (["1.png", "01.png", "2.png"], "have the same number"),
    "a dash everywhere": (["frame_-1.png", "frame_-2.png", "frame_-3.png"], "not taken for a minus"),
}


@pytest.mark.parametrize(("names", "says"), UNCERTAIN.values(), ids=UNCERTAIN)
def test_what_is_a_guess_is_said(names: list[str], says: str) -> None:
    ordered, notes = in_order(random.Random(7).sample(names, len(names)))
    assert ordered == names or says.endswith("same number")
    assert len(notes) == 1 and says in notes[0]


def test_remedy_for_two_readings_is_named_and_works() -> None:
    _, (note,) = in_order(["5.25.png", "5.5.png"])
    assert "two whole numbers" in note and "zeros" in note
    assert in_order(["5.25.png", "5.05.png"]) == (["5.05.png", "5.25.png"], [])


@pytest.mark.parametrize("names", [[], ["a.png"], ["1.png"], ["no.5.png"]])
def test_a_single_name_or_none(names: list[str]) -> None:
    assert in_order(names) == (names, [])
