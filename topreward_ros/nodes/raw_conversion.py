"""From checked samples in an encoding of sensor_msgs to RGB, by cv_bridge or else by rosbags-image.

Both give the same pixels, and a trial at start holds them to it. cv_bridge's binary breaks beside a numpy of
another major version than it was built with, and takes the process with it: so the trial is made in another
process, once, and only where cv_bridge is installed (about half a second). Nothing is checked here of what a
message claims; that is done in offline/camera_images.py.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from functools import cache
from typing import Any

import numpy as np

from topreward_ros.core.printable import printable
from topreward_ros.offline.raw_samples import (
    BYTES_PER_PIXEL,
    PLANAR,
    Converter,
    Samples,
    rgb_by_rosbags_image,
    rosbags_image,
)

#: Names of the same encodings that every release of cv_bridge knows; planar YUV is in none of them.
_NAMES_OF_CV_BRIDGE = {"uyvy": "yuv422", "yuyv": "yuv422_yuy2"}
_TRIAL_SECONDS = 20.0  # at most, on a machine that is starting everything else, too
_TRIAL = "from topreward_ros.nodes.raw_conversion import compare_converters; compare_converters()"
_SIGNS_OF_NUMPY = ("compiled using NumPy", "_ARRAY_API", "multiarray", "newbyteorder", "numpy.dtype size")


@cache
def converter() -> Converter:
    """The converter of this process. The first call may take half a second, for the trial of cv_bridge."""
    if importlib.util.find_spec("cv_bridge") is None:
        return rosbags_image()
    if problem := _problem_of_cv_bridge():
        return Converter("rosbags-image", problem, rgb_by_rosbags_image)
    return Converter("cv_bridge", "", rgb_by_cv_bridge)


def rgb_by_cv_bridge(samples: Samples) -> np.ndarray:
    """(H, W, 3) uint8 RGB; of rgb8 a view of the samples. Raises what cv_bridge and OpenCV raise.

    Planar YUV, which it does not know, is converted by `rgb_by_rosbags_image`.
    """
    if samples.encoding in PLANAR:
        return rgb_by_rosbags_image(samples)
    known = _NAMES_OF_CV_BRIDGE.get(samples.encoding, samples.encoding)
    named = Samples(known, samples.height, samples.width, samples.step, samples.data, samples.is_bigendian)
    return np.asarray(_bridge().imgmsg_to_cv2(named, "passthrough" if known == "rgb8" else "rgb8"))


def message_by_cv_bridge(picture: np.ndarray) -> Any:
    """(H, W, 3) uint8 RGB as sensor_msgs/Image in rgb8. Raises what cv_bridge raises."""
    return _bridge().cv2_to_imgmsg(picture, "rgb8")


@cache
def _bridge() -> Any:
    """The library's own object, which builds its tables of types when it is made."""
    from cv_bridge import CvBridge

    return CvBridge()


def compare_converters() -> None:
    """Convert a small picture in every encoding both ways. Raises when cv_bridge fails or gives other pixels.

    With a binary that does not fit numpy, the process may end here.
    """
    rng = np.random.default_rng(0)
    for encoding, size in BYTES_PER_PIXEL.items():
        data = rng.integers(0, 256, 6 * 8 * size, np.uint8)
        samples = Samples(encoding, 6, 8, 8 * size, data)
        ours, theirs = rgb_by_rosbags_image(samples), rgb_by_cv_bridge(samples)
        if ours.shape != theirs.shape or np.abs(ours.astype(int) - theirs).max() > 1:
            raise ValueError(f"it gives other pixels than rosbags-image for {encoding}")
    picture = rng.integers(0, 256, (6, 8, 3), np.uint8)
    message = message_by_cv_bridge(picture)
    if (message.encoding, message.step, bytes(message.data)) != ("rgb8", 24, picture.tobytes()):
        raise ValueError("it makes another message of a picture")


def _problem_of_cv_bridge() -> str:
    """Why cv_bridge cannot be used here, with the mend; empty when it works."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        trial = subprocess.run(
            [sys.executable, "-c", _TRIAL],
            env=environment,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_TRIAL_SECONDS,
            text=True,
            errors="replace",
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"cv_bridge could not be tried: {printable(str(error))}; rosbags-image converts instead"
    if trial.returncode == 0:
        return ""
    if any(sign in trial.stderr for sign in _SIGNS_OF_NUMPY):
        return (
            f"cv_bridge was built for another major version of numpy than {np.__version__} and breaks beside "
            "it; rosbags-image converts instead. To use cv_bridge, build it against this numpy or install "
            "the other here, such as 'numpy<2'"
        )
    last = (trial.stderr.strip().splitlines() or [f"exit status {trial.returncode}"])[-1]
    return (
        f"cv_bridge does not work here ({printable(last[:200])}); rosbags-image converts instead. "
        "To use cv_bridge, install the one of your ROS 2 distribution"
    )
