"""Images of a folder come in the order of their numbers, and what is a guess is said."""

from __future__ import annotations

import random
from uuid import UUID

import pytest

from topreward_ros.offline.image_names import SeveralStreamsError, in_order


def stamps(
    count: int = 60, period_ns: int = 33_333_333, start_ns: int = 1_700_000_000_070_000_001
) -> list[int]:
    return [start_ns + k * period_ns for k in range(count)]


_RANDOM = random.Random(5)
PARTS = [_RANDOM.getrandbits(32) for _ in range(300)]
PARTS_OF_128_BITS = [_RANDOM.getrandbits(128) for _ in range(300)]

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
    "hexadecimal behind a dot": ["1.0x9", "1.0xa", "2.0x1"],
    "digits of other scripts": ["f\u0661", "f\u0662", "f\u0661\u0660"],
    "upper and lower case": ["IMG_1", "img_2", "IMG_3"],
    "sizes": ["9x480", "10x480"],
    "days first": ["30-12-2025", "31-12-2025", "01-01-2026"],
    "days first with times": ["31.12.2025 23.59.58", "31.12.2025 23.59.59", "01.01.2026 00.00.01"],
    "months first": ["12-30-2025", "12-31-2025", "01-01-2026"],
    "days first without separators": ["31122025_235959", "01012026_000001"],
    "days first, short years": ["31-12-25_23-59-59", "01-01-26_00-00-01"],
    "years first, short": ["25-12-31_23-59-59", "26-01-01_00-00-01"],
    "days first, short and without separators": ["311225_235955", "311225_235956", "010126_000000"],
    "years first, short and without separators": ["251231_235955", "251231_235956", "260101_000000"],
    "months first and milliseconds": ["123125-235955120", "123125-235955220", "010126-000000001"],
    "two numbers of six digits": [f"{k:06}_{7 * k + 1:06}" for k in range(12)],
    "episodes of six digits": [f"{k // 3:06}_{k % 3:06}" for k in range(12)],
    "names of months": ["31-Dec-2025", "01-Jan-2026", "Jan 2, 2026", "2026-Jan-03"],
    "twelve hours": [f"2026-01-01 at {t}" for t in ("11.59.58 AM", "12.00.01 PM", "1.00.02 PM")],
    "decimal commas": ["12,05", "12,5", "13", "13,25"],
    "thousands": ["999", "1,000", "1,001", "10,000"],
    "small times as Python writes them": ["0.0", "1e-05", "0.0001", "0.25"],
    "large times as C writes them": ["9.5e+08", "1.7e+09"],
    "small times behind a letter": ["t0", "t1e-05", "t2e-05", "t0.0001", "t0.00011"],
    "a hash behind": [f"{k:04}_{part:08x}" for k, part in enumerate(PARTS)],
    "a hash before": [f"{part:08x}-{k}" for k, part in enumerate(PARTS)],
    "Roboflow": [f"frame_{k:04}_jpg.rf.{part:032x}" for k, part in enumerate(PARTS_OF_128_BITS)],
    "UUIDs": [f"{k}_{UUID(int=part)}" for k, part in enumerate(PARTS_OF_128_BITS)],
    "other words behind": ["000_start", "001_go", "002_grasp now", "003_end 2"],
    "a dash behind a letter": [f"take1e-{k:02}" for k in range(12)],
    "spaces at the end": ["img 1 ", "img  2", "img 10 "],
    "ROS image_saver": [f"frame{k:04}" for k in range(12)],
    "seconds and nanoseconds": [f"{t // 10**9}.{t % 10**9:09}" for t in stamps()],
    "camera, seconds and nanoseconds": [f"cam_{t // 10**9}_{t % 10**9:09}" for t in stamps()],
    "nanoseconds": [f"{t}" for t in stamps()],
    "LeRobot": [f"frame_{k:06}" for k in range(12)],
    "BridgeData": [f"im_{k}" for k in range(12)],
    "one camera with its number": [f"camera1_image_{k}" for k in range(12)],
    "a camera's counter": [f"camera_{k}" for k in range(12)],
    "GoPro": ["G0019998", "G0019999", "G0020000"],
    "phone": ["IMG_20251231_235959", "IMG_20260101_000000"],
    "times of day": [f"{k // 3600:02}-{k // 60 % 60:02}-{k % 60:02}" for k in range(43190, 43300)],
    "two images of a second": ["12-30-05_001", "12-30-05_998"],
    "eight digits": [f"{k:08}" for k in range(1_011_990, 1_012_010)],
    "episodes": [f"episode_{k // 9}_frame_{k % 9}" for k in range(20)],
}


@pytest.mark.parametrize("stems", CERTAIN.values(), ids=CERTAIN)
def test_order_that_is_certain(stems: list[str]) -> None:
    names = [f"{stem}.png" for stem in stems]
    shuffled = random.Random(7).sample(names, len(names))
    assert in_order(shuffled) == (names, [])


