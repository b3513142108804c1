"""Ticks and episodes on a GPU, for models of the size of the released ones.

The weights are random, drawn on the device, so that nothing is downloaded: time does not depend on them.
First, p50, p95 and p99 of a tick after a full context (two new frames make a patch; vision, language and all
prompts), replayed as CUDA graphs and kernel by kernel, in turns, with the distance between their scores.
Then, as `topreward bench` does on a CPU, the 15 prefixes of an episode beside plain forward passes and the
authors' scheme. All of it may take half an hour; `--shapes 2B` measures one model, and `--episodes` with
nothing behind it measures ticks alone.

    .venv/bin/python bench/gpu.py --json gpu.json      # 2B and 8B, 640x480, 1, 3 and 10 prompts; and a trial:
    .venv/bin/python bench/gpu.py --shapes tiny --device cpu --size 96 96 --frames 16 --episodes 16
"""

from __future__ import annotations

import gc
import time
import warnings
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from options import add_files, parser
from output import write_json
from topreward_ros.core.frames import Frame
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.offline import engine_bench
from topreward_ros.offline.engine_bench import RATE, TASK, Case, Row, capture_ahead, make_video, measure
from topreward_ros.scoring.base import ScorerInfo, ScorerSettings
from topreward_ros.scoring.checkpoint.random_weights import TINY, Shape, rope, train_tokenizer
from topreward_ros.scoring.device import release_cached_memory
from topreward_ros.scoring.patches import Preprocessing
from topreward_ros.scoring.question import prompts
from topreward_ros.scoring.question.prompts import PromptTokens
from topreward_ros.scoring.question.templates import fill, read_templates
from topreward_ros.scoring.qwen3_vl.cuda_graphs import GraphRunner
from topreward_ros.scoring.qwen3_vl.scorer import Qwen3VLScorer
from topreward_ros.scoring.registry import LoadedModel, graph_runner_for
from topreward_ros.views.bench import bench_table

GRAPHS, KERNELS = "graphs", "kernels"
WARM_UP = 3  # ticks that are not counted: kernels are chosen, graphs captured


def shape(*, hidden: int, layers: int, heads: int, inner: int, vision: dict[str, Any], tied: bool) -> Shape:
    """One of the released sizes, as their config.json has it."""
    text = {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": inner,
        "rope_parameters": rope(5e6, (24, 20, 20)),
        "tie_word_embeddings": tied,
    }
    return Shape(text, {**vision, "out_hidden_size": hidden, "num_position_embeddings": 2304}, 151936)


SHAPES = {
    "tiny": TINY,
    "2B": shape(
        hidden=2048, layers=28, heads=16, inner=6144, tied=True,
        vision={"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16,
         "deepstack_visual_indexes": [5, 11, 17]},
    ),
    "8B": shape(
        hidden=4096, layers=36, heads=32, inner=12288, tied=False,
        vision={"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16,
         "deepstack_visual_indexes": [8, 16, 24]},
    ),
}  # fmt: skip


def make_model(of: Shape, device: torch.device, dtype: torch.dtype) -> tuple[Any, PromptTokens]:
    """A model with random weights on ``device``, and a tokenizer that knows the words of the prompts."""
    templates = read_templates("ten_prompts.txt")
    sentences = [fill(template, TASK) for template in templates] + [
        prompts.time_text(k / 4) for k in range(400)
    ]
    tokenizer = train_tokenizer(sentences, min(1024, of.vocabulary))
    ids: dict[str, Any] = {
        f"{name}_token_id": tokenizer.token_to_id(token)
        for name, token in (
            ("image", "<|image_pad|>"),
            ("video", prompts.VIDEO_PAD),
            ("vision_start", prompts.VISION_START),
            ("vision_end", prompts.VISION_END),
        )
    }
    text = {"vocab_size": max(of.vocabulary, 1024), "max_position_embeddings": 262144, **of.text}
    config = Qwen3VLConfig(text_config=text, vision_config=of.vision, **ids)
    config._attn_implementation = "sdpa"
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            model: Any = Qwen3VLForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(before)
    return model.eval().requires_grad_(False), PromptTokens(tokenizer, templates)


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def waits(scorer: Qwen3VLScorer, frames: list[Frame], device: torch.device) -> int:
    """How often the CPU waits for the device in one tick; reading the answers is one such wait."""
    if device.type != "cuda":
        return 0
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            scorer.score(ScoreRequest.of_frames(TASK, frames))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in said)


class Way:
    """One way to score, as graphs or kernel by kernel: a scorer, and what was measured of its ticks."""

    def __init__(self, scorer: Qwen3VLScorer, graphs: GraphRunner | None) -> None:
        self.scorer = scorer
        self.graphs = graphs
        self.times: list[float] = []  # [ms]
        self.scores: list[float] = []
        self.waits = 0

    def tick(self, frames: list[Frame], device: torch.device) -> None:
        wait_for(device)
        begun = time.perf_counter()
        self.scores.append(self.scorer.score(ScoreRequest.of_frames(TASK, frames)).log_prob)
        self.times.append(1e3 * (time.perf_counter() - begun))
        capture_ahead(self.scorer)


