"""From the bytes of a camera message to an RGB array, or an `ImageError` that says what is wrong with it.

`stamp_ns_of` reads the stamp alone, so that a frame that is not due costs nothing; `ImageReader` does the
rest. What makes a message of the bytes is given: rclpy in a node, rosbags where a bag is read; so is the
converter of raw images (raw_samples.py). These libraries trust the header (rosbags-image ignores ``step`` and
would read past a row), so every message is checked here first. Compressed ones are read by encoded_image.py,
as images in folders are. No node, no topic, no clock.
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import cv2
import numpy as np

from topreward_ros.core.errors import UserError
from topreward_ros.core.frames import NS_PER_S
from topreward_ros.core.printable import printable
from topreward_ros.offline.encoded_image import (
    MAX_PIXELS,
    EncodedImageError,
    is_jpeg,
    is_png,
    rgb8_of,
    samples_of,
)
from topreward_ros.offline.raw_samples import BYTES_PER_PIXEL, PLANAR, Converter, Samples

#: Types of the images that can be read, as ROS 2 writes them.
RAW, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"

#: OpenCV's type names say nothing about colour; OpenCV's own convention (grey, BGR, BGRA) is taken.
_OPENCV_TYPES = {"8UC1": "mono8", "8UC3": "bgr8", "8UC4": "bgra8"}
_PAIRED = ("yuv422", "uyvy", "yuv422_yuy2", "yuyv", *PLANAR)  # two neighbours share their colour
#: How encodings of 10 or 12 bits end, which ROS does not define.
_PART_OF_16_BITS = re.compile(r"[a-z](9|1[0-5])[lp]?$")
_DEPTH = ("16UC1", "16SC1", "32FC1", "64FC1")

_CDR_KINDS = (0x0000, 0x0001, 0x0006, 0x0007)  # plain CDR of XTypes 1 and 2, big and little endian
#: A CompressedImage's ``format``: "jpeg", or as image_transport writes it, "bayer_rggb8; png compressed ",
#: "mono8; jpeg compressed mono8": the camera's encoding, and the one that was compressed, if another.
_FORMAT = re.compile(r"\s*([^;\s]*)\s*(?:;.*compressed\s+(\S+))?")
#: How the names of encodings begin whose samples are no grey picture, though they may lie in one channel.
_NEEDS_CONVERSION = ("bayer", "nv", "uyvy", "yuv", "yuyv")


class ImageError(UserError):
    """An image message cannot be used. The text names its encoding and its sizes."""


class FrameAwaited(ImageError):
    """The image of another camera that belongs into the frame may still come."""


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


def frame_id_of(raw: bytes) -> bytes:
    """``header.frame_id`` of a serialised message as it stands there; not its text, and never an error."""
    return raw[16 : 16 + min(raw[12], 64)] if len(raw) > 16 else b""


@dataclass(frozen=True, slots=True)
class ImageReader:
    """From the bytes of a camera message to an image, by the libraries that are given."""

    deserialize: Callable[[bytes, str], Any]  #: bytes and type -> message; raises exceptions of many kinds
    converter: Callable[[], Converter]  #: what makes RGB of raw images; asked when there is one

    def decode(self, raw: bytes, type_name: str) -> DecodedImage:
        """Deserialise and convert one camera message. ``type_name``: of its topic, `RAW` or `COMPRESSED`.

        16-bit colours are scaled to 8 bits, grey becomes three equal channels, transparency is dropped.
        Raises `ImageError`, and nothing else, whatever the bytes are.
        """
        stamp_ns = stamp_ns_of(raw)
        try:
            message = self.deserialize(raw, type_name)
        except Exception as error:  # each library has kinds of its own
            reason, kind = printable(str(error), 200), type_name.rpartition("/")[2]
            raise ImageError(f"{len(raw)} bytes are no {kind}: {reason}") from error
        read = rgb_of_compressed if type_name == COMPRESSED else rgb_of_raw
        return DecodedImage(stamp_ns, message.header.frame_id, read(message, self.converter))


def rgb_of_raw(message: Any, converter: Callable[[], Converter]) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a sensor_msgs/Image; may share memory with it. Raises `ImageError`."""
    return _converted(_packed(message), _described(message), converter())


