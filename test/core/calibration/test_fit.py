"""A task calibrated from curves: what is chosen, what is promised, what is refused."""

from __future__ import annotations

from dataclasses import replace
from math import isnan, nan

import numpy as np
import pytest

from test.core.calibrations import BASE, RATE, curve, drawn
from topreward_ros.core.calibration.choice import choose, expected, settled_s, truth_of
from topreward_ros.core.calibration.comparison import Finding, compare
from topreward_ros.core.calibration.curves import LabelledCurve, log_odds, log_prob_of
from topreward_ros.core.calibration.estimates import leave_one_out
from topreward_ros.core.calibration.fit import CalibrationError, fit_task
from topreward_ros.core.calibration.probability import Kind
from topreward_ros.core.calibration.replay import GRID, candidates, fires, replayer
from topreward_ros.core.calibration.told import Row, Told
from topreward_ros.core.events import SuccessDetector, SuccessSettings

REPLAY = replayer(RATE)


def test_replays_are_those_of_the_detector_itself() -> None:
    episode = drawn(1, 0)[0]
    settings = SuccessSettings(-0.3, 0.5, 1.0, 2, 2)
    detector = SuccessDetector(settings, 1 / RATE)
    fired = [it.time_s for it in episode.looks if detector.add(it.stamp_ns, it.log_prob, it.log_prob_static)]
    assert [REPLAY(episode, settings)] == fired


def test_what_is_promised_holds_on_fresh_episodes() -> None:
    fit = fit_task("t", drawn(10, 10, seed=1), BASE, RATE, 0.02)
    assert fit.calibration.probability.kind is Kind.PLATT and not fit.calibration.weak
    fresh = drawn(200, 200, seed=2)
    at_s = np.array([REPLAY(it, fit.calibration.success) for it in fresh])
    done = np.array([it.done_s for it in fresh])[:200]
    assert np.isfinite(at_s[:200]).mean() >= 0.96 and np.isfinite(at_s[200:]).mean() <= 0.02
    assert np.nanmedian(at_s[:200] - done) <= 1.0
    assert fit.estimates.recall.value == 1.0 and fit.estimates.recall.interval.low < 0.75
    assert 4.0 < fit.calibration.nominal_duration < 8.0


def test_a_lower_rate_of_false_alarms_is_a_higher_threshold_and_no_faster() -> None:
    curves = drawn(20, 20, seed=3, apart=4.0, spread=1.2)
    table = fires(curves, candidates(BASE, RATE), REPLAY)
    truth = truth_of(curves)
    strict, loose = choose(table, truth, 0.01), choose(table, truth, 0.2)
    assert strict.false_alarms <= 0.01 < loose.false_alarms <= 0.2
    assert strict.cost_s > loose.cost_s and strict.recall < loose.recall


def test_an_episode_has_no_part_in_its_own_estimate() -> None:
    curves = drawn(10, 10, seed=4)
    odd = curve("odd", [*([-4.0] * 8), *([9.0] * 16)], success=False)  # a failure that looks like a success
    curves = [*curves[:-1], odd]
    table, truth = fires(curves, candidates(BASE, RATE), REPLAY), truth_of(curves)
    judged = leave_one_out(curves, table, truth, 0.02, Kind.PLATT)
    assert judged[-1].fired_s == pytest.approx(4.5) and judged[-1].verdict(odd, nan) == "false alarm"
    assert judged[-1].probability > 0.8  # what the others say of it
    without = fit_task("t", [it for it in curves if it is not odd], BASE, RATE, 0.02)
    others = choose(table, truth, 0.02, left_out=len(curves) - 1)
    assert others.settings == without.calibration.success


def test_a_success_before_the_task_is_done_is_a_false_alarm() -> None:
    """A score that rises three seconds early at every success is waited for."""
    curves = [replace(it, done_s=it.done_s + 3.0) if it.success else it for it in drawn(10, 10, seed=5)]
    fit = fit_task("t", curves, BASE, RATE, 0.02)
    late = [at - it.done_s for at, it in zip(fit.fired_s, fit.curves, strict=True) if it.success]
    assert np.nanmin(late) > -1.5
    assert (np.diff(fit.expected.early, axis=1) <= 1e-9).all()
    assert fit.calibration.success.dwell == 2.0


def test_an_early_success_is_not_called_a_failure_that_fired() -> None:
    curves = drawn(10, 10, seed=1)
    late = replace(curves[0], done_s=curves[0].done_s + 4.0)  # somebody pressed the key much too late
    advice = fit_task("t", [late, *curves[1:]], BASE, RATE, 0.1).advice
    assert any("more than 1 s before they were done" in text and late.name in text for text in advice)
    assert not any("were failures" in text and late.name in text for text in advice)


def test_where_nobody_said_when_it_was_done_the_score_says_it() -> None:
    episode = drawn(1, 0, seed=6)[0]
    assert settled_s(episode) == pytest.approx(episode.done_s, abs=0.6)
    fit = fit_task("t", drawn(10, 10, seed=1, told=False), BASE, RATE, 0.02)
    assert any("done_s" in text for text in fit.advice)
    known = fit_task("t", drawn(10, 10, seed=1), BASE, RATE, 0.02)
    apart = log_odds(fit.calibration.success.threshold) - log_odds(known.calibration.success.threshold)
    assert abs(apart) < 1.0


