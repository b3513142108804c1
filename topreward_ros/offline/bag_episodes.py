"""What a bag shows to people: its episodes with scores and events, and a few of its images, shrunk.

For bags that were recorded beside a monitor (`topreward record`, `ros2 bag record`) or annotated
(`topreward annotate`); of others the images alone. Two passes: the task topics are read whole, of the images
only those that are shown are decoded. Times are those of the frames (``header.stamp``); where an image has no
stamp its time of receipt stands in. Nothing is written, and how it looks is decided in views/report.py.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from math import nan
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from topreward_ros.core.episode import State
from topreward_ros.core.events import EventType
from topreward_ros.core.frames import NS_PER_S
from topreward_ros.core.output_files import temporary_folder
from topreward_ros.core.printable import printable
from topreward_ros.offline.bag_metadata import CUSTOM_DATA
from topreward_ros.offline.bags import Bag, BagError, Message, OpenBag, slashed
from topreward_ros.offline.camera_images import ImageError, ImageReader, stamp_ns_of
from topreward_ros.offline.image_topics import TYPE_NAMES, is_drawn, unreadable
from topreward_ros.offline.message_types import MessageTypes
from topreward_ros.offline.raw_samples import rosbags_image

PROGRESS, REWARD, EVENT, INFO = (
    f"topreward_ros/msg/{name}" for name in ("TaskProgress", "TaskReward", "TaskEvent", "MonitorInfo")
)
_STATE_TOPIC = "task_state"  # of the type of progress, and says nothing that progress does not
_MOST_EPISODES = 40
_MOST_CAMERAS = 4
_FEWEST_FRAMES = 4  # of an episode and a camera
_MOST_EVENTS = 200  # of an episode
_QUALITY = 75  # of the JPEGs


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What a bag says of one scored frame."""

    stamp_ns: int
    progress: float = nan
    log_prob: float = nan
    log_prob_false: float = nan
    log_prob_static: float = nan
    reward: float = nan


@dataclass(frozen=True, slots=True)
class BagEvent:
    """Something that happened in an episode."""

    stamp_ns: int  #: 0 where no frame had come
    type: str  #: name of the constant; "event" and the number, where it is of a version that knows more
    message: str


@dataclass(frozen=True, slots=True)
class ShownFrame:
    """An image of a bag, shrunk."""

    stamp_ns: int
    jpeg: bytes


@dataclass(slots=True)
class BagEpisode:
    """An episode of a bag; or, where nothing is known of any, its whole time."""

    name: str = ""  #: episode_id; empty: nothing is known of episodes
    namespace: str = ""  #: of the monitor's topics
    task: str = ""
    state: str = ""  #: the last one
    stage: int = 0
    stages: int = 0
    message: str = ""  #: of the last report that had one
    scores: list[Score] = field(default_factory=list)
    events: list[BagEvent] = field(default_factory=list)
    events_left_out: int = 0
    start_ns: int = 0
    end_ns: int = 0
    frames: dict[str, list[ShownFrame]] = field(default_factory=dict)  #: by the camera's topic


@dataclass(slots=True)
class BagContent:
    """What is shown of a bag."""

    name: str
    duration_s: float
    messages: int
    episodes: list[BagEpisode]
    cameras: tuple[str, ...]
    about: dict[str, str]  #: what its metadata says of it: outcome, task, counts
    model: str = ""  #: where the numbers come from; empty: not known
    random_weights: bool = False
    notes: list[str] = field(default_factory=list)  #: for a human: what is not shown, and why


def read_content(
    path: Path, image_topics: Sequence[str] = (), frames: int = 60, width: int = 320
) -> BagContent:
    """Read what is shown of the bag ``path``.

    ``image_topics``: cameras; empty: those that the monitor names, else all. ``frames``: images per camera
    over the whole bag, as far as short episodes do not need a few more. ``width``: of an image, and its
    height, at most [px]. Raises `BagError`.
    """
    bag = Bag(path)
    with temporary_folder("topreward-show-") as folder, bag.opened(folder) as opened:
        return _Reading(opened, image_topics, frames, width).content()


