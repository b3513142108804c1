"""The episodes that a live monitor watched while a bag was recorded, by the events in that bag.

A recorder begins a little before an episode and ends a little after it, so a bag holds images of the attempt
before and of the one behind; a reset leaves no other trace than the events. Read here is when each episode
began and ended, and what its task was. What is made of its images is not known here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from topreward_ros.core.events import EventType
from topreward_ros.core.frames import NS_PER_S
from topreward_ros.core.printable import printable
from topreward_ros.offline.bags import BagError, OpenBag, slashed

EVENT, PROGRESS = "topreward_ros/msg/TaskEvent", "topreward_ros/msg/TaskProgress"
_UNSTAMPED_EARLY_NS = NS_PER_S // 50  # an image without a stamp may reach a recorder before the monitor


@dataclass(frozen=True, slots=True)
class RecordedEpisode:
    """An episode of a live monitor; or several, where they are stages of one task, one behind the other."""

    episode_id: str  #: of the first one
    task: str  #: with all its stages, one a line
    stage: int  #: the first one, from 1
    last_stage: int
    stages: int  #: of the task
    start_stamp_ns: int = 0  #: of its first frame
    start_ns: int | None = None  #: when EPISODE_STARTED was received; None: it had begun before the bag
    end_ns: int | None = None  #: when EPISODE_ENDED was received; None: the bag ends earlier

    def begins_with(self, stamp_ns: int, time_ns: int) -> bool:
        """Whether the image with this stamp (0: it has none), received then, is its first, if none was yet.

        Where the recorder has lost the first one, the next one that came after the event stands in for it.
        """
        if self.start_ns is None:
            return True
        if not stamp_ns:
            return time_ns >= min(self.start_stamp_ns - _UNSTAMPED_EARLY_NS, self.start_ns)
        return stamp_ns == self.start_stamp_ns or (
            time_ns >= self.start_ns and stamp_ns > self.start_stamp_ns
        )

    def is_over(self, time_ns: int) -> bool:
        """Whether it ended before this time of receipt."""
        return self.end_ns is not None and time_ns >= self.end_ns


def recorded_episodes(
    bag: OpenBag, namespace: str, camera: str, read: Callable[[bytes, str], Any]
) -> tuple[str, list[RecordedEpisode]]:
    """The topic of the events and the episodes that they tell of, in order; both empty where there are none.

    ``namespace``: of the annotation; ``camera``: the topic of the images; ``read``: deserialises a message of
    a type. Raises `BagError` where there are several monitors, or an event that cannot be read.
    """
    topic = _event_topic(bag, namespace, camera)
    if not topic:
        return "", []
    progress = topic.removesuffix("task_event") + "task_progress"
    tasks: dict[str, str] = {}  # by episode
    found: list[RecordedEpisode] = []
    for message in bag.messages([topic, progress]):
        if message.type not in (EVENT, PROGRESS):
            continue
        try:
            said = read(message.data, message.type)
        except Exception as error:  # rosbags meets damaged bytes with errors of many kinds
            raise BagError(
                f"{bag.bag.shown} holds a message on {printable(message.topic)} that cannot be read "
                f"({printable(str(error), 200)}), so that it is not known when its episodes began: say "
                "--whole to have the whole bag scored"
            ) from error
        if message.type == PROGRESS:
            tasks.setdefault(said.episode_id, said.task)
        elif said.type == EventType.EPISODE_STARTED:
            stamp_ns = said.header.stamp.sec * NS_PER_S + said.header.stamp.nanosec
            _close(found, message.time_ns)
            found.append(replace(_episode(said), start_stamp_ns=stamp_ns, start_ns=message.time_ns))
        elif said.type == EventType.EPISODE_ENDED:
            if not found:
                found.append(_episode(said))
            _close(found, message.time_ns)
    return topic, _joined([_with_task(it, tasks.get(it.episode_id, "")) for it in found])


def of_namespace(bag: OpenBag, spaces: dict[str, str], namespace: str) -> dict[str, str]:
    """Those of the topics of monitors, by the namespace of each, that may be of the robot in ``namespace``.

    Where that robot is in the bag, what another robot's monitor said is not its own.
    """
    if not namespace or not any(slashed(it.name).startswith(f"{namespace}/") for it in bag.topics):
        return spaces
    return {space: name for space, name in spaces.items() if f"{namespace}/".startswith(f"{space}/")}


def of_camera(spaces: dict[str, str], camera: str) -> dict[str, str]:
    """Those in whose namespace the topic ``camera`` is."""
    return {space: name for space, name in spaces.items() if slashed(camera).startswith(f"{space}/")}


def _event_topic(bag: OpenBag, namespace: str, camera: str) -> str:
    topics = {slashed(it.name) for it in bag.topics if it.type == EVENT and it.count}
    spaces = {
        name.removesuffix("/task_event"): name for name in sorted(topics) if name.endswith("/task_event")
    }
    spaces = of_namespace(bag, spaces, namespace)
    if len(spaces) > 1:
        spaces = of_camera(spaces, camera)
        if not spaces:
            raise BagError(
                f"{bag.bag.shown} has events of several monitors, {printable(', '.join(sorted(topics)))}, "
                f"and none is in the namespace of {printable(camera)}: say --whole and --task"
            )
    return spaces[max(spaces, key=len)] if spaces else ""


def _episode(event: Any) -> RecordedEpisode:
    return RecordedEpisode(event.episode_id, event.instruction, event.stage, event.stage, event.stages)


def _close(found: list[RecordedEpisode], time_ns: int) -> None:
    if found and found[-1].end_ns is None:
        found[-1] = replace(found[-1], end_ns=time_ns)


def _with_task(episode: RecordedEpisode, task: str) -> RecordedEpisode:
    """``episode`` with its whole ``task``; where that is not known, its stage is a task of its own."""
    if len(task.split("\n")) == episode.stages > 1:
        return replace(episode, task=task)
    return replace(episode, stage=1, last_stage=1, stages=1)


def _joined(episodes: list[RecordedEpisode]) -> list[RecordedEpisode]:
    """``episodes``, those made one that are stages of a task and follow each other."""
    made: list[RecordedEpisode] = []
    for episode in episodes:
        before = made[-1] if made else None
        if before and before.task == episode.task and episode.stage == before.last_stage + 1:
            made[-1] = replace(before, last_stage=episode.stage, end_ns=episode.end_ns)
        else:
            made.append(episode)
    return made
