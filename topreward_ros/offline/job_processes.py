"""Jobs done by several processes, each of which prepares once, such as loading a model, and then takes jobs.

Where a process is killed, as where memory runs out, another takes its place and its job, once. What a job is,
is not known here.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Any

from topreward_ros.core.errors import UserError
from topreward_ros.offline.bounded_call import end_with_the_caller

_MOST_DEATHS_IN_A_ROW = 4  # of processes, none of which did a job
_LONGEST_END_S = 3.0  # of a process that has hung up
_TRIES = 2  # of a job whose process dies


def do_jobs(
    prepare: Callable[..., Any],
    arguments: tuple[object, ...],
    do: Callable[[Any, Any], Any],
    jobs: Iterable[Any],
    processes: int,
    on_done: Callable[[Any, Any], None],
) -> None:
    """Do all ``jobs`` in so many ``processes``; ``on_done`` is called with each job and its result, here.

    A process calls ``prepare(*arguments)`` once and ``do(prepared, job)`` per job. A `UserError` of a job, or
    the second death of its process, is its result; one of ``prepare`` is raised. All of it must be picklable.
    When this function is left, however, no process is left either.
    """
    waiting = [(job, 1) for job in reversed(list(jobs))]
    crew: dict[Connection, _Process] = {}
    deaths = 0
    try:
        while waiting or any(process.has_job for process in crew.values()):
            while len(crew) < min(processes, len(waiting) + sum(one.has_job for one in crew.values())):
                process = _Process(prepare, arguments, do)
                crew[process.connection] = process
            for process in crew.values():
                if process.is_idle and waiting:  # of a job that came back as well
                    process.give(*waiting.pop())
            for connection in wait(list(crew)):
                assert isinstance(connection, Connection)
                process = crew[connection]
                try:
                    kind, content = connection.recv()
                except (EOFError, OSError):
                    del crew[connection]
                    deaths += 1
                    error = process.death()
                    if process.has_job and process.tries < _TRIES:
                        waiting.append((process.job, process.tries + 1))
                    elif process.has_job:
                        on_done(process.job, error)
                    if deaths >= _MOST_DEATHS_IN_A_ROW:
                        raise error from None
                    continue
                if kind == "failed":
                    raise content
                process.is_idle = True
                if kind == "done":
                    deaths = 0
                    job, process.has_job = process.job, False
                    on_done(job, content)
    finally:
        for process in crew.values():
            process.end()


class _Process:
    def __init__(self, prepare: Any, arguments: Any, do: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process: BaseProcess = context.Process(
            target=_serve, args=(theirs, prepare, arguments, do), daemon=True
        )
        self._process.start()
        theirs.close()
        self.has_job = False
        self.is_idle = False  #: ready, and without a job
        self.job: Any = None
        self.tries = 0  #: of the job, with this process's own

    def give(self, job: Any, tries: int) -> None:
        """Give the process a job; where it has died meanwhile, its connection will tell."""
        self.job, self.tries, self.has_job, self.is_idle = job, tries, True, False
        with suppress(OSError):
            self.connection.send(job)

    def end(self) -> None:
        """End the process, if it has not ended."""
        self._process.kill()
        self._process.join()
        self.connection.close()

    def death(self) -> UserError:
        """The error that says how the process ended, which has hung up."""
        self._process.join(_LONGEST_END_S)
        status = self._process.exitcode
        self.end()
        if status == -signal.SIGKILL:
            return UserError(
                "a process was killed, as where memory runs out: use fewer workers or a smaller model"
            )
        return UserError(f"a process broke off with exit status {status}: try again with one worker")


def _serve(connection: Connection, prepare: Any, arguments: Any, do: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the caller, who ends this process
    Thread(target=end_with_the_caller, daemon=True).start()
    try:
        prepared = prepare(*arguments)
    except UserError as error:
        connection.send(("failed", _plain(error)))
        return
    with suppress(EOFError, OSError):  # nobody asks any more
        connection.send(("ready", None))
        while True:
            connection.send(("done", _result(prepared, do, connection.recv())))


def _result(prepared: Any, do: Any, job: Any) -> Any:
    try:
        return do(prepared, job)
    except UserError as error:
        return _plain(error)


def _plain(error: UserError) -> UserError:
    """An error with the text of this one, which can be sent whatever its class needs."""
    return UserError(str(error))
