"""`topreward record` over DDS, beside a monitor that is played here: what the bags of its episodes hold."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from rosbags.highlevel import AnyReader
from sensor_msgs.msg import CompressedImage, JointState
from std_msgs.msg import String
from topreward_ros.msg import MonitorInfo, TaskEvent, TaskProgress, TaskReward

from test.prepared import completed
from test.robot import Robot
from topreward_ros.core.output_files import left_folders
from topreward_ros.nodes import qos

MODULE = "topreward_ros.cli"
LATCHED = qos.latched()
BEST_EFFORT = QoSProfile(
    depth=5, reliability=QoSReliabilityPolicy.BEST_EFFORT, durability=QoSDurabilityPolicy.VOLATILE
)
TASK = "../öffne\n the drawer"
JPEG = b"\xff\xd8" + bytes(range(256)) * 200


class PlayedMonitor:
    """What a monitor says and what its camera shows, in the hands of a test; and a recorder beside it."""

    def __init__(
        self, robot: Robot, *options: str, before: str = "", camera: Any = None, describes_itself: bool = True
    ) -> None:
        """``camera``: what the recorder hears at first, else that with JPEGs; ``describes_itself``: in
        monitor/info, at once."""
        self.robot = robot
        self.jpeg = JPEG
        self.bags = robot.folder / "bags"
        command = ["record", "--output", str(self.bags), *options]
        code = f"import sys\n{before}\nfrom topreward_ros.cli.main import command\nsys.exit(command())"
        self.recorder = robot.run(*(("-c", code) if before else ("-m", MODULE)), *command)
        made = robot.node.create_publisher
        self.info = made(MonitorInfo, "monitor/info", LATCHED)
        self.state = made(TaskProgress, "task_state", LATCHED)
        self.event = made(TaskEvent, "task_event", qos.events())
        self.progress = made(TaskProgress, "task_progress", qos.progress())
        self.reward = made(TaskReward, "task_reward", qos.progress())
        self.instruction = made(String, "task_instruction", LATCHED)
        self.joints = made(JointState, "joint_states", BEST_EFFORT)
        self.tf_static = made(String, "fixed", LATCHED)
        if describes_itself:
            self.describe()
        self.instruction.publish(String(data=TASK))
        self.tf_static.publish(String(data="here"))
        self.events = self.images = 0
        heard = [self.event, camera or robot.jpeg_camera] if describes_itself or camera else [self.event]
        heard += [self.joints, self.tf_static] if "joint_states" in options else []
        robot.until(lambda: all(one.get_subscription_count() for one in heard), "the recorder listens")
        robot.introduce("topreward_record")

    def describe(self) -> None:
        self.info.publish(MonitorInfo(model_id="played", camera_names=["/image/compressed"]))

    def show(self, seconds: float = 0.0) -> None:
        """Publish images and joints at 20 Hz."""
        for _ in range(max(1, round(20 * seconds))):
            self.show_one()
            self.robot.spin(0.05)

    def show_one(self) -> None:
        self.images += 1
        image = CompressedImage(format="jpeg", data=self.jpeg)
        image.header.stamp.sec = self.images
        self.robot.jpeg_camera.publish(image)
        self.joints.publish(JointState(name=["one"], position=[0.5]))

    def say(self, kind: int, episode: str) -> None:
        """With the stamp of the newest image."""
        self.events += 1
        event = TaskEvent(sequence=self.events, type=kind, episode_id=episode, instruction=TASK)
        event.header.stamp.sec = self.images
        self.event.publish(event)

    def run_episode(self, episode: str, outcome: int) -> None:
        """Two seconds of an episode, with an image that comes just before its start."""
        self.show()
        self.show_one()  # nothing comes between: on a machine that halts, what was before is long ago
        self.say(TaskEvent.EPISODE_STARTED, episode)
        self.show(0.5)
        running = TaskProgress(episode_id=episode, state=TaskProgress.RUNNING, instruction=TASK)
        self.progress.publish(running)
        self.reward.publish(TaskReward(episode_id=episode, reward=-0.5))
        self.show(0.2)
        self.end_episode(episode, outcome)

    def end_episode(self, episode: str, outcome: int) -> None:
        self.say(outcome, episode)
        self.reward.publish(TaskReward(episode_id=episode, reward=0.0, truncated=True))
        self.say(TaskEvent.EPISODE_ENDED, episode)

    def until_saved(self, count: int) -> list[Path]:
        self.robot.until(lambda: len(self.saved()) >= count, f"{count} bags are saved")
        return self.saved()

    def saved(self) -> list[Path]:
        return sorted(path for path in self.bags.glob("*") if path.suffix != ".partial")


def messages(bag: Path) -> list[tuple[str, Any]]:
    """Topics and messages as rosbags reads them; mcap's own decoder reads as many."""
    with AnyReader([bag]) as reader:
        read = [(link.topic, reader.deserialize(raw, link.msgtype)) for link, _, raw in reader.messages()]
    with next(bag.glob("*.mcap")).open("rb") as file:
        decoded = make_reader(file, decoder_factories=[DecoderFactory()]).iter_decoded_messages()
        assert len(list(decoded)) == len(read)
    return read


