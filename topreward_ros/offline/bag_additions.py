"""More messages for the files of a bag, in a copy of each: what was in a file stays there byte for byte.

Nothing that was recorded is read as a message or written anew, so types without a definition, old schemas,
compressed messages, attachments and unknown records all stay as they are. Only a topic that a recorder
announced, and on which it recorded nothing, gives way to one of ours of the same name:

- sqlite3: rows are inserted; readers order messages by time;
- mcap with chunks: a chunk of ours follows the others, and the index at the end of the file, by which readers
  find messages in order of time, is written anew with it;
- mcap without chunks: our records are put between the others, in order of time.

Layout: mcap_records.py and the schemas of https://github.com/ros2/rosbag2. What the messages mean is not
known here.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

from topreward_ros.offline import mcap_records as mcap
from topreward_ros.offline import zstd

_FOOTER_SIZE = mcap.HEAD_SIZE + 20 + len(mcap.MAGIC)
_DATA_END_SIZE = mcap.HEAD_SIZE + 4
_ROSBAG2 = b"rosbag2"  # the name of the record in which rosbag2 repeats its metadata
_CHUNK_BYTES = 4 << 20
_MOST_RECORD = 1 << 40  # [bytes]; a record that claims more is damaged
_UNSEEN_SCHEMA = 60_000  # where the file does not list its schemas: an id that recorders do not reach


@dataclass(frozen=True, slots=True)
class NewTopic:
    """A topic to be added, as the file's metadata describes it."""

    name: str
    type: str
    qos: str  #: offered profiles, YAML, as the version of the bag writes them
    definition: str  #: of the type and those in it, as ros2msg
    type_hash: str  #: RIHS01


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message to be added."""

    topic: NewTopic
    time_ns: int
    data: bytes  #: as it is stored


class NoIndexError(Exception):
    """A file holds chunks and no index of them, so that nothing can be put between its messages."""


def add_to_sqlite(
    file: Path,
    messages: Sequence[NewMessage],
    version: int,
    metadata: str,
    replaced: Collection[str] = (),
) -> None:
    """Insert ``messages`` into ``file``, which is changed.

    ``metadata``, of version ``version``, replaces that in the file, if it has some. ``replaced``: names of
    topics without a message that are taken out. Raises `OSError`.
    """
    try:
        with closing(sqlite3.connect(str(file))) as database, database:
            for name in replaced:
                _drop_topic(database, name)
            numbers = {topic: _add_topic(database, topic) for topic in _topics(messages)}
            database.executemany(
                "INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)",
                ((numbers[message.topic], message.time_ns, message.data) for message in messages),
            )
            if _columns(database, "metadata"):
                database.execute(
                    "UPDATE metadata SET metadata_version = ?, metadata = ?", (version, metadata)
                )
    except sqlite3.OperationalError as error:  # which hides the number of the system's error
        raise _disk_error(error, file) from error


def _disk_error(error: sqlite3.OperationalError, file: Path) -> OSError:
    import errno

    full = "full" in str(error) or "I/O" in str(error)
    return OSError(errno.ENOSPC if full else errno.EIO, str(error), str(file))


def _drop_topic(database: sqlite3.Connection, name: str) -> None:
    """Take out the topics of this name, and the definitions of their types that no other topic has."""
    kinds = list(database.execute("SELECT DISTINCT type FROM topics WHERE name = ?", (name,)))
    database.execute("DELETE FROM topics WHERE name = ?", (name,))
    if _columns(database, "message_definitions"):
        database.executemany(
            "DELETE FROM message_definitions WHERE topic_type = ?1 "
            "AND NOT EXISTS (SELECT 1 FROM topics WHERE type = ?1)",
            kinds,
        )


def _add_topic(database: sqlite3.Connection, topic: NewTopic) -> int:
    ((number,),) = database.execute("SELECT coalesce(max(id), 0) + 1 FROM topics")
    values = {
        "id": number,
        "name": topic.name,
        "type": topic.type,
        "serialization_format": "cdr",
        "offered_qos_profiles": topic.qos,
        "type_description_hash": topic.type_hash,
    }
    _insert(database, "topics", values)
    known = _columns(database, "message_definitions")
    defined = known and list(
        database.execute("SELECT 1 FROM message_definitions WHERE topic_type = ?", (topic.type,))
    )
    if known and not defined:
        definition = {
            "topic_type": topic.type,
            "encoding": "ros2msg",
            "encoded_message_definition": topic.definition,
            "type_description_hash": topic.type_hash,
        }
        _insert(database, "message_definitions", definition)
    return int(number)


def _insert(database: sqlite3.Connection, table: str, values: Mapping[str, object]) -> None:
    """Insert a row with those of ``values`` that the schema of the file has a column for."""
    names = [name for name in values if name in _columns(database, table)]
    places = ", ".join("?" * len(names))
    row = [values[name] for name in names]
    database.execute(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({places})", row)


def _columns(database: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in database.execute(f"PRAGMA table_info({table})")}


def copy_mcap_with(
    source: Path,
    target: Path,
    messages: Sequence[NewMessage],
    metadata: str,
    replaced: Collection[str] = (),
) -> None:
    """Write ``source`` and ``messages``, in order of time, to the new file ``target``.

    ``metadata`` replaces rosbag2's in the file, if it has some. ``replaced``: names of topics without a
    message that are taken out; within a chunk they stay, and the index does not name them. Raises `OSError`,
    `NoIndexError`, and errors of many kinds for a file that is damaged.
    """
    with source.open("rb") as old, target.open("xb") as new:
        summary = _Summary.read(old)
        data_end = summary.data_end
        old.seek(0)
        if summary.records(mcap.CHUNK_INDEX):
            summary.drop_channels(replaced)
            _copy(old, new, data_end)
            _append_chunks(new, messages, summary)
        else:
            _copy_between(old, new, data_end, messages, summary, replaced)
        if summary.drop_rosbag2():
            content = mcap.text(b"serialized_metadata") + mcap.text(metadata.encode())
            record = mcap.text(_ROSBAG2) + struct.pack("<I", len(content)) + content
            place, size = new.tell(), _write(new, mcap.METADATA, record)
            summary.add(mcap.METADATA_INDEX, struct.pack("<QQ", place, size) + mcap.text(_ROSBAG2))
        _write(new, mcap.DATA_END, struct.pack("<I", 0))  # no checksum, which would be of the whole file
        summary.write(new)


@dataclass
class _Summary:
    """The index at the end of an mcap file: the records of each kind, as they stand there."""

    data_end: int  #: where the records end that are no index
    exists: bool
    by_kind: dict[int, list[bytes]] = field(default_factory=dict)
    dropped: set[int] = field(default_factory=set)  #: channels that are in the file, and in no index

    @classmethod
    def read(cls, file: BinaryIO) -> _Summary:
        size = file.seek(0, 2)
        footer_at = file.seek(size - _FOOTER_SIZE)
        footer = file.read(_FOOTER_SIZE)
        if not footer.endswith(mcap.MAGIC) or footer[0] != mcap.FOOTER:
            raise ValueError("the file has no end")
        (start,) = struct.unpack_from("<Q", footer, mcap.HEAD_SIZE)
        end = start or footer_at
        file.seek(end - _DATA_END_SIZE)
        data_end = file.tell() if file.read(1)[0] == mcap.DATA_END else end
        summary = cls(data_end, bool(start))
        if start:
            file.seek(start)
            while file.tell() < footer_at:
                kind, content = _read(file)
                if kind != mcap.SUMMARY_OFFSET:
                    summary.add(kind, content)
        return summary

    def records(self, kind: int) -> list[bytes]:
        return self.by_kind.get(kind, [])

    def add(self, kind: int, content: bytes) -> None:
        self.by_kind.setdefault(kind, []).append(content)

    def drop_rosbag2(self) -> bool:
        """Forget where rosbag2's metadata is; whether there was some."""
        kept = [it for it in self.records(mcap.METADATA_INDEX) if not it.endswith(mcap.text(_ROSBAG2))]
        dropped = len(kept) < len(self.records(mcap.METADATA_INDEX))
        if dropped:
            self.by_kind[mcap.METADATA_INDEX] = kept
        return dropped

    def drop_channels(self, names: Collection[str]) -> None:
        """Forget the channels of the topics ``names``."""
        kept = []
        for it in self.records(mcap.CHANNEL):
            (size,) = struct.unpack_from("<I", it, 4)
            if it[8 : 8 + size].decode(errors="replace") in names:
                self.dropped.add(struct.unpack_from("<H", it)[0])
            else:
                kept.append(it)
        if self.dropped:
            self.by_kind[mcap.CHANNEL] = kept

    def first_free(self) -> tuple[int, int]:
        """Ids above those of all schemas and channels of the file."""
        schemas = [struct.unpack_from("<H", it)[0] for it in self.records(mcap.SCHEMA)]
        channels = [struct.unpack_from("<H", it)[0] for it in self.records(mcap.CHANNEL)] + [*self.dropped]
        for it in self.records(mcap.CHUNK_INDEX):
            (size,) = struct.unpack_from("<I", it, 32)
            channels += [number for number, _ in struct.iter_unpack("<HQ", it[36 : 36 + size])]
        for it in self.records(mcap.STATISTICS):
            channels += _counts(it)
        return max(schemas, default=_UNSEEN_SCHEMA) + 1, max(channels, default=_UNSEEN_SCHEMA) + 1

    def count(self, messages: Sequence[NewMessage], channels: dict[NewTopic, int]) -> None:
        """Add ``messages`` and our topics to the statistics."""
        if not self.records(mcap.STATISTICS):
            return
        (old,) = self.records(mcap.STATISTICS)
        total, _, _, attachments, _, _, start, end = struct.unpack_from(mcap.STATISTICS_LAYOUT, old)
        times = [message.time_ns for message in messages] + ([start, end] if total else []) or [0]
        counts = {channel: it for channel, it in _counts(old).items() if channel not in self.dropped}
        for message in messages:
            channel = channels[message.topic]
            counts[channel] = counts.get(channel, 0) + 1
        self._new_statistics = (total + len(messages), attachments, min(times), max(times), counts)

    def _statistics(self) -> bytes:
        total, attachments, start, end, counts = self._new_statistics
        return mcap.pack_statistics(
            total,
            len(self.records(mcap.SCHEMA)),
            len(self.records(mcap.CHANNEL)),
            attachments,
            len(self.records(mcap.METADATA_INDEX)),
            len(self.records(mcap.CHUNK_INDEX)),
            start,
            end,
            counts,
        )

    def write(self, file: BinaryIO) -> None:
        """Write the index and the end of the file."""
        start = file.tell()
        groups, content = b"", b""
        if self.exists:
            if self.records(mcap.STATISTICS):
                self.by_kind[mcap.STATISTICS] = [self._statistics()]
            for kind in sorted(self.by_kind):
                group = b"".join(mcap.record(kind, it) for it in self.by_kind[kind])
                if group:
                    offset = struct.pack("<BQQ", kind, start + len(content), len(group))
                    groups += mcap.record(mcap.SUMMARY_OFFSET, offset)
                content += group
        offsets = start + len(content) if groups else 0
        content += groups
        footer = struct.pack("<BQQQ", mcap.FOOTER, 20, start if self.exists else 0, offsets)
        file.write(content + footer + struct.pack("<I", crc32(content + footer)) + mcap.MAGIC)


