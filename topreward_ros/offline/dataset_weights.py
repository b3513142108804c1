"""Weights and values of a dataset's rows, made from a file of progress: ours, or one in LeRobot's schema.

RA-BC's and TOP-AWR's weights (`core.sample_weights`) and Monte-Carlo values (`core.frame_values`) as columns
of one parquet file, joined with the dataset by the absolute ``index``. A file that lies in a dataset is held
against it first: after episodes were deleted, merged or renumbered its rows would belong to other frames.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from topreward_ros.core.frame_values import discounted_values, imputed
from topreward_ros.core.rewards import Imputation, RabcSettings, RewardSettings, RewardStream, RewardType
from topreward_ros.core.sample_weights import RabcWeights, advantage_weights, rabc_weights
from topreward_ros.offline.annotate_dataset import OURS, PROGRESS_FILE, origin_of
from topreward_ros.offline.json_values import json_value
from topreward_ros.offline.lerobot import Dataset, DatasetError, is_dataset, open_dataset
from topreward_ros.offline.parquet_files import columns_in, numbers_in, parquet_bytes, read_table, shown

HEADS = ("sparse", "dense")  #: LeRobot's names of columns of progress, after ``progress_``


@dataclass(frozen=True, slots=True, eq=False)
class ProgressTable:
    """Progress of a dataset's rows, sorted by ``index``."""

    index: np.ndarray  #: (N,) int64, absolute, each once
    episode: np.ndarray  #: (N,) int64
    frame: np.ndarray  #: (N,) int64, from the episode's start
    progress: np.ndarray  #: (N,) float64 in [0, 1] or NaN
    log_probs: np.ndarray  #: (N,) float64 [nat], or NaN
    scored: np.ndarray  #: (N,) bool: rows with a score of their own; all that are known in a file of others

    def episodes(self) -> list[np.ndarray]:
        """Places of the rows of each episode, in order."""
        return [np.flatnonzero(self.episode == number) for number in np.unique(self.episode)]


@dataclass(frozen=True, slots=True)
class ValueSettings:
    """Which Monte-Carlo values to make."""

    reward: RewardSettings  #: of a score
    gamma: float  #: discount per row, in [0, 1]
    impute: Imputation  #: the reward of a row without a score


def find_progress(path: Path) -> Path:
    """The file of progress that ``path`` is, or that lies in the dataset ``path``. Raises `DatasetError`."""
    if path.is_dir():
        if not is_dataset(path) and not (path / PROGRESS_FILE).is_file():
            raise DatasetError(f"{shown(path)} is no LeRobot dataset: there is no meta/info.json in it")
        path = path / PROGRESS_FILE
        if not path.is_file():
            raise DatasetError(
                f"there is no {shown(path)}: make it with `topreward annotate {shown(path.parent)}`, or name "
                "a file of progress"
            )
    if not path.is_file():
        raise DatasetError(f"there is no file {shown(path)}: name a dataset, or a file of progress")
    return path


def read_progress(path: Path, head: str = "sparse") -> ProgressTable:
    """Read a file of progress, and hold it against the dataset in whose folder it lies, if it does.

    ``head``: which progress, of `HEADS`. Raises `DatasetError` and `ParquetError`.
    """
    column = f"progress_{head}"
    there = columns_in(path)
    heads = [name for name in HEADS if f"progress_{name}" in there]
    if heads and head not in heads:
        raise DatasetError(
            f"{shown(path)} has no progress of the head {head}: it has that of {heads[0]} alone; "
            f"give --head {heads[0]} (only LeRobot's SARM writes both)"
        )
    optional = [name for name in ("raw_logprob", "scored") if name in there]
    table = read_table(path, ("index", "episode_index", "frame_index", column, *optional))
    counts = {name: numbers_in(table, name, int, path) for name in ("index", "episode_index", "frame_index")}
    order = np.argsort(counts["index"], kind="stable")
    index, episode, frame = (counts[name][order] for name in ("index", "episode_index", "frame_index"))
    if not len(index):
        raise DatasetError(f"{shown(path)} has no rows")
    if (np.diff(index) == 0).any():
        twice = int(index[1:][np.diff(index) == 0][0])
        raise DatasetError(f"{shown(path)} has the index {twice} twice: make it anew")
    progress = _with_nan(table, column, path)[order]
    outside = progress[(progress < 0) | (progress > 1)]
    if outside.size:
        raise DatasetError(
            f"{shown(path)} has the progress {float(outside[0]):g}: it must be from 0 to 1, or NaN"
        )
    log_probs = (
        _with_nan(table, "raw_logprob", path)[order]
        if "raw_logprob" in optional
        else np.full(len(index), np.nan)
    )
    scored = (
        np.asarray(table["scored"].to_pylist(), bool)[order]
        if "scored" in optional
        else np.isfinite(progress)
    )
    made = ProgressTable(index, episode, frame, progress, log_probs, scored)
    if is_dataset(path.parent):
        check_belongs(path, made, open_dataset(path.parent))
    return made


