"""LeRobot datasets of the formats v3.0 and v2.1: their episodes, and where the frames of each one lie.

A dataset is a folder with meta/info.json. Its rows, one per frame, are parquet files; its videos are mp4
files, of which v3.0 puts several episodes into one. Opening reads meta/ and five columns of the rows, and
checks that both agree: an ``index`` that does not count all rows from 0 would join our numbers to the wrong
frames. Nothing is decoded here (`lerobot_video`), and nothing is written (`annotate_dataset`). Other
formats are refused by name.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from itertools import pairwise
from math import isfinite
from pathlib import Path, PurePosixPath
from string import Formatter
from typing import Any

import numpy as np

from topreward_ros.core.errors import UserError
from topreward_ros.core.json_text import JsonError, parsed_json
from topreward_ros.core.printable import printable
from topreward_ros.core.text_files import TextFileError, read_text
from topreward_ros.offline.parquet_files import (
    ParquetError,
    check_is_no_pointer,
    numbers_in,
    read_table,
    shown,
)

INFO = PurePosixPath("meta", "info.json")
FORMATS = ("v3.0", "v2.1")  #: that can be read, the newest first
#: Columns that every dataset has, and whether they hold whole numbers.
ROW_COLUMNS = {"index": int, "episode_index": int, "frame_index": int, "timestamp": float, "task_index": int}
_PLACES = frozenset(
    ("chunk_index", "file_index", "video_key", "episode_chunk", "episode_index")
)  # names that info.json may use in a path
_DTYPES_OF_CAMERAS = ("video", "image")
_DEEPEST_VIDEO = 6  # folders between a dataset and its videos
_SHOWN = 3  # episodes that an error names
_NUMBERS = ("bool", "float", "int", "uint")  # how the dtypes of features that hold numbers begin


class DatasetError(UserError):
    """A LeRobot dataset cannot be read, or does not agree with itself."""


@dataclass(frozen=True, slots=True)
class VideoSpan:
    """Where the pictures of an episode lie: a part of a video, or a column of the rows' file."""

    file: str  #: relative to the dataset
    from_s: float  #: time in the video at which the episode begins [s]
    is_column: bool = False  #: the file is that of the rows, and holds a picture per row


@dataclass(frozen=True, slots=True, eq=False)
class DatasetEpisode:
    """One episode: a stretch of the dataset's rows."""

    number: int  #: ``episode_index``
    first_index: int  #: ``index`` of its first row, in the whole dataset
    first_row: int  #: place of that row in its file
    data_file: str  #: file of its rows, relative to the dataset
    tasks: tuple[str, ...]  #: instructions of its rows, in the order in which they come
    times_s: np.ndarray  #: (T,) float64 [s]: of each row since the episode's start, increasing
    videos: Mapping[str, VideoSpan]  #: by camera

    @property
    def length(self) -> int:
        """Number of rows."""
        return len(self.times_s)


@dataclass(frozen=True, eq=False)
class Dataset:
    """An opened dataset."""

    root: Path
    info: Mapping[str, Any]  #: meta/info.json
    rate: float  #: frames per second [Hz]
    cameras: tuple[str, ...]  #: features that hold pictures, sorted
    episodes: tuple[DatasetEpisode, ...]  #: by ``episode_index``, which counts from 0
    total_frames: int
    data_files: tuple[str, ...] = field(repr=False)  #: files of rows, in order, relative to ``root``

    @property
    def name(self) -> str:
        """The folder as it may be shown."""
        return shown(self.root)

    def episode(self, number: int) -> DatasetEpisode:
        """The episode of this number. Raises `DatasetError`."""
        if not 0 <= number < len(self.episodes):
            raise DatasetError(
                f"{self.name} has no episode {number}: it has {len(self.episodes)}, counted from 0"
            )
        return self.episodes[number]

    def camera(self, name: str | None) -> str:
        """The camera that ``name``, or the end of it, names; None: the first. Raises `DatasetError`."""
        if name is None:
            return self.cameras[0]
        found = [camera for camera in self.cameras if camera == name or camera.endswith(f".{name}")]
        exact = [camera for camera in found if camera == name]
        if len(exact or found) != 1:
            several = "several cameras" if found else "no camera"
            raise DatasetError(
                f"{self.name} has {several} called {printable(name)}: there are "
                f"{printable(', '.join(found or self.cameras), 600)}"
            )
        return (exact or found)[0]

    @cached_property
    def fingerprint(self) -> str:
        """A hash of what the episodes hold, in their order; it changes when episodes are renumbered.

        It goes by the numbers in the rows but for what counts or rewards them, so that columns of the name
        ``next.*``, which an annotation adds, leave it as it is.
        """
        names = [
            name
            for name, feature in sorted(self.info["features"].items())
            if str(feature.get("dtype")).startswith(_NUMBERS)
            and name not in ("index", "episode_index")
            and not name.startswith("next.")
        ]
        digests = {name: sha256(name.encode(errors="surrogateescape")) for name in names}
        for file in self.data_files:
            table = read_table(self.root / file, names)
            for name, digest in digests.items():
                _add_numbers(digest, table[name])
        return sha256(b"".join(digest.digest() for digest in digests.values())).hexdigest()[:32]


