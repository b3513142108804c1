"""A task calibrated from labelled episodes: everything in its order, and what is to be told of it.

Needed are two successes and two failures, so that every episode can be left out and both kinds are still
there. What cannot be calibrated is refused with a sentence that says what to record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import isfinite

from topreward_ros.core.calibration.band import band_of, nominal_duration
from topreward_ros.core.calibration.choice import Choice, Expected, Truth, choose, expected, truth_of
from topreward_ros.core.calibration.comparison import Comparison, compare
from topreward_ros.core.calibration.curves import LabelledCurve, Look, of_class
from topreward_ros.core.calibration.estimates import Estimates, LeftOut, estimates_of, leave_one_out
from topreward_ros.core.calibration.probability import (
    ISOTONIC_FROM,
    PLATT_FROM,
    Kind,
    ProbabilityMap,
    fit_probability,
    kind_for,
)
from topreward_ros.core.calibration.replay import Replay, candidates, fires, replayer
from topreward_ros.core.calibration.task import TaskCalibration
from topreward_ros.core.counted import counted
from topreward_ros.core.detectors.failure import ConformalBand, fewest_successes
from topreward_ros.core.errors import UserError
from topreward_ros.core.events import SuccessSettings
from topreward_ros.core.metrics import EARLY_S
from topreward_ros.core.printable import printable
from topreward_ros.core.progress import ProgressMode

FEWEST = 2  #: episodes of each kind


class CalibrationError(UserError):
    """A task cannot be calibrated from these episodes, or a calibration cannot be used."""


class IndistinguishableError(CalibrationError):
    """The model does not tell the successes of a task from its failures: no calibration of it can be used."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A calibrated task, and what it was made from, for the report."""

    calibration: TaskCalibration
    estimates: Estimates
    choice: Choice  #: what was learnt, kept or not
    comparison: Comparison  #: of that with the parameters alone: which of both is kept
    curves: tuple[LabelledCurve, ...]
    truth: Truth
    left_out: tuple[LeftOut, ...]  #: as many as curves, by the detector that is kept
    expected: Expected  #: of all detectors and thresholds, as the page shows for that of `choice`
    fired_s: tuple[float, ...]  #: when SUCCESS comes with the final calibration, which has seen them all [s]
    advice: tuple[str, ...]  #: what to know, and what to record next


def fit_task(
    task: str,
    curves: Sequence[LabelledCurve],
    base: SuccessSettings,
    sample_rate: float,
    false_alarms: float,
    *,
    picture: tuple[int, int] | None = None,
    replay: Replay | None = None,
    on_step: Callable[[], None] | None = None,
) -> Fit:
    """Calibrate ``task`` at a rate of ``false_alarms`` in [0, 1].

    ``base``: the detector whose other settings stay; ``sample_rate`` [Hz] of the scores; ``picture``: width
    and height of the frames [px]; ``on_step`` is called twice per curve. Raises `CalibrationError`.
    """
    curves = tuple(sorted(curves, key=lambda curve: (not curve.success, curve.name)))
    successes, failures = of_class(curves, success=True), of_class(curves, success=False)
    _check(task, successes, failures)
    kind = kind_for(len(successes), len(failures))
    truth = truth_of(curves)
    probability = fit_probability([it.end_log_odds for it in curves], truth.success.tolist(), kind)
    if probability is None:
        raise IndistinguishableError(
            f"{_named(task)}: the model does not tell its successes from its failures, which end with scores "
            "as high or higher: see whether the labels are swapped, look at the curves with `topreward "
            "evaluate`, try another camera, wording (--set prompts=...) or model"
        )
    replay = replay or replayer(sample_rate)
    table = fires(curves, candidates(base, sample_rate), replay, on_step)
    choice = choose(table, truth, false_alarms)
    left_out = leave_one_out(curves, table, truth, false_alarms, kind, on_step)
    estimates = estimates_of(curves, truth, left_out)
    without = [replace(it, fired_s=replay(c, base)) for it, c in zip(left_out, curves, strict=True)]
    comparison = compare(
        choice.settings, _verdicts(left_out, curves, truth), base, _verdicts(without, curves, truth)
    )
    if estimates.recall.value <= estimates.false_alarms.value:
        raise IndistinguishableError(_no_better_than_chance(task, comparison, len(successes), len(failures)))
    if comparison.keeps_fitted:
        fired_s = tuple(float(table.at_s[choice.place][number]) for number in range(len(curves)))
    else:
        left_out = tuple(without)
        estimates, fired_s = estimates_of(curves, truth, left_out), tuple(it.fired_s for it in left_out)
    calibration = TaskCalibration(
        task=task,
        success=comparison.kept.settings,
        probability=probability,
        successes=len(successes),
        failures=len(failures),
        allowed_false_alarms=false_alarms,
        picture=picture,
        nominal_duration=nominal_duration(truth.done_s[truth.success].tolist()),
        bands=_bands(successes, probability),
        estimates=estimates,
        comparison=comparison,
    )
    advice = tuple(_advice(calibration, choice, curves, truth, left_out))
    of_all = expected(table, truth)
    return Fit(calibration, estimates, choice, comparison, curves, truth, left_out, of_all, fired_s, advice)


def _verdicts(left_out: Sequence[LeftOut], curves: Sequence[LabelledCurve], truth: Truth) -> list[str]:
    """What became of each episode."""
    return [it.verdict(c, d) for it, c, d in zip(left_out, curves, truth.done_s, strict=True)]


