"""Runs `make test` many times in a row, also under hardship, and says how each run ended.

A test may be slow on a machine that is busy or that halts for a moment; it must not fail there. So some runs
are left alone (plain), some share the processors with two endless loops (busy), and in some every process of
the run is halted for 0.3 s every few seconds (halted), as a machine with too little memory or a virtual one
does. Not a test itself: ten runs take more than an hour. It touches no process that it did not start.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODES = {"plain": 4, "busy": 3, "halted": 3}  # how many runs of each, unless told otherwise
BUSY_LOOPS = 2
HALT_S = 0.3
PAUSES_S = (2.0, 3.0, 5.0)  # between two halts, in turn, so that they do not keep step with what is tested


def main() -> int:
    """Do the runs that the command line asks for; 1 when one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for mode, count in MODES.items():
        parser.add_argument(f"--{mode}", type=int, default=count, metavar="RUNS", help=f"default {count}")
    parser.add_argument("--logs", type=Path, help="folder for the output of each run (default: a new one)")
    parser.add_argument("--target", default="test", help="of make (default: test)")
    parser.add_argument("make_arguments", nargs="*", metavar="VARIABLE=VALUE", help='e.g. PYTEST_ARGS="-x"')
    chosen = parser.parse_args()
    logs: Path = chosen.logs or Path(tempfile.mkdtemp(prefix="topreward-steadiness-"))
    logs.mkdir(parents=True, exist_ok=True)
    print(f"logs: {logs}", flush=True)
    command = ["make", chosen.target, *chosen.make_arguments]
    failed = 0
    runs = [mode for mode in MODES for _ in range(getattr(chosen, mode))]
    for number, mode in enumerate(runs, start=1):
        log = logs / f"{number:02}-{mode}.log"
        begun_s = time.monotonic()
        with log.open("wb") as output, busy_loops(BUSY_LOOPS if mode == "busy" else 0):
            status = run(command, output.fileno(), halted=mode == "halted")
        failed += status != 0
        said = log.read_text(encoding="utf-8", errors="replace")
        took = f"{time.monotonic() - begun_s:4.0f} s"
        print(f"{number:2} of {len(runs)}  {mode:6}  status {status}  {took}  {result(said)}", flush=True)
        for line in re.findall(r"^(?:FAILED|ERROR) .*$", said, re.MULTILINE):
            print(f"    {line[:200]}", flush=True)
    print(f"{len(runs) - failed} of {len(runs)} runs passed", flush=True)
    return int(failed > 0)


def run(command: list[str], output: int, halted: bool) -> int:
    """Run ``command`` to its end, with halts or without; its exit status."""
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
    )
    try:
        turn = 0
        while True:
            try:
                return process.wait(PAUSES_S[turn % len(PAUSES_S)])
            except subprocess.TimeoutExpired:
                turn += 1
                if halted:
                    halt(process.pid)
    finally:
        if process.poll() is None:  # we were interrupted
            process.terminate()
            process.wait()


def halt(pid: int) -> None:
    """Stop the process ``pid`` and all below it for `HALT_S`, then let them go on.

    What a test has stopped itself stays so.
    """
    stopped: dict[int, None] = {}
    of_tests: set[int] = set()
    try:
        # Again, until there is nothing new: while we look, those that still run start others.
        while fresh := [each for each in family(pid) if each not in stopped and each not in of_tests]:
            for each in fresh:
                if is_stopped(each):
                    of_tests.add(each)
                    continue
                stopped[each] = None
                with suppress(ProcessLookupError):
                    os.kill(each, signal.SIGSTOP)
        time.sleep(HALT_S)
    finally:
        for each in reversed(stopped):
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGCONT)


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped by a signal (proc(5), state T)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:  # it has ended
        return False


def family(pid: int) -> list[int]:
    """``pid`` and all processes below it, a parent before its children."""
    found = [pid]
    for each in found:  # it grows while we go through it
        for children in Path(f"/proc/{each}/task").glob("*/children"):
            with suppress(OSError):  # it has ended
                found += map(int, children.read_text().split())
    return found


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """``count`` processes that each keep a processor busy."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def result(said: str) -> str:
    """The last line of pytest, such as "5 passed in 1.2s"; else the last line that there is."""
    lines = said.splitlines() or ["no output"]
    counted = [line for line in lines if re.search(r"\b(passed|failed|error)\b.* in [\d.]+s", line)]
    return (counted or lines)[-1].strip("= ")


if __name__ == "__main__":
    sys.exit(main())