def _with_nan(table: object, name: str, path: Path) -> np.ndarray:
    """A column of numbers, with NaN for null."""
    column = table[name]  # type: ignore[index]
    if column.null_count:
        column = column.fill_null(float("nan"))
        table = table.set_column(table.column_names.index(name), name, column)  # type: ignore[attr-defined]
    return np.asarray(numbers_in(table, name, float, path))


def check_belongs(path: Path, progress: ProgressTable, dataset: Dataset) -> None:
    """Raise `DatasetError` where a file of progress is not of the episodes that ``dataset`` has now."""
    lengths = [episode.length for episode in dataset.episodes]
    episodes = np.repeat(np.arange(len(lengths)), lengths)
    starts = np.repeat(np.cumsum([0, *lengths])[:-1], lengths)
    rows = progress.index
    fits = not rows.size or bool(rows[0] >= 0 and rows[-1] < dataset.total_frames)
    fits = fits and bool((progress.episode == episodes[rows]).all())
    fits = fits and bool((progress.frame == rows - starts[rows]).all())
    before = origin_of(path).get("dataset", dataset.fingerprint)
    if not fits or before != dataset.fingerprint:
        raise DatasetError(
            f"{shown(path)} belongs to other episodes than {dataset.name} has now: they were renumbered, "
            f"removed or changed since; make it anew with `topreward annotate {dataset.name} --overwrite`"
        )


def dense_rewards(progress: ProgressTable, settings: RewardSettings) -> np.ndarray:
    """The reward of each row that has a score, as the live monitor gives it: (N,), NaN elsewhere."""
    made = np.full(len(progress.index), np.nan)
    for rows in progress.episodes():
        stream = RewardStream(settings)
        for row in rows[progress.scored[rows]]:
            made[row] = stream.step(float(progress.log_probs[row]), float(progress.progress[row]))
    return made


def weight_columns(
    progress: ProgressTable,
    rabc: RabcSettings,
    reward: RewardSettings,
    values: ValueSettings | None = None,
) -> tuple[dict[str, np.ndarray], RabcWeights]:
    """The columns of `WEIGHTS_FILE`, one row per row of ``progress``, and RA-BC's statistics.

    ``index``, ``episode_index``, ``frame_index``; ``rabc_weight`` in [0, 1], and ``rabc_weight_normalised``
    with a mean of 1 over all rows, as one batch of them has it in LeRobot; ``awr_weight`` (TOPReward eq. 3,
    with tau and delta_max of ``reward``); with ``values``: ``reward`` and ``value`` (float32).
    """
    weights = rabc_weights(progress.index, progress.episode, progress.progress, rabc)
    awr = np.empty(len(progress.index), np.float32)
    for rows in progress.episodes():
        awr[rows] = advantage_weights(
            progress.progress[rows], progress.scored[rows], reward.advantage_tau, reward.advantage_max
        )
    columns = {
        "index": progress.index,
        "episode_index": progress.episode,
        "frame_index": progress.frame,
        "rabc_weight": weights.weights,
        "rabc_weight_normalised": weights.normalised(rabc.epsilon),
        "awr_weight": awr,
    }
    if values is not None:
        columns |= value_columns(progress, values)
    return columns, weights


def value_columns(progress: ProgressTable, settings: ValueSettings) -> dict[str, np.ndarray]:
    """``reward`` of each row, filled in where it has no score, and its Monte-Carlo ``value``: (N,) float32.

    Both are NaN in an episode of which no reward is known.
    """
    if settings.reward.type is RewardType.LOG_PROB and not np.isfinite(progress.log_probs).any():
        raise DatasetError(
            "this file of progress holds no raw_logprob, so that there is no reward log_prob: choose another"
        )
    known = dense_rewards(progress, settings.reward)
    rewards, values = np.empty(len(known)), np.empty(len(known))
    for rows in progress.episodes():
        scored = np.flatnonzero(progress.scored[rows])
        rewards[rows] = imputed(known[rows][scored].tolist(), scored.tolist(), len(rows), settings.impute)
        values[rows] = discounted_values(rewards[rows], settings.gamma)
    return {"reward": rewards.astype(np.float32), "value": values.astype(np.float32)}


def weights_file(
    columns: dict[str, np.ndarray], rabc: RabcSettings, reward: RewardSettings, values: ValueSettings | None
) -> bytes:
    """The content of `WEIGHTS_FILE`, with how it was made in its schema's metadata."""
    about = {
        "format": "topreward_weights/1",
        "rabc": asdict(rabc),
        "awr": {"tau": reward.advantage_tau, "delta_max": reward.advantage_max},
        "values": None if values is None else asdict(values),
    }
    return parquet_bytes(columns, {OURS: json.dumps(json_value(about))})
