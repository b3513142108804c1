"""The launch files, started by the real launch system, watched over DDS."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

# Not `launch` alone: the folder launch/ of this repository would pass for it.
pytest.importorskip("launch.actions", reason="launch is not installed (it is not on PyPI)")
pytest.importorskip("launch_ros.actions", reason="launch_ros is not installed (it is not on PyPI)")

import rclpy
from launch import LaunchContext
from launch.actions import DeclareLaunchArgument
from launch.actions.execute_local import ExecuteLocal
from launch.launch_description_sources import get_launch_description_from_python_launch_file
from launch.utilities import perform_substitutions
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import parameter_value_to_python
from rclpy.parameter_client import AsyncParameterClient
from topreward_ros.msg import TaskProgress

from test.robot import own_domain
from topreward_ros.defaults import (
    DEMO_CLIPS,
    fast_dds_profile_variables,
    monitor_defaults,
    shared_file,
)
from topreward_ros.nodes import qos

pytestmark = pytest.mark.installed

LAUNCH_FILES = sorted(shared_file("launch").glob("*.launch.py"))
START_LIMIT = 60.0  # [s] a machine with two busy cores

# What `ros2 launch FILE name:=value` does, also where ros2cli is not installed.
RUN = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import AnyLaunchDescriptionSource

file, *arguments = sys.argv[1:]
pairs = [tuple(argument.split(":=", 1)) for argument in arguments]
include = IncludeLaunchDescription(AnyLaunchDescriptionSource(file), launch_arguments=pairs)
service = LaunchService(argv=arguments)
service.include_launch_description(LaunchDescription([include]))
sys.exit(service.run())
"""


