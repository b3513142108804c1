"""What the scorer's memory does over many episodes, with stamps that are even and with stamps that are not.

The times of frames are written into the prompt, so uneven stamps make passes of many lengths. Episodes of
3 to 60 frames are scored frame by frame on the CPU, with the work ahead that a live monitor does, and the
memory of the process is read after each. Each kind of stamps runs in a process of its own.

    .venv/bin/python bench/memory.py
    .venv/bin/python bench/memory.py --episodes 400 --json memory.json
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from options import add_files, add_threads, parser
from output import write_json
from topreward_ros.core.episode import ScoreRequest
from topreward_ros.core.frames import NS_PER_S, EpisodeBuffer, Frame
from topreward_ros.offline.engine_bench import SIZES, TASK, machine
from topreward_ros.scoring.base import ScorerSettings
from topreward_ros.scoring.registry import load_scorer
from topreward_ros.views.bench import machine_line

_RATE = 2.0  # [Hz], the monitor's default
_FEWEST, _MOST = 3, 60  # frames of an episode
_STEPS_AHEAD = 20  # between two frames; a live monitor does what it has time for


def rss_mib() -> float:
    """What the process holds in memory now [MiB]."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0]) / 1024


def measure(episodes: int, uneven: bool, threads: int, seed: int) -> dict[str, list[float]]:
    """Memory after each episode [MiB], and the median time of its ticks [s]."""
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
    memory, ticks = [], []
    for _ in range(episodes):
        buffer = EpisodeBuffer(settings.max_frames)
        stamp_ns, taken = 10**18 + int(rng.integers(10**9)), []
        for k in range(int(rng.integers(_FEWEST, _MOST + 1))):
            buffer.append(Frame(stamp_ns, images[k]))
            request = ScoreRequest(TASK, buffer)
            begun = time.perf_counter()
            scorer.score(request)
            taken.append(time.perf_counter() - begun)
            for _ in islice(scorer.ahead(request), _STEPS_AHEAD):
                pass
            gap = rng.uniform(0.5, 3.0) if uneven else 1.0
            stamp_ns += round(gap * NS_PER_S / _RATE)
        gc.collect()
        memory.append(rss_mib())
        ticks.append(float(np.median(taken)))
    return {"rss_mib": memory, "tick_s": ticks}


def main() -> None:
    """Measure both kinds of stamps, show a table, and write what was asked for."""
    command = parser(__doc__)
    command.add_argument("--episodes", type=int, default=100, help="(%(default)s)")
    command.add_argument("--seed", type=int, default=0, help="of lengths and stamps (%(default)s)")
    command.add_argument("--kind", choices=("even", "uneven"), help=argparse.SUPPRESS)  # in a child
    add_threads(command)
    add_files(command, plot=False)
    options = command.parse_args()
    if options.kind:
        uneven = options.kind == "uneven"
        print(json.dumps(measure(options.episodes, uneven, options.threads, options.seed)))
        return
    results = {}
    for kind in ("even", "uneven"):
        arguments = ["--kind", kind, "--episodes", options.episodes, "--seed", options.seed]
        child = [sys.executable, __file__, *map(str, arguments), "--threads", str(options.threads)]
        results[kind] = json.loads(subprocess.run(child, check=True, stdout=subprocess.PIPE).stdout)
    marks = sorted({10, 20, 50, 100, 200, 400, options.episodes} & set(range(1, options.episodes + 1)))
    table = Table("stamps", *(f"after {mark}" for mark in marks), "tick", title="memory [MiB] after episodes")
    for kind, result in results.items():
        memory = (f"{result['rss_mib'][mark - 1]:.0f}" for mark in marks)
        table.add_row(kind, *memory, f"{1000 * float(np.median(result['tick_s'])):.1f} ms")
    Console().print(table, machine_line(machine()))
    if options.json:
        write_json(options.json, results)


if __name__ == "__main__":
    main()
