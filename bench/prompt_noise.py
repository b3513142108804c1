"""How often `topreward prompts` calls a wording better, where none is, and where one is.

Drawn scores of six wordings, no model: ten successes and ten failures of each task; each wording has noise of
its own beside what all share. In the second half of the table one of them tells successes from failures
better. With --search half of the tasks choose among the wordings and the others judge once, as in `prompts
search`. With --small no wording is better, sizes are the smallest that the command takes, and each of twelve
wordings has curves of its own, for every measure.

    .venv/bin/python bench/prompt_noise.py            # two minutes of one core
    .venv/bin/python bench/prompt_noise.py --search --wordings 64
    .venv/bin/python bench/prompt_noise.py --small            # half an hour
    .venv/bin/python bench/prompt_noise.py --small --search
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from topreward_ros.core.measures import Measure
from topreward_ros.core.prompt_choice import ChoiceError, Verdict, candidates, choose, search_split
from topreward_ros.core.prompt_worth import PromptScores

WORDINGS, EACH = 6, 10
TASKS = (2, 3, 5, 10)
#: Tasks, and episodes of each outcome, of a row of --small.
SMALL = (
    (1, 4),
    (1, 5),
    (1, 6),
    (1, 10),
    (2, 4),
    (2, 10),
    (3, 1),
    (3, 4),
    (4, 1),
    (4, 2),
    (4, 4),
    (6, 1),
    (10, 1),
)
SMALL_WORDINGS, PREFIXES = 12, 15
GAINS = (0.0, 1.0)  #: [nat] by which the better wording moves successes and failures further apart
_GAP, _SHARED, _OWN = 1.0, 1.0, 0.7  # [nat] between the outcomes; noise of an episode, and of a wording


def drawn_episodes(tasks: int, gain: float, wordings: int, rng: np.random.Generator) -> list[PromptScores]:
    """Final scores of all episodes, as curves of one prefix."""
    gaps = np.full(wordings, _GAP)
    gaps[-1] += gain
    episodes = []
    for task in range(tasks):
        for succeeded in [True, False] * EACH:
            noise = rng.normal(0, _SHARED) + rng.normal(0, _OWN, wordings)
            scores = noise + gaps * succeeded
            episodes.append(PromptScores(f"task {task}", succeeded, scores[None], np.zeros((1, wordings))))
    return episodes


def equal_curves(tasks: int, each: int, rng: np.random.Generator) -> list[PromptScores]:
    """Episodes whose score rises, further where they succeed, with noise of each wording's own."""
    shape = (PREFIXES, SMALL_WORDINGS)
    episodes = []
    for task in range(tasks):
        for succeeded in [True, False] * each:
            rise = np.linspace(-4, -1 if succeeded else -2.5, PREFIXES)[:, None]
            curves = rise + rng.normal(size=shape) + rng.normal(size=(1, SMALL_WORDINGS))
            episodes.append(PromptScores(f"task {task}", succeeded, curves, rng.normal(-4, 1, shape)))
    return episodes


def small(options: argparse.Namespace) -> None:
    """Print the table of --small."""
    found, _ = candidates((0,), [], [""] * SMALL_WORDINGS, largest=1)
    table = Table("tasks", "of each outcome", "measure", *(it.name for it in Verdict), "refused")
    rows = [(*size, measure) for size in SMALL for measure in Measure]
    for tasks, each, measure in track(rows, "choosing", console=Console(stderr=True), transient=True):
        count: Counter[Verdict | None] = Counter()
        for seed in range(options.sets):
            episodes = equal_curves(tasks, each, np.random.default_rng([seed, tasks, each]))
            aside: list[PromptScores] = []
            try:
                if options.search:
                    episodes, aside = search_split(episodes, measure, seed=seed)
                made = choose(episodes, found, measure, laid_aside=aside, draws=options.draws)
            except ChoiceError:
                count[None] += 1
            else:
                count[made.verdict] += 1
        numbers = (str(count[it]) for it in (*Verdict, None))
        table.add_row(str(tasks), f"{each}+{each}", measure.value, *numbers)
    Console().print(table)


def main() -> None:
    """Print the table."""
    command = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    command.add_argument("--sets", type=int, default=60, help="data sets of a row (%(default)s)")
    command.add_argument("--draws", type=int, default=400, help="of the bootstrap (%(default)s)")
    command.add_argument("--wordings", type=int, default=WORDINGS, help="candidates (%(default)s)")
    command.add_argument("--search", action="store_true", help="half of the tasks judge, and no other")
    command.add_argument("--small", action="store_true", help="the smallest sizes, and none is better")
    options = command.parse_args()
    if options.small:
        small(options)
        return
    found, _ = candidates((0,), [], [""] * options.wordings, largest=1)
    table = Table("tasks", "better by [nat]", *(verdict.name for verdict in Verdict))
    cases = [(gain, tasks, seed) for gain in GAINS for tasks in TASKS for seed in range(options.sets)]
    counts: dict[tuple[float, int], Counter[Verdict]] = {}
    for gain, tasks, seed in track(cases, "choosing", console=Console(stderr=True), transient=True):
        episodes = drawn_episodes(tasks, gain, options.wordings, np.random.default_rng([seed, tasks]))
        aside: list[PromptScores] = []
        if options.search:
            episodes, aside = search_split(episodes, Measure.AUC, seed=seed)
        verdict = choose(episodes, found, Measure.AUC, laid_aside=aside, draws=options.draws).verdict
        counts.setdefault((gain, tasks), Counter())[verdict] += 1
    for (gain, tasks), count in counts.items():
        table.add_row(str(tasks), f"{gain:g}", *(str(count[verdict]) for verdict in Verdict))
    Console().print(table)


if __name__ == "__main__":
    main()
