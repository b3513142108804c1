"""From the bytes of a camera message to an RGB array, or an `ImageError` that says what is wrong with it.

`stamp_ns_of` reads the stamp alone, so that a frame that is not due costs nothing; `decode` does the rest.
The conversion itself is rosbags-image's. That library trusts the header (it ignores ``step`` and would read
past a row, and OpenCV turns half a JPEG into a half-grey picture), so every message is checked here first.
No node, no topic, no clock.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
from rclpy.serialization import deserialize_message
from rosbags.image import ImageError as ConversionError
from rosbags.image import compressed_image_to_cvimage, image_to_cvimage
from sensor_msgs.msg import CompressedImage, Image

from topreward_ros.core.errors import UserError

MAX_PIXELS = 1 << 26  #: no camera has more; a damaged header that claims so must not fill the memory

#: Bytes per pixel of one row. Of nv12 and nv21 this is the grey plane; half as many rows of colour follow it.
_BYTES_PER_PIXEL = {
    **dict.fromkeys(("mono8", "nv12", "nv21"), 1),
    **dict.fromkeys(("bayer_rggb8", "bayer_bggr8", "bayer_gbrg8", "bayer_grbg8"), 1),
    **dict.fromkeys(("bayer_rggb16", "bayer_bggr16", "bayer_gbrg16", "bayer_grbg16", "mono16"), 2),
    **dict.fromkeys(("yuv422", "uyvy", "yuv422_yuy2", "yuyv"), 2),
    **dict.fromkeys(("rgb8", "bgr8"), 3),
    **dict.fromkeys(("rgba8", "bgra8"), 4),
    **dict.fromkeys(("rgb16", "bgr16"), 6),
    **dict.fromkeys(("rgba16", "bgra16"), 8),
}
#: OpenCV's type names say nothing about colour; OpenCV's own convention (grey, BGR, BGRA) is taken.
_OPENCV_TYPES = {"8UC1": "mono8", "8UC3": "bgr8", "8UC4": "bgra8"}
_PLANAR = ("nv12", "nv21")
_PAIRED = ("yuv422", "uyvy", "yuv422_yuy2", "yuyv", *_PLANAR)  # two neighbours share their colour
_DEPTH = ("16UC1", "16SC1", "32FC1", "64FC1")

_CDR_KINDS = (0x0000, 0x0001, 0x0006, 0x0007)  # plain CDR of XTypes 1 and 2, big and little endian
_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])")  # leaves out stuffed bytes and restarts
_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # start of frame: the segment with the size
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


class ImageError(UserError):
    """An image message cannot be used. The text names its encoding and its sizes."""


@dataclass(frozen=True, slots=True, eq=False)
class DecodedImage:
    """The parts of a camera message that the rest of the package uses."""

    stamp_ns: int  #: header.stamp, the time of capture [ns]
    frame_id: str  #: header.frame_id
    rgb: np.ndarray  #: (H, W, 3) uint8, RGB, C-contiguous


def stamp_ns_of(raw: bytes) -> int:
    """Time of capture [ns] of a serialised Image or CompressedImage, read from its first twelve bytes.

    ``raw`` is what a subscription with ``raw=True`` receives: four bytes that say how it is encoded, then
    ``header.stamp`` as int32 seconds and uint32 nanoseconds. Raises `ImageError`.
    """
    if len(raw) < 12:
        raise ImageError(
            f"message of {len(raw)} bytes is too short to hold a header; is the transport losing data?"
        )
    kind = int.from_bytes(raw[:2], "big")
    if kind not in _CDR_KINDS:
        raise ImageError(f"message in an unknown serialisation 0x{kind:04x}; plain CDR is expected")
    seconds, nanoseconds = struct.unpack_from("<iI" if kind & 1 else ">iI", raw, 4)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def decode(raw: bytes, message_type: type[Image | CompressedImage]) -> DecodedImage:
    """Deserialise and convert one camera message. ``message_type`` is the type of its topic.

    16-bit colours are scaled to 8 bits, grey becomes three equal channels, transparency is dropped.
    Raises `ImageError`, and nothing else, whatever the bytes are.
    """
    stamp_ns = stamp_ns_of(raw)
    try:
        message = deserialize_message(raw, message_type)
    except RuntimeError as error:  # rclpy's RMWError, and what it makes of a bad allocation
        raise ImageError(f"{len(raw)} bytes are no {message_type.__name__}: {error}") from error
    rgb = rgb_of_compressed(message) if isinstance(message, CompressedImage) else rgb_of_raw(message)
    return DecodedImage(stamp_ns, message.header.frame_id, rgb)


@dataclass(frozen=True, slots=True)
class _Packed:
    """The fields of sensor_msgs/Image that the conversion reads, with contiguous rows."""

    encoding: str
    height: int  # rows in data; of nv12 and nv21 one and a half times the picture's
    width: int
    is_bigendian: bool
    data: Any


def rgb_of_raw(message: Any) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a sensor_msgs/Image; may share memory with it. Raises `ImageError`."""
    packed = _packed(message)
    try:
        return _finished(image_to_cvimage(cast(Any, packed), "rgb8"))
    except (ConversionError, cv2.error) as error:
        raise ImageError(f"{_described(message)} could not be converted: {error}") from error


