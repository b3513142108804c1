"""Pictures for a monitor that is disturbed: small, of one colour, with the stamp that is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
from sensor_msgs.msg import Image

from topreward_ros.nodes.conversions import time_message

TASK = "open the drawer"


def picture(stamp_ns: int, **fields: Any) -> Image:
    """An image in order, but for ``fields``."""
    message = Image(width=64, height=48, step=192, encoding="rgb8")
    message.data = np.full(64 * 48 * 3, 90, np.uint8).tobytes()
    message.header.stamp = time_message(stamp_ns)
    for name, value in fields.items():
        setattr(message, name, value)
    return message
