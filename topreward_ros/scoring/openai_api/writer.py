"""A model behind an OpenAI-compatible endpoint that writes new wordings of the question.

It is told the best wordings so far and what they are worth, and writes others, one per line. Its text is not
trusted: `wordings.wordings_in` takes from it what is a template.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from topreward_ros.core.printable import printable
from topreward_ros.scoring.base import ScorerError
from topreward_ros.scoring.openai_api.address import key_for, read_endpoint
from topreward_ros.scoring.openai_api.client import Client, RefusedError
from topreward_ros.scoring.openai_api.load import find_model
from topreward_ros.scoring.openai_api.style import COMPLETIONS
from topreward_ros.scoring.question.templates import ending

TIMEOUT_S = 300.0  #: for one answer, which a slow machine may think about
_LEAST_S = 0.1  # that a second try has
_TOKENS = 2000  # of an answer at most
_SHOWN = 8  # wordings that it is told


class Writer:
    """Writes wordings. Making it asks the server for its models; raises `ScorerError`."""

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S) -> None:
        """``url``: as the parameter ``model`` takes that of a served model."""
        endpoint = read_endpoint(url)
        self._client = Client(endpoint, key_for(endpoint), timeout_s)
        try:
            name, _ = find_model(self._client, endpoint.model)
        except BaseException:
            self._client.close()
            raise
        self._name = name
        self.shown = f"writer '{printable(name, 200)}' at {endpoint.url}"

    def write(self, ranked: Sequence[tuple[str, float]], count: int, seconds: float = TIMEOUT_S) -> str:
        """What the model says, asked for ``count`` wordings in the manner of ``ranked``, the best first.

        ``ranked`` holds wordings and what each is worth. Raises `ScorerError`, also after ``seconds``.
        """
        asked = {"model": self._name, "messages": [{"role": "user", "content": _request(ranked, count)}]}
        end = time.monotonic() + seconds
        try:
            answer = self._client.post(COMPLETIONS, {**asked, "max_tokens": _TOKENS}, most_s=seconds)
        except RefusedError:  # newer models of OpenAI want the other name
            left = max(_LEAST_S, end - time.monotonic())
            answer = self._client.post(COMPLETIONS, {**asked, "max_completion_tokens": _TOKENS}, most_s=left)
        text = _text_of(answer)
        if text is None:
            raise ScorerError(f"{self.shown} answers without a text: name a model that chats")
        return text

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _request(ranked: Sequence[tuple[str, float]], count: int) -> str:
    listed = "\n".join(f"{value:.3f}  {text}" for text, value in ranked[:_SHOWN])
    last = ending(ranked[0][0])
    # A model may repeat what it was told: no line of this is a wording that is not known.
    return (
        "A model watches a video of a robot, is asked the following question, and the probability of the "
        "answer True is taken as the robot's progress. It should be low at the start, rise as the task is "
        "done, and be high only where the task was really completed. These wordings were compared; the "
        "number tells how good each is, at most 1:\n\n"
        f"{listed}\n\n"
        f"Write {count} new wordings that may be better: vary the claim, the order and the style. Each is on "
        "a line of its own, has {instruction} exactly once ({instruction} stands for the task, such as: open "
        f"the drawer), and ends exactly as those above do, in '{last}'. Write nothing else, and no numbers "
        "before the lines."
    )


def _text_of(answer: Any) -> str | None:
    try:
        text = answer["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        return None
    return text if isinstance(text, str) else None
