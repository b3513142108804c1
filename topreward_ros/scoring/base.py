"""What a scorer is: it turns a request (instruction and prefix) into log-probabilities.

What a scorer keeps between calls does not change them beyond rounding, unless memory runs out; then it scores
fewer frames from then on. It decides no episode's begin or end and reads no clock.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf, isfinite, isnan
from os import sysconf
from typing import Any

import numpy as np

from topreward_ros.core.errors import UserError
from topreward_ros.core.frames import Frame
from topreward_ros.core.printable import printable
from topreward_ros.core.progress import PrefixScore, ProgressMode
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.scoring.start_times import StartTimes

__all__ = [
    "EMBEDDED",
    "RANDOM_WEIGHTS",
    "BusyError",
    "LinkError",
    "PrefixScore",
    "PrefixScorer",
    "ScorerError",
    "ScorerInfo",
    "ScorerSettings",
    "SequentialScorer",
    "check_frames",
    "in_a_line",
    "problem_with",
    "process_memory_bytes",
    "quiet_logging",
    "without_traceback",
]


EMBEDDED = "embedded"  #: names the model that ships with this package
RANDOM_WEIGHTS = "random weights"  #: Shown beside every number from such weights.


class ScorerError(UserError):
    """A score could not be computed, or a scorer could not be made."""

    longest_pause_s = 30.0  #: for which the worker waits at most before it asks again


class LinkError(ScorerError):
    """The server of a model cannot be reached, or has no time for a call; the next one may find it again.

    To ask a server that is not there costs a connection that is refused: so the worker tries again soon.
    """

    longest_pause_s = 0.5
    temporary = True


class BusyError(ScorerError):
    """The server of a model has too much to do, or allows no more for now."""

    temporary = True

    def __init__(self, text: str, pause_s: float) -> None:
        super().__init__(text)
        self.pause_s = pause_s  #: for which it is not to be asked


_ROUNDING = 1e-3  # by which a log-probability [nat] may lie above 0, and a probability above 1
_LONGEST_ERROR = 300  # characters that are quoted of the error of a library


def in_a_line(error: BaseException) -> str:
    """Type and text of a foreign error, to be quoted in our own message.

    The text is on one line, and cut where it is long: the cause may stand in the second line.
    """
    kind = printable(type(error).__name__, _LONGEST_ERROR)
    try:
        text = str(error)
    except Exception:  # of an error whose own text fails
        return kind
    return f"{kind}: {printable(' '.join(text.split()), _LONGEST_ERROR)}"


@dataclass(frozen=True, slots=True)
class ScorerInfo:
    """Where the numbers come from; goes into MonitorInfo and into every file we write."""

    model_id: (
        str  #: as the user named it: 'embedded', a hub id or a folder; and the adapter, see `Checkpoint`
    )
    revision: str  #: hub revision, or a hash of the weights, see `Checkpoint.revision`
    random_weights: bool  #: True when the weights were never trained: the numbers mean nothing
    device: str  #: torch device, e.g. 'cpu' or 'cuda:0'
    dtype: str  #: 'float32', 'bfloat16' or 'float16'; quantized: and ', int8 weights' or ', fp8 weights'
    prompt_hash: str  #: SHA-256 over prompt templates and layout, first 16 hex digits
    max_pixels: int  #: pixels of one frame as the model sees it, at most
    instructions: tuple[str, ...] = ()  #: all that the model understands, see vocabulary.py; empty: any
    summary: str = ""  #: what a model that was made for this package is, as a short phrase
    front_padding: int = 0  #: as in `ScorerSettings`
    fixed_length: int = 0  #: as in `ScorerSettings`
    answers: str = ""  #: that the score is the expected value of, see `answer_set`; empty: log p(" True")


@dataclass(frozen=True, slots=True)
class ScorerSettings:
    """How to run a model. Defaults are in config/monitor.yaml."""

    device: str  #: 'auto', 'cpu', 'cuda', 'cuda:1' ...
    dtype: str  #: 'auto', 'float32', 'bfloat16' or 'float16'
    max_pixels: int  #: pixels of one frame as the model sees it
    max_frames: int  #: frames of the longest prefix
    threads: int  #: CPU threads; 0: all cores but one
    static_baseline: bool  #: also score the first frame repeated
    prompts: str = ""  #: file of templates or soft prompt, see `question`; empty: the paper's alone
    contrastive: bool = False  #: score True against False alone, see `answers`
    layout: str = "v4.57"  #: of the token stream, see `prompts.Framing`
    chat_template: bool = False  #: see `prompts.Framing`
    sample_rate: float = 0.0  #: [Hz] at which frames are due, see `seconds_of`; 0: times as they are
    quantization: str = (
        "none"  #: of the language model's weights: 'none', 'int8' or 'fp8', see `quantization`
    )
    cuda_graphs: bool = True  #: capture ticks on a GPU, see `qwen3_vl.cuda_graphs`
    compile: str = "false"  #: 'auto', 'true' or 'false', see `qwen3_vl.compiling`
    front_padding: int = 0  #: copies of the first frame before every prefix, even, see `shown_video`
    fixed_length: int = 0  #: frames to which every prefix is resampled, even, see `shown_video`; 0: none
    adapter: str = ""  #: folder of a LoRA adapter that is merged into the model, see `adapter`; empty: none

    @property
    def shown_frames(self) -> int:
        """How many frames the model is shown at most; sizes the cache and shares the video's pixel budget."""
        return self.fixed_length or self.max_frames + self.front_padding

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> ScorerSettings:
        """Take the settings from parameters named as in config/monitor.yaml, ignoring the others."""
        return cls(
            device=parameters["device"],
            dtype=parameters["dtype"],
            max_pixels=parameters["max_pixels"],
            max_frames=parameters["max_frames"],
            threads=parameters["scorer_threads"],
            static_baseline=ProgressMode(parameters["progress_mode"]) is not ProgressMode.RAW_PROBABILITY,
            prompts=parameters["prompts"],
            contrastive=parameters["contrastive"],
            layout=parameters["layout"],
            chat_template=parameters["chat_template"],
            sample_rate=parameters["sample_rate"],
            quantization=parameters["quantization"],
            cuda_graphs=parameters["cuda_graphs"],
            compile=str(parameters["compile"]).lower(),
            front_padding=parameters["front_padding"],
            fixed_length=parameters["fixed_length"],
            adapter=parameters["adapter"],
        )


