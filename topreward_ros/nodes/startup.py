"""How the programs of this package enter ROS 2, and what they say in one line where they cannot.

ROS 2 names the place in its own source code where something is wrong with arguments or variables, and a log
line of its own goes before it. So the usual mistakes are looked for first. What a program does afterwards is
not known here, and signals are not handled (end_signals.py).
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import rclpy
import yaml
from rclpy.signals import SignalHandlerOptions

from topreward_ros.core.errors import UserError
from topreward_ros.core.printable import printable
from topreward_ros.core.text_files import read_text
from topreward_ros.nodes.log import logger_named
from topreward_ros.nodes.python_log import hear_python

_LARGEST_DOMAIN = 232  # the last one whose ports are below 65536 (DDSI-RTPS 9.6.1.1)
_ROS_ARGUMENTS = "--ros-args"
_NO_FILE = re.compile(r"Couldn't parse params file: '--params-file (?P<path>.*)'\. Error: (?P<why>.*)")
_LOOKS = (
    "a section begins with the name of a node, as in /monitor:, has ros__parameters: below it, and the "
    "parameters below that, see config/monitor.yaml"
)
_OPTIONS_OF_ROS = (  # with a value behind them (rcl/arguments.h)
    *("-p", "--param", "--params-file", "-r", "--remap", "-e", "--enclave"),
    *("--log-level", "--log-config-file", "--log-file-name"),
)


class StartError(UserError):
    """ROS 2 does not start."""


def start(arguments: Sequence[str] | None = None) -> None:
    """Initialise rclpy, without signal handlers of its own, and warn of arguments that it does not take. What
    Python's loggers say goes to the log of ROS 2 from then on. Raises `StartError`.

    ``arguments``: of the process, its name first; None: `sys.argv`.
    """
    given = list(sys.argv if arguments is None else arguments)
    _check_domain()
    for option, path in pairwise(_split(given)[0]):
        if option == "--params-file":
            _check_parameter_file(path)
    try:
        rclpy.init(args=given, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # rclpy has several, and they differ between distributions
        raise StartError(why_no_start(given, error)) from error
    logger = logger_named(Path(given[0]).stem)
    hear_python(logger)
    if warning := not_understood(given):
        logger.warning(warning)


def not_understood(arguments: Sequence[str]) -> str:
    """What to say of arguments outside of ``--ros-args``, which nobody reads; empty: there are none.

    ``arguments``: of the process, its name first. FROM:=TO is an old remapping: ROS 2 tells of it itself.

    >>> not_understood(["monitor", "--help", "--ros-args", "-r", "__ns:=/arm", "--", "-x", "image:=eye"])
    'arguments that mean nothing here and change nothing: --help -x'
    >>> not_understood(["monitor", "-p", "task:=x"])
    'arguments that mean nothing here and change nothing: -p task:=x; write --ros-args -p task:=x'
    """
    _, others = _split(arguments)
    pairs = list(pairwise(others))
    lost = [word for before, word in pairs if ":=" not in word or before in _OPTIONS_OF_ROS]
    if not lost:
        return ""
    misplaced = [word for pair in pairs if pair[0] in _OPTIONS_OF_ROS for word in pair]
    mend = f"; write {shlex.join([_ROS_ARGUMENTS, *misplaced])}" if misplaced else ""
    return f"arguments that mean nothing here and change nothing: {shlex.join(lost)}{mend}"


def why_no_start(arguments: Sequence[str], error: Exception) -> str:
    """Say in one line which variable or arguments of the process are at fault."""
    said = said_by_ros(error).splitlines()[0]
    if "logging" in said:
        folder = os.environ.get("ROS_LOG_DIR")
        setting = f"ROS_LOG_DIR={folder}" if folder else "the default of ROS_LOG_DIR"
        return f"{setting} cannot be used ({said}): set it to a folder that you may write to"
    if file := _NO_FILE.search(said):
        looks = _LOOKS if "ros__parameters" in file["why"] else "mend it, see config/monitor.yaml"
        return f"--params-file {printable(file['path'], 300)} is not read ({file['why']}): {looks}"
    ours, _ = _split(arguments)
    given = f" ({' '.join(ours)})" if ours else ""
    own = next((word for word in ours[1:] if word.startswith("--") and not _is_of_ros(word)), "")
    mend = f"; {own} is none of its arguments, so write it before {_ROS_ARGUMENTS}" if own else ""
    return f"ROS 2 does not start{given}: {said}{mend}"


def _is_of_ros(word: str) -> bool:
    return word in (_ROS_ARGUMENTS, *_OPTIONS_OF_ROS) or word.startswith(("--enable-", "--disable-"))


def said_by_ros(error: Exception) -> str:
    """What an error says, without the place in the source code of ROS 2."""
    return str(error).partition(", at /")[0]


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments that ROS 2 reads, from each ``--ros-args`` to ``--`` or the end, and the others."""
    of_ros: list[str] = []
    others: list[str] = []
    into = others
    for word in arguments:
        if word == _ROS_ARGUMENTS:
            into = of_ros
        elif word == "--" and into is of_ros:
            into = others
            continue
        into.append(word)
    return of_ros, others


def _check_domain() -> None:
    """Raise `StartError` for a ROS_DOMAIN_ID that DDS has no ports for. An empty one counts as not set."""
    text = os.environ.get("ROS_DOMAIN_ID", "")
    if text and not (text.isascii() and text.isdigit() and int(text) <= _LARGEST_DOMAIN):
        raise StartError(
            f"ROS_DOMAIN_ID={text} is no ROS domain: set it to a number from 0 to 101 "
            f"(at most {_LARGEST_DOMAIN}), or unset it"
        )


def _check_parameter_file(path: str) -> None:
    """Raise `StartError` for a file that is not there or is no YAML; what its values mean is not looked at.

    ROS 2 decides what it takes: what only PyYAML refuses (a tab behind a value) passes, and what is no
    regular file, as a pipe, is not read. Raises `TextFileError` for a file that is no text, too.
    """
    shown = printable(path, 300)
    file = Path(path)
    if not file.exists() or file.is_dir():
        raise StartError(f"--params-file {shown} is no file: give the path of one, see config/monitor.yaml")
    if not file.is_file():
        return
    try:
        first = _first_node(read_text(file))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        what = printable(getattr(error, "problem", None) or "it cannot be parsed", 200)
        raise StartError(
            f"--params-file {shown}{where}: is no YAML ({what}); mend it, see config/monitor.yaml"
        ) from error
    if first is not None and not isinstance(first, yaml.MappingStartEvent):
        raise StartError(f"--params-file {shown} has no section of a node in it: {_LOOKS}")


def _first_node(text: str) -> yaml.Event | None:
    """What a YAML file begins with; None: it is empty. Raises `yaml.YAMLError`. No value is looked at."""
    try:
        events = list(yaml.parse(text, Loader=yaml.SafeLoader))
    except yaml.YAMLError:
        try:
            events = list(yaml.parse(text.replace("\t", " "), Loader=yaml.SafeLoader))
        except yaml.YAMLError:
            events = []
        if not events:
            raise
    return next((event for event in events if isinstance(event, yaml.NodeEvent)), None)
