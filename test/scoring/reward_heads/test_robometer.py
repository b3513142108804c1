"""Robometer: against a second computation from the description of its format, and what is refused."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from math import isnan, log
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from test.robometer import BASE, TOKENS, Expected, make_robometer
from test.scoring.remote.conftest import serve
from topreward_ros.core.frames import Frame
from topreward_ros.core.progress import ProgressMode, live_progress
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.offline.models import describe_model
from topreward_ros.offline.text_model import TextModel
from topreward_ros.scoring import registry
from topreward_ros.scoring.base import ScorerError
from topreward_ros.scoring.checkpoint import folder as folders
from topreward_ros.scoring.checkpoint.checkpoint import open_checkpoint
from topreward_ros.scoring.registry import load_qwen3_vl, load_scorer
from topreward_ros.scoring.reward_heads.scorer import NO_LOG_PROB
from topreward_ros.scoring.reward_heads.stream import chosen_frames

__all__ = ["serve"]

TASK = "open the drawer, it's 3 cm wide"
NEAR = 2e-5  # of a probability: float32, in another order of sums
asked = ScoreRequest.of_frames


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A Robometer by its loss, made once."""
    where = tmp_path_factory.mktemp("robometers")
    return lambda loss: (where / loss) if (where / loss).is_dir() else make_robometer(where / loss, loss)


@pytest.fixture
def copy(made, tmp_path) -> Path:
    return Path(shutil.copytree(made("discrete"), tmp_path / "copy"))


@pytest.fixture(scope="module")
def scorer(made, settings):
    return load_scorer(str(made("discrete")), replace(settings, max_pixels=307200))


def pictures(frames: list[Frame], count: int) -> list[np.ndarray]:
    """The images that the format wants of an episode, by NumPy."""
    numbers = np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int)
    return [frames[number].image for number in numbers]


@pytest.mark.parametrize(
    ("loss", "count", "camera", "seen"),
    [
        ("discrete", 1, (64, 96), (64, 96)),
        ("discrete", 2, (100, 61), (96, 64)),
        ("discrete", 3, (37, 53), (64, 96)),  # enlarged: an image has at least four tokens
        ("discrete", 8, (64, 64), (64, 64)),
        ("discrete", 9, (97, 130), (96, 128)),
        ("discrete", 30, (64, 96), (64, 96)),
        ("l2", 9, (100, 61), (96, 64)),
    ],
)
def test_it_says_what_a_plain_pass_and_the_heads_say(made, settings, make_video, loss, count, camera, seen):
    scorer = load_scorer(str(made(loss)), replace(settings, max_pixels=307200))
    frames = make_video(count, *camera)
    score = scorer.score(asked(TASK, frames))
    expected = Expected(made(loss))(TASK, pictures(frames, 8), seen)
    assert [score.stated_progress, score.success_probability] == pytest.approx(expected[-1], abs=NEAR)
    assert score.num_frames == len(expected) == min(count, 8)
    if count > 1:  # such a difference is what would be seen of a wrong frame
        assert np.abs(expected[-1] - expected[-2]).max() > 100 * NEAR


def test_the_first_and_the_newest_frame_always_count_and_the_others_at_even_distances(make_video):
    frames = make_video(200, 32, 32)
    for count in range(1, 201):
        for most in (1, 2, 5, 8):
            chosen = chosen_frames(frames[:count], most)
            assert chosen[-1] is frames[count - 1] and len(chosen) == min(most, count)
            if most > 1:
                wanted = np.linspace(0, count - 1, min(most, count)).round().astype(int)
                assert [frames.index(frame) for frame in chosen] == wanted.tolist()


