"""What `topreward annotate` does with LeRobot datasets: options, the progress bar, and the report."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topreward_ros.cli.output import CommandError, say, tell
from topreward_ros.cli.settings import check_chosen, settings_of, with_overrides
from topreward_ros.cli.workers import workers_of
from topreward_ros.core.counted import counted
from topreward_ros.core.errors import UserError
from topreward_ros.core.instruction import clean_task
from topreward_ros.core.printable import printable
from topreward_ros.core.rewards import Imputation
from topreward_ros.defaults import monitor_defaults

if TYPE_CHECKING:
    from topreward_ros.offline.annotate_dataset import Annotation, AnnotationSettings
    from topreward_ros.offline.lerobot import Dataset

# Parameters of `--set` that have no meaning for a dataset, or an option of their own.
_NOT_FOR_DATASETS = frozenset(
    ("task", "model", "image_topics", "image_transport", "camera_layout", "camera_max_skew", "stale_timeout")
) | {"autostart", "heartbeat_rate", "diagnostics_rate"}


def is_dataset(path: Path) -> bool:
    """Whether ``path`` is a LeRobot dataset, of whatever format."""
    from topreward_ros.offline.lerobot import is_dataset

    return is_dataset(path)


def add_options(group: Any) -> None:
    """Add the options that only datasets have to ``group``, of the command's parser."""
    group.add_argument(
        "--camera",
        metavar="FEATURE",
        help="the camera that is looked at, for example observation.images.front or just front "
        "(default: the first by name)",
    )
    group.add_argument("--overwrite", action="store_true", help="replace a file of progress that exists")
    group.add_argument(
        "--columns",
        action="store_true",
        help="make a copy of the dataset at --output whose rows have next.reward, next.success, next.done",
    )
    group.add_argument(
        "--impute",
        choices=[how.value for how in Imputation],
        help="with --columns, the reward of rows between two scores: 0 (zero, the default), on a line "
        "(interpolate), or the last one (duplicate)",
    )


def run(options: argparse.Namespace, paths: Sequence[Path]) -> int:
    """Annotate the datasets at ``paths``; the exit status, 1 where something could not be scored."""
    if options.impute and not options.columns:
        raise CommandError("--impute goes with --columns")
    if options.columns and not options.output:
        raise CommandError("--columns makes a copy of the dataset: name its folder by --output")
    if options.output and len(paths) > 1:
        raise CommandError(f"--output {options.output} is one place, for one dataset: call it for each")
    task = clean_task(options.task or "", "--task")
    if options.task and not task:
        raise CommandError("--task is empty; say what the robot was to do, or leave it out")
    return max(_annotate(options, path, task) for path in paths)


def _annotate(options: argparse.Namespace, path: Path, task: str) -> int:
    from topreward_ros.offline import annotate_dataset as work
    from topreward_ros.offline.lerobot import open_dataset

    dataset = open_dataset(path)
    settings = _settings(options, dataset, task)
    tasks = work.tasks_of(dataset, task)
    output = _output(options, dataset)
    if not options.columns and output.exists() and not options.overwrite:
        origin = work.origin_of(output)
        if origin.get("key") == work.annotation_key(dataset, settings):
            return _skip(output, origin)
        raise CommandError(_exists(output, dataset))
    if options.columns:
        if options.overwrite:
            raise CommandError(
                "--overwrite replaces a file of progress; a copy (--columns) is never replaced: name another "
                "folder by --output"
            )
        work.check_columns(dataset)
        if output.resolve().is_relative_to(path.resolve()):
            raise CommandError(
                f"--output {output} is the dataset itself, or lies in it: name a folder elsewhere"
            )
        if os.path.lexists(output):
            if work.is_copy(output, work.annotation_key(dataset, settings), _imputation(options)):
                return _skip(output, work.origin_of(output / work.PROGRESS_FILE))
            raise CommandError(
                f"--output {output} exists already, and is no whole copy of this dataset with these "
                "settings: name another folder, or remove it"
            )
    for warning in work.warnings_on(dataset, settings, tasks):
        say(warning)
    annotation = _work(options, dataset, settings, output)
    return _report(dataset, annotation, output)


