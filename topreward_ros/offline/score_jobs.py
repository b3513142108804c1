"""Recordings scored by several workers, each with a model of its own: the curves of `score_recordings`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

from topreward_ros.core.errors import UserError
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.core.printable import printable
from topreward_ros.offline.job_processes import OnNote, OnShare, Work
from topreward_ros.offline.prefix_schedule import PrefixSchedule
from topreward_ros.offline.score_video import Curve, Outcome, Recording, score_recordings
from topreward_ros.offline.workers import Workers
from topreward_ros.scoring.base import PrefixScorer, ScorerSettings
from topreward_ros.scoring.registry import load_scorer


@dataclass(frozen=True, slots=True)
class ScoreOrder:
    """How all recordings are to be scored. It can be pickled, for other processes."""

    model: str  #: as `load_scorer` takes it
    scorer: ScorerSettings
    monitor: MonitorSettings
    prefixes: int = 0  #: as `score_recordings` takes them
    prefix_schedule: PrefixSchedule = PrefixSchedule.AUTHORS


def score_by(
    workers: Workers,
    recordings: Sequence[Recording],
    order: ScoreOrder,
    on_curve: Callable[[Curve], None],
    on_note: OnNote,
) -> list[Outcome]:
    """Have ``workers`` score ``recordings``: the curve of each, or its error.

    ``on_curve`` is called with each curve when it is there, ``on_note`` of what died. Raises as `Workers.do`.
    """
    made: dict[int, Outcome] = {}
    prepare = partial(load_scorer, order.model, workers.scorer(order.scorer))
    work = Work(prepare, partial(_score, order), _name)
    done = workers.do(recordings, work, order.scorer.device, lambda *_: None, on_note)
    with closing(done) as outcomes:
        for number, outcome in outcomes:
            made[number] = outcome
            if isinstance(outcome, Curve):
                on_curve(outcome)
    return [made[number] for number in range(len(recordings))]


def _score(order: ScoreOrder, scorer: PrefixScorer, recording: Recording, _: OnShare) -> Curve:
    (outcome,) = score_recordings(
        [recording], scorer, order.monitor, prefixes=order.prefixes, prefix_schedule=order.prefix_schedule
    )
    if isinstance(outcome, UserError):
        raise outcome
    return outcome


def _name(recording: Recording) -> str:
    return printable(recording.name)
