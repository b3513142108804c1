"""Bags for tests: made with rosbags from a shipped video or from small pictures, in every kind there is."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from rosbags.typesys import Stores, get_typestore

from topreward_ros.core.events import EventType
from topreward_ros.core.frames import NS_PER_S, Stamp
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.core.outputs import Event, ProgressReport, State
from topreward_ros.defaults import DEMO_TASK, DEMO_VIDEO, monitor_defaults, shared_file
from topreward_ros.offline import task_messages
from topreward_ros.offline.bag_writer import BagWriter, qos_profile
from topreward_ros.offline.message_types import MessageTypes
from topreward_ros.offline.video import open_video
from topreward_ros.scoring.base import ScorerInfo

STORE = get_typestore(Stores.ROS2_JAZZY)
START_NS = 1_700_000_000 * NS_PER_S
IMAGE, COMPRESSED, STRING = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "std_msgs/msg/String"
_MODEL = ScorerInfo("m", "1", False, "cpu", "float32", "", 1)
LATENCY_NS = 4_000_000  # between stamp and receipt


@dataclass(frozen=True)
class Recorded:
    """A message to be recorded."""

    time_ns: int  #: of receipt
    topic: str
    type: str
    data: bytes


def _cdr(kind: str, **fields: Any) -> bytes:
    return bytes(STORE.serialize_cdr(STORE.types[kind](**fields), kind))


def header(stamp_ns: int) -> Any:
    time = STORE.types["builtin_interfaces/msg/Time"](sec=stamp_ns // NS_PER_S, nanosec=stamp_ns % NS_PER_S)
    return STORE.types["std_msgs/msg/Header"](stamp=time, frame_id="camera")


def raw_image(rgb: np.ndarray, stamp_ns: int, encoding: str = "rgb8") -> bytes:
    """A serialised Image."""
    height, width = rgb.shape[:2]
    return _cdr(
        IMAGE, header=header(stamp_ns), height=height, width=width, encoding=encoding, is_bigendian=0,
        step=3 * width, data=rgb.reshape(-1),
    )  # fmt: skip


def jpeg_image(rgb: np.ndarray, stamp_ns: int) -> bytes:
    """A serialised CompressedImage."""
    _, data = cv2.imencode(".jpg", rgb[..., ::-1])
    return _cdr(
        COMPRESSED, header=header(stamp_ns), format="rgb8; jpeg compressed bgr8", data=data.reshape(-1)
    )


def text(data: str) -> bytes:
    """A serialised String."""
    return _cdr(STRING, data=data)


def video_frames(video: str = DEMO_VIDEO, seconds: float = 1e9) -> list[tuple[int, np.ndarray]]:
    """Times since the start [ns] and RGB images of a shipped video."""
    frames = ((stamp_ns, read()) for stamp_ns, read in open_video(shared_file(video)))
    return [(stamp_ns, image) for stamp_ns, image in frames if stamp_ns < seconds * NS_PER_S]


def camera(
    frames: Iterable[tuple[int, np.ndarray]],
    topic: str = "/image",
    *,
    compressed: bool = True,
    stamped: bool = True,
) -> Iterator[Recorded]:
    """A camera's messages of ``frames``."""
    for since_ns, rgb in frames:
        stamp_ns = START_NS + since_ns if stamped else 0
        data = jpeg_image(rgb, stamp_ns) if compressed else raw_image(rgb, stamp_ns)
        yield Recorded(START_NS + since_ns + LATENCY_NS, topic, COMPRESSED if compressed else IMAGE, data)


def instruction(task: str = DEMO_TASK, since_ns: int = 0) -> Recorded:
    """The task on its topic."""
    return Recorded(START_NS + since_ns, "/task_instruction", STRING, text(task))


def event(
    kind: EventType, episode_id: str, since_ns: int, stamp_ns: int = 0, task: str = DEMO_TASK, **stage: int
) -> Recorded:
    """An event of a live monitor, received at ``since_ns``, of the frame with the stamp ``stamp_ns``."""
    said = Event(
        type=kind, sequence=1, episode_id=episode_id, instruction=task, stamp=Stamp(START_NS + stamp_ns, ""),
        progress=nan, log_prob=nan, threshold=nan, message="", **stage,
    )  # fmt: skip
    return _ours("task_event", "TaskEvent", task_messages.event_fields(said, _MODEL), since_ns)


