"""Two monitors in one process, on one model: each as if it were alone."""

from __future__ import annotations

import json
import time
from array import array
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import GetParameters
from sensor_msgs.msg import Image
from topreward_ros.msg import MonitorInfo, TaskEvent, TaskProgress
from topreward_ros.srv import SetTask

from topreward_ros.core.frames import FrameSchedule
from topreward_ros.nodes import qos
from topreward_ros.offline.video import open_video
from topreward_ros.scoring.checkpoint.random_weights import make_random_checkpoint

FOLDER = Path(__file__).parents[1] / "data" / "clips"
CLIPS: list[dict[str, Any]] = json.loads((FOLDER / "clips.json").read_text(encoding="utf-8"))
RATE = 2.0  # [Hz]


def image(rgb: Any, stamp: int) -> Image:
    height, width = rgb.shape[:2]
    message = Image(height=height, width=width, encoding="rgb8", step=3 * width)
    message.data = array("B", rgb.tobytes())
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
    return message


class Watched:
    """What a robot sees of a monitor in a namespace, and the camera there."""

    def __init__(self, robot: Any, namespace: str) -> None:
        self.robot, self.namespace = robot, namespace
        self.progress: list[TaskProgress] = []
        self.events: list[TaskEvent] = []
        self.infos: list[MonitorInfo] = []
        node = robot.node
        for kind, topic, profile, store in (
            (TaskProgress, "task_progress", qos.progress(), self.progress),
            (TaskEvent, "task_event", qos.events(), self.events),
            (MonitorInfo, "monitor/info", qos.latched(), self.infos),
        ):
            node.create_subscription(kind, f"{namespace}/{topic}", store.append, profile)
        self.camera = node.create_publisher(Image, f"{namespace}/image", qos.image_source())

    def log_probs(self, episode_id: str) -> dict[int, float]:
        """By the number of frames, of an episode."""
        mine = (message for message in self.progress if message.episode_id == episode_id)
        return {message.num_frames: message.log_prob for message in mine if message.num_frames}

    def event_types(self, episode_id: str) -> list[int]:
        return [event.type for event in self.events if event.episode_id == episode_id]


def diagnosed(robot: Any) -> dict[str, DiagnosticStatus]:
    """The newest status of each name in the diagnostics, from now on."""
    found: dict[str, DiagnosticStatus] = {}
    robot.node.create_subscription(
        DiagnosticArray,
        "/diagnostics",
        lambda array: found.update({status.name: status for status in array.status}),
        10,
    )
    return found


def film(clip: dict[str, Any], start: int) -> list[Image]:
    """The images of a clip that are due."""
    schedule, found = FrameSchedule(RATE), []
    for stamp, read in open_video(FOLDER / clip["file"]):
        if schedule.observe(stamp):
            schedule.take()
            found.append(image(read(), start + stamp))
    return found


