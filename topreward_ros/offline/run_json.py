"""A run as JSON, and back: what no model, film or monitor can say is refused, whoever wrote it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from math import isfinite, isnan
from typing import Any

from topreward_ros.core.evaluation import Run
from topreward_ros.core.progress import PrefixScore
from topreward_ros.offline.json_fields import Field
from topreward_ros.scoring.base import problem_with

_SCORES = ("log_prob", "log_prob_false", "log_prob_static", "log_prob_std")
_STATED = ("answer_share", "stated_progress", "success_probability")  # kept where a score has one
_ROUNDING = 1e-6
_UNTOLD = "it was not kept why"


class ImpossibleRunError(ValueError):
    """A run says what cannot be."""


def check_run(run: Run) -> None:
    """Raise `ImpossibleRunError` for what cannot be: a score that would be refused live, progress or a stage
    that is none, times that do not increase, columns of different lengths. There may be no score at all.
    """
    columns = (run.times_s, run.scores, run.stages, run.progress, *filter(None, [run.thresholds]))
    if len({len(column) for column in columns}) != 1:
        raise ImpossibleRunError("its columns are of different lengths")
    for number, score in enumerate(run.scores):
        problem = problem_with(replace(score, note=score.note or _UNTOLD))
        if not problem and score.num_frames < 0:
            problem = f"it was made of {score.num_frames} frames"
        if problem:
            raise ImpossibleRunError(f"score {number}: {problem}")
    _check_times(run)
    stages = run.instruction.count("\n") + 1
    for name, values, low, high in (
        ("stage", run.stages, 1, stages),
        ("progress", [it for it in run.progress if not isnan(it)], 0, 1),
    ):
        wrong = next((it for it in values if not low - _ROUNDING <= it <= high + _ROUNDING), None)
        if wrong is not None:
            raise ImpossibleRunError(f"the {name} {wrong:g} does not lie between {low} and {high}")
    if not all(isfinite(it) and it <= 0 for it in run.thresholds):
        raise ImpossibleRunError("its thresholds must be numbers, 0 or less")


def _check_times(run: Run) -> None:
    times = run.times_s
    if not all(map(isfinite, times)) or any(b <= a for a, b in pairwise(times)):
        raise ImpossibleRunError("its times must be numbers that increase")
    if not (isfinite(run.duration_s) and run.duration_s >= 0):
        raise ImpossibleRunError(f"its duration {run.duration_s:g} s is none")
    if times and not (times[0] >= 0 and times[-1] <= run.duration_s + 1.0):
        raise ImpossibleRunError(
            f"its times reach from {times[0]:g} to {times[-1]:g} s of a film of {run.duration_s:g} s"
        )
    if not all(isfinite(time_s) and time_s >= 0 for time_s, _ in run.events):
        raise ImpossibleRunError("the times of its events must be numbers from 0")


def run_to_json_value(run: Run) -> dict[str, Any]:
    """A run as JSON can hold it; NaN is None. `run_from_json` reads it."""
    scores = {name: [getattr(score, name) for score in run.scores] for name in (*_SCORES, *_STATED)}
    for name in _STATED:
        if all(map(isnan, scores[name])):
            del scores[name]
    return {
        "instruction": run.instruction,
        "times": list(run.times_s),
        **scores,
        "num_frames": [score.num_frames for score in run.scores],
        "stages": list(run.stages),
        "progress": list(run.progress),
        "thresholds": list(run.thresholds),
        "duration": run.duration_s,
        "events": [[time_s, kind] for time_s, kind in run.events],
        **({"told": [[float(value) for value in row] for row in run.told]} if run.told else {}),
    }


def run_from_json(field: Field) -> Run:
    """The run that `run_to_json_value` made this of. Raises `FieldError`, `ImpossibleRunError`."""
    names = [*_SCORES, *(name for name in _STATED if name in field.members())]
    columns = [_numbers(field[name]) for name in names]
    counts = [it.whole() for it in field["num_frames"].items()]
    if {len(column) for column in columns} != {len(counts)}:
        raise ImpossibleRunError("its columns are of different lengths")
    scores = tuple(
        PrefixScore(num_frames=count, **dict(zip(names, values, strict=True)))
        for *values, count in zip(*columns, counts, strict=True)
    )
    limits = field.get("thresholds")  # files of earlier versions have none
    events = (it.items() for it in field["events"].items())
    run = Run(
        field["instruction"].text(),
        tuple(it.number() for it in field["times"].items()),
        scores,
        tuple(it.whole(1) for it in field["stages"].items()),
        tuple(_numbers(field["progress"])),
        field["duration"].number(),
        tuple((time.number(), kind.text()) for time, kind in map(_pair, events)),
        () if limits.value is None else tuple(it.number() for it in limits.items()),
        () if field.get("told").value is None else tuple(tuple(_numbers(it)) for it in field["told"].items()),
    )
    check_run(run)
    return run


def _pair(items: Sequence[Field]) -> Sequence[Field]:
    if len(items) != 2:
        raise ImpossibleRunError("each of its events is a time and a type")
    return items


def _numbers(field: Field) -> list[float]:
    return [it.number_or_nan() for it in field.items()]
