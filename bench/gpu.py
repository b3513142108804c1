"""One tick on a GPU: the newest frame of a full context, for models of the size of the released ones.

The weights are random, drawn on the device, so that nothing is downloaded: time does not depend on them.
Prints p50, p95 and p99 of a tick (two new frames make a patch; vision, language and all prompts), recorded as
CUDA graphs and kernel by kernel, in turns; how far the two are apart; and what a plain forward pass of the
same prefix takes.

    .venv/bin/python bench/gpu.py                          # 2B and 8B, 640x480, 64 frames, 1 and 10 prompts
    .venv/bin/python bench/gpu.py --shapes tiny --device cpu --size 96 96 --frames 16    # tries the script
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from topreward_ros.core.frames import EpisodeBuffer, Frame
from topreward_ros.offline.engine_bench import TASK, make_video
from topreward_ros.scoring import prompts
from topreward_ros.scoring.base import ScorerInfo, ScorerSettings
from topreward_ros.scoring.patches import Preprocessing
from topreward_ros.scoring.prompts import PromptTokens
from topreward_ros.scoring.qwen3_vl import Qwen3VLScorer
from topreward_ros.scoring.random_checkpoint import TINY, Shape, rope, train_tokenizer
from topreward_ros.scoring.references import PlainForward
from topreward_ros.scoring.registry import recorder_for
from topreward_ros.scoring.templates import fill, read_templates

GRAPHS, KERNELS = "graphs", "kernels"
WARM_UP = 3  # ticks that are not counted: kernels are chosen, graphs recorded


def shape(hidden: int, layers: int, heads: int, inner: int, vision: dict[str, Any], tied: bool) -> Shape:
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
        2048, 28, 16, 6144,
        {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16,
         "deepstack_visual_indexes": [5, 11, 17]}, tied=True,
    ),
    "8B": shape(
        4096, 36, 32, 12288,
        {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16,
         "deepstack_visual_indexes": [8, 16, 24]}, tied=False,
    ),
}  # fmt: skip


def make_model(of: Shape, device: torch.device, dtype: torch.dtype) -> tuple[Any, PromptTokens]:
    """A model with random weights on ``device``, and a tokenizer that knows the words of the prompts."""
    templates = read_templates("ten_prompts.txt")
    wordings = [fill(template, TASK) for template in templates] + [
        prompts.time_text(k / 4) for k in range(400)
    ]
    tokenizer = train_tokenizer(wordings, min(1024, of.vocabulary))
    ids = {
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
            model = Qwen3VLForConditionalGeneration(config).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(before)
    return model, PromptTokens(tokenizer, templates)


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def waits(scorer: Qwen3VLScorer, frames: list[Frame], device: torch.device) -> int:
    """How often a tick waits for the device; the read of the answers is one."""
    if device.type != "cuda":
        return 0
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            scorer.score(TASK, frames)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in said)


class Way:
    """A scorer, and what was measured of it."""

    def __init__(self, scorer: Qwen3VLScorer) -> None:
        self.scorer = scorer
        self.times: list[float] = []  # [ms]
        self.scores: list[float] = []
        self.waits = 0

    def tick(self, frames: list[Frame], device: torch.device) -> None:
        wait_for(device)
        begun = time.perf_counter()
        self.scores.append(self.scorer.score(TASK, frames).log_prob)
        self.times.append(1e3 * (time.perf_counter() - begun))
        for _ in self.scorer.ahead(TASK, EpisodeBuffer(4)):  # records what was missed, as between two ticks
            pass


def measure(ways: dict[str, Way], video: list[Frame], number: int, device: torch.device) -> None:
    """``number`` ticks of each way behind the same context, each with the newest patch not seen before."""
    context, new = video[: -2 * number], video[-2 * number :]
    for way in ways.values():
        way.scorer.score(TASK, context)
    for k in range(number):
        for way in ways.values():
            way.tick([*context[:-2], *new[2 * k : 2 * k + 2]], device)
    for way in ways.values():
        way.scorer.score(TASK, context)
        way.waits = waits(way.scorer, [*context[:-2], *new[:2]], device)


def plain_pass(parts: tuple[Any, ...], info: ScorerInfo, frames: list[Frame]) -> float:
    """Milliseconds; the read of the answer waits for the device."""
    PlainForward(*parts, info).score(TASK, frames)  # chooses kernels
    begun = time.perf_counter()
    PlainForward(*parts, info).score(TASK, frames)
    return 1e3 * (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["2B", "8B"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", nargs=2, type=int, default=(480, 640), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--frames", type=int, default=64, help="of the context (%(default)s)")
    parser.add_argument("--ticks", type=int, default=33, help="(%(default)s)")
    parser.add_argument("--prompts", nargs="+", type=int, default=[1, 10])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    device = torch.device(given.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("PyTorch sees no CUDA device: run it on a machine with one, or give --device cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    height, width = given.size
    video = make_video(given.frames + 2 * given.ticks, height, width)
    rows = []
    for key in track(given.shapes, "shapes", console=Console(stderr=True)):
        model, all_tokens = make_model(SHAPES[key], device, dtype)
        for count in given.prompts:
            tokens = all_tokens.with_templates(read_templates("ten_prompts.txt")[:count])
            settings = ScorerSettings(
                given.device, str(dtype)[6:], height * width, given.frames, 0, static_baseline=False
            )
            info = ScorerInfo(key, "", True, given.device, str(dtype)[6:], "", height * width)
            parts = (model, tokens, Preprocessing())
            recorders = {GRAPHS: recorder_for(model, settings), KERNELS: None}
            ways = {
                way: Way(Qwen3VLScorer(*parts, settings, info, recorder))
                for way, recorder in recorders.items()
                if recorder is not None or way == KERNELS
            }
            measure(ways, video, given.ticks, device)
            plain = plain_pass(parts, info, video[: given.frames])
            for name, way in ways.items():
                pairs = zip(way.scores, ways[KERNELS].scores, strict=True)
                rows.append(
                    {
                        "shape": key,
                        "prompts": count,
                        "way": name,
                        "recorded": bool(recorders[name] and recorders[name].works),
                        "p50_p95_p99_ms": np.quantile(way.times[WARM_UP:], [0.5, 0.95, 0.99]).tolist(),
                        "waits": way.waits,
                        "differs_nat": max(abs(one - other) for one, other in pairs),
                        "plain_ms": plain,
                    }
                )
            del ways, recorders
        del model, parts
    table = Table(
        title=f"{machine}, {dtype}, {width}x{height}, {given.frames} frames, torch {torch.__version__}"
    )
    columns = ("shape", "prompts", "ticks", "p50 [ms]", "p95", "p99", "waits", "differs [nat]", "plain [ms]")
    for column in columns:
        table.add_column(escape(column), justify="right")
    for row in rows:
        way = (
            row["way"] if row["recorded"] or row["way"] == KERNELS else f"{row['way']}: refused, see the log"
        )
        numbers = [f"{value:.1f}" for value in row["p50_p95_p99_ms"]]
        numbers += [str(row["waits"]), f"{row['differs_nat']:.1e}", f"{row['plain_ms']:.1f}"]
        table.add_row(row["shape"], str(row["prompts"]), way, *numbers)
    Console().print(table)
    if given.json:
        given.json.write_text(json.dumps({"device": machine, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
