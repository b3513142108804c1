"""The supervisor as a user starts it: a process of its own that hears events and calls services over DDS.

What follows from what is tested in core; here the wire is: types, names, ages, answers, files.
"""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy")

from std_msgs.msg import Bool, String
from std_srvs.srv import SetBool, Trigger
from topreward_ros.msg import SupervisorState, TaskEvent, TaskProgress
from topreward_ros.srv import SetTask

from topreward_ros.nodes import qos


class Around:
    """A monitor and a scene that do as they are told, in the robot's own node."""

    def __init__(self, robot: Any) -> None:
        self.robot = robot
        self.asked: list[SetTask.Request] = []
        self.resets: list[float] = []
        self.refusals = 0
        self.sequence = 0
        self.episode = ""
        self.states: list[SupervisorState] = []
        self.heard: list[Any] = []
        node = robot.node
        node.create_service(SetTask, "monitor/set_task", self.on_set_task)
        self.events = node.create_publisher(TaskEvent, "task_event", qos.events())
        self.reports = node.create_publisher(TaskProgress, "task_progress", qos.progress())
        self.timer = node.create_timer(0.2, self.report)
        node.create_subscription(SupervisorState, "supervisor/state", self.states.append, qos.latched())

    def on_set_task(self, request: SetTask.Request, response: SetTask.Response) -> SetTask.Response:
        self.asked.append(request)
        self.episode = request.episode_id
        response.success, response.episode_id = True, request.episode_id
        return response

    def on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = self.refusals == 0, "the arm\x1b[2J is in the way"
        if self.refusals:
            self.refusals -= 1
        else:
            self.resets.append(time.monotonic())
        return response

    def report(self) -> None:
        state = TaskProgress.RUNNING if self.episode else TaskProgress.IDLE
        self.reports.publish(TaskProgress(episode_id=self.episode, state=state))

    def tell(self, kind: int, episode: str = "", sequence: int = 0, **more: Any) -> None:
        self.sequence += 1
        self.events.publish(
            TaskEvent(
                sequence=sequence or self.sequence, episode_id=episode or self.episode, type=kind, **more
            )
        )

    @property
    def tasks(self) -> list[str]:
        """What the monitor was given to watch."""
        return [request.instruction for request in self.asked if request.instruction]

    @property
    def state(self) -> SupervisorState:
        return self.states[-1]

    def watches(self, episodes: int) -> None:
        self.robot.until(
            lambda: (
                bool(self.states)
                and self.state.state == SupervisorState.WATCHING
                and self.state.episodes == episodes
                and self.state.episode_id == self.episode
            ),
            f"episode {episodes} is watched",
        )

    def hears(self, *said: bool | str) -> None:
        """Wait for what was published, all of it in this order: another topic may be faster."""
        self.robot.until(lambda: [message.data for message in self.heard] == [*said], f"{said} is published")

    def rests(self, state: int) -> None:
        self.robot.until(lambda: bool(self.states) and self.state.state == state, f"its state is {state}")


@pytest.fixture
def around(robot: Any) -> Around:
    return Around(robot)


