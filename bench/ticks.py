"""What one tick costs in a live episode that is thinned again and again.

An episode longer than the frame budget is scored frame by frame, in three ways: without the static baseline,
with it, and with it but without work ahead. Work ahead is what the scorer does between two ticks, as the
worker lets it while nothing waits; its time is shown separately. The third way shows what a tick would cost
if everything were done only when it is needed.

    .venv/bin/python bench/ticks.py
    .venv/bin/python bench/ticks.py --model 50M --frames 80 --budget 32 --prompts 10 --plot ticks.png
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from models import add_model, model_folder
from options import add_files, add_threads, parser
from output import BLUE, GREY, RED, YELLOW, new_axes, write_json
from topreward_ros.core.frames import EpisodeBuffer
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.offline.engine_bench import RATE, SIZES, TASK, machine, make_video
from topreward_ros.scoring.base import ScorerSettings
from topreward_ros.scoring.question.templates import read_templates
from topreward_ros.scoring.qwen3_vl.scorer import Qwen3VLScorer
from topreward_ros.scoring.registry import load_qwen3_vl
from topreward_ros.views.bench import machine_line
from topreward_ros.views.picture import write_picture

WITHOUT, AHEAD, WHEN_NEEDED = "no baseline", "baseline, worked ahead", "baseline, nothing ahead"
COLOURS = {WITHOUT: GREY, AHEAD: BLUE, WHEN_NEEDED: RED}

#: What `measure` gives.
Ticks = tuple[dict[str, list[float]], list[float], list[int]]


def measure(options: argparse.Namespace, folder: str) -> Ticks:
    """Seconds of every tick, by way of scoring; seconds worked ahead after each; ticks with thinning."""
    height, width = SIZES[options.model]
    settings = ScorerSettings(
        device="cpu",
        dtype="float32",
        max_pixels=height * width,
        max_frames=options.budget,
        threads=options.threads,
        static_baseline=True,
        sample_rate=RATE,
    )
    model, tokens, preprocessing, info = load_qwen3_vl(folder, settings)
    tokens = tokens.with_templates(read_templates("ten_prompts.txt")[: options.prompts])
    bare = replace(settings, static_baseline=False)
    scorers = {
        way: Qwen3VLScorer(model, tokens, preprocessing, bare if way == WITHOUT else settings, info)
        for way in (WITHOUT, AHEAD, WHEN_NEEDED)
    }
    times: dict[str, list[float]] = {way: [] for way in scorers}
    ahead, thinned = [], []
    buffer = EpisodeBuffer(options.budget)
    video = make_video(options.frames, height, width)
    for tick, frame in enumerate(track(video, "ticks", console=Console(stderr=True))):
        stride = buffer.stride
        buffer.append(frame)
        if buffer.stride != stride:
            thinned.append(tick)
        for way, scorer in scorers.items():
            begun = time.perf_counter()
            scorer.score(ScoreRequest(TASK, buffer))
            times[way].append(time.perf_counter() - begun)
        for _ in scorers[WITHOUT].ahead(
            ScoreRequest(TASK, buffer)
        ):  # prepares its thinned prefix; it has no baseline
            pass
        begun = time.perf_counter()
        for _ in scorers[AHEAD].ahead(ScoreRequest(TASK, buffer)):
            pass
        ahead.append(time.perf_counter() - begun)
    return times, ahead, thinned


def plot(times: dict[str, list[float]], ahead: list[float], thinned: list[int], picture: Path) -> None:
    """Plot milliseconds of every tick, by way of scoring; dashed lines show where the episode was thinned."""
    figure, axes = new_axes(11, 4.6)
    for way in (WHEN_NEEDED, AHEAD, WITHOUT):
        axes.plot(1e3 * np.array(times[way]), color=COLOURS[way], linewidth=1.3, label=way)
    axes.plot(1e3 * np.array(ahead), ":", color=YELLOW, linewidth=1.2, label="work ahead, between two ticks")
    for tick in thinned:
        axes.axvline(tick, color="0.6", linewidth=0.8, linestyle="--")
        axes.text(tick, 0.98, " thinned", transform=axes.get_xaxis_transform(), va="top", fontsize=8)
    axes.set_yscale("log")
    axes.set_xlabel("tick")
    axes.set_ylabel("time [ms], logarithmic")
    axes.legend(frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=9)
    write_picture(figure, picture)


def main() -> None:
    command = parser(__doc__)
    add_model(command)
    command.add_argument("--frames", type=int, default=200, help="of the episode (%(default)s)")
    command.add_argument("--budget", type=int, default=64, help="frames of a prefix (%(default)s)")
    command.add_argument("--prompts", type=int, default=1, help="(%(default)s)")
    add_threads(command)
    add_files(command)
    options = command.parse_args()
    with model_folder(options.model) as folder:
        times, ahead, thinned = measure(options, folder)
    about = machine()
    prompts = "1 prompt" if options.prompts == 1 else f"{options.prompts} prompts"
    table = Table(title=f"{options.model}, {prompts}, {options.frames} frames, budget {options.budget}")
    for column in ("tick [ms]", "p50", "p95", "longest", "longest where thinned"):
        table.add_column(column, justify="left" if column == "tick [ms]" else "right")
    rows = {**times, "ahead, between two ticks": ahead}
    for way, seconds in rows.items():
        settled = seconds[8:]  # the first ones choose kernels
        numbers = [*np.quantile(settled, [0.5, 0.95]), max(settled)]
        numbers.append(max((seconds[tick] for tick in thinned), default=np.nan))
        table.add_row(way, *(f"{1e3 * value:.1f}" for value in numbers))
    Console().print(table)
    Console().print(machine_line(about))
    write_json(options.json, {"machine": about, "thinned": thinned, "seconds": rows})
    if options.plot:
        plot(times, ahead, thinned, options.plot)


if __name__ == "__main__":
    main()
