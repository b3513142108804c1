"""Writes one bag as rosbag2 does (a folder with metadata of version 9), from messages that are bytes already.

Made for whoever has serialized messages: a recorder, or a program that copies a bag and adds to it. ROS 2 is
not imported; the storage is written by rosbags. While it is being written the bag is a folder with another
name (see `core.output_files.FolderInProgress`); at the end it takes its own, whole or not at all:

    with BagWriter("runs/one", definition=definition) as bag:
        topic = bag.add_topic("/task_event", "topreward_ros/msg/TaskEvent")
        bag.write(topic, cdr, time_ns)

Nothing is buffered here beyond the storage's own chunk of 1 MiB, and no thread is started: a call of `write`
takes as long as the disk takes. `offline.recording` has the queue for those who must not wait.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from zlib import crc32

import yaml
from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.rosbag2.errors import WriterError

from topreward_ros.core.errors import UserError
from topreward_ros.core.output_files import FolderInProgress, write_file
from topreward_ros.offline import mcap_records as mcap
from topreward_ros.offline import message_definitions
from topreward_ros.offline.bag_layout import INFORMATION, METADATA
from topreward_ros.offline.message_definitions import Definition

Storage = Literal["mcap", "sqlite3"]
#: What is compressed with zstd: nothing, each message, the storage's chunks (mcap), or the whole files.
Compression = Literal["none", "message", "chunk", "file"]

#: In a bag that is being written: what its custom data will be, for who finishes it in our place.
NOTES = "custom_data.yaml"
METADATA_VERSION: Literal[9] = 9
_CHECKSUM_AT = 24  # in a chunk, behind two times and a length (mcap.dev/spec)
_MODES = {
    "none": CompressionMode.NONE,
    "message": CompressionMode.MESSAGE,
    "chunk": CompressionMode.STORAGE,
    "file": CompressionMode.FILE,
}
_PLUGINS = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}


class BagWriteError(UserError):
    """A bag cannot be written."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic of a bag that is being written."""

    name: str
    definition: Definition
    serialization_format: str = "cdr"
    qos: tuple[Qos, ...] = ()  #: that its publishers offer
    number: int = 0  #: in its bag, from 0


@dataclass(slots=True)
class _Part:
    """A file of the bag that is being written: a bag of its own, in a folder of its own, until the end."""

    writer: Writer
    connections: dict[int, Connection] = field(default_factory=dict)  #: by the number of the topic
    bytes_written: int = 0
    first_ns: int | None = None


