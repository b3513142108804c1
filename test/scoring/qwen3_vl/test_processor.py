"""Our ids, pixels, positions and log-probabilities against records of transformers: of 4.57.1, which the
method's authors pinned, and of 5.23.0, which lays the stream out in another way.
`record_processor_fixture.py` made them; `data/processor*.json` says with what."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from topreward_ros.core.frames import Frame
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.scoring import patches
from topreward_ros.scoring.patches import Preprocessing
from topreward_ros.scoring.question.prompts import Framing, PromptTokens
from topreward_ros.scoring.qwen3_vl.scorer import Qwen3VLScorer

DATA = Path(__file__).parent.parent / "data"
RECORDS = {name: json.loads((DATA / f"{name}.json").read_text()) for name in ("processor", "processor_v5_10")}
CASES = pytest.mark.parametrize(
    ("record", "case"),
    [
        pytest.param(name, case, id=f"{record['layout']}-{case['name']}")
        for name, record in RECORDS.items()
        for case in record["cases"]
    ],
)


def arrays_of(record: str) -> dict[str, np.ndarray]:
    """What was recorded; frames and pixels are the same for all layouts and stand in one file."""
    arrays: dict[str, np.ndarray] = {}
    for name in ("processor", record):
        with np.load(DATA / f"{name}.npz") as stored:
            arrays |= dict(stored)
    return arrays


@pytest.fixture
def arrays(record: str) -> dict[str, np.ndarray]:
    return arrays_of(record)


def frames_of(case: dict, arrays: dict) -> list[Frame]:
    images = arrays[f"{case['name']}_frames"]
    stamps = [round(index / case["fps"] * 1e9) for index in case["indices"]]
    return [Frame(stamp, image) for stamp, image in zip(stamps, images, strict=True)]


def scorer_for(record: str, case: dict, new_scorer) -> Qwen3VLScorer:
    """One whose frames have the size that the processor chose for this video."""
    preprocessing = Preprocessing(video_pixels=case["longest_edge"])
    frames = len(case["indices"])
    layout = RECORDS[record]["layout"]
    return new_scorer(preprocessing, max_frames=frames, max_pixels=10**9, layout=layout)


@CASES
def test_ids_are_the_processors(record, case, arrays):
    framing = Framing(RECORDS[record]["layout"])
    tokens = PromptTokens(Tokenizer.from_file(str(DATA / "tokenizer.json")), framing=framing)
    steps, rows, columns = case["grid_thw"]
    seconds = [index / case["fps"] for index in case["indices"]]
    if len(seconds) % 2:
        seconds.append(seconds[-1])
    ids = []
    for i in range(steps):
        ids += tokens.before_patch((seconds[2 * i] + seconds[2 * i + 1]) / 2, first=i == 0)
        ids += [tokens.video_pad] * (rows * columns // 4) + [tokens.vision_end]
    ids += tokens.after_video(case["instruction"])[0]
    assert ids == arrays[f"{case['name']}_ids"].tolist()


@CASES
def test_pixels_are_the_processors(record, case, arrays):
    steps, rows, columns = case["grid_thw"]
    budget = case["longest_edge"] // len(case["indices"])
    size = patches.frame_size(case["height"], case["width"], 32, budget)
    assert size == (rows * 16, columns * 16)
    images = [patches.resize(frame.image, size) for frame in frames_of(case, arrays)]
    if len(images) % 2:
        images.append(images[-1])
    made = torch.cat(
        [patches.cut(images[2 * i], images[2 * i + 1], Preprocessing(), 16, 2) for i in range(steps)]
    ).numpy()
    expected = arrays[f"{case['name']}_pixel_values"][arrays[f"{case['name']}_pixel_index"]]
    np.testing.assert_array_equal(made, expected)


@CASES
def test_positions_are_the_models(record, case, arrays, new_scorer):
    scorer = scorer_for(record, case, new_scorer)
    given = []
    hook = scorer._model.model.language_model.rotary_emb.register_forward_pre_hook(
        lambda _module, args: given.append(args[1][:, 0])
    )
    try:
        scorer.score(ScoreRequest.of_frames(case["instruction"], frames_of(case, arrays)))
    finally:
        hook.remove()
    expected = arrays[f"{case['name']}_positions"]
    made = torch.cat(given, dim=1).numpy()[:, : expected.shape[1]]  # behind them, the static baseline
    np.testing.assert_array_equal(made, expected)


@CASES
def test_log_probabilities_are_those_of_that_version(
    to_rounding, record, case, arrays, checkpoint, new_scorer
):
    weights = hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest()
    assert weights == RECORDS[record]["weights_sha256"], "the random checkpoint has changed: record again"
    score = scorer_for(record, case, new_scorer).score(
        ScoreRequest.of_frames(case["instruction"], frames_of(case, arrays))
    )
    assert score.log_prob == to_rounding(case["log_prob"])
    assert score.log_prob_false == to_rounding(case["log_prob_false"])


def test_the_layouts_differ():
    """So that each is compared with its own."""
    one, other = (arrays_of(name)["odd_ids"] for name in RECORDS)
    assert len(other) == len(one) + 2
    scores = [record["cases"][0]["log_prob"] for record in RECORDS.values()]
    assert abs(scores[0] - scores[1]) > 0.01
