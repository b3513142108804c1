"""What front padding and a fixed length do to the length bias of a model, on labelled episodes.

Each way is evaluated as by `topreward evaluate` (with the controls `idle` and `frozen`), into a folder of
its own below FOLDER, so that a run that was cut off goes on. Printed is a table in Markdown; the picture
shows the score of the first frame held still, which should not move, beside that of the successes.

    .venv/bin/topreward evaluate --help     # what DATA may be
    .venv/bin/python bench/length_bias.py runs --output bias
    .venv/bin/python bench/length_bias.py runs --output bias --model Qwen/Qwen3-VL-8B-Instruct
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from contextlib import closing
from math import nan
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from topreward_ros.cli.labelled import add_data_options, read_data
from topreward_ros.cli.settings import settings_of, with_overrides
from topreward_ros.core.evaluation import ALL, Control, EvaluatedEpisode, Mode, evaluate
from topreward_ros.core.frames import NS_PER_S, EpisodeBuffer, Frame
from topreward_ros.core.output_files import write_file
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.defaults import monitor_defaults
from topreward_ros.offline.evaluation_runs import EvaluationSettings, monitor_for_evaluation, score_episodes
from topreward_ros.scoring.registry import load_scorer
from topreward_ros.views.picture import write_picture
from topreward_ros.views.terminal import film_progress

_PADDING = (8, 16)
WAYS: Mapping[str, Mapping[str, int]] = {
    "as it is": {},
    **{f"front_padding: {copies}": {"front_padding": copies} for copies in _PADDING},
    "fixed_length: 16": {"fixed_length": 16},
    "fixed_length: 32": {"fixed_length": 32},
}
_COLUMNS = (
    ("static VOC", Mode.LOG_PROB, "static_voc"),
    ("static range [nat]", Mode.LOG_PROB, "static_range"),
    ("static share", Mode.LOG_PROB, "static_share"),
    ("AUC, raw", Mode.RAW_PROBABILITY, "auc"),
    ("AUC, 1 - r / r_static", Mode.STATIC_BASELINE, "auc"),
    ("VOC of successes", Mode.STATIC_BASELINE, "voc_success"),
    ("false progress in 10 s, raw", Mode.RAW_PROBABILITY, "false_progress"),
    ("the same, 1 - r / r_static", Mode.STATIC_BASELINE, "false_progress"),
)
_TICKS = 40  # of an episode whose scores are timed: longer than any fixed length above
_SIDE = 480, 640  # of its pictures, as a camera gives them


def settings_for(model: str, overrides: Sequence[str], way: Mapping[str, int]) -> EvaluationSettings:
    """The defaults with ``overrides`` and what ``way`` changes. Prefixes are thinned at the same length in
    all ways, one at which padding makes no picture smaller."""
    parameters = with_overrides(monitor_defaults(), overrides, "evaluate", ())
    parameters["max_frames"] -= max(_PADDING)
    monitor, scorer = settings_of({**parameters, **way})
    return EvaluationSettings(model, monitor_for_evaluation(monitor), scorer, (Control.IDLE, Control.FROZEN))


def time_of_a_score(settings: EvaluationSettings) -> float:
    """The median time [ms] of the 21st to 40th score of an episode, with nothing done ahead."""
    rng = np.random.default_rng(0)
    rate = settings.monitor.sample_rate
    buffer = EpisodeBuffer(settings.monitor.max_frames)
    times = []
    with closing(load_scorer(settings.model, settings.scorer)) as scorer:
        for number in range(_TICKS):
            image = rng.integers(0, 256, (*_SIDE, 3), np.uint8)
            buffer.append(Frame(round(number / rate * NS_PER_S), image))
            request = ScoreRequest("open the drawer", buffer.copy())
            start = perf_counter()
            scorer.score(request)
            times.append(1000 * (perf_counter() - start))
    return median(times[_TICKS // 2 :])


def row(episodes: Sequence[EvaluatedEpisode], settings: EvaluationSettings) -> list[float]:
    """The values of `_COLUMNS`."""
    modes = tuple(dict.fromkeys(mode for _, mode, _ in _COLUMNS))
    measures = evaluate(
        episodes, settings.monitor.success.threshold, modes, draws=20
    )  # intervals are not shown
    found = {(it.mode, it.name): it.value for it in measures if it.scope == ALL}
    return [found.get((str(mode), name), nan) for _, mode, name in _COLUMNS]


def draw(found: Mapping[str, Sequence[EvaluatedEpisode]], title: str, picture: Path) -> None:
    """One panel per way: log p(True) of the successes, and of their first frames held still."""
    figure = Figure(figsize=(3.1 * len(found), 3.6), dpi=110, facecolor="white", layout="constrained")
    figure.suptitle(title, fontsize=10)
    panels = figure.subplots(1, len(found), sharey=True)
    for panel, (way, episodes) in zip(np.atleast_1d(panels), found.items(), strict=True):
        for episode in episodes:
            if episode.succeeded is False:
                continue
            run, still = episode.plain, episode.plain.static()
            for it, colour in ((run, "#0072B2"), (still, "#D55E00")):
                panel.plot(it.times_s, it.values(Mode.LOG_PROB, nan), color=colour, alpha=0.35, linewidth=1)
        panel.set_title(way, fontsize=10)
        panel.set_xlabel("time [s]")
        panel.grid(color="0.92")
        panel.spines[["top", "right"]].set_visible(False)
    first = np.atleast_1d(panels)[0]
    first.set_ylabel("log p(True) [nat]")
    for colour, label in (("#0072B2", "successes"), ("#D55E00", "first frame held still")):
        first.plot([], [], color=colour, label=label)
    first.legend(frameon=False, fontsize=8, loc="lower right")
    write_picture(figure, picture)


def main() -> None:
    """Print the table, and write the picture and the evaluations."""
    command = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_data_options(command)
    command.add_argument("--model", default="embedded", help="as of the monitor (%(default)s)")
    command.add_argument("--set", action="append", default=[], dest="overrides", metavar="NAME=VALUE")
    command.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    command.add_argument("--ways", nargs="+", choices=tuple(WAYS), default=list(WAYS))
    command.set_defaults(usage_error=command.error)
    options = command.parse_args()
    labelled = read_data(options)
    for problem in labelled.problems:
        print(problem)
    found: dict[str, Sequence[EvaluatedEpisode]] = {}
    lines = [
        "| way | " + " | ".join(name for name, *_ in _COLUMNS) + " | ms a score |",
        "|---|" + "---|" * (len(_COLUMNS) + 1),
    ]
    model: Mapping[str, object] = {}
    for way in options.ways:
        settings = settings_for(options.model, options.overrides, WAYS[way])
        folder = options.output / way.replace(": ", "_").replace(" ", "_")
        folder.mkdir(parents=True, exist_ok=True)
        with film_progress(Console(stderr=True)) as on_start:
            evaluated = score_episodes(labelled.episodes, settings, folder / "films", on_start)
        for problem in evaluated.problems:
            print(problem)
        found[way], model = evaluated.episodes, evaluated.model
        values = " | ".join(f"{value:.3f}" for value in row(evaluated.episodes, settings))
        lines.append(f"| {way} | {values} | {time_of_a_score(settings):.1f} |")
    title = f"{model['model_id']} ({model['revision']}), {len(labelled.episodes)} episodes"
    text = "\n".join([title, "", *lines, ""])
    print(text)
    write_file(options.output / "length_bias.md", text.encode())
    draw(found, title, options.output / "length_bias.png")


if __name__ == "__main__":
    main()