def about(bag: Path) -> dict[str, str]:
    said = yaml.safe_load((bag / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert said["version"] == 9
    data: dict[str, str] = said["custom_data"]
    return data


def test_a_bag_holds_its_episode_whole_and_no_other(robot: Robot) -> None:
    played = PlayedMonitor(robot, "--topics", "joint_states", "fixed", "late", "--exclude", "timeout")
    played.run_episode("first", TaskEvent.SUCCESS)
    late = robot.node.create_publisher(String, "late", qos.progress())
    robot.until(lambda: late.get_subscription_count() > 0, "a topic that comes later is subscribed to")
    robot.spin(2.0)  # what is latched is no longer among what came lately
    played.run_episode("second", TaskEvent.ABORTED)
    late.publish(String(data="a topic that came later"))
    played.run_episode("third", TaskEvent.TIMEOUT)
    one, other = played.until_saved(2)
    assert one.name.endswith("_öffne_the_drawer_success") and other.name.endswith("_öffne_the_drawer_aborted")
    for bag, episode, outcome in ((one, "first", "success"), (other, "second", "aborted")):
        read = messages(bag)
        counts = Counter(topic for topic, _ in read)
        told = about(bag)
        assert (told["episode_id"], told["outcome"], told["complete"]) == (episode, outcome, "true")
        assert told["task"] == TASK
        assert {message.episode_id for _, message in read if hasattr(message, "episode_id")} == {episode}
        assert [counts[f"/task_{what}"] for what in ("event", "progress", "reward")] == [3, 1, 2]
        assert counts["/monitor/info"] == counts["/fixed"] == counts["/task_instruction"] == 1
        topics = [topic for topic, _ in read]
        start = topics.index("/task_event")
        assert "/image/compressed" in topics[:start], "what came just before the start"
        stamps = [message.header.stamp.sec for topic, message in read if "image" in topic]
        assert stamps == list(range(stamps[0], stamps[-1] + 1)) and len(stamps) >= 15
        assert counts["/joint_states"] >= 10
    assert ("/late", "a topic that came later") in [
        (topic, message.data) for topic, message in messages(other) if topic == "/late"
    ]
    robot.until(lambda: "is not kept: timeout is excluded" in robot.said(played.recorder), "it says so")
    played.say(TaskEvent.EPISODE_STARTED, "the last")
    played.show(0.3)
    played.recorder.send_signal(signal.SIGINT)  # one Ctrl-C ends the monitor, too
    played.end_episode("the last", TaskEvent.ABORTED)
    assert robot.stop(played.recorder) < 3.0
    (last,) = set(played.saved()) - {one, other}
    assert last.name.endswith("_aborted") and about(last)["complete"] == "true"
    ends = [message for topic, message in messages(last) if topic in ("/task_event", "/task_reward")]
    assert {"TaskReward", "TaskEvent"} == {type(message).__name__.split("__")[-1] for message in ends[-2:]}
    assert played.recorder.returncode == 0
    assert len(played.saved()) == 3 and not left_folders(played.bags)
    assert "Traceback" not in robot.said(played.recorder)


@pytest.mark.parametrize(
    ("options", "camera", "complete"),
    [
        (("--image-topic", "image", "--image-transport", "compressed"), "jpeg_camera", "true"),
        (("--image-topic", "image"), "camera", "false: the first frame of the episode is not in the bag"),
        ((), "", "false: the first frame of the episode is not in the bag"),
    ],
    ids=["camera", "wrong camera", "none"],
)
def test_a_camera_that_is_named_need_not_wait_for_the_monitor_to_name_it(
    options: tuple[str, ...], camera: str, complete: str, robot: Robot
) -> None:
    """The episode begins before monitor/info has come."""
    played = PlayedMonitor(robot, *options, camera=camera and getattr(robot, camera), describes_itself=False)
    played.show()
    played.show_one()
    played.say(TaskEvent.EPISODE_STARTED, "early")
    robot.spin(0.3)
    played.describe()
    robot.until(
        lambda: robot.jpeg_camera.get_subscription_count() and not robot.camera.get_subscription_count(),
        "the recorder listens to the camera that the monitor named, and to no other",
    )
    played.show(0.2)
    played.say(TaskEvent.SUCCESS, "early")
    played.say(TaskEvent.EPISODE_ENDED, "early")
    (bag,) = played.until_saved(1)
    assert about(bag)["complete"].startswith(complete)
    stamps = [message.header.stamp.sec for topic, message in messages(bag) if topic == "/image/compressed"]
    assert (1 in stamps) == (complete == "true")
    mend = {
        "jpeg_camera": "",
        "camera": "start the recorder and the camera before",
        "": "--image-topic /image/",
    }
    assert mend[camera] in robot.said(played.recorder)


def test_a_camera_that_is_named_is_recorded_before_the_monitor_describes_itself(robot: Robot) -> None:
    options = ("--topics", "image/compressed", "--after", "0.2")
    played = PlayedMonitor(robot, *options, camera=robot.jpeg_camera, describes_itself=False)
    played.show(0.2)
    played.say(TaskEvent.EPISODE_STARTED, "first")
    played.show(0.2)
    played.describe()
    played.show(0.2)
    for kind in (TaskEvent.SUCCESS, TaskEvent.EPISODE_ENDED):
        played.say(kind, "first")
    (bag,) = played.until_saved(1)
    assert about(bag)["complete"] == "true"
    stamps = [message.header.stamp.sec for topic, message in messages(bag) if "image" in topic]
    assert stamps == list(range(1, played.images + 1))


def test_a_recorder_that_was_stopped_for_a_while_blames_nobody(robot: Robot) -> None:
    """Longer than a monitor may be silent; meanwhile the episode ends."""
    played = PlayedMonitor(robot, "--monitor-timeout", "5", "--after", "0.5")
    played.show(0.2)
    played.say(TaskEvent.EPISODE_STARTED, "held up")
    played.show(0.5)
    played.recorder.send_signal(signal.SIGSTOP)
    played.say(TaskEvent.SUCCESS, "held up")
    played.say(TaskEvent.EPISODE_ENDED, "held up")
    robot.spin(6.0)
    played.recorder.send_signal(signal.SIGCONT)
    (bag,) = played.until_saved(1)
    assert bag.name.endswith("_success"), robot.said(played.recorder)
    stamps = [message.header.stamp.sec for topic, message in messages(bag) if "image" in topic]
    assert about(bag)["complete"] == "true" and stamps[-1] == played.images


def test_one_bag_of_everything_goes_on_through_episodes(robot: Robot) -> None:
    played = PlayedMonitor(robot, "--no-episodes")
    played.run_episode("ends meanwhile", TaskEvent.SUCCESS)
    played.show(1.5)
    played.say(TaskEvent.EPISODE_STARTED, "is open")
    played.show(0.3)
    assert robot.stop(played.recorder) < 3.0 and played.recorder.returncode == 0
    (bag,) = played.saved()
    assert not left_folders(played.bags) and "Traceback" not in robot.said(played.recorder)
    events = [message.episode_id for topic, message in messages(bag) if topic == "/task_event"]
    assert events == ["ends meanwhile"] * 3 + ["is open"]


def test_what_a_killed_recorder_left_is_named_and_recovered(robot: Robot) -> None:
    played = PlayedMonitor(robot)
    played.jpeg = JPEG[:5000]  # not enough for a chunk
    played.say(TaskEvent.EPISODE_STARTED, "killed")
    played.show(2.5)
    assert robot.stop(played.recorder, signal.SIGKILL) < 3.0
    (left,) = left_folders(played.bags)
    again = partial(completed, MODULE, ["record", "--recover", "--output", played.bags], os.environ)
    run = again()
    assert run.returncode == 0, run.stderr
    (bag,) = played.saved()
    assert str(bag) in run.stdout and bag.name.endswith("_öffne_the_drawer_cut") and not left.exists()
    stamps = [message.header.stamp.sec for topic, message in messages(bag) if "image" in topic]
    assert stamps == list(range(1, len(stamps) + 1)) and played.images - len(stamps) < 40
    told = about(bag)
    assert told["complete"].startswith("false: the recorder did not finish it") and told["outcome"] == "cut"
    assert (told["episode_id"], told["task"]) == ("killed", TASK)
    assert sorted(path.suffix for path in bag.iterdir()) == [".mcap", ".yaml"]
    run = again()
    assert run.returncode == 0 and "nothing is left" in run.stdout


def test_a_full_disk_ends_the_recorder_with_what_fits_and_a_monitor_that_goes_away_is_named(
    robot: Robot,
) -> None:
    # Two seconds of images and more: what is written is flushed every second.
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, resource.RLIM_INFINITY))"
    played = PlayedMonitor(robot, before=limit)
    played.say(TaskEvent.EPISODE_STARTED, "short")
    played.show(0.2)
    robot.node.destroy_publisher(played.event)
    (lost,) = played.until_saved(1)
    assert lost.name.endswith("_monitor_lost") and about(lost)["complete"] == "false: the monitor is gone"
    played.event = robot.publisher(TaskEvent, "task_event", qos.events(), to="topreward_record")
    played.say(TaskEvent.EPISODE_STARTED, "long")
    end = time.monotonic() + 30.0
    while played.recorder.poll() is None and time.monotonic() < end:
        played.show(0.2)
    assert played.recorder.returncode == 1
    (cut,) = set(played.saved()) - {lost}
    assert cut.name.endswith("_cut") and "File too large" in about(cut)["complete"]
    assert (about(cut)["outcome"], about(cut)["episode_id"], about(cut)["task"]) == ("cut", "long", TASK)
    images = sum("image" in topic for topic, _ in messages(cut))
    assert images > 5 and images * len(JPEG) < 4_000_000
    assert "File too large" in robot.said(played.recorder) and "Traceback" not in robot.said(played.recorder)


