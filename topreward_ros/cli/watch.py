"""`topreward watch`: a running monitor in the terminal."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from topreward_ros.cli.interrupts import answered
from topreward_ros.cli.output import check_outputs, ros_module, seconds


def add_parser(commands: Any) -> None:
    """Add the command to ``commands``, the subparsers of `topreward`."""
    parser = commands.add_parser(
        "watch",
        help="watch a running monitor in the terminal",
        description="Show task_progress of a running monitor: a bar, the curve of the episode, latency and "
        "events. Without a terminal it prints a line per score. Ctrl-C ends it.",
        epilog="Names are relative: `topreward watch --ros-args -r __ns:=/arm` watches the monitor in /arm.",
    )
    parser.add_argument("--topic", default="task_progress", help="of TaskProgress (default: %(default)s)")
    parser.add_argument("--once", action="store_true", help="end after the first score")
    parser.add_argument(
        "--duration", type=seconds, metavar="S", help="end after S seconds; status 1 if nothing came"
    )
    parser.add_argument("--svg", type=Path, metavar="FILE", help="save the last view as a picture")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Watch until it is interrupted, or as long as the options say."""
    check_outputs(options, [name for name in options.ros_arguments if os.path.isfile(name)])
    try:
        watch = ros_module("watch")
    except KeyboardInterrupt:  # Ctrl-C is the way to end it, also while it still starts
        answered()
        return 0
    ros_arguments = [sys.argv[0], *options.ros_arguments]
    return int(watch.run(options.topic, options.once, options.duration, options.svg, ros_arguments))
