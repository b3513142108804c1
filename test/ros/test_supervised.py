"""A day of collecting data in small: player, monitor, supervisor, reset service and recorder, each a process.

A task succeeds, the scene is reset, a task of two stages does its first, fails in its second, is reset and
tried again there, and succeeds. Then the bags are read: they hold what happened.
The films are played at four times their speed. Their first picture stays for a while, in which monitor and
recorder get to know a player, and the last one until the supervisor stops it: a slow machine has its time.
"""

from __future__ import annotations

import math
import signal
import subprocess
from pathlib import Path
from typing import Any

import cv2
import pytest
import yaml

pytest.importorskip("rclpy")

from rosbags.highlevel import AnyReader
from std_msgs.msg import Bool
from std_srvs.srv import Trigger
from topreward_ros.msg import SupervisorState, TaskEvent

from test.robot import Robot, stamp_of
from topreward_ros.core.output_files import left_folders
from topreward_ros.nodes import qos
from topreward_ros.offline.video import open_video

CLIPS = Path(__file__).parents[1] / "data" / "clips"
SHOWN, SCORED = 8.0, 4.0  # [Hz] rates of the pictures; two per second of the film are shown
STANDS = 16  # times that the first picture is shown: who knows the player late misses no motion
STAYS = 400  # times that the last one is shown: nobody waits that long
ONE, FIRST, SECOND = "close the window", "open the drawer", "close the drawer"
FILMS = ("window-close-success.mp4", "drawer-open-success.mp4", "drawer-close-success.mp4")

#: A scene that can be put back, and says on a latched topic how often it was.
#: `rclpy.spin` would wait for ever where the signal comes just before it waits: 6 of 300 were seen to.
SCENE = """
import rclpy
from rclpy.executors import ExternalShutdownException
from std_msgs.msg import UInt32
from std_srvs.srv import Trigger
from topreward_ros.nodes import qos

rclpy.init()
node = rclpy.create_node("scene")
count = node.create_publisher(UInt32, "scene/resets", qos.latched())
resets = UInt32()
count.publish(resets)

def reset(_, response):
    resets.data += 1
    count.publish(resets)
    response.success = True
    return response

node.create_service(Trigger, "scene/reset", reset)
try:
    while True:
        rclpy.spin_once(node, timeout_sec=0.1)
except (KeyboardInterrupt, ExternalShutdownException):
    pass
"""


class Policy:
    """Starts and stops the player, which stands for a robot that moves, when the supervisor says so."""

    def __init__(self, robot: Robot) -> None:
        self.robot = robot
        self.starts: list[Bool] = []
        self.player: subprocess.Popen[bytes] | None = None
        robot.node.create_subscription(Bool, "policy/run", self.starts.append, qos.commands())
        robot.node.create_service(Trigger, "policy/stop", self._stop)

    def attempt(self, number: int, film: Path) -> None:
        """Wait for the start of attempt ``number``, from 1, and play a film."""
        self.robot.until(lambda: len(self.starts) >= number, f"attempt {number} is started")
        assert len(self.starts) == number and self.player is None
        self.player = self.robot.start(
            "video_player",
            video=str(film),
            rate=SHOWN,
            image_transport="compressed",
            wait_for_subscriber=60.0,
        )

    def _stop(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """No image comes any more once this is answered."""
        if self.player is not None:
            self.robot.stop(self.player)
        self.player = None
        response.success = True
        return response


def film(folder: Path, clip: str) -> Path:
    """Two pictures per second of a clip as a folder of images, the first and the last of them many times."""
    pictures = folder / clip
    pictures.mkdir()
    video = open_video(CLIPS / clip, 0.0)
    step = round(video.info.rate / 2.0)
    kept = [read() for number, (_, read) in enumerate(video) if number % step == 0]
    quality = [cv2.IMWRITE_JPEG_QUALITY, 98]
    for number, picture in enumerate([kept[0]] * STANDS + kept + [kept[-1]] * STAYS):
        file = pictures / f"{number:04d}.jpg"
        if 0 < number < STANDS or number >= STANDS + len(kept):
            file.hardlink_to(pictures / f"{number - 1:04d}.jpg")
        else:
            cv2.imwrite(str(file), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), quality)
    return pictures


