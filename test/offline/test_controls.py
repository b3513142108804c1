"""The films that are made of an episode show what they say."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from test.offline.test_labelled_episodes import write_video
from topreward_ros.core.evaluation import FREEZE_S, Control
from topreward_ros.core.frames import NS_PER_S
from topreward_ros.offline.controls import OtherTasks, control_seconds, open_control
from topreward_ros.offline.video import open_video

RATE, FRAMES = 4.0, 9  # 2 s


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return write_video(tmp_path / "film.mp4", frames=FRAMES)


def shown(film: Path, control: Control) -> tuple[list[float], list[float]]:
    """Times [s] and brightness of the frames of a control."""
    video = open_control(partial(open_video, film), control, sample_rate=2.0)
    frames = [(stamp_ns / NS_PER_S, float(read().mean())) for stamp_ns, read in video]
    again = [(stamp_ns / NS_PER_S, float(read().mean())) for stamp_ns, read in video]
    assert frames == again
    assert all(later > earlier for (earlier, _), (later, _) in pairwise(frames))
    assert frames[-1][0] == pytest.approx(control_seconds(control, (FRAMES - 1) / RATE), abs=0.26)
    return [time for time, _ in frames], [value for _, value in frames]


def test_controls_keep_or_change_what_they_say(film: Path) -> None:
    times, plain = shown(film, Control.PLAIN)
    assert len(plain) == FRAMES and plain == sorted(plain)
    assert shown(film, Control.WRONG_INSTRUCTION) == (times, plain)

    assert shown(film, Control.FASTER) == ([time / 2 for time in times], plain)
    assert shown(film, Control.SLOWER) == ([time * 2 for time in times], plain)
    assert shown(film, Control.REVERSED) == ([0.0, 0.5, 1.0, 1.5, 2.0], plain[::-2])  # those at 2 Hz


def test_an_idle_robot_has_the_noise_of_a_camera(film: Path) -> None:
    _, plain = shown(film, Control.PLAIN)
    times, idle = shown(film, Control.IDLE)
    assert len(times) == FRAMES
    assert max(abs(value - plain[0]) for value in idle) < 0.5
    pictures = [read() for _, read in open_control(partial(open_video, film), Control.IDLE, 2.0)]
    steps = [np.std(after.astype(float) - before) for before, after in pairwise(pictures)]
    assert min(steps) > 2.0  # no two of them are alike


def test_the_picture_stands_still_in_the_middle_and_goes_on(film: Path) -> None:
    times, plain = shown(film, Control.PLAIN)
    frozen_times, frozen = shown(film, Control.FROZEN)
    middle = FRAMES // 2
    held = round(FREEZE_S * RATE)
    assert frozen[: middle + 1] == plain[: middle + 1]
    assert set(frozen[middle : middle + held]) == {plain[middle]}
    assert frozen[middle + held :] == plain[middle + 1 :]
    assert frozen_times[-1] == pytest.approx(times[-1] + FREEZE_S)


def test_the_lens_is_covered_after_a_quarter(film: Path) -> None:
    _, plain = shown(film, Control.PLAIN)
    _, covered = shown(film, Control.COVERED)
    assert covered[:2] == plain[:2]
    assert all(5 < value < 11 for value in covered[2:])


def test_another_task_is_one_of_the_data_in_turn_or_one_that_the_model_knows() -> None:
    several = OtherTasks(("a", "b", "c"))
    assert [several.of("b", place) for place in range(3)] == ["a", "c", "a"]
    assert OtherTasks(("open the drawer",)).of("open the drawer", 0) == ""
    known = ("open the drawer", "close the drawer", "press the button")
    assert OtherTasks(("open the drawer",), known).of("open the drawer", 0) == "press the button"
    assert OtherTasks(("a", "b"), given="wave").of("a", 0) == "wave"
    assert OtherTasks(("a", "b"), given="a").of("a", 0) == ""
    assert OtherTasks(("a", "b"), given="A.").of("a", 0) == ""  # another spelling is no other task
    assert OtherTasks(("Open.", "open", "close")).of("open", 0) == "close"
