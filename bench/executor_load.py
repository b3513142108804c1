"""How much of a core the threads of the monitor take, scoring apart.

Plays a video on a real topic (a player in its own process, Fast DDS with the shipped profile) into a
real monitor and reads the CPU time of each of its threads from /proc. The main thread is the executor:
everything that ROS asks of the monitor runs there; scoring runs in the thread named `scoring`.

    python bench/executor_load.py                     # 640x480, 30 Hz, 30 s
    python bench/executor_load.py --width 1920 --height 1080 --json executor_load.json
"""

from __future__ import annotations

import argparse
import os
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from options import add_files, parser
from output import write_json
from playing import SETTLING_S, machine_around, playing
from topreward_ros.views.bench import machine_line

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def thread_seconds(pid: int) -> dict[str, float]:
    """CPU time so far by kind of thread [s]: user and system, from /proc/PID/task/*/stat."""
    seconds: dict[str, float] = defaultdict(float)
    for task in Path(f"/proc/{pid}/task").iterdir():
        name, _, rest = (task / "stat").read_text().partition("(")[2].rpartition(")")
        fields = rest.split()
        kind = "executor" if int(task.name) == pid else "dds" if name.startswith("dds") else "other"
        seconds[kind] += (int(fields[11]) + int(fields[12])) / TICKS_PER_S
    return seconds


def measure(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    with playing({}, (options.width, options.height), options.rate) as monitor:
        time.sleep(SETTLING_S)
        before, begun = thread_seconds(monitor.pid), time.monotonic()
        for _ in track(range(options.seconds), "measuring", console=console, transient=True):
            time.sleep(1.0)
        after, seconds = thread_seconds(monitor.pid), time.monotonic() - begun
    return {
        "machine": machine_around(),
        "image": f"{options.width}x{options.height} rgb8",
        "rate": options.rate,
        "seconds": round(seconds, 1),
        "core_percent": {kind: round(100 * (after[kind] - before[kind]) / seconds, 2) for kind in after},
    }


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--width", type=int, default=640, help="of the image [pixels]")
    command.add_argument("--height", type=int, default=480, help="of the image [pixels]")
    command.add_argument("--rate", type=float, default=30.0, help="of the camera [Hz]")
    command.add_argument("--seconds", type=int, default=30, help="length of the measurement [s]")
    add_files(command, plot=False)
    options = command.parse_args()
    console = Console()
    result = measure(options, console)
    title = f"monitor at {result['image']}, {result['rate']:g} Hz"
    table = Table(title=title, caption=machine_line(result["machine"]))
    table.add_column("threads")
    table.add_column("share of one core", justify="right")
    roles = {"executor": "executor (main thread)", "dds": "Fast DDS", "other": "scoring and the rest"}
    for kind, percent in result["core_percent"].items():
        table.add_row(roles[kind], f"{percent:.1f} %")
    console.print(table)
    write_json(options.json, result)


if __name__ == "__main__":
    main()
