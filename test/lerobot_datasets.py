"""Small LeRobot datasets of both formats, made with pyarrow and PyAV as LeRobot lays them out.

The brightness of a picture says which frame of which episode it is, see `brightness`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

RATE = 10
LENGTHS = (21, 16, 11)
TASKS = ("make it bright", "make it white", "make it bright")
CAMERAS = ("observation.images.front", "observation.images.wrist")
_ROW_FEATURES = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}


def brightness(episode: int, frame: int, camera: int = 0) -> int:
    """Of a picture, 0 to 255: no two that a camera of a dataset of `LENGTHS` saw have the same."""
    return 16 + 4 * frame + 84 * episode + 2 * camera


def make_dataset(
    root: Path,
    version: str = "v3.0",
    *,
    lengths: Sequence[int] = LENGTHS,
    tasks: Sequence[str] = TASKS,
    cameras: Sequence[str] = CAMERAS,
    codec: str = "libx264",
) -> Path:
    """Make a dataset in the folder ``root``, and return that.

    Of format v3.0, the first two episodes share one file of rows and one video, the others another.
    """
    texts = list(dict.fromkeys(tasks))
    rows = [_rows(number, lengths, texts.index(tasks[number])) for number in range(len(lengths))]
    info: dict[str, Any] = {
        "codebase_version": version,
        "fps": RATE,
        "features": {
            **{
                camera: {"dtype": "video", "shape": [48, 64, 3], "names": ["height", "width", "channels"]}
                for camera in cameras
            },
            "action": {"dtype": "float32", "shape": [2], "names": ["a", "b"]},
            **{name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in _ROW_FEATURES.items()},
        },
        "total_episodes": len(lengths),
        "total_frames": sum(lengths),
        "total_tasks": len(texts),
        "chunks_size": 1000,
        "splits": {"train": f"0:{len(lengths)}"},
    }
    (root / "meta").mkdir(parents=True)
    write = _write_newer if version == "v3.0" else _write_older
    info |= write(root, rows, list(lengths), texts, list(tasks), list(cameras), codec)
    (root / "meta" / "info.json").write_text(json.dumps(info, indent=4))
    return root


def edit_info(root: Path, **changes: object) -> None:
    """Change entries of meta/info.json."""
    path = root / "meta" / "info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_rows(path: Path, name: str, values: Sequence[Any]) -> None:
    """Replace a column of a parquet file."""
    table = pq.read_table(path)
    place = table.column_names.index(name)
    pq.write_table(table.set_column(place, name, pa.array(values, table[name].type)), path)


def _rows(number: int, lengths: Sequence[int], task: int) -> dict[str, Any]:
    length, first = lengths[number], sum(lengths[:number])
    frames = np.arange(length)
    return {
        "action": [[float(number), float(frame)] for frame in frames],
        "timestamp": (frames / RATE).astype(np.float32),
        "frame_index": frames,
        "episode_index": np.full(length, number),
        "index": first + frames,
        "task_index": np.full(length, task),
    }


def _write_rows(path: Path, episodes: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns: dict[str, Any] = {
        "action": pa.array([row for part in episodes for row in part["action"]], pa.list_(pa.float32(), 2))
    }
    for name in _ROW_FEATURES:
        columns[name] = pa.array(np.concatenate([part[name] for part in episodes]))
    described = {"info": {"features": {name: {"_type": "Value"} for name in columns}}}
    table = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps(described)})
    pq.write_table(table, path, row_group_size=16)


def _write_video(path: Path, pictures: Sequence[int], codec: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.gop_size = 8
        for value in pictures:
            frame = av.VideoFrame.from_ndarray(
                np.full((48, 64, 3), min(value, 255), np.uint8), format="rgb24"
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _pictures(number: int, length: int, camera: int) -> list[int]:
    return [brightness(number, frame, camera) for frame in range(length)]


def _write_newer(
    root: Path,
    rows: list[dict[str, Any]],
    lengths: list[int],
    texts: list[str],
    tasks: list[str],
    cameras: list[str],
    codec: str,
) -> dict[str, Any]:
    parts = [list(range(min(2, len(lengths)))), list(range(2, len(lengths)))]
    listed: dict[str, list[Any]] = {}
    for file, numbers in enumerate(filter(None, parts)):
        _write_rows(root / f"data/chunk-000/file-{file:03d}.parquet", [rows[number] for number in numbers])
        for at, camera in enumerate(cameras):
            shown = [value for number in numbers for value in _pictures(number, lengths[number], at)]
            _write_video(root / f"videos/{camera}/chunk-000/file-{file:03d}.mp4", shown, codec)
        start = 0
        for number in numbers:
            entry = {
                "episode_index": number,
                "tasks": [tasks[number]],
                "length": lengths[number],
                "data/chunk_index": 0,
                "data/file_index": file,
                "dataset_from_index": sum(lengths[:number]),
                "dataset_to_index": sum(lengths[: number + 1]),
            }
            for camera in cameras:
                entry |= {
                    f"videos/{camera}/chunk_index": 0,
                    f"videos/{camera}/file_index": file,
                    f"videos/{camera}/from_timestamp": start / RATE,
                    f"videos/{camera}/to_timestamp": (start + lengths[number]) / RATE,
                }
            start += lengths[number]
            for name, value in entry.items():
                listed.setdefault(name, []).append(value)
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table(listed), path)
    named = pa.table({"task_index": list(range(len(texts))), "task": texts})
    kinds = {"task_index": ("int64", "int64"), "task": ("unicode", "object")}
    columns = [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": stored, "metadata": None}
        for name, (kind, stored) in kinds.items()
    ]
    pandas = {"index_columns": ["task"], "column_indexes": [], "columns": columns, "pandas_version": "2.3.0"}
    named = named.replace_schema_metadata({"pandas": json.dumps(pandas)})
    pq.write_table(named, root / "meta" / "tasks.parquet")
    return {
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    }


def _write_older(
    root: Path,
    rows: list[dict[str, Any]],
    lengths: list[int],
    texts: list[str],
    tasks: list[str],
    cameras: list[str],
    codec: str,
) -> dict[str, Any]:
    for number, length in enumerate(lengths):
        _write_rows(root / f"data/chunk-000/episode_{number:06d}.parquet", [rows[number]])
        for at, camera in enumerate(cameras):
            path = root / f"videos/chunk-000/{camera}/episode_{number:06d}.mp4"
            _write_video(path, _pictures(number, length, at), codec)
    episodes = [
        {"episode_index": number, "tasks": [tasks[number]], "length": length}
        for number, length in enumerate(lengths)
    ]
    named = [{"task_index": number, "task": text} for number, text in enumerate(texts)]
    for name, lines in (("episodes", episodes), ("tasks", named)):
        content = "".join(json.dumps(line) + "\n" for line in lines)
        (root / "meta" / f"{name}.jsonl").write_text(content)
    return {
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    }