def _described(message: Any) -> str:
    return (
        f"image with encoding '{_short(message.encoding)}', {message.width}x{message.height}, "
        f"step {message.step}, {len(message.data)} bytes"
    )


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:40] + "..."


def _packed(message: Any) -> _Packed:
    """Check a raw image's claims against its data, and cut the padding off its rows."""
    encoding = _OPENCV_TYPES.get(message.encoding, message.encoding)
    if encoding in _DEPTH:
        raise ImageError(f"{_described(message)} has no colour. Is it a depth image? Name a colour topic")
    if encoding not in _BYTES_PER_PIXEL:
        known = ", ".join((*_BYTES_PER_PIXEL, *_OPENCV_TYPES))
        raise ImageError(
            f"{_described(message)}: unknown encoding; let the camera driver publish one of {known}"
        )
    if message.height == 0 or message.width == 0:
        raise ImageError(f"{_described(message)} is empty; does the camera deliver frames?")
    if message.height * message.width > MAX_PIXELS:
        raise ImageError(f"{_described(message)} claims more than {MAX_PIXELS} pixels; lower the resolution")
    if encoding in _PAIRED and (message.width % 2 or (encoding in _PLANAR and message.height % 2)):
        raise ImageError(f"{_described(message)}: this encoding needs even sizes; fix the camera driver")
    row = message.width * _BYTES_PER_PIXEL[encoding]
    rows = message.height * 3 // 2 if encoding in _PLANAR else message.height
    if message.step < row:
        raise ImageError(
            f"{_described(message)}: a row takes {row} bytes, more than step; fix the camera driver"
        )
    if len(message.data) != message.step * rows:
        raise ImageError(
            f"{_described(message)}: {rows} rows of step take {message.step * rows} bytes; "
            "was it cut off on the way, or does the camera driver state a wrong step?"
        )
    data = message.data
    if message.step != row:
        padded = np.frombuffer(data, np.uint8).reshape(rows, message.step)
        data = np.ascontiguousarray(padded[:, :row])
    return _Packed(encoding, rows, message.width, bool(message.is_bigendian), data)


