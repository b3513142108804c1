"""What a node keeps of cameras that come and go, where none of this package's code runs in it.

A plain node subscribes to images. Publishers of them start one after the other, send for half a second, and
leave in order (``leave``) or are killed (``kill``); beside them another node has one publisher that stays
(``stay``). What grows in the first two and not in the third is the middleware's.

    .venv/bin/python bench/publishers.py           # 100 publishers, three minutes
    .venv/bin/python bench/publishers.py --monitor      # the monitor in place of the plain node
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from typing import Any

from options import add_files, parser
from process_memory import memory_mib, status_of

KINDS = ("leave", "kill", "stay")
WIDTH, HEIGHT, RATE = 640, 480, 30.0
SENDS_S = 0.5
_MARKS = 10  # rows of the table
_MONITORS_LOAD_S = 30.0


def subscribe() -> None:
    """Take images until somebody ends this process."""
    import rclpy
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image

    rclpy.init()
    node = rclpy.create_node("subscriber")
    node.create_subscription(Image, "image", lambda _: None, qos_profile_sensor_data)
    while rclpy.ok():
        rclpy.spin_once(node, timeout_sec=0.1)


def publish(how: str) -> None:
    """Send images for a while, and go."""
    import rclpy
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image

    rclpy.init()
    node = rclpy.create_node("publisher")
    publisher = node.create_publisher(Image, "image", qos_profile_sensor_data)
    image = Image(height=HEIGHT, width=WIDTH, encoding="rgb8", step=3 * WIDTH, data=bytes(3 * WIDTH * HEIGHT))
    until = time.monotonic() + SENDS_S
    while how == "stay" or time.monotonic() < until:
        publisher.publish(image)
        time.sleep(1 / RATE)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    node.destroy_node()
    rclpy.shutdown()


def measure(publishers: int, *, monitor: bool) -> dict[str, list[float]]:
    """Private memory of each subscriber before the first publisher and after every one.

    ``monitor``: they are monitors without a task, which are given time to load their model.
    """
    environment = {**os.environ, "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    domains = dict(zip(KINDS, random.sample(range(1, 101), len(KINDS)), strict=True))
    children: list[subprocess.Popen[bytes]] = []

    def start(role: str, kind: str) -> subprocess.Popen[bytes]:
        domain = {**environment, "ROS_DOMAIN_ID": str(domains[kind])}
        command = [__file__, "--role", role, "--kind", kind]
        if monitor and role == "subscribe":
            command = ["-m", "topreward_ros.nodes.monitor", "--ros-args", "-p", "image_topics:=[/image]"]
        child = subprocess.Popen([sys.executable, *command], env=domain)
        children.append(child)
        return child

    found: dict[str, list[float]] = {}
    try:
        nodes = {kind: start("subscribe", kind) for kind in KINDS}
        time.sleep(_MONITORS_LOAD_S if monitor else 3.0)
        start("publish", "stay")
        for _ in range(publishers + 1):
            for kind, node in nodes.items():
                found.setdefault(kind, []).append(memory_mib(status_of(node.pid), "RssAnon"))
            for child in [start("publish", kind) for kind in KINDS if kind != "stay"]:
                child.wait()
    finally:
        for child in children:
            child.kill()
            child.wait()
    return found


def show(found: dict[str, list[float]], what: str) -> None:
    """Print memory after so many publishers, and the machine."""
    from rich.console import Console  # a child loads none of this
    from rich.table import Table

    from topreward_ros.offline.engine_bench import machine
    from topreward_ros.views.bench import machine_line

    count = len(found["stay"]) - 1
    shown = Table(title=f"private memory of {what} [MiB]")
    for column in ("publishers", *KINDS):
        shown.add_column(column, justify="right")
    for mark in sorted({round(k * count / _MARKS) for k in range(_MARKS + 1)}):
        shown.add_row(str(mark), *(f"{found[kind][mark]:.1f}" for kind in KINDS))
    Console().print(shown, machine_line(machine()))


def main() -> None:
    """Measure, show a table, and write what was asked for."""
    command = parser(__doc__)
    command.add_argument("--publishers", type=int, default=100, help="one after the other (%(default)s)")
    command.add_argument("--role", choices=("subscribe", "publish"), help=argparse.SUPPRESS)  # in a child
    command.add_argument("--kind", choices=KINDS, help=argparse.SUPPRESS)
    command.add_argument("--monitor", action="store_true", help="subscribers are this package's monitor")
    add_files(command, plot=False)
    options = command.parse_args()
    if options.role == "subscribe":
        return subscribe()
    if options.role == "publish":
        return publish(options.kind)
    found: dict[str, Any] = measure(options.publishers, monitor=options.monitor)
    show(found, "a monitor" if options.monitor else "a plain subscriber")
    from output import write_json

    return write_json(options.json, {"private_mib": found})


if __name__ == "__main__":
    main()
