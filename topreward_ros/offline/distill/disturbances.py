"""What cameras show at times: pictures of nothing, light that drifts, a mount that trembles.

All that is drawn comes from a generator that the caller seeds. Nothing here knows of clips or of targets.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np


def _rounded(pictures: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(np.rint(pictures), 0, 255).astype(np.uint8))


def _grain(shape: tuple[int, ...], rng: np.random.Generator, most: float) -> np.ndarray:
    """Noise of a standard deviation of up to ``most``; often none."""
    if rng.random() < 0.4:
        return np.zeros((1,) * len(shape), np.float32)
    return np.asarray(rng.standard_normal(shape, np.float32) * np.float32(rng.uniform(0, most)))


def _flat(pictures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One colour: black, white, a grey or any other; now and then the sensor's noise on it."""
    colour = rng.choice([0.0, 255.0, rng.uniform(0, 255)]) * np.ones(3)
    if rng.random() < 0.3:
        colour = rng.uniform(0, 255, 3)
    return _rounded(colour + _grain(pictures.shape, rng, 4))


def _dark(pictures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lights off: next to black, with the sensor's noise."""
    return _rounded(rng.uniform(0, 8) + _grain(pictures.shape, rng, 6))


def _noise(pictures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise in squares of one to sixteen pixels; it stays or changes with every picture."""
    number, height, width = pictures.shape[:3]
    cell = int(rng.choice([1, 1, 2, 4, 8, 16]))
    colours = 3 if rng.random() < 0.7 else 1
    cells = rng.integers(0, 256, (number, -(-height // cell), -(-width // cell), colours), np.uint8)
    if rng.random() < 0.3:
        cells[:] = cells[:1]
    fine = cells.repeat(cell, axis=1).repeat(cell, axis=2)[:, :height, :width]
    return fine


def _clouds(pictures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Soft patches of colour, as of something close to the lens and out of focus; they may drift."""
    number, height, width = pictures.shape[:3]
    coarse = rng.uniform(0, 255, (int(rng.integers(2, 9)), int(rng.integers(2, 9)), 3)).astype(np.float32)
    contrast, middle = rng.uniform(0.1, 1.0), rng.uniform(40, 215, 3)
    field = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    field = middle + contrast * (field - 127)
    speed = rng.uniform(-8, 8) if rng.random() < 0.5 else 0.0
    moved = np.stack([np.roll(field, round(speed * place), axis=1) for place in range(number)])
    return _rounded(moved + _grain(pictures.shape, rng, 6))


def _shapes(pictures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another scene: boxes, discs and lines on a floor."""
    number, height, width = pictures.shape[:3]
    floor = np.linspace(rng.uniform(0, 255, 3), rng.uniform(0, 255, 3), height)
    scene = np.repeat(floor[:, None], width, axis=1).astype(np.uint8)
    for _ in range(int(rng.integers(2, 14))):
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        x, y, a, b = (int(value) for value in rng.uniform(0, 1, 4) * [width, height, width, height])
        kind = rng.integers(3)
        if kind == 0:
            cv2.rectangle(scene, (x, y), (a, b), colour, -1)
        elif kind == 1:
            cv2.circle(scene, (x, y), int(rng.integers(3, 40)), colour, -1)
        else:
            cv2.line(scene, (x, y), (a, b), colour, int(rng.integers(1, 8)))
    return _rounded(np.stack([scene] * number) + _grain(pictures.shape, rng, 6))


def _hand(pictures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A hand before the lens: skin, out of focus, over half of the picture or more; it rests or moves."""
    number, height, width = pictures.shape[:3]
    rows, columns = np.indices((height, width)).astype(np.float32)
    skin = np.array([rng.uniform(90, 230), rng.uniform(60, 170), rng.uniform(45, 145)], np.float32)
    slope, period = rng.uniform(-1, 1), rng.uniform(8, 40)
    speed = rng.uniform(-9, 9) if rng.random() < 0.5 else 0.0
    share = 1.0 if rng.random() < 0.6 else rng.uniform(0.5, 1.0)
    covered = (columns if rng.random() < 0.5 else width - columns) < share * width
    depth = rng.uniform(0, 0.6)
    made = pictures.copy()
    for place in range(number):
        folds = np.abs(np.sin((columns + slope * rows + speed * place) / period))
        hand = skin * (1 - depth + depth * folds)[..., None] + _grain((height, width, 3), rng, 5)
        made[place][covered] = _rounded(np.broadcast_to(hand, (height, width, 3)))[covered]
    return made


def _dim(pictures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Too dark to see much."""
    return _rounded(pictures * np.float32(rng.uniform(0.03, 0.2)) + _grain(pictures.shape, rng, 4))


def _ramp(pictures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An exposure that has yet to settle, from too dark or too bright."""
    number = len(pictures)
    left = 1 - (np.arange(number) + rng.random()) / number  # of the way to the right exposure
    gain = 1 - left if rng.random() < 0.6 else 1 + rng.uniform(2, 8) * left
    return _rounded(pictures * gain[:, None, None, None].astype(np.float32))


def drifting(pictures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """``pictures`` (N, H, W, 3) in a light that rises, falls or goes up and down."""
    number = len(pictures)
    if rng.random() < 0.5:
        gain = np.linspace(rng.uniform(0.55, 1.3), rng.uniform(0.55, 1.3), number)
    else:
        turns = rng.uniform(0.5, 4) * np.arange(number) / max(1, number)
        gain = 1 + rng.uniform(0.05, 0.4) * np.sin(2 * np.pi * (turns + rng.random()))
    tint = np.linspace(rng.uniform(0.93, 1.07, 3), rng.uniform(0.93, 1.07, 3), number)
    return _rounded(pictures * (gain[:, None] * tint)[:, None, None].astype(np.float32))


def trembling(pictures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """``pictures`` (N, H, W, 3) by a camera whose mount trembles, or is nudged once."""
    number, height, width = pictures.shape[:3]
    if rng.random() < 0.6:
        shifts = rng.normal(0, rng.uniform(0.001, 0.008) * width, (number, 2))
    else:
        shifts = np.zeros((number, 2))
        shifts[int(rng.integers(number)) :] = rng.uniform(-0.015, 0.015, 2) * width
    shown = [
        cv2.warpAffine(
            picture,
            np.array([[1, 0, x], [0, 1, y]], np.float64),
            (width, height),
            borderMode=cv2.BORDER_REFLECT_101,
        )
        for picture, (x, y) in zip(pictures, shifts, strict=True)
    ]
    return np.stack(shown)


Hider = Callable[[np.ndarray, np.random.Generator], np.ndarray]
#: What hides the scene, and how often it is drawn.
HIDERS: dict[str, tuple[Hider, float]] = {
    "flat": (_flat, 0.22),
    "dark": (_dark, 0.12),
    "noise": (_noise, 0.14),
    "clouds": (_clouds, 0.14),
    "shapes": (_shapes, 0.12),
    "hand": (_hand, 0.12),
    "dim": (_dim, 0.08),
    "ramp": (_ramp, 0.06),
}


def hidden(pictures: np.ndarray, rng: np.random.Generator, kind: str = "") -> np.ndarray:
    """What is shown in place of ``pictures`` (N, H, W, 3) while the scene cannot be seen; one kind of it,
    which is drawn unless it is given."""
    if not kind:
        kind = str(rng.choice(list(HIDERS), p=[share for _, share in HIDERS.values()]))
    hide, _ = HIDERS[kind]
    return np.asarray(np.broadcast_to(hide(pictures, rng), pictures.shape))
