"""A family of models: how a video and the questions about it become the inputs of a model.

The stream is that of the method: the user's turn is opened, then come the video and the question, and nothing
after it; with ``chat_template`` that turn is closed and the assistant's is opened. No part of the
instruction is read as structure: see `Family.escaped`. The model type in config.json chooses the family:
video_families.py has those that need no processor, image_family.py the one for all other types. The model is
run in scorer.py.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from topreward_ros.core.frames import Frame
from topreward_ros.scoring.base import ScorerError
from topreward_ros.scoring.question.answers import answer_token
from topreward_ros.scoring.question.prompts import ANSWERS, CHAT_ANSWERS, MAX_INSTRUCTION, encodable
from topreward_ros.scoring.question.templates import PLACE, fill

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Inputs = dict[str, torch.Tensor]  #: keyword arguments of a model's forward pass, for one stream


class Video(NamedTuple):
    """Frames in order, and when each was taken."""

    frames: tuple[Frame, ...]
    seconds: tuple[float, ...]  #: since the first frame, as they are written for the model

    def still(self) -> Video:
        """The first frame, repeated at the same times."""
        return Video(self.frames[:1] * len(self.frames), self.seconds)


class Family(ABC):
    """What a scorer needs to know about a model. Raises `ScorerError` for a folder that lacks part of it."""

    tells_times = True  #: whether what the model reads depends on the times of the frames

    def __init__(self, model_type: str, tokenizer: Tokenizer, max_pixels: int) -> None:
        self.model_type = model_type
        self.max_pixels = max_pixels  #: of one frame as the model sees it
        self._added = _added_tokens(tokenizer)

    @abstractmethod
    def inputs(self, video: Video, questions: Sequence[str]) -> Iterator[Inputs]:
        """The model's inputs for each of ``questions``, as tensors on the CPU."""

    @abstractmethod
    def sketch(self) -> str:
        """The text before the question about a video of two frames, for the prompt hash.

        The number of tokens that stand for a frame is left out of it.
        """

    @abstractmethod
    def closing(self) -> str:
        """The text between question and answer when the question is asked as a chat."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``, in which added tokens are read as structure."""

    def forget(self) -> None:  # noqa: B027 - not every family keeps something
        """Drop what is kept of the newest video."""

    def escaped(self, instruction: str) -> str:
        """``instruction`` with a space inside every added token, so that none is read as structure."""
        text = encodable(instruction)
        for token in self._added:
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    def answers(self, templates: Sequence[str], chat_template: bool) -> tuple[int, int]:
        """The tokens of the true and the false answer. Raises `ScorerError` for a tokenizer without them."""
        closing = self.closing() if chat_template else ""
        questions = [fill(template, "lift") + closing for template in templates]
        # After a line break or a space the answer does not begin with a space of its own.
        true, false = (
            answer_token(self.encode, questions, answer)
            for answer in (CHAT_ANSWERS if closing[-1:].isspace() else ANSWERS)
        )
        if true == false:
            raise ScorerError(
                f"the tokenizer has the same token {true} for {ANSWERS[0]!r} and {ANSWERS[1]!r}, so it knows "
                "neither: use a model with another tokenizer, such as Qwen's"
            )
        return true, false

    def prompt_hash(self, templates: Sequence[str], chat_template: bool) -> str:
        """First 16 hex digits of a SHA-256 over what decides the stream beside video and instruction."""
        closing = self.closing() if chat_template else ""
        questions = [fill(template, PLACE) + closing for template in templates]
        parts = [self.model_type, self.sketch(), *questions, *ANSWERS, str(MAX_INSTRUCTION)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def planes_of(frame: Frame) -> torch.Tensor:
    """A copy of the image as a tensor (3, height, width) uint8."""
    return torch.from_numpy(frame.image.transpose(2, 0, 1).copy(order="C"))


def _added_tokens(tokenizer: Tokenizer) -> list[str]:
    """Added tokens, which a tokenizer finds in a text before it cuts words; the longest first."""
    added = (token.content for token in tokenizer.get_added_tokens_decoder().values())
    return sorted((token for token in added if len(token) > 1 and not token.isspace()), key=len, reverse=True)