def test_two_monitors_of_one_process_score_as_one_alone(robot, tmp_path: Path) -> None:
    robot.clients.clear()
    first, second = (
        next(clip for clip in CLIPS if clip["task"] == task and clip["succeeds"])
        for task in (
            "drawer-open",
            "window-close",
        )
    )
    both = tmp_path / "both.yaml"
    bad = {"sample_rate": 1e9, "window": "all", "stale_timout": 3.0}
    common = {"end_episode_on_success": False, "sample_rate": RATE, "confirm_rate": 0.0}
    both.write_text(
        yaml.safe_dump(
            {
                "/**/monitor": {"ros__parameters": common},
                "/arm2/monitor": {"ros__parameters": {"success_threshold": -0.3}},
                "/amr1/monitor": {"ros__parameters": {"success_threshold": -0.1}},
                "/bad/monitor": {"ros__parameters": bad},
                "/bda/monitor": {"ros__parameters": {"success_threshold": -0.1}},
                "/monitors": {"ros__parameters": {"diagnostics_rate": 1.0, "loop": True}},
                "/worse/monitor": {"ros__parameters": {"model": "/no/such/model"}},
            }
        )
    )
    given = ("--ros-args", "--params-file", str(both))
    process = robot.run(
        "-m", "topreward_ros.nodes.monitors", *given, "-p", "namespaces:=[/bad, /arm1, worse, /arm2]"
    )
    lone = robot.run("-m", "topreward_ros.nodes.monitor", *given, "-r", "__ns:=/alone")
    statuses = diagnosed(robot)
    arm1, arm2, alone = (Watched(robot, namespace) for namespace in ("/arm1", "/arm2", "/alone"))
    robot.until(
        lambda: all(each.infos and each.camera.get_subscription_count() for each in (arm1, arm2, alone)),
        "all are active",
    )
    for each in (arm1, arm2, alone):
        robot.introduce(f"{each.namespace}/monitor")
    assert "monitors: /bad: parameter sample_rate" in robot.said(process), "it alone cannot start"
    robot.until(lambda: "/no/such/model" in robot.said(process), "another one says why it cannot, either")
    for name, why in (
        ("/bad", "parameter sample_rate"),
        ("/worse", "cannot configure: model '/no/such/model'"),
    ):
        robot.until(lambda name=name: f"{name}/monitor: scorer" in statuses, f"{name} is in the diagnostics")
        status = statuses[f"{name}/monitor: scorer"]
        assert status.level == DiagnosticStatus.ERROR and f"nothing is watched: {why}" in status.message
    assert arm1.infos[-1].model_id == arm2.infos[-1].model_id == "embedded"
    thresholds = robot.call(GetParameters, "/arm2/monitor/get_parameters", names=["success_threshold"])
    assert thresholds.values[0].double_value == -0.3, "each has its own parameters"
    assert "parameter namespaces" not in robot.said(process) and "has no parameters" not in robot.said(
        process
    )
    for name, meant in (("/amr1", "/arm1"), ("/bda", "/bad")):
        said = f"the section {name}/monitor is of no node of this process and changes nothing: did you mean"
        assert robot.said(process).count(said) == 1 and f"{said} {meant}/monitor?" in robot.said(process)
    for said in (
        "parameter sample_rate = 1000000000.0: must lie between 0.01 and 60; parameter window = 'all': must",
        "parameter stale_timout is none of /bad/monitor and changes nothing: did you mean stale_timeout?",
        "parameter loop is none of /monitors and changes nothing",
    ):
        assert robot.said(process).count(said) == 1, said
    assert "diagnostics_rate is none" not in robot.said(process), "a file may say it to all"

    def play(shown: list[tuple[Watched, dict[str, Any], str]]) -> Image:
        """Play a clip to each monitor, all at the same time, every frame once all have scored the last.

        Returns one more image of the last of them.
        """
        start = time.time_ns()
        for each, clip, name in shown:
            task = clip["instruction"]
            answer = robot.call(
                SetTask, f"{each.namespace}/monitor/set_task", instruction=task, episode_id=name
            )
            assert answer.success, answer.message
        films = [film(clip, start) for _, clip, _ in shown]
        count = min(map(len, films)) - 1
        for number in range(count):
            for (each, _, _), images in zip(shown, films, strict=True):
                each.camera.publish(images[number])
            robot.until(
                lambda number=number: all(number + 1 in each.log_probs(name) for each, _, name in shown),
                f"image {number} is scored",
            )
        return films[-1][count]

    one_more = play([(arm1, first, "one"), (alone, first, "one"), (arm2, second, "two")])
    play([(alone, second, "two")])
    for each, name in ((arm1, "one"), (arm2, "two")):
        found, expected = each.log_probs(name), alone.log_probs(name)
        assert len(found) > 5 and max(found.values()) - min(found.values()) > 1.0
        assert {count: found[count] for count in found} == pytest.approx(
            {count: expected[count] for count in found}, abs=1e-4
        )
    said = robot.said(process)
    assert said.count("the model was ready after") == 1 and said.count("the model is shared") == 1

    down = robot.call(
        ChangeState, "/arm1/monitor/change_state", transition=Transition(label="deactivate")
    ).success
    down = (
        down
        and robot.call(
            ChangeState, "/arm1/monitor/change_state", transition=Transition(label="cleanup")
        ).success
    )
    assert down
    robot.until(lambda: TaskEvent.EPISODE_ENDED in arm1.event_types("one"), "the first one's episode ends")
    for part in ("images", "scorer"):
        robot.until(
            lambda part=part: "unconfigured" in statuses[f"/arm1/monitor: {part}"].message, f"of its {part}"
        )
    scored = max(arm2.log_probs("two"))
    arm2.camera.publish(one_more)
    robot.until(lambda: scored + 1 in arm2.log_probs("two"), "the other one goes on")
    assert robot.stop(process) < 3.0 and process.returncode == 1, "two could not start"
    robot.until(lambda: TaskEvent.EPISODE_ENDED in arm2.event_types("two"), "it told the end of its episode")
    assert arm2.event_types("two").count(TaskEvent.EPISODE_ENDED) == 1
    assert robot.stop(lone) < 3.0