def test_each_topic_holds_its_own_messages_where_rules_lead_from_one_to_another(robot: Robot) -> None:
    """ "left" means /right here, and there is no name for what is on /left."""
    texts = {topic: robot.node.create_publisher(String, topic, LATCHED) for topic in ("/left", "/right")}
    for topic, publisher in texts.items():
        publisher.publish(String(data=topic))
    bags = robot.folder / "bags"
    command = ("record", "--all", "--no-episodes", "--output", str(bags), "--topics", "left")
    recorder = robot.run("-m", MODULE, *command, "--ros-args", "-r", "left:=right")
    robot.until(lambda: "/left cannot be read" in robot.said(recorder), "it says what it cannot record")
    robot.until(lambda: texts["/right"].get_subscription_count() > 0, "the other one is recorded")
    robot.spin(1.0)
    robot.stop(recorder)
    (bag,) = bags.glob("*")
    texts_read = {topic: message.data for topic, message in messages(bag) if topic in texts}
    assert texts_read == {"/right": "/right"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--output", "/proc/nowhere"), "no bag can be written into /proc/nowhere"),
        (("--topics", "not a name"), "'not a name' is not a name"),
        (("--exclude", "timeout", "--no-episodes"), "leave one out"),
        (("--recover", "--output", "nowhere"), "nowhere is no folder"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(arguments: tuple[str, ...], said: str) -> None:
    run = completed(MODULE, ["record", *arguments], os.environ)
    assert run.returncode == 1 and said in run.stderr and run.stderr.count("\n") == 1, run.stderr
