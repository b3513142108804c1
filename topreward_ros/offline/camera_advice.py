"""What is said of a camera from which no image comes, and of a topic that is not what it should be.

It goes by what a camera knows of its own images, and by what the graph of ROS 2 tells of other nodes: it is
looked at anew for each text, since others come and go. No ROS 2 here; nodes/cameras.py has both.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Protocol

from topreward_ros.offline.image_topics import TYPE_NAMES, ImageTopic, is_drawn, unreadable

_DISCOVERY_S = 3.0  # so long it may take until others are known, on a busy machine
_LOST_SHARE_WORTH_A_WARNING = 0.1
_LARGE_BYTES = 100_000  # several of these fill the default shared-memory segment of Fast DDS


@dataclass(frozen=True, slots=True)
class Publisher:
    """Somebody who publishes a topic, by what the graph tells."""

    node: str  #: its full name; empty while that is not known
    type_name: str
    qos_problem: str = ""  #: why its QoS does not match that of our subscription

    def __str__(self) -> str:
        return self.node or "a node"


class Graph(Protocol):
    """What is known of other nodes."""

    def publishers(self, topic: str) -> Sequence[Publisher]:
        """Who publishes ``topic``, a full name."""

    def topics(self) -> Mapping[str, Collection[str]]:
        """The full name of every topic that somebody publishes or subscribes to, and its types."""


@dataclass(frozen=True, slots=True)
class Images:
    """What a camera knows of its images; times in seconds."""

    place: ImageTopic  #: where they are expected
    received: int  #: that came since it is watched, wherever they were read
    newest_bytes: int  #: the size of the newest one; 0: none came from this place
    silent_s: float  #: since the newest one
    lost_share: float = 0.0  #: lately [0, 1]
    came_late: bool = False  #: whether this process did not keep up when they were lost
    senders: int = 1  #: how many publishers are heard
    are_mixed: bool = False  #: whether those of several publishers may be used
    others_came: bool = False  #: whether some just came that are not used, as another publisher is followed
    publisher_is_new: bool = False  #: whether the first image may be on its way
    refusal: str = ""  #: why there is no subscription

    @property
    def many_are_lost(self) -> bool:
        """Whether so many are lost that it is to be told."""
        return self.lost_share > _LOST_SHARE_WORTH_A_WARNING


class CameraAdvice:
    """What is said of one camera; each text is empty where there is nothing to say."""

    def __init__(
        self,
        graph: Graph,
        given: str,
        places: Sequence[ImageTopic],
        *,
        of_others: Set[str] = frozenset(),
        namespace: str = "/",
        unset_in: str = "",
        large_images: str = "",
    ) -> None:
        """``given``: the topic as it was named; ``places``: where its images may be, best first.

        ``of_others``: where the images of the other cameras may be. ``namespace`` of the monitor.
        ``unset_in``: the name of the node, where its image_topics are at their default. ``large_images``:
        what to do where large images do not arrive.
        """
        self._graph = graph
        self._given = given
        self._places = places
        self._of_others = of_others
        self._namespace = namespace.rstrip("/") + "/"
        self._unset_in = unset_in
        self._large_images = large_images

    # ---- no image comes -------------------------------------------------------------------------

    def missing_images(self, images: Images) -> str:
        """What to look at when no image comes, by what is known of other nodes now."""
        if images.refusal:
            return images.refusal
        topic = images.place.name
        there = self._graph.publishers(topic)
        publishers = [publisher for publisher in there if publisher.type_name == images.place.type_name]
        if not publishers:
            return self._nobodys(images, there)
        if mismatch := next((publisher for publisher in publishers if publisher.qos_problem), None):
            return (
                f"the QoS of {mismatch} on {topic} is incompatible with ours: {mismatch.qos_problem} "
                f"Set qos_overrides.{topic}.subscription.reliability to best_effort"
            )
        if images.publisher_is_new:
            return f"somebody has just begun to publish on {topic}: the first image may be on its way"
        names = ", ".join(sorted(set(map(str, publishers))))
        if images.others_came:
            return (
                f"images come, but from another publisher than the one that was followed (of {names}); "
                "it is followed once that one counts as gone"
            )
        if images.received and not images.newest_bytes:
            return (
                f"they came until then; look which of {self._published_at()} still runs, and at the camera, "
                "its cable and its driver"
            )
        if images.received and not (images.many_are_lost and images.newest_bytes >= _LARGE_BYTES):
            nodes = {publisher.node for publisher in publishers}
            return (
                f"they came until then: look whether {names} still runs, and at the camera, its cable and "
                f"its driver{self._moved_to(images.place, nodes)}"
            )
        return (
            f"{names} publishes on {topic} with a matching QoS, but no image arrives: is it sending "
            f"(`ros2 topic hz {topic}`)? {self._large_images}"
        )

    def _nobodys(self, images: Images, others: Sequence[Publisher]) -> str:
        """What to look at where nobody publishes what is expected; ``others`` publish other types there."""
        place = images.place
        if images.received and all(other.type_name in TYPE_NAMES for other in others):
            return (
                f"they came until then, and nobody publishes on {place} now: start the camera's node again"
                + self._moved_to(place, set())
            )
        instead = self._elsewhere(place) or self._other_image_topics(place.name)
        other = next((it for it in others if it.type_name not in TYPE_NAMES), None)
        if other is not None:
            return f"{other} publishes {other.type_name} on {place.name}, which is no image; {instead}"
        return f"nobody publishes on {place}; {instead}"

    def _elsewhere(self, here: ImageTopic) -> str:
        """Where else it is looked for images of this camera and somebody publishes: a clause, or empty."""
        others = (place for place in self._places if place != here)
        there = [place for place in others if place.type_name in self._types_on(place.name)]
        if not there:
            return ""
        return f"{', '.join(map(str, there))} is published, and is read where images come there and none here"

    def _moved_to(self, here: ImageTopic, nodes: Set[str]) -> str:
        """Where else images of this camera are, by its name or by one of ``nodes``: a clause, or empty."""
        if elsewhere := self._elsewhere(here):
            return f"; {elsewhere}"
        known = nodes - {""}
        found = {
            name: kind
            for name, kind in self._readable_topics().items()
            if _is_of(here.name, name) or any(it.node in known for it in self._graph.publishers(name))
        }
        if not found:
            return ""
        return (
            f"; {_shown(found)} is published, too: if that is what you mean, name it by image_topic:= or "
            "image_topics"
        )

    def _types_on(self, topic: str) -> set[str]:
        return {publisher.type_name for publisher in self._graph.publishers(topic)}

    def _published_at(self) -> str:
        """Who publishes at which of its places: the same text whichever of them is read just now."""
        found = {
            f"{publisher} ({place})"
            for place in self._places
            for publisher in self._graph.publishers(place.name)
            if publisher.type_name == place.type_name
        }
        return ", ".join(sorted(found))

    def _readable_topics(self) -> dict[str, str]:
        """The type of every topic that carries images which can be read, is none of a monitor's, and is read
        neither for this camera nor for another one."""
        known = self._of_others | {place.name for place in self._places}
        return {
            name: kind
            for name, kinds in self._graph.topics().items()
            for kind in kinds
            if kind in TYPE_NAMES
            and name not in known
            and not unreadable(name, kinds)
            and not is_drawn(name)
            and self._graph.publishers(name)
        }

    def _other_image_topics(self, topic: str) -> str:
        """Where images are; those of the same camera alone, or of this namespace, where there are some."""
        others = self._readable_topics()
        if not others and any(self._types_on(name).intersection(TYPE_NAMES) for name in self._of_others):
            return "images are on the topics of the other cameras alone: is this camera running?"
        if not others:
            return "nor do other topics carry images: is the camera running, with the same ROS_DOMAIN_ID?"
        ours = {name: kind for name, kind in others.items() if _is_of(topic, name)}
        of_this_robot = {name: kind for name, kind in others.items() if name.startswith(self._namespace)}
        # ROS 2 drops parameters under another name silently.
        hint = (
            f" (it is at its default; in a file of parameters it stands under {self._unset_in} or /**)"
            if self._unset_in
            else ""
        )
        return (
            f"images are on {_shown(ours or of_this_robot or others)}: name the one that you mean, by "
            f"image_topic:= of the launch file or the parameter image_topics{hint}"
        )

    # ---- images come, or should -----------------------------------------------------------------

    def loss(self, images: Images) -> str:
        """How many images are lost on the way lately and what to do about it; empty while they are few, or
        while several publishers may have been mixed up."""
        if not images.many_are_lost or images.senders > 1 or images.are_mixed:
            return ""
        topic = images.place.name
        override = f"qos_overrides.{topic}.subscription"
        if images.came_late:
            cause = (
                "This process did not keep up: the machine is busy, or it was stopped for a while. "
                f"{override}.reliability: reliable and {override}.depth: 30 keep them for it"
            )
        elif images.newest_bytes >= _LARGE_BYTES:
            cause = self._large_images
        else:
            cause = (
                "They do not reach this machine: the network loses them, or the camera's node is too busy. "
                f"Where it publishes reliably, {override}.reliability: reliable has them sent again"
            )
        return f"{images.lost_share:.0%} of the images on {topic} are lost on the way. {cause}"

    def several_publishers(self, images: Images) -> str:
        """Who publishes on this topic, when images of several come: those of one are used. Else empty.

        Publishers that send nothing do not matter, nor do those that were killed and are known for a while.
        """
        if images.senders < 2:
            return ""
        topic = images.place.name
        publishers = self._graph.publishers(topic)
        if len(publishers) < 2 or not all(publisher.node for publisher in publishers):
            return ""  # numbers and stamps that jump are its own; or not all have been discovered yet
        names = ", ".join(sorted(map(str, publishers)))
        known = f": {names}" if len(publishers) == images.senders else ""
        use = (
            "they cannot be told apart, and images of both may be used"
            if images.are_mixed
            else "the images of one of them are used until it stops"
        )
        return f"{images.senders} nodes publish on {topic}{known}; {use}: remap all but one"

    def name(self, images: Images) -> str:
        """What is wrong with a topic of this name, where that is known; else empty."""
        given, topic = self._places[0].name.removesuffix("/compressed"), images.place.name
        if not unreadable(given):
            return ""
        types = self._types_on(topic)
        what = unreadable(given, types)
        if not what:
            return ""
        undiscovered = not types or not self._readable_topics()  # its publishers, or the topic that is meant
        if undiscovered and images.silent_s < _DISCOVERY_S:
            return ""
        return (
            f"image topic '{self._given}' carries {what}, by its name, and no colour images; "
            f"{self._other_image_topics(topic)}"
        )


def _is_of(camera_topic: str, topic: str) -> bool:
    """Whether a topic is of the same camera, by its name."""
    camera = camera_topic.rpartition("/")[0]
    return bool(camera) and camera in (topic, topic.rpartition("/")[0])


def _shown(topics: Mapping[str, str]) -> str:
    """Topics with their types."""
    return ", ".join(f"{name} ({topics[name]})" for name in sorted(topics))
