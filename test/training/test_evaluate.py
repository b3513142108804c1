"""The evaluation runs from clips to the table, and its curves are those of the scorer."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from topreward_ros.core.frames import NS_PER_S, Frame
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.defaults import monitor_defaults
from topreward_ros.scoring.base import ScorerSettings
from topreward_ros.scoring.checkpoint.folder import EMBEDDED_FOLDER
from topreward_ros.scoring.registry import load_scorer
from training import controls, evaluate
from training.clips import RATE, Clip, Listed, Manifest
from training.export import TABLE_END, TABLE_START
from training.samples import crop

RECORDED = Path(__file__).resolve().parents[1] / "data" / "training" / "train"


def test_clips_become_curves_and_the_table_of_the_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, model, curves = tmp_path / "data", tmp_path / "model", tmp_path / "curves.json"
    shutil.copytree(RECORDED, data / "eval-0")  # a success and a failure, of two views each, six frames long
    seeds = {"0000": 8, "0009": 20}  # which roles a clip has depends on its seed
    paths = [path.relative_to(data) for path in data.rglob("*.npz")]
    Manifest.write(data, [Listed.of_file(data, path, seeds[path.stem[:4]]) for path in paths])
    shutil.copytree(EMBEDDED_FOLDER, model)
    options = ["--sets", "1", "--processes", "1", "--controls", "0", "--json", str(curves), "--card"]
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
            images = crop(Clip.load(data / result["clip"]).frames, 168, 224)
            images = images[::-1] if result["role"] == "reversed" else images
            frames = [Frame(round(k / RATE * NS_PER_S), np.ascontiguousarray(images[k])) for k in range(6)]
            sampled = frames[:: strides[result["role"]]]
            prefixes = (sampled[:end] for end in range(1, len(sampled) + 1))
            requests = (ScoreRequest.of_frames(result["instruction"], prefix) for prefix in prefixes)
            expected = [scorer.score(request).log_prob for request in requests]
            assert result["log_probs"] == pytest.approx(expected, abs=2e-4)
    scorer.close()


@pytest.fixture
def cast() -> controls.Cast:
    success, another, failure = (
        Clip.load(RECORDED / "drawer-open" / f"{name}.npz")
        for name in ("0000-side", "0000-close", "0009-side")
    )
    return controls.Cast(success, another, failure, another, turn=3)


def test_a_film_in_which_nothing_was_done_shows_nothing_being_done(cast: controls.Cast) -> None:
    own = {frame.tobytes() for frame in crop(cast.success.frames, 168, 224)[: controls.done_at(cast.success)]}
    for name, film in controls.NOTHING_DONE.items():
        images = film(cast)
        assert images.shape[1:] == (168, 224, 3) and images.dtype == np.uint8
        assert not own & {image.tobytes() for image in images}, name
        assert np.array_equal(images, film(cast))


def test_a_film_of_something_done_shows_it_before_and_after_what_is_hard_to_see(cast: controls.Cast) -> None:
    whole = crop(cast.success.frames, 168, 224)
    for name, film in controls.DONE.items():
        images = film(cast)
        assert len(images) == len(whole)
        changed = ~np.array([np.array_equal(*pair) for pair in zip(images, whole, strict=True)])
        assert changed.any() == (name != "as is"), name
        if "2 s" in name or "frame" in name:
            assert not changed[0]


def test_what_is_undone_ends_as_it_began(cast: controls.Cast) -> None:
    images = controls.UNDONE["undone"](cast)
    assert np.array_equal(images[0], images[-1])
    assert set(controls.UNDONE) <= set(controls.films_of("drawer-open"))
    assert not set(controls.UNDONE) & set(controls.films_of("coffee-button"))  # it goes back by itself


def test_without_the_guards_every_due_frame_is_scored(
    cast: controls.Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controls, "SECONDS", 1.0)
    scorer, settings = evaluate.loaded(str(EMBEDDED_FOLDER))
    names = ("0000-side", "0000-close", "0009-side", "0000-close")
    listed = [Listed.of_file(RECORDED, Path("drawer-open", f"{name}.npz"), 0) for name in names]
    clips = {line.path: Clip.load(RECORDED / line.path) for line in listed}
    scored = []
    for guarded in (False, True):
        job = evaluate.Job(
            "", listed[0], "open the drawer", change="bad start 1", cast=tuple(listed), guarded=guarded
        )
        scored.append(len(evaluate.evaluate_job(scorer, settings, clips, job).log_probs))
    assert scored[0] == 4  # two seconds at 2 Hz
    assert scored[1] < scored[0]  # the monitor waits for a picture
    scorer.close()
    evaluate._scorers.clear()
