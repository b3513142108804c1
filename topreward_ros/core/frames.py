"""Frames, which of them to take, and a bounded buffer of an episode.

Sampling goes by the stamp of capture alone, so a bag played at any rate, simulated time and a live
camera give the same prefixes. No clock is read here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from statistics import median

import numpy as np

NS_PER_S = 1_000_000_000

_NO_PIXELS = np.zeros((0, 0, 3), np.uint8)


@dataclass(frozen=True, slots=True)
class Stamp:
    """When a frame was captured, and by which camera: what the header of a message says."""

    ns: int  #: time of capture [ns], any epoch
    frame_id: str  #: tf frame of the camera


NO_STAMP = Stamp(0, "")  #: before the first frame


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One image with its time of capture. Compared by identity, so it can key a cache."""

    stamp_ns: int  #: time of capture [ns], any epoch
    image: np.ndarray  #: (H, W, 3) uint8, RGB, C-contiguous, never written to again
    frame_id: str = ""  #: tf frame of the camera
    widths: tuple[int, ...] = ()  #: [px] of several cameras' pictures in the image, from the left; empty: one

    @property
    def stamp(self) -> Stamp:
        """When and by which camera it was captured."""
        return Stamp(self.stamp_ns, self.frame_id)


class RecentIntervals:
    """The newest intervals between the frames of a stream, in ns.

    >>> intervals = RecentIntervals([33, 33, 1, 34])
    >>> intervals.typical(), intervals.shortest(), intervals.longer()
    (33.0, 33, 34)
    >>> RecentIntervals([33, 20_000]).longer(gaps=1), RecentIntervals([20_000]).longer(gaps=1)
    (33, 20000)
    """

    KEPT = 15  #: how many

    def __init__(self, intervals: Iterable[int] = ()) -> None:
        self._newest = deque(intervals, maxlen=self.KEPT)

    def add(self, interval_ns: int) -> None:
        """Add the newest interval."""
        self._newest.append(interval_ns)

    def typical(self) -> float | None:
        """The median, which lone gaps and lone images out of order do not move; None before the first."""
        return median(self._newest) if self._newest else None

    def longer(self, gaps: int = 0) -> int:
        """The longest one but for a seventh of them, which may be gaps: how far apart images of a camera that
        comes in bursts are. 0 before the first.

        ``gaps``: so many are left out at least, where there are others.
        """
        ordered = sorted(self._newest)
        left_out = max(len(ordered) // 7, min(gaps, len(ordered) - 1))
        return ordered[len(ordered) - 1 - left_out] if ordered else 0

    def shortest(self) -> float:
        """The shortest one, but for those of images that came at nearly the same time; infinity before the
        first."""
        if not self._newest:
            return float("inf")
        half = median(self._newest) / 2
        return min(interval for interval in self._newest if interval >= half)


class FrameSchedule:
    """Decides which frames of a stream to take, at a fixed rate of stamp time.

    Slot k lies at ``first + k / rate``; per slot the nearest frame is taken, as far as that can be
    told without waiting for the next one: the first frame at or after the slot, or one before it by
    no more than half the shortest of the recent frame intervals, which absorbs the jitter of a camera. Slots
    that fall into a gap of the stream are skipped, never caught up. The choice depends on past stamps only
    ("prefix-stable", TOPReward's fixed 2 fps schedule), so a growing video never changes its start.

    An observed frame takes its slot only by `take`, so that the next one can stand in for a frame
    that turns out to be unreadable.

    >>> schedule = FrameSchedule(2.0)
    >>> def taken(stamp_ns):
    ...     if due := schedule.observe(stamp_ns):
    ...         schedule.take()
    ...     return due
    >>> [k for k in range(20) if taken(k * 100_000_000)]  # a 10 Hz camera
    [0, 5, 10, 15]
    """

    def __init__(self, rate: float) -> None:
        """``rate`` in Hz, > 0."""
        if not rate > 0:
            raise ValueError(f"sample rate {rate} Hz: must be above 0")
        self._period_ns = NS_PER_S / rate
        self._first_ns: int | None = None  # stamp of the first frame taken: where slot 0 lies
        self._last_ns: int | None = None
        self._intervals = RecentIntervals()
        self._slot = 0  # the slot that the last observed frame would take
        self._next_slot = 0

    def observe(self, stamp_ns: int) -> bool:
        """Register the next frame of the stream; True when it is due. Stamps must increase."""
        if self._last_ns is not None:
            if stamp_ns <= self._last_ns:
                raise ValueError(f"stamp {stamp_ns} ns does not come after {self._last_ns} ns")
            self._intervals.add(stamp_ns - self._last_ns)
        self._last_ns = stamp_ns
        if self._first_ns is not None:
            self._slot = int((stamp_ns - self._first_ns + self._early_ns()) // self._period_ns)
        return self._slot >= self._next_slot

    def next_ns(self) -> float:
        """From which stamp [ns] on a frame is due; before the first one, from any."""
        if self._first_ns is None:
            return 0.0
        return self._first_ns + self._next_slot * self._period_ns - self._early_ns()

    def _early_ns(self) -> float:
        """By how much [ns] a frame may come before its slot and still be the nearest one to it."""
        return min(self._intervals.shortest() / 2, self._period_ns / 4)

    def take(self) -> None:
        """Take the frame that was observed last for its slot."""
        if self._first_ns is None:
            self._first_ns = self._last_ns
        self._next_slot = self._slot + 1


class Window(Enum):
    """What a prefix is, once an episode has more frames than fit."""

    EPISODE = "episode"  #: all of the episode, thinned
    SLIDING = "sliding"  #: its newest part; the start, which the question needs, is lost


FEWEST_FRAMES = 4  #: the smallest budget of an `EpisodeBuffer`


class EpisodeBuffer:
    """The frames of an episode from its start until now, thinned so that they never exceed a budget.

    Frames are held in consecutive pairs, because a video model merges two frames into one temporal
    patch and features of a patch stay valid only while both its frames stay. When the budget is
    full the stride doubles: every second pair goes, the first stays, the newest always stays, and
    every frame keeps its true stamp. Memory is bounded whatever the episode's length. With
    `Window.SLIDING` the oldest pair goes instead.

    >>> buffer = EpisodeBuffer(max_frames=6)
    >>> for k in range(9):
    ...     buffer.append(Frame(k, np.zeros((1, 1, 3), np.uint8)))
    >>> [frame.stamp_ns for frame in buffer.prefix()]
    [0, 1, 4, 5, 8]
    """

    def __init__(self, max_frames: int, window: Window = Window.EPISODE) -> None:
        """``max_frames``: frames held at most, even and >= `FEWEST_FRAMES`."""
        if max_frames < FEWEST_FRAMES or max_frames % 2:
            raise ValueError(f"max_frames {max_frames}: must be even and at least {FEWEST_FRAMES}")
        self.max_frames = max_frames
        self.window = window
        self.stride = 1  #: every stride-th pair is kept
        self._pairs: dict[int, tuple[Frame, ...]] = {}  # index of the pair in the episode -> its frames
        self._count = 0

    @classmethod
    def holding(
        cls,
        frames: Iterable[Frame],
        max_frames: int | None = None,
        window: Window = Window.EPISODE,
    ) -> EpisodeBuffer:
        """A buffer that was given ``frames``, with room for all of them, or for ``max_frames``.

        ``window``: which of them stay where there is too little room.

        >>> frames = [Frame(k, np.zeros((1, 1, 3), np.uint8)) for k in range(7)]
        >>> EpisodeBuffer.holding(frames).prefix() == tuple(frames)
        True
        """
        held = list(frames)
        room = max(FEWEST_FRAMES, len(held) + len(held) % 2) if max_frames is None else max_frames
        buffer = cls(room, window)
        for frame in held:
            buffer.append(frame)
        return buffer

    def append(self, frame: Frame) -> None:
        """Add the newest frame, dropping older ones if need be."""
        newest, is_second = divmod(self._count, 2)
        self._count += 1
        if is_second:
            self._pairs[newest] += (frame,)
            return
        self._drop_off_stride()  # the pair that was newest until now may be off the stride
        while len(self._pairs) >= self.max_frames // 2:
            if self.window is Window.SLIDING:
                del self._pairs[next(iter(self._pairs))]
            else:
                self.stride *= 2
                self._drop_off_stride()
        self._pairs[newest] = (frame,)

    def prefix(self) -> tuple[Frame, ...]:
        """The kept frames in order of time, the newest last."""
        return tuple(frame for pair in self._pairs.values() for frame in pair)

    @property
    def count(self) -> int:
        """How many frames were added so far."""
        return self._count

    def places(self) -> list[int]:
        """The number in the episode, from 0, of each frame of `prefix`.

        >>> buffer = EpisodeBuffer.holding((Frame(k, _NO_PIXELS) for k in range(9)), 6)
        >>> buffer.places()
        [0, 1, 4, 5, 8]
        """
        return [2 * index + k for index, pair in self._pairs.items() for k in range(len(pair))]

    @classmethod
    def rebuilt(
        cls, frames: Mapping[int, Frame], count: int, stride: int, max_frames: int, window: Window
    ) -> EpisodeBuffer:
        """A buffer that is what another one was, by what that says of itself.

        ``frames``: by their `places`, in order. Raises `ValueError` for what no buffer says.

        >>> buffer = EpisodeBuffer.holding((Frame(k, _NO_PIXELS) for k in range(9)), 6)
        >>> frames = dict(zip(buffer.places(), buffer.prefix()))
        >>> again = EpisodeBuffer.rebuilt(frames, buffer.count, buffer.stride, 6, buffer.window)
        >>> again.append(Frame(9, _NO_PIXELS)), again.places()
        (None, [0, 1, 4, 5, 8, 9])
        """
        buffer = cls(max_frames, window)
        places = list(frames)
        numbers = sorted({place // 2 for place in places})  # of the pairs
        if places != [place for number in numbers for place in (2 * number, 2 * number + 1) if place < count]:
            raise ValueError(
                "the frames of a buffer come in pairs, in order, and only the newest may be alone"
            )
        if not places or places[0] < 0 or places[-1] != count - 1 or len(places) > max_frames:
            raise ValueError(
                f"a buffer for {max_frames} frames holds 1 to {max_frames} and the newest of all"
            )
        if stride < 1 or stride & (stride - 1) or (stride > 1 and window is Window.SLIDING):
            raise ValueError(f"stride {stride}: it is a power of 2, and 1 for a sliding window")
        if window is Window.EPISODE and (numbers[0] or any(number % stride for number in numbers[:-1])):
            raise ValueError(f"the pairs of an episode are the first and every {stride}. one, and the newest")
        for place, frame in frames.items():
            buffer._pairs[place // 2] = (*buffer._pairs.get(place // 2, ()), frame)
        buffer.stride, buffer._count = stride, count
        return buffer

    def copy(self) -> EpisodeBuffer:
        """An independent buffer with the same frames; the frames themselves are shared."""
        other = EpisodeBuffer(self.max_frames, self.window)
        other.stride, other._pairs, other._count = self.stride, dict(self._pairs), self._count
        return other

    def with_frames(self, of: Callable[[Frame], Frame]) -> EpisodeBuffer:
        """An independent buffer that has ``of(frame)`` in the place of each frame.

        >>> buffer = EpisodeBuffer.holding(Frame(k, _NO_PIXELS) for k in range(3))
        >>> [frame.stamp_ns for frame in buffer.with_frames(lambda it: Frame(9, it.image)).prefix()]
        [9, 9, 9]
        """
        other = self.copy()
        other._pairs = {index: tuple(map(of, pair)) for index, pair in self._pairs.items()}
        return other

    def forecast(self, rate: float, ticks: int) -> Iterator[tuple[int, tuple[Frame, ...]]]:
        """Stride and prefix after each of the next ``ticks`` frames, if they come when they are due.

        ``rate`` in Hz. Frames that are yet to come have a stamp and an image without pixels.

        >>> buffer = EpisodeBuffer(max_frames=4)
        >>> for k in range(3):
        ...     buffer.append(Frame(k, np.zeros((1, 1, 3), np.uint8)))
        >>> [(stride, [f.stamp_ns for f in prefix]) for stride, prefix in buffer.forecast(1e9, 3)]
        [(1, [0, 1, 2, 3]), (2, [0, 1, 4]), (2, [0, 1, 4, 5])]
        """
        future = self.copy()
        newest = self.prefix()[-1].stamp_ns
        for k in range(1, ticks + 1):
            future.append(Frame(newest + round(k * NS_PER_S / rate), _NO_PIXELS))
            yield future.stride, future.prefix()

    def _drop_off_stride(self) -> None:
        self._pairs = {index: pair for index, pair in self._pairs.items() if index % self.stride == 0}
