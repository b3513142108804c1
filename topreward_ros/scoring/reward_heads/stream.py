"""What a Robometer is shown: a question, and frames as images, each with a token at which it is read.

In one turn of the user stands first what is asked, then for every frame its number, its image and the
progress token. The turn is not closed here: nothing after the newest frame's token changes what is read at
it. The frames are the first and the newest of a prefix, and others at even distances between them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from topreward_ros.core.frames import Frame
from topreward_ros.scoring import patches
from topreward_ros.scoring.base import ScorerError
from topreward_ros.scoring.checkpoint.checkpoint import Checkpoint
from topreward_ros.scoring.checkpoint.reward_format import PROGRESS_TOKEN
from topreward_ros.scoring.frame_size import frame_size
from topreward_ros.scoring.question.prompts import (
    MAX_INSTRUCTION,
    TURN_HEAD,
    TURN_START,
    VISION_END,
    VISION_START,
    InstructionReader,
    plain_ids,
    plain_tokenizer,
    structural_token,
)

IMAGE_PAD = "<|image_pad|>"

#: What the published model was trained to be asked.
QUESTION = (
    "The task for the robot is '{instruction}'. Given the trajectory video, predict the task progress at "
    "each frame, how far along the robot is towards completing the task, a float between 0 and 1, where 0 is "
    "the starting state and 1 is when the task is completed. If the robot is not performing the same task, "
    "predict 0 progress."
)
_IMAGE = 1  # the type of a placeholder's token, for the model's positions
_FEWEST_TOKENS = 4  # of an image; a smaller one is enlarged


def chosen_frames(prefix: Sequence[Frame], most: int) -> list[Frame]:
    """``most`` frames of ``prefix`` at even distances, or all: the first, and the newest, are among them.

    With room for one alone, it is the newest.
    """
    count = min(most, len(prefix))
    if count == 1:
        return [prefix[-1]]
    last, steps = len(prefix) - 1, count - 1
    return [prefix[_half_to_even(number * last, steps)] for number in range(count)]


def _half_to_even(over: int, under: int) -> int:
    """``over`` / ``under`` as a whole number, a half to the even one, as NumPy rounds.

    >>> [_half_to_even(over, 2) for over in (1, 3, 4, 5)]
    [0, 2, 2, 2]
    """
    whole, rest = divmod(2 * over + under, 2 * under)
    return whole - (rest == 0 and whole % 2)


def image_size(height: int, width: int, unit: int, max_pixels: int) -> tuple[int, int]:
    """Size (height, width) at which the model sees a frame: as `frame_size`, and at least four tokens large.

    >>> image_size(480, 640, unit=32, max_pixels=307200)
    (480, 640)
    >>> image_size(37, 53, unit=32, max_pixels=307200)
    (64, 96)
    """
    size = frame_size(height, width, unit, max_pixels)
    fewest = _FEWEST_TOKENS * unit * unit
    if size[0] * size[1] >= fewest or max_pixels < fewest:
        return size
    grow = math.sqrt(fewest / (height * width))
    return math.ceil(height * grow / unit) * unit, math.ceil(width * grow / unit) * unit


class RewardStream:
    """Makes the inputs of a Robometer. Making it raises `ScorerError` for an unfit tokenizer."""

    def __init__(self, checkpoint: Checkpoint, max_pixels: int) -> None:
        tokenizer = checkpoint.tokenizer
        self.max_pixels = max_pixels  #: of one frame as the model sees it
        self._preprocessing = checkpoint.preprocessing
        vision = checkpoint.config.get("vision_config", {})
        self._patch_side, self._merge_side = (
            vision.get("patch_size") or 16,
            vision.get("spatial_merge_size") or 2,
        )
        if not all(type(side) is int and 0 < side <= 64 for side in (self._patch_side, self._merge_side)):
            raise ScorerError(
                f"{checkpoint.folder}: patch_size and spatial_merge_size of vision_config in config.json "
                "must be whole numbers from 1 to 64: copy the checkpoint again"
            )
        self._plain = plain_tokenizer(tokenizer)
        self._turn_start, self._vision_start, self._vision_end, self._pad, self._progress = (
            structural_token(tokenizer, token)
            for token in (TURN_START, VISION_START, VISION_END, IMAGE_PAD, PROGRESS_TOKEN)
        )
        self._reader = InstructionReader()
        for name, token in (
            ("image_token_id", self._pad),
            ("vision_start_token_id", self._vision_start),
            ("vision_end_token_id", self._vision_end),
        ):
            if checkpoint.config.get(name, token) != token:
                raise ScorerError(
                    f"{checkpoint.folder}: config.json has {name} {checkpoint.config[name]}, the tokenizer "
                    f"has {token}: they belong to different models"
                )

    def prompt_hash(self) -> str:
        """First 16 hex digits of a SHA-256 over what decides the stream beside frames and instruction."""
        parts = [TURN_START, TURN_HEAD, QUESTION, _number_text(1), VISION_START, IMAGE_PAD, VISION_END]
        return hashlib.sha256("\0".join([*parts, PROGRESS_TOKEN, str(MAX_INSTRUCTION)]).encode()).hexdigest()[
            :16
        ]

    def inputs(self, instruction: str, frames: Sequence[Frame]) -> dict[str, torch.Tensor]:
        """The backbone's inputs, as tensors on the CPU; the last token is that at which the newest frame is
        read. Raises `ScorerError` for an image that the model does not take."""
        unit = self._patch_side * self._merge_side
        shapes = [frame.image.shape for frame in frames]
        sizes = [image_size(height, width, unit, self.max_pixels) for height, width, _ in shapes]
        rows = []
        for frame, size in zip(frames, sizes, strict=True):
            image = _resized(frame.image, size)
            rows.append(patches.cut(image, image, self._preprocessing, self._patch_side, self._merge_side))
        ids = torch.tensor([self._ids(instruction, [height * width // unit**2 for height, width in sizes])])
        grid = [[1, height // self._patch_side, width // self._patch_side] for height, width in sizes]
        return {
            "input_ids": ids,
            "mm_token_type_ids": _IMAGE * (ids == self._pad).int(),
            "pixel_values": torch.cat(rows),
            "image_grid_thw": torch.tensor(grid),
        }

    def _ids(self, instruction: str, placeholders: Sequence[int]) -> list[int]:
        """Token ids; ``placeholders``: of each image. No part of the instruction is read as structure."""
        text = TURN_HEAD + QUESTION.replace("{instruction}", self._reader.cut(instruction))
        ids = [self._turn_start]
        for number, count in enumerate(placeholders, start=1):
            ids += plain_ids(self._plain, text + _number_text(number))
            ids += [self._vision_start, *[self._pad] * count, self._vision_end, self._progress]
            text = ""
        return ids


def _resized(image: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    """``image`` (H, W, 3) uint8 as a uint8 tensor (3, height, width), resized as in training: by Pillow.

    PyTorch rounds some pixels otherwise, which moved progress by up to 8e-4 on random weights.
    """
    if image.shape[:2] != size:
        image = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))
    return torch.from_numpy(np.array(image.transpose(2, 0, 1), order="C"))  # a copy


def _number_text(number: int) -> str:
    return f"Picture {number}: "
