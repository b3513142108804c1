"""The images of one episode in a bag, as a video: what scores videos takes them as it takes those of a file.

A bag holds one episode, or several, told apart by the events of a live monitor or by the instructions that
were published (`parts_of`). Frames have the stamps that the camera gave them, counted from the first one, in
the order in which they were received; the monitor judges them as it does live. The images of several cameras
are tiled by the rule of bag_watch.py. What differs from there: nobody looks at the clock between two images,
so that no silence is noticed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np

from topreward_ros.core.frames import NS_PER_S
from topreward_ros.core.instruction import InstructionError, clean_task
from topreward_ros.core.output_files import temporary_folder
from topreward_ros.core.printable import printable
from topreward_ros.core.stamps import MissingStamps
from topreward_ros.core.waiting_image import Waiting, WaitingImage
from topreward_ros.offline import camera_images as images
from topreward_ros.offline.annotation_report import AnnotationSettings
from topreward_ros.offline.bag_choice import monitor_of, what_to_watch
from topreward_ros.offline.bag_watch import STRING, Sources, in_namespace
from topreward_ros.offline.bags import Bag, BagError, Message, OpenBag, slashed
from topreward_ros.offline.camera_images import FrameAwaited, ImageError, ImageReader
from topreward_ros.offline.message_types import MessageTypes
from topreward_ros.offline.raw_samples import Converter
from topreward_ros.offline.recorded_episodes import EVENT, PROGRESS, RecordedEpisode
from topreward_ros.offline.recorded_monitor import INFO
from topreward_ros.offline.video import Damage, FrameError, Frames, Video, VideoError, VideoInfo

FEWEST_IMAGES = 2  #: of an episode: with fewer there is nothing that could have changed


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a bag by times of receipt [ns], None for its ends; see `RecordedEpisode` for both methods."""

    start_ns: int | None = None
    end_ns: int | None = None

    def begins_with(self, stamp_ns: int, time_ns: int) -> bool:
        """Whether an image that was received then belongs to it."""
        return self.start_ns is None or time_ns >= self.start_ns

    def is_over(self, time_ns: int) -> bool:
        """Whether it ended before this time of receipt."""
        return self.end_ns is not None and time_ns >= self.end_ns


@dataclass(frozen=True, slots=True)
class BagPart:
    """One episode in a bag."""

    path: Path
    sources: Sources  #: its cameras
    max_skew: float  #: [s] between the images of two cameras in a frame, as `camera_max_skew`
    task: str  #: as the bag says it, a stage per line; empty: it does not say
    when: RecordedEpisode | Stretch


def parts_of(path: Path, settings: AnnotationSettings, task: str = "") -> list[BagPart]:
    """The episodes of a bag in order: those of a live monitor, else one per instruction, else the whole bag.

    ``task``: what the robot was to do, where the user says it; the bag may be without an instruction then,
    and is one episode if it has no events. Raises `BagError`; `OSError` where there is no room to decompress.
    """
    with _opened(path) as opened:
        monitor = monitor_of(opened, settings, _types().read)
        skew = settings.parameters["camera_max_skew"]
        sources, episodes, _ = what_to_watch(opened, settings, monitor, task or "-", _types().read)
        if episodes:
            return [BagPart(path, sources, skew, _task_of(it), it) for it in episodes]
        if task:
            return [BagPart(path, sources, skew, "", Stretch())]
        told = _instructions(opened, settings.namespace)
        ends = [*(time_ns for time_ns, _ in told[1:]), None]
        return [
            BagPart(path, sources, skew, text, Stretch(time_ns, end_ns))
            for (time_ns, text), end_ns in zip(told, ends, strict=False)
            if text
        ] or [BagPart(path, sources, skew, "", Stretch())]


def _task_of(episode: RecordedEpisode) -> str:
    """The stages of a task that the recorded episode has."""
    return "\n".join(episode.task.split("\n")[episode.stage - 1 : episode.last_stage])


