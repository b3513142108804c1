"""Processes that begin where a monitor has imported its libraries, which takes most of its start.

A monitor needs five seconds of a core until PyTorch and the rest are there, and the tests start some hundred
of them. So a server process imports them once, and forks for each process that a test asks for: it runs the
module as `python -m` does, in an environment and with a log of its own. What a start is like, how imports
behave and what an interpreter leaves at its end is seen by the tests that start commands by `subprocess`.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

#: Imported once. None of them starts a thread, which no child of a fork would have.
_IMPORTS = [
    "topreward_ros.nodes.monitor",
    "topreward_ros.scoring.checkpoint.quantization",
    "topreward_ros.scoring.qwen3_vl.scorer",
    "topreward_ros.scoring.registry",
    "transformers.models.qwen2.tokenization_qwen2",
    "transformers.models.qwen3_vl.modeling_qwen3_vl",
]
#: Read when a library is loaded, so the same for all.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1"}
_CHILD = "__child__"


class PreparedProcess:
    """What is used of `subprocess.Popen`, for a process that was forked."""

    def __init__(self, module: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path):
        """Run ``module`` with ``arguments``; what it says goes to the end of ``log``."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_IMPORTS)
        before = {name: os.environ.get(name) for name in _ENVIRONMENT}
        os.environ.update(_ENVIRONMENT)
        try:  # the first one starts the server
            given = {"given": (module, [*arguments], dict(environment), str(log))}
            self._process = ForkServerProcess(  # by its path: `test` is the name of Python's own tests, too
                target=runpy.run_path, args=(__file__, given, _CHILD), daemon=True
            )
            self._process.start()
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """See `subprocess.Popen`."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """See `subprocess.Popen`."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """See `subprocess.Popen`."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """See `subprocess.Popen`."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """See `subprocess.Popen`."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """See `subprocess.Popen`."""
        self.send_signal(signal.SIGKILL)


def _run(module: str, arguments: list[str], environment: dict[str, str], log: str) -> None:
    """Be ``python -m module arguments``."""
    os.environ.clear()
    os.environ.update(environment)
    said = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(said, 1)
    os.dup2(said, 2)
    os.close(said)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(write_through=True)  # type: ignore[union-attr]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = [module, *arguments]
    sys.modules.pop(module, None)  # it is run, not imported, and runpy warns of those that are there already
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == _CHILD:
    _run(*given)  # type: ignore[name-defined]  # noqa: F821
