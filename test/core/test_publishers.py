"""Publishers of one topic are told apart by the numbers of their messages."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topreward_ros.core.frames import NS_PER_S
from topreward_ros.core.publishers import Publishers as _Publishers

MS = NS_PER_S // 1000


class Publishers(_Publishers):
    """Of messages that are stamped when they are sent, all by cameras that are called the same."""

    def take(  # type: ignore[override]
        self,
        sequence: int | None,
        arrival_ns: int,
        stamp_ns: int | None = None,
        frame_id: bytes = b"camera",
        *,
        alone: bool = False,
    ) -> bool:
        stamp = arrival_ns - 7 * MS if stamp_ns is None else stamp_ns
        return super().take(sequence, arrival_ns, stamp, frame_id, alone=lambda: alone)


def test_one_publisher_that_loses_messages() -> None:
    publishers = Publishers()
    kept = [k for k in range(1, 3000) if random.Random(k).random() > 0.7]
    assert all(publishers.take(k, k * 33 * MS) for k in kept)
    assert publishers.lost == kept[-1] - kept[0] + 1 - len(kept) and not publishers.of_others


@given(
    first=st.integers(1, 5000),
    second=st.integers(1, 5000),
    rates=st.tuples(st.sampled_from([5, 10, 30]), st.sampled_from([5, 10, 30])),
    phase=st.integers(1, 30),
)
def test_of_two_publishers_one_is_followed(
    first: int, second: int, rates: tuple[int, int], phase: int
) -> None:
    sent = [(k * NS_PER_S // rates[0], first + k, "a") for k in range(10 * rates[0])]
    sent += [(k * NS_PER_S // rates[1] + phase * MS + k, second + k, "b") for k in range(10 * rates[1])]
    publishers = Publishers()
    used = [(who, number) for time, number, who in sorted(sent) if publishers.take(number, time)]
    # While both have the same numbers by chance, they cannot be told apart.
    if abs(first - second) > 10 * max(rates) + 50:
        assert {who for who, _ in used} == {"a"} and len(used) == 10 * rates[0]
        assert publishers.lost == 0 and publishers.changes == 0
    else:
        assert len(used) <= max(10 * rates[0], 10 * rates[1]) + 10


def test_two_publishers_that_were_started_together() -> None:
    publishers = Publishers()
    used = []
    for k in range(1, 300):
        for who, offset in (("a", 0), ("b", 9 * MS)):
            if publishers.take(k, k * 33 * MS + offset):
                used.append(who)
    assert set(used) == {"a"} and len(used) == 299 and publishers.lost == 0


@pytest.mark.parametrize("interval_ms", [10, 33, 1000])
def test_a_publisher_that_was_started_again_is_followed(interval_ms: int) -> None:
    publishers = Publishers()
    for k in range(1, 100):
        assert publishers.take(k, k * interval_ms * MS)
    gap_ms = max(600, 5 * interval_ms)
    for k in range(1, 100):
        assert publishers.take(k, (100 * interval_ms + gap_ms + k * interval_ms) * MS)
    assert publishers.changes == 1 and publishers.lost == 0


def test_a_publisher_that_is_alone_is_followed_at_once() -> None:
    publishers = Publishers()
    for k in range(100, 110):
        assert publishers.take(k, k * 5 * NS_PER_S, alone=True)
    assert publishers.take(1, 110 * 5 * NS_PER_S, alone=True)
    assert publishers.take(2, 111 * 5 * NS_PER_S, alone=True)


def test_the_other_one_is_followed_once_the_first_is_gone() -> None:
    publishers = Publishers()
    used = []
    for k in range(1, 301):
        if k < 100 and publishers.take(1000 + k, k * 33 * MS):
            used.append(("a", k))
        if publishers.take(k, k * 33 * MS + 1):
            used.append(("b", k))
    switched = [k for who, k in used if who == "b"]
    assert 110 <= switched[0] <= 118 and switched == list(range(switched[0], 301))
    assert publishers.changes == 1


def test_after_a_long_stop_the_messages_that_were_missed_are_lost() -> None:
    publishers = Publishers()
    for k in range(1, 31):
        publishers.take(k, k * 33 * MS)
    assert publishers.take(30 + 1800, 61 * NS_PER_S)
    assert publishers.lost == 1799 and not publishers.changes


def test_without_numbers_all_are_used() -> None:
    publishers = Publishers()
    assert all(publishers.take(None, k) for k in range(10)) and not publishers.lost


@pytest.mark.parametrize(("delay_ms", "frame_id"), [(20_000, b"camera"), (0, b"wrist")])
def test_two_publishers_with_the_same_numbers_that_lose_messages(delay_ms: int, frame_id: bytes) -> None:
    publishers, draw = Publishers(), random.Random(7)
    used: list[str] = []
    for k in range(1, 1000):
        now = k * 33 * MS
        if draw.random() < 0.5 and publishers.take(k, now):
            used.append("a")
        if draw.random() < 0.5 and publishers.take(k, now + 1, now - delay_ms * MS, frame_id):
            used.append("b")
    assert len(set(used)) == 1 and 400 < len(used) < 600 and publishers.changes == 0


def test_a_bag_that_is_played_in_a_loop_is_one_publisher() -> None:
    publishers = Publishers()
    for k in range(1, 300):
        assert publishers.take(k, k * 33 * MS, (k % 100) * 33 * MS, alone=True)
    assert not publishers.changes and not publishers.lost


def test_a_publisher_whose_stamps_jump_all_the_time_is_not_remembered_without_end() -> None:
    publishers = Publishers()
    for k in range(1, 2000):
        assert publishers.take(10_000 + k, k * 33 * MS)
        assert not publishers.take(k, k * 33 * MS + 1, 10_000 * k * MS)
    assert len(publishers._known) < 20 and not publishers.lost


def sent_by(who: str, first_s: float, rate: float, count: int, number: int = 1) -> list[tuple[int, int, str]]:
    return [(round((first_s + k / rate) * NS_PER_S), number + k, who) for k in range(count)]


def used_of(publishers: Publishers, sent: list[tuple[int, int, str]]) -> list[str]:
    return [who for time, number, who in sorted(sent) if publishers.take(number, time)]


@pytest.mark.parametrize("rate", [0.3, 1.0, 5.0])
@pytest.mark.parametrize("number", [1, 3, 400])
def test_a_slow_camera_is_not_swallowed_by_a_fast_one(rate: float, number: int) -> None:
    publishers = Publishers()
    slow = sent_by("slow", 0.0, rate, round(60 * rate), number)
    fast = sent_by("fast", 5.111, 30.0, 30 * 50)
    assert used_of(publishers, slow + fast) == ["slow"] * len(slow)
    assert publishers.lost == 0 and publishers.changes == 0


@pytest.mark.parametrize(
    ("lived_s", "away_s", "rate"), [(5, 2, 30), (100, 3, 30), (20, 6, 1.0), (60, 12, 0.4)]
)
def test_a_driver_that_is_killed_and_started_again_loses_nothing(
    lived_s: float, away_s: float, rate: float
) -> None:
    """The dead one stays known for a while, so that it is not alone."""
    publishers = Publishers()
    first = sent_by("first", 0.0, rate, round(lived_s * rate))
    assert used_of(publishers, first) == ["first"] * len(first)
    again = sent_by("again", lived_s + away_s, rate, round(2.5 * lived_s * rate))
    used = used_of(publishers, again)
    assert len(again) - len(used) <= 4, "but those that come before the first one counts as gone"
    assert publishers.lost == 0 and publishers.changes == 1


@pytest.mark.parametrize("phase_ms", [12, 17, 21])
def test_the_same_numbers_at_another_phase_are_told_apart_though_many_are_lost(phase_ms: int) -> None:
    publishers, draw = Publishers(), random.Random(3)
    sent = sent_by("a", 0.0, 30.0, 3000) + sent_by("b", phase_ms / 1000, 30.0, 3000)
    first, rest = sent[:20] + sent[3000:3020], sent[20:3000] + sent[3020:]
    kept = [message for message in rest if draw.random() < 0.8]
    assert set(used_of(publishers, first + kept)) == {"a"} and publishers.changes == 0
    assert not publishers.are_mixed(101 * NS_PER_S) and publishers.heard(100 * NS_PER_S) == 2


def test_two_that_cannot_be_told_apart_are_said_to_be_mixed() -> None:
    publishers = Publishers()
    for k in range(1, 100):
        publishers.take(k, k * 33 * MS, k * 33 * MS)
        publishers.take(k, k * 33 * MS + 1, k * 33 * MS)
    assert publishers.are_mixed(3267 * MS) and publishers.heard(3267 * MS) == 2
    assert not publishers.are_mixed(60 * NS_PER_S)


def test_a_publisher_that_took_the_place_of_another_is_no_second_one() -> None:
    publishers = Publishers()
    used_of(publishers, sent_by("first", 0.0, 1.0, 20))
    for time, number, _ in sent_by("again", 21.0, 1.0, 20):
        publishers.take(number, time)
        assert publishers.heard(time) <= 1
    assert publishers.heard(60 * NS_PER_S) == 0


def test_what_was_lost_while_the_process_was_stopped_is_forgiven_once() -> None:
    publishers = Publishers()
    for k in (*range(1, 100), *range(300, 400), *range(405, 410)):
        if k == 300:
            publishers.forgive()
        assert publishers.take(k, k * 33 * MS)
    assert publishers.lost == 5


@pytest.mark.parametrize(("period_ms", "few"), [(1000, 4), (33, 3), (33, 1)])
def test_a_pause_is_no_interval_of_a_camera(period_ms: int, few: int) -> None:
    publishers, now = Publishers(), 0
    for number in range(1, 2 * few + 3):
        now += 20_000 if number == few + 1 else period_ms
        assert publishers.take(number, now * MS, alone=True)
    assert not publishers.has_stopped((now + 3 * period_ms) * MS)
    assert publishers.has_stopped((now + 4 * max(period_ms, 125) + 1) * MS)
