"""LeRobot datasets are read as they are, and refused by name where they do not agree with themselves."""

from __future__ import annotations

import builtins
import json
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from test.lerobot_datasets import (
    CAMERAS,
    LENGTHS,
    RATE,
    TASKS,
    brightness,
    edit_info,
    edit_rows,
    make_dataset,
)
from topreward_ros.core.errors import UserError
from topreward_ros.offline.lerobot import FORMATS, DatasetError, check_videos, episodes_in_video, open_dataset
from topreward_ros.offline.lerobot_video import open_episode, stamps_of
from topreward_ros.offline.recordings import recording_at
from topreward_ros.offline.video import FrameError, Video, VideoError
from topreward_ros.offline.video_track import Track

SHARED = Path(__file__).parents[3] / "shared" / "data" / "lerobot_v30"
ROWS = "data/chunk-000/file-000.parquet"
FILM = f"videos/{CAMERAS[0]}/chunk-000/file-000.mp4"


def pictures(video: Video) -> tuple[list[int], list[float]]:
    """Stamps and brightnesses."""
    with closing(iter(video)) as frames:
        seen = [(stamp_ns, float(read().mean())) for stamp_ns, read in frames]
    return [stamp for stamp, _ in seen], [value for _, value in seen]


@pytest.mark.parametrize("version", FORMATS)
def test_every_row_has_its_own_picture_and_stamp(version: str, tmp_path: Path) -> None:
    dataset = open_dataset(make_dataset(tmp_path / "d", version))
    assert dataset.cameras == CAMERAS and dataset.rate == RATE
    assert dataset.total_frames == sum(LENGTHS)
    assert [episode.tasks for episode in dataset.episodes] == [(task,) for task in TASKS]
    assert [episode.first_index for episode in dataset.episodes] == [0, 21, 37]
    for at, camera in enumerate(CAMERAS):
        for number in (2, 1, 0):
            video = open_episode(dataset, number, camera)
            stamps, values = pictures(video)
            assert stamps == [k * 100_000_000 for k in range(LENGTHS[number])]
            expected = [brightness(number, frame, at) for frame in range(LENGTHS[number])]
            assert values == pytest.approx(expected, abs=1.6)
            assert video.damaged == [] and video.info.frame_count == LENGTHS[number]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the dataset that LeRobot wrote is not here")
def test_a_dataset_of_lerobots_own_with_three_episodes_in_one_av1_file() -> None:
    dataset = open_dataset(SHARED)
    (camera,) = dataset.cameras
    assert [episode.length for episode in dataset.episodes] == [106, 107, 112]
    track = Track(SHARED / dataset.episodes[0].videos[camera].file)
    with closing(track):
        whole = [track.rgb(frame) for _, frame in track.frames(lambda *_: None)]
    for episode in dataset.episodes:
        with closing(iter(open_episode(dataset, episode.number, camera))) as frames:
            for k, (_, read) in enumerate(frames):
                if k % 20 == 0 or k >= episode.length - 2:
                    assert (read() == whole[episode.first_index + k]).all()
        assert k + 1 == episode.length


def test_an_episode_is_sought_and_not_read_from_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = open_dataset(make_dataset(tmp_path / "d", lengths=(200, 11), tasks=TASKS[:2]))
    read = 0
    frames = Track.frames

    def counted(self: Track, report: Any) -> Any:
        nonlocal read
        for frame in frames(self, report):
            read += 1
            yield frame

    monkeypatch.setattr(Track, "frames", counted)
    video = open_episode(dataset, 1, CAMERAS[0])
    read = 0
    pictures(video)
    assert 11 <= read <= 11 + 8 + 8  # what lies between key frames, and half a second before


def test_a_video_that_ends_early_loses_its_last_pictures_alone(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "d")
    short = make_dataset(tmp_path / "short", lengths=(21, 10, 11))
    (root / FILM).write_bytes((short / FILM).read_bytes())
    video = open_episode(open_dataset(root), 1, CAMERAS[0])
    with closing(iter(video)) as frames:
        seen = []
        for _, read in frames:
            try:
                seen.append(float(read().mean()))
            except FrameError:
                seen.append(-1.0)
    assert seen[:10] == pytest.approx([brightness(1, k) for k in range(10)], abs=1.6)
    assert seen[10:] == [-1.0] * 6
    (place,) = video.damaged
    assert place.frames == 6 and "no frame within half a period" in place.reason


