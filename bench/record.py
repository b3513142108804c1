"""Whether `topreward record` keeps every image of a camera, and how much memory and time it takes.

A camera of 640x480 at 30 Hz (JPEG, or raw) and a monitor are played by this process over DDS, the recorder is
one of its own. One episode lasts as long as is asked for. Afterwards the bag is read: every image that was
published from the start of the episode to its end has to be in it, or to be counted as lost or left out. The
recorder's resident memory is looked at every second.

    .venv/bin/python bench/record.py                    # ten minutes
    .venv/bin/python bench/record.py --seconds 120 --raw --json record.json
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rclpy
import yaml
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rich.console import Console
from rosbags.highlevel import AnyReader
from sensor_msgs.msg import CompressedImage, Image
from topreward_ros.msg import MonitorInfo, TaskEvent, TaskProgress

from options import add_files, parser
from output import write_json
from playing import machine_around
from topreward_ros.core.frames import NS_PER_S
from topreward_ros.core.output_files import temporary_folder
from topreward_ros.defaults import large_image_environment
from topreward_ros.nodes import qos
from topreward_ros.nodes.demo import free_domain
from topreward_ros.views.bench import machine_line

RATE = 30.0  # [Hz]
WIDTH, HEIGHT = 640, 480
PICTURES = 30  # different ones, shown in turn
TOPIC = "/camera/image"
EPISODE = "bench"
SETTLING_S = 3.0  # after the recorder subscribes
LONGEST_START_S = 60.0


def pictures() -> list[np.ndarray]:
    """Scenes with edges and noise, of which a JPEG takes about 70 kB."""
    draw = np.random.default_rng(1)
    found = []
    for number in range(PICTURES):
        picture = cv2.resize(draw.integers(0, 255, (24, 32, 3), np.uint8), (WIDTH, HEIGHT))
        cv2.rectangle(picture, (10 * number, 100), (10 * number + 120, 300), (20, 200, 90), -1)
        noise = draw.normal(0, 6, picture.shape)
        found.append(np.clip(picture + noise, 0, 255).astype(np.uint8))
    return found


class Robot:
    """A camera and a monitor, in this process."""

    def __init__(self, raw: bool) -> None:
        self.node = Node("robot")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        make = self.node.create_publisher
        self.topic = TOPIC if raw else f"{TOPIC}/compressed"
        self.camera = make(Image if raw else CompressedImage, self.topic, qos.image_source())
        self.info = make(MonitorInfo, "monitor/info", qos.latched())
        self.event = make(TaskEvent, "task_event", qos.events())
        self.progress = make(TaskProgress, "task_progress", qos.progress())
        self.info.publish(MonitorInfo(model_id="bench", camera_names=[self.topic]))
        self.messages = [_raw(picture) if raw else _jpeg(picture) for picture in pictures()]
        self.published: list[int] = []  #: stamps [ns]
        self.late_ms = 0.0  #: the longest that an image was published after it was due

    def wait_for_recorder(self) -> None:
        """Raises `TimeoutError`."""
        end = time.monotonic() + LONGEST_START_S
        while not (self.camera.get_subscription_count() and self.event.get_subscription_count()):
            if time.monotonic() > end:
                raise TimeoutError("the recorder does not subscribe")
            self.executor.spin_once(timeout_sec=0.1)
        time.sleep(SETTLING_S)

    def say(self, kind: int) -> None:
        self.event.publish(TaskEvent(type=kind, episode_id=EPISODE, instruction="bench"))

    def show(self, seconds: float) -> None:
        """Publish images at `RATE`, and a report twice a second."""
        begun_s = time.monotonic()
        report = TaskProgress(episode_id=EPISODE, state=TaskProgress.RUNNING, instruction="bench")
        for number in range(round(seconds * RATE)):
            due_s = begun_s + number / RATE
            time.sleep(max(0.0, due_s - time.monotonic()))
            self.late_ms = max(self.late_ms, (time.monotonic() - due_s) * 1e3)
            message = self.messages[number % PICTURES]
            now_ns = time.time_ns()
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(now_ns, NS_PER_S)
            self.camera.publish(message)
            self.published.append(now_ns)
            if number % 15 == 0:
                self.progress.publish(report)


def _jpeg(picture: np.ndarray) -> CompressedImage:
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return CompressedImage(format="rgb8; jpeg compressed bgr8", data=data.tobytes())


def _raw(picture: np.ndarray) -> Image:
    image = Image(height=HEIGHT, width=WIDTH, encoding="bgr8", step=3 * WIDTH)
    image.data = picture.tobytes()
    return image


class Memory:
    """The resident memory of a process [MB], looked at every second."""

    def __init__(self, pid: int) -> None:
        self._file = Path(f"/proc/{pid}/statm")
        self.megabytes: list[float] = []

    def look(self) -> None:
        pages = int(self._file.read_text().split()[1])
        self.megabytes.append(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)


def measure(seconds: float, raw: bool) -> dict[str, Any]:
    """Record an episode of ``seconds`` and read its bag."""
    domain = free_domain()
    os.environ |= {
        "ROS_DOMAIN_ID": str(domain),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        **large_image_environment(os.environ),
    }
    with temporary_folder("topreward-bench-record-") as folder:
        command = [sys.executable, "-m", "topreward_ros.cli", "record", "--output", str(folder)]
        recorder = subprocess.Popen(command, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True)
        rclpy.init()
        robot = Robot(raw)
        memory = Memory(recorder.pid)
        try:
            robot.wait_for_recorder()
            robot.show(2.0)
            robot.published.clear()
            robot.late_ms = 0.0
            robot.say(TaskEvent.EPISODE_STARTED)
            left_s = seconds
            while left_s > 0:
                robot.show(min(1.0, left_s))
                left_s -= 1.0
                memory.look()
            robot.say(TaskEvent.SUCCESS)
            robot.say(TaskEvent.EPISODE_ENDED)
            time.sleep(2.5)
            with open(f"/proc/{recorder.pid}/stat", encoding="ascii") as file:
                ticks = file.read().rpartition(")")[2].split()[11:13]
        finally:
            recorder.send_signal(signal.SIGINT)
            said = recorder.communicate(timeout=30)[0]
            rclpy.try_shutdown()
        (bag,) = folder.iterdir()
        stamps, size = _read(bag, robot.topic)
        described = yaml.safe_load((bag / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    missing = [stamp for stamp in robot.published if stamp not in stamps]
    return {
        "seconds": seconds,
        "images": "raw" if raw else "JPEG",
        "image_bytes": float(np.mean([len(message.data) for message in robot.messages])),
        "published": len(robot.published),
        "missing": len(missing),
        "counted": described["custom_data"].get("messages_dropped", "")
        + described["custom_data"].get("messages_lost", ""),
        "bag_megabytes": size / 1e6,
        "files": len(described["files"]),
        "camera_late_ms": robot.late_ms,
        "cpu_share": sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK") / seconds,
        "memory_megabytes": memory.megabytes,
        "said": said,
    }


def _read(bag: Path, topic: str) -> tuple[set[int], int]:
    """The stamps of the images in ``bag`` [ns], and its size [bytes]."""
    stamps = set()
    with AnyReader([bag]) as reader:
        links = [link for link in reader.connections if link.topic == topic]
        for link, _, raw in reader.messages(links):
            message: Any = reader.deserialize(raw, link.msgtype)
            stamp = message.header.stamp
            stamps.add(stamp.sec * NS_PER_S + stamp.nanosec)
    return stamps, sum(file.stat().st_size for file in bag.iterdir())


def main() -> int:
    """Measure, print, and write what was asked for. Status 1 where images are missing and not counted."""
    arguments = parser(__doc__)
    arguments.add_argument(
        "--seconds", type=float, default=600.0, help="of the episode (default: %(default)g)"
    )
    arguments.add_argument("--raw", action="store_true", help="rgb images instead of JPEG")
    add_files(arguments)
    options = arguments.parse_args()
    found = measure(options.seconds, options.raw)
    memory = found["memory_megabytes"]
    tenth = max(1, len(memory) // 10)
    console = Console(highlight=False)
    console.print(machine_line(machine_around()))
    console.print(
        f"{found['published']} images ({found['images']}, {found['image_bytes'] / 1e3:.0f} kB) in "
        f"{found['seconds']:g} s: {found['missing']} missing, counted: {found['counted'] or 'none'}\n"
        f"bag of {found['bag_megabytes']:.0f} MB in {found['files']} files; {found['cpu_share']:.0%} of a "
        f"core; the camera was up to {found['camera_late_ms']:.0f} ms late\n"
        f"resident memory: {np.median(memory[tenth : 2 * tenth] or memory):.0f} MB in the second "
        f"tenth, {np.median(memory[-tenth:]):.0f} MB in the last, {max(memory):.0f} MB at most"
    )
    write_json(options.json, found)
    return int(bool(found["missing"]) and not found["counted"])


if __name__ == "__main__":
    sys.exit(main())
