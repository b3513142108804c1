"""Topics as people copy them from `ros2 topic list`: raw or compressed, whichever is there, and whenever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")

from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import Trigger

from topreward_ros.nodes import cameras, qos
from topreward_ros.nodes.image_topics import places

START = 1_700_000_000
TASK = "open the drawer"
TYPES = {"raw": Image, "compressed": CompressedImage, "info": CameraInfo}


class Source:
    """A camera's publisher."""

    def __init__(self, robot: Any, topic: str, kind: str) -> None:
        self.topic, self.kind = topic, kind
        self.publisher = robot.node.create_publisher(TYPES[kind], topic, qos.image_source())

    def send(self, k: int) -> None:
        message = TYPES[self.kind]()
        message.header.stamp = Time(sec=START + k)
        picture = np.full((48, 64, 3), 90, np.uint8)
        if self.kind == "compressed":
            message.format = "rgb8; jpeg compressed bgr8"
            message.data = cv2.imencode(".jpg", picture)[1].tobytes()
        elif self.kind == "raw":
            message.width, message.height, message.step, message.encoding = 64, 48, 192, "rgb8"
            message.data = picture.tobytes()
        self.publisher.publish(message)


def until_read(robot: Any, topic: str) -> None:
    robot.until(
        lambda: bool(robot.infos) and list(robot.infos[-1].camera_names) == [topic], f"{topic} is read"
    )


def until_scored(robot: Any, source: Source) -> None:
    robot.until(lambda: source.publisher.get_subscription_count() > 0, f"{source.topic} is subscribed to")
    robot.introduce("monitor")
    robot.call(Trigger, "monitor/reset")
    before = len(robot.scored())
    source.send(before)
    robot.until(lambda: len(robot.scored()) > before, f"images on {source.topic} are scored")


@pytest.mark.parametrize(
    ("named", "transport", "published", "read"),
    [
        ("/camera/image_raw/compressed", "raw", {"/camera/image_raw/compressed": "compressed"}, None),
        ("/camera/image_raw/compressed/", "compressed", {"/camera/image_raw/compressed": "compressed"}, None),
        (
            "/camera/image_raw/compressed",
            "raw",
            {"/camera/image_raw/compressed": "compressed", "/camera/image_raw": "raw"},
            "/camera/image_raw/compressed",
        ),
        ("camera/image_raw", "raw", {"/camera/image_raw/compressed": "compressed"}, None),
        ("camera/image_raw", "compressed", {"/camera/image_raw": "raw"}, None),
        (
            "camera/image_raw",
            "compressed",
            {"/camera/image_raw": "raw", "/camera/image_raw/compressed": "compressed"},
            "/camera/image_raw/compressed",
        ),
        (
            "camera/image_raw",
            "raw",
            {"/camera/image_raw": "raw", "/camera/image_raw/compressed": "compressed"},
            "/camera/image_raw",
        ),
        ("/camera/jpeg", "raw", {"/camera/jpeg": "compressed"}, None),
        ("/camera/image_raw/compressed", "raw", {"/camera/image_raw": "raw"}, None),
        ("~/eye", "raw", {"/monitor/eye/compressed": "compressed"}, None),
    ],
)
def test_what_is_published_is_read(
    bare, named: str, transport: str, published: dict[str, str], read: str | None
) -> None:
    sources = {topic: Source(bare, topic, kind) for topic, kind in published.items()}
    topic = read or next(iter(published))
    process = bare.start("monitor", task=TASK, image_topics=[named], image_transport=transport)
    until_read(bare, topic)
    until_scored(bare, sources[topic])
    said = bare.said(process)
    assert said.count(f"{topic} (sensor_msgs/msg/") <= 2, "it says once which was taken"
    assert "/compressed/compressed" not in said.replace(f"on {named.rstrip('/')}/compressed", "")
    assert all(source.publisher.get_subscription_count() == 0 for t, source in sources.items() if t != topic)


