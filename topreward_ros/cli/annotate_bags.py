"""What `topreward annotate` does with bags: options, the work in one or several processes, and the report."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from contextlib import closing, nullcontext
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topreward_ros.cli.output import CommandError, say
from topreward_ros.cli.settings import check_chosen, settings_of, with_overrides
from topreward_ros.cli.workers import workers_of
from topreward_ros.core.errors import UserError
from topreward_ros.core.instruction import clean_task
from topreward_ros.core.output_files import folder_for
from topreward_ros.core.printable import printable
from topreward_ros.core.text_files import read_text
from topreward_ros.defaults import monitor_defaults

if TYPE_CHECKING:
    from topreward_ros.offline.annotation_report import AnnotationSettings, BagJob
    from topreward_ros.offline.bag_jobs import Outcomes, WorkOrder
    from topreward_ros.offline.job_processes import OnProgress

# Parameters of `--set` that have an option of their own, or are of the node alone.
_NOT_FOR_BAGS = frozenset(
    ("task", "model", "image_topics", "autostart", "heartbeat_rate", "diagnostics_rate")
)
ENDING = "_annotated"  #: of the name of a copy that lies beside its bag


def is_bag(path: Path) -> bool:
    """Whether ``path`` is a bag, or was meant as one: a folder with metadata.yaml or files of messages."""
    from topreward_ros.offline.bags import looks_like_bag

    return looks_like_bag(path)


def add_options(group: Any) -> None:
    """Add the options that only bags have to ``group``, of the command's parser."""
    group.add_argument(
        "--tasks",
        type=Path,
        metavar="CSV",
        help="a file with the columns bag and task: the instruction of each bag, by its path or its name",
    )
    group.add_argument(
        "--image-topic",
        action="append",
        dest="image_topics",
        metavar="T",
        help="a camera's topic, instead of image_topics; repeat it for several, the primary one first, and "
        "say --set camera_layout=tile to have them all scored",
    )
    group.add_argument(
        "--namespace",
        default="",
        metavar="NS",
        help="of the robot: our topics become /NS/task_progress and so on, and relative names are looked for "
        "there first",
    )
    group.add_argument(
        "--whole",
        action="store_true",
        help="score the whole bag, from its first image to its last; left out, a bag that has task_event of "
        "a live monitor is scored episode by episode, from EPISODE_STARTED to EPISODE_ENDED",
    )


def run(options: argparse.Namespace, bags: Sequence[Path]) -> int:
    """Annotate ``bags``; the exit status, 1 where one of them could not be."""
    from topreward_ros.nodes.raw_conversion import converter
    from topreward_ros.offline.annotation_report import AnnotationSettings
    from topreward_ros.offline.bag_jobs import WorkOrder
    from topreward_ros.offline.calibration_file import check_before_loading

    parameters = with_overrides(monitor_defaults(), options.overrides, "annotate", _NOT_FOR_BAGS)
    if options.image_topics:
        parameters["image_topics"] = options.image_topics
    monitor, scorer = settings_of(parameters)
    parameters["model"] = options.model
    settings = AnnotationSettings(
        parameters,
        namespace_of(options.namespace),
        bool(options.image_topics),
        any(override.startswith("camera_layout=") for override in options.overrides),
        options.whole,
        monitor.calibrations,
    )
    if (made := monitor.calibrations.setup) is not None:  # the cameras of each bag are compared with its own
        check_before_loading(
            monitor.calibrations, options.model, monitor, scorer, made.camera_layout, made.cameras
        )
    check_chosen(options.model, scorer)
    jobs = _jobs(options, _without_annotations(bags))
    order = WorkOrder(options.model, scorer, settings, converter)
    open_jobs, failed = _open_jobs(jobs, settings)
    if open_jobs:
        with folder_for(options.output) if options.output else nullcontext():
            failed += _work(options, open_jobs, order)
    return 1 if failed else 0


def namespace_of(text: str) -> str:
    """The option --namespace as it stands before a name: empty, or with a slash before and none behind."""
    name = text.strip("/")
    if name and not all(part.isidentifier() and part.isascii() for part in name.split("/")):
        raise CommandError(f"--namespace {printable(text, 100)}: is no namespace of ROS 2, such as /arm")
    return f"/{name}" if name else ""


def _without_annotations(bags: Sequence[Path]) -> list[Path]:
    """The bags that were recorded; says of those that were made here that they are left out."""
    from topreward_ros.offline.annotation_report import is_annotation

    for bag in filter(is_annotation, bags):
        say(f"{bag} is an annotation itself: skipped")
    return [bag for bag in bags if not is_annotation(bag)]


