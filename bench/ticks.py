"""What one tick costs in a live episode that is thinned again and again.

An episode longer than the frame budget is scored frame by frame, in three ways: without the static baseline,
with it, and with it but without work ahead. Work ahead is what the scorer does between two ticks, as the
worker lets it while nothing waits; its time is shown separately. The third way shows what a tick would cost
if everything were done only when it is needed. `--live` measures the second way alone: a monitor cannot score
more often than once in a tick and the work ahead of the next one.

A model of the shape of a released one, such as 2B, has random weights: time does not depend on them.

    .venv/bin/python bench/ticks.py
    .venv/bin/python bench/ticks.py --model 50M --frames 80 --budget 32 --prompts 10 --plot ticks.png
    .venv/bin/python bench/ticks.py --model 2B --live --frames 8 --dtype bfloat16 --sizes 96x128 480x640
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from gpu_models import SHAPES, load_shape, with_prompts
from memory import sample
from models import model_folder
from options import add_files, add_threads, parser
from output import BLUE, GREY, RED, YELLOW, new_axes, write_json
from topreward_ros.core.frames import EpisodeBuffer
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.offline.engine_bench import RATE, SIZES, TASK, machine, make_video
from topreward_ros.scoring.base import ScorerSettings
from topreward_ros.scoring.checkpoint.kept_memory import bound_kept_memory
from topreward_ros.scoring.checkpoint.load import use_threads
from topreward_ros.scoring.checkpoint.quantization import QUANTIZATIONS
from topreward_ros.scoring.question.templates import read_templates
from topreward_ros.scoring.qwen3_vl.scorer import Qwen3VLScorer
from topreward_ros.scoring.registry import LoadedModel, load_qwen3_vl
from topreward_ros.views.bench import machine_line
from topreward_ros.views.picture import write_picture

WITHOUT, AHEAD, WHEN_NEEDED = "no baseline", "baseline, worked ahead", "baseline, nothing ahead"
BETWEEN = "ahead, between two ticks"
COLOURS = {WITHOUT: GREY, AHEAD: BLUE, WHEN_NEEDED: RED}

Size = tuple[int, int]  # (height, width) of the frames


def settings_of(options: argparse.Namespace, size: Size) -> ScorerSettings:
    return ScorerSettings(
        device="cpu",
        dtype=options.dtype,
        max_pixels=size[0] * size[1],
        max_frames=options.budget,
        threads=options.threads,
        static_baseline=True,
        quantization=options.quantization,
        sample_rate=RATE,
    )


@contextmanager
def loaded_model(options: argparse.Namespace) -> Iterator[LoadedModel]:
    """The model that the options name, with the tokens of all prompts."""
    settings = settings_of(options, options.sizes[0])
    if options.model in SHAPES:
        bound_kept_memory()
        use_threads(options.threads)
        yield load_shape(options.model, settings, torch.device("cpu"), getattr(torch, options.dtype))
    else:
        with model_folder(options.model) as folder:
            loaded = load_qwen3_vl(folder, settings)
            yield loaded._replace(tokens=loaded.tokens.with_templates(read_templates("ten_prompts.txt")))


@dataclass
class Ticks:
    """What `measure` gives: seconds of every tick by way of scoring, and of the work ahead after each."""

    wall: dict[str, list[float]]
    cpu: dict[
        str, list[float]
    ]  #: of all threads; with one of them, the wall time of a core with nothing else
    thinned: list[int] = field(default_factory=list)  #: ticks in which the episode was thinned

    @contextmanager
    def timed(self, way: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.cpu[way].append(time.process_time() - cpu)
        self.wall[way].append(time.perf_counter() - wall)


def measure(options: argparse.Namespace, loaded: LoadedModel, size: Size, prompts: int) -> Ticks:
    settings = settings_of(options, size)
    loaded = with_prompts(loaded, prompts)
    bare = replace(settings, static_baseline=False)
    scorers = {
        way: Qwen3VLScorer(*loaded[:3], bare if way == WITHOUT else settings, loaded.info)
        for way in ((AHEAD,) if options.live else (WITHOUT, AHEAD, WHEN_NEEDED))
    }
    ticks = Ticks({way: [] for way in (*scorers, BETWEEN)}, {way: [] for way in (*scorers, BETWEEN)})
    buffer = EpisodeBuffer(options.budget)
    video = make_video(options.frames, *size)
    for tick, frame in enumerate(track(video, "ticks", console=Console(stderr=True))):
        stride = buffer.stride
        buffer.append(frame)
        if buffer.stride != stride:
            ticks.thinned.append(tick)
        for way, scorer in scorers.items():
            with ticks.timed(way):
                scorer.score(ScoreRequest(TASK, buffer))
        if WITHOUT in scorers:  # prepares its thinned prefix; it has no baseline
            for _ in scorers[WITHOUT].ahead(ScoreRequest(TASK, buffer)):
                pass
        with ticks.timed(BETWEEN):
            for _ in scorers[AHEAD].ahead(ScoreRequest(TASK, buffer)):
                pass
    return ticks


def plot(ticks: Ticks, picture: Path) -> None:
    """Plot milliseconds of every tick, by way of scoring; dashed lines show where the episode was thinned."""
    figure, axes = new_axes(11, 4.6)
    for way in (WHEN_NEEDED, AHEAD, WITHOUT):
        if way in ticks.wall:
            axes.plot(1e3 * np.array(ticks.wall[way]), color=COLOURS[way], linewidth=1.3, label=way)
    ahead = 1e3 * np.array(ticks.wall[BETWEEN])
    axes.plot(ahead, ":", color=YELLOW, linewidth=1.2, label="work ahead, between two ticks")
    for tick in ticks.thinned:
        axes.axvline(tick, color="0.6", linewidth=0.8, linestyle="--")
        axes.text(tick, 0.98, " thinned", transform=axes.get_xaxis_transform(), va="top", fontsize=8)
    axes.set_yscale("log")
    axes.set_xlabel("tick")
    axes.set_ylabel("time [ms], logarithmic")
    axes.legend(frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=9)
    write_picture(figure, picture)


def table_of(title: str, ticks: Ticks) -> Table:
    table = Table(title=title)
    for column in ("tick [ms]", "p50", "p95", "longest", "longest where thinned", "p50 of CPU time"):
        table.add_column(column, justify="left" if column == "tick [ms]" else "right")
    for way, wall in ticks.wall.items():
        first = min(8, len(wall) // 2)  # the first ones choose kernels
        numbers = [*np.quantile(wall[first:], [0.5, 0.95]), max(wall[first:])]
        numbers.append(max((wall[tick] for tick in ticks.thinned), default=np.nan))
        numbers.append(np.median(ticks.cpu[way][first:]))
        table.add_row(way, *(f"{1e3 * value:.1f}" for value in numbers))
    return table


def size(text: str) -> Size:
    height, width = map(int, text.split("x"))
    return height, width


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--model", choices=(*SIZES, *SHAPES), default="embedded", help="(%(default)s)")
    command.add_argument("--frames", type=int, default=200, help="of the episode (%(default)s)")
    command.add_argument("--budget", type=int, default=64, help="frames of a prefix (%(default)s)")
    command.add_argument("--prompts", type=int, nargs="+", default=[1], help="each of them (%(default)s)")
    command.add_argument("--sizes", type=size, nargs="+", metavar="HEIGHTxWIDTH", help="of frames, each")
    command.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="(%(default)s)")
    command.add_argument("--quantization", choices=QUANTIZATIONS, default="none", help="(%(default)s)")
    command.add_argument("--live", action="store_true", help="the baseline, worked ahead, alone")
    add_threads(command)
    add_files(command)
    options = command.parse_args()
    options.sizes = options.sizes or [SIZES.get(options.model, (480, 640))]
    if options.plot and len(options.sizes) * len(options.prompts) > 1:
        command.error("--plot shows one size and one number of prompts")
    runs = []
    with loaded_model(options) as loaded:
        for (height, width), prompts in product(options.sizes, options.prompts):
            ticks = measure(options, loaded, (height, width), prompts)
            about, memory = machine(), sample()["rss_mib"]
            title = (
                f"{options.model}, {loaded.info.dtype}, {width}x{height}, {prompts} "
                f"prompt{'s' * (prompts > 1)}, {options.frames} frames, budget {options.budget}"
            )
            Console(width=110).print(table_of(title, ticks))
            Console(width=110).print(f"{machine_line(about)}; process {memory / 1024:.1f} GiB")
            runs.append({"title": title, "machine": about, "rss_mib": memory, **asdict(ticks)})
    write_json(options.json, {"runs": runs})
    if options.plot:
        plot(ticks, options.plot)


if __name__ == "__main__":
    main()
