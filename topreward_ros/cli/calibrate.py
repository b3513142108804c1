"""`topreward calibrate`: when SUCCESS comes, learnt from labelled episodes, without ROS 2."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topreward_ros.cli.labelled import add_data_options, read_data
from topreward_ros.cli.output import CommandError, add_model_option, say, show, tell, warn_of_task
from topreward_ros.cli.settings import add_set_option, check_chosen, settings_of, with_overrides
from topreward_ros.cli.workers import add_worker_options, workers_of
from topreward_ros.core.printable import printable
from topreward_ros.defaults import monitor_defaults

if TYPE_CHECKING:
    from topreward_ros.core.calibration.task import Calibrations
    from topreward_ros.offline.calibrate import Calibrated, Usable
    from topreward_ros.offline.evaluation_runs import Evaluated, EvaluationSettings
    from topreward_ros.offline.workers import Workers

_FOLDER = "calibration"
_FILE, _PAGE, _KEPT = "calibration.yaml", "report.html", "films"
_BEFORE = "calibration.before.yaml"  # what the file was, where a task is taken out
# What a calibration finds out, what the live node alone has, and what has an option of its own.
_NOT_FOR_CALIBRATE = frozenset(
    ("task", "model", "image_topics", "stale_timeout", "autostart", "heartbeat_rate", "diagnostics_rate")
) | {
    "end_episode_on_success",
    "episode_timeout",
    "failure_threshold",
    "calibration",
    "accept_calibration",
    "progress_mode",
}
_SHOWN = 10  # problems


def add_parser(commands: Any) -> None:
    """Add the command to ``commands``, the subparsers of `topreward`."""
    parser = commands.add_parser(
        "calibrate",
        help="learn the threshold of a task from labelled episodes (needs no ROS 2)",
        description="Score labelled episodes as the live monitor would, choose when SUCCESS comes with the "
        "least delay at the false alarms that are allowed, and write a file that a monitor loads, with a "
        "page that shows why. What was scored is kept, so that a run that was cut off goes on where it was.",
        epilog="Examples: topreward calibrate --task 'open the drawer' --success good/* --failure bad/*; "
        "topreward calibrate runs (a folder with labels.csv; several tasks make one file). Then: ros2 launch "
        "topreward_ros monitor.launch.py image_topic:=/camera/image_raw "
        "calibration:=calibration/calibration.yaml",
    )
    add_data_options(parser)
    add_model_option(parser)
    add_set_option(parser)
    add_worker_options(parser, "each episode")
    parser.add_argument(
        "--false-alarms",
        type=_share,
        default=0.02,
        metavar="SHARE",
        help="of the failures, how many may get a SUCCESS, from 0.001 to 0.5 (default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(_FOLDER),
        metavar="FOLDER",
        help=f"where {_FILE} and {_PAGE} are written; tasks that a file there has already stay in it "
        "(default: %(default)s)",
    )
    parser.set_defaults(run=_run, usage_error=parser.error)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not (isfinite(value) and 0.001 <= value <= 0.5):
        raise argparse.ArgumentTypeError(f"{text}: must be a share from 0.001 to 0.5, such as 0.02")
    return value


def _run(options: argparse.Namespace) -> int:
    from topreward_ros.offline.calibrate import existing, usable
    from topreward_ros.offline.evaluation_runs import EvaluationSettings, monitor_for_evaluation

    output, workers = options.output, workers_of(options)
    _check_output(output)
    parameters = with_overrides(monitor_defaults(), options.overrides, "calibrate", _NOT_FOR_CALIBRATE) | {
        "episode_timeout": 0.0,
        "failure_threshold": 0.0,  # nothing may end a film but its end
    }
    monitor, scorer = settings_of(parameters)
    check_chosen(options.model, scorer)
    there = existing(output / _FILE)
    labelled = read_data(options)
    for sentence in labelled.problems[:_SHOWN]:  # before what follows from them
        say(sentence)
    data = usable(labelled.episodes, options.namespace)
    for sentence in (*data.problems, *labelled.notes, *data.notes):
        say(sentence)
    if (more := len(labelled.problems) - _SHOWN) > 0:
        say(f"and {more} more episodes that cannot be used; {output / _PAGE} lists all")
    settings = EvaluationSettings(
        options.model, monitor_for_evaluation(monitor), scorer, (), "", options.rate or 0.0, with_told=True
    )
    evaluated = _evaluated(data, settings, output, there, workers)
    for sentence in evaluated.problems:
        say(sentence)
    calibrated = _calibrated(data, evaluated, settings, options.false_alarms)
    problems = [*data.problems, *labelled.problems, *evaluated.problems, *calibrated.problems]
    return _write(output, there, calibrated, problems, [*labelled.notes, *data.notes])


def _ways_to_start(file: Path) -> tuple[str, str]:
    """How a monitor is started with a calibration, with the command `ros2` and without."""
    launch = ("ros2", "launch", "topreward_ros", "monitor.launch.py", "image_topic:=/camera/image_raw")
    node = (sys.executable, "-m", "topreward_ros.nodes.monitor", "--ros-args", "-p")
    topics = 'image_topics:=["/camera/image_raw"]'
    setting = f"calibration:={file}"
    return (
        shlex.join([*launch, setting]),
        f"{shlex.join([*node, topics, '-p', setting])}   # without the command ros2",
    )


def _check_output(output: Path) -> None:
    """Raise `CommandError` where the results would not be in a folder of their own."""
    if not output.absolute().parent.is_dir() or (output.exists() and not output.is_dir()):
        raise CommandError(f"--output {output}: name a folder, in a folder that exists")


def _evaluated(
    data: Usable, settings: EvaluationSettings, output: Path, there: Calibrations, workers: Workers
) -> Evaluated:
    from rich.console import Console

    from topreward_ros.core.output_files import folder_for
    from topreward_ros.offline.calibrate import check_same_setup, setup_for
    from topreward_ros.offline.evaluation_runs import score_episodes
    from topreward_ros.scoring.base import ScorerInfo
    from topreward_ros.views.terminal import film_progress

    def on_model(info: ScorerInfo) -> None:
        check_same_setup(there, setup_for(data, settings, info))
        for task in dict.fromkeys(it.task for it in data.episodes):
            warn_of_task(task, info)

    with folder_for(output), film_progress(Console(stderr=True)) as on_start:
        return score_episodes(
            data.episodes, settings, output / _KEPT, on_start, on_model, workers=workers, on_note=say
        )


def _calibrated(
    data: Usable, evaluated: Evaluated, settings: EvaluationSettings, false_alarms: float
) -> Calibrated:
    from rich.console import Console

    from topreward_ros.offline.calibrate import calibrate
    from topreward_ros.views.calibration import fit_progress

    with fit_progress(Console(stderr=True), 2 * len(evaluated.episodes)) as on_step:
        return calibrate(data, evaluated, settings, false_alarms, on_step)


def _write(
    output: Path,
    there: Calibrations,
    calibrated: Calibrated,
    problems: Sequence[str],
    notes: Sequence[str],
) -> int:

    from topreward_ros.core.output_files import write_file
    from topreward_ros.offline.calibrate import check_same_setup, sizes_note, written
    from topreward_ros.offline.calibration_file import write_calibrations
    from topreward_ros.views.calibration import summary
    from topreward_ros.views.calibration_page import page

    check_same_setup(there, calibrated.setup)  # nothing may have been scored anew
    for sentence in (*calibrated.problems, *(found := sizes_note(calibrated))):
        say(sentence)
    calibrations = written(there, calibrated)
    changes = []
    for task in calibrated.hopeless:
        if calibrations.of(task) is not None:
            changes.append(
                f"{_FILE} still has '{printable(task, 100)}' of an earlier run with more episodes: record as "
                "many anew, or take it out"
            )
        elif there.of(task) is not None:
            changes.append(f"'{printable(task, 100)}' is taken out of {_FILE}; {_BEFORE} is what it was")
    for sentence in changes:
        say(sentence)
    if any(calibrations.of(it.task) is None for it in there.tasks):
        write_file(output / _BEFORE, (output / _FILE).read_bytes())
    if calibrations.tasks:
        write_calibrations(output / _FILE, calibrations)
    else:
        (output / _FILE).unlink(missing_ok=True)
    write_file(output / _PAGE, page(calibrations, calibrated.fits, problems, [*notes, *found, *changes]))
    if not calibrated.fits:
        raise CommandError(f"nothing could be calibrated; {output / _PAGE} has the reasons")
    for fit in calibrated.fits:
        show(summary(fit))
    tell(printable(f"{output / _PAGE} shows why. Start the monitor with it, here on /camera/image_raw, as"))
    for line in _ways_to_start(output / _FILE):
        tell(f"  {printable(line)}")
    return 1 if problems else 0
