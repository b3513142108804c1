"""What it costs to have the model served: time per tick beside a local scorer, and robots on one server.

Starts `topreward serve` with the embedded model on this machine, and asks it over loopback as monitors do:
each robot has a scorer of its own in a scoring thread, and shows a frame of 640x480 every half second. A tick
is the time from the frame to its score. Local and served ticks of the same frames come in turns, an eighth of
a second apart, so that none meets the work ahead that follows another one; and with them an empty request,
which shows what HTTP and Ray Serve take. A tick counts as missed where its frame was replaced by the next
one, or has no score. Robots and server share the cores: with the server elsewhere both
have more. CPU time of a tick says what a quiet machine would need, where this one is busy.

    .venv/bin/python bench/served.py
    .venv/bin/python bench/served.py --robots 10 20 30 --ticks 60
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from options import add_files, parser
from output import write_json
from topreward_ros.core.frames import NS_PER_S, EpisodeBuffer, Frame
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.defaults import DEMO_TASK, DEMO_VIDEO, monitor_defaults, shared_file
from topreward_ros.offline.engine_bench import machine
from topreward_ros.offline.video import open_video
from topreward_ros.scoring.base import PrefixScorer, ScorerSettings
from topreward_ros.scoring.registry import load_scorer
from topreward_ros.scoring.remote.scorer import RemoteScorer
from topreward_ros.scoring.worker import ScoreResult, ScoringWorker
from topreward_ros.views.bench import machine_line

RATE = 2.0  # [Hz]
SIZE = (640, 480)
START_S = 300.0  # [s] until the server must be there
_MARK = "TOPREWARD_BENCH_SERVER"
SETTINGS = ScorerSettings.from_parameters(monitor_defaults())


def pictures() -> list[np.ndarray]:
    """The shipped video at 2 Hz, forth and back, 640x480."""
    all_of_it = [cv2.resize(read(), SIZE) for _, read in open_video(shared_file(DEMO_VIDEO))][::12]
    return all_of_it + all_of_it[-2:0:-1]


def server_cpu_s() -> float:
    """CPU seconds of all processes of the server so far."""
    total = 0
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and f"{_MARK}={os.getpid()}\0" in (entry / "environ").read_text():
                total += sum(map(int, (entry / "stat").read_text().rpartition(") ")[2].split()[11:13]))
    return total / os.sysconf("SC_CLK_TCK")


@contextmanager
def server(replicas: int) -> Generator[str, None, None]:
    """The URL of a server that runs for as long as this lasts."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = [
        sys.executable,
        "-m",
        "topreward_ros.cli",
        "serve",
        "--port",
        port,
        "--replicas",
        str(replicas),
    ]
    environment = {**os.environ, _MARK: str(os.getpid())}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        watch = threading.Timer(START_S, process.kill)
        watch.start()
        assert process.stdout is not None
        line = process.stdout.readline()
        watch.cancel()
        if not line.startswith("serving"):
            raise SystemExit("the server did not start")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


class Robot:
    """A scorer in its thread, and an episode that grows."""

    def __init__(self, scorer: PrefixScorer) -> None:
        self.told = threading.Event()
        self.worker = ScoringWorker(scorer, self.told.set)
        self._buffer = EpisodeBuffer(SETTINGS.max_frames)
        self._number = 0

    def show(self, image: np.ndarray) -> ScoreRequest:
        """Ask for the score of the next frame."""
        self._buffer.append(Frame(round(self._number * NS_PER_S / RATE), image))
        self._number += 1
        request = ScoreRequest(DEMO_TASK, self._buffer.copy())
        self.worker.submit(request)
        return request

    def wait(self, seconds: float = 60.0) -> ScoreResult | None:
        """The next result; None: there is none in that time."""
        if not self.told.wait(seconds):
            return None
        self.told.clear()
        results = self.worker.results()
        return results[-1] if results else None


