"""What a wording of the question, or an ensemble of wordings, is worth on some labelled episodes.

Scores of every template come from elsewhere; here is arithmetic alone. An ensemble's score is the mean of the
log-probabilities of its templates, as the scorers have it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

import numpy as np

from topreward_ros.core.measures import Measure
from topreward_ros.core.metrics import roc_auc, value_order_correlation

LAST_PREFIXES = 3  #: whose mean reward is the score of an episode (TOPReward, section 5.2)

Members = tuple[int, ...]  #: the templates of a candidate, by their places among all


@dataclass(frozen=True, slots=True)
class PromptScores:
    """The rewards of one episode by template."""

    task: str
    succeeded: bool
    log_probs: np.ndarray  #: (K, P) [nat] of K prefixes and P templates
    static: np.ndarray  #: (K, P) [nat] of the static video


class Table:
    """What the measure needs of the episodes in one part."""

    def __init__(self, episodes: Sequence[PromptScores], measure: Measure) -> None:
        self._measure = measure
        outcomes = (True,) if measure is Measure.VOC else (True, False)
        self._episodes = [[it for it in episodes if it.succeeded is outcome] for outcome in outcomes]
        self._finals = [np.array([final_scores(it.log_probs) for it in some]) for some in self._episodes]

    def samples(self, members: Members) -> list[np.ndarray]:
        """What the measure needs of each episode (N, ...), for each outcome that it needs."""
        if self._measure is Measure.VOC:
            return [np.array([_order(it, members) for it in some]) for some in self._episodes]
        finals = [finals[:, members].mean(axis=1) for finals in self._finals]
        if self._measure is Measure.AUC:
            return finals
        orders = [np.array([_both_orders(it, members) for it in some]) for some in self._episodes]
        return [np.column_stack(columns) for columns in zip(finals, orders, strict=True)]

    def value(self, members: Members) -> float:
        """The measure of a candidate."""
        return self.statistic(self.samples(members))

    def statistic(self, samples: Sequence[np.ndarray]) -> float:
        """The measure of such numbers."""
        if self._measure is Measure.AUC:
            return roc_auc(*samples)
        if self._measure is Measure.VOC:
            return float(samples[0].mean())
        successes, failures = samples
        bias = abs(np.concatenate(samples)[:, 2].mean())
        return float(roc_auc(successes[:, 0], failures[:, 0]) + successes[:, 1].mean() - bias) / 2


def final_scores(log_probs: np.ndarray) -> np.ndarray:
    """The score of an episode by template (P,), of its ``log_probs`` (K, P) [nat]."""
    return np.asarray(log_probs[-LAST_PREFIXES:].mean(axis=0))


def order_of(log_probs: np.ndarray) -> float:
    """The VOC of a curve (K,); one that has no order counts as one without any."""
    voc = value_order_correlation(log_probs)
    return 0.0 if isnan(voc) else voc


def _order(episode: PromptScores, members: Members) -> float:
    return order_of(episode.log_probs[:, members].mean(axis=1))


def _both_orders(episode: PromptScores, members: Members) -> tuple[float, float]:
    """VOC, of which that of a failure is not used, and static VOC."""
    voc = _order(episode, members) if episode.succeeded else 0.0
    return voc, order_of(episode.static[:, members].mean(axis=1))
