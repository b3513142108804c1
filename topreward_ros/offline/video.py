"""Video files and folders of images, read as frames with the time at which each was taken.

A frame's stamp is the file's own presentation time, counted from the first frame, be it lost; where a file
has none that increases, it is the stamp before plus one frame period. With a ``rate`` given, in a folder and
in a raw stream, frame k is at k / rate, counting those that are known to be lost. Conversion to RGB is left
to the caller, because most frames of a video are not due. What is damaged is left out and told in
`Video.damaged`. Nothing is written, and no clock is read.
"""

from __future__ import annotations

import os
import re
import stat
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite
from pathlib import Path
from typing import TypeAlias

import numpy as np
from av.video.frame import VideoFrame

from topreward_ros.core.errors import UserError
from topreward_ros.core.frames import NS_PER_S
from topreward_ros.core.printable import printable
from topreward_ros.offline import bag_layout
from topreward_ros.offline.encoded_image import (
    ENDS,
    EncodedImageError,
    is_dark,
    is_deep_grey,
    looks_whole,
    rgb8_of,
    samples_of,
)
from topreward_ros.offline.image_names import SeveralStreamsError, in_order
from topreward_ros.offline.video_track import Complaint, Track, TrackError

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
#: Suffixes by which a folder of videos is told from an empty one; any video file can be read by its own name.
VIDEO_SUFFIXES = (".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".ts", ".webm", ".wmv")
_GIVE_A_RATE = "give one above 0 (--rate of topreward score, parameter rate of video_player)"
_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)  # https, s3, rtsp, file (RFC 3986, 3.1)
_FASTEST = 300.0  # [Hz] that a film may claim without a word
_LONGEST_REASON = 200  # characters


class VideoError(UserError):
    """A video cannot be read."""


