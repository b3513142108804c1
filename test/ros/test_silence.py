"""Silence of usable images, over DDS: whatever the reason, the state says STALE and one event says why."""

import re
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from sensor_msgs.msg import Image
from topreward_ros.msg import TaskEvent, TaskProgress

from test.faults.pictures import TASK, picture
from topreward_ros.nodes import qos

STALE_TIMEOUT = 2.0


def pictures(robot, until: Callable[[], bool], **fields: Any) -> float:
    """Publish 20 pictures a second on `image` until something holds; returns how long that took [s]."""
    stamp_ns = fields.pop("stamp_ns", None)
    begun = time.monotonic()
    while not until():
        assert time.monotonic() - begun < 60.0, robot.said(robot.processes[0])
        robot.camera.publish(picture(stamp_ns or time.time_ns(), **fields))
        robot.spin(0.05)
    return time.monotonic() - begun


def stamp_of(message: Any) -> int:
    return int(message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec)


def state(robot) -> int:
    return robot.states[-1].state if robot.states else TaskProgress.UNKNOWN


def set_stale_timeout(robot) -> None:
    """Only now: a machine that is busy may let the first image wait for longer than it."""
    taken, reason = robot.set_parameter("stale_timeout", STALE_TIMEOUT)
    assert taken, reason


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"encoding": "hsv17"}, "hsv17"),
        ({"stamp_ns": 1_700_000_000_000_000_000}, "out of line"),
    ],
)
def test_images_that_cannot_be_used_are_silence(robot, fields: dict[str, Any], reason: str) -> None:
    robot.start_monitor(task=TASK, sample_rate=0.2, episode_timeout=6.0)
    statuses: list[DiagnosticStatus] = []
    robot.node.create_subscription(DiagnosticArray, "/diagnostics", lambda m: statuses.extend(m.status), 10)
    pictures(robot, lambda: state(robot) == TaskProgress.RUNNING)
    set_stale_timeout(robot)
    pictures(robot, lambda: TaskEvent.STALE_IMAGES in robot.event_types(), **fields)
    assert robot.event_types() == [TaskEvent.EPISODE_STARTED, TaskEvent.STALE_IMAGES]
    assert reason in robot.events[-1].message
    pictures(robot, lambda: state(robot) == TaskProgress.STALE, **fields)
    pictures(robot, lambda: any(s.level == b"\x01" and reason in s.message for s in statuses), **fields)
    pictures(robot, lambda: TaskEvent.EPISODE_ENDED in robot.event_types(), **fields)
    assert robot.event_types()[2:] == [TaskEvent.TIMEOUT, TaskEvent.EPISODE_ENDED]
    assert robot.said(robot.processes[0]).count("STALE_IMAGES") == 1
    assert robot.rewards[-1].truncated


def test_the_second_camera_that_falls_silent_is_silence(robot) -> None:
    robot.start_monitor(task=TASK, image_topics=["image", "wrist"], camera_layout="tile")
    wrist = robot.publisher(Image, "wrist", qos.image_source())

    def both_run() -> bool:
        wrist.publish(picture(time.time_ns()))
        return state(robot) == TaskProgress.RUNNING

    pictures(robot, both_run)
    set_stale_timeout(robot)
    pictures(robot, lambda: state(robot) == TaskProgress.STALE)
    robot.until(lambda: TaskEvent.STALE_IMAGES in robot.event_types(), "the event")
    assert "no image on /wrist" in robot.events[-1].message
    pictures(robot, both_run)