def set_episode_timeout(robot: Robot, seconds: float) -> None:
    taken, reason = robot.set_parameter("episode_timeout", seconds)
    assert taken, reason


class Bag:
    """What a bag holds: topic, time of receipt [ns] and message, in that order of time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with AnyReader([folder]) as reader:
            self.messages: list[tuple[str, int, Any]] = [
                (link.topic, time_ns, reader.deserialize(raw, link.msgtype))
                for link, time_ns, raw in reader.messages()
            ]
        metadata = yaml.safe_load((folder / "metadata.yaml").read_text())
        self.about: dict[str, str] = metadata["rosbag2_bagfile_information"]["custom_data"]

    def of(self, topic: str) -> list[Any]:
        return [message for name, _, message in self.messages if name == topic]

    def newest_at_start(self, topic: str) -> Any:
        """What was latched on a topic when the episode began."""
        begun = next(time_ns for name, time_ns, _ in self.messages if name == "/task_event")
        return [message for name, time_ns, message in self.messages if name == topic and time_ns <= begun][-1]


def test_bags_hold_what_happened_from_success_over_reset_and_failure_to_success(
    robot: Robot, tmp_path: Path
) -> None:
    films = [film(tmp_path, clip) for clip in FILMS]
    bags = tmp_path / "bags"
    policy = Policy(robot)
    states: list[SupervisorState] = []
    robot.node.create_subscription(SupervisorState, "supervisor/state", states.append, qos.latched())
    scene = robot.run("-c", SCENE)
    recorder = robot.run(
        "-m",
        "topreward_ros.cli",
        "record",
        f"--output={bags}",
        "--topics",
        "scene/resets",
        "supervisor/state",
    )
    robot.start_monitor(
        image_transport="compressed",
        sample_rate=SCORED,
        success_threshold=-1.0,  # reached here even where a busy machine leaves scores out
        success_dwell=0.5,
        success_min_scores=2,
        stale_timeout=120.0,  # the player may take long to start
        frozen_timeout=0.0,  # the films begin and end with one picture, held
    )
    robot.until(lambda: robot.jpeg_camera.get_subscription_count() == 2, "monitor and recorder see images")
    robot.introduce("topreward_record")
    supervisor = robot.start(
        "supervisor",
        dry_run=False,
        act_on_uncalibrated=True,
        tasks=[ONE, f"{FIRST}\n{SECOND}"],
        start_calls=["topic policy/run Bool true wait 60"],
        end_calls=["service policy/stop wait 60 timeout 60"],
        reset_calls=["service scene/reset wait 60 timeout 60"],
        monitor_timeout=60.0,
        **{"on.SUCCESS": "next", "on.TIMEOUT": "retry 1"},
    )

    told: list[int] = []  # the types of all events so far

    def happened(*expected: int) -> None:
        """Wait for the next events."""
        told.extend(expected)
        robot.until(lambda: len(robot.events) >= len(told), f"events {expected} come")
        assert robot.event_types() == told

    policy.attempt(1, films[0])
    happened(TaskEvent.EPISODE_STARTED, TaskEvent.SUCCESS, TaskEvent.EPISODE_ENDED)
    policy.attempt(2, films[1])
    happened(TaskEvent.EPISODE_STARTED, TaskEvent.SUBTASK_SUCCESS, TaskEvent.EPISODE_ENDED)
    set_episode_timeout(robot, 1.0)  # the robot does nothing more: the drawer stays open
    happened(TaskEvent.EPISODE_STARTED, TaskEvent.TIMEOUT, TaskEvent.EPISODE_ENDED)
    set_episode_timeout(robot, 0.0)
    policy.attempt(3, films[2])
    happened(TaskEvent.EPISODE_STARTED, TaskEvent.SUCCESS, TaskEvent.EPISODE_ENDED)
    robot.until(lambda: states[-1].state == SupervisorState.DONE, "the supervisor is done")
    robot.until(
        lambda: len([path for path in bags.iterdir() if path.suffix != ".partial"]) == 4, "the bags are saved"
    )
    robot.stop(recorder)
    robot.stop(supervisor)
    assert (recorder.returncode, supervisor.returncode) == (0, 0)
    assert policy.player is None and len(policy.starts) == 3
    robot.stop(scene, signal.SIGTERM)
    assert not left_folders(bags)

    # In the order of their episodes, which is not always that of names: two may begin in one second.
    read = sorted(map(Bag, bags.iterdir()), key=lambda bag: bag.of("/task_event")[0].sequence)
    endings = [bag.folder.name.split("_", 2)[2] for bag in read]
    assert endings == [
        "close_the_window_success",
        "open_the_drawer_subtask_success",
        "close_the_drawer_timeout",
        "close_the_drawer_success",
    ]
    assert [bag.about["outcome"] for bag in read] == ["success", "subtask_success", "timeout", "success"]
    events = [event for bag in read for event in bag.of("/task_event")]
    assert [event.type for event in events] == told
    assert [event.sequence for event in events] == list(range(1, 13))
    names = [bag.about["episode_id"] for bag in read]
    assert len(set(names)) == 4 and names[2] == f"{names[1]}.2"
    assert [bag.about["task"] for bag in read] == [ONE, FIRST, SECOND, SECOND]
    assert [event.stage for event in events] == [1] * 6 + [2] * 6
    assert [event.stages for event in events] == [1] * 3 + [2] * 9
    assert [bag.newest_at_start("/scene/resets").data for bag in read] == [0, 1, 1, 2]
    decided = [(decision.reason, decision.action) for decision in states[-1].history]
    assert decided == [("SUCCESS", "next"), ("TIMEOUT", "retry (1 of 1)"), ("SUCCESS", "next")]
    for bag, known in zip(read, (0, 1, 1, 2), strict=True):
        history = bag.newest_at_start("/supervisor/state").history
        assert [(decision.reason, decision.action) for decision in history] == decided[:known]
    for bag, (lowest, highest), terminated in zip(
        read, ((0.6, 1.0), (0.3, 0.5), (0.5, 0.6), (0.8, 1.0)), (True, True, False, True), strict=True
    ):
        # On a busy machine the recorder may know the camera later than the monitor, and then it says so.
        excused = "messages_lost" in bag.about or "first frame" in bag.about["complete"]
        assert bag.about["complete"] == "true" or excused, bag.about
        check_numbers(robot, bag, lowest, highest, terminated)


def check_numbers(robot: Robot, bag: Bag, lowest: float, highest: float, terminated: bool) -> None:
    """Progress, rewards, images and description of one episode, beside what came live."""
    name = bag.about["episode_id"]
    progress = bag.of("/task_progress")
    assert {message.episode_id for message in progress} - {""} == {name}, "and what was said while idle"
    scored = {stamp_of(message): message for message in progress if message.num_frames}
    live = {stamp_of(message): message for message in robot.scored() if message.episode_id == name}
    assert live and set(live) <= set(scored)
    for stamp, message in live.items():
        assert (message.num_frames, message.log_prob) == (scored[stamp].num_frames, scored[stamp].log_prob)
    assert lowest <= progress[-1].progress <= highest
    rewards = bag.of("/task_reward")
    assert {reward.episode_id for reward in rewards} == {name}
    assert [reward.step for reward in rewards] == list(range(len(rewards)))
    assert {stamp_of(reward) for reward in rewards} == set(scored)
    assert (rewards[-1].terminated, rewards[-1].truncated) == (terminated, not terminated)
    assert not any(reward.terminated or reward.truncated for reward in rewards[:-1])
    total = math.fsum(reward.reward for reward in rewards if math.isfinite(reward.reward))
    assert rewards[-1].episode_return == pytest.approx(total, abs=1e-9)
    images = bag.of("/image/compressed")
    shown = {stamp_of(image) for image in images}
    # A recorder may get to know a player later than the monitor does; from then on it has every picture. What
    # it has of before is of the player of the last episode.
    stamps = sorted(scored)
    known = next(number for number, stamp in enumerate(stamps) if stamp in shown)
    assert set(stamps[known:]) <= shown or "messages_lost" in bag.about, bag.about
    assert len(shown & set(scored)) > len(scored) / 2 or "first frame" in bag.about["complete"]
    assert all(bytes(image.data[:2]) == b"\xff\xd8" for image in images)
    info = bag.newest_at_start("/monitor/info")
    assert info.model_id == "embedded" and info.sample_rate == SCORED and not info.random_weights
    assert list(info.camera_names) == ["/image/compressed"]