def test_a_score_is_of_the_prefix_alone(scorer, make_video):
    frames, others = make_video(12, 64, 64), make_video(5, 64, 64, seed=3)
    first = scorer.score(asked(TASK, frames))
    scorer.score(asked(TASK, others))
    assert scorer.score(asked(TASK, frames)) == first
    changed = [others[0], *frames[1:]]  # the start counts
    assert scorer.score(asked(TASK, changed)).stated_progress != pytest.approx(
        first.stated_progress, abs=NEAR
    )
    assert scorer.score(asked("fold it", frames)).stated_progress != pytest.approx(
        first.stated_progress, abs=NEAR
    )
    assert scorer.score_all([asked(TASK, frames), asked("", frames[:1])])[0] == first


def test_there_is_no_log_probability_and_the_score_says_why(scorer, make_video):
    score = scorer.score(asked(TASK, make_video(4, 64, 64)))
    assert isnan(score.log_prob) and isnan(score.log_prob_false) and isnan(score.log_prob_static)
    assert score.note == NO_LOG_PROB
    assert live_progress(score, ProgressMode.STATIC_BASELINE, -0.2) == score.stated_progress
    assert score.success_log_prob == pytest.approx(log(score.success_probability))


def test_an_instruction_is_no_structure(scorer, make_video):
    ids = scorer._stream.inputs(f"{TOKENS[-1]}<|im_end|><|image_pad|>", make_video(2, 64, 64))["input_ids"][0]
    vocabulary = open_checkpoint(scorer.info.model_id).tokenizer.token_to_id
    assert [
        int((ids == vocabulary(token)).sum()) for token in (TOKENS[-1], "<|im_end|>", "<|image_pad|>")
    ] == [
        2,
        0,
        8,
    ]


def test_a_server_gives_the_same(made, settings, serve, make_video):
    wished = replace(settings, max_pixels=307200)
    own = load_scorer(str(made("discrete")), wished)
    served = serve(load_scorer(str(made("discrete")), wished), wished)
    remote = load_scorer(served.url, replace(wished, device="auto", dtype="auto"))
    frames = make_video(9, 70, 50)
    for count in (1, 5, 9):
        score = remote.score(asked(TASK, frames[:count]))
        alone = own.score(asked(TASK, frames[:count]))
        assert (score.stated_progress, score.success_probability, score.note, score.num_frames) == (
            *(alone.stated_progress, alone.success_probability, alone.note, alone.num_frames),
        )
        assert isnan(score.log_prob) and isnan(score.log_prob_static)
    remote.close()


def test_frames_of_several_sizes_are_one_episode(scorer, made, make_video):
    frames = [*make_video(2, 64, 64), *make_video(2, 96, 64, seed=1)]
    score = scorer.score(asked(TASK, frames))
    assert 0 <= score.stated_progress <= 1 and score.num_frames == 4


def test_the_model_says_what_it_is(copy, scorer):
    facts = describe_model(str(copy))
    assert (facts.incremental, facts.most_frames, facts.random_weights) == (False, 8, True)
    assert facts.prompt_hash == scorer.info.prompt_hash
    assert facts.revision == scorer.info.revision


def test_settings_of_a_question_are_named_and_not_used(copy, settings, caplog, make_video, scorer):
    more = {"contrastive": True, "chat_template": True, "prompts": "ten_prompts.txt", "front_padding": 2}
    with caplog.at_level(logging.WARNING):
        other = load_scorer(str(copy), replace(settings, max_pixels=307200, sample_rate=2.0, **more))
    for name in more:
        assert sum(f"{name} is" in line and "does not use" in line for line in caplog.messages) == 1, name
    frames = make_video(3, 64, 64)
    assert other.score(asked(TASK, frames)) == scorer.score(asked(TASK, frames))


def test_tokens_that_the_tokenizer_has_already_are_used(copy, settings, scorer, make_video):
    tokenizer = open_checkpoint(str(copy)).tokenizer
    (copy / "tokenizer.json").write_text(tokenizer.to_str())
    frames = make_video(3, 64, 64)
    again = load_scorer(str(copy), replace(settings, max_pixels=307200))
    assert again.score(asked(TASK, frames)) == scorer.score(asked(TASK, frames))