def _instructions(opened: OpenBag, namespace: str) -> list[tuple[int, str]]:
    """When [ns] another task came on task_instruction, and which; an empty one ends the one before."""
    for place in (namespace, ""):
        name = in_namespace("task_instruction", place)
        if STRING not in opened.types_on(name):
            continue
        told: list[tuple[int, str]] = []
        for message in opened.messages([name]):
            try:
                text = clean_task(str(_types().read(message.data, STRING).data), "the text")
            except InstructionError:  # a live monitor would not have taken it, either
                continue
            except Exception as error:  # rosbags has many kinds
                raise BagError(
                    f"{opened.bag.shown} holds a message on {name} that cannot be read "
                    f"({printable(str(error), 200)}): say what the robot was to do"
                ) from error
            if text != (told[-1][1] if told else ""):
                told.append((message.time_ns, text))
        return told
    return []


def open_part(part: BagPart, converter: Callable[[], Converter]) -> Video:
    """Open an episode of a bag and check that a frame can be read. Its images are read once for that.

    ``converter``: what makes RGB of raw images. Raises `VideoError` where it has fewer than two images, or
    none that can be read.
    """
    return _BagVideo(part, converter)


@dataclass(slots=True)
class _Camera:
    """A camera and its newest image."""

    name: str
    type_name: str
    newest: Message | None = None

    def beside(self, now_ns: int) -> images.Beside:
        """Its newest image, to be tiled beside another one."""
        if self.newest is None:
            return images.Beside(self.name, b"", 0.0)
        return images.Beside(self.name, self.newest.data, (now_ns - self.newest.time_ns) / NS_PER_S)


@dataclass(slots=True)
class _Reading:
    """One pass through the images: the cameras, and the image of the primary one that waits for others."""

    cameras: list[_Camera]
    waiting: Waiting = field(default_factory=Waiting)
    missing: MissingStamps = field(default_factory=MissingStamps)
    now_ns: int = 0


