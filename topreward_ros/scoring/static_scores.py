"""What is known of the static baseline: the score of a video in which nothing moves, by its layout."""

from __future__ import annotations

from topreward_ros.core.frames import Frame
from topreward_ros.scoring.bounded_dict import Newest

#: What decides a baseline beside its start: the instruction, and the times [s] or the number of the frames.
Layout = tuple[str | float, ...]

_MOST = 4096


class StaticScores(Newest[Layout, float]):
    """Baselines of one episode, log p(" True") [nat] each; the oldest goes when there are too many."""

    def __init__(self) -> None:
        super().__init__(_MOST)
        self._start: Frame | None = None

    def use_start(self, start: Frame) -> None:
        """``start`` is what stands still; those of another episode are void."""
        if start is not self._start:
            self.clear()
            self._start = start
