"""The command `topreward`: its parser and its exit status.

The commands do their work in offline/ and in watch.py, task.py, record.py and demo.py of nodes/; views/ draws
the results. A command imports what it needs when it runs, so that `--help` is quick and `score`, `annotate`,
`evaluate` and `models` work where there is no ROS 2.

Exit status: 0 done; 1 an error, which is named on stderr in one line, or (without a line) the reader of our
output left early; 2 wrong usage; 130 interrupted; 143 ended by SIGTERM, after the same clean-up. `watch`,
`record` and `serve` work until they are ended: that is 0.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import TextIOWrapper
from typing import Any, NoReturn

from topreward_ros.cli import (
    annotate,
    bench,
    calibrate,
    demo,
    distill,
    evaluate,
    export,
    models,
    plan,
    prompts,
    record,
    score,
    serve,
    show,
    task,
    watch,
)
from topreward_ros.cli.interrupts import Interrupted, answered, interruptible
from topreward_ros.cli.output import say
from topreward_ros.core.errors import UserError
from topreward_ros.core.foreign_code import limit_the_end
from topreward_ros.core.nearest import nearest
from topreward_ros.core.printable import make_libraries_printable, printable
from topreward_ros.core.standard_output import drop_standard_output
from topreward_ros.scoring.compile_cache import leave_out_unusable_folder

_NO_MORE_OUTPUT = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
_ROS_ARGUMENTS = "--ros-args"


def command() -> int:
    """Run ``topreward`` as a process of its own and return its exit status.

    Until now Ctrl-C has ended the process at once (scripts/topreward); from now on there is work to give up.
    """
    status = 1
    try:
        with interruptible():
            status = main()
    except KeyboardInterrupt as how:  # a second one, while `main` answers the first
        status = _status_of(how)
    finally:
        limit_the_end(status)
    return status


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``topreward`` with ``argv`` (of the process when None) and return its exit status."""
    try:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):  # a character that the locale lacks must not undo the work
                stream.reconfigure(errors="replace")
        make_libraries_printable()
        leave_out_unusable_folder()
        status = _run(sys.argv[1:] if argv is None else list(argv))
        try:
            sys.stdout.flush()
        except BrokenPipeError:  # `topreward ... | head`: all is done, and the reader has all it wanted
            drop_standard_output()
        return status
    except BrokenPipeError:  # in the middle of it, as JSON is written or `topreward watch` goes on
        drop_standard_output()
        return 1
    except KeyboardInterrupt as how:
        answered()
        say(how.said if isinstance(how, Interrupted) else Interrupted.said)
        return _status_of(how)
    except UserError as error:
        say(str(error))
        for line in error.lines:
            print(f"  {printable(line)}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.filename is not None or error.errno not in _NO_MORE_OUTPUT:
            raise
        drop_standard_output()
        with suppress(OSError):
            say(f"the output cannot be written ({error.strerror})")
        return 1


def _status_of(how: KeyboardInterrupt) -> int:
    return how.status if isinstance(how, Interrupted) else Interrupted.status


def _run(argv: list[str]) -> int:
    arguments, ros_arguments = _split(argv)
    parser = _parser()
    options = parser.parse_args(arguments)
    if ros_arguments and options.run not in (watch.run, task.run, record.run):
        parser.error(f"{_ROS_ARGUMENTS} goes with `topreward watch`, `task` and `record` only")
    options.ros_arguments = ros_arguments
    run: Callable[[argparse.Namespace], int] = options.run
    return run(options)


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    """Split ``argv`` into our arguments and those from ``--ros-args`` on, which are for ROS 2."""
    at = argv.index(_ROS_ARGUMENTS) if _ROS_ARGUMENTS in argv else len(argv)
    return argv[:at], argv[at:]


def _parser() -> argparse.ArgumentParser:
    parser = _ArgumentParser(
        prog="topreward",
        description="Task progress from video: how far has the robot come with what it was told to do?",
        epilog="`topreward COMMAND --help` tells more. The live monitor itself is a ROS 2 node: "
        "ros2 launch topreward_ros monitor.launch.py",
    )
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    score.add_parser(commands)
    annotate.add_parser(commands)
    evaluate.add_parser(commands)
    calibrate.add_parser(commands)
    distill.add_parser(commands)
    export.add_parser(commands)
    watch.add_parser(commands)
    task.add_parser(commands)
    record.add_parser(commands)
    show.add_parser(commands)
    demo.add_parser(commands)
    serve.add_parser(commands)
    models.add_parser(commands)
    plan.add_parser(commands)
    prompts.add_parser(commands)
    bench.add_parser(commands)
    return parser


class _ArgumentParser(argparse.ArgumentParser):
    """Names the way out where a file's name or a value begins with a dash, and is taken for an option.

    Wrong arguments are quoted printably: a file name that a pattern found may be taken for one.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options | {"allow_abbrev": False})  # else --topic is --topics, without a word

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # of subcommands as well
        self._arguments = list(args or ())
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:  # said here, as who calls has the usage of all commands alone
            known = [name for name in self._option_string_actions if name.startswith("--")]
            close = nearest(unknown[0].partition("=")[0], known)
            hint = f"; did you mean {close}?" if close else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return namespace, unknown

    def error(self, message: str) -> NoReturn:
        """End with status 2 and ``message``, and a hint where there is one."""
        options = (
            self._arguments[: self._arguments.index("--")] if "--" in self._arguments else self._arguments
        )
        files = [text for text in options if text.startswith("-") and text != "-" and os.path.exists(text)]
        if files:
            message += f"; {files[0]} is taken for an option: write ./{files[0]}"
        elif message.endswith("expected one argument"):
            message += "; a value that begins with a dash is joined to the option by =, as in --task=-VALUE"
        super().error(printable(message))


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from topreward_ros.offline.code_version import package_version

        print(f"topreward {package_version()}")
        parser.exit()