class BagWriter:
    """A bag that is being written. Use it as a context manager, or call `close` or `discard`.

    Errors of the disk come as `OSError`, from `write` as well as from `close`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        storage: Storage = "mcap",
        compression: Compression = "none",
        longest_file_s: float = 0.0,
        largest_file_bytes: int = 0,
        definition: Callable[[str], Definition] = message_definitions.definition,
    ) -> None:
        """Begin a bag that is to have the name ``path``, of which nothing exists.

        ``longest_file_s``, ``largest_file_bytes``: a file that holds more is closed and the bag goes on in
        another; 0: one file. ``definition``: where the definition of a type comes from when `add_topic` is
        given none. Raises `OutputFileError` where ``path`` exists, is being written or cannot be made.
        """
        if compression == "chunk" and storage != "mcap":
            raise BagWriteError("only mcap compresses chunks: choose message or file for sqlite3")
        self._folder = FolderInProgress(path)
        self._plugin, self._storage = _PLUGINS[storage], storage
        self._compression = compression
        self._longest_ns = round(longest_file_s * 1e9)
        self._largest = largest_file_bytes
        self._definition = definition
        self._topics: list[Topic] = []
        self._parts: list[str] = []  # folders of the files that are closed
        self._part: _Part | None = None
        #: Goes into the metadata, and can be set until the end: text for text.
        self.custom_data: dict[str, str] = {}
        self.ros_distro = os.environ.get("ROS_DISTRO") or "jazzy"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            try:
                self.close()
            except BaseException:
                self.discard()
                raise
        else:
            self.discard()

    @property
    def folder(self) -> Path:
        """Where the bag is until it has its name."""
        return self._folder.path

    @property
    def topics(self) -> Sequence[Topic]:
        """What `add_topic` has been given so far."""
        return self._topics

    def add_topic(
        self,
        name: str,
        type_name: str,
        *,
        definition: Definition | None = None,
        qos: Sequence[Qos] = (),
        serialization_format: str = "cdr",
    ) -> Topic:
        """Announce a topic, at any time before its first message. Raises `DefinitionError`.

        A name may come with several types. A topic without any message is in the bag, too.
        """
        topic = Topic(
            name,
            definition or self._definition(type_name),
            serialization_format,
            tuple(qos),
            len(self._topics),
        )
        self._topics.append(topic)
        if self._part:
            self._connect(self._part, topic)
        return topic

    def write(self, topic: Topic, data: bytes | memoryview, time_ns: int) -> None:
        """Write one message: its serialized bytes, and when it was received [ns since 1970]."""
        part = self._part or self._begin_part()
        if part.first_ns is not None and self._is_full(part, time_ns):
            self._end_part()
            part = self._begin_part()
        if part.first_ns is None:
            part.first_ns = time_ns
        part.writer.write(part.connections[topic.number], time_ns, data)
        part.bytes_written += len(data)

    def note(self) -> None:
        """Put `custom_data` beside what is written, to outlive this process. Raises `OutputFileError`."""
        write_file(self.folder / NOTES, yaml.safe_dump(self.custom_data, allow_unicode=True))

    def flush(self) -> None:
        """Hand what was written to the kernel, so that it outlives this process. It may cost a chunk."""
        storage: Any = self._part.writer.storage if self._part else None
        if self._storage == "mcap" and storage is not None:
            if storage.chunk.bio.tell():
                storage.close_chunk()
            storage.bio.flush()

    def close(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Finish the bag and give it its name, or ``path`` beside it. Returns the name.

        Raises `OSError` where the disk is full, `OutputFileError` where the name is taken meanwhile
        (`NameTakenError`, after which it may be called again with another) or for what else the disk says.
        """
        if not self._parts and not self._part:
            self._begin_part()
        if self._part:
            self._end_part()
        if not (self.folder / METADATA).exists():
            gather(self.folder, self._parts, self.custom_data, self.ros_distro)
        (self.folder / NOTES).unlink(missing_ok=True)
        return self._folder.finish(path)

    def discard(self) -> None:
        """Give up: nothing of the bag stays."""
        self.abandon().discard()

    def abandon(self) -> FolderInProgress:
        """Stop at once, after an error: what is on disk stays under the other name, and the lock on it."""
        part, self._part = self._part, None
        if part:
            with suppress(OSError, WriterError, ValueError):
                part.writer.abort()
        return self._folder

    def _is_full(self, part: _Part, time_ns: int) -> bool:
        too_long = bool(self._longest_ns) and time_ns - (part.first_ns or 0) >= self._longest_ns
        return too_long or bool(self._largest and part.bytes_written >= self._largest)

    def _begin_part(self) -> _Part:
        # rosbags names the file after its folder.
        name = f"{self._folder.target.name}_{len(self._parts)}"
        writer = Writer(self._folder.path / name, version=METADATA_VERSION, storage_plugin=self._plugin)
        writer.set_compression(_MODES[self._compression], CompressionFormat.ZSTD)
        writer.open()
        if self._storage == "mcap":
            _write_checksums(writer.storage)
        part = self._part = _Part(writer)
        for topic in self._topics:
            self._connect(part, topic)
        return part

    def _connect(self, part: _Part, topic: Topic) -> None:
        part.connections[topic.number] = part.writer.add_connection(
            topic.name,
            topic.definition.type_name,
            msgdef=topic.definition.text,
            rihs01=topic.definition.type_hash,
            serialization_format=topic.serialization_format,
            offered_qos_profiles=topic.qos,
        )

    def _end_part(self) -> None:
        assert self._part
        self._part.writer.close()
        self._parts.append(self._part.writer.path.name)
        self._part = None


def _write_checksums(storage: Any) -> None:
    """Have a writer of mcap put the checksum of each chunk into it, where rosbags writes 0: it is not known.

    Else a picture that a disk has damaged is scored as one that the camera took.
    """
    close_chunk = storage.close_chunk

    def close_chunk_with_checksum() -> None:
        checksum, begin = crc32(storage.chunk.bio.getvalue()), storage.bio.tell()
        close_chunk()
        end = storage.bio.tell()
        storage.bio.seek(begin + mcap.HEAD_SIZE + _CHECKSUM_AT)
        storage.bio.write(struct.pack("<I", checksum))
        storage.bio.seek(end)

    storage.close_chunk = close_chunk_with_checksum


def gather(folder: Path, parts: Sequence[str], custom_data: Mapping[str, str], ros_distro: str) -> None:
    """Make one bag in ``folder`` of the bags in its folders ``parts``, each with one file.

    The metadata come first, so that `take_out` alone is left to do for who finds a folder where this was
    broken off. Raises `OutputFileError` and `OSError`.
    """
    said = [read_metadata(folder / part) for part in parts]
    text = yaml.safe_dump(
        {INFORMATION: _merged(said, custom_data, ros_distro)},
        sort_keys=False,
        allow_unicode=True,
        width=200,
    )
    write_file(folder / METADATA, text)
    take_out(folder, parts)


