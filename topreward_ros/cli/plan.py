"""`topreward plan`: a model proposes the stages of a task, for a person to edit."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from topreward_ros.cli.output import CommandError, say, tell
from topreward_ros.core.instruction import clean_instruction
from topreward_ros.core.printable import printable
from topreward_ros.defaults import monitor_defaults

_KIND = "a model that writes text and follows instructions, such as Qwen/Qwen3-VL-8B-Instruct"


def add_parser(commands: Any) -> None:
    """Add the command to ``commands``, the subparsers of `topreward`."""
    parser = commands.add_parser(
        "plan",
        help="let a model propose the stages of a task, for you to edit (needs no ROS 2)",
        description="A model that writes text breaks a task down into stages, one per line. Nothing is set "
        "or started: read the list, edit it, and give it to the monitor.",
        epilog='Example: topreward plan "Tidy the workshop" --image scene.jpg --model '
        "Qwen/Qwen3-VL-8B-Instruct > task.txt",
    )
    parser.add_argument("task", metavar="TASK", help="what is to be done, in natural language")
    parser.add_argument("--image", type=Path, metavar="FILE", help="a picture of the scene, for the model")
    parser.add_argument(
        "--model",
        metavar="M",
        help=f"{_KIND}, as a hub id or the folder of its checkpoint; the embedded model writes nothing",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ... (default: %(default)s)")
    parser.set_defaults(run=_run, usage_error=parser.error)


def _run(options: argparse.Namespace) -> int:
    if options.model is None:
        options.usage_error(f"the following arguments are required: --model: {_KIND}")
    task = clean_instruction(options.task, "the task")
    if not task:
        raise CommandError("the task is empty; say what is to be done")

    from topreward_ros.offline.plan import propose
    from topreward_ros.scoring.base import RANDOM_WEIGHTS, ScorerSettings

    settings = replace(ScorerSettings.from_parameters(monitor_defaults()), device=options.device)
    plan = propose(task, options.model, settings, options.image)
    for stage in plan.stages:
        tell(printable(stage))
    note = f", which has {RANDOM_WEIGHTS}: it means nothing" if plan.random_weights else ""
    say(f"proposed by {plan.model}{note}. Read it and edit it before you use it")
    return 0
