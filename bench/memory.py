"""What the scorer's memory does over many episodes, with stamps that are even and with stamps that are not.

The times of frames are written into the prompt, so uneven stamps make passes of many lengths, and oneDNN
compiles kernels for every length. Episodes of 3 to 60 frames are scored frame by frame on the CPU, with the
work ahead that a live monitor does; with --change the task is set anew at times, and the next pass is as long
as the episode so far. After each, the memory of the process is read, what its heap has given
out and what it keeps free, Python's objects, and open files. Each kind of stamps runs in a process of its
own, all at the same time; so does each number of kernels that oneDNN may keep.

With --shapes nothing is scored: oneDNN multiplies so many shapes again and again, which takes seconds and
shows what its kernels alone hold.

    .venv/bin/python bench/memory.py
    .venv/bin/python bench/memory.py --shapes 300 --kernels 32 64 128 256 1024
    .venv/bin/python bench/memory.py --uneven --kernels 64 1024 --episodes 200 --json memory.json
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import time
from itertools import islice
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from options import add_files, add_threads, parser
from output import write_json
from process_memory import memory_mib, status_of
from topreward_ros.core.frames import NS_PER_S, EpisodeBuffer, Frame
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.offline.engine_bench import SIZES, TASK, machine
from topreward_ros.scoring.base import ScorerSettings
from topreward_ros.scoring.checkpoint.kept_memory import KERNELS_KEPT
from topreward_ros.scoring.qwen3_vl.language import CPU_TOKEN_STEP
from topreward_ros.scoring.registry import load_scorer
from topreward_ros.views.bench import machine_line

_RATE = 2.0  # [Hz], the monitor's default
_FEWEST, _MOST = 3, 60  # frames of an episode
_TASKS = (TASK, "close the drawer", "press the button on the wall", "open the door", "turn on the faucet")
_STEPS_AHEAD = 20  # between two frames; a live monitor does what it has time for
_MIB = 2.0**20
_LAYERS = ((384, 128), (128, 128), (128, 384))  # of weights: outputs, inputs
_ROUNDS = 6


class _Heap(ctypes.Structure):
    """struct mallinfo2 of glibc."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks"),
            *("uordblks", "fordblks", "keepcost"),
        )
    ]


def sample() -> dict[str, float]:
    """What the process holds now: memory in MiB, and counts."""
    taken = {"rss_mib": memory_mib(status_of("self"), "VmRSS")}
    heap_of = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if heap_of is not None:  # glibc 2.33 and newer
        heap_of.restype = _Heap
        heap = heap_of()
        taken |= {
            "heap_used_mib": (heap.uordblks + heap.hblkhd) / _MIB,
            "heap_free_mib": heap.fordblks / _MIB,
        }
    return taken | {"objects": len(gc.get_objects()), "files": len(os.listdir("/proc/self/fd"))}


def measure(episodes: int, uneven: bool, threads: int, seed: int, change: float) -> dict[str, list[float]]:
    """Samples after each episode, and the time of the processor that its ticks took [s]: median and mean.

    ``change``: at which share of the frames the task is set anew.
    """
    height, width = SIZES["embedded"]
    settings = ScorerSettings(
        device="cpu",
        dtype="float32",
        max_pixels=height * width,
        max_frames=64,
        threads=threads,
        static_baseline=True,
        sample_rate=_RATE,
    )
    scorer = load_scorer("embedded", settings)
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 255, (_MOST, height, width, 3), dtype=np.uint8)
    kept: dict[str, list[float]] = {}
    for _ in range(episodes):
        buffer = EpisodeBuffer(settings.max_frames)
        stamp_ns, taken, task = 10**18 + int(rng.integers(10**9)), [], TASK
        for k in range(int(rng.integers(_FEWEST, _MOST + 1))):
            buffer.append(Frame(stamp_ns, images[k]))
            task = _TASKS[int(rng.integers(len(_TASKS)))] if rng.random() < change else task
            request = ScoreRequest(task, buffer)
            begun = time.process_time()
            scorer.score(request)
            taken.append(time.process_time() - begun)
            for _ in islice(scorer.ahead(request), _STEPS_AHEAD):
                pass
            gap = rng.uniform(0.5, 3.0) if uneven else 1.0
            stamp_ns += round(gap * NS_PER_S / _RATE)
        gc.collect()
        ticks = {"tick_median_s": float(np.median(taken)), "tick_mean_s": float(np.mean(taken))}
        for name, value in (sample() | ticks).items():
            kept.setdefault(name, []).append(value)
    return kept


