"""Clips become films without loss, and labels that say what is true of them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from topreward_ros.offline.video import open_video

pytest.importorskip("training", reason="training/ is not installed with the package")

from training.clips import RATE, Clip
from training.films import chosen, write_films
from training.instructions import BY_NAME
from training.samples import crop, done

DATA = Path(__file__).resolve().parents[1] / "data" / "training"


def test_clips_become_labelled_films_without_loss(tmp_path: Path) -> None:
    clips = list(chosen(DATA, ["train"], "side", each=1))
    assert len(clips) == 2 and {clip.succeeded for clip in clips} == {True, False}
    write_films(DATA, tmp_path / "films", clips)
    rows = list(csv.DictReader((tmp_path / "films" / "labels.csv").open()))
    for row, line in zip(rows, clips, strict=True):
        clip = Clip.load(DATA / line.path)
        video = list(open_video(tmp_path / "films" / row["file"]))
        assert [stamp / 1e9 for stamp, _ in video] == [k / RATE for k in range(len(clip.frames))]
        assert np.array_equal(np.stack([read() for _, read in video]), crop(clip.frames, 168, 224))
        assert row["task"] == BY_NAME[clip.task].instruction and int(row["success"]) == clip.succeeded
        if clip.succeeded:
            place = round(float(row["done_s"]) * RATE)
            assert done(clip)[place] and not done(clip)[:place].any()
        else:
            assert row["done_s"] == ""
