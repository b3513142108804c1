"""What can be told from a picture at a glance: whether it shows anything, and what of another one it keeps.

This works on brightness alone, at 65x49 blocks, so that it costs the same at any resolution: 0.5 ms to
examine a picture of 640x480 and 0.15 ms to compare two (bench/RESULTS.md). What counts is relative: to the
contrast of the picture, to the noise of the sensor, to where a camera that trembles has moved it. It knows
nothing of tasks and of time; scene.py judges the sequence.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

_ROWS, _COLUMNS = 49, 65  # blocks: one more than there are steps from block to block
_SIDE = 4  # samples of a block, on each of its sides
_TILE = 8  # blocks on a side of a tile; there are 6x8 tiles
_SMALLEST = (72, 96)  # [px] height and width of a picture that has something to look at in every block
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601

# A tile has texture when the steps in it differ by about two grey levels. A smooth gradient has none. In a
# picture of less contrast than that of _CONTRAST (thermal, in the dark) it is less by as much.
_TEXTURE = 4.0
_CONTRAST = 20.0  # [grey levels] spread of the blocks
_LEAST_TEXTURE = 0.06  # more than what rounding to whole grey levels makes
_ABOVE_NOISE = 6.0  # so many times the noise is texture
_TELLS = 3.0  # so many times the noise can be compared: it is taken off
_MOST_NOISE = 50.0  # in the unit of _TEXTURE, a sensor's of 20 grey levels; more is no noise
_EMPTY = 4  # tiles that may be emptier than the one that tells the noise
_CHESSBOARD = (-1.0) ** np.add.outer(np.arange(_SIDE), np.arange(_SIDE)).astype(np.float32)
_FEWEST_FOR_LIGHT = 8  # tiles that stay, to tell a change of the light
_AS_BRIGHT = 4.0  # [grey levels] at the contrast of _CONTRAST
_FEW_TO_ENOUGH = (8, 40)  # tiles with texture, of the 48: with how many the others count fully, and no more
_FEWEST_TEXTURED = 3  # tiles: a small robot before a white wall fills four
_NOISE_EVERYWHERE = 40  # tiles
_FLAT = 3.0  # [grey levels] spread of the blocks below which noise is only that of a sensor
# Films have 0.84 and 0.68 at least, noise 0.64 and 0.29 at most (bench/RESULTS.md).
_LEAST_CORRELATED = (0.55, 0.4)
_STAYS = 0.8  # correlation of the steps in a tile that still shows the same
_REACH = 2  # blocks by which a camera that trembles may have moved the picture
_BELIEVED = 0.3  # share of the tiles that stay; by chance, some do wherever another scene is put
_ENOUGH = 0.95  # share of the tiles: where so many stay, the camera did not tremble


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A picture as it is compared with others."""

    samples: np.ndarray  #: (196, 260) float32: brightness where the picture was looked at, 4x4 for a block
    steps: np.ndarray  #: (2, 6, 8, 64) float32: differences of neighbouring blocks, down and right, by tile
    energy: np.ndarray  #: (6, 8) float32: sum of their squares in each tile
    brightness: np.ndarray  #: (6, 8) float32: mean of each tile [grey levels]
    spread: float  #: standard deviation of the blocks' brightness [grey levels]
    noise: float  #: mean square of the steps that is noise of the sensor
    texture: float  #: mean square of the steps above which a tile has texture
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
    samples = _sampled(image)
    blocks = _blocks(samples)
    steps = _steps(blocks)
    pairs = blocks[:48, :64].reshape(24, 2, 32, 2).mean(axis=(1, 3))
    noise = _noise(samples)
    spread = float(blocks.std())
    texture = _texture(spread, noise)
    textured = int((steps.var(axis=-1).sum(axis=0) > texture).sum())
    correlation = _correlation(blocks), _correlation(pairs)
    return Picture(
        samples,
        steps,
        _energy(steps),
        _by_tile(blocks[:-1, :-1]).mean(axis=-1),
        spread,
        noise,
        texture,
        textured,
        correlation,
        _fault(spread, textured, correlation),
    )


def likeness(one: Picture, other: Picture) -> Likeness:
    """Compare two pictures by the tiles that have texture in one of them, wherever within a small reach the
    camera has moved the picture.

    Where these are few, as of a robot before a white wall, tiles without texture in both count as well, if
    they are as bright as before. Where no tile says anything, all stays.
    """
    best = _likeness(one, other)
    if best.stays >= _ENOUGH:
        return best
    down = right = 0
    for _ in range(2):  # the first look is by whole blocks and what lies between them, the second one finer
        more_down, more_right = _common_shift(one, _moved(other, down, right) if down or right else other)
        down, right = down + more_down, right + more_right
        if not (more_down or more_right) or max(abs(down), abs(right)) > _REACH * _SIDE:
            break
        moved = _likeness(one, _moved(other, down, right))
        if moved.stays >= max(_BELIEVED, best.stays):
            best = moved
    return best


def _likeness(one: Picture, other: Picture) -> Likeness:
    """The same of two pictures whose places agree."""
    noises = [min(picture.noise, _MOST_NOISE) for picture in (one, other)]
    floor = max(min(one.texture, other.texture), _TELLS * max(noises))
    telling = np.maximum(one.energy, other.energy) > floor * _TILE**2
    as_bright = _AS_BRIGHT * min(1.0, max(one.spread, other.spread) / _CONTRAST)
    plain = ~telling & (np.abs(one.brightness - other.brightness) < as_bright)
    weight = np.interp(telling.sum(), _FEW_TO_ENOUGH, (1.0, 0.0))
    known = telling.sum() + weight * plain.sum()
    if not known:
        return Likeness(1.0, 1.0)
    together = np.einsum("dyxk,dyxk->yx", one.steps, other.steps)
    # What noise adds to a tile has nothing to do with what it adds to another.
    energies = [
        np.maximum(picture.energy - noise * _TILE**2, picture.energy / 2)
        for picture, noise in zip((one, other), noises, strict=True)
    ]
    same = telling & (together > _STAYS * np.sqrt(energies[0] * energies[1]))
    gain = _gain(np.sqrt(energies[1][same] / energies[0][same]))
    return Likeness(float((same.sum() + weight * plain.sum()) / known), gain)


