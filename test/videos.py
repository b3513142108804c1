"""Videos that tests write."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def write_block(path: Path, width: int, height: int) -> Path:
    """3 s at 10 Hz: a block that moves to the right. Returns ``path``."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10.0, (width, height))
    step, top, side = width // 40, height * 2 // 5, width // 5
    for k in range(31):
        picture = np.full((height, width, 3), 120, np.uint8)
        cv2.rectangle(picture, (step * k, top), (step * k + side, top + side), (0, 0, 200), -1)
        writer.write(picture)
    writer.release()
    return path