def test_a_task_before_a_dead_camera_and_what_stands_of_that(robot) -> None:
    """The silence began with the monitor, not with the task; what is latched must not need to be renewed."""
    statuses: list[DiagnosticStatus] = []
    robot.node.create_subscription(DiagnosticArray, "/diagnostics", lambda m: statuses.extend(m.status), 10)
    monitor = robot.start("monitor", stale_timeout=1.0, diagnostics_rate=5.0)
    robot.until(lambda: "no image on /image since " in robot.said(monitor), "the log says since when")
    robot.spin(2.0)
    robot.say(TASK)
    robot.until(lambda: state(robot) == TaskProgress.STALE, "the state says so")
    robot.spin(1.5)
    told = [it for it in statuses if "no image on /image" in it.message]
    silences = [it for it in told if it.name == "/monitor: images"]
    standing = [robot.states[-1].message, robot.progress[-1].message, robot.events[-1].message]
    times = [re.findall(r"since (\S+ \S+ UTC)", it) for it in [*standing, *(it.message for it in told)]]
    assert all(it == times[0] and len(it) == 1 for it in times) and times[0][0] in robot.said(monitor), times
    assert all(it.startswith("no image that can be used for more than 1 s (stale") for it in standing)
    values = [{it.key: float(it.value) for it in status.values if "[s]" in it.key} for status in silences]
    assert values[-1]["/image silent [s]"] > values[0]["/image silent [s]"] + 2.0
    assert 2.0 < values[-1]["without a usable image [s]"] < values[-1]["/image silent [s]"] - 1.0


def test_a_monitor_that_was_stopped_does_not_blame_the_camera(robot) -> None:
    monitor = robot.start_monitor(task=TASK)
    pictures(robot, lambda: state(robot) == TaskProgress.RUNNING)
    set_stale_timeout(robot)
    monitor.send_signal(signal.SIGSTOP)
    robot.spin(2 * STALE_TIMEOUT)
    monitor.send_signal(signal.SIGCONT)
    pictures(robot, lambda: "this process did not run for" in robot.said(monitor))
    robot.settle()
    assert TaskEvent.STALE_IMAGES not in robot.event_types()
    robot.until(lambda: state(robot) == TaskProgress.STALE, "silence after that is the camera's")


def test_of_two_publishers_one_is_followed_until_it_stops(robot) -> None:
    """Their stamps lie 20 s apart: taken together, every second image began another episode."""
    robot.start_monitor(task=TASK, sample_rate=10.0)
    other = robot.publisher(Image, "image", qos.image_source())
    ours: list[int] = []

    def publish(*, first: bool, second: bool) -> None:
        now_ns, begun = time.time_ns(), time.monotonic()
        if first:
            ours.append(now_ns)
            robot.camera.publish(picture(now_ns))
        robot.spin(0.1)  # a subscription of depth 1 would lose one of two that come at once
        if second and not (first and time.monotonic() - begun > 0.3):  # held up so long, it would look gone
            other.publish(picture(now_ns - 20 * 1_000_000_000))
        robot.spin(0.1)

    while not robot.scored():
        publish(first=True, second=False)
    for _ in range(20):
        publish(first=True, second=True)
    robot.settle()
    assert robot.event_types() == [TaskEvent.EPISODE_STARTED]
    assert {stamp_of(message) for message in robot.scored()} <= set(ours)
    assert "are lost" not in robot.said(robot.processes[0])
    while robot.event_types()[1:] != [TaskEvent.ABORTED, TaskEvent.EPISODE_ENDED, TaskEvent.EPISODE_STARTED]:
        publish(first=False, second=True)
        assert len(robot.event_types()) <= 4
    assert "stamps went back by" in robot.events[1].message


def test_a_second_monitor_of_the_same_name_is_noticed(robot) -> None:
    """The patience with killed processes is shortened here; nothing else."""
    file = robot.folder / "parameters.yaml"
    file.write_text("/**: {ros__parameters: {task: open the drawer}}")
    shortened = (
        "from topreward_ros.nodes import monitor, namesakes; namesakes.KILLED_STAYS_S = 1.0; monitor.main()"
    )
    first = robot.run("-c", shortened, "--ros-args", "--params-file", str(file))
    robot.until(lambda: "model 'embedded'" in robot.said(first), "the first one runs")
    robot.spin(2.0)
    assert "nodes are called" not in robot.said(first)
    second = robot.run("-c", shortened, "--ros-args", "--params-file", str(file))
    robot.until(lambda: "2 nodes are called /monitor" in robot.said(first), "the first one says so")
    robot.until(lambda: "2 nodes are called /monitor" in robot.said(second), "the second one says so")
