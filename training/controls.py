"""Films that put a model to the test: nothing was done in them, or it was done and hard to see.

They are made of clips that the simulator judged, and of disturbances with seeds of their own. `evaluate`
shows them to a model, and `golden_clips` films some. `bench/false_success.py` of the repository shows others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from topreward_ros.offline.distill import disturbances
from training.clips import RATE, Clip
from training.samples import LASTING, crop, done

SECONDS = 12.0  #: of a scene in which nothing happens any more
_KINDS = list(disturbances.HIDERS)


@dataclass(frozen=True)
class Cast:
    """The clips of a control: of one task, in views that may differ."""

    success: Clip
    another: Clip  #: another success at the same task
    failure: Clip
    elsewhere: Clip  #: a success at another task
    turn: int  #: chooses among kinds of disturbance, and seeds them
    rate: float = RATE  #: [Hz] of the clips

    def count(self, seconds: float) -> int:
        """Frames in so many seconds."""
        return round(seconds * self.rate)

    def kind(self, number: int) -> str:
        """One of the kinds of hidden scenes, another one for each number and turn."""
        return _KINDS[(self.turn + number) % len(_KINDS)]

    @property
    def rng(self) -> np.random.Generator:
        return np.random.default_rng([self.turn, 14])

    @property
    def whole(self) -> np.ndarray:
        """The success from its beginning to its end."""
        return _seen(self.success)

    @property
    def middle(self) -> int:
        """A frame of the success half-way through the work."""
        return done_at(self.success) // 2

    @property
    def half(self) -> np.ndarray:
        """The first half of the failure."""
        return _seen(self.failure)[: len(self.failure.frames) // 2]

    def finished(self, clip: Clip) -> np.ndarray:
        """A scene after the success, for a while: nobody sees how it came about."""
        first = min(done_at(clip) + self.count(0.5), len(clip.frames) - 1)
        return self.held(_seen(clip)[first:], SECONDS)

    def held(self, frames: np.ndarray, seconds: float) -> np.ndarray:
        """``frames`` cut to so many seconds; the last one repeated where they are too few."""
        return frames[np.minimum(np.arange(self.count(seconds)), len(frames) - 1)]

    def photo(self, clip: Clip) -> np.ndarray:
        """The last picture of a success, as if it lay before the camera."""
        return self.held(_seen(clip)[-1:], SECONDS)

    def covered(self, frames: np.ndarray, first: int, seconds: float, kind: str) -> np.ndarray:
        """``frames`` with so many seconds of something else in their place, from the ``first`` on."""
        shown, last = frames.copy(), first + max(1, self.count(seconds))
        shown[first:last] = disturbances.hidden(shown[first:last], self.rng, kind)
        return shown

    def begun_badly(self, frames: np.ndarray, seconds: float, kind: str) -> np.ndarray:
        """So many seconds of something else, then ``frames``."""
        lead = np.repeat(frames[:1], self.count(seconds), axis=0)
        return self.covered(np.concatenate([lead, frames]), 0, seconds, kind)

    def cut(self, *parts: np.ndarray) -> np.ndarray:
        """One after the other."""
        return np.concatenate(parts)

    def faded(self, before: np.ndarray, after: np.ndarray, seconds: float) -> np.ndarray:
        """The one, and within so many seconds the other."""
        weights = np.linspace(0, 1, self.count(seconds) + 2)[1:-1, None, None, None]
        between = (before[-1:] * (1 - weights) + after[:1] * weights).astype(np.uint8)
        return self.cut(before, between, after)

    def undone(self) -> np.ndarray:
        """Done for little more than a second, and then brought back to where it was."""
        top = min(len(self.whole) - 1, done_at(self.success) + self.count(0.5))
        there_and_back = self.cut(self.whole[: top + 1], self.whole[top::-1])
        return self.held(there_and_back, 2 * top / self.rate + 3)

    def standing_still(self, first: int, seconds: float) -> np.ndarray:
        """The success, of which one picture stays for so long; then goes on what has happened meanwhile."""
        shown = self.whole.copy()
        shown[first : first + self.count(seconds)] = shown[first]
        return shown

    def grainy(self, deviation: float) -> np.ndarray:
        """The success through the noise of a sensor."""
        noise = self.rng.standard_normal(self.whole.shape, np.float32) * np.float32(deviation)
        return np.asarray(np.clip(np.rint(self.whole + noise), 0, 255).astype(np.uint8))


Film = Callable[[Cast], np.ndarray]  #: (N, height, width, 3) uint8 RGB, 4:3, at the rate of the clips


def done_at(clip: Clip) -> int:
    """The frame of a success at which it is done."""
    return int(np.argmax(done(clip)))


def _seen(clip: Clip) -> np.ndarray:
    """What a camera of 4:3 sees of a clip."""
    return crop(clip.frames, clip.frames.shape[2] * 3 // 4, clip.frames.shape[2])


def _bad_start(number: int) -> Film:
    return lambda cast: cast.begun_badly(cast.finished(cast.success), 1, cast.kind(number))


#: Nothing was done; SUCCESS is wrong.
NOTHING_DONE: dict[str, Film] = {
    "finished before": lambda cast: cast.finished(cast.success),
    **{f"bad start {number + 1}": _bad_start(number) for number in range(3)},
    "bad start of 5 s": lambda cast: cast.begun_badly(cast.finished(cast.success), 5, cast.kind(4)),
    "bad start, other scene": lambda cast: cast.cut(
        _seen(cast.elsewhere)[: cast.count(1)], cast.finished(cast.success)
    ),
    "bad start, then a failure": lambda cast: cast.begun_badly(_seen(cast.failure), 1, cast.kind(5)),
    "covered": lambda cast: cast.covered(cast.finished(cast.success), cast.count(4), 2, cast.kind(6)),
    "photo": lambda cast: cast.photo(cast.success),
    "photo cut in": lambda cast: cast.cut(cast.half, cast.photo(cast.another)),
    "cut": lambda cast: cast.cut(cast.half, cast.finished(cast.another)),
    "cut, black between": lambda cast: cast.cut(
        cast.half, np.zeros_like(cast.whole[: cast.count(1)]), cast.finished(cast.another)
    ),
    "faded": lambda cast: cast.faded(cast.half, cast.finished(cast.another), 2),
    "other task": lambda cast: cast.cut(cast.half, cast.finished(cast.elsewhere)),
}
#: Done and brought back, for tasks whose objects stay where they are put; SUCCESS is wrong.
UNDONE: dict[str, Film] = {"undone": Cast.undone}
#: Done and hard to see; SUCCESS is right.
DONE: dict[str, Film] = {
    "as is": lambda cast: cast.whole,
    "one bad frame": lambda cast: cast.covered(
        cast.whole, max(2, cast.middle // 2 * 2), 1 / cast.rate, "noise"
    ),
    "2 s lights off": lambda cast: cast.covered(cast.whole, max(1, cast.middle), 2, "dark"),
    "2 s lights off at the end": lambda cast: cast.covered(
        cast.whole, max(1, done_at(cast.success) - cast.count(1.75)), 2, "dark"
    ),
    "2 s frozen": lambda cast: cast.standing_still(max(1, cast.middle), 2),
    "exposure ramp": lambda cast: cast.covered(cast.whole, 0, 1, "ramp"),
    "sensor noise": lambda cast: cast.grainy(10),
    "drift of light": lambda cast: disturbances.drifting(cast.whole, cast.rng),
}


def films_of(task: str) -> dict[str, Film]:
    """All controls that fit a task, by name."""
    return {**NOTHING_DONE, **(UNDONE if task in LASTING else {}), **DONE}
