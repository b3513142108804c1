"""Which stamps are believed, whatever a driver, a transport or a bag makes of them."""

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topreward_ros.core.frames import NS_PER_S
from topreward_ros.core.stamps import AGREEING, Judgement, MissingStamps, StampJudge

MS = 1_000_000
HOUR = 3600 * NS_PER_S
START = 1_700_000_000 * NS_PER_S
_CALM = [33.4, 33.4, 33.4, 33.3, 33.4, 133.65, -100.31, 155.5, -122.2, 33.4, 100.0]
_BUSY = [33.4, 66.7, 33.7, -67.0, 100.1, 53.5, 49.9, 38.3, 0.8, 24.2, 33.3]
#: Intervals [ms] of a healthy 30 Hz camera whose driver reorders under load.
REORDERED = [*_CALM, *_BUSY]
#: Frames per second of cameras, slow ones among them.
RATES = st.sampled_from([0.1, 0.2, 1.0, 5.0, 15.0, 30.0, 60.0])


def judged(stamps: list[int], judge: StampJudge | None = None) -> list[Judgement]:
    judge = judge or StampJudge()
    return [judge.judge(stamp) for stamp in stamps]


def steady(rate: float, count: int, start: int = START) -> list[int]:
    return [start + round(k * NS_PER_S / rate) for k in range(count)]


def test_a_driver_that_reorders_loses_the_late_images_alone() -> None:
    stamps = [START, *(START + round(ms * MS) for ms in accumulate(REORDERED * 12))]
    judge = StampJudge()
    results = judged(stamps, judge)
    newest = list(accumulate(stamps, max))
    late = sum(stamp < before for stamp, before in zip(stamps[1:], newest, strict=False))
    assert set(results) == {Judgement.IN_LINE, Judgement.OUT_OF_ORDER}
    assert (judge.out_of_order, judge.out_of_line) == (late, 0)


@given(
    delays=st.lists(st.integers(0, 200 * MS), min_size=10, max_size=120),
    rate=RATES,
)
def test_images_that_overtake_one_another_by_a_fifth_of_a_second(delays: list[int], rate: float) -> None:
    stamps = steady(rate, len(delays))
    arrived = sorted(stamps, key=lambda stamp: stamp + delays[stamps.index(stamp)])
    judge = StampJudge(round(NS_PER_S / rate) if rate < 0.5 else None)
    assert set(judged(arrived, judge)) <= {Judgement.IN_LINE, Judgement.OUT_OF_ORDER}
    assert judge.out_of_line == 0 and judge.newest_ns == stamps[-1]