def _add_numbers(digest: Any, column: Any) -> None:
    """Add the numbers of a parquet column to a hash, however its rows are cut into chunks."""
    for values in column.chunks:
        while hasattr(values, "flatten") and "list" in str(values.type):
            values = values.flatten()
        digest.update(np.ascontiguousarray(values.to_numpy(zero_copy_only=False)).tobytes())


def is_dataset(path: Path) -> bool:
    """Whether the folder ``path`` is a LeRobot dataset, of whatever format."""
    return (path / INFO).is_file()


def open_dataset(path: str | os.PathLike[str]) -> Dataset:
    """Open the dataset in the folder ``path``. Raises `DatasetError`, and `UserError` without pyarrow."""
    root = Path(os.path.expanduser(path))
    info = _read_info(root)
    version = info.get("codebase_version")
    if version not in FORMATS:
        raise DatasetError(
            f"{shown(root)} has codebase_version {printable(repr(version), 60)}: {' and '.join(FORMATS)} can "
            "be read; convert it with LeRobot's own converter"
        )
    rate = info.get("fps")
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not (isfinite(rate) and rate > 0):
        raise DatasetError(f"{shown(root / INFO)} has fps {printable(repr(rate), 60)}: it must be above 0")
    features = info.get("features")
    if not isinstance(features, dict) or not all(isinstance(feature, dict) for feature in features.values()):
        raise DatasetError(f"{shown(root / INFO)} has no features: restore it")
    missing = [name for name in ROW_COLUMNS if name not in features]
    if missing:
        raise DatasetError(
            f"{shown(root)} has no feature {', '.join(missing)}, but {printable(', '.join(features), 400)}: "
            "every dataset of LeRobot has these; name them so"
        )
    cameras = tuple(
        sorted(name for name, feature in features.items() if feature.get("dtype") in _DTYPES_OF_CAMERAS)
    )
    if not cameras:
        raise DatasetError(
            f"{shown(root)} has no camera, which is a feature of dtype video or image: it has "
            f"{printable(', '.join(features), 400)}"
        )
    try:
        read = _Newer if version == "v3.0" else _Older
        return read(root, info, float(rate), cameras).dataset()
    except (ParquetError, TextFileError) as error:
        raise DatasetError(str(error)) from error


def dataset_of_video(video: str | os.PathLike[str]) -> Path | None:
    """The dataset that the file ``video`` is part of, by where it lies; None where it is in none."""
    path = Path(os.path.abspath(os.path.expanduser(video)))
    above = list(path.parents)[1 : _DEEPEST_VIDEO + 1]
    return next(
        (folder for folder in above if is_dataset(folder) and folder / "videos" in path.parents), None
    )


def episodes_in_video(dataset: Dataset, video: str | os.PathLike[str]) -> tuple[str, list[int]]:
    """The camera of a video of ``dataset``, and the numbers of the episodes in it; none: it is not used."""
    path = os.path.abspath(os.path.expanduser(video))
    for camera in dataset.cameras:
        numbers = [
            episode.number
            for episode in dataset.episodes
            if os.path.abspath(dataset.root / episode.videos[camera].file) == path
        ]
        if numbers:
            return camera, numbers
    return "", []


