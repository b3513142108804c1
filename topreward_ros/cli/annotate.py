"""`topreward annotate`: progress, rewards and events added to what was recorded, without ROS 2.

Here a path is recognised as a bag or as a LeRobot dataset and handed to the one or the other; what is done
with it stands in annotate_bags.py and annotate_datasets.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from topreward_ros.cli import annotate_bags, annotate_datasets
from topreward_ros.cli.output import CommandError, add_model_option
from topreward_ros.cli.settings import add_set_option
from topreward_ros.cli.workers import add_worker_options, workers_of
from topreward_ros.core.printable import printable

#: The kinds of recordings: how one is recognised, and what annotates several of a kind.
_KINDS: dict[str, tuple[Callable[[Path], bool], Callable[[argparse.Namespace, Sequence[Path]], int]]] = {
    "dataset": (annotate_datasets.is_dataset, annotate_datasets.run),
    "bag": (annotate_bags.is_bag, annotate_bags.run),
}


def add_parser(commands: Any) -> None:
    """Add the command to ``commands``, the subparsers of `topreward`."""
    parser = commands.add_parser(
        "annotate",
        help="add progress, rewards and events to recorded bags and LeRobot datasets (needs no ROS 2)",
        description="Score recordings as the live monitor would. A bag gets a copy with its topics, "
        f"beside it as NAME{annotate_bags.ENDING}; a LeRobot dataset gets a file of progress in its folder, "
        "or a copy with rewards (--columns). What is recorded is never changed; what is done is skipped.",
        epilog="Examples: topreward annotate runs/* --output annotated; "
        "topreward annotate run_1 --task 'open the drawer' --image-topic /camera/image_raw; "
        "topreward annotate DATASET --camera front",
    )
    parser.add_argument(
        "recordings",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="folder of a bag (mcap or sqlite3, compressed or not), or of a LeRobot dataset (v3.0 or v2.1)",
    )
    parser.add_argument(
        "--task",
        action="append",
        metavar="T",
        help="the instruction, in natural language, of all of them; given several times, or in lines: stages",
    )
    add_model_option(parser)
    add_set_option(parser)
    parser.add_argument(
        "--output",
        type=Path,
        metavar="PATH",
        help="the folder in which copies of bags get the names of their bags; of a dataset, the file of "
        "progress, or with --columns the folder of the copy",
    )
    add_worker_options(parser, "each bag, or each episode of a dataset,")
    groups = {"bag": parser.add_argument_group("bags"), "dataset": parser.add_argument_group("datasets")}
    annotate_bags.add_options(groups["bag"])
    annotate_datasets.add_options(groups["dataset"])
    parser.set_defaults(run=partial(_run, groups))


def _run(groups: Mapping[str, Any], options: argparse.Namespace) -> int:
    """``groups``: the options that only one kind has, by kind."""
    kinds = {_kind_of(path) for path in options.recordings}
    if len(kinds) > 1:
        raise CommandError(f"{' and '.join(sorted(kinds))}s are annotated one kind at a time: call it twice")
    (kind,) = kinds
    for other, group in groups.items():
        for action in group._group_actions:
            if other != kind and getattr(options, action.dest) != action.default:
                raise CommandError(f"{action.option_strings[0]} is for {other}s: leave it out for a {kind}")
    workers_of(options)  # before anything else is looked at
    _, run = _KINDS[kind]
    return run(options, options.recordings)


def _kind_of(path: Path) -> str:
    """Which of `_KINDS` lies at ``path``. Raises `CommandError` where there is none."""
    shown = printable(str(path))
    if not path.exists():
        raise CommandError(f"{shown} does not exist: name the folder of a bag or of a LeRobot dataset")
    for kind, (is_kind, _) in _KINDS.items():
        if is_kind(path):
            return kind
    raise CommandError(
        f"{shown} is no bag, which is a folder with metadata.yaml and .mcap or .db3 files in it, and no "
        "LeRobot dataset, which has meta/info.json"
    )
