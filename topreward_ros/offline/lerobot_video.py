"""The frames of one episode of a LeRobot dataset, as a video of its own.

In format v3.0 an mp4 holds many episodes; one begins at a time that meta/ states, and its rows say when each
frame was taken. As in LeRobot, the picture of a row is the frame of the video that is nearest in time, and
timestamps are float32. The video is sought to the key frame before the episode, so that the time to read an
episode does not grow with what lies before it. Datasets without videos have their pictures in the rows.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from av.video.frame import VideoFrame

from topreward_ros.core.errors import UserError
from topreward_ros.core.frames import NS_PER_S
from topreward_ros.core.printable import printable
from topreward_ros.offline.encoded_image import EncodedImageError, rgb8_of, samples_of
from topreward_ros.offline.lerobot import Dataset, DatasetEpisode
from topreward_ros.offline.parquet_files import read_table
from topreward_ros.offline.video import Damage, FrameError, Frames, Video, VideoError, VideoInfo
from topreward_ros.offline.video_track import Track, TrackError

#: Timestamps that are so near to frame / rate are meant as that: LeRobot's own tolerance [s].
_TOLERANCE_S = 1e-4
_BEFORE_S = 0.5  # so much earlier than an episode its video is sought to, for frames that are shown late


def open_episode(dataset: Dataset, number: int, camera: str) -> Video:
    """The episode ``number`` as ``camera`` saw it; its frame k is row k. Raises `VideoError`."""
    episode = dataset.episodes[number]
    name = f"{dataset.name}, episode {number}"
    kind = _RowPictures if episode.videos[camera].is_column else _PartOfVideo
    video = kind(dataset, episode, camera, name)
    with closing(video.readable()) as pictures:
        first = next(pictures, None)
    if first is None:
        raise VideoError(
            f"{name} has no frame that can be read from {printable(episode.videos[camera].file)}"
        )
    height, width = first.shape[:2]
    video.info = VideoInfo(dataset.rate, episode.length, width, height)
    return video


def stamps_of(times_s: np.ndarray, rate: float) -> list[int]:
    """Stamps [ns] of rows at ``times_s`` [s], from 0, increasing.

    Where all are those of an even ``rate`` [Hz] to LeRobot's tolerance, these are taken: float32 cannot hold
    most of them.

    >>> stamps_of(np.float32([0.0, 0.1, 0.2]), 10.0), stamps_of(np.array([1.0, 1.25]), 10.0)
    ([0, 100000000, 200000000], [0, 250000000])
    """
    times = np.asarray(times_s, np.float64)
    times = times - times[0]
    even = np.arange(len(times)) / rate
    if np.abs(times - even).max() < _TOLERANCE_S:
        times = even
    return [round(float(time) * NS_PER_S) for time in times]


#: What reads the picture of a row, for one row after the other.
_Pictures = Generator[Callable[[], np.ndarray], None, None]


class _Episode(Video):
    """One episode; a subclass knows where the pictures are."""

    def __init__(self, dataset: Dataset, episode: DatasetEpisode, camera: str, name: str) -> None:
        self._dataset, self._episode, self._camera, self._name = dataset, episode, camera, name
        self._span = episode.videos[camera]
        self._path = dataset.root / self._span.file
        self._stamps = stamps_of(episode.times_s, dataset.rate)
        self.damaged = []

    def __iter__(self) -> Frames:
        self.damaged = []
        try:
            with closing(self._pictures()) as pictures:
                for k, read in enumerate(pictures):
                    yield self._stamps[k], partial(self._read, k, read)
        except TrackError as error:
            raise VideoError(f"{self._name}: {printable(self._span.file)} {error}") from error
        except OSError as error:
            why = error.strerror or error
            raise VideoError(f"{self._name}: {printable(self._span.file)} cannot be read: {why}") from error

    def readable(self) -> Generator[np.ndarray, None, None]:
        """The pictures that can be read."""
        with closing(iter(self)) as frames:
            for _, read in frames:
                try:
                    picture = read()
                except FrameError:
                    continue
                yield picture

    @abstractmethod
    def _pictures(self) -> _Pictures:
        """What reads the picture of each row, in order, by raising `TrackError` or `EncodedImageError` where
        it cannot. Raises `TrackError` and `OSError`."""

    def _read(self, k: int, read: Callable[[], np.ndarray]) -> np.ndarray:
        try:
            return read()
        except (TrackError, EncodedImageError) as error:
            time_s = self._stamps[k] / NS_PER_S
            reason = printable(str(error), 200)
            last = self.damaged[-1] if self.damaged else None
            if last is not None and last.reason == reason:  # a run of them is one place
                self.damaged[-1] = Damage(last.time_s, last.until_s, last.frames + 1, reason)
            else:
                self.damaged.append(Damage(time_s, time_s, 1, reason))
            raise FrameError(f"frame {k} of {self._name} {reason}") from None


class _PartOfVideo(_Episode):
    def _pictures(self) -> _Pictures:
        wanted = (self._span.from_s + self._episode.times_s).tolist()
        track, frames = self._opened(wanted[0])
        try:
            period_s = max(1 / self._dataset.rate, 1 / track.rate if track.rate > 0 else 0.0)
            before: tuple[float, VideoFrame] | None = None
            here = next(frames, None)
            for time_s in wanted:
                while here is not None and here[0] < time_s:
                    before, here = here, next(frames, None)
                near = [frame for frame in (before, here) if frame is not None]
                best = min(near, key=lambda frame: abs(frame[0] - time_s), default=None)
                if best is None or abs(best[0] - time_s) > 0.5 * period_s + _TOLERANCE_S:
                    yield partial(_missing, self._span.file)
                else:
                    yield partial(_rgb, track, best[1])
        finally:
            track.close()

    def _opened(self, start_s: float) -> tuple[Track, Iterator[tuple[float, VideoFrame]]]:
        """The video's track, and its frames from one at or before ``start_s`` [s] on, with their times."""
        track = Track(self._path)
        try:
            if start_s > _BEFORE_S and track.start_near(start_s - _BEFORE_S):
                frames = self._timed(track)
                first = next(frames, None)
                if first is not None and first[0] <= start_s + _TOLERANCE_S:
                    return track, chain([first], frames)
                track.close()  # sought too far: from the beginning, then
                track = Track(self._path)
            return track, self._timed(track)
        except BaseException:
            track.close()
            raise

    def _timed(self, track: Track) -> Iterator[tuple[float, VideoFrame]]:
        """Frames with their times [s]; those without one follow their predecessor at the dataset's rate."""
        time_s = -1 / self._dataset.rate

        def report(reason: str, frames: int, since_s: float | None) -> None:
            at_s = max(0.0, (time_s if since_s is None else since_s) - self._span.from_s)
            self.damaged.append(Damage(at_s, at_s, frames, printable(reason, 200)))

        for shown_s, frame in track.frames(report):
            time_s = time_s + 1 / self._dataset.rate if shown_s is None else shown_s
            yield time_s, frame


