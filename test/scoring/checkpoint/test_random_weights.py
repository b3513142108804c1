"""The random checkpoint: small, the same every time, and a folder like any other."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoTokenizer, Qwen3VLForConditionalGeneration

from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.scoring.checkpoint.random_weights import make_random_checkpoint
from topreward_ros.scoring.registry import load_scorer


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(checkpoint, tmp_path):
    torch.manual_seed(99)
    state = torch.random.get_rng_state()
    again = hashes(make_random_checkpoint(tmp_path / "again"))
    assert again == hashes(checkpoint)
    assert torch.equal(state, torch.random.get_rng_state())
    other = hashes(make_random_checkpoint(tmp_path / "other", seed=1))
    assert {name for name in again if again[name] != other[name]} == {"model.safetensors"}


def test_it_is_small_and_marked(checkpoint):
    assert sum(path.stat().st_size for path in checkpoint.iterdir()) < 6_000_000
    assert json.loads((checkpoint / "config.json").read_text())["topreward_random_weights"] is True


@pytest.mark.parametrize("seed", range(3))
def test_the_numbers_follow_the_video_whatever_the_seed(seed, settings, make_video, tmp_path):
    scorer = load_scorer(str(make_random_checkpoint(tmp_path / "model", seed)), settings)
    video = make_video(8, 64, 64)
    scores = [
        scorer.score(ScoreRequest.of_frames("open the drawer", video[: i + 1])) for i in range(len(video))
    ]
    # nats; by chance upwards or downwards
    assert max(abs(score.log_prob - score.log_prob_static) for score in scores) > 0.2
    assert all(-40 < score.log_prob < -0.1 for score in scores)


def test_transformers_loads_it_like_any_other(checkpoint):
    model = Qwen3VLForConditionalGeneration.from_pretrained(checkpoint)
    assert model.config.topreward_random_weights is True
    assert 1_000_000 < sum(weight.numel() for weight in model.parameters()) < 3_000_000
    text = "<|im_start|>user\n<0.2 seconds><|vision_start|><|video_pad|><|vision_end|>open the drawer. True"
    theirs = AutoTokenizer.from_pretrained(checkpoint)(text)["input_ids"]
    assert theirs == Tokenizer.from_file(str(checkpoint / "tokenizer.json")).encode(text).ids


def test_processes_that_race_end_with_the_same_folder(tmp_path):
    folder = tmp_path / "raced"
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(make_random_checkpoint, [folder, folder]) == [folder, folder]
    assert [path.name for path in tmp_path.iterdir()] == ["raced"]  # nothing unfinished is left
