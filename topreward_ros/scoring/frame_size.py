"""At which size a model sees a frame. Needs no PyTorch, so that one who only sends frames needs none."""

from __future__ import annotations

import math
from collections.abc import Callable

from topreward_ros.core.frames import FEWEST_FRAMES
from topreward_ros.defaults import monitor_defaults
from topreward_ros.scoring.base import ScorerError, ScorerSettings

# Of the released Qwen3-VL checkpoints:
VIDEO_PIXELS = 25165824  #: of all frames of a video together
UNIT = 32  #: sides of the square that becomes one token [pixels]; no frame has a shorter side

_LONGEST_SHAPE = 200  # long side by short side, the processor's limit


def frame_size(height: int, width: int, unit: int, max_pixels: int) -> tuple[int, int]:
    """Size (height, width) at which a model sees a frame: multiples of ``unit``, about the same aspect.

    This is the processor's rule, applied to one frame with a budget of ``max_pixels``. Where a short side of
    one ``unit`` would still exceed the budget, the long side is shortened. Raises `ScorerError` for a shape
    that the processor refuses, too.

    >>> frame_size(480, 640, unit=32, max_pixels=307200)
    (480, 640)
    >>> frame_size(480, 640, unit=32, max_pixels=16384)
    (96, 128)
    >>> frame_size(20, 500, unit=32, max_pixels=307200)
    (32, 512)
    >>> frame_size(20, 500, unit=32, max_pixels=8192)
    (32, 256)
    """
    if max(height, width) > _LONGEST_SHAPE * min(height, width):
        raise ScorerError(
            f"an image of {width} x {height} pixels has sides of more than 1:{_LONGEST_SHAPE}, "
            "which the model does not take: crop it"
        )
    fitted_height = max(unit, round(height / unit) * unit)
    fitted_width = max(unit, round(width / unit) * unit)
    if fitted_height * fitted_width > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        fitted_height = max(unit, math.floor(height / shrink / unit) * unit)
        fitted_width = max(unit, math.floor(width / shrink / unit) * unit)
        longest = max(unit, max_pixels // unit // unit * unit)
        fitted_height, fitted_width = min(fitted_height, longest), min(fitted_width, longest)
    return fitted_height, fitted_width


def smaller_frames(settings: ScorerSettings, pixels_of: Callable[[int], int]) -> str:
    """What to say where so many frames are shown that each is smaller than with the shipped ``max_frames``;
    empty: none is.

    ``pixels_of``: pixels of one frame at most where so many are shown; of more frames not more.
    """

    def pixels(frames: int) -> int:
        return max(UNIT**2, pixels_of(frames))

    usual, shown = int(monitor_defaults()["max_frames"]), settings.shown_frames
    if shown <= usual or pixels(shown) >= pixels(usual):
        return ""
    most = max(number for number in range(usual, shown, 2) if pixels(number) >= pixels(usual))
    name, mend = "max_frames", f"max_frames {most - settings.front_padding} at most"
    if settings.fixed_length:
        name, mend = "fixed_length", f"fixed_length {most} at most"
    elif settings.max_frames <= most:
        name = "front_padding"
    if most - settings.front_padding < FEWEST_FRAMES:
        name = "front_padding"
        mend = f"{most - FEWEST_FRAMES} at most, and fewer max_frames,"
    return (
        f"{name} is {getattr(settings, name)}: all frames that are shown share the pixels of a video, so "
        f"that one has at most {pixels(shown)} of them instead of {pixels(usual)}, and is scored as a "
        f"smaller picture; with {mend} a frame keeps its size"
    )
