"""What the actions of `topreward prompts` share: options, episodes, and how these are scored."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topreward_ros.cli.labelled import add_data_options, read_data
from topreward_ros.cli.output import (
    CommandError,
    add_model_option,
    check_outputs,
    say,
    warn_of_task,
    write_json,
)
from topreward_ros.cli.settings import add_set_option, check_chosen, settings_of, with_overrides
from topreward_ros.core.measures import Measure
from topreward_ros.core.output_files import OutputFileError, kept_folder, write_file
from topreward_ros.defaults import monitor_defaults

if TYPE_CHECKING:
    from topreward_ros.core.prompt_choice import Attempt
    from topreward_ros.offline.labelled_episodes import LabelledEpisode
    from topreward_ros.offline.prompt_scores import Sweep
    from topreward_ros.offline.prompt_sweep import Templates
    from topreward_ros.scoring.base import PrefixScorer, ScorerInfo, ScorerSettings
    from topreward_ros.views.prompts import SweepBar

_LARGEST = 3  # ensemble that is looked for
_SHOWN = 10  # problems
_NOT_FOR_PROMPTS = frozenset(
    ("task", "model", "image_topics", "autostart", "heartbeat_rate", "diagnostics_rate", "stale_timeout")
) | {"calibration", "accept_calibration"}


def add_choice_options(parser: argparse.ArgumentParser, measure: Measure) -> None:
    """Add the options that say which episodes, wordings, measure (default: ``measure``) and outputs."""
    add_data_options(parser)
    parser.add_argument(
        "--prompts",
        action="append",
        default=[],
        metavar="FILE",
        help="a further file of templates, one per line with {instruction} in it; may be repeated",
    )
    parser.add_argument(
        "--measure",
        choices=[each.value for each in Measure],
        default=measure.value,
        help="what is to be best: auc, that successes score above failures of their task; voc, that the "
        "reward of successes rises in order, which needs no failures; both: the mean of AUC, and of VOC less "
        "the size of the static VOC (default: %(default)s)",
    )
    parser.add_argument(
        "--ensembles",
        type=int,
        default=_LARGEST,
        metavar="N",
        help="try ensembles of up to N templates; 1: none (default: %(default)s)",
    )
    parser.add_argument(
        "--scores", type=Path, metavar="FOLDER", help="keep scores there; a later run goes on with them"
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="write the recommended templates, as the parameter prompts takes them",
    )
    parser.add_argument("--json", metavar="FILE", help="write all numbers as JSON; '-': to standard output")
    add_model_option(parser)
    add_set_option(parser)


def parameters_of(options: argparse.Namespace, action: str) -> dict[str, Any]:
    """The parameters of the monitor, after checks of the options. Raises `CommandError`, `ScorerError`."""
    from topreward_ros.scoring.registry import refuse_own_question

    parameters = with_overrides(monitor_defaults(), options.overrides, f"prompts {action}", _NOT_FOR_PROMPTS)
    default = parameters["prompts"]
    data = [*([options.dataset] if options.dataset else []), *options.success, *options.failure]
    check_outputs(options, [*data, *options.prompts, *([default] if default else [])], options.model)
    if options.ensembles < 1:
        raise CommandError(f"--ensembles {options.ensembles}: must be at least 1")
    _, settings = settings_of(parameters)
    refuse_own_question(options.model, settings, f"topreward prompts {action}")
    if options.measure == Measure.BOTH.value and not settings.static_baseline:
        raise CommandError(
            "--measure both looks at the static VOC, which progress_mode raw_probability leaves out: set "
            "another progress_mode, or --measure auc"
        )
    return parameters


def usable_episodes(options: argparse.Namespace) -> tuple[list[LabelledEpisode], list[str]]:
    """The labelled episodes that can be used, and why others cannot, which is said, too."""
    from topreward_ros.offline.label_checks import generic_task_problem
    from topreward_ros.offline.prompt_sweep import usable

    labelled = read_data(options)
    episodes, problems = usable(labelled.episodes)
    problems = [*labelled.problems, *problems]
    say_some(problems)
    for note in (*labelled.notes, generic_task_problem(episodes)):
        if note:
            say(note)
    return episodes, problems


@contextmanager
def sweeping(
    options: argparse.Namespace, parameters: dict[str, Any], templates: Templates, expected: int
) -> Iterator[tuple[Sweep, SweepBar]]:
    """How episodes are scored with ``templates``, with a progress bar over ``expected`` scores."""
    from rich.console import Console

    from topreward_ros.offline.prompt_scores import Sweep
    from topreward_ros.scoring.base import quiet_logging
    from topreward_ros.scoring.registry import load_scorer
    from topreward_ros.views.prompts import SweepBar

    monitor, scorer_settings = settings_of(parameters)
    check_chosen(options.model, scorer_settings)
    with (
        kept_folder(options.scores) if options.scores else nullcontext() as kept,
        SweepBar(Console(stderr=True), expected) as bar,
    ):
        warn: AbstractContextManager[None] = nullcontext()

        def load(settings: ScorerSettings) -> PrefixScorer:
            nonlocal warn
            with warn, bar.loading(options.model):
                scorer = load_scorer(options.model, settings)
            warn = quiet_logging()  # what is to be said of the model was said, and holds for all wordings
            return scorer

        sweep = Sweep(
            templates.texts, templates.question, scorer_settings, monitor, load, bar.more, kept, say
        )
        yield sweep, bar


def warn_of_tasks(episodes: Sequence[LabelledEpisode], info: ScorerInfo) -> None:
    """Say which tasks the model does not know."""
    for task in dict.fromkeys(episode.task for episode in episodes):
        warn_of_task(task, info)


def say_too_few(parts: Mapping[str, Sequence[Attempt]], of_tasks: bool, measure: Measure) -> None:
    """Say before the work where such ``parts`` of the data, held out, cannot tell a gain from noise."""
    from topreward_ros.core.prompt_choice import too_few

    if lacking := too_few(parts, of_tasks, measure):
        say(f"these data will not tell a gain from noise, and the default will stay: {lacking}")


def write_results(
    options: argparse.Namespace, make_json: Callable[[], str], make_output: Callable[[], str | bytes]
) -> None:
    """Write what ``--output`` and ``--json`` name; where one cannot be written, the other is all the same.

    Raises `OutputFileError`.
    """
    problem: OutputFileError | None = None
    if options.output:
        try:
            write_file(options.output, make_output())
        except OutputFileError as error:
            problem = error
    try:
        write_json(options.json, make_json)
    except OutputFileError as error:
        if problem:
            say(str(problem))
        raise error from problem
    if problem:
        raise problem


def say_some(problems: Sequence[str]) -> None:
    """Say which episodes are left out, and why; of many the first."""
    for text in problems[:_SHOWN]:
        say(text)
    if len(problems) > _SHOWN:
        say(f"and {len(problems) - _SHOWN} more episodes that cannot be used; --json lists all")
