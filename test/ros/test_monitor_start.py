"""Starting a monitor: what is refused, and with which words."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy")

from topreward_ros.defaults import monitor_defaults
from topreward_ros.nodes.parameters import MONITOR_PARAMETERS


@pytest.mark.installed
def test_parameters_and_their_defaults_are_the_same_list() -> None:
    assert [parameter.name for parameter in MONITOR_PARAMETERS] == list(monitor_defaults())
    for parameter in MONITOR_PARAMETERS:
        assert parameter.problem_with(monitor_defaults()[parameter.name]) == ""


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"model": "/nowhere/at/all"}, ["/nowhere/at/all"]),
        ({"model": "nobody/no-such-model"}, ["nobody/no-such-model", "network"]),
        ({"device": "cuda:7"}, ["cuda:7"]),
        ({"device": "quantum"}, ["quantum"]),
        ({"quantization": "int4"}, ["int4", "none, int8, fp8"]),
        ({"sample_rate": -1.0}, ["sample_rate", "between 0.01 and 60"]),
        ({"sample_rate": "fast"}, ["sample_rate"]),
        ({"sample_rate": 4}, ["sample_rate = 4", "write 4.0"]),
        ({"max_frames": 7}, ["max_frames", "even"]),
        ({"progress_mode": "episode_minmax"}, ["episode_minmax", "static_baseline, raw_probability"]),
        ({"image_topics": [""]}, ["image_topics"]),
        ({"image_topics": []}, ["image_topics", "at least one"]),
        ({"image_topics": ["my camera!"]}, ["my camera!", "image_topics"]),
        ({"image_transport": "theora"}, ["theora", "raw, compressed"]),
    ],
    ids=lambda value: next(iter(value.items())).__repr__() if isinstance(value, dict) else "",
)
def test_what_cannot_work_is_refused_with_the_mend(robot, parameters: dict, said: list[str]) -> None:
    # The hub is asked at an address of this machine where nobody listens: no network, no waiting.
    robot.environment["HF_ENDPOINT"] = "http://127.0.0.1:9"
    process = robot.start("monitor", **parameters)
    assert process.wait(timeout=60) == 1
    text = robot.said(process)
    assert all(word in text for word in said), text
    assert "Traceback" not in text and text.count("[ERROR]") + text.count("monitor: ") == 1, text
    robot.spin(0.5)
    assert robot.camera.get_subscription_count() == 0
