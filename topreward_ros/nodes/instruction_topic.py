"""The topic `task_instruction`: it is heard from the moment at which a monitor begins to load its model.

`ros2 topic pub --once` sends as soon as anybody listens, which may be a recorder. What a text means is for
the owner to say.
"""

from __future__ import annotations

from collections.abc import Callable

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from std_msgs.msg import String

from topreward_ros.core.instruction import InstructionError
from topreward_ros.nodes import qos

NAME = "task_instruction"


class InstructionTopic:
    """Listens to latched and ordinary publishers. Belongs to the executor's thread."""

    def __init__(self, node: Node, take: Callable[[str], None]) -> None:
        """``take``: called with every text; what it refuses by an `InstructionError` is logged."""
        self._node = node
        self._take = take
        self._refused = ""  # why the last text could not be taken, as the log said it
        # Two, because a transient-local subscription does not match a volatile publisher. That it does not is
        # meant, and rclpy is not to warn of it.
        self._subscriptions = [
            node.create_subscription(String, NAME, self._on_message, profile, event_callbacks=heard)
            for profile, heard in (
                (qos.instruction_volatile(), None),
                (qos.instruction_latched(), SubscriptionEventCallbacks(use_default_callbacks=False)),
            )
        ]

    def destroy(self) -> None:
        """Listen no more."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()

    def _on_message(self, message: String) -> None:
        try:
            self._take(message.data)
        except InstructionError as error:
            if str(error) != self._refused:  # publishers repeat themselves
                self._refused = str(error)
                self._node.get_logger().error(f"{error}; the task stays as it is")
        else:
            self._refused = ""
