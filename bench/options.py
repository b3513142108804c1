"""What the scripts of bench/ share on the command line. Importing this loads no library."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that shows ``description``, the docstring of the script, as it is written."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def at_least(least: int) -> Callable[[str], int]:
    """The ``type`` of an option that takes a whole number from ``least`` on."""

    def whole(text: str) -> int:
        if not text.strip().isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text}: must be a whole number from {least} on")
        return int(text)

    return whole


def add_files(command: argparse.ArgumentParser, plot: bool = True) -> None:
    """Add ``--json`` and, with ``plot``, ``--plot``: where the numbers and a picture of them go."""
    command.add_argument("--json", type=Path, help="write every number here, too")
    if plot:
        command.add_argument("--plot", type=Path, help="write a picture: .png, .svg or .pdf")


def add_threads(command: argparse.ArgumentParser) -> None:
    """Add ``--threads`` of the scorer."""
    command.add_argument("--threads", type=int, default=0, help="of the scorer; 0: all cores but one")