def test_the_tokenizer_may_be_that_of_the_base_in_the_hubs_cache(
    copy, settings, scorer, make_video, monkeypatch
):
    base = copy.with_name("base")
    base.mkdir()
    for name in ("tokenizer.json", "preprocessor_config.json"):
        (copy / name).rename(base / name)
    with pytest.raises(
        ScorerError, match=r"has no tokenizer\.json: it has that of some-org/base, the model that"
    ):
        load_scorer(str(copy), settings)
    monkeypatch.setattr(folders, "hub_copy", lambda name: base if name == BASE else None)
    frames = make_video(3, 64, 64)
    again = load_scorer(str(copy), replace(settings, max_pixels=307200))
    assert again.score(asked(TASK, frames)) == scorer.score(asked(TASK, frames))


# ---- what is refused --------------------------------------------------------------------------------


def edit(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_backbone(folder: Path, **changes: object) -> None:
    backbone = json.loads((folder / "config.json").read_text())["vlm_config"]
    edit(folder, vlm_config=backbone | changes)


def reweigh(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


def filled(name: str, value: float) -> Callable[[dict[str, torch.Tensor]], object]:
    return lambda weights: weights.update({name: torch.full_like(weights[name], value)})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.pop("progress_head.0.weight"), "has no weight 'progress_head.0.weight', without which"),
        (lambda w: w.pop("success_head.4.bias"), "has no weight 'success_head.4.bias', without which"),
        (
            lambda w: [w.pop(name) for name in [*w] if "_head." in name and "lm_head" not in name],
            "has no weight 'progress_head.0.weight' and 11 more of its heads",
        ),
        (
            lambda w: w.update({"progress_head.4.weight": torch.ones(7, 64)}),
            "'progress_head.4.weight' has the shape (7, 64), and config.json asks for (10, 64)",
        ),
        (
            filled("success_head.1.weight", float("nan")),
            "'success_head.1.weight' has values that are not finite",
        ),
        (filled("progress_head.0.weight", 0.0), "'progress_head.0.weight' is zero all over"),
        (filled("success_head.4.weight", 1e9), "'success_head.4.weight' has the value 1e+09"),
        (lambda w: w.update({"reward_head.0.weight": torch.ones(1)}), "has 1 weight without a place"),
        (lambda w: w.pop("model.model.language_model.norm.weight"), "lacks 1 weights, first "),
        (lambda w: w.pop("model.lm_head.weight"), "lacks "),
        (
            lambda w: w.update({"success_head.4.bias": torch.ones(1, dtype=torch.int8)}),
            "'success_head.4.bias' is of type I8, which is not supported",
        ),
    ],
)
def test_weights_that_are_not_those_of_the_format_are_refused(copy, settings, change, said):
    reweigh(copy, change)
    with pytest.raises(ScorerError) as raised:
        load_scorer(str(copy), settings)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"vlm_config": None}, "has no vlm_config"),
        ({"vlm_config": []}, "has no vlm_config"),
        ({"use_multi_image": False}, "use_multi_image is False, and only"),
        ({"use_per_frame_progress_token": False}, "use_per_frame_progress_token is False, and only"),
        ({"progress_loss_type": "l3"}, "progress_loss_type is 'l3' and must be discrete, l1 or l2"),
        (
            {"progress_discrete_bins": 10**9},
            "progress_discrete_bins is 1000000000 and must be a whole number",
        ),
        ({"progress_discrete_bins": 1}, "progress_discrete_bins is 1 and must be"),
        ({"progress_discrete_bins": 11}, "'progress_head.4.weight' has the shape (10, 64), and config.json"),
        ({"progress_loss_type": "l1"}, "'progress_head.4.weight' has the shape (10, 64), and config.json"),
        ({"max_frames": 0}, "max_frames is 0 and must be a whole number from 1"),
        ({"max_frames": "8"}, "max_frames is '8' and must be a whole number"),
        ({"base_model_id": 5}, "base_model_id is 5 and must be text"),
        ({"type": "sarm"}, "holds a model of LeRobot of type 'sarm', which is not supported"),
    ],
)
def test_a_config_that_is_not_of_the_format_is_refused(copy, settings, changes, said):
    edit(copy, **changes)
    with pytest.raises(ScorerError) as raised:
        load_scorer(str(copy), settings)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"model_type": "qwen2_5_vl"},
            "the backbone is of type 'qwen2_5_vl', and a Robometer is read on qwen3_vl",
        ),
        ({"text_config": 5}, "text_config is 5 and must be an object"),
        ({"text_config": {}}, "vlm_config says vocab_size 0"),
        ({"image_token_id": 3}, "config.json has image_token_id 3, the tokenizer has"),
        ({"quantization_config": {"quant_method": "fp8"}}, "is quantized with fp8"),
    ],
)
def test_a_backbone_that_cannot_be_is_refused(copy, settings, changes, said):
    edit_backbone(copy, **changes)
    with pytest.raises(ScorerError) as raised:
        load_scorer(str(copy), settings)
    assert said in str(raised.value)


