"""`topreward models`: what can score, what is on this machine, and how to get more."""

from __future__ import annotations

import argparse
from typing import Any

from topreward_ros.cli.output import say, seconds, show, tell, warn_of_task
from topreward_ros.cli.settings import (
    SCORING,
    add_set_option,
    check_chosen,
    settings_of,
    with_overrides,
)
from topreward_ros.core.printable import printable
from topreward_ros.defaults import DEMO_TASK, monitor_defaults

_CHECK_S = 3600.0  # [s]; a large model on a CPU takes minutes


def add_parser(commands: Any) -> None:
    """Add the command to ``commands``, the subparsers of `topreward`."""
    parser = commands.add_parser(
        "models",
        help="list, describe, download and check models (needs no ROS 2)",
        description="The models that score: what is on this machine, and how to get more.",
        epilog="Example: topreward models download Qwen/Qwen3-VL-8B-Instruct",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    about_list = "the embedded model, those in the local hub cache, and others to download"
    actions.add_parser("list", help=about_list, description=about_list).set_defaults(run=_list)
    for name, run, about in (
        ("info", _info, "what is in a model: size, hash, frame size, instructions it understands"),
        (
            "download",
            _download,
            "download a model from the Hugging Face hub, or what is missing of it",
        ),
        (
            "check",
            _check,
            "load a model and score the shipped video with it; status 1 if that fails, or takes too long",
        ),
    ):
        action = actions.add_parser(name, help=about, description=about)
        action.add_argument(
            "model", metavar="NAME", help="'embedded', a hub id, a folder; to check, also a URL or a plug-in"
        )
        action.set_defaults(run=run)
        if run is not _download:
            action.add_argument(
                "--prompts",
                default="",
                metavar="FILE",
                help="the question to ask, as the parameter prompts has it: a file of templates, or a preset "
                "such as roboreward (default: the paper's)",
            )
        if run is _info:
            action.add_argument(
                "--wordings",
                action="store_true",
                help="also list the wordings of each instruction that it understands",
            )
        if run is _check:
            action.add_argument(
                "--time-limit",
                type=seconds,
                default=_CHECK_S,
                metavar="S",
                help="seconds after which the check is given up (default: %(default)g)",
            )
            add_set_option(action, "device=cuda, dtype=bfloat16, adapter=FOLDER")


def _list(_: argparse.Namespace) -> int:
    from topreward_ros.offline.models import list_models
    from topreward_ros.views.models import model_table

    show(model_table(list_models()))
    return 0


def _info(options: argparse.Namespace) -> int:
    from topreward_ros.offline.models import describe_model
    from topreward_ros.views.models import facts_view

    show(facts_view(describe_model(options.model, options.prompts), wordings=options.wordings))
    return 0


def _download(options: argparse.Namespace) -> int:
    from rich.console import Console

    from topreward_ros.offline.model_download import download_model, why_nothing_to_download
    from topreward_ros.views.models import DownloadBar

    if reason := why_nothing_to_download(options.model):
        tell(printable(reason))
        return 0
    with DownloadBar(Console(stderr=True, highlight=False), options.model) as bar:
        folder = download_model(options.model, bar)
    name = printable(options.model)
    tell(f"{name} is in {printable(str(folder))}; use it with model:={name}, or --model {name}")
    return 0


def _check(options: argparse.Namespace) -> int:
    from rich.console import Console

    from topreward_ros.offline.bounded_call import call_bounded
    from topreward_ros.offline.models import check_model, why_not_rising
    from topreward_ros.views import terminal
    from topreward_ros.views.models import check_view

    shipped = monitor_defaults()
    not_for = (frozenset(shipped) - SCORING) | {"prompts"}
    parameters = with_overrides(monitor_defaults(), options.overrides, "models check", not_for)
    parameters["prompts"] = options.prompts
    if options.overrides:  # what nobody has set is not worth a word
        check_chosen(options.model, settings_of(parameters)[1])
    changes = {name: value for name, value in parameters.items() if value != shipped[name]}
    what = f"checking model {printable(options.model)}"
    with terminal.working(Console(stderr=True), f"{what} ..."):
        result = call_bounded(check_model, options.model, changes, time_limit_s=options.time_limit, what=what)
    if warning := why_not_rising(result.info, result.curve, result.question):
        say(f"{warning}; or it is for what was set" if options.overrides else warning)
    warn_of_task(DEMO_TASK, result.info)
    show(check_view(result))
    return 0
