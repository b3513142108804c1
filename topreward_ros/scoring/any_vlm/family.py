"""How a family of models wants to be shown a video and asked about it: from frames and questions to inputs.

The stream is that of the method: the opened turn of the user, the video, the question, and nothing behind
it; with ``chat_template`` the turn is closed and the assistant's opened. Nothing the instruction says is ever
read as structure: see `Family.escaped`. A family is chosen by the model type in config.json: video_families.py
has those that are laid out here, image_family.py the one for all others. Running the model is the business
of transformers_vlm.py.
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
    seconds: tuple[float, ...]  #: since the first frame, as they are told

    def still(self) -> Video:
        """A video as long in which nothing moves."""
        return Video(self.frames[:1] * len(self.frames), self.seconds)


class Family(ABC):
    """What a scorer needs to know of a model. Raises `ScorerError` for a folder that lacks what it needs."""

    tells_times = True  #: whether what the model reads depends on the times of the frames

    def __init__(self, model_type: str, tokenizer: Tokenizer, max_pixels: int) -> None:
        self.model_type = model_type
        self.max_pixels = max_pixels  #: of one frame as the model sees it
        self._added = _added_tokens(tokenizer)

    @abstractmethod
    def inputs(self, video: Video, questions: Sequence[str]) -> Iterator[Inputs]:
        """What the model is given for each of ``questions``, on the CPU."""

    @abstractmethod
    def sketch(self) -> str:
        """What stands before the question for a video of two frames, short of how many tokens a frame has."""

    @abstractmethod
    def closing(self) -> str:
        """What follows the question when it is asked as a chat, up to the answer."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Token ids of ``text`` with all its structure."""

    def forget(self) -> None:  # noqa: B027 - not every family keeps something
        """Give back what is kept of the newest video."""

    def escaped(self, instruction: str) -> str:
        """``instruction`` with a space in every token of the model's own that it has in it."""
        text = encodable(instruction)
        for token in self._added:
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    def answers(self, templates: Sequence[str], chat_template: bool) -> tuple[int, int]:
        """The tokens of the true and the false answer. Raises `ScorerError` for a tokenizer without them."""
        closing = self.closing() if chat_template else ""
        questions = [fill(template, "lift") + closing for template in templates]
        # Behind a line break or a space there is no space.
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
        """First 16 hex digits of a SHA-256 over everything that fixes the token stream but the input."""
        closing = self.closing() if chat_template else ""
        questions = [fill(template, PLACE) + closing for template in templates]
        layout = [self.model_type, self.sketch(), *questions, *ANSWERS, str(MAX_INSTRUCTION)]
        return hashlib.sha256("\0".join(layout).encode()).hexdigest()[:16]


def planes_of(frame: Frame) -> torch.Tensor:
    """(3, height, width) uint8, a copy."""
    return torch.from_numpy(frame.image.transpose(2, 0, 1).copy(order="C"))


def _added_tokens(tokenizer: Tokenizer) -> list[str]:
    """Tokens that are found in a text before it is cut into words, the longest first."""
    added = (token.content for token in tokenizer.get_added_tokens_decoder().values())
    return sorted((token for token in added if len(token) > 1 and not token.isspace()), key=len, reverse=True)
