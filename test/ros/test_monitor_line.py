"""The whole line: a video file, played on a real topic by one process, scored by another, recorded here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")

from topreward_ros.msg import MonitorInfo, TaskEvent, TaskProgress, TaskReward

from topreward_ros.core.frames import FrameSchedule
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.defaults import monitor_defaults
from topreward_ros.offline.score_video import score_video
from topreward_ros.scoring.base import ScorerSettings
from topreward_ros.scoring.checkpoint.vocabulary import UNKNOWN_INSTRUCTION
from topreward_ros.scoring.registry import load_scorer

SECOND = 10**9
REAL_VIDEOS = Path(__file__).parents[3] / "shared" / "data"
TASK = "push the block to the right"


def stamp_of(message: Any) -> int:
    return int(message.header.stamp.sec * SECOND + message.header.stamp.nanosec)


@pytest.fixture(scope="module")
def block_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10 s at 30 Hz: an arm pushes a block, 320x240."""
    path = tmp_path_factory.mktemp("video") / "block.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 30.0, (320, 240))
    for k in range(300):
        picture = np.full((240, 320, 3), (90, 120, 110), np.uint8)
        x = 60 + min(k, 240) * 180 // 240
        cv2.rectangle(picture, (x, 150), (x + 30, 180), (40, 40, 200), -1)
        cv2.line(picture, (160, 0), (x, 150), (220, 220, 220), 6)
        writer.write(picture)
    writer.release()
    return path


def frame_number(stamp: int, first: int) -> int:
    """Which frame was captured at ``stamp`` [ns], counted from the one at ``first``, which is not always 0.

    Best effort may lose the first frames. Each stamp is rounded, so a difference of two is off by up to 1 ns.
    """
    number = round((stamp - first) * 30 / SECOND)
    assert abs(stamp - first - round(number * SECOND / 30)) <= 1, "not a stamp of capture"
    return number


def due_frames() -> list[int]:
    """Numbers of the frames that a monitor at 4 Hz takes from the video."""
    schedule = FrameSchedule(4.0)
    due = []
    for number in range(300):
        if schedule.observe(round(number * SECOND / 30)):
            schedule.take()
            due.append(number)
    return due


def undisturbed(due: list[int], halts: list[Any]) -> set[int]:
    """Of the stamps ``due`` [ns], those of images that were not sent while the machine was held up."""
    found = {stamp for stamp in due if not any(halt.touches(stamp) for halt in halts)}
    assert len(found) >= len(due) // 4, f"a machine that halts all the time tells nothing: {halts}"
    return found


def undisturbed_frames(first: int, halts: list[Any]) -> set[int]:
    """Of the frames that are due, the same, as their numbers; ``first``: the stamp of frame 0 [ns]."""
    stamps = undisturbed([first + round(number * SECOND / 30) for number in due_frames()], halts)
    return {frame_number(stamp, first) for stamp in stamps}


def watch(robot: Any, video: Path, transport: str = "raw", **parameters: Any) -> list[Any]:
    """Play ``video`` to a monitor at 4 Hz; returns what it scored."""
    robot.start_monitor(task=TASK, sample_rate=4.0, image_transport=transport, **parameters)
    player = robot.start("video_player", video=str(video), image_transport=transport)
    robot.until(lambda: player.poll() is not None, "the video has been played")
    assert player.returncode == 0, robot.said(player)
    robot.until_all_is_scored()
    scored: list[Any] = robot.scored()
    return scored