class PrefixScorer(ABC):
    """Scores prefixes of episodes. Not thread-safe but for `info` and `memory_bytes`: one thread owns it."""

    info: ScorerInfo
    start_times: StartTimes | None = None  #: of its loading, where that was measured
    frame_unit: int = 0  #: frames are resized to multiples of it, by `patches.frame_size`; 0: otherwise

    @abstractmethod
    def score_all(
        self, requests: Sequence[ScoreRequest], kept: Sequence[Frame] = ()
    ) -> list[PrefixScore | ScorerError]:
        """Log-probabilities that the trajectories in the prefixes complete the instructions.

        The requests are of different episodes, which share the work where the model can. Each prefix holds at
        least one frame, in order of stamps. Frames are compared by identity (``is``): for an object that is
        passed again, the scorer reuses what it computed. A prefix continues the episode of the last call that
        has the same first frame; an episode without a request in a call is forgotten, unless its first frame
        is one of ``kept``, in which those come first that matter most, and there is memory for it. A prefix
        that cannot be scored gets its error in the place of a score, and harms no other episode. The newest
        frame of an extra look is in no later prefix, and its score needs no static baseline.
        """

    def score(self, request: ScoreRequest) -> PrefixScore:
        """`score_all` for one request. Raises `ScorerError`."""
        (outcome,) = self.score_all([request])
        if isinstance(outcome, ScorerError):
            try:
                raise outcome
            finally:
                del outcome  # else the error's traceback would hold this frame, which holds the error
        return outcome

    def forget(self) -> None:  # noqa: B027 - not every scorer keeps something
        """Drop what is kept of episodes. The next score of any is computed anew."""

    def episodes_at_once(self) -> int:
        """How many episodes one `score_all` can hold and gains speed from; fewer once memory ran out."""
        return 1

    def ahead(self, request: ScoreRequest) -> Iterator[None]:
        """Precompute what later scores of the episode need; each ``next`` does one small step.

        ``request`` is the one that was scored last. Call it while there is nothing to score; a step that was
        not done in time is done when a score needs it. Raises `ScorerError`.
        """
        yield from ()

    def memory_bytes(self) -> int:
        """Memory held on the scorer's device: of the GPU, or of this process when that is a CPU."""
        if self.info.device.startswith("cuda"):
            import torch

            return int(torch.cuda.memory_allocated(self.info.device))
        return process_memory_bytes()

    @abstractmethod
    def close(self) -> None:
        """Free memory (device memory above all). The scorer is unusable afterwards."""