def _converted(samples: Samples, what: str, converter: Converter) -> np.ndarray:
    try:
        return np.ascontiguousarray(converter.to_rgb(samples), dtype=np.uint8)
    except Exception as error:  # each library has kinds of its own, and so has OpenCV below them
        reason = printable(str(error), 200)
        raise ImageError(f"{what} could not be converted by {converter.name}: {reason}") from error


def _described(message: Any) -> str:
    return (
        f"image with encoding '{_short(message.encoding)}', {message.width}x{message.height}, "
        f"step {message.step}, {len(message.data)} bytes"
    )


def _short(text: str) -> str:
    return printable(text, 43)


def _packed(message: Any) -> Samples:
    """Check a raw image's claims against its data; cut the padding off its rows, put its bytes in order."""
    encoding = _OPENCV_TYPES.get(message.encoding, message.encoding)
    if encoding in _DEPTH:
        raise ImageError(f"{_described(message)} has no colour. Is it a depth image? Name a colour topic")
    if encoding not in BYTES_PER_PIXEL:
        known = ", ".join((*BYTES_PER_PIXEL, *_OPENCV_TYPES))
        raise ImageError(
            f"{_described(message)}: unknown encoding; let the camera driver publish one of {known}"
        )
    if message.height == 0 or message.width == 0:
        raise ImageError(f"{_described(message)} is empty; does the camera deliver frames?")
    if message.height * message.width > MAX_PIXELS:
        raise ImageError(f"{_described(message)} claims more than {MAX_PIXELS} pixels; lower the resolution")
    if encoding in _PAIRED and (message.width % 2 or (encoding in PLANAR and message.height % 2)):
        raise ImageError(f"{_described(message)}: this encoding needs even sizes; fix the camera driver")
    row = message.width * BYTES_PER_PIXEL[encoding]
    rows = message.height * 3 // 2 if encoding in PLANAR else message.height
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
    if encoding.endswith("16") and bool(message.is_bigendian) != (sys.byteorder == "big"):
        data = np.frombuffer(data, np.uint16).byteswap()
    return Samples(encoding, rows, message.width, row, data)


def rgb_of_compressed(message: Any, converter: Callable[[], Converter]) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a sensor_msgs/CompressedImage, JPEG or PNG. Raises `ImageError`.

    A picture of one channel is grey, unless ``format`` says that it is the mosaic of a Bayer sensor or planes
    of YUV. A PNG of these is converted; a JPEG is refused, as its compression has mixed neighbours that are
    of other colours.
    """
    what = f"compressed image with format '{_short(message.format)}', {len(message.data)} bytes"
    data = bytes(message.data)
    source, target = _encodings_of(message.format)
    if "compressedDepth" in message.format or source in _DEPTH:
        raise ImageError(f"{what} is a depth image and has no colour; name a colour topic")
    if not (is_jpeg(data) or is_png(data)):
        raise ImageError(
            f"{what} is neither JPEG nor PNG; set the camera's compressed transport to one of them"
        )
    try:
        samples = samples_of(data, what)
    except EncodedImageError as error:
        raise ImageError(f"{error}; was it damaged on the way?") from error
    if samples.dtype == np.uint16 and (
        bits := _PART_OF_16_BITS.search(source) or _PART_OF_16_BITS.search(target)
    ):
        raise ImageError(
            f"{what} has samples of {bits[1]} bits, and where in 16 bits these lie is not known; let the "
            "camera publish 8 or 16 bits"
        )
    # image_transport makes JPEGs of Bayer images grey since Humble, and says so
    if samples.ndim == 2 and source.startswith(_NEEDS_CONVERSION) and not target.startswith("mono"):
        return _converted(_raw_in_one_channel(samples, source, is_png(data), what), what, converter())
    return rgb8_of(samples)


def _encodings_of(format: str) -> tuple[str, str]:
    """Encoding of the camera and of what was compressed, each "" where ``format`` does not say.

    >>> _encodings_of("bayer_rggb8; jpeg compressed mono8"), _encodings_of("bayer_rggb8; png compressed ")
    (('bayer_rggb8', 'mono8'), ('bayer_rggb8', ''))
    """
    names = _FORMAT.match(format)
    return (names[1].strip(), names[2] or "") if names else ("", "")


def _raw_in_one_channel(samples: np.ndarray, source: str, lossless: bool, what: str) -> Samples:
    """The raw image that (H, W) ``samples`` are, of encoding ``source``."""
    height, width = samples.shape
    if source in BYTES_PER_PIXEL and not lossless:
        raise ImageError(
            f"{what} is a JPEG of {source}, whose colours are lost; set the format of the compressed "
            "transport to png, or let the camera publish colour images"
        )
    if source.startswith("bayer_") and f"{source.rstrip('0123456789')}8" in BYTES_PER_PIXEL:
        encoding = f"{source.rstrip('0123456789')}{8 * samples.itemsize}"
        return Samples(encoding, height, width, width * samples.itemsize, samples)
    if source in PLANAR and samples.dtype == np.uint8 and height % 3 == 0 and width % 2 == 0:
        return Samples(source, height, width, width, samples)
    raise ImageError(
        f"{what}, {width}x{height}, has one channel, from which no colours of {source} can be made; "
        "let the camera publish colour images"
    )


@dataclass(frozen=True, slots=True)
class Beside:
    """The newest image of a camera that is to be tiled beside the primary one's."""

    topic: str
    raw: bytes  #: serialised; empty before the first
    silent_s: float  #: since it came

    def age_s(self, stamp_ns: int) -> float:
        """For how long before the primary one's image of that stamp it was taken [s]; infinite before the
        first, and 0 of one whose stamp cannot be read: decoding it says what is wrong."""
        if not self.raw:
            return inf
        try:
            own_ns = stamp_ns_of(self.raw)
        except ImageError:
            return 0.0
        # Without a stamp, the time of arrival is all that there is.
        return (stamp_ns - own_ns) / NS_PER_S if own_ns > 0 else self.silent_s


