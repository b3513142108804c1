"""Answers other than True and False, and what each is worth.

The score of such a set is the natural logarithm of the value that is expected under the model's
probabilities, on a scale on which the worst answer is worth 0 and the best 1. So it is in nats and at most
0, as log p(" True") is, and exp of it is the expectation itself. True against False alone (``contrastive``)
is the set of two answers in which True is worth 1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, isfinite, log, log1p, nan

from topreward_ros.core.printable import printable
from topreward_ros.scoring.base import ScorerError

MAX_ANSWERS = 32  #: of a set
MAX_TEXT = 4000  #: characters of a set as it is written
_LONGEST = 40  # characters of an answer, which is one token, and of its value
_MOST_VALUE = 1e9

_ENTRY = re.compile(r'"([^"]*)"\s*=\s*(\S+)\s*,?\s*')
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_FORM = 'write each in quotes with its value, as in answers: " 1"=1 " 2"=2 " 3"=3'


@dataclass(frozen=True, slots=True)
class AnswerSet:
    """Answers of which one is expected as the next word. Made by `read_answer_set`, which checks them."""

    texts: tuple[str, ...]  #: as they stand behind the question, with the space before them
    values: tuple[float, ...]  #: of each, on the user's own scale

    @property
    def weights(self) -> tuple[float, ...]:
        """The values on the scale from 0, the worst, to 1, the best.

        >>> AnswerSet((" no", " half", " yes"), (1.0, 2.0, 5.0)).weights
        (0.0, 0.25, 1.0)
        """
        worst, best = min(self.values), max(self.values)
        return tuple((value - worst) / (best - worst) for value in self.values)

    def __str__(self) -> str:
        values = (repr(value).removesuffix(".0") for value in self.values)  # all digits: it is read back
        return " ".join(f'"{text}"={value}' for text, value in zip(self.texts, values, strict=True))


TRUE_FALSE = AnswerSet((" True", " False"), (1.0, 0.0))


def expected_of(answers: AnswerSet | None, contrastive: bool) -> str:
    """What a score is the expected value of, as `ScorerInfo.answers` has it; empty: it is log p(" True")."""
    return str(answers or TRUE_FALSE) if answers or contrastive else ""


def read_answer_set(text: str) -> AnswerSet:
    """The set that is written as ``" 1"=1 " 2"=2``. Raises `ScorerError` without the place.

    >>> read_answer_set('" No"=0 " Yes"=1').texts
    (' No', ' Yes')
    """
    if len(text) > MAX_TEXT:
        raise ScorerError(f"it has {len(text)} characters, of up to {MAX_TEXT}: leave answers out")
    texts: list[str] = []
    values: list[float] = []
    rest = text.strip()
    while rest:
        entry = _ENTRY.match(rest)
        if entry is None:
            raise ScorerError(f"there is no answer in {printable(rest[:60])!r}: {_FORM}")
        if len(texts) == MAX_ANSWERS:
            raise ScorerError(f"there are more than {MAX_ANSWERS} answers: leave some out")
        texts.append(_checked_text(entry[1], texts))
        values.append(_checked_value(entry[2], entry[1]))
        rest = rest[entry.end() :]
    if len(texts) < 2:
        count = "one answer" if texts else "no answer"
        raise ScorerError(f"there is {count}, and of two or more the model chooses: {_FORM}")
    if len(set(values)) == 1:
        raise ScorerError(
            f"all answers are worth {values[0]:g}, so the score would be the same whatever the model says: "
            "give the best a larger value than the worst"
        )
    return AnswerSet(tuple(texts), tuple(values))


def _checked_text(text: str, before: Sequence[str]) -> str:
    shown = printable(text, 60)
    if not text.strip():
        raise ScorerError(f'the answer "{shown}" is empty: write the word that the model is to say')
    if len(text) > _LONGEST or not text.isprintable() or "\ufffd" in text:
        raise ScorerError(
            f'the answer "{shown}" is no word: write up to {_LONGEST} characters that can be printed'
        )
    if text != text.rstrip() or text.lstrip(" ") != text.lstrip() or len(text) - len(text.lstrip()) > 1:
        raise ScorerError(
            f'the answer "{shown}" has spaces beside the word: one before it is all that it may have'
        )
    if text in before:
        raise ScorerError(f'the answer "{shown}" is there twice: take one of them out')
    if before and text.startswith(" ") != before[0].startswith(" "):
        raise ScorerError(
            f'of the answers "{printable(before[0], 60)}" and "{shown}" one begins with a space and one does '
            "not, and both come at the same place: write all with it, or all without"
        )
    return text


def _checked_value(text: str, answer: str) -> float:
    number = text.rstrip(",")
    value = float(number) if len(number) <= _LONGEST and _NUMBER.fullmatch(number) else nan
    if not isfinite(value) or abs(value) > _MOST_VALUE:
        raise ScorerError(
            f'the answer "{printable(answer, 60)}" has the value {printable(text, 30)!r}: give it a number '
            f"from -{_MOST_VALUE:g} to {_MOST_VALUE:g}"
        )
    return value


def expected(log_probs: Sequence[float], weights: Sequence[float]) -> tuple[float, float]:
    """Logarithms of the expected weight, and of one less it, under probabilities that are made to sum to 1.

    ``log_probs`` of the answers [nat]; NaN where one is NaN.

    >>> expected([-3.0, -3.0], [1.0, 0.0])
    (-0.6931471805599453, -0.6931471805599453)
    """
    # E = sum p w / sum p, and sum p = sum p w + sum p (1 - w): so ln E is a softplus, exact near 0, too.
    good = log_sum_exp([p + log(w) for p, w in zip(log_probs, weights, strict=True) if w > 0])
    bad = log_sum_exp([p + log(1 - w) for p, w in zip(log_probs, weights, strict=True) if w < 1])
    return -_softplus(bad - good), -_softplus(good - bad)


def log_sum_exp(values: Sequence[float]) -> float:
    """The logarithm of the sum of the exponentials of ``values``; NaN where one is NaN.

    >>> log_sum_exp([-1000.0, -1000.0])
    -999.3068528194401
    """
    if not all(map(isfinite, values)):
        return nan
    largest = max(values)
    return largest + log(sum(exp(value - largest) for value in values))


def _softplus(value: float) -> float:
    return max(value, 0.0) + log1p(exp(-abs(value)))
