"""Many bags annotated: in this process, in several of this machine, or on a Ray cluster, with one result.

Every job is a bag of its own (annotate_bag.py), and its outcome is what was done or the error that prevented
it. What a process that died left half-written is removed by the next try.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

from topreward_ros.core.errors import UserError
from topreward_ros.core.printable import printable
from topreward_ros.offline.annotate_bag import annotate_bag
from topreward_ros.offline.annotation_report import Annotation, AnnotationSettings, BagJob
from topreward_ros.offline.job_processes import (
    OnNote,
    OnProgress,
    OnShare,
    Work,
    unexpected_error,
)
from topreward_ros.offline.raw_samples import Converter
from topreward_ros.offline.side_by_side import Episode, score_side_by_side
from topreward_ros.offline.workers import Workers
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
        _guarded(annotate_bag(job, order.settings, scorer.info, order.converter, told(number)))
        for number, job in enumerate(jobs)
    ]
    yield from score_side_by_side(episodes, scorer, scorer.episodes_at_once())


def _guarded(episode: Episode[Annotation]) -> Episode[Annotation]:
    """``episode``, of which an error that nobody has foreseen is its own failure, and not that of others."""
    try:
        return (yield from episode)
    except UserError:
        raise
    except Exception as error:
        raise unexpected_error(error) from error


# ---- processes and Ray --------------------------------------------------------------------------------


def run_by(
    workers: Workers, jobs: Sequence[BagJob], order: WorkOrder, on_progress: OnProgress, on_note: OnNote
) -> Outcomes:
    """Have ``workers`` do ``jobs``, each with a model of its own. Yields each job as it ends.

    ``on_note`` is told of what died. Raises `UserError` where the model cannot be loaded, or as
    `Workers.do`.
    """
    order = replace(order, scorer=workers.scorer(order.scorer))
    work = Work(partial(load_scorer, order.model, order.scorer), partial(_do, order), _name)
    done = workers.do(jobs, work, order.scorer.device, on_progress, on_note)
    with closing(done) as outcomes:
        yield from outcomes


def _do(order: WorkOrder, scorer: PrefixScorer, job: BagJob, on_share: OnShare) -> Annotation:
    ((_, outcome),) = _run_with(scorer, [job], order, lambda _, share: on_share(share))
    if isinstance(outcome, UserError):
        raise outcome
    return outcome


def _name(job: BagJob) -> str:
    return printable(str(job.source))
