"""`topreward task` as a real process, beside a real monitor over DDS."""

from __future__ import annotations

import signal

import pytest

pytest.importorskip("rclpy")

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.node import Node
from std_srvs.srv import Trigger
from topreward_ros.msg import TaskProgress

MODULE = "topreward_ros.cli"


def task(robot, *arguments: str) -> tuple[int, str]:
    """The exit status of `topreward task` with ``arguments``, and its last line; before it may stand what it
    waited for."""
    process = robot.run("-m", MODULE, "task", *arguments)
    robot.until(lambda: process.poll() is not None, "it ends")
    return process.returncode, robot.said(process).splitlines()[-1]


def test_a_monitor_is_told_its_task_reset_and_disabled(robot) -> None:
    early = robot.run("-m", MODULE, "task", "open the drawer", "--episode-id", "take-7", "--timeout", "120")
    robot.until(lambda: "waiting for /monitor" in robot.said(early), "it waits for the monitor")
    robot.start_monitor()
    robot.until(lambda: early.poll() is not None, "it is answered")
    assert early.returncode == 0
    assert robot.said(early).splitlines()[-1] == "episode 'take-7': waiting for images"
    robot.until(lambda: robot.states[-1].episode_id == "take-7", "the monitor has the task")

    namespace = ("--ros-args", "-r", "__ns:=/arm1")
    elsewhere = robot.run("-m", MODULE, "task", "x", "--timeout", "8", *namespace)
    status, said = task(robot, "open the drawer", "--episode-id", "take-7")
    assert status == 1 and said.startswith("topreward: /monitor refused: ") and "take-7" in said
    status, said = task(robot, "open the drawer", "opn the drawer")
    assert status == 0 and "does not know the instruction 'opn the drawer'" in said
    assert said.startswith("episode '")
    robot.until(lambda: robot.states[-1].instruction == "open the drawer", "it begins with the first stage")
    status, said = task(robot, "--reset")
    assert status == 0 and said.startswith("episode '")
    assert task(robot, "--disable") == (0, "disabled")
    status, said = task(robot, "--reset")
    assert status == 1 and "refused: disabled" in said
    assert task(robot, "--enable") == (0, "enabled")
    another = Node("monitor", context=robot.context)
    status, said = task(robot, "")
    while status == 0 and said == "idle":  # on a busy machine it may not know the other one yet
        status, said = task(robot, "")
    another.destroy_node()
    assert status == 0 and said.startswith(
        "topreward: 2 nodes are called /monitor: a call reaches all of them"
    )
    robot.until(lambda: robot.states[-1].state == TaskProgress.IDLE, "it is idle")

    robot.until(lambda: elsewhere.poll() is not None, "it gives up")
    said = robot.said(elsewhere).splitlines()[-1]
    assert elsewhere.returncode == 1 and "no /arm1/monitor within 8" in said
    assert said.endswith("there is /monitor: choose it with --ros-args -r __ns:=/")


def test_a_monitor_that_is_not_configured_is_waited_for_until_ctrl_c_and_one_shut_down_not_at_all(
    robot,
) -> None:
    robot.start("monitor", autostart=False)
    process = robot.run("-m", MODULE, "task", "--reset", "--timeout", "300")
    robot.until(
        lambda: "waits for `ros2 lifecycle set /monitor configure`" in robot.said(process), "it says so"
    )
    assert robot.stop(process, signal.SIGINT) < 5.0
    assert process.returncode == 130
    assert robot.said(process).endswith("topreward: stopped by SIGINT\n")
    shut_down = Transition(label="shutdown")
    assert robot.call(ChangeState, "monitor/change_state", transition=shut_down).success
    status, said = task(robot, "--reset")
    assert status == 1 and said.startswith("topreward: given up after ")
    assert said.endswith("its process is to be started again (finalized)")


def test_a_monitor_that_does_not_answer_is_given_up(robot) -> None:
    robot.node.create_service(Trigger, "monitor/reset", lambda _, response: response)
    process = robot.run("-m", MODULE, "task", "--reset", "--timeout", "8")
    process.wait(timeout=60.0)  # without a turn of the node that has the service
    assert process.returncode == 1
    assert "topreward: /monitor has not answered within 8" in robot.said(process)
