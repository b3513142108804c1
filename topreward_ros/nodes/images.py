"""Camera messages of a node as images: offline/camera_images.py with the libraries of ROS 2."""

from __future__ import annotations

from typing import Any

from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image

from topreward_ros.nodes.raw_conversion import converter
from topreward_ros.offline.camera_images import COMPRESSED, RAW, DecodedImage, ImageReader

#: The types of images that can be read, by their names.
MESSAGE_TYPES = {RAW: Image, COMPRESSED: CompressedImage}


def decode(raw: bytes, message_type: type[Image | CompressedImage]) -> DecodedImage:
    """See `ImageReader.decode`."""
    type_name = COMPRESSED if message_type is CompressedImage else RAW
    return ImageReader(_deserialized, converter).decode(raw, type_name)


def _deserialized(raw: bytes, type_name: str) -> Any:
    return deserialize_message(raw, MESSAGE_TYPES[type_name])
