"""What a schedule may take, and what a bounded buffer must keep."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topreward_ros.core.frames import NS_PER_S, EpisodeBuffer, Frame, FrameSchedule, Window

MS = 1_000_000
PIXEL = np.zeros((1, 1, 3), np.uint8)


def taken(schedule: FrameSchedule, stamps: list[int]) -> list[int]:
    result = []
    for stamp in stamps:
        if schedule.observe(stamp):
            schedule.take()
            result.append(stamp)
    return result


@pytest.mark.parametrize(("fps", "every"), [(10, 5), (30, 15), (60, 30), (2, 1)])
def test_exact_camera_gives_exact_slots(fps: int, every: int) -> None:
    stamps = [round(k * NS_PER_S / fps) for k in range(20 * every)]
    assert taken(FrameSchedule(2.0), stamps) == stamps[::every]


@given(
    start=st.integers(0, 2_000_000_000 * NS_PER_S),
    jitter=st.lists(st.integers(-10 * MS, 10 * MS), min_size=60, max_size=200),
)
def test_jitter_never_loses_a_slot_and_takes_the_near_frame(start: int, jitter: list[int]) -> None:
    """A 30 Hz camera whose stamps are off by up to 10 ms: one frame per half second, close to it."""
    stamps = [start + 20 * MS + round(k * NS_PER_S / 30) + j for k, j in enumerate(jitter)]
    chosen = taken(FrameSchedule(2.0), stamps)
    slots = [(stamp - chosen[0]) / NS_PER_S * 2.0 for stamp in chosen]
    assert [round(slot) for slot in slots] == list(range(len(slots)))
    # never later than the first frame after the slot: 33 ms and the jitter of both ends
    assert all(-0.04 <= slot - round(slot) <= 0.12 for slot in slots)


@given(
    gaps=st.lists(st.integers(1, 3000 * MS), min_size=1, max_size=100),
    rate=st.floats(0.1, 30.0),
)
def test_at_most_one_frame_per_slot_and_no_burst_after_a_gap(gaps: list[int], rate: float) -> None:
    stamps = list(np.cumsum([0, *gaps]).tolist())
    chosen = taken(FrameSchedule(rate), stamps)
    assert chosen[0] == stamps[0]
    # n frames after another one lie in n later slots, the last of them at most a quarter period early
    for i, earlier in enumerate(chosen):
        for n, later in enumerate(chosen[i:]):
            assert (later - earlier) * rate / NS_PER_S >= n - 1.25 - 1e-6
    # a frame that comes a whole period after the slot of the last one taken is never passed over, and that
    # one may have come a quarter of a period before its slot
    for stamp in stamps:
        before = [c for c in chosen if c <= stamp]
        assert stamp - before[-1] < 1.25 * NS_PER_S / rate + 2


def test_two_frames_at_nearly_the_same_time_only_cost_the_tolerance_for_jitter() -> None:
    """Then the next frame that is taken is the first behind its slot."""
    stamps = np.cumsum([0, 25 * MS, 1, 33 * MS, 10 * MS]).tolist()
    assert taken(FrameSchedule(30.0), stamps) == [0, 25 * MS, 68 * MS + 1]


@given(gaps=st.lists(st.integers(1, 800 * MS), min_size=2, max_size=60), cut=st.integers(1, 60))
def test_prefix_stable(gaps: list[int], cut: int) -> None:
    stamps = list(np.cumsum([0, *gaps]).tolist())
    whole = taken(FrameSchedule(2.0), stamps)
    part = taken(FrameSchedule(2.0), stamps[:cut])
    assert whole[: len(part)] == part


def test_an_unreadable_frame_leaves_its_slot_to_the_next() -> None:
    schedule = FrameSchedule(2.0)
    assert schedule.observe(0) and schedule.observe(33 * MS)  # the first was not taken
    schedule.take()
    assert [schedule.observe(33 * MS + k * 100 * MS) for k in range(1, 7)] == [False] * 4 + [True] * 2


def test_stamps_must_increase() -> None:
    schedule = FrameSchedule(2.0)
    schedule.observe(5)
    with pytest.raises(ValueError, match="does not come after"):
        schedule.observe(5)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_rate_must_be_positive(rate: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        FrameSchedule(rate)


@given(budget=st.integers(2, 20).map(lambda half: 2 * half), count=st.integers(1, 400))
def test_buffer_is_bounded_and_keeps_first_newest_and_true_stamps(budget: int, count: int) -> None:
    buffer = EpisodeBuffer(budget)
    frames = [Frame(k * NS_PER_S // 2, PIXEL) for k in range(count)]
    before: tuple[Frame, ...] = ()
    for k, frame in enumerate(frames):
        stride = buffer.stride
        buffer.append(frame)
        prefix = buffer.prefix()
        assert len(prefix) <= budget
        assert prefix[0] is frames[0] and prefix[-1] is frame
        indices = [f.stamp_ns * 2 // NS_PER_S for f in prefix]
        assert indices == sorted(set(indices))
        pairs = {index // 2 for index in indices}
        assert all(pair % buffer.stride == 0 or pair == k // 2 for pair in pairs)
        # whatever is on the stride is there, whole
        assert {index for index in range(k + 1) if index // 2 % buffer.stride == 0} <= set(indices)
        if stride == buffer.stride:  # append-only but for the newest pair
            stable = [f for f in before if f.stamp_ns * 2 // NS_PER_S // 2 % stride == 0]
            assert all(old is new for old, new in zip(stable, prefix, strict=False))
        before = prefix


def test_a_full_buffer_uses_its_budget() -> None:
    """Doubling halves the prefix, no more: at least half the budget less one pair is always in use."""
    buffer = EpisodeBuffer(16)
    for k in range(1000):
        buffer.append(Frame(k, PIXEL))
        if k >= 16:
            assert len(buffer.prefix()) >= 16 // 2 - 1


@pytest.mark.parametrize("budget", [0, 2, 5, -4])
def test_budget_must_be_even_and_at_least_four(budget: int) -> None:
    with pytest.raises(ValueError, match=f"max_frames {budget}"):
        EpisodeBuffer(budget)


@given(st.integers(1, 70), st.sampled_from([4, 6, 16]), st.sampled_from(Window))
def test_what_is_forecast_comes_to_pass(held: int, max_frames: int, window: Window) -> None:
    """Of a camera that keeps time; and looking ahead changes nothing."""
    buffer = EpisodeBuffer(max_frames, window)
    for k in range(held):
        buffer.append(Frame(k * NS_PER_S // 2, PIXEL))
    before = buffer.prefix()
    forecast = list(buffer.forecast(2.0, 20))
    assert buffer.prefix() == before
    for k, (stride, prefix) in enumerate(forecast, start=held):
        buffer.append(Frame(k * NS_PER_S // 2, PIXEL))
        now = buffer.prefix()
        assert buffer.stride == stride
        assert [frame.stamp_ns for frame in now] == [frame.stamp_ns for frame in prefix]
        known = [frame for frame in prefix if frame.image.size]
        assert known == [frame for frame in now if frame in before]


@given(st.integers(1, 70), st.sampled_from([4, 6, 16]))
def test_a_sliding_window_holds_the_newest_pairs(frames: int, max_frames: int) -> None:
    buffer = EpisodeBuffer(max_frames, Window.SLIDING)
    for k in range(frames):
        buffer.append(Frame(k, PIXEL))
    stamps = [frame.stamp_ns for frame in buffer.prefix()]
    assert len(stamps) <= max_frames
    assert stamps == list(range(stamps[0], frames))
    assert stamps[0] % 2 == 0 and len(stamps) >= min(frames, max_frames - 1)
    assert buffer.stride == 1
