"""How long it takes from the name of a large local folder to a scorer that is ready, and its revision.

    python bench/start.py --gigabytes 2

A folder of random weights is made, measured and removed again. Every number is taken twice in a fresh
process: with the files dropped from the page cache, as after a reboot, and with what an earlier start left.
`all bytes` reads every byte for the revision, `sample` is how it is done for folders of this size.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter

from topreward_ros.core.output_files import temporary_folder
from topreward_ros.defaults import monitor_defaults
from topreward_ros.scoring.base import ScorerSettings
from topreward_ros.scoring.checkpoint import checkpoint as checkpoint_module
from topreward_ros.scoring.checkpoint.random_weights import TINY, Shape, make_random_checkpoint, rope
from topreward_ros.scoring.checkpoint.weight_files import full_hash, loaded_files, short_hash
from topreward_ros.scoring.registry import load_scorer

WAYS = {"all bytes": full_hash, "sample": short_hash}
_LAYER = 3 * 2048 * 6144 + 2 * 2048 * 2048 + 2 * 2048 * 1024  # numbers in a layer of `shape`


def shape(gigabytes: float) -> Shape:
    """A model with layers of Qwen3-VL-2B's size, as many as make ``gigabytes`` in bfloat16."""
    return Shape(
        text={
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": max(1, round(gigabytes * 1e9 / 2 / _LAYER)),
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "rope_parameters": rope(5e6, (24, 20, 20)),
        },
        vision=TINY.vision | {"out_hidden_size": 2048},
    )


def drop_from_cache(folder: Path) -> None:
    """Let the kernel forget what it keeps of the weights in memory."""
    for path in loaded_files(folder):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(folder: Path, way: str) -> None:
    """Print the time of the revision [s] and of a whole start [s]; run in a process of its own."""
    import torch
    import transformers

    del torch, transformers  # imported here, so that their import does not count
    files = loaded_files(folder)
    vars(checkpoint_module)["short_hash"] = lambda _: WAYS[way](files)
    parameters = monitor_defaults() | {"dtype": "bfloat16"}
    if os.environ["MEASURE"] == "revision":
        begin = perf_counter()
        WAYS[way](files)
    else:
        begin = perf_counter()
        load_scorer(str(folder), ScorerSettings.from_parameters(parameters))
    print(perf_counter() - begin)


def main() -> None:
    """Print a table, in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.0, help="(%(default)s)")
    parser.add_argument("--measure", nargs=2, metavar=("FOLDER", "WAY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(Path(options.measure[0]), options.measure[1])
        return
    with temporary_folder("topreward-bench-") as scratch:
        print("making the weights ...", file=sys.stderr)
        folder = make_random_checkpoint(Path(scratch, "large"), shape=shape(options.gigabytes))
        size = sum(path.stat().st_size for path in loaded_files(folder))
        print(f"| {size / 1e9:.2f} GB | revision, cold | revision, warm | start, cold | start, warm |")
        print("|---|---|---|---|---|")
        for way in WAYS:
            seconds = [
                _in_a_process(folder, way, what, cold)
                for what in ("revision", "start")
                for cold in (True, False)
            ]
            print(f"| {way} | " + " | ".join(f"{time:.2f} s" for time in seconds) + " |", flush=True)


def _in_a_process(folder: Path, way: str, what: str, cold: bool) -> float:
    if cold:
        drop_from_cache(folder)
    command = [sys.executable, __file__, "--measure", str(folder), way]
    done = subprocess.run(
        command, env={**os.environ, "MEASURE": what}, check=True, capture_output=True, text=True
    )
    return float(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
