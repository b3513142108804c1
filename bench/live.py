"""How old a frame is when its progress is known: from capture to `task_progress`, over real DDS.

A video player shows 640x480 rgb8 images at 30 Hz to a monitor with the shipped model and static baseline;
each is a process of its own, and this one subscribes. An image is captured when it is due in the video; that
time is its stamp. Until the first message with that stamp is received, the player publishes, DDS delivers
twice, the monitor decodes and scores, and each of them waits for a core. A score that is due and never comes,
because a newer frame took its place, is counted.

    .venv/bin/python bench/live.py     # at 1, 2, 5 and 10 Hz, with 1 and 10 prompts: six minutes
    .venv/bin/python bench/live.py --seconds 60 --json live.json --plot live.png
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.time import Time
from rich.console import Console
from rich.progress import track
from rich.table import Table
from topreward_ros.msg import TaskProgress

from options import add_files, parser
from output import BLUE, YELLOW, legend_above, new_axes, write_json
from playing import SETTLING_S, machine_around, playing
from topreward_ros.core.frames import NS_PER_S
from topreward_ros.nodes import qos
from topreward_ros.views.bench import machine_line
from topreward_ros.views.picture import write_picture

SIZE = (640, 480)
CAMERA_RATE = 30.0  # [Hz]
PROMPTS = {1: "", 10: "ten_prompts.txt"}  # by their number, as the parameter has it
QUANTILES = (0.5, 0.95, 0.99)
TOO_SLOW = 0.98  # camera_speed at which the machine had no core left for the camera
COLOURS = {1: BLUE, 10: YELLOW}


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured of one monitor."""

    rate: float  #: of scoring [Hz]
    prompts: int
    ages_ms: list[float]  #: from capture to receipt, of every score
    published_ms: list[float]  #: from capture to publication, as the messages say themselves
    due: int  #: scores that should have come between the first and the last of them
    frames: int  #: of the longest prefix
    camera_speed: float  #: seconds between stamps per second between receipts; below 1 the player was late

    def quantiles(self) -> list[float]:
        """p50, p95, p99 of ``ages_ms``."""
        return [float(value) for value in np.quantile(self.ages_ms, QUANTILES)]


class Listener:
    """Receives progress and notes when. Use it as a context manager, within `playing`."""

    def __enter__(self) -> Listener:
        self.arrived: list[tuple[int, TaskProgress]] = []  #: time of receipt [ns], a message with a new score
        self._stamps: set[int] = set()  # of scores; a heartbeat repeats one
        self._context = Context()
        rclpy.init(context=self._context)
        self._node = Node("live", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._node.create_subscription(TaskProgress, "task_progress", self._on_progress, qos.progress())
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)

    def listen(self, seconds: float) -> None:
        """Receive what comes within ``seconds``, and forget what came before."""
        self.arrived.clear()
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def _on_progress(self, message: TaskProgress) -> None:
        now = time.time_ns()
        stamp = stamp_of(message)
        if message.num_frames and stamp not in self._stamps:
            self._stamps.add(stamp)
            self.arrived.append((now, message))


def stamp_of(message: TaskProgress) -> int:
    return int(Time.from_msg(message.header.stamp).nanoseconds)


def measure(rate: float, prompts: int, seconds: float) -> Row:
    parameters = {"sample_rate": rate, "prompts": PROMPTS[prompts]}
    with playing(parameters, SIZE, CAMERA_RATE) as monitor, Listener() as listener:
        listener.listen(SETTLING_S)
        listener.listen(seconds)
        arrived = listener.arrived
        if len(arrived) < 2:
            raise SystemExit(f"{len(arrived)} scores came in {seconds:g} s:\n{monitor.last_lines()}")
    latencies = [message.latency for _, message in arrived]
    span_ns = stamp_of(arrived[-1][1]) - stamp_of(arrived[0][1])
    received_ns = arrived[-1][0] - arrived[0][0]
    return Row(
        rate=rate,
        prompts=prompts,
        ages_ms=[1e-6 * (now - stamp_of(message)) for now, message in arrived],
        published_ms=[1e3 * latency.sec + 1e-6 * latency.nanosec for latency in latencies],
        due=round(span_ns / NS_PER_S * rate) + 1,
        frames=max(message.num_frames for _, message in arrived),
        camera_speed=span_ns / received_ns,
    )


