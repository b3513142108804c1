"""Clips of the simulator as films with labels: the same pixels, the same truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from test.offline.test_labelled_episodes import reading
from topreward_ros.offline.labelled_episodes import labelled_data
from training.clips import RATE, Clip, Listed
from training.labelled_clips import chosen, listed, write_films


def write_clip(folder: Path, name: str, done: int | None, seed: int) -> Listed:
    frames = np.random.default_rng(seed).integers(0, 256, (6, 32, 48, 3), np.uint8)
    success = np.arange(6) >= (6 if done is None else done)
    zeros = np.zeros(6, np.float32)
    clip = Clip("drawer-open", "success", "side", frames, zeros, zeros, np.zeros((6, 3), np.float32), success)
    clip.save(folder / name)
    return Listed.of_file(folder, Path(name), seed)


def test_a_film_has_the_pixels_and_the_truth_of_its_clip(tmp_path: Path) -> None:
    lines = [write_clip(tmp_path, "a/0.npz", 3, 0), write_clip(tmp_path, "a/1.npz", None, 1)]
    assert [it.path for it in listed(tmp_path)] == [it.path for it in lines]
    write_films(tmp_path, lines, tmp_path / "films")
    made = labelled_data(tmp_path / "films", reading())
    assert [(it.task, it.succeeded, it.done_s) for it in made.episodes] == [
        ("open the drawer", True, 3 / RATE),
        ("open the drawer", False, None),
    ]
    for line, episode in zip(lines, made.episodes, strict=True):
        pictures = [read() for _, read in episode.open()]
        np.testing.assert_array_equal(pictures, Clip.load(tmp_path / line.path).frames)


def test_kinds_and_cameras_take_turns() -> None:
    lines = [
        Listed(Path(f"{task}-{kind}-{view}-{seed}.npz"), task, kind, view, seed, kind == "success", "")
        for task in ("a", "b")
        for kind in ("success", "stop", "miss")
        for view in ("side", "close")
        for seed in range(3)
    ]
    made = chosen(reversed(lines), 4)
    assert len(made) == 16
    failures = {(it.kind, it.view) for it in made if not it.succeeded and it.task == "a"}
    assert failures == {("stop", "side"), ("stop", "close"), ("miss", "side"), ("miss", "close")}
    assert made == chosen(lines, 4)
