"""Ending a monitor by a signal: whoever listens hears how its episode ends, and it goes fast."""

from __future__ import annotations

import signal
import subprocess
import time

import numpy as np
import pytest

pytest.importorskip("rclpy")

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from topreward_ros.msg import TaskEvent, TaskProgress

# The real monitor, with the real scorer; but the scorer's answer to the third request never comes.
HANGS = """
import itertools, time
from topreward_ros.nodes import monitor
load = monitor.load_scorer
def load_what_hangs(*arguments):
    scorer = load(*arguments)
    score, count = scorer.score_all, itertools.count(1)
    scorer.score_all = lambda *asked: score(*asked) if next(count) < 3 else time.sleep(1000.0)
    return scorer
monitor.load_scorer = load_what_hangs
monitor.main()
"""


def play(robot) -> subprocess.Popen[bytes]:
    """Start a camera, and wait until its images are scored."""
    import cv2

    folder = robot.folder / "pictures"
    folder.mkdir()
    for k in range(200):
        cv2.imwrite(str(folder / f"{k}.png"), np.full((48, 64, 3), k, np.uint8))
    robot.until(lambda: bool(robot.infos), "the monitor is active")
    robot.introduce("monitor")  # or the first event goes where nobody listens yet
    player = robot.start("video_player", video=str(folder), rate=30.0, loop=True)
    robot.until(lambda: len(robot.scored()) >= 2, "it scores")
    return player


def twice(robot, process: subprocess.Popen[bytes], with_signal: int) -> float:
    """Send a signal as `ros2 launch` does, which passes on what the terminal sent to all already."""
    process.send_signal(with_signal)
    time.sleep(0.05)
    return robot.stop(process, with_signal)


def change_state(robot, transition: int) -> None:
    answer = robot.call(ChangeState, "monitor/change_state", transition=Transition(id=transition))
    assert answer.success, transition


def assert_the_episode_has_ended(robot, why: str) -> None:
    robot.until(lambda: len(robot.events) >= 3, "the episode ends")
    assert robot.event_types() == [TaskEvent.EPISODE_STARTED, TaskEvent.ABORTED, TaskEvent.EPISODE_ENDED]
    assert why in robot.events[1].message and why in robot.events[2].message
    robot.until(lambda: robot.rewards and robot.rewards[-1].truncated, "its last reward says so")
    assert sum(reward.truncated for reward in robot.rewards) == 1
    robot.until(
        lambda: robot.states[-1].state == TaskProgress.UNKNOWN, "the latched state is no longer RUNNING"
    )


@pytest.mark.parametrize("with_signal", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_mid_score_ends_the_episode(robot, shared_memory, with_signal: int) -> None:
    process = robot.start("monitor", task="stack the cup", sample_rate=20.0)
    player = play(robot)
    segments = shared_memory(process.pid)
    assert twice(robot, process, with_signal) < 3.0
    assert process.returncode == 0, robot.said(process)
    assert_the_episode_has_ended(robot, signal.Signals(with_signal).name)
    assert "Traceback" not in robot.said(process) and "cut off" not in robot.said(process)
    assert not any(segment.exists() for segment in segments), "64 MB of memory lost"
    segments = shared_memory(player.pid)
    assert robot.stop(player, with_signal) < 3.0
    assert player.returncode == 0, robot.said(player)
    assert not any(segment.exists() for segment in segments)


def test_a_signal_while_the_scorer_hangs_ends_the_episode(robot, shared_memory) -> None:
    process = robot.run("-c", HANGS, "--ros-args", "-p", "task:=stack the cup", "-p", "sample_rate:=20.0")
    play(robot)
    robot.spin(0.5)
    assert len(robot.scored()) == 2, "the third never comes"
    segments = shared_memory(process.pid)
    assert twice(robot, process, signal.SIGTERM) < 3.0
    assert process.returncode == 0, robot.said(process)
    assert_the_episode_has_ended(robot, "SIGTERM")
    assert "the scorer of model 'embedded' does not answer; its thread" in robot.said(process)
    assert not any(segment.exists() for segment in segments), "64 MB of memory lost"


def test_another_signal_ends_it_at_once(robot) -> None:
    """The scorer hangs, which is waited for after the first signal."""
    process = robot.run("-c", HANGS, "--ros-args", "-p", "task:=stack the cup", "-p", "sample_rate:=20.0")
    play(robot)
    robot.spin(0.5)
    process.send_signal(signal.SIGINT)
    robot.until(lambda: TaskEvent.EPISODE_ENDED in robot.event_types(), "the episode ends")
    robot.spin(0.7)
    assert process.poll() is None
    robot.stop(process, signal.SIGINT)
    assert process.returncode == 0 and "cut off" in robot.said(process), robot.said(process)


@pytest.mark.parametrize("state", ["loading", "unconfigured", "inactive", "active", "finalized"])
def test_a_signal_ends_it_cleanly_in_every_state(robot, shared_memory, state: str) -> None:
    with_signal = signal.SIGTERM if state in ("unconfigured", "active") else signal.SIGINT
    process = robot.start("monitor", autostart=state in ("loading", "active"), task="stack the cup")
    if state == "loading":
        robot.until(lambda: "loading model" in robot.said(process), "it loads")
    elif state == "inactive":
        change_state(robot, Transition.TRANSITION_CONFIGURE)
    elif state == "active":
        robot.until(lambda: bool(robot.infos), "it is active")
    elif state == "finalized":
        change_state(robot, Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
    else:
        robot.introduce("monitor")
    segments = shared_memory(process.pid)
    assert twice(robot, process, with_signal) < 3.0
    assert process.returncode == 0, robot.said(process)
    assert "Traceback" not in robot.said(process) and "cut off" not in robot.said(process)
    assert not any(segment.exists() for segment in segments), "64 MB of memory lost"
    assert robot.events == []