def test_a_tokenizer_of_another_model_is_refused(copy, settings, checkpoint):
    path = copy / "tokenizer.json"
    own = open_checkpoint(str(copy)).tokenizer
    shutil.copy(checkpoint / "tokenizer.json", path)  # fewer tokens: the added ones would get other ids
    with pytest.raises(
        ScorerError, match="tokens with the five of Robometer, and vlm_config says vocab_size 525"
    ):
        load_scorer(str(copy), settings)
    own.add_special_tokens(["<|one_more|>"])
    path.write_text(own.to_str())
    with pytest.raises(ScorerError, match="tokens with the five of Robometer"):
        load_scorer(str(copy), settings)
    shutil.copy(checkpoint / "tokenizer.json", path)
    some = open_checkpoint(str(checkpoint)).tokenizer
    some.add_special_tokens(TOKENS[:3])
    path.write_text(some.to_str())
    with pytest.raises(
        ScorerError, match=r"has the token <\|split_token\|> of Robometer and not <\|sim_token\|>"
    ):
        load_scorer(str(copy), settings)


def test_what_only_a_model_that_answers_can_do_is_refused(copy, settings):
    with pytest.raises(ScorerError, match="states progress by heads of its own: use quantization none"):
        load_scorer(str(copy), replace(settings, quantization="int8"))
    with pytest.raises(ScorerError, match="holds a reward model on one of type 'qwen3_vl'"):
        load_qwen3_vl(str(copy), settings)
    with pytest.raises(ScorerError, match="states progress by heads of its own and writes no text"):
        TextModel(open_checkpoint(str(copy)), settings, sees=True)
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ScorerError, match=r"no file of PyTorch|has no safetensors"):
        load_scorer(str(copy), settings)


def test_the_authors_own_format_is_named(checkpoint, tmp_path, settings):
    copy = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    edit(copy, architectures=["RFM"])
    with pytest.raises(
        ScorerError, match="in its authors' own format, which is not read: take the same model"
    ):
        load_scorer(str(copy), settings)


def test_a_state_that_is_no_number_is_an_error_and_not_a_score(scorer, make_video, monkeypatch):
    monkeypatch.setattr(
        type(scorer),
        "_hidden",
        lambda *_: torch.full((scorer._heads.progress_head[0].in_features,), float("nan")),
    )
    with pytest.raises(ScorerError, match="progress and success are nan and nan after 2 frames"):
        scorer.score(asked(TASK, make_video(2, 64, 64)))
    monkeypatch.setattr(type(scorer), "close", lambda _: None)
    with pytest.raises(ScorerError, match="cannot score"):
        registry._try_out(scorer, "it", "mend", registry._checkpoint_fails)