def report(episode_id: str, since_ns: int, task: str) -> Recorded:
    """What a live monitor says of an episode before its first score."""
    said = ProgressReport(state=State.RUNNING, episode_id=episode_id, task=task)
    return _ours("task_progress", "TaskProgress", task_messages.progress_fields(said, _MODEL, 0), since_ns)


def monitor_info(
    cameras: list[str], layout: str = "primary", topic: str = "monitor/info", **fields: Any
) -> Recorded:
    """What a live monitor with the default settings and the shipped model says of itself, but ``fields``."""
    settings = MonitorSettings.from_parameters(monitor_defaults())
    said = task_messages.info_fields(_MODEL, settings, cameras, layout, START_NS)
    return _ours(topic, "MonitorInfo", {**said, **fields}, 0)


def _ours(topic: str, name: str, fields: task_messages.Fields, since_ns: int) -> Recorded:
    kind = f"topreward_ros/msg/{name}"
    return Recorded(START_NS + since_ns, f"/{topic}", kind, MessageTypes([kind]).write(fields, kind))


def chatter(seconds: float) -> Iterator[Recorded]:
    """Something else that was recorded, between the images."""
    for k in range(int(seconds * 10)):
        yield Recorded(START_NS + k * NS_PER_S // 10 + 7, "/chatter", STRING, text(f"number {k}"))


def write_bag(
    path: Path, messages: Iterable[Recorded], announced: Iterable[tuple[str, str]] = (), **options: Any
) -> Path:
    """Write ``messages`` in order of time to a bag of version 9; ``options`` of `BagWriter`.

    ``announced``: names and types of topics without a publisher, and so without a message.
    """
    ordered = sorted(messages, key=lambda message: message.time_ns)
    with BagWriter(path, **options) as bag:
        for name, kind in announced:
            bag.add_topic(name, kind)
        topics: dict[tuple[str, str], Any] = {}
        for message in ordered:
            key = message.topic, message.type
            if key not in topics:
                qos = [qos_profile(reliable=False, transient_local=False, depth=5)]
                topics[key] = bag.add_topic(*key, qos=qos)
            bag.write(topics[key], message.data, message.time_ns)
    return path


def downgrade(bag: Path, version: int) -> Path:
    """Rewrite a bag of version 9 as an older rosbag2 wrote it: metadata, and the schema of sqlite3."""
    content = metadata_of(bag)
    content["version"] = version
    for entry in content["topics_with_message_count"]:
        about = entry["topic_metadata"]
        if version < 9:
            profiles = about["offered_qos_profiles"]
            about["offered_qos_profiles"] = yaml.safe_dump(profiles).strip() if version >= 4 else ""
        if version < 7:
            del about["type_description_hash"]
    left_out = {8: "ros_distro", 6: "custom_data", 5: "files"}
    for first, name in left_out.items():
        if version < first:
            del content[name]
    set_metadata(bag, content)
    for file in bag.glob("*.db3"):
        with closing(sqlite3.connect(file)) as database, database:
            if version < 8:  # schema 3 of Humble: no definitions, no hashes
                database.execute("DROP TABLE message_definitions")
                database.execute("ALTER TABLE topics DROP COLUMN type_description_hash")
                database.execute("UPDATE schema SET schema_version = 3")
            if version < 6:  # schema 2 of Foxy
                database.execute("DROP TABLE schema")
                database.execute("DROP TABLE metadata")
    return bag


def metadata_of(bag: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((bag / "metadata.yaml").read_text())[
        "rosbag2_bagfile_information"
    ]
    return content


def set_metadata(bag: Path, content: dict[str, Any]) -> None:
    (bag / "metadata.yaml").write_text(yaml.safe_dump({"rosbag2_bagfile_information": content}))
