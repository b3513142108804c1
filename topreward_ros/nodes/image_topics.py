"""Where the images of a camera are, for a node: offline/image_topics.py with the node's remapping."""

from __future__ import annotations

from functools import partial

from rclpy.node import Node

from topreward_ros.nodes.topic_names import full_topic
from topreward_ros.offline import image_topics
from topreward_ros.offline.image_topics import ImageTopic

DEBUG_IMAGE = "~/debug_image"  #: of a monitor


def places(node: Node, topic: str, transport: str) -> list[ImageTopic]:
    """See `image_topics.places`. Raises `ValueError` when ``topic`` is not a valid name, or no camera's."""
    resolve = partial(full_topic, node)
    found = image_topics.places(topic, transport, resolve, partial(resolve, only_expand=True))
    if any(place.name == debug_image(node) for place in found):
        raise ValueError(f"image topic '{topic}' is this node's own picture of what it sees, and no camera's")
    return found


def debug_image(node: Node) -> str:
    """Where ``node`` shows what it sees, if it is a monitor."""
    return full_topic(node, DEBUG_IMAGE)


def asked_names(topic: str) -> tuple[str, ...]:
    """What a camera may be called whose ``topic`` was named, for `topic_names.name_for`."""
    named, base = image_topics.named_and_base(topic)
    return tuple(name for name in (named, base, base + image_topics.BELOW) if name)
