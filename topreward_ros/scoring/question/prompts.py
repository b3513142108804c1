"""The prompt and the answer tokens, as token ids.

The framing is that of the TOPReward authors' code: an opened user turn, the video, one question (see
`templates`), and then the answer as the very next token. There is no chat template and no assistant turn,
unless the ablation of the paper is asked for, or a file of prompts says how the reply begins (`Framing`).
No part of the instruction is read as structure: it is joined, not formatted, and it is encoded by a tokenizer
without added tokens. The placeholders of the video are put into the stream in `qwen3_vl`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from topreward_ros.scoring.base import ScorerError, ScorerSettings
from topreward_ros.scoring.question.answer_set import TRUE_FALSE, AnswerSet
from topreward_ros.scoring.question.answers import answer_tokens
from topreward_ros.scoring.question.templates import INSTRUCTION_PLACEHOLDER, PAPER, Question, fill

if TYPE_CHECKING:
    import numpy as np
    from tokenizers import Tokenizer

    from topreward_ros.scoring.question.soft_prompt import SoftPrompt

#: True and False after the line break of a chat template, so without a space.
CHAT_ANSWERS = tuple(text.lstrip() for text in TRUE_FALSE.texts)
LAYOUTS = ("v4.57", "v5.10")

TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
TURN_HEAD = "user\n"
VISION_START = "<|vision_start|>"
VIDEO_PAD = "<|video_pad|>"
VISION_END = "<|vision_end|>"

#: Longest instruction [characters]; a longer one is truncated to it.
MAX_INSTRUCTION = 2000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Framing:
    """The structure of the token stream around video and question."""

    #: Release of transformers whose token stream is made: v4.57, which the method's authors pinned, puts
    #: nothing around the frames of a video, as up to 5.9; v5.10 and later put one more pair of vision_start
    #: and vision_end around them.
    layout: str = LAYOUTS[0]
    #: Close the user's turn and open the assistant's, as Qwen's chat template does. This is an ablation of
    #: TOPReward, which found the score much worse with it (mean VOC 0.50 against 0.95, 8B).
    chat_template: bool = False
    #: With ``chat_template``: what the assistant's turn begins with, before the answer.
    reply: str = ""
    answers: AnswerSet | None = None  #: of a file; None: True and False

    @classmethod
    def of(cls, question: Question, settings: ScorerSettings) -> Self:
        """That of ``question``: one with a reply is a chat, whatever the settings say."""
        chat_template = settings.chat_template or bool(question.reply)
        return cls(settings.layout, chat_template, question.reply, question.answers)

    @property
    def answer_texts(self) -> tuple[str, ...]:
        """The answers as they stand in the stream, behind a line break without their space."""
        texts = (self.answers or TRUE_FALSE).texts
        bare = self.chat_template and (not self.reply or self.reply[-1].isspace())
        return tuple(text.lstrip(" ") for text in texts) if bare else texts

    def hash_parts(self) -> list[str]:
        """What a prompt hash has of reply and answers of a file; nothing for True and False."""
        return [] if self.answers is None else [self.reply, *map(repr, self.answers.weights)]


AUTHORS = Framing()


def time_text(seconds: float) -> str:
    """The text before a temporal patch that is ``seconds`` after the episode's first frame.

    >>> time_text(12.25)
    '<12.2 seconds>'
    """
    return f"<{seconds:.1f} seconds>"


def prompt_hash(
    templates: Sequence[str] = (PAPER,), framing: Framing = AUTHORS, soft: SoftPrompt | None = None
) -> str:
    """First 16 hex digits of a SHA-256 over what decides the token stream beside video and instruction.

    ``soft`` is asked in place of ``templates``.
    """
    questions = [fill(template, INSTRUCTION_PLACEHOLDER) for template in templates]
    if soft is not None:
        questions = [f"soft prompt {soft.digest}"]
    parts = [
        TURN_START,
        TURN_HEAD,
        time_text(0.0),
        VISION_START,
        VIDEO_PAD,
        VISION_END,
        *questions,
        *framing.answer_texts,
        str(MAX_INSTRUCTION),
    ]
    if framing != AUTHORS:  # left out otherwise, so that the hash stays that of versions without framings
        parts += [framing.layout, str(framing.chat_template)]
    parts += framing.hash_parts()
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def written_time(seconds: float) -> float:
    """``seconds`` rounded as in `time_text`: the model cannot tell apart times that are written alike.

    >>> written_time(12.25)
    12.2
    """
    return float(f"{seconds:.1f}")


def encodable(text: str) -> str:
    """``text`` with a question mark for every lone surrogate, which a tokenizer would refuse."""
    return text.encode("utf-8", "replace").decode("utf-8")


class InstructionReader:
    """Cuts an instruction that is too long, and logs that once."""

    def __init__(self) -> None:
        self._cut = ""  # the last instruction that was too long

    def cut(self, instruction: str) -> str:
        """The first `MAX_INSTRUCTION` characters of ``instruction``."""
        if len(instruction) <= MAX_INSTRUCTION:
            return instruction
        if instruction != self._cut:  # said once, not with every frame
            _log.warning(
                "instruction of %d characters: only the first %d are read", len(instruction), MAX_INSTRUCTION
            )
        self._cut = instruction
        return instruction[:MAX_INSTRUCTION]


class PromptTokens:
    """Token ids of text, structure and answers. Making it raises `ScorerError` for an unfit tokenizer.

    The ids come in pieces, between which the caller puts the placeholders of the video (`video_pad`).
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        templates: Sequence[str] = (PAPER,),
        framing: Framing = AUTHORS,
        soft: SoftPrompt | None = None,
    ) -> None:
        """``soft`` is asked in place of ``templates``."""
        self._text_tokenizer = plain_tokenizer(tokenizer)
        self._templates = tuple(templates)
        self._framing = framing
        self._soft = soft
        self._reader = InstructionReader()

        self.turn_start = structural_token(tokenizer, TURN_START)
        self.vision_start = structural_token(tokenizer, VISION_START)
        self.video_pad = structural_token(tokenizer, VIDEO_PAD)
        self.vision_end = structural_token(tokenizer, VISION_END)
        self._turn_end = structural_token(tokenizer, TURN_END) if framing.chat_template else 0
        if framing.reply:
            before = [framing.reply]
        elif framing.chat_template:
            before = ["assistant\n"]
        else:
            before = [fill(template, "lift") for template in self._templates]
        #: What stands between question and answer, where a space is a token by itself; and the tokens of the
        #: answers: of True and False, or of those of a file, in its order.
        self.gap, self.answers = answer_tokens(self.text, before, framing.answer_texts)

    @property
    def answer_set(self) -> AnswerSet | None:
        """The answers of a file; None: True and False."""
        return self._framing.answers

    def with_templates(self, templates: Sequence[str]) -> Self:
        """A copy with other templates of the question."""
        other = copy(self)
        other._templates, other._soft = tuple(templates), None
        return other

    def with_soft_prompt(self, soft: SoftPrompt) -> Self:
        """A copy that asks ``soft``."""
        other = copy(self)
        other._soft = soft
        return other

    def text(self, text: str) -> list[int]:
        """Ids of ``text`` as plain text: no id of an added token is among them."""
        return plain_ids(self._text_tokenizer, text)

    def before_patch(self, seconds: float, first: bool) -> list[int]:
        """Ids from the end of the last patch (or the very start) to the first placeholder of the next."""
        if first and self._framing.layout == "v5.10":
            outer = [self.turn_start, *self.text(TURN_HEAD), self.vision_start]
            return [*outer, *self.text(time_text(seconds)), self.vision_start]
        if first:  # one piece of text with the turn's head, as it is in the authors' stream
            return [self.turn_start, *self.text(TURN_HEAD + time_text(seconds)), self.vision_start]
        return [*self.text(time_text(seconds)), self.vision_start]

    def after_video(self, instruction: str) -> list[list[int]]:
        """Ids after the last patch, for every template; the model's next token is the answer.

        Of a soft prompt they are the only ones, with any id where `learned` has a vector.
        """
        instruction = self._reader.cut(instruction)
        before, after = self._around()
        if self._soft is not None:
            vectors = ([self.turn_start] * len(some) for some in (self._soft.before, self._soft.after))
            question = next(vectors) + self.text(self._soft.lead + instruction) + next(vectors)
            return [[*before, *question, *after]]
        gap = "" if self._framing.reply else self.gap
        questions = (self.text(fill(template, instruction) + gap) for template in self._templates)
        return [[*before, *question, *after] for question in questions]

    def learned(self, count: int) -> list[tuple[int, np.ndarray]]:
        """Vectors (n, hidden) that stand for tokens of a soft prompt of ``count`` ids, each with the place of
        the first; none where templates are asked."""
        if self._soft is None:
            return []
        before, after = self._around()
        behind = count - len(after) - len(self._soft.after)
        return [(len(before), self._soft.before), (behind, self._soft.after)]

    def _around(self) -> tuple[list[int], list[int]]:
        """Ids before and behind a question."""
        before = [self.vision_end] if self._framing.layout == "v5.10" else []
        after: list[int] = []
        if self._framing.chat_template:
            after = [self._turn_end, *self.text("\n"), self.turn_start, *self.text("assistant\n")]
        if self._framing.reply:
            after += self.text(self._framing.reply + self.gap)
        return before, after


def plain_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    """``tokenizer`` with the same merges, but no added token: any text is encoded as plain text."""
    from tokenizers import Tokenizer as TextTokenizer

    plain = TextTokenizer(tokenizer.model)
    if tokenizer.normalizer is not None:
        plain.normalizer = tokenizer.normalizer
    if tokenizer.pre_tokenizer is not None:
        plain.pre_tokenizer = tokenizer.pre_tokenizer
    return plain


def plain_ids(plain: Tokenizer, text: str) -> list[int]:
    """Ids of ``text`` by a `plain_tokenizer`."""
    return list(plain.encode(encodable(text), add_special_tokens=False).ids)


def structural_token(tokenizer: Tokenizer, content: str) -> int:
    """The id of the added token ``content``. Raises `ScorerError` for a tokenizer without it."""
    number = tokenizer.token_to_id(content)
    if number is None:
        raise ScorerError(
            f"the model's tokenizer has no token {content!r}: use the tokenizer of a Qwen3-VL model"
        )
    return int(number)
