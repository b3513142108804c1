"""Judge calibrations of the tasks on clips that had no part in them:

    python -m training.success_curves data MODEL curves.npz     # once for a model
    python -m training.calibration curves.npz                   # in a minute
    python -m training.calibration curves.npz --false-alarms 0.05 --json calibration.json

For each task, 10 successes and 10 failures of one evaluation set are given to `core.calibration` as a user
would give theirs, and what it makes is judged on the clips of the other two sets. Every set has its turn, so
that there are three results; the table has their mean, and the mean of the worst task. The words:

- recall: successes that get a SUCCESS, none more than 1 s early. False alarms: failures that get one, and
  successes that get one early, each a share of its kind.
- with hindsight: the highest mean of recall and quiet failures that any threshold has on the judged clips
  themselves, for the same detector; the calibrated one loses so much against it.
- promised: what the calibration said of itself (each of its 20 clips left out).
- ECE: of the probability that a clip's last score means, over all judged clips of a task.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import isnan, nan
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from topreward_ros.core.calibration.curves import LabelledCurve, Look, log_prob_of, of_class
from topreward_ros.core.calibration.fit import CalibrationError, Fit, fit_task
from topreward_ros.core.calibration.replay import GRID, Replay, replayer
from topreward_ros.core.calibration.told import Told
from topreward_ros.core.metrics import EARLY_S, expected_calibration_error
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.core.output_files import write_file
from topreward_ros.core.progress import PrefixScore, ProgressMode, live_progress
from topreward_ros.defaults import monitor_defaults
from training.clips import VIEWS
from training.generate import EVALUATIONS
from training.instructions import BY_NAME, TASKS
from training.success_curves import Film, read_films

EACH = 10  #: episodes of each kind that a calibration is made from
_GOALS = {"recall": 0.96, "false alarms": 0.02, "lost to hindsight": 0.02, "ECE": 0.08}


@dataclass(frozen=True)
class Judged:
    """A calibration of one task, judged."""

    task: str
    set: str  #: that it was made from
    recall: float
    false_alarms: float
    early: float
    lost: float  #: against the best threshold with hindsight
    delay_median: float  #: [s]
    delay_p95: float  #: [s]
    ece: float
    promised_recall: float
    promised_false_alarms: float
    threshold: float  #: [nat]
    dwell: float  #: [s]
    problem: str = ""  #: why there is none


def curve_of(film: Film, settings: MonitorSettings) -> LabelledCurve:
    """A film as a calibration takes it; what was told of a scene that changed is left out."""
    looks = tuple(
        Look(
            round(stamp_s * 1e9),
            log_prob,
            static,
            live_progress(
                PrefixScore(log_prob, nan, log_prob_static=static),
                ProgressMode.STATIC_BASELINE,
                settings.success.threshold,
            ),
        )
        for what, _, stamp_s, log_prob, static in film.rows
        if what == Told.DUE
    )
    told = tuple(map(tuple, film.rows))
    return LabelledCurve(
        f"{film.attempt:04d}-{film.view}", not isnan(film.done_s), looks, film.done_s, told=told
    )


def _chosen(films: Sequence[Film], settings: MonitorSettings) -> list[LabelledCurve]:
    """`EACH` of a kind, of as many attempts as there are, in views that take turns."""
    order = sorted(films, key=lambda it: ((VIEWS.index(it.view) - it.attempt) % len(VIEWS), it.attempt))
    curves = [curve_of(film, settings) for film in order]
    return [it for success in (True, False) for it in of_class(curves, success=success)[:EACH]]


def judge(fit: Fit, of_set: str, task: str, curves: Sequence[LabelledCurve], replay: Replay) -> Judged:
    """Judge a calibration by curves that had no part in it."""
    success = np.array([curve.success for curve in curves])
    done = np.array([curve.done_s for curve in curves])
    calibration = fit.calibration

    def shares(threshold: float) -> tuple[float, float, float, np.ndarray]:
        settings = replace(calibration.success, threshold=threshold)
        since = np.array([replay(curve, settings) for curve in curves]) - np.where(success, done, 0.0)
        fired = np.isfinite(since)
        early = fired & success & (since < -EARLY_S)
        hit = fired & success & ~early
        of_successes = max(int(success.sum()), 1)
        false = float((fired & ~success).sum() / max(int((~success).sum()), 1))
        return hit.sum() / of_successes, false, early.sum() / of_successes, since[hit]

    recall, false, early, delays = shares(calibration.success.threshold)
    best = max((it[0] + 1 - it[1]) / 2 for it in map(shares, map(log_prob_of, GRID.tolist())))
    probabilities = [calibration.probability.of(log_prob_of(curve.end_log_odds)) for curve in curves]
    return Judged(
        task=task,
        set=of_set,
        recall=float(recall),
        false_alarms=false,
        early=float(early),
        lost=float(best - (recall + 1 - false) / 2),
        delay_median=float(np.median(delays)) if len(delays) else nan,
        delay_p95=float(np.quantile(delays, 0.95)) if len(delays) else nan,
        ece=expected_calibration_error(probabilities, success.tolist()),
        promised_recall=fit.estimates.recall.value,
        promised_false_alarms=fit.estimates.false_alarms.value,
        threshold=calibration.success.threshold,
        dwell=calibration.success.dwell,
    )


def judge_all(films: Sequence[Film], false_alarms: float) -> list[Judged]:
    """Every task, calibrated from every set."""
    settings = MonitorSettings.from_parameters(monitor_defaults())
    replay = replayer(settings.sample_rate)
    by: dict[tuple[str, str], list[Film]] = defaultdict(list)
    for film in films:
        if not film.is_control:
            by[film.task, film.set].append(film)
    made = []
    for task, of_set in track(sorted(by), description="calibrating", console=Console(stderr=True)):
        others = [
            curve_of(film, settings) for other in EVALUATIONS if other != of_set for film in by[task, other]
        ]
        try:
            fit = fit_task(
                BY_NAME[task].instruction,
                _chosen(by[task, of_set], settings),
                settings.success,
                settings.sample_rate,
                false_alarms,
            )
            made.append(judge(fit, of_set, task, others, replay))
        except CalibrationError as error:
            nothing = dict.fromkeys(list(Judged.__dataclass_fields__)[2:-1], nan)
            made.append(
                Judged(task, of_set, **{**nothing, "recall": 0.0, "false_alarms": 0.0}, problem=str(error))
            )
    return made


def table(judged: Sequence[Judged]) -> Table:
    """A line per task, each the mean over the sets, and the mean of all."""
    made = Table(box=None, padding=(0, 2, 0, 0))
    columns = (
        ("recall", "recall", "{:.2f}"),
        ("false alarms", "false_alarms", "{:.3f}"),
        ("early", "early", "{:.3f}"),
        ("lost to hindsight", "lost", "{:.3f}"),
        ("delay, median", "delay_median", "{:.2f} s"),
        ("p95", "delay_p95", "{:.2f} s"),
        ("ECE", "ece", "{:.3f}"),
        ("promised recall", "promised_recall", "{:.2f}"),
        ("false alarms", "promised_false_alarms", "{:.3f}"),
    )
    made.add_column("task")
    for name, _, _ in columns:
        made.add_column(name, justify="right")
    names = [task.name for task in TASKS if any(it.task == task.name for it in judged)]
    for name in (*names, ""):
        group = [it for it in judged if name in ("", it.task)]
        cells = []
        for _, attribute, form in columns:
            values = [value for it in group if not isnan(value := getattr(it, attribute))]
            cells.append(form.format(np.mean(values)) if values else "-")
        made.add_row(name or "mean", *cells, style="" if name else "bold")
    goals = [f"{name} {value:g}" for name, value in _GOALS.items()]
    made.caption = f"goals: {', '.join(goals)}; from {EACH} + {EACH} clips, judged on the other two sets"
    return made


def main() -> None:
    """Judge from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("curves", type=Path, help="file that training.success_curves wrote")
    parser.add_argument("--false-alarms", type=float, default=0.02, help="that are allowed (%(default)s)")
    parser.add_argument("--json", type=Path, help="write every number here, too")
    options = parser.parse_args()
    films, model = read_films(options.curves)
    judged = judge_all(films, options.false_alarms)
    console = Console(width=150)
    console.print(f"model {model}, {len(films)} films")
    console.print(table(judged))
    for it in judged:
        if it.problem:
            console.print(f"{it.task}, from {it.set}: {it.problem}")
    if options.json:
        content = {"model": model, "judged": [asdict(it) for it in judged]}
        write_file(options.json, json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
