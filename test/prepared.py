"""Processes that begin where a program has imported its libraries, which takes most of its start.

A monitor, or a command that scores, needs five seconds of a core until PyTorch and the rest are there, and
the tests start some hundreds of them. So a server process imports them once, and forks for each process that
a test asks for: it runs the module as `python -m` does, with an environment and standard streams of its own,
in the folder in which its caller is, and its end is as Python's, up to where the interpreter is taken down.
What a start is like, how imports behave, what an interpreter makes of its environment (PYTHONIOENCODING and
the like) and of limits that it was born with is seen by the tests that start commands by `subprocess`.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess

#: Imported once. None of them starts a thread that its users need; no child of a fork would have it.
_IMPORTS = [
    "topreward_ros.nodes.monitor",
    "topreward_ros.nodes.video_player",
    "topreward_ros.nodes.watch",
    "topreward_ros.nodes.record",
    "topreward_ros.scoring.checkpoint.quantization",
    "topreward_ros.scoring.qwen3_vl.scorer",
    "topreward_ros.scoring.registry",
    "transformers.models.qwen2.tokenization_qwen2",
    "transformers.models.qwen3_vl.modeling_qwen3_vl",
    "topreward_ros.cli.main",
    "topreward_ros.offline.model_download",
    "topreward_ros.offline.models",
    "topreward_ros.offline.score_video",
    "topreward_ros.views.curve_plot",
    "huggingface_hub.hf_api",
]
#: Read when a library is loaded, so the same for all.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1"}
#: Where models are and where they come from, which `huggingface_hub` reads when it is loaded.
_HUB_VARIABLES = ("HF_", "HUGGINGFACE_", "TRANSFORMERS_", "XDG_CACHE_HOME", "HOME")
#: It, and who holds something of it: imported anew where those variables differ, in tenths of a second.
_HUB_PACKAGES = ("huggingface_hub", "transformers", "topreward_ros")
_CHILD = "__child__"


class PreparedProcess:
    """What is used of `subprocess.Popen`, for a process that was forked."""

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        stdin: int = 0,
        stdout: int = 1,
        stderr: int = 2,
    ):
        """Run ``module`` with ``arguments``; the streams are descriptors, by default our own."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_IMPORTS)
        before = {name: os.environ.get(name) for name in _ENVIRONMENT}
        os.environ.update(_ENVIRONMENT)
        streams = [Connection(os.dup(stream)) for stream in (stdin, stdout, stderr)]  # these can be sent
        try:  # the first one starts the server
            given = {"given": (module, [*arguments], dict(environment), streams)}
            self._process = ForkServerProcess(  # by its path: `test` is the name of Python's own tests, too
                target=runpy.run_path, args=(__file__, given, _CHILD), daemon=True
            )
            self._process.start()
        finally:
            for stream in streams:
                stream.close()
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


def completed(
    module: str,
    arguments: Sequence[object],
    environment: Mapping[str, str],
    *,
    stdout: int | None = None,
    timeout: float = 120.0,
) -> subprocess.CompletedProcess[str]:
    """Run ``module`` to its end, as `subprocess.run` does with ``capture_output`` and ``text``.

    With ``stdout``, a descriptor, only what goes to stderr is captured. Raises `subprocess.TimeoutExpired`
    after ``timeout`` seconds; the process is killed before.
    """
    command = [module, *map(str, arguments)]
    out, their_out = os.pipe()
    err, their_err = os.pipe()
    with open(out) as out_file, open(err) as err_file, ThreadPoolExecutor(2) as readers:
        try:
            process = PreparedProcess(
                module,
                command[1:],
                environment,
                stdout=their_out if stdout is None else stdout,
                stderr=their_err,
            )
        finally:
            os.close(their_out)
            os.close(their_err)
        said = [readers.submit(file.read) for file in (out_file, err_file)]
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return subprocess.CompletedProcess(command, status, said[0].result(), said[1].result())


def _of_the_hub(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_HUB_VARIABLES)}


def _run(module: str, arguments: list[str], environment: dict[str, str], streams: list[Connection]) -> None:
    """Be ``python -m module arguments``, to the end of the process."""
    if _of_the_hub(os.environ) != _of_the_hub(environment):
        for name in [*sys.modules]:
            if name.partition(".")[0] in _HUB_PACKAGES:
                del sys.modules[name]
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, stream in enumerate(streams):
        os.dup2(stream.fileno(), descriptor)
        stream.close()
    _open_streams(unbuffered=bool(environment.get("PYTHONUNBUFFERED")))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    multiprocessing.current_process().daemon = False  # it may have children
    sys.argv = [module, *arguments]
    sys.modules.pop(_main_module(module), None)  # it is run, not imported, and runpy warns of what is there
    os._exit(_status(module))


def _open_streams(unbuffered: bool) -> None:
    """As Python does when it starts: what a stream is, whether it can be sought in, is asked but once."""
    sys.stdin = sys.__stdin__ = os.fdopen(0, closefd=False)
    out = os.fdopen(1, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors, closefd=False)
    err = os.fdopen(2, "w", encoding=sys.stderr.encoding, errors=sys.stderr.errors, closefd=False)
    out.reconfigure(write_through=unbuffered, line_buffering=out.isatty())
    err.reconfigure(write_through=unbuffered, line_buffering=True)
    sys.stdout = sys.__stdout__ = out
    sys.stderr = sys.__stderr__ = err


def _main_module(module: str) -> str:
    """Its name, or that of the ``__main__`` of a package."""
    spec = find_spec(module)
    return module if spec is None or spec.submodule_search_locations is None else f"{module}.__main__"


def _status(module: str) -> int:
    """Run ``module``, and then what Python does at its end; returns the status of the process."""
    status = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, int):
            status = end.code
        elif end.code is not None:
            print(end.code, file=sys.stderr)
            status = 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except OSError:
        sys.excepthook(*sys.exc_info())
        status = 120
    sys.stderr.flush()
    return status


if __name__ == _CHILD:
    _run(*given)  # type: ignore[name-defined]  # noqa: F821
