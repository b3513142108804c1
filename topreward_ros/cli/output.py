"""What the commands share: their error, common options, and how they write what they made."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topreward_ros.core.errors import UserError
from topreward_ros.core.output_files import is_same_file, is_stream, names_a_folder, write_file
from topreward_ros.core.printable import printable
from topreward_ros.core.standard_output import drop_standard_output
from topreward_ros.defaults import monitor_defaults

if TYPE_CHECKING:
    from rich.console import Console

    from topreward_ros.scoring.base import ScorerInfo

PICTURES = (".png", ".svg", ".pdf", ".jpg")


class CommandError(UserError):
    """The arguments cannot be used, or a result cannot be written."""


_MODELS = "'embedded', a hub id, the folder of a checkpoint, the URL of a server, or a plug-in"


def add_model_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--model``."""
    parser.add_argument(
        "--model",
        default=monitor_defaults()["model"],
        metavar="M",
        help=f"{_MODELS} (default: %(default)s)",
    )


def add_models_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--model``, which may be repeated: ``options.models``, empty where none is named."""
    parser.add_argument(
        "--model",
        dest="models",
        action="append",
        default=[],
        metavar="M",
        help=f"{_MODELS}; repeat it for several side by side (default: {monitor_defaults()['model']})",
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


def check_outputs(
    options: argparse.Namespace, inputs: Iterable[str | Path] = (), model: str | None = None
) -> None:
    """Raise `CommandError` before the work where an output cannot or must not be written.

    Outputs are what ``--json``, ``--plot``, ``--svg`` and ``--output`` name, and standard output where the
    shell sends it to a file. ``inputs``: files and folders that the command reads, and ``model`` as a user
    names it. None of them is overwritten; no picture is written among the pictures of a folder, of which it
    would be one the next time, and nothing into the folder of a model. What counts is the file, by whatever
    name.
    """
    named = {name: getattr(options, name, None) for name in ("json", "plot", "svg", "output")}
    outputs = {f"--{name}": Path(path) for name, path in named.items() if path is not None and path != "-"}
    for path in named.values():
        if path is not None and path != "-":
            _check_can_write(path)
    plot = outputs.get("--plot")
    if plot and plot.suffix.lower() not in PICTURES:
        raise CommandError(f"--plot {plot}: its name must end in one of {', '.join(PICTURES)}")
    svg = outputs.get("--svg")
    if svg and svg.suffix.lower() != ".svg" and not is_stream(svg):
        raise CommandError(f"--svg {svg}: its name must end in .svg")
    files = {option: path for option, path in outputs.items() if not is_stream(path)}
    for (one, first), (other, second) in combinations(files.items(), 2):
        if is_same_file(first, second):
            raise CommandError(
                f"{one} {first} and {other} {second} are one file, and one would replace the other: name two"
            )
    read = [path for name in inputs if (path := Path(os.path.expanduser(name))).exists()]
    folder = _folder_of(model) if model and files else None
    for option, path in files.items():
        if is_standard_output(path):
            raise CommandError(
                f"{option} {path} would replace the file that standard output goes to: name another file"
            )
        for source in [*read, *([folder] if folder else [])]:
            if _would_change(path, source, is_model=source is folder):
                raise CommandError(f"{option} {path} would change {source}, which is read: name another file")


def is_standard_output(path: Path) -> bool:
    """Whether standard output goes to the file ``path``."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(sys.stdout.fileno()))
    except (OSError, ValueError):  # no such file; or no descriptor, in a test
        return False


def _would_change(output: Path, source: Path, *, is_model: bool) -> bool:
    """Whether a file at ``output`` would replace ``source``, or be part of that folder."""
    from topreward_ros.offline.video import IMAGE_SUFFIXES

    if not source.is_dir():
        return is_same_file(output, source)
    folder = Path(os.path.realpath(output)).parent
    if is_model:
        if any(is_same_file(above, source) for above in (folder, *folder.parents)):
            return True
    elif output.suffix.lower() in (*PICTURES, *IMAGE_SUFFIXES) and is_same_file(folder, source):
        return True
    return output.exists() and any(is_same_file(output, file) for file in source.iterdir())


def _folder_of(model: str) -> Path | None:
    """The folder of a model; None where there is none, of which loading it will tell."""
    from topreward_ros.scoring.base import ScorerError
    from topreward_ros.scoring.checkpoint.folder import find_folder

    try:
        return find_folder(model)
    except ScorerError:
        return None


def _check_can_write(path: str | Path) -> None:
    """Raise `CommandError` where no file can be written to ``path``."""
    target = Path(os.path.realpath(path))
    try:
        stream = is_stream(path)
    except OSError as error:
        raise CommandError(f"{path} cannot be written ({error.strerror}): name another file") from error
    if names_a_folder(path) or target.is_dir() or not (stream or target.parent.is_dir()):
        raise CommandError(f"{path} cannot be written: name a file in a folder that exists")
    places = [path] if stream else [target.parent, *([target] if target.exists() else [])]
    if not all(os.access(place, os.W_OK) for place in places):
        raise CommandError(f"{path} cannot be written: you lack the permission; name another file")


def results_console(options: argparse.Namespace) -> Console:
    """Where results for people go: to stdout, or to stderr when the JSON goes to stdout."""
    from topreward_ros.views.terminal import output_console

    return output_console(stderr=options.json == "-")


def say(text: str) -> None:
    """Print ``text`` to standard error as one line of the command `topreward`, with nothing raw in it."""
    print(f"topreward: {printable(text)}", file=sys.stderr)


def tell(text: str) -> None:
    """Print a line for people to standard output, which is as with `output_console` where nobody reads it."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        drop_standard_output()


def write_json(name: str | None, make: Callable[[], str]) -> None:
    """Write what ``make`` gives to the file that ``--json`` names, or to standard output.

    Raises `OutputFileError`.
    """
    if name == "-":
        sys.stdout.write(make())
        sys.stdout.flush()  # a reader that has left before it has all of it is told by the status
    elif name:
        sys.stdout.flush()  # which may be where the name leads, too
        write_file(name, make())


def show(content: Any) -> None:
    """Print what rich can render to standard output."""
    from topreward_ros.views.terminal import output_console

    output_console().print(content)


def warn_of_task(task: str, info: ScorerInfo) -> None:
    """Say on stderr what the user should know of ``task``, a stage per line, and this model."""
    from topreward_ros.scoring.checkpoint.vocabulary import task_warnings

    for warning in task_warnings(task, info, "--model "):
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
