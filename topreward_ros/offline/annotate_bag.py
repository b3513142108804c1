"""A bag annotated: a copy of it with task_progress, task_reward, task_event and monitor/info in it.

What a live monitor would have said (bag_watch.py) goes into the copy as messages, at the times at which the
images came that they speak of; every recorded message stays byte for byte (bag_additions.py). The copy keeps
storage, compression, splitting and version of the bag. Beside its files lies `REPORT`: what was annotated
with which settings, by which a bag is known to be done. The copy has its name when it is whole, not before.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import yaml

from topreward_ros.core.episode import Event, ProgressReport, Reward
from topreward_ros.core.frames import NS_PER_S
from topreward_ros.core.output_files import OutputFileError, write_file, written_folder
from topreward_ros.core.printable import printable
from topreward_ros.core.qos import EVENTS, LATCHED, PROGRESS, Qos
from topreward_ros.offline import task_messages, zstd
from topreward_ros.offline.bag_additions import (
    NewMessage,
    NewTopic,
    NoIndexError,
    add_to_sqlite,
    copy_mcap_with,
)
from topreward_ros.offline.bag_layout import INFORMATION, METADATA
from topreward_ros.offline.bag_watch import BagWatch, Sources, find_sources, in_namespace
from topreward_ros.offline.bag_writer import qos_profile
from topreward_ros.offline.bags import Bag, BagError, OpenBag
from topreward_ros.offline.camera_images import ImageReader
from topreward_ros.offline.json_values import json_value
from topreward_ros.offline.message_definitions import definition
from topreward_ros.offline.message_types import MessageTypes
from topreward_ros.offline.raw_samples import Converter
from topreward_ros.offline.recorded_episodes import RecordedEpisode, recorded_episodes
from topreward_ros.offline.side_by_side import Episode
from topreward_ros.scoring.base import ScorerInfo
from topreward_ros.scoring.checkpoint.vocabulary import unknown_instruction_warning

REPORT = "topreward_annotation.json"
JSON_FORMAT = "topreward_annotation/1"  #: raise the number when a field changes its meaning or goes

#: Our topics: name, type, and how a live monitor offers them.
_TOPICS = {
    "progress": ("task_progress", "topreward_ros/msg/TaskProgress", PROGRESS),
    "reward": ("task_reward", "topreward_ros/msg/TaskReward", PROGRESS),
    "event": ("task_event", "topreward_ros/msg/TaskEvent", EVENTS),
    "info": ("monitor/info", "topreward_ros/msg/MonitorInfo", LATCHED),
}
_SHOWN_REASONS = 3


@dataclass(frozen=True, slots=True)
class AnnotationSettings:
    """How bags are annotated. It can be pickled, for other processes."""

    parameters: Mapping[str, Any]  #: the monitor's, by name
    namespace: str = ""  #: "" or "/NAME": of our topics, and where relative names are looked for first
    chosen: bool = False  #: image_topics were given, and are not the default
    whole: bool = False  #: the whole bag is scored, whatever it says of episodes

    def to_json_value(self, task: str) -> dict[str, Any]:
        """All that the numbers depend on, but the bag."""
        left_out = ("task", "autostart", "heartbeat_rate", "diagnostics_rate", "scorer_threads")
        parameters = {name: value for name, value in self.parameters.items() if name not in left_out}
        value: dict[str, Any] = json_value(
            {"task": task, "namespace": self.namespace, "whole": self.whole, "parameters": parameters}
        )
        return value


@dataclass(frozen=True, slots=True)
class BagJob:
    """A bag to be annotated."""

    source: Path
    target: Path  #: the folder to be made
    task: str = ""  #: the instruction; empty: the bag's topic says it


@dataclass(frozen=True, slots=True)
class Annotation:
    """What was done with a bag."""

    target: Path
    scores: int = 0
    duration_s: float = 0.0  #: of the bag
    progress: float = float("nan")  #: of the last score
    outcomes: tuple[str, ...] = ()  #: how its episodes ended: names of `EventType`
    notes: tuple[str, ...] = ()  #: for a human: what is worth knowing of the numbers
    done_before: bool = False  #: it was annotated with these settings already


def done_before(job: BagJob, settings: AnnotationSettings) -> bool:
    """Whether the target holds the annotation of this bag with these settings.

    Raises `OutputFileError` where it exists and is something else, `BagError` where the bag cannot be read.
    """
    target = printable(str(job.target))
    if not job.target.exists() and not job.target.is_symlink():
        return False
    try:
        report = json.loads((job.target / REPORT).read_text(encoding="utf-8"))
        source, made = report["source"], report["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        raise OutputFileError(
            f"{target} exists and is no annotation of {printable(str(job.source))}: remove it, or name "
            "another folder by --output"
        ) from None
    if source != _fingerprint(Bag(job.source)):
        raise OutputFileError(
            f"{target} exists and is the annotation of another bag, or of an earlier state of this one: "
            "remove it, or name another folder by --output"
        )
    wanted = settings.to_json_value(job.task)
    if made != wanted:
        raise OutputFileError(
            f"{target} exists and was made with other settings ({_difference(made, wanted)}): remove it, or "
            "name another folder by --output"
        )
    return True


def is_annotation(path: Path) -> bool:
    """Whether the bag ``path`` was made here."""
    return (path / REPORT).is_file()


def annotate_bag(
    job: BagJob,
    settings: AnnotationSettings,
    info: ScorerInfo,
    converter: Callable[[], Converter],
    on_progress: Callable[[float], None] | None = None,
) -> Episode[Annotation]:
    """Make the annotated copy of a bag: yields what is to be scored, and returns what was done.

    ``converter``: what makes RGB of raw images. ``on_progress`` is called with the share that is done,
    [0, 1]. Raises `BagError`, `OutputFileError` and what is thrown into it.
    """
    bag = Bag(job.source)
    if is_annotation(job.source):
        raise BagError(f"{bag.shown} is an annotation already: name the bag that was recorded")
    with written_folder(job.target) as folder, bag.opened(folder) as opened:
        _check_room(bag, folder)
        _check_free(opened, settings.namespace)
        types = _Types()
        sources, episodes, note = _what_to_watch(opened, settings, job.task, types)
        watch = BagWatch(
            opened, sources, settings.parameters, ImageReader(types.read, converter), types.text_of
        )
        episode = watch.run(job.task, episodes)
        score = None
        try:
            request = next(episode)
            while True:
                if on_progress is not None:
                    on_progress(_share(opened, watch))
                score = yield request
                request = episode.send(score)
        except StopIteration:
            pass
        if lost := len(episodes) - watch.begun:
            note = f"{note}; without any image in the bag: {lost}"
        notes = [*sources.notes, *filter(None, [note])]
        report = _Report.of(job, bag, settings, info, watch, notes)
        messages = _messages(watch, info, settings, [it.name for it in sources.cameras], bag, types)
        _write(folder, opened, messages, report)
    return report.annotation


def _what_to_watch(
    opened: OpenBag, settings: AnnotationSettings, task: str, types: _Types
) -> tuple[Sources, list[RecordedEpisode], str]:
    """The topics; the recorded episodes, none where the whole bag is watched; and a note of the latter."""

    def sources(task: str) -> Sources:
        return find_sources(opened, settings.parameters, settings.namespace, task, chosen=settings.chosen)

    if settings.whole:
        return sources(task), [], ""
    camera = sources("-").cameras[0].name  # the events say the task, where no topic does
    topic, episodes = recorded_episodes(opened, settings.namespace, camera, types.read)
    if episodes:
        note = (
            f"scored is, by {printable(topic)} in the bag, from EPISODE_STARTED to EPISODE_ENDED "
            f"(episodes: {len(episodes)}), and no image around that; --whole scores the whole bag"
        )
        return sources("-"), episodes, note
    about = opened.bag.metadata.get("custom_data")
    name = about.get("episode_id") if isinstance(about, dict) else None
    note = (
        f"WARNING: the bag was recorded of the episode {printable(str(name), 100)}, and has no event that "
        "says when it began: images from before it are scored with it"
    )
    return sources(task), [], note if name else ""


def _check_room(bag: Bag, folder: Path) -> None:
    """Raise `OSError` before the work where the copy of ``bag`` cannot fit on the disk of ``folder``."""
    needed = sum(file.stat().st_size for file in bag.files)
    if shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def _share(opened: OpenBag, watch: BagWatch) -> float:
    duration_ns = int(opened.bag.metadata.get("duration", {}).get("nanoseconds", 0))
    return min(1.0, watch.elapsed_ns / duration_ns) if duration_ns else 0.0


def _check_free(opened: OpenBag, namespace: str) -> None:
    for name, _, _ in _TOPICS.values():
        full = in_namespace(name, namespace)
        if topic := opened.topic(full):
            raise BagError(
                f"{opened.bag.shown} has {printable(full)} already ({topic.count} messages, of a live "
                "monitor): put the annotation beside it by --namespace NAME"
            )


class _Types(MessageTypes):
    """Messages of a bag and of its annotation."""

    def __init__(self) -> None:
        super().__init__(kind for _, kind, _ in _TOPICS.values())

    def text_of(self, raw: bytes) -> str:
        try:
            return str(self.read(raw, "std_msgs/msg/String").data)
        except Exception as error:  # rosbags has many kinds
            raise BagError(
                f"a message on task_instruction cannot be read ({printable(str(error), 200)})"
            ) from error


def _messages(
    watch: BagWatch,
    info: ScorerInfo,
    settings: AnnotationSettings,
    cameras: Sequence[str],
    bag: Bag,
    types: _Types,
) -> list[NewMessage]:
    """What ``watch`` put out, as messages in order of time."""
    topics = {
        name: NewTopic(
            in_namespace(topic, settings.namespace),
            kind,
            _qos_text(bag.version, profile),
            definition(kind).text,
            definition(kind).type_hash,
        )
        for name, (topic, kind, profile) in _TOPICS.items()
    }
    made: list[NewMessage] = []

    def add(name: str, time_ns: int, fields: task_messages.Fields) -> None:
        data = types.write(fields, topics[name].type)
        stored = zstd.compress(data) if bag.compression == "message" else data
        made.append(NewMessage(topics[name], time_ns, stored))

    layout = settings.parameters["camera_layout"]
    first_ns = watch.outputs[0][0] if watch.outputs else 0
    add(
        "info",
        first_ns,
        task_messages.info_fields(info, watch.settings, list(cameras), layout, first_ns),
    )
    for time_ns, output in watch.outputs:
        if isinstance(output, ProgressReport):
            add("progress", time_ns, task_messages.progress_fields(output, info, time_ns))
        elif isinstance(output, Reward):
            add("reward", time_ns, task_messages.reward_fields(output))
        else:
            add("event", time_ns, task_messages.event_fields(output, info))
    return made


def _qos(version: int, profile: Qos) -> Any:
    """The profile as metadata of ``version`` has it."""
    from rosbags.rosbag2.metadata import dump_qos_v8, dump_qos_v9

    stated = qos_profile(reliable=profile.reliable, transient_local=profile.latched, depth=profile.depth)
    return dump_qos_v9([stated]) if version >= 9 else dump_qos_v8([stated])


def _qos_text(version: int, profile: Qos) -> str:
    """The profile as the files of a bag have it."""
    dumped = _qos(version, profile)
    return dumped if isinstance(dumped, str) else yaml.safe_dump(dumped, sort_keys=False).strip()


def _write(folder: Path, opened: OpenBag, messages: Sequence[NewMessage], report: _Report) -> None:
    """Write the copy into ``folder``: the files with ``messages``, the metadata, the report, and the rest."""
    bag = opened.bag
    shares = _shares(opened, messages)
    information = _new_metadata(bag, shares, report)
    inner = yaml.safe_dump(information, sort_keys=False)
    for file, content, share in zip(bag.files, opened.files, shares, strict=True):
        target = folder / content.name
        if bag.storage == "sqlite3":
            if content != target:
                shutil.copyfile(content, target)
            add_to_sqlite(target, share, bag.version, inner)
        else:
            _write_mcap(bag, content, target, share, inner)
        if bag.compression == "file":
            zstd.compress_file(target, folder / file.name)
            target.unlink()
    write_file(folder / METADATA, yaml.safe_dump({INFORMATION: information}, sort_keys=False))
    write_file(folder / REPORT, report.to_json())
    ours = {METADATA, REPORT, *(file.name for file in bag.files)}
    for other in sorted(bag.path.iterdir()):
        if other.is_file() and other.name not in ours and not (folder / other.name).exists():
            shutil.copyfile(other, folder / other.name)


def _write_mcap(bag: Bag, content: Path, target: Path, share: Sequence[NewMessage], inner: str) -> None:
    whole = target
    if content == target:  # decompressed into the folder
        whole = target.with_name(f"{target.name}.old")
        target.rename(whole)
        content = whole
    try:
        copy_mcap_with(content, target, share, inner)
    except NoIndexError:
        raise BagError(
            f"{printable(str(bag.path / target.name))} has no index of its chunks, so that nothing can be "
            "put between its messages: make one with `mcap recover`"
        ) from None
    except OSError:
        raise
    except Exception as error:
        raise bag.broken(content, error) from error
    if whole != target:
        whole.unlink()


def _shares(opened: OpenBag, messages: Sequence[NewMessage]) -> list[list[NewMessage]]:
    """``messages`` by the file in whose time they fall."""
    shares: list[list[NewMessage]] = [[] for _ in opened.files]
    starts = [(start_ns, k) for k, start_ns in enumerate(opened.starts_ns) if start_ns is not None]
    for message in messages:
        before = [k for start_ns, k in starts if start_ns <= message.time_ns]
        shares[before[-1] if before else starts[0][1]].append(message)
    return shares


def _new_metadata(bag: Bag, shares: Sequence[Sequence[NewMessage]], report: _Report) -> dict[str, Any]:
    """The metadata of the copy, in the version of the bag."""
    information = json.loads(json.dumps(bag.metadata))
    everything = [message for share in shares for message in share]
    counts: dict[NewTopic, int] = {}
    for message in everything:
        counts[message.topic] = counts.get(message.topic, 0) + 1
    information["message_count"] = int(information["message_count"]) + len(everything)
    for _, kind, profile in _TOPICS.values():
        for topic, number in counts.items():
            if topic.type != kind:
                continue
            about: dict[str, Any] = {"name": topic.name, "type": topic.type, "serialization_format": "cdr"}
            if bag.version >= 4:
                about["offered_qos_profiles"] = _qos(bag.version, profile)
            if bag.version >= 7:
                about["type_description_hash"] = topic.type_hash
            information["topics_with_message_count"].append(
                {"topic_metadata": about, "message_count": number}
            )
    by_name = {str(entry.get("path")): entry for entry in information.get("files") or ()}
    for file, share in zip(bag.files, shares, strict=True):
        entry = by_name.get(file.name)
        if entry is not None and share:
            entry["message_count"] = int(entry["message_count"]) + len(share)
            start = int(entry["starting_time"]["nanoseconds_since_epoch"])
            end = start + int(entry["duration"]["nanoseconds"])
            times = [message.time_ns for message in share]
            start, end = min([start, *times]), max([end, *times])
            entry["starting_time"]["nanoseconds_since_epoch"] = start
            entry["duration"]["nanoseconds"] = end - start
    if bag.version >= 6:
        said = {"topreward_annotation": f"{report.about}; see {REPORT}"}
        information["custom_data"] = {**(information.get("custom_data") or {}), **said}
    made: dict[str, Any] = information
    return made


@dataclass(frozen=True, slots=True)
class _Report:
    """What `REPORT` holds."""

    annotation: Annotation
    about: str  #: in a sentence
    content: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        job: BagJob,
        bag: Bag,
        settings: AnnotationSettings,
        info: ScorerInfo,
        watch: BagWatch,
        notes: Sequence[str],
    ) -> _Report:
        events = [(ns, it) for ns, it in watch.outputs if isinstance(it, Event)]
        reports = [it for _, it in watch.outputs if isinstance(it, ProgressReport) and it.num_frames]
        stamps = "time of receipt, as header.stamp was zero" if watch.unstamped else "header.stamp"
        stages = dict.fromkeys(stage for task in watch.tasks for stage in task.split("\n"))
        unknown = [unknown_instruction_warning(stage, info, "--model ") for stage in stages]
        said = [*notes, *filter(None, unknown), *_notes(watch)]
        annotation = Annotation(
            target=job.target,
            scores=watch.scores,
            duration_s=int(bag.metadata.get("duration", {}).get("nanoseconds", 0)) / NS_PER_S,
            progress=reports[-1].progress if reports else float("nan"),
            outcomes=tuple(it.type.name for _, it in events if it.type.name in _OUTCOMES),
            notes=tuple(said),
        )
        content = {
            "format": JSON_FORMAT,
            "bag": bag.path.resolve().name,
            "source": _fingerprint(bag),
            "settings": settings.to_json_value(job.task),
            "tasks": watch.tasks,
            "stamps": stamps,
            "model": {name: value for name, value in asdict(info).items() if name != "instructions"},
            "scores": watch.scores,
            "events": [
                {"time_ns": ns, "type": it.type.name, "episode_id": it.episode_id, "message": it.message}
                for ns, it in events
            ],
            "ignored": asdict(watch.monitor.ignored),
            "notes": said,
        }
        about = f"annotated by topreward_ros with the model {info.model_id}; stamps: {stamps}"
        return cls(annotation, printable(about), json_value(content))

    def to_json(self) -> str:
        out = StringIO()
        json.dump(self.content, out, indent=2, ensure_ascii=True, allow_nan=False)
        return out.getvalue() + "\n"


_OUTCOMES = ("SUCCESS", "SUBTASK_SUCCESS", "TIMEOUT", "ABORTED", "FAILURE")


def _notes(watch: BagWatch) -> list[str]:
    """What a human should know of the numbers."""
    notes = []
    if watch.unstamped:
        notes.append("images carry no stamp: the time of receipt stands in for it")
    if not watch.scores:
        notes.append("no image could be scored")
    reasons = sorted(watch.bad.items(), key=lambda item: -item[1])
    notes += [f"{count} times: {printable(why, 300)}" for why, count in reasons[:_SHOWN_REASONS]]
    notes += [f"{count} images {reason}" for reason, count in watch.monitor.ignored.counts().items()]
    return notes


def _fingerprint(bag: Bag) -> dict[str, Any]:
    """By which a bag is known again: the digest of its metadata, and the sizes of its files."""
    digest = hashlib.sha256((bag.path / METADATA).read_bytes()).hexdigest()
    return {"metadata_sha256": digest, "bytes": {file.name: file.stat().st_size for file in bag.files}}


def _difference(made: Any, wanted: dict[str, Any]) -> str:
    """The first setting that is another one, and both values."""
    made = made if isinstance(made, dict) else {}
    for name, value in wanted.items():
        if made.get(name) != value:
            if isinstance(value, dict) and isinstance(made.get(name), dict):
                return _difference(made[name], value)
            return printable(f"{name} was '{made.get(name)}', and '{value}' is asked for", 300)
    return "fewer are known now"
