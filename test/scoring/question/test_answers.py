"""Answers of a file: how they are written, which tokens they are, and what is made of their probabilities."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from topreward_ros.defaults import monitor_defaults
from topreward_ros.scoring.base import ScorerError, ScorerSettings
from topreward_ros.scoring.checkpoint.checkpoint import open_checkpoint
from topreward_ros.scoring.checkpoint.random_weights import train_tokenizer
from topreward_ros.scoring.question.answer_set import (
    MAX_ANSWERS,
    TRUE_FALSE,
    AnswerSet,
    expected,
    read_answer_set,
)
from topreward_ros.scoring.question.answers import AnswerReader, answer_tokens
from topreward_ros.scoring.question.prompts import Framing, PromptTokens, prompt_hash
from topreward_ros.scoring.question.templates import (
    PAPER,
    PAPERS,
    PRESETS,
    asked_question,
    file_line,
    preset_advice,
    read_question,
    read_templates,
)

SETTINGS = ScorerSettings.from_parameters(monitor_defaults())
RATING = AnswerSet((" 1", " 2", " 3", " 4", " 5"), (1.0, 2.0, 3.0, 4.0, 5.0))
GOOD = "Is it done: {instruction}? The answer is:"


def written(path: Path, *lines: str) -> str:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


# ---- files -------------------------------------------------------------------------------------------


def test_the_presets_have_their_answers():
    roboreward, yes_no = map(read_question, PRESETS)
    assert roboreward.answers == RATING and roboreward.reply == "ANSWER:"
    (template,) = roboreward.templates
    assert template.startswith("Given the task, assign a discrete progress score reward (1,2,3,4,5) for the ")
    assert template.endswith(".\n\nTask: {instruction}") and template.count("\n") == 8
    assert yes_no.answers == AnswerSet((" Yes", " No"), (1.0, 0.0)) and yes_no.reply == ""


def test_a_file_of_answers_is_what_it_was_written_from(tmp_path):
    for name in PRESETS:
        question = read_question(name)
        lines = (file_line(template, question) for template in question.templates)
        copy = tmp_path / f"{name}.txt"
        copy.write_text(question.head + "".join(lines))
        assert read_question(str(copy)) == question


def test_a_file_of_the_users_own_comes_before_a_preset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "yes_no", GOOD)
    assert read_question("yes_no").answers is None


def test_values_are_written_with_all_their_digits(tmp_path):
    texts = (" a", " b", " c")
    values = [
        (0.0, 1.0, 1 / 3),
        (0.0, 1.0, 0.3333333333333),
        (-1e9, 1e9, 1e-300),
        (-0.0, 0.1 + 0.2, 12345678.9),
    ]
    sets = [AnswerSet(texts, some) for some in values]
    assert len({str(it) for it in sets}) == 4
    assert [read_answer_set(str(it)) for it in sets] == sets
    assert str(RATING) == '" 1"=1 " 2"=2 " 3"=3 " 4"=4 " 5"=5'
    near = AnswerSet((" a", " b"), (1.0, float(np.nextafter(1.0, 2.0))))
    assert read_answer_set(str(near)) == near  # told apart by the last digit alone


def test_an_answers_line_may_be_anywhere(tmp_path):
    mine = written(tmp_path / "mine.txt", GOOD, '  answers : " a"=-2,  " b" = 3.5', "# the end")
    assert read_question(mine).answers == AnswerSet((" a", " b"), (-2.0, 3.5))


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ("", "there is no answer, and of two or more the model chooses"),
        ('" 1"=1', "there is one answer"),
        ('" 1"=1 " 2"', "there is no answer in '\" 2\"': write each in quotes"),
        ('" 1" " 2"=2', 'there is no answer in \'" 1" " 2"=2\''),
        ("1=1 2=2", "there is no answer in '1=1 2=2'"),
        ('" 1"=1 " 1"=2', 'the answer " 1" is there twice'),
        ('" 1"=1 " 2"=1', "all answers are worth 1"),
        ('" 1"=nan " 2"=1', "the answer \" 1\" has the value 'nan': give it a number"),
        ('" 1"=1 " 2"=inf', "the answer \" 2\" has the value 'inf'"),
        ('" 1"=1 " 2"=1e400', "the answer \" 2\" has the value '1e400'"),
        ('" 1"=1 " 2"=9e300', "the answer \" 2\" has the value '9e300'"),
        ('" 1"=1_000 " 2"=1', "the answer \" 1\" has the value '1_000': give it a number"),
        ('" 1"=\u0661 " 2"=2', "the answer \" 1\" has the value '\u0661'"),
        ('" 1"=0x1p3 " 2"=2', "has the value '0x1p3'"),
        ('" 1"=1. " 2"=.5 " 3"=--1', "the answer \" 3\" has the value '--1'"),
        ('" 1"=1e " 2"=2', "has the value '1e'"),
        ('" 1"=1 " 2"=good', "the answer \" 2\" has the value 'good'"),
        ('" Yes"=1 "No"=0', 'of the answers " Yes" and "No" one begins with a space and one does not'),
        ('"  Yes"=1 " No"=0', "has spaces beside the word"),
        ('" Yes "=1 " No"=0', "has spaces beside the word"),
        ('""=1 " No"=0', 'the answer "" is empty'),
        ('" "=1 " No"=0', 'the answer " " is empty'),
        ('" Yes\u200b"=1 " No"=0', "is no word"),
        ('" ' + "y" * 50 + '"=1 " No"=0', "is no word"),
        (" ".join(f'" a{k}"={k}' for k in range(100)), f"there are more than {MAX_ANSWERS} answers"),
    ],
)
def test_answers_that_cannot_be(tmp_path, answers, said):
    mine = written(tmp_path / "mine.txt", "# mine", f"answers: {answers}", GOOD)
    with pytest.raises(ScorerError) as error:
        read_question(mine)
    assert str(error.value).startswith(f"{mine}, line 2: ") and said in str(error.value)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (['answers: " 1"=1 " 2"=2'], "has no template"),
        (['answers: " 1"=1 " 2"=2'] * 2 + [GOOD], "line 2: answers stands in line 1, too"),
        (['reply: "ANSWER:"', GOOD], "line 1: reply is for answers of the file's own"),
        (['answers: " 1"=1 " 2"=2', "reply: ANSWER", GOOD], "line 2: 'ANSWER' is no beginning of a reply"),
        (['answers: " 1"=1 " 2"=2', 'reply: ""', GOOD], "is no beginning of a reply"),
        (['answers: " 1"=1 " 2"=2', 'reply: "a" "b"', GOOD], "is no beginning of a reply"),
        (['answers: " 1"=1 " 2"=2', f'reply: "{"a" * 201}"', GOOD], "the reply has more than 200 characters"),
        (['answers: " 1"=1 " 2"=2', "Rate {instruction}."], "line 2: it ends in '.': let 1 or 2 be the next"),
        (['answers: " 1"=1 " 2"=2', GOOD, "Rate {instruction}. Say:"], "line 3: it ends in 'Say:'"),
        (
            ['answers: " 1"=1 " 2"=2', GOOD, "Rate {instruction}? The answer is:\\n"],
            "line 3: of it and line 2 one ends",
        ),
        (['answers: " {instruction}"=1 " 2"=2'], "line 1: a line that begins with 'answers:' is no template"),
        ([GOOD, "answers: {instruction} The answer is:"], "line 2: a line that begins with 'answers:'"),
        (
            ['answers: " 1"=1 " 2"=2', 'reply : "{instruction}"', GOOD],
            "line 2: a line that begins with 'reply:'",
        ),
        (['answers: " 1"=1 " 2"=2', "Rate."], "line 2: it has 0 times {instruction}"),
    ],
)
def test_lines_that_do_not_fit(tmp_path, lines, said):
    with pytest.raises(ScorerError) as error:
        read_question(written(tmp_path / "mine.txt", *lines))
    assert said in str(error.value)


def test_behind_a_reply_templates_may_end_as_they_like(tmp_path):
    mine = written(
        tmp_path / "mine.txt",
        'answers: "1"=1 "2"=2',
        'reply: "I say "',
        "Rate: {instruction}",
        "{instruction}!",
    )
    assert read_question(mine).reply == "I say " and len(read_question(mine).templates) == 2


def test_an_unknown_preset_is_told_which_there_are():
    with pytest.raises(
        ScorerError, match=r"prompts 'robo_reward', .* one of roboreward, yes_no: .*cannot be"
    ):
        read_question("robo_reward")


def test_contrastive_and_templates_alone_are_of_true_and_false():
    with pytest.raises(ScorerError, match=r"contrastive is true, .* set contrastive to false"):
        asked_question(replace(SETTINGS, prompts="yes_no", contrastive=True))
    with pytest.raises(ScorerError, match="'yes_no' has answers of its own"):
        read_templates("yes_no")
    assert asked_question(replace(SETTINGS, contrastive=True)) == PAPERS


def test_a_model_called_roboreward_is_advised_and_nothing_else_is():
    assert "prompts 'roboreward'" in preset_advice("teetone/RoboReward-8B", PAPERS)
    assert preset_advice("teetone/RoboReward-8B", read_question("roboreward")) == ""
    assert preset_advice("Qwen/Qwen3-VL-8B-Instruct", PAPERS) == ""


# ---- the hash ----------------------------------------------------------------------------------------


def test_the_hash_is_as_ever_for_true_and_false_and_follows_answers_values_and_reply():
    assert prompt_hash() == "52a13eff7c4865ed"  # as when there were no other answers
    assert prompt_hash(framing=Framing(chat_template=True)) == "7aea93991da06e24"
    three = AnswerSet((" a", " b", " c"), (0.0, 1.0, 2.0))
    framings = [
        Framing(),
        Framing(answers=TRUE_FALSE),
        Framing(answers=three),
        Framing(answers=replace(three, values=(0.0, 1.5, 2.0))),
        Framing(answers=replace(three, texts=(" a", " b", " d"))),
        Framing(chat_template=True, reply="A:", answers=three),
        Framing(chat_template=True, reply="B:", answers=three),
    ]
    assert len({prompt_hash((PAPER,), framing) for framing in framings}) == len(framings)
    same = replace(three, values=(10.0, 20.0, 30.0))  # the same share of the scale, so the same score
    assert prompt_hash(framing=Framing(answers=same)) == prompt_hash(framing=Framing(answers=three))


# ---- tokens ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Cut as Qwen's, where a digit stands alone and the space before it is a token."""
    return train_tokenizer([*[" Yes No", "Yes No"] * 100, "ANSWER"], 600)


