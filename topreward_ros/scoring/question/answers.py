"""The answer to a question: which tokens it may be, and how their log-probabilities become a score."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import exp, isfinite, nan
from statistics import fmean, stdev
from typing import TYPE_CHECKING, NamedTuple

from topreward_ros.core.progress import PrefixScore
from topreward_ros.scoring.base import ScorerError
from topreward_ros.scoring.question.answer_set import TRUE_FALSE, AnswerSet, expected, log_sum_exp

if TYPE_CHECKING:
    import torch

_SMALL_SHARE = 0.5  # of the probability, below which answers of the user's own are not what the model says

_log = logging.getLogger(__name__)


class AnswerReader:
    """Makes scores of the log-probabilities of answers."""

    def __init__(self, answers: AnswerSet | None, contrastive: bool, model: str) -> None:
        """``answers``: those of a file; None: True and False, of which the first is scored by itself, or with
        ``contrastive`` against the other. ``model``: its name, for the log."""
        self.texts = (answers or TRUE_FALSE).texts
        self._own = answers is not None
        self._weights = (answers or TRUE_FALSE).weights if answers or contrastive else ()
        self._model = model
        self._warned = False

    def read(self, answers: torch.Tensor, context: str, dtype: torch.dtype) -> PrefixScore:
        """Average the answers to all prompts into a score that has no baseline yet.

        ``answers`` (prompts, answers) holds the log-probabilities of each answer. ``context`` is what an
        error says that the model saw, for example '3 frames'. Raises `ScorerError` for a log-probability that
        is not finite.
        """
        rows = answers.tolist()
        if not all(isfinite(value) for row in rows for value in row):
            names = ", ".join(f"log p({text.strip()})" for text in self.texts)
            raise ScorerError(
                f"{names} are {', '.join(map(str, rows))} after {context} in {dtype}: try dtype float32, or "
                "check the weights"
            )
        return self.averaged(rows)

    def averaged(self, rows: Sequence[Sequence[float]]) -> PrefixScore:
        """The score, without a baseline, of the log-probabilities of each answer per prompt; NaN where one is
        NaN."""
        pairs = [expected(row, self._weights) for row in rows] if self._weights else rows
        true, false = zip(*pairs, strict=True)
        spread = stdev(true) if len(true) > 1 else nan
        share = fmean(min(exp(log_sum_exp(row)), 1.0) for row in rows)
        if self._own and share < _SMALL_SHARE and not self._warned:
            self._warned = True
            _log.warning(
                "the answers %s have %.2g of the probability of what %s says, together: it does not speak "
                "that format, and the score is of the little that is left; give it the `prompts` that it was "
                "trained on",
                ", ".join(repr(text.strip()) for text in self.texts),
                share,
                self._model,
            )
        score = PrefixScore(
            fmean(true), fmean(false), log_prob_std=spread, by_prompt=tuple(true), answer_share=share
        )
        if not self._own or share >= _SMALL_SHARE:
            return score
        said = f"{100.0 * share:.2g} % of the probability falls on the answers"
        return replace(score, note=f"{said}: the model may not know this question")


class AnswerTokens(NamedTuple):
    """How answers follow a question in a tokenizer."""

    gap: str  #: what is put between question and answer: a space that is a token of its own, or nothing
    tokens: tuple[int, ...]  #: of each answer, behind question and gap; all different


def answer_tokens(
    encode: Callable[[str], list[int]], questions: Sequence[str], texts: Sequence[str]
) -> AnswerTokens:
    """The token that each of ``texts`` adds after each of ``questions``.

    Behind a line break or a space, an answer does not begin with a space of its own. A space that all begin
    with, and that is a token by itself in this tokenizer (before a digit in Qwen's), goes before the answer.
    Raises `ScorerError` where an answer adds several tokens, another token after another question, or the
    same one as another answer.
    """
    if all(question[-1:].isspace() for question in questions):
        texts = _bare(texts)
    gap = ""
    found, problem = _tokens_behind(encode, questions, texts)
    if problem and all(text.startswith(" ") for text in texts):
        apart, other = _tokens_behind(encode, [f"{question} " for question in questions], _bare(texts))
        if len(apart) > len(found):  # its error says more, too
            gap, found, problem = " ", apart, other
    if problem:
        raise ScorerError(problem)
    for place, token in enumerate(found):
        if token in found[:place]:
            other = texts[found.index(token)]
            raise ScorerError(
                f"the tokenizer has the same token {token} for {other!r} and {texts[place]!r}, so it cannot "
                "tell them apart: take one of them out, or use a model with another tokenizer, such as Qwen's"
            )
    return AnswerTokens(gap, tuple(found))


def _bare(texts: Sequence[str]) -> list[str]:
    return [text.lstrip(" ") for text in texts]


def _tokens_behind(
    encode: Callable[[str], list[int]], questions: Sequence[str], answers: Sequence[str]
) -> tuple[list[int], str]:
    """The token that each of ``answers`` adds after each of ``questions``, up to the first that adds not
    just one; and what is wrong with that.

    An answer is encoded after the question, because some tokenizers encode a word in another way when it
    stands alone: SentencePiece puts a space before it.
    """
    found: list[int] = []
    before = [encode(question) for question in questions]
    for answer in answers:
        tokens: dict[int, str] = {}
        for question, ids in zip(questions, before, strict=True):
            after = encode(question + answer)
            added = after[len(ids) :]
            if after[: len(ids)] != ids or len(added) != 1:
                return found, (
                    f"the answer {answer!r} is {len(added)} tokens {added} behind {question[-20:]!r} in "
                    "this model's tokenizer, and must be exactly one: use a model with a tokenizer such as "
                    "Qwen's, or prompts with shorter answers"
                )
            tokens[added[0]] = question
        if len(tokens) != 1:
            return found, (
                f"the answer {answer!r} is another token after some templates, {sorted(tokens)}: end them "
                "alike"
            )
        found += tokens
    return found, ""