def _skip(output: Path, origin: Mapping[str, Any]) -> int:
    """Say that ``output`` is there, and again what could not be scored; the exit status, as in `_report`."""
    problems = origin.get("problems")  # files of before this was written down have none
    for problem in problems if isinstance(problems, list) else ():
        say(str(problem))
    tell(f"{printable(str(output))} is there already, with these settings: skipped")
    return 1 if origin.get("unscored") else 0


def _settings(options: argparse.Namespace, dataset: Dataset, task: str) -> AnnotationSettings:
    from topreward_ros.offline.annotate_dataset import AnnotationSettings

    # All rows are to have a progress, those after SUCCESS as well.
    parameters = {**monitor_defaults(), "end_episode_on_success": False}
    parameters = with_overrides(parameters, options.overrides, "annotate", _NOT_FOR_DATASETS)
    monitor, scorer = settings_of(parameters)
    check_chosen(options.model, scorer)
    return AnnotationSettings(
        options.model, monitor, scorer, dataset.camera(options.camera), task, workers_of(options)
    )


def _output(options: argparse.Namespace, dataset: Dataset) -> Path:
    from topreward_ros.offline.annotate_dataset import PROGRESS_FILE

    output = options.output or dataset.root / PROGRESS_FILE
    if not options.columns and (output.is_dir() or output.suffix != ".parquet"):
        raise CommandError(
            f"--output {output}: name a file that ends in .parquet, or give --columns for a copy of the "
            "dataset"
        )
    if not output.absolute().parent.is_dir():
        raise CommandError(f"--output {output}: there is no folder {output.absolute().parent}; make it first")
    return Path(output)


def _exists(output: Path, dataset: Dataset) -> str:
    from topreward_ros.offline.dataset_weights import check_belongs, read_progress

    why = "it was made with other settings, or by others"
    try:
        check_belongs(output, read_progress(output), dataset)
    except UserError:
        why = "it does not belong to the episodes that the dataset has now"
    return f"{output} exists already, and {why}: --overwrite replaces it, --output names another file"


def _work(
    options: argparse.Namespace, dataset: Dataset, settings: AnnotationSettings, output: Path
) -> Annotation:
    from rich.console import Console

    from topreward_ros.core.output_files import write_file
    from topreward_ros.offline import annotate_dataset as work
    from topreward_ros.views import terminal

    def write(scores: tuple[work.EpisodeScores, ...], key: str) -> None:
        how = _imputation(options) if options.columns else None
        progress = work.progress_file(dataset, settings, scores, key, how)
        if how is None:
            write_file(output, progress)
        else:
            work.write_copy(dataset, output, work.reward_columns(dataset, scores, how), progress)

    with terminal.episode_progress(Console(stderr=True), len(dataset.episodes)) as on_episode:
        return work.annotate(dataset, settings, write, work.work_folder(output), on_episode, say)


def _imputation(options: argparse.Namespace) -> Imputation:
    return Imputation(options.impute or Imputation.ZERO.value)


def _report(dataset: Dataset, annotation: Annotation, output: Path) -> int:
    from topreward_ros.offline.annotate_dataset import problems_of

    for problem in problems_of(dataset, annotation.scores):
        say(problem)
    failed = sum(not scores.rows for scores in annotation.scores)
    count = len(annotation.scores)
    successes = sum(scores.success_row >= 0 for scores in annotation.scores)
    resumed = f" ({annotation.resumed} of them by an earlier run)" if annotation.resumed else ""
    tell(
        f"{printable(str(output))}: {count - failed} of {counted(count, 'episode')} scored{resumed}, "
        f"SUCCESS in {successes}"
    )
    return 1 if failed else 0
