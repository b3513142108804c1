"""Each released model's repository in small: every weight of its files finds its place, and it scores."""

from __future__ import annotations

import json
import logging
import math
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from test.released_layouts import LAYOUTS, Layout, byte_level
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.offline.model_download import _SMALL_FILES
from topreward_ros.offline.models import describe_model
from topreward_ros.scoring.base import PrefixScorer, ScorerError
from topreward_ros.scoring.patches import read_preprocessing
from topreward_ros.scoring.registry import load_scorer

asked = ScoreRequest.of_frames
TASK = "open the drawer"


class Loaded(NamedTuple):
    layout: Layout
    folder: Path
    model: Any  #: what the files hold
    scorer: PrefixScorer
    warnings: list[str]


@pytest.fixture(scope="module", params=LAYOUTS)
def loaded(request: Any, settings: Any, tmp_path_factory: Any) -> Iterator[Loaded]:
    layout, folder = LAYOUTS[request.param], tmp_path_factory.mktemp("released") / "model"
    model, warnings = layout.write(folder), []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("topreward_ros").addHandler(handler)
    try:
        scorer = load_scorer(str(folder), replace(settings, sample_rate=2.0))
    finally:
        logging.getLogger("topreward_ros").removeHandler(handler)
    yield Loaded(layout, folder, model, scorer, warnings)
    scorer.close()
    shutil.rmtree(folder)


def test_every_weight_is_where_the_files_have_it(loaded):
    found = dict(loaded.scorer._model.named_parameters())
    held = dict(loaded.model.named_parameters())
    assert found.keys() == held.keys()
    assert [name for name in held if not torch.equal(found[name], held[name])] == []
    buffers = dict(loaded.scorer._model.named_buffers())  # frequencies of rotations, which no file holds
    for name, value in loaded.model.named_buffers():
        assert torch.equal(buffers[name], value), name


def test_what_config_json_says_in_older_words_is_read(loaded):
    assert loaded.layout.facts
    for path, value in loaded.layout.facts.items():
        said: Any = loaded.scorer._model.config
        for key in path.split("."):
            said = said[key] if isinstance(said, dict) else getattr(said, key)
        assert said == value, path


def test_prefixes_are_scored(loaded, make_video):
    video = make_video(4, 64, 96)
    scores = [loaded.scorer.score(asked(TASK, video[:count])) for count in (1, 2, 4)]
    for score in scores:
        assert score.log_prob < 0 and score.log_prob_false < 0 and math.isfinite(score.log_prob_static)
    assert len({score.log_prob for score in scores}) == 3
    assert loaded.scorer.info.random_weights


@pytest.mark.parametrize("loaded", ["teetone/RoboReward-4B", "teetone/RoboReward-8B"], indirect=True)
def test_roboreward_answers_from_1_to_5(loaded, settings, make_video):
    asked_so = replace(settings, sample_rate=2.0, prompts="roboreward")
    with closing(load_scorer(str(loaded.folder), asked_so)) as scorer:
        for count in (1, 3):
            score = scorer.score(asked(TASK, make_video(count, 64, 96)))
            assert math.exp(score.log_prob) + math.exp(score.log_prob_false) == pytest.approx(1.0)
            assert 0 < score.answer_share < 1 and score.log_prob < 0


def test_pixels_are_normalized_as_the_repository_says(loaded):
    said = json.loads((loaded.folder / "preprocessor_config.json").read_text())
    read = read_preprocessing(loaded.folder)
    assert (list(read.mean), list(read.std)) == (said["image_mean"], said["image_std"])


def test_nothing_is_warned_of_but_full_passes(loaded):
    slow = [] if describe_model(str(loaded.folder)).incremental else ["every score is a full forward pass"]
    assert len(loaded.warnings) == len(slow)
    assert all(said in warning for said, warning in zip(slow, loaded.warnings, strict=True))


@pytest.mark.parametrize(
    "loaded",
    ["Qwen/Qwen3-VL-4B-Instruct", "google/gemma-3-4b-it", "allenai/Molmo2-4B"],
    indirect=True,
)
def test_what_is_downloaded_of_it_is_enough(loaded, settings, make_video, tmp_path):
    """The download leaves out some of the files that are published, such as merges.txt and code."""
    folder = tmp_path / "downloaded"
    folder.mkdir()
    for path in loaded.folder.iterdir():
        if any(fnmatch(path.name, pattern) for pattern in (*_SMALL_FILES, "*.safetensors")):
            (folder / path.name).hardlink_to(path)
    assert len(list(folder.iterdir())) < len(list(loaded.folder.iterdir()))
    video = make_video(2, 64, 96)
    scorer = load_scorer(str(folder), replace(settings, sample_rate=2.0))
    loaded.scorer.forget()
    assert repr(scorer.score(asked(TASK, video))) == repr(loaded.scorer.score(asked(TASK, video)))
    scorer.close()


# ---- what would not be seen in a forward pass ------------------------------------------------------------


@pytest.fixture
def qwen2_5_vl(tmp_path: Path) -> Path:
    folder = tmp_path / "qwen"
    LAYOUTS["Qwen/Qwen2.5-VL-3B-Instruct"].write(folder)
    return folder


def test_a_tokenizer_of_another_model_is_told_where_the_vocabulary_stands_at_the_top(qwen2_5_vl, settings):
    byte_level(*(f"<more_{number}>" for number in range(100))).save(str(qwen2_5_vl / "tokenizer.json"))
    with pytest.raises(
        ScorerError, match=r"the tokenizer has \d+ tokens, config.json has vocab_size 512: they"
    ):
        load_scorer(str(qwen2_5_vl), settings)


def test_a_tokenizer_in_older_files_alone_is_made_by_the_command_that_is_told(
    qwen2_5_vl, settings, make_video, monkeypatch
):
    def score() -> str:
        with closing(load_scorer(str(qwen2_5_vl), settings)) as scorer:
            return repr(scorer.score(asked(TASK, make_video(2, 56, 56))))

    published = score()
    (qwen2_5_vl / "tokenizer.json").unlink()
    with pytest.raises(
        ScorerError, match=r"has no tokenizer.json: .* from vocab.json: run python -c "
    ) as error:
        load_scorer(str(qwen2_5_vl), settings)
    python, _, code, folder = shlex.split(str(error.value).partition(": run ")[2])
    assert python == "python"
    monkeypatch.setattr(sys, "argv", ["-c", folder])
    exec(code, {})  # in this process, where the libraries are imported already
    assert score() == published
