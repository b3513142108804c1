"""Existing rosbag2 bags, to be read: what is in them, and their messages as bytes in order of receipt.

A bag is a folder with metadata.yaml (versions up to 9) and files of mcap or sqlite3, one or, where the
recorder split it, several; each file or each message may be compressed with zstd. Files of mcap are read by
rosbags, those of sqlite3 by Python's own library, both read-only. Every way in which a bag can be wrong is a
`BagError`. What messages mean is not known here, and nothing is written but, where files are compressed,
their content into a folder that is given.

Layout: https://github.com/ros2/rosbag2 (metadata, storage plugins), https://mcap.dev/spec.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any, Protocol
from urllib.parse import quote

from topreward_ros.core.errors import UserError
from topreward_ros.core.output_files import PARTIAL
from topreward_ros.core.printable import printable
from topreward_ros.offline import zstd
from topreward_ros.offline.bag_layout import METADATA, NEWEST_VERSION, SUFFIXES
from topreward_ros.offline.bag_metadata import LARGEST, MetadataError, read_information, whole_number

_COMPRESSED = ".zstd"
_SHOWN_TOPICS = 20
_SHOWN_BAGS = 3


class BagError(UserError):
    """A bag cannot be used. The bag itself is as it was."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic of a bag."""

    name: str  #: as it was recorded, with a leading slash or without
    type: str  #: such as sensor_msgs/msg/Image
    count: int  #: messages on it, in all files


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a bag."""

    topic: str
    type: str
    time_ns: int  #: of receipt
    data: bytes  #: CDR, as it was received


class Storage(Protocol):
    """One file of a bag, open for reading."""

    def counts(self) -> dict[tuple[str, str], int]:
        """Messages by name and type of the topic."""

    def start_ns(self) -> int | None:
        """Time of the first message; None where there is none."""

    def end_ns(self) -> int | None:
        """Time of the last message; None where there is none."""

    def messages(self, names: Collection[str]) -> Iterator[Message]:
        """Messages on the topics ``names`` in order of time."""


def looks_like_bag(path: Path) -> bool:
    """Whether ``path`` is a bag, or the rest of one: a folder with its metadata or a file of messages."""
    try:
        return path.is_dir() and any(
            file.name == METADATA or file.name.removesuffix(_COMPRESSED).endswith(tuple(SUFFIXES.values()))
            for file in path.iterdir()
        )
    except OSError:
        return False


class Bag:
    """An existing bag. Nothing of it is ever written."""

    def __init__(self, path: Path) -> None:
        """Read the metadata. Raises `BagError`."""
        self.path = path
        self.metadata = _read_metadata(path)  #: what stands below `INFORMATION`
        information = self.metadata
        try:
            self.version = whole_number(information["version"], "version")  #: of the metadata
            self.storage = str(information["storage_identifier"])  #: mcap or sqlite3
            names = [PurePosixPath(name).name for name in information["relative_file_paths"]]
            mode = str(information.get("compression_mode") or "").lower()
            self.compression = "" if mode == "none" else mode  #: file, message, or empty
            compressor = str(information.get("compression_format") or "")
            topics = information["topics_with_message_count"] or []
            self._counted = {  # by the recorder
                (str(entry["topic_metadata"]["name"]), str(entry["topic_metadata"]["type"])): whole_number(
                    entry["message_count"], "message_count"
                )
                for entry in topics
            }
            formats = {str(entry["topic_metadata"]["serialization_format"]) for entry in topics}
            duration = information.get("duration") or {}
            stated_ns = whole_number(duration.get("nanoseconds") or 0, "duration", -LARGEST)
            self.duration_ns = max(0, stated_ns)
            _check_numbers(information)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            why = str(error) if isinstance(error, MetadataError) else f"{type(error).__name__}: {error}"
            raise self._broken_metadata(why) from error
        if self.version > NEWEST_VERSION:
            raise BagError(
                f"{self.shown} has metadata of version {self.version}: up to {NEWEST_VERSION} they are read"
            )
        if self.storage not in SUFFIXES:
            raise BagError(
                f"{self.shown} is stored as '{printable(self.storage, 40)}': mcap and sqlite3 are read; "
                "convert it with `ros2 bag convert`"
            )
        if self.compression not in ("", "file", "message") or (self.compression and compressor != "zstd"):
            raise BagError(
                f"{self.shown} is compressed by {printable(self.compression, 40)} with "
                f"'{printable(compressor, 40)}': zstd by file or by message is read"
            )
        if formats - {"cdr"}:
            others = printable(", ".join(sorted(formats - {"cdr"})), 100)
            raise BagError(f"{self.shown} holds messages serialised as {others}: CDR is read")
        self.files = [path / name for name in names]  #: as they lie in the folder, in order
        missing = [file.name for file in self.files if not file.is_file()]
        if missing or not names:
            what = printable(", ".join(missing), 200) or "any file"
            raise BagError(
                f"{self.shown} lacks {what}, which its {METADATA} names: copy the whole folder again, or "
                "make the metadata anew with `ros2 bag reindex`"
            )
        for file in self.files:
            log = file.with_name(f"{file.name}-wal")
            if log.exists() and log.stat().st_size:
                raise BagError(
                    f"{printable(str(file))} was not closed: a -wal file beside it holds messages that are "
                    "not in it yet; is it still recorded? Else open and close it once with sqlite3"
                )

    @property
    def shown(self) -> str:
        """Its path, fit to be shown."""
        return printable(str(self.path))

    @contextmanager
    def opened(self, folder: Path) -> Iterator[OpenBag]:
        """The bag, open for reading. Where its files are compressed, their content is put into ``folder``
        first. Raises `BagError`; `OSError` where ``folder`` cannot be written."""
        files = self.files
        if self.compression == "file":
            files = [self._decompressed(file, folder) for file in files]
        yield OpenBag(self, files)

    def _decompressed(self, file: Path, folder: Path) -> Path:
        target = folder / file.name.removesuffix(_COMPRESSED)
        try:
            zstd.decompress_file(file, target)
        except zstd.TooLargeError as error:
            raise BagError(
                f"{printable(str(file))} cannot be used: {error}; make room in "
                f"{printable(str(folder))}, unless it is damaged, or was made to fill the disk"
            ) from error
        except (zstd.ZstdError, EOFError) as error:
            raise self.broken(file, error) from error
        return target

    def broken(self, file: Path, error: Exception) -> BagError:
        """What to say of a file that cannot be read."""
        reason = printable(str(error) or type(error).__name__, 200)
        tool = "mcap recover" if self.storage == "mcap" else "sqlite3 FILE .recover"
        return BagError(
            f"{printable(str(file))} cannot be read ({reason}): it is damaged, or was cut off; copy it "
            f"again, or save what is left with `{tool}` and then `ros2 bag reindex`"
        )

    def _broken_metadata(self, why: str) -> BagError:
        return BagError(
            f"{printable(str(self.path / METADATA))} is no metadata of a bag ({printable(why, 200)}): make "
            "it anew with `ros2 bag reindex`"
        )


class OpenBag:
    """A bag whose messages can be read."""

    def __init__(self, bag: Bag, files: list[Path]) -> None:
        self.bag = bag
        self.files = files  #: those of the bag, or where their content was put
        counts: dict[tuple[str, str], int] = dict.fromkeys(bag._counted, 0)
        self.starts_ns: list[int | None] = []  #: time of the first message of each file
        self.end_ns = 0  #: time of the last message of all, on whatever topic
        for file in files:
            with self._reading(file) as storage:
                self.starts_ns.append(storage.start_ns())
                self.end_ns = max(self.end_ns, storage.end_ns() or 0)
                for topic, count in storage.counts().items():
                    counts[topic] = counts.get(topic, 0) + count
        for topic, counted in bag._counted.items():
            if counts[topic] < counted:
                raise BagError(
                    f"{bag.shown} lacks messages: {METADATA} counts {counted} on {printable(topic[0])}, and "
                    f"its index finds {counts[topic]}; the index is broken, or a file was cut: make it anew "
                    "with `ros2 bag reindex`"
                )
        self.topics = tuple(Topic(*topic, count) for topic, count in sorted(counts.items()))
        if not any(topic.count for topic in self.topics):
            raise BagError(f"{bag.shown} holds no messages at all: record it again")

    def topic(self, name: str) -> Topic | None:
        """The topic of that name, with a leading slash or without; None where there is none."""
        return next((topic for topic in self.topics if slashed(topic.name) == slashed(name)), None)

    def types_on(self, name: str) -> list[str]:
        """Types of the topics of that name that have messages."""
        return [topic.type for topic in self.topics if slashed(topic.name) == slashed(name) and topic.count]

    def topics_text(self, names: Collection[str] = ()) -> str:
        """What topics there are, with type and number of messages, for an error; of those called ``names``,
        with a leading slash, where there are any."""
        topics = [topic for topic in self.topics if not names or slashed(topic.name) in names]
        texts = [
            f"{printable(topic.name, 100)} ({printable(topic.type, 100)}, {topic.count})"
            for topic in topics[:_SHOWN_TOPICS]
        ]
        more = len(topics) - len(texts)
        return ", ".join(texts) + (f" and {more} more" if more else "")

    def messages(self, names: Collection[str]) -> Iterator[Message]:
        """Messages on the topics of these names, with a slash or without, file after file. Raises
        `BagError`."""
        wanted = {slashed(name) for name in names}
        recorded = {topic.name for topic in self.topics if slashed(topic.name) in wanted}
        for file in self.files:
            with self._reading(file) as storage:
                counted = sum(count for (name, _), count in storage.counts().items() if name in recorded)
                found = 0
                for message in storage.messages(recorded):
                    found += 1
                    yield message
                if found != counted:
                    raise ValueError(f"{found} messages are found, and its index counts {counted}")

    @contextmanager
    def _reading(self, file: Path) -> Iterator[Storage]:
        open_ = _mcap if self.bag.storage == "mcap" else _sqlite
        try:
            with open_(file, self.bag.compression == "message") as storage:
                yield storage
        except zstd.TooLargeError as error:
            raise BagError(
                f"{printable(str(file))} cannot be used: {error}; it is damaged, or was made to fill memory"
            ) from error
        except UserError:
            raise
        except OSError as error:
            if error.errno is None or error.filename is None:
                raise self.bag.broken(file, error) from error
            raise BagError(f"{printable(str(file))} cannot be read ({error.strerror})") from error
        except Exception as error:  # rosbags meets damaged bytes with errors of many kinds
            raise self.bag.broken(file, error) from error


def slashed(name: str) -> str:
    """The name of a topic with its leading slash, which some recorders leave out."""
    return name if name.startswith("/") else f"/{name}"


class _Mcap:
    def __init__(self, reader: Any, compressed: bool) -> None:
        self._reader = reader
        self._compressed = compressed

    def counts(self) -> dict[tuple[str, str], int]:
        counts: dict[tuple[str, str], int] = {}
        for connection in self._reader.connections:
            topic = connection.topic, connection.msgtype
            counts[topic] = counts.get(topic, 0) + connection.msgcount
        return counts

    def start_ns(self) -> int | None:
        return self._reader.start_time if self._reader.message_count else None

    def end_ns(self) -> int | None:
        return self._reader.end_time - 1 if self._reader.message_count else None  # rosbags adds one

    def messages(self, names: Collection[str]) -> Iterator[Message]:
        connections = [it for it in self._reader.connections if it.topic in names]
        if not connections:
            return
        for connection, time_ns, data in self._reader.messages(connections):
            content = zstd.decompress(data) if self._compressed else bytes(data)
            yield Message(connection.topic, connection.msgtype, time_ns, content)


def bound_chunks() -> None:
    """Have rosbags give a chunk of mcap no more memory than it says it needs, and `zstd.MOST_BYTES`."""
    from rosbags.rosbag2 import storage_mcap

    storage_mcap.DECOMPRESSORS.update(
        zstd=lambda data, size: zstd.decompress(data, min(size, zstd.MOST_BYTES)), lz4=_lz4_decompressed
    )


def _lz4_decompressed(data: bytes, size: int) -> bytes:
    most = min(size, zstd.MOST_BYTES)
    frame = import_module("lz4.frame").LZ4FrameDecompressor()  # of the library that rosbags brings
    content: bytes = frame.decompress(data, most + 1)
    if len(content) > most:
        raise zstd.TooLargeError(f"a part of it has more than {most} bytes once it is decompressed")
    return content


@contextmanager
def _mcap(file: Path, compressed: bool) -> Iterator[Storage]:
    from rosbags.rosbag2 import Reader

    bound_chunks()
    with Reader(file) as reader:
        yield _Mcap(reader, compressed)


class _Sqlite:
    def __init__(self, database: sqlite3.Connection, compressed: bool) -> None:
        self._database = database
        self._compressed = compressed
        self._topics = {
            number: (str(name), str(kind))
            for number, name, kind in database.execute("SELECT id, name, type FROM topics")
        }

    def counts(self) -> dict[tuple[str, str], int]:
        counts = dict.fromkeys(self._topics.values(), 0)
        rows = self._database.execute("SELECT topic_id, count(*) FROM messages GROUP BY topic_id")
        for number, count in rows:
            if number in self._topics:
                counts[self._topics[number]] += count
        return counts

    def start_ns(self) -> int | None:
        ((start_ns,),) = self._database.execute("SELECT min(timestamp) FROM messages")
        return None if start_ns is None else int(start_ns)

    def end_ns(self) -> int | None:
        ((end_ns,),) = self._database.execute("SELECT max(timestamp) FROM messages")
        return None if end_ns is None else int(end_ns)

    def messages(self, names: Collection[str]) -> Iterator[Message]:
        numbers = [number for number, (name, _) in self._topics.items() if name in names]
        rows = self._database.execute(
            "SELECT topic_id, timestamp, data FROM messages "
            f"WHERE topic_id IN ({','.join('?' * len(numbers))}) ORDER BY timestamp, id",
            numbers,
        )
        for number, time_ns, data in rows:
            content = zstd.decompress(data) if self._compressed else bytes(data)
            yield Message(*self._topics[number], int(time_ns), content)


@contextmanager
def _sqlite(file: Path, compressed: bool) -> Iterator[Storage]:
    # Immutable: no lock and no journal is made beside a file that is not ours.
    address = f"file:{quote(str(file.absolute()))}?immutable=1"
    with closing(sqlite3.connect(address, uri=True)) as database:
        yield _Sqlite(database, compressed)


def _check_numbers(information: dict[str, Any]) -> None:
    """Raise errors of several kinds where what a copy of the bag counts on is no number."""
    whole_number(information.get("message_count") or 0, "message_count")
    for entry in information.get("files") or ():
        whole_number(entry["message_count"], "message_count")
        whole_number(entry["starting_time"]["nanoseconds_since_epoch"], "starting_time", -LARGEST)
        whole_number(entry["duration"]["nanoseconds"], "duration", -LARGEST)


def _without_metadata(path: Path) -> str:
    """What a folder without metadata is, as a predicate, and the mend."""
    shown = printable(str(path))
    if path.name.endswith(PARTIAL):
        return (
            f"has no {METADATA}: it is still being written, or its writer was cut off; make a bag of it by "
            f"`topreward record --recover --output {printable(str(path.parent))}`"
        )
    if not looks_like_bag(path):
        try:
            inside = sorted(it.name for it in path.iterdir() if looks_like_bag(it))
        except OSError:
            inside = []
        if inside:
            names = printable(", ".join(inside[:_SHOWN_BAGS]), 300)
            more = " and more" if len(inside) > _SHOWN_BAGS else ""
            return f"is a folder of bags, and no bag: name one of them ({names}{more})"
        return f"has no {METADATA} and no files of a bag: name the folder of a bag"
    return (
        f"has no {METADATA}: its recorder was cut off, or it was not copied; make it anew with "
        f"`ros2 bag reindex {shown}`"
    )


def _read_metadata(path: Path) -> dict[str, Any]:
    file = path / METADATA
    shown = printable(str(path))
    if not path.is_dir():
        raise BagError(f"{shown} is no folder: name the folder of a bag, in which its {METADATA} lies")
    if not file.exists():
        raise BagError(f"{shown} {_without_metadata(path)}")
    try:
        return read_information(file)
    except (OSError, MetadataError) as error:
        raise BagError(
            f"{printable(str(file))} cannot be read ({printable(str(error), 200)}): make it anew with "
            f"`ros2 bag reindex {shown}`"
        ) from error