class FrameError(VideoError):
    """This frame cannot be decoded; others may."""


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a video says about itself."""

    rate: float  #: frames per second [Hz], > 0; the given rate when there is one
    frame_count: int  #: as stated by the file: an estimate for some containers, 0 when unknown
    width: int  #: [px] of the first frame, as it is to be seen
    height: int  #: [px] of the first frame, as it is to be seen
    notes: tuple[str, ...] = ()  #: what the user should know about how it is read, a sentence each
    widths: tuple[int, ...] = ()  #: [px] of several cameras' pictures in a frame, as in `Frame`; empty: one


@dataclass(frozen=True, slots=True)
class Damage:
    """A part of a video that could not be read, or not be trusted."""

    time_s: float  #: of the frame before or of the damaged one, since the first frame
    until_s: float  #: of the last frame that may be wrong because its picture is built on a damaged one
    frames: int  #: how many were lost; 0: not known
    reason: str

    def __str__(self) -> str:
        frames = f"{self.frames} frame" + ("s " if self.frames > 1 else " ")
        what = (frames if self.frames else "") + self.reason
        doubtful = f"; pictures may be wrong until {self.until_s:.2f} s" if self.until_s > self.time_s else ""
        return f"at {self.time_s:.2f} s: {what}{doubtful}"


#: Stamps [ns] of frames, and what reads them; see `Video.__iter__`.
Frames: TypeAlias = Generator[tuple[int, Callable[[], np.ndarray]], None, None]


class Video(ABC):
    """An opened video. Iterate it as often as you like; every time it starts at the first frame."""

    info: VideoInfo
    damaged: list[Damage]  #: what the newest iteration has met so far

    @abstractmethod
    def __iter__(self) -> Frames:
        """Yield ``(stamp_ns, read)`` per frame, stamps strictly increasing, from 0 unless the first is lost.

        ``read()`` decodes that frame to (H, W, 3) uint8 RGB; call it before the next step, or not at all.
        Raises `FrameError` for a frame that cannot be decoded: leave it out and go on. Whoever stops before
        the end closes the iterator (`contextlib.closing`): while the garbage collector does it, a Ctrl-C
        would be lost.
        """


def open_video(path: str | Path, rate: float = 0.0) -> Video:
    """Open a video file or a folder of images and check that a frame can be read.

    ``rate`` [Hz] replaces the file's own frame rate; 0 keeps it. A folder has none, so it needs one, and so
    does a raw stream that states none. Raises `VideoError`.
    """
    name = printable(os.fspath(path))
    if not (isfinite(rate) and rate >= 0):
        raise VideoError(f"rate {rate} of {name} is not a number of frames per second; {_GIVE_A_RATE}")
    if not name:
        raise VideoError("the path of the video is empty; name a video file or a folder of images")
    place = Path(os.path.expanduser(path))
    try:
        mode = os.stat(place).st_mode
        if stat.S_ISDIR(mode):
            return _Folder(place, name, rate)
        for is_of_kind, kind in _KINDS:
            if is_of_kind(mode):
                raise VideoError(f"{name} is {kind} and not a file; save the video to a file first")
        return _File(place, name, rate)
    except (OSError, ValueError) as error:
        if _ADDRESS.match(name):
            raise VideoError(
                f"{name} is an address, and no address is read: save the video to a file first"
            ) from None
        if not isinstance(error, FileNotFoundError):
            reason = printable(getattr(error, "strerror", None) or str(error))
            raise VideoError(
                f"{name} cannot be opened: {reason}; check the path and its permissions"
            ) from None
        raise VideoError(
            f"no video at {name}; check the path (relative ones start at {printable(os.getcwd())})"
        ) from None


def _evenly(k: int, rate: float) -> int:
    """Stamp of frame k [ns]."""
    return round(k * 1e9 / rate)


class _File(Video):
    def __init__(self, path: Path, name: str, rate: float) -> None:
        self._path = path
        self._name = name
        self._given_rate = rate
        self._complaints: list[Complaint] | None = None  # read once, they do not change
        self.damaged = []
        track = self._open()
        try:
            own_rate = track.rate
            if not rate and not (isfinite(own_rate) and own_rate > 0):
                raise VideoError(f"{name} states no frame rate; {_GIVE_A_RATE}")
            notes = [f"{name} {note}" for note in track.notes]
            if not rate and own_rate > _FASTEST:
                notes.append(
                    f"{name} has {own_rate:.6g} frames per second by its own times, which no camera of a "
                    f"robot has: if they are wrong, {_GIVE_A_RATE}"
                )
            self.info = VideoInfo(rate or own_rate, track.frame_count, 0, 0, tuple(notes))
        finally:
            track.close()
        height, width = self._first().shape[:2]
        self.info = replace(self.info, width=width, height=height)

    def _first(self) -> np.ndarray:
        """The first frame that can be read."""
        reason = "is the file complete?"
        with closing(iter(self)) as frames:
            for _, read in frames:
                try:
                    return read()
                except FrameError as error:
                    reason = str(error)
        raise VideoError(f"{self._name} holds no frame that can be read; {reason}")

    def _open(self) -> Track:
        try:
            return Track(self._path)
        except TrackError as error:
            raise VideoError(f"{self._name} {error}") from error

    def __iter__(self) -> Frames:
        track = self._open()
        stamps = _Stamps(self.info.rate, use_file=not self._given_rate and track.has_times)
        log = _DamageLog()
        self.damaged = log.entries
        count = 0

        def report(reason: str, frames: int, since_s: float | None) -> None:
            time = max(0, stamps.last) if since_s is None else stamps.of(since_s, count, track.recording)
            log.add(time / NS_PER_S, reason, frames, lasting=True, since_s=since())
            if since_s is None:
                stamps.lose(frames)

        def since() -> float | None:
            """Time of the first frame that came before a wrong one, and may be built on it."""
            at_s = track.doubtful_s
            return None if at_s is None else stamps.of(at_s, count, track.recording) / NS_PER_S

        try:
            for time_s, frame in track.frames(report):
                time_s = stamps.next(time_s, track.recording, track.begin_s) / NS_PER_S
                log.pass_frame(time_s, frame.key_frame)
                if track.is_damaged(frame):
                    log.add(time_s, "damaged", 1, lasting=True, since_s=since())
                yield stamps.last, partial(self._read, track, frame, count, time_s, log)
                count += 1
            if self._complaints is None:
                self._complaints = track.complaints()
            for complaint in [*track.lost, *self._complaints]:
                time_s = stamps.of(complaint.at_s, complaint.packets, complaint.recording) / NS_PER_S
                log.add(time_s, complaint.reason, 0)
            log.entries.sort(key=lambda place: place.time_s)
        finally:
            track.close()

    def _read(self, track: Track, frame: VideoFrame, k: int, time_s: float, log: _DamageLog) -> np.ndarray:
        if track.is_damaged(frame):
            raise FrameError(f"frame {k} of {self._name} is damaged; repair the file")
        try:
            return track.rgb(frame)
        except TrackError as error:
            log.add(time_s, str(error), 1)
            raise FrameError(f"frame {k} of {self._name} {error}") from None


class _DamageLog:
    """Gathers what one reading of a video meets; what follows at once with the same reason is one entry."""

    def __init__(self) -> None:
        self.entries: list[Damage] = []
        self._before_s = 0.0  # times of the newest frame and of the one before it
        self._newest_s = 0.0
        self._keys: list[tuple[float, float]] = []  # times of key frames and of the frames before them
        self._lasting: list[int] = []  # places of entries on whose frames the newest picture may be built

    def add(
        self,
        time_s: float,
        reason: str,
        frames: int,
        lasting: bool = False,
        since_s: float | None = None,
    ) -> None:
        """Note that ``frames`` were lost at ``time_s`` [s], which may lie before frames that were passed.

        ``lasting``: frames behind may be built on them, up to the next key frame; ``since_s`` [s]: and some
        before.
        """
        reason = printable(reason, _LONGEST_REASON)
        key = bisect_right(self._keys, time_s, key=lambda it: it[0])
        is_past = key < len(self._keys)
        until_s = max(time_s, self._keys[key][1] if is_past else self._newest_s)
        time_s = time_s if since_s is None else min(time_s, since_s)
        for k in sorted({*self._lasting, len(self.entries) - 1}, reverse=True):
            entry = self.entries[k] if k >= 0 and not is_past else None
            if entry is not None and entry.reason == reason and entry.until_s >= self._before_s:
                self.entries[k] = replace(
                    entry, time_s=min(entry.time_s, time_s), until_s=until_s, frames=entry.frames + frames
                )
                break
        else:
            k = len(self.entries)
            self.entries.append(Damage(time_s, until_s, frames, reason))
        if lasting and not is_past and k not in self._lasting:
            self._lasting.append(k)

    def pass_frame(self, time_s: float, is_key: bool) -> None:
        """A frame was read, which is built on no other if it ``is_key``."""
        self._before_s, self._newest_s = self._newest_s, time_s
        if is_key:
            self._keys.append((time_s, self._before_s))
            self._lasting = []
        for k in self._lasting:
            self.entries[k] = replace(self.entries[k], until_s=time_s)


class _Stamps:
    """Stamps of a file's frames: its own presentation times where they increase."""

    def __init__(self, rate: float, use_file: bool) -> None:
        self._rate = rate
        self._use_file = use_file
        self._count = 0
        self._first_s: dict[int, float] = {}  # when the file presents the stamp 0, by recordings
        self.last = -1  #: stamp of the newest frame [ns]; -1 before the first

    def next(self, presented_s: float | None, recording: int = 0, begin_s: float | None = None) -> int:
        """Stamp [ns] of the next frame, which the file presents at ``presented_s`` [s] if it says so.

        A ``recording`` goes on after the one before; ``begin_s`` [s]: when its first frame is presented,
        which may be lost.
        """
        k, self._count = self._count, self._count + 1
        if not self._use_file:
            self.last = _evenly(k, self._rate)
            return self.last
        after = self.last + _evenly(1, self._rate) if self.last >= 0 else 0
        if recording not in self._first_s and begin_s is not None:
            self._first_s[recording] = begin_s - after / NS_PER_S
        first_s = self._first_s.get(recording)
        stamp = after if presented_s is None or first_s is None else round((presented_s - first_s) * 1e9)
        self.last = stamp if stamp > self.last else after
        return self.last

    def lose(self, frames: int) -> None:
        """So many are missing before the next frame, as far as is known."""
        self._count += frames

    def of(self, presented_s: float | None, k: int, recording: int) -> int:
        """About the stamp [ns] of what comes after ``k`` frames, the newest at ``presented_s`` [s]."""
        first_s = self._first_s.get(recording)
        if not self._use_file or presented_s is None or first_s is None:
            return min(_evenly(max(0, k - 1), self._rate), max(0, self.last))
        return min(max(0, round((presented_s - first_s) * 1e9)), max(0, self.last))


