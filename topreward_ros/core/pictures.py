"""What can be told from a picture at a glance: whether it shows anything, and what of another one it keeps.

This works on brightness alone, at 65x49 blocks, so that it costs the same at any resolution: 0.5 ms to
examine a picture of 640x480 and 0.05 ms to compare two (bench/RESULTS.md). It knows nothing of tasks and of
time; scene.py judges the sequence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_ROWS, _COLUMNS = 49, 65  # blocks: one more than there are steps from block to block
_SIDE = 4  # samples of a block, on each of its sides
_TILE = 8  # blocks on a side of a tile; there are 6x8 tiles
_SMALLEST = (72, 96)  # [px] height and width of a picture that has something to look at in every block
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601

# A tile has texture when the steps in it differ by about two grey levels. A smooth gradient has none.
_TEXTURE = 4.0
_ABOVE_NOISE = 6.0  # so many times the noise: with less, a tile that stays could not reach _STAYS
_MOST_NOISE = 200.0  # in the unit of _TEXTURE; more is no noise
_EMPTY = 4  # tiles that may be emptier than the one that tells the noise
_CHESSBOARD = (-1.0) ** np.add.outer(np.arange(_SIDE), np.arange(_SIDE)).astype(np.float32)
_FEWEST_FOR_LIGHT = 8  # tiles that stay, to tell a change of the light
_AS_BRIGHT = 4.0  # [grey levels]
_FEW_TO_ENOUGH = (8, 24)  # tiles with texture, of the 48: with how many the others count fully, and no more
_FEWEST_TEXTURED = 3  # tiles: a small robot before a white wall fills four
_NOISE_EVERYWHERE = 40  # tiles
_FLAT = 3.0  # [grey levels] spread of the blocks below which noise is only that of a sensor
# Films have 0.84 and 0.68 at least, noise 0.64 and 0.29 at most (bench/RESULTS.md).
_LEAST_CORRELATED = (0.55, 0.4)
_STAYS = 0.8  # correlation of the steps in a tile that still shows the same


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A picture as it is compared with others."""

    steps: np.ndarray  #: (2, 6, 8, 64) float32: differences of neighbouring blocks, down and right, by tile
    energy: np.ndarray  #: (6, 8) float32: sum of their squares in each tile
    brightness: np.ndarray  #: (6, 8) float32: mean of each tile [grey levels]
    noise: float  #: mean square of the steps that is noise of the sensor
    textured: int  #: tiles of the 48 with texture
    correlation: tuple[float, float]  #: of neighbouring blocks, and of 2x2 blocks; noise has none
    fault: str  #: why it shows nothing: a phrase that goes on from "a picture that is"; empty: it does


@dataclass(frozen=True, slots=True)
class Likeness:
    """How much of one picture another one keeps, whatever the light."""

    stays: float  #: share of the tiles that still show the same, 0 to 1
    gain: float  #: contrast of the second in units of the first, where it stays; 1 where too little does


def examine(image: np.ndarray) -> Picture | None:
    """Look at an image, (H, W, 3) uint8 RGB; None if it is too small to tell (below 96x72)."""
    height, width = image.shape[:2]
    if height < _SMALLEST[0] or width < _SMALLEST[1]:
        return None
    blocks, halves = _blocks(image)
    down = blocks[1:, :-1] - blocks[:-1, :-1]
    right = blocks[:-1, 1:] - blocks[:-1, :-1]
    steps = np.stack([_by_tile(down), _by_tile(right)])
    pairs = blocks[:48, :64].reshape(24, 2, 32, 2).mean(axis=(1, 3))
    textured = int((steps.var(axis=-1).sum(axis=0) > _TEXTURE).sum())
    correlation = _correlation(blocks), _correlation(pairs)
    return Picture(
        steps,
        np.einsum("dyxk,dyxk->yx", steps, steps),
        _by_tile(blocks[:-1, :-1]).mean(axis=-1),
        _noise(halves),
        textured,
        correlation,
        _fault(float(blocks.std()), textured, correlation),
    )


