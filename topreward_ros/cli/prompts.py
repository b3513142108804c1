"""`topreward prompts`: which wording of the question is best on labelled episodes, without ROS 2."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topreward_ros.cli.labelled import add_data_options, read_data
from topreward_ros.cli.output import (
    CommandError,
    add_model_option,
    check_outputs,
    results_console,
    say,
    warn_of_task,
    write_json,
)
from topreward_ros.cli.settings import add_set_option, settings_of, with_overrides
from topreward_ros.core.errors import UserError
from topreward_ros.core.measures import Measure
from topreward_ros.core.output_files import kept_folder, write_file
from topreward_ros.defaults import monitor_defaults

if TYPE_CHECKING:
    from topreward_ros.core.prompt_choice import Attempt, PromptScores
    from topreward_ros.offline.labelled_episodes import LabelledEpisode
    from topreward_ros.offline.prompt_sweep import Templates
    from topreward_ros.scoring.base import PrefixScorer, ScorerInfo, ScorerSettings

_LARGEST = 3  # ensemble that is looked for
_SHOWN = 10  # problems
_NOT_FOR_PROMPTS = frozenset(
    ("task", "model", "image_topics", "autostart", "heartbeat_rate", "diagnostics_rate", "stale_timeout")
) | {"calibration", "accept_calibration"}


def add_parser(commands: Any) -> None:
    """Add the command to ``commands``, the subparsers of `topreward`."""
    parser = commands.add_parser(
        "prompts",
        help="find the best wording of the question on labelled episodes (needs no ROS 2)",
        description="The wordings of the question, on your own data.",
        epilog="Example: topreward prompts sweep runs --output prompts.txt",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    sweep = actions.add_parser(
        "sweep",
        help="compare all templates and ensembles of them, with tasks held out",
        description="Score labelled episodes with every template that ships and those of your files, and say "
        "whether the best, or the best ensemble, beats the default beyond noise on tasks that had no part in "
        "the choice. An episode is scored once for all templates.",
        epilog="Examples: topreward prompts sweep runs --output prompts.txt; topreward prompts sweep DATASET "
        "--prompts mine.txt --model Qwen/Qwen3-VL-2B-Instruct --scores kept",
    )
    add_data_options(sweep)
    sweep.add_argument(
        "--prompts",
        action="append",
        default=[],
        metavar="FILE",
        help="a further file of templates, one per line with {instruction} in it; may be repeated",
    )
    sweep.add_argument(
        "--measure",
        choices=[measure.value for measure in Measure],
        default=Measure.AUC.value,
        help="what is to be best: auc, that successes score above failures of their task; or voc, that the "
        "reward of successes rises in order, which needs no failures (default: %(default)s)",
    )
    sweep.add_argument(
        "--ensembles",
        type=int,
        default=_LARGEST,
        metavar="N",
        help="try all ensembles of up to N templates; 1: none (default: %(default)s)",
    )
    sweep.add_argument(
        "--scores", type=Path, metavar="FOLDER", help="keep scores there; a later run goes on with them"
    )
    sweep.add_argument(
        "--output",
        metavar="FILE",
        help="write the recommended templates, as the parameter prompts takes them",
    )
    sweep.add_argument("--json", metavar="FILE", help="write all numbers as JSON; '-': to standard output")
    add_model_option(sweep)
    add_set_option(sweep)
    sweep.set_defaults(run=_sweep, usage_error=sweep.error)


def _sweep(options: argparse.Namespace) -> int:
    from topreward_ros.core.prompt_choice import candidates, choose
    from topreward_ros.offline.label_checks import generic_task_problem
    from topreward_ros.offline.prompt_sweep import prompts_file, read_all_templates, sweep_json, usable
    from topreward_ros.views.prompts import sweep_view

    parameters = with_overrides(monitor_defaults(), options.overrides, "prompts sweep", _NOT_FOR_PROMPTS)
    default = parameters["prompts"]
    data = [*([options.dataset] if options.dataset else []), *options.success, *options.failure]
    check_outputs(options, [*data, *options.prompts, *([default] if default else [])], options.model)
    if options.ensembles < 1:
        raise CommandError(f"--ensembles {options.ensembles}: must be at least 1")
    settings_of(parameters)
    templates, measure = read_all_templates(default, options.prompts), Measure(options.measure)
    found, reached = candidates(
        templates.default, list(templates.files.values()), templates.kinds, options.ensembles
    )
    if reached < min(options.ensembles, len(templates.texts)):
        say(f"ensembles of {reached + 1} or more of {len(templates.texts)} templates are too many: left out")
    labelled = read_data(options)
    episodes, problems = usable(labelled.episodes)
    problems = [*labelled.problems, *problems]
    _say_some(problems)
    for note in (*labelled.notes, generic_task_problem(episodes)):
        if note:
            say(note)
    _held_out(episodes, measure)  # before the model is loaded, which takes longer
    scores, info, failures = _score(options, parameters, templates, episodes)
    used = [episode for episode, it in zip(episodes, scores, strict=True) if it is not None]
    known = [it for it in scores if it is not None]
    _held_out(known, measure)
    choice = choose(known, found, measure)
    results_console(options).print(sweep_view(choice, templates, info, len(used)))
    problems = [*problems, *failures]
    write_json(options.json, lambda: sweep_json(choice, templates, used, info, parameters, problems))
    if options.output:
        write_file(options.output, prompts_file(choice, templates, used, info))
    return 0


def _held_out(episodes: Sequence[Attempt], measure: Measure) -> None:
    """Raise `CommandError` where the data do not allow the comparison."""
    from topreward_ros.core.prompt_choice import ChoiceError, held_out_parts

    try:
        held_out_parts(episodes, measure)
    except ChoiceError as error:
        raise CommandError(str(error)) from error


def _score(
    options: argparse.Namespace,
    parameters: dict[str, Any],
    templates: Templates,
    episodes: Sequence[LabelledEpisode],
) -> tuple[list[PromptScores | None], ScorerInfo, list[str]]:
    """The scores of each episode, what scored them, and why some have none, which is said, too."""
    from rich.console import Console

    from topreward_ros.core.metrics import PREFIXES
    from topreward_ros.offline.prompt_sweep import Sweep, score_episodes
    from topreward_ros.scoring.registry import load_scorer
    from topreward_ros.views.prompts import SweepBar

    monitor, scorer_settings = settings_of(parameters)
    expected = len(episodes) * PREFIXES * len(templates.batches())
    with (
        kept_folder(options.scores) if options.scores else nullcontext() as kept,
        SweepBar(Console(stderr=True), expected) as bar,
    ):

        def load(settings: ScorerSettings) -> PrefixScorer:
            with bar.loading(options.model):
                return load_scorer(options.model, settings)

        sweep = Sweep(templates, scorer_settings, monitor, load, bar.more, kept)
        outcomes, info = score_episodes(episodes, sweep)
    for task in dict.fromkeys(episode.task for episode in episodes):
        warn_of_task(task, info)
    failures = []
    for episode, outcome in zip(episodes, outcomes, strict=True):
        if isinstance(outcome, UserError):
            failures.append(str(outcome) if episode.name in str(outcome) else f"{episode.name}: {outcome}")
    _say_some(failures)
    return [None if isinstance(it, UserError) else it for it in outcomes], info, failures


def _say_some(problems: Sequence[str]) -> None:
    """Say which episodes are left out, and why; of many the first."""
    for text in problems[:_SHOWN]:
        say(text)
    if len(problems) > _SHOWN:
        say(f"and {len(problems) - _SHOWN} more episodes that cannot be used; --json lists all")
