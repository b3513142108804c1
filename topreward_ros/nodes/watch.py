"""What `topreward watch` does: it subscribes to a monitor and keeps the screen up to date.

On a terminal it redraws one picture; elsewhere it prints a line per score and per event.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path
from types import TracebackType

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.exceptions import InvalidTopicNameException
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSDurabilityPolicy
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.live import Live

from topreward_ros.core.errors import UserError
from topreward_ros.core.output_files import write_file
from topreward_ros.core.printable import printable
from topreward_ros.msg import MonitorInfo, TaskEvent, TaskProgress
from topreward_ros.nodes import conversions, qos
from topreward_ros.nodes.end_signals import leaving, stop_signals
from topreward_ros.nodes.graph import (
    A_NODE,
    all_named,
    monitor_of,
    node_of,
    published,
    publishers_of,
    type_name,
    why_unpublished,
)
from topreward_ros.nodes.startup import start, why_no_start
from topreward_ros.scoring.base import RANDOM_WEIGHTS
from topreward_ros.views.terminal import number
from topreward_ros.views.watch import WatchLog, description_line, event_line, sample_line, view, why_no_score

_TYPE_NAME = type_name(TaskProgress)
_REDRAW_S = 0.25  # between two pictures; the age of the last message changes even when nothing comes
_SILENCE_S = 5.0  # without a message, until advice is shown
_WIDEST = 110  # columns of the picture
_PUBLISHERS_S = 1.0  # between two looks at who publishes
_DISCOVERY_S = 1.5  # for the nodes of this machine to find each other
_LONGEST_DISCOVERY_S = 15.0  # for participants that must be there; a lost announcement comes again after 3 s
_TOPICS_S = 0.5  # until the topics of a participant that was discovered are known, too


class WatchError(UserError):
    """Watching is not possible."""


class Screen:
    """Where the log is shown: one picture on a terminal, else lines. Use it as a context manager."""

    def __init__(self, log: WatchLog) -> None:
        self._log = log
        self._console = Console(highlight=False)
        # The picture is made of block characters; without UTF-8 lines say more.
        drawable = self._console.is_terminal and self._console.encoding.startswith("utf")
        self._live = Live(console=self._console, auto_refresh=False) if drawable else None
        self._drawn_s = 0.0

    def __enter__(self) -> Screen:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self.draw(force=True)
            self._live.stop()

    def line(self, text: str) -> None:
        """Print a line, unless there is a picture, which shows the same."""
        if self._live is None:
            print(printable(text), flush=True)

    def draw(self, force: bool = False) -> None:
        """Redraw the picture if ``force`` is set or the last one is old enough."""
        now_s = time.monotonic()
        if self._live is None or (not force and now_s - self._drawn_s < _REDRAW_S):
            return
        self._drawn_s = now_s
        width, height = self._console.size
        # One row less than the terminal has: the cursor needs one at the end.
        picture = view(self._log, now_s, min(width, _WIDEST), height - 1)
        self._live.update(picture, refresh=True)


class Watcher:
    """Subscriptions to one monitor, and the log that they fill. Use it as a context manager."""

    def __init__(self, topic: str, ros_arguments: Sequence[str]) -> None:
        """Subscribe to ``topic`` (TaskProgress), and to events and info beside it. Raises `WatchError`,
        `StartError`."""
        self.status_if_cut_off = 1  #: of the process, where ROS 2 does not close
        start(ros_arguments)
        try:
            self._node = Node(
                "topreward_watch",
                parameter_overrides=[],
                enable_rosout=False,
                start_parameter_services=False,
            )
        except Exception as error:  # the middleware: it may lack DDS security, or its keys
            rclpy.try_shutdown()
            raise WatchError(why_no_start(ros_arguments, error)) from error
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        try:
            self._subscribe(topic)
        except InvalidTopicNameException as error:
            self.close()
            raise WatchError(f"topic {topic!r} is not a name: {str(error).splitlines()[0]}") from error

    def __enter__(self) -> Watcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave ROS 2."""
        with leaving(self.status_if_cut_off):
            self._executor.shutdown(timeout_sec=0.5)
            self._node.destroy_node()
            rclpy.try_shutdown()

    def follow(self, screen: Screen, done: Callable[[], bool], advise: bool = True) -> None:
        """Take messages and show them until ``done()``, which is asked about ten times a second.

        ``advise``: say what to check when nothing comes. `advise_at_end` says it of less time.
        """
        self._screen = screen
        self._started_s = started_s = time.monotonic()
        advised_s = looked_s = started_s
        while not done():
            self._executor.spin_once(timeout_sec=0.1)
            now_s = time.monotonic()
            if now_s - looked_s > _PUBLISHERS_S:
                looked_s = now_s
                self._look_at_publishers()
            silence_s = self.log.silence_s(now_s, started_s)
            if advise and silence_s > _SILENCE_S and now_s - advised_s > _SILENCE_S:
                advised_s = now_s
                self._advise(silence_s)
            screen.draw()

    def advise_at_end(self) -> None:
        """Say what to check where nothing has come and nothing was said of it."""
        now_s = time.monotonic()
        if self.log.last_arrival_s is None and not self.log.advice and not self.log.waits_now(now_s):
            self._advise(now_s - self._started_s)

    def _subscribe(self, topic: str) -> None:
        beside = topic[: topic.rfind("/") + 1]
        subscribe = self._node.create_subscription
        self._name = topic
        self._subscription = subscribe(TaskProgress, topic, self._on_progress, qos.progress())
        self._latched = False
        subscribe(TaskEvent, f"{beside}task_event", self._on_event, qos.events())
        subscribe(DiagnosticArray, conversions.DIAGNOSTICS, self._on_diagnostics, qos.diagnostics())
        # The last one: subscriptions are announced in order, see `is_known`.
        subscribe(MonitorInfo, f"{beside}monitor/info", self._on_info, qos.latched())
        self.log = WatchLog(self._subscription.topic_name)

    def is_known(self) -> bool:
        """Whether the monitor knows our subscriptions: its latched info, which needs the last one, came."""
        return bool(self.log.model)

    def publishers(self, topic: str) -> list[str]:
        """Who publishes ``topic``: the full name of the node, once per publisher."""
        return sorted(
            node_of(info)
            for info in self._node.get_publishers_info_by_topic(self._node.resolve_topic_name(topic))
        )

    def discover(
        self, topics: Sequence[str], others: int, stopped: Callable[[], bool]
    ) -> dict[str, list[str]]:
        """Wait until the nodes of this machine have been discovered. Returns the publishers of each of
        ``topics`` that has any, as soon as they are known.

        ``others``: how many other DDS participants are on this machine. ``stopped``: whether to give up.
        """
        begun_s = time.monotonic()
        all_met_s = begun_s + _LONGEST_DISCOVERY_S  # at the latest; earlier once all have been met
        found: dict[str, list[str]] = {}
        while True:
            if self._participants_met() >= others:
                all_met_s = min(all_met_s, time.monotonic())
            before = found
            found = {topic: names for topic in topics if (names := self.publishers(topic))}
            complete = bool(found) and found == before and all(map(all_named, found.values()))
            over = time.monotonic() >= max(begun_s + _DISCOVERY_S, all_met_s + _TOPICS_S)
            if complete or over or stopped():
                return found
            time.sleep(0.1)

    def _participants_met(self) -> int:
        """How many other DDS participants are known: each tells which nodes it has on a topic of its own."""
        return len(self._node.get_publishers_info_by_topic("ros_discovery_info", no_mangle=True)) - 1

    def _look_at_publishers(self) -> None:
        """Warn of several publishers; subscribe anew to a latched topic such as task_state."""
        infos = [
            info
            for info in self._node.get_publishers_info_by_topic(self.log.topic)
            if info.topic_type == _TYPE_NAME  # of others no message comes
        ]
        latched = [info.qos_profile.durability == QoSDurabilityPolicy.TRANSIENT_LOCAL for info in infos]
        if infos and all(latched) and not self._latched:
            self._latched = True
            self._node.destroy_subscription(self._subscription)
            self._subscription = self._node.create_subscription(
                TaskProgress, self._name, self._on_progress, qos.latched()
            )
        warnings: tuple[str, ...] = ()
        if len(infos) > 1:
            names = sorted(map(node_of, infos))
            if not all_named(names):
                return
            warnings = (
                f"{len(names)} nodes publish {self.log.topic}, their scores are mixed: {', '.join(names)}",
            )
        if warnings != self.log.warnings:
            self.log.warnings = warnings
            for line in warnings:
                self._screen.line(line)

    def _on_progress(self, message: TaskProgress) -> None:
        sample = conversions.sample(message)
        if self.log.add_progress(sample, time.monotonic()):
            self._screen.line(sample_line(sample, self.log.answers, self.log.message_before))

    def _on_event(self, message: TaskEvent) -> None:
        event = conversions.happening(message)
        if self.log.add_event(event):
            self._screen.line(event_line(self.log, event))

    def _on_info(self, message: MonitorInfo) -> None:
        described = conversions.description(message)
        self.log.add_description(described)
        self._screen.line(description_line(described))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        """Before it can score, a monitor publishes nothing else."""
        why = conversions.waits_for(message, monitor_of(self.log.topic))
        if why is not None and self.log.add_waiting(why, time.monotonic()):
            self._screen.line(why)

    def _advise(self, silent_s: float) -> None:
        """Show which topic is silent and what to check, or once more what the monitor waits for."""
        if why := self.log.waits_now(time.monotonic()):
            self._screen.line(why)
            return
        topic, node = self.log.topic, self._node
        domain = os.environ.get("ROS_DOMAIN_ID") or "0"
        lasted = number(silent_s, 0 if silent_s >= 1.0 else 1, "s")
        lines = [f"nothing on {topic} for {lasted} (ROS_DOMAIN_ID {domain})"]
        if silent_s < _DISCOVERY_S:
            lines.append(f"nodes may need {_DISCOVERY_S:g} s to find each other: not all may be known")
        publishers = publishers_of(node, topic)
        ours = sorted(set(publishers.get(_TYPE_NAME, ())))
        if ours:
            known = next((name for name in ours if name != A_NODE), "NAME")
            lines.append(f"published by {', '.join(ours)}: is it active? ros2 lifecycle get {known}")
        elif publishers:
            wrong = "; ".join(
                f"{', '.join(sorted(set(names)))}: {kind}" for kind, names in publishers.items()
            )
            lines.append(f"published with another type than {_TYPE_NAME} ({wrong})")
        else:
            lines.append(f"nobody publishes it: {why_unpublished(node, topic, TaskProgress)}")
        others = [
            name
            for name in published(node, TaskProgress)
            if name != topic and not name.endswith("/task_state")
        ]
        if others:
            lines.append(f"other topics of this type: {', '.join(others)}; choose one with --topic")
        self.log.advice = tuple(lines)
        for line in lines:
            self._screen.line(line)


