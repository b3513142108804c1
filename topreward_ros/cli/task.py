"""`topreward task`: the task of a running monitor, and its reset and pauses."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from topreward_ros.cli.output import CommandError, ros_module, seconds
from topreward_ros.core.instruction import clean_task
from topreward_ros.core.monitor_call import LONGEST_ABSENCE_S, LONGEST_ANSWER_S, MonitorCall


def add_parser(commands: Any) -> None:
    """Add the command to ``commands``, the subparsers of `topreward`."""
    parser = commands.add_parser(
        "task",
        help="tell a running monitor its task, or to begin anew",
        description="Set the task of a running monitor by its service monitor/set_task, and print what it "
        "answers; a new episode begins, also with the same task. Status 1: it refused, or there is none.",
        epilog="Names are relative: `topreward task TASK --ros-args -r __ns:=/arm` is for that in /arm.",
    )
    parser.add_argument(
        "task",
        nargs="*",
        metavar="TASK",
        help="the instruction, in natural language; several, or lines: stages, one after the other; empty "
        "('') means idle",
    )
    others = parser.add_mutually_exclusive_group()
    others.add_argument(
        "--reset", action="store_true", help="begin a new episode of the same task (monitor/reset)"
    )
    others.add_argument("--enable", action="store_true", help="go on after --disable (monitor/enable)")
    others.add_argument(
        "--disable", action="store_true", help="end the episode and ignore images (monitor/enable)"
    )
    parser.add_argument("--episode-id", metavar="NAME", help="the name of the new episode, with TASK")
    parser.add_argument(
        "--timeout",
        type=seconds,
        metavar="S",
        help=f"give up after S seconds without an answer (default: {LONGEST_ABSENCE_S:g} without a monitor, "
        f"{LONGEST_ANSWER_S:g} from the call to its answer; a monitor that is there has as long as its model "
        "takes to load)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Tell the monitor what the options say."""
    call = _call(options)
    task = ros_module("task")
    return int(task.run(call, options.timeout, [sys.argv[0], *options.ros_arguments]))


def _call(options: argparse.Namespace) -> MonitorCall:
    """The call that the options stand for. Raises `CommandError` and `InstructionError`."""
    other = next((name for name in ("reset", "enable", "disable") if getattr(options, name)), "")
    if other and (options.task or options.episode_id is not None):
        what = "TASK" if options.task else "--episode-id"
        raise CommandError(f"{what} and --{other} are two commands: give one at a time")
    if other == "reset":
        return MonitorCall("reset")
    if other:
        return MonitorCall("enable", {"data": other == "enable"})
    if not options.task:
        raise CommandError(
            "no task: say what the robot is to do ('' means idle), or give --reset, --enable or --disable"
        )
    task = clean_task(options.task)
    return MonitorCall("set_task", {"instruction": task, "episode_id": options.episode_id or ""})