def encoder(tokenizer: Tokenizer):
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


def test_the_space_before_a_digit_goes_before_the_answer_in_qwens_tokenizer(tokenizer):
    encode = encoder(tokenizer)
    found = answer_tokens(encode, ["ANSWER:"], RATING.texts)
    assert found.gap == " "
    assert [tokenizer.decode([token]) for token in found.tokens] == ["1", "2", "3", "4", "5"]
    for text, token in zip(RATING.texts, found.tokens, strict=True):
        assert encode(f"ANSWER:{text}") == [*encode("ANSWER: "), token]
    assert answer_tokens(encode, ["ANSWER: "], RATING.texts) == ("", found.tokens)
    assert answer_tokens(encode, ["ANSWER:"], (" Yes", " No")).gap == ""


def test_a_tokenizer_with_the_space_in_the_digit_has_it_in_the_answer():
    words = {"ANSWER": 0, ":": 1, "\u2581": 2, "\u25811": 3, "\u25812": 4}
    tokenizer = Tokenizer(models.WordPiece(words, unk_token=":"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Punctuation(), pre_tokenizers.Metaspace(prepend_scheme="never")]
    )
    assert answer_tokens(encoder(tokenizer), ["ANSWER:"], (" 1", " 2")) == ("", (3, 4))


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ((" 1", " 10"), "the answer '10' is 2 tokens"),
        ((" not yet", " not"), "the answer ' not yet' is "),
        (("Yes", "YesNo"), "the answer 'YesNo' is 2 tokens"),
        ((" Yes", " Nope"), "the answer ' Nope' is 3 tokens"),
    ],
)
def test_answers_of_several_tokens_are_named(tokenizer, texts, said):
    with pytest.raises(ScorerError, match=said) as error:
        answer_tokens(encoder(tokenizer), ["The answer is:"], texts)
    assert "must be exactly one" in str(error.value)


