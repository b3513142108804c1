"""FROZEN_IMAGES: pictures come with new stamps, and are the same picture again and again.

No two pictures of a real camera are the same: its sensor makes noise, also before a scene in which nothing
moves. So two measures are asked:

- *the same*: every pixel is as it was in the picture before;
- *still*: of a camera that is known to make noise, nearly all tiles of the picture change by less than a
  quarter of what they usually do. That holds for a frozen picture that was compressed anew, too, and where
  somebody prints the time into it.

A simulator, a drawn film, or a video whose encoder skips what does not move gives the same picture as long as
nothing moves; there, nobody can tell a frozen picture from a scene at rest. Which of both it is follows from
what was seen before: where nearly every tile changed from picture to picture, whatever the robot did, the
camera makes noise. Of such a camera a frozen picture is *sure*; of any other, it may be.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from topreward_ros.core.detectors.sample import Finding
from topreward_ros.core.events import EventType
from topreward_ros.core.frames import NS_PER_S
from topreward_ros.core.pictures import Picture

_TILES = (7, 10)  # of the 196x260 samples of a picture, 28x26 each
_REMEMBERED = 15  # steps from picture to picture that were alive
_FEWEST = 5  # of them, to know a camera's noise
_APART = (
    0.4  # [s] in stamp time, at least, between them: a light that is faded in within a second is no noise
)
_CLIPPED = (4.0, 251.0)  # [grey levels] beyond them the noise of a sensor is cut off
_FEWEST_TILES = 10  # tiles that are not clipped, to tell noise
_ALL = 0.9  # share of the tiles that change in a picture with noise, and of the steps in which they do
_STILL = 0.25  # share of its usual change by which a tile is still
_NEARLY_ALL = 0.95  # share of the tiles that are still in a frozen picture
_PAIRS = 2  # same pictures in a row, at least
_RELIT = 4.0  # times its usual change by which a tile changes when the light does


class FrozenDetector:
    """Fires once per stretch of same pictures of one camera; `why` says so until another one comes.

    >>> from topreward_ros.core.pictures import examine
    >>> rng = np.random.default_rng(0)
    >>> alive = [rng.integers(90, 110, (96, 128, 3), np.uint8) for _ in range(6)]
    >>> detector = FrozenDetector(2.0)
    >>> shown = [*alive, *[alive[-1]] * 5]
    >>> found = [detector.update(k * NS_PER_S // 2, image, examine(image)) for k, image in enumerate(shown)]
    >>> [k for k, finding in enumerate(found) if finding], detector.sure
    ([9], True)
    """

    def __init__(self, timeout: float, *, fixed: bool = True) -> None:
        """``fixed``: the camera stands still; of one that moves, all changes while it does, noise or not."""
        self.timeout = timeout  #: [s] for which pictures must be the same; 0: never; may be replaced
        self._fixed = fixed
        self.why = ""  #: what is the same, since the event; else empty
        self.sure = False  #: since the event: the camera makes noise, so that it is no scene at rest
        self._before: tuple[np.ndarray, Picture] | None = None
        # Of the steps that were alive: the stamp, and how much each tile changed.
        self._alive: deque[tuple[int, np.ndarray]] = deque(maxlen=_REMEMBERED)
        self._since_ns: int | None = None  # stamp of the first of the same pictures
        self._before_ns = 0
        self._pairs = 0

    def update(self, stamp_ns: int, image: np.ndarray, picture: Picture | None) -> Finding | None:
        """Take the next picture: its stamp [ns], its image, (H, W, 3) uint8 RGB, and what is seen at a
        glance; None: it is too small to tell."""
        before, before_ns = self._before, self._before_ns
        self._before = None if picture is None else (image, picture)
        self._before_ns = stamp_ns
        if before is None or picture is None or not self.timeout:
            self._go_on()
            return None
        changes = _changes(before[1].samples, picture.samples)
        same = before[0].shape == image.shape and np.array_equal(before[0], image)
        noise = self._noise()
        if not same and (noise is None or not _is_still(changes, noise)):
            if noise is not None and _is_relit(changes, noise):
                self._alive.clear()  # with another light comes another noise
            self._remember(stamp_ns, np.where(_clipped(picture.samples), np.nan, changes))
            self._go_on()
            return None
        if self._since_ns is None:
            self._since_ns, self._pairs = before_ns, 0
        self._pairs += 1
        return self._lasts(stamp_ns, sure=noise is not None)

    def _remember(self, stamp_ns: int, changes: np.ndarray) -> None:
        """Keep a step that was alive, unless one of shortly before is kept: they are to span seconds."""
        if not self._alive or stamp_ns - self._alive[-1][0] >= _APART * NS_PER_S:
            self._alive.append((stamp_ns, changes))

    def _lasts(self, stamp_ns: int, *, sure: bool) -> Finding | None:
        assert self._since_ns is not None
        lasted_s = (stamp_ns - self._since_ns) / NS_PER_S
        if lasted_s < self.timeout or self._pairs < _PAIRS:
            return None
        told, self.sure = self.why, sure
        self.why = f"the picture has been the same for more than {self.timeout:g} s (frozen_timeout)"
        if told:
            return None
        if sure:
            mend = "a camera with noise never shows that, so no score is believed; restart the camera"
        else:
            mend = (
                "it is frozen, or shows a scene at rest without any noise, as a simulator does; scoring goes "
                "on (frozen_timeout: 0 is for simulators)"
            )
        limit = f"frozen_timeout = {self.timeout:g} s"
        text = f"the picture has been the same for {lasted_s:.1f} s ({limit}): {mend}"
        return Finding(EventType.FROZEN_IMAGES, text, self.timeout)

    def _go_on(self) -> None:
        self._since_ns, self.why, self.sure = None, "", False

    def _noise(self) -> np.ndarray | None:
        """How much each tile usually changes [grey levels], NaN where that is clipped; None: the camera is
        not known to make noise."""
        if len(self._alive) < _FEWEST or not self._fixed:
            return None
        steps = np.stack([changes for _, changes in self._alive])
        known = np.isfinite(steps)
        counts = known.sum(axis=1)
        changing = (steps > 0).sum(axis=1)
        noisy = (counts >= _FEWEST_TILES) & (changing >= _ALL * counts)
        if noisy.mean() < _ALL:
            return None
        return _medians(steps, known)


def _changes(before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """Mean difference of the samples of each tile, (tiles,) [grey levels]."""
    return np.asarray(_by_tile(np.abs(now - before)).mean(axis=1))


def _clipped(samples: np.ndarray) -> np.ndarray:
    """The tiles that are so dark or so bright that noise does not show, (tiles,) bool."""
    means = _by_tile(samples).mean(axis=1)
    return np.asarray((means < _CLIPPED[0]) | (means > _CLIPPED[1]))


def _by_tile(samples: np.ndarray) -> np.ndarray:
    rows, columns = _TILES
    height, width = samples.shape[0] // rows, samples.shape[1] // columns
    return samples.reshape(rows, height, columns, width).swapaxes(1, 2).reshape(rows * columns, -1)


def _medians(steps: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Median of each tile over the steps in which it is known, NaN where it never is."""
    medians = np.full(steps.shape[1], np.nan)
    some = known.any(axis=0)
    medians[some] = np.nanmedian(steps[:, some], axis=0)
    return medians


def _is_still(changes: np.ndarray, noise: np.ndarray) -> bool:
    """Whether nearly all tiles with noise change by far less than they usually do."""
    noisy = noise > 0
    return bool((changes[noisy] <= _STILL * noise[noisy]).mean() >= _NEARLY_ALL)


def _is_relit(changes: np.ndarray, noise: np.ndarray) -> bool:
    """Whether most tiles change by far more than noise does."""
    noisy = noise > 0
    return bool(np.median(changes[noisy] / noise[noisy]) >= _RELIT)