class Launched:
    """A launch file in a process of its own, and a node of ours on the same ROS domain."""

    def __init__(self, file: str, *arguments: str, **environment: str) -> None:
        domain = own_domain()
        self.context = Context()
        os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        rclpy.init(context=self.context, domain_id=domain)
        self.node = Node("observer", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(shared_file(f"launch/{file}")), *arguments],
            env={**os.environ, "ROS_DOMAIN_ID": str(domain), "OMP_NUM_THREADS": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def wait_until(self, condition: Callable[[], bool], limit: float = START_LIMIT) -> None:
        end = time.monotonic() + limit
        while not condition():
            assert time.monotonic() < end, f"waited for {limit} s\n{self.stop()}"
            self.executor.spin_once(timeout_sec=0.1)

    def parameters(self, node: str, *names: str) -> dict[str, Any]:
        client = AsyncParameterClient(self.node, node)
        self.wait_until(client.services_are_ready)
        answer = client.get_parameters(list(names))
        self.wait_until(answer.done)
        values = map(parameter_value_to_python, answer.result().values)
        return dict(zip(names, values, strict=True))

    def output(self, limit: float) -> str:
        """Everything it wrote, when it has ended by itself within ``limit`` seconds."""
        return self.process.communicate(timeout=limit)[0]

    def stop(self) -> str:
        """End it as Ctrl-C does and return what it wrote."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
        try:
            return self.output(20.0)
        except (subprocess.TimeoutExpired, ValueError):
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
            return ""
        finally:
            rclpy.try_shutdown(context=self.context)


@pytest.fixture
def launched() -> Iterator[Callable[..., Launched]]:
    running: list[Launched] = []

    def start(file: str, *arguments: str, **environment: str) -> Launched:
        running.append(Launched(file, *arguments, **environment))
        return running[-1]

    yield start
    for one in running:
        if one.context.ok():
            one.stop()


def video(path: Path, frames: int) -> Path:
    """Write a short film of a square that crosses the picture, at 10 Hz."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (160, 120))
    for number in range(frames):
        image = np.full((120, 160, 3), 60, np.uint8)
        image[40:80, 2 * number : 2 * number + 40] = (40, 200, 90)
        writer.write(image)
    writer.release()
    return path


@pytest.mark.parametrize("file", LAUNCH_FILES, ids=lambda path: path.name)
def test_every_argument_is_described_and_may_be_left_out(file: Path) -> None:
    description = get_launch_description_from_python_launch_file(str(file))
    arguments = [entity for entity in description.entities if isinstance(entity, DeclareLaunchArgument)]
    assert arguments
    for argument in arguments:
        assert len(argument.description) > 10, argument.name
        argument.execute(LaunchContext())  # its own default is among its choices


@pytest.mark.parametrize("text", ["yes", "{}", "12", "[a, b]", "a: b # c", 'it\'s "done"', "null"])
def test_text_that_reads_like_yaml_arrives_as_text(text: str, launched: Callable[..., Launched]) -> None:
    monitor = launched("monitor.launch.py", f"task:={text}", "autostart:=false")
    assert monitor.parameters("monitor", "task") == {"task": text}


def test_what_is_not_given_is_left_to_the_file_of_defaults(launched: Callable[..., Launched]) -> None:
    monitor = launched("monitor.launch.py", "autostart:=false")
    expected = {**monitor_defaults(), "autostart": False, "use_sim_time": False}
    assert monitor.parameters("monitor", *expected) == expected


def test_arguments_win_over_the_parameter_file_and_the_file_over_the_defaults(
    launched: Callable[..., Launched], tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "/**:\n  ros__parameters:\n    autostart: false\n    task: from the file\n"
        "    model: from the file\n    stale_timeout: 9.0\n    image_topics: [a, b]\n"
    )
    monitor = launched(
        "monitor.launch.py",
        f"params_file:={file}",
        "namespace:=arm",
        "model:=from the argument",
        "image_topic:=/camera/image_raw",
        "image_transport:=compressed",
        "use_sim_time:=true",
    )
    expected = {
        **monitor_defaults(),
        "autostart": False,
        "task": "from the file",
        "stale_timeout": 9.0,
        "model": "from the argument",
        "image_topics": ["/camera/image_raw"],
        "image_transport": "compressed",
        "use_sim_time": True,
    }
    assert monitor.parameters("/arm/monitor", *expected) == expected


@pytest.mark.parametrize(
    "arguments",
    [
        ("use_sim_time:=True", "autostart:=False", "log_level:=WARN"),
        ("use_sim_time:=1", "autostart:=off", "log_level:=Warning", "image_transport:=RAW"),
    ],
)
def test_truths_and_levels_may_be_written_as_in_python(
    arguments: tuple[str, ...], launched: Callable[..., Launched]
) -> None:
    monitor = launched("monitor.launch.py", *arguments)
    expected = {"use_sim_time": True, "autostart": False, "image_transport": "raw"}
    assert monitor.parameters("monitor", *expected) == expected


@pytest.mark.parametrize(
    ("file", "argument", "words"),
    [
        ("monitor.launch.py", "image_transport:=jpeg", "image_transport:=jpeg is none of raw, compressed"),
        ("monitor.launch.py", "autostart:=maybe", "autostart:=maybe is none of true, 1, yes, on, false"),
        ("monitor.launch.py", "log_level:=loud", "log_level:=loud is none of debug, info"),
        ("monitor.launch.py", "params_file:=nowhere.yaml", "params_file:=nowhere.yaml is no file"),
        ("demo.launch.py", "video:=film.mp4", "video:=film.mp4 without task"),
        ("record.launch.py", "recorder:=camera", "recorder:=camera is none of topreward, rosbag2"),
        ("record.launch.py", "options:=--before 'x", "options:=--before 'x has no closing quotation mark"),
        ("record.launch.py", "output:=~no one/bags", "output:=~no one/bags: there is no home folder"),
        ("record.launch.py", "use_sim_time:=maybe", "use_sim_time:=maybe is none of true, 1, yes, on, false"),
        ("supervised.launch.py", "robots:=arm-1 arm2", "arm-1 is no namespace"),
        ("supervised.launch.py", "robots:=[arm, /arm/]", "names arm twice"),
        ("supervised.launch.py", "tasks:=[open, 12]", "tasks:=[open, 12] is no list of texts"),
        ("supervised.launch.py", "task:=open", "give it as tasks:=open"),
        ("supervised.launch.py", "dry_run:=maybe", "dry_run:=maybe is none of true, 1, yes, on, false"),
        ("supervised.launch.py", "record:=maybe", "record:=maybe is none of true, 1, yes, on, false"),
        ("supervised.launch.py", "params_file:=nowhere.yaml", "params_file:=nowhere.yaml is no file"),
    ],
)
def test_a_wrong_argument_is_named_and_nothing_is_started(
    file: str, argument: str, words: str, launched: Callable[..., Launched]
) -> None:
    wrong = launched(file, argument)
    output = wrong.output(START_LIMIT)
    assert words in output
    assert "process started" not in output
    assert wrong.process.returncode == 1


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[list[str]]]:
    """Commands of what a launch file starts with some arguments; nothing is run.

    ``by``: the launch file on the command line, where that is another one.
    """
    commands: list[list[str]] = []

    def keep(process: ExecuteLocal, context: LaunchContext) -> None:
        words = [perform_substitutions(context, part) for part in process.cmd]
        commands.append([Path(word).read_text() if "launch_params_" in word else word for word in words])

    def visit(file: str, *arguments: str, by: str = "") -> list[list[str]]:
        monkeypatch.setattr(sys, "argv", ["ros2", "launch", "topreward_ros", by or file, *arguments])
        context = LaunchContext()
        context.launch_configurations.update(argument.split(":=", 1) for argument in arguments)
        commands.clear()
        waiting = [get_launch_description_from_python_launch_file(str(shared_file(f"launch/{file}")))]
        while waiting:
            waiting[:1] = waiting[0].visit(context) or []
        return list(commands)

    monkeypatch.setattr(ExecuteLocal, "execute", keep)
    return visit


