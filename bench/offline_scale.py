"""How much faster two workers of a Ray cluster annotate many bags than one; and one process without Ray.

The bags hold a shipped video, repeated, as JPEGs of 640x480 at 10 Hz. A run is a whole `topreward annotate`
with its start and the loading of its models; the clusters, of one worker and of two, run before and meet on
the loopback alone. What is written is compared with what one worker wrote, and removed. It needs the extra
`ray`, and two cores that nobody else uses: the load stands beside each time.

    .venv/bin/python bench/offline_scale.py
    .venv/bin/python bench/offline_scale.py --bags 8 --seconds 20 --rounds 1
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from annotate import make_bag
from options import add_files, parser
from output import write_json
from topreward_ros.core.output_files import temporary_folder
from topreward_ros.defaults import DEMO_TASK
from topreward_ros.offline.content_hash import hash_of_files
from topreward_ros.offline.engine_bench import machine
from topreward_ros.views.bench import machine_line

RATE = 10  # [Hz]
GOAL = 1.7
_PORT = 46379
_ENVIRONMENT = {
    **os.environ,
    "RAY_AUTH_MODE": "disabled",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # the loopback
    "RAY_USAGE_STATS_ENABLED": "0",
}


def make_bags(folder: Path, bags: int, seconds: float) -> list[Path]:
    """So many bags with the same messages, which lie on the disk once."""
    first = folder / "bag"
    make_bag(first, seconds, raw=False, rate=RATE)
    made = []
    for k in range(bags):
        made.append(folder / f"run_{k:02d}")
        shutil.copytree(first, made[-1], copy_function=os.link)
    return made


@contextmanager
def cluster(workers: int, folder: Path) -> Iterator[str]:
    """A cluster of ``workers`` CPUs on this machine; yields its address."""
    ray = str(Path(sys.executable).with_name("ray"))
    place = Path("/tmp") / f"topreward-ray-{os.getpid()}"  # short, as the names of its sockets must be
    command = [str(ray), "start", "--head", "--block", f"--port={_PORT}", f"--num-cpus={workers}"]
    command += ["--include-dashboard=false", "--disable-usage-stats", f"--temp-dir={place}"]
    with (folder / "ray.log").open("w") as log:
        process = subprocess.Popen(command, env=_ENVIRONMENT, stdout=log, stderr=log)
        try:
            while "Ray runtime started" not in (folder / "ray.log").read_text():
                if process.poll() is not None:
                    raise SystemExit((folder / "ray.log").read_text())
                time.sleep(0.1)
            yield f"127.0.0.1:{_PORT}"
        finally:
            process.terminate()
            process.wait()
            shutil.rmtree(place, ignore_errors=True)


def annotate(bags: list[Path], output: Path, *how: str) -> tuple[float, str]:
    """How long [s] it took, and a hash of all that was written, which is removed."""
    command = [sys.executable, "-m", "topreward_ros.cli", "annotate", *map(str, bags)]
    command += ["--task", DEMO_TASK, "--output", str(output), "--set", "scorer_threads=1", *how]
    command += ["--set", "end_episode_on_success=false", "--set", "episode_timeout=0"]
    begun = time.perf_counter()
    subprocess.run(command, check=True, env=_ENVIRONMENT, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - begun
    written = hash_of_files(sorted(path for path in output.rglob("*") if path.is_file()))
    shutil.rmtree(output)
    return seconds, written


def measure(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    bags = make_bags(folder, options.bags, options.seconds)
    rows: list[dict[str, Any]] = []

    def take(how: str, workers: int, *arguments: str) -> None:
        seconds, written = annotate(bags, folder / "out", *arguments)
        load = os.getloadavg()[0]
        rows.append({"how": how, "workers": workers, "seconds": seconds, "load": load, "hash": written})
        print(f"{how}: {seconds:.1f} s, load {load:.1f}", flush=True)

    for _ in range(options.rounds):
        take("one process, without Ray", 0)
        for workers in (1, 2):
            with cluster(workers, folder) as address:
                take(f"--ray, {workers} worker{'s' * (workers > 1)}", workers, "--ray", address)
    return rows


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--bags", type=int, default=40, help="(%(default)s)")
    command.add_argument("--seconds", type=float, default=60, help="of each bag (%(default)s)")
    command.add_argument("--rounds", type=int, default=3, help="the best counts (%(default)s)")
    add_files(command, plot=False)
    options = command.parse_args()
    with temporary_folder("topreward-bench-") as folder:
        rows = measure(options, folder)
    best = {row["how"]: min(it["seconds"] for it in rows if it["how"] == row["how"]) for row in rows}
    one = next(best[row["how"]] for row in rows if row["workers"] == 1)
    table = Table(title=f"{options.bags} bags of {options.seconds:g} s, best of {options.rounds}")
    for column in ("topreward annotate", "seconds", "bags/min", "against one worker", "load"):
        table.add_column(column, justify="right")
    for how, seconds in best.items():
        loads = [f"{row['load']:.1f}" for row in rows if row["how"] == how]
        table.add_row(
            how,
            f"{seconds:.1f}",
            f"{60 * options.bags / seconds:.0f}",
            f"{one / seconds:.2f}x",
            " ".join(loads),
        )
    Console().print(table)
    Console().print(machine_line(machine()))
    by_ray = {row["hash"] for row in rows if row["workers"]}
    faster = one / next(best[row["how"]] for row in rows if row["workers"] == 2)
    same = "the same bytes" if len(by_ray) == 1 else "OTHER BYTES"
    print(f"two workers: {faster:.2f}x one (goal {GOAL}x); both write {same}")
    write_json(options.json, {"machine": machine(), "rows": rows})


if __name__ == "__main__":
    main()
