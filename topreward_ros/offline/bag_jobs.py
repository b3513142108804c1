"""Many bags annotated: in this process, in several of this machine, or on a Ray cluster, with one result.

Every job is a bag of its own (annotate_bag.py), and its outcome is what was done or the error that prevented
it. Where a process of its own dies over a job, which says nothing against the bag, the job is tried again in
another process; what that process left half-written is removed by the next. Ray is imported here alone, and
only when it is asked for.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing.connection import Connection, wait
from typing import Any, NoReturn

from topreward_ros.core.errors import UserError
from topreward_ros.core.printable import make_libraries_printable, printable
from topreward_ros.offline.annotate_bag import Annotation, AnnotationSettings, BagJob, annotate_bag
from topreward_ros.offline.raw_samples import Converter
from topreward_ros.offline.side_by_side import score_side_by_side
from topreward_ros.scoring.base import PrefixScorer, ScorerSettings
from topreward_ros.scoring.registry import load_scorer

Outcome = Annotation | UserError
#: Called with the number of a job and the share of it that is done.
OnProgress = Callable[[int, float], None]
OnNote = Callable[[str], None]

_TRIES = 3  # of a job whose process dies
_END_S = 2.0  # for a process to leave nothing behind


class JobError(UserError):
    """A job could not be done, for no fault of its bag that is known."""


@dataclass(frozen=True, slots=True)
class WorkOrder:
    """How all jobs are to be done. It can be pickled, for other processes."""

    model: str
    scorer: ScorerSettings
    settings: AnnotationSettings
    converter: Callable[[], Converter]  #: what makes RGB of raw images; of a module, so that others find it


def run_here(
    jobs: Sequence[BagJob], order: WorkOrder, on_progress: OnProgress
) -> Iterator[tuple[int, Outcome]]:
    """Do ``jobs`` in this process, side by side where the model gains from it. Yields each as it ends.

    Raises `ScorerError` where the model cannot be loaded.
    """
    scorer = load_scorer(order.model, order.scorer)
    try:
        yield from _run_with(scorer, jobs, order, on_progress)
    finally:
        scorer.close()


def _run_with(
    scorer: PrefixScorer, jobs: Sequence[BagJob], order: WorkOrder, on_progress: OnProgress
) -> Iterator[tuple[int, Outcome]]:
    def told(number: int) -> Callable[[float], None]:
        return lambda share: on_progress(number, share)

    episodes = [
        annotate_bag(job, order.settings, scorer.info, order.converter, told(number))
        for number, job in enumerate(jobs)
    ]
    yield from score_side_by_side(episodes, scorer, scorer.episodes_at_once())


# ---- processes ----------------------------------------------------------------------------------------


def run_in_processes(
    jobs: Sequence[BagJob], order: WorkOrder, workers: int, on_progress: OnProgress, on_note: OnNote
) -> Iterator[tuple[int, Outcome]]:
    """Do ``jobs`` in ``workers`` processes, each with a model of its own. Yields each job as it ends.

    ``on_note`` is told of processes that died. Raises `ScorerError` where the model cannot be loaded.
    """
    order = _with_threads(order, max(1, len(os.sched_getaffinity(0)) // workers))
    waiting = deque((number, 1) for number in range(len(jobs)))
    pool = [_Worker(order) for _ in range(min(workers, len(jobs)))]
    try:
        while waiting or any(worker.job is not None for worker in pool):
            for worker in pool:
                if worker.job is None and waiting:
                    number, attempt = waiting.popleft()
                    worker.give(number, attempt, jobs[number])
            ready = wait([worker.channel for worker in pool if worker.job is not None])
            for worker in [it for it in pool if it.channel in ready]:
                said = worker.heard()
                assert worker.job is not None
                number, attempt = worker.job
                if said is None:
                    pool[pool.index(worker)] = _Worker(order)
                    worker.ask_to_end()
                    yield from _died(number, attempt, worker.death(), jobs, waiting, on_note)
                elif isinstance(said, float):
                    on_progress(number, said)
                else:
                    worker.job = None
                    yield number, said
    finally:
        for worker in pool:
            worker.ask_to_end()
        end = time.monotonic() + _END_S
        for worker in pool:
            worker.end(end)


def _died(
    number: int,
    attempt: int,
    how: str,
    jobs: Sequence[BagJob],
    waiting: deque[tuple[int, int]],
    on_note: OnNote,
) -> Iterator[tuple[int, Outcome]]:
    """Put a job whose process died back among those that wait, or yield that it failed."""
    what = f"{printable(str(jobs[number].source))}: its process {how} (try {attempt} of {_TRIES})"
    if attempt < _TRIES:
        on_note(f"{what}; it is tried again")
        waiting.append((number, attempt + 1))
        return
    yield number, JobError(f"{what}: is there enough memory for a model in each process?")


def _with_threads(order: WorkOrder, threads: int) -> WorkOrder:
    return order if order.scorer.threads else replace(order, scorer=replace(order.scorer, threads=threads))


class _Worker:
    """A process that does one job after the other."""

    def __init__(self, order: WorkOrder) -> None:
        context = multiprocessing.get_context("spawn")  # a fork of PyTorch's threads may hang
        self.channel, theirs = context.Pipe()
        self.job: tuple[int, int] | None = None  # number and attempt
        self._process = context.Process(target=_work, args=(theirs, order), daemon=True)
        self._process.start()
        theirs.close()

    def give(self, number: int, attempt: int, job: BagJob) -> None:
        self.job = number, attempt
        with suppress(OSError):  # it is dead, which `heard` finds out
            self.channel.send(job)

    def heard(self) -> float | Outcome | None:
        """What it says: a share, or an outcome; None where it died."""
        try:
            said = self.channel.recv()
        except (EOFError, OSError):
            return None
        if isinstance(said, tuple):  # an error, as its text and more lines
            error = JobError(said[0])
            error.lines = said[1]
            return error
        result: float | Outcome = said
        return result

    def death(self) -> str:
        self._process.join(_END_S)
        code = self._process.exitcode
        if code is not None and code < 0:
            with suppress(ValueError):
                return f"was ended by {signal.Signals(-code).name}"
        return f"ended with status {code}"

    def ask_to_end(self) -> None:
        """Have the process end, and remove what it has half-written."""
        self.channel.close()  # who waits for a job leaves by itself
        if self.job is not None and self._process.is_alive():
            self._process.terminate()

    def end(self, at: float) -> None:
        """Wait for the end until ``at`` of the steady clock; then kill the process."""
        self._process.join(max(0.0, at - time.monotonic()))
        if self._process.is_alive():
            self._process.kill()


def _work(channel: Connection, order: WorkOrder) -> None:
    """What a worker does until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal; our parent ends us in order
    signal.signal(signal.SIGTERM, _leave)
    make_libraries_printable()
    try:
        while True:
            channel.send(_outcome_of(channel.recv(), order, channel.send))
    except (EOFError, OSError):
        os._exit(0)
    except SystemExit:
        os._exit(1)  # an ordinary exit would take PyTorch apart first, for a second


