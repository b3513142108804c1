"""Temporal patches: a prefix as the steps of a video, two frames each, and where their tokens stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from topreward_ros.core.frames import Frame
from topreward_ros.scoring.base import seconds_of
from topreward_ros.scoring.question.prompts import written_time

FramePair = tuple[Frame, Frame]  #: the two frames of a patch


class Patch(NamedTuple):
    """Two frames that become one step of the video, and their time. Equal only for the same frame objects."""

    first: Frame
    second: Frame  #: the same as ``first`` for an odd last frame
    seconds: float  #: mean time of the two since the episode's first frame, to a tenth, as the model is told

    @property
    def frames(self) -> FramePair:
        """The pair that decides the patch's features, whatever its time."""
        return self.first, self.second

    @property
    def is_complete(self) -> bool:
        """Whether it has two frames, so that no later prefix replaces it."""
        return self.first is not self.second


def pair_up(prefix: Sequence[Frame], sample_rate: float = 0.0) -> list[Patch]:
    """The temporal patches of ``prefix``; an odd last frame, or one alone, is repeated.

    ``sample_rate`` [Hz]: see `base.seconds_of`.
    """
    seconds = seconds_of(prefix, sample_rate)
    last = len(prefix) - 1
    return [
        Patch(prefix[i], prefix[j], written_time((seconds[i] + seconds[j]) / 2))
        for i in range(0, len(prefix), 2)
        for j in [min(i + 1, last)]
    ]


def patch_positions(start: int, before: int, rows: int, columns: int) -> tuple[torch.Tensor, int]:
    """M-RoPE positions (3, before + rows * columns + 1) of a patch's tokens, and the position after them.

    The three count time, row and column. In text all three count tokens; a patch stands at one time and
    spreads in rows and columns, and the text after it goes on behind its longer side.
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
