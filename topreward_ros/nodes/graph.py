"""Nodes by name, as the graph of ROS 2 tells them: who publishes, and whether a monitor is there.

A process that was killed stays in the graph for a while; what that means is for the caller to know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSCompatibility, qos_check_compatible

from topreward_ros.core.absent_monitor import IS_IT_RUNNING, why_not_ready
from topreward_ros.offline.camera_advice import Publisher

A_NODE = "a node"  #: that was discovered before its name
_PARTICIPANT_BYTES = 12  # of a global id (DDSI-RTPS 9.3.1)
_OF_EVERY_NODE = "/parameter_events"
_UNKNOWN = "_UNKNOWN_"  # ends what rclpy gives as name and namespace until they are known


def full_name(name: str, namespace: str) -> str:
    """The full name of a node, or `A_NODE` while that is not known."""
    if name.endswith(_UNKNOWN) or namespace.endswith(_UNKNOWN):
        return A_NODE
    return f"{namespace.rstrip('/')}/{name}"


def node_of(endpoint: Any) -> str:
    """The node of a publisher or subscription, which is a `TopicEndpointInfo`."""
    return full_name(endpoint.node_name, endpoint.node_namespace)


def of_this_process(node: Node, topic: str) -> list[Any]:
    """The publishers and subscriptions of ``topic`` that nodes of this process have (`TopicEndpointInfo`).

    They share a DDS participant, whose id is the first part of theirs.
    """
    ours = {
        bytes(it.endpoint_gid)[:_PARTICIPANT_BYTES]
        for it in node.get_publishers_info_by_topic(_OF_EVERY_NODE)
        if node_of(it) == node.get_fully_qualified_name()
    }
    found = node.get_publishers_info_by_topic(topic) + node.get_subscriptions_info_by_topic(topic)
    return [it for it in found if bytes(it.endpoint_gid)[:_PARTICIPANT_BYTES] in ours]


def count_named(node: Node, name: str) -> int:
    """How many nodes have the full name ``name``."""
    return sum(full_name(*found) == name for found in node.get_node_names_and_namespaces())


def all_named(names: Iterable[str]) -> bool:
    """Whether the names of all nodes are known."""
    return A_NODE not in names


def type_name(message_type: type) -> str:
    """What the graph calls a type of message, such as std_msgs/msg/String."""
    return f"{message_type.__module__.split('.')[0]}/msg/{message_type.__name__}"


def publishers_of(node: Node, topic: str) -> dict[str, list[str]]:
    """Who publishes ``topic``, a full name: per type of message the nodes, once per publisher, sorted."""
    found: dict[str, list[str]] = {}
    for info in node.get_publishers_info_by_topic(topic):
        found.setdefault(info.topic_type, []).append(node_of(info))
    return {kind: sorted(found[kind]) for kind in sorted(found)}


def published(node: Node, message_type: type) -> dict[str, list[str]]:
    """The topics on which somebody publishes messages of this type, and who."""
    kind = type_name(message_type)
    topics = (topic for topic, kinds in node.get_topic_names_and_types() if kind in kinds)
    return {topic: names for topic in topics if (names := publishers_of(node, topic).get(kind))}


class Neighbours:
    """The `camera_advice.Graph` of a node, with what is wrong for one subscription of it."""

    def __init__(self, node: Node, subscription: Callable[[], Any]) -> None:
        """``subscription``: returns the one that there is now, or None."""
        self._node = node
        self._subscription = subscription

    def publishers(self, topic: str) -> Sequence[Publisher]:
        """Who publishes ``topic``, a full name."""
        infos = self._node.get_publishers_info_by_topic(topic)
        return [Publisher(_known(node_of(it)), it.topic_type, self._qos_problem(it)) for it in infos]

    def topics(self) -> Mapping[str, Sequence[str]]:
        """The full name of every topic that somebody publishes or subscribes to, and its types."""
        return dict(self._node.get_topic_names_and_types())

    def _qos_problem(self, publisher: Any) -> str:
        if (ours := self._subscription()) is None:
            return ""
        compatibility, reason = qos_check_compatible(publisher.qos_profile, ours.qos_profile)
        return str(reason).strip() if compatibility == QoSCompatibility.ERROR else ""


def _known(name: str) -> str:
    return "" if name == A_NODE else name


def why_unpublished(node: Node, topic: str, message_type: type) -> str:
    """Why nobody publishes ``topic``, a full name of a topic of a monitor with this type, and what to do."""
    monitor = monitor_of(topic)
    instead = [other for other, names in published(node, message_type).items() if monitor in names]
    if instead:
        return f"{monitor} is there and has its {message_type.__name__} on {', '.join(instead)}"
    if count_named(node, monitor) > 0:
        return (
            f"{monitor} is there and does not publish it: {why_not_ready(monitor)}; "
            f"`ros2 lifecycle get {monitor}` says which"
        )
    return IS_IT_RUNNING


def monitor_of(topic: str) -> str:
    """The full name of the node whose topic ``topic`` is, as it is usually called.

    >>> monitor_of("/arm/task_progress")
    '/arm/monitor'
    """
    return topic[: topic.rfind("/") + 1] + "monitor"