def multiply(shapes: int, rounds: int) -> dict[str, list[float]]:
    """Memory after each round over ``shapes`` shapes, and its time [s]. Layers as in the shipped model."""
    torch.set_num_threads(1)
    kernels: Any = torch.ops.mkldnn
    layers = [(torch.randn(1, inner), torch.randn(outer, inner)) for outer, inner in _LAYERS]
    packed = [(row, kernels._reorder_linear_weight(weight)) for row, weight in layers]
    kept: dict[str, list[float]] = {"rss_mib": [sample()["rss_mib"]], "seconds": []}
    for _ in range(rounds):
        begun = time.process_time()
        for number in range(shapes):
            row, weight = packed[number % len(packed)]
            rows = CPU_TOKEN_STEP * (1 + number // len(packed))
            kernels._linear_pointwise(row.expand(rows, -1).contiguous(), weight, None, "none", [], "")
        kept["seconds"].append(time.process_time() - begun)
        kept["rss_mib"].append(sample()["rss_mib"])
    return kept


def table_of_shapes(shapes: int, results: dict[tuple[str, int], dict[str, list[float]]]) -> Table:
    """What `multiply` has found, by the number of kernels that are kept."""
    table = Table(title=f"memory [MiB] after rounds of {shapes} shapes")
    for column in ("kernels", "before", *(f"round {k + 1}" for k in range(_ROUNDS)), "time of a shape"):
        table.add_column(column, justify="right")
    for (_, kernels), result in results.items():
        settled_s = float(np.median(result["seconds"][1:])) / shapes
        table.add_row(str(kernels), *(f"{mib:.0f}" for mib in result["rss_mib"]), f"{1e3 * settled_s:.2f} ms")
    return table


def growth_of(mib: list[float]) -> float:
    """How fast memory grew in the last half of the episodes [MiB per hundred episodes]."""
    half = mib[len(mib) // 2 :]
    return 100 * float(np.polyfit(range(len(half)), half, 1)[0]) if len(half) > 1 else float("nan")


def table_of_episodes(episodes: int, results: dict[tuple[str, int], dict[str, list[float]]]) -> Table:
    """What `measure` has found, by the stamps and the number of kernels that are kept."""
    marks = sorted({10, 20, 50, 100, 200, 400, episodes} & set(range(1, episodes + 1)))
    columns = ["stamps", "kernels", *(f"after {mark}" for mark in marks), "growth in the last half, per 100"]
    table = Table(
        *columns, "free in the heap", "objects", "files", "tick", "mean", title="memory [MiB] after episodes"
    )
    for (kind, kernels), result in results.items():
        memory = result["rss_mib"]
        table.add_row(
            *(kind, str(kernels), *(f"{memory[mark - 1]:.0f}" for mark in marks)),
            f"{growth_of(memory):+.1f}",
            f"{result['heap_free_mib'][-1]:.0f}" if "heap_free_mib" in result else "",
            *(
                f"{result[name][len(memory) // 2]:.0f}, {result[name][-1]:.0f}"
                for name in ("objects", "files")
            ),
            *(f"{1000 * float(np.mean(result[f'tick_{name}_s'])):.2f} ms" for name in ("median", "mean")),
        )
    return table


def main() -> None:
    """Measure every kind, show a table, and write what was asked for."""
    command = parser(__doc__)
    command.add_argument("--episodes", type=int, default=100, help="(%(default)s)")
    command.add_argument("--seed", type=int, default=0, help="of lengths and stamps (%(default)s)")
    command.add_argument("--uneven", action="store_true", help="leave even stamps out")
    command.add_argument(
        "--kernels",
        type=int,
        nargs="+",
        default=[KERNELS_KEPT],
        help="that oneDNN keeps; its own default is 1024 (%(default)s)",
    )
    command.add_argument(
        "--change",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="of the frames before which the task is set anew (%(default)s)",
    )
    command.add_argument("--shapes", type=int, default=0, metavar="N", help="multiply so many shapes instead")
    command.add_argument("--kind", choices=("even", "uneven", "shapes"), help=argparse.SUPPRESS)  # in a child
    add_threads(command)
    add_files(command, plot=False)
    options = command.parse_args()
    if options.kind:
        if options.kind == "shapes":
            result = multiply(options.shapes, _ROUNDS)
        else:
            uneven = options.kind == "uneven"
            result = measure(options.episodes, uneven, options.threads, options.seed, options.change)
        print(json.dumps(result))
        return
    kinds = ("shapes",) if options.shapes else ("uneven",) if options.uneven else ("even", "uneven")
    children = {}
    for kind in kinds:
        for kernels in options.kernels:
            arguments = ["--kind", kind, "--episodes", options.episodes, "--seed", options.seed]
            arguments += ["--threads", options.threads, "--change", options.change]
            arguments += ["--shapes", options.shapes]
            child = [sys.executable, __file__, *map(str, arguments)]
            environment = {**os.environ, "ONEDNN_PRIMITIVE_CACHE_CAPACITY": str(kernels)}
            children[kind, kernels] = subprocess.Popen(child, env=environment, stdout=subprocess.PIPE)
    results = {}
    for run, process in children.items():
        said, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"the process for {run} ended with status {process.returncode}")
        results[run] = json.loads(said)
    if options.shapes:
        table = table_of_shapes(options.shapes, results)
    else:
        table = table_of_episodes(options.episodes, results)
    Console(width=160).print(table, machine_line(machine()))
    rows = [{"stamps": kind, "kernels": kernels, **result} for (kind, kernels), result in results.items()]
    write_json(options.json, {"runs": rows})


if __name__ == "__main__":
    main()