class _Reading:
    def __init__(self, opened: OpenBag, image_topics: Sequence[str], frames: int, width: int) -> None:
        self._opened = opened
        self._wanted = image_topics
        self._frames, self._width = frames, width
        self._types = MessageTypes((PROGRESS, REWARD, EVENT, INFO))
        self._images = ImageReader(self._types.read, rosbags_image)
        self._episodes: dict[tuple[str, str], BagEpisode] = {}
        self._rewards: dict[tuple[str, str], dict[int, float]] = {}
        self._named_cameras: list[str] = []
        self._unreadable: dict[str, int] = {}
        self._model, self._random = "", False
        self._notes: list[str] = []

    def content(self) -> BagContent:
        opened, bag = self._opened, self._opened.bag
        self._read_task_topics()
        cameras = self._cameras()
        episodes = self._finished_episodes()
        if not episodes and not cameras:
            raise BagError(
                f"{bag.shown} has neither images nor what a monitor says: nothing can be shown; there are "
                f"{opened.topics_text()}"
            )
        if not episodes:
            episodes = [BagEpisode()]
            self._notes.append(
                "No progress in this bag: record it beside a monitor, or add it by `topreward annotate`."
            )
        if len(episodes) > _MOST_EPISODES:
            self._notes.append(f"The first {_MOST_EPISODES} of {len(episodes)} episodes are shown.")
            episodes = episodes[:_MOST_EPISODES]
        if cameras:
            self._read_images(cameras, episodes)
        else:
            self._notes.append("No images in this bag.")
        for topic, count in self._unreadable.items():
            self._notes.append(
                f"{count} messages on {printable(topic)} could not be read: damaged, or of another version."
            )
        about = bag.metadata.get(CUSTOM_DATA) or {}
        return BagContent(
            name=bag.path.resolve().name,
            duration_s=bag.duration_ns / NS_PER_S,
            messages=sum(topic.count for topic in opened.topics),
            episodes=episodes,
            cameras=tuple(cameras),
            about={key: "" if value is None else str(value) for key, value in about.items()},
            model=self._model,
            random_weights=self._random,
            notes=self._notes,
        )

    # ---- what the monitor says ------------------------------------------------------------------

    def _read_task_topics(self) -> None:
        readers = {
            PROGRESS: self._take_progress,
            REWARD: self._take_reward,
            EVENT: self._take_event,
            INFO: self._take_info,
        }
        names = {
            topic.name
            for topic in self._opened.topics
            if topic.type in readers and topic.count and topic.name.rpartition("/")[2] != _STATE_TOPIC
        }
        for message in self._opened.messages(names) if names else ():
            if message.type not in readers:
                continue
            try:
                said = self._types.read(message.data, message.type)
            except Exception:  # rosbags meets damaged bytes with errors of many kinds
                self._unreadable[message.topic] = self._unreadable.get(message.topic, 0) + 1
                continue
            readers[message.type](message, said)

    def _episode(self, message: Message, said: Any) -> BagEpisode | None:
        if not said.episode_id:
            return None
        namespace = slashed(message.topic).rpartition("/")[0]
        return self._episodes.setdefault((namespace, said.episode_id), BagEpisode(said.episode_id, namespace))

    def _take_progress(self, message: Message, said: Any) -> None:
        if (episode := self._episode(message, said)) is None:
            return
        episode.task = said.task or said.instruction
        episode.state = _name(State, said.state, "state")
        episode.stage, episode.stages = said.stage, said.stages
        episode.message = said.message or episode.message
        stamp_ns = _nanoseconds(said.header.stamp)
        if said.num_frames and (not episode.scores or stamp_ns != episode.scores[-1].stamp_ns):
            episode.scores.append(
                Score(
                    stamp_ns=stamp_ns,
                    progress=said.progress,
                    log_prob=said.log_prob,
                    log_prob_false=said.log_prob_false,
                    log_prob_static=said.log_prob_static,
                )
            )

    def _take_reward(self, message: Message, said: Any) -> None:
        if (episode := self._episode(message, said)) is not None:
            rewards = self._rewards.setdefault((episode.namespace, episode.name), {})
            rewards.setdefault(_nanoseconds(said.header.stamp), said.reward)  # the first: the score's own

    def _take_event(self, message: Message, said: Any) -> None:
        if (episode := self._episode(message, said)) is None:
            return
        episode.task = episode.task or said.instruction
        if len(episode.events) >= _MOST_EVENTS:
            episode.events_left_out += 1
            return
        name = _name(EventType, said.type, "event")
        episode.events.append(BagEvent(_nanoseconds(said.header.stamp), name, said.message))

    def _take_info(self, message: Message, said: Any) -> None:
        self._model = f"{said.model_id} ({said.model_revision}), {said.device}, {said.dtype}"
        self._random |= bool(said.random_weights)
        self._named_cameras += [str(name) for name in said.camera_names]

    def _finished_episodes(self) -> list[BagEpisode]:
        """Those that began, in order, with their rewards and their times."""
        began = []
        for key, episode in self._episodes.items():
            rewards = self._rewards.get(key, {})
            episode.scores = [
                replace(score, reward=rewards.get(score.stamp_ns, nan))
                for score in sorted(episode.scores, key=lambda score: score.stamp_ns)
            ]
            stamps = [score.stamp_ns for score in episode.scores]
            stamps += [event.stamp_ns for event in episode.events if event.stamp_ns]
            if stamps:
                episode.start_ns, episode.end_ns = min(stamps), max(stamps)
            if stamps or episode.events:
                began.append(episode)
        return sorted(began, key=lambda episode: (episode.start_ns, episode.namespace))

    # ---- images ---------------------------------------------------------------------------------

    def _cameras(self) -> list[str]:
        """Topics of the images that are shown. Raises `BagError` where one was named that is not there."""
        there = {
            slashed(topic.name): topic
            for topic in self._opened.topics
            if topic.type in TYPE_NAMES and topic.count and not unreadable(topic.name, [topic.type])
        }
        if self._wanted:
            for name in self._wanted:
                if slashed(name) not in there:
                    raise BagError(
                        f"{self._opened.bag.shown} has no images on {printable(slashed(name))}; there are "
                        f"{self._opened.topics_text()}"
                    )
            return list(dict.fromkeys(slashed(name) for name in self._wanted))
        named = [slashed(name) for name in dict.fromkeys(self._named_cameras) if slashed(name) in there]
        all_ = [name for name in there if not is_drawn(name)] or list(there)
        chosen = named or all_
        if len(chosen) > _MOST_CAMERAS:
            self._notes.append(
                f"{_MOST_CAMERAS} of {len(chosen)} cameras are shown; choose others by --image-topic."
            )
        return chosen[:_MOST_CAMERAS]

    def _read_images(self, cameras: Collection[str], episodes: Sequence[BagEpisode]) -> None:
        """Fill in the frames of ``episodes``, evenly over their times."""
        if not episodes[0].name:
            episodes[0].start_ns, episodes[0].end_ns = self._times_of_images(cameras)
        plans = [
            (episode, camera, _Plan(episode.start_ns, episode.end_ns, count))
            for episode, count in zip(episodes, self._counts(episodes), strict=True)
            for camera in cameras
        ]
        bad: dict[str, int] = {}
        for message in self._opened.messages(cameras):
            topic = slashed(message.topic)
            stamp_ns = _stamp_ns(message)
            for episode, camera, plan in plans:
                if camera != topic or not plan.is_due(stamp_ns):
                    continue
                try:
                    image = self._images.decode(message.data, message.type).rgb
                except ImageError:
                    bad[topic] = bad.get(topic, 0) + 1
                    continue
                plan.take(stamp_ns)
                shown = episode.frames.setdefault(camera, [])
                shown.append(ShownFrame(stamp_ns, _jpeg(image, self._width)))
        for topic, count in bad.items():
            self._notes.append(
                f"{count} images on {printable(topic)} could not be read, and the next stood in."
            )

    def _times_of_images(self, cameras: Collection[str]) -> tuple[int, int]:
        first = last = 0
        for message in self._opened.messages(cameras):
            stamp_ns = _stamp_ns(message)
            first = min(first or stamp_ns, stamp_ns)
            last = max(last, stamp_ns)
        return first, last

    def _counts(self, episodes: Sequence[BagEpisode]) -> list[int]:
        """How many frames of a camera each episode is shown with."""
        spans = [max(episode.end_ns - episode.start_ns, 1) for episode in episodes]
        return [max(_FEWEST_FRAMES, round(self._frames * span / sum(spans))) for span in spans]


