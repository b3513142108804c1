"""~/debug_image over DDS: the scored frame with its header, and nothing where nobody looks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")

from builtin_interfaces.msg import Time
from sensor_msgs.msg import Image

from topreward_ros.nodes import qos

SECOND = 10**9
START = 1_700_000_000 * SECOND


def image(k: int) -> Image:
    """Frame k at 2 Hz, 320x240, whose pixels tell it apart from the others."""
    pixels = np.random.default_rng(k).integers(0, 256, (12, 16, 3), np.uint8).repeat(20, 0).repeat(20, 1)
    message = Image(width=320, height=240, step=960, encoding="rgb8", data=pixels.tobytes())
    message.header.frame_id = "camera"
    message.header.stamp = Time(sec=(START + k * SECOND // 2) // SECOND, nanosec=k % 2 * SECOND // 2)
    return message


def test_who_looks_sees_the_scored_frame_and_the_curve_from_its_start(robot: Any) -> None:
    robot.start_monitor(task="open the drawer")
    robot.until(lambda: robot.node.count_publishers("/monitor/debug_image") == 1, "it is discovered")
    (publisher,) = robot.node.get_publishers_info_by_topic("/monitor/debug_image")
    assert publisher.topic_type == "sensor_msgs/msg/Image"
    for k in range(4):
        robot.show(image(k))
    seen: list[Image] = []
    subscription = robot.node.create_subscription(Image, "monitor/debug_image", seen.append, qos.images())
    robot.introduce("monitor")
    robot.spin(0.3)
    assert not seen, "nothing is sent between scores"
    sent = image(4)
    robot.show(sent)
    robot.until(lambda: bool(seen), "a picture is there")
    (shown,) = seen
    assert shown.header == sent.header == robot.scored()[-1].header
    assert (shown.encoding, shown.width, shown.step) == ("rgb8", 320, 960)
    picture = np.frombuffer(shown.data, np.uint8).reshape(shown.height, 320, 3)
    assert np.array_equal(picture[:240].reshape(-1), np.frombuffer(sent.data, np.uint8))
    blue = picture[-75:, :, 2].astype(int) - picture[-75:, :, 0] > 60  # the curve alone is coloured there
    assert blue.any(axis=0)[40:100].all(), "the curve has the scores from before somebody looked"

    robot.node.destroy_subscription(subscription)
    robot.show(image(5))
    assert len(seen) == 1
