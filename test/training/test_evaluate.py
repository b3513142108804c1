"""The evaluation runs from clips to the table, and its curves are those of the scorer."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from topreward_ros.core.episode import ScoreRequest
from topreward_ros.core.frames import NS_PER_S, Frame
from topreward_ros.defaults import monitor_defaults
from topreward_ros.scoring.base import ScorerSettings
from topreward_ros.scoring.checkpoint.folder import EMBEDDED_FOLDER
from topreward_ros.scoring.registry import load_scorer

pytest.importorskip("training", reason="training/ is not installed with the package")

from training import evaluate
from training.clips import RATE, Clip
from training.export import TABLE_END, TABLE_START
from training.generate import Attempt, generate
from training.samples import crop

RECORDED = Path(__file__).resolve().parents[1] / "data" / "training" / "train"


def test_clips_become_curves_and_the_table_of_the_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, model, curves = tmp_path / "data", tmp_path / "model", tmp_path / "curves.json"
    shutil.copytree(RECORDED, data / "eval-0")  # a success and a failure, of two views each, six frames long
    generate(data, [Attempt("eval-0", "drawer-open", number) for number in (0, 9)], processes=1)
    shutil.copytree(EMBEDDED_FOLDER, model)
    options = ["--sets", "1", "--processes", "1", "--json", str(curves), "--card"]
    monkeypatch.setattr(sys, "argv", ["evaluate", str(data), str(model), *options])
    evaluate.main()

    printed = capsys.readouterr().out
    assert "VOC on" in printed and "| drawer-open |" in printed
    table = (model / "README.md").read_text().split(TABLE_START)[1].split(TABLE_END)[0]
    assert table.strip().startswith("4 clips of held-out scenes, attempts and cameras in 1 sets")
    assert "| SUCCESS fires on static clips | 0 of 4 |" in table

    results = json.loads(curves.read_text())
    assert sorted({result["role"] for result in results}) == sorted(
        ["main", "1 fps", "4 fps", "static", "noisy", "reversed", "held out", "wrong object", "opposite"]
    )
    parameters = monitor_defaults() | {"device": "cpu", "scorer_threads": 1}
    scorer = load_scorer(str(model), ScorerSettings.from_parameters(parameters))
    strides = {"main": 2, "1 fps": 4, "4 fps": 1, "reversed": 2, "held out": 2}
    for result in results:
        if result["role"] in strides:
            images = crop(Clip.load(data / result["clip"]).frames, 96, 128)
            images = images[::-1] if result["role"] == "reversed" else images
            frames = [Frame(round(k / RATE * NS_PER_S), np.ascontiguousarray(images[k])) for k in range(6)]
            sampled = frames[:: strides[result["role"]]]
            prefixes = (sampled[:end] for end in range(1, len(sampled) + 1))
            requests = (ScoreRequest.of_frames(result["instruction"], prefix) for prefix in prefixes)
            expected = [scorer.score(request).log_prob for request in requests]
            assert result["log_probs"] == pytest.approx(expected, abs=2e-4)
    scorer.close()


def test_equal_values_share_the_mean_of_their_ranks() -> None:
    assert evaluate.ranks(np.array([0.3, 0.1, 0.3, 0.2])).tolist() == [3.5, 1, 3.5, 2]


def test_voc_is_the_rank_correlation_of_reward_and_time() -> None:
    rising = np.linspace(-3, -1, 40)
    assert evaluate.value_order_correlation(rising) == pytest.approx(1)
    assert evaluate.value_order_correlation(rising[::-1]) == pytest.approx(-1)
    assert evaluate.value_order_correlation(np.full(40, -2.0)) == 0
    # No ties: 1 - 6 sum(d^2) / (n (n^2 - 1)), here with d = (1, 1, 0, 0).
    assert evaluate.value_order_correlation(np.array([-3.0, -4.0, -2.0, -1.0])) == pytest.approx(0.8)


def test_auc_is_the_share_of_pairs_in_which_the_success_scores_higher() -> None:
    rng = np.random.default_rng(0)
    successes, failures = rng.integers(2, 8, 30).tolist(), rng.integers(0, 6, 20).tolist()  # many ties
    pairs = [(s > f) + 0.5 * (s == f) for s in successes for f in failures]
    assert evaluate.roc_auc(successes, failures) == pytest.approx(np.mean(pairs))
