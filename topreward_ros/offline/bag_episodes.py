"""What a bag shows to people: its episodes with scores and events, and a few of its images, shrunk.

For bags that were recorded beside a monitor (`topreward record`, `ros2 bag record`) or annotated
(`topreward annotate`); of others the images alone. Two passes: the task topics are read whole, of the images
only those that are shown are decoded. Times are those of the frames (``header.stamp``); where an image has no
stamp its time of receipt stands in. Nothing is written, and how it looks is decided in views/report.py.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import reduce
from itertools import pairwise
from math import nan
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from topreward_ros.core.counted import counted
from topreward_ros.core.episode_bags import outcome_after
from topreward_ros.core.events import EventType
from topreward_ros.core.frames import NS_PER_S
from topreward_ros.core.outcome import Outcome
from topreward_ros.core.output_files import temporary_folder
from topreward_ros.core.outputs import State
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
_WAITING = (State.WAITING_FOR_IMAGES, State.STALE)  # their message says why, and holds as long as they do
_MOST_EPISODES = 40
_MOST_CAMERAS = 4
_FEWEST_FRAMES = 4  # of an episode and a camera
_JUMP_NS = 10 * NS_PER_S  # of stamps, between two that follow each other
_FASTEST = 20  # times real time that a simulation may run
_FITTING = 0.5  # share of an episode's images that stamps must find for them to count
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
    success_probability: float = nan
    reward: float = nan
    received_ns: int = 0


@dataclass(frozen=True, slots=True)
class BagEvent:
    """Something that happened in an episode."""

    stamp_ns: int  #: 0 where no frame had come
    type: str  #: name of the constant; "event" and the number, where it is of a version that knows more
    message: str
    received_ns: int = 0


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
    message: str = ""  #: of the last report that had one; why it waited for images only if it still did
    scores: list[Score] = field(default_factory=list)
    events: list[BagEvent] = field(default_factory=list)
    events_left_out: int = 0
    start_ns: int = 0
    end_ns: int = 0
    received_start_ns: int = 0  #: as `start_ns`, by the recorder's clock
    received_end_ns: int = 0
    frames: dict[str, list[ShownFrame]] = field(default_factory=dict)  #: by the camera's topic
    cameras: tuple[str, ...] = ()  #: topics that are shown with it
    model: str = ""  #: where its numbers come from; empty: not known
    random_weights: bool = False
    answers: str = ""  #: of that model, as in `ScorerInfo`

    @property
    def outcome(self) -> Outcome | None:
        """How it ended, by its events; None: the bag does not say it."""
        kinds = [EventType[event.type] for event in self.events if event.type in EventType.__members__]
        outcome = reduce(outcome_after, kinds, None)
        return outcome or (Outcome.ENDED if EventType.EPISODE_ENDED in kinds else None)


@dataclass(slots=True)
class BagContent:
    """What is shown of a bag."""

    name: str
    duration_s: float
    messages: int
    episodes: list[BagEpisode]
    cameras: tuple[str, ...]
    about: dict[str, str]  #: what its metadata says of it: outcome, task, counts
    model: str = ""  #: where all numbers come from; empty: not known, or several
    random_weights: bool = False  #: of that model
    notes: list[str] = field(default_factory=list)  #: for a human: what is not shown, and why


def read_content(
    path: Path, image_topics: Sequence[str] = (), frames: int = 60, width: int = 320
) -> BagContent:
    """Read what is shown of the bag ``path``.

    ``image_topics``: cameras; empty: those that the monitor names, else all. ``frames``: images per camera
    over the whole bag, as far as short episodes do not need a few more. ``width``: of an image, and its
    height, at most [px]. Raises `BagError`.
    """
    with _opened(Bag(path)) as opened:
        return _Reading(opened, image_topics, frames, width).content()


@contextmanager
def _opened(bag: Bag) -> Iterator[OpenBag]:
    """``bag`` opened, with a folder for what is in its files where these are compressed."""
    with ExitStack() as stack:
        folder = bag.path  # into which nothing is put
        try:
            if bag.compression == "file":
                folder = stack.enter_context(temporary_folder("topreward-show-"))
            opened = stack.enter_context(bag.opened(folder))
        except OSError as error:
            place = os.environ.get("TMPDIR") or "/tmp"
            if error.filename in map(str, bag.files):
                raise BagError(f"{printable(error.filename)} cannot be read ({error.strerror})") from error
            raise BagError(
                f"what is in the compressed files of {bag.shown} cannot be put into the temporary folder "
                f"{printable(place)} ({error.strerror or error}): make room there, or set TMPDIR to a folder "
                "on another disk"
            ) from error
        yield opened


@dataclass(frozen=True, slots=True)
class _Monitor:
    """What a monitor said of itself."""

    received_ns: int
    model: str
    random_weights: bool
    answers: str
    cameras: tuple[str, ...]


class _Reading:
    def __init__(self, opened: OpenBag, image_topics: Sequence[str], frames: int, width: int) -> None:
        self._opened = opened
        self._wanted = image_topics
        self._frames, self._width = frames, width
        self._types = MessageTypes((PROGRESS, REWARD, EVENT, INFO))
        self._images = ImageReader(self._types.read, rosbags_image)
        self._episodes: dict[tuple[str, str], BagEpisode] = {}
        self._rewards: dict[tuple[str, str], dict[int, float]] = {}
        self._monitors: dict[str, list[_Monitor]] = {}  # by namespace
        self._last: dict[tuple[str, str], tuple[int, int]] = {}  # score: stamp, number of frames
        self._lasting: dict[tuple[str, str], str] = {}  # message of an episode when it last did not wait
        self._unreadable: dict[str, int] = {}
        self._notes: list[str] = []

    def content(self) -> BagContent:
        opened, bag = self._opened, self._opened.bag
        self._read_task_topics()
        episodes = self._finished_episodes()
        there = self._images_there()
        if not episodes and not there:
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
        self._choose_cameras(episodes, there)
        cameras = tuple(dict.fromkeys(name for episode in episodes for name in episode.cameras))
        if cameras:
            self._read_images(cameras, episodes)
        else:
            self._notes.append("No images in this bag.")
        known = [monitor for monitors in self._monitors.values() for monitor in monitors]
        models = dict.fromkeys((monitor.model, monitor.random_weights) for monitor in known)
        model, random = next(iter(models)) if len(models) == 1 else ("", False)
        for topic, count in self._unreadable.items():
            self._notes.append(
                f"{counted(count, 'message')} on {printable(topic)} could not be read: damaged, or of "
                "another version."
            )
        about = bag.metadata.get(CUSTOM_DATA) or {}
        return BagContent(
            name=bag.path.resolve().name,
            duration_s=bag.duration_ns / NS_PER_S,
            messages=sum(topic.count for topic in opened.topics),
            episodes=episodes,
            cameras=cameras,
            about={key: "" if value is None else str(value) for key, value in about.items()},
            model=model,
            random_weights=random,
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
        namespace = _above(slashed(message.topic))
        return self._episodes.setdefault((namespace, said.episode_id), BagEpisode(said.episode_id, namespace))

    def _take_progress(self, message: Message, said: Any) -> None:
        if (episode := self._episode(message, said)) is None:
            return
        episode.task = said.task or said.instruction
        episode.state = _name(State, said.state, "state")
        episode.stage, episode.stages = said.stage, said.stages
        stamp_ns = _nanoseconds(said.header.stamp)
        key, score = (episode.namespace, episode.name), (stamp_ns, int(said.num_frames))
        episode.message = said.message or self._lasting.get(key, "")
        if said.state not in _WAITING:
            self._lasting[key] = episode.message
        if said.num_frames and self._last.get(key) != score:  # else it is a heartbeat
            self._last[key] = score
            episode.scores.append(
                Score(
                    stamp_ns=stamp_ns,
                    progress=said.progress,
                    log_prob=said.log_prob,
                    log_prob_false=said.log_prob_false,
                    log_prob_static=said.log_prob_static,
                    success_probability=getattr(said, "success_probability", nan),  # older bags have none
                    received_ns=message.time_ns,
                )
            )

    def _take_reward(self, message: Message, said: Any) -> None:
        stamp_ns = _nanoseconds(said.header.stamp)
        if stamp_ns and (episode := self._episode(message, said)) is not None:
            rewards = self._rewards.setdefault((episode.namespace, episode.name), {})
            rewards.setdefault(stamp_ns, said.reward)  # the first: the score's own

    def _take_event(self, message: Message, said: Any) -> None:
        if (episode := self._episode(message, said)) is None:
            return
        episode.task = episode.task or said.instruction
        if len(episode.events) >= _MOST_EVENTS:
            episode.events_left_out += 1
            return
        name = _name(EventType, said.type, "event")
        episode.events.append(BagEvent(_nanoseconds(said.header.stamp), name, said.message, message.time_ns))

    def _take_info(self, message: Message, said: Any) -> None:
        topic = slashed(message.topic)
        namespace = topic.removesuffix("/monitor/info") if topic.endswith("/monitor/info") else _above(topic)
        model = f"{said.model_id} ({said.model_revision}), {said.device}, {said.dtype}"
        answers = str(getattr(said, "answers", ""))  # older bags have none
        cameras = tuple(slashed(str(name)) for name in said.camera_names)
        self._monitors.setdefault(namespace, []).append(
            _Monitor(message.time_ns, model, bool(said.random_weights), answers, cameras)
        )

    def _monitor_of(self, episode: BagEpisode) -> _Monitor | None:
        """The monitor of an episode: that of its namespace, or the only one there is."""
        known = self._monitors.get(episode.namespace)
        if known is None and len(self._monitors) == 1:
            (known,) = self._monitors.values()
        if not known:
            return None
        before = [monitor for monitor in known if monitor.received_ns <= episode.received_start_ns]
        return before[-1] if before else known[0]

    def _join_remapped(self) -> None:
        """Join what is said of an episode in several namespaces, where one alone has its progress."""
        by_name: dict[str, list[BagEpisode]] = {}
        for episode in self._episodes.values():
            by_name.setdefault(episode.name, []).append(episode)
        for parts in by_name.values():
            with_progress = [part for part in parts if part.state]
            if len(with_progress) != 1:
                continue
            (whole,) = with_progress
            for part in parts:
                if part is whole:
                    continue
                whole.events = sorted([*whole.events, *part.events], key=lambda event: event.received_ns)
                whole.events_left_out += part.events_left_out
                rewards = self._rewards.pop((part.namespace, part.name), {})
                ours = self._rewards.setdefault((whole.namespace, whole.name), {})
                self._rewards[whole.namespace, whole.name] = rewards | ours
                del self._episodes[part.namespace, part.name]

    def _finished_episodes(self) -> list[BagEpisode]:
        """Those that began, in order, with their rewards and their times."""
        self._join_remapped()
        began = []
        for key, episode in self._episodes.items():
            rewards = self._rewards.get(key, {})
            episode.scores = [
                replace(score, reward=rewards.get(score.stamp_ns, nan)) for score in episode.scores
            ]
            said: list[Score | BagEvent] = [*episode.scores, *episode.events]
            if not said:
                continue
            episode.received_start_ns = min(it.received_ns for it in said)
            episode.received_end_ns = max(it.received_ns for it in said)
            if any(score.stamp_ns <= 0 for score in episode.scores):
                _by_receipt(episode)
                self._notes.append(_note_by_receipt(episode, "Scores without a stamp"))
            elif _jumps(episode.scores) or _jumps(episode.events):
                _by_receipt(episode)
                self._notes.append(_note_by_receipt(episode, "A clock that jumps"))
            else:
                episode.scores.sort(key=lambda score: score.stamp_ns)
                stamps = [it.stamp_ns for it in said if it.stamp_ns > 0]
                if stamps:
                    episode.start_ns, episode.end_ns = min(stamps), max(stamps)
            if monitor := self._monitor_of(episode):
                episode.model, episode.random_weights = monitor.model, monitor.random_weights
                episode.answers = monitor.answers
            began.append(episode)
        return sorted(began, key=lambda episode: (episode.start_ns, episode.namespace))

    # ---- images ---------------------------------------------------------------------------------

    def _images_there(self) -> list[str]:
        """Topics with images that can be read."""
        return [
            slashed(topic.name)
            for topic in self._opened.topics
            if topic.type in TYPE_NAMES and topic.count and not unreadable(topic.name, [topic.type])
        ]

    def _choose_cameras(self, episodes: Sequence[BagEpisode], there: Sequence[str]) -> None:
        """Set the cameras of ``episodes``. Raises `BagError` where one was named that is not there."""
        wanted = list(dict.fromkeys(slashed(name) for name in self._wanted))
        for name in wanted:
            if name not in there:
                nor = "" if there else ", nor on another topic"
                raise BagError(
                    f"{self._opened.bag.shown} has no images on {printable(name)}{nor}; there are "
                    f"{self._opened.topics_text(there)}"
                )
        everything = [name for name in there if not is_drawn(name)] or list(there)
        most = 0
        for episode in episodes:
            monitor = self._monitor_of(episode)
            named = [name for name in dict.fromkeys(monitor.cameras if monitor else ()) if name in there]
            inside = f"{episode.namespace}/"
            own = [name for name in everything if episode.namespace and name.startswith(inside)]
            chosen = wanted or named or own or everything
            most = max(most, len(chosen))
            episode.cameras = tuple(chosen if wanted else chosen[:_MOST_CAMERAS])
        if most > _MOST_CAMERAS and not wanted:
            self._notes.append(
                f"{_MOST_CAMERAS} of {most} cameras are shown; choose others by --image-topic."
            )

    def _read_images(self, cameras: Collection[str], episodes: Sequence[BagEpisode]) -> None:
        """Fill in the frames of ``episodes``, evenly over their times."""
        if not episodes[0].name:
            self._set_times(episodes[0], cameras)
        streams = [
            _Stream(episode, camera, count)
            for episode, count in zip(episodes, self._counts(episodes), strict=True)
            for camera in episode.cameras
        ]
        bad: dict[str, int] = {}
        for message in self._opened.messages(cameras):
            topic = slashed(message.topic)
            times = _stamp_ns(message), message.time_ns
            jpeg = b""
            for stream in streams:
                if stream.camera != topic or not stream.is_due(times):
                    continue
                try:
                    jpeg = jpeg or _jpeg(self._images.decode(message.data, message.type).rgb, self._width)
                except ImageError:
                    bad[topic] = bad.get(topic, 0) + 1
                    break
                stream.take(times, jpeg)
        for episode in episodes:
            self._show(episode, [stream for stream in streams if stream.episode is episode])
        for topic, count in bad.items():
            self._notes.append(
                f"{counted(count, 'image')} on {printable(topic)} could not be read, and the next stood in."
            )

    def _show(self, episode: BagEpisode, streams: Sequence[_Stream]) -> None:
        """Give an episode its images: by their stamps, or by receipt where stamps do not fit its own."""
        misfit = [stream for stream in streams if stream.misfits]
        if misfit and len(misfit) == len([stream for stream in streams if stream.by_receipt]):
            _by_receipt(episode)
            self._notes.append(_note_by_receipt(episode, "Stamps that do not fit each other"))
            for stream in streams:
                if stream.by_receipt:
                    episode.frames[stream.camera] = stream.by_receipt
            return
        delays = [score.received_ns - score.stamp_ns for score in episode.scores]
        delay_ns = min(delays, default=0)
        for stream in streams:
            shown = stream.by_stamp
            if stream.misfits:
                shown = [replace(it, stamp_ns=it.stamp_ns - delay_ns) for it in stream.by_receipt]
                self._notes.append(
                    f"Stamps of images on {printable(stream.camera)} do not fit those of the scores in "
                    f"{printable(episode.name, 100)}: the time of receipt stands in."
                )
            if shown:
                episode.frames[stream.camera] = shown

    def _set_times(self, whole: BagEpisode, cameras: Collection[str]) -> None:
        """Set the times of the whole bag, of which no episode is known, to those of its images."""
        times = [(_stamp_ns(message), message.time_ns) for message in self._opened.messages(cameras)]
        stamps, receipts = zip(*times, strict=True)
        whole.start_ns, whole.end_ns = min(stamps), max(stamps)
        whole.received_start_ns, whole.received_end_ns = min(receipts), max(receipts)

    def _counts(self, episodes: Sequence[BagEpisode]) -> list[int]:
        """How many frames of a camera each episode is shown with."""
        spans = [max(episode.end_ns - episode.start_ns, 1) for episode in episodes]
        return [max(_FEWEST_FRAMES, round(self._frames * span / sum(spans))) for span in spans]


class _Stream:
    """The images of a camera for an episode, chosen twice: by their stamps, and by the time of receipt."""

    def __init__(self, episode: BagEpisode, camera: str, count: int) -> None:
        self.episode, self.camera = episode, camera
        self.by_stamp: list[ShownFrame] = []
        self.by_receipt: list[ShownFrame] = []
        self._plans = (
            (_Plan(episode.start_ns, episode.end_ns, count), self.by_stamp),
            (_Plan(episode.received_start_ns, episode.received_end_ns, count), self.by_receipt),
        )

    @property
    def misfits(self) -> bool:
        """Whether the time of receipt finds far more images of the episode than their stamps do."""
        return len(self.by_stamp) < _FITTING * len(self.by_receipt)

    def is_due(self, times: tuple[int, int]) -> bool:
        """Whether the image with this stamp and time of receipt is shown."""
        return any(plan.is_due(ns) for (plan, _), ns in zip(self._plans, times, strict=True))

    def take(self, times: tuple[int, int], jpeg: bytes) -> None:
        for (plan, shown), ns in zip(self._plans, times, strict=True):
            if plan.is_due(ns):
                plan.take(ns)
                shown.append(ShownFrame(ns, jpeg))


def _by_receipt(episode: BagEpisode) -> None:
    """Put all that was said of an episode at the time at which it was received."""
    episode.scores = sorted(
        (replace(score, stamp_ns=score.received_ns) for score in episode.scores),
        key=lambda score: score.stamp_ns,
    )
    episode.events = [replace(event, stamp_ns=event.received_ns) for event in episode.events]
    episode.start_ns, episode.end_ns = episode.received_start_ns, episode.received_end_ns


def _jumps(said: Sequence[Score | BagEvent]) -> bool:
    """Whether the clock of the stamps made a jump that the recorder's did not, back or far ahead.

    Of scores or of events: a score that took long is of an older frame than an event before it.
    """
    stamped = sorted((it.received_ns, it.stamp_ns) for it in said if it.stamp_ns > 0)
    return any(
        not -_JUMP_NS <= stamp_ns - before_ns <= _JUMP_NS + _FASTEST * (received_ns - earlier_ns)
        for (earlier_ns, before_ns), (received_ns, stamp_ns) in pairwise(stamped)
    )


def _note_by_receipt(episode: BagEpisode, why: str) -> str:
    return f"{why} in {printable(episode.name, 100) or 'the bag'}: times are those of receipt."


class _Plan:
    """Which images of a stream are shown: some, evenly over what is left of the time after each of them.

    So a gap, or a clock that jumps, costs the images of that time alone.

    >>> plan = _Plan(1_700_000_000_123_456_789, 1_700_000_009_123_456_787, 2)  # exact: floats are not
    >>> plan.take(1_700_000_008_000_000_000)
    >>> plan.is_due(1_700_000_009_123_456_786), plan.is_due(1_700_000_009_123_456_787)
    (False, True)
    """

    def __init__(self, start_ns: int, end_ns: int, count: int) -> None:
        """``count``: at least 2."""
        self._left = count if start_ns else 0
        self._due_ns, self._end_ns = start_ns, end_ns

    def is_due(self, stamp_ns: int) -> bool:
        return self._left > 0 and self._due_ns <= stamp_ns <= self._end_ns

    def take(self, stamp_ns: int) -> None:
        self._left -= 1
        self._due_ns = stamp_ns + (self._end_ns - stamp_ns) // max(1, self._left)


def _stamp_ns(message: Message) -> int:
    """When an image was taken [ns], or received where it does not say."""
    try:
        return stamp_ns_of(message.data) or message.time_ns
    except ImageError:
        return message.time_ns


def _above(topic: str) -> str:
    return topic.rpartition("/")[0]


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
