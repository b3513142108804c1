"""Who does jobs: this process, several processes of this machine, or a Ray cluster, with the same results.

What a job is, is not known here: a bag, an episode, a film. `job_processes` and `ray_jobs` do the work.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from topreward_ros.core.errors import UserError
from topreward_ros.offline.job_processes import OnNote, OnProgress, Work, do_jobs, threads_of_each
from topreward_ros.offline.ray_jobs import do_on_ray
from topreward_ros.scoring.base import ScorerSettings

Prepared = TypeVar("Prepared")
Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Workers:
    """Who does jobs; by default this process alone, which then needs none of what follows."""

    processes: int = 1
    ray: str | None = None  #: instead of processes, the address of a cluster, see `do_on_ray`

    def are_needed(self, jobs: int) -> bool:
        """Whether others than this process do so many ``jobs``."""
        return jobs > 0 and (self.ray is not None or min(self.processes, jobs) > 1)

    def scorer(self, settings: ScorerSettings) -> ScorerSettings:
        """``settings`` with the threads that each of them has, where none are given."""
        if settings.threads:
            return settings
        return replace(settings, threads=1 if self.ray is not None else threads_of_each(self.processes))

    def do(
        self,
        jobs: Sequence[Job],
        work: Work[Prepared, Job, Result],
        device: str,
        on_progress: OnProgress,
        on_note: OnNote,
    ) -> Generator[tuple[int, Result | UserError], None, None]:
        """Do ``jobs``. Yields the number of each as it ends, and its result or error.

        ``device``: that of the model. ``on_progress`` is told by processes, ``on_note`` of what died. Raises
        the `UserError` of ``work.prepare``, and `JobError` where nothing can be done at all. Close it
        (`contextlib.closing`) to end the workers at once.
        """
        if self.ray is not None:
            return do_on_ray(jobs, work, self.ray, device, on_note)
        return do_jobs(jobs, work, self.processes, on_progress, on_note)


HERE = Workers()  #: this process alone
