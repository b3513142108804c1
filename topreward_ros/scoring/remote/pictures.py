"""From a frame to the image in a call: no larger than the model sees it, and exact unless JPEG is wanted.

The model sees frames of one size, which follows from the first frame of the episode. A larger frame is
resized to it here, as the scorer would there: the same pixels come to the model with a fraction of the bytes.
"""

from __future__ import annotations

import cv2
import numpy as np

from topreward_ros.scoring.remote.protocol import Encoding, SentImage, ServerInfo

_PNG = (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_SUB)


def sent(number: int, image: np.ndarray, first: np.ndarray, said: ServerInfo, jpeg_quality: int) -> SentImage:
    """Frame ``number`` of an episode as it goes over the line.

    ``image``, and the ``first`` one of the episode: (H, W, 3) uint8 RGB. ``jpeg_quality``: 0 for PNG. Raises
    `ScorerError` for a shape that the model does not take.
    """
    shown = _as_shown(image, first, said)
    encoding = Encoding.JPEG if jpeg_quality else Encoding.PNG
    options = (cv2.IMWRITE_JPEG_QUALITY, jpeg_quality) if jpeg_quality else _PNG
    _, data = cv2.imencode(f".{encoding.value}", cv2.cvtColor(shown, cv2.COLOR_RGB2BGR), options)
    height, width = shown.shape[:2]
    return SentImage(number, height, width, encoding, data.tobytes())


def _as_shown(image: np.ndarray, first: np.ndarray, said: ServerInfo) -> np.ndarray:
    """``image``, resized where the model sees it smaller."""
    unit, most = said.frame_unit, said.model.max_pixels
    if not unit or image.shape[0] * image.shape[1] <= most:
        return image
    from topreward_ros.scoring.patches import frame_size, resize  # PyTorch, which small cameras do not need

    height, width = first.shape[:2]
    size = frame_size(height, width, unit, most)
    if size[0] * size[1] >= image.shape[0] * image.shape[1] or frame_size(*size, unit, most) != size:
        return image
    return np.ascontiguousarray(resize(image, size).numpy().transpose(1, 2, 0))
