"""What one wants to know of a GPU that is there for minutes: ticks, a profile of one, the tests for GPUs.

The run is a list of parts, the most important first. Every figure is printed when it is known, and written to
the JSON file after each part. A part that fails says why, and the next one begins. When the time is over, the
part that runs is broken off and what was not begun is named: whoever has a GPU for 90 seconds gets what fits.
`gpu.py --quick` runs it.
"""

from __future__ import annotations

import gc
import logging
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from gpu_models import Setup, with_prompts
from gpu_ticks import (
    COMPILED,
    GRAPHS,
    KERNELS,
    WARM_UP,
    open_ways,
    shape_name,
    tick_line,
    tick_rows,
    together_line,
    together_rows,
    wait_for,
)
from output import write_json
from topreward_ros.scoring.device import release_cached_memory
from topreward_ros.scoring.fp8 import missing_for_fp8
from topreward_ros.scoring.qwen3_vl import attention_kernels, compiling
from topreward_ros.scoring.qwen3_vl.layer_functions import PLAIN
from topreward_ros.scoring.registry import LoadedModel

PROFILED = 3  # ticks
EPISODES = 8  # at once
SHOWN = 12  # kernels of a profile, those that take longest
ROOT = Path(__file__).resolve().parents[1]
#: Whose log tells what was chosen for the GPU, and why not something else.
TOLD = (attention_kernels.__name__, compiling.__name__)
#: What is tried on a GPU where there is one, by file in test/scoring/qwen3_vl/.
TESTS = {
    "test_attention_kernels": ["test_kernels_that_are_chosen_among_are_right"],
    "test_attention": ["test_every_device_and_type_of_number"],
    "test_cuda_graphs": [
        "test_cuda_graphs_give_the_numbers_of_kernel_by_kernel",
        "test_cuda_graphs_of_several_episodes_give_the_numbers_of_kernel_by_kernel",
    ],
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
        #: What goes into the file.
        self.found: dict[str, Any] = {**facts, "failed": [], "not_done": [], "log": []}

    @property
    def left(self) -> float:
        """[s] until the time is over."""
        return self._begun + self._seconds - time.monotonic()

    def say(self, text: str) -> None:
        """Print a figure, with the time at which it was known."""
        print(f"[{time.monotonic() - self._begun:5.1f} s] {text}", flush=True)

    def note(self, line: str) -> None:
        """Say what a log says, once, and keep it."""
        if line not in self.found["log"]:
            self.found["log"].append(line)
            self.say(f"log: {line}")

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


class Log(logging.Handler):
    """Lets a `Run` note what the loggers `TOLD` say, and what others warn of."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        if record.name in TOLD or record.levelno >= logging.WARNING:
            self._run.note(record.getMessage())


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


class Quick:
    """The parts of ``gpu.py --quick`` on ``shapes``, with so many ``prompts`` each.

    First what needs no compiler; then, while layers are compiled for the first shape, the tests run beside,
    and are over before a tick is measured again.
    """

    def __init__(
        self, setup: Setup, shapes: Sequence[str], prompts: Sequence[int], seconds: float, path: Path | None
    ) -> None:
        self._setup, self._shapes, self._prompts = setup, shapes, prompts
        self._machine = setup.machine()
        self._run = Run(seconds, path, {"machine": self._machine, "setup": str(setup)})
        self._run.found.update(ticks=[], together=[], profiles=[])
        logging.basicConfig(level=logging.INFO, handlers=[Log(self._run)])
        self._video = setup.video()
        self._loaded: LoadedModel | None = None
        self._tests: Tests | None = None

    def run(self) -> int:
        """All parts. Returns the exit status: 1 where one failed."""
        part, (first, *_) = self._run.part, self._shapes
        self._run.say(f"{self._machine['processor']}, torch {torch.__version__}; {self._setup}")
        try:
            for way in (GRAPHS, COMPILED):
                if way == COMPILED:
                    part("start of the tests", self._begin_tests)
                for key in self._shapes:
                    part(f"weights of {key}", partial(self._load, key))
                    if way == COMPILED:
                        part(f"compiling for {key}", self._compile)
                    if way == COMPILED and key == first:
                        part("tests for GPUs", self._end_tests)
                    for count in self._prompts:
                        part(f"ticks of {key}, prompts {count}, {way}", partial(self._ticks, count, way))
                    if key == first:
                        part(f"{EPISODES} episodes of {key}, {way}", partial(self._together, way))
                        part(f"profile of {key}, {way}", partial(self._profile, way))
            part(f"weights of {first} in fp8", partial(self._load_in_fp8, first))
            for count in self._prompts:
                part(f"ticks of {first} in fp8, prompts {count}", partial(self._ticks, count, COMPILED))
            part(f"{EPISODES} episodes of {first} in fp8", partial(self._together, COMPILED))
        finally:
            if self._tests is not None:
                self._tests.kill()
        self._run.say("done" if self._run.left > 0 else "the time is over")
        return 1 if self._run.found["failed"] else 0

    @property
    def _model(self) -> LoadedModel:
        if self._loaded is None:
            raise RuntimeError("there are no weights")
        return self._loaded

    def _load(self, key: str) -> None:
        self._loaded = None
        gc.collect()
        release_cached_memory(self._setup.device)
        self._loaded = self._setup.load(key)

    def _load_in_fp8(self, key: str) -> None:
        self._loaded = None
        if problem := missing_for_fp8(self._setup.device):
            raise RuntimeError(problem)
        self._setup = self._setup.in_fp8()
        self._load(key)

    def _compile(self) -> None:
        with open_ways(self._model, self._setup, (COMPILED,)) as ways:
            for way in ways.values():
                functions = PLAIN if way.graphs is None else way.graphs.functions
                compiles = functions.gate != PLAIN.gate
                self._run.say("compiled" if compiles else "NOT compiled, see the log above")

    def _ticks(self, prompts: int, way: str) -> None:
        loaded = with_prompts(self._model, prompts)
        for row in tick_rows(loaded, self._setup, self._video, (way, KERNELS), prompts):
            self._run.found["ticks"].append(row)
            self._run.say(tick_line(row))

    def _together(self, way: str) -> None:
        loaded = with_prompts(self._model, self._prompts[0])
        for row in together_rows(loaded, self._setup, self._video, (way, KERNELS), EPISODES):
            self._run.found["together"].append(row)
            self._run.say(together_line(row))

    def _profile(self, wanted: str) -> None:
        """The kernels of a tick, by kind and by name."""
        loaded, device, frames = self._model, self._setup.device, self._setup.frames
        prompts = self._prompts[0]
        context, new = self._video[:frames], self._video[frames:]
        on_gpu = device.type == "cuda"
        with open_ways(with_prompts(loaded, prompts), self._setup, (wanted, KERNELS)) as ways:
            name, way = next(iter(ways.items()))
            for k in range(WARM_UP):
                way.tick([*context[:-2], *new[2 * k : 2 * k + 2]], device)
            with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as profiler:
                for k in range(WARM_UP, WARM_UP + PROFILED):
                    way.tick([*context[:-2], *new[2 * k : 2 * k + 2]], device)
                wait_for(device)
        kernels = []
        for one in profiler.key_averages():
            took_us = one.self_device_time_total if on_gpu else one.self_cpu_time_total
            kernels.append((one.key, one.count / PROFILED, 1e-3 * took_us / PROFILED))
        found = profile_of(kernels)
        title = {"shape": shape_name(loaded), "prompts": prompts, "way": name}
        self._run.found["profiles"].append({**title, **found})
        for line in profile_lines(f"profile {shape_name(loaded)}, prompts {prompts}, {name}", found):
            self._run.say(line)

    def _begin_tests(self) -> None:
        self._tests = Tests()

    def _end_tests(self) -> None:
        if self._tests is None:
            raise RuntimeError("they were not begun")
        returned, lines = self._tests.wait()
        self._run.found["tests"] = {"returned": returned, "said": lines}
        for line in lines:
            self._run.say(f"tests: {line}")
        if returned:
            raise RuntimeError(f"pytest returned {returned}")


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


class Tests:
    """`TESTS` in a process of their own, which begins at once."""

    def __init__(self) -> None:
        tests = [
            f"test/scoring/qwen3_vl/{file}.py::{test}" for file, names in TESTS.items() for test in names
        ]
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by `kill`
        self._child = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", *tests],
            cwd=ROOT,
            stdout=self._said,
            stderr=subprocess.STDOUT,
        )

    def wait(self) -> tuple[int, list[str]]:
        """What pytest returned: 0 where all passed; which failed, and the last line."""
        returned = self._child.wait()
        self._said.seek(0)
        lines = self._said.read().splitlines()
        return returned, [line for line in lines if line.startswith(("FAILED", "ERROR"))] + lines[-1:]

    def kill(self) -> None:
        """End it, if it runs."""
        self._child.kill()
        self._child.wait()
        self._said.close()