def test_publishers_that_come_later_and_in_any_order(bare) -> None:
    """Nobody, then the other type, then both: what the parameter says wins once it sends, and the episode
    goes on."""
    process = bare.start("monitor", task=TASK, image_topics=["/cam"], image_transport="compressed")
    until_read(bare, "/cam/compressed")
    raw = Source(bare, "/cam", "raw")
    until_read(bare, "/cam")
    until_scored(bare, raw)
    assert (
        bare.said(process).count("as nobody publishes sensor_msgs/msg/CompressedImage on /cam/compressed")
        == 1
    )
    compressed = Source(bare, "/cam/compressed", "compressed")
    bare.until(lambda: compressed.publisher.get_subscription_count() > 0, "it is listened for")
    until_read(bare, "/cam")

    def is_read() -> bool:
        compressed.send(2)
        bare.spin(0.3)
        return list(bare.infos[-1].camera_names) == ["/cam/compressed"]

    bare.until(is_read, "it is read once it sends")
    until_scored(bare, compressed)
    bare.node.destroy_publisher(compressed.publisher)
    until_read(bare, "/cam")
    until_scored(bare, raw)
    assert "Traceback" not in bare.said(process)


def test_one_topic_whose_type_changes(bare) -> None:
    raw = Source(bare, "/cam", "raw")
    process = bare.start("monitor", task=TASK, image_topics=["/cam"])
    until_read(bare, "/cam")
    until_scored(bare, raw)
    bare.node.destroy_publisher(raw.publisher)
    until_scored(bare, Source(bare, "/cam", "compressed"))
    assert "reads /cam (sensor_msgs/msg/CompressedImage)" in bare.said(process)


def test_several_cameras_one_raw_and_one_compressed(bare) -> None:
    front, wrist = Source(bare, "/front", "raw"), Source(bare, "/wrist/compressed", "compressed")
    bare.start("monitor", task=TASK, image_topics=["/front", "/wrist/compressed"], camera_layout="tile")
    bare.until(
        lambda: bool(bare.infos) and list(bare.infos[-1].camera_names) == ["/front", "/wrist/compressed"],
        "both are read",
    )
    bare.until(lambda: wrist.publisher.get_subscription_count() > 0, "the wrist is subscribed to")
    bare.introduce("monitor")
    wrist.send(0)
    bare.settle()
    until_scored(bare, front)


@pytest.mark.parametrize(
    ("rule", "named", "topic"),
    [
        ("image:=/eye", "image/compressed", "/eye/compressed"),
        ("image/compressed:=/eye/jpeg", "image/compressed", "/eye/jpeg"),
        ("image/compressed:=/eye/jpeg", "image", "/eye/jpeg"),
        ("image:=/eye", "image", "/eye/compressed"),
    ],
)
def test_remapping_acts_on_the_base_and_on_the_whole_name(bare, rule: str, named: str, topic: str) -> None:
    source = Source(bare, topic, "compressed")
    bare.run(
        *("-m", "topreward_ros.nodes.monitor", "--ros-args", "-r", rule, "-p", f"image_topics:=[{named}]"),
        *("-p", f"task:='{TASK}'", "-p", "image_transport:=compressed"),
    )
    until_read(bare, topic)
    until_scored(bare, source)


def test_two_cameras_whose_names_are_exchanged_are_exchanged(bare, new_node, new_rig) -> None:
    """Each subscription is remapped, too: to what was remapped already, it would be one to the other."""
    node = new_node("rig", "--ros-args", "-r", "/left:=/right", "-r", "/right:=/left")
    rig = new_rig(node, ["left", "right"])
    sources = {topic: Source(bare, topic, "raw") for topic in ("/left", "/right")}
    bare.until(lambda: all(it.publisher.get_subscription_count() > 0 for it in sources.values()), "they meet")
    assert [camera.topic for camera in rig.cameras] == ["/right", "/left"]
    sources["/right"].send(7)
    bare.until(lambda: rig.primary.received == 1, "the image of the right one comes")
    assert rig.cameras[1].received == 0
    assert not rig.follow_publishers()


@pytest.mark.parametrize(
    ("named", "kind", "what"),
    [
        ("/camera/image_raw/compressedDepth", "compressed", "depth images"),
        ("/camera/image_raw/theora", "info", "a Theora stream"),
        ("/camera/image_raw/ffmpeg", "info", "a stream of FFmpeg packets"),
        ("/camera/camera_info", "info", "the calibration of a camera"),
    ],
)
def test_a_topic_that_carries_no_colour_image_is_named_with_one_that_does(
    bare, named: str, kind: str, what: str
) -> None:
    sources = [
        Source(bare, named, kind),
        Source(bare, "/camera/image_raw", "raw"),
        Source(bare, "/other", "raw"),
    ]
    process = bare.start("monitor", task=TASK, image_topics=[named])
    bare.until(lambda: "colour images" in bare.said(process), "it says so")
    said = bare.said(process)
    assert f"image topic '{named}' carries {what}" in said
    assert "images are on /camera/image_raw (sensor_msgs/msg/Image): name the one that you mean, by" in said
    assert sources[1].publisher.get_subscription_count() == 0


