"""What a scorer is: a pure function from a request (instruction and prefix) to log-probabilities.

A scorer may cache whatever it likes between calls, but no caller can tell: the same arguments give
the same numbers, whatever was scored before. Episodes, thinning and clocks are not its business.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import sysconf
from typing import Any

import numpy as np

from topreward_ros.core.episode import ScoreRequest
from topreward_ros.core.errors import UserError
from topreward_ros.core.frames import Frame
from topreward_ros.core.progress import PrefixScore, ProgressMode

__all__ = [
    "RANDOM_WEIGHTS",
    "PrefixScore",
    "PrefixScorer",
    "ScorerError",
    "ScorerInfo",
    "ScorerSettings",
    "SequentialScorer",
    "in_a_line",
]


RANDOM_WEIGHTS = "random weights"  #: said wherever a person reads a number that they produced


class ScorerError(UserError):
    """A score could not be computed, or a scorer could not be made."""


def in_a_line(error: BaseException) -> str:
    """Kind and first line of an error of somebody else's, to be quoted in ours."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


@dataclass(frozen=True, slots=True)
class ScorerInfo:
    """Where the numbers come from; goes into MonitorInfo and into every file we write."""

    model_id: str  #: as the user named it: 'embedded', a hub id or a folder
    revision: str  #: hub revision, or the SHA-256 of the weights
    random_weights: bool  #: True when the weights were never trained: the numbers mean nothing
    device: str  #: torch device, e.g. 'cpu' or 'cuda:0'
    dtype: str  #: 'float32', 'bfloat16' or 'float16', and ', int8 weights' behind it where they are
    prompt_hash: str  #: SHA-256 over prompt templates and layout, first 16 hex digits
    max_pixels: int  #: pixels of one frame as the model sees it, at most
    instructions: tuple[str, ...] = ()  #: all that the model understands, see vocabulary.py; empty: any


@dataclass(frozen=True, slots=True)
class ScorerSettings:
    """How to run a model. Defaults stand in config/monitor.yaml."""

    device: str  #: 'auto', 'cpu', 'cuda', 'cuda:1' ...
    dtype: str  #: 'auto', 'float32', 'bfloat16' or 'float16'
    max_pixels: int  #: pixels of one frame as the model sees it
    max_frames: int  #: frames of the longest prefix; sizes the cache and shares the video's pixel budget
    threads: int  #: CPU threads; 0: all cores but one
    static_baseline: bool  #: also score the first frame repeated
    prompts: str = ""  #: file of templates, see `templates.read_templates`; empty: the paper's alone
    contrastive: bool = False  #: score True against False alone, see `answers`
    layout: str = "v4.57"  #: of the token stream, see `prompts.Framing`
    chat_template: bool = False  #: see `prompts.Framing`
    sample_rate: float = 0.0  #: [Hz] at which frames come, so that times can be told as due; 0: as they are
    quantization: str = "none"  #: of the language model's weights: 'none' or 'int8', see `quantization`
    cuda_graphs: bool = True  #: capture ticks on a GPU, see `qwen3_vl.cuda_graphs`

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> ScorerSettings:
        """Take the settings from parameters named as in config/monitor.yaml, ignoring the others."""
        return cls(
            device=parameters["device"],
            dtype=parameters["dtype"],
            max_pixels=parameters["max_pixels"],
            max_frames=parameters["max_frames"],
            threads=parameters["scorer_threads"],
            static_baseline=ProgressMode(parameters["progress_mode"]) is ProgressMode.STATIC_BASELINE,
            prompts=parameters["prompts"],
            contrastive=parameters["contrastive"],
            layout=parameters["layout"],
            chat_template=parameters["chat_template"],
            sample_rate=parameters["sample_rate"],
            quantization=parameters["quantization"],
            cuda_graphs=parameters["cuda_graphs"],
        )


