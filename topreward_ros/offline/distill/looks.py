"""How another camera, in another light, might have shown the same frames.

All that is drawn comes from a generator that the caller seeds.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


def change_looks(
    frames: np.ndarray,
    height: int,
    width: int,
    rng: np.random.Generator,
    seen_height: float | None = None,
    tilt: float = 0.0,
) -> np.ndarray:
    """Augment frames to (N, height, width, 3) uint8, as another camera might have shown them.

    All frames of a call are changed in the same way: shift and zoom, colour and light, blur, noise, JPEG.
    ``seen_height`` [px] of the frames, in their middle, is what comes to ``height``; None: all of it.
    ``tilt``: by up to so many degrees a camera is turned about its axis, in half of the calls; it then is
    stretched a little, too.
    """
    seen = frames.shape[1] if seen_height is None else seen_height
    pictures = _moved(frames, height, width, rng, seen, tilt)
    looks = _Looks.drawn(rng)
    made = np.empty(pictures.shape, np.uint8)
    known: dict[bytes, np.ndarray] = {}  # a repeated frame stays equal, unless there is noise
    for number, picture in enumerate(pictures):
        key = picture.tobytes() if looks.noise == 0 else b""
        if key not in known:
            known[key] = looks.applied(picture, rng)
        made[number] = known[key] if looks.noise == 0 else looks.applied(picture, rng)
    return made


def _moved(
    frames: np.ndarray, height: int, width: int, rng: np.random.Generator, seen_height: float, tilt: float
) -> np.ndarray:
    """The middle of frames (N, H, W, 3), W wide and ``seen_height`` high; often moved and zoomed a little."""
    side = frames.shape[2]
    zoom, x, y = (
        (rng.uniform(0.94, 1.12), *rng.uniform(-0.04 * side, 0.04 * side, 2))
        if rng.random() < 0.7
        else (1, 0, 0)
    )
    across, down = zoom * width / side, zoom * height / seen_height
    if across < 0.75:  # the change of size below does not look at all pixels
        frames = np.stack([cv2.GaussianBlur(frame, (0, 0), 0.35 / across) for frame in frames])
    transform = np.array(
        [
            [across, 0, width / 2 - 0.5 - across * (side / 2 - 0.5 + x)],
            [0, down, height / 2 - 0.5 - down * (frames.shape[1] / 2 - 0.5 + y)],
        ]
    )
    if tilt and rng.random() < 0.5:
        transform = _turned(height, width, rng.uniform(-tilt, tilt), rng.uniform(0.94, 1.06)) @ np.vstack(
            [transform, [0, 0, 1]]
        )
    how = cv2.INTER_LINEAR if rng.random() < 0.5 else cv2.INTER_CUBIC
    return np.stack(
        [
            cv2.warpAffine(frame, transform, (width, height), flags=how, borderMode=cv2.BORDER_REPLICATE)
            for frame in frames
        ]
    )


def _turned(height: int, width: int, degrees: float, stretch: float) -> np.ndarray:
    """(2, 3) turns a picture about its middle, and makes it wider by ``stretch``."""
    x, y = width / 2 - 0.5, height / 2 - 0.5
    wider = np.array([[stretch, 0, x - stretch * x], [0, 1, 0], [0, 0, 1]])
    return np.asarray(cv2.getRotationMatrix2D((x, y), degrees, 1.0) @ wider)


@dataclass(frozen=True)
class _Looks:
    """How a camera shows colours and details; the same for all frames of a video."""

    gain: np.ndarray  #: (3,) by colour
    offset: float  #: of 255
    noise: float  #: standard deviation, of 255; 0: none
    blur: float  #: [px] standard deviation of the Gaussian; 0: none
    quality: int  #: of JPEG; 0: not compressed
    grey: float  #: share of the colour that is lost

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> _Looks:
        return cls(
            gain=rng.uniform(0.82, 1.18) * rng.uniform(0.95, 1.05, 3),
            offset=rng.uniform(-12, 12),
            noise=float(rng.choice([0, 0, 2, 5, 12])) * rng.random(),
            blur=float(rng.uniform(0.4, 0.8)) if rng.random() < 0.4 else 0.0,
            quality=int(rng.integers(40, 95)) if rng.random() < 0.2 else 0,
            grey=rng.uniform(0, 0.4) if rng.random() < 0.15 else 0.0,
        )

    def applied(self, picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """``picture`` (height, width, 3) uint8 with these looks; ``rng`` draws the noise."""
        changed: np.ndarray = picture.astype(np.float32) * self.gain.astype(np.float32) + np.float32(
            self.offset
        )
        if self.grey:
            changed += np.float32(self.grey) * (changed.mean(2, keepdims=True) - changed)
        if self.blur:
            changed = cv2.GaussianBlur(changed, (0, 0), self.blur)
        if self.noise:
            changed += rng.standard_normal(changed.shape, np.float32) * np.float32(self.noise)
        shown = np.clip(np.rint(changed), 0, 255).astype(np.uint8)
        if self.quality:
            _, jpeg = cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, self.quality])
            return np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR))
        return np.asarray(shown)
