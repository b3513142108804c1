"""What one wants to know of a GPU that is there for minutes: ticks, a profile of one, the tests for GPUs.

The run is a list of parts, the most important first. Every figure is printed when it is known, and written to
the JSON file after each part. A part that fails says why, and the next one begins. When the time is over, the
part that runs is broken off and what was not begun is named: whoever has a GPU for 90 seconds gets what fits.
`gpu.py --quick` runs it.
"""

from __future__ import annotations

import gc
import json
import re
import signal
import subprocess
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from gpu_models import Setup, with_prompts
from gpu_ticks import GRAPHS, KERNELS, WARM_UP, make_ways, tick_line, tick_rows, wait_for
from output import write_json
from topreward_ros.core.frames import Frame
from topreward_ros.scoring.device import release_cached_memory
from topreward_ros.scoring.registry import LoadedModel

PROFILED = 3  # ticks
SHOWN = 12  # kernels of a profile, those that take longest
ROOT = Path(__file__).resolve().parents[1]
#: What is tried on a GPU where there is one, by file in test/scoring/qwen3_vl/.
TESTS = {
    "test_attention": ["test_every_device_and_type_of_number"],
    "test_cuda_graphs": ["test_cuda_graphs_give_the_numbers_of_kernel_by_kernel"],
}
#: Kinds of kernels, by what their names have; the first that fits counts.
KINDS = {
    "attention": re.compile(r"fmha|flash|attention|sdpa", re.IGNORECASE),
    "compiled": re.compile(r"^triton_"),
    "products": re.compile(r"gemm|gemv|cutlass|nvjet|wgmma|xmma|cublas|addmm|matmul|::mm$", re.IGNORECASE),
    "copies": re.compile(r"memcpy|memset|copy", re.IGNORECASE),
}


class TimeIsUpError(BaseException):
    """The time of the run is over. No `Exception`, so that nothing takes it for a failure of its own."""


