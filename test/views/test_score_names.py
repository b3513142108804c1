"""What the score of a model is called: by what it answers, whoever shows it."""

from __future__ import annotations

from math import log, nan

import pytest

from topreward_ros.views.score_names import score_names

FIVE = '" 1"=1 " 2"=2 " 3"=3 " 4"=4 " 5"=5'


def test_true_and_false_have_no_scale_of_their_own() -> None:
    for answers in ("", '" True"=1 " False"=0'):
        names = score_names(answers)
        assert (names.log_prob, names.log_prob_false) == ("log p(True)", "log p(False)")
        assert names.on_own_scale(-1.0) == ""


def test_an_expected_answer_is_told_on_the_scale_of_the_answers() -> None:
    names = score_names(FIVE)
    assert (names.log_prob, names.log_prob_false) == ("ln(expected)", "ln(1 - expected)")
    assert names.on_own_scale(log((3.4 - 1) / 4)) == "3.4 of 1 to 5"
    assert names.on_own_scale(-1e9) == "1 of 1 to 5" and names.on_own_scale(0.0) == "5 of 1 to 5"
    assert names.on_own_scale(0.5) == "5 of 1 to 5", "no more than the best"
    assert names.on_own_scale(nan) == "" == names.on_own_scale(-float("inf"))
    assert score_names('" no"=1 " yes"=-1').on_own_scale(log(0.75)) == "0.5 of -1 to 1"


@pytest.mark.parametrize(
    "said",
    [
        "5",
        '" 1"=1',
        '" 1"=1 " 2"=' + "1" * 3900 + "x",
        '" 1"=1 " 2"=' + "1" * 10_000_000 + "x",
        '" 1"=nan " 2"=2',
        "\x1b[2J",
        '" a"=1 ' * 10_000,
    ],
)
def test_what_a_message_says_of_answers_may_be_anything(said: str) -> None:
    names = score_names(said)
    assert names.log_prob == "ln(expected)" and names.on_own_scale(-1.0) == ""
