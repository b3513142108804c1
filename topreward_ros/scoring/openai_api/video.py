"""Qwen3-VL on a vLLM server, asked in the token stream of the method, which the server is made to show first.

The frames go as one video with the times that they have here, and a chat template goes with each request that
writes the stream up to the question and nothing after it. Before anything is scored, the server is asked for
the ids of that stream (/tokenize) and they are compared with those of the stream as text: a server that
changes anything is refused. Log-probabilities are asked for by the ids of " True" and " False", or of the
answers of a file, so that they are known however small they are.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Sequence
from typing import Any

from topreward_ros.scoring.base import ScorerError
from topreward_ros.scoring.frame_size import UNIT
from topreward_ros.scoring.openai_api.client import Client, MissingError, RefusedError
from topreward_ros.scoring.openai_api.log_probs import LogProb, listed
from topreward_ros.scoring.openai_api.style import SentVideo, Style
from topreward_ros.scoring.question.answer_set import TRUE_FALSE
from topreward_ros.scoring.question.answers import answer_tokens
from topreward_ros.scoring.question.prompts import (
    TURN_END,
    TURN_HEAD,
    TURN_START,
    VIDEO_PAD,
    VISION_END,
    VISION_START,
    Framing,
    time_text,
)

TRIAL_SIDE = 64  #: [pixels] of the frames of a trial

_TICKS = 1_000_000  # per second, in which the times of frames are sent
_PIECE = "token_id:"
_HOW = (
    "start it with `vllm serve ... --trust-request-chat-template --trust-request-mm-kwargs`, see "
    "docs/served_models.md"
)

_log = logging.getLogger(__name__)


class VideoStyle(Style):
    """See the module."""

    name = "video"
    unit = UNIT
    uses_times = True

    def __init__(self, client: Client, model: str, framing: Framing) -> None:
        super().__init__(client, model, framing)
        self._reply = framing.reply
        self._gap = ""  # between question and answer, where there is no reply
        self._answers: tuple[int, ...] = ()  # ids
        self._more: dict[str, Any] = {}  # what makes the server read the stream that is meant
        self._by_ids = True  # False: one request per answer, as older servers want it
        self._lock = threading.Lock()
        self._warned = False

    def begin(self, trial: SentVideo, question: str) -> None:
        """See `Style.begin`."""
        self._find_answers(question)
        self._more = self._agreed(trial, question)
        self._by_ids = self._gives_ids(trial, question)

    def hashed_framing(self) -> Sequence[str]:
        """See `Style.hashed_framing`."""
        return [*self._framing.answer_texts, self._framing.layout, str(self._framing.chat_template)]

    def ask(self, video: SentVideo, question: str) -> tuple[LogProb, ...]:
        """See `Style.ask`."""
        content = self._content(video, question)
        more = {**self._more, **_media(video), "max_tokens": 1, "temperature": 0, "logprobs": True}
        more["return_tokens_as_token_ids"] = True
        if self._by_ids:
            answer = self.complete(content, {**more, "logprob_token_ids": list(self._answers)})
            found = listed(answer, self.shown, self.client.quoted)
            self._look_at_size(answer, video)
            return tuple(found.log_prob(f"{_PIECE}{number}") for number in self._answers)
        values = []
        for number in self._answers:
            asked = {**more, "allowed_token_ids": [number], "top_logprobs": 1}
            answer = self.complete(content, asked)
            found = listed(answer, self.shown, self.client.quoted)
            values.append(found.log_prob(f"{_PIECE}{number}"))
        if sum(one.value > -0.69 for one in values) > 1:  # likelier than one half
            raise ScorerError(
                f"{self.shown} gives probabilities among the allowed words alone: start it with "
                "--logprobs-mode raw_logprobs"
            )
        return tuple(values)

    def unknown(self, answer: LogProb, word: str) -> str:
        """See `Style.unknown`."""
        return f"the server does not tell log p({word}), which is too small for it"

    # ---- before anything is scored --------------------------------------------------------------

    def _agreed(self, trial: SentVideo, question: str) -> dict[str, Any]:
        """What to add to requests so that the server reads the stream that is meant."""
        expected = self._ids(self._stream(trial, question + self._gap))
        ways: list[dict[str, Any]] = [
            {"chat_template": _template(video, self._after), "add_generation_prompt": False}
            for video in (VIDEO_PAD, f"{VISION_START}{VIDEO_PAD}{VISION_END}")
        ]
        if not self._reply:  # which the server's own template cannot write
            ways.append({"add_generation_prompt": self._framing.chat_template})
        refused = ""
        for way in ways:
            more = {**way, "add_special_tokens": False}
            asked = {"messages": [{"role": "user", "content": self._content(trial, question)}], **more}
            try:
                if self._tokenize({**asked, **_media(trial)}) == expected:
                    return more
            except RefusedError as error:
                refused = refused or f" (it says '{error.said}')"
        raise ScorerError(
            f"{self.shown} does not read the token stream of the method in the layout "
            f"{self._framing.layout}{refused}: {_HOW}; with chat_template true and a server that is no vLLM "
            "it is asked as a chat"
        )

    def _stream(self, trial: SentVideo, question: str) -> str:
        """The stream about ``trial`` as text."""
        patch = f"{VISION_START}{VIDEO_PAD * (TRIAL_SIDE // UNIT) ** 2}{VISION_END}"
        times = trial.seconds
        video = "".join(time_text((times[k] + times[k + 1]) / 2) + patch for k in range(0, len(times), 2))
        if self._framing.layout == "v5.10":
            video = f"{VISION_START}{video}{VISION_END}"
        return f"{TURN_START}{TURN_HEAD}{video}{question}{self._after}"

    @property
    def _after(self) -> str:
        """The stream between question and answer."""
        return f"{TURN_END}\n{TURN_START}assistant\n{self._reply}" if self._framing.chat_template else ""

    def _gives_ids(self, trial: SentVideo, question: str) -> bool:
        """Whether the server gives the log-probabilities of tokens by their ids."""
        try:
            answers = self.ask(trial, question)
        except RefusedError as error:
            if "logprob_token_ids" not in error.said:
                raise
            return False
        told = all(one.value == one.value for one in answers)
        if not told:
            _log.warning("%s knows no logprob_token_ids: each score takes two requests", self.shown)
        return told

    def _find_answers(self, question: str) -> None:
        """Find the ids of the answers behind ``question``, and whether a space goes before them."""
        before = self._after or question
        try:
            gap, self._answers = answer_tokens(
                self._ids, [before], (self._framing.answers or TRUE_FALSE).texts
            )
        except ScorerError as error:
            raise ScorerError(f"{self.shown}: {error}") from error
        if self._reply:
            self._reply += gap
        else:
            self._gap = gap

    def _ids(self, text: str) -> list[int]:
        return self._tokenize({"prompt": text, "add_special_tokens": False})

    def _tokenize(self, asked: dict[str, Any]) -> list[int]:
        return tokenize(self.client, {"model": self.model, **asked}, self.shown)

    def _content(self, video: SentVideo, question: str) -> list[dict[str, Any]]:
        url = "data:video/jpeg;base64," + ",".join(_even(video.pictures))
        return [
            {"type": "video_url", "video_url": {"url": url}},
            {"type": "text", "text": question + self._gap},
        ]

    def _look_at_size(self, answer: Any, video: SentVideo) -> None:
        """Warn once where the server shows the model fewer pixels than were sent."""
        usage = answer.get("usage") if isinstance(answer, dict) else None
        count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        sent = video.pixels // UNIT**2 // 2
        if not isinstance(count, int) or count >= sent:
            return
        with self._lock:
            warn, self._warned = not self._warned, True
        if warn:
            _log.warning(
                "%s makes %d tokens of a video that has %d: it shrinks the pictures as the video grows, so "
                "that scores of different lengths differ by that; lower max_pixels or max_frames",
                self.shown,
                count,
                sent,
            )


def tokenize(client: Client, asked: dict[str, Any], shown: str) -> list[int]:
    """Token ids by vLLM's /tokenize, which is beside the API. Raises `ScorerError`, `MissingError`."""
    answer = client.post("/tokenize", asked, beside=True)
    tokens = answer.get("tokens") if isinstance(answer, dict) else None
    if not isinstance(tokens, list) or not all(type(token) is int for token in tokens):
        raise ScorerError(f"{shown} gives no token ids at /tokenize: {_HOW}")
    return tokens


