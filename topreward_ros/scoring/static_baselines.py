"""A cache of static baselines: scores of videos that repeat the first frame of an episode."""

from __future__ import annotations

from dataclasses import replace

from topreward_ros.core.frames import Frame
from topreward_ros.core.progress import PrefixScore
from topreward_ros.scoring.bounded_dict import BoundedDict

#: What a baseline depends on beside its frame: the instruction, and the number of frames or their times [s].
BaselineKey = tuple[str | float, ...]

_MAX_BASELINES = 4096


class StaticBaselines(BoundedDict[BaselineKey, PrefixScore]):
    """Scores of the first frame repeated, by instruction and times; for one episode."""

    def __init__(self) -> None:
        super().__init__(_MAX_BASELINES)
        self._start: Frame | None = None

    def use_start(self, start: Frame) -> None:
        """Take ``start`` as the repeated frame; the baselines of any other frame are dropped."""
        if start is not self._start:
            self.clear()
            self._start = start

    def complete(self, score: PrefixScore, key: BaselineKey) -> PrefixScore:
        """``score`` with the baseline for ``key``, which is known."""
        static = self[key]
        return replace(score, log_prob_static=static.log_prob, static_by_prompt=static.by_prompt)