def test_few_episodes_make_a_sketch_that_says_so() -> None:
    fit = fit_task("t", drawn(3, 2, seed=7), BASE, RATE, 0.02)
    assert fit.calibration.weak and fit.calibration.probability.kind is Kind.ANCHORS
    assert fit.advice[0].startswith("Weak: 3 successes and 2 failures")
    assert "weak" in fit.calibration.weakness


USUAL = SuccessSettings(threshold=-0.22, hysteresis=0.5, dwell=0.5, min_scores=3, smoothing=1)


def test_what_few_episodes_chose_gives_way_to_parameters_that_do_better_on_those_left_out() -> None:
    fit = fit_task("t", drawn(5, 5, seed=1, spread=0.8), USUAL, RATE, 0.02)
    found = fit.comparison
    assert (found.fitted.detected, found.fitted.false_alarms) == (5, 1)
    assert (found.parameters.detected, found.parameters.false_alarms) == (5, 0)
    assert found.finding is Finding.TOO_FEW and not found.keeps_fitted
    assert fit.calibration.success == USUAL and fit.choice.settings != USUAL
    assert fit.estimates.false_alarms.value == 0.0 and fit.estimates.recall.value == 1.0
    assert [it.fired_s for it in fit.left_out] == pytest.approx(list(fit.fired_s), nan_ok=True)
    (said,) = [text for text in fit.advice if "parameters success_*" in text]
    assert said.startswith("Too few episodes to tell")
    assert "learnt in 5 of 5 successes and 1 of 5 failures, and by the parameters in 5 of 5 succ" in said


def test_where_so_few_cannot_tell_the_detector_that_the_user_has_stays() -> None:
    """Also where both did as well on the episodes left out: nothing says that what was learnt is right."""
    fit = fit_task("t", drawn(2, 2, seed=1), USUAL, RATE, 0.02)
    found = fit.comparison
    assert found.fitted.detected == found.parameters.detected == 2 and found.finding is Finding.TOO_FEW
    assert fit.calibration.detector is None and fit.calibration.success == USUAL != fit.choice.settings
    (said,) = [text for text in fit.advice if text.startswith("Too few")]
    learnt = f"set success_threshold to {fit.choice.settings.threshold:.3f} nat."
    assert "parameters success_* of the monitor stay in force" in said and said.endswith(learnt)
    # What nobody has to guess counts all the same: six failed where the parameters found six.
    better = fit_task("t", drawn(6, 6, seed=1, apart=4.5), USUAL, RATE, 0.02)
    assert better.calibration.weak and better.comparison.finding is Finding.BETTER
    assert better.calibration.detector == better.choice.settings
    assert "judged by its threshold" in better.calibration.who_decides


def test_what_is_learnt_is_told_beside_the_parameters() -> None:
    better = fit_task("t", drawn(10, 10, seed=1, apart=4.5), USUAL, RATE, 0.02)
    assert better.comparison.finding is Finding.BETTER and better.comparison.keeps_fitted
    assert any(text.startswith("What was learnt is better than the param") for text in better.advice)
    alike = fit_task("t", drawn(10, 10, seed=1), USUAL, RATE, 0.02)
    assert alike.comparison.finding is Finding.NO_DIFFERENCE and alike.comparison.keeps_fitted
    assert any("not better than the parameters success_* alone, beyond noise" in it for it in alike.advice)


@pytest.mark.parametrize(
    ("fitted", "parameters", "finding", "keeps"),
    [
        (
            ["missed"] * 12 + ["kept quiet"] * 12,
            ["detected"] * 12 + ["kept quiet"] * 12,
            Finding.WORSE,
            False,
        ),
        (
            ["missed"] * 12 + ["kept quiet"] * 12,
            ["detected"] * 12 + ["false alarm"] * 12,
            Finding.MIXED,
            True,
        ),
        (["missed", "detected", "kept quiet"], ["early", "detected", "kept quiet"], Finding.TOO_FEW, False),
        (
            ["missed"] * 12 + ["kept quiet"] * 12,
            ["early"] + ["missed"] * 11 + ["kept quiet"] * 12,
            Finding.NO_DIFFERENCE,
            True,
        ),
    ],
)
def test_what_a_comparison_finds(
    fitted: list[str], parameters: list[str], finding: Finding, keeps: bool
) -> None:
    found = compare(BASE, fitted, USUAL, parameters)
    assert found.finding is finding and found.keeps_fitted is keeps
    assert found.kept.settings == (BASE if keeps else USUAL)


def test_a_band_needs_nineteen_successes() -> None:
    assert not fit_task("t", drawn(18, 10, seed=8), BASE, RATE, 0.02).calibration.bands
    bands = fit_task("t", drawn(19, 10, seed=8), BASE, RATE, 0.02).calibration.bands
    assert set(bands) == {"static_baseline", "calibrated"}
    band = bands["static_baseline"]
    below = [any(look.progress < band.at(look.time_s) for look in it.looks) for it in drawn(400, 0, seed=9)]
    assert np.mean(below) <= 0.1  # 0.05 are expected, of a band from 19 runs
    stopped = drawn(0, 100, seed=10)
    assert np.mean([any(look.progress < band.at(look.time_s) for look in it.looks) for it in stopped]) > 0.75