def in_turns(url: str, images: Sequence[np.ndarray], ticks: int) -> dict[str, list[float]]:
    """Times [ms] of ticks, local and served ones of the same frames in turns, and of empty requests."""
    empty = load_scorer(url, SETTINGS)
    assert isinstance(empty, RemoteScorer)
    robots = {
        "local": Robot(load_scorer("embedded", SETTINGS)),
        "served, PNG": Robot(load_scorer(url, SETTINGS)),
        "served, JPEG": Robot(load_scorer(f"{url}?frames=jpeg", SETTINGS)),
    }
    times: dict[str, list[float]] = {name: [] for name in (*robots, "empty request")}
    drift: dict[str, float] = dict.fromkeys(list(robots)[1:], 0.0)
    next_s = time.monotonic()

    def wait_for_turn() -> None:
        nonlocal next_s
        next_s += 1.0 / RATE / len(times)
        time.sleep(max(0.0, next_s - time.monotonic()))

    for image in islice(cycle(images), ticks):
        scores = {}
        for name, robot in robots.items():
            wait_for_turn()
            begun = time.perf_counter()
            robot.show(image)
            result = robot.wait()
            if result is None or result.score is None:
                raise SystemExit(f"{name}: {result and result.error}")
            times[name].append(1e3 * (time.perf_counter() - begun))
            scores[name] = result.score.log_prob
        for name in drift:
            drift[name] = max(drift[name], abs(scores[name] - scores["local"]))
        wait_for_turn()
        begun = time.perf_counter()
        empty.ask_info()
        times["empty request"].append(1e3 * (time.perf_counter() - begun))
    for robot in robots.values():
        robot.worker.stop()
    empty.close()
    return times | {f"drift of {name} [nat]": [value] for name, value in drift.items()}


def many(url: str, images: Sequence[np.ndarray], robots: int, ticks: int) -> dict[str, Any]:
    """Robots at 2 Hz each, out of step with each other."""
    times: list[float] = []
    missed = 0
    lock = threading.Lock()
    begin = time.monotonic() + 1.0
    server_s, here_s = server_cpu_s(), time.process_time()

    def run(number: int) -> None:
        nonlocal missed
        robot = Robot(load_scorer(url, SETTINGS))
        mine: dict[int, float] = {}
        answered: list[float] = []
        over = threading.Event()

        def collect() -> None:
            while not over.is_set():
                if (result := robot.wait(0.05)) is not None and result.score is not None:
                    answered.append(time.perf_counter() - mine[id(result.request)])

        kept: list[ScoreRequest] = []  # so that no id is given twice
        collector = threading.Thread(target=collect)
        collector.start()
        for tick in range(ticks):
            due = begin + (number / robots + tick) / RATE
            time.sleep(max(0.0, due - time.monotonic()))
            now = time.perf_counter()
            kept.append(robot.show(images[(number * 3 + tick) % len(images)]))
            mine[id(kept[-1])] = now
        time.sleep(2.0)
        over.set()
        collector.join()
        robot.worker.stop()
        with lock:
            times.extend(1e3 * it for it in answered)
            missed += ticks - len(answered)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(robots)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    share = 1e3 / max(1, len(times))
    cpu = {"server": share * (server_cpu_s() - server_s), "robots": share * (time.process_time() - here_s)}
    return {"robots": robots, "ticks": robots * ticks, "missed": missed, "cpu_ms": cpu, **percentiles(times)}


def percentiles(times: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99 [ms]."""
    return {f"p{share}": float(np.percentile(times, share)) for share in (50, 95, 99)} if times else {}


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--ticks", type=int, default=60, help="of each robot (default: %(default)s)")
    command.add_argument("--robots", type=int, nargs="+", default=[10, 20], help="(default: 10 20)")
    command.add_argument("--replicas", type=int, default=1, help="(default: %(default)s)")
    add_files(command, plot=False)
    options = command.parse_args()
    console = Console(highlight=False)
    console.print(machine_line(machine()))
    images = pictures()
    with server(options.replicas) as url:
        turns = in_turns(url, images, options.ticks)
        table = Table("one robot at 2 Hz [ms]", "p50", "p95", "added p50", "added p95")
        for name, taken in turns.items():
            if "drift" in name:
                console.print(f"{name}: {taken[0]:.2g}")
                continue
            added = [mine - local for mine, local in zip(taken, turns["local"], strict=True)]
            values = [*np.percentile(taken, [50, 95]), *np.percentile(added, [50, 95])]
            table.add_row(name, *(f"{value:.1f}" for value in values))
        console.print(table)
        rows = [many(url, images, robots, options.ticks) for robots in options.robots]
    names = ("p50 [ms]", "p95 [ms]", "p99 [ms]", "CPU of a tick [ms]: server", "robot")
    table = Table("robots at 2 Hz", "ticks", "missed", *names)
    for row in rows:
        numbers = [f"{row.get(name, float('nan')):.0f}" for name in ("p50", "p95", "p99")]
        numbers += [f"{value:.1f}" for value in row["cpu_ms"].values()]
        table.add_row(str(row["robots"]), str(row["ticks"]), str(row["missed"]), *numbers)
    console.print(table)
    write_json(options.json, {"machine": machine(), "ticks": turns, "robots": rows})


if __name__ == "__main__":
    main()
