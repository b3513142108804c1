"""The prompt and the answer tokens, as token ids.

The framing is that of the TOPReward authors' code: an opened user turn, the video, one question (see
`templates`), and then the answer as the very next token. There is no chat template and no assistant turn.
Nothing the instruction says is ever read as structure: it is joined, not formatted, and it is cut into
tokens by a tokenizer that knows no added tokens. Where the video's own tokens stand is the business of
`qwen3_vl`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING, Self

from topreward_ros.scoring.base import ScorerError
from topreward_ros.scoring.templates import PAPER, PLACE, fill

if TYPE_CHECKING:
    from tokenizers import Tokenizer

ANSWER_TRUE = " True"
ANSWER_FALSE = " False"

TURN_START = "<|im_start|>"
TURN_HEAD = "user\n"
VISION_START = "<|vision_start|>"
VIDEO_PAD = "<|video_pad|>"
VISION_END = "<|vision_end|>"

#: Longest instruction that is read [characters]; what stands beyond is cut off.
MAX_INSTRUCTION = 2000

_log = logging.getLogger(__name__)


def time_text(seconds: float) -> str:
    """What stands before a temporal patch of the video, ``seconds`` after the episode's first frame.

    >>> time_text(12.25)
    '<12.2 seconds>'
    """
    return f"<{seconds:.1f} seconds>"


def prompt_hash(templates: Sequence[str] = (PAPER,)) -> str:
    """First 16 hex digits of a SHA-256 over everything that fixes the token stream but the input."""
    layout = [
        TURN_START,
        TURN_HEAD,
        time_text(0.0),
        VISION_START,
        VIDEO_PAD,
        VISION_END,
        *(fill(template, PLACE) for template in templates),
        ANSWER_TRUE,
        ANSWER_FALSE,
        str(MAX_INSTRUCTION),
    ]
    return hashlib.sha256("\0".join(layout).encode()).hexdigest()[:16]


def told_time(seconds: float) -> float:
    """The time that `time_text` tells of: patches whose times are told alike are alike.

    >>> told_time(12.25)
    12.2
    """
    return float(f"{seconds:.1f}")


class PromptTokens:
    """Token ids of everything that is not pixels. Raises `ScorerError` for a tokenizer that cannot serve."""

    def __init__(self, tokenizer: Tokenizer, templates: Sequence[str] = (PAPER,)) -> None:
        from tokenizers import Tokenizer as PlainTokenizer

        # The same merges, but no added token: text alone comes out, whatever stands in it.
        self._plain = PlainTokenizer(tokenizer.model)
        if tokenizer.normalizer is not None:
            self._plain.normalizer = tokenizer.normalizer
        if tokenizer.pre_tokenizer is not None:
            self._plain.pre_tokenizer = tokenizer.pre_tokenizer
        self._templates = tuple(templates)
        self._cut_instruction = ""  # the last one that was too long

        self.turn_start = _structural_token(tokenizer, TURN_START)
        self.vision_start = _structural_token(tokenizer, VISION_START)
        self.video_pad = _structural_token(tokenizer, VIDEO_PAD)
        self.vision_end = _structural_token(tokenizer, VISION_END)
        self.answer_true = self._answer_token(ANSWER_TRUE)
        self.answer_false = self._answer_token(ANSWER_FALSE)

    def with_templates(self, templates: Sequence[str]) -> Self:
        """The same tokens with other wordings of the question."""
        other = copy(self)
        other._templates = tuple(templates)
        return other

    def text(self, text: str) -> list[int]:
        """Ids of ``text`` as plain text: no id of an added token is among them."""
        encodable = text.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate is not text
        return list(self._plain.encode(encodable, add_special_tokens=False).ids)

    def before_patch(self, seconds: float, first: bool) -> list[int]:
        """Ids from the end of the last patch (or the very start) to the first pad of the next."""
        if first:  # one piece of text with the turn's head, as it is in the authors' stream
            return [self.turn_start, *self.text(TURN_HEAD + time_text(seconds)), self.vision_start]
        return [*self.text(time_text(seconds)), self.vision_start]

    def after_video(self, instruction: str) -> list[list[int]]:
        """Ids after the last patch, for every template; the model's next token is the answer."""
        if len(instruction) > MAX_INSTRUCTION:
            if instruction != self._cut_instruction:  # said once, not with every frame
                _log.warning(
                    "instruction of %d characters: only the first %d are read",
                    len(instruction),
                    MAX_INSTRUCTION,
                )
            self._cut_instruction = instruction
            instruction = instruction[:MAX_INSTRUCTION]
        return [self.text(fill(template, instruction)) for template in self._templates]

    def _answer_token(self, answer: str) -> int:
        ids = self.text(answer)
        if len(ids) != 1:
            raise ScorerError(
                f"the answer {answer!r} is {len(ids)} tokens {ids} in this model's tokenizer, and must be "
                "exactly one: use a model with a Qwen2 tokenizer"
            )
        return ids[0]


def _structural_token(tokenizer: Tokenizer, content: str) -> int:
    number = tokenizer.token_to_id(content)
    if number is None:
        raise ScorerError(
            f"the model's tokenizer has no token {content!r}: use the tokenizer of a Qwen3-VL model"
        )
    return int(number)
