"""A chat about images, for any server of OpenAI's protocol that lists the likeliest words of an answer.

The frames go as images, the question after them. The server closes the user's turn and opens the assistant's
(its chat template), which nobody can prevent: TOPReward found scores much worse so. The answer is read as
with ``chat_template`` on a local model: it is the first token after the template, ``True`` without a space,
exactly and no other spelling. A server lists up to 20 tokens; where True is not among them, its
log-probability is not known, but at most the least that is listed. Of a file's own answers all must be there.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from math import isfinite
from typing import Any

from topreward_ros.scoring.base import ScorerError
from topreward_ros.scoring.openai_api.client import Client, RefusedError
from topreward_ros.scoring.openai_api.log_probs import Listed, LogProb, listed
from topreward_ros.scoring.openai_api.style import SentVideo, Style
from topreward_ros.scoring.question.answer_set import TRUE_FALSE
from topreward_ros.scoring.question.prompts import Framing

_LISTED = (20, 5)  # tokens that are asked for: OpenAI's limit, and that of some others

_log = logging.getLogger(__name__)


class ImagesStyle(Style):
    """See the module."""

    name = "images"
    unit = 1
    uses_times = False

    def __init__(self, client: Client, model: str, framing: Framing) -> None:
        super().__init__(client, model, framing)
        self._words = tuple(text.lstrip() for text in (framing.answers or TRUE_FALSE).texts)
        self._asked_for = _LISTED[0]
        self._lock = threading.Lock()
        self._warned = False
        # OpenAI has renamed it, and its newer models refuse the old name; most others know that alone.
        is_openai = client.endpoint.host == "api.openai.com"
        self._limit = "max_completion_tokens" if is_openai else "max_tokens"

    def hashed_framing(self) -> Sequence[str]:
        """See `Style.hashed_framing`."""
        return self._words

    def begin(self, trial: SentVideo, question: str) -> None:
        """See `Style.begin`: how many tokens the server lists, and whether its words are ours."""
        for count in _LISTED:
            self._asked_for = count
            try:
                found = self._listed(trial, question)
                break
            except RefusedError as error:
                if count == _LISTED[-1] or "logprobs" not in error.said.lower():
                    raise
        first = found.first
        if first not in self._words and first.strip().casefold() in map(str.casefold, self._words):
            _log.warning(
                "%s answers %r, and %s are read: its log-probabilities say little",
                self.shown,
                first[:20],
                " and ".join(map(repr, self._words)),
            )

    def ask(self, video: SentVideo, question: str) -> tuple[LogProb, ...]:
        """See `Style.ask`."""
        found = self._listed(video, question)
        answers = tuple(map(found.log_prob, self._words))
        for word, answer in zip(self._words, answers, strict=True):
            if not isfinite(answer.value):
                if not isfinite(answer.bound):
                    raise ScorerError(
                        f"{self.shown} lists no likely words (top_logprobs), so that nothing is known of "
                        f"{word}: name a model that does"
                    )
                self._warn_once(answer, word)
            if self._framing.answers is None:  # p(False) is shown alone
                break
        return answers

    def unknown(self, answer: LogProb, word: str) -> str:
        """See `Style.unknown`."""
        return (
            f"{word} is not among the likeliest words that the server lists: log p({word}) is not known, but "
            f"at most {answer.bound:.2f} nat"
        )

    def _listed(self, video: SentVideo, question: str) -> Listed:
        pictures: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{picture}"}}
            for picture in video.pictures
        ]
        more = {"logprobs": True, "top_logprobs": self._asked_for, "temperature": 0, self._limit: 1}
        answer = self.complete([*pictures, {"type": "text", "text": question}], more)
        return listed(answer, self.shown, self.client.quoted)

    def _warn_once(self, answer: LogProb, word: str) -> None:
        with self._lock:
            warn, self._warned = not self._warned, True
        if warn:
            _log.warning(
                "%s: %s; progress is NaN then, and the message says why",
                self.shown,
                self.unknown(answer, word),
            )
