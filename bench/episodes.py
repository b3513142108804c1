"""Scoring several episodes at once against one after the other, as `topreward score` does on many videos.

Every way scores the same frames of the same episodes. They take turns tick by tick, so that a busy machine
slows all of them. This prints scores per second and the largest distance from scores computed one by one.

    .venv/bin/python bench/episodes.py
    .venv/bin/python bench/episodes.py --model 50M --episodes 8 --frames 8 --threads 2
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from models import add_model, model_folder
from options import add_files, add_threads, parser
from output import BLUE, new_axes, write_json
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.offline.engine_bench import RATE, SIZES, TASK, machine, make_video
from topreward_ros.scoring.base import PrefixScore, ScorerError, ScorerSettings
from topreward_ros.scoring.qwen3_vl.scorer import Qwen3VLScorer
from topreward_ros.scoring.registry import load_qwen3_vl
from topreward_ros.views.bench import machine_line
from topreward_ros.views.picture import write_picture


def measure(options: argparse.Namespace, folder: str) -> tuple[dict[int, float], dict[int, float]]:
    """Seconds for all ticks, and the largest distance from scores one by one [nat]; by episodes at once."""
    height, width = SIZES[options.model]
    settings = ScorerSettings(
        device="cpu",
        dtype="float32",
        max_pixels=height * width,
        max_frames=64,
        threads=options.threads,
        static_baseline=True,
        sample_rate=RATE,
    )
    model, tokens, preprocessing, info = load_qwen3_vl(folder, settings)
    scorers = {
        number: [
            Qwen3VLScorer(model, tokens, preprocessing, settings, info)
            for _ in range(0, options.episodes, number)
        ]
        for number in options.at_once
    }
    videos = [make_video(options.frames, height, width, seed) for seed in range(options.episodes)]
    seconds = dict.fromkeys(scorers, 0.0)
    distance = dict.fromkeys(scorers, 0.0)
    for tick in track(range(1, options.frames + 1), "ticks", console=Console(stderr=True)):
        expected: list[PrefixScore] = []
        for number, together in scorers.items():
            scores: list[PrefixScore] = []
            begun = time.perf_counter()
            for place, scorer in enumerate(together):
                some = videos[place * number : (place + 1) * number]
                requests = [ScoreRequest.of_frames(TASK, video[:tick]) for video in some]
                for score in scorer.score_all(requests):
                    if isinstance(score, ScorerError):
                        raise score
                    scores.append(score)
            seconds[number] += time.perf_counter() - begun
            expected = expected or scores
            pairs = zip(scores, expected, strict=True)
            largest = max(abs(score.log_prob - one.log_prob) for score, one in pairs)
            distance[number] = max(distance[number], largest)
    return seconds, distance


def plot(speeds: dict[int, float], title: str, picture: Path) -> None:
    """Plot scores per second as bars, by the number of episodes at once."""
    figure, axes = new_axes(7, 3.6)
    bars = axes.bar([str(number) for number in speeds], list(speeds.values()), color=BLUE, width=0.6)
    axes.bar_label(bars, fmt="%.0f")
    axes.set_xlabel("episodes at once")
    axes.set_ylabel("scores per second")
    axes.set_title(title, fontsize=8, loc="left")
    write_picture(figure, picture)


def main() -> None:
    command = parser(__doc__)
    add_model(command)
    command.add_argument("--episodes", type=int, default=16, help="(%(default)s)")
    command.add_argument("--frames", type=int, default=24, help="of each (%(default)s)")
    command.add_argument("--at-once", type=int, nargs="+", default=[1, 2, 4, 8, 16], metavar="N")
    add_threads(command)
    add_files(command)
    options = command.parse_args()
    options.at_once = sorted({1, *(number for number in options.at_once if number <= options.episodes)})
    with model_folder(options.model) as folder:
        seconds, distance = measure(options, folder)
    about = machine()
    ticks = options.episodes * options.frames
    speeds = {number: ticks / value for number, value in seconds.items()}
    title = f"{options.model}, {options.episodes} episodes of {options.frames} frames, with static baseline"
    table = Table(title=title)
    for column in ("at once", "scores per second", "against one by one", "differs [nat]"):
        table.add_column(column, justify="right")
    for number, speed in speeds.items():
        table.add_row(str(number), f"{speed:.1f}", f"{speed / speeds[1]:.2f}x", f"{distance[number]:.0e}")
    Console().print(table)
    Console().print(machine_line(about))
    content = {"machine": about, "title": title, "scores_per_second": speeds, "difference": distance}
    write_json(options.json, content)
    if options.plot:
        plot(speeds, f"{title}\n{machine_line(about)}", options.plot)


if __name__ == "__main__":
    main()
