"""`topreward distill`: a small model of one's own from a teacher's judgement, without ROS 2."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topreward_ros.cli.labelled import add_data_options, read_data
from topreward_ros.cli.output import CommandError, say, show, tell
from topreward_ros.cli.settings import add_set_option, check_chosen, settings_of, with_overrides
from topreward_ros.cli.workers import add_worker_options, workers_of
from topreward_ros.core.output_files import is_same_file
from topreward_ros.core.printable import printable
from topreward_ros.defaults import monitor_defaults

if TYPE_CHECKING:
    from topreward_ros.offline.distill.distill import Distilled, Order

_FOLDER = "student"
_SHOWN = 10  # problems
_MOST_MINUTES = 24 * 60
# What a distillation does not ask, what the live node alone has, and what has an option of its own.
_NOT_FOR_DISTILL = frozenset(
    ("task", "model", "image_topics", "stale_timeout", "autostart", "heartbeat_rate", "diagnostics_rate")
) | {"end_episode_on_success", "episode_timeout", "failure_threshold", "calibration", "accept_calibration"}


def add_parser(commands: Any) -> None:
    """Add the command to ``commands``, the subparsers of `topreward`."""
    parser = commands.add_parser(
        "distill",
        help="make a small model of your own tasks from a large one's judgement (needs no ROS 2)",
        description="Have a teacher score your episodes, and train a student of some three million "
        "parameters, or of another --size, to judge them alike on one thread of a CPU. Labels have the last "
        "word where there are some. One episode in five, rounded up, of each task and outcome is held out; "
        "the student stands beside its teacher "
        "on these in the card, README.md of the folder that is made, which --model and model:= take.",
        epilog="Examples: topreward distill runs --teacher Qwen/Qwen3-VL-8B-Instruct --output student; "
        "topreward distill runs --curves curves.json --minutes 20 (curves that `topreward score --json` "
        "wrote). Then: topreward evaluate more_runs --model student",
    )
    add_data_options(parser)
    parser.add_argument(
        "--teacher",
        dest="model",
        metavar="M",
        help="who judges the episodes: 'embedded', a hub id, the folder of a checkpoint, or the URL of a "
        "server",
    )
    parser.add_argument(
        "--curves",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="the teacher's curves of these episodes, as `topreward score --json` writes them; then no model "
        "is asked",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(_FOLDER),
        metavar="FOLDER",
        help="the folder that is made, with the student in it (default: %(default)s)",
    )
    parser.add_argument(
        "--budget-ms",
        type=float,
        default=25.0,
        metavar="MS",
        help="what a tick of the student may take of one CPU thread here, whatever else the machine does: "
        "sizes are timed before the training, and the largest that keeps it is taken (default: %(default)g)",
    )
    parser.add_argument(
        "--size",
        default="",
        metavar="NAME",
        help="take this size, such as 'embedded' or 'small', and time none; a name that is none lists all",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=60.0,
        metavar="MIN",
        help="that the training may take (default: %(default)g)",
    )
    parser.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="of the training, for the same weights again (default: as many as there is time for)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all that is drawn (%(default)s)")
    parser.add_argument(
        "--start-from",
        default="embedded",
        metavar="W",
        help="whose weights the training starts with: 'embedded', the embedded model's, where the size is "
        "its own; 'nothing', drawn ones; or FOLDER, those of an earlier student, which is taught more films, "
        "or longer, or with larger frames, and keeps its shape (default: %(default)s)",
    )
    parser.add_argument(
        "--device",
        default="",
        metavar="D",
        help="of the training: cpu or cuda (default: cuda where there is one)",
    )
    parser.add_argument(
        "--scores",
        type=Path,
        metavar="FOLDER",
        help="keep the teacher's scores and the state of the training there; a later run goes on with them",
    )
    add_set_option(parser)
    add_worker_options(parser, "each episode")
    parser.set_defaults(run=_run, usage_error=parser.error)


def _run(options: argparse.Namespace) -> int:
    began = time.monotonic()
    _check_teacher(options)
    _check_numbers(options)
    _check_folders(options)

    # PyTorch takes its time, and mistakes are told at once.
    from topreward_ros.core.output_files import write_file, written_folder
    from topreward_ros.offline.distill.distill import distill, usable
    from topreward_ros.views.distillation import Bars, card

    order = _order(options)
    labelled = read_data(options)
    for sentence in labelled.problems[:_SHOWN]:
        say(sentence)
    if (more := len(labelled.problems) - _SHOWN) > 0:
        say(f"and {more} more episodes that cannot be used")
    episodes, notes = usable(labelled.episodes)
    for sentence in (*labelled.notes, *notes):
        say(sentence)
    if options.scores is None:
        say("without --scores FOLDER, a run that is interrupted leaves nothing to go on from")
    with written_folder(options.output) as folder:
        made = distill(episodes, order, folder, options.scores, Bars(_stderr(), say))
        command = shlex.join(["topreward", *sys.argv[1:]])
        write_file(folder / "README.md", card(made, command, time.monotonic() - began))
    _show(options, made)
    return 0


def _stderr() -> Any:
    from rich.console import Console

    return Console(stderr=True)


def _check_teacher(options: argparse.Namespace) -> None:
    if options.model is not None and options.curves:
        options.usage_error("--teacher asks a model, --curves asks none: give one of them")
    if options.model is None and not options.curves:
        options.usage_error(
            "say whose judgement is to be learnt: --teacher M or, of curves that are there, --curves"
        )


def _check_numbers(options: argparse.Namespace) -> None:
    if not (isfinite(options.budget_ms) and options.budget_ms > 0):
        raise CommandError(f"--budget-ms {options.budget_ms:g}: must be a number of milliseconds above 0")
    if not (isfinite(options.minutes) and 0 < options.minutes <= _MOST_MINUTES):
        raise CommandError(f"--minutes {options.minutes:g}: must be above 0 and at most {_MOST_MINUTES}")
    if options.steps is not None and not 1 <= options.steps <= 1_000_000:
        raise CommandError(f"--steps {options.steps}: must be from 1 to 1000000, or be left out")
    if not 0 <= options.seed < 2**32:
        raise CommandError(f"--seed {options.seed}: must be a whole number from 0 to {2**32 - 1}")


def _check_folders(options: argparse.Namespace) -> None:
    """Raise `CommandError` where the output is there, or is, holds or lies in what is read."""
    output = Path(os.path.realpath(os.path.expanduser(options.output)))
    options.output = output
    if os.path.lexists(output):
        raise CommandError(f"--output {printable(str(output))} is there already: name a folder that is not")
    if not output.parent.is_dir():
        raise CommandError(
            f"--output {printable(str(output))}: {printable(str(output.parent))} is no folder that exists; "
            "make it, or name another place"
        )
    read = [*([options.dataset] if options.dataset else []), *options.success, *options.failure]
    for source in (Path(os.path.realpath(os.path.expanduser(it))) for it in read):
        if source.is_dir() and any(is_same_file(above, source) for above in output.parents):
            raise CommandError(
                f"--output {printable(str(output))} would lie in {printable(str(source))}, which is read: "
                "name a folder elsewhere"
            )
    kept = options.scores and Path(os.path.realpath(os.path.expanduser(options.scores)))
    if kept and (kept == output or output in kept.parents):
        raise CommandError(f"--scores {printable(str(kept))} would lie in --output: name another folder")
    options.scores = kept


def _order(options: argparse.Namespace) -> Order:
    """What is asked for. Raises `CommandError`."""
    import torch

    from topreward_ros.offline.distill.distill import Order
    from topreward_ros.offline.distill.start import open_start
    from topreward_ros.offline.evaluation_runs import EvaluationSettings, monitor_for_evaluation

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise CommandError(
            f"--device {printable(device, 50)} cannot be used here "
            f"({printable(str(error).splitlines()[0], 200)}): take cpu, or leave it out"
        ) from error
    start = open_start(options.start_from)
    start.check_size(options.size)
    parameters = with_overrides(monitor_defaults(), options.overrides, "distill", _NOT_FOR_DISTILL) | {
        "episode_timeout": 0.0,
        "failure_threshold": 0.0,  # nothing may end a film but its end
    }
    monitor, scorer = settings_of(parameters)
    if options.model is not None:
        check_chosen(options.model, scorer)
    scoring = EvaluationSettings(
        options.model or "", monitor_for_evaluation(monitor), scorer, (), "", options.rate or 0.0
    )
    return Order(
        scoring,
        tuple(options.curves),
        options.budget_ms,
        options.minutes,
        start,
        options.steps or 0,
        options.seed,
        options.size,
        device,
        workers_of(options),
    )


def _show(options: argparse.Namespace, made: Distilled) -> None:
    from topreward_ros.views.distillation import comparison, verdict_text
    from topreward_ros.views.evaluation_text import text_table

    table = comparison(made.measures, made.instructions.own, len(made.held_out), short=True)
    show(text_table(table))
    say(verdict_text(made))
    tell(
        printable(
            f"after the training a tick took {made.tick_ms:.1f} ms of one CPU thread; "
            f"{options.output / 'README.md'} tells the rest; try it on films of your own: topreward evaluate "
            f"DATASET --model {options.output}"
        )
    )
    if made.tick_ms > options.budget_ms:
        say(
            f"a tick took {made.tick_ms:.1f} ms of one CPU thread, above --budget-ms {options.budget_ms:g}: "
            "take a smaller --size if that is too much"
        )