def table_of(rows: Sequence[Row], machine: dict[str, Any]) -> Table:
    table = Table(
        title=f"from capture to progress, {SIZE[0]}x{SIZE[1]} rgb8 at {CAMERA_RATE:g} Hz, embedded model",
        caption=machine_line(machine),
    )
    for name in ("scoring", "prompts", "p50 [ms]", "p95", "p99", "scored of due", "frames"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        quantiles = [f"{value:.1f}" for value in row.quantiles()]
        counts = f"{len(row.ages_ms)} of {row.due}"
        table.add_row(f"{row.rate:g} Hz", str(row.prompts), *quantiles, counts, str(row.frames))
    return table


def plot(rows: Sequence[Row], machine: dict[str, Any], picture: Path) -> None:
    """Plot every score as a dot, by rate and number of prompts, with p50, p95 and p99."""
    figure, axes = new_axes(9, 5, grid="y")
    rates = sorted({row.rate for row in rows})
    rng = np.random.default_rng(0)
    for row in rows:
        place = rates.index(row.rate) + (0.2 if row.prompts > 1 else -0.2)
        colour = COLOURS[row.prompts]
        beside = place + rng.uniform(-0.11, 0.11, len(row.ages_ms))
        axes.plot(beside, row.ages_ms, ".", color=colour, alpha=0.35, markersize=5)
        for name, value in zip(("p50", "p95", "p99"), row.quantiles(), strict=True):
            width = 1.6 if name == "p50" else 0.8
            axes.hlines(value, place - 0.15, place + 0.15, color="0.15", linewidth=width)
            if name != "p95":
                axes.text(place + 0.16, value, f"{name} {value:.0f}", va="center", fontsize=7, color="0.25")
    for prompts in sorted({row.prompts for row in rows}):
        label = "1 prompt" if prompts == 1 else f"{prompts} prompts"
        axes.plot([], [], "o", color=COLOURS[prompts], label=label)
    axes.set_xticks(range(len(rates)), [f"{rate:g} Hz" for rate in rates])
    axes.set_xlim(-0.5, len(rates) - 0.4)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("scoring rate")
    axes.set_ylabel("from capture to receipt of progress [ms]")
    axes.set_title(
        f"How old a frame is when its progress is known (lines: p50, p95, p99)\n{machine_line(machine)}",
        fontsize=9,
        loc="left",
    )
    legend_above(axes)
    write_picture(figure, picture)


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--rates", nargs="+", type=float, default=[1.0, 2.0, 5.0, 10.0], metavar="HZ")
    command.add_argument("--prompts", nargs="+", type=int, choices=PROMPTS, default=list(PROMPTS))
    command.add_argument("--seconds", type=float, default=30.0, help="measured of each (%(default)s)")
    add_files(command)
    options = command.parse_args()
    machine = machine_around()
    cases = [(rate, prompts) for prompts in options.prompts for rate in options.rates]
    rows = [
        measure(rate, prompts, options.seconds)
        for rate, prompts in track(cases, "measuring", console=Console(stderr=True), transient=True)
    ]
    Console().print(table_of(rows, machine))
    for row in rows:
        if row.camera_speed < TOO_SLOW:
            Console().print(
                f"[bold red]{row.rate:g} Hz, {row.prompts} prompts: measure again.[/] The camera came to "
                f"{row.camera_speed:.0%} of its rate: the machine was busy, so this is no number of ours."
            )
    in_full = [asdict(row) | {"p50_p95_p99_ms": row.quantiles()} for row in rows]
    write_json(options.json, {"machine": machine, "quantiles": QUANTILES, "rows": in_full})
    if options.plot:
        plot(rows, machine, options.plot)


if __name__ == "__main__":
    main()