class PrefixScorer(ABC):
    """Scores prefixes of an episode. Not thread-safe: one thread owns it."""

    info: ScorerInfo

    @abstractmethod
    def score_all(self, requests: Sequence[ScoreRequest]) -> list[PrefixScore | ScorerError]:
        """Log-probabilities that the trajectories in the prefixes complete the instructions.

        The requests are of different episodes, which share the work where the model can. Of each, the prefix
        holds at least one frame, in order of stamps. Frames are told apart by identity (``is``), so passing
        the same objects again lets the scorer reuse what it computed for them. An episode goes on with the
        next call that has a prefix with the same first frame; one that is left out is forgotten. Where a
        prefix cannot be scored, its error is given in the place of its score.
        """

    def score(self, request: ScoreRequest) -> PrefixScore:
        """`score_all` for one request. Raises `ScorerError`."""
        (outcome,) = self.score_all([request])
        if isinstance(outcome, ScorerError):
            raise outcome
        return outcome

    def episodes_at_once(self) -> int:
        """How many episodes `score_all` can hold, and is the faster for; fewer once memory ran out."""
        return 1

    def ahead(self, request: ScoreRequest) -> Iterator[None]:
        """Work that later scores of the episode will need, in small steps: each ``next`` does one.

        ``request``: the one that was scored last. To be called while there is nothing to score; what was not
        done in time is done when it is needed. Raises `ScorerError`.
        """
        yield from ()

    def memory_bytes(self) -> int:
        """Memory held on the scorer's device: of the GPU, or of this process when that is a CPU."""
        if self.info.device.startswith("cuda"):
            import torch

            return int(torch.cuda.memory_allocated(self.info.device))
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * sysconf("SC_PAGE_SIZE")

    @abstractmethod
    def close(self) -> None:
        """Give back memory (device memory above all). The scorer is unusable afterwards."""


class SequentialScorer(PrefixScorer):
    """A scorer of episodes that share no work: one after the other."""

    @abstractmethod
    def score_one(self, request: ScoreRequest) -> PrefixScore:
        """See `PrefixScorer.score`."""

    def score_all(self, requests: Sequence[ScoreRequest]) -> list[PrefixScore | ScorerError]:
        """See `PrefixScorer.score_all`."""
        return [self._outcome(request) for request in requests]

    def _outcome(self, request: ScoreRequest) -> PrefixScore | ScorerError:
        try:
            return self.score_one(request)
        except ScorerError as error:
            return error


def check_frames(prefix: Sequence[Frame]) -> None:
    """Raises `ScorerError` for no frames, and for an image that is no image."""
    if not prefix:
        raise ScorerError("a prefix of no frames cannot be scored: pass at least one")
    for frame in prefix:
        shape, dtype = frame.image.shape, frame.image.dtype
        if len(shape) != 3 or shape[2] != 3 or 0 in shape or dtype != np.uint8:
            raise ScorerError(f"a frame is {dtype} of shape {shape}: pass uint8 of shape (height, width, 3)")


def seconds_of(prefix: Sequence[Frame], sample_rate: float = 0.0) -> list[float]:
    """Times [s] since the first frame, as they are told to a model.

    A frame that was taken within a quarter of a period of when it was due, at ``sample_rate`` [Hz], is told
    with the time when it was due, as the authors' code does for videos. So the jitter of a camera does not
    turn 0.2 into 0.3 seconds, and what the baseline will need can be known before.
    """
    start = prefix[0].stamp_ns
    seconds = [(frame.stamp_ns - start) / 1e9 for frame in prefix]
    if sample_rate > 0:
        due = [round(time * sample_rate) / sample_rate for time in seconds]
        seconds = [d if abs(d - t) <= 0.25 / sample_rate else t for d, t in zip(due, seconds, strict=True)]
    return seconds


@contextmanager
def no_warnings() -> Iterator[None]:
    """Hide what libraries log while they are imported; torchao names all kernels that it has for others."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)