def test_pictures_in_the_rows_are_read(tmp_path: Path) -> None:
    import cv2

    root = make_dataset(tmp_path / "d")
    for number, file in enumerate(sorted((root / "data/chunk-000").iterdir())):
        table = pq.read_table(file)
        cells = []
        for episode, frame in zip(
            table["episode_index"].to_pylist(), table["frame_index"].to_pylist(), strict=True
        ):
            picture = np.full((8, 8, 3), brightness(episode, frame), np.uint8)
            cells.append({"bytes": cv2.imencode(".png", picture)[1].tobytes(), "path": None})
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        pq.write_table(table.append_column("observation.image", pa.array(cells, kind)), file)
        assert number < 2
    info = json.loads((root / "meta/info.json").read_text())
    info["features"]["observation.image"] = {"dtype": "image", "shape": [8, 8, 3]}
    edit_info(root, features=info["features"])
    dataset = open_dataset(root)
    assert dataset.cameras[0] == "observation.image"
    for number in (0, 1, 2):
        _, values = pictures(open_episode(dataset, number, "observation.image"))
        assert values == [brightness(number, frame) for frame in range(LENGTHS[number])]


def test_stamps_are_even_where_float32_meant_that_and_else_their_own() -> None:
    meant = np.arange(400, dtype=np.float32) / np.float32(30)
    assert stamps_of(meant, 30.0) == [round(k * 1e9 / 30) for k in range(400)]
    uneven = np.array([0.0, 0.1, 0.25], np.float64)
    assert stamps_of(uneven, 10.0) == [0, 100_000_000, 250_000_000]


def test_the_fingerprint_is_of_the_order_and_content_of_episodes(tmp_path: Path) -> None:
    first = open_dataset(make_dataset(tmp_path / "a"))
    older = open_dataset(make_dataset(tmp_path / "b", "v2.1"))
    assert first.fingerprint == older.fingerprint, "it is of the rows, not of the files they lie in"
    other = make_dataset(tmp_path / "c")
    moved = pq.read_table(other / ROWS)["action"].to_pylist()
    edit_rows(other / ROWS, "action", moved[::-1])
    assert open_dataset(other).fingerprint != first.fingerprint


def test_cameras_are_chosen_by_their_name_or_its_end(tmp_path: Path) -> None:
    dataset = open_dataset(make_dataset(tmp_path / "d"))
    assert dataset.camera(None) == CAMERAS[0]
    assert dataset.camera("wrist") == dataset.camera("observation.images.wrist") == CAMERAS[1]
    with pytest.raises(DatasetError, match=r"no camera called left: there are observation.images.front, obs"):
        dataset.camera("left")


def remove(name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).unlink()


def cut(name: str) -> Callable[[Path], None]:
    def do(root: Path) -> None:
        content = (root / name).read_bytes()
        (root / name).write_bytes(content[: len(content) // 2])

    return do


def without_feature(root: Path) -> None:
    features = json.loads((root / "meta/info.json").read_text())["features"]
    features["time"] = features.pop("timestamp")
    edit_info(root, features=features)


def renamed_column(root: Path) -> None:
    table = pq.read_table(root / ROWS)
    names = ["time" if name == "timestamp" else name for name in table.column_names]
    pq.write_table(table.rename_columns(names), root / ROWS)


def pointer(root: Path) -> None:
    (root / ROWS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def backwards(root: Path) -> None:
    times = pq.read_table(root / ROWS)["timestamp"].to_pylist()
    times[5] = times[4]
    edit_rows(root / ROWS, "timestamp", times)


def renumbered(root: Path) -> None:
    edit_rows(root / ROWS, "index", [k + 5 for k in range(37)])


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (remove("meta/info.json"), "is no LeRobot dataset"),
        (cut("meta/info.json"), "info.json cannot be read"),
        (
            lambda root: edit_info(root, codebase_version="v4.0"),
            r"codebase_version 'v4.0': v3.0 and v2.1 can",
        ),
        (lambda root: edit_info(root, codebase_version="\x1b[2Jv3.0"), "codebase_version '.x1b"),
        (lambda root: edit_info(root, fps=0), "has fps 0: it must be above 0"),
        (
            lambda root: edit_info(root, total_episodes=4),
            "states total_episodes 4, and .* 3: files are missing",
        ),
        (
            lambda root: edit_info(root, total_frames=49),
            "states total_frames 49, and the rows in data are 48",
        ),
        (lambda root: edit_info(root, data_path="../{chunk_index}.parquet"), "leads out of the dataset"),
        (lambda root: edit_info(root, data_path="{chunk_index.__class__}"), "is no path"),
        (lambda root: edit_info(root, data_path=3), "data_path 3 is no path"),
        (without_feature, "has no feature timestamp, but .* time"),
        (renamed_column, "has no column timestamp, but .* time"),
        (lambda root: edit_info(root, features={}), "has no feature index"),
        (remove(ROWS), "file-000.parquet cannot be read"),
        (cut(ROWS), "cannot be read as parquet"),
        (pointer, "is a pointer of git LFS"),
        (cut("meta/episodes/chunk-000/file-000.parquet"), "cannot be read as parquet"),
        (remove("meta/episodes/chunk-000/file-000.parquet"), "holds no list of episodes"),
        (remove("meta/tasks.parquet"), "tasks.parquet cannot be read"),
        (renumbered, "row 0 has index 5, and 0 is expected there: episodes were renumbered"),
        (backwards, "timestamps of episode 0 do not increase at its frame 5"),
    ],
)
def test_what_is_wrong_with_a_dataset_is_named(
    break_it: Callable[[Path], None], said: str, tmp_path: Path
) -> None:
    root = make_dataset(tmp_path / "d")
    break_it(root)
    with pytest.raises(DatasetError, match=said) as caught:
        open_dataset(root)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["meta/episodes.jsonl", "meta/tasks.jsonl"])