def test_each_camera_that_loses_images_is_named(
    bare, new_node, new_rig, capfd: pytest.CaptureFixture[str]
) -> None:
    sources = [Source(bare, topic, "raw") for topic in ("/front", "/wrist")]
    node = new_node("rig")
    rig = new_rig(node, ["front", "wrist"])
    for source, camera in zip(sources, rig.cameras, strict=True):
        bare.until(lambda source=source: node.count_publishers(source.topic) == 1, "it is discovered")
        for k in range(50):
            camera.losses.note(k, lost=1)
    for _ in range(2):
        rig.warn(stale_timeout=60.0, watched=False)
    said = capfd.readouterr().err
    assert [said.count(f"50% of the images on {source.topic} are lost") for source in sources] == [1, 1]


def test_a_camera_that_is_gone_leaves_nothing_in_the_middleware(
    bare, new_node, new_rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its unfinished images stay there as long as the subscription does."""
    node, seen = new_node("rig"), []
    rig = new_rig(node, ["front"], seen.append)

    def after(silence_s: float) -> object:
        monkeypatch.setattr(cameras, "_DRAINED_S", silence_s)
        assert not rig.follow_publishers()
        return rig.primary.subscription

    for turn in range(3):
        first = rig.primary.subscription
        source = Source(bare, "/front", "raw")
        bare.until(lambda source=source: source.publisher.get_subscription_count() > 0, "they meet")
        bare.until(lambda: node.count_publishers("/front") == 1, "it is known")
        assert after(0.0) is first, "while somebody publishes"
        source.send(turn)
        bare.until(lambda turn=turn: len(seen) > turn, "its image comes, whoever sent the last")
        raw = rig.primary.raw
        bare.node.destroy_publisher(source.publisher)
        bare.until(lambda: node.count_publishers("/front") == 0, "it is gone")
        assert after(1e6) is first, "an image may be on its way"
        second = after(0.0)
        assert second is not first and rig.primary.raw == raw
        assert after(0.0) is second, "once"


def test_after_many_publishers_what_they_left_is_freed_though_others_send(bare, new_node, new_rig) -> None:
    """As a driver that is killed and started again, again and again."""
    node, seen = new_node("rig"), []
    rig = new_rig(node, ["front"], seen.append)
    used = [rig.primary.subscription]
    for turn in range(17):
        source = Source(bare, "/front", "raw")
        bare.until(lambda: node.count_publishers("/front") == 1, "it is known")
        bare.until(lambda source=source: source.publisher.get_subscription_count() > 0, "they meet")
        assert not rig.follow_publishers()
        if rig.primary.subscription is not used[-1]:
            used.append(rig.primary.subscription)
            bare.until(lambda source=source: source.publisher.get_subscription_count() > 0, "they meet")
        source.send(turn)
        bare.until(lambda turn=turn: len(seen) > turn, "its image comes")
        bare.node.destroy_publisher(source.publisher)
        bare.until(lambda: node.count_publishers("/front") == 0, "it is gone")
    assert len(used) == 1 + 16 // 8


def test_a_silent_camera_is_told_where_the_images_of_its_node_are(
    bare, new_node, new_rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, other = new_node("rig"), new_node("another")
    rig = new_rig(node, ["front"])
    advice = rig.primary.missing_images_advice
    source = Source(bare, "/front", "raw")
    bare.until(lambda: source.publisher.get_subscription_count() > 0, "they meet")
    rig.follow_publishers()
    assert "somebody has just begun to publish on /front" in advice()
    monkeypatch.setattr(cameras, "_FIRST_IMAGE_S", 0.0)
    source.send(0)
    bare.until(lambda: rig.primary.received == 1, "its image comes")
    other.create_publisher(Image, "/wrist", 1)
    bare.until(lambda: node.count_publishers("/wrist") == 1, "it is known")
    assert "look whether" in advice() and "images are on" not in advice(), "another camera's"
    moved = Source(bare, "/elsewhere", "raw")
    bare.until(lambda: node.count_publishers(moved.topic) == 1, "it is known")
    assert "; /elsewhere (sensor_msgs/msg/Image) is published, too: if that is what you" in advice()
    bare.node.destroy_publisher(moved.publisher)
    packed = Source(bare, "/front/compressed", "compressed")
    bare.until(lambda: node.count_publishers(packed.topic) == 1, "it is known")
    bare.until(lambda: node.count_publishers(moved.topic) == 0, "it is gone")
    bare.spin(1.0)
    assert not rig.follow_publishers()
    assert "; /front/compressed (sensor_msgs/msg/CompressedImage) is published, and is" in advice()


def test_a_silent_camera_is_not_told_the_topics_of_the_other_cameras(bare, new_node, new_rig) -> None:
    """They are in image_topics already, under the name that was given or beside it."""
    bystander = new_node("bystander")
    rig = new_rig(new_node("rig"), ["arm/front", "arm/wrist"])
    advice = rig.cameras[1].missing_images_advice
    assert "; nor do other topics carry images" in advice()
    front = Source(bare, "/arm/front/compressed", "compressed")
    bare.until(lambda: "; images are on the topics of the other cameras alone" in advice(), "it says so")
    wrist = Source(bare, "/arm/wrist", "raw")
    bare.until(lambda: wrist.publisher.get_subscription_count() > 0, "they meet")
    wrist.send(0)
    bare.until(lambda: rig.cameras[1].received == 1, "its image comes")
    bare.node.destroy_publisher(wrist.publisher)
    bare.until(lambda: "nobody publishes on /arm/wrist" in advice(), "it is gone")
    assert advice().endswith("start the camera's node again")
    bystander.create_publisher(Image, "/arm/third", 1)
    bare.until(lambda: "; /arm/third (sensor_msgs/msg/Image) is published, too" in advice(), "it is told")
    assert front.topic not in advice()


def test_an_image_is_one_whatever_its_topic_is_called(bare) -> None:
    source = Source(bare, "/camera/image_raw/ffmpeg", "compressed")
    Source(bare, "/other", "raw")  # which would be advised
    process = bare.start("monitor", task=TASK, image_topics=["/camera/image_raw/ffmpeg"])
    until_scored(bare, source)
    assert "FFmpeg" not in bare.said(process)


def test_parameters_under_another_name_are_hinted_at(bare, tmp_path: Path) -> None:
    for topic in ("/other", "/arm/monitor/debug_image"):
        Source(bare, topic, "raw")
    file = tmp_path / "mine.yaml"
    file.write_text("/task_monitor:\n  ros__parameters:\n    image_topics: [/other]\n")
    process = bare.run(
        *("-m", "topreward_ros.nodes.monitor", "--ros-args", "--params-file", str(file)),
        *("-p", f"task:='{TASK}'", "-p", "stale_timeout:=0.5"),
    )
    hint = (
        "images are on /other (sensor_msgs/msg/Image): name the one that you mean, by image_topic:= of the "
        "launch file or the parameter image_topics (it is at its default; in a file of parameters it stands"
    )
    bare.until(lambda: hint in bare.said(process), "it says where the parameters stand, and no debug_image")
    assert "under /monitor or /**)" in bare.said(process)


def test_images_that_are_discovered_after_the_silence_was_told_are_news(bare) -> None:
    """Discovery takes its time on a busy machine: "nor do other topics carry images" must not be the last
    word."""
    process = bare.run(
        *("-m", "topreward_ros.nodes.monitor", "--ros-args"),
        *("-p", f"task:='{TASK}'", "-p", "stale_timeout:=0.5"),
    )
    bare.until(
        lambda: "nor do other topics carry images" in bare.said(process), "it says that there are no images"
    )
    Source(bare, "/other", "raw")
    bare.until(lambda: "images are on /other (sensor" in bare.said(process), "it says where images are")
    assert bare.said(process).count("nor do other topics carry images") == 1


def test_what_a_monitor_shows_is_no_camera_of_its_own(bare) -> None:
    own = f"{bare.node.get_fully_qualified_name()}/debug_image"
    for topic in (own, own.removeprefix("/")):
        with pytest.raises(ValueError, match="this node's own picture"):
            places(bare.node, topic, "raw")
    assert places(bare.node, "/arm/monitor/debug_image", "raw")
