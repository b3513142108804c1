"""What is trained is what is scored: the network's many questions in one pass equal the scorer's answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from topreward_ros.core.frames import Frame
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.defaults import monitor_defaults
from topreward_ros.offline.distill.stories import Question
from topreward_ros.scoring.base import ScorerSettings
from topreward_ros.scoring.registry import load_scorer
from training.export import export
from training.network import Stream, Trainee, make_tokenizer
from training.samples import SIZES, Known, Sample

QUESTIONS = [
    Question(1, 0, "open the drawer", 0.0),
    Question(3, 1, "please close the drawer", 0.5),
    Question(4, 0, "open the drawer", 0.9),
    Question(2, 2, "words that nobody trained", 0.0),
]


def a_sample(size: tuple[int, int], seed: int, odd: bool) -> Sample:
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (8, *size, 3), np.uint8)
    seconds = np.arange(8) * 0.5 * (20 if seed else 1)  # beyond 10 s, where times have more digits
    if odd:
        frames[7], seconds[7] = frames[6], seconds[6]
    known = Known(
        np.zeros((4, 3), np.float32),
        np.zeros(4, np.float32),
        np.zeros(4, np.float32),
        np.zeros(4, np.float32),
        np.ones(4, np.float32),
        0,
        forward=True,
    )
    return Sample(frames, seconds.reshape(-1, 2).mean(1), QUESTIONS, known)


def test_bfloat16_says_about_the_same_and_counts_losses_in_float32() -> None:
    tokenizer = make_tokenizer()
    batch = Stream(tokenizer).batch([a_sample((96, 128), 0, odd=False)])
    losses = []
    for bfloat16 in (False, True):
        trainee = Trainee(tokenizer, 3, bfloat16)
        made = trainee.losses(batch)
        torch.stack([*made.values()]).sum().backward()
        assert all(loss.dtype == torch.float32 for loss in made.values())
        assert all(weight.dtype == torch.float32 for weight in trainee.parameters())
        losses.append(torch.stack([*made.values()]).detach())
    assert not torch.equal(*losses)
    assert torch.allclose(*losses, rtol=0.05, atol=0.02)


@pytest.mark.parametrize(("size", "odd"), [(size, bool(n % 2)) for n, size in enumerate(SIZES)])
def test_the_scorer_gives_what_was_trained(tmp_path: Path, size: tuple[int, int], odd: bool) -> None:
    tokenizer = make_tokenizer()
    trainee = Trainee(tokenizer, seed=3).eval()
    with torch.no_grad():
        for weight in trainee.parameters():  # as they will be shipped
            weight.copy_(weight.half().float())
    run = tmp_path / "run"
    run.mkdir()
    save_file({name: w.contiguous() for name, w in trainee.state_dict().items()}, run / "trainee.safetensors")
    tokenizer.save(str(run / "tokenizer.json"))
    made_from = {
        "data_sha256": "d",
        "clips": 2,
        "looks": 0,
        "steps": 0,
        "again": 0,
        "seed": 3,
        "precision": "float32",
        "torch": "2",
        "device": "CPU",
    }
    (run / "made_from.json").write_text(json.dumps({**made_from, "weights_sha256": "w"}))
    export(run, tmp_path / "model")

    samples = [a_sample(size, seed, odd) for seed in (0, 1)]
    with torch.no_grad():
        log_probs, *_ = trainee(Stream(tokenizer).batch(samples))  # (2, 4, vocabulary)
    parameters = monitor_defaults() | {"device": "cpu", "scorer_threads": 1}
    scorer = load_scorer(str(tmp_path / "model"), ScorerSettings.from_parameters(parameters))
    for number, sample in enumerate(samples):
        stamps = [round(s * 1e9) for s in np.arange(8) * 0.5 * (20 if number else 1)]
        video = [Frame(stamp, frame) for stamp, frame in zip(stamps, sample.frames, strict=True)]
        video = video[:7] if odd else video
        for place, question in enumerate(QUESTIONS):
            answer = scorer.score(ScoreRequest.of_frames(question.wording, video[: 2 * question.patches]))
            trained = log_probs[number, place]
            assert answer.log_prob == pytest.approx(float(trained[trainee.tokens.answers[0]]), abs=1e-4)
            assert answer.log_prob_false == pytest.approx(float(trained[trainee.tokens.answers[1]]), abs=1e-4)
