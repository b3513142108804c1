"""Where the images of a camera are: on the topic that was named, or beside it, and of which type.

People copy a topic from `ros2 topic list`, where a camera has several: the raw images on a base topic, and
what image_transport makes of them below it. The types that are there decide, else the names. How names are
resolved is given: a node remaps them, in a bag they are as they were recorded. Nothing subscribes here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from topreward_ros.offline.camera_images import COMPRESSED, RAW

TYPE_NAMES = (RAW, COMPRESSED)
BELOW = "/compressed"  #: a base topic, where image_transport puts its compressed images
_DEBUG_IMAGE = "debug_image"  # of our monitor, and of others: drawn for people
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
    type_name: str  #: one of `TYPE_NAMES`

    def __str__(self) -> str:
        return f"{self.name} ({self.type_name})"


#: A name as it was given -> fully qualified; a second one without remapping.
Resolve = Callable[[str], str]


def places(topic: str, transport: str, resolve: Resolve, expand: Resolve) -> list[ImageTopic]:
    """Where the images of a camera may be whose ``topic`` was named, best first.

    ``transport``: raw or compressed, what is preferred where both are there. A name that ends in /compressed
    says so itself. ``resolve`` remaps the base topic, and the full one; ``expand`` only completes a name.
    Raises what they raise for a name that is not valid.
    """
    named, base = named_and_base(topic)
    full = resolve(named)
    if not base or base == named:
        below = _below(named, resolve, expand)
        raw = [ImageTopic(full, RAW), ImageTopic(full, COMPRESSED)]
        compressed = [ImageTopic(below, COMPRESSED), ImageTopic(full, COMPRESSED)]
        found = compressed + raw if transport == "compressed" else raw + compressed
    else:
        if full == expand(named):
            full = _below(base, resolve, expand)
        found = [
            ImageTopic(full, COMPRESSED),
            ImageTopic(full, RAW),
            ImageTopic(resolve(base), RAW),
            ImageTopic(_below(named, resolve, expand), COMPRESSED),
        ]
    return list(dict.fromkeys(found))


def named_and_base(topic: str) -> tuple[str, str]:
    """A ``topic`` without a slash at its end, and the base topic that it is, or is below.

    >>> named_and_base("front/compressed/"), named_and_base("front")
    (('front/compressed', 'front'), ('front', 'front'))
    """
    named = topic.rstrip("/") if topic.strip("/") else topic
    return named, named.removesuffix(BELOW)


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
    readable = {RAW} if last == _DEPTH else set(TYPE_NAMES)
    return "" if readable.intersection(types) else _UNREADABLE.get(last, "")


def is_drawn(name: str) -> bool:
    """Whether a topic of this name has pictures that a program draws, and no camera takes.

    >>> is_drawn("/arm/monitor/debug_image"), is_drawn("/monitor/debug_image/compressed"), is_drawn("/image")
    (True, True, False)
    """
    return name.removesuffix(BELOW).rpartition("/")[2] == _DEBUG_IMAGE


def _below(base: str, resolve: Resolve, expand: Resolve) -> str:
    """The topic of the compressed images of a base topic: remapped by its own name, or with the base."""
    by_itself = base + BELOW
    full = resolve(by_itself)
    if full != expand(by_itself):
        return full
    return resolve(base) + BELOW