class Run:
    """Parts that run one after the other within ``seconds``, and what they found."""

    def __init__(self, seconds: float, path: Path | None, facts: dict[str, Any]) -> None:
        self._begun = time.monotonic()
        self._seconds = seconds
        self._path = path
        self.found: dict[str, Any] = {**facts, "failed": [], "not_done": []}  #: what goes into the file

    @property
    def left(self) -> float:
        """[s] until the time is over."""
        return self._begun + self._seconds - time.monotonic()

    def say(self, text: str) -> None:
        """Print a figure, with the time at which it was known."""
        print(f"[{time.monotonic() - self._begun:5.1f} s] {text}", flush=True)

    def part(self, name: str, work: Callable[[], object]) -> None:
        """Do ``work``; where it raises, say so and go on."""
        try:
            with _alarm(self.left):
                work()
        except TimeIsUpError:
            self.found["not_done"].append(name)
            self.say(f"NOT DONE, {self._seconds:g} s are over: {name}")
        except Exception as error:
            self.found["failed"].append(name)
            self.say(f"FAILED: {name}: {type(error).__name__}: {error}")
            traceback.print_exc(limit=-4, file=sys.stdout)
            sys.stdout.flush()
        write_json(self._path, self.found)


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise `TimeIsUpError` in the main thread, within or before the block, once ``seconds`` are over."""

    def ring(*_: object) -> None:
        raise TimeIsUpError

    if seconds <= 0:
        raise TimeIsUpError
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run(
    setup: Setup, shapes: Sequence[str], prompts: Sequence[int], seconds: float, path: Path | None
) -> None:
    """Measure ``shapes`` with so many ``prompts`` each, and profile a tick of the first with the first."""
    machine = setup.machine()
    whole = Run(seconds, path, {"machine": machine, "setup": str(setup), "ticks": [], "profiles": []})
    whole.say(f"{machine['processor']}, torch {torch.__version__}; {setup}")
    video = setup.video()
    models: dict[str, LoadedModel] = {}

    for number, key in enumerate(shapes):
        models.clear()
        gc.collect()
        release_cached_memory(setup.device)
        whole.part(f"weights of {key}", lambda key=key: models.update({key: setup.load(key)}))  # type: ignore[misc]
        if key not in models:
            continue
        for count in prompts:
            name = f"ticks of {key} with {count} prompts"
            whole.part(name, lambda k=key, n=count: _ticks(whole, setup, models[k], video, n))  # type: ignore[misc]
        if not number:
            name = f"profile of a tick of {key}"
            whole.part(name, lambda k=key: _profile(whole, setup, models[k], video, prompts[0]))  # type: ignore[misc]
    models.clear()
    release_cached_memory(setup.device)
    whole.part("tests for GPUs", lambda: _tests(whole))
    whole.say("done" if whole.left > 0 else "the time is over")


def _ticks(whole: Run, setup: Setup, loaded: LoadedModel, video: list[Frame], prompts: int) -> None:
    for row in tick_rows(with_prompts(loaded, prompts), setup, video, (GRAPHS, KERNELS), prompts):
        whole.found["ticks"].append(row)
        whole.say(tick_line(row))


def _profile(whole: Run, setup: Setup, loaded: LoadedModel, video: list[Frame], prompts: int) -> None:
    """The kernels of a tick, by kind and by name, in the fastest way that there is."""
    name, way = next(iter(make_ways(with_prompts(loaded, prompts), setup, (GRAPHS, KERNELS)).items()))
    context, new = video[: setup.frames], video[setup.frames :]
    on_gpu = setup.device.type == "cuda"
    try:
        for k in range(WARM_UP):
            way.tick([*context[:-2], *new[2 * k : 2 * k + 2]], setup.device)
        with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as profiler:
            for k in range(WARM_UP, WARM_UP + PROFILED):
                way.tick([*context[:-2], *new[2 * k : 2 * k + 2]], setup.device)
            wait_for(setup.device)
    finally:
        way.scorer.close()
    kernels = [
        (
            each.key,
            each.count / PROFILED,
            (each.self_device_time_total if on_gpu else each.self_cpu_time_total),
        )
        for each in profiler.key_averages()
    ]
    found = profile_of([(key, count, 1e-3 * time_us / PROFILED) for key, count, time_us in kernels])
    whole.found["profiles"].append({"shape": loaded.info.model_id, "prompts": prompts, "way": name, **found})
    for line in profile_lines(f"profile {loaded.info.model_id}, {prompts} prompts, {name}", found):
        whole.say(line)


def profile_of(kernels: Sequence[tuple[str, float, float]]) -> dict[str, Any]:
    """Sums by kind, and the kernels that take longest, of (name, times in a tick, ms in a tick)."""
    kinds: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for name, count, took in kernels:
        kind = next((kind for kind, pattern in KINDS.items() if pattern.search(name)), "small ones")
        kinds[kind][0] += count
        kinds[kind][1] += took
    longest = sorted(kernels, key=lambda kernel: -kernel[2])[:SHOWN]
    return {
        "count": sum(count for _, count, _ in kernels),
        "ms": sum(took for *_, took in kernels),
        "kinds": {kind: {"count": count, "ms": took} for kind, (count, took) in kinds.items()},
        "longest": [{"name": name, "count": count, "ms": took} for name, count, took in longest],
    }


def profile_lines(title: str, found: dict[str, Any]) -> Iterator[str]:
    """What `profile_of` found, in lines."""
    yield f"{title}: {found['count']:.0f} kernels, {found['ms']:.2f} ms in a tick"
    for kind, sums in sorted(found["kinds"].items(), key=lambda item: -item[1]["ms"]):
        yield f"    {sums['ms']:7.2f} ms in {sums['count']:6.0f}  {kind}"
    for each in found["longest"]:
        yield f"        {each['ms']:7.3f} ms in {each['count']:5.0f}  {each['name'][:100]}"


def _tests(whole: Run) -> None:
    """`TESTS`, in a process of their own."""
    tests = [f"test/scoring/qwen3_vl/{file}.py::{test}" for file, names in TESTS.items() for test in names]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", *tests]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        said, _ = child.communicate()
    finally:
        child.kill()
        child.wait()
    lines = [line for line in said.splitlines() if line.startswith(("FAILED", "ERROR"))]
    lines += said.splitlines()[-1:]
    whole.found["tests"] = {"returned": child.returncode, "said": lines}
    for line in lines:
        whole.say(f"tests: {line}")
    if child.returncode:
        raise RuntimeError(f"pytest returned {child.returncode}: {json.dumps(said[-1500:])}")