def _append_chunks(new: BinaryIO, messages: Sequence[NewMessage], summary: _Summary) -> None:
    """Write ``messages`` as chunks that are compressed as the others are."""
    channels, described = _describe(messages, summary)
    compression = _compression_of(summary.records(mcap.CHUNK_INDEX)[-1])
    compress = zstd.compress if compression == b"zstd" else bytes
    compression = compression if compression == b"zstd" else b""
    waiting = list(messages)
    while waiting:
        content, described = described, b""
        index: dict[int, list[tuple[int, int]]] = {}
        some = []
        while waiting and len(content) < _CHUNK_BYTES:
            message = waiting.pop(0)
            some.append(message.time_ns)
            channel = channels[message.topic]
            index.setdefault(channel, []).append((message.time_ns, len(content)))
            content += _message(channel, message)
        packed = compress(content)
        place = new.tell()
        head = struct.pack("<QQQI", min(some), max(some), len(content), crc32(content))
        size = _write(
            new, mcap.CHUNK, head + mcap.text(compression) + struct.pack("<Q", len(packed)) + packed
        )
        places = b""
        for channel, entries in index.items():
            places += struct.pack("<HQ", channel, new.tell())
            listed = b"".join(struct.pack("<QQ", *entry) for entry in entries)
            _write(new, mcap.MESSAGE_INDEX, struct.pack("<HI", channel, len(listed)) + listed)
        summary.add(
            mcap.CHUNK_INDEX,
            struct.pack("<QQQQI", min(some), max(some), place, size, len(places))
            + places
            + struct.pack("<Q", new.tell() - place - size)
            + mcap.text(compression)
            + struct.pack("<QQ", len(packed), len(content)),
        )
    summary.count(messages, channels)


