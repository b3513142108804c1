"""Which cameras of a bag are watched, and which stretches of it: by the settings, and by what it says itself.

A bag that was recorded beside a live monitor says which cameras that one had, and when its episodes began and
ended. What is made of the images is not known here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from topreward_ros.core.printable import printable
from topreward_ros.offline.annotation_report import AnnotationSettings
from topreward_ros.offline.bag_metadata import CUSTOM_DATA
from topreward_ros.offline.bag_watch import Sources, find_sources, in_namespace
from topreward_ros.offline.bags import OpenBag
from topreward_ros.offline.recorded_episodes import RecordedEpisode, recorded_episodes
from topreward_ros.offline.recorded_monitor import RecordedMonitor, recorded_monitor

Read = Callable[[bytes, str], Any]  #: deserialises a message of a type; raises exceptions of many kinds


def monitor_of(opened: OpenBag, settings: AnnotationSettings, read: Read) -> RecordedMonitor | None:
    """The monitor that was recorded beside the cameras that are asked for; None where none is known."""
    named = in_namespace(settings.parameters["image_topics"][0], settings.namespace)
    return recorded_monitor(opened, settings.namespace, named if settings.chosen else "", read)


def parameters_for(settings: AnnotationSettings, monitor: RecordedMonitor | None) -> dict[str, Any]:
    """The monitor's parameters, with cameras and layout of the recorded one where none are given."""
    parameters = dict(settings.parameters)
    if monitor and monitor.cameras and not settings.chosen:
        parameters["image_topics"] = list(monitor.cameras)
        if not settings.layout_chosen:
            parameters["camera_layout"] = monitor.layout
    return parameters


def what_to_watch(
    opened: OpenBag,
    settings: AnnotationSettings,
    monitor: RecordedMonitor | None,
    task: str,
    read: Read,
) -> tuple[Sources, list[RecordedEpisode], str]:
    """The topics; the recorded episodes, none where the whole bag is watched; and a note of the latter."""
    parameters = parameters_for(settings, monitor)

    def sources(task: str) -> Sources:
        return find_sources(opened, parameters, settings.namespace, task, chosen=settings.chosen)

    if settings.whole:
        return sources(task), [], ""
    camera = sources("-").cameras[0].name  # the events say the task, where no topic does
    topic, episodes = recorded_episodes(opened, settings.namespace, camera, read)
    if episodes:
        note = (
            f"scored is, by {printable(topic)} in the bag, from EPISODE_STARTED to EPISODE_ENDED "
            f"(episodes: {len(episodes)}), and no image around that; --whole scores the whole bag"
        )
        return sources("-"), episodes, note
    name = (opened.bag.metadata.get(CUSTOM_DATA) or {}).get("episode_id")
    note = (
        f"WARNING: the bag was recorded of the episode {printable(str(name), 100)}, and has no event that "
        "says when it began: images from before it are scored with it"
    )
    return sources(task), [], note if name else ""
