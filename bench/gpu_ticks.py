"""Ticks after a full context, in several ways in turns: CUDA graphs, compiled or not, kernel by kernel."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from rich.markup import escape
from rich.table import Table

from gpu_models import Setup
from topreward_ros.core.frames import Frame
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.offline.engine_bench import TASK, capture_ahead
from topreward_ros.scoring.base import ScorerError
from topreward_ros.scoring.qwen3_vl.cuda_graphs import GraphRunner
from topreward_ros.scoring.qwen3_vl.scorer import Qwen3VLScorer
from topreward_ros.scoring.registry import LoadedModel, graph_runner_for

COMPILED, GRAPHS, KERNELS = "compiled", "graphs", "kernels"
WAYS: dict[str, dict[str, Any]] = {
    COMPILED: {"cuda_graphs": True, "compile": "true"},
    GRAPHS: {"cuda_graphs": True, "compile": "false"},
    KERNELS: {"cuda_graphs": False, "compile": "false"},
}
WARM_UP = 3  # ticks that are not counted: kernels are chosen, graphs captured
TOGETHER, TOGETHER_WARM_UP = 9, 4  # ticks of several episodes, and the first of these, that are not counted


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

    def distance(self, other: Way) -> float:
        """[nat] The largest between scores of the same prefixes."""
        return max(abs(one - two) for one, two in zip(self.scores, other.scores, strict=True))

    def together(self, prefixes: list[list[Frame]], device: torch.device) -> None:
        wait_for(device)
        begun = time.perf_counter()
        outcomes = self.scorer.score_all([ScoreRequest.of_frames(TASK, frames) for frames in prefixes])
        self.times.append(1e3 * (time.perf_counter() - begun))
        for outcome in outcomes:
            if isinstance(outcome, ScorerError):
                raise outcome
            self.scores.append(outcome.log_prob)
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
    loaded: LoadedModel, setup: Setup, video: list[Frame], wanted: Sequence[str], prompts: int
) -> list[dict[str, Any]]:
    """Times of ticks after the frames of a full context: a row for each of the ways ``wanted``.

    Scores are compared with those kernel by kernel, which must be among the ways.
    """
    with open_ways(loaded, setup, wanted) as ways:
        measure_ticks(ways, video, setup.ticks, setup.device)
    return [
        {
            "shape": shape_name(loaded),
            "prompts": prompts,
            "way": way_name(name, way),
            "p50_p95_p99_ms": np.quantile(way.times[WARM_UP:], [0.5, 0.95, 0.99]).tolist(),
            "waits": way.waits,
            "differs_nat": way.distance(ways[KERNELS]),
        }
        for name, way in ways.items()
    ]


def together_rows(
    loaded: LoadedModel, setup: Setup, video: list[Frame], wanted: Sequence[str], episodes: int
) -> list[dict[str, Any]]:
    """Scores per second of ``episodes`` that are scored together, each after the frames of a full context.

    A row for each of the ways ``wanted``; scores are compared with those kernel by kernel, which must be
    among the ways.
    """
    # Frames of its own for each: a scorer knows an episode by its first frame.
    videos = [[Frame(each.stamp_ns, each.image) for each in video] for _ in range(episodes)]
    with open_ways(loaded, setup, wanted) as ways:
        for way in ways.values():
            way.together([each[: setup.frames] for each in videos], setup.device)
        for k in range(min(TOGETHER, setup.ticks)):
            new = slice(setup.frames + 2 * k, setup.frames + 2 * k + 2)
            for way in ways.values():
                way.together([[*each[: setup.frames - 2], *each[new]] for each in videos], setup.device)
    rows = []
    for name, way in ways.items():
        took_ms = float(np.median(way.times[1:][-(TOGETHER - TOGETHER_WARM_UP) :]))
        rows.append(
            {
                "shape": shape_name(loaded),
                "episodes": episodes,
                "way": way_name(name, way),
                "ms": took_ms,
                "scores_per_s": 1e3 * episodes / took_ms,
                "differs_nat": way.distance(ways[KERNELS]),
            }
        )
    return rows


def shape_name(loaded: LoadedModel) -> str:
    """As ``8B``, or ``8B in fp8 weights`` of a quantized model."""
    quantized = loaded.info.dtype.partition(", ")[2]
    return f"{loaded.info.model_id} in {quantized}" if quantized else loaded.info.model_id


def way_name(name: str, way: Way) -> str:
    """``name``, and whether its graphs were refused."""
    return name if way.graphs is None or way.graphs.works else f"{name}: refused, see the warning"


def together_line(row: dict[str, Any]) -> str:
    """A row of `together_rows` as a line of text."""
    return (
        f"{row['episodes']} episodes of {row['shape']} at once, {row['way']}: {row['ms']:.1f} ms, "
        f"{row['scores_per_s']:.1f} scores/s; differs {row['differs_nat']:.1e} nat"
    )


@contextmanager
def open_ways(loaded: LoadedModel, setup: Setup, wanted: Sequence[str]) -> Iterator[dict[str, Way]]:
    """`make_ways`, whose scorers are closed afterwards."""
    ways = make_ways(loaded, setup, wanted)
    try:
        yield ways
    finally:
        for way in ways.values():
            way.scorer.close()


def make_ways(loaded: LoadedModel, setup: Setup, wanted: Sequence[str]) -> dict[str, Way]:
    """A scorer for each of the ways ``wanted`` that there is on the device."""
    ways = {}
    for name in wanted:
        settings = replace(setup.settings, **WAYS[name])
        graphs = graph_runner_for(loaded.model, settings)
        if graphs is not None or not settings.cuda_graphs:
            ways[name] = Way(Qwen3VLScorer(*loaded[:3], settings, loaded.info, graphs), graphs)
    return ways


def tick_table(rows: list[dict[str, Any]], title: str) -> Table:
    table = Table(title=title)
    for column in ("shape", "prompts", "ticks", "p50 [ms]", "p95", "p99", "waits", "differs [nat]"):
        table.add_column(escape(column), justify="right")
    for row in rows:
        table.add_row(row["shape"], str(row["prompts"]), row["way"], *_numbers(row))
    return table


def tick_line(row: dict[str, Any]) -> str:
    """A row of `tick_rows` as a line of text."""
    p50, p95, p99, waits, differs = _numbers(row)
    prompts = f"{row['prompts']} prompt{'s' if row['prompts'] > 1 else ''}"
    return (
        f"tick {row['shape']}, {prompts}, {row['way']}: p50 {p50} ms, p95 {p95}, p99 {p99}; "
        f"waits {waits}, differs {differs} nat"
    )


def _numbers(row: dict[str, Any]) -> list[str]:
    numbers = [f"{value:.1f}" for value in row["p50_p95_p99_ms"]]
    return [*numbers, str(row["waits"]), f"{row['differs_nat']:.1e}"]
