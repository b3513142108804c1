"""GVL, the method that TOPReward is compared with: a model writes how far each of some shuffled frames is.

Ma et al., Vision Language Models are In-Context Value Learners, arXiv 2411.04549: the frames of an episode
are shown in random order, after the first one, which is said to be at 0 %, and the model describes each and
writes a percentage. Here is what it is asked and how its answer is read; nothing is generated here. The
wording is our own, so that numbers of others are not to be met to the digit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import isnan, nan

import numpy as np

from topreward_ros.core.errors import UserError
from topreward_ros.core.printable import printable

FRAMES = 15  #: of an episode, at most
TOKENS_PER_FRAME = 80  #: that an answer may have for each
_FEWEST = 2  # percentages that make a curve
_FRAME = re.compile(r"frame\s*#?\s*(\d{1,4})\b", re.IGNORECASE)
_PERCENTAGE = re.compile(r"(\d{1,3}(?:\.\d+)?)\s*(?:%|percent)", re.IGNORECASE)


class GvlError(UserError):
    """What a model wrote gives no values of frames."""


def order(count: int, seed: int) -> list[int]:
    """The order in which ``count`` frames are shown, the same for the same ``seed``.

    >>> sorted(order(5, seed=1))
    [0, 1, 2, 3, 4]
    """
    return [int(place) for place in np.random.default_rng(seed).permutation(count)]


def question(task: str, count: int) -> list[str]:
    """The texts before, between and after the pictures: ``count`` + 2 of them, for one picture of the start
    and ``count`` shuffled ones."""
    first = (
        f"You judge how far a robot has come with its task, which is: {task}\n"
        "A percentage says how far: 0 is the start, 100 means that the task is done. The frames that follow "
        "come from one attempt and are in random order, so judge each by what it shows.\n"
        "The start of the attempt:"
    )
    begin = "At this start the task is done by 0 %.\nFrame 1:"
    later = [f"Frame {number}:" for number in range(2, count + 1)]
    last = (
        f"For each of the {count} frames write one line, in the order in which they were shown: what is seen "
        "in a few words, and the percentage. Keep to this form:\n"
        "Frame 1: the gripper is above the table, 20%\nThe task again: "
        f"{task}"
    )
    return [first, begin, *later, last]


def values_of(text: str, shown: Sequence[int]) -> list[float]:
    """The values in [0, 1] of the frames in order of time, NaN for those of which nothing was written.

    ``shown``: the place in time of each frame, as it was shown. Of each "Frame K" the last percentage before
    the next one counts, and of a frame that is named twice the last. Raises `GvlError` where there are fewer
    than two.

    >>> values_of("Frame 1: open, 90%\\nFrame 2: shut, 5%", shown=[1, 0])
    [0.05, 0.9]
    """
    values = [nan] * len(shown)
    marks = list(_FRAME.finditer(text))
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    for mark, end in zip(marks, ends, strict=False):
        percentages = _PERCENTAGE.findall(text[mark.end() : end])
        number = int(mark.group(1))
        if percentages and 1 <= number <= len(shown):
            values[shown[number - 1]] = min(float(percentages[-1]), 100.0) / 100
    if sum(not isnan(value) for value in values) < _FEWEST:
        quote = printable(" ".join(text.split()), 200)
        raise GvlError(
            f"the model wrote no percentages of frames: '{quote}'; use a model that follows instructions, "
            "and that can be shown several pictures"
        )
    return values
