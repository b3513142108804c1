"""Processes that die, stand still, or find the disk full, and clocks that jump, while a monitor watches."""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

pytest.importorskip("rclpy")

import cv2
import numpy as np
from rosgraph_msgs.msg import Clock
from std_srvs.srv import Trigger
from topreward_ros.msg import TaskEvent, TaskProgress

from test.faults.pictures import TASK, picture
from topreward_ros.nodes import qos
from topreward_ros.nodes.conversions import time_message

STALE_TIMEOUT = 1.0


@pytest.fixture(scope="module")
def watching(shared_robot: Any) -> Any:
    """One monitor for all that it survives."""
    shared_robot.start_monitor(task=TASK, sample_rate=10.0, stale_timeout=STALE_TIMEOUT)
    return shared_robot


def state(robot: Any) -> int:
    return int(robot.states[-1].state) if robot.states else TaskProgress.UNKNOWN


def show_until(robot: Any, done: Callable[[], bool], stamps: Callable[[], int] = time.time_ns) -> None:
    end = time.monotonic() + 60.0
    while not done():
        assert time.monotonic() < end, robot.said(robot.processes[0])
        robot.camera.publish(picture(stamps()))
        robot.spin(0.05)


def play(robot: Any) -> Any:
    """Start a player that goes on for ever."""
    folder = robot.folder / "pictures"
    if not folder.exists():
        folder.mkdir()
        for k in range(20):
            cv2.imwrite(str(folder / f"{k}.png"), np.full((48, 64, 3), 10 * k, np.uint8))
    return robot.start("video_player", video=str(folder), rate=20.0, loop=True)


def test_a_player_that_stands_still_or_is_killed_is_silence_and_another_goes_on(watching: Any) -> None:
    robot = watching
    robot.call(Trigger, "monitor/reset")
    robot.settle()
    robot.forget()
    player = play(robot)
    robot.until(lambda: len(robot.scored()) > 3, "images of the player are scored")
    began = [event.type for event in robot.events]
    assert began[-1] == TaskEvent.EPISODE_STARTED, "which may have been silent while the player started"
    robot.events.clear()

    def stale_events() -> list[TaskEvent]:
        return [event for event in robot.events if event.type == TaskEvent.STALE_IMAGES]

    player.send_signal(signal.SIGSTOP)
    robot.until(lambda: state(robot) == TaskProgress.STALE, "a player that stands still is silence")
    player.send_signal(signal.SIGCONT)
    robot.until(lambda: state(robot) == TaskProgress.RUNNING, "it goes on")
    player.kill()
    player.wait()
    robot.until(lambda: state(robot) == TaskProgress.STALE, "a player that was killed is silence")
    play(robot)
    robot.until(lambda: state(robot) == TaskProgress.RUNNING, "another one goes on")
    scores = len(robot.scored())
    robot.until(lambda: len(robot.scored()) > scores + 3, "and is scored")
    assert len(stale_events()) == 2 and all("/image" in event.message for event in stale_events())
    assert set(robot.event_types()) == {TaskEvent.STALE_IMAGES}, "it is one episode"
    robot.stop(robot.processes[-1])


def test_a_full_disk_does_not_disturb_a_monitor(watching: Any) -> None:
    """No file takes another byte, the log that our test reads included. Two bytes would do, none is worse."""
    robot = watching
    process = robot.processes[0]
    written = len(robot.said(process))
    before = resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    robot.call(Trigger, "monitor/reset")
    robot.forget()
    show_until(robot, lambda: len(robot.scored()) > 5)
    robot.call(Trigger, "monitor/reset")
    robot.until(lambda: TaskEvent.EPISODE_ENDED in robot.event_types(), "events come")
    assert len(robot.said(process)) == written, "the disk was not full"
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, before)
    show_until(robot, lambda: len(robot.said(process)) > written)


def test_a_monitor_that_was_killed_leaves_nothing_that_confuses_the_next(robot: Any) -> None:
    first = robot.start_monitor(task=TASK, sample_rate=10.0)
    show_until(robot, lambda: len(robot.scored()) > 2)
    first.kill()
    first.wait()
    old = {message.episode_id for message in robot.progress}
    robot.spin(0.3)
    robot.forget()
    robot.infos.clear()
    robot.start_monitor(task=TASK, sample_rate=10.0)
    show_until(robot, lambda: len(robot.scored()) > 2)
    names = {
        message.episode_id for message in [*robot.progress, *robot.events, *robot.rewards, *robot.states]
    }
    assert len(names) == 1 and not names & old, "the new one's episode, of a name that is new"
    told = [(event.sequence, event.type, event.message) for event in robot.events]
    assert [(number, kind) for number, kind, _ in told] == [(1, TaskEvent.EPISODE_STARTED)], told
    assert [reward.step for reward in robot.rewards] == list(range(len(robot.rewards)))
    late: list[TaskProgress] = []
    robot.node.create_subscription(TaskProgress, "task_state", late.append, qos.latched())
    robot.until(lambda: bool(late), "a late subscriber is told the state")
    assert {message.episode_id for message in late} == names, "and the dead one's is gone"


def test_simulated_time_may_jump_back_and_forth(robot: Any) -> None:
    """Episodes go by the stamps of images. A clock that jumps, stands, or comes back changes no state."""
    clock = robot.node.create_publisher(Clock, "/clock", 10)
    robot.start_monitor(
        task=TASK, sample_rate=10.0, use_sim_time=True, heartbeat_rate=10.0, stale_timeout=30.0
    )
    robot.until(lambda: clock.get_subscription_count() > 0, "it listens to the clock")
    stamps = count(1000 * 10**9, 10**8)

    def tick(seconds: float, images: int = 3) -> None:
        clock.publish(Clock(clock=time_message(round(seconds * 1e9))))
        robot.spin(0.2)
        scores = len(robot.scored())
        show_until(robot, lambda: len(robot.scored()) >= scores + images, lambda: next(stamps))

    tick(1000.0)
    for seconds in (1001.0, 5000.0, 10.0, 1002.0, 2.0**31 - 2, 1.0, 1003.0):
        tick(seconds)
    assert robot.event_types() == [TaskEvent.EPISODE_STARTED]
    assert {message.state for message in robot.progress if message.num_frames} == {TaskProgress.RUNNING}
    sums = [message.elapsed.sec + message.elapsed.nanosec / 1e9 for message in robot.scored()]
    assert sums == sorted(sums) and all(0.0 <= value < 1000.0 for value in sums)
    assert robot.processes[0].poll() is None and "Traceback" not in robot.said(robot.processes[0])