def _copy_between(
    old: BinaryIO,
    new: BinaryIO,
    end: int,
    messages: Sequence[NewMessage],
    summary: _Summary,
    replaced: Collection[str],
) -> None:
    """Copy the records of ``old`` up to ``end`` with ``messages`` between them. Raises `NoIndexError`."""
    moved: dict[int, int] = {}  # offsets in the file that the index names
    waiting = list(messages)
    new.write(old.read(len(mcap.MAGIC)))
    first = True
    channels: dict[NewTopic, int] = {}
    if not summary.exists:
        _list_topics(old, end, summary)
        old.seek(len(mcap.MAGIC))
    summary.drop_channels(replaced)
    while old.tell() < end:
        place = old.tell()
        kind, content = _read(old)
        if kind == mcap.CHUNK:
            raise NoIndexError
        if kind == mcap.CHANNEL and struct.unpack_from("<H", content)[0] in summary.dropped:
            continue
        if kind == mcap.MESSAGE:
            if first:
                channels, described = _describe(messages, summary)
                new.write(described)
                first = False
            (time_ns,) = struct.unpack_from("<Q", content, 6)
            while waiting and waiting[0].time_ns < time_ns:
                message = waiting.pop(0)
                new.write(_message(channels[message.topic], message))
        moved[place] = new.tell()
        _write(new, kind, content)
    if first:
        channels, described = _describe(messages, summary)
        new.write(described)
    for message in waiting:
        new.write(_message(channels[message.topic], message))
    for kind in (mcap.ATTACHMENT_INDEX, mcap.METADATA_INDEX):
        records = summary.records(kind)
        for k, it in enumerate(records):
            (place,) = struct.unpack_from("<Q", it)
            records[k] = struct.pack("<Q", moved[place]) + it[8:]
    summary.count(messages, channels)


