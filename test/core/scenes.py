"""Pictures for tests: scenes that can be told apart, with something in them that moves."""

from __future__ import annotations

import numpy as np


def scene(seed: int = 0, arm: float | None = None, size: tuple[int, int] = (240, 320)) -> np.ndarray:
    """A table with things on it, (H, W, 3) uint8. ``arm``: place of something that covers a sixth, 0 to 1."""
    rng = np.random.default_rng(seed)
    height, width = size
    picture = np.empty((height, width, 3))
    picture[:] = np.linspace(90, 140, width)[None, :, None]
    for _ in range(40):
        top, left = rng.integers(0, height - 20), rng.integers(0, width - 20)
        picture[top : top + rng.integers(10, 60), left : left + rng.integers(10, 60)] = rng.integers(
            0, 256, 3
        )
    if arm is not None:
        left = round(arm * width * 5 / 6)
        picture[:, left : left + width // 6] = (180, 30, 30)
        picture[: height // 2, left + 10 : left + 20] = (20, 20, 20)
    return picture.astype(np.uint8)


def shifted(picture: np.ndarray, down: float, right: float) -> np.ndarray:
    """``picture`` as a camera shows it that has moved by so many pixels; beyond the edge, the edge."""
    shown = picture.astype(float)
    for axis, by in enumerate((down, right)):
        places = np.clip(np.arange(picture.shape[axis]) - by, 0, picture.shape[axis] - 1)
        first = np.minimum(places.astype(int), picture.shape[axis] - 2)
        weight = np.expand_dims(places - first, (1, 2) if axis == 0 else (0, 2))
        shown = shown.take(first, axis) * (1 - weight) + shown.take(first + 1, axis) * weight
    return shown.round().astype(np.uint8)


def noise(seed: int = 0, cell: int = 1, size: tuple[int, int] = (240, 320)) -> np.ndarray:
    """A picture of cells that know nothing of each other."""
    cells = np.random.default_rng(seed).integers(0, 256, (size[0] // cell, size[1] // cell, 3), np.uint8)
    return np.kron(cells, np.ones((cell, cell, 1), np.uint8))


def flat(value: float, sigma: float = 0.0, size: tuple[int, int] = (240, 320)) -> np.ndarray:
    """A picture of one grey, with the noise of a sensor."""
    return lit(np.full((*size, 3), value), 1.0, sigma)


def lit(picture: np.ndarray, gain: float, sigma: float = 0.0, seed: int = 1) -> np.ndarray:
    """``picture`` in another light, with the noise of a sensor."""
    noisy = picture * gain + np.random.default_rng(seed).normal(0, sigma, picture.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)
