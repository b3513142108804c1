"""Many bags annotated: in this process, in several of this machine, or on a Ray cluster, with one result.

Every job is a bag of its own (annotate_bag.py), and its outcome is what was done or the error that prevented
it. What a process that died left half-written is removed by the next try. Ray is imported here alone, and
only when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

from topreward_ros.core.errors import UserError
from topreward_ros.core.printable import printable
from topreward_ros.offline.annotate_bag import annotate_bag
from topreward_ros.offline.annotation_report import Annotation, AnnotationSettings, BagJob
from topreward_ros.offline.job_processes import (
    JobError,
    OnNote,
    OnProgress,
    OnShare,
    Try,
    WaitingJobs,
    Work,
    do_jobs,
    plain_error,
    threads_of_each,
)
from topreward_ros.offline.raw_samples import Converter
from topreward_ros.offline.side_by_side import score_side_by_side
from topreward_ros.scoring.base import PrefixScorer, ScorerSettings
from topreward_ros.scoring.registry import load_scorer

Outcome = Annotation | UserError
Outcomes = Generator[tuple[int, Outcome], None, None]  #: by the number of the job, as each ends


@dataclass(frozen=True, slots=True)
class WorkOrder:
    """How all jobs are to be done. It can be pickled, for other processes."""

    model: str
    scorer: ScorerSettings
    settings: AnnotationSettings
    converter: Callable[[], Converter]  #: what makes RGB of raw images; of a module, so that others find it


def run_here(jobs: Sequence[BagJob], order: WorkOrder, on_progress: OnProgress) -> Outcomes:
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
) -> Outcomes:
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
) -> Outcomes:
    """Do ``jobs`` in ``workers`` processes, each with a model of its own. Yields each job as it ends.

    ``on_note`` is told of processes that died. Raises `UserError` where the model cannot be loaded, or where
    one process after the other dies.
    """
    order = _with_threads(order, threads_of_each(workers))
    work = Work(partial(load_scorer, order.model, order.scorer), partial(_do, order), _name)
    outcomes = do_jobs(jobs, work, workers, on_progress, on_note)
    with closing(outcomes):
        yield from outcomes


def _do(order: WorkOrder, scorer: PrefixScorer, job: BagJob, on_share: OnShare) -> Annotation:
    ((_, outcome),) = _run_with(scorer, [job], order, lambda _, share: on_share(share))
    if isinstance(outcome, UserError):
        raise outcome
    return outcome


def _name(job: BagJob) -> str:
    return printable(str(job.source))


def _with_threads(order: WorkOrder, threads: int) -> WorkOrder:
    return order if order.scorer.threads else replace(order, scorer=replace(order.scorer, threads=threads))


# ---- Ray ----------------------------------------------------------------------------------------------


def run_on_ray(jobs: Sequence[BagJob], order: WorkOrder, address: str, on_note: OnNote) -> Outcomes:
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
        running: dict[Any, Try] = {}
        waiting = WaitingJobs(jobs, _name, on_note)
        shared = ray.put(order)
        while waiting or running:
            while waiting:
                job = waiting.take()
                running[task.remote(jobs[job.number], shared)] = job
            (done,), _ = ray.wait(list(running), num_returns=1)
            job = running.pop(done)
            try:
                outcome: Outcome | None = ray.get(done)
            except ray.exceptions.RayError as error:
                how = f"died on the cluster ({printable(str(error).strip().splitlines()[0], 200)})"
                outcome = waiting.died(job, how)
            if outcome is not None:
                yield job.number, outcome
    finally:
        ray.shutdown()


def _ray_job(job: BagJob, order: WorkOrder) -> Outcome:
    try:
        return _do(order, _scorer(order.model, order.scorer), job, lambda _: None)
    except UserError as error:
        return plain_error(error)


@lru_cache(maxsize=1)
def _scorer(model: str, settings: ScorerSettings) -> PrefixScorer:
    """The scorer of this process, loaded once: Ray keeps its processes."""
    return load_scorer(model, settings)
