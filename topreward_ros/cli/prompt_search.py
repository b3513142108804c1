"""`topreward prompts search`: search for a better wording of the question, and test what is found once."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from math import ceil
from typing import TYPE_CHECKING, Any

from topreward_ros.cli.output import CommandError, results_console, say
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
from topreward_ros.cli.settings import settings_of
from topreward_ros.core.measures import Measure

if TYPE_CHECKING:
    from topreward_ros.offline.prompt_search import Found, Proposer, Round
    from topreward_ros.scoring.question.templates import Question
    from topreward_ros.scoring.registry import LoadedModel

_CANDIDATES, _MOST_CANDIDATES = 64, 10_000
_VECTORS, _MOST_VECTORS = 16, 1024
_LONGEST_MIN = 7 * 24 * 60.0


def add_action(actions: Any) -> None:
    """Add the action to ``actions``, the subparsers of `topreward prompts`."""
    parser = actions.add_parser(
        "search",
        help="propose new wordings, keep what is better, and test the best once on tasks laid aside",
        description="Score labelled episodes with the templates that ship and those of your files, put the "
        "parts of the best together anew, or have a model write others, round after round; then say whether "
        "the best, or an ensemble, beats the default beyond noise on tasks that had no part in the search.",
        epilog="Examples: topreward prompts search runs --output prompts.txt; topreward prompts search "
        "DATASET --model Qwen/Qwen3-VL-2B-Instruct --scores kept --minutes 60 "
        "--writer http://localhost:8000/v1",
    )
    add_choice_options(parser, Measure.BOTH)
    parser.add_argument(
        "--candidates",
        type=int,
        default=_CANDIDATES,
        metavar="N",
        help="wordings that are scored at most, those to start with included (default: %(default)s)",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        metavar="M",
        help="begin no round that would end later than that; with --soft: train no longer than that",
    )
    parser.add_argument(
        "--laid-aside",
        type=int,
        default=0,
        metavar="TASKS",
        help="tasks that have no part in the search and judge what it finds (default: half of them, and "
        "three at least of four or more)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of all draws (default: %(default)s)"
    )
    parser.add_argument(
        "--writer",
        metavar="URL",
        help="a model that writes new wordings, at an OpenAI-compatible endpoint; named as a served --model",
    )
    parser.add_argument(
        "--soft",
        action="store_true",
        help="train a soft prompt instead: vectors in the place of the question's tokens, with the model as "
        "it is, a Qwen3-VL on this machine; --output names a .safetensors file, which prompts takes",
    )
    parser.add_argument(
        "--vectors",
        type=int,
        default=_VECTORS,
        metavar="N",
        help="of a soft prompt that are trained, half before the instruction, half behind it (default: "
        "%(default)s)",
    )
    parser.set_defaults(run=_search, usage_error=parser.error)


def _search(options: argparse.Namespace) -> int:
    from topreward_ros.core.metrics import PREFIXES
    from topreward_ros.core.prompt_choice import judging_parts, search_split
    from topreward_ros.offline.prompt_scores import batches
    from topreward_ros.offline.prompt_search import PER_ROUND, Recombiner, Search, judged, search
    from topreward_ros.offline.prompt_sweep import prompts_file, read_all_templates, sweep_json
    from topreward_ros.views.prompts import search_view

    parameters = parameters_of(options, "search")
    _check(options)
    if options.soft:
        return _train(options, parameters)
    start = read_all_templates(parameters["prompts"], options.prompts)
    if options.candidates <= len(start.texts):
        say(
            f"--candidates {options.candidates}: no new wording is tried, as {len(start.texts)} are there to "
            f"start with: give more than {len(start.texts)} to search"
        )
    measure = Measure(options.measure)
    with _writer(
        options, start.question
    ) as writers:  # what is wrong with it or the data is said before the model is loaded
        episodes, problems = usable_episodes(options)
        training, laid_aside = search_split(episodes, measure, options.laid_aside, options.seed)
        say_too_few(*judging_parts(laid_aside, measure), measure)
        rounds = ceil(max(0, options.candidates - len(start.texts)) / PER_ROUND)
        expected = PREFIXES * (
            len(training) * (len(batches(start.texts, start.question)) + rounds) + len(laid_aside)
        )
        with sweeping(options, parameters, start, expected) as (sweep, _):
            how = Search(
                sweep,
                measure,
                options.candidates,
                [*writers, Recombiner(options.seed, start.question)],
                options.ensembles,
                _seconds(options),
                _say_round,
            )
            found = search(training, start, how)
            choice, judges, failures = judged(found, laid_aside, how)
    warn_of_tasks(episodes, found.info)
    failures = [*found.failures, *failures]
    say_some(failures)
    results_console(options).print(search_view(choice, found, len(judges)))
    used = [*found.used, *judges]
    write_results(
        options,
        lambda: sweep_json(
            choice,
            found.templates,
            used,
            found.info,
            parameters,
            [*problems, *failures],
            _about_search(options, found),
        ),
        lambda: prompts_file(choice, found.templates, used, found.info, "search"),
    )
    return 0


def _seconds(options: argparse.Namespace) -> float:
    """How long a search may take."""
    return float("inf") if options.minutes is None else options.minutes * 60


def _check(options: argparse.Namespace) -> None:
    """Raise `CommandError` for numbers that make no search."""
    if not 1 <= options.candidates <= _MOST_CANDIDATES:
        raise CommandError(f"--candidates {options.candidates}: must be 1 to {_MOST_CANDIDATES}")
    if options.minutes is not None and not 0 < options.minutes <= _LONGEST_MIN:
        raise CommandError(f"--minutes {options.minutes:g}: must be above 0, and at most {_LONGEST_MIN:g}")
    if options.seed < 0:
        raise CommandError(f"--seed {options.seed}: must be at least 0")
    if not 1 <= options.vectors <= _MOST_VECTORS:
        raise CommandError(f"--vectors {options.vectors}: must be 1 to {_MOST_VECTORS}")
    if options.soft and options.writer:
        raise CommandError("--soft trains vectors, and --writer writes words: name one of them")
    if options.soft and options.output and not options.output.endswith(".safetensors"):
        raise CommandError(f"--output {options.output}: that of --soft must end in .safetensors")


def _train(options: argparse.Namespace, parameters: dict[str, Any]) -> int:
    """`_search` for a soft prompt."""
    from topreward_ros.core.metrics import PREFIXES
    from topreward_ros.core.prompt_choice import judging_parts, search_split
    from topreward_ros.offline import soft_prompt_search as soft_prompts
    from topreward_ros.offline.prompt_sweep import read_all_templates, sweep_json
    from topreward_ros.scoring.registry import load_qwen3_vl
    from topreward_ros.scoring.served_models import refuse_served
    from topreward_ros.views.prompts import soft_view

    refuse_served(options.model, "topreward prompts search --soft")
    _, settings = settings_of(parameters)
    if settings.quantization != "none":
        raise CommandError("--soft needs gradients, which quantized weights have not: leave quantization out")
    start = read_all_templates(parameters["prompts"], [])
    if start.question.answers is not None:
        raise CommandError("--soft trains for True and False: leave prompts with answers of their own out")
    measure = Measure(options.measure)
    episodes, problems = usable_episodes(options)
    training, laid_aside = search_split(episodes, measure, options.laid_aside, options.seed)
    say_too_few(*judging_parts(laid_aside, measure), measure)
    expected = soft_prompts.PREFIXES * len(training) + 2 * PREFIXES * len(episodes)
    end = None if options.minutes is None else time.monotonic() + options.minutes * 60
    with sweeping(options, parameters, start, expected) as (sweep, bar):

        def load() -> LoadedModel:
            with bar.loading(options.model):
                return load_qwen3_vl(options.model, settings)

        how = soft_prompts.SoftSearch(
            sweep=sweep,
            measure=measure,
            template=start.texts[start.default[0]],
            vectors=options.vectors,
            seed=options.seed,
            load=load,
            on_epoch=lambda it: bar.doing(
                f"training: epoch {it.number}, validation loss {it.validation:.3f}"
            ),
            is_over=lambda: end is not None and time.monotonic() > end,
        )
        result = soft_prompts.train_and_judge(training, laid_aside, start, how)
    warn_of_tasks(episodes, result.info)
    say_some(result.failures)
    results_console(options).print(soft_view(result))
    write_results(
        options,
        lambda: sweep_json(
            result.choice,
            result.templates,
            result.used,
            result.info,
            parameters,
            [*problems, *result.failures],
            {
                "seed": options.seed,
                "vectors": options.vectors,
                "epochs": [it._asdict() for it in result.epochs],
            },
        ),
        result.file,
    )
    return 0


@contextmanager
def _writer(options: argparse.Namespace, question: Question) -> Iterator[list[Proposer]]:
    """The proposers that ``--writer`` names: one or none."""
    from topreward_ros.offline.prompt_search import WrittenBy
    from topreward_ros.scoring.base import ScorerError
    from topreward_ros.scoring.openai_api.writer import TIMEOUT_S, Writer

    if options.writer is None:
        yield []
        return
    try:
        writer = Writer(options.writer, min(TIMEOUT_S, _seconds(options)))
    except ScorerError as error:
        raise CommandError(f"--writer: {error}") from error
    try:
        yield [WrittenBy(writer.write, writer.shown, say, question)]
    finally:
        writer.close()


def _say_round(done: Round) -> None:
    new = f"{done.new} new wording{'s' * (done.new != 1)}"
    if done.number == 1:
        new = "the wordings to start with"
    say(
        f"round {done.number}: {new}, {done.known} in all; on the training tasks the best "
        f"is worth {done.value:.3f}, the default {done.default:.3f}"
    )


def _about_search(options: argparse.Namespace, found: Found) -> dict[str, Any]:
    """What the JSON says of the search."""
    return {
        "seed": options.seed,
        "candidates": options.candidates,
        "minutes": options.minutes,
        "writer": options.writer,
        "trained": list(dict.fromkeys(episode.task for episode in found.used)),
        "rounds": [asdict(done) for done in found.rounds],
    }
