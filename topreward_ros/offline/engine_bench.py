"""How fast the incremental scorer is, beside two other ways to the same numbers, in one run.

Every case measures each way twice, on the same model and the same frames: the K = 15 uniform prefixes of an
episode (TOPReward, section 4), and the last tick alone, which is one more frame when all before it were
scored. A plain forward pass is the reference; the largest distance from it is reported beside the times.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import torch

from topreward_ros.core.frames import NS_PER_S, Frame
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.offline.json_values import json_value
from topreward_ros.scoring.base import PrefixScore, PrefixScorer, ScorerSettings
from topreward_ros.scoring.question.templates import read_templates
from topreward_ros.scoring.qwen3_vl.references import PlainForward, PrefixCache
from topreward_ros.scoring.qwen3_vl.scorer import Qwen3VLScorer
from topreward_ros.scoring.registry import LoadedModel, graph_runner_for, load_qwen3_vl

JSON_FORMAT = "topreward_bench/1"
PREFIXES = 15
RATE = 2.0  # [Hz]
TASK = "open the drawer"
SIZES = {"embedded": (96, 128), "50M": (224, 224)}  #: (height, width) of the frames, by model

OURS, PLAIN, CACHE = "incremental", "plain forward", "prefix cache"


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured."""

    model: str  #: its name, a key of `SIZES` where `run` loads it
    frames: int
    prompts: int
    ways: tuple[str, ...] = (PLAIN, CACHE)  #: beside the incremental one, which is always measured


@dataclass(slots=True)
class Measured:
    """The seconds that one way took in one case; NaN where it was not measured."""

    episode: float = nan
    last_tick: float = nan


@dataclass(slots=True)
class Row:
    """The measurements of a case."""

    case: Case
    ways: dict[str, Measured] = field(default_factory=dict)
    difference: float = nan  #: largest distance of log p(True) from a plain forward pass [nat]

    def speed_up(self, way: str, of: str) -> float:
        """How many times longer ``way`` takes; ``of``: a field of `Measured`."""
        return float(getattr(self.ways.get(way, Measured()), of) / getattr(self.ways[OURS], of))


QUICK = (
    *(Case("embedded", frames, prompts) for frames in (64, 256) for prompts in (1, 10)),
    Case("50M", 64, 1),
    Case("50M", 64, 10, (CACHE,)),
)
FULL = (
    *(Case("embedded", frames, prompts) for frames in (64, 128, 256) for prompts in (1, 3, 10)),
    *(Case("50M", frames, 1) for frames in (64, 128, 256)),
    *(Case("50M", frames, prompts, (CACHE,)) for frames in (64, 128, 256) for prompts in (3, 10)),
)


def machine() -> dict[str, Any]:
    """The machine that the numbers come from."""
    names = [line.split(":")[1] for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "processor": " ".join((names or [platform.processor()])[0].split()),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
    }


def run(cases: Sequence[Case], folders: dict[str, str | Path], threads: int) -> Iterator[Row]:
    """Measure one case after the other. ``folders``: those of the models, by name. Raises `ScorerError`."""
    loaded: dict[str, LoadedModel] = {}
    for case in cases:
        settings = _settings(case, threads)
        if case.model not in loaded:
            loaded.clear()  # one at a time in memory
            loaded[case.model] = load_qwen3_vl(str(folders[case.model]), settings)
        yield measure(case, loaded[case.model], settings)


def _settings(case: Case, threads: int) -> ScorerSettings:
    height, width = SIZES[case.model]
    return ScorerSettings(
        device="cpu",
        dtype="float32",
        max_pixels=height * width,
        max_frames=256,
        threads=threads,
        static_baseline=False,
        sample_rate=RATE,
    )


