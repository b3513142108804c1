"""What a wording of the question is to be good at: the names alone, for those who need no NumPy yet."""

from __future__ import annotations

from enum import Enum


class Measure(Enum):
    """What a wording is to be good at; `prompt_choice` computes it."""

    AUC = "auc"  #: to tell the successes of a task from its failures, by their final scores
    VOC = "voc"  #: to rise in order, in successes; it does not say whether they can be told from failures
    BOTH = "both"  #: the mean of AUC, and of VOC less the size of the static VOC, which is a bias
