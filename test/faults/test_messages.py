"""Images with fields that hypothesis draws, over DDS: the monitor neither dies nor says SUCCESS.

What `decode` alone makes of such messages is tested in test/nodes/test_images.py, in thousands; here some go
through subscription, stamps, schedule and scorer, of both types at once: raw ones of the primary camera, and
compressed ones of the second.
"""

from __future__ import annotations

import time
from array import array
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("rclpy")

from builtin_interfaces.msg import Time
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import Trigger
from topreward_ros.msg import TaskEvent

from test.faults.pictures import TASK, picture
from topreward_ros.nodes import qos

JPEG = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))[1].tobytes()
PNG = cv2.imencode(".png", np.full((48, 64), 90, np.uint8))[1].tobytes()

STAMPS = st.builds(Time, sec=st.integers(-(2**31), 2**31 - 1), nanosec=st.integers(0, 2**32 - 1))
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
UINT32 = st.one_of(st.integers(0, 70), st.integers(0, 2**32 - 1))
ENCODINGS = st.one_of(
    st.sampled_from(["rgb8", "bgr8", "mono8", "mono16", "bayer_rggb8", "nv12", "yuv422", "16UC1", "8UC3"]),
    TEXTS,
)
PIXELS = st.one_of(st.binary(max_size=600), st.sampled_from([bytes(64 * 48 * 3), bytes(64 * 48)]))
RAW = st.fixed_dictionaries(
    {},
    optional={
        "width": UINT32,
        "height": UINT32,
        "step": UINT32,
        "encoding": ENCODINGS,
        "is_bigendian": st.integers(0, 255),
        "data": PIXELS,
        "stamp": STAMPS,
        "frame_id": TEXTS,
    },
)
DAMAGED = st.builds(
    lambda whole, at, put, cut: whole[:at] + put + whole[at + len(put) : len(whole) - cut],
    st.sampled_from([JPEG, PNG]),
    st.integers(0, len(JPEG)),
    st.binary(max_size=8),
    st.integers(0, 50),
)
COMPRESSED = st.tuples(
    st.one_of(st.sampled_from(["jpeg", "rgb8; jpeg compressed bgr8", "bayer_rggb8; png compressed "]), TEXTS),
    st.one_of(DAMAGED, st.binary(max_size=200), st.just(JPEG)),
)


@pytest.fixture(scope="module")
def watching(shared_robot: Any) -> Any:
    shared_robot.start_monitor(
        task=TASK,
        image_topics=["image", "wrist/compressed"],
        camera_layout="tile",
        sample_rate=60.0,
        stale_timeout=60.0,
    )
    return shared_robot, shared_robot.publisher(CompressedImage, "wrist/compressed", qos.image_source())


def raw_image(fields: dict[str, Any]) -> Image:
    message = picture(time.time_ns())
    for name, value in fields.items():
        if name in ("stamp", "frame_id"):
            setattr(message.header, name, value)
        else:
            setattr(message, name, array("B", value) if name == "data" else value)
    return message


def compressed_image(format: str, data: bytes) -> CompressedImage:
    message = CompressedImage(format=format, data=array("B", data))
    message.header.stamp = picture(time.time_ns()).header.stamp
    return message


# A good image of the second camera stands beside every raw one, a good raw one beside every compressed one.
@settings(
    max_examples=settings().max_examples // 4,
    suppress_health_check=list(HealthCheck),
)
@given(raws=st.lists(RAW, min_size=3, max_size=8), compressed=st.lists(COMPRESSED, min_size=3, max_size=8))
def test_any_images(watching: Any, raws: list[dict[str, Any]], compressed: list[tuple[str, bytes]]) -> None:
    robot, wrist = watching
    process = robot.processes[0]
    wrist.publish(compressed_image("jpeg", JPEG))
    for fields in raws:
        robot.camera.publish(raw_image(fields))
        robot.spin(0.01)
    for format, data in compressed:
        wrist.publish(compressed_image(format, data))
        robot.camera.publish(picture(time.time_ns()))
        robot.spin(0.01)
    assert process.poll() is None, robot.said(process)
    assert TaskEvent.SUCCESS not in robot.event_types()
    said = robot.said(process)
    assert "Traceback" not in said and "\x1b" not in said


def test_good_images_are_scored_after_all_of_them(watching: Any) -> None:
    robot, wrist = watching
    robot.call(Trigger, "monitor/reset")
    robot.forget()
    wrist.publish(compressed_image("jpeg", JPEG))
    robot.settle()
    robot.show(picture(time.time_ns()))
    assert robot.scored()[-1].num_frames == 1