def measure(
    case: Case, loaded: LoadedModel, settings: ScorerSettings, size: tuple[int, int] | None = None
) -> Row:
    """Measure one case. Each way starts with nothing computed, and uses only what it keeps itself.

    ``size``: (height, width) of the frames, of a model that is not in `SIZES`.
    """
    video = make_video(case.frames, *(size or SIZES[case.model]))
    ends = np.unique(np.rint(np.linspace(1, case.frames, PREFIXES)).astype(int)).tolist()
    row = Row(case)
    templates = read_templates("ten_prompts.txt")[: case.prompts]
    loaded = loaded._replace(tokens=loaded.tokens.with_templates(templates))
    new = {way: _maker(way, loaded, settings) for way in (OURS, *case.ways)}
    row.ways = {way: Measured() for way in new}
    for make in new.values():
        with closing(make()) as scorer:
            scorer.score(
                ScoreRequest.of_frames(TASK, video[:2])
            )  # libraries choose kernels and start threads with the first pass
    scorers = {way: make() for way, make in new.items()}
    scores = _episode(scorers, video, ends, row.ways)
    for scorer in scorers.values():
        scorer.close()
    for way, make in new.items():
        with closing(make()) as scorer:
            row.ways[way].last_tick = _last_tick(scorer, video, warm=way != PLAIN)
    if PLAIN in scores:
        pairs = zip(scores[OURS], scores[PLAIN], strict=True)
        row.difference = max(abs(ours.log_prob - plain.log_prob) for ours, plain in pairs)
    return row


def _maker(way: str, loaded: LoadedModel, settings: ScorerSettings) -> Callable[[], PrefixScorer]:
    model, tokens, preprocessing, info = loaded
    if way == OURS:
        return lambda: Qwen3VLScorer(
            model, tokens, preprocessing, settings, info, graph_runner_for(model, settings)
        )
    reference = {PLAIN: PlainForward, CACHE: PrefixCache}[way]
    return lambda: reference(model, tokens, preprocessing, info, RATE)


def _episode(
    scorers: dict[str, PrefixScorer], video: list[Frame], ends: list[int], measured: dict[str, Measured]
) -> dict[str, list[PrefixScore]]:
    """Score each prefix in all ways before the next, so that other load on the machine slows all of them."""
    scores: dict[str, list[PrefixScore]] = {way: [] for way in scorers}
    for way in scorers:
        measured[way].episode = 0.0
    for end in ends:
        request = ScoreRequest.of_frames(TASK, video[:end])
        for way, scorer in scorers.items():
            begun = time.perf_counter()
            scores[way].append(scorer.score(request))
            measured[way].episode += time.perf_counter() - begun
            capture_ahead(scorer)
    return scores


def _last_tick(scorer: PrefixScorer, video: list[Frame], warm: bool) -> float:
    """Seconds for the last frame when all others were scored already."""
    for ahead in (3, 2, 1) if warm else ():
        if len(video) > ahead:
            scorer.score(ScoreRequest.of_frames(TASK, video[:-ahead]))
            capture_ahead(scorer)
    request = ScoreRequest.of_frames(TASK, video)
    begun = time.perf_counter()
    scorer.score(request)
    return time.perf_counter() - begun


def capture_ahead(scorer: PrefixScorer) -> None:
    """Let a scorer on a GPU capture the CUDA graphs of the next score, as it does between two ticks."""
    if isinstance(scorer, Qwen3VLScorer):
        for _ in scorer.capture_ahead():
            pass


def make_video(frames: int, height: int, width: int, seed: int = 0) -> list[Frame]:
    """Frames of noise over a moving gradient, no two alike."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    made = []
    for k in range(frames):
        image = rng.integers(0, 120, (height, width, 3), dtype=np.uint8)
        image[..., 0] += ((rows * 3 + columns + 20 * k) % 130).astype(np.uint8)
        made.append(Frame(round(k * NS_PER_S / RATE), image))
    return made


def to_json(rows: Sequence[Row]) -> dict[str, Any]:
    """The results for JSON: times in seconds, ``difference`` in nats, null where nothing was measured."""
    return {"format": JSON_FORMAT, "machine": machine(), "rows": json_value([asdict(row) for row in rows])}


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
