"""`topreward score`: the curves of videos, without ROS 2."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topreward_ros.cli.output import (
    CommandError,
    add_model_option,
    check_outputs,
    results_console,
    say,
    warn_of_task,
    write_json,
)
from topreward_ros.cli.settings import add_set_option, check_chosen, settings_of, with_overrides
from topreward_ros.cli.workers import add_worker_options, workers_of
from topreward_ros.core.errors import UserError
from topreward_ros.core.instruction import clean_task
from topreward_ros.core.printable import printable
from topreward_ros.defaults import monitor_defaults
from topreward_ros.offline.prefix_schedule import PrefixSchedule

if TYPE_CHECKING:
    from topreward_ros.offline.score_jobs import ScoreOrder
    from topreward_ros.offline.score_video import Curve, Outcome, Recording
    from topreward_ros.offline.workers import Workers
    from topreward_ros.scoring.base import ScorerInfo

# Parameters of `--set` that make no sense here: they say how the live node gets images and how often it
# publishes, or they have an option of their own.
_NOT_FOR_SCORE = frozenset(
    ("task", "model", "image_topics", "image_transport", "camera_layout", "stale_timeout", "autostart")
) | {"heartbeat_rate", "diagnostics_rate"}


def add_parser(commands: Any) -> None:
    """Add the command to ``commands``, the subparsers of `topreward`."""
    parser = commands.add_parser(
        "score",
        help="score video files: curve, events, picture (needs no ROS 2)",
        description="Score videos as the live monitor would, frame by frame, and show the progress curves. "
        "Every due frame is scored; after the end of the episode (SUCCESS, timeout) nothing is, as live.",
        epilog="Examples: topreward score run.mp4 --task 'open the drawer' --plot run.png; "
        "topreward score runs/*.mp4 --task 'open the drawer' --json runs.json",
    )
    parser.add_argument(
        "videos",
        nargs="+",
        metavar="VIDEO",
        help="video file, folder of images (then give --rate), or LeRobot dataset (then give --episode); "
        "several are scored side by side, and one that is given twice is scored twice",
    )
    parser.add_argument(
        "--task",
        action="append",
        metavar="T",
        help="the instruction, in natural language; given several times, or in lines: stages, one after the "
        "other; with --episode, that of the dataset unless it is given",
    )
    parser.add_argument(
        "--episode",
        type=int,
        metavar="K",
        help="score this episode, counted from 0, of the LeRobot dataset that VIDEO is or lies in",
    )
    parser.add_argument("--camera", metavar="FEATURE", help="with --episode, the camera (default: the first)")
    add_model_option(parser)
    parser.add_argument("--json", metavar="FILE", help="write the curve as JSON; '-': to standard output")
    parser.add_argument(
        "--plot",
        metavar="FILE",
        type=Path,
        help="write a picture of the curve: .png, .svg, .pdf or .jpg; with --prefixes also the progress of "
        "the paper, which ends near 1 whatever the robot did",
    )
    parser.add_argument(
        "--rate",
        type=float,
        metavar="HZ",
        help="frames per second, instead of the file's own; a folder and a raw stream need it",
    )
    parser.add_argument(
        "--prefixes",
        type=int,
        metavar="K",
        help="score K prefixes of the whole video, as the paper does with 15, and no other; they end after "
        "evenly spaced numbers of the video's frames, and one that ends between two sampled frames holds "
        "those up to the earlier one, so that neighbouring prefixes of a short video have the same score; "
        "nothing ends the episode before the video",
    )
    parser.add_argument(
        "--prefix-schedule",
        choices=[schedule.value for schedule in PrefixSchedule],
        help="with --prefixes, whose frames are sampled: those that the code of the paper's authors takes "
        "(by index, half to even; the default), or those that the live monitor takes, the prefixes then "
        "being evenly spaced over them",
    )
    add_set_option(parser)
    add_worker_options(parser, "each video")
    parser.set_defaults(run=_run, usage_error=parser.error)


def _run(options: argparse.Namespace) -> int:
    parameters = with_overrides(monitor_defaults(), options.overrides, "score", _NOT_FOR_SCORE)
    files = filter(None, (parameters["prompts"], parameters["calibration"]))
    check_outputs(options, [*options.videos, *files], options.model)
    workers = workers_of(options)
    task_is_given = options.task is not None
    options.task = clean_task(options.task or "", "--task")
    if task_is_given and not options.task:
        raise CommandError("--task is empty; say what the robot is to do")
    if options.episode is not None and len(options.videos) > 1:
        raise CommandError(f"--episode {options.episode} goes with one dataset, or one video of one")
    if options.camera is not None and options.episode is None:
        raise CommandError("--camera goes with --episode")
    if options.rate is not None and not (isfinite(options.rate) and options.rate > 0):
        raise CommandError(f"--rate {options.rate:g}: must be above 0, or be left out for the file's own")
    options.rate = options.rate or 0.0
    if options.prefixes is not None and options.prefixes < 1:
        raise CommandError(f"--prefixes {options.prefixes}: must be at least 1, or be left out for all")
    if options.prefixes and "\n" in options.task:
        raise CommandError(
            "--prefixes scores the whole video for one task: give --task once, or leave --prefixes out"
        )
    if options.prefixes == 1 and options.prefix_schedule != PrefixSchedule.MONITOR.value:
        raise CommandError(
            "--prefixes 1: the code of the paper's authors scores the first frame alone then; give 2 or "
            "more, or --prefix-schedule monitor for the whole video"
        )
    if options.prefix_schedule and not options.prefixes:
        raise CommandError(
            "--prefix-schedule goes with --prefixes; a curve without it has the monitor's frames"
        )
    if options.prefixes:
        parameters["end_episode_on_success"] = False
        parameters["episode_timeout"] = 0.0
    recordings = _recordings(options)
    if not all(recording.instruction for recording in recordings):
        options.usage_error("the following arguments are required: --task")
    outcomes = _score(options, recordings, parameters, workers)
    if len(outcomes) > 1:
        return _show_and_write_several(options, outcomes)
    (outcome,) = outcomes
    if isinstance(outcome, UserError):
        raise outcome
    _show_and_write(options, recordings[0], outcome)
    return 0


def _recordings(options: argparse.Namespace) -> list[Recording]:
    from topreward_ros.offline.recordings import recording_at

    return [
        recording_at(video, options.task, rate=options.rate, episode=options.episode, camera=options.camera)
        for video in options.videos
    ]


def _score(
    options: argparse.Namespace,
    recordings: Sequence[Recording],
    parameters: dict[str, Any],
    workers: Workers,
) -> list[Outcome]:
    """Score the recordings, with a progress bar on stderr."""
    from topreward_ros.offline.calibration_file import PRIMARY, check_before_loading
    from topreward_ros.offline.score_jobs import ScoreOrder
    from topreward_ros.offline.video import VideoError

    settings, scorer_settings = settings_of(parameters)
    schedule = PrefixSchedule(options.prefix_schedule or PrefixSchedule.AUTHORS)
    if options.prefixes and schedule is PrefixSchedule.AUTHORS:
        scorer_settings = replace(scorer_settings, sample_rate=0.0)  # times in the prompt as they are
    scores = []
    for recording in recordings:  # before the model is loaded, which takes longer
        try:
            info = recording.open().info
            scores.append(round(info.frame_count / info.rate * settings.sample_rate))
            for note in info.notes:
                say(note)
        except VideoError:
            if len(recordings) == 1:
                raise
    expected = sum(options.prefixes or number for number in scores)
    order = ScoreOrder(options.model, scorer_settings, settings, options.prefixes or 0, schedule)
    check_before_loading(settings.calibrations, order.model, settings, scorer_settings, PRIMARY)
    check_chosen(order.model, scorer_settings)
    if workers.are_needed(len(recordings)):
        return _scored_by(workers, recordings, order, expected)
    return _scored_here(recordings, order, expected)


def _scored_here(recordings: Sequence[Recording], order: ScoreOrder, expected: int) -> list[Outcome]:
    from rich.console import Console

    from topreward_ros.offline.score_video import score_recordings
    from topreward_ros.scoring.registry import load_scorer
    from topreward_ros.views import terminal

    console = Console(stderr=True)
    with terminal.working(console, f"loading model {order.model} ..."):
        scorer = load_scorer(order.model, order.scorer)
    try:
        _warn_of_model(scorer.info, recordings, order)
        with terminal.score_progress(console, expected, scorer.info.random_weights) as on_score:
            return score_recordings(
                recordings,
                scorer,
                order.monitor,
                prefixes=order.prefixes,
                prefix_schedule=order.prefix_schedule,
                at_once=scorer.episodes_at_once(),
                on_score=on_score,
            )
    finally:
        scorer.close()


def _scored_by(
    workers: Workers, recordings: Sequence[Recording], order: ScoreOrder, expected: int
) -> list[Outcome]:
    from rich.console import Console

    from topreward_ros.offline.score_jobs import score_by
    from topreward_ros.views import terminal

    told: list[ScorerInfo] = []

    def on_curve(curve: Curve) -> None:
        if not told:
            _warn_of_model(curve.model, recordings, order)
            told.append(curve.model)
        for point in curve.points:
            on_score(point)

    from topreward_ros.scoring.registry import about_model

    random_weights = about_model(order.model, order.scorer).random_weights
    with terminal.score_progress(Console(stderr=True), expected, random_weights) as on_score:
        return score_by(workers, recordings, order, on_curve, say)


def _warn_of_model(info: ScorerInfo, recordings: Sequence[Recording], order: ScoreOrder) -> None:
    """Say what the user should know of this model with the tasks and the calibrations; these may not fit."""
    from topreward_ros.offline.calibration_file import PRIMARY, check_setup, setup_of

    here = setup_of(info, order.monitor, order.scorer, PRIMARY)
    if difference := check_setup(order.monitor.calibrations, here):
        say(difference)
    for task in dict.fromkeys(recording.instruction for recording in recordings):
        warn_of_task(task, info)


def _warn_of_damage(curves: Sequence[Curve]) -> None:
    """Say on stderr which videos are damaged. They have a curve of what could be read: the status is 0."""
    from topreward_ros.views import terminal

    for curve in curves:
        if curve.damaged:
            say(f"{printable(curve.video)} is damaged: {terminal.damage_text(curve.damaged)}")


def _show_and_write(options: argparse.Namespace, recording: Recording, curve: Curve) -> None:
    from topreward_ros.views import terminal

    _warn_of_damage([curve])
    results_console(options).print(terminal.curve_summary(curve))
    write_json(options.json, curve.to_json)
    if options.plot:
        from topreward_ros.views.curve_plot import plot_curve

        plot_curve(curve, options.plot, video=recording.open())


def _show_and_write_several(options: argparse.Namespace, outcomes: list[Outcome]) -> int:
    """Show and write the curves; the exit status, 1 where a video has no curve."""
    from topreward_ros.offline.score_video import Curve, outcomes_to_json
    from topreward_ros.views import terminal

    curves = [outcome for outcome in outcomes if isinstance(outcome, Curve)]
    _warn_of_damage(curves)
    for note in dict.fromkeys(note for curve in curves for note in curve.calibration_notes):
        say(note)
    results_console(options).print(terminal.curves_table(curves))
    write_json(options.json, lambda: outcomes_to_json(options.videos, outcomes))
    if options.plot and curves:
        from topreward_ros.views.curve_plot import plot_curves

        plot_curves(curves, options.plot)
    errors = [
        (video, outcome)
        for video, outcome in zip(options.videos, outcomes, strict=True)
        if isinstance(outcome, UserError)
    ]
    for video, error in errors:
        name = "" if video in str(error) else f"{video}: "
        say(f"{name}{error}")
    return 1 if errors else 0
