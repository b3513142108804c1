"""The frames of an episode as a student is trained on them: few a second, small, packed in memory.

A film of a minute is some 240 pictures of 15 kB each, as JPEG of high quality: what is drawn of it is
blurred, tinted and compressed again, see `looks`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import simplejpeg

from topreward_ros.core.errors import UserError
from topreward_ros.core.frames import NS_PER_S, FrameSchedule
from topreward_ros.offline.labelled_episodes import LabelledEpisode
from topreward_ros.offline.video import FrameError
from topreward_ros.scoring.frame_size import frame_size
from topreward_ros.scoring.patches import resize

RATE = 4.0  #: [Hz] at which films are read: twice that of the monitor
MOST_FRAMES = 480  #: of a film, that are kept: of a longer one every second, and so on
FEWEST_FRAMES = 5  #: of a film
UNIT = 32  # [px] of which sides of frames are multiples
_ROOM = 1.15  # pictures are kept by so much larger than the model sees them: they are zoomed in training
_QUALITY = 95


class FilmError(UserError):
    """An episode cannot be learnt from."""


class Packed:
    """Pictures as JPEG, see `stories.Frames`."""

    def __init__(self, pictures: Sequence[bytes]) -> None:
        self._pictures = pictures

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, places: np.ndarray) -> np.ndarray:
        read = {
            int(place): simplejpeg.decode_jpeg(self._pictures[place], colorspace="RGB")
            for place in np.unique(places)
        }
        return np.stack([read[int(place)] for place in places])


@dataclass(frozen=True)
class Film:
    """N frames of an episode."""

    episode: LabelledEpisode
    frames: Packed
    times_s: np.ndarray  #: (N,) since the first frame [s], increasing
    size: tuple[int, int]  #: [px] height and width at which the model sees a frame

    @property
    def rate(self) -> float:
        """How many frames a second there are, mostly [Hz]."""
        return float(1 / np.median(np.diff(self.times_s)))


def read_film(episode: LabelledEpisode, frame_pixels: int) -> Film:
    """Read an episode for a model that sees ``frame_pixels`` of a frame. Raises `FilmError`, `VideoError`."""
    schedule, keep = FrameSchedule(RATE), 1
    pictures: list[bytes] = []
    times: list[float] = []
    due, size = 0, (0, 0)
    with closing(iter(episode.open())) as frames:
        for stamp_ns, read in frames:
            if not schedule.observe(stamp_ns):
                continue
            try:
                picture = read()
            except FrameError:
                continue
            schedule.take()
            due += 1
            if (due - 1) % keep:
                continue
            if not pictures:
                height, width = picture.shape[:2]
                size = frame_size(height, width, UNIT, frame_pixels)
            pictures.append(_packed(picture, size))
            times.append(stamp_ns / NS_PER_S)
            if len(pictures) == MOST_FRAMES:
                pictures, times, keep = pictures[::2], times[::2], 2 * keep
    if len(pictures) < FEWEST_FRAMES:
        raise FilmError(
            f"{episode.name} has {len(pictures)} frame{'s' * (len(pictures) != 1)} at {RATE:g} Hz, and a "
            f"film to learn from needs at least {FEWEST_FRAMES}: record it longer, or leave it out"
        )
    return Film(episode, Packed(pictures), np.array(times) - times[0], size)


def _packed(picture: np.ndarray, size: tuple[int, int]) -> bytes:
    kept = round(size[0] * _ROOM), round(size[1] * _ROOM)
    small = resize(picture, kept).permute(1, 2, 0).contiguous().numpy()
    made: bytes = simplejpeg.encode_jpeg(small, _QUALITY, "RGB", "444")
    return made


def read_films(
    episodes: Sequence[LabelledEpisode], frame_pixels: int, on_film: Callable[[], None]
) -> tuple[list[Film], list[str]]:
    """The films that can be read, and why others cannot. ``on_film`` is called after each."""
    films, problems = [], []
    for episode in episodes:
        try:
            films.append(read_film(episode, frame_pixels))
        except UserError as error:
            text = str(error)
            problems.append(text if episode.name in text else f"{episode.name}: {text}")
        on_film()
    return films, problems
