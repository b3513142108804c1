"""What people call the score of a model: by what it answers, and on the scale of its own answers."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, isfinite

from topreward_ros.scoring.base import ScorerError
from topreward_ros.scoring.question.answer_set import TRUE_FALSE, read_answer_set


@dataclass(frozen=True, slots=True)
class ScoreNames:
    """Names of ``log_prob``, which is ln of what ``good`` says, and of ``log_prob_false``, of ``bad``."""

    short: str = "log p"
    good: str = "True"
    bad: str = "False"
    worst: float = 0.0  #: what the model can answer, on the scale of its answers
    best: float = 0.0  #: the same as ``worst``, where there is no such scale

    @property
    def log_prob(self) -> str:
        """The name of ``log_prob`` by itself."""
        return f"{self.short}({self.good})"

    @property
    def log_prob_false(self) -> str:
        """The name of ``log_prob_false`` by itself."""
        return f"{self.short}({self.bad})"

    def on_own_scale(self, log_prob: float) -> str:
        """The expected answer on the scale of the answers; empty where there is none.

        >>> score_names('" 1"=1 " 5"=5').on_own_scale(-0.5108256237659907), score_names("").on_own_scale(-1.0)
        ('3.4 of 1 to 5', '')
        """
        if self.best == self.worst or not isfinite(log_prob):
            return ""
        value = self.worst + (self.best - self.worst) * exp(min(log_prob, 0.0))
        return f"{value:.3g} of {self.worst:g} to {self.best:g}"


def score_names(answers: str) -> ScoreNames:
    """The names for ``answers`` of a `ScorerInfo`; those of a file or a message may say anything."""
    if not answers or answers == str(TRUE_FALSE):
        return ScoreNames()
    try:
        values = read_answer_set(answers).values
    except ScorerError:
        values = (0.0,)
    return ScoreNames("ln", "expected", "1 - expected", min(values), max(values))
