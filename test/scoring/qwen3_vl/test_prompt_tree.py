"""The tree of prompts: every prompt can be read off it, and nothing in it stands twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topreward_ros.scoring.qwen3_vl.prompt_tree import PromptTree, make_prompt_tree

prompts = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=1, max_size=8)


def read(tree: PromptTree, end: int) -> list[int]:
    """The tokens from the video to the end of a run."""
    if end < 0:
        return []
    run = tree.runs[end]
    before = read(tree, run.parent)
    assert run.depth == len(before)
    assert run.parent < end
    return before + run.ids


@given(prompts)
def test_every_prompt_can_be_read_and_what_is_shared_stands_once(prompts):
    tree = make_prompt_tree(prompts)
    assert [read(tree, end) for end in tree.ends] == prompts
    beginnings = {tuple(ids[:length]) for ids in prompts for length in range(1, len(ids) + 1)}
    assert tree.tokens == len(beginnings)


@pytest.mark.parametrize("prompts", [[], [[1], []]])
def test_a_prompt_of_nothing_is_refused(prompts):
    with pytest.raises(ValueError, match=f"{len(prompts)} prompts"):
        make_prompt_tree(prompts)
