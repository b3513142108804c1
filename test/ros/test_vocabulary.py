"""A monitor that is asked for an instruction which its model was not trained on."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from builtin_interfaces.msg import Time
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger
from topreward_ros.srv import SetTask

from topreward_ros.scoring.checkpoint.random_weights import make_random_checkpoint
from topreward_ros.scoring.checkpoint.vocabulary import UNKNOWN_INSTRUCTION

START = 1_700_000_000


@pytest.fixture
def small_model(tmp_path: Path) -> Path:
    """A model that understands two wordings."""
    folder = make_random_checkpoint(tmp_path / "small")
    wordings = {"open the drawer": ["open the drawer", "pull the drawer open"]}
    (folder / "topreward.json").write_text(json.dumps({"instructions": wordings}))
    return folder


def show(robot, second: int) -> None:
    message = Image(width=64, height=48, step=192, encoding="rgb8", data=bytes(64 * 48 * 3))
    message.header.stamp = Time(sec=START + second)
    robot.show(message)


def warnings(robot, process) -> list[str]:
    """The instructions that the monitor warned of."""
    return re.findall(r"\[WARN\].*does not know the instruction '([^']*)'", robot.said(process))


def test_an_unknown_instruction_is_warned_of_once_and_said_with_every_score(robot, small_model) -> None:
    process = robot.start_monitor(model=str(small_model), task="fold the towel", stale_timeout=60.0)
    robot.until(lambda: warnings(robot, process) == ["fold the towel"], "it warns")
    said = robot.said(process)
    assert (
        f"topreward models info {small_model}" in said and "a list of instructions that has none like" in said
    )
    assert "model:=Qwen/Qwen3-VL-8B-Instruct" in said
    for second in range(3):
        show(robot, second)
    assert all(UNKNOWN_INSTRUCTION in message.message for message in robot.scored())

    answer = robot.call(SetTask, "monitor/set_task", instruction="Pull the drawer open.")
    assert answer.success and answer.message == "waiting for images"
    show(robot, 3)
    newest = robot.scored()[-1]
    assert newest.instruction == "Pull the drawer open." and newest.message == "random weights"

    answer = robot.call(SetTask, "monitor/set_task", instruction="open the drawer\nstack the cup")
    assert answer.success and answer.message.startswith("waiting for images; model '"), answer.message
    assert "does not know the instruction 'stack the cup'" in answer.message
    answer = robot.call(SetTask, "monitor/set_task", instruction="open the drawer\nopen drawers")
    assert "'open drawers'" in answer.message and "of which 'open the drawer' is the cl" in answer.message
    show(robot, 4)
    robot.call(Trigger, "monitor/reset")
    robot.call(SetTask, "monitor/set_task", instruction="fold the towel")
    robot.call(SetTask, "monitor/set_task", instruction="")
    assert warnings(robot, process) == ["fold the towel", "stack the cup", "open drawers"]
