"""Where the images of a camera are, for a node: offline/image_topics.py with the node's remapping."""

from __future__ import annotations

from functools import partial

from rclpy.node import Node

from topreward_ros.nodes.rcl_error import RCLError
from topreward_ros.offline import image_topics
from topreward_ros.offline.image_topics import ImageTopic


def places(node: Node, topic: str, transport: str) -> list[ImageTopic]:
    """See `image_topics.places`. Raises `ValueError` when ``topic`` is not a valid name."""
    resolve = partial(_resolved, node)
    return image_topics.places(topic, transport, resolve, partial(resolve, only_expand=True))


def _resolved(node: Node, topic: str, *, only_expand: bool = False) -> str:
    try:
        return str(node.resolve_topic_name(topic, only_expand=only_expand))
    except RCLError as error:
        raise ValueError(f"image topic '{topic}': {str(error).partition(', at ')[0]}") from error
