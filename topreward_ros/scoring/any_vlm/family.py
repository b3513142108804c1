"""A family of models: how a video and the questions about it become the inputs of a model.

The stream ends with the question, so that the answer is the next token. With ``chat_template`` the user's
turn is closed after the question, and the assistant's is opened, with the reply of a file of prompts that has
one. What comes before the question depends on
the family: most open the user's turn and then show the video, as the method's authors do; Molmo2 shows the
video first, and `ImageFamily` follows the processor's chat template. No part of the instruction is read as
structure: see `Family.escaped`.

The model type in config.json chooses the family: video_families.py has those that need no processor,
image_family.py the one for all other types. The model is run in scorer.py.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from topreward_ros.core.frames import Frame
from topreward_ros.scoring.question.answer_set import TRUE_FALSE
from topreward_ros.scoring.question.answers import AnswerTokens, answer_tokens
from topreward_ros.scoring.question.prompts import MAX_INSTRUCTION, Framing, encodable
from topreward_ros.scoring.question.templates import INSTRUCTION_PLACEHOLDER, Question, fill

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Inputs = dict[str, torch.Tensor]  #: keyword arguments of a model's forward pass, for one stream


class Video(NamedTuple):
    """Frames in order, and the time of each."""

    frames: tuple[Frame, ...]
    seconds: tuple[float, ...]  #: since the start of what is shown, as they are written for the model

    def static(self) -> Video:
        """The first frame, repeated at the same times."""
        return Video(self.frames[:1] * len(self.frames), self.seconds)


class Family(ABC):
    """Makes the inputs of models of one type, and knows the tokens of their answers.

    Making a family raises `ScorerError` where the checkpoint's folder lacks something that it needs.
    """

    uses_times = True  #: whether what the model reads depends on the times of the frames

    def __init__(self, model_type: str, tokenizer: Tokenizer, max_pixels: int) -> None:
        self.model_type = model_type
        self.max_pixels = max_pixels  #: of one frame as the model sees it
        self._added = _added_tokens(tokenizer)

    @abstractmethod
    def inputs(self, video: Video, questions: Sequence[str]) -> Iterator[Inputs]:
        """The model's inputs for each of ``questions``, as tensors on the CPU."""

    @abstractmethod
    def prompt_skeleton(self) -> str:
        """The text before the question about a video of two frames, for the prompt hash.

        It does not depend on the number of placeholders per frame.
        """

    @abstractmethod
    def chat_suffix(self) -> str:
        """The text between question and answer with ``chat_template``."""

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

    def suffix(self, framing: Framing) -> str:
        """The text between question and answer."""
        chat_suffix = self.chat_suffix() if framing.chat_template else ""
        if framing.reply and not chat_suffix[-1:].isspace():
            chat_suffix += " "
        return chat_suffix + framing.reply

    def answer_tokens(self, question: Question, framing: Framing) -> AnswerTokens:
        """Tokens of the answers behind question and suffix. Raises `ScorerError` for a tokenizer without
        them."""
        suffix = self.suffix(framing)
        questions = [fill(template, "lift") + suffix for template in question.templates]
        return answer_tokens(self.encode, questions, (question.answers or TRUE_FALSE).texts)

    def prompt_hash(self, question: Question, framing: Framing) -> str:
        """First 16 hex digits of a SHA-256 over what decides the stream beside video and instruction."""
        suffix = self.suffix(framing)
        questions = [fill(template, INSTRUCTION_PLACEHOLDER) + suffix for template in question.templates]
        answers = (question.answers or TRUE_FALSE).texts
        parts = [self.model_type, self.prompt_skeleton(), *questions, *answers, str(MAX_INSTRUCTION)]
        parts += framing.hash_parts()
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def chw_tensor(frame: Frame) -> torch.Tensor:
    """A copy of the image as a tensor (3, height, width) uint8."""
    return torch.from_numpy(frame.image.transpose(2, 0, 1).copy(order="C"))


def _added_tokens(tokenizer: Tokenizer) -> list[str]:
    """Added tokens, which a tokenizer finds in a text before it cuts words; the longest first."""
    added = (token.content for token in tokenizer.get_added_tokens_decoder().values())
    return sorted((token for token in added if len(token) > 1 and not token.isspace()), key=len, reverse=True)
