"""What a scorer is asked: an instruction, and the frames of an episode so far."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf

from topreward_ros.core.frames import EpisodeBuffer, Frame


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """A prefix to be scored. Its answer goes back with `TaskMonitor.add_score` or `scorer_failed`."""

    instruction: str
    buffer: EpisodeBuffer  #: the episode's frames as of now, not to be added to; says what comes next, too
    prefix: tuple[Frame, ...] = field(init=False)  #: what is scored: the frames of ``buffer``
    episode_id: str = ""  #: whose prefix it is; empty where nobody needs to know
    extra: bool = False  #: an extra look (looks.py): the newest frame is not kept, no baseline is needed
    time_left_s: float = (
        inf  #: [s] of an extra look: an answer that takes longer holds up a frame that is due
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "prefix", self.buffer.prefix())

    @classmethod
    def of_frames(cls, instruction: str, frames: Iterable[Frame]) -> ScoreRequest:
        """A request for all of ``frames``, whatever an episode's buffer would keep of them."""
        return cls(instruction, EpisodeBuffer.holding(frames))
