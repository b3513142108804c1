"""A camera's driver that is killed, and comes back in another way, while a monitor watches.

For 20 s the graph goes on telling of a publisher that was killed.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from sensor_msgs.msg import CompressedImage, Image
from topreward_ros.msg import TaskProgress

from test.faults.pictures import TASK
from topreward_ros.defaults import fast_dds_profile_variables
from topreward_ros.nodes import qos

SOON_S = 10.0  # for a machine that is busy; it takes two, and the graph takes 20
RAW, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"


@pytest.fixture
def bare(bare: Any) -> Any:
    """With pictures that a driver can play."""
    folder: Path = bare.folder / "pictures"
    folder.mkdir()
    for k in range(20):
        cv2.imwrite(str(folder / f"{k}.png"), np.full((48, 64, 3), 10 * k, np.uint8))
    return bare


def drive(robot: Any, topic: str, type_name: str, rate: float = 20.0) -> Any:
    """Start a driver that publishes on ``topic`` alone."""
    is_raw = type_name == RAW
    return robot.run(
        *("-m", "topreward_ros.nodes.video_player", "--ros-args"),
        *("-p", f"video:={robot.folder / 'pictures'}", "-p", f"rate:={rate}", "-p", "loop:=true"),
        *("-p", f"image_transport:={'raw' if is_raw else 'compressed'}"),
        *("-r", f"/image{'' if is_raw else '/compressed'}:={topic}"),
    )


def change(robot: Any, transition: str, monitor: str) -> None:
    """Change the state of a monitor."""
    asked = Transition(label=transition)
    assert robot.call(ChangeState, f"{monitor}/change_state", transition=asked).success


def until_scored(robot: Any, timeout: float = 60.0) -> float:
    """Until new images are scored; returns how long that took [s]."""
    begun, scores = time.monotonic(), len(robot.scored())
    robot.until(lambda: len(robot.scored()) > scores + 3, "images are scored", timeout=timeout)
    return time.monotonic() - begun


@pytest.mark.parametrize(
    ("transport", "before", "after"),
    [
        ("raw", ("/cam", RAW), ("/cam/compressed", COMPRESSED)),
        ("compressed", ("/cam/compressed", COMPRESSED), ("/cam", RAW)),
        ("raw", ("/cam", RAW), ("/cam", COMPRESSED)),
        ("raw", ("/cam", COMPRESSED), ("/cam/compressed", COMPRESSED)),
    ],
)
def test_a_driver_that_is_killed_and_publishes_in_another_way_is_read_soon(
    bare: Any, transport: str, before: tuple[str, str], after: tuple[str, str]
) -> None:
    monitor = bare.start(
        "monitor", task=TASK, image_topics=["/cam"], image_transport=transport, sample_rate=10.0
    )
    driver = drive(bare, *before)
    until_scored(bare)
    for place in (after, before):  # and back, while the graph still knows the first one
        driver.kill()
        driver.wait()
        bare.settle()
        bare.forget()
        driver = drive(bare, *place)
        took_s = until_scored(bare)
        assert took_s < SOON_S, bare.said(monitor)
    assert "Traceback" not in bare.said(monitor)


def test_a_slow_camera_that_lives_or_pauses_is_not_left_for_another_that_comes(bare: Any) -> None:
    monitor = bare.start("monitor", task=TASK, image_topics=["/cam"], sample_rate=10.0)
    driver = drive(bare, "/cam", RAW, rate=1.0)
    until_scored(bare)
    other = drive(bare, "/cam/compressed", COMPRESSED)
    bare.spin(8.0)
    other.kill()
    other.wait()
    driver.send_signal(signal.SIGSTOP)
    silent = bare.node.create_publisher(CompressedImage, "/cam/compressed", qos.image_source())
    bare.until(lambda: silent.get_subscription_count() > 0, "it is listened for")
    driver.send_signal(signal.SIGCONT)
    until_scored(bare)
    bare.until(lambda: silent.get_subscription_count() == 0, "and no more")
    assert "the monitor reads" not in bare.said(monitor) and "Traceback" not in bare.said(monitor)


@pytest.mark.parametrize("rests", [False, True])
def test_two_monitors_of_a_process_follow_a_topic_whose_type_changes(bare: Any, rests: bool) -> None:
    """ROS 2 refuses the first one the new type as long as the second one has the old. One that ``rests`` is
    inactive and has none."""
    monitors = bare.start(
        "monitors", namespaces=["/a", "/b"], task=TASK, image_topics=["/cam"], sample_rate=10.0
    )
    scored: dict[str, list[TaskProgress]] = {"a": [], "b": []}
    for name, store in scored.items():
        bare.node.create_subscription(TaskProgress, f"/{name}/task_progress", store.append, qos.progress())

    def until_both_score() -> None:
        for store in scored.values():
            store.clear()
        bare.until(lambda: all(any(it.num_frames for it in them) for them in scored.values()), "both score")

    driver = drive(bare, "/cam", RAW)
    until_both_score()
    if rests:
        change(bare, "deactivate", "/b/monitor")
        bare.until(lambda: bare.node.count_subscribers("/cam") == 1, "it is deaf")
        other = scored.pop("b")
    bare.stop(driver)
    drive(bare, "/cam", COMPRESSED)
    bare.spin(3.0)
    until_both_score()
    said = bare.said(monitors)
    assert "Traceback" not in said and said.count("ROS 2 refuses a subscription to /cam") <= 2, said
    if rests:
        assert "ROS 2 refuses" not in said and "error state is being overwritten" not in said
        scored["b"] = other
        change(bare, "activate", "/b/monitor")
        until_both_score()


def test_a_monitor_that_is_inactive_subscribes_to_nothing(bare: Any) -> None:
    source = bare.node.create_publisher(Image, "/cam", qos.image_source())
    other = bare.node.create_publisher(CompressedImage, "/cam/compressed", qos.image_source())
    bare.start("monitor", task=TASK, image_topics=["/cam"])
    bare.until(lambda: source.get_subscription_count() == 2, "an outsider came, as there are no images")
    bare.until(lambda: other.get_subscription_count() == 1, "and they are listened for elsewhere")
    change(bare, "deactivate", "/monitor")
    bare.until(lambda: source.get_subscription_count() == other.get_subscription_count() == 0, "all go")
    bare.spin(1.0)
    assert source.get_subscription_count() == 0
    change(bare, "activate", "/monitor")
    bare.until(lambda: source.get_subscription_count() == 1, "it is back")


def test_who_has_the_topic_with_another_type_is_named_and_ros_2_is_asked_seldom(
    bare: Any, new_node: Any, new_rig: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    holder = new_node("holder")
    holds = holder.create_subscription(Image, "/front", lambda image: None, 1)
    rig = new_rig(new_node("rig"), ["front"])
    holding = f"in this process /holder ({RAW}) has the topic with another type"
    refused = f"to /front ({COMPRESSED}) ({holding}): it is tried again"

    def follow() -> bool:
        rig.follow_publishers()
        return refused in rig.primary.refusal_warning()

    drive(bare, "/front", COMPRESSED)
    bare.until(follow, "it is refused")
    for _ in range(30):
        bare.spin(0.1)
        assert follow()
    assert 1 <= capfd.readouterr().err.count("error state is being overwritten") <= 3
    holder.destroy_subscription(holds)
    bare.until(lambda: not follow(), "it is asked at once where nobody has it any more", timeout=1.0)
    bare.until(lambda: rig.primary.received > 0, "images come")


def test_a_camera_that_sends_is_not_left_for_a_driver_that_dies_before_its_first_image(bare: Any) -> None:
    monitor = bare.start("monitor", task=TASK, image_topics=["/cam"], sample_rate=10.0, stale_timeout=1.0)
    drive(bare, "/cam/compressed", COMPRESSED)
    until_scored(bare)
    for up_s in (0.4, 2.0, 0.4, 2.0, 2.0):
        better = bare.node.create_publisher(Image, "/cam", qos.image_source())
        bare.spin(up_s)
        bare.node.destroy_publisher(better)
        assert until_scored(bare) < 3.0
    assert bare.said(monitor).count("the monitor reads") == 1 and "STALE_IMAGES" not in bare.said(monitor)
    drive(bare, "/cam", RAW)
    bare.until(lambda: "the monitor reads /cam (" in bare.said(monitor), "one that sends is taken", SOON_S)
    until_scored(bare)


def test_a_subscription_that_is_refused_is_said_once_and_in_the_diagnostics(bare: Any) -> None:
    told: list[DiagnosticArray] = []
    bare.node.create_subscription(DiagnosticArray, "/diagnostics", told.append, 10)
    wrong = "qos_overrides./cam/compressed.subscription.reliability"
    monitor = bare.start(
        "monitor", task=TASK, image_topics=["/cam"], diagnostics_rate=5.0, **{wrong: "as good as can be"}
    )
    driver = drive(bare, "/cam", RAW)
    until_scored(bare)
    bare.stop(driver)
    driver = drive(bare, "/cam/compressed", COMPRESSED)

    def is_told() -> bool:
        return any(
            status.level == DiagnosticStatus.ERROR and "refuses a subscription to /cam/comp" in status.message
            for array in told
            for status in array.status
        )

    bare.until(is_told, "the diagnostics say so")
    bare.spin(1.0)
    assert bare.said(monitor).count("ROS 2 refuses a subscription to /cam/compressed") == 1, "once"
    bare.stop(driver)
    drive(bare, "/cam", RAW)
    until_scored(bare)
    assert "Traceback" not in bare.said(monitor) and monitor.poll() is None


def test_a_driver_that_was_there_before_the_other_was_killed_is_read_soon(bare: Any) -> None:
    monitor = bare.start("monitor", task=TASK, image_topics=["/cam"], sample_rate=10.0)
    drive(bare, "/cam/compressed", COMPRESSED)
    until_scored(bare)
    better = drive(bare, "/cam", RAW)
    bare.until(lambda: "the monitor reads /cam (" in bare.said(monitor), "it is better")
    until_scored(bare)
    better.kill()
    better.wait()
    bare.settle()
    bare.forget()
    assert until_scored(bare) < SOON_S
    said = bare.said(monitor)
    assert "reads /cam/compressed (sensor_msgs/msg/CompressedImage), as who publishes sensor_msgs" in said


@pytest.mark.parametrize("other", [("/cam/compressed", COMPRESSED), ("/cam", COMPRESSED)])
def test_of_two_drivers_that_live_the_one_that_sends_is_read(bare: Any, other: tuple[str, str]) -> None:
    monitor = bare.start("monitor", task=TASK, image_topics=["/cam"], sample_rate=10.0, stale_timeout=2.0)
    drivers = [drive(bare, "/cam", RAW), drive(bare, *other)]
    until_scored(bare)
    for stopped, goes_on in (drivers, drivers[::-1]):
        goes_on.send_signal(signal.SIGCONT)
        bare.spin(1.0)
        stopped.send_signal(signal.SIGSTOP)
        bare.settle()
        bare.forget()
        assert until_scored(bare) < 2 * SOON_S, bare.said(monitor)
    drivers[1].send_signal(signal.SIGCONT)
    said = bare.said(monitor)
    assert "which is no image" not in said and "Traceback" not in said


def test_a_subscriber_that_is_killed_does_not_blind_the_monitor(bare: Any, tmp_path: Path) -> None:
    """What it leaves in the shared memory of the driver keeps images from everybody (Fast DDS)."""
    for variable in fast_dds_profile_variables(os.environ):
        bare.environment[variable] = ""  # named, and so not ours, with which there is more room
    for k in range(20):
        picture = np.random.default_rng(k).integers(0, 255, (120, 160, 3), np.uint8)
        cv2.imwrite(str(bare.folder / "pictures" / f"{k}.png"), picture)
    monitor = bare.start("monitor", task=TASK, image_topics=["/cam"], sample_rate=10.0, stale_timeout=1.0)
    driver = drive(bare, "/cam", RAW)
    until_scored(bare)
    recorder = bare.run(
        *("-m", "topreward_ros.cli", "record", "--output", str(tmp_path / "bag"), "--image-topic", "/cam")
    )
    bare.until(lambda: bare.node.count_subscribers("/cam") == 2, "it records")
    bare.spin(3.0)
    recorder.kill()
    recorder.wait()
    before = len(bare.said(monitor))  # where the machine is busy, a monitor that starts may lose some
    bare.settle()
    bare.forget()
    assert until_scored(bare) < 3 * SOON_S, bare.said(monitor)
    bare.spin(2.0)
    assert driver.poll() is None and "are lost on the way" not in bare.said(monitor)[before:]
