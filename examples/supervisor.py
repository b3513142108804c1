#!/usr/bin/env python3
"""A supervisor to start from: it begins episodes, hears what becomes of them, and shows where your code goes.

It asks the monitor to watch a task, under a name of its own, and acts on the events of that episode alone:
what others begin on the same monitor is not its business. Its methods `start_policy`, `stop_policy`,
`hold_policy` and `resume_policy` only write a line: this node moves no robot and resets no scene. Copy it and
fill them in. What a monitor says is advice: something else must keep the robot from doing harm.

    python3 examples/supervisor.py --ros-args -p task:="open the drawer"     # beside a running monitor
    python3 examples/supervisor.py --ros-args -p attempts:=5 -r __ns:=/arm   # in the namespace /arm
"""

from __future__ import annotations

import signal
from secrets import token_hex

import rclpy
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from topreward_ros.msg import TaskEvent, TaskProgress
from topreward_ros.srv import SetTask

from topreward_ros.core.events import EventType
from topreward_ros.nodes import qos


class Supervisor(Node):
    """Tries a task until it succeeds, some times at most."""

    def __init__(self) -> None:
        super().__init__("supervisor")
        self._task = str(self.declare_parameter("task", "open the drawer").value)
        self._attempts_left = int(self.declare_parameter("attempts", 3).value)
        self._episode = ""  # ours, while it is under way
        self._heard: set[tuple[str, int]] = set()  # events of it
        self._blind = False
        # The profile that the monitor publishes with: reliable, and volatile, so that no old SUCCESS comes.
        self._events = self.create_subscription(TaskEvent, "task_event", self._on_event, qos.events())
        self._states = self.create_subscription(TaskProgress, "task_state", self._on_state, qos.latched())
        self._set_task = self.create_client(SetTask, "monitor/set_task")
        self.get_logger().info(f"listening to {self._events.topic_name}")

    # ---- yours ------------------------------------------------------------------------------------

    def start_policy(self) -> None:
        """The monitor watches. Yours: put the scene in order, and start the policy."""
        self.get_logger().info(f"episode {self._episode!r}: here the policy starts")

    def stop_policy(self, why: str) -> None:
        """Yours: stop the policy. It is over, or cut."""
        self.get_logger().info(f"episode {self._episode!r}: here the policy stops ({why})")

    def hold_policy(self) -> None:
        """The monitor is blind, and the policy may be, too. Yours: let it wait."""
        self.get_logger().warning(f"episode {self._episode!r}: here the policy waits")

    def resume_policy(self) -> None:
        """Images can be used again. Yours: let it go on, if the scene is as it was."""
        self.get_logger().info(f"episode {self._episode!r}: here the policy goes on")

    # ---- episodes ---------------------------------------------------------------------------------

    def begin(self) -> None:
        """Ask the monitor for an episode of ours; to be called once it is there."""
        if not self._attempts_left:
            self.get_logger().info("no attempt is left")
            return
        self._attempts_left -= 1
        self._episode, self._blind = f"supervisor-{token_hex(4)}", False
        self._heard.clear()
        request = SetTask.Request(instruction=self._task, episode_id=self._episode)
        self._set_task.call_async(request).add_done_callback(self._on_answer)

    def ready(self) -> bool:
        """Whether the monitor can be asked, and nothing it says would be missed."""
        return bool(self._set_task.service_is_ready() and self.count_publishers("task_event"))

    def _on_answer(self, answer: Future) -> None:
        response = answer.result()
        if response.success:
            self.start_policy()
        else:
            self.get_logger().error(f"the monitor refuses the task: {response.message!r}")

    def _is_ours(self, episode_id: str) -> bool:
        """Whether an episode is ours: when stamps go back, ours goes on as NAME.2, NAME.3 ..."""
        name, _, number = episode_id.partition(".")
        return bool(self._episode) and name == self._episode and (not number or number.isdecimal())

    def _on_event(self, event: TaskEvent) -> None:
        key = (event.episode_id, event.sequence)
        if not self._is_ours(event.episode_id) or key in self._heard:
            return
        self._heard.add(key)
        name = EventType(event.type).name if event.type in set(EventType) else f"event {event.type}"
        # Texts are quoted with !r, because an instruction may hold commands to the terminal.
        self.get_logger().info(f"{name} in episode {event.episode_id!r}: {event.message!r}")
        if event.type == TaskEvent.SUCCESS:
            self.stop_policy("the task is done")
            self._episode = ""
        elif event.type == TaskEvent.TIMEOUT:
            self.stop_policy("its time is over")
            self.begin()
        elif event.type == TaskEvent.ABORTED:
            # Somebody else ended it, and then it is over; or the camera's time or picture changed, and then
            # an episode NAME.2 begins, which knows nothing of what was done until now.
            self.stop_policy("the episode was cut")
        elif event.type == TaskEvent.EPISODE_STARTED and event.episode_id != self._episode:
            self.start_policy()
        elif event.type == TaskEvent.STALE_IMAGES:
            self._blind = True
            self.hold_policy()

    def _on_state(self, state: TaskProgress) -> None:
        """No event tells that images are there again: the state does."""
        if self._blind and self._is_ours(state.episode_id) and state.state != TaskProgress.STALE:
            self._blind = False
            self.resume_policy()


def main() -> None:
    """Run the node until Ctrl-C or SIGTERM."""
    # A list instead of rclpy's handlers: those shut ROS 2 down in the middle of whatever is under way, and
    # `rclpy.spin` misses a signal that comes just before it begins to wait.
    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: signals.append(received))
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    supervisor = Supervisor()
    while not signals and not supervisor.ready():
        rclpy.spin_once(supervisor, timeout_sec=0.2)
    if not signals:
        supervisor.begin()
    while not signals:
        rclpy.spin_once(supervisor, timeout_sec=0.5)
    supervisor.destroy_node()
    rclpy.shutdown()


if __name__ == "__main__":
    main()
