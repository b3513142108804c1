"""What the rows of a LeRobot dataset say of success: its column next.success, unless a model wrote it.

A row holds what came of its action, which the frame of the next row shows. Most datasets have no such column,
and say nothing.
"""

from __future__ import annotations

from typing import Any

from topreward_ros.core.errors import UserError
from topreward_ros.offline.annotate_dataset import PROGRESS_FILE, origin_of
from topreward_ros.offline.labels import LABELS, Label
from topreward_ros.offline.lerobot import Dataset
from topreward_ros.offline.parquet_files import columns_in, read_table, shown

SUCCESS = "next.success"
_ADD = f"add {LABELS} with the columns episode,success"


def labels_of_rows(dataset: Dataset) -> tuple[list[Label], list[str]]:
    """A label for each episode, and what to know of them. Raises `ParquetError`."""
    unknown = [
        Label(f"episode {it.number}", dataset.root, None, episode=it.number) for it in dataset.episodes
    ]
    if SUCCESS not in dataset.info["features"]:
        return unknown, [f"{dataset.name} does not say which episodes succeeded: {_ADD}"]
    if _is_ours(dataset):
        note = (
            f"{SUCCESS} of {dataset.name} is what `topreward annotate` made of a model's scores, and no "
            f"truth, so that it is not used: {_ADD}"
        )
        return unknown, [note]
    columns = {file: _flags(dataset, file) for file in dataset.data_files}
    labels = []
    for episode in dataset.episodes:
        flags = columns[episode.data_file][episode.first_row : episode.first_row + episode.length]
        first = next((row for row, flag in enumerate(flags) if flag), None)
        done_s = None
        if first is not None:
            seen = min(first + 1, episode.length - 1)  # the frame that shows what came of the action
            done_s = float(episode.times_s[seen] - episode.times_s[0])
        where = f"{SUCCESS} of episode {episode.number}"
        labels.append(Label(where, dataset.root, first is not None, done_s=done_s, episode=episode.number))
    return labels, []


def _is_ours(dataset: Dataset) -> bool:
    """Whether the dataset is a copy that we made, with columns of our own."""
    try:
        return bool(origin_of(dataset.root / PROGRESS_FILE).get("columns"))
    except UserError:  # there is no such file, or it is not ours
        return False


def _flags(dataset: Dataset, file: str) -> list[bool]:
    path = dataset.root / file
    if SUCCESS not in columns_in(path):
        raise UserError(
            f"{shown(path)} has no column {SUCCESS}, which info.json lists: restore it, or add {LABELS}"
        )
    return [_flag(value) for value in read_table(path, (SUCCESS,))[SUCCESS].to_pylist()]


def _flag(value: Any) -> bool:
    return bool(value[0]) if isinstance(value, list) and value else bool(value)