def check_beside(cameras: Iterable[Beside], primary: str, stamp_ns: int, max_skew: float) -> None:
    """Raise `ImageError` where an image does not belong beside that of the topic ``primary`` with this stamp.

    ``max_skew``: longest time between the two [s]: an older one would be scored as current. It is a
    `FrameAwaited` where the image was taken that long before, or is not there: the one that belongs there may
    be on its way.
    """
    for camera in cameras:
        if problem := _why_not_beside(camera, primary, stamp_ns, max_skew):
            kind = FrameAwaited if camera.age_s(stamp_ns) > 0 else ImageError
            raise kind(f"{problem}, so no frame can be tiled")


def _why_not_beside(camera: Beside, primary: str, stamp_ns: int, max_skew: float) -> str:
    if not camera.raw:
        return f"no image on {camera.topic} yet"
    age = camera.age_s(stamp_ns)
    if abs(age) <= max_skew:
        return ""
    if camera.silent_s > max_skew:
        return f"no image on {camera.topic} for more than {max_skew:g} s (camera_max_skew)"
    when = f"{abs(age):.1f} s {'before' if age > 0 else 'after'}"
    return (
        f"the newest image on {camera.topic} was taken {when} that on {primary} "
        f"(camera_max_skew = {max_skew:g} s: set the clocks of all machines by NTP, or allow more)"
    )


def tile(images: Sequence[np.ndarray]) -> np.ndarray:
    """Put the images of several cameras side by side in one frame, the primary first (left).

    Each (H_i, W_i, 3) uint8 image is resized to the primary's height with its shape kept, so nothing is
    cropped and no bars are added: the result is (H_0, sum of new widths, 3) uint8. One image is returned
    as it is. Raises `ImageError` when shapes are so different that the frame would be larger than any
    camera's.
    """
    height, widths = images[0].shape[0], tiled_widths(images)
    if height * sum(widths) > MAX_PIXELS:
        shapes = ", ".join(f"{image.shape[1]}x{image.shape[0]}" for image in images)
        raise ImageError(f"images of {shapes} make a frame of {sum(widths)}x{height}: choose similar cameras")
    if len(images) == 1:
        return images[0]
    return np.concatenate([_resized(i, w, height) for i, w in zip(images, widths, strict=True)], axis=1)


def tiled_widths(images: Sequence[np.ndarray]) -> tuple[int, ...]:
    """How wide [px] each image is in the frame that `tile` makes."""
    height = images[0].shape[0]
    return tuple(max(1, round(image.shape[1] * height / image.shape[0])) for image in images)


def _resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    if image.shape[0] == height:
        return image
    shrinks = image.shape[0] > height
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
