"""Notices two monitors on one robot: another node has our name, or publishes on our topic."""

from __future__ import annotations

import time

from rclpy.node import Node

from topreward_ros.core.frames import NS_PER_S
from topreward_ros.nodes.graph import count_named

KILLED_STAYS_S = 25.0  #: in the graph; Fast DDS forgets after 20 s


def several_called(name: str, nodes: int) -> str:
    """What it means that ``nodes`` nodes have the full name ``name``: each has the same services."""
    return f"{nodes} nodes are called {name}: a call reaches all of them, and whose answer comes is chance"


class Namesakes:
    """Looks for others that are taken for ``node``, which publishes on ``topic``."""

    def __init__(self, node: Node, topic: str) -> None:
        self._node = node
        self._topic = topic
        self._alone_ns = time.monotonic_ns()  # when no other one was last known

    def warning(self) -> str:
        """What is wrong where there is another one; else empty.

        A process that was killed stays known for a while, so another one has to stay longer.
        """
        name = self._node.get_fully_qualified_name()
        nodes = count_named(self._node, name)
        topic = self._node.resolve_topic_name(self._topic)
        if nodes < 2 and self._node.count_publishers(topic) < 2:
            self._alone_ns = time.monotonic_ns()
            return ""
        if time.monotonic_ns() - self._alone_ns < KILLED_STAYS_S * NS_PER_S:
            return ""
        what = (
            several_called(name, nodes)
            if nodes > 1
            else f"another node publishes on {topic}, too: listeners cannot tell whose events they hear"
        )
        return f"{what}. Give one of them a namespace (namespace:=arm), or stop it"