def test_a_damaged_list_of_format_v21_is_named_with_its_line(name: str, tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "d", "v2.1")
    (root / name).write_text((root / name).read_text() + '{"episode_index": \n')
    with pytest.raises(DatasetError, match=rf"{name.split('/')[1]}, line \d is damaged"):
        open_dataset(root)


def test_missing_videos_are_named_before_the_work(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "d")
    (root / FILM).unlink()
    dataset = open_dataset(root)
    check_videos(dataset, CAMERAS[0], [2])
    with pytest.raises(DatasetError, match=r"there is no .*file-000.mp4 \(episode 0\); download the videos"):
        check_videos(dataset, CAMERAS[0], range(3))


def test_a_damaged_video_is_named(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "d")
    (root / FILM).write_bytes(b"no video")
    with pytest.raises(VideoError, match=r"episode 1: videos/.*file-000.mp4 is not a video"):
        open_episode(open_dataset(root), 1, CAMERAS[0])


def test_without_pyarrow_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_dataset(tmp_path / "d")
    importer = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError("No module named 'pyarrow'")
        return importer(name, *rest, **more)

    for name in [name for name in sys.modules if name.split(".")[0] == "pyarrow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"pip install 'topreward_ros\[lerobot\]'"):
        open_dataset(root)


def test_a_video_with_several_episodes_is_refused_and_an_episode_of_it_taken(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "d")
    film = str(root / FILM)
    assert episodes_in_video(open_dataset(root), film) == (CAMERAS[0], [0, 1])
    with pytest.raises(DatasetError, match=r"holds the 2 episodes 0 to 1 of .* choose one by --episode K"):
        recording_at(film, "x")
    with pytest.raises(DatasetError, match="and not episode 2"):
        recording_at(film, "x", episode=2)
    with pytest.raises(DatasetError, match="with 3 episodes, counted from 0: choose one by --episode"):
        recording_at(str(root), "x")
    with pytest.raises(DatasetError, match="has no episode -1"):
        recording_at(str(root), "x", episode=-1)
    chosen = recording_at(film, "", episode=1)
    assert chosen.instruction == "make it white"
    _, values = pictures(chosen.open())
    assert values == pytest.approx([brightness(1, frame) for frame in range(16)], abs=1.6)
    alone = recording_at(film.replace("file-000", "file-001"), "x")
    assert len(pictures(alone.open())[0]) == 11 and alone.instruction == "x"


def test_a_video_outside_of_a_dataset_has_no_episodes(tmp_path: Path) -> None:
    film = tmp_path / "run.mp4"
    film.write_bytes((make_dataset(tmp_path / "d") / FILM).read_bytes())
    assert len(pictures(recording_at(str(film), "x").open())[0]) == 37
    with pytest.raises(UserError, match="leave --episode and --camera out"):
        recording_at(str(film), "x", episode=0)
    older = make_dataset(tmp_path / "older", "v2.1")
    film = older / f"videos/chunk-000/{CAMERAS[0]}/episode_000001.mp4"
    assert len(pictures(recording_at(str(film), "x").open())[0]) == 16
