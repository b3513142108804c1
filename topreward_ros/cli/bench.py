"""`topreward bench`: the scorer measured beside two slower ways to the same numbers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from topreward_ros.cli.output import check_outputs, results_console, write_json


def add_parser(commands: Any) -> None:
    """Add the command to ``commands``, the subparsers of `topreward`."""
    parser = commands.add_parser(
        "bench",
        help="measure the scorer beside two slower ways to the same numbers (needs no ROS 2)",
        description="Score the 15 prefixes of an episode in three ways on this machine's CPU, on the shipped "
        "model and on one of 50 million random weights, and compare times and numbers. Some four minutes on "
        "two cores.",
    )
    parser.add_argument(
        "--full", action="store_true", help="all lengths and numbers of prompts; some ten minutes"
    )
    parser.add_argument(
        "--threads", type=int, default=0, metavar="N", help="CPU threads (default: all cores but one)"
    )
    parser.add_argument("--json", metavar="FILE", help="write the numbers as JSON; '-': to standard output")
    parser.add_argument("--plot", metavar="FILE", type=Path, help="write a picture: .png, .svg or .pdf")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    import json

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from topreward_ros.core.output_files import temporary_folder
    from topreward_ros.offline import engine_bench
    from topreward_ros.scoring.base import EMBEDDED
    from topreward_ros.scoring.checkpoint.random_weights import make_fifty_million
    from topreward_ros.views.bench import bench_table, plot_bench

    check_outputs(options, model=EMBEDDED)
    cases = engine_bench.FULL if options.full else engine_bench.QUICK
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn(), TimeElapsedColumn(),
    )  # fmt: skip
    rows = []
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with temporary_folder("topreward-bench-") as folder, bar:
        task = bar.add_task("making a model of 50 million random weights", total=len(cases))
        models: dict[str, str | Path] = {
            "embedded": "embedded",
            "50M": make_fifty_million(folder / "50M"),
        }
        bar.update(task, description="measuring")
        for row in engine_bench.run(cases, models, options.threads):
            rows.append(row)
            bar.advance(task)
    content = engine_bench.to_json(rows)
    results_console(options).print(bench_table(rows, content["machine"]))
    write_json(options.json, lambda: json.dumps(content, indent=2) + "\n")
    if options.plot:
        plot_bench(rows, content["machine"], options.plot)
    return 0
