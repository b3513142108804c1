"""What one tick costs, live: without the static baseline, with it, and through thinning after thinning.

An episode longer than the frame budget is scored frame by frame. After each score the scorer gets to work
ahead, as the worker lets it while nothing waits, and that time is told beside. Third, the same without work
ahead: what a tick would cost if everything were done when it is needed.

    .venv/bin/python bench/ticks.py
    .venv/bin/python bench/ticks.py --model 50M --frames 80 --budget 32 --prompts 10 --plot ticks.png
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from rich.table import Table

from topreward_ros.core.episode import ScoreRequest
from topreward_ros.core.frames import EpisodeBuffer
from topreward_ros.offline.engine_bench import RATE, SIZES, TASK, machine, make_video
from topreward_ros.scoring.base import ScorerSettings
from topreward_ros.scoring.checkpoint.random_weights import make_fifty_million
from topreward_ros.scoring.question.templates import read_templates
from topreward_ros.scoring.qwen3_vl.scorer import Qwen3VLScorer
from topreward_ros.scoring.registry import load_model
from topreward_ros.views.bench import machine_line

WITHOUT, AHEAD, WHEN_NEEDED = "no baseline", "baseline, worked ahead", "baseline, nothing ahead"
COLOURS = {WITHOUT: "#757575", AHEAD: "#1769aa", WHEN_NEEDED: "#c62828"}


Ticks = tuple[dict[str, list[float]], list[float], list[int]]


def measure(options: argparse.Namespace, folder: str) -> Ticks:
    """Seconds of every tick by way; seconds worked ahead after each; the ticks at which it was thinned."""
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
    model, tokens, preprocessing, info = load_model(folder, settings)
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
        for _ in scorers[WITHOUT].ahead(ScoreRequest(TASK, buffer)):  # its thinned prefix, but no baseline
            pass
        begun = time.perf_counter()
        for _ in scorers[AHEAD].ahead(ScoreRequest(TASK, buffer)):
            pass
        ahead.append(time.perf_counter() - begun)
    return times, ahead, thinned


def plot(times: dict[str, list[float]], ahead: list[float], thinned: list[int], picture: Path) -> None:
    figure = Figure(figsize=(11, 4.6), dpi=110, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    for way in (WHEN_NEEDED, AHEAD, WITHOUT):
        axes.plot(1e3 * np.array(times[way]), color=COLOURS[way], linewidth=1.3, label=way)
    axes.plot(
        1e3 * np.array(ahead), ":", color="#f9a825", linewidth=1.2, label="work ahead, between two ticks"
    )
    for tick in thinned:
        axes.axvline(tick, color="0.6", linewidth=0.8, linestyle="--")
        axes.text(tick, 0.98, " thinned", transform=axes.get_xaxis_transform(), va="top", fontsize=8)
    axes.set_yscale("log")
    axes.set_xlabel("tick")
    axes.set_ylabel("time [ms], logarithmic")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=9)
    figure.savefig(picture)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=SIZES, default="embedded", help="(%(default)s)")
    parser.add_argument("--frames", type=int, default=200, help="of the episode (%(default)s)")
    parser.add_argument("--budget", type=int, default=64, help="frames of a prefix (%(default)s)")
    parser.add_argument("--prompts", type=int, default=1, help="(%(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="of the scorer; 0: all cores but one")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = "embedded" if options.model == "embedded" else make_fifty_million(Path(scratch, "50M"))
        times, ahead, thinned = measure(options, str(folder))
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
    if options.json:
        content = {"machine": about, "thinned": thinned, "seconds": rows}
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    if options.plot:
        plot(times, ahead, thinned, options.plot)


if __name__ == "__main__":
    main()
