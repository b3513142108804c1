"""A model is checked with the shipped video, whose score must rise where the model claims to know it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from rich.console import Console

from topreward_ros.offline.models import check_model, describe_model, why_not_rising
from topreward_ros.scoring.base import ScorerError
from topreward_ros.scoring.checkpoint.folder import EMBEDDED_FOLDER
from topreward_ros.views.models import check_view, facts_view


@pytest.fixture
def exchanged(tmp_path: Path) -> Path:
    """The embedded model, whose tokenizer takes True for False."""
    folder = Path(shutil.copytree(EMBEDDED_FOLDER, tmp_path / "model"))
    path = folder / "tokenizer.json"
    text, true, false = path.read_text(), '"ĠTrue"', '"ĠFalse"'
    assert text.count(true) == text.count(false) == 1
    path.write_text(text.replace(true, "THERE").replace(false, true).replace("THERE", false))
    return folder


def test_a_model_that_knows_the_video_is_refused_where_its_score_falls(exchanged):
    with pytest.raises(ScorerError, match=r"log p\(True\) changes by -\d\.\d\d nat over a video") as error:
        check_model(str(exchanged))
    assert str(error.value).endswith("It was trained for this task: install the model again")


def test_a_model_that_claims_nothing_is_warned_of(exchanged):
    (exchanged / "topreward.json").unlink()
    result = check_model(str(exchanged))
    assert "have True and False exchanged" in why_not_rising(result.info, result.curve)


def test_the_score_of_the_embedded_model_rises():
    result = check_model("embedded")
    assert why_not_rising(result.info, result.curve) == ""


def test_a_model_is_described_and_checked_with_answers_of_a_file():
    facts = describe_model("embedded", "roboreward")
    assert facts.question.answers is not None and facts.prompt_hash != describe_model("embedded").prompt_hash
    with pytest.raises(ScorerError, match=r"the answer ' Yes' is \d tokens"):
        describe_model("embedded", "yes_no")
    result = check_model("embedded", {"prompts": "roboreward"})
    assert 0.0 <= result.curve.points[-1].score.answer_share < 1e-3, "it was never taught to say digits"
    said = why_not_rising(result.info, result.curve, result.question)
    assert "the logarithm of the expected answer changes by" in said
    shown = Console(width=200, record=True)
    shown.print(check_view(result), facts_view(facts))
    text = shown.export_text()
    assert 'one token each: " 1"=1 " 2"=2' in text and "answers' share" in text