def take_out(folder: Path, parts: Sequence[str]) -> None:
    """Move the files of ``parts``, folders in ``folder``, there, and remove what is left of them."""
    for part in parts:
        for file in (folder / part).iterdir():
            if file.name != METADATA:
                os.rename(file, folder / file.name)
        shutil.rmtree(folder / part)


def write_part_metadata(
    folder: Path,
    name: str,
    topics: Sequence[Mapping[str, Any]],
    first_ns: int,
    last_ns: int,
    *,
    compressed: bool,
) -> None:
    """Write the metadata of a bag in ``folder`` that has one file of mcap.

    ``name``: of the file; ``topics``: as the metadata list them; ``compressed``: each message is.
    Raises `OutputFileError`.
    """
    span: dict[str, Any] = {
        "duration": {"nanoseconds": max(0, last_ns - first_ns)},
        "starting_time": {"nanoseconds_since_epoch": first_ns},
        "message_count": sum(topic["message_count"] for topic in topics),
    }
    about = {
        "version": METADATA_VERSION,
        "storage_identifier": "mcap",
        "relative_file_paths": [name],
        **span,
        "topics_with_message_count": list(topics),
        "compression_format": "zstd" if compressed else "",
        "compression_mode": "message" if compressed else "",
        "files": [{"path": name, **span}],
        "custom_data": None,
        "ros_distro": "",
    }
    write_file(folder / METADATA, yaml.safe_dump({INFORMATION: about}))


def read_metadata(folder: Path) -> dict[str, Any]:
    """What the metadata of a bag that rosbags has written say. Raises `OSError`."""
    said: dict[str, Any] = yaml.safe_load((folder / METADATA).read_text(encoding="utf-8"))
    about: dict[str, Any] = said[INFORMATION]
    return about


def _merged(
    files: Sequence[Mapping[str, Any]], custom_data: Mapping[str, str], ros_distro: str
) -> dict[str, Any]:
    """The metadata of a bag from those of its ``files``, of which each was a bag."""
    topics: dict[tuple[Any, ...], dict[str, Any]] = {}
    for said in files:
        for entry in said["topics_with_message_count"]:
            about = entry["topic_metadata"]
            key = about["name"], about["type"], repr(about["offered_qos_profiles"])
            known = topics.setdefault(key, {"topic_metadata": about, "message_count": 0})
            known["message_count"] += entry["message_count"]
    entries = [dict(entry) for said in files for entry in said["files"]]
    for entry in entries:
        if not entry["message_count"]:  # rosbags leaves the largest time there is
            entry["starting_time"] = {"nanoseconds_since_epoch": 0}
            entry["duration"] = {"nanoseconds": 0}
    spans = [
        (start, start + entry["duration"]["nanoseconds"])
        for entry in entries
        if entry["message_count"]
        for start in [entry["starting_time"]["nanoseconds_since_epoch"]]
    ]
    first_ns = min((start for start, _ in spans), default=0)
    return {
        **{key: files[0][key] for key in ("version", "storage_identifier")},
        "relative_file_paths": [entry["path"] for entry in entries],
        "duration": {"nanoseconds": max((end for _, end in spans), default=first_ns) - first_ns},
        "starting_time": {"nanoseconds_since_epoch": first_ns},
        "message_count": sum(entry["message_count"] for entry in entries),
        "topics_with_message_count": list(topics.values()),
        **{key: files[0][key] for key in ("compression_format", "compression_mode")},
        "files": entries,
        "custom_data": dict(custom_data) or None,
        "ros_distro": ros_distro,
    }


def qos_profile(
    *, reliable: bool, transient_local: bool, depth: int = 1, history: QosHistory = QosHistory.KEEP_LAST
) -> Qos:
    """A QoS profile for `BagWriter.add_topic`, with the defaults of ROS 2 for all else."""
    forever = QosTime(9223372036, 854775807)  # how ROS 2 writes "no limit" (2**63 - 1 ns)
    return Qos(
        history=history,
        depth=depth,
        reliability=QosReliability.RELIABLE if reliable else QosReliability.BEST_EFFORT,
        durability=QosDurability.TRANSIENT_LOCAL if transient_local else QosDurability.VOLATILE,
        deadline=forever,
        lifespan=forever,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=forever,
        avoid_ros_namespace_conventions=False,
    )