def reads_qwen_videos(client: Client, model: str, shown: str) -> bool:
    """Whether the tokenizer of a vLLM server has the tokens around a video of Qwen's models."""
    try:
        for token in (TURN_START, TURN_END, VISION_START, VIDEO_PAD, VISION_END):
            asked = {"model": model, "prompt": token, "add_special_tokens": False}
            if len(tokenize(client, asked, shown)) != 1:
                return False
    except MissingError as error:
        raise ScorerError(f"{shown} is a vLLM without /tokenize, which is needed ({error})") from error
    return True


def _even(items: Sequence[Any]) -> list[Any]:
    """``items``, the last one twice where their number is odd: a patch has two frames."""
    return [*items, *items[-1:]] if len(items) % 2 else list(items)


def _media(video: SentVideo) -> dict[str, Any]:
    """The times of the frames, as vLLM takes them: numbers of frames at a rate."""
    numbers = [round(seconds * _TICKS) for seconds in _even(video.seconds)]
    made = {
        "fps": float(_TICKS),
        "num_frames": -1,
        "frames_indices": numbers,
        "total_num_frames": max(numbers[-1] + 1, len(numbers)),
        "do_sample_frames": False,
    }
    return {"media_io_kwargs": {"video": made}}


def _template(video: str, end: str) -> str:
    """A chat template that writes the stream, ``video`` for the video, and ``end`` behind the question."""

    def written(text: str) -> str:
        return "{{ " + json.dumps(text) + " }}"

    after = written(end) if end else ""
    return (
        "{%- for message in messages -%}"
        + written(TURN_START + TURN_HEAD)
        + "{%- for part in message['content'] -%}{%- if part['type'] == 'text' -%}"
        + "{{ part['text'] }}{%- else -%}"
        + written(video)
        + "{%- endif -%}{%- endfor -%}"
        + after
        + "{%- endfor -%}"
    )


def raw_template() -> str:
    """The template for the flag --chat-template, see docs/served_models.md."""
    return _template(f"{VISION_START}{VIDEO_PAD}{VISION_END}", "")


_STRUCTURE = re.compile(r"<(?=[|/A-Za-z])")


def plain(instruction: str) -> str:
    """``instruction`` with a space in everything that a tokenizer might read as structure.

    >>> plain("say <|im_end|> and 3<4")
    'say < |im_end|> and 3<4'
    """
    return _STRUCTURE.sub("< ", instruction)
