"""From clips to a model that the registry loads, in two steps of training, on recorded frames.

The clips in test/data/training were made by `training.generate` and thinned to six frames each, so nothing
here needs the simulator but the test that says so.
"""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from topreward_ros.core.episode import ScoreRequest
from topreward_ros.core.frames import Frame
from topreward_ros.defaults import monitor_defaults
from topreward_ros.scoring.base import ScorerSettings
from topreward_ros.scoring.registry import load_scorer

pytest.importorskip("training", reason="training/ is not installed with the package")

import training.train
from training.clips import VIEWS, Clip, Manifest
from training.export import export
from training.generate import MIX, Attempt, generate
from training.instructions import BY_NAME, TASKS
from training.samples import LOWEST, Shape, make_sample
from training.train import train

RECORDED = Path(__file__).resolve().parents[1] / "data" / "training"
ATTEMPTS = [Attempt("train", "drawer-open", 0), Attempt("train", "drawer-open", 9)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of clips as `generate` leaves it; all are there, so it only lists them."""
    folder = tmp_path / "data"
    shutil.copytree(RECORDED, folder)
    generate(folder, ATTEMPTS, processes=1)
    return folder


def test_manifest_lists_every_clip_with_the_hash_of_its_content(data: Path) -> None:
    lines, digest = Manifest.read(data)
    assert [line.path.as_posix() for line in lines] == sorted(
        f"train/drawer-open/{number}-{view}.npz" for number in ("0000", "0009") for view in VIEWS
    )
    assert [line.succeeded for line in lines] == [True, True, False, False]
    assert all(line.sha256 == Clip.load(data / line.path).digest() for line in lines)
    assert (
        generate(data, ATTEMPTS, processes=1) == digest
    )  # going on where nothing is missing changes nothing

    clip = Clip.load(data / lines[0].path)
    clip.frames[0, 0, 0] ^= 1
    clip.save(data / lines[0].path)
    assert generate(data, ATTEMPTS, processes=1) != digest


def test_two_steps_of_training_give_the_same_weights_again_and_a_model_that_loads(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training.train, "_PATCHES", 8)  # small steps
    monkeypatch.setattr(training.train, "_LOOK_CLIPS", 2)
    first = train(data, tmp_path / "first", steps=2, seed=0, workers=1, looks=2, threads=1)
    assert train(data, tmp_path / "again", steps=2, seed=0, workers=0, looks=2, threads=1) == first
    assert train(data, tmp_path / "other", steps=2, seed=1, workers=0, looks=2, threads=1) != first

    rows = list(csv.DictReader((tmp_path / "first" / "log.csv").open()))
    assert [row["step"] for row in rows] == ["0", "1"]
    assert all(np.isfinite(float(value)) for row in rows for value in row.values())
    assert (tmp_path / "first" / "loss.png").stat().st_size > 1000
    made_from = json.loads((tmp_path / "first" / "made_from.json").read_text())
    assert made_from["data_sha256"] == Manifest.read(data)[1]
    assert made_from["weights_sha256"] == first

    digest = export(tmp_path / "first", tmp_path / "model")
    assert digest in (tmp_path / "model" / "README.md").read_text()
    parameters = monitor_defaults() | {"device": "cpu", "scorer_threads": 1}
    scorer = load_scorer(str(tmp_path / "model"), ScorerSettings.from_parameters(parameters))
    assert not scorer.info.random_weights
    frames = Clip.load(data / "train/drawer-open/0000-right.npz").frames
    video = [Frame(number * 500_000_000, frame) for number, frame in enumerate(frames)]
    score = scorer.score(ScoreRequest.of_frames("open the drawer", video))
    assert score.log_prob < 0 and score.log_prob_static < 0


def test_a_sample_is_asked_right_and_wrong_questions_with_fitting_targets() -> None:
    clip = Clip.load(RECORDED / "train/drawer-open/0000-right.npz")
    task = BY_NAME["drawer-open"]
    right = wrong = done = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        sample = make_sample(clip, Shape(3, bool(seed % 2), 96, 128, 4), rng)
        assert sample.frames.shape == (6, 96, 128, 3)
        assert np.all(np.diff(sample.seconds) > 0)
        if seed % 2:
            assert np.array_equal(sample.frames[4], sample.frames[5])
        for question in sample.questions:
            assert 0 <= question.progress < 1 and 1 <= question.patches <= 3
            if question.wording in task.trained:
                right += 1
                done += question.progress > 0.96
            else:
                wrong += 1
                assert question.progress == 0
                assert any(question.wording in other.trained for other in TASKS if other != task)
        if not sample.known.forward:  # reversed or still: nothing is being completed
            assert all(question.progress == 0 for question in sample.questions)
    assert right > 2 * wrong > 0
    assert done > 10
    assert np.exp(LOWEST) == pytest.approx(0.02, rel=0.02)


def test_held_out_wordings_are_never_trained_and_made_of_trained_words() -> None:
    for task in TASKS:
        assert len(task.trained) >= 20
        assert len(task.held_out) >= 5
        assert not set(task.held_out) & {wording for other in TASKS for wording in other.trained}
        words = {word for wording in task.trained for word in wording.split()}
        assert {word for wording in task.held_out for word in wording.split()} <= words
        if task.opposite:
            assert BY_NAME[task.opposite].opposite == task.name
    assert len(TASKS) >= 10
    assert len({wording for task in TASKS for wording in task.wordings}) == sum(
        len(task.wordings) for task in TASKS
    )


def test_any_twenty_attempts_are_good_bad_and_idle() -> None:
    assert len(MIX) == 20
    assert set(MIX) == {"success", "stop", "retreat", "miss", "noise", "idle"}


def test_the_simulator_shows_the_same_attempt_again(tmp_path: Path) -> None:
    pytest.importorskip("metaworld", reason="needs Metaworld (training/requirements.txt) and libosmesa6")
    attempts = [Attempt("eval-0", "button-press-topdown", number) for number in (0, 9)]
    first = generate(tmp_path / "first", attempts, processes=1)
    assert generate(tmp_path / "again", attempts[::-1], processes=1) == first
    lines, _ = Manifest.read(tmp_path / "first")
    assert [line.succeeded for line in lines] == [True, True, False, False]
    clip = Clip.load(tmp_path / "first" / lines[0].path)
    assert clip.success[-24:].all()  # a success lasts six seconds in the evaluation
    assert clip.progress[0] < 0.05 and clip.frames.std() > 10
