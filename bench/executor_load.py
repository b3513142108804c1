"""How much of a core the monitor's executor thread needs beside scoring.

Plays a video on a real topic (a player in its own process, Fast DDS with the shipped profile) into a
real monitor and reads the CPU time of each of its threads from /proc. The main thread is the executor:
everything that ROS asks of the monitor runs there; scoring runs in the thread named `scoring`.

    python bench/executor_load.py                     # 640x480, 30 Hz, 30 s
    python bench/executor_load.py --width 1920 --height 1080 --json executor_load.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from topreward_ros.nodes.demo import Child, free_domain, stop

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
SETTLING_S = 5.0  # after the first score: caches are warm, discovery is over


def make_video(path: Path, width: int, height: int, rate: float) -> None:
    """Ten seconds of a moving square on noise, so that no compression or repetition helps."""
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), rate, (width, height))
    for k in range(int(10 * rate)):
        picture = noise.copy()
        x = k * (width - width // 8) // int(10 * rate)
        picture[height // 3 : height // 3 + width // 8, x : x + width // 8] = (30, 30, 220)
        writer.write(picture)
    writer.release()


def thread_seconds(pid: int) -> dict[str, float]:
    """CPU time so far by kind of thread [s]: user and system, from /proc/PID/task/*/stat."""
    seconds: dict[str, float] = defaultdict(float)
    for task in Path(f"/proc/{pid}/task").iterdir():
        name, _, rest = (task / "stat").read_text().partition("(")[2].rpartition(")")
        fields = rest.split()
        kind = "executor" if int(task.name) == pid else "dds" if name.startswith("dds") else "other"
        seconds[kind] += (int(fields[11]) + int(fields[12])) / TICKS_PER_S
    return seconds


def wait_for(text: str, child: Child) -> None:
    end = time.monotonic() + 120
    while text not in child.log.read_text():
        if child.status() is not None or time.monotonic() > end:
            raise SystemExit(f"the {child.name} said no '{text}':\n{child.last_lines()}")
        time.sleep(0.1)


def measure(arguments: argparse.Namespace, console: Console) -> dict[str, object]:
    environment = {
        **os.environ,
        "ROS_DOMAIN_ID": str(free_domain()),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    }
    children: list[Child] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_video(folder / "video.avi", arguments.width, arguments.height, arguments.rate)
        try:
            monitor = Child("monitor", {"task": "push the square"}, folder, environment)
            children.append(monitor)
            wait_for("watching", monitor)
            video = {"video": str(folder / "video.avi"), "loop": True}
            children.append(Child("video_player", video, folder, environment))
            wait_for("EPISODE_STARTED", monitor)
            time.sleep(SETTLING_S)
            before, begun = thread_seconds(monitor.pid), time.monotonic()
            for _ in track(range(arguments.seconds), "measuring", console=console, transient=True):
                time.sleep(1.0)
            after, seconds = thread_seconds(monitor.pid), time.monotonic() - begun
        finally:
            stop(children)
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {_processor()}",
        "image": f"{arguments.width}x{arguments.height} rgb8",
        "rate": arguments.rate,
        "seconds": round(seconds, 1),
        "core_percent": {kind: round(100 * (after[kind] - before[kind]) / seconds, 2) for kind in after},
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "?")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=640, help="of the image [pixels]")
    parser.add_argument("--height", type=int, default=480, help="of the image [pixels]")
    parser.add_argument("--rate", type=float, default=30.0, help="of the camera [Hz]")
    parser.add_argument("--seconds", type=int, default=30, help="length of the measurement [s]")
    parser.add_argument("--json", type=Path, help="write the result here, too")
    arguments = parser.parse_args()
    console = Console()
    result = measure(arguments, console)
    table = Table(
        title=f"monitor at {result['image']}, {result['rate']:g} Hz", caption=str(result["machine"])
    )
    table.add_column("threads")
    table.add_column("share of one core", justify="right")
    roles = {"executor": "executor (main thread)", "dds": "Fast DDS", "other": "scoring and the rest"}
    for kind, percent in result["core_percent"].items():
        table.add_row(roles[kind], f"{percent:.1f} %")
    console.print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
