"""A subscription in a DDS participant of its own, for a while, which nobody reads.

A subscriber that was killed or stopped leaves images in the shared memory of a publisher. Once that is full
no image comes to anybody any more, though the publisher sends (Fast DDS, of Jazzy). It begins anew when it
meets a participant that it did not know; another subscription of one that it knows does not help.
"""

from __future__ import annotations

from rclpy.context import Context
from rclpy.node import Node
from rclpy.qos import QoSProfile

_NAME = "_outsider"  # tools do not show a node with such a name unless they are asked to


class Outsider:
    """Subscribes to ``topic`` beside ``node``, until it is destroyed."""

    def __init__(self, node: Node, message_type: type, topic: str, profile: QoSProfile) -> None:
        """Raises what rclpy raises, as where DDS security wants an enclave."""
        self._context = Context()
        # Without arguments: the topic has been remapped already.
        self._context.init(args=[], domain_id=node.context.get_domain_id())
        try:
            self._node = Node(
                f"{_NAME}_{node.get_name()}",
                namespace=node.get_namespace(),
                context=self._context,
                enable_rosout=False,
                start_parameter_services=False,
            )
            self._node.create_subscription(message_type, topic, lambda raw: None, profile, raw=True)
        except BaseException:
            self._context.shutdown()
            raise

    def destroy(self) -> None:
        """Leave."""
        self._node.destroy_node()
        self._context.shutdown()
