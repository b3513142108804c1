"""Raw images of sensor_msgs as checked samples, and RGB made of them by rosbags-image.

Nothing is checked here of what a message claims; that is done in camera_images.py. Whether cv_bridge is there
and converts instead is known to nodes/raw_conversion.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from rosbags.image import image_to_cvimage

from topreward_ros.offline.encoded_image import eight_bits_of

#: Bytes per pixel of one row. Of nv12 and nv21 this is the grey plane; half as many rows of colour follow it.
BYTES_PER_PIXEL = {
    **dict.fromkeys(("mono8", "nv12", "nv21"), 1),
    **dict.fromkeys(("bayer_rggb8", "bayer_bggr8", "bayer_gbrg8", "bayer_grbg8"), 1),
    **dict.fromkeys(("bayer_rggb16", "bayer_bggr16", "bayer_gbrg16", "bayer_grbg16", "mono16"), 2),
    **dict.fromkeys(("yuv422", "uyvy", "yuv422_yuy2", "yuyv"), 2),
    **dict.fromkeys(("rgb8", "bgr8"), 3),
    **dict.fromkeys(("rgba8", "bgra8"), 4),
    **dict.fromkeys(("rgb16", "bgr16"), 6),
    **dict.fromkeys(("rgba16", "bgra16"), 8),
}
PLANAR = ("nv12", "nv21")


@dataclass(frozen=True, slots=True)
class Samples:
    """The fields of sensor_msgs/Image that a converter reads. No padding, and this machine's byte order."""

    encoding: str
    height: int  #: rows in data; of nv12 and nv21 one and a half times the picture's
    width: int
    step: int  #: bytes per row
    data: Any  #: a buffer of height * step bytes
    is_bigendian: bool = sys.byteorder == "big"


@dataclass(frozen=True, slots=True)
class Converter:
    """What makes RGB of samples, and why it is this one."""

    name: str  #: "cv_bridge" or "rosbags-image"
    problem: str  #: why an installed cv_bridge is not used, and the mend; else empty
    to_rgb: Callable[[Samples], np.ndarray]  #: (H, W, 3) uint8; raises exceptions of many kinds


def rgb_by_rosbags_image(samples: Samples) -> np.ndarray:
    """(H, W, 3) uint8 RGB; of rgb8 a view of the samples. Raises what rosbags-image and OpenCV raise."""
    # Its own way from 16 to 8 bits cuts the rest off, by which grey values become one too dark.
    if samples.encoding.endswith("16"):
        return eight_bits_of(image_to_cvimage(cast(Any, samples), "rgb16"))
    return image_to_cvimage(cast(Any, samples), "rgb8")


def rosbags_image() -> Converter:
    """The converter that is there everywhere."""
    return Converter("rosbags-image", "", rgb_by_rosbags_image)
