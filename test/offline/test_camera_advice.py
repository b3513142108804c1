"""What is said of a silent camera, for graphs of nodes that are written down here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest

from topreward_ros.offline.camera_advice import CameraAdvice, Images, Publisher
from topreward_ros.offline.camera_images import COMPRESSED, RAW
from topreward_ros.offline.image_topics import ImageTopic

FRONT = ImageTopic("/arm/front", RAW)
PACKED = ImageTopic("/arm/front/compressed", COMPRESSED)
TEXT = "std_msgs/msg/String"
ADVICE = "use the profile"
NOTHING_CAME = Images(FRONT, received=0, newest_bytes=0, silent_s=5.0)
CAME = replace(NOTHING_CAME, received=40, newest_bytes=900_000)
CAME_ELSEWHERE = replace(NOTHING_CAME, received=40)


@dataclass
class Nodes:
    """Who publishes what; a `Graph`."""

    published: dict[str, list[Publisher]] = field(default_factory=dict)

    def publishers(self, topic: str) -> Sequence[Publisher]:
        return self.published.get(topic, [])

    def topics(self) -> Mapping[str, Sequence[str]]:
        subscribed = {"/arm/front": [RAW], "/monitor/debug_image": [RAW]}
        return subscribed | {
            topic: [it.type_name for it in publishers] for topic, publishers in self.published.items()
        }

    def with_(self, topic: str, type_name: str = RAW, node: str = "/driver", qos_problem: str = "") -> Nodes:
        publisher = Publisher(node, type_name, qos_problem)
        return Nodes(self.published | {topic: [*self.publishers(topic), publisher]})


def advice(nodes: Nodes, **more: object) -> CameraAdvice:
    options: dict = {"namespace": "/arm", "large_images": ADVICE} | more
    return CameraAdvice(nodes, "front", [FRONT, PACKED], **options)


NOBODY = Nodes()
DRIVER = NOBODY.with_("/arm/front")


@pytest.mark.parametrize(
    ("nodes", "images", "expected"),
    [
        (NOBODY, NOTHING_CAME, "nobody publishes on /arm/front (sensor_msgs/msg/Image); nor do other topics"),
        (NOBODY.with_("/arm/front", TEXT), NOTHING_CAME, "/driver publishes std_msgs/msg/String on /arm/fro"),
        (NOBODY.with_("/arm/front", TEXT, ""), NOTHING_CAME, "a node publishes std_msgs/msg/String on /arm"),
        (NOBODY.with_("/top"), NOTHING_CAME, "images are on /top (sensor_msgs/msg/Image): name the one that"),
        (NOBODY.with_(PACKED.name, COMPRESSED), NOTHING_CAME, f"{PACKED} is published, and is read where"),
        (
            NOBODY,
            CAME,
            "they came until then, and nobody publishes on /arm/front (sensor_msgs/msg/Image) now",
        ),
        (NOBODY.with_("/arm/third"), CAME, "; /arm/third (sensor_msgs/msg/Image) is published, too"),
        (NOBODY.with_(PACKED.name, COMPRESSED), CAME, f"; {PACKED} is published, and is read where images"),
        (DRIVER, NOTHING_CAME, "/driver publishes on /arm/front with a matching QoS, but no image arrives"),
        (DRIVER, NOTHING_CAME, ADVICE),
        (DRIVER, CAME, "they came until then: look whether /driver still runs"),
        (DRIVER.with_("/elsewhere"), CAME, "; /elsewhere (sensor_msgs/msg/Image) is published, too"),
        (
            DRIVER,
            replace(CAME, lost_share=0.5),
            "/driver publishes on /arm/front with a matching QoS, but no",
        ),
        (
            DRIVER,
            replace(CAME, lost_share=0.5, newest_bytes=9_000),
            "they came until then: look whether /dri",
        ),
        (DRIVER, CAME_ELSEWHERE, f"look which of /driver ({FRONT}) still runs"),
        (DRIVER, replace(CAME, others_came=True), "images come, but from another publisher than the one"),
        (DRIVER, replace(NOTHING_CAME, publisher_is_new=True), "somebody has just begun to publish on /arm"),
        (
            NOBODY.with_("/arm/front", qos_problem="Best effort publisher."),
            replace(NOTHING_CAME, publisher_is_new=True),
            "the QoS of /driver on /arm/front is incompatible with ours: Best effort publisher. Set qos_over",
        ),
        (DRIVER, replace(CAME, refusal="ROS 2 refuses"), "ROS 2 refuses"),
    ],
)
def test_what_to_look_at_where_no_image_comes(nodes: Nodes, images: Images, expected: str) -> None:
    assert expected in advice(nodes).missing_images(images)


@pytest.mark.parametrize(
    ("topic", "type_name", "node"),
    [
        ("/arm/monitor/debug_image", RAW, "/arm/monitor"),
        ("/arm/front/compressedDepth", COMPRESSED, "/driver"),
        ("/arm/wrist", RAW, "/driver"),
        ("/words", TEXT, "/driver"),
    ],
)
def test_what_is_no_camera_of_ones_own_is_no_advice(topic: str, type_name: str, node: str) -> None:
    """A picture that a monitor draws, depth, another camera of this monitor, and what is no image."""
    said = advice(NOBODY.with_(topic, type_name, node), of_others=frozenset({"/arm/wrist"}))
    for images in (NOTHING_CAME, CAME):
        assert topic not in said.missing_images(images)


def test_images_of_the_other_cameras_alone_are_told_as_such() -> None:
    others = frozenset({"/arm/wrist", "/arm/wrist/compressed"})
    said = advice(NOBODY.with_("/arm/wrist"), of_others=others).missing_images(NOTHING_CAME)
    assert said.endswith("images are on the topics of the other cameras alone: is this camera running?")


def test_topics_of_the_same_camera_come_before_those_of_the_robot_and_those_before_all() -> None:
    front = ImageTopic("/arm/front/image", RAW)
    images = replace(NOTHING_CAME, place=front)
    nodes = NOBODY.with_("/other/top")

    def told(nodes: Nodes) -> str:
        return CameraAdvice(nodes, "front/image", [front], namespace="/arm").missing_images(images)

    assert "images are on /other/top (" in told(nodes)
    nodes = nodes.with_("/arm/wrist")
    assert "images are on /arm/wrist (" in told(nodes) and "/other/top" not in told(nodes)
    nodes = nodes.with_("/arm/front/image_rect")
    assert "images are on /arm/front/image_rect (" in told(nodes) and "/arm/wrist" not in told(nodes)


def test_a_name_that_is_not_known_yet_says_nothing_of_where_a_camera_moved_to() -> None:
    nodes = NOBODY.with_("/arm/front", node="").with_("/elsewhere", node="")
    said = advice(nodes).missing_images(CAME)
    assert "look whether a node still runs" in said and "/elsewhere" not in said


def test_where_the_parameter_is_at_its_default_it_is_said_where_it_stands() -> None:
    nodes = NOBODY.with_("/top")
    assert "under /arm/monitor or /**" in advice(nodes, unset_in="/arm/monitor").missing_images(NOTHING_CAME)
    assert "default" not in advice(nodes).missing_images(NOTHING_CAME)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, ""),
        ({"lost_share": 0.1}, ""),
        ({"lost_share": 0.5}, f"50% of the images on /arm/front are lost on the way. {ADVICE}"),
        ({"lost_share": 0.5, "came_late": True}, "This process did not keep up"),
        ({"lost_share": 0.5, "newest_bytes": 9_000}, "the network loses them"),
        ({"lost_share": 0.5, "senders": 2}, ""),
        ({"lost_share": 0.5, "are_mixed": True}, ""),
    ],
)
def test_images_that_are_lost(changed: dict, expected: str) -> None:
    said = advice(DRIVER).loss(replace(CAME, **changed))
    assert expected in said and bool(said) == bool(expected)


@pytest.mark.parametrize(
    ("nodes", "changed", "expected"),
    [
        (DRIVER, {"senders": 2}, ""),
        (DRIVER.with_("/arm/front", node=""), {"senders": 2}, ""),
        (DRIVER.with_("/arm/front", node="/b"), {"senders": 1}, ""),
        (
            DRIVER.with_("/arm/front", node="/b"),
            {"senders": 2},
            "2 nodes publish on /arm/front: /b, /driver; ",
        ),
        (
            DRIVER.with_("/arm/front", node="/b"),
            {"senders": 3},
            "3 nodes publish on /arm/front; the images of",
        ),
        (DRIVER.with_("/arm/front", node="/b"), {"senders": 2, "are_mixed": True}, "cannot be told apart"),
    ],
)
def test_several_publishers(nodes: Nodes, changed: dict, expected: str) -> None:
    said = advice(nodes).several_publishers(replace(CAME, **changed))
    assert expected in said and bool(said) == bool(expected)


@pytest.mark.parametrize(
    ("nodes", "silent_s", "expected"),
    [
        (NOBODY, 1.0, ""),
        (NOBODY, 4.0, "image topic 'front/ffmpeg' carries a stream of FFmpeg packets, by its name"),
        (NOBODY.with_("/top"), 1.0, ""),
        (NOBODY.with_("/front/ffmpeg", TEXT).with_("/top"), 1.0, "images are on /top"),
        (NOBODY.with_("/front/ffmpeg"), 9.0, ""),
    ],
)
def test_a_topic_that_carries_no_images_by_its_name(nodes: Nodes, silent_s: float, expected: str) -> None:
    place = ImageTopic("/front/ffmpeg", RAW)
    said = CameraAdvice(nodes, "front/ffmpeg", [place]).name(
        Images(place, received=0, newest_bytes=0, silent_s=silent_s)
    )
    assert expected in said and bool(said) == bool(expected)
