"""The options by which commands are given labelled episodes, and how these are read."""

from __future__ import annotations

import argparse
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from topreward_ros.cli.annotate_bags import namespace_of
from topreward_ros.cli.output import CommandError
from topreward_ros.core.instruction import clean_task
from topreward_ros.defaults import monitor_defaults

if TYPE_CHECKING:
    from topreward_ros.offline.labelled_episodes import Labelled


def add_data_options(parser: argparse.ArgumentParser, *, with_dataset: bool = True) -> None:
    """Add the options that say which episodes, and how they are read."""
    if with_dataset:
        parser.add_argument(
            "dataset",
            nargs="?",
            type=Path,
            metavar="DATASET",
            help="folder with labels.csv (columns file, success, and if you like task, done_s, episode), "
            "such a file, or a LeRobot dataset (v3.0 or v2.1)",
        )
    parser.add_argument(
        "--success",
        nargs="+",
        type=Path,
        default=[],
        metavar="PATH",
        help="recordings in which the task was done: videos, folders of images, bags, LeRobot datasets, or "
        "folders of these",
    )
    parser.add_argument(
        "--failure", nargs="+", type=Path, default=[], metavar="PATH", help="recordings in which it was not"
    )
    parser.add_argument(
        "--task",
        action="append",
        metavar="T",
        help="what the robot was to do, of all that have no task in their label; given several times: stages",
    )
    parser.add_argument(
        "--rate", type=float, metavar="HZ", help="frames per second of folders of images and raw streams"
    )
    parser.add_argument(
        "--camera", metavar="FEATURE", help="the camera of LeRobot datasets (default: the first)"
    )
    parser.add_argument(
        "--image-topic",
        action="append",
        dest="image_topics",
        metavar="T",
        help="a camera's topic in bags; repeat it for several, the primary one first",
    )
    parser.add_argument("--namespace", default="", metavar="NS", help="of the robot in bags")
    parser.add_argument(
        "--whole", action="store_true", help="bags from first image to last, whatever a monitor said in them"
    )


def read_data(options: argparse.Namespace) -> Labelled:
    """The labelled episodes that `add_data_options` name. Raises `UserError`."""
    from rich.console import Console

    from topreward_ros.cli.settings import with_overrides
    from topreward_ros.nodes.raw_conversion import converter
    from topreward_ros.offline.annotation_report import AnnotationSettings
    from topreward_ros.offline.labelled_episodes import Reading, joined, labelled_data, labelled_files
    from topreward_ros.views.terminal import looking

    dataset = getattr(options, "dataset", None)
    if not (dataset or options.success or options.failure):
        options.usage_error("name the data: DATASET, or --success and --failure")
    task = clean_task(options.task or "", "--task")
    if options.task is not None and not task:
        raise CommandError("--task is empty; say what the robot was to do, or leave it out")
    if options.rate is not None and not (isfinite(options.rate) and options.rate > 0):
        raise CommandError(f"--rate {options.rate:g}: must be above 0")
    overrides = [it for it in options.overrides if it.partition("=")[0] in _OF_BAGS]
    parameters = with_overrides(monitor_defaults(), overrides, "bags", ())
    if options.image_topics:
        parameters["image_topics"] = options.image_topics
    bags = AnnotationSettings(
        parameters,
        namespace_of(options.namespace),
        bool(options.image_topics),
        any(it.startswith("camera_layout=") for it in overrides),
        options.whole,
    )
    with looking(Console(stderr=True)) as on_episode:
        reading = Reading(bags, task, options.rate or 0.0, options.camera, converter, on_episode)
        parts = []
        if dataset:
            parts.append(labelled_data(dataset, reading))
        if options.success or options.failure:
            parts.append(labelled_files(options.success, options.failure, reading))
    return parts[0] if len(parts) == 1 else joined(*parts)


_OF_BAGS = ("camera_layout", "camera_max_skew", "image_transport")