def likeness(one: Picture, other: Picture) -> Likeness:
    """Compare two pictures by the tiles that have texture in one of them.

    Where these are few, as of a robot before a white wall, tiles without texture in both count as well, if
    they are as bright as before. Where no tile says anything, all stays.
    """
    floor = min(max(_TEXTURE, _ABOVE_NOISE * max(one.noise, other.noise)), _MOST_NOISE)
    telling = np.maximum(one.energy, other.energy) > floor * _TILE**2
    plain = ~telling & (np.abs(one.brightness - other.brightness) < _AS_BRIGHT)
    weight = np.interp(telling.sum(), _FEW_TO_ENOUGH, (1.0, 0.0))
    known = telling.sum() + weight * plain.sum()
    if not known:
        return Likeness(1.0, 1.0)
    together = np.einsum("dyxk,dyxk->yx", one.steps, other.steps)
    same = telling & (together > _STAYS * np.sqrt(one.energy * other.energy))
    gain = _gain(np.sqrt(other.energy[same] / one.energy[same]))
    return Likeness(float((same.sum() + weight * plain.sum()) / known), gain)


def _gain(of_tiles: np.ndarray) -> float:
    """By what the contrast changed. A few tiles tell nothing: something that moves changes them, too."""
    if len(of_tiles) < _FEWEST_FOR_LIGHT:
        return 1.0
    return float(np.median(of_tiles))


def _blocks(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean brightness of each block from 4x4 samples, and by how much one half of these, the white squares of
    a chessboard, differs from the other: (49, 65) each, in grey levels."""
    rows = _samples(image.shape[0], _ROWS * _SIDE)
    columns = _samples(image.shape[1], _COLUMNS * _SIDE)
    luma = image[rows].take(columns, axis=1).astype(np.float32) @ _LUMA
    samples = luma.reshape(_ROWS, _SIDE, _COLUMNS, _SIDE)
    halves = np.einsum("rick,ik->rc", samples, _CHESSBOARD) / (_SIDE**2 / 2)
    return np.asarray(samples.mean(axis=(1, 3))), halves


def _noise(halves: np.ndarray) -> float:
    """What the sensor's noise adds to the squared steps of a block, by the blocks with the least of it.

    The two halves of a block show the same but for noise. Its variance in their difference is that in the two
    steps of a block together.
    """
    by_tile = _by_tile(halves[:-1, :-1]) ** 2
    return float(np.partition(by_tile.mean(axis=-1), _EMPTY, axis=None).flat[_EMPTY])


def _samples(length: int, count: int) -> np.ndarray:
    return (np.arange(count) * length + length // 2) // count


def _by_tile(steps: np.ndarray) -> np.ndarray:
    """(48, 64) -> (6, 8, 64)."""
    tiles = steps.reshape(steps.shape[0] // _TILE, _TILE, steps.shape[1] // _TILE, _TILE)
    return np.ascontiguousarray(tiles.swapaxes(1, 2)).reshape(tiles.shape[0], tiles.shape[2], -1)


def _fault(spread: float, textured: int, correlation: tuple[float, float]) -> str:
    uncorrelated = correlation[0] < _LEAST_CORRELATED[0] or correlation[1] < _LEAST_CORRELATED[1]
    is_noise = uncorrelated and textured >= _NOISE_EVERYWHERE  # else: thin things before something plain
    if textured < _FEWEST_TEXTURED or (uncorrelated and spread < _FLAT):
        return "nearly one colour"
    return "noise" if is_noise else ""


def _correlation(blocks: np.ndarray) -> float:
    """Correlation of neighbours, down and right."""
    centred = blocks - blocks.mean()
    energy = float((centred * centred).mean())
    if energy == 0.0:
        return 0.0
    down, right = (centred[1:] * centred[:-1]).mean(), (centred[:, 1:] * centred[:, :-1]).mean()
    return float((down + right) / 2 / energy)
