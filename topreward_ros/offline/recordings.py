"""What a user names to be scored: a video, a folder of images, or an episode of a LeRobot dataset.

A video that lies in a dataset of format v3.0 mostly holds several episodes. Scored as one it would give a
curve that means nothing, so that it is refused unless one of them is chosen.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from topreward_ros.core.errors import UserError
from topreward_ros.offline.lerobot import (
    Dataset,
    DatasetError,
    check_videos,
    dataset_of_video,
    episodes_in_video,
    is_dataset,
    open_dataset,
)
from topreward_ros.offline.lerobot_video import open_episode
from topreward_ros.offline.parquet_files import shown
from topreward_ros.offline.score_video import Recording
from topreward_ros.offline.video import open_video


def recording_at(
    path: str, task: str, *, rate: float = 0.0, episode: int | None = None, camera: str | None = None
) -> Recording:
    """The recording that ``path`` names, or ``episode`` of the dataset at or around it.

    ``task``: the instruction; empty: that of the dataset. ``rate`` [Hz] as in `open_video`. ``camera`` as in
    `Dataset.camera`; the path of a video chooses its own. Raises `UserError`.
    """
    place = Path(os.path.expanduser(path))
    root = (place if is_dataset(place) else dataset_of_video(place)) if path else None
    if root is None or (root != place and episode is None and camera is None and _is_alone(place)):
        if episode is not None or camera is not None:
            raise UserError(
                f"{shown(place)} is no LeRobot dataset, and lies in none: leave --episode and --camera out"
            )
        return Recording(path, task, partial(open_video, path, rate))
    try:
        dataset = open_dataset(root)
    except DatasetError as error:
        if root == place:
            raise
        raise DatasetError(
            f"{shown(place)} lies in a LeRobot dataset, whose videos may hold several episodes each, and "
            f"whether it does cannot be told: {error}"
        ) from error
    if root != place:
        camera, there = _chosen(dataset, place, camera)
        if episode is None and len(there) == 1:
            return Recording(path, task, partial(open_video, path, rate))
        if episode is None or episode not in there:
            wrong = "" if episode is None else f", and not episode {episode}"
            raise DatasetError(
                f"{shown(place)} holds {_listed(there)} of the LeRobot dataset {dataset.name}{wrong}: choose "
                f"one by --episode K, or score all by `topreward annotate {dataset.name}`"
            )
    if episode is None:
        raise DatasetError(
            f"{dataset.name} is a LeRobot dataset with {len(dataset.episodes)} episodes, counted from 0: "
            f"choose one by --episode K, or score all by `topreward annotate {dataset.name}`"
        )
    return _episode(dataset, task, episode, dataset.camera(camera), rate)


def _episode(dataset: Dataset, task: str, number: int, camera: str, rate: float) -> Recording:
    episode = dataset.episode(number)
    check_videos(dataset, camera, [number])
    if rate:
        raise DatasetError(
            f"--rate goes with videos; the dataset {dataset.name} says when its frames were taken"
        )
    if not task and len(episode.tasks) > 1:
        raise DatasetError(f"episode {number} of {dataset.name} has several tasks: give --task")
    return Recording(
        f"{dataset.root}, episode {number}",
        task or episode.tasks[0],
        partial(open_episode, dataset, number, camera),
    )


def _chosen(dataset: Dataset, video: Path, camera: str | None) -> tuple[str, list[int]]:
    """Camera and episodes of a video in ``dataset``. Raises `DatasetError`."""
    found, numbers = episodes_in_video(dataset, video)
    if not numbers:
        raise DatasetError(
            f"{shown(video)} lies in the LeRobot dataset {dataset.name}, which has no episode in it: name "
            "the dataset, and choose an episode by --episode K"
        )
    if camera is not None and dataset.camera(camera) != found:
        raise DatasetError(
            f"{shown(video)} is of the camera {found}, and not of {camera}: leave --camera out"
        )
    return found, numbers


def _is_alone(video: Path) -> bool:
    """Whether a video of a dataset has the name that format v2.1 gives to one of a single episode."""
    return video.stem.startswith("episode_")


def _listed(numbers: list[int]) -> str:
    """
    >>> _listed([3, 4, 5]), _listed([7])
    ('the 3 episodes 3 to 5', 'episode 7')
    """
    if len(numbers) == 1:
        return f"episode {numbers[0]}"
    return f"the {len(numbers)} episodes {numbers[0]} to {numbers[-1]}"