def _read_info(root: Path) -> dict[str, Any]:
    if not root.is_dir():
        raise DatasetError(f"there is no folder {shown(root)}: name that of a LeRobot dataset")
    if not (root / INFO).is_file():
        raise DatasetError(f"{shown(root)} is no LeRobot dataset: there is no {INFO} in it")
    try:
        info = parsed_json(read_text(root / INFO))
    except (JsonError, TextFileError) as error:
        raise DatasetError(
            f"{shown(root / INFO)} cannot be read ({printable(str(error), 200)}): restore it"
        ) from error
    if not isinstance(info, dict):
        raise DatasetError(f"{shown(root / INFO)} cannot be read: it must hold one object; restore it")
    return info


class _Reader(ABC):
    """What the two formats share: rows, counts and checks."""

    def __init__(self, root: Path, info: dict[str, Any], rate: float, cameras: tuple[str, ...]) -> None:
        self._root, self._info, self._rate, self._cameras = root, info, rate, cameras

    @abstractmethod
    def dataset(self) -> Dataset:
        """The dataset, read and checked. Raises `DatasetError`."""

    def _count(self, name: str, there: int, what: str) -> None:
        """Raise `DatasetError` where info.json states another count than is ``there``."""
        stated = self._info.get(name)
        if stated != there:
            raise DatasetError(
                f"{shown(self._root / INFO)} states {name} {printable(repr(stated), 40)}, and {what} "
                f"{there}: files are missing, or episodes were removed by hand; restore the dataset, or "
                "remove episodes with LeRobot's own tool"
            )

    def _place(self, key: str, **values: object) -> str:
        """The path that info.json gives under ``key``, relative to the dataset. Raises `DatasetError`."""
        template = self._info.get(key)
        where = f"{shown(self._root / INFO)}: {key} {printable(repr(template), 200)}"
        try:
            names = [name for _, name, _, _ in Formatter().parse(template or "") if name is not None]
            if not set(names) <= _PLACES or not isinstance(template, str):
                raise ValueError(f"it may name {', '.join(sorted(_PLACES))} alone")
            place = PurePosixPath(template.format(**values))
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise DatasetError(f"{where} is no path ({printable(str(error), 200)}); restore it") from error
        if place.is_absolute() or ".." in place.parts or not place.parts:
            raise DatasetError(f"{where} leads out of the dataset; restore it")
        return str(place)

    def _is_video(self, camera: str) -> bool:
        return bool(self._info["features"][camera]["dtype"] == "video")

    def _made(
        self,
        tasks: Mapping[int, str],
        data_files: Sequence[str],
        lengths: Sequence[int],
        videos: Sequence[Mapping[str, VideoSpan | None]],
    ) -> Dataset:
        """Read the rows and put the dataset together.

        ``lengths``: of the episodes as meta/ states them; ``videos``: None stands for a column of the rows.
        """
        self._count("total_episodes", len(lengths), "the episodes listed in meta are")
        rows = [self._rows(file) for file in data_files]
        all_rows = {name: np.concatenate([part[name] for part in rows]) for name in ROW_COLUMNS}
        total = len(all_rows["index"])
        self._count("total_frames", total, "the rows in data are")
        if sum(lengths) != total:
            raise DatasetError(
                f"{shown(self._root)}: its episodes have {sum(lengths)} frames by meta, and {total} rows in "
                "data: restore the dataset"
            )
        starts = np.cumsum([0, *lengths])
        self._check(all_rows, starts)
        of_file = np.repeat(np.arange(len(rows)), [len(part["index"]) for part in rows])
        in_file = np.concatenate([np.arange(len(part["index"])) for part in rows])
        episodes = []
        for number, (start, end) in enumerate(pairwise(starts)):
            if of_file[start] != of_file[end - 1]:
                raise DatasetError(
                    f"{shown(self._root)}: episode {number} lies in two files of rows; restore it"
                )
            file = data_files[of_file[start]]
            episodes.append(
                DatasetEpisode(
                    number,
                    int(start),
                    int(in_file[start]),
                    file,
                    self._tasks(tasks, all_rows["task_index"][start:end], number),
                    self._times(all_rows["timestamp"][start:end], number),
                    {
                        camera: span or VideoSpan(file, 0.0, is_column=True)
                        for camera, span in videos[number].items()
                    },
                )
            )
        return Dataset(
            self._root, self._info, self._rate, self._cameras, tuple(episodes), total, tuple(data_files)
        )

    def _rows(self, file: str) -> dict[str, np.ndarray]:
        path = self._root / file
        table = read_table(path, tuple(ROW_COLUMNS))
        return {name: numbers_in(table, name, kind, path) for name, kind in ROW_COLUMNS.items()}

    def _check(self, rows: Mapping[str, np.ndarray], starts: np.ndarray) -> None:
        """Raise `DatasetError` where the rows do not count themselves as meta/ does."""
        lengths = np.diff(starts)
        expected = {
            "index": np.arange(starts[-1]),
            "episode_index": np.repeat(np.arange(len(lengths)), lengths),
            "frame_index": np.arange(starts[-1]) - np.repeat(starts[:-1], lengths),
        }
        for name, numbers in expected.items():
            wrong = np.flatnonzero(rows[name] != numbers)
            if wrong.size:
                row = int(wrong[0])
                raise DatasetError(
                    f"{shown(self._root)}: row {row} has {name} {int(rows[name][row])}, and "
                    f"{int(numbers[row])} is expected there: episodes were renumbered, or files of rows are "
                    "missing; restore it, or let LeRobot's own tools change datasets"
                )

    def _times(self, times_s: np.ndarray, number: int) -> np.ndarray:
        wrong = ~np.isfinite(times_s)
        wrong[1:] |= np.diff(times_s) <= 0
        if wrong.any():
            raise DatasetError(
                f"{shown(self._root)}: the timestamps of episode {number} do not increase at its frame "
                f"{int(np.flatnonzero(wrong)[0])}; restore it"
            )
        return times_s

    def _tasks(self, tasks: Mapping[int, str], indices: np.ndarray, number: int) -> tuple[str, ...]:
        order = list(dict.fromkeys(indices.tolist()))
        unknown = [index for index in order if index not in tasks]
        if unknown:
            raise DatasetError(
                f"{shown(self._root)}: episode {number} has task_index {unknown[0]}, which meta/tasks does "
                "not list; restore it"
            )
        return tuple(tasks[index] for index in order)


