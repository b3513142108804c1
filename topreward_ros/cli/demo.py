"""`topreward demo`: the shipped videos, or one of the user's, on a real topic before a real monitor."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from topreward_ros.cli.output import CommandError, add_model_option, check_outputs, ros_module
from topreward_ros.cli.settings import add_set_option, check_chosen, settings_of, with_overrides
from topreward_ros.core.instruction import clean_task
from topreward_ros.defaults import DEMO_CLIPS, monitor_defaults, shared_file

# What a demonstration names itself, or what would leave it without a start.
_NOT_FOR_DEMO = frozenset(("task", "model", "image_topics", "autostart"))


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
    add_set_option(parser)
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
    parameters = with_overrides(monitor_defaults(), options.overrides, "demo", _NOT_FOR_DEMO)
    demo = ros_module("demo")
    check_chosen(options.model, settings_of(parameters)[1])  # before two processes are started
    return int(demo.run(options.video, options.task, parameters | {"model": options.model}, options.svg))
