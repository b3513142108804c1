#!/usr/bin/env python3
"""A supervisor to start from: it listens to a monitor's events and shows where your code goes.

It logs every event of `task_event`, and calls `stop_policy` when the task is done and `retry` when its time
is over. Both only write a line: this node moves no robot, resets no scene and asks nothing of the monitor.
Copy it and fill them in. What a monitor says is advice: something else must keep the robot from doing harm.

    python3 examples/supervisor.py                               # beside a running monitor
    python3 examples/supervisor.py --ros-args -r __ns:=/arm      # beside a monitor in the namespace /arm
"""

from __future__ import annotations

import signal

import rclpy
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from topreward_ros.msg import TaskEvent

from topreward_ros.core.events import EventType
from topreward_ros.nodes import qos


class Supervisor(Node):
    """Acts once on each event that matters."""

    def __init__(self) -> None:
        super().__init__("supervisor")
        self._newest = 0  # sequence of the newest event
        self._episodes: set[str] = set()  # that were heard of
        # The profile that the monitor publishes with: reliable, and volatile, so that no old SUCCESS comes.
        self._events = self.create_subscription(TaskEvent, "task_event", self._on_event, qos.events())
        self.get_logger().info(f"listening to {self._events.topic_name}")

    def stop_policy(self, event: TaskEvent) -> None:
        """The task is done. Yours: stop the policy, put the scene back, call the monitor's `~/reset`."""
        self.get_logger().info(f"episode {event.episode_id!r}: here the policy stops")

    def retry(self, event: TaskEvent) -> None:
        """The time is over. Yours: stop the policy, put the scene back, try again or call for help."""
        self.get_logger().info(f"episode {event.episode_id!r}: here the policy stops and tries again")

    def _on_event(self, event: TaskEvent) -> None:
        if not self._is_new(event):
            return
        # Texts are quoted with !r, because an instruction may hold commands to the terminal.
        known = event.type in set(EventType)  # another version of the monitor may have more
        what = EventType(event.type).name if known else f"event {event.type}"
        text = f"{what} in episode {event.episode_id!r}: {event.message!r}"
        if event.type == TaskEvent.SCORER_ERROR:
            self.get_logger().error(text)
        elif event.type == TaskEvent.STALE_IMAGES:  # the monitor is blind: the policy may be, too
            self.get_logger().warning(text)
        else:
            self.get_logger().info(text)
        if event.type == TaskEvent.SUCCESS:
            self.stop_policy(event)
        elif event.type == TaskEvent.TIMEOUT:
            self.retry(event)
        # ABORTED: somebody else ended the episode. EPISODE_ENDED: always the last one, after its cause.

    def _is_new(self, event: TaskEvent) -> bool:
        """Whether this event was not heard before: not a repetition, and not one of an older episode.

        A monitor numbers its events from 1. One that was started again begins anew, with episodes that have
        new names. So a number that is not higher is old only in an episode that is known.
        """
        known = event.episode_id in self._episodes
        if known and event.sequence <= self._newest:
            self.get_logger().debug(f"event {event.sequence} of {event.episode_id!r} is old: ignored")
            return False
        if known and event.sequence > self._newest + 1:
            lost = event.sequence - self._newest - 1
            self.get_logger().warning(f"{lost} events before event {event.sequence} did not arrive")
        self._episodes.add(event.episode_id)
        self._newest = event.sequence
        return True


def main() -> None:
    """Run the node until Ctrl-C or SIGTERM."""
    # A list instead of rclpy's handlers: those shut ROS 2 down in the middle of whatever is under way, and
    # `rclpy.spin` misses a signal that comes just before it begins to wait.
    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: signals.append(received))
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    supervisor = Supervisor()
    while not signals:
        rclpy.spin_once(supervisor, timeout_sec=0.5)
    supervisor.destroy_node()
    rclpy.shutdown()


if __name__ == "__main__":
    main()