@pytest.mark.parametrize("transport", [pytest.param("raw", marks=pytest.mark.installed), "compressed"])
def test_a_played_video_is_scored_in_order(robot, block_video: Path, transport: str, halts) -> None:
    """At the shipped QoS (best effort): a frame for 90 % of the slots, most often the due one; headers right.

    Only the newest image waits for the monitor. Where other processes held it up, the due frame is gone, and
    the next one takes its slot.
    """
    scored = watch(robot, block_video, transport)
    stamps = [stamp_of(message) for message in scored]
    first = stamp_of(robot.events[0])
    assert len(due_frames()) == 40
    numbers = [frame_number(stamp, first) for stamp in stamps]
    assert numbers == sorted(set(numbers)) and 0 <= numbers[0] <= numbers[-1] < 300
    expected = undisturbed_frames(first, halts)
    early, period = 30 / 16, 30 / 4  # [frames]: one may come a quarter of a period before its slot
    taken = [any(-early <= number - slot < period - early for number in numbers) for slot in expected]
    assert sum(taken) >= 0.9 * len(expected), "slots without a frame"
    assert len(set(numbers) & expected) >= 0.5 * len(expected), "few of the due frames themselves"

    assert {message.episode_id for message in scored} == {robot.events[0].episode_id} != {""}
    assert {message.instruction for message in scored} == {TASK}
    assert [event.sequence for event in robot.events] == list(range(1, len(robot.events) + 1))
    assert robot.events[0].type == TaskEvent.EPISODE_STARTED
    assert all(message.header.frame_id == "camera" for message in scored)
    assert {message.message for message in scored} == {UNKNOWN_INSTRUCTION}
    elapsed = [message.elapsed.sec * SECOND + message.elapsed.nanosec for message in scored]
    assert elapsed == [stamp - first for stamp in stamps]
    assert all(0 < message.latency.sec * SECOND + message.latency.nanosec < 30 * SECOND for message in scored)

    assert [reward.step for reward in robot.rewards] == list(range(len(scored)))
    assert [stamp_of(reward) for reward in robot.rewards] == stamps
    assert {reward.type for reward in robot.rewards} == {TaskReward.PROGRESS_DELTA}
    assert {message.data for message in robot.progress_values} >= {message.progress for message in scored}
    assert robot.states[-1].state == TaskProgress.RUNNING
    info: MonitorInfo = robot.infos[-1]
    assert not info.random_weights and info.model_id == "embedded" and info.sample_rate == 4.0


def test_the_live_curve_is_the_curve_of_the_file(robot, block_video: Path, halts) -> None:
    """Same frames, same numbers. A lost frame would change the prefix, so here none may be lost."""
    lossless = {
        "qos_overrides./image.subscription.reliability": "reliable",
        "qos_overrides./image.subscription.depth": 100,
    }
    scored = watch(robot, block_video, **lossless)
    first = stamp_of(scored[0])
    live = {frame_number(stamp_of(message), first): message for message in scored}
    expected = undisturbed_frames(first, halts)
    assert len(set(live) & expected) >= 0.9 * len(expected)

    parameters = {**monitor_defaults(), "sample_rate": 4.0}
    scorer = load_scorer("embedded", ScorerSettings.from_parameters(parameters))
    curve = score_video(block_video, TASK, scorer, MonitorSettings.from_parameters(parameters))
    offline = {frame_number(round(point.time_s * SECOND), 0): point for point in curve.points}
    assert sorted(offline) == due_frames()
    assert set(live) <= set(offline)
    for number, message in live.items():
        point = offline[number]
        assert message.num_frames == point.num_frames
        assert message.log_prob == pytest.approx(point.score.log_prob, abs=1e-4)
        assert message.log_prob_false == pytest.approx(point.score.log_prob_false, abs=1e-4)
        assert message.log_prob_static == pytest.approx(point.score.log_prob_static, abs=1e-4)
        assert message.progress == pytest.approx(point.progress, abs=1e-4)
    assert len({message.log_prob for message in scored}) > 20, "the score does not depend on the video"


@pytest.mark.skipif(not REAL_VIDEOS.is_dir(), reason=f"no real robot videos in {REAL_VIDEOS.name}")
def test_a_real_robot_video(robot, halts) -> None:
    robot.start_monitor(task="Stack the cup.")
    player = robot.start("video_player", video=str(REAL_VIDEOS / "stack_cup.mp4"))
    robot.until(lambda: player.poll() is not None, "the video has been played")
    robot.until_all_is_scored()
    scored = robot.scored()
    since_first = [(stamp_of(message) - stamp_of(scored[0])) / SECOND for message in scored]
    assert since_first == pytest.approx([round(t, 1) for t in since_first]), "not a stamp of capture"
    first = stamp_of(scored[0])
    due = undisturbed([first + k * SECOND // 2 for k in range(7)], halts)  # 3.2 s at 2 Hz
    on_time = {t for t in since_first if t == pytest.approx(0.5 * round(2.0 * t))}
    missed = [stamp for stamp in due if not any(abs(first + t * SECOND - stamp) < 1e6 for t in on_time)]
    assert len(missed) <= 1
