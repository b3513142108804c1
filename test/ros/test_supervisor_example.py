"""examples/supervisor.py as a user starts it: a process of its own, which hears events over DDS.

That an event is acted on once shows in what the process writes, as it has no other output.
"""

from __future__ import annotations

import signal
import subprocess
from itertools import count
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy")

from topreward_ros.msg import TaskEvent

from topreward_ros.defaults import DEMO_TASK, DEMO_VIDEO, shared_file
from topreward_ros.nodes import qos

EXAMPLE = Path(__file__).parents[2] / "examples" / "supervisor.py"
STOPS = "here the policy stops\n"
RETRIES = "here the policy stops and tries again\n"


def start(robot: Any, *arguments: str) -> subprocess.Popen[bytes]:
    """Start the example and wait until it subscribes, beside the robot's own node."""
    process: subprocess.Popen[bytes] = robot.run(str(EXAMPLE), *arguments)
    robot.until(
        lambda: robot.node.count_subscribers("task_event") == 2 or process.poll() is not None,
        "the example subscribes",
    )
    assert process.poll() is None, robot.said(process)
    return process


def test_it_stops_the_policy_once_when_the_robot_of_the_demonstration_succeeds(robot: Any) -> None:
    robot.start_monitor(task=DEMO_TASK)
    example = start(robot)
    robot.start(
        "video_player",
        video=str(shared_file(DEMO_VIDEO)),
        wait_for_subscriber=60.0,
        reset_service="monitor/reset",
    )
    robot.until(lambda: TaskEvent.EPISODE_ENDED in robot.event_types(), "the episode ends")
    (success,) = (event for event in robot.events if event.type == TaskEvent.SUCCESS)
    robot.until(lambda: "EPISODE_ENDED" in robot.said(example), "the example hears the last event")
    said = robot.said(example)
    assert [said.count(f"{name} in episode") for name in ("EPISODE_STARTED", "SUCCESS", "EPISODE_ENDED")] == [
        1, 1, 1,
    ]  # fmt: skip
    assert said.count(STOPS) == 1 and f"'{success.episode_id}': {STOPS}" in said
    assert RETRIES not in said and "did not arrive" not in said
    robot.stop(example, signal.SIGINT)
    assert example.returncode == 0 and "Traceback" not in robot.said(example), robot.said(example)


def test_it_acts_on_no_event_twice_and_on_none_of_an_older_episode(robot: Any) -> None:
    example = start(robot)
    publisher = robot.node.create_publisher(TaskEvent, "task_event", qos.events())
    numbers = count(1)

    def greeted() -> bool:
        """Only what it says tells that it knows of our publisher, as we know of its subscription."""
        # Each in an episode of its own, so that none is missed when one is lost.
        publisher.publish(TaskEvent(sequence=1, episode_id=f"greeting {next(numbers)}"))
        robot.spin(0.1)
        return "in episode 'greeting" in robot.said(example)

    robot.until(greeted, "the example hears us")

    def tell(sequence: int, episode: str, kind: int, text: str = "") -> None:
        publisher.publish(TaskEvent(sequence=sequence, episode_id=episode, type=kind, message=text))

    def hears(text: str) -> str:
        robot.until(lambda: text in robot.said(example), f"the example says {text!r}")
        return str(robot.said(example))

    tell(1, "first", TaskEvent.EPISODE_STARTED)
    tell(2, "first", TaskEvent.SUCCESS)
    tell(2, "first", TaskEvent.SUCCESS)
    tell(3, "first", TaskEvent.EPISODE_ENDED)
    tell(4, "second", TaskEvent.EPISODE_STARTED)
    tell(2, "first", TaskEvent.SUCCESS)
    tell(5, "second", TaskEvent.TIMEOUT, "\x1b[31mred")
    tell(6, "second", TaskEvent.EPISODE_ENDED)
    said = hears("EPISODE_ENDED in episode 'second'")
    assert said.count(STOPS) == 1 and said.count(RETRIES) == 1 and f"'second': {RETRIES}" in said
    assert "did not arrive" not in said and "\x1b[31m" not in said
    # An event is lost on the way, and then the monitor is started again and counts from 1.
    tell(8, "second", TaskEvent.STALE_IMAGES)
    tell(1, "third", TaskEvent.EPISODE_STARTED)
    tell(2, "third", TaskEvent.SUCCESS)
    tell(3, "third", TaskEvent.SCORER_ERROR)
    tell(4, "third", TaskEvent.EPISODE_ENDED)
    said = hears("EPISODE_ENDED in episode 'third'")
    assert said.count("did not arrive") == 1 and "1 events before event 8" in said
    assert f"'third': {STOPS}" in said and said.count(STOPS) == 2
    assert "[WARN]" in said and "[ERROR]" in said


def test_it_listens_in_its_namespace_and_ends_in_order(robot: Any) -> None:
    process = robot.run(str(EXAMPLE), "--ros-args", "-r", "__ns:=/arm")
    robot.until(lambda: "listening to /arm/task_event" in robot.said(process), "it listens")
    robot.stop(process, signal.SIGTERM)
    assert process.returncode == 0 and "Traceback" not in robot.said(process), robot.said(process)
