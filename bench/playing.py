"""Run a monitor and a camera that plays a video, each in its own process, to be measured from outside."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from topreward_ros.core.output_files import temporary_folder
from topreward_ros.nodes.demo import Child, free_domain, stop
from topreward_ros.offline.engine_bench import machine

TASK = "open the drawer"
SETTLING_S = 5.0  # after the first frame: caches are warm, discovery is over


@contextmanager
def playing(parameters: Mapping[str, object], size: tuple[int, int], rate: float) -> Iterator[Child]:
    """Run the monitor with ``parameters`` while it sees images of ``size`` (width, height) at ``rate`` [Hz].

    Yields the process of the monitor, once its episode has started; the episode does not end by itself. The
    processes meet on this machine alone, in a ROS domain that is put into the environment of this process.
    """
    os.environ |= {"ROS_DOMAIN_ID": str(free_domain()), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    children: list[Child] = []
    with temporary_folder("topreward-bench-") as folder:
        make_video(folder / "video.avi", size, rate)
        try:
            monitor = Child(
                "monitor", {"task": TASK, "success_threshold": 0.0, **parameters}, folder, os.environ
            )
            children.append(monitor)
            wait_for("watching", monitor)
            video = {"video": str(folder / "video.avi"), "loop": True}
            children.append(Child("video_player", video, folder, os.environ))
            wait_for("EPISODE_STARTED", monitor)
            yield monitor
        finally:
            stop(children)


def machine_around() -> dict[str, Any]:
    """What `machine` says, with the number of threads that the monitor's scorer takes by default."""
    return machine() | {"threads": max(1, len(os.sched_getaffinity(0)) - 1)}


def make_video(path: Path, size: tuple[int, int], rate: float) -> None:
    """Write ten seconds of a square that moves over noise, which neither compresses nor repeats."""
    width, height = size
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), rate, size)
    for k in range(int(10 * rate)):
        picture = noise.copy()
        x = k * (width - width // 8) // int(10 * rate)
        picture[height // 3 : height // 3 + width // 8, x : x + width // 8] = (30, 30, 220)
        writer.write(picture)
    writer.release()


def wait_for(text: str, child: Child) -> None:
    """Return when ``child`` has logged ``text``. Raises `SystemExit` when it ended, or after two minutes."""
    end = time.monotonic() + 120
    while text not in child.log.read_text():
        if child.status() is not None or time.monotonic() > end:
            raise SystemExit(f"the {child.name} said no '{text}':\n{child.last_lines()}")
        time.sleep(0.1)
