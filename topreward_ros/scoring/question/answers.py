"""The answer to a question: which token it is, and how its log-probabilities become a score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import exp, isfinite, log1p, nan
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from topreward_ros.core.progress import PrefixScore
from topreward_ros.scoring.base import ScorerError

if TYPE_CHECKING:
    import torch


def read_answers(answers: torch.Tensor, contrastive: bool, context: str, dtype: torch.dtype) -> PrefixScore:
    """Average the answers to all prompts into a score that has no baseline yet.

    ``answers`` (prompts, 2) holds the log-probabilities of the true and the false answer. With
    ``contrastive`` they are taken as if no other answer were possible. ``context`` is what an error says
    that the model saw, for example '3 frames'. Raises `ScorerError` for a log-probability that is not finite.
    """
    import torch

    if contrastive:
        difference = answers[:, 0] - answers[:, 1]
        answers = torch.nn.functional.logsigmoid(torch.stack([difference, -difference], dim=1))
    pairs = answers.tolist()
    if not all(isfinite(value) for pair in pairs for value in pair):
        raise ScorerError(
            f"log p(True), log p(False) are {', '.join(map(str, pairs))} after {context} in "
            f"{dtype}: try dtype float32, or check the weights"
        )
    return averaged(pairs)


def contrasted(pairs: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Log-probabilities of the true and the false answer as if no other were possible.

    >>> contrasted([(-3.0, -3.0)])
    [(-0.6931471805599453, -0.6931471805599453)]
    """
    return [(-_softplus(false - true), -_softplus(true - false)) for true, false in pairs]


def _softplus(value: float) -> float:
    return max(value, 0.0) + log1p(exp(-abs(value)))


def averaged(pairs: Sequence[Sequence[float]]) -> PrefixScore:
    """The score, without a baseline, of the log-probabilities of the true and the false answer per prompt."""
    true, false = zip(*pairs, strict=True)
    spread = stdev(true) if len(true) > 1 else nan
    return PrefixScore(fmean(true), fmean(false), log_prob_std=spread, by_prompt=true)


def answer_token(encode: Callable[[str], list[int]], questions: Sequence[str], answer: str) -> int:
    """The token that ``answer`` adds after each of ``questions``.

    The answer is encoded after the question, because some tokenizers encode a word in another way when it
    stands alone: SentencePiece puts a space before it. Raises `ScorerError` where the answer adds several
    tokens, or another token after another question.
    """
    found: dict[int, str] = {}
    for question in questions:
        before, after = encode(question), encode(question + answer)
        added = after[len(before) :]
        if after[: len(before)] != before or len(added) != 1:
            raise ScorerError(
                f"the answer {answer!r} is {len(added)} tokens {added} behind {question[-20:]!r} in this "
                "model's tokenizer, and must be exactly one: use a model with a tokenizer such as Qwen's"
            )
        found[added[0]] = question
    if len(found) != 1:
        raise ScorerError(
            f"the answer {answer!r} is another token after some templates, {sorted(found)}: end them alike"
        )
    return next(iter(found))
