"""Video files and folders of images, read as frames with the time at which each was taken.

A frame's stamp is the file's own presentation time, counted from the first frame; where a file has none
that increases, it is the stamp before plus one frame period. With a ``rate`` given, and in a folder, frame k
is at k / rate. Decoding is left to the caller, because most frames of a video are not due. Nothing is
written here, and no clock is read.
"""

from __future__ import annotations

import logging
import os.path
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import isfinite
from pathlib import Path

import cv2
import numpy as np

from topreward_ros.core.errors import UserError
from topreward_ros.core.printable import printable
from topreward_ros.offline.encoded_image import EncodedImageError, rgb8_of, samples_of

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

_log = logging.getLogger(__name__)


class VideoError(UserError):
    """A video cannot be read."""


class FrameError(VideoError):
    """This frame cannot be decoded; others may."""


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a video says about itself."""

    rate: float  #: frames per second [Hz], > 0; the given rate when there is one
    frame_count: int  #: as stated by the file: an estimate for some containers, 0 when unknown
    width: int  #: [px] of the first frame
    height: int  #: [px] of the first frame


class Video(ABC):
    """An opened video. Iterate it as often as you like; every time it starts at the first frame."""

    info: VideoInfo

    @abstractmethod
    def __iter__(self) -> Iterator[tuple[int, Callable[[], np.ndarray]]]:
        """Yield ``(stamp_ns, read)`` per frame, stamps strictly increasing from 0.

        ``read()`` decodes that frame to (H, W, 3) uint8 RGB; call it before the next step, or not at all.
        Raises `VideoError` for a frame that cannot be decoded.
        """


def open_video(path: str | Path, rate: float = 0.0) -> Video:
    """Open a video file or a folder of images and check that its first frame can be read.

    ``rate`` [Hz] replaces the file's own frame rate; 0 keeps it. A folder has none, so it needs one.
    Raises `VideoError`.
    """
    path = Path(os.path.expanduser(path))
    if not (isfinite(rate) and rate >= 0):
        raise VideoError(f"rate {rate} of {path} is not a number of frames per second; give one above 0")
    if not path.exists():
        raise VideoError(f"no video at {path}; check the path (relative ones start at {Path.cwd()})")
    return _Folder(path, rate) if path.is_dir() else _File(path, rate)


def _evenly(k: int, rate: float) -> int:
    """Stamp of frame k [ns]."""
    return round(k * 1e9 / rate)


class _File(Video):
    def __init__(self, path: Path, rate: float) -> None:
        self._path = path
        self._given_rate = rate
        capture = self._open()
        try:
            own_rate = capture.get(cv2.CAP_PROP_FPS)
            if not rate and not (isfinite(own_rate) and own_rate > 0):
                raise VideoError(f"{path} states a frame rate of {own_rate}; give a rate yourself")
            if not capture.grab():
                raise VideoError(f"{path} holds no frame that can be read; is the file complete?")
            height, width = self._decode(capture, 0).shape[:2]
            count = max(0, round(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
            self.info = VideoInfo(rate or own_rate, count, width, height)
        finally:
            capture.release()

    def _open(self) -> cv2.VideoCapture:
        # FFmpeg alone: other backends take a path for a pattern of file names, or for a device
        capture = cv2.VideoCapture(str(self._path), cv2.CAP_FFMPEG)
        if not capture.isOpened():
            raise VideoError(
                f"{self._path} is not a video that can be read; is it complete? H.264 in .mp4 works"
            )
        return capture

    def __iter__(self) -> Iterator[tuple[int, Callable[[], np.ndarray]]]:
        capture = self._open()
        stamps = _Stamps(self.info.rate, use_file=not self._given_rate)
        count = 0
        try:
            while capture.grab():
                yield stamps.next(capture.get(cv2.CAP_PROP_POS_MSEC)), partial(self._decode, capture, count)
                count += 1
        finally:
            capture.release()
        if count < 0.95 * self.info.frame_count - 1:  # containers that estimate are not off by more
            _log.warning(
                "%s ended after %d of %d frames; is it damaged?", self._path, count, self.info.frame_count
            )

    def _decode(self, capture: cv2.VideoCapture, k: int) -> np.ndarray:
        ok, bgr = capture.retrieve()
        if not ok or bgr is None or bgr.size == 0:
            raise VideoError(f"frame {k} of {self._path} cannot be decoded; is the file damaged?")
        return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))


class _Stamps:
    """Stamps of a file's frames: its own presentation times where they increase."""

    def __init__(self, rate: float, use_file: bool) -> None:
        self._rate = rate
        self._use_file = use_file
        self._count = 0
        self._first_ms = 0.0
        self._last = -1

    def next(self, presented_ms: float) -> int:
        k, self._count = self._count, self._count + 1
        if not self._use_file:
            return _evenly(k, self._rate)
        if k == 0:
            self._first_ms, self._last = presented_ms, 0
            return 0
        stamp = round((presented_ms - self._first_ms) * 1e6) if isfinite(presented_ms) else -1
        self._last = stamp if stamp > self._last else self._last + _evenly(1, self._rate)
        return self._last


class _Folder(Video):
    def __init__(self, path: Path, rate: float) -> None:
        if not rate:
            raise VideoError(f"the folder of images {path} has no frame rate of its own; give a rate")
        self._files = sorted((f for f in path.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES), key=_natural)
        if not self._files:
            raise VideoError(f"{path} holds no images; expected files ending in {', '.join(IMAGE_SUFFIXES)}")
        height, width = self._first().shape[:2]
        self.info = VideoInfo(rate, len(self._files), width, height)

    def _first(self) -> np.ndarray:
        """The first image that can be read."""
        problem: FrameError | None = None
        for file in self._files:
            try:
                return self._decode(file)
            except FrameError as error:
                problem = problem or error
        raise VideoError(f"no image can be read; the first is {problem}")

    def __iter__(self) -> Iterator[tuple[int, Callable[[], np.ndarray]]]:
        for k, file in enumerate(self._files):
            yield _evenly(k, self.info.rate), partial(self._decode, file)

    @staticmethod
    def _decode(file: Path) -> np.ndarray:
        try:
            return rgb8_of(samples_of(file.read_bytes(), printable(str(file))))
        except EncodedImageError as error:
            raise FrameError(f"{error}; repair or remove it") from error
        except OSError as error:
            raise FrameError(f"{printable(str(file))} cannot be read: {error.strerror}") from error


def _natural(file: Path) -> tuple[list[str | int], str]:
    """Sort key by which frame2 comes before frame10.

    >>> sorted([Path("frame10.png"), Path("frame2.png"), Path("a.png")], key=_natural)[1].name
    'frame2.png'
    """
    parts = re.split(r"([0-9]+)", file.name)  # text and numbers alternate, text first
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], file.name
