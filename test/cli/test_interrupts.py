"""Ctrl-C and SIGTERM at the moments at which Python itself loses them, or ends with another status."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

HEAD = """
import atexit, ctypes, os, signal, sys, time, weakref
from topreward_ros.cli import main as program

def stop(*_):
    os.kill(os.getpid(), {number})
    for _ in range(3):  # so that its handler has its turn here
        pass

class Stops:
    def __del__(self):
        stop()

class Thing:
    pass

def work(_):
    try:
{body}
        for _ in range(600):
            time.sleep(0.1)
    finally:
        time.sleep(0.3)  # an interrupt that was raised again, and another one behind it, would end this
        print("cleaned up")

program._run = work
sys.exit(program.command())
"""
#: Where an interrupt goes no further than a line on standard error, or not even that.
LOSE_IT = {
    "a __del__": "Stops()",
    "a callback of a weak reference": "thing = Thing(); kept = weakref.ref(thing, stop); del thing",
    "a callback of C code": "ctypes.CFUNCTYPE(None)(stop)()",
    "code that catches all": """
        try:
            stop()
        except BaseException:
            pass
""",
    "one after the other": "Stops(); Stops()",
}
ENDS = {signal.SIGINT: (130, "interrupted"), signal.SIGTERM: (143, "terminated")}


def run(body: str, number: signal.Signals, head: str = HEAD) -> subprocess.CompletedProcess[str]:
    body = body if "\n" in body else f"        {body}"
    code = head.format(number=int(number), body=body)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)


@pytest.mark.parametrize(
    ("where", "number"), [*((it, signal.SIGINT) for it in LOSE_IT), ("a __del__", signal.SIGTERM)]
)
def test_no_interrupt_is_lost(where: str, number: signal.Signals) -> None:
    done = run(LOSE_IT[where], number)
    status, said = ENDS[number]
    assert (done.returncode, done.stdout, done.stderr) == (status, "cleaned up\n", f"topreward: {said}\n")


def test_an_answer_that_takes_long_is_told_before() -> None:
    body = """
        try:
            stop()
        finally:
            time.sleep(2)
"""
    done = run(body, signal.SIGINT)
    told = ["topreward: interrupted: the work is being given up", "topreward: interrupted"]
    assert done.returncode == 130 and done.stderr.splitlines() == told


@pytest.mark.parametrize("number", ENDS)
def test_after_the_results_the_status_is_one_that_is_promised(number: signal.Signals) -> None:
    done = run("atexit.register(stop); return print('result') or 0", number)
    assert (done.returncode, done.stderr) == (ENDS[number][0], "") and "result" in done.stdout
    late = HEAD.replace("def work", "sys.modules['kept'] = Stops()\ndef work")  # gone with the modules
    done = run("return print('result') or 0", number, head=late)
    assert (done.returncode, done.stderr) == (0, "") and "result" in done.stdout
