"""From an image in a call to the array of a frame; what it claims is checked before it is decoded."""

from __future__ import annotations

import numpy as np
import simplejpeg

from topreward_ros.offline.encoded_image import EncodedImageError, is_jpeg, is_png, rgb8_of, samples_of
from topreward_ros.scoring.remote.protocol import Encoding, ProtocolError, SentImage

MAX_FRAME_PIXELS = 1 << 24  #: of one frame


def decode(image: SentImage) -> np.ndarray:
    """The pixels (H, W, 3) RGB of an image of a call. Raises `ProtocolError`."""
    name = f"image {image.number}"
    size = _claimed_size(image)
    if size != (image.height, image.width):
        raise ProtocolError(
            f"{name} is {size[1]}x{size[0]} pixels large, and the call says {image.width}x{image.height}"
        )
    try:
        pixels = rgb8_of(samples_of(image.data, name))
    except EncodedImageError as error:
        raise ProtocolError(str(error)) from error
    if pixels.shape[:2] != size:  # turned, by what stands in its EXIF
        raise ProtocolError(f"{name} is turned when it is decoded")
    pixels.setflags(write=False)
    return pixels


def check_sizes(images: tuple[SentImage, ...], most_bytes: int) -> None:
    """Raise `ProtocolError` where a frame is too large, or all of a call take more than ``most_bytes``."""
    for image in images:
        if image.height * image.width > MAX_FRAME_PIXELS:
            raise ProtocolError(
                f"image {image.number} has {image.width}x{image.height} pixels, and a frame at most "
                f"{MAX_FRAME_PIXELS}"
            )
    total = sum(3 * image.height * image.width for image in images)
    if total > most_bytes:
        raise ProtocolError(f"the frames of the call take {total} bytes, and at most {most_bytes} are held")


def _claimed_size(image: SentImage) -> tuple[int, int]:
    """(height, width) by the head of the image."""
    data = image.data
    if image.encoding is Encoding.PNG and is_png(data) and len(data) >= 24:
        return int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")
    if image.encoding is Encoding.JPEG and is_jpeg(data):
        try:
            height, width, *_ = simplejpeg.decode_jpeg_header(data, strict=False)
            return int(height), int(width)
        except (ValueError, KeyError):
            pass
    raise ProtocolError(f"image {image.number} is no {image.encoding.value}")
