"""Prompts as a tree of their shared beginnings, so that shared tokens are computed once.

The prompts of an ensemble all follow the same video. In a tree of runs of tokens each token attends to the
runs on its own branch and to no other; that is exactly what it would attend to in its prompt alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Run(NamedTuple):
    """A segment of tokens that one or more prompts share."""

    ids: list[int]
    parent: int  #: index in `PromptTree.runs` of the run before it; -1: the video itself
    depth: int  #: tokens between the video and this run


@dataclass(frozen=True)
class PromptTree:
    """Runs, each listed after its parent, and where each prompt ends."""

    runs: tuple[Run, ...]
    ends: tuple[int, ...]  #: for every prompt, in the order given, the index of its last run

    @property
    def tokens(self) -> int:
        """How many tokens there are in all runs."""
        return sum(len(run.ids) for run in self.runs)


def make_prompt_tree(prompts: Sequence[Sequence[int]]) -> PromptTree:
    """The smallest tree of ``prompts``, of which none is empty.

    >>> tree = make_prompt_tree([[1, 2, 3], [1, 2, 4, 5], [9]])
    >>> [(run.ids, run.parent, run.depth) for run in tree.runs]
    [([1, 2], -1, 0), ([9], -1, 0), ([3], 0, 2), ([4, 5], 0, 2)]
    >>> tree.ends
    (2, 3, 1)
    """
    if not prompts or not all(prompts):
        raise ValueError(f"{len(prompts)} prompts, of which {sum(not p for p in prompts)} have no token")
    runs: list[Run] = []
    ends = [0] * len(prompts)
    rest = [([(number, list(ids)) for number, ids in enumerate(prompts)], -1, 0)]
    while rest:
        prompts_here, parent, depth = rest.pop(0)
        by_first: dict[int, list[tuple[int, list[int]]]] = {}
        for number, ids in prompts_here:
            by_first.setdefault(ids[0], []).append((number, ids))
        for members in by_first.values():
            shared = _common_beginning([ids for _, ids in members])
            here = len(runs)
            runs.append(Run(shared, parent, depth))
            longer = []
            for number, ids in members:
                if len(ids) == len(shared):
                    ends[number] = here
                else:
                    longer.append((number, ids[len(shared) :]))
            if longer:
                rest.append((longer, here, depth + len(shared)))
    return PromptTree(tuple(runs), tuple(ends))


def _common_beginning(lists: list[list[int]]) -> list[int]:
    shortest = min(lists, key=len)
    for place, token in enumerate(shortest):
        if any(other[place] != token for other in lists):
            return shortest[:place]
    return shortest
