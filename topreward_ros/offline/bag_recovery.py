"""Finishes bags whose writer was killed, or stopped by a full disk: what is on disk becomes a whole bag.

A `BagWriter` leaves a folder `NAME.partial` with a folder per file in it. Files that were closed are taken as
they are. The last one, of mcap, ends anywhere: it is cut after its last whole chunk and gets the index that
it lacks, in place, so that next to no room is needed. What is lost is what came after that chunk. sqlite3 is
not mended: its last file is left out, and that is said.

How mcap records look is told in mcap_records.py.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

from rosbags.rosbag2.errors import ReaderError
from rosbags.rosbag2.metadata import dump_qos_v9, parse_qos
from rosbags.rosbag2.storage_mcap import decompress

from topreward_ros.core.errors import UserError
from topreward_ros.core.output_files import FolderInProgress, NameTakenError
from topreward_ros.core.printable import printable
from topreward_ros.offline import mcap_records as mcap
from topreward_ros.offline.bag_layout import METADATA, SUFFIXES
from topreward_ros.offline.bag_writer import (
    NOTES,
    gather,
    read_metadata,
    take_out,
    write_part_metadata,
)
from topreward_ros.offline.message_definitions import Definition, DefinitionError
from topreward_ros.offline.yaml_text import parsed_yaml

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"  # of a message that rosbag2 has compressed; none of CDR begins so
_MOST_NAMES = 1000  # that are tried where a name is taken


class RecoveryError(UserError):
    """Nothing can be saved of a bag."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """A bag that was finished for its writer."""

    path: Path
    messages: int
    cut_bytes: int  #: that were on disk and belong to no whole chunk
    notes: tuple[str, ...] = ()  #: what was lost beside that


def recover(partial: Path) -> Recovered:
    """Finish the bag that a writer who was killed has left in the folder ``partial``.

    It takes its own name with ``_cut`` after it. Raises `RecoveryError` where its writer lives, or nothing
    can be saved (the folder then stays as it is), and `OutputFileError`.
    """
    folder = FolderInProgress.left(partial)
    if folder is None:
        raise RecoveryError(f"{printable(str(partial))} is still being written: end its writer first")
    try:
        return finish_left(
            folder,
            folder.target.with_name(f"{folder.target.name}_cut"),
            {
                "outcome": "cut",
                "complete": "false: the recorder did not finish it; what was written by then was recovered",
            },
        )
    except OSError as error:
        raise RecoveryError(
            f"{printable(str(partial))} cannot be recovered ({error.strerror}): make room, or see who owns it"
        ) from error
    finally:
        folder.release()


def finish_left(folder: FolderInProgress, target: Path, custom_data: dict[str, str]) -> Recovered:
    """Finish what is in ``folder`` as a bag of the name ``target``, or, where that is taken, one like it.

    ``custom_data``: beside what its writer has noted.

    Raises `RecoveryError` where there is no message in it, `OutputFileError` and `OSError`.
    """
    parts = sorted(
        (path for path in folder.path.iterdir() if path.is_dir()),
        key=lambda path: (len(path.name), path.name),
    )
    cut, notes, whole = 0, [], []
    if (folder.path / METADATA).is_file():  # all was written but for the moves
        take_out(folder.path, [part.name for part in parts])
    else:
        for part in parts:
            if (part / METADATA).is_file():
                whole.append(part.name)
                continue
            mended = _mend_part(part)
            if mended is None:
                notes.append(f"{part.name} holds nothing that can be read")
                shutil.rmtree(part)
            else:
                whole.append(part.name)
                cut += mended.cut_bytes
        if not whole:
            raise RecoveryError(
                f"{printable(str(folder.path))} holds no message that can be read: its episode is lost; "
                "remove it"
            )
        gather(folder.path, whole, _noted(folder.path) | custom_data, os.environ.get("ROS_DISTRO") or "jazzy")
    (folder.path / NOTES).unlink(missing_ok=True)
    path = finish_with_free_name(folder, target)
    return Recovered(path, read_metadata(path)["message_count"], cut, tuple(notes))


def _noted(folder: Path) -> dict[str, str]:
    """The custom data that the writer has noted by then; empty where it has not."""
    with suppress(OSError, ValueError):
        said = parsed_yaml((folder / NOTES).read_text(encoding="utf-8"))
        return {str(key): str(value) for key, value in said.items()} if isinstance(said, dict) else {}
    return {}


def finish_with_free_name(folder: FolderInProgress, target: Path) -> Path:
    """Give ``folder`` the name ``target``, or the first of target_2, target_3 ... that is free."""
    for number in range(1, _MOST_NAMES):
        with suppress(NameTakenError):
            return folder.finish(target if number == 1 else target.with_name(f"{target.name}_{number}"))
    return folder.finish(target)


@dataclass(slots=True)
class _Mended:
    """What is in an mcap file up to the end of its last whole chunk."""

    end: int  #: of the last whole chunk [bytes]
    cut_bytes: int = 0
    schemas: dict[int, bytes] = field(default_factory=dict)  #: records by their number
    channels: dict[int, bytes] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=lambda: defaultdict(int))  #: messages by channel
    chunks: list[tuple[int, bytes]] = field(default_factory=list)  #: end of each, and its chunk index
    first_ns: int = 2**63 - 1
    last_ns: int = 0
    compressed: bool = False  #: the messages are, each by itself


def _mend_part(part: Path) -> _Mended | None:
    """Make a bag of the folder ``part``; None where nothing in it can be read."""
    files = [path for path in part.iterdir() if path.suffix == SUFFIXES["mcap"]]
    if not files:
        return None
    (path,) = files
    with path.open("r+b", buffering=0) as file:  # what a buffer holds could not be given up
        found = _scan(file)
        if found is None or not found.counts:
            return None
        size = os.fstat(file.fileno()).st_size
        _close_file(file, found)
        os.fsync(file.fileno())
        found.cut_bytes = size - found.end
    write_part_metadata(
        part, path.name, _topics(found), found.first_ns, found.last_ns, compressed=found.compressed
    )
    return found


def _close_file(file: FileIO, found: _Mended) -> None:
    """Write the end of an mcap file after its last whole chunk; where there is no room, after one before.

    Raises `OSError` where there is no room however much is cut.
    """
    while True:
        file.seek(found.end)
        file.truncate()
        try:
            _write(file, _summary(found))
            return
        except OSError:
            if len(found.chunks) < 2:
                raise
            found.chunks.pop()
            again = _scan(file, stop=found.chunks[-1][0])  # what is in it, without the last chunk
            assert again is not None
            found.end, found.counts = again.end, again.counts
            found.first_ns, found.last_ns = again.first_ns, again.last_ns


def _scan(file: FileIO, stop: int = 0) -> _Mended | None:
    """Read an mcap file from its beginning as far as it is whole (or to ``stop``); None: it is not one."""
    size = stop or os.fstat(file.fileno()).st_size
    file.seek(0)
    if file.read(len(mcap.MAGIC)) != mcap.MAGIC:
        return None
    found = _Mended(end=0)
    while record := _next(file, size):
        kind, content, begin = record
        if kind == mcap.HEADER:
            found.end = file.tell()
        elif kind == mcap.CHUNK:
            try:
                held = _Chunk.read(content)
            except (ReaderError, struct.error, ValueError, IndexError):
                break
            indexes = held.indexes()
            if file.read(len(indexes)) != indexes:  # torn, or by another writer
                if stop:
                    break
                after = begin + mcap.HEAD_SIZE + len(content)
                file.seek(after)
                file.truncate()
                _write(file, indexes)
                size = after + len(indexes)
            _add_chunk(found, held, begin, mcap.HEAD_SIZE + len(content), len(indexes))
            found.end = file.tell()
        elif kind in (mcap.SCHEMA, mcap.CHANNEL, mcap.MESSAGE, mcap.FOOTER, mcap.DATA_END):
            break
    return found if found.end else None


def _write(file: FileIO, data: bytes) -> None:
    while data:
        data = data[file.write(data) :]


def _next(file: FileIO, size: int) -> tuple[int, bytes, int] | None:
    """Kind, content and place of the next record; None where it is not whole."""
    begin = file.tell()
    head = file.read(mcap.HEAD_SIZE)
    if len(head) < mcap.HEAD_SIZE:
        return None
    kind, length = struct.unpack("<BQ", head)
    if begin + mcap.HEAD_SIZE + length > size:
        return None
    return kind, file.read(length), begin


@dataclass(slots=True)
class _Chunk:
    """What is in a chunk."""

    compression: str
    compressed_bytes: int
    uncompressed_bytes: int
    records: list[tuple[int, int, bytes]]  #: schemas and channels: kind, number and the whole record
    messages: dict[int, list[tuple[int, int]]]  #: times [ns] and offsets by channel
    compressed: bool  #: the messages are, each by itself

    @classmethod
    def read(cls, content: bytes) -> _Chunk:
        """Raises `ReaderError`, `struct.error`, `ValueError` or `IndexError` for what is none."""
        uncompressed_bytes, crc, length = struct.unpack_from("<QII", content, 16)
        compression = content[32 : 32 + length].decode()
        (compressed_bytes,) = struct.unpack_from("<Q", content, 32 + length)
        held = content[40 + length : 40 + length + compressed_bytes]
        raw = decompress(held, compression, uncompressed_bytes, crc)
        records, messages, compressed = [], defaultdict(list), False
        at = 0
        while at < len(raw):
            kind, size = struct.unpack_from("<BQ", raw, at)
            if at + mcap.HEAD_SIZE + size > len(raw):
                raise ValueError("a record that leads out of its chunk")
            (number,) = struct.unpack_from("<H", raw, at + mcap.HEAD_SIZE)
            if kind == mcap.MESSAGE:
                messages[number].append((struct.unpack_from("<Q", raw, at + 15)[0], at))
                compressed = compressed or raw[at + 31 : at + 35] == _ZSTD_MAGIC
            elif kind in (mcap.SCHEMA, mcap.CHANNEL):
                records.append((kind, number, raw[at : at + mcap.HEAD_SIZE + size]))
            at += mcap.HEAD_SIZE + size
        return cls(compression, compressed_bytes, uncompressed_bytes, records, dict(messages), compressed)

    def indexes(self) -> bytes:
        """The message indexes that follow the chunk, in the order in which its channels appear."""
        found = b""
        for channel, entries in self.messages.items():
            packed = b"".join(struct.pack("<QQ", *entry) for entry in entries)
            found += mcap.record(mcap.MESSAGE_INDEX, struct.pack("<H", channel) + mcap.text(packed))
        return found


def _add_chunk(found: _Mended, chunk: _Chunk, begin: int, length: int, index_length: int) -> None:
    for kind, number, record in chunk.records:
        (found.schemas if kind == mcap.SCHEMA else found.channels)[number] = record
    found.compressed = found.compressed or chunk.compressed
    times = [time_ns for entries in chunk.messages.values() for time_ns, _ in entries]
    for channel, entries in chunk.messages.items():
        found.counts[channel] += len(entries)
    first_ns, last_ns = min(times, default=2**63 - 1), max(times, default=0)
    found.first_ns, found.last_ns = min(first_ns, found.first_ns), max(last_ns, found.last_ns)
    offsets, at = b"", begin + length
    for channel, entries in chunk.messages.items():
        offsets += struct.pack("<HQ", channel, at)
        at += mcap.HEAD_SIZE + 6 + 16 * len(entries)
    compression = chunk.compression.encode()
    index = struct.pack("<QQQQI", first_ns, last_ns, begin, length, len(offsets)) + offsets
    index += struct.pack("<QI", index_length, len(compression)) + compression
    index += struct.pack("<QQ", chunk.compressed_bytes, chunk.uncompressed_bytes)
    found.chunks.append((begin + length + index_length, mcap.record(mcap.CHUNK_INDEX, index)))


def _summary(found: _Mended) -> bytes:
    """What stands behind the last chunk: the end of the data, the summary and the footer."""
    data_end = mcap.record(mcap.DATA_END, struct.pack("<I", 0))
    statistics = mcap.pack_statistics(
        sum(found.counts.values()),
        len(found.schemas),
        len(found.channels),
        0,
        0,
        len(found.chunks),
        found.first_ns,
        found.last_ns,
        found.counts,
    )
    summary = b"".join(
        [
            *found.schemas.values(),
            *found.channels.values(),
            *(index for _, index in found.chunks),
            mcap.record(mcap.STATISTICS, statistics),
        ]
    )
    footer = mcap.record(mcap.FOOTER, struct.pack("<QQI", found.end + len(data_end), 0, 0))
    return data_end + summary + footer + mcap.MAGIC


def _topics(found: _Mended) -> list[dict[str, Any]]:
    """The topics of a file as the metadata of a bag list them."""
    schemas = {number: mcap.texts(record[11:], 3) for number, record in found.schemas.items()}
    topics = []
    for number, record in found.channels.items():
        (schema,) = struct.unpack_from("<H", record, 11)
        name, encoding = mcap.texts(record[13:], 2)
        type_name, _, text = schemas[schema]
        at = 13 + 4 + len(name.encode()) + 4 + len(encoding.encode()) + 4
        said = mcap.texts(record[at:], 2) if len(record) > at else ["", ""]
        type_hash = ""
        with suppress(DefinitionError):
            type_hash = Definition.of_text(type_name, text).type_hash
        about = {
            "name": name,
            "type": type_name,
            "serialization_format": encoding,
            "offered_qos_profiles": dump_qos_v9(parse_qos(said[1])),
            "type_description_hash": type_hash,
        }
        topics.append({"topic_metadata": about, "message_count": found.counts.get(number, 0)})
    return topics
