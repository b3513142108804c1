"""A bag of any kind comes back with our topics in it and everything else byte for byte."""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import sqlite3
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from mcap.reader import make_reader
from mcap.writer import CompressionType, Writer
from mcap_ros2.decoder import DecoderFactory
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import Reader, storage_mcap

from test import bags
from topreward_ros.core.errors import UserError
from topreward_ros.core.events import EventType
from topreward_ros.core.frames import NS_PER_S
from topreward_ros.core.output_files import OutputFileError
from topreward_ros.defaults import DEMO_TASK, DEMO_VIDEO, monitor_defaults, shared_file
from topreward_ros.offline import bags as offline_bags
from topreward_ros.offline import zstd
from topreward_ros.offline.annotate_bag import annotate_bag
from topreward_ros.offline.annotation_report import (
    REPORT,
    Annotation,
    AnnotationSettings,
    BagJob,
    done_before,
)
from topreward_ros.offline.message_types import MessageTypes
from topreward_ros.offline.raw_samples import rosbags_image
from topreward_ros.offline.recorded_episodes import EVENT, PROGRESS, recorded_episodes
from topreward_ros.offline.score_video import score_video
from topreward_ros.offline.side_by_side import score_side_by_side
from topreward_ros.scoring.base import PrefixScorer, ScorerSettings
from topreward_ros.scoring.registry import load_scorer

OURS = {"/task_progress", "/task_reward", "/task_event", "/monitor/info"}
SECONDS = 3.0

Annotate = Callable[..., Annotation]


@pytest.fixture(scope="module")
def scorer() -> Iterator[PrefixScorer]:
    parameters = {**monitor_defaults(), "scorer_threads": 1}
    scorer = load_scorer("embedded", ScorerSettings.from_parameters(parameters))
    yield scorer
    scorer.close()


@pytest.fixture(scope="module")
def frames() -> list[tuple[int, np.ndarray]]:
    return bags.video_frames(seconds=SECONDS)


@pytest.fixture
def annotate(scorer: PrefixScorer, tmp_path: Path) -> Annotate:
    """Annotates a bag with the shipped model, to ``out`` beside it; raises the error that prevents it."""

    def run(
        bag: Path,
        task: str = "",
        namespace: str = "",
        out: str = "out",
        whole: bool = False,
        **parameters: Any,
    ) -> Annotation:
        settings = replace(settings_of(namespace, **parameters), whole=whole)
        job = BagJob(bag, tmp_path / out, task)
        episode = annotate_bag(job, settings, scorer.info, rosbags_image)
        ((_, outcome),) = score_side_by_side([episode], scorer, 1)
        if isinstance(outcome, UserError):
            raise outcome
        return outcome

    return run


def settings_of(namespace: str = "", **parameters: Any) -> AnnotationSettings:
    chosen = "image_topics" in parameters
    return AnnotationSettings({**monitor_defaults(), **parameters}, namespace, chosen)


def recorded(frames: list[tuple[int, np.ndarray]], **of_camera: Any) -> list[bags.Recorded]:
    return [*bags.camera(frames, **of_camera), bags.instruction(), *bags.chatter(SECONDS)]


def content(bag: Path) -> tuple[dict[str, Any], list[tuple[str, int, bytes]]]:
    """What a reader finds: all that is said of each topic, and every message in order."""
    with Reader(bag) as reader:
        topics = {it.topic: (it.msgtype, it.ext, it.digest, it.msgdef) for it in reader.connections}
        messages = [(it.topic, time_ns, bytes(data)) for it, time_ns, data in reader.messages()]
        assert len(messages) == reader.message_count
    return topics, messages


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def read(bag: Path, topic: str) -> list[Any]:
    """Messages on a topic, deserialised by the definitions in the bag."""
    with AnyReader([bag]) as reader:
        connections = [it for it in reader.connections if it.topic == topic]
        return [reader.deserialize(data, it.msgtype) for it, _, data in reader.messages(connections)]


def read_mcap(file: Path) -> list[tuple[str, int, Any]]:
    """Every message of a file by mcap's own library, which checks checksums and the index."""
    with file.open("rb") as stream:
        reader = make_reader(stream, validate_crcs=True, decoder_factories=[DecoderFactory()])
        found = [(ch.topic, msg.log_time, it) for _, ch, msg, it in reader.iter_decoded_messages()]
        summary = reader.get_summary()
        assert summary is not None and summary.statistics is not None
        assert summary.statistics.message_count == len(found)
        assert summary.statistics.chunk_count == len(summary.chunk_indexes)
        assert summary.statistics.channel_count == len(summary.channels)
        assert summary.statistics.metadata_count == len(list(reader.iter_metadata()))
    return found


def has_right_checksum(file: Path) -> bool:
    """Whether the checksum of the index is right, which mcap's library does not look at."""
    data = file.read_bytes()
    start, _, stated = struct.unpack_from("<QQI", data, len(data) - 28)
    return bool(crc32(data[start : len(data) - 12]) == stated)


