"""What a program says where ROS 2 does not start: one line that names file, variable or arguments."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("rclpy")

import rclpy

from topreward_ros.core.errors import UserError
from topreward_ros.nodes import startup


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is no file: give the path of one"),
        (b"monitor: [\n", ", line 2: is no YAML"),
        (b"- monitor\n", "has no section of a node in it"),
        (b"monitor:\n  ros__parameters: {task: \xff}\n", "line 2"),
    ],
)
def test_a_parameter_file_that_cannot_be_read_is_named(
    content: bytes | None, said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "lab.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as error:
        startup.start(["monitor", "--ros-args", "-r", "__ns:=/arm", "--params-file", str(path)])
    assert str(path) in str(error.value) and said in str(error.value)
    assert not rclpy.ok() and not capfd.readouterr().err, "ROS 2 was not asked"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("/monitor:\n  task: lift\n", "has ros__parameters: below it"),
        ("task: lift\n", "a section begins with the name of a node, as in /monitor:"),
        ("ros__parameters:\n  task: lift\n", "a section begins with the name of a node"),
        ("/**:\n  ros__parameters:\n    task:\n", "(No value at line 3): mend it"),
    ],
)
def test_a_parameter_file_that_ros_refuses_is_named_with_how_one_looks(
    content: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text(content)
    with pytest.raises(startup.StartError) as error:
        startup.start(["monitor", "--ros-args", "-r", "__ns:=/arm", "--params-file", str(path)])
    text = str(error.value)
    assert text.startswith(f"--params-file {path} is not read (") and said in text and "\n" not in text


@pytest.mark.parametrize(
    "content",
    [
        "/**:\n  ros__parameters:\n    rate: 3.0\t# a tab\n",
        "/**: {ros__parameters: {task: =}}\n",
        "/**: {ros__parameters: {task: 2026-02-30, other: 0x_}}\n",
        "/**:\n  ros__parameters: {task: a}\n---\n/**:\n  ros__parameters: {task: b}\n",
    ],
)
def test_a_parameter_file_that_ros_takes_is_taken(content: str, tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text(content)
    startup.start(["monitor", "--ros-args", "--params-file", str(path)])
    rclpy.shutdown()


def test_what_ros_says_is_told_without_places_in_its_source_code(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(startup.StartError) as error:
        startup.start(["monitor", "--ros-args", "-r", "x"])
    assert str(error.value).startswith("ROS 2 does not start (--ros-args -r x): ")
    assert ".c:" not in str(error.value)
    monkeypatch.setenv("ROS_DOMAIN_ID", "999")
    with pytest.raises(startup.StartError, match="ROS_DOMAIN_ID=999 is no ROS domain"):
        startup.start(["monitor"])


def test_an_option_of_the_command_behind_those_of_ros_is_named() -> None:
    """ROS 2 takes everything behind --ros-args as its own."""
    arguments = ["topreward", "--ros-args", "-r", "__ns:=/arm", "--disable-rosout-logs", "--timeout", "3"]
    with pytest.raises(
        startup.StartError, match="; --timeout is none of its arguments, so write it before --ros-args"
    ):
        startup.start(arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--ros-args", "--log-level", "info", "--ros-args", "-r", "__ns:=/arm", "-p", "task:=x"], ""),
        ([], ""),
        (["image:=eye"], ""),  # an old remapping, of which ROS 2 speaks
        (["--help"], "nothing: --help"),
        (["--ros-args", "-p", "a:=b", "--", "stray"], "nothing: stray"),
        (["-p"], "nothing: -p"),
        (["-p", "task:=open it", "-x"], "-p 'task:=open it' -x; write --ros-args -p 'task:=open it'"),
        (
            ["-p", "a:=b", "--ros-args", "-p", "c:=d", "--", "--params-file", "lab.yaml"],
            "-p a:=b --params-file lab.yaml; write --ros-args -p a:=b --params-file lab.yaml",
        ),
    ],
)
def test_arguments_outside_of_those_of_ros_are_named(
    arguments: list[str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    startup.start(["/bin/monitor.py", *arguments])
    rclpy.shutdown()
    written = capfd.readouterr().err
    warnings = [line for line in written.splitlines() if "[monitor]: " in line]
    assert [line.endswith(said) for line in warnings] == ([True] if said else [])
