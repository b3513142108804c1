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
    [(b"", "has no template"), (b"# nothing\n", "has no template"), (b"\xff\xfe", "has no template")],
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


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_file_from_windows_asks_the_same(tmp_path, encoding, end):
    path = tmp_path / "mine.txt"
    path.write_bytes(end.join([GOOD.replace(" done", "\u00a0done\u200b"), PAPER, ""]).encode(encoding))
    assert read_templates(str(path)) == (GOOD, PAPER)


def test_a_file_in_another_encoding_is_named_with_its_line(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_bytes(f"{GOOD}\nEst-ce r\u00e9ussi: {{instruction}}? The answer is:\n".encode("latin-1"))
    with pytest.raises(ScorerError, match=r"mine\.txt, line 2: the byte 0xe9 is not UTF-8: save the file in"):
        read_templates(str(path))
