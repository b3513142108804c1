"""The annotated copy of a bag: what a monitor put out, as messages, and the files with them.

Files of the bag are copied with the messages added (bag_additions.py); the metadata say of our topics what a
live monitor would.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from topreward_ros.core.counted import counted
from topreward_ros.core.output_files import write_file
from topreward_ros.core.outputs import ProgressReport, Reward
from topreward_ros.core.printable import printable
from topreward_ros.core.qos import EVENTS, LATCHED, PROGRESS, Qos
from topreward_ros.offline import task_messages, zstd
from topreward_ros.offline.annotation_report import REPORT, AnnotationSettings, Report
from topreward_ros.offline.bag_additions import (
    NewMessage,
    NewTopic,
    NoIndexError,
    add_to_sqlite,
    copy_mcap_with,
)
from topreward_ros.offline.bag_layout import INFORMATION, METADATA
from topreward_ros.offline.bag_metadata import CUSTOM_DATA
from topreward_ros.offline.bag_watch import BagWatch, in_namespace
from topreward_ros.offline.bag_writer import qos_profile
from topreward_ros.offline.bags import Bag, BagError, OpenBag, slashed
from topreward_ros.offline.message_definitions import definition
from topreward_ros.offline.message_types import MessageTypes
from topreward_ros.scoring.base import ScorerInfo

#: Our topics: name, type, and how a live monitor offers them.
_TOPICS = {
    "progress": ("task_progress", "topreward_ros/msg/TaskProgress", PROGRESS),
    "reward": ("task_reward", "topreward_ros/msg/TaskReward", PROGRESS),
    "event": ("task_event", "topreward_ros/msg/TaskEvent", EVENTS),
    "info": ("monitor/info", "topreward_ros/msg/MonitorInfo", LATCHED),
}


class AnnotationTypes(MessageTypes):
    """Messages of a bag and of its annotation."""

    def __init__(self) -> None:
        super().__init__(kind for _, kind, _ in _TOPICS.values())

    def text_of(self, raw: bytes) -> str:
        """The text of a message on task_instruction. Raises `BagError`."""
        try:
            return str(self.read(raw, "std_msgs/msg/String").data)
        except Exception as error:  # rosbags has many kinds
            raise BagError(
                f"a message on task_instruction cannot be read ({printable(str(error), 200)})"
            ) from error


def check_free(opened: OpenBag, namespace: str) -> None:
    """Raise `BagError` where the bag has messages on one of our topics in ``namespace`` already, or holds
    that name for another type. A recorder announces our topics also where no monitor runs: such ones are
    free."""
    for name, kind, _ in _TOPICS.values():
        full = in_namespace(name, namespace)
        for topic in opened.topics:
            if slashed(topic.name) != full:
                continue
            if topic.type != kind:
                raise BagError(
                    f"{opened.bag.shown} has {printable(full)} already, as {printable(topic.type, 100)} "
                    f"({counted(topic.count, 'message')}), and the annotation needs the name for {kind}: "
                    "put it elsewhere by --namespace NAME"
                )
            if topic.count:
                raise BagError(
                    f"{opened.bag.shown} has {printable(full)} already ({counted(topic.count, 'message')}, "
                    "of a live monitor): put the annotation beside it by --namespace NAME"
                )


def _replaced(opened: OpenBag, namespace: str) -> frozenset[str]:
    """Names, as they were recorded, of our topics that were announced and have no message (`check_free`)."""
    ours = {in_namespace(name, namespace) for name, _, _ in _TOPICS.values()}
    return frozenset(topic.name for topic in opened.topics if slashed(topic.name) in ours)


def messages_of(
    watch: BagWatch,
    info: ScorerInfo,
    settings: AnnotationSettings,
    described: task_messages.Fields,
    bag: Bag,
    types: AnnotationTypes,
) -> list[NewMessage]:
    """What ``watch`` put out, as messages in order of time. ``described``: the fields of monitor/info."""
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

    first_ns = watch.outputs[0][0] if watch.outputs else 0
    stamp = {"stamp": task_messages.time_fields(first_ns), "frame_id": ""}
    add("info", first_ns, {**described, "header": stamp})
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


def write_copy(
    folder: Path, opened: OpenBag, messages: Sequence[NewMessage], namespace: str, report: Report
) -> None:
    """Write the copy into ``folder``: the files with ``messages``, the metadata, the report, and the rest.

    ``namespace``: of the topics of ``messages``.
    """
    bag = opened.bag
    shares, replaced = _shares(opened, messages), _replaced(opened, namespace)
    information = _new_metadata(bag, shares, replaced, report)
    inner = yaml.safe_dump(information, sort_keys=False)
    for file, content, share in zip(bag.files, opened.files, shares, strict=True):
        target = folder / content.name
        if bag.storage == "sqlite3":
            if content != target:
                shutil.copyfile(content, target)
            add_to_sqlite(target, share, bag.version, inner, replaced)
        else:
            _write_mcap(bag, content, target, share, inner, replaced)
        if bag.compression == "file":
            zstd.compress_file(target, folder / file.name)
            target.unlink()
    write_file(folder / METADATA, yaml.safe_dump({INFORMATION: information}, sort_keys=False))
    write_file(folder / REPORT, report.to_json())
    ours = {METADATA, REPORT, *(file.name for file in bag.files)}
    for other in sorted(bag.path.iterdir()):
        if other.is_file() and other.name not in ours and not (folder / other.name).exists():
            shutil.copyfile(other, folder / other.name)


def _write_mcap(
    bag: Bag,
    content: Path,
    target: Path,
    share: Sequence[NewMessage],
    inner: str,
    replaced: Collection[str],
) -> None:
    whole = target
    if content == target:  # decompressed into the folder
        whole = target.with_name(f"{target.name}.old")
        target.rename(whole)
        content = whole
    try:
        copy_mcap_with(content, target, share, inner, replaced)
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


def _new_metadata(
    bag: Bag, shares: Sequence[Sequence[NewMessage]], replaced: Collection[str], report: Report
) -> dict[str, Any]:
    """The metadata of the copy, in the version of the bag."""
    information = deepcopy(bag.metadata)
    everything = [message for share in shares for message in share]
    counts: dict[NewTopic, int] = {}
    for message in everything:
        counts[message.topic] = counts.get(message.topic, 0) + 1
    information["message_count"] = int(information.get("message_count") or 0) + len(everything)
    topics = information["topics_with_message_count"] = [
        entry
        for entry in information["topics_with_message_count"] or ()
        if entry["topic_metadata"]["name"] not in replaced
    ]
    for _, kind, profile in _TOPICS.values():
        for topic, number in counts.items():
            if topic.type != kind:
                continue
            about: dict[str, Any] = {"name": topic.name, "type": topic.type, "serialization_format": "cdr"}
            if bag.version >= 4:
                about["offered_qos_profiles"] = _qos(bag.version, profile)
            if bag.version >= 7:
                about["type_description_hash"] = topic.type_hash
            topics.append({"topic_metadata": about, "message_count": number})
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
        information[CUSTOM_DATA] = {**(information.get(CUSTOM_DATA) or {}), **said}
    made: dict[str, Any] = information
    return made