def measure_ticks(ways: dict[str, Way], video: list[Frame], number: int, device: torch.device) -> None:
    """Measure ``number`` ticks of each way after the same context; the newest patch is new in each tick."""
    context, new = video[: -2 * number], video[-2 * number :]
    for way in ways.values():
        way.scorer.score(ScoreRequest.of_frames(TASK, context))
    for k in range(number):
        for way in ways.values():
            way.tick([*context[:-2], *new[2 * k : 2 * k + 2]], device)
    for way in ways.values():
        way.scorer.score(ScoreRequest.of_frames(TASK, context))
        way.waits = waits(way.scorer, [*context[:-2], *new[:2]], device)


def tick_rows(
    loaded: LoadedModel, settings: ScorerSettings, video: list[Frame], number: int, prompts: int
) -> list[dict[str, Any]]:
    """Times of ``number`` ticks after the frames of a full context: one row for each way."""
    parts, device = loaded[:3], loaded.model.device
    runners = {GRAPHS: graph_runner_for(loaded.model, settings), KERNELS: None}
    ways = {
        way: Way(Qwen3VLScorer(*parts, settings, loaded.info, graphs), graphs)
        for way, graphs in runners.items()
        if graphs is not None or way == KERNELS
    }
    measure_ticks(ways, video, number, device)
    rows = []
    for name, way in ways.items():
        way.scorer.close()
        graphs = way.graphs
        pairs = zip(way.scores, ways[KERNELS].scores, strict=True)
        rows.append(
            {
                "shape": loaded.info.model_id,
                "prompts": prompts,
                "way": name if graphs is None or graphs.works else f"{name}: refused, see the warning",
                "p50_p95_p99_ms": np.quantile(way.times[WARM_UP:], [0.5, 0.95, 0.99]).tolist(),
                "waits": way.waits,
                "differs_nat": max(abs(one - other) for one, other in pairs),
            }
        )
    return rows


def tick_table(rows: list[dict[str, Any]], title: str) -> Table:
    table = Table(title=title)
    for column in ("shape", "prompts", "ticks", "p50 [ms]", "p95", "p99", "waits", "differs [nat]"):
        table.add_column(escape(column), justify="right")
    for row in rows:
        numbers = [f"{value:.1f}" for value in row["p50_p95_p99_ms"]]
        numbers += [str(row["waits"]), f"{row['differs_nat']:.1e}"]
        table.add_row(row["shape"], str(row["prompts"]), row["way"], *numbers)
    return table


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--shapes", nargs="+", choices=SHAPES, default=["2B", "8B"])
    command.add_argument("--device", default="cuda")
    command.add_argument("--size", nargs=2, type=int, default=(480, 640), metavar=("HEIGHT", "WIDTH"))
    command.add_argument("--frames", type=int, default=64, help="of a tick's context (%(default)s)")
    command.add_argument("--ticks", type=int, default=33, help="(%(default)s)")
    command.add_argument("--prompts", nargs="+", type=int, default=[1, 3, 10])
    command.add_argument("--episodes", nargs="*", type=int, default=[64, 128, 256], metavar="FRAMES")
    add_files(command, plot=False)
    options = command.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("PyTorch sees no CUDA device: run it on a machine with one, or give --device cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    machine = engine_bench.machine()
    if device.type == "cuda":
        machine["processor"] = f"{torch.cuda.get_device_name(device)}, {machine['processor']}"
    height, width = options.size
    frames = max(options.frames, *options.episodes) if options.episodes else options.frames
    settings = ScorerSettings(
        device=options.device,
        dtype=str(dtype).removeprefix("torch."),
        max_pixels=height * width,
        max_frames=frames,
        threads=0,
        static_baseline=False,
        sample_rate=RATE,
    )
    video = make_video(options.frames + 2 * options.ticks, height, width)
    ticks: list[dict[str, Any]] = []
    episodes: list[Row] = []
    for key in track(options.shapes, "shapes", console=Console(stderr=True)):
        model, all_tokens = make_model(SHAPES[key], device, dtype)
        info = ScorerInfo(
            model_id=key,
            revision="",
            random_weights=True,
            device=options.device,
            dtype=settings.dtype,
            prompt_hash="",
            max_pixels=height * width,
        )
        loaded = LoadedModel(model, all_tokens, Preprocessing(), info)
        for count in options.prompts:
            tokens = all_tokens.with_templates(read_templates("ten_prompts.txt")[:count])
            ticks += tick_rows(loaded._replace(tokens=tokens), settings, video, options.ticks, count)
        for length in options.episodes:
            for count in options.prompts:
                episodes.append(measure(Case(key, length, count), loaded, settings, (height, width)))
        del model, loaded
        gc.collect()
        release_cached_memory(device)
    title = f"{machine['processor']}, {dtype}, {width}x{height}, {options.frames} frames"
    Console().print(tick_table(ticks, title))
    if episodes:
        Console().print(bench_table(episodes, machine))
    write_json(options.json, {**engine_bench.to_json(episodes), "machine": machine, "ticks": ticks})


if __name__ == "__main__":
    main()