def _rgb(track: Track, frame: VideoFrame) -> np.ndarray:
    if track.is_damaged(frame):
        raise TrackError("is damaged; repair the file")
    return track.rgb(frame)


def _missing(file: str) -> np.ndarray:
    raise TrackError(f"is not in {file}, which has no frame within half a period of its time")


class _RowPictures(_Episode):
    def _pictures(self) -> _Pictures:
        try:
            column = read_table(self._path, (self._camera,))[self._camera]
        except UserError as error:
            raise TrackError(f"has no pictures: {error}") from error
        first = self._episode.first_row
        for row in range(first, first + self._episode.length):
            yield partial(_picture, column[row], self._dataset.root, f"row {row}")


def _picture(value: Any, root: Path, name: str) -> np.ndarray:
    """The picture of a row: ``bytes`` of a file, or the ``path`` of one within the dataset."""
    content = value.as_py()
    data, path = (content.get("bytes"), content.get("path")) if isinstance(content, dict) else (content, None)
    if data is None and isinstance(path, str) and ".." not in Path(path).parts:
        try:
            data = (root / path).read_bytes()
        except OSError as error:
            raise EncodedImageError(f"{name}: {printable(path)} cannot be read: {error.strerror}") from error
    if not isinstance(data, bytes):
        raise EncodedImageError(f"{name} holds no picture")
    return rgb8_of(samples_of(data, name))
