"""What the commands share: their error, common options, and how they write what they made."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topreward_ros.core.errors import UserError
from topreward_ros.core.printable import printable
from topreward_ros.defaults import monitor_defaults

if TYPE_CHECKING:
    from rich.console import Console

    from topreward_ros.scoring.base import ScorerInfo

PICTURES = (".png", ".svg", ".pdf", ".jpg")


class CommandError(UserError):
    """The arguments cannot be used, or a result cannot be written."""


def add_model_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--model``."""
    parser.add_argument(
        "--model",
        default=monitor_defaults()["model"],
        metavar="M",
        help="'embedded', a hub id, or the folder of a checkpoint (default: %(default)s)",
    )


def seconds(text: str) -> float:
    """The value of an option that takes a time, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: must be a number of seconds above 0")
    return value


def check_outputs(options: argparse.Namespace, inputs: Sequence[str | Path] = ()) -> None:
    """Raise `CommandError` before the work where ``--json`` or ``--plot`` cannot or must not be written.

    ``inputs``: files and folders that the command reads. None of them is overwritten, and no picture is
    written among the pictures of a folder, of which it would be one the next time.
    """
    check_output(options.json)
    check_output(options.plot)
    if options.plot and options.plot.suffix.lower() not in PICTURES:
        raise CommandError(f"--plot {options.plot}: its name must end in one of {', '.join(PICTURES)}")
    outputs = {}
    if options.json and options.json != "-":
        outputs["--json"] = Path(options.json)
    if options.plot:
        outputs["--plot"] = options.plot
    if len(outputs) == 2 and _is_same(*outputs.values()):
        raise CommandError(
            f"--json {options.json} and --plot {options.plot} are one file, the picture would replace the "
            "JSON: name two"
        )
    for option, output in outputs.items():
        for read in map(Path, map(os.path.expanduser, inputs)):
            folder = Path(os.path.realpath(output)).parent
            if _is_same(output, read) or (output.suffix.lower() in PICTURES and _is_same(folder, read)):
                raise CommandError(f"{option} {output} would change {read}, which is read: name another file")


def _is_same(one: Path, other: Path) -> bool:
    """Whether two paths, of which none need exist, lead to one file."""
    if one.exists() and other.exists():
        return os.path.samefile(one, other)
    return os.path.realpath(one) == os.path.realpath(other)


def check_output(name: str | Path | None) -> None:
    """Raise `CommandError` before the work where its result cannot be written to ``name``."""
    if name in (None, "-"):
        return
    path = Path(str(name)).absolute()
    if path.is_dir() or not path.parent.is_dir():
        raise CommandError(f"{name} cannot be written: name a file in a folder that exists")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise CommandError(f"{name} cannot be written: you lack the permission; name another file")


def results_console(options: argparse.Namespace) -> Console:
    """Where results for people go: to stdout, or to stderr when the JSON goes to stdout."""
    from rich.console import Console

    return Console(stderr=options.json == "-", highlight=False)


def say(text: str) -> None:
    """Print ``text`` to standard error as one line of the command `topreward`, with nothing raw in it."""
    print(f"topreward: {printable(text)}", file=sys.stderr)


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Raise `CommandError` that names ``path`` where writing it fails after all: a disk may be full."""
    try:
        yield
    except OSError as error:
        raise CommandError(f"{path} cannot be written ({error.strerror}); name another file") from error


def write_json(name: str | None, make: Callable[[], str]) -> None:
    """Write what ``make`` gives to the file that ``--json`` names, or to standard output."""
    if name == "-":
        sys.stdout.write(make())
    elif name:
        with writing(name):
            Path(name).write_text(make(), encoding="utf-8")


def show(content: Any) -> None:
    """Print what rich can render to standard output."""
    from rich.console import Console

    Console(highlight=False).print(content)


def warn_of_unknown_instruction(instruction: str, info: ScorerInfo) -> None:
    """Say on stderr that the model does not know ``instruction``, where it does not."""
    from topreward_ros.scoring.checkpoint.vocabulary import unknown_instruction_warning

    if warning := unknown_instruction_warning(instruction, info, "--model "):
        say(warning)


def ros_module(name: str) -> Any:
    """Import nodes/NAME.py of the command NAME. Raises `CommandError` where ROS 2 is missing."""
    from importlib import import_module

    try:
        return import_module(f"topreward_ros.nodes.{name}")
    except ImportError as error:
        raise CommandError(
            f"`topreward {name}` needs ROS 2 with the messages of topreward_ros ({error}): "
            "run `make setup`, or `colcon build` and source install/setup.bash"
        ) from error
