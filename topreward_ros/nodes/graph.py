"""Nodes by name, as the graph of ROS 2 tells them: who publishes, and whether a monitor is there.

A process that was killed stays in the graph for a while; what that means is for the caller to know.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rclpy.node import Node

A_NODE = "a node"  #: that was discovered before its name
_UNKNOWN = "_UNKNOWN_"  # ends what rclpy gives as name and namespace until they are known


def full_name(name: str, namespace: str) -> str:
    """The full name of a node, or `A_NODE` while that is not known."""
    if name.endswith(_UNKNOWN) or namespace.endswith(_UNKNOWN):
        return A_NODE
    return f"{namespace.rstrip('/')}/{name}"


def node_of(endpoint: Any) -> str:
    """The node of a publisher or subscription, which is a `TopicEndpointInfo`."""
    return full_name(endpoint.node_name, endpoint.node_namespace)


def count_named(node: Node, name: str) -> int:
    """How many nodes have the full name ``name``."""
    return sum(full_name(*found) == name for found in node.get_node_names_and_namespaces())


def all_named(names: Iterable[str]) -> bool:
    """Whether the names of all nodes are known."""
    return A_NODE not in names


def why_unpublished(node: Node, topic: str) -> str:
    """Why nobody publishes ``topic``, a full name of a topic of a monitor, and what to do."""
    monitor = monitor_of(topic)
    if monitor_is_there(node, topic):
        return (
            f"{monitor} is there and does not publish so far: it still loads its model, or waits to be "
            f"configured (`ros2 lifecycle get {monitor}` says which)"
        )
    return "is the monitor running, with this ROS_DOMAIN_ID and namespace?"


def monitor_is_there(node: Node, topic: str) -> bool:
    """Whether the node whose topic ``topic`` is, by its usual name, has been discovered."""
    return count_named(node, monitor_of(topic)) > 0


def monitor_of(topic: str) -> str:
    """The full name of the node whose topic ``topic`` is, as it is usually called.

    >>> monitor_of("/arm/task_progress")
    '/arm/monitor'
    """
    return topic[: topic.rfind("/") + 1] + "monitor"