UNCERTAIN = {
    "a copy": (["IMG_1.jpg", "IMG_1 (1).jpg", "IMG_2.jpg"], "IMG_1 (1).jpg looks like a copy of IMG_1.jpg"),
    "a copy by Windows": (["IMG_1.jpg", "IMG_1 - Copy.jpg"], "looks like a copy of IMG_1.jpg"),
    "a copy by GNOME": (["IMG_1.jpg", "IMG_1 (copy).jpg"], "looks like a copy of IMG_1.jpg"),
    "a second one": (["1.jpg", "1 (another copy).jpg", "2.jpg"], "looks like a copy of 1.jpg"),
    "a third one": (["1.jpg", "1 (3rd copy).jpg", "2.jpg"], "1 (3rd copy).jpg looks like a copy of 1.jpg"),
    "a copy of a copy": (["1.jpg", "1 (copy 2).jpg", "2.jpg"], "looks like a copy of 1.jpg"),
    "two readings": (["5.25.png", "5.5.png"], "5.25.png is read before 5.5.png, their numbers as decimal"),
    "hexadecimal": ([f"{k:04x}.png" for k in range(7, 30)], "read as hexadecimal numbers, from 0007.png"),
    "no numbers": (["first.png", "last.png", "middle.png"], "alphabetical order"),
    "a stray picture": ([f"{k:03}.png" for k in range(9)] + ["mask.png"], "such as 000.png and mask.png"),
    "two cameras": (["left_1.png", "left_2.png", "right_3.png", "right_4.png"], "a folder of its own"),
    "a counter that starts again": (
        ["DSC_9998.png", "DSC_9999.png", "DSC_0001.png", "DSC_0002.png"],
        "DSC_9999.png comes before DSC_0001.png",
    ),
    "one with lost images": (["990.png", "995.png", "000.png", "005.png"], "995.png comes before 000.png"),
    "one of 16 bits": (["65534.png", "65535.png", "0.png", "1.png"], "65535.png comes before 0.png"),
    "one and strays": (["a.png", "DSC_9999.png", "DSC_0001.png", "DSC_0002.png"], "taken to have started"),
    "two recordings": (
        ["DSC_0001.png", "DSC_0002.png", "DSC_9000.png", "DSC_9001.png"],
        "between DSC_0002.png and DSC_9000.png the numbers jump",
    ),
    "day or month first": (
        ["03-04-2025.png", "04-04-2025.png", "03-05-2025.png"],
        "such as 03-04-2025 are read day first",
    ),
    "day and month first": (["03-04-2025.png", "05-14-2025.png", "31-04-2025.png"], "neither all day"),
    "powers of ten": (["1e-3.png", "2e-3.png", "1e-2.png"], "read as powers of ten"),
    "one number twice": (["1.jpg", "1.png", "2.png"], "1.jpg and 1.png have the same number"),
    "zeros in front or not": (["1.png", "01.png", "2.png"], "have the same number"),
    "a dash everywhere": (["frame_-1.png", "frame_-2.png", "frame_-3.png"], "not taken for a minus"),
}


@pytest.mark.parametrize(("names", "says"), UNCERTAIN.values(), ids=UNCERTAIN)
def test_what_is_a_guess_is_said(names: list[str], says: str) -> None:
    ordered, notes = in_order(random.Random(7).sample(names, len(names)))
    assert ordered == names or says.endswith("same number")
    assert len(notes) == 1 + ("a.png" in names) and says in notes[0]


def test_one_stream_in_two_formats() -> None:
    names = [f"IMG_{k:04}.{'jpg' if k % 3 else 'png'}" for k in range(1, 20)]
    assert in_order(random.Random(7).sample(names, len(names))) == (names, [])
    assert in_order(["IMG_0003.jpg", "IMG_0001.jpg", "IMG_0002.png"])[0][1] == "IMG_0002.png"


def test_dates_of_six_digits_with_two_readings_are_told() -> None:
    _, notes = in_order(["030425_120000.png", "040425_120000.png", "030525_120000.png"])
    assert len(notes) == 1 and "dates such as 030425 are read day first" in notes[0]


STREAMS = {
    "depth and colour": ["depth_1.png", "depth_2.png", "rgb_1.png", "rgb_2.png"],
    "with their own stamps": ["depth_7.1.png", "depth_7.2.png", "rgb_7.15.png", "rgb_7.25.png"],
    "by their last word": ["0.left.png", "0.right.png", "1.left.png", "1.right.png"],
    "by their suffix": ["1.jpg", "1.png", "2.jpg", "2.png"],
    "by their last word, with stamps": ["1_left.png", "2_right.png", "3_left.png", "4_right.png"],
    "by their suffix, one missing": ["1.jpg", "1.png", "2.jpg", "3.jpg", "3.png"],
    "numbered cameras": ["cam0_0001.png", "cam0_0002.png", "cam1_0001.png", "cam1_0002.png"],
    "cameras behind": ["0001_Camera 1.png", "0001_Camera 2.png", "0002_Camera 1.png", "0002_Camera 2.png"],
}


@pytest.mark.parametrize("names", STREAMS.values(), ids=STREAMS)
def test_streams_side_by_side_are_refused(names: list[str]) -> None:
    with pytest.raises(SeveralStreamsError, match=f"such as {names[0]} and .*a folder of its own"):
        in_order(names)


def test_remedy_for_two_readings_is_named_and_works() -> None:
    _, (note,) = in_order(["5.25.png", "5.5.png"])
    assert "two whole numbers" in note and "zeros" in note
    assert in_order(["5.25.png", "5.05.png"]) == (["5.05.png", "5.25.png"], [])


@pytest.mark.parametrize("names", [[], ["a.png"], ["1.png"], ["no.5.png"]])
def test_a_single_name_or_none(names: list[str]) -> None:
    assert in_order(names) == (names, [])