def _leave(*_: object) -> NoReturn:
    """End this process in order, so that nothing half-written stays."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.exit(1)


def _outcome_of(job: BagJob, order: WorkOrder, send: Callable[[float], None]) -> Annotation | tuple[str, Any]:
    """Do a job; its outcome, an error as its text and more lines, which every process can read."""
    try:
        scorer = _scorer(order.model, order.scorer)
        ((_, outcome),) = _run_with(scorer, [job], order, lambda _, share: send(share))
    except UserError as error:
        outcome = error
    if isinstance(outcome, UserError):
        return str(outcome), list(outcome.lines)
    return outcome


@lru_cache(maxsize=1)
def _scorer(model: str, settings: ScorerSettings) -> PrefixScorer:
    """The scorer of this process, loaded once."""
    return load_scorer(model, settings)


# ---- Ray ----------------------------------------------------------------------------------------------


def run_on_ray(
    jobs: Sequence[BagJob], order: WorkOrder, address: str, on_note: OnNote
) -> Iterator[tuple[int, Outcome]]:
    """Do each of ``jobs`` as a task of Ray. Yields each as it ends.

    ``address``: of a cluster, as Ray knows it; empty: that in RAY_ADDRESS, else one on this machine alone.
    Paths must lead to the same files on every machine. A task takes one CPU, and one GPU where the device is
    cuda. Raises `JobError` where Ray is not there or the cluster cannot be reached.
    """
    try:
        import ray
    except ImportError as error:
        raise JobError("--ray needs Ray: pip install 'topreward_ros[ray]' (or ray)") from error
    order = _with_threads(order, 1)
    try:
        ray.init(
            address=address or None, log_to_driver=False, include_dashboard=False if not address else None
        )
    except Exception as error:  # Ray has many kinds
        where = f" at {printable(address, 100)}" if address else ""
        raise JobError(
            f"no Ray cluster can be reached{where} ({printable(str(error), 300)}): start one by `ray start`, "
            "or leave the address out"
        ) from error
    try:
        on_gpu = order.scorer.device.startswith("cuda")
        task = ray.remote(num_cpus=1, num_gpus=1 if on_gpu else 0, max_retries=0)(_ray_job)
        running: dict[Any, tuple[int, int]] = {}
        waiting = deque((number, 1) for number in range(len(jobs)))
        shared = ray.put(order)
        while waiting or running:
            while waiting:
                number, attempt = waiting.popleft()
                running[task.remote(jobs[number], shared)] = number, attempt
            (done,), _ = ray.wait(list(running), num_returns=1)
            number, attempt = running.pop(done)
            try:
                said = ray.get(done)
            except ray.exceptions.RayError as error:
                how = f"died on the cluster ({printable(str(error).strip().splitlines()[0], 200)})"
                yield from _died(number, attempt, how, jobs, waiting, on_note)
                continue
            yield number, JobError(said[0]) if isinstance(said, tuple) else said
    finally:
        ray.shutdown()


def _ray_job(job: BagJob, order: WorkOrder) -> Annotation | tuple[str, Any]:
    return _outcome_of(job, order, lambda _: None)
