"""`~/debug_image`: the newest scored frame with state, progress and curve under it, for people.

Only the numbers of each score are kept while nobody subscribes; nothing is drawn and nothing is sent. What is
drawn is decided in views/debug_picture.py. One picture per score, with the header of the frame in it.
"""

from __future__ import annotations

import sys
import time
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from sensor_msgs.msg import Image

from topreward_ros.core.outputs import Output, ProgressReport
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.msg import TaskProgress
from topreward_ros.nodes import conversions
from topreward_ros.nodes.image_topics import DEBUG_IMAGE
from topreward_ros.nodes.raw_conversion import converter, message_by_cv_bridge
from topreward_ros.views.debug_picture import debug_picture
from topreward_ros.views.watch import WatchLog


class DebugImage:
    """What is remembered of the present episode, and the publisher. Belongs to the executor's thread."""

    def __init__(self, publisher: Any) -> None:
        """``publisher``: of sensor_msgs/Image."""
        self._publisher = publisher
        self._log = WatchLog(DEBUG_IMAGE)

    def take(self, message: TaskProgress, request: ScoreRequest) -> None:
        """Take a new score and the prefix that it is of; publish the picture where somebody looks."""
        self._log.add_progress(conversions.sample(message), time.monotonic())
        if not self._publisher.get_subscription_count() or not self._log.scores:
            return
        image = image_message(debug_picture(request.prefix[-1].image, self._log.scores))
        image.header = message.header
        self._publisher.publish(image)


def first_report(outputs: Sequence[Output]) -> ProgressReport | None:
    """The report of the score itself: those behind it are of what follows from it."""
    return next((output for output in outputs if isinstance(output, ProgressReport)), None)


def image_message(picture: np.ndarray) -> Image:
    """(H, W, 3) uint8 RGB as sensor_msgs/Image in rgb8, by cv_bridge where that works."""
    if converter().name == "cv_bridge":
        made: Image = message_by_cv_bridge(picture)
        return made
    height, width = picture.shape[:2]
    image = Image(height=height, width=width, encoding="rgb8", step=3 * width)
    image.is_bigendian = int(sys.byteorder == "big")
    image.data = array("B", picture.tobytes())  # the setter takes an array as it is
    return image
