#!/usr/bin/env python3
"""A leaf for py_trees that watches a task, and a small tree around it.

`MonitorTaskLeaf` sends a goal to the monitor's action when it is first ticked, is RUNNING while the monitor
watches, and becomes SUCCESS on SUCCESS of the task and FAILURE on anything else. `result` then says why. A
tree that interrupts it cancels the goal. A tree that ticks it again goes on with the stage that failed. Put
it beside the behaviour that moves the robot, in a Parallel: this one moves nothing. What a monitor says is
advice: something else must keep the robot from doing harm.

    pip install py-trees
    python3 examples/behaviour_tree.py --ros-args -p task:="open the drawer"    # beside a running monitor
    python3 examples/behaviour_tree.py --ros-args -p attempts:=5 -p timeout:=60.0 -r __ns:=/arm
"""

from __future__ import annotations

from typing import Any

import py_trees
import rclpy
from action_msgs.msg import GoalStatus
from builtin_interfaces.msg import Duration
from py_trees.common import Status
from rclpy.action import ActionClient
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from topreward_ros.action import MonitorTask


class MonitorTaskLeaf(py_trees.behaviour.Behaviour):
    """Watches a task through the action of a monitor. Its node has to be spun between the ticks."""

    def __init__(
        self, name: str, task: str, timeout_s: float = 0.0, action: str = "monitor/monitor_task"
    ) -> None:
        """``task``: a stage per line. ``timeout_s``: for the whole goal; 0: the monitor's own."""
        super().__init__(name)
        self.task = task
        self.timeout_s = timeout_s
        self.action = action
        self.result: MonitorTask.Result | None = None  #: of the newest goal, once it has one
        self._stage = 0  # to begin with
        self._client: ActionClient | None = None
        self._goal = _Goal()

    def setup(self, **kwargs: Any) -> None:
        """Make the client. ``node``: the ROS 2 node of the tree. It does not wait for the monitor."""
        self._client = ActionClient(kwargs["node"], MonitorTask, self.action)

    def initialise(self) -> None:
        """A new goal; it is sent as soon as the monitor is there."""
        self._goal, self.result = _Goal(), None

    def update(self) -> Status:
        """What became of the goal so far. Never waits."""
        assert self._client is not None, "call setup(node=...) of the tree first"
        goal = self._goal
        if goal.sent is None:
            if not self._client.server_is_ready():
                self.feedback_message = f"no monitor serves {self.action}"
                return Status.RUNNING  # a Timeout around the leaf decides how long
            request = MonitorTask.Goal(instruction=self.task, stage=self._stage)
            request.timeout = Duration(sec=int(self.timeout_s), nanosec=int(self.timeout_s % 1 * 1e9))
            goal.sent = self._client.send_goal_async(request, feedback_callback=self._on_feedback)
            goal.sent.add_done_callback(goal.on_answer)
        if goal.refused:
            self.feedback_message = "the goal was refused: is the monitor active and enabled?"
            return Status.FAILURE
        if goal.answer is None or not goal.answer.done():
            return Status.RUNNING
        answer = goal.answer.result()
        self.result = answer.result
        succeeded = answer.status == GoalStatus.STATUS_SUCCEEDED
        # A retry goes on with the stage that failed; after success the task begins anew.
        self._stage = 0 if succeeded else self.result.stage
        self.feedback_message = "done" if succeeded else f"{self.result.error_code}: {self.result.error_msg}"
        return Status.SUCCESS if succeeded else Status.FAILURE

    def terminate(self, new_status: Status) -> None:
        """Cancel a goal that is no longer wanted, also one that is not answered yet."""
        if new_status is Status.INVALID:
            self._goal.cancel()

    def shutdown(self) -> None:
        """Close the client."""
        if self._client is not None:
            self._client.destroy()

    def _on_feedback(self, message: Any) -> None:
        progress = message.feedback.progress
        self.feedback_message = (
            f"stage {progress.stage} of {progress.stages}, progress {progress.progress:.2f}"
        )


class _Goal:
    """A goal on its way."""

    def __init__(self) -> None:
        self.sent: Any = None  # future of the handle
        self.answer: Any = None  # future of the result
        self.refused = False
        self._handle: Any = None
        self._unwanted = False

    def on_answer(self, sent: Any) -> None:
        """It was accepted or refused."""
        self._handle = sent.result()
        self.refused = not self._handle.accepted
        if self.refused:
            return
        self.answer = self._handle.get_result_async()
        if self._unwanted:
            self._handle.cancel_goal_async()

    def cancel(self) -> None:
        """It is no longer wanted; one that has ended takes no notice."""
        self._unwanted = True
        if self._handle is not None and not self.refused and not self.answer.done():
            self._handle.cancel_goal_async()


def main() -> None:
    """Try a task some times, and say how it ended. The status is 0 for success."""
    rclpy.init()
    node = Node("behaviour_tree")
    task = str(node.declare_parameter("task", "open the drawer").value)
    attempts = int(node.declare_parameter("attempts", 3).value)
    timeout_s = float(node.declare_parameter("timeout", 60.0).value)
    leaf = MonitorTaskLeaf("watch", task, timeout_s)
    tree = py_trees.trees.BehaviourTree(py_trees.decorators.Retry("attempts", leaf, attempts))
    tree.setup(node=node)
    said = ""
    try:
        while tree.root.status in (Status.INVALID, Status.RUNNING):
            tree.tick()
            if leaf.feedback_message != said:
                said = leaf.feedback_message
                node.get_logger().info(f"{leaf.status.name}: {said}")
            rclpy.spin_once(node, timeout_sec=0.1)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        tree.root.stop(Status.INVALID)  # cancels a goal that runs
        if rclpy.ok():
            rclpy.spin_once(node, timeout_sec=0.1)
        tree.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    raise SystemExit(0 if leaf.result is not None and leaf.result.error_code == 0 else 1)


if __name__ == "__main__":
    main()
