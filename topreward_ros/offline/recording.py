"""Bags that are written by a thread of their own, so that nobody who receives messages waits for the disk.

What is to be written waits in a queue whose bytes are bounded: where the disk does not keep up, messages are
left out and counted. What has been written is handed to the kernel every second, so that a kill costs no more
than that. Where the disk is full, the bag is finished with what is on it.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue

from rosbags.interfaces import Qos

from topreward_ros.core.episode_bags import Received
from topreward_ros.core.errors import UserError
from topreward_ros.core.output_files import NameTakenError, OutputFileError
from topreward_ros.core.printable import printable
from topreward_ros.offline.bag_recovery import RecoveryError, finish_left
from topreward_ros.offline.bag_writer import BagWriter, Compression, Topic
from topreward_ros.offline.message_definitions import DefinitionError

_FLUSH_S = 1.0
_MOST_NAMES = 1000  # that are tried where a name is taken
#: Small messages are still taken where the queue is full of large ones, up to so much more.
_SMALL_BYTES = 65_536
_FOR_SMALL_BYTES = 8 << 20


class RecordingError(UserError):
    """A bag cannot be begun."""


@dataclass(frozen=True, slots=True)
class BagOptions:
    """How bags are written."""

    folder: Path
    compression: Compression = "none"
    longest_file_s: float = 0.0  #: 0: no limit
    largest_file_bytes: int = 0  #: 0: no limit


@dataclass(frozen=True, slots=True)
class TopicOffer:
    """A topic that is subscribed to, with the QoS that its publishers offer."""

    name: str
    type_name: str
    qos: tuple[Qos, ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    """What became of a bag."""

    key: str
    path: Path | None  #: None: it was discarded, or nothing of it could be saved
    messages: int
    dropped: Mapping[str, int]  #: messages by topic that were left out
    seconds: float  #: from its first message to its last
    problem: str = ""  #: why it does not hold all; empty: it does


@dataclass(slots=True)
class _Bag:
    """A bag of the thread."""

    key: str
    writer: BagWriter | None  # None once it has failed
    topics: dict[tuple[str, str], Topic | None] = field(default_factory=dict)  # None: it cannot be written
    messages: int = 0
    first_ns: int = 0
    last_ns: int = 0
    unflushed: bool = False
    problem: str = ""
    saved: Path | None = None  # where a bag that failed is


class BagThread:
    """Writes bags, each known by a key. All methods are for one thread, and none waits but `stop`."""

    def __init__(self, options: BagOptions, most_bytes: int, tell: Callable[[str], None]) -> None:
        """``most_bytes``: that may wait to be written. ``tell`` is called, in the thread, with what a person
        should know. Raises `OutputFileError` where the folder cannot be written to."""
        self.options = options
        self.failed = False  #: a bag could not be begun, or had to be cut
        self._most_bytes = most_bytes
        self._tell = tell
        self._commands: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._finished: deque[Finished] = deque()
        self._queued_bytes = 0  # by us, ever
        self._done_bytes = 0  # by the thread, ever
        self._given_up = False
        self._dropped: dict[str, Counter[str]] = {}
        self._offers: dict[tuple[str, str], TopicOffer] = {}
        self._bags: dict[str, _Bag] = {}  # the thread's
        _check_folder(options.folder)
        self._thread = threading.Thread(target=self._work, name="bags", daemon=True)
        self._thread.start()

    @property
    def waiting_bytes(self) -> int:
        """What waits to be written."""
        return self._queued_bytes - self._done_bytes

    def offer(self, topic: TopicOffer) -> None:
        """Announce a topic, or what its publishers offer now: for all bags that begin later."""
        self._offers[topic.name, topic.type_name] = topic

    def begin(self, key: str, name: str, about: Mapping[str, str] | None = None) -> None:
        """Begin a bag that is called ``name`` until its end, or name_2 and so on.

        ``about``: goes into its metadata, also where it is not finished in order.
        """
        offers = tuple(self._offers.values())
        self._dropped[key] = Counter()
        self._commands.put(lambda: self._begin(key, name, offers, dict(about or {})))

    def write(self, key: str, message: Received) -> bool:
        """Have a message written; False: it was left out, and counted."""
        size = len(message.data)
        most = self._most_bytes + (_FOR_SMALL_BYTES if size <= _SMALL_BYTES else 0)
        if self.waiting_bytes + size > most:
            self._dropped[key][message.topic] += 1
            return False
        self._queued_bytes += size
        offer = self._offers.get((message.topic, message.type_name))
        self._commands.put(lambda: self._write(key, message, offer))
        return True

    def finish(self, key: str, name: str | None, about: Mapping[str, str]) -> None:
        """Finish a bag under ``name``, or name_2 and so on; None: discard it.

        ``about``: goes into its metadata, with the counts of what was left out.
        """
        dropped = self._dropped.pop(key, Counter())
        self._commands.put(lambda: self._finish(key, name, dict(about), dropped))

    def finished(self) -> list[Finished]:
        """What was finished since the last call."""
        found = []
        with suppress(IndexError):
            while True:
                found.append(self._finished.popleft())
        return found

    def stop(self, longest_s: float, cut_off: Callable[[], bool] = lambda: False) -> bool:
        """Write what waits, for ``longest_s`` at most, and leave out the rest; then end.

        Bags that were to be finished are. False: ``cut_off()`` became true, or the disk hangs; bags are then
        still there under their other names.
        """
        self._commands.put(None)
        end = time.monotonic() + longest_s
        while self._thread.is_alive() and not cut_off():
            self._thread.join(0.05)
            self._given_up = self._given_up or time.monotonic() > end
        return not self._thread.is_alive()

    # ---- in the thread --------------------------------------------------------------------------

    def _work(self) -> None:
        flushed_s = time.monotonic()
        while True:
            try:
                command = self._commands.get(timeout=max(0.0, flushed_s + _FLUSH_S - time.monotonic()))
                if command is None:
                    return
                command()
            except Empty:
                pass
            if time.monotonic() - flushed_s >= _FLUSH_S:
                for bag in self._bags.values():
                    self._guarded(bag, partial(self._flush, bag))
                flushed_s = time.monotonic()

    def _flush(self, bag: _Bag) -> None:
        if bag.unflushed and bag.writer is not None:
            bag.writer.flush()
            bag.unflushed = False

    def _begin(self, key: str, name: str, offers: Sequence[TopicOffer], about: Mapping[str, str]) -> None:
        self._bags[key] = bag = _Bag(key, None)
        try:
            bag.writer = self._new_writer(name)
        except OutputFileError as error:
            bag.problem = str(error)
            self.failed = True
            self._tell(f"episode {printable(key)} is not recorded: {error}")
            return
        bag.writer.custom_data.update(about)
        self._guarded(bag, bag.writer.note)
        for offer in offers:
            self._add_topic(bag, offer)

    def _new_writer(self, name: str) -> BagWriter:
        options = self.options
        for number in range(1, _MOST_NAMES):
            with suppress(NameTakenError):
                return BagWriter(
                    options.folder / (name if number == 1 else f"{name}_{number}"),
                    compression=options.compression,
                    longest_file_s=options.longest_file_s,
                    largest_file_bytes=options.largest_file_bytes,
                )
        raise OutputFileError(f"{options.folder / name} and its like are all taken: name another folder")

    def _add_topic(self, bag: _Bag, offer: TopicOffer) -> Topic | None:
        key = offer.name, offer.type_name
        if key not in bag.topics and bag.writer is not None:
            try:
                bag.topics[key] = bag.writer.add_topic(offer.name, offer.type_name, qos=offer.qos)
            except DefinitionError as error:
                bag.topics[key] = None
                self._tell(f"{offer.name} is not recorded: {error}")
        return bag.topics.get(key)

    def _write(self, key: str, message: Received, offer: TopicOffer | None) -> None:
        self._done_bytes += len(message.data)
        bag = self._bags[key]
        if bag.writer is None or self._given_up:
            bag.problem = bag.problem or "the disk did not keep up when the recorder ended"
            return
        topic = self._add_topic(bag, offer or TopicOffer(message.topic, message.type_name))
        if topic is not None:
            self._guarded(bag, lambda: self._write_to(bag, topic, message))

    def _write_to(self, bag: _Bag, topic: Topic, message: Received) -> None:
        assert bag.writer is not None
        bag.writer.write(topic, message.data, message.time_ns)
        bag.unflushed = True
        bag.first_ns = min(bag.first_ns or message.time_ns, message.time_ns)
        bag.last_ns = max(bag.last_ns, message.time_ns)
        bag.messages += 1

    def _guarded(self, bag: _Bag, act: Callable[[], None]) -> None:
        """Do something that writes; where it fails, finish the bag with what is on disk."""
        try:
            act()
        except (OSError, OutputFileError) as error:
            self.failed = True
            why = error.strerror if isinstance(error, OSError) else str(error)
            bag.problem = f"it was cut: {why}"
            self._tell(
                f"the bag of {printable(bag.key)} cannot go on ({why}): make room, or name another disk"
            )
            self._save(bag)

    def _save(self, bag: _Bag) -> None:
        assert bag.writer is not None
        folder = bag.writer.abandon()
        bag.writer = None
        try:
            target = folder.target.with_name(f"{folder.target.name}_cut")
            saved = finish_left(folder, target, {"outcome": "cut", "complete": f"false: {bag.problem}"})
        except (RecoveryError, OSError, OutputFileError) as error:
            bag.problem += f"; {error}; what was written is in {folder.path}"
            folder.release()
            return
        bag.problem += f", and {bag.messages - saved.messages} of {bag.messages} messages were lost"
        bag.saved, bag.messages = saved.path, saved.messages

    def _finish(self, key: str, name: str | None, about: dict[str, str], dropped: Counter[str]) -> None:
        bag = self._bags.pop(key)
        path = bag.saved
        if bag.writer is not None:
            if name is None:
                bag.writer.discard()
            else:
                if dropped:
                    about["messages_dropped"] = ", ".join(
                        f"{number} of {topic}" for topic, number in dropped.items()
                    )
                    if about.get("complete") == "true":
                        about["complete"] = "false: messages were left out, as the disk did not keep up"
                if bag.problem:
                    about["complete"] = f"false: {bag.problem}"
                bag.writer.custom_data.update(about)
                closed = []
                self._guarded(bag, lambda: closed.append(self._close(bag, name)))
                path = closed[0] if closed else bag.saved
        self._finished.append(
            Finished(key, path, bag.messages, dropped, (bag.last_ns - bag.first_ns) / 1e9, bag.problem)
        )

    def _close(self, bag: _Bag, name: str) -> Path:
        assert bag.writer is not None
        for number in range(1, _MOST_NAMES):
            with suppress(NameTakenError):
                target = self.options.folder / (name if number == 1 else f"{name}_{number}")
                return bag.writer.close(target)
        return bag.writer.close()


def _check_folder(folder: Path) -> None:
    """Raise `RecordingError` where bags cannot be written into ``folder``; it is made."""
    probe = folder / f".probe-{threading.get_ident()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.mkdir()
        probe.rmdir()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise RecordingError(
            f"no bag can be written into {printable(str(folder))} ({why}): name another folder"
        ) from error
