"""When success fires, and when it must not."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from math import isfinite, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topreward_ros.core.events import SuccessDetector, SuccessSettings
from topreward_ros.core.frames import NS_PER_S

SETTINGS = SuccessSettings(threshold=-0.22, hysteresis=0.5, dwell=2.0, min_scores=3, smoothing=3)
LOW, MIDDLE, HIGH = -5.0, -0.5, -0.01  # below the lower threshold, between both, above the upper


def fire_times(
    scores: list[float], settings: SuccessSettings = SETTINGS, period_s: float = 0.5
) -> list[float]:
    detector = SuccessDetector(settings)
    return [k * period_s for k, r in enumerate(scores) if detector.add(int(k * period_s * NS_PER_S), r)]


def bare(**changes: float) -> SuccessSettings:
    """Threshold and hysteresis only."""
    values = {"threshold": -0.22, "hysteresis": 0.5, "dwell": 0.0, "min_scores": 1, "smoothing": 1}
    return SuccessSettings(**{**values, **changes})  # type: ignore[arg-type]


def test_fires_once_after_rise_and_dwell() -> None:
    # smoothing 3 needs -5 -> -0.22: five halvings of 4.99; up from the fifth high score on (3.5 s), then 2 s
    times = fire_times([LOW] * 3 + [HIGH] * 30)
    assert times == [pytest.approx(3.5 + 2.0, abs=0.01)]


def test_never_fires_when_already_true_at_the_start() -> None:
    assert fire_times([HIGH] * 50) == []
    assert fire_times([HIGH] * 10 + [MIDDLE] * 10 + [HIGH] * 50) == []  # never was below the lower threshold


def test_arms_once_it_was_below() -> None:
    assert len(fire_times([HIGH] * 10 + [LOW] * 5 + [HIGH] * 50)) == 1


@pytest.mark.parametrize(
    "low", [[LOW], [LOW, LOW], [LOW, HIGH, LOW, HIGH, LOW], [-50.0], [LOW, LOW, nan, LOW]]
)
def test_a_few_low_scores_do_not_arm(low: list[float]) -> None:
    """Three in a row do; the average that one very low score leaves behind does not count."""
    assert fire_times([HIGH] * 10 + low + [HIGH] * 50, bare(min_scores=3, smoothing=3)) == []


def test_low_scores_around_a_gap_do_not_arm_together() -> None:
    detector = SuccessDetector(bare(min_scores=3), period_s=0.5)
    for stamp_s, score in [(0, LOW), (0.5, LOW), (60, LOW), *((60.5 + k / 2, HIGH) for k in range(20))]:
        assert not detector.add(round(stamp_s * NS_PER_S), score)


def test_one_noisy_score_does_not_fire() -> None:
    assert fire_times([LOW] * 10 + [HIGH] + [LOW] * 30, bare(smoothing=3)) == []


def test_subgoal_shorter_than_the_dwell_does_not_fire() -> None:
    assert fire_times([LOW] * 5 + [HIGH] * 4 + [LOW] * 5, bare(dwell=2.0)) == []
    assert fire_times([LOW] * 5 + [HIGH] * 5 + [LOW] * 5, bare(dwell=2.0)) == [4.5]


@pytest.mark.parametrize("below", [MIDDLE, LOW, -0.2201, nan, float("-inf"), float("inf")])
def test_one_score_below_the_threshold_starts_the_dwell_anew(below: float) -> None:
    scores = [LOW] * 3 + [HIGH] * 3 + [below] + [HIGH] * 5
    assert fire_times(scores, bare(dwell=2.0)) == [5.5]


def test_hovering_at_the_threshold_is_no_dwell() -> None:
    assert fire_times([LOW] * 3 + [HIGH, MIDDLE] * 50, bare(dwell=2.0)) == []
    assert (
        fire_times([LOW] * 3 + [-0.02, -0.6] * 50) == []
    )  # the average crosses the threshold at every score
    assert (
        fire_times([LOW] * 3 + [HIGH] + [-0.598] * 114 + [HIGH] * 2, bare(dwell=2.0)) == []
    )  # 57 s at p = 0.55


def dwelling(detector: SuccessDetector, stamps_s: list[float], score: float = HIGH) -> list[bool]:
    return [detector.add(round(stamp_s * NS_PER_S), score) for stamp_s in stamps_s]


@pytest.mark.parametrize("gap_s", [2.1, 6.0, 3600.0])
def test_a_gap_starts_the_dwell_anew(gap_s: float) -> None:
    detector = SuccessDetector(bare(dwell=2.0, min_scores=3), period_s=0.5)
    dwelling(detector, [0.0, 0.5, 1.0], LOW)
    assert not any(dwelling(detector, [1.5, 2.0]))
    again = 2.0 + gap_s
    assert dwelling(detector, [again]) == [False]
    assert detector.broken_off == f"no score for {gap_s:.1f} s"
    assert dwelling(detector, [again + k / 2 for k in range(1, 5)]) == [False, False, False, True]


def test_missing_scores_are_no_gap() -> None:
    detector = SuccessDetector(bare(dwell=2.0, min_scores=3), period_s=0.5)
    dwelling(detector, [0.0, 0.5, 1.0], LOW)
    assert dwelling(detector, [1.5, 2.0, 3.5, 4.0]) == [False, False, True, False]


def test_a_stamp_far_ahead_and_one_that_goes_back_start_the_dwell_anew() -> None:
    detector = SuccessDetector(bare(dwell=2.0, min_scores=3), period_s=0.5)
    dwelling(detector, [0.0, 0.5, 1.0], LOW)
    assert not any(dwelling(detector, [1.5, 2.0, 3602.0, 2.5, 3.0, 3.5, 4.0]))
    assert dwelling(detector, [4.5]) == [True]


@pytest.mark.parametrize("pace_s", [0.5, 3.0, 20.0])
def test_a_scorer_that_is_slower_than_the_frames_has_its_own_pace(pace_s: float) -> None:
    detector = SuccessDetector(bare(dwell=2.0, min_scores=3), period_s=0.5)
    dwelling(detector, [k * pace_s for k in range(4)], LOW)
    assert any(dwelling(detector, [k * pace_s for k in range(4, 10)]))


def test_a_scorer_that_becomes_slower_can_still_succeed() -> None:
    detector = SuccessDetector(bare(dwell=2.0, min_scores=3), period_s=0.5)
    dwelling(detector, [k / 2 for k in range(20)], LOW)
    assert any(dwelling(detector, [10 + k * 5 for k in range(1, 8)]))


def test_a_single_gap_is_not_taken_for_the_pace() -> None:
    detector = SuccessDetector(bare(dwell=2.0, min_scores=3), period_s=0.5)
    dwelling(detector, [0.0, 0.5, 60.0, 60.5, 61.0, 61.5], LOW)
    assert not any(dwelling(detector, [62.0, 62.5, 72.5]))
    assert detector.broken_off == "no score for 10.0 s"


def test_an_interruption_starts_the_dwell_and_the_arming_anew() -> None:
    detector = SuccessDetector(bare(dwell=1.0, min_scores=2))
    dwelling(detector, [0.0], LOW)
    detector.interrupt("the picture jumped")
    dwelling(detector, [0.5], LOW)
    assert not detector.armed and detector.broken_off == ""
    dwelling(detector, [1.0], LOW)
    assert dwelling(detector, [1.5, 2.0]) == [False, False]
    detector.interrupt("the picture jumped")
    assert detector.broken_off == "the picture jumped"
    assert dwelling(detector, [2.5, 3.0, 3.5]) == [False, False, True]


def test_the_text_says_what_was_true() -> None:
    detector = SuccessDetector(bare(dwell=1.0))
    for k, score in enumerate([LOW, -0.1, -0.21, -0.05]):
        detector.add(k * NS_PER_S // 2, score)
    assert detector.success_text() == (
        "log-probability -0.050 nat, at or above -0.22 nat for 1.0 s in 3 scores, none below "
        "-0.210 nat; it had been below -0.72 nat"
    )


def changed(detector: SuccessDetector, **changes: float) -> None:
    detector.settings = replace(detector.settings, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("changes", [{"threshold": -0.3}, {"threshold": -0.2}, {"hysteresis": 0.1}])
def test_another_threshold_starts_the_dwell_anew_and_says_so(changes: dict[str, float]) -> None:
    detector = SuccessDetector(bare(dwell=1.0))
    dwelling(detector, [0.0], LOW)
    dwelling(detector, [0.5, 1.0], -0.1)
    changed(detector, **changes)
    assert dwelling(detector, [1.5], -0.1) == [False]
    (name,) = changes
    assert detector.broken_off.startswith(f"success_{name} was changed from ")
    assert dwelling(detector, [2.0, 2.5], -0.1) == [False, True] and not detector.broken_off
    assert "for 1.0 s in 3 scores" in detector.success_text()


def test_another_dwell_or_the_same_settings_again_break_nothing_off() -> None:
    detector = SuccessDetector(bare(dwell=5.0))
    dwelling(detector, [0.0], LOW)
    dwelling(detector, [0.5, 1.0])
    changed(detector, dwell=1.0)
    changed(detector)
    assert dwelling(detector, [1.5]) == [True]


def test_what_breaks_it_off_between_two_scores_is_told_with_the_next() -> None:
    detector = SuccessDetector(bare(dwell=1.0))
    dwelling(detector, [0.0], LOW)
    dwelling(detector, [0.5, 1.0])
    detector.break_off("another publisher")
    assert dwelling(detector, [1.5]) == [False] and detector.broken_off == "another publisher"
    assert dwelling(detector, [2.0, 2.5]) == [False, True] and not detector.broken_off


def test_it_is_armed_by_the_threshold_in_force() -> None:
    detector = SuccessDetector(bare(dwell=1.0, min_scores=2))
    dwelling(detector, [0.0, 0.5, 1.0, 1.5], -4.0)
    assert detector.armed
    changed(detector, threshold=-6.0)
    assert not detector.armed, "nothing was below -6.5 nat"
    assert not any(dwelling(detector, [2.0 + k / 2 for k in range(10)], -4.0))
    changed(detector, threshold=-2.0)
    assert detector.armed, "what was seen is still known"
    assert dwelling(detector, [7.0, 7.5, 8.0], -1.0) == [False, False, True]
    assert detector.success_text().endswith("it had been below -2.5 nat")


def test_the_text_says_that_the_start_was_low_where_no_score_was() -> None:
    detector = SuccessDetector(bare(dwell=1.0, min_scores=2))
    fired = [detector.add(k * NS_PER_S // 2, -0.1, -8.0) for k in range(4)]
    assert fired == [False, False, False, True]  # armed with the second reading
    assert detector.success_text().endswith("the first frame, held still, had been below -0.72 nat")


def test_needs_enough_scores_whatever_the_time() -> None:
    assert fire_times([LOW] * 3 + [HIGH] * 3, bare(min_scores=3), period_s=60.0) == [300.0]


def test_zero_threshold_never_fires() -> None:
    assert fire_times([LOW] * 3 + [0.0] * 50, bare(threshold=0.0)) == []


@given(
    scores=st.lists(st.floats(-10.0, 0.0) | st.just(nan), max_size=80),
    threshold=st.floats(-5.0, -0.01),
    hysteresis=st.floats(0.0, 3.0),
    dwell=st.floats(0.0, 5.0),
    min_scores=st.integers(1, 6),
    smoothing=st.integers(1, 8),
)
def test_it_fires_where_every_rule_allows_it_and_only_there(
    scores: list[float], threshold: float, hysteresis: float, dwell: float, min_scores: int, smoothing: int
) -> None:
    settings = SuccessSettings(threshold, hysteresis, dwell, min_scores, smoothing)
    detector = SuccessDetector(settings)
    fired, smoothed = [], []
    for k, r in enumerate(scores):
        if detector.add(k * NS_PER_S // 2, r):
            fired.append(k)
        smoothed.append(detector.smoothed if isfinite(r) else nan)

    def in_a_row(k: int, holds: Callable[[int], bool]) -> int:
        """How many scores up to the k-th, without a break."""
        return next((n for n in range(k + 1) if not holds(k - n)), k + 1)

    allowed, armed_at = [], None
    for k in range(len(scores)):
        low = in_a_row(k, lambda i: max(smoothed[i], scores[i]) < settings.lower_threshold)
        if armed_at is None and low >= min_scores:
            armed_at = k
        if armed_at is None:
            continue
        up = min(in_a_row(k, lambda i: smoothed[i] >= threshold), k - armed_at + (hysteresis == 0.0))
        if up >= max(1, min_scores) and (up - 1) / 2 >= dwell:
            allowed.append(k)
    assert fired == allowed[:1]


@given(
    steps=st.lists(
        st.sampled_from([-4.0, -2.0, -0.9, -0.3, -0.1, 0.0])
        | st.fixed_dictionaries({"threshold": st.sampled_from([-3.0, -1.0, -0.2])})
        | st.fixed_dictionaries({"hysteresis": st.sampled_from([0.0, 0.5])}),
        max_size=40,
    )
)
def test_whatever_is_changed_the_text_is_true(steps: list[float | dict[str, float]]) -> None:
    detector = SuccessDetector(bare(dwell=1.0, min_scores=2))
    scores: list[float] = []
    for step in steps:
        if isinstance(step, dict):
            changed(detector, **step)
            continue
        scores.append(step)
        if detector.add(len(scores) * NS_PER_S // 2, step):
            assert all(score >= detector.settings.threshold for score in scores[-3:])
            lower = detector.settings.lower_threshold
            assert any(max(pair) < lower for pair in pairwise(scores[:-3]))