@given(
    rate=RATES,
    outliers=st.dictionaries(
        st.integers(2, 59),
        st.one_of(
            st.sampled_from([4, -4, 3600, -3600]).map(lambda seconds: seconds * NS_PER_S),
            st.integers(-(10**19), 10**19),
        ),
        max_size=30,
    ),
)
def test_single_outliers_of_either_sign_are_ignored_and_counted(
    rate: float, outliers: dict[int, int]
) -> None:
    """No ordinary image is lost. A stamp within the reach of the camera's intervals is no outlier."""
    stamps = steady(rate, 60)
    reach = max(NS_PER_S // 2, round(4 * NS_PER_S / rate))
    lone = {k: off for k, off in outliers.items() if k - 1 not in outliers and abs(off) > 2 * reach}
    seen = [stamp + lone.get(k, 0) for k, stamp in enumerate(stamps)]
    judge = StampJudge(round(NS_PER_S / rate))
    results = judged(seen, judge)
    assert [k for k, result in enumerate(results) if not result.usable] == sorted(lone)
    assert set(results) <= {Judgement.IN_LINE, Judgement.OUT_OF_LINE}
    last = 59 in lone  # nothing came after it, so it is not settled yet
    assert judge.out_of_line == len(lone) - last


@pytest.mark.parametrize("rate", [0.2, 1.0, 2.0, 5.0, 30.0])
@pytest.mark.parametrize("offset", [-HOUR, HOUR, -30 * NS_PER_S, 60 * NS_PER_S, -START])
def test_a_clock_that_is_set_and_a_pause_cost_two_images(rate: float, offset: int) -> None:
    before, after = steady(rate, 40), steady(rate, 40, START + round(40 * NS_PER_S / rate) + offset)
    judge = StampJudge(round(NS_PER_S / rate))
    results = judged(before + after, judge)
    moved = Judgement.JUMPED if after[0] > before[-1] else Judgement.WENT_BACK
    if abs(after[0] - before[-1]) <= 4 * NS_PER_S / rate:
        pytest.skip("within the camera's reach")
    confirming = [Judgement.OUT_OF_LINE] * (AGREEING - 1) + [moved]
    assert results == [Judgement.IN_LINE] * 40 + confirming + [Judgement.IN_LINE] * 37
    assert judge.moved_ns == after[0] - before[-1]
    assert judge.out_of_line == 0, "they were right"


@pytest.mark.parametrize("rate", [0.2, 0.5, 1.0, 5.0, 30.0])
def test_a_slow_camera_loses_one_image_at_its_start_at_most(rate: float) -> None:
    results = judged(steady(rate, 20))
    assert sum(not result.usable for result in results) == (rate < 0.5)
    assert Judgement.WENT_BACK not in results
    known = judged(steady(rate, 20), StampJudge(round(NS_PER_S / rate)))
    assert set(known) == {Judgement.IN_LINE}, "no image, where its interval is known"


@pytest.mark.parametrize("rates", [(30.0, 1.0), (30.0, 0.1), (1.0, 30.0), (60.0, 5.0), (5.0, 0.2)])
def test_a_camera_that_changes_its_rate_is_followed(rates: tuple[float, float]) -> None:
    first = steady(rates[0], 40)
    second = steady(rates[1], 20, first[-1] + round(NS_PER_S / rates[1]))
    results = judged(first + second)
    assert sum(not result.usable for result in results) <= AGREEING - 1
    assert Judgement.WENT_BACK not in results and results[-1] is Judgement.IN_LINE


@given(
    rate=st.sampled_from([5.0, 15.0, 30.0]),
    delays=st.lists(st.integers(0, 150 * MS), min_size=80, max_size=80),
    loops=st.integers(1, 3),
)
def test_a_bag_that_is_played_again_goes_back_once_also_when_images_overtake(
    rate: float, delays: list[int], loops: int
) -> None:
    """Also around the wrap, where the last images come among the first ones."""
    bag = steady(rate, 80)
    period = round(80 * NS_PER_S / rate)
    played = [
        (stamp + loop * period + delay, stamp)
        for loop in range(loops + 1)
        for stamp, delay in zip(bag, delays, strict=True)
    ]
    results = judged([stamp for _, stamp in sorted(played)])
    assert results.count(Judgement.WENT_BACK) == loops
    assert Judgement.JUMPED not in results


def test_a_bag_that_is_played_again_at_a_drop() -> None:
    bag = steady(30.0, 90)
    results = judged(bag[:70] + bag[20:])  # the end and the beginning are lost
    assert results.count(Judgement.WENT_BACK) == 1 and results[-1] is Judgement.IN_LINE


@pytest.mark.parametrize("offset", [HOUR, -HOUR, 4 * NS_PER_S, -4 * NS_PER_S])
@pytest.mark.parametrize("rate", [5.0, 30.0])
def test_the_first_stamp_or_the_second_is_wrong(rate: float, offset: int) -> None:
    good = steady(rate, 20)
    second = judged([good[0], good[1] + offset, *good[2:]])
    assert second == [Judgement.IN_LINE, Judgement.OUT_OF_LINE, *[Judgement.IN_LINE] * 18]
    first = judged([good[0] + offset, *good[1:]])
    is_a_pause = -60 * NS_PER_S <= offset < 0
    moved = Judgement.JUMPED if is_a_pause else Judgement.BEGAN_ANEW
    assert first == [Judgement.IN_LINE, Judgement.OUT_OF_LINE, moved, *[Judgement.IN_LINE] * 17]


def test_two_outliers_that_agree_are_not_enough_and_three_with_good_ones_between_neither() -> None:
    good = steady(30.0, 60)
    wrong = [stamp + HOUR for stamp in good]
    judge = StampJudge()
    seen = [*good[:10], *wrong[10:12], good[12], *wrong[13:15], *good[15:]]
    results = judged(seen, judge)
    assert [k for k, result in enumerate(results) if not result.usable] == [10, 11, 13, 14]
    assert judge.out_of_line == 4


def test_two_cameras_on_one_topic_with_clocks_of_their_own() -> None:
    """The first one stays: of the other there are never several in a row."""
    one, other = steady(30.0, 60), steady(30.0, 60, START - 100 * NS_PER_S)
    judge = StampJudge()
    results = judged([stamp for pair in zip(one, other, strict=True) for stamp in pair], judge)
    assert results[::2] == [Judgement.IN_LINE] * 60 and results[1::2] == [Judgement.OUT_OF_LINE] * 60


def test_a_stamp_that_repeats_is_never_believed() -> None:
    good = steady(30.0, 10)
    assert set(judged([good[-1]] * 9, judge := _after(good))) == {Judgement.OUT_OF_ORDER}
    for stuck in (0, -5, START + HOUR, 2**63):
        assert set(judged([stuck] * 9, judge := _after(good))) == {Judgement.OUT_OF_LINE}
        assert judge.judge(good[-1] + 33 * MS) is Judgement.IN_LINE
        assert judge.out_of_line == 9


def _after(stamps: list[int]) -> StampJudge:
    judge = StampJudge()
    judged(stamps, judge)
    return judge


def test_the_last_image_of_a_file_may_follow_a_long_pause() -> None:
    good = steady(25.0, 30, 0)
    for late in ([60 * NS_PER_S], [60 * NS_PER_S, 61 * NS_PER_S]):
        judge = _after(good + late)
        assert judge.settle() == late[-1] and judge.out_of_line == 0
        assert judge.settle() is None
    assert _after(good).settle() is None
    assert _after([*good, -60 * NS_PER_S]).settle() is None


@given(st.lists(st.integers(-(2**40), 2**40), max_size=80))
def test_believed_stamps_increase_but_where_time_went_back(stamps: list[int]) -> None:
    judge = StampJudge()
    newest: int | None = None
    for stamp in stamps:
        result = judge.judge(stamp)
        if result.usable:
            went_back = result is Judgement.WENT_BACK or (
                result is Judgement.BEGAN_ANEW and judge.moved_ns < 0
            )
            assert newest is None or (stamp > newest) is not went_back
            newest = stamp
        assert judge.newest_ns == newest


def test_after_a_restart_any_stamp_is_believed() -> None:
    judge = _after(steady(30.0, 10))
    judge.judge(5)
    judge.restart()
    assert judge.judge(7) is Judgement.IN_LINE and judge.newest_ns == 7
    assert judge.out_of_line == 1


@pytest.mark.parametrize(
    ("stamps", "filled"),
    [
        ([0, 0, -3], [1, 2, 3]),  # never stamps
        ([70, 0, 0, 80], [70, 0, 0, 80]),
        ([70, 0, 0, 0, 0, 80, 0], [70, 0, 0, 4, 5, 80, 0]),  # has stopped to
        ([0, 70, -1, 71], [1, 70, -1, 71]),
    ],
)
def test_missing_stamps(stamps: list[int], filled: list[int]) -> None:
    missing = MissingStamps()
    assert [missing.filled(stamp, arrival) for arrival, stamp in enumerate(stamps, start=1)] == filled


@pytest.mark.parametrize(
    ("images", "inner_ms", "gap_ms"),
    [(2, 33, 1000), (2, 1, 1000), (2, 33, 10_000), (3, 33, 3000), (4, 33, 2000)],
)
def test_a_camera_that_comes_in_bursts_is_believed(images: int, inner_ms: int, gap_ms: int) -> None:
    stamps = [START + (burst * gap_ms + k * inner_ms) * MS for burst in range(40) for k in range(images)]
    judge = StampJudge()
    results = judged(stamps, judge)
    assert sum(not result.usable for result in results) <= 4
    assert all(result.usable for result in results[3 * images :])
    assert judge.out_of_line == 0


@pytest.mark.parametrize(
    ("count", "rate"), [(3, 30.0), (12, 30.0), (4, 2.0), (5, 2.0), (5, 1.0), (300, 30.0)]
)
def test_a_bag_played_again_goes_back_once_per_pass_however_short(count: int, rate: float) -> None:
    one = steady(rate, count)
    results = judged(one * 6, StampJudge())
    for played in range(1, 6):
        of_pass = results[played * count : (played + 1) * count]
        assert of_pass[: AGREEING - 1] == [Judgement.OUT_OF_LINE] * (AGREEING - 1)
        assert of_pass[AGREEING - 1] is Judgement.WENT_BACK
        assert set(of_pass[AGREEING:]) <= {Judgement.IN_LINE}


def test_stamps_that_never_agree_are_counted_and_not_kept() -> None:
    judge = StampJudge()
    judged(steady(30.0, 20), judge)
    never = [START - 1000 * HOUR + 5**k * NS_PER_S for k in range(9)]  # earlier, and wider and wider apart
    assert set(judged(never, judge)) == {Judgement.OUT_OF_LINE}
    assert judge.out_of_line == 9 - AGREEING


def test_a_late_image_is_no_witness_for_a_wrong_one_far_back() -> None:
    good = steady(30.0, 60)
    ahead, back = good[33] + NS_PER_S // 5, good[34] - NS_PER_S * 6 // 10
    judge = StampJudge()
    results = judged([*good[:33], ahead, back, *good[35:]], judge)
    assert Judgement.WENT_BACK not in results and results[-1] is Judgement.IN_LINE
    assert judge.out_of_line == 1


def test_the_first_frame_of_a_file_is_never_forgotten() -> None:
    for pause_s in (4, 65, 3600):
        stamps = [0, *steady(10.0, 20, pause_s * NS_PER_S)]
        judge = StampJudge(NS_PER_S // 10)
        assert Judgement.BEGAN_ANEW not in judged(stamps, judge) and judge.out_of_line == 0
    camera = StampJudge()
    judged([START, *steady(10.0, 20, START + 65 * NS_PER_S)], camera)
    assert camera.out_of_line == 1, "of a camera it may be wrong"