def test_answers_that_the_tokenizer_does_not_tell_apart_are_refused():
    tokenizer = Tokenizer(models.WordLevel({"?": 0, "A:": 1, "Yes": 2}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    with pytest.raises(ScorerError, match="same token 0 for ' Ja' and ' Nein'"):
        answer_tokens(encoder(tokenizer), ["A:"], (" Yes", " Ja", " Nein"))


def test_a_preset_that_the_embedded_model_has_no_tokens_for_is_a_sentence():
    tokenizer, question = open_checkpoint("embedded").tokenizer, read_question("yes_no")
    with pytest.raises(
        ScorerError, match=r"the answer ' Yes' is 3 tokens .* use a model with a tokenizer such"
    ):
        PromptTokens(tokenizer, question.templates, Framing.of(question, SETTINGS))


def test_roboreward_is_asked_as_the_chat_template_of_qwen3_vl_writes_it(tokenizer):
    question = read_question("roboreward")
    tokens = PromptTokens(tokenizer, question.templates, Framing.of(question, SETTINGS))
    stream = [*tokens.before_patch(0.2, first=True), tokens.video_pad, tokens.vision_end]
    stream += tokens.after_video("fold it")[0]
    asked = question.templates[0].replace("{instruction}", "fold it")
    text = (
        "<|im_start|>user\n<0.2 seconds><|vision_start|><|video_pad|><|vision_end|>"
        f"{asked}<|im_end|>\n<|im_start|>assistant\nANSWER: 4"
    )
    four = tokens.answers[RATING.texts.index(" 4")]
    assert [*stream, four] == tokenizer.encode(text, add_special_tokens=False).ids


def test_behind_the_chat_template_answers_have_no_space_where_there_is_no_reply(tokenizer):
    question = read_question("yes_no")
    chat = Framing.of(question, replace(SETTINGS, chat_template=True))
    tokens = PromptTokens(tokenizer, question.templates, chat)
    assert [tokenizer.decode([token]) for token in tokens.answers] == ["Yes", "No"]
    assert tokenizer.decode(tokens.after_video("x")[0], skip_special_tokens=False).endswith("assistant\n")
    plain = PromptTokens(tokenizer, question.templates, Framing.of(question, SETTINGS))
    assert [tokenizer.decode([token]) for token in plain.answers] == [" Yes", " No"]


# ---- from log-probabilities to a score ---------------------------------------------------------------


@given(
    st.lists(
        st.tuples(st.floats(-60.0, 0.0), st.floats(-100.0, 100.0)), min_size=2, max_size=MAX_ANSWERS
    ).filter(lambda rows: np.ptp([value for _, value in rows]) > 1e-3)
)
def test_the_score_is_the_logarithm_of_the_expected_share_of_the_scale(rows):
    log_probs, values = map(np.array, zip(*rows, strict=True))
    answers = AnswerSet(tuple(f" a{k}" for k in range(len(rows))), tuple(values))
    share = (values - values.min()) / np.ptp(values)
    p = np.exp(log_probs)
    good, bad = expected(log_probs.tolist(), answers.weights)
    assert np.exp(good) == pytest.approx((p * share).sum() / p.sum(), rel=1e-9, abs=1e-300)
    assert np.exp(bad) == pytest.approx((p * (1 - share)).sum() / p.sum(), rel=1e-9, abs=1e-300)
    assert good <= 0.0 and bad <= 0.0


def test_what_is_certain_or_next_to_impossible_stays_finite_and_in_order():
    scores = [expected([-900.0 + k, -1e-9, -800.0], (0.0, 0.0, 1.0))[0] for k in range(2)]
    assert scores == [pytest.approx(-800.0), pytest.approx(-800.0)]
    nearly = [expected([-1e-9, -gap], (1.0, 0.0))[0] for gap in (20.0, 30.0, 60.0)]
    assert nearly[0] < nearly[1] < nearly[2] < 0.0


def test_true_against_false_alone_is_the_same_by_both_names():
    rows = torch.tensor([[-2.0, -0.7], [-11.0, -0.1]])
    by_file = AnswerReader(TRUE_FALSE, contrastive=False, model="m").read(rows, "x", torch.float32)
    by_parameter = AnswerReader(None, contrastive=True, model="m").read(rows, "x", torch.float32)
    assert by_file == by_parameter
    sigmoid = torch.nn.functional.logsigmoid(rows[:, 0] - rows[:, 1])
    assert by_file.by_prompt == pytest.approx(sigmoid.tolist(), abs=1e-6)
    assert by_file.answer_share == pytest.approx(rows.exp().sum(1).mean().item())


def test_of_true_and_false_the_first_is_the_score_and_both_are_the_share():
    score = AnswerReader(None, contrastive=False, model="m").averaged([[-2.0, -1.5]])
    assert (score.log_prob, score.log_prob_false) == (-2.0, -1.5)
    assert score.answer_share == pytest.approx(np.exp(-2.0) + np.exp(-1.5))


def test_a_model_that_does_not_speak_the_format_is_told_of_once(caplog):
    reader = AnswerReader(RATING, contrastive=False, model="some/model")
    with caplog.at_level(logging.WARNING):
        shares = [reader.averaged([[np.log(0.15)] * 5]).answer_share]
        shares += [reader.averaged([[-9.0] * 5]).answer_share for _ in range(3)]
    assert shares[0] == pytest.approx(0.75) and shares[1] == pytest.approx(5 * np.exp(-9.0))
    (record,) = caplog.records
    assert "'1', '2', '3', '4', '5' have 0.00062 of the probability" in record.message
    assert "some/model" in record.message


def test_a_log_probability_that_is_no_number_is_named():
    reader = AnswerReader(RATING, contrastive=False, model="m")
    with pytest.raises(ScorerError, match=r"log p\(1\), log p\(2\), .* after 3 frames in torch.float16"):
        reader.read(torch.tensor([[-1.0, -2.0, float("nan"), -3.0, -4.0]]), "3 frames", torch.float16)