def _jobs(options: argparse.Namespace, bags: Sequence[Path]) -> list[BagJob]:
    """A job for each bag. Raises `CommandError` where they are not to be told apart."""
    from topreward_ros.offline.annotation_report import BagJob

    if options.task is not None and options.tasks is not None:
        raise CommandError("--task is for all bags, and --tasks says one for each: give one of them")
    task = clean_task(options.task or "", "--task")
    if options.task is not None and not task:
        raise CommandError("--task is empty; say what the robot was to do, or leave it out for the bag's own")
    tasks = None if options.tasks is None else _read_tasks(options.tasks)
    jobs: dict[Path, BagJob] = {}
    for bag in dict.fromkeys(path.resolve() for path in bags):
        target = options.output / bag.name if options.output else bag.with_name(bag.name + ENDING)
        if target.resolve() in jobs:
            raise CommandError(
                f"{printable(str(jobs[target.resolve()].source))} and {printable(str(bag))} would both be "
                f"written to {printable(str(target))}: annotate them one by one, with two --output"
            )
        own = task if tasks is None else _task_of(bag, tasks, options.tasks)
        jobs[target.resolve()] = BagJob(bag, target, own)
    return list(jobs.values())


def _read_tasks(file: Path) -> dict[str, str]:
    """The instruction by bag, as a CSV says it: names and paths as they stand there."""
    shown = printable(str(file))
    rows = csv.DictReader(StringIO(read_text(file)))
    if not {"bag", "task"} <= set(rows.fieldnames or ()):
        raise CommandError(f"--tasks {shown}: its first line must name the columns: bag,task")
    tasks: dict[str, str] = {}
    for row in rows:
        where = f"--tasks {shown}, line {rows.line_num}"
        bag, task = (row["bag"] or "").strip(), clean_task(row["task"] or "", where)
        if not bag or not task:
            raise CommandError(f"{where}: it needs a bag and a task")
        if tasks.setdefault(bag, task) != task:
            raise CommandError(f"{where}: {printable(bag)} has another task further up: leave one of them")
    return tasks


def _task_of(bag: Path, tasks: dict[str, str], file: Path) -> str:
    found = {
        task
        for name, task in tasks.items()
        if name.rstrip("/") == bag.name or bag in (Path(name).resolve(), (file.parent / name).resolve())
    }
    if len(found) != 1:
        what = "no task for" if not found else "several tasks for"
        raise CommandError(
            f"--tasks {printable(str(file))} says {what} {printable(str(bag))}: write one line of it"
        )
    return found.pop()


def _open_jobs(jobs: Sequence[BagJob], settings: AnnotationSettings) -> tuple[list[BagJob], int]:
    """The jobs that are to be done, and how many cannot be; says of the others why not."""
    from topreward_ros.offline.annotate_bag import check_bag
    from topreward_ros.offline.annotation_report import done_before
    from topreward_ros.offline.job_processes import unexpected_error

    left, failed = [], 0
    for job in jobs:
        try:
            if done_before(job, settings):
                say(f"{job.target} is done already: skipped")
            else:
                check_bag(job, settings)  # before the model is loaded, which takes longer
                left.append(job)
        except UserError as error:
            say(str(error))
            failed += 1
        except Exception as error:  # of one bag
            say(f"{job.source}: {unexpected_error(error)}")
            failed += 1
    return left, failed


def _work(options: argparse.Namespace, jobs: Sequence[BagJob], order: WorkOrder) -> int:
    """Do ``jobs`` and show what was done; how many could not be."""
    from rich.console import Console

    from topreward_ros.views.annotation import annotation_line, bags_progress

    failed = others = 0
    with (
        bags_progress(Console(stderr=True), len(jobs)) as bar,
        closing(_outcomes(options, jobs, order, bar.on_progress)) as outcomes,
    ):
        for number, outcome in outcomes:
            bar.end(number)
            if isinstance(outcome, UserError):
                failed += 1
                source = str(jobs[number].source)
                say(str(outcome) if source in str(outcome) else f"{source}: {outcome}")
            else:
                bar.print(annotation_line(outcome))
                for note in outcome.notes:
                    say(f"{outcome.target}: {note}")
                others += outcome.other_settings
    if others:
        say(
            f"{others} of {len(jobs)} bags: the monitor that was recorded had other settings than the "
            "annotation, so that the two may differ; give its own by --model and --set to compare them"
        )
    return failed


def _outcomes(
    options: argparse.Namespace, jobs: Sequence[BagJob], order: WorkOrder, on_progress: OnProgress
) -> Outcomes:
    from topreward_ros.offline.bag_jobs import run_by, run_here
    from topreward_ros.scoring.registry import about_model

    workers = workers_of(options)
    if workers.are_needed(len(jobs)):
        about_model(order.model, order.scorer)  # a server that is away is told before processes start
        return run_by(workers, jobs, order, on_progress, say)
    return run_here(jobs, order, on_progress)
