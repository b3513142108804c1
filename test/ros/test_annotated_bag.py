"""A bag that is played to a live monitor over DDS, and the same bag annotated, have one curve.

There is no player of rosbag2 here: the test publishes the messages of the bag itself, those due one by one,
so that a busy machine does not make the live monitor skip some. Nor are there extra looks, for which a busy
machine may lack the time; test_score_video.py compares these.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy")

from rclpy.serialization import deserialize_message
from rosbags.highlevel import AnyReader
from sensor_msgs.msg import CompressedImage, Image
from topreward_ros.msg import TaskEvent, TaskProgress, TaskReward

from test import bags
from test.robot import stamp_of
from topreward_ros.cli.main import main
from topreward_ros.core.frames import NS_PER_S, FrameSchedule
from topreward_ros.defaults import monitor_defaults
from topreward_ros.nodes import qos
from topreward_ros.offline.camera_images import stamp_ns_of


def annotated(bag: Path, topic: str, kind: type) -> list[Any]:
    """Messages in a bag, read by ROS 2 itself."""
    with AnyReader([bag]) as reader:
        connections = [it for it in reader.connections if it.topic == topic]
        return [deserialize_message(bytes(data), kind) for _, _, data in reader.messages(connections)]


def test_live_and_annotated_curves_are_equal(robot, tmp_path: Path) -> None:
    recorded = [*bags.camera(bags.video_frames(), "/image/compressed"), bags.instruction()]
    bag = bags.write_bag(tmp_path / "bag", recorded)
    settings = ["--set", "scorer_threads=1", "--set", "confirm_rate=0"]
    assert main(["annotate", str(bag), *settings, "--output", str(tmp_path / "out")]) == 0
    robot.start_monitor(scorer_threads=1, confirm_rate=0.0, image_transport="compressed")
    schedule = FrameSchedule(monitor_defaults()["sample_rate"])
    with AnyReader([bag]) as reader:
        for connection, _, data in reader.messages():
            if connection.topic == "/task_instruction":
                robot.say(reader.deserialize(data, connection.msgtype).data)
            elif schedule.observe(stamp_ns_of(data)):
                schedule.take()
                before = len(robot.scored())
                robot.jpeg_camera.publish(deserialize_message(bytes(data), CompressedImage))
                robot.until(
                    lambda before=before: len(robot.scored()) > before and robot.rewarded(), "a score"
                )
                if robot.scored()[-1].state == TaskProgress.SUCCEEDED:
                    break
    robot.until(lambda: TaskEvent.EPISODE_ENDED in robot.event_types(), "the episode ends")

    live = robot.scored()
    scored: dict[int, TaskProgress] = {}
    for message in annotated(tmp_path / "out/bag", "/task_progress", TaskProgress):
        if message.num_frames:
            scored.setdefault(stamp_of(message), message)
    assert [stamp_of(it) for it in live] == list(scored) and len(live) > 10
    for name in ("progress", "log_prob", "log_prob_false", "log_prob_static", "num_frames", "state"):
        ours = [getattr(it, name) for it in scored.values()]
        assert ours == pytest.approx([getattr(it, name) for it in live], abs=1e-4), name
    rewards = annotated(tmp_path / "out/bag", "/task_reward", TaskReward)
    assert [it.reward for it in rewards] == pytest.approx([it.reward for it in robot.rewards], abs=1e-4)
    assert [it.terminated for it in rewards] == [it.terminated for it in robot.rewards]
    events = annotated(tmp_path / "out/bag", "/task_event", TaskEvent)
    assert [(it.type, stamp_of(it)) for it in events] == [(it.type, stamp_of(it)) for it in robot.events]
    assert [it.message for it in events] == [it.message for it in robot.events]


def test_a_second_camera_is_waited_for_as_live(robot, tmp_path: Path) -> None:
    """A second between its images, which come after the primary's: the one before is always too old."""
    frames = [(k * NS_PER_S, image) for k, (_, image) in enumerate(bags.video_frames(seconds=0.5)[:6])]
    late = [(since_ns + NS_PER_S // 20, image[::-1].copy()) for since_ns, image in frames]
    late[3] = (late[3][0] + NS_PER_S // 2, late[3][1])  # longer than camera_max_skew
    recorded = [*bags.camera(frames, compressed=False), *bags.camera(late, "/wrist", compressed=False)]
    bag = bags.write_bag(tmp_path / "bag", recorded)
    tiled = ["camera_layout=tile", "scorer_threads=1"]
    settings = [word for each in tiled for word in ("--set", each)]
    topics = ["--image-topic", "image", "--image-topic", "wrist"]
    command = [
        "annotate",
        str(bag),
        "--task",
        bags.DEMO_TASK,
        *topics,
        *settings,
        "--output",
        str(tmp_path / "out"),
    ]
    assert main(command) == 0

    robot.start_monitor(
        task=bags.DEMO_TASK, image_topics=["image", "wrist"], camera_layout="tile", scorer_threads=1
    )
    cameras = {"/image": robot.camera, "/wrist": robot.publisher(Image, "wrist", qos.image_source())}
    with AnyReader([bag]) as reader:
        for connection, _, data in reader.messages():
            k = (stamp_ns_of(data) - bags.START_NS) // NS_PER_S
            of_wrist = connection.topic == "/wrist"
            if of_wrist:
                robot.spin(0.6 if k == 3 else 0.05)
            cameras[connection.topic].publish(deserialize_message(bytes(data), Image))
            if of_wrist:
                robot.until(lambda k=k: len(robot.scored()) >= (k if k >= 3 else k + 1), "a score")
                robot.settle()

    scored: dict[int, TaskProgress] = {}
    for message in annotated(tmp_path / "out/bag", "/task_progress", TaskProgress):
        if message.num_frames:
            scored.setdefault(stamp_of(message), message)
    assert [(ns - bags.START_NS) // NS_PER_S for ns in scored] == [0, 1, 2, 4, 5]
    assert [stamp_of(it) for it in robot.scored()] == list(scored)
    ours = [it.log_prob for it in scored.values()]
    assert ours == pytest.approx([it.log_prob for it in robot.scored()], abs=1e-4)
