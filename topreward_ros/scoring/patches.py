"""From frames to pixel patches, with the same values as from the Qwen3-VL video processor.

The processor itself is not used: it needs torchvision, and it chooses the frame size by the length of the
video, which would change every pixel whenever the prefix grows. The size here depends on the first frame and
on the settings alone.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from topreward_ros.core.printable import printable
from topreward_ros.scoring.base import ScorerError
from topreward_ros.scoring.frame_size import VIDEO_PIXELS
from topreward_ros.scoring.frame_size import frame_size as frame_size
from topreward_ros.scoring.json_files import read_json

_log = logging.getLogger(__name__)

RESIZE_DIFFERS = 2  #: [of 255] between a frame that is resized on a GPU and on a CPU, see `resize_in_float`

# What a preprocessor file may say. The released models turn black into about -1 or -2, white into 1 or 2.
_LARGEST_NUMBER = 1e15  # not infinite, and a whole number in float64
_LARGEST_VALUE = 1e4
_LEAST_CONTRAST = 1e-3  # between black and white


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Normalization and pixel budget from the checkpoint; the defaults are those of the released Qwen3-VL."""

    mean: tuple[float, ...] = (0.5, 0.5, 0.5)  #: per channel, of values in 0..1
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    rescale: float = 1 / 255  #: uint8 to 0..1
    video_pixels: int = VIDEO_PIXELS  #: pixels of all frames of a video together

    def frame_pixels(self, max_pixels: int, frames: int) -> int:
        """Pixel budget of one frame: ``max_pixels``, or less where a video of ``frames`` frames has fewer."""
        return max(1, min(max_pixels, self.video_pixels // frames))


def read_preprocessing(folder: Path, required: bool = False) -> Preprocessing:
    """Read the checkpoint's own preprocessor file. Raises `ScorerError` for one that is invalid.

    A file for images gives mean and deviation only: its pixel budget is that of a single image. Without any
    file the defaults hold, unless one is ``required``.
    """
    for name, is_video in (
        ("video_preprocessor_config.json", True),
        ("processor_config.json", True),
        ("preprocessor_config.json", False),
        ("processor_config.json", False),
    ):
        path = folder / name
        if not path.is_file():
            continue
        content: Any = read_json(path)
        try:
            if name == "processor_config.json":
                content = content.get("video_processor" if is_video else "image_processor")
            if content is not None:
                return _preprocessing(content, is_video)
        except ValueError as error:
            raise ScorerError(
                f"{path} cannot be used ({printable(str(error), 300)}): restore it from the checkpoint"
            ) from error
    if required:
        raise ScorerError(
            f"{folder} has no preprocessor_config.json, which tells the normalization: "
            "copy all files of the checkpoint there"
        )
    _log.warning("%s has no preprocessor file: using the values of the released Qwen3-VL checkpoints", folder)
    return Preprocessing()


def _preprocessing(content: Any, is_video: bool) -> Preprocessing:
    """What the object of a preprocessor says; null counts as not said. Raises `ValueError`."""
    standard = Preprocessing()
    if not isinstance(content, dict):
        raise ValueError(f"its processor is {content!r} and must be an object")
    size = content.get("size") or {}
    if not isinstance(size, dict):
        raise ValueError(f"size is {size!r} and must be an object")
    rescales, normalizes = (content.get(step) is not False for step in ("do_rescale", "do_normalize"))
    pixels = _positive(size, "longest_edge", standard.video_pixels) if is_video else standard.video_pixels
    made = Preprocessing(
        mean=_channels(content, "image_mean", standard.mean) if normalizes else (0.0, 0.0, 0.0),
        std=_channels(content, "image_std", standard.std) if normalizes else (1.0, 1.0, 1.0),
        rescale=_positive(content, "rescale_factor", standard.rescale) if rescales else 1.0,
        video_pixels=max(1, int(pixels)),
    )
    if min(made.std) <= 0:
        raise ValueError(f"image_std is {list(made.std)} and must be above 0")
    for mean, std in zip(made.mean, made.std, strict=True):
        black, white = -mean / std, (255 * made.rescale - mean) / std
        if max(abs(black), abs(white)) > _LARGEST_VALUE or white - black < _LEAST_CONTRAST:
            raise ValueError(
                f"image_mean, image_std and rescale_factor make {black:.3g} of black and {white:.3g} of white"
            )
    return made


def _channels(content: dict[str, Any], name: str, standard: tuple[float, ...]) -> tuple[float, ...]:
    """One finite number for each of the three channels."""
    said = content.get(name)
    if said is None:
        return standard
    if not isinstance(said, list) or len(said) != 3 or not all(map(_is_number, said)):
        raise ValueError(f"{name} is {said!r} and must be three numbers")
    return tuple(map(float, said))


def _positive(content: dict[str, Any], name: str, standard: float) -> float:
    said = content.get(name)
    if said is None:
        return standard
    if not _is_number(said) or said <= 0:
        raise ValueError(f"{name} is {said!r} and must be a number above 0")
    return float(said)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST_NUMBER


def resize(image: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    """``image`` (H, W, 3) uint8 as a uint8 tensor (3, height, width), resized bicubic with antialiasing."""
    return resize_tensor(torch.from_numpy(np.array(image.transpose(2, 0, 1), order="C")), size)  # a copy


def resize_tensor(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """As `resize`, from a tensor (3, H, W) uint8."""
    if image.shape[1:] == size:
        return image
    # On uint8, as the processor does it: the result is rounded and clamped to 0..255.
    return torch.nn.functional.interpolate(image[None], size, mode="bicubic", antialias=True)[0]


def resize_in_float(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """As `resize_tensor`, for a GPU, whose kernels do not resize uint8.

    Rows are resized before columns, and rounded and clamped in between, as on a CPU. There the weights are
    rounded to whole numbers, too: a pixel differs by `RESIZE_DIFFERS` at most, and most do not.
    """
    height, width = size
    for step in ((image.shape[1], width), (height, width)):
        if image.shape[1:] != step:
            resized = torch.nn.functional.interpolate(
                image[None].float(), step, mode="bicubic", antialias=True
            )
            image = resized[0].round_().clamp_(0, 255).to(torch.uint8)
    return image


def normalized(pixels: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """Pixels (frames, 3, height, width), from uint8 to float32 in the range that the model was trained on."""
    mean, std = _mean_and_std(preprocessing, pixels.device)
    return (pixels.float() - mean) / std


@lru_cache(maxsize=8)
def _mean_and_std(preprocessing: Preprocessing, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Both (3, 1, 1) on ``device``, in units of uint8, for one operation per pixel, as the processors do it.

    They are kept, because a copy to a GPU would wait for it in every tick.
    """
    mean = torch.tensor(preprocessing.mean, dtype=torch.float32).mul(1 / preprocessing.rescale)
    std = torch.tensor(preprocessing.std, dtype=torch.float32).mul(1 / preprocessing.rescale)
    return mean[:, None, None].to(device), std[:, None, None].to(device)


def cut(
    first: torch.Tensor, second: torch.Tensor, preprocessing: Preprocessing, patch_side: int, merge_side: int
) -> torch.Tensor:
    """Cut two resized frames, each (3, height, width) uint8, into pixel patches: the vision model's input.

    ``patch_side``: of a pixel patch [pixels]; ``merge_side``: of the square that becomes one token [pixel
    patches]. Returns (pixel patches, values) float32. The pixel patches of one token are neighbours; the
    values of each are in the order channel, frame, row, column.
    """
    pixels = normalized(torch.stack([first, second]), preprocessing)  # (2, 3, height, width)
    _, _, height, width = pixels.shape
    rows, columns = height // patch_side, width // patch_side  # of pixel patches
    blocks = pixels.view(
        *(2, 3),
        *(rows // merge_side, merge_side, patch_side),
        *(columns // merge_side, merge_side, patch_side),
    )
    # (frame, channel, block row, row, y, block column, column, x)
    #   -> (block row, block column, row, column, channel, frame, y, x)
    blocks = blocks.permute(2, 5, 3, 6, 1, 0, 4, 7)
    return blocks.reshape(rows * columns, 3 * 2 * patch_side * patch_side)
