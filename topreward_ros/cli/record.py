"""`topreward record`: one bag per episode of a running monitor."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from topreward_ros.cli.output import CommandError, ros_module, say, seconds, tell
from topreward_ros.core.counted import counted
from topreward_ros.core.outcome import Outcome
from topreward_ros.core.printable import printable
from topreward_ros.defaults import EPISODES_FOLDER, monitor_defaults

_MEGABYTE = 1_000_000


def add_parser(commands: Any) -> None:
    """Add the command to ``commands``, the subparsers of `topreward`."""
    parser = commands.add_parser(
        "record",
        help="record one bag per episode of a running monitor",
        description="Write a bag (rosbag2, mcap) for each episode of a running monitor: its cameras, "
        "progress, rewards, events, state, description and instruction, and further topics. A bag is named "
        "by time, task and outcome. Ctrl-C ends it.",
        epilog="Names are relative: `topreward record --ros-args -r __ns:=/arm` records the monitor in /arm.",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(EPISODES_FOLDER),
        metavar="DIR",
        help="of the bags (default: %(default)s)",
    )
    parser.add_argument("--topics", nargs="+", default=[], metavar="T", help="further topics, of any type")
    parser.add_argument(
        "--image-topic",
        nargs="+",
        default=[],
        metavar="T",
        help="the monitor's cameras, as its image_topics: subscribed to from the start, as the first frame "
        "of an episode may come before the monitor has named them",
    )
    parser.add_argument(
        "--image-transport",
        choices=("raw", "compressed"),
        default=monitor_defaults()["image_transport"],
        help="which images of --image-topic are recorded where it has both, as the monitor's (default: "
        "%(default)s)",
    )
    parser.add_argument("--all", action="store_true", help="every topic that is published and not hidden")
    parser.add_argument(
        "--exclude",
        nargs="+",
        default=[],
        choices=[outcome.value for outcome in Outcome],
        metavar="OUTCOME",
        help=f"do not keep episodes that end so: {', '.join(Outcome)}",
    )
    parser.add_argument(
        "--no-episodes", action="store_true", help="one bag from start to end, whatever the monitor says"
    )
    parser.add_argument(
        "--before",
        type=_seconds_or_none,
        default=2.0,
        metavar="S",
        help="seconds before the start of an episode that are in its bag (default: %(default)g)",
    )
    parser.add_argument(
        "--after",
        type=_seconds_or_none,
        default=1.0,
        metavar="S",
        help="seconds after its end (default: %(default)g)",
    )
    parser.add_argument(
        "--compression",
        choices=("none", "chunk", "message"),
        default="none",
        help="with zstd: chunks, which every reader of mcap understands, or messages, as rosbag2 does "
        "(default: %(default)s; JPEG does not get smaller)",
    )
    parser.add_argument(
        "--max-duration",
        type=seconds,
        default=0.0,
        metavar="S",
        help="begin another file of the bag after S seconds",
    )
    parser.add_argument(
        "--max-size",
        type=_megabytes,
        default=2000.0,
        metavar="MB",
        help="begin another file of the bag after so many megabytes (default: %(default)g)",
    )
    parser.add_argument(
        "--memory",
        type=_megabytes,
        default=256.0,
        metavar="MB",
        help="for what was received lately and what waits for the disk; more is left out and counted "
        "(default: %(default)g)",
    )
    parser.add_argument(
        "--monitor-timeout",
        type=seconds,
        default=10.0,
        metavar="S",
        help="a monitor that says nothing for S seconds is lost, and the bag closed (default: %(default)g)",
    )
    parser.add_argument(
        "--recover", action="store_true", help="finish what recorders have left in DIR; needs no ROS 2"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Record until it is interrupted, or recover what is left."""
    if options.recover:
        return _recover(options.output)
    if options.no_episodes and options.exclude:
        raise CommandError("--exclude chooses among episodes, and --no-episodes knows none: leave one out")
    record = ros_module("record")
    from topreward_ros.offline.recording import BagOptions

    ros_arguments = [sys.argv[0], *options.ros_arguments]
    chosen = record.RecordOptions(
        bags=BagOptions(
            options.output,
            compression=options.compression,
            longest_file_s=options.max_duration,
            largest_file_bytes=round(options.max_size * _MEGABYTE),
        ),
        topics=tuple(options.topics),
        image_topics=tuple(options.image_topic),
        image_transport=options.image_transport,
        all_topics=options.all,
        by_episode=not options.no_episodes,
        exclude=frozenset(map(Outcome, options.exclude)),
        before_s=options.before,
        after_s=options.after,
        memory_bytes=round(options.memory * _MEGABYTE),
        monitor_timeout_s=options.monitor_timeout,
    )
    return int(record.run(chosen, ros_arguments))


def _recover(folder: Path) -> int:
    from topreward_ros.core.errors import UserError
    from topreward_ros.core.output_files import left_folders
    from topreward_ros.offline.bag_recovery import recover

    if not folder.is_dir():
        raise CommandError(f"--output {folder} is no folder: name the one that has the bags")
    status = 0
    found = left_folders(folder)
    for partial in found:
        try:
            bag = recover(partial)
        except UserError as error:
            say(str(error))
            status = 1
            continue
        tell(printable(f"{partial} is now {bag.path}: {counted(bag.messages, 'message')}"))
        for note in (
            f"{bag.cut_bytes} bytes after the last whole chunk were lost" if bag.cut_bytes else "",
            *bag.notes,
        ):
            if note:
                tell(f"  {printable(note)}")
    if not found:
        tell(printable(f"nothing is left unfinished in {folder}"))
    return status


def _seconds_or_none(text: str) -> float:
    return 0.0 if text in ("0", "0.0") else seconds(text)


def _megabytes(text: str) -> float:
    """The value of an option that takes megabytes, for argparse."""
    try:
        return seconds(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text}: must be a number of megabytes above 0") from None
