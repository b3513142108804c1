"""What each detector finds, what it lets pass, and what a monitor makes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf, isnan, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topreward_ros.core.detectors.covered import CoveredDetector
from topreward_ros.core.detectors.failure import (
    ConformalBand,
    FailureDetector,
    FailureSettings,
    fewest_successes,
)
from topreward_ros.core.detectors.frozen import FrozenDetector
from topreward_ros.core.detectors.of_progress import ProgressDetectors, ProgressSettings
from topreward_ros.core.detectors.regression import LIMIT, SLACK, RegressionDetector, RegressionSettings
from topreward_ros.core.detectors.sample import Finding, Sample
from topreward_ros.core.detectors.stall import StallDetector, StallSettings
from topreward_ros.core.events import EventType
from topreward_ros.core.frames import NS_PER_S
from topreward_ros.core.outputs import Reward, State
from topreward_ros.core.pictures import examine

from .monitors import SETTINGS as MONITOR_SETTINGS
from .robots import LIVELY, PIXEL, SETTINGS, SIZE, Robot
from .scenes import flat, lit, scene

STALL = StallSettings(after=10.0, rise=0.1, slope=0.02, nominal_duration=0.0)
REGRESSION = RegressionSettings(sigma=0.01, dwell=3.0)
RULE = FailureSettings(threshold=0.2, after=10.0, dwell=2.0)
#: Neither STALL nor REGRESSION nor FAILURE.
OFF: ProgressSettings = MONITOR_SETTINGS.progress
BAND = ConformalBand((0.0, 10.0, 20.0), (0.0, 0.2, 0.8), successes=19)


def found_at(
    update: Callable[[Sample], Finding | None], progress: Sequence[float], period_s: float = 0.5
) -> list[float]:
    """The times [s] at which a detector finds something."""
    times = [k * period_s for k in range(len(progress))]
    return [t for t, p in zip(times, progress, strict=True) if update(Sample(round(t * NS_PER_S), t, p))]


# ---- STALL ---------------------------------------------------------------------------------------------


def test_a_robot_that_never_begins_is_stalled_once() -> None:
    detector = StallDetector(STALL)
    assert found_at(detector.update, [0.0, 0.02] * 60) == [10.0]
    assert detector.stalled


@pytest.mark.parametrize("rate", [1, 3, 7, 10, 15, 30])
def test_the_first_score_after_the_patience_finds_the_stall_at_any_rate(rate: int) -> None:
    stamps = [round(k * NS_PER_S / rate) for k in range(12 * rate)]
    detector = StallDetector(STALL)
    found = [ns for ns in stamps if detector.update(Sample(ns, ns / NS_PER_S, 0.0))]
    assert found == [next(ns for ns in stamps if ns >= 10 * NS_PER_S)]


def test_progress_that_goes_on_is_no_stall_however_slow() -> None:
    detector = StallDetector(STALL)
    assert found_at(detector.update, list(np.linspace(0, 1, 180))) == []  # 90 s


def test_drift_while_nothing_happens_is_a_stall_and_not_progress() -> None:
    """Some models read a little more the longer a still picture lasts."""
    drifting = [0.0, 0.2, 0.4, *np.linspace(0.4, 0.49, 60)]
    assert found_at(StallDetector(STALL).update, drifting) == [11.0]


def test_a_second_attempt_after_a_fall_is_no_stall_though_it_makes_no_new_best() -> None:
    up = [*np.linspace(0, 0.8, 10), 0.1, *np.linspace(0.1, 0.75, 24)]
    assert found_at(StallDetector(STALL).update, up) == []
    held = [*np.linspace(0, 0.8, 10), *[0.1] * 25]
    assert found_at(StallDetector(STALL).update, held) == [14.0]


def test_a_second_attempt_after_a_sudden_drop_is_no_stall_at_any_rate() -> None:
    """Of the time before the drop a few scores are still in the window when patience ends."""
    for rate in (1, 2, 10, 30):
        for waits_s in (0.0, 1.5):  # before it drops
            times = np.arange(0.0, 34.0, 1.0 / rate)
            rises = np.minimum(0.9, 0.1 * times)
            again = 0.1 + 0.03 * (times - 9.0 - waits_s)
            progress = np.where(times < 9.0 + waits_s, rises, again)
            assert found_at(StallDetector(STALL).update, list(progress), 1.0 / rate) == [], (rate, waits_s)
            held = np.where(times < 9.0 + waits_s, rises, 0.1)
            assert len(found_at(StallDetector(STALL).update, list(held), 1.0 / rate)) == 1


def test_a_stall_ends_with_progress_and_another_one_may_follow() -> None:
    detector = StallDetector(STALL)
    assert found_at(detector.update, [0.1] * 22) == [10.0] and detector.stalled
    assert found_at(lambda s: detector.update(replace(s, stamp_ns=s.stamp_ns + 11 * NS_PER_S)), [0.25]) == []
    assert not detector.stalled
    later = [(Sample(round((11.5 + k / 2) * NS_PER_S), 0.0, 0.25)) for k in range(30)]
    assert [k for k, sample in enumerate(later) if detector.update(sample)] == [19]  # 10 s after the rise


def test_a_long_task_has_more_patience() -> None:
    patient = replace(STALL, nominal_duration=120.0)
    assert found_at(StallDetector(patient).update, [0.0] * 100) == [30.0]
    assert found_at(StallDetector(replace(STALL, nominal_duration=20.0)).update, [0.0] * 100) == [10.0]
    assert found_at(StallDetector(replace(STALL, after=0.0)).update, [0.0] * 100) == []


def test_what_nobody_saw_counts_little_for_a_stall() -> None:
    """After a pause of an hour two more scores are needed; scores that are not known count nothing."""
    detector = StallDetector(STALL)
    stamps_s = [0.0, 1.0, 3600.0, 3603.0, 3607.0]
    found = [detector.update(Sample(round(t * NS_PER_S), t, 0.3)) for t in stamps_s]
    assert [bool(finding) for finding in found] == [False, False, False, False, True]
    assert found_at(StallDetector(STALL).update, [0.3] * 5 + [nan] * 100) == []


def test_a_stall_that_is_turned_off_ends() -> None:
    detector = StallDetector(STALL)
    found_at(detector.update, [0.3] * 30)
    detector.settings = replace(STALL, after=0.0)
    detector.update(Sample(16 * NS_PER_S, 16.0, 0.3))
    assert not detector.stalled


def test_the_message_of_a_stall_says_which_limit_it_was() -> None:
    for settings, words in (
        (STALL, "stall_after = 10 s"),
        (replace(STALL, nominal_duration=100.0), "quarter"),
    ):
        detector = StallDetector(settings)
        found = [detector.update(Sample(k * NS_PER_S, k, 0.3)) for k in range(30)]
        finding = next(it for it in found if it)
        assert words in finding.message and finding.threshold == settings.patience


# ---- REGRESSION ----------------------------------------------------------------------------------------


def test_a_fall_that_lasts_is_one_regression() -> None:
    fall = [0.1, 0.3, 0.5, 0.5, 0.3, *[0.2] * 20]
    # sqrt: 0.707 - 0.548 = 0.159 - 0.005 > 0.05 at 2 s, for 3 s
    assert found_at(RegressionDetector(REGRESSION).update, fall) == [5.0]


def test_a_dip_that_is_over_soon_is_none() -> None:
    assert found_at(RegressionDetector(REGRESSION).update, [0.5] * 5 + [0.2] * 6 + [0.5] * 20) == []


def test_small_steps_add_up_and_flicker_does_not() -> None:
    creeping = [0.6] * 4 + list(np.linspace(0.6, 0.2, 40))
    assert len(found_at(RegressionDetector(REGRESSION).update, creeping)) == 1
    flicker = 0.5 + 0.014 * np.random.default_rng(0).uniform(
        -1, 1, 20_000
    )  # steps of sqrt: 0.008 in deviation
    assert np.diff(np.sqrt(flicker)).std() == pytest.approx(0.008, abs=0.001)
    assert found_at(RegressionDetector(REGRESSION).update, list(flicker)) == []


def test_what_falls_by_less_than_half_a_sigma_in_a_step_is_no_fall() -> None:
    roots = np.arange(0.9, 0.4, -0.004)  # k is 0.005
    assert found_at(RegressionDetector(REGRESSION).update, list(roots**2)) == []


@pytest.mark.parametrize("rate", [2, 10, 20, 30])
@pytest.mark.parametrize("lasts_s", [5.0, 10.0])
def test_a_retreat_is_a_fall_at_any_rate(rate: int, lasts_s: float) -> None:
    times = np.arange(0.0, 20.0 + lasts_s, 1.0 / rate)
    progress = np.clip(0.9 * (1.0 - (times - 10.0) / lasts_s), 0.0, 0.9)
    found = found_at(RegressionDetector(REGRESSION).update, list(progress), 1.0 / rate)
    assert len(found) == 1 and 13.0 <= found[0] <= 10.0 + lasts_s


@pytest.mark.parametrize("rate", [2, 10, 20, 30])
@pytest.mark.parametrize("lasts_s", [0.0, 0.5])
def test_flicker_is_no_fall_at_any_rate(rate: int, lasts_s: float) -> None:
    """Whether it is new with each score, or lasts; sigma is that of its steps in half a second."""
    stays = np.exp(-1.0 / rate / lasts_s) if lasts_s else 0.0
    deviation = REGRESSION.sigma / np.sqrt(2.0 * (1.0 - (np.exp(-0.5 / lasts_s) if lasts_s else 0.0)))
    level, roots = 0.0, []
    for new in np.random.default_rng(rate).normal(0.0, 1.0, 300 * rate):
        level = stays * level + np.sqrt(1.0 - stays**2) * deviation * new
        roots.append(0.7 + level)
    assert found_at(RegressionDetector(REGRESSION).update, list(np.square(roots)), 1.0 / rate) == []


def test_what_falls_while_it_is_off_is_no_fall_afterwards() -> None:
    detector = RegressionDetector(REGRESSION)
    assert found_at(detector.update, [0.9] * 5) == []
    detector.settings = replace(REGRESSION, sigma=0.0)
    later = [Sample(k * NS_PER_S, k, 0.9 - 0.04 * k) for k in range(3, 20)]
    assert not any(detector.update(sample) for sample in later)
    detector.settings = REGRESSION
    assert not any(detector.update(Sample(k * NS_PER_S, k, 0.14)) for k in range(20, 30))


def test_what_rises_from_its_lowest_may_fall_again() -> None:
    detector = RegressionDetector(replace(REGRESSION, dwell=1.0))
    again = [0.8] * 3 + [0.5] * 4 + [0.05] * 4 + [0.3] * 4 + [0.05] * 4
    assert found_at(detector.update, again) == [2.5, 8.5]


def test_another_fall_is_another_regression_once_progress_has_risen() -> None:
    again = [0.5] * 3 + [0.2] * 10 + [0.5] * 5 + [0.2] * 10
    assert found_at(RegressionDetector(REGRESSION).update, again) == [4.5, 12.0]
    down = [0.8] * 3 + [0.5] * 10 + [0.2] * 20  # all the way down is one
    assert len(found_at(RegressionDetector(REGRESSION).update, down)) == 1


def test_a_fall_behind_scores_that_are_not_known_counts() -> None:
    hidden = [0.5] * 3 + [nan] * 8 + [0.2] * 10
    assert found_at(RegressionDetector(REGRESSION).update, hidden) == [8.5]
    assert found_at(RegressionDetector(replace(REGRESSION, sigma=0.0)).update, [0.5, 0.0] * 20) == []


@given(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=40), st.sampled_from([0.01, 0.05, 0.2]))
def test_it_is_the_cusum_of_the_books(progress: list[float], sigma: float) -> None:
    """The alarm comes where the sum of falls, less its lowest value so far, first exceeds h."""
    falls = -np.diff(np.sqrt(progress)) - SLACK * sigma
    walk = np.concatenate([[0.0], np.cumsum(falls)])
    above = (walk - np.minimum.accumulate(walk))[1:] > LIMIT * sigma + 1e-9
    surely_below = (walk - np.minimum.accumulate(walk))[1:] < LIMIT * sigma - 1e-9
    found = found_at(RegressionDetector(RegressionSettings(sigma, dwell=0.0)).update, progress, 1.0)
    first = int(found[0]) - 1 if found else len(above)
    assert not above[:first].any() and (not found or not surely_below[first])


# ---- FAILURE -------------------------------------------------------------------------------------------


@given(st.floats(0.0, 20.0))
def test_the_band_holds_on_straight_lines(elapsed_s: float) -> None:
    assert BAND.at(elapsed_s) == pytest.approx(np.interp(elapsed_s, BAND.seconds, BAND.lower))


def test_beyond_its_ends_the_band_says_nothing() -> None:
    late = ConformalBand((5.0, 10.0, 20.0), (-inf, 0.2, 0.8), successes=19)
    assert [late.at(t) for t in (4.9, 5.0, 7.0, 10.0, 20.0, 20.1)] == [-inf, -inf, -inf, 0.2, 0.8, -inf]


@pytest.mark.parametrize(
    ("seconds", "lower", "successes", "alpha", "words"),
    [
        ((0.0, 1.0), (0.0, 0.5), 18, 0.05, "needs 19 successful runs, and has 18"),
        ((0.0, 1.0), (0.0, 0.5), 19, 0.04, "needs 24"),
        ((0.0,), (0.0,), 19, 0.05, "two at least"),
        ((0.0, 1.0), (0.0,), 19, 0.05, "as many values as seconds"),
        ((1.0, 1.0), (0.0, 0.5), 19, 0.05, "ascend"),
        ((-1.0, 1.0), (0.0, 0.5), 19, 0.05, "ascend"),
        ((0.0, nan), (0.0, 0.5), 19, 0.05, "ascend"),
        ((0.0, 1.0), (0.0, 1.5), 19, 0.05, "between 0 and 1"),
        ((0.0, 1.0), (0.0, nan), 19, 0.05, "between 0 and 1"),
        ((0.0, 1.0), (0.0, 0.5), 19, 0.0, "alpha"),
    ],
)
def test_what_is_no_band_is_refused(
    seconds: tuple[float, ...], lower: tuple[float, ...], successes: int, alpha: float, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        ConformalBand(seconds, lower, successes, alpha)


def test_the_fewest_successes_are_those_of_the_conformal_quantile() -> None:
    """With n runs the quantile ceil((n + 1) (1 - alpha)) is one of them from this n on."""
    for alpha in (0.01, 0.05, 0.1, 0.2, 0.5):
        fewest = fewest_successes(alpha)
        ranks = {n: np.ceil(round((n + 1) * (1 - alpha), 9)) for n in (fewest - 1, fewest)}
        assert ranks[fewest] <= fewest and ranks[fewest - 1] > fewest - 1


def test_one_score_below_the_band_is_a_failure() -> None:
    detector = FailureDetector(replace(RULE, threshold=0.0, band=BAND))
    assert found_at(detector.update, [0.02, 0.05, 0.1, 0.13, 0.19, 0.09], 2.0) == [10.0]
    assert detector.update(Sample(12 * NS_PER_S, 12.0, 0.0)) is None, "once"


def test_the_band_says_nothing_of_another_start_nor_of_what_is_not_known() -> None:
    detector = FailureDetector(replace(RULE, threshold=0.0, band=BAND))
    assert found_at(detector.update, [nan] * 20) == []
    detector.begin_anew()
    assert found_at(detector.update, [0.0] * 60) == []
    never_low = FailureDetector(replace(RULE, threshold=0.0))
    assert found_at(never_low.update, [0.0] * 200) == [], "never from a low score alone"


def test_the_rule_waits_and_wants_several_scores() -> None:
    assert found_at(FailureDetector(RULE).update, [0.1] * 30) == [10.0]
    assert found_at(FailureDetector(RULE).update, [0.5] * 30 + [0.1] * 5) == [17.0]
    assert found_at(FailureDetector(RULE).update, ([0.1] * 4 + [0.3]) * 20) == []
    assert found_at(FailureDetector(RULE).update, ([0.1] * 4 + [nan]) * 20) == []
    assert found_at(FailureDetector(RULE).update, [0.1] * 4, 20.0) == [40.0], "three at least"


def test_of_a_pause_half_of_the_dwell_counts_at_most() -> None:
    """Nobody saw what happened meanwhile: two low scores before it and three behind it are 3 s, not 21 s."""
    detector = FailureDetector(replace(RULE, dwell=5.0))
    stamps_s = [40.0, 40.5, 60.0, 60.5, 61.0, 61.5, 62.0]
    found = [detector.update(Sample(round(t * NS_PER_S), t, 0.1)) for t in stamps_s]
    assert [bool(finding) for finding in found] == [False] * 6 + [True]
    assert found[-1] is not None and "for 5.0 s in 7 scores" in found[-1].message


def test_the_rule_waits_again_after_a_cut() -> None:
    detector = FailureDetector(RULE)
    assert found_at(detector.update, [0.5] * 30) == []
    detector.begin_anew()
    later = [15.0 + k / 2 for k in range(40)]
    found = [t for t in later if detector.update(Sample(round(t * NS_PER_S), t, 0.1))]
    assert found == [25.0], "10 s after the cut, not 2 s"


def test_where_the_task_failed_nothing_else_is_said() -> None:
    settings = ProgressSettings(
        stall=replace(STALL, after=3.0), regression=replace(REGRESSION, dwell=2.0), failure=RULE
    )
    detectors = ProgressDetectors(replace(settings, failure=replace(RULE, after=3.0, dwell=0.0)))
    samples = [Sample(k * NS_PER_S, k, 0.6 if k == 0 else 0.1) for k in range(5)]
    found = [[finding.kind for finding in detectors.update(sample, sample.progress)] for sample in samples]
    assert found == [[], [], [], [EventType.FAILURE], []]
    detectors = ProgressDetectors(settings)
    found = [[finding.kind for finding in detectors.update(sample, sample.progress)] for sample in samples]
    assert found == [[], [], [], [EventType.STALL, EventType.REGRESSION], []]


@pytest.mark.parametrize(
    ("published", "baseline", "stalls"),
    [(0.01, 0.03, False), (0.05, 0.0, True), (0.05, nan, False)],  # rise per second
)
def test_stall_follows_the_progress_against_the_baseline_whatever_is_published(
    published: float, baseline: float, stalls: bool
) -> None:
    detectors = ProgressDetectors(ProgressSettings(stall=STALL, regression=REGRESSION, failure=OFF.failure))
    found = [
        finding.kind
        for k in range(40)
        for finding in detectors.update(Sample(k * NS_PER_S // 2, k / 2, k * published / 2), k * baseline / 2)
    ]
    assert found == [EventType.STALL] * stalls


def test_a_pause_in_the_scores_is_no_fall_that_lasts() -> None:
    detector = RegressionDetector(REGRESSION)
    assert found_at(detector.update, [0.5] * 4 + [0.2]) == []
    assert detector.update(Sample(60 * NS_PER_S, 60.0, 0.2)) is None, "nobody saw what was between"
    assert detector.update(Sample(120 * NS_PER_S, 120.0, 0.2)) is not None


# ---- COVERED_IMAGES ------------------------------------------------------------------------------------


def test_a_flicker_is_no_cover_and_a_cover_is_told_once() -> None:
    detector = CoveredDetector(2.0)
    flicker = [detector.update(k * NS_PER_S, "dark" * (k % 2)) for k in range(21)]
    assert not any(flicker)
    cover = [(detector.update((21 + k) * NS_PER_S, "dark"), detector.why) for k in range(10)]
    assert [k for k, (finding, _) in enumerate(cover) if finding] == [2]
    stands = "nothing is to be seen for more than 2 s (covered_timeout): dark"
    assert [why for _, why in cover] == ["", "", *[stands] * 8]
    detector.timeout = 0.0
    assert detector.update(40 * NS_PER_S, "dark") is None and not detector.why


# ---- FROZEN_IMAGES -------------------------------------------------------------------------------------

TABLE = scene(size=(96, 128))


def frozen_at(
    pictures: Sequence[np.ndarray], period_s: float = 0.5, timeout: float = 2.0, *, fixed: bool = True
) -> list[tuple[float, bool]]:
    """When a detector fires [s], and whether it is sure."""
    detector = FrozenDetector(timeout, fixed=fixed)
    found = []
    for k, picture in enumerate(pictures):
        if detector.update(round(k * period_s * NS_PER_S), picture, examine(picture)):
            found.append((k * period_s, detector.sure))
    return found


def noisy(count: int, sigma: float, arm: bool = False) -> list[np.ndarray]:
    """What a camera with noise shows, of a robot at rest or of one whose arm moves."""
    places = [k / count if arm else None for k in range(count)]
    return [lit(scene(arm=at, size=(96, 128)), 1.0, sigma, seed=k) for k, at in enumerate(places)]


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0, 10.0])
def test_an_idle_robot_seen_with_noise_is_not_frozen(sigma: float) -> None:
    assert frozen_at(noisy(60, sigma)) == []
    assert frozen_at(noisy(30, sigma), timeout=0.1) == []


@pytest.mark.parametrize("sigma", [0.5, 3.0, 10.0])
@pytest.mark.parametrize("arm", [False, True])
def test_a_camera_with_noise_that_freezes_is_found_for_sure(sigma: float, arm: bool) -> None:
    alive = noisy(8, sigma, arm)
    assert frozen_at([*alive, *[alive[-1]] * 9]) == [(5.5, True)]


def test_a_simulator_at_rest_may_be_frozen_and_one_at_work_is_not() -> None:
    at_work = [scene(arm=k / 20, size=(96, 128)) for k in range(20)]
    assert frozen_at(at_work) == []
    assert frozen_at([*at_work, *[at_work[-1]] * 8]) == [(11.5, False)]
    gripper = []
    for k in range(12):  # a few pixels are all that moves
        picture = TABLE.copy()
        picture[40:44, 60 + k : 64 + k] = 0
        gripper.append(picture)
    assert frozen_at(gripper) == []


def test_a_frozen_picture_that_was_compressed_anew_or_has_the_time_printed_in_is_found() -> None:
    alive = noisy(10, 4.0)
    anew = [lit(alive[-1], 1.0, 0.3, seed=k) for k in range(8)]
    assert frozen_at([*alive, *anew]) == [(6.5, True)]
    clock = []
    for k in range(8):
        picture = alive[-1].copy()
        picture[2:10, 2:12] = 20 * k
        clock.append(picture)
    assert frozen_at([*alive, *clock]) == [(6.5, True)]


def test_a_light_that_calms_the_noise_freezes_nothing() -> None:
    """A camera turns its gain down when it gets brighter, and its noise with it."""
    dim = [lit(TABLE, 0.4, 6.0, seed=k) for k in range(12)]
    bright = [lit(TABLE, 1.0, 0.8, seed=k) for k in range(12)]
    assert frozen_at([*dim, *bright]) == []


def test_a_light_that_is_faded_in_is_no_noise() -> None:
    """At 10 Hz, in a simulator: everything changes for a second, and then nothing does."""
    faded = [lit(TABLE, 0.4 + 0.06 * k) for k in range(11)]
    assert frozen_at([*faded, *[faded[-1]] * 40], period_s=0.1) == [(3.0, False)]
    noise = noisy(30, 3.0)
    assert frozen_at([*noise, *[noise[-1]] * 40], period_s=0.1) == [(pytest.approx(4.9), True)]


def test_of_a_camera_that_moves_nothing_is_sure() -> None:
    alive = noisy(8, 3.0)
    assert frozen_at([*alive, *[alive[-1]] * 9], fixed=False) == [(5.5, False)]


def test_a_camera_that_repeats_pictures_now_and_then_is_not_frozen() -> None:
    alive = noisy(10, 3.0)
    assert frozen_at([picture for picture in alive for _ in range(3)]) == []
    assert frozen_at([alive[0]] * 60, timeout=0.0) == []


def test_two_pictures_that_are_the_same_are_too_few() -> None:
    """However long they are apart, at a low sample rate."""
    alive = noisy(8, 3.0)
    assert frozen_at([*alive, *[alive[-1]] * 3], period_s=5.0) == [(45.0, True)]


def test_each_freeze_is_told_once() -> None:
    alive = noisy(8, 3.0)
    twice = [*alive, *[alive[-1]] * 12, *noisy(8, 3.0, arm=True), *[alive[0]] * 12]
    assert [sure for _, sure in frozen_at(twice)] == [True, True]


# ---- what a monitor makes of it ------------------------------------------------------------------------


def test_of_a_frozen_camera_no_score_is_believed_and_its_pictures_are_not_used() -> None:
    robot = Robot(progress=OFF)
    robot.work(8)
    frozen = lit(scene(size=SIZE), 1.0, 3.0, seed=99)
    for _ in range(16):
        robot.show(frozen, 0.98 if robot.monitor.blind_reason else 0.5)
    assert robot.kinds == [EventType.EPISODE_STARTED, EventType.FROZEN_IMAGES, EventType.STALE_IMAGES]
    assert isnan(robot.report.progress) and robot.report.state is State.STALE
    assert "has been the same for more than 2 s (frozen_timeout)" in robot.report.message
    assert robot.report.num_frames == 11 + 4 and robot.monitor.ignored.counts() == {"of a frozen camera": 12}
    robot.show(progress=0.6)
    assert robot.report.state is State.RUNNING and robot.report.progress == pytest.approx(0.6)


def test_of_a_scene_without_noise_scores_are_believed_and_the_event_says_why() -> None:
    drawn = [scene(arm=k % 8 / 8, size=SIZE) for k in range(8)]
    robot = Robot(pictures=drawn, progress=OFF)
    robot.work(8)
    for _ in range(8):
        robot.show(drawn[0], 0.98)
    assert robot.kinds[:3] == [EventType.EPISODE_STARTED, EventType.SUCCESS, EventType.EPISODE_ENDED]
    robot = Robot(pictures=drawn, progress=OFF)
    robot.work(8)
    for _ in range(8):
        robot.show(drawn[0], 0.5)
    assert robot.kinds == [EventType.EPISODE_STARTED, EventType.FROZEN_IMAGES]
    assert "as a simulator does; scoring goes on" in robot.events[-1].message
    assert robot.report.progress == pytest.approx(0.5) and robot.report.message == ""


def test_a_cover_makes_progress_unknown_within_seconds_and_until_something_is_seen() -> None:
    robot = Robot()
    before_s = robot.now_s
    for _ in range(6):
        robot.show(flat(20, 1.0, SIZE), 0.98)
    covered = robot.events[-1]
    assert covered.type is EventType.COVERED_IMAGES and isnan(covered.progress) and covered.threshold == 2.0
    assert covered.stamp.ns / NS_PER_S - before_s <= 3.0
    assert isnan(robot.report.progress) and isnan(robot.report.stage_progress)
    assert "nearly one colour" in robot.report.message and robot.monitor.blind_reason
    request = robot.frame()
    assert isnan(robot.report.progress) and "with the next score" in robot.report.message
    robot.score(request, 0.4)
    assert robot.report.progress == pytest.approx(0.4) and not robot.monitor.blind_reason


def test_why_nothing_is_known_changes_once_a_second_and_no_faster() -> None:
    """Each change is a message on task_progress."""
    covered, frozen = CoveredDetector(1.0), FrozenDetector(1.0, fixed=True)
    still = scene(size=SIZE)
    seen = []
    for k in range(61):
        covered.update(k * NS_PER_S // 10, "it is dark")
        frozen.update(k * NS_PER_S // 10, still, examine(still))
        seen.append((covered.why, frozen.why))
    assert all(0 < len({*texts} - {""}) <= 6 for texts in zip(*seen, strict=True))


def test_a_late_score_of_before_the_cover_is_told_and_does_not_uncover() -> None:
    """Live, as offline, it is the progress of its frame; what is shown last is that nothing is known."""
    robot = Robot()
    late = robot.frame()
    for _ in range(6):
        assert robot.frame(flat(20, 1.0, SIZE)) is None
    robot.score(late, 0.5)
    assert [report.progress for report in robot.scored[-2:]] == [
        pytest.approx(0.5),
        pytest.approx(nan, nan_ok=True),
    ]
    assert isnan(robot.report.progress) and "nothing is to be seen" in robot.report.message


def test_one_covered_camera_of_two_is_named_and_no_score_is_believed() -> None:
    pair = [np.concatenate([picture, picture[:, ::-1]], axis=1) for picture in LIVELY]
    robot = Robot(pictures=pair, progress=OFF)
    robot.widths = (SIZE[1], SIZE[1])
    robot.monitor.reset()
    robot.work(3)
    for picture in pair[:6]:
        half_dark = picture.copy()
        half_dark[:, SIZE[1] :] = 10
        robot.show(half_dark, 0.98)
    assert EventType.SUCCESS not in robot.kinds and robot.events[-1].type is EventType.COVERED_IMAGES
    assert "camera 2" in robot.events[-1].message and isnan(robot.report.progress)
    assert robot.report.state is State.RUNNING, "the other camera sees"
    robot.work(2)
    assert not isnan(robot.report.progress)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("images_per_s", [2, 10])
def test_one_camera_of_two_that_stays_covered_or_frozen_makes_the_state_stale(
    frozen: bool, images_per_s: int
) -> None:
    pair = [np.concatenate([picture, picture[:, ::-1]], axis=1) for picture in LIVELY]
    robot = Robot(pictures=pair, progress=OFF, stale_timeout=5.0)
    robot.widths = (SIZE[1], SIZE[1])
    robot.monitor.reset()
    robot.work(8)
    blind = [picture.copy() for picture in pair]
    for picture in blind:
        picture[:, SIZE[1] :] = pair[0][:, SIZE[1] :] if frozen else 10
    since_s, told_s = robot.now_s, inf
    while robot.report.state is not State.STALE and robot.now_s < since_s + 15.0:
        robot.score(robot.frame(blind[len(robot.outputs) % 8], 1.0 / images_per_s), 0.5)
        if robot.kinds[-1] in (EventType.COVERED_IMAGES, EventType.FROZEN_IMAGES):
            told_s = min(told_s, robot.now_s)
    assert told_s + 4.0 <= robot.now_s <= told_s + 5.5 and robot.kinds[-1] is EventType.STALE_IMAGES
    assert "camera 2" in robot.monitor.stale_reason and isnan(robot.report.progress)
    for picture in blind[:4]:
        robot.show(picture, 0.98)
    assert robot.report.state is State.STALE and EventType.SUCCESS not in robot.kinds
    robot.work(3)
    assert robot.report.state is State.RUNNING and not isnan(robot.report.progress)


def test_an_episode_that_begins_with_one_covered_camera_of_two_becomes_stale() -> None:
    pair = [np.concatenate([picture, np.full_like(picture, 10)], axis=1) for picture in LIVELY]
    for stale_timeout in (1.0, 6.0):  # before it begins, and after
        robot = Robot(pictures=pair, progress=OFF, stale_timeout=stale_timeout)
        robot.widths = (SIZE[1], SIZE[1])
        robot.monitor.reset()
        for _ in range(20):
            robot.show()
        assert EventType.EPISODE_STARTED in robot.kinds and robot.report.state is State.STALE
        whole = [np.concatenate([picture, picture], axis=1) for picture in LIVELY]
        for picture in whole[:4]:
            robot.show(picture)
        assert robot.report.state is State.RUNNING


def test_a_stall_that_falls_silent_is_a_stall_again() -> None:
    robot = Robot(pictures=PIXEL)
    for _ in range(12):
        robot.show()
    assert robot.report.state is State.STALLED and robot.kinds[-1] is EventType.STALL
    robot.now_s += 6.0
    robot.outputs += robot.monitor.check_clock(round(robot.now_s * NS_PER_S))
    assert robot.report.state is State.STALE
    for _ in range(3):  # the first ones after a pause wait for others to agree
        robot.frame()
    assert robot.report.state is State.STALLED, "before any score"


def test_failure_ends_the_episode_as_the_task_did() -> None:
    robot = Robot(pictures=PIXEL, progress=replace(OFF, failure=FailureSettings(0.0, 1.0, 1.0, band=BAND)))
    for _ in range(40):
        robot.show(progress=0.3)
    assert robot.kinds == [EventType.EPISODE_STARTED, EventType.FAILURE, EventType.EPISODE_ENDED]
    assert robot.report.state is State.FAILED and not robot.monitor.watching
    rewards = [output for output in robot.outputs if isinstance(output, Reward)]
    assert rewards[-1].terminated and not rewards[-1].truncated
    failure = robot.events[1]
    assert failure.threshold == pytest.approx(BAND.at(12.0)) and failure.progress == pytest.approx(0.3)
    assert "19 of them" in failure.message


def test_a_clock_that_is_set_makes_no_episode_older() -> None:
    """By its stamps it would have failed, by its time of arrival it is 8 s old, as TIMEOUT sees it."""
    rule = FailureSettings(threshold=0.5, after=20.0, dwell=5.0)
    robot = Robot(pictures=PIXEL, progress=replace(OFF, failure=rule), episode_timeout=0.0)
    late = robot.frame()
    robot.ahead_s = 60.0
    for _ in range(12):
        robot.show()
    assert robot.kinds == [EventType.EPISODE_STARTED]
    assert robot.report.elapsed_ns == pytest.approx(7.5 * NS_PER_S, abs=NS_PER_S / 10)
    robot.score(late, 0.3)
    assert robot.report.elapsed_ns == 1.5 * NS_PER_S, "of a frame from before"
    for _ in range(30):
        robot.show()
    assert robot.kinds[1] is EventType.FAILURE and "20.0 s into the episode" in robot.events[1].message


def test_after_a_cut_the_band_is_silent_and_a_stall_begins_anew() -> None:
    """The prefix begins anew, and so does progress: by its age the episode would have failed at once."""
    band = ConformalBand((0.0, 5.0, 60.0), (0.0, 0.1, 0.3), successes=30)
    settings = replace(OFF, failure=FailureSettings(0.0, 1.0, 1.0, band=band), stall=SETTINGS.progress.stall)
    for cut in (False, True):
        robot = Robot(progress=settings, pictures=PIXEL if not cut else LIVELY, episode_timeout=0.0)
        robot.work(10, rises=0.03)
        other = [lit(scene(7, size=SIZE), 1.0, 3.0, seed=k) for k in range(12)]
        for picture in other:
            robot.show(picture if cut else None, 0.05)
        assert (EventType.FAILURE in robot.kinds) is not cut
        if cut:
            assert any("watching begins anew" in report.message for report in robot.scored)


def test_limits_that_change_act_at_the_next_score() -> None:
    robot = Robot(pictures=PIXEL, progress=OFF)
    for _ in range(12):
        robot.show()
    assert robot.report.state is State.RUNNING
    stall = replace(SETTINGS.progress, failure=FailureSettings(0.0, 1.0, 1.0))
    robot.monitor.settings = replace(robot.monitor.settings, progress=stall)
    for _ in range(10):
        robot.show()
    assert robot.report.state is State.STALLED
    failing = replace(OFF, failure=FailureSettings(0.6, 1.0, 0.0))
    robot.monitor.settings = replace(robot.monitor.settings, progress=failing)
    for _ in range(3):
        robot.show()
    assert robot.kinds[-2:] == [EventType.FAILURE, EventType.EPISODE_ENDED]


def test_after_success_nothing_is_said_of_progress() -> None:
    robot = Robot(pictures=PIXEL, end_episode_on_success=False, episode_timeout=0.0)
    for progress in [0.98] * 5 + [0.01] * 40:
        robot.show(progress=progress)
    assert robot.kinds == [EventType.EPISODE_STARTED, EventType.SUCCESS]
    assert robot.report.state is State.SUCCEEDED


def test_what_is_not_sure_is_no_progress() -> None:
    """While the whole picture jumps, nobody knows what a score means, low ones among them."""
    robot = Robot(progress=replace(OFF, failure=FailureSettings(0.2, 1.0, 0.0)), episode_timeout=0.0)
    robot.work(8)
    for k in range(20):
        robot.show(lit(scene(k % 2 * 7, size=SIZE), 1.0, 3.0, seed=k), 0.01)
    assert EventType.FAILURE not in robot.kinds
