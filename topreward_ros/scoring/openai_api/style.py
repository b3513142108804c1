"""How a served model is asked: what goes into a request, and what it says of the answers."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from topreward_ros.core.printable import printable
from topreward_ros.scoring.openai_api.client import Client
from topreward_ros.scoring.openai_api.log_probs import LogProb
from topreward_ros.scoring.question.prompts import MAX_INSTRUCTION, Framing
from topreward_ros.scoring.question.templates import INSTRUCTION_PLACEHOLDER, fill

COMPLETIONS = "/chat/completions"


@dataclass(frozen=True, slots=True)
class SentVideo:
    """A video as it is sent: JPEG files in base64, and their times."""

    pictures: tuple[str, ...]
    seconds: tuple[float, ...]  #: since the start of what is shown
    pixels: int  #: of all pictures together

    def static(self) -> SentVideo:
        """The first picture, repeated at the same times."""
        count = len(self.pictures)
        return SentVideo(self.pictures[:1] * count, self.seconds, self.pixels)


class Style(ABC):
    """A way of asking. May be used by several threads at once."""

    name: str
    unit: int  #: a picture's sides are multiples of it [pixels]
    uses_times: bool  #: whether the model reads the times of the frames

    def __init__(self, client: Client, model: str, framing: Framing) -> None:
        self.client = client
        self._framing = framing
        self.model = model
        self.shown = f"model '{printable(model, 200)}' at {client.endpoint.url}"

    @abstractmethod
    def begin(self, trial: SentVideo, question: str) -> None:
        """Find out how this server is asked, with four frames of 64 by 64 pixels.

        Raises `ScorerError` where it cannot be asked.
        """

    @abstractmethod
    def ask(self, video: SentVideo, question: str) -> tuple[LogProb, ...]:
        """Log-probabilities of the answers, such as True and False. Raises `ScorerError`."""

    @abstractmethod
    def unknown(self, answer: LogProb, word: str) -> str:
        """What to say where ``answer``, which stands for ``word``, is not known."""

    @abstractmethod
    def hashed_framing(self) -> Sequence[str]:
        """What decides the stream beside video and question, for the prompt hash."""

    def prompt_hash(self, templates: Sequence[str]) -> str:
        """First 16 hex digits of a SHA-256 over what decides the stream beside video and instruction."""
        questions = [fill(template, INSTRUCTION_PLACEHOLDER) for template in templates]
        parts = [self.name, *self.hashed_framing(), *questions, str(MAX_INSTRUCTION)]
        parts += self._framing.hash_parts()
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    def complete(self, content: list[dict[str, Any]], more: dict[str, Any]) -> Any:
        """The server's answer to one message of a user."""
        asked = {"model": self.model, "messages": [{"role": "user", "content": content}], **more}
        return self.client.post(COMPLETIONS, asked)