class SequentialScorer(PrefixScorer):
    """A scorer of episodes that share no work: one after the other."""

    @abstractmethod
    def score_one(self, request: ScoreRequest) -> PrefixScore:
        """See `PrefixScorer.score`."""

    def score_all(
        self, requests: Sequence[ScoreRequest], kept: Sequence[Frame] = ()
    ) -> list[PrefixScore | ScorerError]:
        """See `PrefixScorer.score_all`."""
        self.keep({*kept, *(request.prefix[0] for request in requests if request.prefix)})
        return [self._outcome(request) for request in requests]

    def keep(self, starts: Set[Frame]) -> None:
        """Forget all episodes but those with these first frames."""

    def _outcome(self, request: ScoreRequest) -> PrefixScore | ScorerError:
        try:
            return self.score_one(request)
        except ScorerError as error:
            return without_traceback(error)


def process_memory_bytes() -> int:
    """Resident memory of this process."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * sysconf("SC_PAGE_SIZE")


def without_traceback(error: ScorerError) -> ScorerError:
    """``error``, to be kept or returned, without traceback and causes.

    These hold what the frames of the failed work held, such as KV caches, until the garbage is collected.
    """
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error


def problem_with(score: PrefixScore) -> str:
    """Why ``score`` cannot be believed; empty where it can."""
    for name in ("answer_share", "stated_progress", "success_probability"):
        value = getattr(score, name)
        if not (isnan(value) or -_ROUNDING <= value <= 1.0 + _ROUNDING):
            return f"the scorer gave {value} for {name}, which is in [0, 1]"
    may_be_untold = bool(score.note) or not isnan(score.success_log_prob)
    for value, may_be_nan in (
        (score.log_prob, may_be_untold),
        (score.log_prob_false, True),
        (score.log_prob_static, True),
    ):
        if not (may_be_nan and isnan(value)) and not (isfinite(value) and value <= _ROUNDING):
            return f"the scorer gave {value} for a log-probability, which is finite and at most 0"
    if not (isnan(score.log_prob_std) or 0.0 <= score.log_prob_std < inf):
        return f"the scorer gave {score.log_prob_std} for a standard deviation"
    return ""


def check_frames(prefix: Sequence[Frame]) -> None:
    """Raise `ScorerError` for no frames, or for an image of wrong shape or dtype."""
    if not prefix:
        raise ScorerError("a prefix of no frames cannot be scored: pass at least one")
    for frame in prefix:
        shape, dtype = frame.image.shape, frame.image.dtype
        if len(shape) != 3 or shape[2] != 3 or 0 in shape or dtype != np.uint8:
            raise ScorerError(f"a frame is {dtype} of shape {shape}: pass uint8 of shape (height, width, 3)")


@contextmanager
def quiet_logging() -> Iterator[None]:
    """Disable logging up to level WARNING, for libraries that log much while they are imported or load."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)
