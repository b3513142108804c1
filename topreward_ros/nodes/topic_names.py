"""Full names of topics, and how to ask for a topic whose full name is known.

ROS 2 remaps every name that a node subscribes to, also one that was remapped before. With /left:=/right and
/right:=/left the name "left" means /right, and a subscription to that /right would be one to /left.
"""

from __future__ import annotations

from collections.abc import Iterable

from rclpy.exceptions import InvalidTopicNameException
from rclpy.node import Node

from topreward_ros.core.printable import printable
from topreward_ros.nodes.rcl_error import RCLError
from topreward_ros.nodes.startup import said_by_ros


class TopicNameError(ValueError):
    """A name is none, or a topic cannot be asked for."""


def full_topic(node: Node, topic: str, *, only_expand: bool = False) -> str:
    """The full name of what ``node`` calls ``topic``, remapped unless ``only_expand``.

    Raises `TopicNameError` where it is not a valid name.
    """
    try:
        return str(node.resolve_topic_name(topic, only_expand=only_expand))
    except (RCLError, InvalidTopicNameException) as error:
        said = said_by_ros(error).splitlines()[0]
        raise TopicNameError(f"topic {printable(topic, 200)!r} is not a name: {said}") from error


def name_for(node: Node, full: str, given: Iterable[str] = ()) -> str:
    """The name by which ``node`` gets the topic whose full name is ``full``: that, or one of ``given``.

    Raises `TopicNameError` where remapping leads each of them elsewhere.
    """
    names = (full, *given)
    for name in names:
        if full_topic(node, name) == full:
            return name
    raise TopicNameError(
        f"{full} cannot be read: a remapping rule makes {full_topic(node, full)} of it; leave that rule out"
    )
