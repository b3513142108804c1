"""Files of templates: what ships, and what is refused with the line that is to blame."""

from __future__ import annotations

import pytest

from topreward_ros.scoring.base import ScorerError
from topreward_ros.scoring.question.templates import PAPER, fill, read_templates

GOOD = "Is it done: {instruction}? The answer is:"


def test_the_papers_question_is_the_default_and_the_first_of_the_ten():
    ten = read_templates("ten_prompts.txt")
    assert read_templates("") == (PAPER,) == ten[:1]
    assert len(ten) == 10
    assert all(fill(template, "x").endswith(" The answer is:") for template in ten)
    assert not any("image" in template for template in ten), "they are about a video"


def test_comments_and_empty_lines_do_not_count(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text(f"# one\n\n  {GOOD}  \n{PAPER}\n", encoding="utf-8")
    assert read_templates(str(path)) == (GOOD, PAPER)


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ("Is it done? The answer is:", r"line 3: it has 0 times {instruction} and must have it once"),
        ("{instruction} {instruction}. The answer is:", r"line 3: it has 2 times"),
        ("Is it done: {instruction}? Say:", r"line 3: it ends in 'Say:' and line 2 in 'The answer is:'"),
        (GOOD, r"line 3: it is the same as line 2"),
    ],
)
def test_a_bad_line_is_named(tmp_path, second, said):
    path = tmp_path / "mine.txt"
    path.write_text(f"# mine\n{GOOD}\n{second}\n", encoding="utf-8")
    with pytest.raises(ScorerError, match=said) as error:
        read_templates(str(path))
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "has no template"), (b"# nothing\n", "has no template"), (b"\xff\xfe", "cannot be read")],
)
def test_a_file_of_nothing_is_refused(tmp_path, content, said):
    path = tmp_path / "mine.txt"
    path.write_bytes(content)
    with pytest.raises(ScorerError, match=said):
        read_templates(str(path))


@pytest.mark.parametrize("name", ["nowhere.txt", "/nowhere/mine.txt", "."])
def test_a_missing_file_is_named(name):
    with pytest.raises(ScorerError, match="cannot be read") as error:
        read_templates(name)
    assert repr(name) in str(error.value)


def test_a_question_that_ends_in_a_full_stop_is_refused(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("Is it done: {instruction}? Answer.\n", encoding="utf-8")
    with pytest.raises(ScorerError, match=r"line 1: it ends in '\.'"):
        read_templates(str(path))
