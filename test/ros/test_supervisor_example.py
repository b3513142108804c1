"""examples/supervisor.py as a user starts it: a process of its own, which hears events over DDS.

That an event is acted on once shows in what the process writes, as it has no other output.
"""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy")

from topreward_ros.msg import TaskEvent, TaskProgress
from topreward_ros.srv import SetTask

from topreward_ros.defaults import DEMO_TASK, DEMO_VIDEO, shared_file
from topreward_ros.nodes import qos

EXAMPLE = Path(__file__).parents[2] / "examples" / "supervisor.py"
STARTS = "here the policy starts"
STOPS = "here the policy stops"
WAITS = "here the policy waits"
GOES_ON = "here the policy goes on"


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
    robot.start_monitor(stale_timeout=60.0)  # the player may take long to start
    example = start(robot, "--ros-args", "-p", f"task:={DEMO_TASK}")
    robot.until(lambda: STARTS in robot.said(example), "the example has its episode")
    robot.start("video_player", video=str(shared_file(DEMO_VIDEO)), wait_for_subscriber=60.0)
    robot.until(lambda: TaskEvent.EPISODE_ENDED in robot.event_types(), "the episode ends")
    (success,) = (event for event in robot.events if event.type == TaskEvent.SUCCESS)
    assert success.instruction == DEMO_TASK and success.episode_id.startswith("supervisor-")
    robot.until(lambda: STOPS in robot.said(example), "the example hears of the success")
    robot.spin(0.5)
    said = robot.said(example)
    assert [said.count(f"{name} in episode") for name in ("EPISODE_STARTED", "SUCCESS")] == [1, 1]
    assert f"'{success.episode_id}': {STOPS} (the task is done)" in said
    assert [said.count(text) for text in (STARTS, STOPS, WAITS)] == [1, 1, 0]
    robot.stop(example, signal.SIGINT)
    assert example.returncode == 0 and "Traceback" not in robot.said(example), robot.said(example)


def test_it_acts_once_on_each_event_of_its_own_episodes_and_on_no_other(robot: Any) -> None:
    """What a monitor may say, by hand: in another order, of others, twice."""
    asked: list[SetTask.Request] = []

    def on_set_task(request: SetTask.Request, response: SetTask.Response) -> SetTask.Response:
        asked.append(request)
        response.success = len(asked) < 3
        response.message = "disabled\x1b[31m"
        return response

    robot.node.create_service(SetTask, "monitor/set_task", on_set_task)
    publisher = robot.node.create_publisher(TaskEvent, "task_event", qos.events())
    states = robot.node.create_publisher(TaskProgress, "task_state", qos.latched())
    example = start(robot, "--ros-args", "-p", "task:=open it")
    robot.until(lambda: STARTS in robot.said(example), "it asks for an episode, and has it")
    assert asked[0].instruction == "open it" and asked[0].episode_id
    robot.until(lambda: publisher.get_subscription_count() == 2, "it hears us")
    first = asked[0].episode_id

    def tell(sequence: int, episode: str, kind: int, text: str = "") -> None:
        publisher.publish(TaskEvent(sequence=sequence, episode_id=episode, type=kind, message=text))

    def hears(text: str, times: int = 1) -> None:
        robot.until(
            lambda: robot.said(example).count(text) == times, f"the example says {text!r} {times} times"
        )

    tell(1, first, TaskEvent.EPISODE_STARTED)
    hears("EPISODE_STARTED in episode")  # so it knows our publisher
    tell(2, "somebody else's", TaskEvent.SUCCESS)
    tell(2, f"{first}0", TaskEvent.SUCCESS)
    tell(3, first, TaskEvent.STALE_IMAGES, "no image comes\x1b[2J")
    tell(3, first, TaskEvent.STALE_IMAGES, "no image comes\x1b[2J")
    hears(WAITS)
    states.publish(TaskProgress(episode_id="somebody else's", state=TaskProgress.RUNNING))
    states.publish(TaskProgress(episode_id=first, state=TaskProgress.STALE))
    states.publish(TaskProgress(episode_id=first, state=TaskProgress.RUNNING))
    hears(GOES_ON)
    tell(4, first, TaskEvent.ABORTED, "image stamps went back by 3.900 s")
    tell(5, first, TaskEvent.EPISODE_ENDED)
    hears(STOPS)
    tell(6, f"{first}.2", TaskEvent.EPISODE_STARTED)
    hears(STARTS, 2)
    tell(7, f"{first}.2", 77)
    tell(8, f"{first}.2", TaskEvent.TIMEOUT)
    hears(STOPS, 2)
    hears(STARTS, 3)
    assert len(asked) == 2 and asked[1].episode_id != first, "another attempt has another name"
    tell(9, first, TaskEvent.SUCCESS)  # of an episode that is over
    tell(10, asked[1].episode_id, TaskEvent.TIMEOUT)
    hears("the monitor refuses the task: 'disabled\\x1b[31m'")
    tell(11, asked[2].episode_id, TaskEvent.TIMEOUT)
    hears("no attempt is left")
    said = robot.said(example)
    assert "the task is done" not in said and said.count(WAITS) == 1 and "event 77 in episode" in said
    assert "\x1b" not in said and "Traceback" not in said and len(asked) == 3


def test_it_listens_in_its_namespace_and_ends_in_order(robot: Any) -> None:
    process = robot.run(str(EXAMPLE), "--ros-args", "-r", "__ns:=/arm")
    robot.until(lambda: "listening to /arm/task_event" in robot.said(process), "it listens")
    robot.stop(process, signal.SIGTERM)
    assert process.returncode == 0 and "Traceback" not in robot.said(process), robot.said(process)


def test_the_listener_of_the_page_hears_how_an_episode_ends(robot: Any) -> None:
    """The code that docs/events.md gives."""
    page = Path(__file__).parents[2] / "docs" / "events.md"
    (code,) = re.findall(
        r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    listener = robot.run("-c", code)
    says = robot.node.create_publisher(TaskEvent, "task_event", qos.events())
    robot.until(lambda: says.get_subscription_count() == 2, "it listens")
    for kind in (TaskEvent.EPISODE_STARTED, TaskEvent.SUCCESS, TaskEvent.EPISODE_ENDED):
        says.publish(TaskEvent(type=kind, episode_id="take-7", progress=0.987))
    robot.until(lambda: "take-7: over, put the scene back" in robot.said(listener), "it hears of the end")
    assert "take-7: done, progress 0.99\n" in robot.said(listener)
