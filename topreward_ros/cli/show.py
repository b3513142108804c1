"""`topreward show`: a recorded bag as one HTML page, without ROS 2."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from topreward_ros.cli.output import CommandError, check_outputs, say, tell
from topreward_ros.core.output_files import names_a_folder
from topreward_ros.core.printable import printable

_SUFFIXES = (".html", ".htm")
_FRAMES = 60
_MOST_FRAMES = 1000
_WIDTH = 320
_MOST_WIDTH = 1920


def add_parser(commands: Any) -> None:
    """Add the command to ``commands``, the subparsers of `topreward`."""
    parser = commands.add_parser(
        "show",
        help="a recorded bag as an HTML page: images, curves and events (needs no ROS 2)",
        description="Write one HTML page that needs nothing else: images, progress, log-probabilities, "
        "rewards and events of each episode, over one time axis. For bags of `topreward record` and "
        "`topreward annotate`, or any bag in which what the monitor says was recorded.",
        epilog="Example: topreward show episodes/2026-11-27_12-58-49_open_the_drawer_success "
        "--output page.html",
    )
    parser.add_argument("bag", type=Path, metavar="BAG", help="folder of a bag")
    parser.add_argument(
        "--output", metavar="PAGE", help="the page; else NAME.html in this folder, where there is none yet"
    )
    parser.add_argument(
        "--image-topic",
        action="append",
        dest="image_topics",
        metavar="T",
        help="a camera to be shown, instead of those that the monitor reads; repeat it for several",
    )
    parser.add_argument(
        "--frames",
        type=_whole_number(_MOST_FRAMES),
        default=_FRAMES,
        metavar="N",
        help="images per camera over the whole bag (default: %(default)s)",
    )
    parser.add_argument(
        "--width",
        type=_whole_number(_MOST_WIDTH),
        default=_WIDTH,
        metavar="PX",
        help="images are shrunk to this width and height at most (default: %(default)s)",
    )
    parser.set_defaults(run=_run)


def _whole_number(most: int) -> Any:
    def whole_number(text: str) -> int:
        value = int(text) if text.isascii() and text.isdigit() else 0
        if not 1 <= value <= most:
            raise argparse.ArgumentTypeError(f"{text}: must be a whole number from 1 to {most}")
        return value

    return whole_number


def _run(options: argparse.Namespace) -> int:
    name = f"{options.bag.resolve().name}.html" if options.output is None else options.output
    if names_a_folder(name):
        raise CommandError(f"--output '{printable(name)}' names a folder: name a file that ends in .html")
    page = Path(name)
    if page.suffix.lower() not in _SUFFIXES:
        raise CommandError(f"--output {page}: its name must end in .html")
    if options.output is None and page.exists():
        raise CommandError(f"{page} exists: name it by --output to replace it, or name another file")
    options.output = str(page)
    check_outputs(options, [options.bag])

    from topreward_ros.core.output_files import write_file
    from topreward_ros.offline.bag_episodes import read_content
    from topreward_ros.views.report import facts, report

    content = read_content(options.bag, options.image_topics or (), options.frames, options.width)
    text = report(content)
    write_file(page, text)
    for note in content.notes:
        say(note)
    tell(printable(f"{page}: {facts(content)}, {len(text) / 1e6:.1f} MB"))
    return 0
