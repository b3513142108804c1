"""How many camera frames arrive: a video player in one process, a raw subscription in this one.

This prints a row for each image size, reliability of the subscription and Fast DDS profile. The subscription
decodes nothing, so what is missing was lost by the transport.

    .venv/bin/python bench/transport.py
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from options import parser
from topreward_ros.core.output_files import temporary_folder
from topreward_ros.defaults import fast_dds_profile_variables, large_image_environment
from topreward_ros.nodes.demo import free_domain

RATE = 30.0  # [Hz]
SIZES = ((640, 480), (1920, 1080))
VARIABLES = fast_dds_profile_variables(os.environ)


def folder_of_images(folder: Path, size: tuple[int, int], frames: int) -> Path:
    """Write one JPEG under many names, so that every frame costs the player the same."""
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 255, (size[1] // 8, size[0] // 8, 3), np.uint8)
    cv2.imwrite(str(folder / "0.jpg"), cv2.resize(noise, size))
    for k in range(1, frames):
        (folder / f"{k}.jpg").symlink_to("0.jpg")
    return folder


def count_arrivals(images: Path, reliable: bool) -> tuple[int, float]:
    """Count the frames that arrive; also returns their rate [Hz]. The environment gives the profile."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import Image

    rclpy.init()
    node = rclpy.create_node("arrivals")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    times: list[float] = []
    reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
    qos = QoSProfile(depth=10, reliability=reliability)
    node.create_subscription(Image, "image", lambda _: times.append(time.monotonic()), qos, raw=True)
    arguments = ["--ros-args", "--log-level", "warn", "-p", f"video:={images}", "-p", f"rate:={RATE}"]
    player = subprocess.Popen([sys.executable, "-m", "topreward_ros.nodes.video_player", *arguments])
    while player.poll() is None:
        executor.spin_once(timeout_sec=0.1)
    if player.returncode:
        raise SystemExit(f"the player ended with status {player.returncode}")
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown()
    return len(times), (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 0.0


def in_a_fresh_process(images: Path, reliable: bool, with_profile: bool) -> str:
    """Run `count_arrivals` in a new process, as Fast DDS reads its profile once per process."""
    without = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    environment = {
        **without,
        **(large_image_environment(without) if with_profile else {}),
        "ROS_DOMAIN_ID": str(free_domain()),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    }
    command = [sys.executable, __file__, "--images", str(images), *(["--reliable"] if reliable else [])]
    return subprocess.run(
        command, env=environment, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


def main() -> None:
    """Measure every combination, or with --images one of them in this process."""
    command = parser(__doc__)
    command.add_argument("--frames", type=int, default=150, help="frames per row (%(default)s)")
    command.add_argument("--images", type=Path, help=argparse.SUPPRESS)
    command.add_argument("--reliable", action="store_true", help=argparse.SUPPRESS)
    options = command.parse_args()
    if options.images:
        count, rate = count_arrivals(options.images, options.reliable)
        print(f"{count} of {len(list(options.images.iterdir()))} at {rate:.1f} Hz")
        return
    print("| size | subscription | profile | arrived |\n|---|---|---|---|")
    with temporary_folder("topreward-bench-") as folder:
        for width, height in SIZES:
            images = folder_of_images(Path(folder, f"{width}"), (width, height), options.frames)
            for reliable in (False, True):
                for with_profile in (False, True):
                    arrived = in_a_fresh_process(images, reliable, with_profile)
                    kind = "reliable" if reliable else "best effort"
                    profile = "shipped" if with_profile else "none"
                    print(f"| {width}x{height} | {kind} | {profile} | {arrived} |", flush=True)


if __name__ == "__main__":
    main()
