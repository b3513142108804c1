"""Jobs done as tasks of a Ray cluster, with the results that `job_processes.do_jobs` gives on one machine.

What a job is, is not known here. Ray is an optional library; it is imported here alone, and only when it is
asked for. A task works in the folder of the process that asks and with its home, so that every path, however
it is written, must lead to the same file on all machines; and it works only where the code is the same.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import socket
import sys
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from threading import Thread
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

from topreward_ros.core.errors import UserError
from topreward_ros.core.printable import printable
from topreward_ros.offline.code_version import code_hash, package_version
from topreward_ros.offline.job_processes import (
    FutileDeaths,
    JobError,
    OnNote,
    Try,
    WaitingJobs,
    Work,
    plain_error,
    unexpected_error,
)

Prepared = TypeVar("Prepared")
Job = TypeVar("Job")
Result = TypeVar("Result")

_NO_RAY = "--ray needs Ray: pip install 'topreward_ros[ray]' (or ray)"
_ANSWER_S = 10.0  # within which the machine of an address must answer
_PATIENCE_S = 20.0  # without any job that ends, before it is looked whether one can begin at all
_LEAVE_S = 10.0  # for a task to get to its next step in Python, before Ray kills its process
_LOOK_S = 0.5  # between two looks of a task whether the process that asked for it has left
_MOST_AT_ONCE = 1000  # tasks that Ray knows of: it looks through all of them each time that one ends
#: Variables by which a user's files are found, beside the folder.
_PLACES = ("HOME", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME")


@dataclass(frozen=True, slots=True)
class _Caller:
    """What a task must have in common with the process that asks for it."""

    code: str  #: `code_hash`
    version: str
    folder: str
    places: tuple[tuple[str, str], ...]  #: variables of `_PLACES`, and what they say
    packed: bytes  #: how to prepare and to do a job, as pickle has it
    key: bytes  #: stands in the cluster's store of keys as soon as it leaves


def do_on_ray(
    jobs: Sequence[Job], work: Work[Prepared, Job, Result], address: str, device: str, on_note: OnNote
) -> Generator[tuple[int, Result | UserError], None, None]:
    """Do ``jobs`` as tasks of Ray. Yields the number of each as it ends, and its result or error.

    ``address``: of a cluster, as Ray knows it; empty: that in RAY_ADDRESS, else the one that this machine
    belongs to, else one on this machine alone. ``device``: a task takes one CPU, and one GPU where this is
    cuda. ``on_note`` is told of tasks that died, and where none can begin. Raises the error of
    ``work.prepare``, and `JobError` where Ray is not there, the cluster cannot be reached or has other code,
    or one task after the other dies.
    """
    ray = _connected(address)
    running: dict[Any, Try] = {}
    key = f"topreward-{uuid4().hex}".encode()
    try:
        needed = {"CPU": 1, "GPU": 1} if device.startswith("cuda") else {"CPU": 1}
        task = ray.remote(num_cpus=1, num_gpus=needed.get("GPU", 0), max_retries=0)(_task)
        waiting = WaitingJobs(jobs, work.name, on_note)
        deaths = FutileDeaths(int(ray.cluster_resources().get("CPU", 1)))
        lack = _Lack(ray, needed, on_note)
        caller = ray.put(_caller(work, key))
        while waiting or running:
            while waiting and len(running) < _MOST_AT_ONCE:
                job = waiting.take()
                running[task.remote(jobs[job.number], caller)] = job
            done, _ = ray.wait(list(running), num_returns=1, timeout=_PATIENCE_S)
            if not done:
                lack.tell()
                continue
            job = running.pop(done[0])
            try:
                outcome: Result | UserError | None = _outcome(ray.get(done[0]))
            except ray.exceptions.RayTaskError as error:  # before our own code could begin
                raise JobError(
                    f"the cluster cannot do the work ({_last_line(error)}): install topreward_ros "
                    f"{package_version()} with its libraries on all its machines"
                ) from error
            except ray.exceptions.RayError as error:
                how = f"died on the cluster ({printable(str(error).strip().splitlines()[0], 200)})"
                outcome, died = waiting.died(job, how), how
            else:
                died = ""
                deaths.forget()
                lack.forget()
            if outcome is not None:
                yield job.number, outcome
            if died:
                deaths.add(died, waiting)
    finally:
        _leave(ray, list(running), key)


# ---- the cluster ------------------------------------------------------------------------------------------


def check_ray() -> None:
    """Raise `JobError` where Ray is not installed, without importing it."""
    if find_spec("ray") is None:
        raise JobError(_NO_RAY)


def _connected(address: str) -> Any:
    """The module `ray`, connected to the cluster. Raises `JobError`."""
    chosen = address if address not in ("", "auto") else os.environ.get("RAY_ADDRESS") or address
    shown = f" at {printable(chosen, 100)}" if chosen else ""
    mend = (
        "start one by `ray start`, or leave the address (and RAY_ADDRESS) out for this machine alone; one "
        "that asks for a token needs RAY_AUTH_MODE=token here"
    )
    if chosen:
        _check_that_it_answers(chosen, f"no Ray cluster can be reached{shown}", mend)
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")  # each takes 40 s where nobody knows Ray
    try:
        import ray
    except ImportError as error:
        raise JobError(_NO_RAY) from error
    arguments = sys.argv
    try:
        sys.argv = [printable(it) for it in arguments]  # Ray notes them, and takes no others
        ray.init(
            address=chosen or None,
            log_to_driver=False,
            include_dashboard=None if chosen else False,
            logging_level=logging.ERROR,
        )
    except Exception as error:  # Ray has many kinds
        said = printable(" ".join(str(error).split()), 400)
        if "Version mismatch" in said:
            raise JobError(
                f"the Ray cluster{shown} runs other versions ({said}): install the same Python and the same "
                "Ray on all machines"
            ) from error
        raise JobError(f"no Ray cluster can be reached{shown} ({said}): {mend}") from error
    finally:
        sys.argv = arguments
    return ray


def _check_that_it_answers(address: str, problem: str, mend: str) -> None:
    """Raise `JobError` where nobody listens at ``address``, which Ray would find out after minutes."""
    scheme, _, rest = address.rpartition("://")
    if scheme not in ("", "ray") or ":" not in rest:
        return  # a word that Ray knows, such as auto and local, or an address of a provider
    try:
        parts = urlsplit(f"//{rest}")
        with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=_ANSWER_S):
            pass
    except (OSError, ValueError) as error:
        raise JobError(f"{problem} ({printable(str(error), 200)}): {mend}") from error


class _Lack:
    """Tells, once, why no job can begin, where that is so: Ray itself waits for ever, and says nothing."""

    def __init__(self, ray: Any, needed: Mapping[str, int], on_note: OnNote) -> None:
        self._ray, self._needed, self._on_note = ray, needed, on_note
        self._told = ""
        self._free = self._is_free()

    def _is_free(self) -> bool:
        free = self._ray.available_resources()
        return all(free.get(name, 0) >= count for name, count in self._needed.items())

    def forget(self) -> None:
        """A job has ended: there is room."""
        self._told, self._free = "", True

    def tell(self) -> None:
        """No job has ended for a while."""
        what = " and ".join(f"{count} {name}" for name, count in self._needed.items())
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        said = ""
        if not any(all(it.get(name, 0) >= n for name, n in self._needed.items()) for it in machines):
            has = ", ".join(f"{self._total(machines, name):g} {name}s" for name in ("CPU", "GPU"))
            leave = ", or leave --set device=cuda out" if "GPU" in self._needed else ""
            said = (
                f"no machine of the Ray cluster has {what} for a job (all {len(machines)} together: {has}), "
                f"so that all wait: add one by `ray start`{leave}, or end this by Ctrl-C"
            )
        elif not self._free:
            said = f"others use the Ray cluster, and jobs that need {what} each wait for them"
        if said and said != self._told:
            self._on_note(said)
        self._told = said

    @staticmethod
    def _total(machines: Sequence[Mapping[str, float]], name: str) -> float:
        return sum(it.get(name, 0) for it in machines)


def _leave(ray: Any, running: list[Any], key: bytes) -> None:
    """End the tasks that run, with time to remove what they have half-written, and leave the cluster.

    `ray.cancel` is not used: Ray 2.60 aborts the process that calls it where a task ends in that moment.
    """
    try:
        if running:
            from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_put

            _internal_kv_put(key, b"left")
            ray.wait(running, num_returns=len(running), timeout=_LEAVE_S)
            _internal_kv_del(key)
    finally:
        ray.shutdown()


def _last_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return printable(lines[-1].strip(), 300)


# ---- what a task does -------------------------------------------------------------------------------------


def _caller(work: Work[Any, Any, Any], key: bytes) -> _Caller:
    places = tuple((name, os.environ[name]) for name in _PLACES if name in os.environ)
    packed = pickle.dumps((work.prepare, work.do))
    return _Caller(code_hash(), package_version(), os.getcwd(), places, packed, key)


def _task(job: Any, caller: _Caller) -> tuple[str, Any]:
    """What Ray runs: what became of a job, for `_outcome`."""
    watch = _watch_of(caller.key)
    try:
        with watch.working():
            return _done(job, caller)
    except KeyboardInterrupt:
        return "left", None  # nobody reads it


class _Watch:
    """Interrupts what is done for a process, once that has left: as Ctrl-C does, so that it is tidied up."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._is_working = self._left = False
        signal.signal(signal.SIGINT, signal.default_int_handler)
        Thread(target=self._look, daemon=True).start()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Raises `KeyboardInterrupt` in it when the process has left."""
        self._is_working = True
        try:
            if self._left:
                raise KeyboardInterrupt
            yield
        finally:
            self._is_working = False

    def _look(self) -> None:
        from ray.experimental.internal_kv import _internal_kv_exists

        with suppress(Exception):  # the cluster ends, and this process with it
            while not _internal_kv_exists(self._key):
                time.sleep(_LOOK_S)
            self._left = True
            if self._is_working:
                os.kill(os.getpid(), signal.SIGINT)


_watch_of = lru_cache(maxsize=1)(_Watch)


def _done(job: Any, caller: _Caller) -> tuple[str, Any]:
    try:
        prepared, do = _prepared(caller)
    except Exception as error:  # as if of the one that asks
        plain = plain_error(error) if isinstance(error, UserError) else unexpected_error(error)
        return "failed", plain
    try:
        return "done", do(prepared, job, lambda _: None)
    except UserError as error:
        return "done", plain_error(error)
    except Exception as error:  # of one job
        return "done", unexpected_error(error)


@lru_cache(maxsize=1)
def _prepared(caller: _Caller) -> tuple[Any, Any]:
    """What is prepared, once in each process, as Ray keeps its processes; and how a job is done with it."""
    machine = printable(os.uname().nodename, 100)
    if caller.code != code_hash():
        raise JobError(
            f"{machine} of the Ray cluster has topreward_ros {package_version()} (code {code_hash()}), and "
            f"{caller.version} (code {caller.code}) asks: install the same on all machines"
        )
    os.environ.update(caller.places)
    try:
        os.chdir(caller.folder)
    except OSError as error:
        raise JobError(
            f"{machine} of the Ray cluster has no folder {printable(caller.folder)}, where the command was "
            "started: start it in a folder that all machines share"
        ) from error
    prepare, do = pickle.loads(caller.packed)
    try:
        return prepare(), do
    except UserError as error:
        raise JobError(f"{error} (so says {machine} of the Ray cluster)") from error


def _outcome(said: tuple[str, Any]) -> Any:
    """The result or the error of a job. Raises the error of what was to be prepared for all."""
    kind, content = said
    if kind == "failed":
        raise content
    return content