def _list_topics(old: BinaryIO, end: int, summary: _Summary) -> None:
    """Note the schemas and channels of a file that has no index, for ids that are free."""
    while old.tell() < end:
        kind, content = _read(old)
        if kind in (mcap.SCHEMA, mcap.CHANNEL):
            summary.add(kind, content)


def _describe(messages: Sequence[NewMessage], summary: _Summary) -> tuple[dict[NewTopic, int], bytes]:
    """The channels of the topics of ``messages``, and the records that introduce them."""
    schema, channel = summary.first_free()
    schemas: dict[str, int] = {}
    channels: dict[NewTopic, int] = {}
    described = b""
    for topic in _topics(messages):
        if topic.type not in schemas:
            schemas[topic.type] = schema + len(schemas)
            content = (
                struct.pack("<H", schemas[topic.type])
                + mcap.text(topic.type.encode())
                + mcap.text(b"ros2msg")
                + mcap.text(topic.definition.encode())
            )
            summary.add(mcap.SCHEMA, content)
            described += mcap.record(mcap.SCHEMA, content)
        channels[topic] = channel + len(channels)
        about = {"offered_qos_profiles": topic.qos, "topic_type_hash": topic.type_hash}
        pairs = b"".join(mcap.text(key.encode()) + mcap.text(value.encode()) for key, value in about.items())
        content = (
            struct.pack("<HH", channels[topic], schemas[topic.type])
            + mcap.text(topic.name.encode())
            + mcap.text(b"cdr")
            + struct.pack("<I", len(pairs))
            + pairs
        )
        summary.add(mcap.CHANNEL, content)
        described += mcap.record(mcap.CHANNEL, content)
    return channels, described


def _topics(messages: Sequence[NewMessage]) -> list[NewTopic]:
    return list(dict.fromkeys(message.topic for message in messages))


def _compression_of(chunk_index: bytes) -> bytes:
    (size,) = struct.unpack_from("<I", chunk_index, 32)
    place = 36 + size + 8
    (length,) = struct.unpack_from("<I", chunk_index, place)
    return chunk_index[place + 4 : place + 4 + length]


def _counts(statistics: bytes) -> dict[int, int]:
    """Messages by channel."""
    return dict(struct.iter_unpack("<HQ", statistics[struct.calcsize(mcap.STATISTICS_LAYOUT) + 4 :]))


def _message(channel: int, message: NewMessage) -> bytes:
    head = struct.pack("<HIQQ", channel, 0, message.time_ns, message.time_ns)
    return mcap.record(mcap.MESSAGE, head + message.data)


def _write(file: BinaryIO, kind: int, content: bytes) -> int:
    """Write a record; its size."""
    return file.write(mcap.record(kind, content))


def _read(file: BinaryIO) -> tuple[int, bytes]:
    head = file.read(mcap.HEAD_SIZE)
    if len(head) < mcap.HEAD_SIZE:
        raise ValueError("the file ends within a record")
    kind, size = struct.unpack("<BQ", head)
    content = file.read(size) if size < _MOST_RECORD else b""
    if len(content) < size:
        raise ValueError("the file ends within a record")
    return kind, content


def _copy(old: BinaryIO, new: BinaryIO, size: int) -> None:
    for piece in _pieces(old, size):
        new.write(piece)


def _pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size:
        piece = file.read(min(size, 1 << 20))
        if not piece:
            raise ValueError("the file became shorter while it was read")
        size -= len(piece)
        yield piece
