"""What a scorer is: a pure function from (instruction, prefix) to log-probabilities.

A scorer may cache whatever it likes between calls, but no caller can tell: the same arguments give
the same numbers, whatever was scored before. Episodes, thinning and clocks are not its business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from topreward_ros.core.frames import Frame
from topreward_ros.core.progress import PrefixScore

__all__ = ["PrefixScore", "PrefixScorer", "ScorerError", "ScorerInfo"]


class ScorerError(RuntimeError):
    """A score could not be computed, or a scorer not be made. The text names thing, value and mend."""


@dataclass(frozen=True, slots=True)
class ScorerInfo:
    """Where the numbers come from; goes into MonitorInfo and into every file we write."""

    model_id: str  #: as the user named it: 'embedded', a hub id or a folder
    revision: str  #: hub revision, or the SHA-256 of the weights
    random_weights: bool  #: True when the weights were never trained: the numbers mean nothing
    device: str  #: torch device, e.g. 'cpu' or 'cuda:0'
    dtype: str  #: 'float32', 'bfloat16' or 'float16'
    prompt_hash: str  #: SHA-256 over prompt templates and layout, first 16 hex digits


class PrefixScorer(ABC):
    """Scores prefixes of an episode. Not thread-safe: one thread owns it."""

    info: ScorerInfo

    @abstractmethod
    def score(self, instruction: str, prefix: Sequence[Frame]) -> PrefixScore:
        """Log-probability that the trajectory in ``prefix`` completes ``instruction``.

        ``prefix`` holds at least one frame, in order of stamps; its first frame is the episode's
        first. Frames are told apart by identity (``is``), so passing the same objects again lets
        the scorer reuse what it computed for them. Raises `ScorerError`.
        """

    def close(self) -> None:
        """Give back memory (device memory above all). The scorer is unusable afterwards."""
