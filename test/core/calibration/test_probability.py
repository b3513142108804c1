"""Probabilities from scores, compared with scikit-learn and scipy."""

from __future__ import annotations

import numpy as np
import pytest

from topreward_ros.core.calibration.curves import log_odds, log_prob_of
from topreward_ros.core.calibration.probability import (
    Kind,
    fit_probability,
    isotonic,
    kind_for,
    logistic_fit,
    surest,
)


def test_isotonic_is_that_of_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.isotonic")
    rng = np.random.default_rng(3)
    values = np.round(rng.normal(0, 2, 120), 1)  # with ties
    targets = (rng.random(120) < 1 / (1 + np.exp(-values))).astype(float)
    places, fitted = isotonic(values, targets)
    theirs = sklearn.IsotonicRegression(out_of_bounds="clip").fit(values, targets)
    queries = np.linspace(-6, 6, 301)
    assert np.interp(queries, places, fitted) == pytest.approx(theirs.predict(queries), abs=1e-9)


def test_the_logistic_curve_is_the_one_of_least_cross_entropy() -> None:
    scipy = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(4)
    values = rng.normal(1, 3, 40)
    targets = np.where(rng.random(40) < 1 / (1 + np.exp(1 - values)), 21 / 22, 1 / 22)

    def loss(weights: np.ndarray) -> float:
        z = weights[0] * values + weights[1]
        return float((np.logaddexp(0, z) - targets * z).sum())

    best = scipy.minimize(loss, [0.0, 0.0], method="BFGS", options={"gtol": 1e-9}).x
    assert logistic_fit(values, targets) == pytest.approx(tuple(best), abs=1e-5)


@pytest.mark.parametrize("each", [2, 3, 9, 10, 49, 50, 80])
@pytest.mark.parametrize("apart", [0.01, 11.0])
def test_separated_classes_make_no_certainty(each: int, apart: float) -> None:
    """Whatever the score: one that is far beyond all that were seen, too."""
    ends = [*np.linspace(-5.0, -4.9, each), *np.linspace(-4.9 + apart, -4.8 + apart, each)]
    fitted = fit_probability(ends, [False] * each + [True] * each, kind_for(each, each))
    assert fitted is not None
    low, high = surest(each, each)
    values = [fitted.of(log_prob_of(odds)) for odds in (-14.0, *ends, 14.0)]
    assert low <= min(values) < 0.5 < max(values) <= high
    assert (low, high) == pytest.approx((0.5 / (each + 1), 1 - 0.5 / (each + 1)))


def test_more_episodes_come_nearer_to_certainty() -> None:
    highest = []
    for each in (2, 3, 5, 9, 10, 20, 49, 50, 100):
        fitted = fit_probability(
            [-5.0] * each + [6.0] * each, [False] * each + [True] * each, kind_for(each, each)
        )
        assert fitted is not None
        highest.append(fitted.of(log_prob_of(6.0)))
        assert fitted.of(log_prob_of(-5.0)) == pytest.approx(1 - highest[-1], abs=1e-3)
    assert highest == sorted(highest) and highest[0] < 0.85 and highest[-1] > 0.99


def test_few_scores_that_lie_close_say_little() -> None:
    """Two of each, a tenth of a nat apart: a coin has that one time of six."""
    fitted = fit_probability([-3.18, -3.19, -3.08, -3.07], [False, False, True, True], Kind.ANCHORS)
    assert fitted is not None
    values = [fitted.of(log_prob_of(odds)) for odds in (-3.18, -3.08)]
    assert 0.4 < values[0] < 0.5 < values[1] < 0.6


def test_one_odd_score_at_the_end_of_many_says_little() -> None:
    rng = np.random.default_rng(6)
    odds, success = rng.normal(0.0, 1.0, 200), rng.random(200) < 0.5
    success[[odds.argmin(), odds.argmax()]] = False, True
    fitted = fit_probability(odds.tolist(), success.tolist(), Kind.ISOTONIC)
    assert fitted is None or (fitted.probability[0] > 0.05 and fitted.probability[-1] < 0.95)


@pytest.mark.parametrize("kind", Kind)
def test_a_higher_score_is_no_less_likely(kind: Kind) -> None:
    rng = np.random.default_rng(5)
    ends = [*rng.normal(-2, 2, 60), *rng.normal(3, 2, 60)]
    fitted = fit_probability(ends, [False] * 60 + [True] * 60, kind)
    assert fitted is not None
    values = [fitted.of(log_prob_of(odds)) for odds in np.linspace(-14, 14, 200)]
    assert values == sorted(values) and values[0] < 0.1 and values[-1] > 0.9
    assert np.isnan(fitted.of(float("nan")))


@pytest.mark.parametrize("kind", Kind)
def test_a_score_that_says_the_opposite_has_no_map(kind: Kind) -> None:
    assert fit_probability([3.0, 2.0, 2.5, -4.0, -3.0], [False, False, False, True, True], kind) is None
    assert fit_probability([1.0, 1.0, 1.0, 1.0], [False, True, False, True], kind) is None


def test_how_much_data_is_enough_for_what() -> None:
    assert [kind_for(9, 50), kind_for(10, 10), kind_for(50, 49), kind_for(50, 50)] == [
        Kind.ANCHORS,
        Kind.PLATT,
        Kind.PLATT,
        Kind.ISOTONIC,
    ]


def test_log_odds_and_back() -> None:
    for log_prob in (-13.0, -3.0, -0.22, -1e-3, -1e-6):
        assert log_prob_of(log_odds(log_prob)) == pytest.approx(log_prob, rel=1e-6)
