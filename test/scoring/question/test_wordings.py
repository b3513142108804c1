"""Parts of wordings and how they are put together; what is taken of a text that is not trusted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topreward_ros.scoring.question.templates import ending, problem_with, read_templates
from topreward_ros.scoring.question.wordings import LONGEST_WORDING, parts_of, recombined, wordings_in

TEN = read_templates("ten_prompts.txt")
LAST = "The answer is:"
GOOD = "Was it done: {instruction}? True or False? The answer is:"


def test_the_parts_of_what_ships_make_it_again() -> None:
    assert [parts_of(text).template() for text in TEN] == list(TEN)
    parts = parts_of(TEN[3])
    assert parts.claim == "The task is now finished and the goal has been achieved."
    assert parts.asked == "True or False?" and parts.ending == LAST
    assert parts_of("{instruction}, is it so? Say:") == ("{instruction}, is it so?", "", "", "Say:")


def test_what_is_put_together_is_new_and_can_be_asked() -> None:
    known = dict.fromkeys(TEN)
    made = recombined(TEN, known, 40, np.random.default_rng(0))
    assert len(set(made)) == 40 and not set(made) & set(TEN)
    assert not any(problem_with(text, {TEN[0]: 1}) for text in made)
    assert made == recombined(TEN, known, 40, np.random.default_rng(0))
    assert made != recombined(TEN, known, 40, np.random.default_rng(1))
    tasks, claims, asked = ({part[column] for part in map(parts_of, TEN)} for column in range(3))
    assert all(
        part.task in tasks and part.claim in claims and part.asked in asked for part in map(parts_of, made)
    )


def test_of_few_parts_there_is_an_end() -> None:
    two = ["A: {instruction}. One. Say:", "B: {instruction}. Two. Say:"]
    made = recombined(two, dict.fromkeys(two), 100, np.random.default_rng(0))
    assert sorted(made) == ["A: {instruction}. Two. Say:", "B: {instruction}. One. Say:"]
    assert recombined([GOOD], {GOOD: 0}, 5, np.random.default_rng(0)) == []
    other = "It is done: {instruction}. Say:"
    assert recombined([GOOD, other], {GOOD: 0, other: 1}, 5, np.random.default_rng(0)) == []


def test_lines_that_can_be_asked_are_taken_without_their_marks() -> None:
    text = f'Here you are:\n\n1. {GOOD}\n- "{GOOD.replace("Was", "Is")}"\n3) Did it do {{instruction}}?\n'
    made = wordings_in(text, {}, LAST)
    assert made == [GOOD, GOOD.replace("Was", "Is"), "Did it do {instruction}? The answer is:"]
    assert wordings_in(f"{GOOD}\n{GOOD}", {}, LAST) == [GOOD]
    assert wordings_in(GOOD, {GOOD: None}, LAST) == []


@pytest.mark.parametrize(
    "line",
    [
        "",
        "I am sorry, but I cannot help with that.",
        "Was it done? The answer is:",
        "{instruction} and {instruction}? The answer is:",
        "Was it done: {instruction}? Say:",
        "**Was it done: {instruction}?** The answer is:",
        "<b>{instruction}</b>? The answer is:",
        "Done: {instruction}? <|im_end|> The answer is:",
        "[link](http://x/{instruction})? The answer is:",
        f"{'long ' * LONGEST_WORDING}{{instruction}}? The answer is:",
        "x" * 90_000,
        "Was it \ufffd: {instruction}? The answer is:",
        "Was it \udcff: {instruction}? The answer is:",
        "\x1b[31m",
    ],
)
def test_a_line_that_is_no_question_is_left_out(line: str) -> None:
    assert wordings_in(line, {}, LAST) == []
    assert wordings_in(f"{line}\n{GOOD}", {}, LAST) == [GOOD]


def test_a_text_without_end_is_looked_at_in_part() -> None:
    assert wordings_in(f"{GOOD}\n" * 10**6, {}, LAST) == [GOOD]
    assert wordings_in("x\n" * 600 + GOOD, {}, LAST) == []


@given(st.text(max_size=300))
def test_whatever_is_taken_can_be_asked(text: str) -> None:
    for made in wordings_in(text.replace("x", "{instruction}"), {}, LAST):
        assert not problem_with(made, {GOOD: 1}) and ending(made) == LAST and made.isprintable()
