"""What `topreward record` does live: it listens to a monitor, its cameras and further topics, as bytes.

Wiring only. Which messages belong into which bag is decided in core/episode_bags.py, bags are written by the
thread of offline/recording.py. Nothing is decoded but what names an episode: events, rewards and progress.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from importlib import import_module
from itertools import chain
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from rclpy.serialization import deserialize_message
from rosbags.interfaces import Qos, QosHistory
from std_msgs.msg import String

from topreward_ros.core.counted import counted
from topreward_ros.core.episode_bags import (
    Begin,
    EpisodeBags,
    Finish,
    HoldUps,
    LatchedMessages,
    Received,
    RecentMessages,
    SequenceGaps,
    bag_name,
)
from topreward_ros.core.errors import UserError
from topreward_ros.core.events import EventType
from topreward_ros.core.outcome import Outcome
from topreward_ros.core.output_files import left_folders
from topreward_ros.core.outputs import State
from topreward_ros.defaults import large_image_environment
from topreward_ros.msg import MonitorInfo, TaskEvent, TaskProgress, TaskReward
from topreward_ros.nodes import qos
from topreward_ros.nodes.conversions import nanoseconds
from topreward_ros.nodes.end_signals import leaving, stop_signals
from topreward_ros.nodes.graph import monitor_of, type_name, why_unpublished
from topreward_ros.nodes.image_topics import asked_names, places
from topreward_ros.nodes.log import PrintableLog
from topreward_ros.nodes.python_log import work_for
from topreward_ros.nodes.say_once import SayOnce
from topreward_ros.nodes.startup import start
from topreward_ros.nodes.steady_timer import create_steady_timer
from topreward_ros.nodes.topic_names import TopicNameError, full_topic, name_for
from topreward_ros.offline.bag_writer import qos_profile
from topreward_ros.offline.camera_images import ImageError, stamp_ns_of
from topreward_ros.offline.image_topics import TYPE_NAMES, first_published
from topreward_ros.offline.recording import BagOptions, BagThread, Finished, TopicOffer

_DISCOVERY_S = 0.25  # between two looks at who publishes what
_CLOCK_S = 0.1
_END_S = 2.2  # from the signal that ends the recorder, for what waits to be written
_LAST_WORDS_S = 1.0  # of that, for a monitor that ends at the same time
_ON_THE_WAY_S = 0.1  # messages of a monitor that is gone
_SAME_REQUEST_S = 0.5  # one Ctrl-C may come twice
_SILENT_S = 15.0  # without a monitor, until that is said
_COPIES_REMEMBERED = 64
_ALL = "all"  # the key of the bag that is none of an episode


class RecordError(UserError):
    """Recording is not possible."""


@dataclass(frozen=True, slots=True)
class RecordOptions:
    """What is recorded, and how."""

    bags: BagOptions
    topics: tuple[str, ...] = ()  #: beside those of the monitor and its cameras
    image_topics: tuple[str, ...] = ()  #: of the monitor's cameras, to subscribe before it names them
    image_transport: str = "raw"  #: which images of `image_topics` are taken where there are both
    all_topics: bool = False
    by_episode: bool = True  #: False: one bag from the start to the end of the recorder
    exclude: frozenset[Outcome] = frozenset()  #: episodes that end so are not kept
    before_s: float = 2.0
    after_s: float = 1.0
    memory_bytes: int = 256 << 20  #: for what was received lately and what waits to be written
    monitor_timeout_s: float = 10.0


@dataclass(slots=True)
class _Topic:
    """A topic that is recorded."""

    name: str
    asked: str  # by what name a subscription gets it
    message_type: type
    type_name: str
    subscriptions: list[Any] = field(default_factory=list)
    profiles: tuple[QoSProfile, ...] = ()
    publishers: int = 0
    held: int = 0  # messages that its latched publishers hold for late subscribers
    gaps: SequenceGaps = field(default_factory=SequenceGaps)
    copies: deque[int] = field(default_factory=lambda: deque(maxlen=_COPIES_REMEMBERED))


class Recorder(PrintableLog):
    """Subscribes to what is to be recorded and hands it on."""

    def __init__(self, options: RecordOptions) -> None:
        """Raises `RecordError` for a topic that is no name, `RecordingError` for a folder that cannot be."""
        super().__init__("topreward_record")
        self._options = options
        self._say_once = SayOnce(self.get_logger())
        self._thread = BagThread(options.bags, options.memory_bytes // 2, self.get_logger().error)
        self._bags = EpisodeBags(after_s=options.after_s, monitor_timeout_s=options.monitor_timeout_s)
        self._holdups = HoldUps()
        self._recent = RecentMessages(options.before_s, options.memory_bytes // 2)
        self._latched = LatchedMessages()
        self._topics: dict[str, _Topic] = {}
        self._tasks: dict[str, tuple[str, str]] = {}  # when an episode began, and its instruction
        self._lost_before: dict[str, dict[str, int]] = {}  # by episode and topic, when its bag began
        self._cameras: tuple[str, ...] = ()  # as the monitor names them
        self._expected: set[str] = set()  # topics of `image_topics`, until the monitor has named its cameras
        self._starts_ns: dict[str, int] = {}  # stamp of EPISODE_STARTED, by episode; 0: none
        # The earliest stamp of each topic of images in a bag, by episode: which of them is the camera may be
        # known only later.
        self._first_images_ns: dict[str, dict[str, int]] = {}
        self._started_s = time.monotonic()
        self._readers: dict[str, Callable[[bytes, int], tuple[str | None, list[Begin]]]] = {}
        try:
            self._event_topic = full_topic(self, "task_event")
            self._given = [*options.topics, *chain(*map(asked_names, options.image_topics))]
            self._wanted = {full_topic(self, topic) for topic in options.topics}
            self._places = [places(self, topic, options.image_transport) for topic in options.image_topics]
            for kind, topic, expected, reader in (
                (TaskEvent, "task_event", (qos.events(),), self._read_event),
                (TaskProgress, "task_state", (qos.latched(),), self._read_progress),
                (TaskProgress, "task_progress", (qos.progress(),), self._read_progress),
                (TaskReward, "task_reward", (qos.progress(),), self._read_reward),
                (MonitorInfo, "monitor/info", (qos.latched(),), self._read_info),
                (String, "task_instruction", (qos.instruction_volatile(), qos.instruction_latched()), None),
            ):
                name = full_topic(self, topic)
                if reader is not None and (options.by_episode or kind is MonitorInfo):
                    self._readers[name] = reader
                added = self._add_topic(name, topic, type_name(kind), kind)
                self._subscribe(added, qos.recording(expected))
                added.held = qos.latched() in expected  # until its publishers are known
        except ValueError as error:  # a name that is none, or a camera
            self.destroy_node()
            raise RecordError(str(error)) from error
        except UserError:
            self.destroy_node()
            raise
        what = f"a bag per episode of {monitor_of(self._event_topic)}" if options.by_episode else "one bag"
        self.get_logger().info(f"recording into {options.bags.folder}: {what}")
        self._warn_of_left_folders()
        if not options.by_episode:
            self._begin_bag(_ALL, "recording", {})
        create_steady_timer(self, _DISCOVERY_S, self._look_at_publishers)
        create_steady_timer(self, _CLOCK_S, self._look_at_clock)

    @property
    def failed(self) -> bool:
        """Whether a bag could not be written."""
        return self._thread.failed

    def end(self, executor: SingleThreadedExecutor, cut_off: Callable[[], bool]) -> bool:
        """Finish all bags; False where that was cut off or the disk hangs."""
        end_s = time.monotonic() + _END_S
        self._await_last_words(executor, cut_off)
        for topic in self._topics.values():
            self._unsubscribe(topic)
        for finish in self._bags.stop():
            self._finish(finish)
        if not self._options.by_episode:
            self._thread.finish(_ALL, self._tasks[_ALL][0] + "_recording", self._about(_ALL))
        ended = self._thread.stop(end_s - time.monotonic(), cut_off)
        self._tell_finished()
        if not ended:
            for folder in left_folders(self._options.bags.folder):
                self.get_logger().error(f"cut off: {folder} is left unfinished")
        return ended

    def _await_last_words(self, executor: SingleThreadedExecutor, cut_off: Callable[[], bool]) -> None:
        """Record on while open episodes may end: one Ctrl-C often ends the monitor and the recorder."""
        end_s = time.monotonic() + _LAST_WORDS_S
        while time.monotonic() < end_s and self._bags.awaits_end(time.monotonic_ns()):
            if cut_off() or self.failed:
                return
            if not self.count_publishers(self._event_topic):
                end_s = min(end_s, time.monotonic() + _ON_THE_WAY_S)
            executor.spin_once(timeout_sec=0.02)

    # ---- which topics ---------------------------------------------------------------------------

    def _look_at_publishers(self) -> None:
        """Subscribe to what is wanted and published, as its publishers need it."""
        self._expect_cameras()
        names = {*self._topics, *self._wanted, *self._cameras, *self._expected}
        if self._options.all_topics:
            names |= {name for name, _ in self.get_topic_names_and_types() if "/_" not in name}
        for name in names:
            infos = self.get_publishers_info_by_topic(name)
            if not infos:
                if topic := self._topics.get(name):
                    topic.publishers = 0
                continue
            topic = self._topics.get(name) or self._new_topic(name, sorted({i.topic_type for i in infos}))
            if topic is not None:
                self._follow(topic, [info for info in infos if info.topic_type == topic.type_name])

    def _expect_cameras(self) -> None:
        """Find the cameras of `image_topics` as the monitor will; once it has named its own, these count."""
        if not self._cameras:
            found = [first_published(several, self._types_on) for several in self._places]
            self._expected |= {place.name for place in found if place}
            return
        for name in self._expected - self._wanted - {*self._cameras}:
            if not self._options.all_topics and (topic := self._topics.pop(name, None)):
                self._unsubscribe(topic)
        self._expected.clear()

    def _types_on(self, name: str) -> set[str]:
        return {info.topic_type for info in self.get_publishers_info_by_topic(name)}

    def _new_topic(self, name: str, type_names: Sequence[str]) -> _Topic | None:
        if len(type_names) > 1:
            more = ", ".join(type_names[1:])
            self._say_once.warn(("types", name), lambda: f"{name} has other types, not recorded: {more}")
        package, _, rest = type_names[0].partition("/")
        kind, _, short = rest.partition("/")
        try:
            message_type = getattr(import_module(f"{package}.{kind}"), short)
        except (ImportError, AttributeError, ValueError):
            said = f"{name} is not recorded: {type_names[0]} is not installed here; source its workspace"
            self._say_once.warn(("type", name), lambda: said)
            return None
        try:
            asked = name_for(self, name, self._given)
        except TopicNameError as error:
            problem = f"not recorded: {error}"
            self._say_once.warn(("name", name), lambda: problem)
            return None
        return self._add_topic(name, asked, type_names[0], message_type)

    def _add_topic(self, name: str, asked: str, type_name: str, message_type: type) -> _Topic:
        topic = self._topics[name] = _Topic(name, asked, message_type, type_name)
        self._thread.offer(TopicOffer(name, type_name))
        return topic

    def _follow(self, topic: _Topic, infos: Sequence[Any]) -> None:
        """Subscribe as the publishers of ``topic`` need it."""
        offered = [info.qos_profile for info in infos]
        latched = [
            profile for profile in offered if profile.durability == QoSDurabilityPolicy.TRANSIENT_LOCAL
        ]
        topic.publishers = len(infos)
        topic.held = sum(max(1, profile.depth) for profile in latched)
        profiles = qos.recording(offered)
        kept = {(profile.reliability, profile.durability) for profile in topic.profiles}
        if not {(profile.reliability, profile.durability) for profile in profiles} <= kept:
            self._subscribe(topic, profiles)
        offers = tuple(dict.fromkeys(map(_as_bags_say, offered)))
        self._thread.offer(TopicOffer(topic.name, topic.type_name, offers))

    def _subscribe(self, topic: _Topic, profiles: tuple[QoSProfile, ...]) -> None:
        self._unsubscribe(topic)
        topic.profiles = profiles
        subscribe = partial(self.create_subscription, topic.message_type, topic.asked, raw=True)
        topic.subscriptions = [subscribe(self._callback(topic), profile) for profile in profiles]

    def _callback(self, topic: _Topic) -> Callable[[bytes, dict[str, Any]], None]:
        def take(raw: bytes, info: dict[str, Any]) -> None:  # rclpy looks at the signature
            self._on_message(topic, raw, info)

        return take

    def _unsubscribe(self, topic: _Topic) -> None:
        for subscription in topic.subscriptions:
            self.destroy_subscription(subscription)
        topic.subscriptions.clear()

    # ---- messages -------------------------------------------------------------------------------

    def _on_message(self, topic: _Topic, raw: bytes, info: dict[str, Any]) -> None:
        if len(topic.subscriptions) > 1:
            if info["source_timestamp"] in topic.copies:
                return
            topic.copies.append(info["source_timestamp"])
        topic.gaps.take(info["publication_sequence_number"], topic.publishers)
        now_ns, system_ns = self._take_turn(), time.time_ns()
        arrival_ns = self._holdups.arrival_ns(topic.name, now_ns, system_ns - info["source_timestamp"])
        reader = self._readers.get(topic.name)
        named, begun = reader(raw, arrival_ns) if reader else (None, [])
        time_ns = self._now_ns() if self._is_simulated() else info["received_timestamp"] or system_ns
        message = Received(topic.name, topic.type_name, raw, time_ns, arrival_ns, named)
        if topic.held:
            self._latched.add(message, topic.held)
        if not self._options.by_episode:
            self._thread.write(_ALL, message)
            return
        self._recent.add(message)
        for begin in begun:
            self._begin_episode(begin)
        new = {begin.episode_id for begin in begun}  # which were given what is recent
        for episode_id in self._bags.takers(named, arrival_ns):
            if episode_id not in new:
                self._write(episode_id, message)

    def _take_turn(self) -> int:
        """The moment of this turn, by which all of it is judged: the process may be stopped at any line."""
        now_ns = time.monotonic_ns()
        if span_ns := self._holdups.turn(now_ns):
            self._bags.held_up(span_ns)
        return now_ns

    def _read_event(self, raw: bytes, arrival_ns: int) -> tuple[str | None, list[Begin]]:
        event: TaskEvent = deserialize_message(raw, TaskEvent)
        with suppress(ValueError):  # a type that this version does not know
            if event.type == TaskEvent.EPISODE_STARTED:
                self._starts_ns[event.episode_id] = nanoseconds(event.header.stamp)
            begun = self._bags.event(
                time.monotonic_ns(),
                EventType(event.type),
                event.episode_id,
                event.instruction,
                arrival_ns,
            )
            return event.episode_id, begun
        return event.episode_id, []

    def _read_progress(self, raw: bytes, _: int) -> tuple[str | None, list[Begin]]:
        report: TaskProgress = deserialize_message(raw, TaskProgress)
        with suppress(ValueError):
            begun = self._bags.report(
                time.monotonic_ns(), State(report.state), report.episode_id, report.instruction
            )
            return report.episode_id, begun
        return report.episode_id, []

    def _read_reward(self, raw: bytes, _: int) -> tuple[str | None, list[Begin]]:
        reward: TaskReward = deserialize_message(raw, TaskReward)
        if reward.terminated or reward.truncated:
            self._bags.last_reward(reward.episode_id)
        return reward.episode_id, []

    def _read_info(self, raw: bytes, _: int) -> tuple[str | None, list[Begin]]:
        info: MonitorInfo = deserialize_message(raw, MonitorInfo)
        self._cameras = tuple(info.camera_names)
        self._look_at_publishers()  # an episode may begin before the next look
        return None, []

    # ---- bags -----------------------------------------------------------------------------------

    def _begin_episode(self, begin: Begin) -> None:
        recent = self._recent.messages()
        latched = self._latched.before(recent)
        start_ns = min(message.time_ns for message in recent)
        about = {"episode_id": begin.episode_id, "task": begin.instruction}
        self._begin_bag(begin.episode_id, begin.instruction, about)
        for message in (*(replace(message, time_ns=start_ns) for message in latched), *recent):
            if message.episode_id in (None, "", begin.episode_id):
                self._write(begin.episode_id, message)
        if self._recent.cut_short_bytes:
            self._say_once.warn(
                "memory",
                lambda: (
                    f"not all of the {self._options.before_s:g} s before an episode fit into memory: "
                    "give more with --memory, or record less with --before"
                ),
            )
        self.get_logger().info(f"recording episode '{begin.episode_id}': {begin.instruction}")

    def _write(self, episode_id: str, message: Received) -> None:
        if message.type_name in TYPE_NAMES:
            earliest = self._first_images_ns.setdefault(episode_id, {})
            known_ns = earliest.get(message.topic)
            if known_ns is None or known_ns > self._starts_ns.get(episode_id, 0):
                with suppress(ImageError):
                    stamp_ns = stamp_ns_of(message.data)
                    earliest[message.topic] = stamp_ns if known_ns is None else min(stamp_ns, known_ns)
        self._thread.write(episode_id, message)

    def _begin_bag(self, key: str, instruction: str, about: dict[str, str]) -> None:
        when = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        self._tasks[key] = when, instruction
        self._lost_before[key] = {name: topic.gaps.lost for name, topic in self._topics.items()}
        self._thread.begin(key, bag_name(when, instruction), about)

    def _look_at_clock(self) -> None:
        there = self.count_publishers(self._event_topic) > 0
        for finish in self._bags.clock(self._take_turn(), monitor_there=there):
            self._finish(finish)
        self._tell_finished()
        if not there and time.monotonic() - self._started_s > _SILENT_S:
            self._say_once.warn("monitor", self._no_monitor)

    def _no_monitor(self) -> str:
        return (
            f"nobody publishes {self._event_topic}: "
            f"{why_unpublished(self, self._event_topic, TaskEvent)} "
            "(for one in a namespace: `topreward record --ros-args -r __ns:=/arm`)"
        )

    def _finish(self, finish: Finish) -> None:
        when, instruction = self._tasks[finish.episode_id]
        outcome = finish.outcome
        if finish.why:
            self.get_logger().warning(f"episode '{finish.episode_id}' is closed as {outcome}: {finish.why}")
        lost, lacks_first = self._about(finish.episode_id), self._lacks_first_image(finish.episode_id)
        about = {"outcome": outcome.value, "complete": "true", **lost}
        if outcome in (Outcome.MONITOR_LOST, Outcome.STOPPED):
            about["complete"] = f"false: {finish.why}"
        elif not finish.from_the_start:
            about["complete"] = "false: recording began in the middle of the episode"
        elif lacks_first:
            about["complete"] = f"false: {lacks_first}"
            self.get_logger().warning(f"episode '{finish.episode_id}': {lacks_first}")
        elif lost:
            about["complete"] = "false: messages were lost on the way to the recorder"
        is_kept = outcome not in self._options.exclude
        if not is_kept:
            self.get_logger().info(f"episode '{finish.episode_id}' is not kept: {outcome} is excluded")
        name = bag_name(when, instruction, outcome) if is_kept else None
        self._thread.finish(finish.episode_id, name, about)
        del self._tasks[finish.episode_id]

    def _lacks_first_image(self, episode_id: str) -> str:
        """That the episode's first frame is not in its bag; empty: it is, or nobody can say."""
        start_ns = self._starts_ns.pop(episode_id, 0)
        earliest = self._first_images_ns.pop(episode_id, {})
        if not start_ns or not self._cameras:
            return ""
        camera = self._cameras[0]
        if camera in earliest and earliest[camera] <= start_ns:
            return ""
        mend = (
            f"name the camera to the recorder (--image-topic {camera}), as the monitor's word comes too late"
        )
        if self._places or camera in self._wanted:
            mend = "start the recorder and the camera before whoever begins episodes"
        return f"the first frame of the episode is not in the bag, as no image of {camera} had come: {mend}"

    def _about(self, key: str) -> dict[str, str]:
        """What was lost on the way to us while a bag was open."""
        before = self._lost_before.pop(key)
        lost = {
            name: number
            for name, topic in self._topics.items()
            if (number := topic.gaps.lost - before.get(name, 0))
        }
        said = ", ".join(f"{number} of {name}" for name, number in lost.items())
        if said:
            self.get_logger().warning(f"messages were lost on the way to the recorder: {said}")
        return {"messages_lost": said} if said else {}

    def _tell_finished(self) -> None:
        for bag in self._thread.finished():
            if bag.problem or bag.dropped:
                self.get_logger().warning(_about_finished(bag))
            elif bag.path is not None:
                self.get_logger().info(_about_finished(bag))

    def _warn_of_left_folders(self) -> None:
        folder = self._options.bags.folder
        for left in left_folders(folder):
            self.get_logger().warning(
                f"{left} was not finished by its recorder: `topreward record --recover --output {folder}` "
                "finishes it"
            )

    def _is_simulated(self) -> bool:
        return bool(self.get_clock().ros_time_is_active)

    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)