class _Newer(_Reader):
    """Format v3.0: many episodes per file, listed in meta/episodes."""

    def dataset(self) -> Dataset:
        listed = self._listed()
        order = np.argsort(listed["episode_index"], kind="stable")
        listed = {name: values[order] for name, values in listed.items()}
        numbers = listed["episode_index"]
        if (numbers != np.arange(len(numbers))).any():
            raise DatasetError(
                f"{shown(self._root)}: meta/episodes does not list the episodes from 0 on, each once; "
                "restore it"
            )
        files = [
            self._place("data_path", chunk_index=int(chunk), file_index=int(file))
            for chunk, file in zip(listed["data/chunk_index"], listed["data/file_index"], strict=True)
        ]
        videos: list[dict[str, VideoSpan | None]] = []
        for number in range(len(numbers)):
            videos.append({camera: self._span(listed, number, camera) for camera in self._cameras})
        tasks_file = self._root / "meta" / "tasks.parquet"
        return self._made(
            _tasks_in(tasks_file),
            list(dict.fromkeys(files)),
            [int(length) for length in listed["length"]],
            videos,
        )

    def _listed(self) -> dict[str, np.ndarray]:
        kinds = {"episode_index": int, "length": int, "data/chunk_index": int, "data/file_index": int}
        for camera in filter(self._is_video, self._cameras):
            kinds |= {f"videos/{camera}/chunk_index": int, f"videos/{camera}/file_index": int}
            kinds |= {f"videos/{camera}/from_timestamp": float}  # type: ignore[dict-item]
        folder = self._root / "meta" / "episodes"
        paths = sorted(folder.glob("chunk-*/file-*.parquet"))
        if not paths:
            raise DatasetError(f"{shown(folder)} holds no list of episodes; restore it")
        parts = []
        for path in paths:
            table = read_table(path, tuple(kinds))
            parts.append({name: numbers_in(table, name, kind, path) for name, kind in kinds.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in kinds}

    def _span(self, listed: Mapping[str, np.ndarray], number: int, camera: str) -> VideoSpan | None:
        if not self._is_video(camera):
            return None
        part = {name: listed[f"videos/{camera}/{name}"][number] for name in ("chunk_index", "file_index")}
        file = self._place(
            "video_path", video_key=camera, **{name: int(value) for name, value in part.items()}
        )
        return VideoSpan(file, float(listed[f"videos/{camera}/from_timestamp"][number]))


class _Older(_Reader):
    """Format v2.1: a file of rows and a video for each episode."""

    def dataset(self) -> Dataset:
        listed = _lines(self._root / "meta" / "episodes.jsonl", ("episode_index", "length"))
        lengths = {line["episode_index"]: line["length"] for line in listed}
        if sorted(lengths) != list(range(len(listed))):
            raise DatasetError(
                f"{shown(self._root)}: meta/episodes.jsonl does not list the episodes from 0 on, each once; "
                "restore it"
            )
        chunk = self._info.get("chunks_size")
        if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1:
            raise DatasetError(
                f"{shown(self._root / INFO)} has chunks_size {printable(repr(chunk), 40)}; restore it"
            )
        tasks = {
            line["task_index"]: line["task"]
            for line in _lines(self._root / "meta" / "tasks.jsonl", ("task_index",), ("task",))
        }
        files, videos = [], []
        for number in range(len(listed)):
            at = {"episode_chunk": number // chunk, "episode_index": number}
            files.append(self._place("data_path", **at))
            videos.append(
                {
                    camera: VideoSpan(self._place("video_path", video_key=camera, **at), 0.0)
                    if self._is_video(camera)
                    else None
                    for camera in self._cameras
                }
            )
        return self._made(tasks, files, [lengths[number] for number in range(len(listed))], videos)


def _tasks_in(path: Path) -> dict[int, str]:
    """The tasks in meta/tasks.parquet, which pandas wrote with the text as its index, by their numbers."""
    table = read_table(path)
    texts = next((name for name in ("task", "__index_level_0__") if name in table.column_names), None)
    if texts is None or "task_index" not in table.column_names:
        raise DatasetError(f"{shown(path)} has no columns task and task_index; restore it")
    numbers = numbers_in(table, "task_index", int, path).tolist()
    return dict(zip(numbers, map(str, table[texts].to_pylist()), strict=True))


def _lines(path: Path, numbers: Iterable[str], texts: Iterable[str] = ()) -> list[dict[str, Any]]:
    """The objects in a file with one per line. Raises `DatasetError` where a field is not of its kind."""
    made = []
    for count, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            content = parsed_json(line)
            good = all(type(content[name]) is int for name in numbers)
            good = good and all(isinstance(content[name], str) for name in texts)
        except (JsonError, KeyError, TypeError):
            good = False
        if not good:
            raise DatasetError(f"{shown(path)}, line {count} is damaged; restore the file")
        made.append(content)
    return made


def check_videos(dataset: Dataset, camera: str, numbers: Iterable[int]) -> None:
    """Raise `DatasetError` where files with the pictures of these episodes are missing."""
    files = {dataset.episodes[number].videos[camera].file: number for number in reversed(list(numbers))}
    missing = sorted((number, file) for file, number in files.items() if not (dataset.root / file).is_file())
    if missing:
        names = ", ".join(f"{printable(file)} (episode {number})" for number, file in missing[:_SHOWN])
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise DatasetError(
            f"{dataset.name}: there is no {names}{more}; download the videos, or choose others by --camera"
        )
    for file in files:
        try:
            check_is_no_pointer(dataset.root / file)
        except ParquetError as error:
            raise DatasetError(str(error)) from error
