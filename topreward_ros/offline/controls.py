"""Films made of a recorded episode of which it is known what a score should do: controls of an evaluation.

Each is a `Video` made while it is read, with the stamps of the recording. Noise is drawn from the number of
the frame, so that a film is the same every time it is read.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

import numpy as np

from topreward_ros.core.evaluation import FREEZE_S, Control, frozen_from
from topreward_ros.core.frames import NS_PER_S, FrameSchedule
from topreward_ros.core.instruction import normalized_instruction
from topreward_ros.offline.video import Damage, FrameError, Frames, Video, VideoError, VideoInfo

COVERED_FROM = 0.25  #: share of an episode after which the lens is covered, before anything is done
CAMERA_NOISE = 2.0  #: standard deviation of a sensor's noise [of 255]
_DARK = 8.0  # mean of a picture behind a cover [of 255]
_MOST_BYTES = 2 << 30  # of frames that are kept to be shown in reverse order


_STRETCH = {Control.FASTER: 0.5, Control.SLOWER: 2.0}


def open_control(open_base: Callable[[], Video], control: Control, sample_rate: float) -> Video:
    """The film that ``control`` makes of an episode. ``sample_rate`` [Hz]: at which it will be scored.

    Raises `VideoError`.
    """
    base = open_base()
    if control in _STRETCH:
        return _Stretched(base, _STRETCH[control])
    if control is Control.REVERSED:
        return _Reversed(base, sample_rate)
    make = _MADE.get(control)
    return base if make is None else make(base)


def control_seconds(control: Control, duration_s: float) -> float:
    """How long [s] the film of a control is that is made of an episode of that length [s]."""
    return duration_s * _STRETCH.get(control, 1.0) + (FREEZE_S if control is Control.FROZEN else 0.0)


class _Made(Video):
    """A film made of another one."""

    def __init__(self, base: Video) -> None:
        self._base = base
        self.info = base.info

    @property
    def damaged(self) -> list[Damage]:  # type: ignore[override]
        """What reading the recording has met."""
        return self._base.damaged

    @abstractmethod
    def __iter__(self) -> Frames:
        """See `Video`."""

    def _stamps(self) -> list[int]:
        """Stamps [ns] of the recording. Raises `VideoError` where it has fewer than two frames."""
        with closing(iter(self._base)) as frames:
            stamps = [stamp_ns for stamp_ns, _ in frames]
        if len(stamps) < 2:
            raise VideoError("a film of fewer than two frames has no control: leave the episode out")
        return stamps


class _Stretched(_Made):
    def __init__(self, base: Video, factor: float) -> None:
        super().__init__(base)
        self._factor = factor
        self.info = replace(base.info, rate=base.info.rate / factor)

    def __iter__(self) -> Frames:
        with closing(iter(self._base)) as frames:
            for stamp_ns, read in frames:
                yield round(stamp_ns * self._factor), read


class _Idle(_Made):
    def __iter__(self) -> Frames:
        first = _first_frame(self._base)
        with closing(iter(self._base)) as frames:
            for k, (stamp_ns, _) in enumerate(frames):
                yield stamp_ns, partial(_noisy, first, k)


class _Covered(_Made):
    def __iter__(self) -> Frames:
        from_ns = COVERED_FROM * max(self._stamps())
        with closing(iter(self._base)) as frames:
            for k, (stamp_ns, read) in enumerate(frames):
                yield stamp_ns, (partial(_dark, self.info, k) if stamp_ns >= from_ns else read)


class _Frozen(_Made):
    def __iter__(self) -> Frames:
        stamps = self._stamps()
        at_ns = frozen_from(max(stamps) / NS_PER_S) * NS_PER_S
        held_ns, step_ns = round(FREEZE_S * NS_PER_S), round(NS_PER_S / self.info.rate)
        later_ns, picture = 0, None
        with closing(iter(self._base)) as frames:
            for stamp_ns, read in frames:
                yield stamp_ns + later_ns, read
                if later_ns or stamp_ns < at_ns:
                    continue
                try:
                    picture = read()
                except FrameError:  # the next one is held instead
                    continue
                later_ns = held_ns
                for k in count(1):
                    if k * step_ns >= held_ns:
                        break
                    yield stamp_ns + k * step_ns, partial(_same, picture)


class _Reversed(_Made):
    """Of the frames of the recording, those that are due in reverse order, which must be kept in memory."""

    def __init__(self, base: Video, sample_rate: float) -> None:
        super().__init__(base)
        self._sample_rate = sample_rate
        self.info = replace(base.info, rate=sample_rate)

    def __iter__(self) -> Frames:
        stamps = self._stamps()
        last_ns = max(stamps)
        schedule = FrameSchedule(self._sample_rate)
        due: dict[int, int] = {}
        newest_ns = -1
        for k in range(len(stamps) - 1, -1, -1):
            back_ns = last_ns - stamps[k]
            if back_ns <= newest_ns:  # of a bag whose stamps are out of order
                continue
            newest_ns = back_ns
            if schedule.observe(back_ns):
                schedule.take()
                due[k] = back_ns
        if len(due) * self.info.width * self.info.height * 3 > _MOST_BYTES:
            raise VideoError(
                f"{len(due)} frames of {self.info.width}x{self.info.height} are too many to be reversed in "
                "memory: leave this control out, or give a lower sample_rate"
            )
        kept: list[tuple[int, Callable[[], np.ndarray]]] = []
        with closing(iter(self._base)) as frames:
            for k, (_, read) in enumerate(frames):
                if k in due:
                    kept.append((due[k], _kept(read)))
        yield from reversed(kept)


_MADE: Mapping[Control, Callable[[Video], Video]] = {
    Control.IDLE: _Idle,
    Control.FROZEN: _Frozen,
    Control.COVERED: _Covered,
}


def _kept(read: Callable[[], np.ndarray]) -> Callable[[], np.ndarray]:
    """What gives the picture that ``read`` reads now, or raises what it raised."""
    try:
        return partial(_same, read())
    except FrameError as error:
        return partial(_fail, str(error))


def _same(picture: np.ndarray) -> np.ndarray:
    return picture


def _fail(reason: str) -> np.ndarray:
    raise FrameError(reason)


def _first_frame(video: Video) -> np.ndarray:
    with closing(iter(video)) as frames:
        for _, read in frames:
            try:
                return read()
            except FrameError:
                continue
    raise VideoError("no frame can be read: leave the episode out")


def _noise(shape: tuple[int, ...], k: int) -> np.ndarray:
    return CAMERA_NOISE * np.random.default_rng(k).standard_normal(shape, np.float32)


def _noisy(picture: np.ndarray, k: int) -> np.ndarray:
    noisy = picture + _noise(picture.shape, k)
    return np.asarray(np.clip(np.rint(noisy), 0, 255), np.uint8)


def _dark(info: VideoInfo, k: int) -> np.ndarray:
    """A picture behind a cover."""
    return _noisy(np.full((info.height, info.width, 3), _DARK, np.float32), k)


# ---- what is shown instead of the instruction ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OtherTasks:
    """Which instruction of another task an episode is scored with."""

    tasks: tuple[str, ...]  #: of the data, in order
    known: tuple[str, ...] = ()  #: instructions that the model understands; empty: any
    given: str = ""  #: that the user chose for all

    def of(self, task: str, place: int) -> str:
        """That of the episode in this ``place`` among those of ``task``; empty: there is none.

        The other tasks of the data take turns, so that all pairs of tasks occur where there are episodes
        enough. A single task is compared with the least alike instruction that the model knows.
        """
        mine = normalized_instruction(task)
        if self.given:
            return self.given if normalized_instruction(self.given) != mine else ""
        others = [it for it in self.tasks if normalized_instruction(it) != mine]
        if others:
            return others[place % len(others)]
        least = min(self.known, key=lambda text: (_likeness(text, task), text), default="")
        return least if _likeness(least, task) < 1 else ""


def _likeness(one: str, other: str) -> float:
    """The share of words that two instructions have in common, in [0, 1].

    >>> _likeness("open the drawer", "close the drawer")
    0.5
    """
    mine, theirs = set(one.casefold().split()), set(other.casefold().split())
    return len(mine & theirs) / max(1, len(mine | theirs))
