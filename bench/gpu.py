"""Ticks and episodes on a GPU, for models of the size of the released ones.

The weights are random, drawn on the device, so that nothing is downloaded: time does not depend on them.
First, p50, p95 and p99 of a tick after a full context (two new frames make a patch; vision, language and all
prompts), as CUDA graphs with compiled layers or without, and kernel by kernel, in turns, with the distance
between their scores.
Then, as `topreward bench` does on a CPU, the 15 prefixes of an episode beside plain forward passes and the
authors' scheme. All of it may take half an hour; `--shapes 2B` measures one model, and `--episodes` with
nothing behind it measures ticks alone. Where time on a GPU is short, `--quick` measures the ticks, profiles
one and runs the tests that need a GPU, within `--seconds`; each figure is printed when it is known, and what
fails does not end the rest.

    .venv/bin/python bench/gpu.py --quick --json quick.json
    .venv/bin/python bench/gpu.py --json gpu.json      # 2B and 8B, 640x480, 1, 3 and 10 prompts; and a trial:
    .venv/bin/python bench/gpu.py --shapes tiny --device cpu --size 96 96 --frames 16 --episodes 16
"""

from __future__ import annotations

import argparse
import gc
import signal
import sys
from typing import Any, NoReturn

import torch
from rich.console import Console
from rich.progress import track

from gpu_models import SHAPES, Setup, with_prompts
from gpu_quick import Quick
from gpu_ticks import WARM_UP, WAYS, tick_rows, tick_table
from options import add_files, at_least, parser
from output import write_json
from topreward_ros.cli.output import check_outputs, seconds
from topreward_ros.core.errors import UserError
from topreward_ros.offline import engine_bench
from topreward_ros.offline.engine_bench import Case, Row, measure
from topreward_ros.scoring.checkpoint.quantization import QUANTIZATIONS
from topreward_ros.scoring.device import release_cached_memory


def main() -> int:
    """The exit status is 1 where a part of ``--quick`` failed."""
    command = parser(__doc__)
    command.add_argument(
        "--quick", action="store_true", help="the figures that matter, each as soon as it is known"
    )
    command.add_argument("--seconds", type=seconds, default=80.0, help="that --quick may take (%(default)s)")
    command.add_argument("--shapes", nargs="+", choices=SHAPES, default=["8B", "2B"])
    command.add_argument("--device", type=_device, default="cuda")
    command.add_argument(
        *("--size",), nargs=2, type=at_least(32), default=(480, 640), metavar=("HEIGHT", "WIDTH")
    )
    command.add_argument("--frames", type=at_least(2), default=64, help="of a tick's context (%(default)s)")
    command.add_argument("--ticks", type=at_least(WARM_UP + 1), help="(33; with --quick 23)")
    command.add_argument("--prompts", nargs="+", type=at_least(1), help="(1 3 10; with --quick 1 10)")
    command.add_argument("--quantization", choices=QUANTIZATIONS, default="none", help="(%(default)s)")
    command.add_argument("--episodes", nargs="*", type=at_least(2), default=[64, 128, 256], metavar="FRAMES")
    add_files(command, plot=False)
    options = command.parse_args()
    signal.signal(signal.SIGTERM, _end)  # as `timeout` sends it: what was started is to end, too
    options.ticks = options.ticks or (23 if options.quick else 33)
    options.prompts = options.prompts or ([1, 10] if options.quick else [1, 3, 10])
    try:
        check_outputs(options)
        if options.quick:
            setup = Setup.of(options, options.frames)
            return Quick(setup, options.shapes, options.prompts, options.seconds, options.json).run()
        run(options)
    except UserError as error:
        print(f"gpu.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _device(text: str) -> str:
    try:
        torch.device(text)
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"{text}: must be cuda, cuda:1 and so on, or cpu") from error
    return text


def _end(*_: object) -> NoReturn:
    raise SystemExit(143)


def run(options: argparse.Namespace) -> None:
    """Measure all shapes, and print tables at the end."""
    from topreward_ros.views.bench import bench_table  # needs PyAV, which --quick does without

    setup = Setup.of(options, max(options.frames, *options.episodes, 0))
    machine, video = setup.machine(), setup.video()
    ticks: list[dict[str, Any]] = []
    episodes: list[Row] = []
    for key in track(options.shapes, "shapes", console=Console(stderr=True)):
        loaded = setup.load(key)
        for count in options.prompts:
            ticks += tick_rows(with_prompts(loaded, count), setup, video, [*WAYS], count)
        for length in options.episodes:
            for count in options.prompts:
                episodes.append(measure(Case(key, length, count), loaded, setup.settings, setup.size))
        del loaded
        gc.collect()
        release_cached_memory(setup.device)
    Console().print(tick_table(ticks, f"{machine['processor']}, {setup}"))
    if episodes:
        Console().print(bench_table(episodes, machine))
    write_json(options.json, {**engine_bench.to_json(episodes), "machine": machine, "ticks": ticks})


if __name__ == "__main__":
    sys.exit(main())
