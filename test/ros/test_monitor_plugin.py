"""A monitor with a scorer that another package brings, over DDS: the same topics, and its faults are told."""

from __future__ import annotations

import os
from math import isnan, log
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy")

from sensor_msgs.msg import Image
from topreward_ros.msg import TaskEvent

from test.bags import START_NS, header, video_frames
from test.plugins import install_plugin

BODY = """
frames = len(request.prefix)
if frames == 4:
    raise RuntimeError("no light")
return PrefixScore(nan, nan, stated_progress=frames / 20, success_probability=0.05 if frames < 6 else 0.9)
"""


def over(robot: Any) -> bool:
    return TaskEvent.SUCCESS in robot.event_types()


def test_its_progress_and_success_are_on_the_usual_topics(robot: Any, tmp_path: Path) -> None:
    name = install_plugin(tmp_path, BODY)
    robot.environment["PYTHONPATH"] = os.pathsep.join(
        [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    monitor = robot.start_monitor(task="open the drawer", model=name)
    assert (robot.infos[-1].model_id, robot.infos[-1].model_revision) == (name, "mine of mine 1.5, weights-1")
    for k, (since_ns, rgb) in enumerate(video_frames()[::13]):
        message = Image(height=rgb.shape[0], width=rgb.shape[1], step=3 * rgb.shape[1], encoding="rgb8")
        stamp = header(START_NS + since_ns).stamp
        message.header.stamp.sec, message.header.stamp.nanosec = int(stamp.sec), int(stamp.nanosec)
        message.data = rgb.tobytes()
        before = len(robot.scored())
        robot.camera.publish(message)
        if k == 3:
            robot.until(lambda: TaskEvent.SCORER_ERROR in robot.event_types(), "the fault is told")
        else:
            robot.until(lambda: len(robot.scored()) > before or over(robot), "it is scored")  # noqa: B023
        if over(robot):
            break
    robot.until(lambda: TaskEvent.SUCCESS in robot.event_types(), "success is told")
    assert [message.progress for message in robot.scored()[:3]] == pytest.approx([0.05, 0.1, 0.15])
    last = robot.scored()[-1]
    assert last.success_probability == pytest.approx(0.9) and isnan(last.log_prob)
    assert "the model states progress itself" in last.message
    (success,) = (event for event in robot.events if event.type == TaskEvent.SUCCESS)
    assert success.log_prob == pytest.approx(log(0.9)) and success.log_prob > success.threshold
    (error,) = (event for event in robot.events if event.type == TaskEvent.SCORER_ERROR)
    assert "no log p" not in robot.said(monitor), "it is no warning"
    assert "plug-in 'mine' of mine 1.5 failed: RuntimeError: no light" in error.message
