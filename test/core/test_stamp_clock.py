"""A clock that is absent or stands, and stamps that do not fit it, are told; nothing else is."""

from __future__ import annotations

import pytest

from topreward_ros.core.frames import NS_PER_S
from topreward_ros.core.stamp_clock import Fault, StampClock

NOW = 1_700_000_000 * NS_PER_S


@pytest.mark.parametrize(
    ("stamp_s", "fault"),
    [
        (-0.1, None),
        (0.5, None),
        (-3000.0, None),
        (86_400.0, Fault.FUTURE),
        (1.5, Fault.FUTURE),
        (-4000.0, Fault.PAST),
    ],
)
def test_stamps_are_compared_with_a_clock_that_runs(stamp_s: float, fault: Fault | None) -> None:
    assert StampClock().fault(NOW + int(stamp_s * NS_PER_S), NOW, 0) is fault
    assert StampClock().fault(None, NOW, 0) is None


def test_a_stamp_of_a_camera_that_is_silent_grows_old_without_being_wrong() -> None:
    stamp_ns = NOW - 4000 * NS_PER_S
    assert StampClock().fault(stamp_ns, NOW, 0, silent_ns=3999 * NS_PER_S) is None
    assert StampClock().fault(stamp_ns, NOW, 0, silent_ns=300 * NS_PER_S) is Fault.PAST


def test_the_words_say_when_the_stamps_are() -> None:
    assert "at 1970-01-01 00:00:12 UTC" in Fault.PAST.text(12 * NS_PER_S, NOW)
    assert "lie 86400.0 s in the future, at 2023-11-15 22:13:20 UTC" in Fault.FUTURE.text(
        NOW + 86_400 * NS_PER_S, NOW
    )


def test_a_clock_stands_after_two_seconds_and_runs_again_with_the_next_step() -> None:
    clock = StampClock()
    assert clock.fault(None, 0, 0) is Fault.ABSENT
    for steady_s in range(3):
        assert clock.fault(5, 5, (10 + steady_s) * NS_PER_S) is None
    assert clock.fault(5, 5, 13 * NS_PER_S) is Fault.STANDS
    assert clock.look(5, 14 * NS_PER_S) == 0
    assert clock.fault(5, 6, 15 * NS_PER_S) is None
    assert clock.look(6, 15 * NS_PER_S) == 6


@pytest.mark.parametrize("period_s", [0.02, 1.0, 1.9, 5.0])
def test_a_clock_that_goes_in_slow_steps_makes_no_pause(period_s: float) -> None:
    clock = StampClock()
    over_ns = 0
    for k in range(300):
        steady_s = k / 5
        time_ns = round(steady_s // period_s * period_s * NS_PER_S)
        over_ns += clock.pauses(time_ns, k * NS_PER_S // 5)[0]
    assert over_ns < NS_PER_S


def test_a_pause_is_the_time_in_which_the_clock_stood() -> None:
    clock = StampClock()
    clock.pauses(100 * NS_PER_S, 0)
    assert clock.pauses(100 * NS_PER_S, 60 * NS_PER_S) == (0, 60 * NS_PER_S)
    clock.look(102 * NS_PER_S, 61 * NS_PER_S)  # others look, too
    assert clock.pauses(103 * NS_PER_S, 62 * NS_PER_S) == (59 * NS_PER_S, 0)
    assert clock.pauses(1 * NS_PER_S, 63 * NS_PER_S) == (0, 0), "it was set back"
