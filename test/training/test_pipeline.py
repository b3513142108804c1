"""From clips to a model that the registry loads, in two steps of training, on recorded frames.

The clips in test/data/training were made by `training.generate` and thinned to six frames each, so nothing
here needs the simulator but the test that says so.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

import training.train
from topreward_ros.core.frames import Frame
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.defaults import monitor_defaults
from topreward_ros.offline.distill import disturbances, stories, training_run
from topreward_ros.offline.distill.stories import LOWEST, Shape
from topreward_ros.offline.distill.training_run import RunError
from topreward_ros.scoring.base import ScorerSettings
from topreward_ros.scoring.registry import load_scorer
from training import samples
from training.clips import VIEWS, Clip, Listed, Manifest
from training.export import export
from training.generate import MIX, Attempt, generate
from training.instructions import BY_NAME, TASKS
from training.network import Batch
from training.samples import Sample, footage, make_sample
from training.train import Recipe, Steps, train

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
        f"train/drawer-open/{number}-{view}.npz" for number in ("0000", "0009") for view in ("side", "close")
    )
    assert [line.succeeded for line in lines] == [True, True, False, False]
    assert all(line.sha256 == Clip.load(data / line.path).digest() for line in lines)
    assert (
        generate(data, ATTEMPTS, processes=1) == digest
    )  # going on where nothing is missing changes nothing

    clip = Clip.load(data / lines[0].path)
    clip.frames[2, 0, 0] ^= 255  # stored as differences, of which this changes two
    changed = clip.frames.copy()
    clip.save(data / lines[0].path)
    assert np.array_equal(Clip.load(data / lines[0].path).frames, changed)
    assert generate(data, ATTEMPTS, processes=1) != digest


def test_every_attempt_is_filmed_by_two_cameras_in_turn_and_evaluated_by_all() -> None:
    attempts = [Attempt("train", "drawer-open", number) for number in range(60)]
    for kind in set(MIX):
        filmed = [view for attempt in attempts if attempt.kind == kind for view in attempt.views]
        assert set(filmed) == set(VIEWS) and len(filmed) == 2 * 3 * MIX.count(kind)
    assert Attempt("eval-0", "drawer-open", 1).views == VIEWS


def interrupted_at(last: int, drawn: Callable[[Steps, int], Batch]) -> Callable[[Steps, int], Batch]:
    def draw(steps: Steps, step: int) -> Batch:
        if step == last:
            raise KeyboardInterrupt
        return drawn(steps, step)

    return draw


def test_two_steps_of_training_give_the_same_weights_again_and_a_model_that_loads(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training.train, "_PATCHES", 8)  # small steps
    monkeypatch.setattr(training.train, "_LOOK_CLIPS", 2)
    monkeypatch.setattr(training.train, "drawn_size", lambda rng: (96, 128))
    monkeypatch.setattr(Shape, "drawn", lambda rng, _: Shape(int(rng.integers(1, 4)), False, 96, 128, 4))
    monkeypatch.setattr(training_run, "CHECKPOINT_EVERY", 1)
    recipe = Recipe(looks=2, steps=2, again=1)
    first = train(data, tmp_path / "first", recipe, workers=1)
    assert train(data, tmp_path / "other", replace(recipe, seed=1), workers=0) != first
    with pytest.raises(RunError, match="made from something else"):
        train(data, tmp_path / "first", replace(recipe, seed=1), workers=0)

    # One that is interrupted in its last step goes on to the same weights.
    with monkeypatch.context() as broken:
        broken.setattr(training.train.Steps, "__getitem__", interrupted_at(1, Steps.__getitem__))
        with pytest.raises(KeyboardInterrupt):
            train(data, tmp_path / "again", recipe, workers=0)
    assert not (tmp_path / "again" / "trainee.safetensors").exists()
    assert train(data, tmp_path / "again", recipe, workers=0) == first
    assert (tmp_path / "again" / "log.csv").read_text() == (tmp_path / "first" / "log.csv").read_text()

    rows = list(csv.DictReader((tmp_path / "first" / "log.csv").open()))
    assert [row["step"] for row in rows] == ["0", "1"]
    assert all(np.isfinite(float(value)) for row in rows for value in row.values())
    again = list(csv.DictReader((tmp_path / "first" / "again.csv").open()))
    assert [row["step"] for row in again] == ["0"]
    assert again[0]["loss"] != rows[0]["loss"]  # it goes on from the weights of the first round, with others
    assert (tmp_path / "first" / "loss.png").stat().st_size > 1000
    made_from = json.loads((tmp_path / "first" / "made_from.json").read_text())
    assert made_from["data_sha256"] == Manifest.read(data)[1]
    assert made_from["weights_sha256"] == first

    digest = export(tmp_path / "first", tmp_path / "model")
    assert digest in (tmp_path / "model" / "README.md").read_text()
    parameters = monitor_defaults() | {"device": "cpu", "scorer_threads": 1}
    scorer = load_scorer(str(tmp_path / "model"), ScorerSettings.from_parameters(parameters))
    assert not scorer.info.random_weights
    frames = Clip.load(data / "train/drawer-open/0000-side.npz").frames
    video = [Frame(number * 500_000_000, frame) for number, frame in enumerate(frames)]
    score = scorer.score(ScoreRequest.of_frames("open the drawer", video))
    assert score.log_prob < 0 and score.log_prob_static < 0


def test_a_sample_is_asked_right_and_wrong_questions_with_fitting_targets() -> None:
    clip = Clip.load(RECORDED / "train/drawer-open/0000-side.npz")
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
    assert right > 2 * wrong > 0
    assert done > 10
    assert np.exp(LOWEST) == pytest.approx(0.02, rel=0.02)


def told(clip: Clip, story: str, seed: int, monkeypatch: pytest.MonkeyPatch, **others: object) -> Sample:
    """A sample with this story, in front of a camera that nothing disturbs."""
    monkeypatch.setattr(stories, "_STORIES", {story: 1.0})
    monkeypatch.setattr(
        stories, "_interrupted", others.get("interrupted", lambda pictures, shown, *_: (pictures, shown))
    )
    another = cast("Clip | None", others.get("another"))
    draw = None if another is None else lambda same_task: another
    return make_sample(clip, Shape(3, False, 96, 128, 4), np.random.default_rng(seed), draw)


def own_targets(sample: Sample) -> list[tuple[int, float]]:
    return sorted((q.patches, q.progress) for q in sample.questions if q.task == sample.known.task)


@pytest.mark.parametrize("story", ["static", "finished", "reversed"])
def test_what_nobody_brought_about_is_no_progress(story: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = Clip.load(RECORDED / "train/drawer-open/0000-side.npz")
    for seed in range(10):
        sample = told(clip, story, seed, monkeypatch)
        assert all(progress == 0 for _, progress in own_targets(sample))
        assert not sample.known.forward
        if story == "finished":
            assert sample.known.success.all()


def test_what_was_undone_is_no_longer_done(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = Clip.load(RECORDED / "train/drawer-open/0000-side.npz")
    ends = []
    for seed in range(30):
        curve = [progress for _, progress in own_targets(told(clip, "undone", seed, monkeypatch))]
        ends.append(curve[-1])
    assert min(ends) < 0.1 and any(end > 0.9 for end in ends)


def test_after_a_cut_counts_what_is_shown_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    failure = Clip.load(RECORDED / "train/drawer-open/0009-side.npz")
    success = Clip.load(RECORDED / "train/drawer-open/0000-close.npz")
    finished = [
        own_targets(told(failure, "cut", seed, monkeypatch, another=success))[-1][1] for seed in range(40)
    ]
    assert finished.count(0.0) > 15  # the other attempt was over
    assert max(finished) > 0.9  # or is seen to succeed


def test_what_was_done_while_the_camera_was_away_counts_and_the_times_tell_of_it() -> None:
    six = Clip.load(RECORDED / "train/drawer-open/0000-side.npz")
    at = np.arange(42) // 7  # each of its frames seven times, so that it is long enough
    arrays = {name: value[at] for name, value in vars(six).items() if isinstance(value, np.ndarray)}
    clip = replace(six, **arrays)
    done_after = 0
    for seed in range(40):
        shown, seconds = stories._with_gap(footage(clip), 12, np.random.default_rng(seed))
        steps = np.diff(seconds)
        assert (steps > 0).all() and np.isfinite(steps).all()
        usual, longest = np.median(steps), int(np.argmax(steps))
        away = steps[longest] > 2 * usual
        done_after += bool(away and shown.target[longest] < 0.9 < shown.target[longest + 1])
        assert shown.target.max() == shown.target[-1]
    assert done_after > 3  # finished meanwhile: it was the robot that brought it about


def test_a_round_draws_the_tasks_that_are_learnt_last_more_often() -> None:
    tasks = ("drawer-open", "faucet-close", "handle-pull")
    clips = [Listed(Path(task), task, "success", "side", 0, True, "") for task in tasks]
    often = [clip.task for clip in training.train._drawn_from(clips, training.train.SECOND)]
    assert [often.count(clip.task) for clip in clips] == [1, 3, 2]


def test_a_picture_that_shows_nothing_leaves_progress_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = Clip.load(RECORDED / "train/drawer-open/0000-side.npz")

    def hide_first(pictures: np.ndarray, shown: Any, *_: object) -> tuple[np.ndarray, Any]:
        return stories._hide(pictures, shown, 0, 4, np.random.default_rng(1))

    def hide_last(pictures: np.ndarray, shown: Any, *_: object) -> tuple[np.ndarray, Any]:
        return stories._hide(pictures, shown, 4, 2, np.random.default_rng(1))

    for seed in range(10):
        sample = told(clip, "attempt", seed, monkeypatch, interrupted=hide_first)
        assert sample.known.seen.tolist() == [0, 0, 1]
        assert all(progress == 0 for end, progress in own_targets(sample) if end < 3)
        sample = told(clip, "attempt", seed, monkeypatch, interrupted=hide_last)
        assert sample.known.seen.tolist() == [1, 1, 0]
        assert own_targets(sample)[-1][1] < 0.9  # the success comes with the last frame, which nobody saw


def test_a_handle_that_rests_below_the_limit_counts_as_pulled_in_a_success_alone() -> None:
    clip = Clip.load(RECORDED / "train/drawer-open/0000-side.npz")
    moved = np.array([0, 0.2, 0.7, 0.85, 0.85, 1], np.float32)
    pulled = replace(clip, task="handle-pull", moved=moved)
    assert samples.done(pulled).tolist() == [False, False, False, True, True, True]
    assert samples.done(replace(clip, moved=moved)).tolist() == clip.success.tolist()
    nothing = replace(pulled, success=np.zeros(6, bool))
    assert not samples.done(nothing).any()


@pytest.mark.parametrize("kind", [*disturbances.HIDERS, ""])
def test_a_hidden_scene_is_drawn_again_and_seldom_shows_itself(kind: str) -> None:
    pictures = Clip.load(RECORDED / "train/drawer-open/0000-side.npz").frames[:4]
    first = disturbances.hidden(pictures, np.random.default_rng(5), kind)
    assert first.dtype == np.uint8 and first.shape == pictures.shape
    assert np.array_equal(first, disturbances.hidden(pictures, np.random.default_rng(5), kind))
    assert np.mean(np.abs(first[0].astype(int) - pictures[0])) > 20


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
    assert [line.succeeded for line in lines] == [True] * 3 + [False] * 3
    clip = Clip.load(tmp_path / "first" / lines[0].path)
    assert clip.success[-24:].all()  # a success lasts six seconds in the evaluation
    assert clip.progress[0] < 0.05 and clip.frames.std() > 10
