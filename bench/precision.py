"""How far log p(True) moves when the model computes in fewer bits, on the CPU.

All prefixes of an episode are scored in every precision, by the incremental scorer and by a plain forward
pass. The reference is the plain forward pass in float32. The shipped model sees the demonstration of a
success; a model of 50 million random weights sees noise. fp8 is computed by the same products as on a GPU;
where torchao is installed, int8 weights are measured, too.

    .venv/bin/python bench/precision.py
    .venv/bin/python bench/precision.py --json precision.json --plot precision.png
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from math import isnan, nan
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from options import add_files, add_threads, parser
from output import BLUE, GREY, legend_above, new_axes, write_json
from topreward_ros.core.frames import Frame, FrameSchedule
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.core.output_files import temporary_folder
from topreward_ros.core.progress import PrefixScore, live_progress
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.defaults import DEMO_TASK, DEMO_VIDEO, monitor_defaults, shared_file
from topreward_ros.offline.engine_bench import SIZES, machine, make_video
from topreward_ros.offline.json_values import json_value
from topreward_ros.offline.video import open_video
from topreward_ros.scoring.base import PrefixScorer, ScorerSettings
from topreward_ros.scoring.checkpoint.random_weights import make_fifty_million
from topreward_ros.scoring.qwen3_vl.references import PlainForward
from topreward_ros.scoring.qwen3_vl.scorer import Qwen3VLScorer
from topreward_ros.scoring.registry import load_qwen3_vl
from topreward_ros.views.bench import machine_line
from topreward_ros.views.picture import write_picture

NOISE_FRAMES = 8
PRECISIONS = (("float32", "none"), ("bfloat16", "none"), ("float16", "none"))
FP8 = (("bfloat16", "fp8"),)
QUANTIZED = (("float32", "int8"), ("bfloat16", "int8"))
COLOURS = {"plain": GREY, "incremental": BLUE}


class Subject(NamedTuple):
    """A model and what it looks at."""

    name: str
    model: str  #: as `load_qwen3_vl` takes it
    max_pixels: int
    video: list[Frame]


@dataclass(frozen=True, slots=True)
class Row:
    """One model in one precision, against the plain forward pass in float32."""

    model: str
    precision: str
    weights: int  #: [bytes]
    prefixes: int
    plain: list[float]  #: |difference of log p(True)| of a plain forward pass [nat], by prefix
    incremental: list[float]  #: the same of the incremental scorer
    progress: float  #: difference of progress after the last prefix; NaN where progress means nothing


class Scores(NamedTuple):
    """What one model says in one precision."""

    precision: str
    weights: int  #: [bytes]
    plain: list[PrefixScore]  #: of a plain forward pass, by prefix
    incremental: list[PrefixScore]  #: of the incremental scorer, by prefix


def subjects(folder: Path) -> list[Subject]:
    """The two models and their videos. The random one is made in ``folder`` unless it is there."""
    defaults = monitor_defaults()
    schedule, demonstration = FrameSchedule(defaults["sample_rate"]), []
    for stamp_ns, read in open_video(shared_file(DEMO_VIDEO)):
        if schedule.observe(stamp_ns):
            schedule.take()
            demonstration.append(Frame(stamp_ns, read()))
    height, width = SIZES["50M"]
    noise = make_video(NOISE_FRAMES, height, width)
    return [
        Subject("embedded", "embedded", defaults["max_pixels"], demonstration),
        Subject("50M", str(make_fifty_million(folder)), height * width, noise),
    ]


def score(subject: Subject, dtype: str, quantization: str, threads: int) -> Scores:
    changes = {"device": "cpu", "dtype": dtype, "quantization": quantization, "scorer_threads": threads}
    settings = ScorerSettings.from_parameters(
        monitor_defaults() | changes | {"max_pixels": subject.max_pixels}
    )
    loaded = load_qwen3_vl(subject.model, settings)

    def episode(scorer: PrefixScorer) -> list[PrefixScore]:
        ends = range(1, len(subject.video) + 1)
        return [scorer.score(ScoreRequest.of_frames(DEMO_TASK, subject.video[:end])) for end in ends]

    return Scores(
        loaded.info.dtype,
        weight_bytes(loaded.model),
        episode(PlainForward(*loaded, settings.sample_rate)),
        episode(Qwen3VLScorer(*loaded[:3], settings, loaded.info)),
    )


def weight_bytes(model: torch.nn.Module) -> int:
    """Bytes of all weights; a quantized weight consists of several tensors."""
    tensors: list[torch.Tensor] = []
    for weight in model.parameters():
        parts = weight.__tensor_flatten__()[0] if hasattr(weight, "__tensor_flatten__") else []
        tensors += [getattr(weight, part) for part in parts] or [weight]
    return sum(tensor.nbytes for tensor in tensors)


def compare(subject: Subject, scores: Scores, truth: Scores) -> Row:
    def distances(measured: list[PrefixScore]) -> list[float]:
        pairs = zip(measured, truth.plain, strict=True)
        return [abs(score.log_prob - true.log_prob) for score, true in pairs]

    return Row(
        model=subject.name,
        precision=scores.precision,
        weights=scores.weights,
        prefixes=len(subject.video),
        plain=distances(scores.plain),
        incremental=distances(scores.incremental),
        # The other model has random weights, so its progress means nothing.
        progress=progress_at_end(scores) - progress_at_end(truth) if subject.model == "embedded" else nan,
    )


def progress_at_end(scores: Scores) -> float:
    settings = MonitorSettings.from_parameters(monitor_defaults())
    return live_progress(scores.incremental[-1], settings.progress_mode, settings.success.threshold)


def table_of(rows: Sequence[Row], about: dict[str, Any]) -> Table:
    """A table of the largest and the mean distance, of the plain forward pass and the incremental scorer."""
    table = Table(
        title="distance of log p(True) from a plain forward pass in float32 [nat]",
        caption=machine_line(about),
        box=None,
        padding=(0, 1, 0, 0),
    )
    table.add_column("model", no_wrap=True)
    table.add_column("precision", no_wrap=True)
    for name in ("MB", "plain", "mean", "ours", "mean", "progress"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        distances = [
            brief(number)
            for values in (row.plain, row.incremental)
            for number in (max(values), float(np.mean(values)))
        ]
        progress = "-" if isnan(row.progress) else f"{row.progress:+.4f}"
        table.add_row(row.model, row.precision, f"{row.weights / 1e6:.1f}", *distances, progress)
    return table


def brief(value: float) -> str:
    """A small number in short, as 9.4e-3."""
    return f"{value:.1e}".replace("e-0", "e-") if value else "0"


def plot(rows: Sequence[Row], about: dict[str, Any], picture: Path) -> None:
    """Plot the largest distance as a bar and every prefix as a dot, by model and precision."""
    figure, axes = new_axes(9, 1.4 + 0.5 * len(rows), grid="x")
    for place, row in enumerate(rows):
        for side, way in ((-0.2, "plain"), (0.2, "incremental")):
            distances = np.maximum(getattr(row, way), 1e-8)  # none at all has no place on this axis
            y = place + side
            label = way if place == 0 else None
            axes.barh(y, max(distances), 0.36, color=COLOURS[way], alpha=0.3)
            axes.plot(distances, [y] * len(distances), ".", color=COLOURS[way], markersize=5, label=label)
    labels = [f"{row.model}\n{row.precision}" for row in rows]
    axes.set_yticks(range(len(rows)), labels)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("distance of log p(True) from a plain forward pass in float32 [nat]; bars: the largest")
    axes.set_title(f"Fewer bits, every prefix of an episode\n{machine_line(about)}", fontsize=9, loc="left")
    legend_above(axes)
    write_picture(figure, picture)


def main() -> None:
    command = parser(__doc__)
    add_threads(command)
    command.add_argument("--folder", type=Path, help="of the random model; made there unless it is there")
    add_files(command)
    options = command.parse_args()
    precisions = PRECISIONS + FP8 + (QUANTIZED if find_spec("torchao") else ())
    rows = []
    with temporary_folder("topreward-bench-") as temporary:
        for subject in subjects(options.folder or Path(temporary) / "50M"):
            truth: Scores | None = None
            for precision in track(precisions, subject.name, console=Console(stderr=True), transient=True):
                scores = score(subject, *precision, options.threads)
                truth = truth or scores  # the first is float32
                rows.append(compare(subject, scores, truth))
                gc.collect()
    about = machine()
    Console().print(table_of(rows, about))
    write_json(options.json, {"machine": about, "rows": json_value([asdict(row) for row in rows])})
    if options.plot:
        plot(rows, about, options.plot)


if __name__ == "__main__":
    main()