def run(
    topic: str, once: bool, duration_s: float | None, svg: Path | None, ros_arguments: Sequence[str]
) -> int:
    """Watch until a signal, the first score (``once``) or the end of ``duration_s``. Returns the exit status.

    The status is 1 when the time was over before a score came. Raises `WatchError`.
    """
    end_s = time.monotonic() + duration_s if duration_s else float("inf")
    with stop_signals() as signals, Watcher(topic, ros_arguments) as watcher:
        log = watcher.log
        with Screen(log) as screen:
            screen.line(f"watching {log.topic}")
            watcher.follow(
                screen,
                done=lambda: bool(signals or (once and log.score_count) or time.monotonic() >= end_s),
            )
            if not signals:
                watcher.advise_at_end()
        if svg is not None:
            save_svg(log, svg, f"topreward watch {log.topic}, model {log.model or 'unknown'}")
        if signals or log.score_count:
            watcher.status_if_cut_off = 0
            return 0
    why = why_no_score(log)
    print(f"topreward: no score came on {log.topic} within {duration_s:g} s{why}", file=sys.stderr)
    return 1


def save_svg(log: WatchLog, path: Path, title: str) -> None:
    """Save the view as an SVG file; ``title`` says which run it shows. Raises `OutputFileError`."""
    console = Console(record=True, width=100, file=StringIO(), force_terminal=True, color_system="truecolor")
    # rich would let stand what XML forbids: the view has none of it, nor may the title.
    console.print(view(log, log.last_arrival_s or time.monotonic(), 100))
    # Without rich's web fonts: a picture must not need the network.
    template = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    title = printable(title, 300) + (f" ({RANDOM_WEIGHTS})" if log.random_weights else "")
    write_file(path, console.export_svg(title=title, code_format=template))