def test_namespaces_that_cannot_be_are_refused(robot) -> None:
    process = robot.run("-m", "topreward_ros.nodes.monitors", "--ros-args", "-p", "namespaces:=[/arm1,arm1]")
    robot.until(lambda: process.poll() is not None, "it ends")
    text = robot.said(process)
    assert process.returncode == 1 and "monitors: namespaces: /arm1 comes twice" in text, text
    assert "Traceback" not in text


def test_a_misspelt_parameter_of_the_process_is_named(robot) -> None:
    process = robot.run("-m", "topreward_ros.nodes.monitors", "--ros-args", "-p", "namspaces:=[/arm1,/arm2]")
    robot.until(lambda: process.poll() is not None, "it ends")
    text = robot.said(process)
    assert "namspaces is none of /monitors and changes nothing: did you mean namespaces?" in text, text


def test_arguments_that_are_not_understood_are_named(robot) -> None:
    process = robot.run("-m", "topreward_ros.nodes.monitors", "-p", "namespaces:=[/arm1]", "--help")
    robot.until(lambda: process.poll() is not None, "it ends")
    text = robot.said(process)
    assert (
        "change nothing: -p 'namespaces:=[/arm1]' --help; write --ros-args -p 'namespaces:=[/arm1]'" in text
    )
    assert 'as in --ros-args -p namespaces:="[/arm1,/arm2]"' in text, "namespaces is empty then"


def test_a_monitor_that_cannot_be_configured_stays_and_tries_again(robot) -> None:
    """Beside one that waits for somebody to configure it: as long as that may be, the process goes on."""
    robot.clients.clear()
    model = robot.folder / "model"
    file = robot.folder / "lab.yaml"
    both = {"diagnostics_rate": 5.0, "stale_timeout": 0.5, "model": str(model), "compile": True}
    sections = {"/**": both, "/patient/monitor": {"autostart": False}}
    file.write_text(yaml.safe_dump({name: {"ros__parameters": those} for name, those in sections.items()}))
    statuses = diagnosed(robot)
    process = robot.run(
        *("-m", "topreward_ros.nodes.monitors", "--ros-args", "--params-file", str(file)),
        *("-p", "namespaces:=[/eager, /patient]"),
    )

    def scorer() -> DiagnosticStatus:
        return statuses.get("/eager/monitor: scorer", DiagnosticStatus())

    def change(label: str) -> bool:
        return robot.call(
            ChangeState, "/eager/monitor/change_state", transition=Transition(label=label)
        ).success

    def fails() -> bool:
        return scorer().level == DiagnosticStatus.ERROR

    robot.until(fails, "it is told")
    assert "`ros2 lifecycle set /eager/monitor configure` tries the same again; for" in scorer().message
    assert not change("configure")
    statuses.clear()
    robot.until(fails, "it is told again")
    make_random_checkpoint(model)
    assert change("configure"), robot.said(process)
    assert "] [eager.monitor]: compile: true has no effect" in robot.said(process), "what loading warned of"
    robot.until(lambda: "not active" in scorer().message, "it is inactive")
    assert scorer().level == DiagnosticStatus.OK
    eager = Watched(robot, "/eager")
    assert change("activate")
    robot.until(lambda: bool(eager.progress), "it says its state")
    assert eager.progress[0].state == TaskProgress.IDLE, "before the first task"

    def is_silent() -> bool:
        images = statuses.get("/eager/monitor: images", DiagnosticStatus())
        return "no image" in images.message

    robot.until(is_silent, "the camera that is not there is told")
    assert statuses["/eager/monitor: images"].level == DiagnosticStatus.WARN, "nobody is hurt by that"
    assert {value.key: value.value for value in scorer().values}["state"] == "IDLE"
    answer = robot.call(SetTask, "/eager/monitor/set_task", instruction="open the drawer")
    assert answer.success, answer.message
    robot.until(lambda: statuses["/eager/monitor: images"].level == DiagnosticStatus.ERROR, "now somebody is")
    patient = statuses["/patient/monitor: scorer"]
    assert patient.level == DiagnosticStatus.OK and "is unconfigured" in patient.message
    assert robot.stop(process) < 3.0 and process.returncode == 0, robot.said(process)


def test_a_process_in_which_no_monitor_can_start_ends(robot) -> None:
    process = robot.run(
        *("-m", "topreward_ros.nodes.monitors", "--ros-args", "-p", "namespaces:=[/arm1,/arm2]"),
        *("-p", "model:=/no/such/model"),
    )
    assert process.wait(timeout=60) == 1
    assert robot.said(process).count("cannot configure: ") == 2, robot.said(process)