class _BagVideo(Video):
    def __init__(self, part: BagPart, converter: Callable[[], Converter]) -> None:
        self._part = part
        self._reader = ImageReader(_types().read, converter)
        self._name = printable(str(part.path))
        self.damaged = []
        self._widths: tuple[int, ...] = ()
        self.info = VideoInfo(1.0, 0, 0, 0)
        stamps, first, problem = [], None, ""
        with closing(iter(self)) as frames:
            for stamp_ns, read in frames:
                stamps.append(stamp_ns)
                if first is None:
                    try:
                        first = read()
                    except FrameError as error:
                        problem = problem or str(error)
        topic = printable(part.sources.cameras[0].name)
        if len(stamps) < FEWEST_IMAGES:
            images_text = "one image" if stamps else "no images"
            raise VideoError(
                f"{self._name} has {images_text} on {topic} in the episode, which needs at least "
                f"{FEWEST_IMAGES}: name another topic, or leave it out"
            )
        if first is None:
            raise VideoError(f"{self._name} holds no image on {topic} that can be read; the first: {problem}")
        height, width = first.shape[:2]
        self.info = VideoInfo(_rate(stamps), len(stamps), width, height, part.sources.notes, self._widths)

    def __iter__(self) -> Frames:
        self.damaged = []
        try:
            first_ns: int | None = None
            with closing(self._received()) as received:
                for stamp_ns, read in received:
                    first_ns = stamp_ns if first_ns is None else first_ns
                    since_ns = stamp_ns - first_ns
                    yield since_ns, partial(self._read, read, since_ns)
        except BagError as error:
            raise VideoError(str(error)) from error
        except OSError as error:
            raise VideoError(f"{self._name} cannot be read: {error.strerror or error}") from error

    def _received(self) -> Generator[tuple[int, Callable[[], np.ndarray]], None, None]:
        """Stamps [ns] of the primary camera's images, and what makes a frame, by raising `ImageError` where
        that cannot be."""
        part = self._part
        reading = _Reading([_Camera(it.name, it.type_name) for it in part.sources.cameras])
        primary, begun = reading.cameras[0], False
        with _opened(part.path) as opened:
            for message in opened.messages([camera.name for camera in reading.cameras]):
                if part.when.is_over(message.time_ns):
                    break
                camera = _camera_of(message, reading.cameras)
                if camera is None:
                    continue
                reading.now_ns = max(reading.now_ns, message.time_ns)
                if reading.waiting.is_over(reading.now_ns, "", part.max_skew):
                    yield from _given_up(reading)
                camera.newest = message
                if camera is not primary:
                    if image := reading.waiting.resume(reading.now_ns, "", part.max_skew):
                        yield from self._tried(reading, image)
                    continue
                try:
                    stamp_ns = images.stamp_ns_of(message.data)
                except ImageError as error:
                    self._note(0, str(error))
                    continue
                begun = begun or part.when.begins_with(stamp_ns, message.time_ns)
                if begun:
                    yield from _given_up(reading)
                    filled_ns = reading.missing.filled(stamp_ns, message.time_ns)
                    yield from self._tried(reading, WaitingImage(filled_ns, "", reading.now_ns))
            yield from _given_up(reading)

    def _tried(
        self, reading: _Reading, image: WaitingImage
    ) -> Iterator[tuple[int, Callable[[], np.ndarray]]]:
        """The frame of an image, if what belongs beside it is there; else the image waits, or is bad."""
        primary, *others = reading.cameras
        try:
            images.check_beside(
                [camera.beside(reading.now_ns) for camera in others],
                primary.name,
                image.stamp_ns,
                self._part.max_skew,
            )
        except FrameAwaited as awaited:
            reading.waiting.begin(WaitingImage(image.stamp_ns, "", image.since_ns, str(awaited)))
        except ImageError as error:
            yield image.stamp_ns, partial(_fail, str(error))
        else:
            messages = [(camera.newest, camera.type_name) for camera in reading.cameras]
            yield image.stamp_ns, partial(self._tiled, messages)

    def _tiled(self, messages: Sequence[tuple[Message | None, str]]) -> np.ndarray:
        parts = [self._reader.decode(it.data, type_name).rgb for it, type_name in messages if it is not None]
        self._widths = images.tiled_widths(parts) if len(parts) > 1 else ()
        return images.tile(parts)

    def _read(self, read: Callable[[], np.ndarray], since_ns: int) -> np.ndarray:
        try:
            return read()
        except ImageError as error:
            self._note(since_ns, str(error))
            raise FrameError(f"an image of {self._name} {error}") from error

    def _note(self, since_ns: int, reason: str) -> None:
        time_s, reason = max(0, since_ns) / NS_PER_S, printable(reason, 200)
        last = self.damaged[-1] if self.damaged else None
        if last is not None and last.reason == reason:  # a run of them is one place
            self.damaged[-1] = Damage(last.time_s, last.until_s, last.frames + 1, reason)
        else:
            self.damaged.append(Damage(time_s, time_s, 1, reason))


def _given_up(reading: _Reading) -> Iterator[tuple[int, Callable[[], np.ndarray]]]:
    """The image that waits, if one does, without what belongs beside it."""
    image = reading.waiting.resume(0, "", 1.0)  # at whatever time: it has been decided
    if image is not None:
        yield image.stamp_ns, partial(_fail, image.problem)


def _fail(problem: str) -> np.ndarray:
    raise ImageError(problem)


def _camera_of(message: Message, cameras: Sequence[_Camera]) -> _Camera | None:
    for camera in cameras:
        if slashed(message.topic) == camera.name and message.type == camera.type_name:
            return camera
    return None


def _rate(stamps: Sequence[int]) -> float:
    """Frames per second [Hz] of most of the time.

    >>> _rate([0, 100_000_000, 200_000_000, 9_000_000_000])
    10.0
    """
    steps = [later - earlier for earlier, later in pairwise(stamps) if later > earlier]
    return NS_PER_S / median(steps) if steps else 1.0


@lru_cache(maxsize=1)
def _types() -> MessageTypes:
    return MessageTypes([EVENT, PROGRESS, INFO])


@contextmanager
def _opened(path: Path) -> Iterator[OpenBag]:
    bag = Bag(path)
    if bag.compression != "file":
        with bag.opened(path) as opened:
            yield opened
        return
    with temporary_folder("topreward_bag_") as folder, bag.opened(folder) as opened:
        yield opened