def _about_finished(bag: Finished) -> str:
    if bag.path is None:
        return f"nothing of '{bag.key}' was saved: {bag.problem or 'its outcome is excluded'}"
    text = f"saved {bag.path}: {counted(bag.messages, 'message')}, {bag.seconds:.1f} s"
    if bag.dropped:
        counts = ", ".join(f"{number} of {topic}" for topic, number in bag.dropped.items())
        text += f"; left out, as the disk did not keep up: {counts}"
    return text + (f"; {bag.problem}" if bag.problem else "")


def _as_bags_say(profile: QoSProfile) -> Qos:
    return qos_profile(
        reliable=profile.reliability == QoSReliabilityPolicy.RELIABLE,
        transient_local=profile.durability == QoSDurabilityPolicy.TRANSIENT_LOCAL,
        depth=profile.depth,
        history=QosHistory(int(profile.history)),  # most DDS implementations do not tell: unknown
    )


def run(options: RecordOptions, ros_arguments: Sequence[str]) -> int:
    """Record until a signal comes, or a bag cannot be written. Returns the exit status: 0, or 1 then.

    Raises `StartError`, `RecordError` and `RecordingError`.
    """
    os.environ |= large_image_environment(os.environ)  # read when the node is made
    with stop_signals() as signals:
        start(ros_arguments)
        executor, status = SingleThreadedExecutor(), 1
        try:
            recorder = Recorder(options)
            work_for(recorder)
            executor.add_node(recorder)
            while not signals and not recorder.failed:
                executor.spin_once(timeout_sec=0.1)
            first_s = time.monotonic()
            again = partial(_asked_again, signals, first_s)
            ended = recorder.end(executor, again)
            status = 0 if ended and not recorder.failed else 1
        finally:
            with leaving(status):
                executor.shutdown(timeout_sec=0.5)
                rclpy.try_shutdown()
        return status


def _asked_again(signals: Sequence[int], first_s: float) -> bool:
    return len(signals) > 1 and time.monotonic() - first_s > _SAME_REQUEST_S
