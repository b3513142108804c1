"""`topreward annotate`: progress, rewards and events added to what was recorded, without ROS 2.

Here a path is recognised as a bag or as a LeRobot dataset and handed to the one or the other; what is done
with it stands in annotate_bags.py and annotate_datasets.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from topreward_ros.cli import annotate_bags, annotate_datasets
from topreward_ros.cli.output import CommandError, add_model_option
from topreward_ros.cli.settings import add_set_option
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
        help="add progress, rewards and events to recorded bags (needs no ROS 2)",
        description="Score recordings as the live monitor would, and add its topics to a copy of each bag. "
        "What is recorded is never touched; a bag that is done already is skipped.",
        epilog="Examples: topreward annotate runs/* --output annotated; "
        "topreward annotate run_1 --task 'open the drawer' --image-topic /camera/image_raw",
    )
    parser.add_argument(
        "recordings",
        nargs="+",
        type=Path,
        metavar="BAG",
        help="folder of a bag (mcap or sqlite3, compressed or not)",
    )
    parser.add_argument(
        "--task",
        action="append",
        metavar="T",
        help="the instruction, in natural language, of all of them; given several times, or in lines: stages",
    )
    add_model_option(parser)
    add_set_option(parser)
    parser.add_argument("--output", metavar="PATH", type=Path, help="where the result goes")
    parser.add_argument("--overwrite", action="store_true", help="replace an output that exists")
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="processes, each with a model of its own (default: 1)",
    )
    annotate_bags.add_options(parser.add_argument_group("bags"))
    annotate_datasets.add_options(parser.add_argument_group("LeRobot datasets"))
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    kinds = {_kind_of(path) for path in options.recordings}
    if len(kinds) > 1:
        raise CommandError(f"{' and '.join(sorted(kinds))}s are annotated one kind at a time: call it twice")
    (kind,) = kinds
    _, run = _KINDS[kind]
    return run(options, options.recordings)


def _kind_of(path: Path) -> str:
    """Which of `_KINDS` lies at ``path``. Raises `CommandError` where there is none."""
    shown = printable(str(path))
    if not path.exists():
        raise CommandError(f"{shown} does not exist: name the folder of a bag")
    for kind, (is_kind, _) in _KINDS.items():
        if is_kind(path):
            return kind
    raise CommandError(
        f"{shown} is no bag: that is a folder with metadata.yaml and .mcap or .db3 files in it"
    )
