"""Jobs done by several processes, each of which prepares once, such as loading a model, and then takes jobs.

What a job is, is not known here. Where a process dies, as where memory runs out, which says nothing against
its job, another takes its place, and the job is tried again. Ctrl-C reaches the caller alone; when the caller
leaves, its processes are asked to end, so that nothing half-written stays, and killed where they do not.
Their warnings are told by the caller, once each.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import util
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from threading import Lock, Thread
from typing import Any, Generic, NoReturn, TypeVar

from topreward_ros.core.errors import UserError
from topreward_ros.core.printable import make_libraries_printable, printable
from topreward_ros.core.standard_output import leave_standard_output
from topreward_ros.offline.bounded_call import start_deaf_to_ctrl_c, wait_for_the_callers_end
from topreward_ros.offline.worker_warnings import TellOnce, send_warnings

Prepared = TypeVar("Prepared")
Job = TypeVar("Job")
Result = TypeVar("Result")
OnNote = Callable[[str], None]
OnShare = Callable[[float], None]  #: called with the share of a job that is done, [0, 1]
OnProgress = Callable[[int, float], None]  #: called with the number of a job and that share

_TRIES = 3  # of a job whose process dies
_FEWEST_FUTILE = 3  # processes, however few work, that may use up their tries before no more are started
END_S = 2.0  #: for a process to leave nothing behind [s]


class JobError(UserError):
    """A job could not be done, for no fault of its input that is known."""


@dataclass(frozen=True, slots=True)
class Work(Generic[Prepared, Job, Result]):
    """How jobs are done. ``prepare`` and ``do``, jobs and results must be picklable."""

    prepare: Callable[[], Prepared]  #: called once in each process
    do: Callable[[Prepared, Job, OnShare], Result]  #: called for each job
    name: Callable[[Job], str]  #: what a job is called in a message


def do_jobs(
    jobs: Sequence[Job],
    work: Work[Prepared, Job, Result],
    processes: int,
    on_progress: OnProgress,
    on_note: OnNote,
) -> Generator[tuple[int, Result | UserError], None, None]:
    """Do ``jobs`` in so many ``processes``. Yields the number of each as it ends, and its result or error.

    ``on_note`` is told of processes that died, and of what processes warn of. Raises the `UserError` of
    ``prepare``, and `JobError` where one process after the other dies. Close it (`contextlib.closing`) to end
    the processes at once.
    """
    waiting = WaitingJobs(jobs, work.name, on_note)
    crew: dict[Connection, _Process] = {}
    deaths = FutileDeaths(processes)
    warnings = TellOnce(on_note)
    try:
        while waiting or any(process.job for process in crew.values()):
            while len(crew) < min(processes, len(waiting) + sum(bool(it.job) for it in crew.values())):
                started = _Process(work)
                crew[started.channel] = started
            for process in crew.values():
                if process.is_idle and waiting:
                    job = waiting.take()
                    process.give(job, jobs[job.number])
            for channel in wait(list(crew)):
                assert isinstance(channel, Connection)
                process = crew[channel]
                said = process.heard()
                if said is None:
                    del crew[channel]
                    how = process.death()
                    if process.job is None:
                        on_note(f"a process {how} while it prepared; another takes its place")
                    elif (error := waiting.died(process.job, how)) is not None:
                        yield process.job.number, error
                    deaths.add(how, waiting)
                    continue
                kind, content = said
                if kind == "warned":
                    warnings.hear(content)
                    continue
                if kind == "failed":
                    raise content
                if kind == "share":
                    assert process.job is not None
                    on_progress(process.job.number, content)
                    continue
                process.is_idle = True
                if kind == "done":
                    deaths.forget()
                    assert process.job is not None
                    number, process.job = process.job.number, None
                    yield number, content
    finally:
        for process in crew.values():
            process.ask_to_end()
        end = time.monotonic() + END_S
        for process in crew.values():
            process.end(end)


_MEND = "use fewer workers or a smaller model, as memory may have run out"


@dataclass(frozen=True, slots=True)
class Try:
    """A job that is being done, and for which time."""

    number: int
    attempt: int  #: from 1


class WaitingJobs(Generic[Job]):
    """The jobs that wait, in their order; one whose process died comes back, behind the others."""

    def __init__(self, jobs: Sequence[Job], name: Callable[[Job], str], on_note: OnNote) -> None:
        self._jobs, self._name, self._on_note = jobs, name, on_note
        self._tries = deque(Try(number, 1) for number in range(len(jobs)))

    def __len__(self) -> int:
        return len(self._tries)

    def take(self) -> Try:
        """The next job."""
        return self._tries.popleft()

    def died(self, job: Try, how: str) -> JobError | None:
        """Put ``job``, whose process died, back; or give its error, where it was tried often enough.

        ``how`` it died, after 'its process', such as 'was ended by SIGKILL'.
        """
        what = f"{self._name(self._jobs[job.number])}: its process {how} (try {job.attempt} of {_TRIES})"
        if job.attempt >= _TRIES:
            return JobError(f"{what}: {_MEND}")
        self._on_note(f"{what}; it is tried again")
        self._tries.append(Try(job.number, job.attempt + 1))
        return None


class FutileDeaths:
    """Ends the work where one process after the other dies, and no job is done meanwhile."""

    def __init__(self, processes: int) -> None:
        self._most = _TRIES * max(_FEWEST_FUTILE, processes)
        self._count = 0

    def forget(self) -> None:
        """A job was done."""
        self._count = 0

    def add(self, how: str, waiting: WaitingJobs[Any]) -> None:
        """A process died, ``how`` as in `WaitingJobs.died`. Raises `JobError` where it is futile to go on."""
        self._count += 1
        if self._count >= self._most and waiting:
            raise JobError(f"{self._count} processes died one after the other, the last {how}: {_MEND}")


def threads_of_each(processes: int) -> int:
    """How many threads each of ``processes`` can have, so that all together have one per CPU of ours."""
    return max(1, len(os.sched_getaffinity(0)) // processes)


def unexpected_error(error: Exception) -> JobError:
    """What to say of an error that nobody has foreseen: which, and where."""
    if isinstance(error, MemoryError):
        return JobError(f"memory ran out: {_MEND}")
    place = traceback.extract_tb(error.__traceback__)[-1:]
    where = "".join(f" ({os.path.basename(it.filename)}, line {it.lineno})" for it in place)
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return JobError(f"{printable(what, 300)}{where}: an error that was not foreseen; please report it")


def plain_error(error: UserError) -> JobError:
    """An error with the text of ``error``, and its lines, which every process can read."""
    plain = JobError(str(error))
    plain.lines, plain.temporary = list(error.lines), error.temporary
    return plain


class _Process:
    """A process that prepares, and then does one job after the other."""

    def __init__(self, work: Work[Any, Any, Any]) -> None:
        context = multiprocessing.get_context("spawn")  # a fork of PyTorch's threads may hang
        self.channel, theirs = context.Pipe()
        self._process: BaseProcess = context.Process(
            target=_serve, args=(theirs, work.prepare, work.do), daemon=True
        )
        start_deaf_to_ctrl_c(self._process)
        theirs.close()
        self.job: Try | None = None
        self.is_idle = False  #: ready, and without a job

    def give(self, job: Try, content: object) -> None:
        """Give the process a job; where it has died meanwhile, `heard` will tell."""
        self.job, self.is_idle = job, False
        with suppress(OSError):
            self.channel.send(content)

    def heard(self) -> tuple[str, Any] | None:
        """What it says, as `_serve` sends it; None where it died."""
        try:
            said: tuple[str, Any] = self.channel.recv()
        except (EOFError, OSError):
            return None
        return said

    def death(self) -> str:
        """How the process died, which has hung up, as a predicate."""
        self._process.join(END_S)  # what it ends with by itself is the truth
        self.ask_to_end()
        self.end(time.monotonic() + END_S)
        code = self._process.exitcode
        if code is not None and code < 0:
            with suppress(ValueError):
                return f"was ended by {signal.Signals(-code).name}"
        return f"ended with status {code}"

    def ask_to_end(self) -> None:
        """Have the process end, and remove what it has half-written."""
        self.channel.close()  # one that waits for a job leaves by itself
        if not self.is_idle and self._process.is_alive():
            self._process.terminate()

    def end(self, at: float) -> None:
        """Wait for the end until ``at`` of the steady clock; then kill the process."""
        self._process.join(max(0.0, at - time.monotonic()))
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _serve(channel: Connection, prepare: Callable[[], Any], do: Callable[[Any, Any, OnShare], Any]) -> None:
    """What a process does until nobody asks any more."""
    signal.signal(signal.SIGTERM, _leave)
    Thread(target=_leave_with_the_caller, daemon=True).start()
    leave_standard_output()
    make_libraries_printable()
    one_at_a_time = Lock()  # a warning may come of any thread

    def say(kind: str, content: object) -> None:
        with one_at_a_time:
            channel.send((kind, content))

    send_warnings(partial(say, "warned"))
    status = 1
    try:
        prepared = _result(prepare)
        if isinstance(prepared, JobError):
            say("failed", prepared)
            _end_now(status)
        say("ready", None)
        while True:
            job = channel.recv()
            say("done", _result(do, prepared, job, partial(say, "share")))
    except (EOFError, OSError):
        status = 0
    except SystemExit:
        pass
    _end_now(status)


def _end_now(status: int) -> NoReturn:
    """End this process. An ordinary exit would take PyTorch apart first, for a second."""
    # What libraries made of multiprocessing has to go, such as the lock of a progress bar: Python would tell
    # the user of semaphores that leaked. From 0 on, as at an ordinary exit: what waits for others is below.
    util._run_finalizers(0)  # type: ignore[attr-defined]  # it has no public name
    os._exit(status)


def _result(function: Callable[..., Any], *arguments: object) -> Any:
    try:
        return function(*arguments)
    except UserError as error:
        return plain_error(error)
    except Exception as error:  # of one job; the process can do the others
        return unexpected_error(error)


def _leave(*_: object) -> NoReturn:
    """End this process in order, so that nothing half-written stays."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.exit(1)


def _leave_with_the_caller() -> None:
    """End this process in order when the one that started it has ended."""
    if wait_for_the_callers_end():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(END_S)
        os._exit(1)