class _Folder(Video):
    def __init__(self, path: Path, name: str, rate: float) -> None:
        self._name = name
        self.damaged = []
        self._newest_read: Path | None = None
        # what begins with a dot is hidden: macOS keeps notes on IMG.jpg in ._IMG.jpg
        files = [file for file in path.iterdir() if not file.name.startswith(".") and _is_or_was_file(file)]
        images = [file.name for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
        if not images:
            raise VideoError(f"{name} holds no images; {_instead(path, files)}")
        if not rate:
            raise VideoError(f"the folder of images {name} has no frame rate of its own; {_GIVE_A_RATE}")
        try:
            ordered, notes = in_order(images)
        except SeveralStreamsError as error:
            raise VideoError(f"{name} {printable(str(error))}") from error
        self._files = [path / image for image in ordered]
        notes = [f"images in {name}: {printable(note)}" for note in notes]
        self.info = VideoInfo(rate, len(ordered), 0, 0)
        first = self._first()
        self._is_deep_grey = is_deep_grey(first)  #: all images are to be so, or none
        if self._is_deep_grey:
            notes.append(self._note_on_deep_grey())
        height, width = first.shape[:2]
        self.info = replace(self.info, width=width, height=height, notes=tuple(notes))

    def _first(self) -> np.ndarray:
        """The samples of the first image that can be read."""
        problem: FrameError | None = None
        for file in self._files:
            try:
                return self._samples(file)
            except FrameError as error:
                problem = problem or error
        raise VideoError(f"{self._name} holds no image that can be read; the first is {problem}")

    def __iter__(self) -> Frames:
        log = _DamageLog()
        self.damaged = log.entries
        for k, file in enumerate(self._files):
            stamp_ns = _evenly(k, self.info.rate)
            log.pass_frame(stamp_ns / NS_PER_S, is_key=True)
            self._newest_read = None
            read = partial(self._read, file, stamp_ns / NS_PER_S, log)
            yield stamp_ns, read
            # decoding what nobody needs would take most of the time
            if self._newest_read != file and not _looks_whole(file):
                with suppress(FrameError):
                    read()

    def _read(self, file: Path, time_s: float, log: _DamageLog) -> np.ndarray:
        self._newest_read = file
        try:
            return self._decode(file)
        except FrameError as error:
            log.add(time_s, str(error), 1)
            raise

    def _decode(self, file: Path) -> np.ndarray:
        samples = self._samples(file)
        if is_deep_grey(samples) != self._is_deep_grey:
            kinds = ("grey of 16 bits", "not grey of 16 bits")
            what, others = kinds if is_deep_grey(samples) else reversed(kinds)
            raise FrameError(
                f"{printable(str(file))} is {what}, the first image is {others}; take depth images out"
            )
        return rgb8_of(samples)

    def _note_on_deep_grey(self) -> str:
        """What to know of images that are grey of 16 bits. Raises `VideoError` where they look like depth."""
        for file in (self._files[0], self._files[len(self._files) // 2], self._files[-1]):
            with suppress(FrameError):  # is told when it is read
                samples = self._samples(file)
                if is_deep_grey(samples) and not is_dark(samples):
                    return (
                        f"images in {self._name} are grey of 16 bits and read as brightness from 0 to 65535; "
                        "if they are depth, name the folder of the colour images"
                    )
        raise VideoError(
            f"{self._name} holds grey images of 16 bits in whose values the upper half hardly occurs, as in "
            "depth images: name the folder of the colour images, or scale brightness to 65535 or to 8 bits"
        )

    @staticmethod
    def _samples(file: Path) -> np.ndarray:
        try:
            return samples_of(file.read_bytes(), printable(str(file)))
        except EncodedImageError as error:
            raise FrameError(f"{error}; repair or remove it") from error
        except OSError as error:
            raise FrameError(f"{printable(str(file))} cannot be read: {error.strerror}") from error


def _is_or_was_file(path: Path) -> bool:
    """A link that leads nowhere stands for a file: git-annex leaves one where the content is elsewhere."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def _looks_whole(file: Path) -> bool:
    try:
        with file.open("rb", buffering=0) as image:
            head = image.read(ENDS)
            image.seek(max(0, image.seek(0, os.SEEK_END) - ENDS))
            return looks_whole(head, image.read(ENDS))
    except OSError:
        return False


def _instead(path: Path, files: Sequence[Path]) -> str:
    """What to do with a folder that holds no images: it may hold videos, or folders of images."""
    if any(file.name == bag_layout.METADATA or file.suffix in bag_layout.SUFFIXES.values() for file in files):
        return "it is a bag: `topreward annotate` scores those"
    videos = sorted(file.name for file in files if file.suffix.lower() in VIDEO_SUFFIXES)
    if videos:
        count = "a video" if len(videos) == 1 else f"{len(videos)} videos"
        return f"it holds {count}: name the files, for example {printable(os.path.join(path, videos[0]))}"
    folders = sorted(
        folder.name
        for folder in path.iterdir()
        if folder.is_dir() and any(file.suffix.lower() in IMAGE_SUFFIXES for file in folder.iterdir())
    )
    if folders:
        return f"its folder {printable(folders[0])} does: name that"
    return f"expected files ending in {', '.join(IMAGE_SUFFIXES)}"
