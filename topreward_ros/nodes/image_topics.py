"""Where the images of a camera are: on the topic that was named, or beside it, and of which type.

People copy a topic from `ros2 topic list`, where a camera has several: the raw images on a base topic, and
what image_transport makes of them below it. The publishers' types decide, else the names. Nothing subscribes
here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

RCLError = rclpy_implementation.RCLError

TYPE_NAMES = {kind: f"sensor_msgs/msg/{kind.__name__}" for kind in (Image, CompressedImage)}
_COMPRESSED = "/compressed"
_DEPTH = "compressedDepth"
#: Last parts of topics that belong to a camera and carry no colour image that can be read.
_UNREADABLE = {
    _DEPTH: "depth images",
    "theora": "a Theora stream",
    "ffmpeg": "a stream of FFmpeg packets",
    "zstd": "images compressed with zstd",
    "camera_info": "the calibration of a camera",
}


@dataclass(frozen=True, slots=True)
class ImageTopic:
    """A topic, and the type of image that is expected on it."""

    name: str  #: fully qualified, after remapping
    message_type: type[Image | CompressedImage]

    @property
    def type_name(self) -> str:
        """The type as ROS 2 writes it."""
        return TYPE_NAMES[self.message_type]

    def __str__(self) -> str:
        return f"{self.name} ({self.type_name})"


def places(node: Node, topic: str, transport: str) -> list[ImageTopic]:
    """Where the images of a camera may be whose ``topic`` was named, best first.

    ``transport``: raw or compressed, what is preferred where both are there. A name that ends in /compressed
    says so itself. Remapping acts on the base topic, and on the full one. Raises `ValueError` when ``topic``
    is not a valid name.
    """
    named = topic.rstrip("/") if topic.strip("/") else topic
    base = named.removesuffix(_COMPRESSED)
    full = _resolved(node, named)
    if not base or base == named:
        below = _below(node, named)
        raw = [ImageTopic(full, Image), ImageTopic(full, CompressedImage)]
        compressed = [ImageTopic(below, CompressedImage), ImageTopic(full, CompressedImage)]
        found = compressed + raw if transport == "compressed" else raw + compressed
    else:
        if full == _resolved(node, named, only_expand=True):
            full = _below(node, base)
        found = [
            ImageTopic(full, CompressedImage),
            ImageTopic(full, Image),
            ImageTopic(_resolved(node, base), Image),
            ImageTopic(_below(node, named), CompressedImage),
        ]
    return list(dict.fromkeys(found))


def first_published(
    candidates: Sequence[ImageTopic], types_on: Callable[[str], Collection[str]]
) -> ImageTopic | None:
    """The first of ``candidates`` that somebody publishes; ``types_on`` gives the types on a topic."""
    return next((place for place in candidates if place.type_name in types_on(place.name)), None)


def unreadable(name: str, types: Collection[str] = ()) -> str:
    """What is on a topic of this name, where that is known and no colour image; else empty.

    ``types``: of its publishers. Images are images whatever their topic is called; but compressedDepth is
    depth in the type of compressed images.

    >>> unreadable("/camera/depth/compressedDepth", ["sensor_msgs/msg/CompressedImage"])
    'depth images'
    >>> unreadable("/camera/ffmpeg")
    'a stream of FFmpeg packets'
    >>> unreadable("/camera/ffmpeg", ["sensor_msgs/msg/CompressedImage"])
    ''
    """
    last = name.rpartition("/")[2]
    readable = {TYPE_NAMES[Image]} if last == _DEPTH else set(TYPE_NAMES.values())
    return "" if readable.intersection(types) else _UNREADABLE.get(last, "")


def _below(node: Node, base: str) -> str:
    """The topic of the compressed images of a base topic: remapped by its own name, or with the base."""
    by_itself = base + _COMPRESSED
    full = _resolved(node, by_itself)
    if full != _resolved(node, by_itself, only_expand=True):
        return full
    return _resolved(node, base) + _COMPRESSED


def _resolved(node: Node, topic: str, *, only_expand: bool = False) -> str:
    try:
        return str(node.resolve_topic_name(topic, only_expand=only_expand))
    except RCLError as error:
        raise ValueError(f"image topic '{topic}': {str(error).partition(', at ')[0]}") from error