def _common_shift(one: Picture, other: Picture) -> tuple[int, int]:
    """By how many samples down and right most of ``other`` lies from where it is in ``one``.

    Each tile says as much as any other, or a robot that moves before a plain wall would outweigh it.
    """
    weights = 1 / np.sqrt(np.maximum(one.energy, one.texture * _TILE**2))
    ours = _untiled(one.steps * weights[..., None])
    theirs = np.pad(_untiled(other.steps), ((0, 0), (_REACH, _REACH), (_REACH, _REACH)))
    places = np.lib.stride_tricks.sliding_window_view(theirs, ours.shape[1:], axis=(1, 2))
    together = np.einsum("dabyx,dyx->ab", places, ours)
    row, column = np.unravel_index(together.argmax(), together.shape)
    return (
        round((row - _REACH + _vertex(together[:, column], int(row))) * _SIDE),
        round((column - _REACH + _vertex(together[row], int(column))) * _SIDE),
    )


def _vertex(values: np.ndarray, top: int) -> float:
    """By how much the vertex of a parabola through the highest value and its neighbours lies beside it."""
    if not 0 < top < len(values) - 1:
        return 0.0
    before, highest, after = values[top - 1 : top + 2].tolist()
    bend = before - 2 * highest + after
    return (before - after) / (2 * bend) if bend < 0 else 0.0


def _moved(picture: Picture, down: int, right: int) -> Picture:
    """What a picture shows so many samples farther down and right; at its edge, what is there."""
    rows = np.clip(np.arange(picture.samples.shape[0]) + down, 0, picture.samples.shape[0] - 1)
    columns = np.clip(np.arange(picture.samples.shape[1]) + right, 0, picture.samples.shape[1] - 1)
    blocks = _blocks(picture.samples[rows].take(columns, axis=1))
    steps = _steps(blocks)
    return replace(
        picture,
        steps=steps,
        energy=_energy(steps),
        brightness=_by_tile(blocks[:-1, :-1]).mean(axis=-1),
    )


def _gain(of_tiles: np.ndarray) -> float:
    """By what the contrast changed. A few tiles tell nothing: something that moves changes them, too."""
    if len(of_tiles) < _FEWEST_FOR_LIGHT:
        return 1.0
    return float(np.median(of_tiles))


def _sampled(image: np.ndarray) -> np.ndarray:
    """Brightness at (196, 260) places [grey levels]."""
    rows = _places(image.shape[0], _ROWS * _SIDE)
    columns = _places(image.shape[1], _COLUMNS * _SIDE)
    return np.asarray(image[rows].take(columns, axis=1).astype(np.float32) @ _LUMA)


def _blocks(samples: np.ndarray) -> np.ndarray:
    """Mean brightness of each block, (49, 65)."""
    return np.asarray(samples.reshape(_ROWS, _SIDE, _COLUMNS, _SIDE).mean(axis=(1, 3)))


def _steps(blocks: np.ndarray) -> np.ndarray:
    down = blocks[1:, :-1] - blocks[:-1, :-1]
    right = blocks[:-1, 1:] - blocks[:-1, :-1]
    return np.stack([_by_tile(down), _by_tile(right)])


def _energy(steps: np.ndarray) -> np.ndarray:
    return np.asarray(np.einsum("dyxk,dyxk->yx", steps, steps))


def _texture(spread: float, noise: float) -> float:
    """What counts as texture in a picture of this contrast and noise."""
    relative = _TEXTURE * (spread / _CONTRAST) ** 2
    return min(max(relative, _ABOVE_NOISE * noise, _LEAST_TEXTURE), _TEXTURE)


def _noise(samples: np.ndarray) -> float:
    """What the sensor's noise adds to the squared steps of a block, by the blocks with the least of it.

    The two halves of a block, the white and the black squares of a chessboard, show the same but for noise.
    Its variance in their difference is that in the two steps of a block together.
    """
    squares = samples.reshape(_ROWS, _SIDE, _COLUMNS, _SIDE)
    halves = np.einsum("rick,ik->rc", squares, _CHESSBOARD) / (_SIDE**2 / 2)
    by_tile = _by_tile(halves[:-1, :-1]) ** 2
    return float(np.partition(by_tile.mean(axis=-1), _EMPTY, axis=None).flat[_EMPTY])


def _places(length: int, count: int) -> np.ndarray:
    return (np.arange(count) * length + length // 2) // count


def _by_tile(steps: np.ndarray) -> np.ndarray:
    """(48, 64) -> (6, 8, 64)."""
    tiles = steps.reshape(steps.shape[0] // _TILE, _TILE, steps.shape[1] // _TILE, _TILE)
    return np.ascontiguousarray(tiles.swapaxes(1, 2)).reshape(tiles.shape[0], tiles.shape[2], -1)


def _untiled(steps: np.ndarray) -> np.ndarray:
    """(2, 6, 8, 64) -> (2, 48, 64)."""
    down, tiles_down, tiles_right, _ = steps.shape
    tiles = steps.reshape(down, tiles_down, tiles_right, _TILE, _TILE).swapaxes(2, 3)
    return tiles.reshape(down, tiles_down * _TILE, tiles_right * _TILE)


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
