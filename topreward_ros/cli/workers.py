"""The options --workers and --ray: by whom a command has its recordings scored."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from topreward_ros.cli.output import CommandError
from topreward_ros.core.printable import printable

if TYPE_CHECKING:
    from topreward_ros.offline.workers import Workers


_WORDS = ("auto", "local")  # of Ray, whatever lies here under that name


def add_worker_options(parser: argparse.ArgumentParser, what: str) -> None:
    """Add ``--workers`` and ``--ray``. ``what`` each of them is given at a time, such as 'each bag'."""
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes, each with a model (%(default)s)"
    )
    parser.add_argument(
        "--ray",
        nargs="?",
        const="",
        type=_address,
        metavar="ADDRESS",
        help=f"do {what} as a task of a Ray cluster: that of ADDRESS or RAY_ADDRESS, else that of this "
        "machine, else one on this machine alone; paths must lead to the same files on all machines",
    )


def _address(text: str) -> str:
    if text not in _WORDS and os.path.exists(text):
        raise argparse.ArgumentTypeError(
            f"{printable(text, 200)} is a file or a folder, and --ray takes the address of a cluster: write "
            "the paths before it, or --ray=auto"
        )
    return text


def workers_of(options: argparse.Namespace) -> Workers:
    """The workers that `add_worker_options` name. Raises `CommandError`, `JobError`."""
    from topreward_ros.offline.ray_jobs import check_ray
    from topreward_ros.offline.workers import Workers

    if options.workers < 1:
        raise CommandError(f"--workers {options.workers}: must be at least 1")
    if options.ray is not None and options.workers > 1:
        raise CommandError("--workers and --ray are two ways to do the same: give one of them")
    if options.ray is not None:
        check_ray()
    return Workers(options.workers, options.ray)