def test_each_event_acts_once_and_every_call_is_made(robot: Any, around: Around, tmp_path: Path) -> None:
    robot.node.create_service(Trigger, "/scene/reset", around.on_reset)
    robot.node.create_subscription(Bool, "policy/run", around.heard.append, qos.commands())
    robot.node.create_subscription(String, "policy/say", around.heard.append, qos.commands())
    file = tmp_path / "state.json"
    supervisor = robot.start(
        "supervisor",
        dry_run=False,
        tasks=["open it", "close it"],
        act_on_uncalibrated=True,
        reset_calls=["service /scene/reset retries 1"],
        start_calls=["topic policy/run Bool true"],
        end_calls=["topic policy/run Bool false"],
        stop_calls=['topic policy/say String "go home"'],
        state_file=str(file),
        **{"on.TIMEOUT": "retry 1 then stop"},
    )
    around.watches(1)
    assert around.tasks == ["open it"]
    around.hears(True)
    first = around.episode
    around.refusals = 1
    around.tell(TaskEvent.SUCCESS, episode="somebody else's")
    around.tell(TaskEvent.STALL)
    around.tell(TaskEvent.TIMEOUT, stage=2)
    around.tell(TaskEvent.TIMEOUT, sequence=around.sequence)  # the same again
    around.tell(TaskEvent.EPISODE_ENDED)
    around.watches(2)
    assert len(around.resets) == 1 and around.tasks == ["open it"] * 2 and around.episode != first
    assert [request.stage for request in around.asked if request.instruction] == [0, 2]
    around.hears(True, False, True)
    around.tell(TaskEvent.SUCCESS, episode=first)  # late
    around.tell(TaskEvent.SUCCESS)
    around.tell(TaskEvent.EPISODE_ENDED)
    around.watches(3)
    assert len(around.resets) == 2 and around.tasks[-1] == "close it" and around.state.task_index == 1
    assert [(d.reason, d.action) for d in around.state.history] == [
        ("TIMEOUT", "retry (1 of 1)"),
        ("SUCCESS", "next"),
    ]
    assert json.loads(file.read_text())["watch"][0] == around.episode
    # It is killed, and the next one goes on with the same episode.
    robot.stop(supervisor, signal.SIGKILL)
    around.states.clear()
    supervisor = robot.start(
        "supervisor",
        dry_run=False,
        tasks=["open it", "close it"],
        act_on_uncalibrated=True,
        stop_calls=['topic policy/say String "go home"', "service /not/there wait 0"],
        state_file=str(file),
    )
    around.watches(3)
    assert len(around.tasks) == 3 and len(around.state.history) == 2
    around.hears(True, False, True, False, True)
    around.heard.clear()
    robot.until(lambda: "watching on" in robot.said(supervisor), "it goes on")
    robot.introduce("supervisor")
    around.tell(TaskEvent.SUCCESS)
    around.rests(SupervisorState.DONE)
    around.hears("go home")
    assert len(around.tasks) == 3
    supervisor.send_signal(signal.SIGINT)  # Ctrl-C comes twice under `ros2 launch`
    seconds = robot.stop(supervisor, signal.SIGINT)
    said = robot.said(supervisor)
    assert supervisor.returncode == 0 and seconds < 3 and "Traceback" not in said, said
    assert "/not/there" in said and "\x1b" not in said and json.loads(file.read_text())["phase"] == "DONE"


def test_a_dry_run_calls_nothing_and_says_what_it_would_do(robot: Any, around: Around) -> None:
    around.episode = "somebody's"
    robot.node.create_service(Trigger, "/scene/reset", around.on_reset)
    supervisor = robot.start(
        "supervisor", reset_calls=["service /scene/reset"], **{"on.STALL": "reset", "on.OVERDUE": "next"}
    )
    robot.until(lambda: bool(around.states) and around.state.episode_id == "somebody's", "it follows")
    robot.introduce("supervisor")
    around.tell(TaskEvent.SUCCESS)
    around.tell(TaskEvent.STALL)
    robot.until(lambda: "would call service /scene/reset" in robot.said(supervisor), "it says so")
    around.episode = "the next"
    robot.until(lambda: around.state.episode_id == "the next", "it follows the next one")
    said = robot.said(supervisor)
    assert "SUCCESS is not calibrated, and act_on_uncalibrated is false" in said
    assert around.state.dry_run and not around.asked and not around.resets
    assert around.state.history[0].action == "dry run, would reset"
    robot.stop(supervisor)
    assert supervisor.returncode == 0 and not around.asked


def test_the_robot_is_held_at_the_end_though_another_call_cannot_be_made(robot: Any, around: Around) -> None:
    gone = robot.node.create_service(Trigger, "/policy/stop", around.on_reset)
    robot.node.create_subscription(String, "policy/say", around.heard.append, qos.commands())
    supervisor = robot.start(
        "supervisor",
        dry_run=False,
        tasks=["open it"],
        end_calls=["service /policy/stop"],
        stop_calls=['topic policy/say String "hold"'],
    )
    around.watches(1)
    robot.node.destroy_service(gone)
    robot.spin(0.5)
    robot.stop(supervisor, signal.SIGTERM)
    around.hears("hold")
    said = robot.said(supervisor)
    # It waits for most of the time that it has: that it kept within it, it knows better than our clock.
    assert supervisor.returncode == 1 and "cut off" not in said
    assert "not all was done: service /policy/stop: is not there" in said and not around.resets


def test_what_is_wrong_is_said_before_anything_begins(robot: Any, around: Around) -> None:
    robot.node.create_service(SetBool, "/scene/reset", lambda _, response: response)
    wrong = [
        (
            robot.start("supervisor", dry_run=False, tasks=["open it"], reset_calls=["service /scene/reset"]),
            "service /scene/reset cannot be used: /scene/reset is of type std_srvs/srv/SetBool",
        ),
        (robot.start("supervisor", **{"on.SUCESS": "next"}), "on.SUCESS: there is no event"),
        (robot.start("supervisor", dry_run=False), "parameter tasks is empty"),
    ]
    for process, text in wrong:
        robot.until(lambda process=process: process.poll() is not None, "it ends")
        said = robot.said(process)
        assert process.returncode == 1 and text in said and "Traceback" not in said, said
    assert not around.asked
