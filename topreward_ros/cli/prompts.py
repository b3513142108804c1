"""`topreward prompts`: which wording of the question is best on labelled episodes, without ROS 2."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from topreward_ros.cli import prompt_search
from topreward_ros.cli.output import results_console, say
from topreward_ros.cli.prompt_options import (
    add_choice_options,
    parameters_of,
    say_some,
    say_too_few,
    sweeping,
    usable_episodes,
    warn_of_tasks,
    write_results,
)
from topreward_ros.core.errors import UserError
from topreward_ros.core.measures import Measure

if TYPE_CHECKING:
    from topreward_ros.core.prompt_worth import PromptScores
    from topreward_ros.offline.labelled_episodes import LabelledEpisode
    from topreward_ros.offline.prompt_sweep import Templates
    from topreward_ros.scoring.base import ScorerInfo


def add_parser(commands: Any) -> None:
    """Add the command to ``commands``, the subparsers of `topreward`."""
    parser = commands.add_parser(
        "prompts",
        help="find the best wording of the question on labelled episodes (needs no ROS 2)",
        description="The wordings of the question, on your own data.",
        epilog="Examples: topreward prompts sweep runs --output prompts.txt; topreward prompts search runs",
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
    add_choice_options(sweep, Measure.AUC)
    sweep.set_defaults(run=_sweep, usage_error=sweep.error)
    prompt_search.add_action(actions)


def _sweep(options: argparse.Namespace) -> int:
    from topreward_ros.core.prompt_choice import candidates, choose, held_out_parts
    from topreward_ros.offline.prompt_sweep import prompts_file, read_all_templates, sweep_json
    from topreward_ros.views.prompts import sweep_view

    parameters = parameters_of(options, "sweep")
    templates = read_all_templates(parameters["prompts"], options.prompts)
    measure = Measure(options.measure)
    found, reached = candidates(
        templates.default, list(templates.files.values()), templates.kinds, options.ensembles
    )
    if reached < min(options.ensembles, len(templates.texts)):
        say(f"ensembles of {reached + 1} or more of {len(templates.texts)} templates are too many: left out")
    episodes, problems = usable_episodes(options)
    say_too_few(*held_out_parts(episodes, measure), measure)  # before the model is loaded, which takes longer
    scores, info, failures = _score(options, parameters, templates, episodes)
    used = [episode for episode, it in zip(episodes, scores, strict=True) if it is not None]
    known = [it for it in scores if it is not None]
    held_out_parts(known, measure)
    choice = choose(known, found, measure)
    results_console(options).print(sweep_view(choice, templates, info, len(used)))
    problems = [*problems, *failures]
    write_results(
        options,
        lambda: sweep_json(choice, templates, used, info, parameters, problems),
        lambda: prompts_file(choice, templates, used, info),
    )
    return 0


def _score(
    options: argparse.Namespace,
    parameters: dict[str, Any],
    templates: Templates,
    episodes: Sequence[LabelledEpisode],
) -> tuple[list[PromptScores | None], ScorerInfo, list[str]]:
    """The scores of each episode, what scored them, and why some have none, which is said, too."""
    from topreward_ros.core.metrics import PREFIXES
    from topreward_ros.offline.prompt_scores import batches, score_episodes

    expected = len(episodes) * PREFIXES * len(batches(templates.texts, templates.question))
    with sweeping(options, parameters, templates, expected) as (sweep, _):
        outcomes, info = score_episodes(episodes, sweep)
    warn_of_tasks(episodes, info)
    failures = []
    for episode, outcome in zip(episodes, outcomes, strict=True):
        if isinstance(outcome, UserError):
            failures.append(str(outcome) if episode.name in str(outcome) else f"{episode.name}: {outcome}")
    say_some(failures)
    return [None if isinstance(it, UserError) else it for it in outcomes], info, failures
