"""What a calibration promises, measured on episodes that it had not seen.

Every episode is left out once: detector, threshold and probability are fitted to the others, and it is judged
by them. What the final fit does on its own episodes is never told. An estimate from a dozen episodes is wide,
and the intervals say how wide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite, nan

import numpy as np

from topreward_ros.core.calibration.choice import Truth, choose
from topreward_ros.core.calibration.curves import LabelledCurve
from topreward_ros.core.calibration.probability import Kind, fit_probability
from topreward_ros.core.calibration.replay import Fires
from topreward_ros.core.intervals import UNKNOWN, Interval, bootstrap_interval, share_interval
from topreward_ros.core.metrics import expected_calibration_error, is_early, roc_auc, roc_auc_interval


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and where the true one is likely to be (95 %)."""

    value: float  #: NaN: cannot be told
    interval: Interval = UNKNOWN


@dataclass(frozen=True, slots=True)
class Estimates:
    """How well the calibrated monitor will do on episodes like the recorded ones."""

    recall: Estimate  #: share of successes that get a SUCCESS, none of them early
    false_alarms: Estimate  #: share of failures that get one
    early: Estimate  #: share of successes whose SUCCESS comes before they are done
    delay_median: Estimate  #: [s] from done to SUCCESS
    delay_p95: Estimate  #: [s]
    auc: Estimate  #: that a success ends with a higher score than a failure does; nothing is fitted for it
    calibration_error: Estimate  #: ECE of the probability at the end


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An episode as a calibration judges it that was made without it."""

    fired_s: float  #: when SUCCESS came [s]; NaN: it did not
    probability: float  #: at the end; NaN where none could be fitted

    def verdict(self, curve: LabelledCurve, done_s: float) -> str:
        """What became of it, in a word."""
        if not isfinite(self.fired_s):
            return "missed" if curve.success else "kept quiet"
        if not curve.success:
            return "false alarm"
        return "early" if is_early(self.fired_s, done_s) else "detected"


def leave_one_out(
    curves: Sequence[LabelledCurve],
    fires: Fires,
    truth: Truth,
    false_alarms: float,
    kind: Kind,
    on_episode: Callable[[], None] | None = None,
) -> tuple[LeftOut, ...]:
    """Judge every curve by a calibration of the others. There are two of each class at least."""
    ends = np.array([curve.end_log_odds for curve in curves])
    made = []
    for number, curve in enumerate(curves):
        choice = choose(fires, truth, false_alarms, left_out=number)
        others = np.arange(len(curves)) != number
        fitted = fit_probability(ends[others].tolist(), truth.success[others].tolist(), kind)
        last = next((it.log_prob for it in reversed(curve.looks) if isfinite(it.log_prob)), nan)
        probability = fitted.of(last) if fitted is not None else nan
        made.append(LeftOut(float(fires.at_s[choice.place][number]), probability))
        if on_episode is not None:
            on_episode()
    return tuple(made)


def estimates_of(curves: Sequence[LabelledCurve], truth: Truth, left_out: Sequence[LeftOut]) -> Estimates:
    """The estimates that follow from how each episode was judged without it."""
    verdicts = [it.verdict(c, d) for it, c, d in zip(left_out, curves, truth.done_s, strict=True)]
    successes, failures = int(truth.success.sum()), int((~truth.success).sum())

    def share(verdict: str, count: int) -> Estimate:
        hits = verdicts.count(verdict)
        return Estimate(hits / count, share_interval(hits, count))

    delays = [
        it.fired_s - float(done_s)
        for it, done_s, verdict in zip(left_out, truth.done_s, verdicts, strict=True)
        if verdict == "detected"
    ]
    ends = np.array([curve.end_log_odds for curve in curves])
    high, low = ends[truth.success], ends[~truth.success]
    return Estimates(
        recall=share("detected", successes),
        false_alarms=share("false alarm", failures),
        early=share("early", successes),
        delay_median=_delay(delays, lambda them: float(np.median(them))),
        delay_p95=_delay(delays, lambda them: float(np.quantile(them, 0.95))),
        auc=Estimate(roc_auc(high, low), roc_auc_interval(high, low)),
        calibration_error=_calibration_error(left_out, truth),
    )


def _delay(delays: Sequence[float], of: Callable[[Sequence[float]], float]) -> Estimate:
    return Estimate(of(delays), bootstrap_interval(of, delays)) if delays else Estimate(nan)


def _calibration_error(left_out: Sequence[LeftOut], truth: Truth) -> Estimate:
    probabilities = [it.probability for it in left_out]
    if not all(map(isfinite, probabilities)):
        return Estimate(nan)
    return Estimate(expected_calibration_error(probabilities, truth.success.tolist()))
