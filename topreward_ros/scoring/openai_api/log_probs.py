"""What an answer says of the log-probabilities of True and False, in OpenAI's format.

Nothing is taken on trust: a number that is none, is above 0 or lies in a list that sums to more than one is
an error. What is not in the list is not known; that list then bounds it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, isfinite, nan
from typing import Any

from topreward_ros.scoring.base import ScorerError

_ROUNDING = 1e-3  # [nat] by which a log-probability may lie above 0
_SUM_ROUNDING = 0.02  # by which probabilities may sum to more than 1
#: [nat] of which, and below, OpenAI and vLLM make a word of "so unlikely that it is not told".
_UNTOLD = -9000.0
_MOST = 1000  # entries of a list that are looked at


@dataclass(frozen=True, slots=True)
class LogProb:
    """The log-probability of an answer."""

    value: float  #: [nat]; NaN: not told
    bound: float  #: [nat] that it is at most: itself where it is told


@dataclass(frozen=True, slots=True)
class Listed:
    """The likeliest first tokens of an answer, as a server lists them."""

    first: str  #: the token that was chosen
    of: dict[str, float]  #: log-probability by token [nat]
    least: float  #: the smallest of them, which bounds all others; NaN where none is told

    def log_prob(self, token: str) -> LogProb:
        """That of ``token``, or its bound."""
        value = self.of.get(token, nan)
        return LogProb(value, value if isfinite(value) else self.least)


def listed(answer: Any, shown: str, quoted: Callable[[object], str]) -> Listed:
    """The list in ``answer``, to a request for one token.

    ``shown``: the server's model, for errors; ``quoted``: makes what the server says fit to be shown. Raises
    `ScorerError`.
    """
    choice = _choice(answer, shown, quoted)
    _refuse_refusal(choice, shown, quoted)
    log_probs = choice.get("logprobs")
    tokens = log_probs.get("content") if isinstance(log_probs, dict) else None
    if not isinstance(tokens, list) or not tokens:
        if choice.get("finish_reason") == "length" and isinstance(tokens, list):
            raise ScorerError(
                f"{shown} gave no word of an answer: it thinks before it answers, so that no score can be "
                "read off; name a model that does not, or switch that off on the server"
            )
        raise ScorerError(
            f"{shown} gives no log-probabilities, of which a score is made: name a model that does; "
            "docs/served_models.md says which do"
        )
    first = tokens[0]
    if not isinstance(first, dict):
        raise _other_shape(shown)
    entries = first.get("top_logprobs")
    if entries is None:
        entries = []
    if not isinstance(entries, list):
        raise _other_shape(shown)
    of: dict[str, float] = {}
    for entry in entries[:_MOST]:
        token, value = _entry(entry, shown, quoted)
        if value > _UNTOLD:
            of[token] = max(value, of.get(token, value))
    chosen = _entry(first, shown, quoted)
    least = min(of.values(), default=nan)
    if chosen[1] > _UNTOLD:
        of.setdefault(*chosen)
    if sum(map(exp, of.values())) > 1.0 + _SUM_ROUNDING:
        raise ScorerError(
            f"{shown} lists words whose probabilities sum to {sum(map(exp, of.values())):.3g}: these are no "
            "log-probabilities of the next word; a vLLM needs --logprobs-mode raw_logprobs"
        )
    return Listed(chosen[0], of, least)


def _choice(answer: Any, shown: str, quoted: Callable[[object], str]) -> dict[str, Any]:
    if isinstance(answer, dict) and answer.get("error"):
        error = answer["error"]
        said = error.get("message", "") if isinstance(error, dict) else error
        raise ScorerError(f"{shown} answers with an error ('{quoted(said)}'): look at the server")
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise _other_shape(shown)
    return choices[0]


def _refuse_refusal(choice: dict[str, Any], shown: str, quoted: Callable[[object], str]) -> None:
    message = choice.get("message")
    refusal = message.get("refusal") if isinstance(message, dict) else None
    if refusal or choice.get("finish_reason") == "content_filter":
        said = f"'{quoted(refusal)}'" if refusal else "its filter of contents stopped it"
        raise ScorerError(
            f"{shown} refuses to answer ({said}): look at the pictures and the task, or name another model"
        )


def _entry(entry: Any, shown: str, quoted: Callable[[object], str]) -> tuple[str, float]:
    token = entry.get("token") if isinstance(entry, dict) else None
    value = entry.get("logprob") if isinstance(entry, dict) else None
    if not isinstance(token, str) or isinstance(value, bool) or not isinstance(value, int | float):
        raise _other_shape(shown)
    try:
        number = float(value)
    except OverflowError:
        number = nan
    if not isfinite(number) or number > _ROUNDING:
        raise ScorerError(
            f"{shown} gives {quoted(value)} for a log-probability, which is finite and at most 0: look at "
            "the server"
        )
    return token, min(number, 0.0)


def _other_shape(shown: str) -> ScorerError:
    return ScorerError(
        f"{shown} answers with JSON that is no chat completion of OpenAI's protocol: check the URL, which "
        "ends in the path of the API, such as /v1"
    )