class _Plan:
    """Which images of a stream are shown: the first at or after each of some evenly spaced times.

    >>> plan = _Plan(1_700_000_000_123_456_789, 1_700_000_009_123_456_787, 4)  # exact: floats are not
    >>> plan.take(1_700_000_008_000_000_000)
    >>> plan.is_due(1_700_000_009_123_456_786), plan.is_due(1_700_000_009_123_456_787)
    (False, True)
    """

    def __init__(self, start_ns: int, end_ns: int, count: int) -> None:
        """``count``: at least 2."""
        span_ns = end_ns - start_ns
        self._due = [start_ns + span_ns * k // (count - 1) for k in range(count)] if start_ns else []
        self._end_ns = end_ns

    def is_due(self, stamp_ns: int) -> bool:
        return bool(self._due) and self._due[0] <= stamp_ns <= self._end_ns

    def take(self, stamp_ns: int) -> None:
        while self._due and self._due[0] <= stamp_ns:
            del self._due[0]


def _stamp_ns(message: Message) -> int:
    """When an image was taken [ns], or received where it does not say."""
    try:
        return stamp_ns_of(message.data) or message.time_ns
    except ImageError:
        return message.time_ns


def _name(names: type[IntEnum], number: int, what: str) -> str:
    """The name of a number; another version may send one that has none here."""
    known = {int(it): it.name for it in names}
    return known.get(int(number), f"{what} {number}")


def _nanoseconds(time: Any) -> int:
    return int(time.sec) * NS_PER_S + int(time.nanosec)


def _jpeg(image: np.ndarray, width: int) -> bytes:
    scale = min(1.0, width / image.shape[1], width / image.shape[0])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1.0 else image
    _, data = cv2.imencode(".jpg", small[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return bytes(data.tobytes())
