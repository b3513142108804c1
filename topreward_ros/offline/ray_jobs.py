"""Jobs done as tasks of a Ray cluster, with the results that `job_processes.do_jobs` gives on one machine.

What a job is, is not known here. Ray is an optional library; it is imported here alone, and only when it is
asked for. Paths in jobs must lead to the same files on every machine of the cluster.
"""

from __future__ import annotations

import pickle
from collections.abc import Generator, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from topreward_ros.core.errors import UserError
from topreward_ros.core.printable import printable
from topreward_ros.offline.job_processes import (
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


def do_on_ray(
    jobs: Sequence[Job], work: Work[Prepared, Job, Result], address: str, device: str, on_note: OnNote
) -> Generator[tuple[int, Result | UserError], None, None]:
    """Do ``jobs`` as tasks of Ray. Yields the number of each as it ends, and its result or error.

    ``address``: of a cluster, as Ray knows it; empty: that in RAY_ADDRESS, else one on this machine alone.
    ``device``: a task takes one CPU, and one GPU where this is cuda. ``on_note`` is told of tasks that died.
    Raises `JobError` where Ray is not there or the cluster cannot be reached.
    """
    try:
        import ray
    except ImportError as error:
        raise JobError("--ray needs Ray: pip install 'topreward_ros[ray]' (or ray)") from error
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
        task = ray.remote(num_cpus=1, num_gpus=1 if device.startswith("cuda") else 0, max_retries=0)(_task)
        running: dict[Any, Try] = {}
        waiting = WaitingJobs(jobs, work.name, on_note)
        packed = ray.put(pickle.dumps((work.prepare, work.do)))
        while waiting or running:
            while waiting:
                job = waiting.take()
                running[task.remote(jobs[job.number], packed)] = job
            (done,), _ = ray.wait(list(running), num_returns=1)
            job = running.pop(done)
            try:
                outcome: Result | UserError | None = ray.get(done)
            except ray.exceptions.RayError as error:
                how = f"died on the cluster ({printable(str(error).strip().splitlines()[0], 200)})"
                outcome = waiting.died(job, how)
            if outcome is not None:
                yield job.number, outcome
    finally:
        ray.shutdown()


def _task(job: Any, packed: bytes) -> Any:
    """What Ray runs: the result of a job, or its error."""
    try:
        prepared, do = _prepared(packed)
        return do(prepared, job, lambda _: None)
    except UserError as error:
        return plain_error(error)
    except Exception as error:  # of one job
        return unexpected_error(error)


@lru_cache(maxsize=1)
def _prepared(packed: bytes) -> tuple[Any, Any]:
    """What is prepared, once in each process, as Ray keeps its processes; and how a job is done with it."""
    prepare, do = pickle.loads(packed)
    return prepare(), do
