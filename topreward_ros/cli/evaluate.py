"""`topreward evaluate`: what the scores are worth on labelled episodes, without ROS 2."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topreward_ros.cli.labelled import add_data_options, read_data
from topreward_ros.cli.output import CommandError, add_models_option, say, show, tell, warn_of_task
from topreward_ros.cli.settings import add_set_option, check_chosen, settings_of, with_overrides
from topreward_ros.cli.workers import add_worker_options, workers_of
from topreward_ros.core.counted import counted
from topreward_ros.core.errors import UserError
from topreward_ros.core.instruction import clean_task
from topreward_ros.core.output_files import folder_for
from topreward_ros.core.printable import printable
from topreward_ros.defaults import monitor_defaults

if TYPE_CHECKING:
    from topreward_ros.core.evaluation import Control
    from topreward_ros.offline.evaluation_report import Evaluation
    from topreward_ros.offline.evaluation_runs import Evaluated, EvaluationSettings, FilmScorer
    from topreward_ros.offline.labelled_episodes import Labelled
    from topreward_ros.offline.workers import Workers

_FOLDER = "evaluation"
_JSON, _MARKDOWN, _PAGE, _KEPT = "evaluation.json", "evaluation.md", "evaluation.html", "films"
_COMPARISON = "comparison.md"
_NOT_FOR_EVALUATE = frozenset(
    ("task", "model", "image_topics", "stale_timeout", "autostart", "heartbeat_rate", "diagnostics_rate")
) | {"end_episode_on_success"}
_SHOWN = 10  # problems
_LONGEST_NAME = 60  # characters of the folder of a model


def add_parser(commands: Any) -> None:
    """Add the command to ``commands``, the subparsers of `topreward`."""
    parser = commands.add_parser(
        "evaluate",
        help="measure what the scores are worth on labelled episodes (needs no ROS 2)",
        description="Score labelled episodes, and films made of them of which it is known what a score "
        "should do, and write every measure as JSON, Markdown and an HTML page. What was scored is kept, so "
        "that a run that was cut off goes on where it was.",
        epilog="Examples: topreward evaluate runs (a folder with labels.csv); topreward evaluate DATASET "
        "--camera front; topreward evaluate --success good/* --failure bad/* --task 'open the drawer'; "
        "topreward evaluate runs --model embedded --model plugin:mine; "
        "topreward evaluate --compare before/evaluation.json after/evaluation.json",
    )
    add_data_options(parser)
    add_models_option(parser)
    add_set_option(parser)
    add_worker_options(parser, "each film")
    parser.add_argument(
        "--controls",
        default="all",
        metavar="NAMES",
        help="films that are made of each episode: all, none, or names with commas between: idle, "
        "reversed, stretched_0.5, stretched_2, frozen, covered, wrong_instruction (default: %(default)s); "
        "each costs about as much as the episode itself",
    )
    parser.add_argument(
        "--wrong-task",
        metavar="T",
        help="the instruction of the control wrong_instruction (default: the other tasks of the data in "
        "turn, or one that the model knows)",
    )
    parser.add_argument(
        "--method",
        choices=("topreward", "gvl"),
        default="topreward",
        help="gvl: the baseline that TOPReward is compared with, in which a model that writes text gives "
        "percentages of shuffled frames; it needs --model (default: %(default)s)",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help=f"where all is written (default: {_FOLDER})"
    )
    parser.add_argument(
        "--compare",
        nargs="+",
        type=Path,
        metavar="A",
        help="compare two evaluations or more (their folders, or evaluation.json), and score nothing; with "
        "--output, the table is written as Markdown, too",
    )
    parser.set_defaults(run=_run, usage_error=parser.error)


def _run(options: argparse.Namespace) -> int:
    if options.compare:
        return _compare(options)
    workers = workers_of(options)

    controls = _controls(options.controls)
    output = options.output or Path(_FOLDER)
    models = list(dict.fromkeys(options.models)) or [monitor_defaults()["model"]]
    folders = _folders(models, output)
    _check_output(output, [*folders.values()], options)
    labelled = read_data(options)
    settings = {model: _settings(options, controls, model) for model in models}
    for sentence in (*labelled.problems[:_SHOWN], *labelled.notes):
        say(sentence)
    if (more := len(labelled.problems) - _SHOWN) > 0:
        say(f"and {more} more episodes that cannot be used; {output / _JSON} lists all")
    if len(models) > 1:
        for its in settings.values():
            _ = its.about  # a model that is misspelt is found before any is scored
    notes = {model: _notes(labelled, its) for model, its in settings.items()}
    for sentence in dict.fromkeys(note for its in notes.values() for note in its):
        say(sentence)
    with folder_for(output):
        if len(models) == 1:
            evaluated = _evaluated(labelled, settings[models[0]], output, workers)
            return _write(options, labelled, evaluated, settings[models[0]], notes[models[0]], output)[1]
        status, made = 0, {}
        for model, folder in folders.items():
            tell(f"model {printable(model, 200)}")
            try:
                evaluated = _evaluated(labelled, settings[model], folder, workers)
            except UserError as error:
                say(f"model {printable(model, 200)} is left out: {error}")
                status = 1
                continue
            evaluation, failed = _write(options, labelled, evaluated, settings[model], notes[model], folder)
            made[folder.name] = evaluation
            status = max(status, failed)
        if len(made) > 1:
            _write_side_by_side(made, output)
    return status


def _folders(models: Sequence[str], output: Path) -> dict[str, Path]:
    """Where the results of each model go: of one into ``output``, of several into folders in it."""
    if len(models) == 1:
        return {models[0]: output}
    names: dict[str, Path] = {}
    for model in models:
        plain = os.path.basename(os.path.abspath(model)) if os.path.isdir(model) else model
        name = re.sub(r"[^\w.-]+", "_", plain).strip("._")[-_LONGEST_NAME:] or "model"
        taken = {path.name.casefold() for path in names.values()}
        numbered = (name if k == 1 else f"{name}-{k}" for k in count(1))
        names[model] = output / next(it for it in numbered if it.casefold() not in taken)
    return names


def _write_side_by_side(evaluations: dict[str, Evaluation], output: Path | None) -> None:
    """Show the evaluations as one table, and write it as Markdown where there is an ``output``."""
    from topreward_ros.core.output_files import write_file
    from topreward_ros.views.evaluation_models import models_table
    from topreward_ros.views.evaluation_tables import escaped, markdown_of
    from topreward_ros.views.evaluation_text import text_table

    table = models_table(evaluations)
    models = [f"{name}: {it.model['model_id']} ({it.model['revision']})" for name, it in evaluations.items()]
    for line in (lines := [printable(line, 400) for line in models]):
        tell(line)
    show(text_table(table))
    if output:
        head = "\n".join(f"- {escaped(line)}" for line in lines)
        write_file(output / _COMPARISON, f"# Comparison\n\n{head}\n\n{markdown_of(table)}")
        tell(printable(str(output / _COMPARISON)))


def _controls(text: str) -> tuple[Control, ...]:
    from topreward_ros.core.evaluation import Control

    names = [it.value for it in Control if it is not Control.PLAIN]
    if text in ("all", "none"):
        return tuple(map(Control, names)) if text == "all" else ()
    wanted = [name.strip() for name in text.split(",")]
    wrong = [name for name in wanted if name not in names]
    if wrong:
        raise CommandError(
            f"--controls: there is no '{printable(wrong[0], 60)}': say all, none, or some of "
            f"{', '.join(names)}"
        )
    return tuple(Control(name) for name in names if name in wanted)


def _check_output(output: Path, folders: Sequence[Path], options: argparse.Namespace) -> None:
    """Raise `CommandError` where the results would replace something else, or lie in the data."""
    from topreward_ros.offline.evaluation_report import read_evaluation

    if not output.parent.is_dir() or (output.exists() and not output.is_dir()):
        raise CommandError(f"--output {output}: name a folder, in a folder that exists")
    named = [options.dataset] if options.dataset else []
    for source in named:
        if source.is_dir() and source.resolve() in (output.resolve(), *output.resolve().parents):
            raise CommandError(f"--output {output} lies in the data, {source}: name a folder elsewhere")
    for file in (folder / _JSON for folder in folders if (folder / _JSON).exists()):
        try:
            read_evaluation(file)
        except UserError as error:
            raise CommandError(
                f"{file} is there, and is no evaluation: name another folder by --output"
            ) from error


def _settings(options: argparse.Namespace, controls: Sequence[Control], model: str) -> EvaluationSettings:
    from topreward_ros.offline.evaluation_runs import EvaluationSettings, Method, monitor_for_evaluation

    parameters = with_overrides(monitor_defaults(), options.overrides, "evaluate", _NOT_FOR_EVALUATE)
    monitor, scorer = settings_of(parameters)
    if options.method == Method.TOPREWARD.value:  # GVL shows a model a few frames, and none in a video
        check_chosen(model, scorer)
    wrong = clean_task(options.wrong_task or "", "--wrong-task")
    if options.wrong_task is not None and not wrong:
        raise CommandError("--wrong-task is empty; say something that the robot was not to do")
    return EvaluationSettings(
        model,
        monitor_for_evaluation(monitor),
        scorer,
        tuple(controls),
        wrong,
        options.rate or 0.0,
        Method(options.method),
    )


def _notes(labelled: Labelled, settings: EvaluationSettings) -> list[str]:
    from topreward_ros.offline.label_checks import class_problems, generic_task_problem

    notes = list(filter(None, [generic_task_problem(labelled.episodes)]))
    if any(it.succeeded is not None for it in labelled.episodes):
        notes += class_problems(labelled.episodes)
    from topreward_ros.core.evaluation import Control

    tasks = {it.task for it in labelled.episodes}
    if (
        Control.WRONG_INSTRUCTION in settings.controls
        and len(tasks) == 1
        and not settings.other_task
        and not settings.about.instructions
    ):
        notes.append("all episodes have one task, so that none is scored with a wrong one: give --wrong-task")
    return notes


def _evaluated(labelled: Labelled, settings: EvaluationSettings, output: Path, workers: Workers) -> Evaluated:
    from rich.console import Console

    from topreward_ros.offline.calibration_file import (
        camera_name,
        check_before_loading,
        check_setup,
        setup_of,
    )
    from topreward_ros.offline.evaluation_runs import score_episodes
    from topreward_ros.scoring.base import ScorerInfo
    from topreward_ros.views.terminal import film_progress

    first = labelled.episodes[0]
    cameras = [camera_name(topic) for topic in first.cameras]
    by_settings = settings.monitor, settings.scorer, first.layout, cameras
    check_before_loading(settings.monitor.calibrations, settings.model, *by_settings)

    def on_model(info: ScorerInfo) -> None:
        here = setup_of(info, *by_settings)
        if difference := check_setup(settings.monitor.calibrations, here):
            say(difference)
        for task in dict.fromkeys(it.task for it in labelled.episodes):
            warn_of_task(task, info)

    with folder_for(output), film_progress(Console(stderr=True)) as on_start:
        return score_episodes(
            labelled.episodes,
            settings,
            output / _KEPT,
            on_start,
            on_model,
            _film_scorer(settings),
            workers,
            say,
        )


def _film_scorer(settings: EvaluationSettings) -> type[FilmScorer]:
    from topreward_ros.offline.evaluation_gvl import GvlScorer
    from topreward_ros.offline.evaluation_runs import Method, MonitorScorer

    return GvlScorer if settings.method is Method.GVL else MonitorScorer


def _write(
    options: argparse.Namespace,
    labelled: Labelled,
    evaluated: Evaluated,
    settings: EvaluationSettings,
    notes: Sequence[str],
    output: Path,
) -> tuple[Evaluation, int]:
    """Write and show an evaluation; it, and the status of the command."""
    from topreward_ros.core.output_files import write_file
    from topreward_ros.offline.evaluation_report import make_evaluation, to_json
    from topreward_ros.views.evaluation_page import page
    from topreward_ros.views.evaluation_tables import episodes_table, markdown

    evaluation = make_evaluation(_shown_data(options), labelled, evaluated, settings, notes)
    write_file(output / _JSON, to_json(evaluation))
    write_file(output / _MARKDOWN, markdown(evaluation, [episodes_table(evaluation)]))
    write_file(output / _PAGE, page(evaluation))
    for sentence in evaluated.problems:
        say(sentence)
    _show(evaluation)
    resumed = f" ({counted(evaluated.resumed, 'film')} by an earlier run)" if evaluated.resumed else ""
    tell(printable(f"{output / _PAGE}: {counted(len(evaluation.episodes), 'episode')}{resumed}"))
    return evaluation, 1 if evaluation.problems else 0


def _shown_data(options: argparse.Namespace) -> str:
    return str(options.dataset) if options.dataset else "--success and --failure"


def _show(evaluation: Evaluation) -> None:
    from topreward_ros.views.evaluation_text import evaluation_tables

    show(evaluation_tables(evaluation))


def _refuse_twice(files: Sequence[Path]) -> None:
    """Raise `CommandError` where a file is named twice, by whatever paths: it would meet only itself."""
    known: dict[str, Path] = {}
    for file in files:
        other = known.setdefault(os.path.realpath(file), file)
        if other is not file:
            shown = [printable(str(it), 200) for it in (other, file)]
            raise CommandError(f"--compare: {shown[0]} and {shown[1]} are one evaluation; name each once")


def _compare(options: argparse.Namespace) -> int:
    from topreward_ros.core.evaluation_difference import common, differences
    from topreward_ros.core.output_files import write_file
    from topreward_ros.offline.evaluation_report import read_evaluation
    from topreward_ros.views.evaluation_tables import about, differences_table, escaped, markdown_of
    from topreward_ros.views.evaluation_text import text_table

    if options.dataset or options.success or options.failure or options.models:
        raise CommandError("--compare scores nothing: leave the data and the models out")
    if len(options.compare) < 2:
        raise CommandError("--compare: name two evaluations, or more")
    files = [path / _JSON if path.is_dir() else path for path in options.compare]
    _refuse_twice(files)
    read = [read_evaluation(file) for file in files]
    if len(read) > 2:
        names = [str(file.parent if file.name == _JSON else file) for file in files]
        output = options.output
        with folder_for(output) if output else nullcontext():
            _write_side_by_side(dict(zip(names, read, strict=True)), output)
        return 0
    first, second = read
    found = differences(
        first.measures,
        second.measures,
        (first.episodes, second.episodes),
        (first.threshold, second.threshold),
    )
    table = differences_table(found, common(first.episodes, second.episodes))
    lines = []
    for (name, one), two in zip(about(first).items(), about(second).values(), strict=True):
        lines.append(f"{name}: {one}" if one == two else f"{name}: {one} -> {two}")
    for line in lines:
        tell(line)
    show(text_table(table))
    if options.output:
        head = "\n".join(f"- {escaped(line)}" for line in lines)
        with folder_for(options.output):
            write_file(options.output / _COMPARISON, f"# Comparison\n\n{head}\n\n{markdown_of(table)}")
    return 0
