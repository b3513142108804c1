"""Starting and ending a monitor: what is refused, with which words, and how fast it goes."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import time

import pytest

pytest.importorskip("rclpy")

from topreward_ros.defaults import monitor_defaults
from topreward_ros.nodes.parameters import MONITOR_PARAMETERS
from topreward_ros.scoring.checkpoint.random_weights import make_random_checkpoint


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
        ({"quantization": "int4"}, ["int4", "none, int8"]),
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


@pytest.mark.parametrize("with_signal", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["loading", "idle", "scoring"])
def test_a_signal_ends_it_cleanly_within_three_seconds(
    robot, shared_memory, with_signal: int, moment: str
) -> None:
    process = robot.start("monitor", task="stack the cup", sample_rate=20.0)
    player: subprocess.Popen[bytes] | None = None
    if moment == "scoring":
        import cv2
        import numpy as np

        folder = robot.folder / "pictures"
        folder.mkdir()
        for k in range(200):
            cv2.imwrite(str(folder / f"{k}.png"), np.full((48, 64, 3), k, np.uint8))
        player = robot.start("video_player", video=str(folder), rate=30.0, loop=True)
        robot.until(lambda: len(robot.scored()) >= 3, "it scores")
    elif moment == "idle":
        robot.until(lambda: bool(robot.infos), "it is active")
    else:
        robot.until(lambda: "loading model" in robot.said(process), "it loads")
    segments = shared_memory(process.pid)
    process.send_signal(with_signal)
    time.sleep(0.05)  # `ros2 launch` passes on what the terminal sent already
    assert robot.stop(process, with_signal) < 3.0
    assert process.returncode == 0, robot.said(process)
    assert "Traceback" not in robot.said(process)
    assert not any(segment.exists() for segment in segments), "64 MB of memory lost"
    if player is not None:
        segments = shared_memory(player.pid)
        assert robot.stop(player, with_signal) < 3.0
        assert player.returncode == 0, robot.said(player)
        assert not any(segment.exists() for segment in segments)


def test_the_model_may_take_forever_to_load(robot) -> None:
    """Its folder blocks, as a dead disk does: with a lease on a file, whoever opens the file waits."""
    folder = make_random_checkpoint(robot.folder / "checkpoint")
    file = os.open(folder / "config.json", os.O_RDWR)
    fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)  # which nobody minds, when somebody opens it
    fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    try:
        process = robot.start("monitor", model=str(folder))
        robot.until(
            lambda: fcntl.fcntl(file, fcntl.F_GETLEASE) != fcntl.F_WRLCK or process.poll() is not None,
            "it opens the file",
        )
        assert process.poll() is None, robot.said(process)
        assert robot.stop(process) < 3.0 and process.returncode == 0
        assert "watching" not in robot.said(process), "it has loaded all the same"
    finally:
        os.close(file)