def rgb_of_compressed(message: Any) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a sensor_msgs/CompressedImage, JPEG or PNG. Raises `ImageError`."""
    what = f"compressed image with format '{_short(message.format)}', {len(message.data)} bytes"
    data = bytes(message.data)
    if "compressedDepth" in message.format or message.format.split(";")[0].strip() in _DEPTH:
        raise ImageError(f"{what} is a depth image and has no colour; name a colour topic")
    if data.startswith(b"\xff\xd8"):
        width, height = _jpeg_size(data, what)
    elif data.startswith(_PNG_MAGIC):
        width, height = _png_size(data, what)
    else:
        raise ImageError(
            f"{what} is neither JPEG nor PNG; set the camera's compressed transport to one of them"
        )
    if not 0 < width * height <= MAX_PIXELS:
        raise ImageError(f"{what} claims {width}x{height} pixels; between 1 and {MAX_PIXELS} can be read")
    try:
        picture = compressed_image_to_cvimage(message)
        to_rgb = cv2.COLOR_GRAY2RGB if picture.ndim == 2 else cv2.COLOR_BGR2RGB
        return _finished(cv2.cvtColor(picture, to_rgb))
    except (AssertionError, cv2.error) as error:
        raise ImageError(f"{what}, {width}x{height}, is corrupt and could not be decoded") from error


def _jpeg_size(data: bytes, what: str) -> tuple[int, int]:
    """Width and height of a JPEG that is whole: its segments are walked up to the end-of-image marker.

    OpenCV only warns about a truncated JPEG, and searching for the end marker is not enough: a thumbnail
    in the EXIF segment has one, too.
    """
    at, size = 2, (0, 0)
    while marker := _JPEG_MARKER.search(data, at):
        kind, at = marker[1][0], marker.end()
        if kind == 0xD9:
            return size
        if kind == 0x01:  # TEM, the only other marker without a length
            continue
        if kind in _JPEG_SIZES and at + 7 <= len(data):
            size = (
                int.from_bytes(data[at + 5 : at + 7], "big"),
                int.from_bytes(data[at + 3 : at + 5], "big"),
            )
        at += max(2, int.from_bytes(data[at : at + 2], "big"))
    raise ImageError(f"{what}, {size[0]}x{size[1]}, is a JPEG without its end; was it cut off on the way?")


def _png_size(data: bytes, what: str) -> tuple[int, int]:
    """Width and height of a PNG that is whole: its chunks are walked up to IEND and their checksums compared.

    OpenCV reads chunks by itself before it looks at checksums, and takes gigabytes for a damaged one.
    """
    if data[12:16] != b"IHDR":
        raise ImageError(f"{what} is a PNG without a header; was it damaged on the way?")
    size = (int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big"))
    at = len(_PNG_MAGIC)
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")  # length and name, then the content
        checksum = data[end : end + 4]
        if len(checksum) < 4:
            break
        if zlib.crc32(memoryview(data)[at + 4 : end]) != int.from_bytes(checksum, "big"):
            raise ImageError(f"{what}, {size[0]}x{size[1]}, is a PNG with a wrong checksum and so is corrupt")
        if data[at + 4 : at + 8] == b"IEND":
            return size
        at = end + 4
    raise ImageError(f"{what}, {size[0]}x{size[1]}, is a PNG without its end; was it cut off on the way?")


def _finished(picture: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(picture, dtype=np.uint8)


def tile(images: Sequence[np.ndarray]) -> np.ndarray:
    """Put the images of several cameras side by side in one frame, the primary first (left).

    Each (H_i, W_i, 3) uint8 image is resized to the primary's height with its shape kept, so nothing is
    cropped and no bars are added: the result is (H_0, sum of new widths, 3) uint8. One image is returned
    as it is. Raises `ImageError` when shapes are so different that the frame would be larger than any
    camera's.
    """
    height = images[0].shape[0]
    widths = [max(1, round(image.shape[1] * height / image.shape[0])) for image in images]
    if height * sum(widths) > MAX_PIXELS:
        shapes = ", ".join(f"{image.shape[1]}x{image.shape[0]}" for image in images)
        raise ImageError(f"images of {shapes} make a frame of {sum(widths)}x{height}: choose similar cameras")
    if len(images) == 1:
        return images[0]
    return np.concatenate([_resized(i, w, height) for i, w in zip(images, widths, strict=True)], axis=1)


def _resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    if image.shape[0] == height:
        return image
    shrinks = image.shape[0] > height
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
