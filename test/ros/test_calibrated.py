"""A monitor with a calibration, over DDS: refused for another setup, and told where it holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy")

from sensor_msgs.msg import Image
from topreward_ros.msg import TaskEvent

from test.core.calibrations import calibration, setup
from topreward_ros.core.calibration.task import Calibrations
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.defaults import DEMO_TASK, DEMO_VIDEO, monitor_defaults, shared_file
from topreward_ros.nodes.conversions import time_message
from topreward_ros.offline.calibration_file import read_calibrations, write_calibrations
from topreward_ros.offline.score_video import score_video
from topreward_ros.offline.video import open_video
from topreward_ros.scoring.base import ScorerSettings
from topreward_ros.scoring.registry import load_scorer


def image_of(picture: Any, stamp_ns: int) -> Any:
    height, width, _ = picture.shape
    image = Image(width=width, height=height, step=3 * width, encoding="rgb8", data=picture.tobytes())
    image.header.stamp = time_message(1_700_000_000_000_000_000 + stamp_ns)
    return image


def test_a_calibration_is_refused_or_decides_as_offline(robot: Any, tmp_path: Path) -> None:
    file = tmp_path / "calibration.yaml"
    made = Calibrations(setup(max_frames=32), (calibration(f"{DEMO_TASK}.", -0.9),))
    write_calibrations(file, made)

    process = robot.start("monitor", calibration=str(file))
    assert process.wait(timeout=60) == 1
    said = robot.said(process)
    assert "max_frames was 32 and is 64 here" in said and "accept_calibration" in said
    assert "Traceback" not in said and "the model was ready" not in said, "it is refused before it is loaded"

    robot.start_monitor(calibration=str(file), accept_calibration=True, task=DEMO_TASK)
    video = open_video(shared_file(DEMO_VIDEO), 0.0)
    for stamp_ns, read in video:
        if stamp_ns % 500_000_000 or TaskEvent.EPISODE_ENDED in robot.event_types():
            continue
        before = len(robot.scored())
        robot.camera.publish(image_of(read(), stamp_ns))
        robot.until(
            lambda before=before: (
                len(robot.scored()) > before or TaskEvent.EPISODE_ENDED in robot.event_types()
            ),
            "the picture is scored",
        )
    robot.until(lambda: TaskEvent.EPISODE_ENDED in robot.event_types(), "the episode ends")
    success = next(event for event in robot.events if event.type == TaskEvent.SUCCESS)
    assert success.calibrated and success.threshold == -0.9
    assert all(message.calibrated for message in robot.scored())
    told = robot.infos[-1]
    assert told.calibrated and (told.success_threshold, told.success_dwell) == (-0.9, 0.0)

    parameters = monitor_defaults()
    scorer = load_scorer("embedded", ScorerSettings.from_parameters(parameters))
    settings = replace(MonitorSettings.from_parameters(parameters), calibrations=read_calibrations(str(file)))
    offline = score_video(shared_file(DEMO_VIDEO), DEMO_TASK, scorer, settings)
    scorer.close()
    (at,) = [event.time_s for event in offline.events if event.type == "SUCCESS"]
    assert success.header.stamp.sec - 1_700_000_000 + success.header.stamp.nanosec / 1e9 == pytest.approx(at)
    assert [it.progress for it in robot.scored()] == pytest.approx(
        [point.progress for point in offline.points], abs=1e-4
    )
