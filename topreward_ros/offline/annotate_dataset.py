"""A LeRobot dataset annotated: every episode scored as the live monitor would, and the scores as files.

Episodes go through the same state machine as live (`score_video.score_recordings`), with the stamps of their
rows. What comes of it is `topreward_progress.parquet` in the dataset's folder, a side file that LeRobot's
training reads; or, on request, a copy of the dataset in which the rows carry reward, success and done. The
source's own rows and metadata are never changed. The scores of each episode are kept in a hidden folder until
the output is whole, so that a run that was killed goes on where it was.

Progress is causal: a row has that of the newest score at or before it, never a value between two scores, as
the later one was not known then. It is NaN before the first score, where a score means no progress (the start
already looks finished), where an episode could not be scored, and after its end. Weights and values are made
from that file elsewhere (`dataset_weights`).
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import sha256
from io import BytesIO
from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np

from topreward_ros.core.calibration.mapping import calibrations_digest
from topreward_ros.core.calibration.task import NO_CALIBRATIONS
from topreward_ros.core.errors import UserError
from topreward_ros.core.events import EventType
from topreward_ros.core.frame_values import held, imputed
from topreward_ros.core.frames import NS_PER_S
from topreward_ros.core.instruction import clean_task
from topreward_ros.core.json_text import JsonError, parsed_json
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.core.output_files import TEMPORARY, copy_into, kept_folder, write_file, written_folder
from topreward_ros.core.printable import printable
from topreward_ros.core.rewards import Imputation
from topreward_ros.core.stages import on_one_line
from topreward_ros.offline.calibration_file import PRIMARY, check_before_loading, check_setup, setup_of
from topreward_ros.offline.job_processes import OnNote, OnShare, Work
from topreward_ros.offline.json_values import json_value
from topreward_ros.offline.kept_json import kept_text, read_kept, scored_again
from topreward_ros.offline.lerobot import INFO, Dataset, DatasetError, check_videos, open_dataset
from topreward_ros.offline.lerobot_video import open_episode, stamps_of
from topreward_ros.offline.parquet_files import arrow, columns_in, parquet_bytes, read_table
from topreward_ros.offline.score_video import Curve, Outcome, Recording, score_recordings
from topreward_ros.offline.workers import HERE, Workers
from topreward_ros.scoring.base import RANDOM_WEIGHTS, PrefixScorer, ScorerInfo, ScorerSettings
from topreward_ros.scoring.checkpoint.vocabulary import task_warnings
from topreward_ros.scoring.question.templates import file_digest
from topreward_ros.scoring.registry import ModelSettings, load_scorer

_log = logging.getLogger(__name__)

PROGRESS_FILE = "topreward_progress.parquet"  #: in the dataset's folder, where LeRobot's own writer puts it
WEIGHTS_FILE = "topreward_weights.parquet"  #: what `dataset_weights` makes of it, beside it
OURS = "topreward_ros"  #: key of the file's schema metadata under which `Origin` stands, as JSON
_KEY = "key"  # the file in a folder of kept scores that says what they were made of
_SHOWN_WARNINGS = 3  # of tasks that the model does not know
_SHOWN_EPISODES = 5  # that could not be scored, and as many that are damaged
_WORK_FORMAT = "topreward_dataset_work/1"  # raise the number when what is kept of an episode changes
#: Columns that a copy of the dataset gets, with the entries of info.json that LeRobot demands for them.
COLUMNS: Mapping[str, Mapping[str, Any]] = {
    "next.reward": {"dtype": "float32", "shape": [1], "names": None},
    "next.success": {"dtype": "bool", "shape": [1], "names": None},
    "next.done": {"dtype": "bool", "shape": [1], "names": None},
}


@dataclass(frozen=True, slots=True)
class EpisodeScores:
    """What scoring an episode gave, by its rows from 0."""

    rows: tuple[int, ...]  #: that were scored
    log_probs: tuple[float, ...]  #: r of each [nat]
    progress: tuple[float, ...]  #: of each, [0, 1] or NaN
    rewards: tuple[float, ...]  #: of each, of the settings' type, or NaN
    end: int  #: rows from here on were not watched any more, as the episode had ended
    success_row: int = -1  #: the newest row when SUCCESS came; -1: it did not
    error: str = ""  #: why there are no scores, or what of the pictures could not be read


@dataclass(frozen=True)
class AnnotationSettings(ModelSettings):
    """How a dataset is to be scored."""

    model: str  #: as `load_scorer` takes it
    monitor: MonitorSettings
    scorer: ScorerSettings
    camera: str  #: feature that holds the pictures
    task: str = ""  #: the task of all episodes, a stage per line; empty: each has that of the dataset
    workers: Workers = HERE


@dataclass(frozen=True, slots=True)
class Annotation:
    """What `annotate` did."""

    scores: tuple[EpisodeScores, ...]  #: by episode
    resumed: int  #: episodes whose scores an earlier run had left


def tasks_of(dataset: Dataset, task: str) -> list[str]:
    """The task of each episode, a stage per line; ``task`` for all where it is not empty.

    Raises `DatasetError`.
    """
    if task:
        return [task] * len(dataset.episodes)
    made = []
    for episode in dataset.episodes:
        cleaned = [clean_task(text, f"the task of episode {episode.number}") for text in episode.tasks]
        if len(cleaned) > 1:
            names = printable(" and ".join(repr(text) for text in cleaned), 300)
            raise DatasetError(
                f"{dataset.name}: the rows of episode {episode.number} have several tasks, {names}, and "
                "progress is that of one: give --task, or split the episode"
            )
        if not cleaned[0]:
            raise DatasetError(f"{dataset.name}: episode {episode.number} has an empty task: give --task")
        made.append(cleaned[0])
    return made


def warnings_on(dataset: Dataset, settings: AnnotationSettings, tasks: Sequence[str]) -> list[str]:
    """What the user should know before the work, a sentence each. Raises `ScorerError`."""
    made = []
    if len(dataset.cameras) > 1:
        made.append(
            f"{dataset.name} has {len(dataset.cameras)} cameras, "
            f"{printable(', '.join(dataset.cameras), 400)}: {printable(settings.camera)} is looked at, "
            "--camera chooses another"
        )
    if not settings.task and len(tasks) > 1 and len(set(tasks)) == 1:
        made.append(
            f"one task serves all {len(tasks)} episodes of {dataset.name}: "
            f"{printable(repr(on_one_line(tasks[0])), 200)}; where they differ in what the robot was told to "
            "do, progress is measured against the wrong task"
        )
    about = settings.about
    if about.random_weights:
        made.append(f"model {printable(settings.model)} has {RANDOM_WEIGHTS}: the numbers mean nothing")
    info = ScorerInfo(settings.model, "", about.random_weights, "", "", "", 0, about.instructions)
    warnings = (warning for task in dict.fromkeys(tasks) for warning in task_warnings(task, info, "--model "))
    return made + list(dict.fromkeys(warnings))[:_SHOWN_WARNINGS]


def annotation_key(dataset: Dataset, settings: AnnotationSettings) -> str:
    """A hash of all that the scores depend on: dataset, model, settings. Raises `ScorerError`."""
    scorer = {
        name: value for name, value in asdict(settings.scorer).items() if name not in ("device", "threads")
    }
    monitor = asdict(replace(settings.monitor, calibrations=NO_CALIBRATIONS))
    del monitor["calibrations"]
    content = {
        "format": _WORK_FORMAT,
        "dataset": dataset.fingerprint,
        "camera": settings.camera,
        "tasks": tasks_of(dataset, settings.task),
        "model": [settings.model, settings.about.revision],
        "monitor": monitor,
        "scorer": scorer,
        "prompts": file_digest(settings.scorer.prompts),
    }
    if settings.monitor.calibrations:
        content["calibration"] = calibrations_digest(settings.monitor.calibrations)
    text = json.dumps(json_value(content), sort_keys=True)
    return sha256(text.encode(errors="backslashreplace")).hexdigest()[:32]


def annotate(
    dataset: Dataset,
    settings: AnnotationSettings,
    write: Callable[[tuple[EpisodeScores, ...], str], None],
    work: Path,
    on_episode: Callable[[], None],
    on_note: OnNote,
) -> Annotation:
    """Score the episodes of ``dataset`` and hand the scores, with their `annotation_key`, to ``write``.

    ``work``: a folder, made for this and removed after ``write``, that keeps the scores of a run that is
    killed. ``on_episode`` is called after each episode, ``on_note`` of processes that died. An episode that
    cannot be read has no scores but an error. Raises `UserError`.
    """
    tasks = tasks_of(dataset, settings.task)
    check_videos(dataset, settings.camera, range(len(dataset.episodes)))
    check_before_loading(
        settings.monitor.calibrations, settings.model, settings.monitor, settings.scorer, PRIMARY
    )
    key = annotation_key(dataset, settings)
    with kept_folder(work) as folder:
        done = _kept(folder, key, dataset, on_note)
        resumed = len(done)

        def keep(number: int, scores: EpisodeScores) -> None:
            if not done:
                write_file(folder / _KEY, key)
            done[number] = scores
            if _is_worth_keeping(scores):
                write_file(folder / f"{number}.json", _to_text(_key_of(key, number), scores))
            on_episode()

        for _ in range(resumed):
            on_episode()
        missing = [number for number in range(len(tasks)) if number not in done]
        try:
            if settings.workers.are_needed(len(missing)):
                _score_by_workers(dataset, settings, tasks, missing, keep, on_note)
            elif missing:
                _score_here(dataset, settings, tasks, missing, keep)
            scores = tuple(done[number] for number in range(len(tasks)))
            if not any(one.rows for one in scores):
                raise DatasetError(
                    f"no episode of {dataset.name} could be scored; the first: {scores[0].error}"
                )
            write(scores, key)
            done.clear()
        finally:
            if not any(map(_is_worth_keeping, done.values())):
                shutil.rmtree(folder, ignore_errors=True)
    return Annotation(scores, resumed)


def _score_here(
    dataset: Dataset,
    settings: AnnotationSettings,
    tasks: Sequence[str],
    numbers: Sequence[int],
    keep: Callable[[int, EpisodeScores], None],
) -> None:
    scorer = load_scorer(settings.model, settings.scorer)
    try:
        _score(dataset, settings, scorer, tasks, numbers, keep)
    finally:
        scorer.close()


def _score(
    dataset: Dataset,
    settings: AnnotationSettings,
    scorer: PrefixScorer,
    tasks: Sequence[str],
    numbers: Sequence[int],
    keep: Callable[[int, EpisodeScores], None],
) -> None:
    if difference := check_setup(
        settings.monitor.calibrations, setup_of(scorer.info, settings.monitor, settings.scorer, PRIMARY)
    ):
        _log.warning("%s", difference)
    recordings = [
        Recording(
            f"{dataset.root}, episode {number}",
            tasks[number],
            partial(open_episode, dataset, number, settings.camera),
        )
        for number in numbers
    ]

    def on_outcome(place: int, outcome: Outcome) -> None:
        keep(numbers[place], scores_of(dataset, numbers[place], outcome))

    score_recordings(
        recordings, scorer, settings.monitor, at_once=scorer.episodes_at_once(), on_outcome=on_outcome
    )


def _score_by_workers(
    dataset: Dataset,
    settings: AnnotationSettings,
    tasks: Sequence[str],
    numbers: Sequence[int],
    keep: Callable[[int, EpisodeScores], None],
    on_note: OnNote,
) -> None:
    settings = replace(settings, scorer=settings.workers.scorer(settings.scorer))
    work = Work(
        partial(_Worker, str(dataset.root.resolve()), settings, tuple(tasks)),
        _Worker.score,
        lambda number: f"episode {number} of {dataset.name}",
    )
    done = settings.workers.do(numbers, work, settings.scorer.device, lambda *_: None, on_note)
    with closing(done) as results:
        for place, result in results:
            number = numbers[place]
            length = dataset.episodes[number].length
            keep(number, result if isinstance(result, EpisodeScores) else _nothing(length, str(result)))


class _Worker:
    """What a process of several has: the dataset and a model of its own."""

    def __init__(self, root: str, settings: AnnotationSettings, tasks: tuple[str, ...]) -> None:
        self._dataset = open_dataset(root)
        self._settings, self._tasks = settings, tasks
        self._scorer = load_scorer(settings.model, settings.scorer)

    def score(self, number: int, _: OnShare) -> EpisodeScores:
        made: list[EpisodeScores] = []
        _score(
            self._dataset,
            self._settings,
            self._scorer,
            self._tasks,
            [number],
            lambda _, scores: made.append(scores),
        )
        return made[0]


def scores_of(dataset: Dataset, number: int, outcome: Outcome) -> EpisodeScores:
    """The scores of an episode by its rows."""
    episode = dataset.episodes[number]
    if not isinstance(outcome, Curve):
        return _nothing(episode.length, str(outcome))
    stamps = stamps_of(episode.times_s, dataset.rate)
    times = {event.type: round(event.time_s * NS_PER_S) for event in reversed(outcome.events)}
    success = times.get(EventType.SUCCESS.name)
    end = episode.length
    if outcome.ended_early:
        last_ns = round(outcome.duration_s * NS_PER_S)
        # The frame that broke the episode off shows something else.
        broken_off = EventType.ABORTED.name in times
        end = bisect_left(stamps, last_ns) if broken_off else bisect_right(stamps, last_ns)
    points = outcome.points
    return EpisodeScores(
        rows=tuple(point.video_frames - 1 for point in points),
        log_probs=tuple(point.score.success_log_prob for point in points),
        progress=tuple(point.progress for point in points),
        rewards=tuple(point.reward for point in points),
        end=end,
        success_row=-1 if success is None else bisect_left(stamps, success),
        error="; ".join(str(place) for place in outcome.damaged[:3]),
    )


def _nothing(length: int, error: str) -> EpisodeScores:
    return EpisodeScores((), (), (), (), length, error=error or "no scores")


def _is_worth_keeping(scores: EpisodeScores) -> bool:
    """Whether a later run takes them; an episode that could not be read may be mended until then."""
    return not scores.error


def _key_of(key: str, number: int) -> str:
    return f"{key} {number}"


def _to_text(key: str, scores: EpisodeScores) -> str:
    return kept_text(key, asdict(scores))


def _kept(folder: Path, key: str, dataset: Dataset, on_note: OnNote) -> dict[int, EpisodeScores]:
    """The scores that an earlier run with the same ``key`` left; whatever else lies there is removed."""
    made = {}
    try:
        same = (folder / _KEY).read_text(encoding="utf-8") == key
    except (OSError, ValueError):
        same = False
    damaged = 0
    for path in list(folder.iterdir()):
        scores = None
        if same and path.suffix == ".json" and path.stem.isdecimal():
            try:
                scores = _read_kept(path, _key_of(key, int(path.stem)))
            except ValueError:
                damaged += 1
        if scores is not None and _is_worth_keeping(scores) and int(path.stem) < len(dataset.episodes):
            made[int(path.stem)] = scores
        elif not (same and path.name == _KEY):
            with suppress(OSError):
                path.unlink()
    if damaged:
        on_note(scored_again(damaged, "episode", folder))
    return made


def _read_kept(path: Path, key: str) -> EpisodeScores | None:
    """The scores that were kept. Raises `ValueError`."""
    content = read_kept(path, key)
    if content is None:
        return None
    log_probs, progress, rewards = (
        tuple(it.number_or_nan() for it in content[name].items())
        for name in ("log_probs", "progress", "rewards")
    )
    rows = tuple(it.whole() for it in content["rows"].items())
    end, success_row = content["end"].whole(), content["success_row"].whole(-1)
    return EpisodeScores(rows, log_probs, progress, rewards, end, success_row, content["error"].text())


def progress_columns(dataset: Dataset, scores: Sequence[EpisodeScores]) -> dict[str, np.ndarray]:
    """The columns of `PROGRESS_FILE`, one row per row of the dataset.

    ``index``, ``episode_index``, ``frame_index`` (int64, absolute); ``progress_sparse`` (float32): the last
    known progress, or NaN; ``raw_logprob`` (float32 [nat]): r of the same score; ``scored`` (bool): whether
    the row has a score of its own.
    """
    lengths = [episode.length for episode in dataset.episodes]
    frame = np.concatenate([np.arange(length) for length in lengths]).astype(np.int64)
    scored = np.zeros(len(frame), bool)
    held_columns = {}
    for name in ("progress", "log_probs"):
        parts = []
        for episode, one in zip(dataset.episodes, scores, strict=True):
            values = held(getattr(one, name), one.rows, episode.length)
            values[one.end :] = nan
            parts.append(values)
            scored[episode.first_index + np.array(one.rows, int)] = True
        held_columns[name] = np.concatenate(parts).astype(np.float32)
    return {
        "index": np.arange(len(frame), dtype=np.int64),
        "episode_index": np.repeat(np.arange(len(lengths)), lengths).astype(np.int64),
        "frame_index": frame,
        "progress_sparse": held_columns["progress"],
        "raw_logprob": held_columns["log_probs"],
        "scored": scored,
    }


def progress_file(
    dataset: Dataset,
    settings: AnnotationSettings,
    scores: Sequence[EpisodeScores],
    key: str,
    columns: Imputation | None = None,
) -> bytes:
    """The content of `PROGRESS_FILE`, with LeRobot's metadata in its schema and ours.

    ``columns``: for a copy of the dataset, how the rewards in its rows were imputed; see `is_copy`.
    """
    origin = {
        "format": "topreward_progress/1",
        "key": key,
        "dataset": dataset.fingerprint,
        "camera": settings.camera,
        "model": settings.model,
        "revision": settings.about.revision,
        "monitor": asdict(settings.monitor),
        "columns": columns and columns.value,
        "unscored": sum(not one.rows for one in scores),
        "problems": problems_of(dataset, scores),
    }
    metadata = {
        "vlm_name": settings.model,
        "reward_model_path": settings.model,
        OURS: json.dumps(json_value(origin)),
    }
    return parquet_bytes(
        progress_columns(dataset, scores),
        {name: text.encode(errors="backslashreplace").decode() for name, text in metadata.items()},
    )


def problems_of(dataset: Dataset, scores: Sequence[EpisodeScores]) -> list[str]:
    """A sentence for each of the first episodes that have no scores, or not all; last, how many more."""
    failed = [(number, one) for number, one in enumerate(scores) if not one.rows]
    damaged = [(number, one) for number, one in enumerate(scores) if one.rows and one.error]
    said = [
        f"episode {number} of {dataset.name} {what}: {one.error}"
        for some, what in ((failed, "has no progress (NaN)"), (damaged, "is damaged"))
        for number, one in some[:_SHOWN_EPISODES]
    ]
    if more := len(failed) + len(damaged) - len(said):
        said.append(f"and {more} more episodes of {dataset.name}")
    return said


def origin_of(path: Path) -> dict[str, Any]:
    """What a file of ours says of itself, see `progress_file`; empty for others. Raises `ParquetError`."""
    columns_in(path)
    metadata = arrow().parquet.read_schema(path).metadata or {}
    try:
        content = parsed_json(metadata.get(OURS.encode(), b"{}"))
    except JsonError:
        return {}
    return content if isinstance(content, dict) else {}


def reward_columns(
    dataset: Dataset, scores: Sequence[EpisodeScores], how: Imputation
) -> dict[str, np.ndarray]:
    """The columns `COLUMNS`, one row per row of the dataset.

    Row t holds what came of action t, which the frame of row t + 1 shows: the reward of a score stands one
    row before its frame, and that of the first frame, before which there was no action, is left out. Where
    no reward is known it is 0. ``next.success`` is true from the row before the frame at which SUCCESS came
    on; ``next.done`` in the last row of an episode.
    """
    rewards, success, done = [], [], []
    for episode, one in zip(dataset.episodes, scores, strict=True):
        steps = [(row - 1, reward) for row, reward in zip(one.rows, one.rewards, strict=True) if row > 0]
        dense = imputed([reward for _, reward in steps], [row for row, _ in steps], episode.length, how)
        dense[max(0, one.end - 1) :] *= one.end >= episode.length  # after the end nothing is known
        rewards.append(np.where(np.isfinite(dense), dense, 0.0))
        rows = np.arange(episode.length)
        success.append((rows >= one.success_row - 1) & (one.success_row >= 0))
        done.append(rows == episode.length - 1)
    return {
        "next.reward": np.concatenate(rewards).astype(np.float32),
        "next.success": np.concatenate(success),
        "next.done": np.concatenate(done),
    }


def check_columns(dataset: Dataset) -> None:
    """Raise `DatasetError` where the dataset has some of `COLUMNS` already."""
    there = [name for name in COLUMNS if name in dataset.info["features"]]
    if there:
        raise DatasetError(
            f"{dataset.name} has {', '.join(there)} already: remove them with LeRobot's own tool first, or "
            "leave the columns out"
        )


def write_copy(
    dataset: Dataset,
    target: Path,
    columns: Mapping[str, np.ndarray],
    progress: bytes,
    on_file: Callable[[], None] = lambda: None,
) -> None:
    """Make ``target`` a copy of the dataset with ``columns`` in its rows and `PROGRESS_FILE` beside them.

    It gets its name when it is whole. Raises `OutputFileError` and `ParquetError`.
    """
    check_columns(dataset)
    real, above = Path(os.path.realpath(dataset.root)), Path(os.path.realpath(target)).parents
    if real in above:
        raise DatasetError(f"{printable(str(target))} lies in {dataset.name}: name a folder outside of it")
    first = 0
    with written_folder(target) as folder:
        for file in _other_files(dataset):
            copy_into(dataset.root / file, folder / file)
            on_file()
        for rows in dataset.data_files:
            content, first = _with_columns(dataset.root / rows, columns, first)
            (folder / rows).parent.mkdir(parents=True, exist_ok=True)
            write_file(folder / rows, content)
            on_file()
        features = {**dataset.info["features"], **{name: dict(entry) for name, entry in COLUMNS.items()}}
        info = {**dataset.info, "features": features}
        (folder / INFO).parent.mkdir(parents=True, exist_ok=True)
        write_file(folder / INFO, json.dumps(info, indent=4, ensure_ascii=True) + "\n")
        write_file(folder / PROGRESS_FILE, progress)


def is_copy(path: Path, key: str, how: Imputation) -> bool:
    """Whether ``path`` is a whole copy that `write_copy` made of the same scores (`annotation_key`), with the
    same imputation, and that has its rows and videos still."""
    try:
        origin = origin_of(path / PROGRESS_FILE)
        if (origin.get("key"), origin.get("columns")) != (key, how.value):
            return False
        copy = open_dataset(path)
        return (
            copy.fingerprint == origin.get("dataset")
            and all(name in copy.info["features"] for name in COLUMNS)
            and all(set(COLUMNS) <= set(columns_in(path / file)) for file in copy.data_files)
            and all(
                (path / span.file).is_file() for episode in copy.episodes for span in episode.videos.values()
            )
        )
    except UserError:
        return False


def _other_files(dataset: Dataset) -> Iterable[Path]:
    """What is copied as it is: all files but rows, info.json, what is ours and being worked on."""
    changed: set[Path] = {Path(INFO), Path(PROGRESS_FILE), Path(WEIGHTS_FILE), *map(Path, dataset.data_files)}
    seen = set()  # a link to a folder above would have no end
    for folder, folders, files in os.walk(dataset.root, followlinks=True):
        seen.add(os.path.realpath(folder))
        folders[:] = [
            name
            for name in folders
            if not name.endswith((TEMPORARY, WORK_SUFFIX))
            and os.path.realpath(os.path.join(folder, name)) not in seen
        ]
        for name in files:
            file = Path(folder, name).relative_to(dataset.root)
            if file not in changed and not name.endswith(TEMPORARY):
                yield file


WORK_SUFFIX = ".topreward-work"  #: end of the name of a folder that keeps scores


def work_folder(output: Path) -> Path:
    """Where the scores for ``output`` are kept until it is whole: beside it."""
    return output.parent / f".{output.name}{WORK_SUFFIX}"


def _with_columns(path: Path, columns: Mapping[str, np.ndarray], first: int) -> tuple[bytes, int]:
    """A file of rows with ``columns``, of which its rows are those from ``first`` on; and the next one's."""
    pa = arrow()
    read_table(path, ())  # for its errors
    sink = BytesIO()
    with pa.parquet.ParquetFile(path) as source:
        schema = source.schema_arrow
        for name, values in columns.items():
            schema = schema.append(pa.field(name, pa.from_numpy_dtype(values.dtype)))
        schema = schema.with_metadata(_hugging_face(schema.metadata or {}, columns))
        with pa.parquet.ParquetWriter(sink, schema) as writer:
            for group in range(source.num_row_groups):
                table = source.read_row_group(group, use_threads=False)
                end = first + table.num_rows
                for name, values in columns.items():
                    table = table.append_column(name, pa.array(values[first:end]))
                writer.write_table(table.cast(schema))
                first = end
    return sink.getvalue(), first


def _hugging_face(metadata: Mapping[bytes, bytes], columns: Mapping[str, np.ndarray]) -> dict[bytes, bytes]:
    """The schema's metadata, in which the library `datasets` lists the columns, with ours among them."""
    made = dict(metadata)
    try:
        content = parsed_json(made[b"huggingface"])
        for name in columns:
            content["info"]["features"][name] = {"dtype": COLUMNS[name]["dtype"], "_type": "Value"}
        made[b"huggingface"] = json.dumps(content).encode()
    except (KeyError, ValueError, TypeError):
        made.pop(b"huggingface", None)  # a list that lacks columns is worse than none
    return made


def final_progress(scores: EpisodeScores) -> float:
    """The last progress that is known; NaN where none is."""
    finite = [value for value in scores.progress if isfinite(value)]
    return finite[-1] if finite else nan