def _bands(successes: Sequence[LabelledCurve], probability: ProbabilityMap) -> dict[str, ConformalBand]:
    """The band of each progress mode that can have one."""
    of_mode: dict[ProgressMode, Callable[[Look], float]] = {
        ProgressMode.STATIC_BASELINE: lambda look: look.progress,
        ProgressMode.CALIBRATED: lambda look: probability.of(look.log_prob),
    }
    bands = {mode.value: band_of(successes, progress) for mode, progress in of_mode.items()}
    return {mode: band for mode, band in bands.items() if band is not None}


def _named(task: str) -> str:
    return f"'{printable(task, 100)}'"


def _no_better_than_chance(task: str, comparison: Comparison, successes: int, failures: int) -> str:
    """What to say of a task whose left-out failures get a SUCCESS as often as its successes."""
    fitted, other = comparison.fitted, comparison.parameters
    lack = (
        f"record on until there are {PLATT_FROM} of each ({successes} and {failures} now)"
        if min(successes, failures) < PLATT_FROM
        else "look at the curves with `topreward evaluate`"
    )
    return (
        f"{_named(task)}: the model does not tell its successes from its failures well enough. With each "
        f"episode left out in turn, SUCCESS came in {fitted.detected} of {successes} successes"
        f"{f' ({fitted.early} more too early)' if fitted.early else ''} and in {fitted.false_alarms} of "
        f"{failures} failures, which is no better than chance: {lack}, see whether labels are swapped"
        f"{' or done_s too late' if fitted.early else ''}, or try another camera, wording (--set "
        f"prompts=...) or model. By the parameters success_* alone, which stay in force, it came in "
        f"{other.detected} and in {other.false_alarms}"
    )


def _check(task: str, successes: Sequence[LabelledCurve], failures: Sequence[LabelledCurve]) -> None:
    for there, lacking, kind in (
        (len(failures), len(successes), "success"),
        (len(successes), len(failures), "failure"),
    ):
        if not lacking:
            raise CalibrationError(
                f"{_named(task)}: all {there} episodes that could be scored are of one kind, and none is a "
                f"{kind}: give {FEWEST} at least, better {PLATT_FROM}, of each"
            )
    if min(len(successes), len(failures)) < FEWEST:
        raise CalibrationError(
            f"{_named(task)}: {counted(len(successes), 'success', 'successes')} and "
            f"{counted(len(failures), 'failure')} could be scored: give "
            f"{FEWEST} of each at least, better {PLATT_FROM}"
        )
    for curve in (*successes, *failures):
        if not any(isfinite(it.log_prob) for it in curve.looks):
            raise CalibrationError(f"{printable(curve.name, 200)} has no score: leave it out")


def _advice(
    calibration: TaskCalibration,
    choice: Choice,
    curves: Sequence[LabelledCurve],
    truth: Truth,
    left_out: Sequence[LeftOut],
) -> list[str]:
    """What a user should know before trusting it, most important first, and what to record next."""
    made, estimates, comparison = [], calibration.estimates, calibration.comparison
    assert estimates is not None and comparison is not None
    allowed, failures = calibration.allowed_false_alarms, calibration.failures
    verdicts = _verdicts(left_out, curves, truth)
    if calibration.weak:
        made.append(
            f"Weak: {calibration.made_from} make a sketch. Messages say "
            f"`calibrated: false` until there are {PLATT_FROM} of each."
        )
    made.append(comparison.text(calibration.successes, failures))
    if max(choice.false_alarms, choice.early) > allowed:
        made.append(
            f"No threshold keeps false alarms at {allowed:.1%}: the best that was found expects "
            f"{max(choice.false_alarms, choice.early):.1%}. Look at the failures that score as high as "
            "successes."
        )
    if choice.recall < 0.9 and comparison.keeps_fitted:
        made.append(
            f"To keep false alarms at {allowed:.1%}, {1 - choice.recall:.0%} of the successes are expected "
            "to be missed. A higher --false-alarms trades one for the other; a better camera or model has "
            "both."
        )
    for verdict, what in (
        ("false alarm", "which fired and were failures"),
        (
            "early",
            f"which fired more than {EARLY_S:g} s before they were done, or have a done_s that is too late",
        ),
        ("missed", "which were missed"),
    ):
        names = [
            printable(it.name, 80) for it, found in zip(curves, verdicts, strict=True) if found == verdict
        ]
        if names:
            made.append(f"Record more like these, {what}: {', '.join(names[:5])}.")
    needed = _failures_needed(allowed)
    if failures < needed:
        made.append(
            f"{counted(failures, 'failure')} cannot show a rate of {allowed:.1%}: with as many firing as "
            f"here, the true one may be {estimates.false_alarms.interval.high:.0%}. {needed} failures "
            "without one would show it."
        )
    if not calibration.bands:
        made.append(
            f"FAILURE stays off: its band needs {fewest_successes()} successes, and there are "
            f"{calibration.successes}."
        )
    if calibration.probability.kind is not Kind.ISOTONIC:
        made.append(f"From {ISOTONIC_FROM} episodes of each kind on, probabilities need no assumed curve.")
    unknown = sum(curve.success and not isfinite(curve.done_s) for curve in curves)
    if unknown:
        made.append(
            f"Of {counted(unknown, 'success', 'successes')} nobody said when it was done (done_s): the delay "
            "counts from where the score rose for good, and a SUCCESS that is early at all of them is "
            "not noticed."
        )
    return made


def _failures_needed(rate: float) -> int:
    """Failures, none of which fires, that show with 95 % confidence that no more than this share does."""
    return 10**6 if rate <= 0 else min(10**6, int(-(-3.0 // rate)))