def test_the_order_of_the_episodes_changes_nothing() -> None:
    curves = drawn(10, 10, seed=11)
    assert (
        fit_task("t", curves, BASE, RATE, 0.02).calibration
        == fit_task("t", curves[::-1], BASE, RATE, 0.02).calibration
    )


@pytest.mark.parametrize(
    ("curves", "said"),
    [
        (drawn(4, 0), "all 4 episodes that could be scored are of one kind, and none is a failure"),
        (drawn(0, 4), "none is a success"),
        (drawn(1, 1), "1 success and 1 failure could be scored: give 2 of each at least"),
        ([*drawn(2, 2), LabelledCurve("dark", True, ())], "dark has no score"),
        (
            [replace(it, success=not it.success) for it in drawn(10, 10)],
            "does not tell its successes from its failures",
        ),
        (drawn(2, 2, seed=12, apart=0.2), "no better than chance: record on until there are 10 of each"),
        (
            drawn(10, 10, seed=12, apart=1.0),
            "0 of 10 successes and in 1 of 10 failures, which is no better.* in force, it came in 0 and in 0",
        ),
        (
            [replace(it, done_s=it.done_s + 4.0) if it.success else it for it in drawn(2, 2)],
            "too early.* or done_s too late",
        ),
    ],
)
def test_what_cannot_be_calibrated_is_refused(curves: list[LabelledCurve], said: str) -> None:
    with pytest.raises(CalibrationError, match=said):
        fit_task("open it", curves, BASE, RATE, 0.02)


def test_what_the_model_cannot_tell_apart_is_said() -> None:
    fit = fit_task("t", drawn(10, 10, seed=14, apart=1.0), BASE, RATE, 0.02)
    assert fit.choice.recall < 0.5
    assert any("are expected to be missed" in text for text in fit.advice)


def test_a_threshold_so_low_that_nothing_can_arm_it_is_not_taken_for_quiet() -> None:
    curves = drawn(3, 3, seed=13, apart=0.2)
    table, truth = fires(curves, candidates(BASE, RATE), REPLAY), truth_of(curves)
    assert (np.diff(expected(table, truth).false_alarms, axis=1) <= 1e-9).all()
    assert log_odds(choose(table, truth, 0.02).settings.threshold) > -3.5


def looked_at(curve: LabelledCurve) -> LabelledCurve:
    """The same with an extra look between any two scores, half-way in time and in log-odds."""
    rows: list[Row] = []
    for before, after in zip(curve.looks, (*curve.looks[1:], None), strict=True):
        rows.append((Told.DUE, 0, before.time_s, before.log_prob, before.log_prob_static))
        if after is not None:
            between = (log_odds(before.log_prob) + log_odds(after.log_prob)) / 2
            rows.append((Told.EXTRA, 0, (before.time_s + after.time_s) / 2, log_prob_of(between), nan))
    return replace(curve, told=tuple(rows))


def test_extra_looks_are_chosen_where_they_save_time() -> None:
    base = replace(BASE, confirm_rate=4.0)
    plain = drawn(10, 10, seed=1)
    without, with_looks = (fit_task("t", it, base, RATE, 0.02) for it in (plain, [*map(looked_at, plain)]))
    assert with_looks.calibration.success.confirm_rate == 4.0
    late = [
        np.nanmedian([at - it.done_s for at, it in zip(fit.fired_s, fit.curves, strict=True) if it.success])
        for fit in (without, with_looks)
    ]
    assert late[1] < late[0]
    assert max(fit.estimates.false_alarms.value for fit in (without, with_looks)) == 0.0


def test_what_interrupts_a_dwell_live_interrupts_it_in_a_replay() -> None:
    settings = SuccessSettings(-0.22, 0.5, 0.5, 2, 1)
    rows: list[Row] = [(Told.DUE, 0, k / RATE, -4.0 if k < 4 else -0.1, -4.0) for k in range(8)]
    dark = (Told.INTERRUPTED, 0, nan, nan, nan)
    episode = LabelledCurve("e", True, curve("e", [0.0] * 8, success=True).looks)
    assert REPLAY(replace(episode, told=tuple(rows)), settings) == 2.5
    assert REPLAY(replace(episode, told=(*rows[:5], dark, *rows[5:])), settings) == 3.0


def test_candidates_and_grid() -> None:
    assert all(it.min_scores >= 2 for it in candidates(BASE, RATE))
    assert all(it.hysteresis == BASE.hysteresis for it in candidates(BASE, RATE))
    assert len(set(candidates(BASE, RATE))) == len(candidates(BASE, RATE))
    assert (np.diff(GRID) > 0).all()
    assert isnan(REPLAY(drawn(0, 1)[0], SuccessSettings(-1e-4, 0.5, 0.0, 2, 1)))