def names_of(file: str) -> set[str]:
    description = get_launch_description_from_python_launch_file(str(shared_file(f"launch/{file}")))
    return {argument.name for argument in description.get_launch_arguments()}


@pytest.mark.parametrize(
    ("file", "included"),
    [
        ("supervised.launch.py", ("monitor.launch.py", "record.launch.py")),
        ("demo.launch.py", ("monitor.launch.py",)),
    ],
)
def test_arguments_of_included_files_are_refused_or_without_effect(
    file: str, included: tuple[str, ...], started: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    others = set[str]().union(*map(names_of, included)) - names_of(file)
    assert {"autostart", "namespace"} <= others
    plain = started(file)
    for name in others:
        with pytest.raises(ValueError, match=f"{name}:=false is no argument of {file}: "):
            started(file, f"{name}:=false")
        assert started(file, f"{name}:=false", by="ours.launch.py") == plain, name
        assert f"{name}:=false is no argument of {file}: " in caplog.messages[-1]


@pytest.mark.parametrize("file", LAUNCH_FILES, ids=lambda path: path.name)
def test_a_misspelt_argument_is_named_with_the_closest(
    file: Path, started: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    right = sorted(names_of(file.name))[0]
    started(file.name, f"{right}s:=x", "sigterm_timeout:=9")
    (said,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert said == f"{right}s:=x is no argument of {file.name} and changes nothing: did you mean {right}?"
    caplog.clear()
    started(file.name, f"{right}s:=x", by="ours.launch.py")
    assert "is no argument" not in caplog.text, "another file may have it"


def test_the_recorder_is_told_the_camera_and_home_folders_are_found(
    started: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "lab.yaml").write_text("/**: {ros__parameters: {stale_timeout: 9.0}}")
    camera = ("image_topic:=/cam", "image_transport:=Compressed", "output:=~/eps")
    (recorder,) = started("record.launch.py", *camera)
    told = ["--image-topic=/cam", "--image-transport=compressed"]
    assert recorder[1:5] == ["record", f"--output={tmp_path}/eps", *told]
    three = started("supervised.launch.py", *camera, "robots:=arm", "params_file:=~/lab.yaml")
    assert three[2][1:5] == ["record", f"--output={tmp_path}/eps/arm", *told]
    assert all(str(tmp_path / "lab.yaml") in command for command in three[:2])
    (rosbag2,) = started("record.launch.py", *camera, "recorder:=rosbag2")
    assert f"{tmp_path}/eps" in rosbag2 and "/cam/compressed" in rosbag2


def test_several_monitors_are_started_as_one_process(started: Callable[..., Any]) -> None:
    (command,) = started("monitor.launch.py", "namespaces:=arm1 arm2", "namespace:=lab", "task:=open it")
    assert Path(command[0]).name == "monitors" and "__ns:=lab" in command
    assert "namespaces: arm1 arm2" in "".join(command) and "task: open it" in "".join(command)


def test_each_robot_has_a_monitor_a_supervisor_and_a_recorder(
    launched: Callable[..., Launched], tmp_path: Path
) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text(
        "/**/monitor:\n  ros__parameters: {stale_timeout: 9.0, autostart: false}\n"
        "/**/supervisor:\n  ros__parameters: {on.STALL: retry 2, autostart: false}\n"
        "/arm2/supervisor:\n  ros__parameters: {max_episodes: 7}\n"
    )
    both = launched(
        "supervised.launch.py",
        "robots:=[arm1, /arm2]",
        'tasks:=["open it\\ntake it out", "yes"]',
        "image_topic:=camera/image_raw",
        "dry_run:=FALSE",
        "log_level:=warning",
        f"params_file:={file}",
        f"output:={tmp_path / 'bags'}",
    )
    for robot, most in (("arm1", 0), ("arm2", 7)):
        monitor = {"image_topics": ["camera/image_raw"], "stale_timeout": 9.0, "task": ""}
        assert both.parameters(f"/{robot}/monitor", *monitor) == monitor
        supervisor = {
            "tasks": ["open it\ntake it out", "yes"],
            "dry_run": False,
            "on.STALL": "retry 2",
            "max_episodes": most,
        }
        assert both.parameters(f"/{robot}/supervisor", *supervisor) == supervisor
        recorder = ("topreward_record", f"/{robot}")
        both.wait_until(lambda recorder=recorder: recorder in both.node.get_node_names_and_namespaces())
    output = both.stop()
    assert (tmp_path / "bags" / "arm1").is_dir() and (tmp_path / "bags" / "arm2").is_dir(), output
    assert both.process.returncode == 0
    assert "Traceback" not in output and "process has died" not in output, output


def environment_of_child(launch_pid: int, program: str) -> dict[str, str]:
    """Environment of the process below ``launch_pid`` that runs ``program``; empty while there is none."""
    children = Path(f"/proc/{launch_pid}/task/{launch_pid}/children").read_text().split()
    for child in children:
        if program in Path(f"/proc/{child}/cmdline").read_text():
            pairs = Path(f"/proc/{child}/environ").read_text().split("\0")
            return dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    return {}


@pytest.mark.parametrize("own", ["", "/my/profile.xml"])
def test_the_profile_for_large_images_is_set_unless_the_user_has_one(
    own: str, launched: Callable[..., Launched], monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = fast_dds_profile_variables(os.environ)
    for variable in variables:
        monkeypatch.delenv(variable, raising=False)
    environment = {variables[0]: own} if own else {}
    monitor = launched("monitor.launch.py", "autostart:=false", **environment)
    seen: dict[str, str] = {}

    def found() -> bool:
        seen.update(environment_of_child(monitor.process.pid, "topreward_ros/monitor"))
        return bool(seen)

    monitor.wait_until(found)
    expected = own or str(shared_file("config/fastdds_large_images.xml"))
    assert Path(seen[variables[0]]).name == Path(expected).name


def test_the_demonstration_scores_its_video_and_ends_by_itself(
    launched: Callable[..., Launched], tmp_path: Path
) -> None:
    film = video(tmp_path / "film.mp4", frames=30)
    demonstration = launched("demo.launch.py", f"video:={film}", "task:=push the square to the right")
    seen: list[TaskProgress] = []
    demonstration.node.create_subscription(TaskProgress, "task_progress", seen.append, qos.progress())
    demonstration.wait_until(lambda: bool(seen and seen[-1].num_frames >= 6), limit=120.0)
    assert seen[-1].instruction == "push the square to the right"
    assert all(message.log_prob <= 0.0 for message in seen if message.num_frames)
    output = demonstration.output(START_LIMIT)
    assert "published 30 frames" in output
    assert "process has died" not in output
    assert demonstration.process.returncode == 0


def test_the_demonstration_plays_a_success_a_failure_and_an_idle_robot(
    launched: Callable[..., Launched],
) -> None:
    output = launched("demo.launch.py").output(180.0)
    said = [
        re.escape(clip.caption) + r"[\s\S]*EPISODE_STARTED[\s\S]*published \d+ frames" for clip in DEMO_CLIPS
    ]
    assert re.search(r"[\s\S]*".join(said), output), output
    assert output.count("EPISODE_STARTED") == 3
    assert "process has died" not in output


def test_the_demonstration_ends_with_the_monitor(launched: Callable[..., Launched], tmp_path: Path) -> None:
    film = video(tmp_path / "film.mp4", frames=30)
    output = launched(
        "demo.launch.py", f"video:={film}", "task:=push", f"model:={tmp_path / 'no model'}"
    ).output(START_LIMIT)
    assert "no model" in output
    assert "published" not in output
