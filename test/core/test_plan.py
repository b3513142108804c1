"""What a model wrote, taken as a list of stages or refused."""

from __future__ import annotations

import pytest

from topreward_ros.core.plan import MOST_STAGES, PlanError, question, stages_of


@pytest.mark.parametrize(
    "text",
    [
        "1. open the drawer\n2. take out the cup\n",
        "Here is the list:\n\n1) open  the drawer.\n2) take out the cup.\n\nGood luck!",
        "<think>1. no\n7. no</think>\n1. **open the drawer**\r\n2. `take out the cup`",
        "Step 1: open the drawer\n  - with care\nSTEP 2: take out the\u00a0cup",
        "**1.** open the drawer\n**2.** take out the cup",
    ],
)
def test_a_numbered_list_is_taken_and_nothing_beside_it(text: str) -> None:
    assert stages_of(text) == ["open the drawer", "take out the cup"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no numbered list|did not write a numbered list"),
        ("I would open the drawer.", "did not write a numbered list: 'I would open"),
        ("1. open it\n3. take it", "did not write a numbered list"),
        ("1. open it\n1. open it", "did not write a numbered list"),
        ("<think>1. open it", "did not write a numbered list"),
        ("1. open\ufffdit", "stage 1 of the model's list cannot be read: .* not UTF-8"),
        ("1. ### 12 == 7", "stage 1 of the model's list is no short command: '### 12 == 7'"),
        ("1. \u200b\u200b ", "is no short command: ''"),
        ("1. " + "very " * 60 + "long", "is no short command"),
        ("\n".join(f"{k}. open it" for k in range(1, MOST_STAGES + 2)), "wrote 21 stages, and at most 20"),
        ("\x1b[2J1. clear", "did not write a numbered list: ' \\[2J1. clear'"),
    ],
)
def test_what_is_no_list_is_refused_by_what_it_is(text: str, why: str) -> None:
    with pytest.raises(PlanError, match=why):
        stages_of(text)


def test_the_model_is_told_of_a_picture_only_where_there_is_one() -> None:
    assert "picture" in question("tidy up", sees=True) and "picture" not in question("tidy up", sees=False)
    assert stages_of("1. open the drawer")[0] in question("tidy up", sees=False)
