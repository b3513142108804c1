"""Temporal patches: a prefix as the steps of a video, two frames each, and the positions of their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from topreward_ros.core.frames import Frame
from topreward_ros.scoring.question.prompts import written_time
from topreward_ros.scoring.shown_video import ShownFrame

FramePair = tuple[Frame, Frame]  #: the two frames of a patch


class Patch(NamedTuple):
    """Two frames that become one step of the video, and their time. Equal only for the same frame objects."""

    first: Frame
    second: Frame  #: the same as ``first`` for an odd last frame
    seconds: float  #: mean time [s] of the two since the start of what is shown, rounded to 0.1

    @property
    def frames(self) -> FramePair:
        """The pair of frames: what the features depend on, whatever the time."""
        return self.first, self.second

    @property
    def is_complete(self) -> bool:
        """Whether it has two frames; the last patch is replaced by a later one where it has not."""
        return self.first is not self.second


def pair_up(video: Sequence[ShownFrame]) -> list[Patch]:
    """The temporal patches of ``video``; an odd last frame, or one alone, is repeated."""
    pairs = (
        (first, video[min(number + 1, len(video) - 1)])
        for number, first in enumerate(video)
        if number % 2 == 0
    )
    return [
        Patch(first.frame, second.frame, written_time((first.seconds + second.seconds) / 2))
        for first, second in pairs
    ]


def patch_positions(start: int, before: int, rows: int, columns: int) -> tuple[torch.Tensor, int]:
    """M-RoPE positions (3, before + rows * columns + 1) of a patch's tokens, and the position after them.

    The three count time, row and column. In text all three are equal and count tokens. Within a patch time is
    constant and the others count its rows and columns; the text after it follows the larger of the two.
    """
    corner = start + before
    after = corner + max(rows, columns)
    positions = torch.empty(3, before + rows * columns + 1, dtype=torch.long)
    positions[:, :before] = torch.arange(start, corner)
    grid = positions[:, before:-1].view(3, rows, columns)
    grid[0] = corner
    grid[1] = torch.arange(corner, corner + rows)[:, None]
    grid[2] = torch.arange(corner, corner + columns)[None, :]
    positions[:, -1] = after
    return positions, after + 1
