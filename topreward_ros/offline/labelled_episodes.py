"""Recorded episodes and what people say of them: the data of calibration, evaluation and the prompts' sweep.

They come from a folder with labels.csv, from lists of files, or from a LeRobot dataset; an episode is a video
file, a folder of images, a bag or a stretch of one, or an episode of a dataset. Each opens as the `Video`
that everything offline scores. What cannot be used is a problem, a sentence that names the file and the mend,
and the other episodes stay. Nothing is scored here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from math import isfinite
from pathlib import Path

from topreward_ros.core.errors import UserError
from topreward_ros.core.instruction import normalized_instruction
from topreward_ros.core.printable import printable
from topreward_ros.core.stages import on_one_line
from topreward_ros.offline.annotation_report import AnnotationSettings
from topreward_ros.offline.bag_layout import METADATA
from topreward_ros.offline.bag_video import FEWEST_IMAGES, open_part, parts_of
from topreward_ros.offline.bags import Bag, looks_like_bag
from topreward_ros.offline.content_hash import hash_of_files
from topreward_ros.offline.dataset_labels import labels_of_rows
from topreward_ros.offline.labels import LABELS, Label, LabelError, read_labels
from topreward_ros.offline.lerobot import (
    Dataset,
    check_videos,
    dataset_of_video,
    episodes_in_video,
    is_dataset,
    open_dataset,
)
from topreward_ros.offline.lerobot_video import open_episode
from topreward_ros.offline.raw_samples import Converter, rosbags_image
from topreward_ros.offline.score_video import Recording
from topreward_ros.offline.video import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Video, VideoError, open_video

_LATE_S = 0.5  # so much later than the last frame an episode may be done by its label: clocks of people
_SHOWN = 3  # files that a sentence names
_LISTED = 10  # problems, where there is nothing else


@dataclass(frozen=True, slots=True)
class LabelledEpisode:
    """One recorded attempt at a task, and what is known of it."""

    name: str  #: path, and the episode where it holds several, fit to be shown
    task: str  #: in natural language, a stage per line
    succeeded: bool | None  #: None: nobody has said
    done_s: float | None  #: when it was done [s] since its first frame, of a success; None: nobody has said
    identity: str  #: hash of its frames' bytes: the same wherever they lie; not of what is said of it
    open: Callable[[], Video]  #: opens it for reading, again and again; raises `VideoError`
    duration_s: float  #: as the recording states it [s]: about; NaN where it does not
    where: str = ""  #: where the label stands
    layout: str = "primary"  #: of the cameras, as the parameter camera_layout
    cameras: tuple[str, ...] = ()  #: topics that are seen, the primary one first; none: it is no bag
    attempt: str = ""  #: as in `Label`

    @property
    def recording(self) -> Recording:
        """As `score_recordings` takes it."""
        return Recording(self.name, self.task, self.open)


@dataclass(frozen=True, slots=True)
class Labelled:
    """The episodes that can be used, and sentences on all else."""

    episodes: tuple[LabelledEpisode, ...]
    problems: tuple[str, ...] = ()  #: what was left out, and what is needed
    notes: tuple[str, ...] = ()  #: what to know of those that stay


@dataclass(frozen=True, slots=True)
class Reading:
    """How recordings are read."""

    bags: AnnotationSettings  #: which cameras and stretches of bags, as in an annotation
    task: str = ""  #: of all that have none of their own label, a stage per line; empty: as recorded
    rate: float = 0.0  #: [Hz] of folders of images, and of videos that state none; 0: not given
    camera: str | None = None  #: of LeRobot datasets, as `Dataset.camera` takes it
    converter: Callable[[], Converter] = rosbags_image  #: what makes RGB of raw images in bags
    on_episode: Callable[[str], None] = field(default=lambda _: None)  #: is told which one is looked at


def labelled_data(path: Path, reading: Reading) -> Labelled:
    """The episodes of a data set: a folder with labels.csv, such a file, or a LeRobot dataset.

    Labels of a LeRobot dataset are those of its own labels.csv, else of its rows (next.success); without
    either, nothing is known of its episodes' success. Raises `UserError` where nothing at all can be read.
    """
    path = Path(os.path.expanduser(path))
    shown = printable(str(path))
    if is_dataset(path):
        file = path / LABELS
        if file.exists():
            read = read_labels(file, of_dataset=True)
            return _resolved(read.labels, reading, read.problems)
        dataset = open_dataset(path)
        labels, notes = labels_of_rows(dataset)
        resolved = _resolved(labels, reading, [], dataset)
        return replace(resolved, notes=(*notes, *resolved.notes))
    if path.is_file() and path.suffix.casefold() == ".csv":
        read = read_labels(path)
        return _resolved(read.labels, reading, read.problems)
    if not path.is_dir():
        kind = "is no folder" if path.exists() else "does not exist"
        raise LabelError(
            f"{shown} {kind}: name a folder with {LABELS} in it, a CSV file of labels, or a LeRobot dataset"
        )
    file = path / LABELS
    if not file.exists():
        raise LabelError(_without_labels(path))
    read = read_labels(file)
    made = _resolved(read.labels, reading, read.problems)
    left = sorted(it.name for it in recordings_in(path) if not any(_lies_in(one, it) for one in read.files))
    if left:
        what = f"has no line in {LABELS} and is" if len(left) == 1 else f"have no line in {LABELS} and are"
        note = f"{shown}: {_names(left)} {what} left out"
        made = replace(made, notes=(*made.notes, note))
    return made


def labelled_files(success: Sequence[Path], failure: Sequence[Path], reading: Reading) -> Labelled:
    """The episodes in files that were named as successes and as failures.

    A folder of recordings stands for each of them, a LeRobot dataset for each of its episodes. Raises
    `UserError` where nothing at all can be read.
    """
    labels = [
        Label(option, file, option == "--success")
        for option, paths in (("--success", success), ("--failure", failure))
        for path in paths
        for file in _each(Path(os.path.expanduser(path)))
    ]
    return _resolved(labels, reading, [])


def joined(*several: Labelled) -> Labelled:
    """All of them as one, in order, with what contradicts itself left out."""
    episodes, problems, notes = _settled([it for one in several for it in one.episodes])
    return Labelled(
        tuple(episodes),
        (*(it for one in several for it in one.problems), *problems),
        (*(it for one in several for it in one.notes), *notes),
    )


def recordings_in(folder: Path) -> list[Path]:
    """Bags, videos, folders of images and LeRobot datasets in ``folder``, by name. Raises `LabelError`."""
    try:
        inside = sorted(it for it in folder.iterdir() if not it.name.startswith("."))
        return [it for it in inside if _is_recording(it)]
    except OSError as error:
        raise LabelError(f"{printable(str(folder))} cannot be read ({error.strerror}): check it") from error


def _is_recording(path: Path) -> bool:
    if path.is_file():
        return path.suffix.lower() in VIDEO_SUFFIXES
    return is_dataset(path) or looks_like_bag(path) or _holds_images(path)


def _holds_images(folder: Path) -> bool:
    return folder.is_dir() and any(it.suffix.lower() in IMAGE_SUFFIXES for it in folder.iterdir())


def _lies_in(file: Path, path: Path) -> bool:
    """Whether ``file`` is ``path`` or inside of it."""
    file, path = Path(os.path.realpath(file)), Path(os.path.realpath(path))  # of a loop of links, too
    return file == path or path in file.parents


def _each(path: Path) -> list[Path]:
    """What a path that was named on the command line stands for."""
    if path.is_dir() and not _is_recording(path):
        return recordings_in(path) or [path]
    return [path]


def _without_labels(folder: Path) -> str:
    inside = [it.name for it in recordings_in(folder)]
    holds = f"it holds {_names(inside)}" if inside else "and it holds no bag, video or folder of images"
    return (
        f"{printable(str(folder))} has no {LABELS}: write one with the columns file,task,success (1 or 0), "
        f"a line per episode; {holds}"
    )


def _names(names: Sequence[str]) -> str:
    """
    >>> _names(["a.mp4", "b.mp4", "c.mp4", "d.mp4"])
    'a.mp4, b.mp4, c.mp4 and 1 more'
    """
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return printable(", ".join(names[:_SHOWN]), 300) + more


# ---- from a label to episodes ---------------------------------------------------------------------------


def _resolved(
    labels: Iterable[Label], reading: Reading, problems: Sequence[str], dataset: Dataset | None = None
) -> Labelled:
    """The episodes that ``labels`` are about. ``dataset``: one that is open already."""
    datasets: dict[Path, Dataset | UserError] = {} if dataset is None else {dataset.root: dataset}
    made: list[LabelledEpisode] = []
    wrong = list(problems)
    for label in labels:
        try:
            for episode in _episodes(label, reading, datasets):
                reading.on_episode(episode.name)
                try:
                    made.append(_checked(replace(episode, attempt=label.attempt)))
                except UserError as error:
                    wrong.append(f"{episode.where}: {error}")
        except (UserError, OSError) as error:
            wrong.append(f"{label.where}: {printable(str(error), 1000)}")
    made, contradictions, notes = _settled(made)
    wrong = list(dict.fromkeys([*wrong, *contradictions]))
    if not made:
        first, *others = wrong
        if not others:
            raise LabelError(first)
        nothing = LabelError(f"no episode can be used; the first problem of {len(wrong)}: {first}")
        nothing.lines = others[:_LISTED]
        raise nothing
    return Labelled(tuple(made), tuple(wrong), tuple(notes))


def _episodes(
    label: Label, reading: Reading, datasets: dict[Path, Dataset | UserError]
) -> Iterable[LabelledEpisode]:
    """The episodes of a label, one after the other. Raises `UserError`, `OSError`."""
    place, shown = label.file, printable(str(label.file))
    if not place.exists():
        raise LabelError(f"there is no file or folder {shown}: correct the path, or remove the label")
    if not (place.is_file() or place.is_dir()):
        raise LabelError(f"{shown} is a pipe or a device, and no recording: remove the label")
    root = place if is_dataset(place) else dataset_of_video(place)
    if root is not None:
        return _of_dataset(label, reading, _opened(root, datasets))
    if place.parent.joinpath(METADATA).is_file() and looks_like_bag(place.parent):
        label = replace(label, file=place.parent)  # a file of a bag's messages
    if looks_like_bag(label.file):
        return [_of_bag(label, reading)]
    if label.episode not in (None, 0):
        raise LabelError(f"{shown} is one episode, and episode {label.episode} is asked for: leave it empty")
    return [_of_video(label, reading)]


def _opened(root: Path, datasets: dict[Path, Dataset | UserError]) -> Dataset:
    """The dataset in ``root``, opened once; what is wrong with it is raised for the first label alone."""
    if root not in datasets:
        try:
            datasets[root] = open_dataset(root)
        except UserError as error:
            datasets[root] = error
    found = datasets[root]
    if isinstance(found, UserError):
        raise found
    return found


def _of_dataset(label: Label, reading: Reading, dataset: Dataset) -> Iterable[LabelledEpisode]:
    if label.file == dataset.root:
        camera, numbers = dataset.camera(reading.camera), list(range(len(dataset.episodes)))
    else:
        camera, numbers = episodes_in_video(dataset, label.file)
    if label.episode is not None:
        dataset.episode(label.episode)
        if label.episode not in numbers:
            raise LabelError(f"{printable(str(label.file))} does not hold episode {label.episode}")
        numbers = [label.episode]
    elif len(numbers) > 1 and (label.done_s is not None or label.attempt):
        what = "a time done_s" if label.done_s is not None else "an attempt"
        raise LabelError(
            f"{printable(str(label.file))} holds {len(numbers)} episodes, and {what} is of one of "
            "them: say which in the column episode"
        )
    return (_of_dataset_episode(label, reading, dataset, number, camera) for number in numbers)


def _of_dataset_episode(
    label: Label, reading: Reading, dataset: Dataset, number: int, camera: str
) -> LabelledEpisode:
    episode = dataset.episodes[number]
    task = label.task or reading.task
    where = label.where
    if not task and len(episode.tasks) == 1:
        task = episode.tasks[0]
    span = episode.videos[camera]
    identity = ""
    try:
        if not task:
            raise LabelError(
                f"episode {number} of {dataset.name} has {len(episode.tasks)} tasks: say which in the column "
                "task, or by --task"
            )
        check_videos(dataset, camera, [number])
        begins = episode.first_row if span.is_column else span.from_s
        identity = hash_of_files([dataset.root / span.file], camera, begins, episode.times_s.tobytes().hex())
        opener: Callable[[], Video] = partial(open_episode, dataset, number, camera)
    except UserError as error:
        opener = partial(_raise, error)
    return LabelledEpisode(
        f"{dataset.name}, episode {number}",
        task,
        label.succeeded,
        label.done_s,
        identity,
        opener,
        float(episode.times_s[-1] - episode.times_s[0]) if episode.length else 0.0,
        where,
    )


def _raise(error: UserError) -> Video:
    raise error


def _of_bag(label: Label, reading: Reading) -> LabelledEpisode:
    given = label.task or reading.task
    shown = printable(str(label.file))
    parts = parts_of(label.file, reading.bags, given)
    if label.episode is None and len(parts) > 1:
        raise LabelError(
            f"{shown} holds {len(parts)} episodes, and one label is of one: say which in the column episode, "
            "counted from 0"
        )
    number = label.episode or 0
    if number >= len(parts):
        raise LabelError(f"{shown} has no episode {number}: it has {len(parts)}, counted from 0")
    part = parts[number]
    name = f"{shown}, episode {number}" if len(parts) > 1 else shown
    topics = [camera.name for camera in part.sources.cameras]
    return LabelledEpisode(
        name,
        given or part.task,
        label.succeeded,
        label.done_s,
        hash_of_files(Bag(label.file).files, topics, part.when),
        partial(open_part, part, reading.converter),
        float("nan"),
        label.where,
        part.sources.layout,
        tuple(topics),
    )


def _of_video(label: Label, reading: Reading) -> LabelledEpisode:
    path = label.file
    files: list[Path] = [path]
    told: list[object] = []
    if path.is_dir():
        files = sorted(it for it in path.iterdir() if it.suffix.lower() in IMAGE_SUFFIXES)
        told = [reading.rate, *(file.name for file in files)]
    return LabelledEpisode(
        printable(str(path)),
        label.task or reading.task,
        label.succeeded,
        label.done_s,
        hash_of_files(files, *told),
        partial(_open_video, path, reading.rate),
        float("nan"),
        label.where,
    )


def _open_video(path: Path, rate: float) -> Video:
    """The video or folder of images; ``rate`` [Hz] is that of one that states none. Raises `VideoError`."""
    if path.is_dir() or not rate:
        return open_video(path, rate)
    try:
        return open_video(path)
    except VideoError:
        return open_video(path, rate)


# ---- checks ---------------------------------------------------------------------------------------------


def _checked(episode: LabelledEpisode) -> LabelledEpisode:
    """``episode`` with its duration, if it can be used. Raises `UserError`."""
    video = episode.open()
    if not episode.task:
        raise LabelError(f"{episode.name} has no task: say it in the column task, or by --task")
    with closing(iter(video)) as frames:
        count = sum(1 for _ in islice(frames, FEWEST_IMAGES))
    if count < FEWEST_IMAGES:
        raise LabelError(
            f"{episode.name} has {count} frame{'s' * (count != 1)}, and an episode needs at least "
            f"{FEWEST_IMAGES}: record it again, or leave it out"
        )
    if not isfinite(episode.duration_s) and video.info.frame_count:
        episode = replace(episode, duration_s=(video.info.frame_count - 1) / video.info.rate)
    if episode.done_s is not None and episode.done_s > episode.duration_s + _LATE_S:
        raise LabelError(
            f"{episode.name} lasts {episode.duration_s:.1f} s, and was done at {episode.done_s:g} s by its "
            "label: give seconds since its first frame"
        )
    return episode


def _settled(
    episodes: Sequence[LabelledEpisode],
) -> tuple[list[LabelledEpisode], list[str], list[str]]:
    """``episodes`` with one spelling per task, without contradictions; problems; and notes."""
    spelt, spellings = _with_one_spelling(episodes)
    made, problems, notes = _without_contradictions(spelt)
    return made, problems, [*spellings, *notes]


def _with_one_spelling(episodes: Sequence[LabelledEpisode]) -> tuple[list[LabelledEpisode], list[str]]:
    """``episodes``, each with the first spelling of its task; a note for each task that had several."""
    spellings: dict[tuple[str, ...], list[str]] = {}
    made = []
    for episode in episodes:
        stages = tuple(map(normalized_instruction, episode.task.split("\n")))
        known = spellings.setdefault(stages, [])
        if episode.task not in known:
            known.append(episode.task)
        made.append(episode if episode.task == known[0] else replace(episode, task=known[0]))
    notes = []
    for first, *others in spellings.values():
        if others:
            quoted = _names([f"'{on_one_line(task)}'" for task in others])
            one = f"'{printable(on_one_line(first), 100)}'"
            notes.append(f"{quoted} and {one} are one task, which is called {one} throughout")
    return made, notes


def _without_contradictions(
    episodes: Sequence[LabelledEpisode],
) -> tuple[list[LabelledEpisode], list[str], list[str]]:
    """Those episodes of which one thing is said; sentences on the others; and on those that are there twice.

    The same frames under several names are one episode, as far as the task is the same. What one label
    leaves open contradicts no other.
    """
    groups: dict[tuple[str, str], list[LabelledEpisode]] = {}
    for episode in episodes:
        groups.setdefault((episode.identity, episode.task), []).append(episode)
    made, problems, notes = [], [], []
    for group in groups.values():
        first, *others = group
        told = _contradicting(group)
        if told is not None:
            problems.append(
                f"{_said(told[0])}, and {_said(told[1])}: the frames and the task are the same, so that the "
                "labels contradict each other; correct one, or remove it"
            )
            continue
        known = next((it for it in group if it.done_s is not None), None)
        known = known or next((it for it in group if it.succeeded is not None), first)
        attempt = next((it.attempt for it in group if it.attempt), "")
        made.append(
            replace(first, succeeded=known.succeeded, done_s=known.done_s, where=known.where, attempt=attempt)
        )
        if others:
            names = _names(list(dict.fromkeys(it.name for it in others)))
            notes.append(f"{first.name} is there {len(group)} times, as {names}, and counts once")
    return made, problems, notes


def _contradicting(group: Sequence[LabelledEpisode]) -> tuple[LabelledEpisode, LabelledEpisode] | None:
    """Two that say different things of the same episode; None: all agree."""
    for name in ("succeeded", "done_s", "attempt"):
        told = [it for it in group if getattr(it, name) not in (None, "")]
        for other in told[1:]:
            if getattr(other, name) != getattr(told[0], name):
                return told[0], other
    return None


def _said(episode: LabelledEpisode) -> str:
    verdict = {True: "a success", False: "a failure", None: "of unknown success"}[episode.succeeded]
    done = "" if episode.done_s is None else f", done at {episode.done_s:g} s"
    attempt = f", of attempt {printable(episode.attempt, 300)}" if episode.attempt else ""
    return f"{episode.where}: {episode.name} is {verdict}{done}{attempt}"
