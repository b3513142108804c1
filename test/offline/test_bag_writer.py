"""Bags that we write: rosbags and mcap's decoder read them back; what a kill or a full disk leaves of one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from rosbags.highlevel import AnyReader
from rosbags.rosbag2.errors import ReaderError
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from topreward_ros.core.output_files import OutputFileError, left_folders
from topreward_ros.offline import bag_writer
from topreward_ros.offline.bag_recovery import RecoveryError, recover
from topreward_ros.offline.bag_writer import BagWriter, Compression, Storage, qos_profile
from topreward_ros.offline.message_definitions import (
    DefinitionError,
    definition,
    share_folders,
)

ROOT = Path(__file__).resolve().parents[2]
START = 1_700_000_000_000_000_000
STEP = 100_000_000
OURS = ("MonitorInfo", "TaskEvent", "TaskProgress", "TaskReward")


def string(text: str) -> bytes:
    """A std_msgs/String in CDR."""
    data = text.encode() + b"\0"
    return b"\0\1\0\0" + len(data).to_bytes(4, "little") + data


def write_strings(bag: BagWriter, count: int, length: int = 0) -> None:
    topic = bag.add_topic(
        "/said", "std_msgs/msg/String", qos=[qos_profile(reliable=True, transient_local=True)]
    )
    for number in range(count):
        bag.write(topic, string(f"{number} " + "x" * length), START + number * STEP)


def read_strings(bag: Path) -> list[tuple[int, str]]:
    """Times and texts, as rosbags reads them."""
    with AnyReader([bag]) as reader:
        return [(when, reader.deserialize(raw, link.msgtype).data) for link, when, raw in reader.messages()]


def metadata(bag: Path) -> Any:
    return yaml.safe_load((bag / "metadata.yaml").read_text())["rosbag2_bagfile_information"]


@pytest.mark.parametrize(
    ("storage", "compression"),
    [
        *[("mcap", how) for how in ("none", "chunk", "message", "file")],
        *[("sqlite3", how) for how in ("none", "message", "file")],
    ],
)
def test_what_was_written_is_read(tmp_path: Path, storage: Storage, compression: Compression) -> None:
    bag = tmp_path / "bag"
    with BagWriter(bag, storage=storage, compression=compression, longest_file_s=1.0) as writer:
        assert not bag.exists()
        writer.custom_data["outcome"] = "success: \x1b ü"
        write_strings(writer, 25)
        writer.add_topic("/silent", "topreward_ros/msg/TaskEvent")
    assert [(when - START) // STEP for when, _ in read_strings(bag)] == list(range(25))
    said = metadata(bag)
    assert said["version"] == 9
    assert [entry["message_count"] for entry in said["files"]] == [10, 10, 5]
    assert said["relative_file_paths"] == [entry["path"] for entry in said["files"]]
    assert said["duration"]["nanoseconds"] == 24 * STEP
    assert said["custom_data"] == {"outcome": "success: \x1b ü"}
    topics = {entry["topic_metadata"]["name"]: entry for entry in said["topics_with_message_count"]}
    assert topics["/said"]["message_count"] == 25 and topics["/silent"]["message_count"] == 0
    assert topics["/said"]["topic_metadata"]["offered_qos_profiles"][0]["durability"] == "transient_local"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bag"]


@pytest.mark.parametrize("compression", ["none", "chunk"])
def test_a_message_that_the_disk_has_damaged_is_not_read(tmp_path: Path, compression: Compression) -> None:
    bag = tmp_path / "bag"
    with BagWriter(bag, compression=compression) as writer:
        write_strings(writer, 3000, length=800)
    (file,) = bag.glob("*.mcap")
    with file.open("rb") as opened:
        reader = make_reader(opened, validate_crcs=True)
        assert len(list(reader.iter_messages())) == len(read_strings(bag)) == 3000
        chunk = (reader.get_summary() or pytest.fail("no summary")).chunk_indexes[1]
    if compression == "chunk":  # zstd has one of its own
        return
    whole = bytearray(file.read_bytes())
    whole[chunk.chunk_start_offset + chunk.chunk_length // 2] ^= 1
    file.write_bytes(whole)
    with pytest.raises(ReaderError, match="checksum"):
        read_strings(bag)


def types_with_definitions() -> list[str]:
    found = {f"topreward_ros/msg/{name}" for name in OURS}
    for folder in share_folders():
        found |= {f"{path.parts[-3]}/msg/{path.stem}" for path in folder.glob("*/msg/*.msg")}
    return sorted(found)


def test_every_type_is_decoded_by_rosbags_and_by_mcap(tmp_path: Path) -> None:
    types = types_with_definitions()
    with BagWriter(tmp_path / "all") as writer:
        for number, name in enumerate(types):
            described = definition(name)
            store = get_typestore(Stores.EMPTY)
            store.register(get_types_from_msg(described.text, name))
            data = bytes(store.serialize_cdr(empty(store, name), name))
            writer.write(writer.add_topic(f"/t{number}", name), data, START + number)
    with AnyReader([tmp_path / "all"]) as reader:
        assert sum(1 for link, _, raw in reader.messages() if reader.deserialize(raw, link.msgtype)) == len(
            types
        )
    with (tmp_path / "all" / "all_0.mcap").open("rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        decoded = [schema.name for schema, *_ in reader.iter_decoded_messages()]
    assert sorted(decoded) == types


def empty(store: Any, name: str) -> Any:
    """A message with a zero, an empty text or an empty message in each field."""
    import numpy as np
    from rosbags.interfaces import Nodetype

    def value(kind: Any, what: Any) -> Any:
        if kind == Nodetype.BASE:
            base = what[0]
            return "" if "string" in base else base == "" if base == "bool" else 0
        if kind == Nodetype.NAME:
            return empty(store, what)
        (inner, which), count = what
        number = count if kind == Nodetype.ARRAY else 0
        if inner == Nodetype.BASE and "string" not in which[0]:
            dtype = {"char": "uint8", "byte": "uint8", "octet": "uint8"}.get(which[0], which[0])
            return np.zeros(number, dtype)
        return [value(inner, which) for _ in range(number)]

    return store.types[name](*(value(*field) for _, field in store.fielddefs[name][1]))


def test_hashes_are_those_of_the_generator() -> None:
    for name in types_with_definitions():
        stated = [folder / f"{name}.json" for folder in share_folders()]
        for file in filter(Path.exists, stated):
            hashes = {entry["type_name"]: entry for entry in json.loads(file.read_text())["type_hashes"]}
            same = definition(name).type_hash == hashes[name]["hash_string"]
            assert same != bool(re.search(r"\bchar\b", definition(name).text)), name


@pytest.mark.parametrize("name", ["nowhere_msgs/msg/None", "String", "../../etc/passwd", "std_msgs/msg/\x1b"])
def test_an_unknown_type_is_named(name: str) -> None:
    with pytest.raises(DefinitionError) as error:
        definition(name)
    assert str(error.value).isprintable()


def test_an_output_that_exists_or_is_being_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(OutputFileError, match="is there already"):
        BagWriter(tmp_path / "there")
    first = BagWriter(tmp_path / "new")
    with pytest.raises(OutputFileError, match="somebody is writing it"):
        BagWriter(tmp_path / "new")
    write_strings(first, 1)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "somebody's").touch()
    with pytest.raises(OutputFileError, match="is there already"):
        first.close()
    assert first.close(tmp_path / "other") == tmp_path / "other"
    assert len(read_strings(tmp_path / "other")) == 1


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), BagWriter(tmp_path / "bag") as writer:
        write_strings(writer, 3)
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def abandoned(folder: Path, compression: Compression = "none", **options: Any) -> Path:
    """The folder that a writer has left which was killed after 40 messages in chunks of 8."""
    writer = BagWriter(folder / "bag", compression=compression, **options)
    topic = writer.add_topic("/said", "std_msgs/msg/String")
    for number in range(40):
        writer.write(topic, string(f"{number} " + "x" * 200), START + number * STEP)
        if number % 8 == 7:
            writer.flush()
    left = writer.abandon()
    left.release()
    return left.path


@pytest.mark.parametrize("compression", ["none", "chunk", "message"])
def test_a_bag_that_ends_anywhere_is_recovered_to_its_last_whole_chunk(
    tmp_path: Path, compression: Compression
) -> None:
    whole = abandoned(tmp_path, compression)
    (file,) = whole.glob("*/*.mcap")
    data = file.read_bytes()
    recovered_counts = set()
    for size in (*range(0, len(data), max(1, len(data) // 20)), len(data)):
        folder = tmp_path / f"cut{size}"
        (folder / "bag.partial" / "bag_0").mkdir(parents=True)
        torn = folder / "bag.partial" / "bag_0" / "bag_0.mcap"
        torn.write_bytes(data[:size])
        try:
            found = recover(folder / "bag.partial")
        except RecoveryError as error:
            assert "no message" in str(error)
            assert torn.exists() or size == 0 or not recovered_counts
            continue
        texts = read_strings(found.path)
        assert [when for when, _ in texts] == [START + number * STEP for number in range(len(texts))]
        assert len(texts) % 8 == 0 and found.messages == len(texts) == metadata(found.path)["message_count"]
        assert found.path.name == "bag_cut"
        with (found.path / "bag_0.mcap").open("rb") as mended:
            assert make_reader(mended).get_summary().statistics.message_count == len(texts)
        recovered_counts.add(len(texts))
    assert recovered_counts == {8, 16, 24, 32, 40}


def test_files_that_were_closed_are_kept_and_the_writer_that_lives_is_left_alone(tmp_path: Path) -> None:
    writer = BagWriter(tmp_path / "bag", longest_file_s=1.0)
    write_strings(writer, 25)
    assert not left_folders(tmp_path)
    with pytest.raises(RecoveryError, match="still being written"):
        recover(writer.folder)
    writer.flush()
    writer.abandon().release()
    assert left_folders(tmp_path) == [tmp_path / "bag.partial"]
    found = recover(tmp_path / "bag.partial")
    assert found.messages == 25 == len(read_strings(found.path))
    assert not left_folders(tmp_path)


def test_a_kill_between_the_metadata_and_the_name_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kept in range(4):  # files that were moved by then, and at last the folder
        writer = BagWriter(tmp_path / f"bag{kept}", longest_file_s=1.0)
        write_strings(writer, 25)
        writer.custom_data["outcome"] = "success"
        left = iter(range(kept))

        def rename(old: Path, new: Path, left: Iterator[int] = left, rename: Any = os.rename) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            rename(old, new)

        with monkeypatch.context() as patched:
            patched.setattr(bag_writer.os, "rename", rename)
            with pytest.raises(KeyboardInterrupt):
                writer.close()
        writer.abandon().release()
        found = recover(writer.folder)
        assert found.messages == 25 == len(read_strings(found.path))
        assert metadata(found.path)["custom_data"] == {"outcome": "success"}


FULL_DISK = """
import resource, sys
from topreward_ros.offline.bag_recovery import finish_left
from topreward_ros.offline.bag_writer import BagWriter

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
writer = BagWriter(sys.argv[1])
topic = writer.add_topic("/said", "std_msgs/msg/String")
try:
    for number in range(100):
        writer.write(topic, b"\\0\\1\\0\\0\\x51\\xc3\\0\\0" + b"x" * 50_000 + b"\\0", 10**18 + number)
        if number % 5 == 4:
            writer.flush()
except OSError as error:
    print(number, error.strerror)
    folder = writer.abandon()
    finish_left(folder, folder.target, {"complete": "false"})
"""


# In the middle of a chunk, and so soon after one that its index does not fit.
@pytest.mark.parametrize(("limit", "kept_messages"), [(2_000_000, 35), (2_253_700, 40)])
def test_what_fits_on_a_full_disk_is_a_whole_bag(tmp_path: Path, limit: int, kept_messages: int) -> None:
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "bag"), str(limit)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "File too large" in run.stdout
    kept = read_strings(tmp_path / "bag")
    assert [when for when, _ in kept] == [10**18 + number for number in range(kept_messages)]
    assert (tmp_path / "bag" / "bag_0.mcap").stat().st_size <= limit