KINDS = [
    {"storage": "mcap"},
    {"storage": "mcap", "compression": "chunk", "longest_file_s": 1.2},
    {"storage": "mcap", "compression": "message"},
    {"storage": "mcap", "compression": "file", "longest_file_s": 1.2},
    {"storage": "sqlite3"},
    {"storage": "sqlite3", "compression": "file", "longest_file_s": 1.2},
    {"storage": "sqlite3", "compression": "message", "longest_file_s": 1.2},
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_a_copy_holds_ours_and_all_else_as_it_was(kind, frames, annotate: Annotate, tmp_path: Path) -> None:
    bag = bags.write_bag(tmp_path / "bag", recorded(frames), **kind)
    (bag / "notes.txt").write_text("the gripper slipped")
    before = files(bag)
    done = annotate(bag)
    assert done.scores == 6 and done.outcomes == ("ABORTED",)
    assert files(bag) == before
    topics, messages = content(bag)
    new_topics, new_messages = content(tmp_path / "out")
    assert {name: about for name, about in new_topics.items() if name not in OURS} == topics
    assert [message for message in new_messages if message[0] not in OURS] == messages
    assert new_topics.keys() - topics.keys() == OURS
    times = [time_ns for _, time_ns, _ in new_messages]
    assert times == sorted(times)
    assert (tmp_path / "out" / "notes.txt").read_text() == "the gripper slipped"
    assert len(list((tmp_path / "out").glob("bag_*"))) == len(list(bag.glob("bag_*")))
    if kind["storage"] == "mcap" and kind.get("compression") != "file":
        found = (
            [it for file in sorted((tmp_path / "out").glob("*.mcap")) for it in read_mcap(file)]
            if (kind.get("compression") != "message")
            else []
        )
        assert not found or [(topic, time_ns) for topic, time_ns, _ in found] == [
            it[:2] for it in new_messages
        ]
        assert not found or sum(topic == "/task_progress" for topic, _, _ in found) == len(
            read(tmp_path / "out", "/task_progress")
        )


@pytest.mark.parametrize(
    "layout",
    [
        {"chunk_size": 200_000, "compression": CompressionType.LZ4, "enable_data_crcs": True},
        {"use_chunking": False},
        {"chunk_size": 200_000, "compression": CompressionType.ZSTD, "use_summary_offsets": False},
    ],
    ids=["lz4", "no chunks", "no summary offsets"],
)
def test_mcap_of_other_writers(layout: dict[str, Any], frames, annotate: Annotate, tmp_path: Path) -> None:
    """With an attachment and metadata of others, which stay; and with checksums."""
    bag = bags.write_bag(tmp_path / "bag", recorded(frames))
    topics, messages = content(bag)
    with (bag / "bag_0.mcap").open("wb") as file:
        writer = Writer(file, **layout)
        writer.start(profile="ros2", library="other")
        channels = {}
        for name, (kind, _, _, about) in topics.items():
            schema = writer.register_schema(kind, "ros2msg", about.data.encode())
            channels[name] = writer.register_channel(name, "cdr", schema)
        for number, (name, time_ns, data) in enumerate(messages):
            if number == 50:
                writer.add_attachment(1, 2, "calibration", "text/plain", b"0 1 2")
            writer.add_message(channels[name], time_ns, data, time_ns - 5, number)
        writer.add_metadata("operator", {"name": "Ada"})
        writer.finish()
    annotate(bag)
    assert has_right_checksum(bag / "bag_0.mcap") and has_right_checksum(tmp_path / "out" / "bag_0.mcap")
    found = read_mcap(tmp_path / "out" / "bag_0.mcap")
    assert [time_ns for _, time_ns, _ in found] == sorted(time_ns for _, time_ns, _ in found)
    assert sum(name in OURS for name, _, _ in found) == len(found) - len(messages) >= 20
    assert [it for it in content(tmp_path / "out" / "bag_0.mcap")[1] if it[0] not in OURS] == messages
    with (tmp_path / "out" / "bag_0.mcap").open("rb") as file:
        reader = make_reader(file)
        (attachment,) = reader.iter_attachments()
        assert attachment.data == b"0 1 2" and attachment.name == "calibration"
        (metadata,) = reader.iter_metadata()
        assert metadata.metadata == {"name": "Ada"}
        kept = [it for _, channel, it in reader.iter_messages() if channel.topic not in OURS]
        assert [it.sequence for it in kept] == list(range(len(messages)))
        assert all(it.publish_time == it.log_time - 5 for it in kept)


ANNOUNCED = [  # by `topreward record --no-episodes` without a monitor
    ("/task_event", EVENT), ("/task_state", PROGRESS), ("/task_progress", PROGRESS),
    ("/task_reward", "topreward_ros/msg/TaskReward"), ("/monitor/info", "topreward_ros/msg/MonitorInfo"),
    ("/task_instruction", bags.STRING),
]  # fmt: skip


@pytest.mark.parametrize(
    "kind",
    [
        {"storage": "mcap", "compression": "chunk"},
        {"storage": "mcap", "compression": "file", "longest_file_s": 1.2},
        {"storage": "sqlite3", "longest_file_s": 1.2},
        {"storage": "sqlite3", "compression": "message"},
    ],
    ids=lambda kind: "-".join(map(str, kind.values())),
)  # fmt: skip
def test_topics_that_were_announced_and_never_published_are_ours(
    kind: dict[str, Any], frames, annotate: Annotate, tmp_path: Path
) -> None:
    bag = bags.write_bag(tmp_path / "bag", bags.camera(frames), ANNOUNCED, **kind)
    before = files(bag)
    assert annotate(bag, DEMO_TASK).scores == 6
    assert files(bag) == before
    made = tmp_path / "out"
    topics, messages = content(made)
    assert topics.keys() == {"/image", *(name for name, _ in ANNOUNCED)}
    found = {name: sum(topic == name for topic, _, _ in messages) for name in topics}
    assert found["/monitor/info"] == 1 and found["/task_reward"] == 7 and found["/task_event"] == 3
    listed = bags.metadata_of(made)
    counts = [
        (it["topic_metadata"]["name"], it["message_count"]) for it in listed["topics_with_message_count"]
    ]
    assert sorted(counts) == sorted(found.items())
    assert listed["message_count"] == len(messages) == sum(it["message_count"] for it in listed["files"])
    assert [it for it in messages if it[0] not in OURS] == content(bag)[1]
    (qos,) = topics["/monitor/info"][1].offered_qos_profiles
    assert qos.durability.name == "TRANSIENT_LOCAL"
    assert len(read(made, "/task_progress")) == found["/task_progress"] > 6
    if kind == {"storage": "mcap", "compression": "chunk"}:
        by_mcap = [it for file in sorted(made.glob("*.mcap")) for it in read_mcap(file)]
        assert sorted(it[:2] for it in by_mcap) == sorted(it[:2] for it in messages)
    if kind["storage"] == "sqlite3":
        for file in made.glob("*.db3"):
            with closing(sqlite3.connect(file)) as database:
                kinds = [kind for (kind,) in database.execute("SELECT topic_type FROM message_definitions")]
                rows = [row for row in database.execute("SELECT name FROM topics")]
            assert len(kinds) == len(set(kinds)) and len(rows) == len(set(rows))


@pytest.mark.parametrize("summary", [True, False], ids=["index", "no index"])
def test_announced_topics_of_an_mcap_file_without_chunks(
    summary: bool, frames, annotate: Annotate, tmp_path: Path
) -> None:
    bag = bags.write_bag(tmp_path / "bag", bags.camera(frames))
    topics, messages = content(bag)
    with (bag / "bag_0.mcap").open("wb") as file:
        use = {"use_statistics": summary, "repeat_channels": summary, "repeat_schemas": summary}
        writer = Writer(file, use_chunking=False, use_summary_offsets=False, **use)
        writer.start(profile="ros2", library="other")
        for name, kind in ANNOUNCED:
            writer.register_channel(name, "cdr", writer.register_schema(kind, "ros2msg", b"uint8 older\n"))
        (about,) = topics.values()
        images = writer.register_schema(about[0], "ros2msg", about[3].data.encode())
        channel = writer.register_channel("/image", "cdr", images)
        for _, time_ns, data in messages:
            writer.add_message(channel, time_ns, data, time_ns)
        writer.finish()
    metadata = bags.metadata_of(bag)
    (entry,) = metadata["topics_with_message_count"]
    metadata["topics_with_message_count"] += [
        {"topic_metadata": {**entry["topic_metadata"], "name": name, "type": kind}, "message_count": 0}
        for name, kind in ANNOUNCED
    ]
    bags.set_metadata(bag, metadata)
    annotate(bag, DEMO_TASK)
    with (tmp_path / "out" / "bag_0.mcap").open("rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        found = [(channel.topic, it) for _, channel, _, it in reader.iter_decoded_messages()]
    assert sum(topic == "/task_progress" for topic, _ in found) > 6
    assert all(hasattr(it, "header") for _, it in found)  # by our definition, and not by the older one


def test_a_name_of_ours_that_has_another_type_is_refused_as_such(
    frames, annotate: Annotate, tmp_path: Path
) -> None:
    bag = bags.write_bag(tmp_path / "bag", recorded(frames), [("/task_reward", "std_msgs/msg/Float32")])
    with pytest.raises(
        UserError, match=r"has /task_reward already, as std_msgs/msg/Float32 \(0 messages\).*--namespace"
    ):
        annotate(bag)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("version", "storage"), [(4, "sqlite3"), (5, "mcap"), (6, "sqlite3"), (7, "sqlite3"), (8, "mcap")]
)
def test_older_bags_stay_of_their_version(
    version, storage, frames, annotate: Annotate, tmp_path: Path
) -> None:
    messages = [*recorded(frames), bags.Recorded(bags.START_NS, "/own", "own_msgs/msg/Own", b"\0\1\0\0\7")]
    bag = bags.write_bag(tmp_path / "bag", [it for it in messages if storage == "mcap" or it.topic != "/own"],
                         storage=storage, definition=own_definition)  # fmt: skip
    bags.downgrade(bag, version)
    assert annotate(bag).scores == 6
    made = bags.metadata_of(tmp_path / "out")
    assert made["version"] == version and made.keys() == bags.metadata_of(bag).keys()
    for entry in made["topics_with_message_count"]:
        assert isinstance(entry["topic_metadata"]["offered_qos_profiles"], str)
        assert ("type_description_hash" in entry["topic_metadata"]) == (version >= 7)
    assert [it for it in content(tmp_path / "out")[1] if it[0] not in OURS] == content(bag)[1]
    with Reader(tmp_path / "out") as reader:
        (qos,) = next(it.ext.offered_qos_profiles for it in reader.connections if it.topic == "/monitor/info")
        assert qos.durability.name == "TRANSIENT_LOCAL" and qos.depth == 1


def own_definition(kind: str) -> Any:
    from topreward_ros.offline.message_definitions import Definition, definition

    return Definition.of_text(kind, "uint8 x\n") if kind == "own_msgs/msg/Own" else definition(kind)


def test_the_curve_is_that_of_the_video(
    frames, scorer: PrefixScorer, annotate: Annotate, tmp_path: Path
) -> None:
    """Raw pixels, so that both see the same: every number of every score, and the events."""
    whole = bags.video_frames()
    bag = bags.write_bag(tmp_path / "bag", [*bags.camera(whole, compressed=False), bags.instruction()])
    done = annotate(bag)
    curve = score_video(shared_file(DEMO_VIDEO), DEMO_TASK, scorer, settings_of_monitor())
    seen = [it for it in read(tmp_path / "out", "/task_progress") if it.num_frames]
    seen = list({(it.header.stamp.sec, it.header.stamp.nanosec): it for it in reversed(seen)}.values())[::-1]
    assert [it.progress for it in seen] == pytest.approx([it.progress for it in curve.points], abs=1e-4)
    assert [it.log_prob for it in seen] == pytest.approx([it.score.log_prob for it in curve.points], abs=1e-4)
    stamps = [it.header.stamp.sec * NS_PER_S + it.header.stamp.nanosec - bags.START_NS for it in seen]
    assert stamps == [round(point.time_s * NS_PER_S) for point in curve.points]
    assert [it.type for it in read(tmp_path / "out", "/task_event")] == [0, 1, 9]
    assert done.outcomes == ("SUCCESS",)
    assert [it.reward for it in read(tmp_path / "out", "/task_reward")] == pytest.approx(
        [it.reward for it in curve.points], abs=1e-4
    )
    (info,) = read(tmp_path / "out", "/monitor/info")
    assert info.model_id == "embedded" and info.camera_names == ["/image"]
    latencies = {it.latency.nanosec for it in seen}
    assert latencies == {bags.LATENCY_NS}


def settings_of_monitor() -> Any:
    from topreward_ros.core.monitor_settings import MonitorSettings

    return MonitorSettings.from_parameters(monitor_defaults())


def test_where_stamps_are_zero_the_time_of_receipt_stands_in(
    frames, annotate: Annotate, tmp_path: Path
) -> None:
    bag = bags.write_bag(tmp_path / "bag", recorded(frames, topic="image", stamped=False))
    assert any("the time of receipt stands in" in note for note in annotate(bag).notes)
    report = json.loads((tmp_path / "out" / REPORT).read_text())
    assert report["stamps"].startswith("time of receipt") and report["scores"] == 6
    assert "time of receipt" in bags.metadata_of(tmp_path / "out")["custom_data"]["topreward_annotation"]
    first = read(tmp_path / "out", "/task_progress")[-1]
    assert first.header.stamp.sec >= bags.START_NS // NS_PER_S


def test_several_cameras_are_tiled_in_a_namespace(frames, annotate: Annotate, tmp_path: Path) -> None:
    late = [(time_ns, image) for time_ns, image in frames if time_ns > NS_PER_S]
    bag = bags.write_bag(
        tmp_path / "bag",
        [*bags.camera(frames, "/arm/front"), *bags.camera(late, "/wrist/image_raw", compressed=False)],
    )
    topics = {"image_topics": ["front", "/wrist/image_raw"], "camera_layout": "tile"}
    done = annotate(bag, DEMO_TASK, "/arm", **topics)
    assert done.scores == 4 and any("no image on /wrist/image_raw yet" in note for note in done.notes)
    (info,) = read(tmp_path / "out", "/arm/monitor/info")
    assert list(info.camera_names) == ["/arm/front", "/wrist/image_raw"] and info.camera_layout == "tile"


def test_cameras_and_layout_are_those_of_the_recorded_monitor(
    frames, annotate: Annotate, tmp_path: Path
) -> None:
    """Where nothing else is said; and what it draws for people is no camera of the bag."""
    drawn = bags.camera(frames, "/monitor/debug_image", compressed=False)
    both = [
        *bags.camera(frames, "/front"),
        *bags.camera(frames, "/wrist/image_raw", compressed=False),
        *drawn,
    ]
    bag = bags.write_bag(tmp_path / "bag", [*both, bags.monitor_info(["/front", "/wrist/image_raw"], "tile")])
    done = annotate(bag, DEMO_TASK, "/again")
    (info,) = read(tmp_path / "out", "/again/monitor/info")
    assert list(info.camera_names) == ["/front", "/wrist/image_raw"] and info.camera_layout == "tile"
    assert any("/monitor/info says: /front /wrist/image_raw (tile)" in note for note in done.notes)
    annotate(bag, DEMO_TASK, "/again", out="one", image_topics=["/wrist/image_raw"])
    (info,) = read(tmp_path / "one", "/again/monitor/info")
    assert list(info.camera_names) == ["/wrist/image_raw"] and info.camera_layout == "primary"
    alone = bags.write_bag(tmp_path / "alone", [*bags.camera(frames, "/cam"), *drawn])
    assert any("from /cam" in note for note in annotate(alone, DEMO_TASK, out="two").notes)


def test_what_the_recorded_monitor_had_otherwise_is_told(
    frames, scorer: PrefixScorer, annotate: Annotate, tmp_path: Path
) -> None:
    other = {
        "model_id": "Qwen/Qwen3-VL-8B-Instruct", "model_revision": "abc", "success_threshold": -0.3,
        "sample_rate": 4.0, "prompt_hash": "0" * 16, "max_pixels": 7, "dtype": "bfloat16", "device": "cuda:0",
    }  # fmt: skip
    bag = bags.write_bag(tmp_path / "bag", [*recorded(frames), bags.monitor_info(["/image"], **other)])
    done = annotate(bag, "", "/again")
    threshold = monitor_defaults()["success_threshold"]
    (told,) = [note for note in done.notes if "other settings" in note]
    assert done.other_settings and "\n" not in told
    assert "model_id Qwen/Qwen3-VL-8B-Instruct (here embedded)" in told and "device" not in told
    assert f"success_threshold -0.3 (here {threshold:g})" in told and "sample_rate 4 (here 2)" in told
    assert "episode_timeout" not in told and "camera" not in told
    ours = {
        "model_id": "a/folder",
        "model_revision": scorer.info.revision,
        "prompt_hash": scorer.info.prompt_hash,
        "max_pixels": scorer.info.max_pixels,
        "dtype": scorer.info.dtype,
    }
    same = bags.write_bag(tmp_path / "same", [*recorded(frames), bags.monitor_info(["/image"], **ours)])
    done = annotate(same, "", "/again", out="same_out")
    assert not done.other_settings and not [note for note in done.notes if "other settings" in note]


def test_of_several_recorded_monitors_that_of_the_robot_counts(
    frames, annotate: Annotate, tmp_path: Path
) -> None:
    infos = [
        bags.monitor_info([f"/{arm}/cam"], topic=f"{arm}/monitor/info", success_threshold=number)
        for arm, number in (("arm", -0.1), ("arm2", -0.2))
    ]
    both = [*bags.camera(frames, "/arm/cam"), *bags.camera(frames, "/arm2/cam")]
    bag = bags.write_bag(tmp_path / "bag", [*both, *infos])
    with pytest.raises(UserError, match="name the camera"):
        annotate(bag, DEMO_TASK, "/again")
    told = annotate(bag, DEMO_TASK, "/again", image_topics=["/arm2/cam"]).notes
    assert any("success_threshold -0.2" in note for note in told)
    done = annotate(bag, DEMO_TASK, "/arm/again", out="arm")
    assert any("/arm/monitor/info says: /arm/cam (primary)" in note for note in done.notes)


def test_instructions_in_the_bag_begin_episodes(frames, annotate: Annotate, tmp_path: Path) -> None:
    others = [
        bags.instruction("close the drawer", NS_PER_S),
        bags.instruction("close the drawer", 2 * NS_PER_S),
    ]
    bag = bags.write_bag(tmp_path / "bag", [*recorded(frames), *others])
    annotate(bag)
    events = read(tmp_path / "out", "/task_event")
    assert [(it.type, it.instruction) for it in events] == [
        (0, DEMO_TASK), (8, DEMO_TASK), (9, DEMO_TASK),
        (0, "close the drawer"), (8, "close the drawer"), (9, "close the drawer"),
    ]  # fmt: skip
    assert events[-1].message == "the bag ended"
    assert [it.truncated for it in read(tmp_path / "out", "/task_reward")].count(True) == 2


def test_a_silence_is_told_when_it_is_there(frames, annotate: Annotate, tmp_path: Path) -> None:
    gap = [(time_ns + 8 * NS_PER_S * (time_ns > NS_PER_S), image) for time_ns, image in frames]
    bag = bags.write_bag(tmp_path / "bag", [*bags.camera(gap), bags.instruction()])
    annotate(bag)
    stale = next(it for it in read(tmp_path / "out", "/task_event") if it.type == 6)
    assert "no image comes" in stale.message and stale.threshold == 5.0
    with Reader(tmp_path / "out") as reader:
        times = [ns for it, ns, _ in reader.messages() if it.topic == "/task_event"]
    assert times[1] - bags.START_NS == pytest.approx(6 * NS_PER_S, abs=0.3 * NS_PER_S)


def test_a_long_silence_is_told_as_early(frames, annotate: Annotate, tmp_path: Path) -> None:
    late = [(time_ns + 3 * 3600 * NS_PER_S, image) for time_ns, image in frames[:2]]
    bag = bags.write_bag(tmp_path / "bag", [*bags.camera([*frames[:15], *late]), bags.instruction()])
    annotate(bag, episode_timeout=5.6)
    assert [(it.type, it.message) for it in read(tmp_path / "out", "/task_event")][1][0] == 6
    with Reader(tmp_path / "out") as reader:
        times = [ns - bags.START_NS for it, ns, _ in reader.messages() if it.topic == "/task_event"]
    assert times[1] - frames[14][0] == pytest.approx(5.1 * NS_PER_S, abs=0.15 * NS_PER_S)


def test_a_silence_at_the_end_of_a_bag_is_told(frames, annotate: Annotate, tmp_path: Path) -> None:
    """Images stop, and the recorder goes on with other topics: as live, the episode ends by its timeout."""
    bag = bags.write_bag(tmp_path / "bag", [*bags.camera(frames[:15]), bags.instruction(), *bags.chatter(20)])
    annotate(bag, episode_timeout=12.0)
    assert kinds_and_times(tmp_path / "out", "/task_event") == [("EPISODE_STARTED", 0), ("STALE_IMAGES", 6),
        ("TIMEOUT", 12), ("EPISODE_ENDED", 12)]  # fmt: skip
    annotate(bag, out="cut", episode_timeout=60.0)
    assert kinds_and_times(tmp_path / "cut", "/task_event")[2:] == [("ABORTED", 20), ("EPISODE_ENDED", 20)]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_silence_at_the_end_of_an_episode_is_told(
    storage, frames, annotate: Annotate, tmp_path: Path
) -> None:
    """No image comes after it, and the recorder goes on for some time."""
    events = [bags.event(START, "e1", 5_000_000, frames[0][0]), bags.event(END, "e1", 14 * NS_PER_S)]
    messages = [*bags.camera(frames[:15]), *events, *bags.chatter(20)]
    annotate(bags.write_bag(tmp_path / "bag", messages, storage=storage), namespace="/again")
    assert kinds_and_times(tmp_path / "out", "/again/task_event") == [("EPISODE_STARTED", 0),
        ("STALE_IMAGES", 6), ("ABORTED", 14), ("EPISODE_ENDED", 14)]  # fmt: skip


def kinds_and_times(bag: Path, topic: str) -> list[tuple[str, int]]:
    """The events of a bag, and when they were said [s, rounded]."""
    with Reader(bag) as reader:
        times = [ns for it, ns, _ in reader.messages() if it.topic == topic]
    return [
        (EventType(it.type).name, round((ns - bags.START_NS) / NS_PER_S))
        for it, ns in zip(read(bag, topic), times, strict=True)
    ]


# ---- episodes that a live monitor watched meanwhile ---------------------------------------------------

RESET_NS = round(3.1 * NS_PER_S)  # after the start of the attempt before
START, SUBTASK, END = EventType.EPISODE_STARTED, EventType.SUBTASK_SUCCESS, EventType.EPISODE_ENDED


def later(frames: list[tuple[int, np.ndarray]], by_ns: int) -> list[tuple[int, np.ndarray]]:
    return [(time_ns + by_ns, image) for time_ns, image in frames]


def curve(bag: Path, topic: str, since_ns: int = 0) -> list[tuple[int, int, float, float]]:
    found = [
        (it.header.stamp.sec * NS_PER_S + it.header.stamp.nanosec - bags.START_NS - since_ns, it.num_frames,
         round(it.progress, 4), round(it.log_prob, 4))
        for it in read(bag, topic) if it.num_frames
    ]  # fmt: skip
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("stamped", [True, False])
def test_an_episode_is_scored_without_what_was_recorded_around_it(
    stamped, frames, annotate: Annotate, tmp_path: Path
) -> None:
    """A session of two episodes with a reset between, and what our recorder makes of the second of them."""
    end_ns = RESET_NS + round(SECONDS * NS_PER_S)
    second = later(frames, RESET_NS)
    after = later(frames[:20], end_ns + NS_PER_S // 5)
    stamps = 0 if stamped else bags.LATENCY_NS
    first_events = [
        bags.event(START, "e1", 5_000_000, frames[0][0] + stamps),
        bags.event(END, "e1", RESET_NS - 5_000_000),
    ]
    second_events = [
        bags.event(START, "e2", RESET_NS + 5_000_000, second[0][0] + stamps),
        bags.event(END, "e2", end_ns),
    ]

    def made(name: str, *parts: Any, events: list[bags.Recorded] | None = None, task_ns: int = 0) -> Path:
        shown = [it for part in parts for it in bags.camera(part, stamped=stamped)]
        told = [bags.instruction(since_ns=task_ns), *(events or [])]
        return bags.write_bag(tmp_path / name, [*shown, *told])

    annotate(made("single", second, task_ns=RESET_NS), out="one")
    expected = curve(tmp_path / "one", "/task_progress", RESET_NS)
    assert len(expected) == 6

    session = made("session", frames, second, after, events=[*first_events, *second_events])
    done = annotate(session, namespace="/again", out="both")
    assert done.outcomes == ("ABORTED", "ABORTED")
    assert any("by /task_event in the bag" in note and "(episodes: 2)" in note for note in done.notes)
    assert curve(tmp_path / "both", "/again/task_progress")[:6] == expected
    assert curve(tmp_path / "both", "/again/task_progress", RESET_NS)[6:] == expected

    recorded_bag = made("recorded", frames[30:], second, after, events=second_events, task_ns=NS_PER_S)
    annotate(recorded_bag, namespace="/again", out="ours")
    assert curve(tmp_path / "ours", "/again/task_progress", RESET_NS) == expected
    events = read(tmp_path / "ours", "/again/task_event")
    assert [(it.type, it.message) for it in events][1:] == [
        (8, "the recorded episode ended"), (9, "the recorded episode ended")
    ]  # fmt: skip
    annotate(recorded_bag, "close the drawer", namespace="/again", out="other")
    assert {it.instruction for it in read(tmp_path / "other", "/again/task_event")} == {"close the drawer"}
    annotate(recorded_bag, namespace="/again", out="whole", whole=True)
    assert len(curve(tmp_path / "whole", "/again/task_progress")) > 10


def test_an_episode_without_its_begin_or_its_end(frames, annotate: Annotate, tmp_path: Path) -> None:
    """Recording began in the middle of the one, and was stopped in the middle of the other."""
    second = later(frames, RESET_NS)
    events = [bags.event(END, "e1", RESET_NS - 5_000_000), bags.event(START, "e2", RESET_NS, second[1][0])]
    messages = [*bags.camera([*frames[20:], second[0], *second[2:]]), *events]  # the first frame was lost
    annotate(bags.write_bag(tmp_path / "bag", messages), namespace="/again")
    started = [stamp for stamp, count, *_ in curve(tmp_path / "out", "/again/task_progress") if count == 1]
    assert started == [frames[20][0], second[2][0]]
    messages_of = [it.message for it in read(tmp_path / "out", "/again/task_event") if it.type == 9]
    assert messages_of == ["the recorded episode ended", "the bag ended"]


def test_a_recording_without_events_is_told_of(frames, annotate: Annotate, tmp_path: Path) -> None:
    bag = bags.write_bag(tmp_path / "bag", recorded(frames[:15]))
    bags.set_metadata(bag, {**bags.metadata_of(bag), "custom_data": {"episode_id": "e\x1b7"}})
    (note,) = [note for note in annotate(bag).notes if note.startswith("WARNING")]
    assert "recorded of the episode e" in note and note.isprintable()


def test_a_stage_that_was_recorded_alone_is_that_stage(annotate: Annotate, tmp_path: Path) -> None:
    frames = bags.video_frames()
    task = f"open the drawer\n{DEMO_TASK}\nclose the drawer"
    events = [
        bags.event(START, "e2", 5_000_000, frames[0][0], stage=2, stages=3),
        bags.report("e2", NS_PER_S, task),
        bags.event(END, "e2", 60 * NS_PER_S, stage=2, stages=3),
    ]
    bag = bags.write_bag(tmp_path / "bag", [*bags.camera(frames), *events])
    annotate(bag, namespace="/again")
    said = read(tmp_path / "out", "/again/task_event")
    assert [(it.type, it.stage, it.stages) for it in said] == [(0, 2, 3), (11, 2, 3), (9, 2, 3)]


def test_stages_behind_each_other_are_one_recorded_task(frames, tmp_path: Path) -> None:
    def stage(number: int, at_s: int) -> list[bags.Recorded]:
        name, time_ns = f"e{number}-{at_s}", at_s * NS_PER_S
        return [
            bags.event(START, name, time_ns, time_ns, stage=number, stages=2),
            bags.report(name, time_ns, "a\nb"),
            bags.event(END, name, time_ns + NS_PER_S - 1, stage=number, stages=2),
        ]

    messages = [*bags.camera(frames[:1]), *stage(1, 0), *stage(2, 1), *stage(1, 2)]
    bag = offline_bags.Bag(bags.write_bag(tmp_path / "bag", messages))
    with bag.opened(tmp_path) as opened:
        topic, found = recorded_episodes(opened, "/again", "/image", MessageTypes([EVENT, PROGRESS]).read)
    assert topic == "/task_event"
    assert [(it.stage, it.last_stage, it.task) for it in found] == [(1, 2, "a\nb"), (1, 1, "a\nb")]
    assert [(it.end_ns or 0) - bags.START_NS for it in found] == [2 * NS_PER_S - 1, 3 * NS_PER_S - 1]


def test_events_that_cannot_be_read_or_told_apart_are_named(
    frames, annotate: Annotate, tmp_path: Path
) -> None:
    event = bags.event(START, "e1", 0)
    cases = {
        "message on /task_event that cannot be read .*say --whole": [replace(event, data=b"\0\1\0\0")],
        "has events of several monitors, /a/task_event, /b/task_event": [
            replace(event, topic="/a/task_event"), replace(event, topic="/b/task_event")
        ],
    }  # fmt: skip
    for number, (said, events) in enumerate(cases.items()):
        bag = bags.write_bag(tmp_path / f"bag{number}", [*bags.camera(frames[:2]), *events])
        with pytest.raises(offline_bags.BagError, match=said):
            annotate(bag, namespace="/again")


# ---- what is refused ----------------------------------------------------------------------------------


def _cut(bag: Path) -> None:
    (file,) = bag.glob("bag_0*")
    file.write_bytes(file.read_bytes()[:-100])


def _change(**content: Any) -> Callable[[Path], None]:
    return lambda bag: bags.set_metadata(bag, {**bags.metadata_of(bag), **content})


def _count_more(bag: Path) -> None:
    said = bags.metadata_of(bag)
    said["topics_with_message_count"][0]["message_count"] += 1
    bags.set_metadata(bag, said)


def _lose_index(bag: Path) -> None:
    import sqlite3
    from contextlib import closing

    (file,) = bag.glob("*.db3")
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("DROP TABLE topics")


def _about(said: str) -> Callable[[Path], None]:
    """Writes ``said`` below custom_data, as it is."""

    def write(bag: Path) -> None:
        file = bag / "metadata.yaml"
        lines = file.read_text().splitlines()
        kept = [line for line in lines if "custom_data" not in line]
        file.write_text("\n".join([*kept, f"  custom_data:\n    {said}\n"]))

    return write


def _bomb(bag: Path) -> None:
    """A few lines that claim to be 10^9 values."""
    lists = "".join(f"  a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]\n" for k in range(1, 10))
    with (bag / "metadata.yaml").open("a") as file:
        file.write(f"  a0: &a0 [x]\n{lists}")


BROKEN = [
    ("mcap", lambda bag: (bag / "metadata.yaml").unlink(), "has no metadata.yaml: its recorder was cut off"),
    ("mcap", lambda bag: (bag / "metadata.yaml").write_text("{["), "metadata.yaml cannot be read"),
    ("mcap", lambda bag: (bag / "metadata.yaml").write_text("a: b"), "so it is no metadata of a bag"),
    ("mcap", lambda bag: (bag / "bag_0.mcap").unlink(), "lacks bag_0.mcap, which its metadata.yaml names"),
    ("mcap", _cut, "bag_0.mcap cannot be read .*it is damaged, or was cut off"),
    ("sqlite3", _cut, "bag_0.db3 cannot be read|lacks messages"),
    ("sqlite3", _lose_index, "bag_0.db3 cannot be read .no such table: topics"),
    ("mcap", _count_more, r"lacks messages: metadata.yaml counts \d+ on .*the index is broken"),
    ("mcap", _change(version=10), "has metadata of version 10"),
    ("mcap", _change(version=[]), "is no metadata of a bag"),
    ("mcap", _change(version=float("inf")), "version is '.inf', and must be a whole number from 0 to"),
    ("mcap", _change(version=10**400), "version is '10000"),
    ("mcap", _change(message_count=-5), "message_count is '-5'"),
    ("mcap", _change(duration={"nanoseconds": 10**400}), "duration is '10000"),
    ("mcap", _change(files=[{"path": "bag_0.mcap"}]), "no metadata of a bag .KeyError: 'message_count'"),
    ("mcap", _change(custom_data=["a"]), "custom_data are no names with values"),
    ("mcap", _about("a: &x [*x]"), "custom_data hold aliases"),
    ("mcap", _about("a: &x b\n    c: *x"), "custom_data hold aliases"),
    ("mcap", _about("b\n  relative_file_paths: &x [*x]"), "contain each other without end"),
    ("mcap", _about(f"a: {'[' * 5000}"), "contain each other without end"),
    ("mcap", _bomb, "its aliases make more of it than a bag can have"),
    ("mcap", _change(storage_identifier="x\x1b[2J"), "is stored as 'x .2J': mcap and sqlite3 are read"),
    ("mcap", _change(compression_mode="FILE", compression_format="lz4"), "by file or by message is read"),
    ("sqlite3", lambda bag: (bag / "bag_0.db3-wal").write_text("x"), "was not closed"),
]  # fmt: skip


@pytest.mark.parametrize(("storage", "damage", "said"), BROKEN, ids=range(len(BROKEN)))
def test_a_broken_bag_is_named(storage, damage, said, frames, annotate: Annotate, tmp_path: Path) -> None:
    bag = bags.write_bag(tmp_path / "bag", recorded(frames[:5]), storage=storage)
    damage(bag)
    before = files(bag)
    with pytest.raises(offline_bags.BagError, match=said) as error:
        annotate(bag)
    assert str(error.value).isprintable()
    assert files(bag) == before
    assert [path.name for path in tmp_path.iterdir()] == ["bag"]


def test_what_people_wrote_into_the_metadata_stays(frames, annotate: Annotate, tmp_path: Path) -> None:
    said = {"date": "2026-11-27", "serial": "007", "at": "12:30:00", "on": "yes", "v": "1.10", "h": "0x1F",
            "x": ".nan", "big": "1_000", "t": "true", "n": None, "quoted": "5", "s": {"a": None, "b": None},
            "l": ["3"]}  # fmt: skip
    bag = bags.write_bag(tmp_path / "bag", recorded(frames[:5]))
    plain = [f"{name}: {text}" for name, text in said.items() if isinstance(text, str) and name != "quoted"]
    _about("\n    ".join([*plain, "n: null", 'quoted: "5"', "s: !!set {a, b}", "l: [3]"]))(bag)
    file = bag / "metadata.yaml"
    file.write_text(file.read_text().replace("ros_distro: jazzy", "ros_distro: 2026-11-27"))
    annotate(bag)
    copy = bags.metadata_of(tmp_path / "out")
    del copy["custom_data"]["topreward_annotation"]
    assert copy["custom_data"] == said and copy["ros_distro"] == "2026-11-27"
    again = offline_bags.Bag(tmp_path / "out").metadata["custom_data"]
    assert again == {**said, "topreward_annotation": again["topreward_annotation"]}
    assert content(tmp_path / "out")[0].keys() == {"/image", "/task_instruction", "/chatter", *OURS}


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_message_that_would_fill_memory_is_named(
    storage, frames, annotate: Annotate, tmp_path: Path, monkeypatch
) -> None:
    assert zstd.decompress(zstd.compress(b"ab") + zstd.compress(b"c"), 3) == b"abc"
    with pytest.raises(zstd.TooLargeError, match="more than 2 bytes"):
        zstd.decompress(zstd.compress(b"abc"), 2)
    unstated = io.BytesIO()
    with zstd._zstd.open(unstated, "wb") as out:
        out.write(bytes(1 << 26))
    assert zstd.decompress(unstated.getvalue()) == bytes(1 << 26)
    tracemalloc.start()
    with pytest.raises(zstd.TooLargeError):  # its size is not stated, and it is counted without being kept
        zstd.decompress(unstated.getvalue(), (1 << 26) - 1)
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()
    with pytest.raises(zstd.TooLargeError):  # at once: nothing of it is there but what it states
        zstd.decompress(zstd.compress(bytes(1 << 20))[:9], 1 << 19)
    with pytest.raises(zstd.ZstdError):
        zstd.decompress(zstd.compress(b"abc")[:-1])
    bag = bags.write_bag(tmp_path / "bag", recorded(frames[:5]), storage=storage, compression="message")
    monkeypatch.setattr(zstd.decompress, "__defaults__", (1000,))
    with pytest.raises(offline_bags.BagError, match=r"cannot be used: a part of it has more than 1000"):
        annotate(bag)


def test_a_chunk_that_would_fill_memory_is_named(
    frames, annotate: Annotate, tmp_path: Path, monkeypatch
) -> None:
    """Whatever size it states: more than that is not taken, and not more than any chunk can need."""
    bag = bags.write_bag(tmp_path / "bag", recorded(frames[:5]), storage="mcap", compression="chunk")
    monkeypatch.setattr(zstd, "MOST_BYTES", 1000)
    with pytest.raises(offline_bags.BagError, match=r"cannot be used: a part of it has more than 1000"):
        annotate(bag)
    offline_bags.bound_chunks()
    for compress, kind in ((zstd.compress, "zstd"), (import_module("lz4.frame").compress, "lz4")):
        assert storage_mcap.decompress(compress(b"abc"), kind, 3, 0) == b"abc"
        with pytest.raises(zstd.TooLargeError, match="more than 2 bytes"):
            storage_mcap.decompress(compress(b"abc"), kind, 2, 0)


@pytest.mark.parametrize("stated", [True, False])
def test_a_file_that_would_fill_the_disk_is_named(
    stated: bool, frames, annotate: Annotate, tmp_path: Path, monkeypatch
) -> None:
    bag = bags.write_bag(tmp_path / "bag", recorded(frames[:5]), storage="mcap", compression="file")
    (file,) = bag.glob("*.zstd")
    content = zstd.decompress(file.read_bytes()) + bytes(64 << 20)
    (tmp_path / "raw").write_bytes(content)
    file.unlink()
    zstd.compress_file(tmp_path / "raw", file)
    assert zstd.decompress(file.read_bytes()) == content
    if not stated:  # as a program writes it that does not know what comes
        frame = zstd._zstd.ZstdCompressor()
        file.write_bytes(frame.compress(content) + frame.flush())
    assert file.stat().st_size < 1 << 20
    written: list[str] = []
    path_open = Path.open

    def noted(path: Path, *how: Any, **more: Any) -> Any:
        written.append(path.name)
        return path_open(path, *how, **more)

    monkeypatch.setattr(Path, "open", noted)
    usage = shutil._ntuple_diskusage(1 << 40, 0, 40 << 20)
    monkeypatch.setattr(zstd.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(offline_bags.BagError, match=r"zstd cannot be used: it has more than 36 MiB once"):
        annotate(bag)
    assert (file.stem in written) is not stated, "one that states it is refused at once"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bag", "raw"]


def test_what_is_missing_is_told_with_what_is_there(frames, annotate: Annotate, tmp_path: Path) -> None:
    cases = {
        "has no topic /image: name the camera's topic by --image-topic; there are /chatter .*String, 30": [
            bags.instruction(), *bags.chatter(SECONDS)
        ],
        r"has no topic /image: .*; there are /left \(\S+CompressedImage, 2\), /right \(\S+, 2\)$": [
            *bags.camera(frames[:2], "/left"), *bags.camera(frames[:2], "/right"), bags.instruction()
        ],
        "has no instruction on /task_instruction": [*bags.camera(frames[:2])],
        "holds images of two sizes on /image, 480x360 and from 1.5 s on 240x180": [
            *recorded([*frames[:30], *((t, image[::2, ::2]) for t, image in frames[30:])])
        ],
        "holds no messages at all": [],
        "has /task_progress already": [
            *recorded(frames[:2]), bags.Recorded(bags.START_NS, "/task_progress", bags.STRING, bags.text("x"))
        ],
    }  # fmt: skip
    for number, (said, messages) in enumerate(cases.items()):
        bag = bags.write_bag(tmp_path / f"bag{number}", messages)
        with pytest.raises(offline_bags.BagError, match=said):
            annotate(bag)
        assert not (tmp_path / "out").exists() and not list(tmp_path.glob("*.partial"))


def test_the_only_images_are_found(frames, annotate: Annotate, tmp_path: Path) -> None:
    bag = bags.write_bag(tmp_path / "bag", recorded(frames[:15], topic="/cam/image_raw/compressed"))
    assert any("are taken from /cam/image_raw/compressed" in note for note in annotate(bag).notes)


def test_what_is_there_is_kept(frames, scorer: PrefixScorer, annotate: Annotate, tmp_path: Path) -> None:
    bag = bags.write_bag(tmp_path / "bag", recorded(frames[:15]))
    job = BagJob(bag, tmp_path / "out", "")
    assert not done_before(job, settings_of())
    annotate(bag)
    assert done_before(job, settings_of())
    with pytest.raises(OutputFileError, match=r"sample_rate was '2.0', and '4.0' is asked for"):
        done_before(job, settings_of(sample_rate=4.0))
    with pytest.raises(OutputFileError, match="task was '', and 'close' is asked for"):
        done_before(BagJob(bag, tmp_path / "out", "close"), settings_of())
    with pytest.raises(OutputFileError, match="is there already"):
        annotate(bag)
    other = bags.write_bag(tmp_path / "other", recorded(frames[:16]))
    with pytest.raises(OutputFileError, match="is the annotation of another bag"):
        done_before(BagJob(other, tmp_path / "out", ""), settings_of())
    (tmp_path / "out" / REPORT).unlink()
    with pytest.raises(OutputFileError, match="exists and is no annotation of"):
        done_before(job, settings_of())


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_full_disk_leaves_nothing(storage, frames, annotate: Annotate, tmp_path: Path) -> None:
    bag = bags.write_bag(tmp_path / "bag", recorded(frames), storage=storage)
    before = files(bag)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
    try:
        with pytest.raises(OutputFileError, match=r"out cannot be written .*make room"):
            annotate(bag)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["bag"] and files(bag) == before


def test_two_annotators_do_not_meet_and_a_dead_one_is_cleared(
    frames, annotate: Annotate, tmp_path: Path
) -> None:
    bag = bags.write_bag(tmp_path / "bag", recorded(frames[:5]))
    partial = tmp_path / "out.partial"
    partial.mkdir()
    (partial / "half.mcap").touch()
    descriptor = os.open(partial, os.O_RDONLY)
    import fcntl

    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(OutputFileError, match="is being written by another process"):
        annotate(bag)
    assert (partial / "half.mcap").exists()
    os.close(descriptor)
    assert annotate(bag).scores
    assert not partial.exists() and not (tmp_path / "out" / "half.mcap").exists()
    shutil.rmtree(tmp_path / "out")
