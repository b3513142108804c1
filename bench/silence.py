"""How soon a monitor says that no image can be used: from the last good image to state, event, diagnostics.

A camera of this process shows good images to a monitor in a process of its own, over real DDS, and then
none, or such as cannot be used. With `stale_timeout` T, STALE has to come no later than T + 0.5 s after the
last good image, whatever was wrong with those that followed. It may come half a second before T where images
that nobody looked at cannot be told from those that were bad.

    .venv/bin/python bench/silence.py                      # two minutes
    .venv/bin/python bench/silence.py --repeats 10 --json silence.json
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sensor_msgs.msg import Image
from topreward_ros.msg import TaskEvent, TaskProgress

from options import add_files, parser
from output import write_json
from playing import TASK, machine_around, wait_for
from topreward_ros.core.output_files import temporary_folder
from topreward_ros.nodes import conversions, qos
from topreward_ros.nodes.demo import Child, free_domain, stop
from topreward_ros.views.bench import machine_line

STALE_TIMEOUT = 2.0  # [s]
LIMIT = STALE_TIMEOUT + 0.5  # [s]
RATE = 20.0  # of the camera [Hz]
WORSE = (DiagnosticStatus.WARN, DiagnosticStatus.ERROR, DiagnosticStatus.STALE)


class Camera:
    """The surroundings of a monitor: a camera and a listener. Use it as a context manager."""

    def __enter__(self) -> Camera:
        self._context = Context()
        rclpy.init(context=self._context)
        self._node = Node("camera", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._publisher = self._node.create_publisher(Image, "image", qos.image_source())
        self.state = TaskProgress.UNKNOWN
        self.told: dict[str, float] = {}  #: what was heard of the silence -> when [s]
        for kind, topic, callback, profile in (
            (TaskProgress, "task_state", self._on_state, qos.latched()),
            (TaskEvent, "task_event", self._on_event, qos.events()),
            (DiagnosticArray, "/diagnostics", self._on_diagnostics, 10),
        ):
            self._node.create_subscription(kind, topic, callback, profile)
        pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
        self._image = Image(width=64, height=48, step=192, encoding="rgb8", data=pixels.tobytes())
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)

    def show(self, until: Callable[[], bool], stamp_ns: int | None = None, encoding: str = "rgb8") -> float:
        """Publish images until something holds; returns when the last of them was published [s]."""
        end = time.monotonic() + 60.0
        published = 0.0
        while not until():
            if time.monotonic() > end:
                raise SystemExit("the monitor said nothing within a minute")
            self._image.header.stamp = conversions.time_message(stamp_ns or time.time_ns())
            self._image.encoding = encoding
            self._publisher.publish(self._image)
            published = time.monotonic()
            self.listen(1.0 / RATE)
        return published

    def listen(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def _on_state(self, message: TaskProgress) -> None:
        self.state = message.state
        if message.state == TaskProgress.STALE:
            self.told.setdefault("state", time.monotonic())

    def _on_event(self, message: TaskEvent) -> None:
        if message.type == TaskEvent.STALE_IMAGES:
            self.told.setdefault("event", time.monotonic())

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        if any(status.level in WORSE and "no image" in status.message for status in message.status):
            self.told.setdefault("diagnostics", time.monotonic())


def measure(camera: Camera, kind: str) -> dict[str, float]:
    """Seconds from the last good image until each way of telling told of a silence of ``kind``."""
    camera.show(lambda: camera.state == TaskProgress.RUNNING)
    until = time.monotonic() + 1.5
    last_good = camera.show(lambda: time.monotonic() > until)
    camera.told.clear()

    def is_told() -> bool:
        return len(camera.told) == 3

    if kind == "no image comes":
        end = time.monotonic() + 60.0
        while not is_told() and time.monotonic() < end:
            camera.listen(0.05)
    elif kind == "an unreadable encoding":
        camera.show(is_told, encoding="hsv17")
    else:
        camera.show(is_told, stamp_ns=time.time_ns() - (0 if kind == "stamps stand still" else 3600 * 10**9))
    return {way: when - last_good for way, when in camera.told.items()}


KINDS = (
    "no image comes",
    "an unreadable encoding",
    "stamps stand still",
    "stamps of an hour ago, all the same",
)


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--repeats", type=int, default=3, help="of each kind of silence")
    add_files(command, plot=False)
    options = command.parse_args()
    os.environ |= {"ROS_DOMAIN_ID": str(free_domain()), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    measured: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    children: list[Child] = []
    parameters: dict[str, Any] = {
        "task": TASK,
        "success_threshold": 0.0,
        "stale_timeout": STALE_TIMEOUT,
        "diagnostics_rate": 10.0,
    }
    with temporary_folder("topreward-bench-") as folder, Camera() as camera:
        try:
            children.append(Child("monitor", parameters, folder, os.environ))
            wait_for("watching", children[0])
            for kind in track([kind for kind in KINDS for _ in range(options.repeats)], "Falling silent"):
                measured[kind].append(measure(camera, kind))
        finally:
            stop(children)
    ways = ("state", "event", "diagnostics")
    table = Table("what comes", *(f"{way} [s]" for way in ways), title=f"stale_timeout {STALE_TIMEOUT:g} s")
    for kind, rows in measured.items():
        spans = [(min(row[way] for row in rows), max(row[way] for row in rows)) for way in ways]
        table.add_row(kind, *(f"{low:.2f} to {high:.2f}" for low, high in spans))
    console = Console()
    console.print(table)
    slowest = max(row[way] for rows in measured.values() for row in rows for way in ways)
    verdict = "within" if slowest <= LIMIT else "NOT within"
    console.print(f"slowest {slowest:.2f} s: {verdict} {LIMIT:g} s. {machine_line(machine_around())}")
    write_json(
        options.json, {"machine": machine_around(), "stale_timeout": STALE_TIMEOUT, "silences": measured}
    )


if __name__ == "__main__":
    main()
