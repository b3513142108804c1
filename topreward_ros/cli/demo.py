"""`topreward demo`: the shipped videos, or one of the user's, on a real topic before a real monitor."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from topreward_ros.cli.output import CommandError, add_model_option, check_outputs, ros_module
from topreward_ros.core.instruction import clean_task
from topreward_ros.defaults import DEMO_CLIPS, shared_file


def add_parser(commands: Any) -> None:
    """Add the command to ``commands``, the subparsers of `topreward`."""
    parser = commands.add_parser(
        "demo",
        help="play robot videos on a ROS 2 topic and watch the monitor follow them",
        description="Start a video player and the monitor as two processes, which meet on a real ROS 2 topic "
        "on this machine only, and watch: a robot that does its task, one that fails, and one that does "
        "nothing. Ends by itself and tells whether it came out as it should.",
    )
    parser.add_argument("--video", metavar="V", help="a video file of yours instead; needs --task")
    parser.add_argument(
        "--task", metavar="T", help="the instruction, in natural language; alone: for the first shipped video"
    )
    add_model_option(parser)
    parser.add_argument(
        "--svg", type=Path, metavar="FILE", help="save the last view of the (first) video as a picture"
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    if options.task is not None:
        options.task = clean_task(options.task, "--task")
        if "\n" in options.task:
            raise CommandError("--task has several lines, which are stages: the demonstration watches one")
    if options.video and not options.task:
        raise CommandError("--video without --task: say what the robot in it is to do")
    shipped = [shared_file(clip.video) for clip in DEMO_CLIPS]
    check_outputs(options, [options.video] if options.video else shipped, options.model)
    demo = ros_module("demo")
    return int(demo.run(options.video, options.task, options.model, options.svg))
