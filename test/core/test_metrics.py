"""Every measure against a case by hand, and against SciPy or scikit-learn where they have it."""

from __future__ import annotations

from itertools import product
from math import inf, isnan, nan

import numpy as np
import pytest

from topreward_ros.core import metrics

stats = pytest.importorskip("scipy.stats")
sklearn_metrics = pytest.importorskip("sklearn.metrics")


def drawn(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# ---- the order of a curve ---------------------------------------------------------------------------


def test_ranks_are_those_of_scipy() -> None:
    for count in (1, 2, 30):
        values = drawn().integers(0, 8, count)
        assert metrics.ranks(values).tolist() == stats.rankdata(values).tolist()


def test_voc_is_the_rank_correlation_of_reward_and_time_over_15_even_prefixes() -> None:
    rising = np.linspace(-3, -1, 40)
    assert metrics.value_order_correlation(rising) == pytest.approx(1)
    assert metrics.value_order_correlation(rising[::-1]) == pytest.approx(-1)
    # No ties: 1 - 6 sum(d^2) / (n (n^2 - 1)), here with d = (1, 1, 0, 0).
    assert metrics.value_order_correlation([-3.0, -4.0, -2.0, -1.0]) == pytest.approx(0.8)
    curve = np.round(drawn().normal(size=57), 1)  # some ties
    places = [round(k * 56 / 14) for k in range(15)]
    expected = stats.spearmanr(curve[places], places).statistic
    assert metrics.value_order_correlation(curve) == pytest.approx(expected)
    assert metrics.even_places(57).tolist() == places and not metrics.even_places(57).flags.writeable


@pytest.mark.filterwarnings("error")
def test_a_curve_without_an_order_has_no_voc() -> None:
    for curve in ([], [-1.0], [-2.0] * 40, [-3.0, nan, -1.0]):
        assert isnan(metrics.value_order_correlation(curve)), curve
    unseen = np.linspace(-3, -1, 40)
    unseen[1] = nan  # not one of the 15
    assert metrics.value_order_correlation(unseen) == pytest.approx(1)


def test_the_static_range_is_told_beside_the_static_voc() -> None:
    sweep = metrics.static_sweep([-5.0, -4.9, -4.8], [-5.0, -3.0, -1.0])
    assert (sweep.voc, sweep.range, sweep.share) == pytest.approx((1.0, 0.2, 0.05))
    best = metrics.static_sweep([-5.0, -5.0], [-5.0, -1.0])
    assert isnan(best.voc) and best.range == best.share == 0
    assert isnan(metrics.static_sweep([-5.0, -4.0], [-3.0, -3.0]).share)
    assert isnan(metrics.static_sweep([], [-3.0]).range)


def test_false_progress_is_the_change_within_the_freeze_per_10_s() -> None:
    seconds, progress = np.arange(0, 21, 2.5), np.array([0, 0.1, 0.2, 0.3, 0.35, 0.4, 0.4, 0.9, 1])
    assert metrics.false_progress(seconds, progress, 5, 15) == pytest.approx(0.2)
    assert metrics.false_progress(seconds, progress[::-1], 5, 10) == pytest.approx((0.35 - 0.4) * 2)
    assert isnan(metrics.false_progress(seconds, progress, 5, 7))  # one prefix
    progress[2] = nan
    assert isnan(metrics.false_progress(seconds, progress, 5, 15))
    with pytest.raises(ValueError, match="times must rise"):
        metrics.false_progress([0, 2, 1], [0, 0, 0], 0, 2)


# ---- successes against failures -----------------------------------------------------------------------


def test_auc_is_the_share_of_pairs_in_which_the_success_scores_higher() -> None:
    rng = drawn()
    successes, failures = rng.integers(2, 8, 30), rng.integers(0, 6, 20)  # many ties
    pairs = [(s > f) + 0.5 * (s == f) for s, f in product(successes, failures)]
    auc = metrics.roc_auc(successes, failures)
    assert auc == pytest.approx(np.mean(pairs))
    labels = [1] * 30 + [0] * 20
    assert auc == pytest.approx(sklearn_metrics.roc_auc_score(labels, [*successes, *failures]))
    assert auc == pytest.approx(stats.mannwhitneyu(successes, failures).statistic / 600)
    assert metrics.roc_auc([-1.0], [-inf]) == 1.0
    assert isnan(metrics.roc_auc([], [0.1])) and isnan(metrics.roc_auc([0.1], []))


def test_the_interval_of_the_auc_is_that_of_a_bootstrap_within_each_outcome() -> None:
    rng = drawn(1)
    successes, failures = rng.normal(1, 1, 40), rng.normal(0, 1, 30)
    interval = metrics.roc_auc_interval(successes, failures)
    theirs = stats.bootstrap(
        (successes, failures),
        metrics.roc_auc,
        vectorized=False,
        n_resamples=1000,
        method="percentile",
        rng=rng,
    ).confidence_interval
    assert (interval.low, interval.high) == pytest.approx((theirs.low, theirs.high), abs=0.015)
    assert interval == metrics.roc_auc_interval(successes, failures)
    assert interval != metrics.roc_auc_interval(successes, failures, seed=1)


def test_an_auc_of_one_is_not_certain() -> None:
    """With 10 + 10 episodes the bound solves 1 - a = z sqrt(Var(a)), here put in by hand."""
    interval = metrics.roc_auc_interval(np.arange(10, 20), np.arange(10))
    a = interval.low
    variance = a * (1 - a) / 100 * (1 + 9 * (1 - a) / (2 - a) + 9 * a / (1 + a))
    assert 1 - a == pytest.approx(1.959964 * variance**0.5, rel=1e-5)
    assert 0.8 < a < 0.9 and interval.high == 1
    mirrored = metrics.roc_auc_interval(np.arange(10), np.arange(10, 20))
    assert (mirrored.low, mirrored.high) == pytest.approx((0, 1 - a))
    assert not metrics.roc_auc_interval([2.0], [1.0]).is_known
    assert not metrics.roc_auc_interval([], [1.0, 2.0]).is_known


def test_an_auc_of_few_has_an_interval_whatever_it_is() -> None:
    for successes in ([2.0, 4.0], [0.0, 2.0], [0.0, 0.5], [1.0, 1.0], [3.0, 0.0]):
        auc, interval = (made(successes, [1.0, 3.0]) for made in (metrics.roc_auc, metrics.roc_auc_interval))
        assert 0 <= interval.low <= auc <= interval.high <= 1 and interval.high - interval.low > 0.5
    level = metrics.roc_auc_interval([1.0] * 9, [1.0] * 9)
    assert level.low == pytest.approx(1 - level.high) and 0.1 < level.low < 0.4


def test_precision_and_recall_are_those_of_scikit_learn() -> None:
    rng = drawn(2)
    successes, failures = rng.integers(3, 10, 25), rng.integers(0, 7, 35)
    made = metrics.decisions_at(5, successes, failures)
    truth = np.array([1] * 25 + [0] * 35)
    called = np.concatenate([successes, failures]) >= 5
    assert made.precision == pytest.approx(sklearn_metrics.precision_score(truth, called))
    assert made.recall == pytest.approx(sklearn_metrics.recall_score(truth, called))
    counts = sklearn_metrics.confusion_matrix(truth, called).ravel().tolist()
    assert [made.rejections, made.false_alarms, made.misses, made.hits] == counts
    exact = stats.binomtest(made.hits, 25).proportion_ci(0.95, "exact")
    recall = made.recall_interval()
    assert (recall.low, recall.high) == pytest.approx((exact.low, exact.high))
    exact = stats.binomtest(made.false_alarms, made.false_alarms + made.hits).proportion_ci(0.95, "exact")
    assert made.precision_interval().high == pytest.approx(1 - exact.low)
    assert made.false_alarm_interval(0.5).low < made.false_alarm_rate < made.false_alarm_interval(0.5).high


def test_a_ratio_of_none_is_nan() -> None:
    nothing = metrics.decisions_at(9, [], [1.0])
    assert isnan(nothing.recall) and isnan(nothing.precision) and nothing.false_alarm_rate == 0
    assert isnan(metrics.decisions_at(0, [1.0], []).false_alarm_rate)
    assert not nothing.recall_interval().is_known


def test_delays_leave_out_what_never_came_and_say_how_many() -> None:
    events, truths = [1.5, None, nan, 9.0, 4.0, 3.0, 2.5], [1.0, 2.0, 3.0, 4.0, 3.0, 4.0, 4.0]
    delays = metrics.detection_delays(events, truths)
    since = [0.5, 5, 1, -1, -1.5]
    assert (delays.median, delays.p95) == pytest.approx((0.5, np.percentile(since, 95)))
    assert (delays.detected, delays.missed, delays.early) == (
        5,
        2,
        1,
    )  # a second is how well people press a key
    never = metrics.detection_delays([None, nan], [1.0, 2.0])
    assert isnan(never.median) and isnan(never.p95) and (never.detected, never.missed) == (0, 2)
    assert metrics.detection_delays([], []).missed == 0


def test_false_alarms_are_counted_per_hour_with_an_exact_interval() -> None:
    rate = metrics.false_alarms_per_hour(3, 2 * 3600.0)
    assert rate.per_hour == 1.5
    exact = stats.chi2.ppf(0.025, 6) / 4, stats.chi2.ppf(0.975, 8) / 4
    assert (rate.interval.low, rate.interval.high) == pytest.approx(exact)
    nothing = metrics.false_alarms_per_hour(0, 0.0)
    assert isnan(nothing.per_hour) and not nothing.interval.is_known
    with pytest.raises(ValueError, match="make no rate"):
        metrics.false_alarms_per_hour(1, -1.0)


# ---- calibration --------------------------------------------------------------------------------------


def test_the_calibration_error_weighs_bins_by_what_falls_into_them() -> None:
    """Two bins: (0.8, 0.9] of three with a mean of 0.88 and two successes, (0, 0.1] of one that failed."""
    error = metrics.expected_calibration_error([0.9, 0.85, 0.89, 0.1], [True, True, False, False])
    assert error == pytest.approx(3 / 4 * (0.88 - 2 / 3) + 1 / 4 * 0.1)


def test_the_calibration_error_has_the_bins_of_scikit_learn() -> None:
    calibration = pytest.importorskip("sklearn.calibration")
    rng = drawn(3)
    stated = np.round(rng.random(200), 1)  # many on the edges
    happened = rng.random(200) < stated**2
    shares, means = calibration.calibration_curve(happened, stated, n_bins=10)
    counts = np.bincount(np.searchsorted(np.linspace(0, 1, 11)[1:-1], stated), minlength=10)
    expected = np.average(np.abs(shares - means), weights=counts[counts > 0])
    assert metrics.expected_calibration_error(stated, happened) == pytest.approx(expected)


def test_what_is_right_has_a_calibration_error_by_chance_alone() -> None:
    """Of four episodes at 0.5, 0 to 4 succeed; mean of |k / 4 - 0.5|, with the binomial weights."""
    expected = (2 * 0.5 + 8 * 0.25) / 16
    assert metrics.calibration_error_by_chance([0.5] * 4) == pytest.approx(expected, abs=0.01)
    assert metrics.calibration_error_by_chance([0.0, 1.0, 1.0]) == 0
    assert isnan(metrics.calibration_error_by_chance([]))
    assert isnan(metrics.expected_calibration_error([], []))


# ---- instructions and tasks -----------------------------------------------------------------------------


def test_instruction_sensitivity_compares_pair_by_pair() -> None:
    made = metrics.instruction_sensitivity([-1.0, -2.0, -3.0, -4.0], [-2.0, -2.0, -9.0, -3.5])
    assert (made.share, made.difference, made.videos) == (2.5 / 4, (1 + 0 + 6 - 0.5) / 4, 4)
    nothing = metrics.instruction_sensitivity([], [])
    assert isnan(nothing.share) and isnan(nothing.difference) and nothing.videos == 0


def test_attempts_are_ranked_within_their_tasks() -> None:
    scores = [0.9, 0.4, 0.6, 0.5, 0.1, 0.8, 0.7]
    grades = [3, 2, 3, 1, 1, 2, 3]
    tasks = ["open", "open", "open", "open", "close", "close", "push"]  # push has one grade alone
    made = metrics.rank_attempts(scores, grades, tasks)
    # open: 0.9 and 0.6 over 0.4 and over 0.5, but 0.4 not over 0.5; close: 0.8 over 0.1
    assert made.by_task == pytest.approx({"open": 4 / 5, "close": 1.0})
    assert (made.accuracy, made.pairs) == (pytest.approx(5 / 6), 6)
    # open: for each of two choices of a 3, the pairs (1, 3), (2, 3) agree, (1, 2) does not: 1/3; close: 1
    assert made.kendall_tau == pytest.approx((1 / 3 + 1) / 2)
    assert made.margin == pytest.approx((0.75 - 0.5 + 0.8 - 0.1) / 2)


def test_kendalls_tau_is_the_mean_over_every_choice_of_one_attempt_per_grade() -> None:
    rng = drawn(4)
    scores, grades = rng.random(24), rng.integers(0, 4, 24)
    groups = [scores[grades == grade] for grade in range(4)]
    taus = [stats.kendalltau(range(4), choice).statistic for choice in product(*groups)]
    made = metrics.rank_attempts(scores, grades, ["open"] * 24)
    assert made.kendall_tau == pytest.approx(np.mean(taus))


def test_what_cannot_be_ranked_is_nan() -> None:
    made = metrics.rank_attempts([0.1, 0.9], [1, 1], ["open", "open"])
    assert isnan(made.accuracy) and isnan(made.kendall_tau) and isnan(made.margin)
    assert (made.pairs, made.by_task) == (0, {})


def test_tasks_are_confused_where_a_wrong_instruction_scores_high() -> None:
    instructions = ["open", "open", "open", "close", "close", "push"]
    videos = ["open", "open", "close", "close", "open", "push"]
    made = metrics.confuse_tasks(instructions, videos, [0.9, 0.7, 0.3, 0.6, 0.1, 1.0])
    assert made.tasks == ("close", "open", "push")
    expected = [[0.6, 0.1, nan], [0.3, 0.8, nan], [nan, nan, 1.0]]
    assert np.allclose(made.progress, expected, equal_nan=True)
    assert (made.own, made.other, made.missing) == (pytest.approx(0.8), pytest.approx(0.2), 4)
    assert made.difference == pytest.approx(0.6)
    nothing = metrics.confuse_tasks([], [], [])
    assert nothing.tasks == () and isnan(nothing.own) and isnan(nothing.difference)


# ---- what is no number ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: metrics.roc_auc([0.1, nan], [0.2]), "success number 2 of 2 is NaN"),
        (lambda: metrics.roc_auc_interval([0.1], [nan]), "failure number 1 of 1 is NaN"),
        (lambda: metrics.ranks([[1, 2]]), r"not the shape \(1, 2\)"),
        (lambda: metrics.decisions_at(nan, [1], [0]), "threshold is NaN"),
        (lambda: metrics.count_decisions([nan], []), "True or False, and nan is neither"),
        (lambda: metrics.count_decisions([True], [None]), "True or False, and None is neither"),
        (lambda: metrics.detection_delays([1.0], [nan]), "true success number 1 of 1 is NaN"),
        (lambda: metrics.detection_delays([inf], [1.0]), "say None"),
        (lambda: metrics.detection_delays([1.0, 2.0], [1.0]), "do not belong together"),
        (lambda: metrics.expected_calibration_error([1.5], [True]), "1.5 does not"),
        (lambda: metrics.expected_calibration_error([0.5], [nan]), "True or False"),
        (lambda: metrics.expected_calibration_error([0.5, 0.5], [True]), "do not belong together"),
        (lambda: metrics.expected_calibration_error([0.5], [True], bins=0), "0 bins"),
        (lambda: metrics.instruction_sensitivity([1.0], [1.0, 2.0]), "make no pairs"),
        (lambda: metrics.rank_attempts([1.0], [1, 2], ["open"]), "do not belong together"),
        (lambda: metrics.confuse_tasks(["open"], [], [0.5]), "are no videos"),
    ],
)
def test_what_is_no_number_is_refused_with_a_sentence(call: object, sentence: str) -> None:
    assert callable(call)
    with pytest.raises(ValueError, match=sentence):
        call()
