"""What a live monitor would have said of a bag: its messages through the same `TaskMonitor`, score by score.

Every image, instruction and silence reaches the state machine as nodes/session.py passes it on; the clock is
that of the recorder. Offline every due frame is scored, before the next message is looked at; where a live
monitor keeps up, the curves are equal. Where a bag tells when its episodes began and ended
(recorded_episodes.py), these alone are watched, each from its first frame on. Two things differ on purpose. A
camera whose images change in size is an error, where live the episode would break off: a bag can be mended.
And an episode that runs at the end of the bag is ended, as it is when a monitor is stopped. What becomes of
the outputs is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from topreward_ros.core.calibration.task import NO_CALIBRATIONS, Calibrations
from topreward_ros.core.episode import TaskMonitor
from topreward_ros.core.events import EventType
from topreward_ros.core.frames import NS_PER_S, Frame
from topreward_ros.core.instruction import InstructionError, clean_task
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.core.outputs import Event, Output
from topreward_ros.core.printable import printable
from topreward_ros.core.progress import PrefixScore
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.core.shapes import size_text
from topreward_ros.core.waiting_image import Waiting, WaitingImage
from topreward_ros.offline import camera_images as images
from topreward_ros.offline.bags import BagError, Message, OpenBag, slashed
from topreward_ros.offline.camera_images import FrameAwaited, ImageError, ImageReader
from topreward_ros.offline.image_topics import (
    TYPE_NAMES,
    ImageTopic,
    first_published,
    is_drawn,
    places,
    unreadable,
)
from topreward_ros.offline.recorded_episodes import RecordedEpisode

STRING = "std_msgs/msg/String"
_LOOK_NS = NS_PER_S // 5  # how often a live monitor looks at the clock, for images that stopped
_MOST_LOOKS = 500  # so often in one silence, and as often again, further apart, in what is left of it
_ENDED = "the recorded episode ended"


@dataclass(frozen=True, slots=True)
class Sources:
    """Where in a bag the images and the instructions are."""

    cameras: tuple[ImageTopic, ...]  #: the primary one first
    layout: str  #: primary or tile
    instruction: str  #: topic; empty: the task is given
    notes: tuple[str, ...] = ()  #: for a human: what was chosen


def find_sources(
    bag: OpenBag, parameters: Mapping[str, Any], namespace: str, task: str, *, chosen: bool
) -> Sources:
    """Find the topics that a monitor with ``parameters`` in ``namespace`` would read.

    Names are looked for in the namespace, then at the root. ``task``: where it is given, no topic is needed.
    ``chosen``: image_topics were given; else the only topic with images is taken. Raises `BagError`, which
    names what is there.
    """
    notes = []
    topics, layout = parameters["image_topics"], parameters["camera_layout"]
    used = topics if layout == "tile" else topics[:1]
    cameras = []
    for topic in used:
        place = _find(bag, topic, parameters["image_transport"], namespace)
        if place is None and not chosen and len(used) == 1 == len(readable := _readable(bag)):
            place = readable[0]
            notes.append(f"the images are taken from {printable(str(place))}, the only ones there")
        if place is None:
            raise _no_images(bag, topic)
        cameras.append(place)
    instruction = "" if task else _instruction_topic(bag, namespace)
    return Sources(tuple(cameras), layout, instruction, tuple(notes))


def in_namespace(name: str, namespace: str) -> str:
    """A relative name, fully qualified; an absolute one as it is.

    >>> in_namespace("task_event", "/arm"), in_namespace("/task_event", "/arm"), in_namespace("image", "")
    ('/arm/task_event', '/task_event', '/image')
    """
    return name if name.startswith("/") else f"{namespace}/{name}"


def _find(bag: OpenBag, topic: str, transport: str, namespace: str) -> ImageTopic | None:
    for place in (namespace, ""):

        def resolve(name: str, place: str = place) -> str:
            return in_namespace(name, place)

        candidates = places(topic, transport, resolve, resolve)
        if found := first_published(candidates, bag.types_on):
            return found
    return None


def _readable(bag: OpenBag) -> list[ImageTopic]:
    return [
        ImageTopic(slashed(topic.name), topic.type)
        for topic in bag.topics
        if topic.count
        and topic.type in TYPE_NAMES
        and not unreadable(topic.name, [topic.type])
        and not is_drawn(topic.name)
    ]


def _no_images(bag: OpenBag, topic: str) -> BagError:
    there = bag.topic(topic)
    if there is None:
        why = f"has no topic {printable(slashed(topic))}"
    elif there.type in TYPE_NAMES:
        why = f"holds no message on {printable(there.name)}"
    else:
        why = f"holds {printable(there.type)} on {printable(there.name)}, which is no image"
    cameras = bag.topics_text([place.name for place in _readable(bag)])
    return BagError(f"{bag.bag.shown} {why}: name the camera's topic by --image-topic; there are {cameras}")


def _instruction_topic(bag: OpenBag, namespace: str) -> str:
    for place in (namespace, ""):
        name = in_namespace("task_instruction", place)
        if STRING in bag.types_on(name):
            return name
    raise BagError(
        f"{bag.bag.shown} has no instruction on /task_instruction: say what the robot was to do by --task, "
        "or for several bags by --tasks FILE"
    )


@dataclass(slots=True)
class _Camera:
    place: ImageTopic
    newest: Message | None = None
    size: tuple[int, int] | None = None  # of the first image that was decoded

    def beside(self, now_ns: int) -> images.Beside:
        """Its newest image, to be tiled beside another one."""
        if self.newest is None:
            return images.Beside(self.place.name, b"", 0.0)
        return images.Beside(self.place.name, self.newest.data, (now_ns - self.newest.time_ns) / NS_PER_S)


class BagWatch:
    """A monitor that watches a bag."""

    def __init__(
        self,
        bag: OpenBag,
        sources: Sources,
        parameters: Mapping[str, Any],
        reader: ImageReader,
        text_of: Callable[[bytes], str],
        calibrations: Calibrations = NO_CALIBRATIONS,
    ) -> None:
        """``parameters``: the monitor's; ``text_of``: reads a serialised std_msgs/String; ``calibrations``:
        those that the parameters name."""
        self.outputs: list[tuple[int, Output]] = []  #: what was said, and when [ns] by the recorder's clock
        self.unstamped = False  #: whether the time of receipt stood in for missing stamps
        self.bad: dict[str, int] = {}  #: images that could not be used, by the reason
        self.tasks: list[str] = []  #: all that were watched for, in order, each with a line per stage
        self.scores = 0
        self.begun = 0  #: recorded episodes of which an image was found
        self._bag = bag
        self._sources = sources
        self._parameters = parameters
        self._reader = reader
        self._text_of = text_of
        self._cameras = [_Camera(place) for place in sources.cameras]
        self.settings = replace(MonitorSettings.from_parameters(parameters), calibrations=calibrations)
        name, numbers = printable(bag.bag.path.resolve().name, 100), count(1)
        self._monitor = TaskMonitor(self.settings, lambda: f"{name}-{next(numbers):03d}")
        self._instruction = ""
        self._waiting = Waiting()
        self._now_ns: int | None = None

    @property
    def monitor(self) -> TaskMonitor:
        """The state machine."""
        return self._monitor

    @property
    def elapsed_ns(self) -> int:
        """How far into the bag the watch is [ns]."""
        start_ns = next((ns for ns in self._bag.starts_ns if ns is not None), 0)
        return (self._now_ns or start_ns) - start_ns

    def run(
        self, task: str, episodes: Sequence[RecordedEpisode] = ()
    ) -> Generator[ScoreRequest, PrefixScore | None, None]:
        """Yield what is to be scored; each score is sent back. ``task``: empty, where a topic says it.

        ``episodes``: those that are watched, in order, each for its own task where ``task`` is empty; none:
        the whole bag is. Raises `BagError`; and what is thrown into it in the place of a score.
        """
        if episodes:
            yield from self._run_episodes(task, episodes)
            return
        names = [camera.place.name for camera in self._cameras]
        if self._sources.instruction:
            names.append(self._sources.instruction)
        for message in self._bag.messages(names):
            self._pass_time(message.time_ns)
            if task and not self._instruction:
                self._set_task(task, "activated")
            if slashed(message.topic) == self._sources.instruction and message.type == STRING:
                self._take_instruction(message)
            if (camera := self._camera_of(message)) is not None:
                yield from self._take_image(camera, message)
        self._end_with_the_bag()

    def _run_episodes(
        self, task: str, episodes: Sequence[RecordedEpisode]
    ) -> Generator[ScoreRequest, PrefixScore | None, None]:
        left = list(episodes)
        current: RecordedEpisode | None = None
        primary = self._cameras[0]
        for message in self._bag.messages([camera.place.name for camera in self._cameras]):
            if current and current.is_over(message.time_ns):
                self._end_with(current)
                current = None
            while left and left[0].is_over(message.time_ns):  # no image of it was recorded
                left.pop(0)
            self._pass_time(message.time_ns)
            if (camera := self._camera_of(message)) is None:
                continue
            if camera is primary and left and left[0].begins_with(self._stamp_of(message), message.time_ns):
                if current:
                    self._stop(_ENDED)
                current = left.pop(0)
                self.begun += 1
                wanted = task or current.task
                self.tasks += [wanted]
                stage = 0 if task else current.stage
                self._say(self._monitor.set_task(wanted, why="a recorded episode began", stage=stage))
            said = len(self.outputs)
            yield from self._take_image(camera, message)
            if current and not task and self._has_done(current, self.outputs[said:]):
                self._stop(_ENDED)
                current = None
        if current and current.end_ns is not None:
            self._end_with(current)
        elif current:
            self._end_with_the_bag()

    def _end_with(self, episode: RecordedEpisode) -> None:
        assert episode.end_ns is not None
        self._pass_time(episode.end_ns)
        self._stop(_ENDED)

    def _end_with_the_bag(self) -> None:
        """Stop when the bag ends, not with its last image: a silence at its end is one as well."""
        self._pass_time(self._bag.end_ns)
        self._stop("the bag ended")

    @staticmethod
    def _has_done(episode: RecordedEpisode, said: Sequence[tuple[int, Output]]) -> bool:
        """Whether the last stage that was recorded has succeeded: the next one is in another recording."""
        return any(
            isinstance(it, Event)
            and it.type is EventType.SUBTASK_SUCCESS
            and it.stage == episode.last_stage < episode.stages
            for _, it in said
        )

    def _stamp_of(self, message: Message) -> int:
        try:
            return images.stamp_ns_of(message.data)
        except ImageError:  # which is noted where the image is taken
            return 0

    def _stop(self, why: str) -> None:
        *outputs, _ = self._monitor.set_task("", why=why)
        self._say(outputs)  # without the report that it idles now, which says nothing of the bag

    def _take_instruction(self, message: Message) -> None:
        try:
            text = clean_task(self._text_of(message.data), "the text on task_instruction")
        except InstructionError as error:
            self._note_bad(f"an instruction that cannot be taken: {error}")
            return
        if text != self._instruction:  # who publishes repeats himself
            self._set_task(text, "another task came on task_instruction")

    def _set_task(self, text: str, why: str) -> None:
        self._instruction = text
        self.tasks += [text] if text else []
        self._say(self._monitor.set_task(text, why=why))

    def _camera_of(self, message: Message) -> _Camera | None:
        for camera in self._cameras:
            if slashed(message.topic) == camera.place.name and message.type == camera.place.type_name:
                return camera
        return None

    def _take_image(
        self, camera: _Camera, message: Message
    ) -> Generator[ScoreRequest, PrefixScore | None, None]:
        assert self._now_ns is not None
        camera.newest = message
        if camera is not self._cameras[0]:
            image = self._waiting.resume(self._now_ns, *self._waits_for())
            if image is None:
                self._give_up_waiting()
            else:
                yield from self._take_frame(image)
            return
        try:
            stamp_ns = images.stamp_ns_of(message.data)
        except ImageError as error:
            self._note_bad(str(error))
            return
        self._give_up_waiting()
        filled_ns = self._monitor.filled_stamp(stamp_ns, message.time_ns)
        self.unstamped |= filled_ns != stamp_ns
        due, outputs = self._monitor.observe(filled_ns, self._now_ns)
        self._say(outputs)
        if due:
            yield from self._take_frame(
                WaitingImage(filled_ns, self._monitor.report.episode_id, self._now_ns)
            )

    def _waits_for(self) -> tuple[str, float]:
        """The episode whose images may wait, and how long [s]."""
        return self._monitor.report.episode_id, self._parameters["camera_max_skew"]

    def _give_up_waiting(self) -> None:
        """Note what has not come beside the image that waits, if there is one."""
        if problem := self._waiting.give_up(self._monitor.report.episode_id):
            self._note_bad(problem)
            self._monitor.frame_failed(problem)

    def _take_frame(self, image: WaitingImage) -> Generator[ScoreRequest, PrefixScore | None, None]:
        """Decode the image that was observed last, and ask for its score."""
        try:
            frame = self._frame(image.stamp_ns)
        except FrameAwaited as awaited:
            self._waiting.begin(replace(image, problem=str(awaited)))
            return
        except ImageError as error:
            self._note_bad(str(error))
            self._monitor.frame_failed(str(error))
            return
        request, outputs = self._monitor.add_frame(frame)
        self._say(outputs)
        if request is not None:
            score = yield request
            assert score is not None
            self.scores += not request.extra
            self._say(self._monitor.add_score(request, score))

    def _frame(self, stamp_ns: int) -> Frame:
        """The newest image of every camera in one frame. Raises `ImageError`, `BagError`."""
        assert self._now_ns is not None
        primary, *others = self._cameras
        images.check_beside(
            [camera.beside(self._now_ns) for camera in others],
            primary.place.name,
            stamp_ns,
            self._parameters["camera_max_skew"],
        )
        decoded = [self._decoded(camera) for camera in self._cameras]
        parts = [image.rgb for image in decoded]
        return Frame(stamp_ns, images.tile(parts), decoded[0].frame_id, images.tiled_widths(parts))

    def _decoded(self, camera: _Camera) -> images.DecodedImage:
        assert camera.newest is not None
        image = self._reader.decode(camera.newest.data, camera.place.type_name)
        size = image.rgb.shape[0], image.rgb.shape[1]
        camera.size = camera.size or size
        if size != camera.size:
            first, since_s = size_text(camera.size), self.elapsed_ns / NS_PER_S
            raise BagError(
                f"{self._bag.bag.shown} holds images of two sizes on {printable(camera.place.name)}, "
                f"{first} and from {since_s:.1f} s on {size_text(size)}: split the bag there, or name "
                "another topic by --image-topic"
            )
        return image

    def _pass_time(self, time_ns: int) -> None:
        """Look at the clock as often as a live monitor does until ``time_ns``."""
        if self._now_ns is None:
            self._now_ns = time_ns
        # As often as live for as long as STALE_IMAGES may come; a silence of hours is not looked at so often.
        often_ns = max(_MOST_LOOKS * _LOOK_NS, round(2 * self.settings.stale_timeout * NS_PER_S))
        often_until_ns = self._now_ns + often_ns
        seldom_ns = max(_LOOK_NS, (time_ns - often_until_ns) // _MOST_LOOKS)
        while time_ns - self._now_ns > (step_ns := _LOOK_NS if self._now_ns < often_until_ns else seldom_ns):
            self._now_ns += step_ns
            self._look()
        self._now_ns = max(self._now_ns, time_ns)  # recorders may write a little out of order
        self._look()

    def _look(self) -> None:
        assert self._now_ns is not None
        if self._waiting.is_over(self._now_ns, *self._waits_for()):
            self._give_up_waiting()
        self._say(self._monitor.check_clock(self._now_ns))

    def _say(self, outputs: list[Output]) -> None:
        assert self._now_ns is not None or not outputs
        self.outputs += [(self._now_ns or 0, output) for output in outputs]

    def _note_bad(self, why: str) -> None:
        self.bad[why] = self.bad.get(why, 0) + 1
