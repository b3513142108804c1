"""The monitor's cameras: subscriptions that cost next to nothing until a frame is due.

Messages arrive as bytes and only the newest one of a camera is kept; a frame is decoded when the
schedule asks for it. The first camera is the primary: its stamps are the stamps of the frames.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable, Set
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from rclpy.node import Node

from topreward_ros.core.frames import NS_PER_S, Frame
from topreward_ros.core.losses import Losses
from topreward_ros.core.publishers import Publishers
from topreward_ros.core.stamp_clock import utc_text
from topreward_ros.defaults import fast_dds_profile_variables, monitor_defaults
from topreward_ros.nodes import qos
from topreward_ros.nodes.graph import Neighbours, node_of, of_this_process
from topreward_ros.nodes.image_topics import asked_names, places
from topreward_ros.nodes.images import MESSAGE_TYPES, decode
from topreward_ros.nodes.outsider import Outsider
from topreward_ros.nodes.say_once import SayOnce
from topreward_ros.nodes.startup import said_by_ros
from topreward_ros.nodes.topic_names import name_for
from topreward_ros.offline import camera_images as images
from topreward_ros.offline.camera_advice import CameraAdvice, Images
from topreward_ros.offline.image_topics import ImageTopic
from topreward_ros.offline.place_choice import PATIENCE_S, PlaceChoice, Published

_LATE_NS = 5_000_000  # an executor that waits takes a message sooner
_LARGE_IMAGES_ADVICE = (
    "Large images overflow the default shared-memory segment of Fast DDS: start the camera's node with "
    f"{fast_dds_profile_variables(os.environ)[0]} set to config/fastdds_large_images.xml of this package"
)
_OTHERS_NEWS_S = 2.0  # so new is an image that comes "now"
_TOPICS = "image_topics"  # the parameter
_REPEATED_AFTER_S = 10.0  # the warning of an image that cannot be used
_NUMBERS = re.compile(r"\d+")
_DRAINED_S = 10.0  # after so long without an image none is on its way
# A publisher that went leaves up to half an image in the middleware. So much may be left there of all; an
# image counts as one of 640x480 at least.
_LEFT_BYTES, _USUAL_BYTES = 8_000_000, 1_000_000
# After such a silence of publishers that are known an outsider comes, for so long; again after ever longer.
_STUCK_S, _MOST_STUCK_S, _OUTSIDE_S = 3.0, 60.0, 3.0
_FIRST_IMAGE_S = 1.0  # that it may take from a publisher's discovery until its first image
# ROS 2 writes ten lines where it refuses a subscription: it is asked again after so long, then ever longer.
_ASKED_AGAIN_S, _MOST_ASKED_AGAIN_S = 1.0, 30.0


@dataclass(frozen=True, slots=True)
class _Refusal:
    """That ROS 2 gave no subscription to a place."""

    reason: str
    again_s: float  # when it is asked again
    wait_s: float  # how long that was to wait
    holders: str = ""  # who reads or publishes its topic as of another type, in this process


class Camera:
    """One camera: its subscription, the newest message, and counts for the diagnostics.

    Its images may be on several topics (image_topics.py); which is read, place_choice.py decides.
    """

    def __init__(
        self,
        node: Node,
        topic: str,
        transport: str,
        on_image: Callable[[Camera], None],
        on_change: Callable[[Camera], None],
        of_others: Set[str] = frozenset(),
    ) -> None:
        """``topic`` and ``transport`` as they were given. ``on_image`` is called for every message, with
        nothing decoded yet; ``on_change`` before that where it is the first of another publisher.
        ``of_others``: where the images of the other cameras may be, which are no advice for this one."""
        self.raw = b""  #: the newest message, serialised; empty before the first
        self.received = 0  #: messages of those that were followed
        self._received_before = 0  # before `resume`
        self.senders = Publishers()  #: who is followed, and what was lost
        self.losses = Losses()  #: lately, of the one that is followed
        self.bad = 0  #: messages that could not be decoded
        self.last_arrival = time.monotonic()  #: [s] when the newest message came; at first, when we started
        self._node = node
        self._on_image = on_image
        self._on_change = on_change
        self._names = asked_names(topic)
        self.places = places(node, topic, transport)  #: where its images may be, best first
        self._advice = CameraAdvice(
            Neighbours(node, lambda: self.subscription),
            topic,
            self.places,
            of_others=of_others,
            namespace=node.get_namespace(),
            unset_in=_unset_in(node),
            large_images=_LARGE_IMAGES_ADVICE,
        )
        self._published = self._who_publishes()  # at each place, when that was looked at last
        self._choice = PlaceChoice(self.places, self._published, time.monotonic())
        self._outsider: Outsider | None = None
        self._woken = -math.inf  # [s] when there was one last
        self._stuck_after_s = _STUCK_S  # so long is the next silence after which one comes
        self._joined = time.monotonic()  # [s] when the newest publisher of its place was discovered
        self._moved = -math.inf  # [s] when the place became another one
        self._trial: Any = None  # a subscription at another place, where images may have moved to
        self._trial_place: ImageTopic | None = None
        self.subscription: Any = None  #: None where ROS 2 refused it, and after `let_go`
        self._refusals: dict[ImageTopic, _Refusal] = {}
        self._told = self.place  # which place was logged
        self._met = False  # whether there was a publisher of its place since it was subscribed to
        self._gone = 0  # of these publishers
        self._forget_images()
        self.subscription = self._subscription_to(self.place, self._on_message)

    @property
    def place(self) -> ImageTopic:
        """Where the images are expected."""
        return self._choice.place

    @property
    def topic(self) -> str:
        """The topic that is subscribed to, after remapping."""
        return self.place.name if self.subscription is None else str(self.subscription.topic_name)

    @property
    def message_type(self) -> type:
        """The type of image that is subscribed to."""
        message_type: type = MESSAGE_TYPES[self.place.type_name]
        return message_type

    def follow_publishers(self) -> bool:
        """Subscribe to another topic or type where that is what is published; returns whether it did.

        A subscription that was refused is tried again.
        """
        before, self._published = self._published, self._who_publishes()
        if self._published[self.place] - before[self.place]:
            self._joined = time.monotonic()
        self._met |= bool(self._published[self.place])
        moved = self._choice.look(
            self._published,
            time.monotonic(),
            newest_image_s=self.last_arrival if self.raw else None,
            is_silent=self._is_silent(),
        )
        if moved:
            self._end_subscription()  # first: a participant cannot have one topic with two types
            self._forget_images()
            self._moved = time.monotonic()
        if self._trial_place != self._choice.trial:
            self._end_trial()
        if opened := self.subscription is None:
            self._try_to_open_subscription()
        self._follow_trial()
        if opened:
            return self.subscription is not None  # else it is told once there is one
        self._gone += len(before[self.place] - self._published[self.place])
        drained = not self._published[self.place] and self._met and self.silent_seconds() > _DRAINED_S
        left = self._gone * max(len(self.raw), _USUAL_BYTES) >= _LEFT_BYTES
        if drained or left:
            self._free_what_is_left()
        self._wake_publisher()
        return False

    def refusal_warning(self) -> str:
        """Why there is no subscription; empty where there is one."""
        refusal = self._refusals.get(self.place)
        if self.subscription is not None or refusal is None:
            return ""
        return f"ROS 2 refuses a subscription to {self.place} ({refusal.reason}): it is tried again"

    def _is_silent(self) -> bool:
        """Whether no image has come for longer than this camera lets one wait."""
        return self.silent_seconds() > PATIENCE_S and self.senders.has_stopped(time.monotonic_ns())

    def _follow_trial(self) -> None:
        """Listen at another place for as long as the choice wants that."""
        wanted = self._choice.trial
        if self._trial is None and wanted is not None:
            self._trial = self._try_to_subscribe(wanted, self._on_image_of_trial)
            self._trial_place = None if self._trial is None else wanted

    def _on_image_of_trial(self, raw: bytes, info: dict[str, Any]) -> None:
        self._choice.note_image_of_trial(time.monotonic())

    @property
    def is_elsewhere(self) -> bool:
        """Whether the images are at another place than the parameters say by themselves."""
        return self.place != self.places[0]

    def reading(self) -> str:
        """Which topic is read as what, and why."""
        best = self.places[0]
        if not self.is_elsewhere:
            return f"reads {self.place}"
        if self._published[best]:
            return f"reads {self.place}, as who publishes {best.type_name} on {best.name} sends nothing"
        return f"reads {self.place}, as nobody publishes {best.type_name} on {best.name}"

    def news(self) -> str:
        """`reading`, where images come from another place than was told; else empty."""
        if not self.raw or self.place == self._told:
            return ""
        self._told = self.place
        return self.reading()

    def name_warning(self) -> str:
        """What is wrong with a topic of this name, where that is known; else empty."""
        return self._advice.name(self._images())

    def let_go(self) -> None:
        """End every subscription, until `resume`."""
        self._end_subscription()
        self._end_trial()
        self._end_outsider()

    def resume(self) -> None:
        """Subscribe again to the place that was read last. Nothing counts that was before: no image is new,
        and nobody was silent."""
        self._published, self.last_arrival = self._who_publishes(), time.monotonic()
        self._received_before = self.received
        self._choice.resume(self._published, self.last_arrival)
        if self.subscription is None:
            self._forget_images()
            self._try_to_open_subscription()

    def _end_trial(self) -> None:
        if self._trial is not None:
            self._node.destroy_subscription(self._trial)
        self._trial = self._trial_place = None

    def _end_outsider(self) -> None:
        if self._outsider is not None:
            self._outsider.destroy()
        self._outsider = None

    @property
    def has_just_come(self) -> bool:
        """Whether a publisher was discovered just now, or the place taken: an image may be on its way."""
        return time.monotonic() - max(self._joined, self._moved) < _FIRST_IMAGE_S

    def _wake_publisher(self) -> None:
        """Where one that is known is so silent that it may be the middleware's fault, see outsider.py."""
        now = time.monotonic()
        if now - self._woken > _OUTSIDE_S:
            self._end_outsider()
        since_s = now - max(self.last_arrival, self._woken)
        if not self._published[self.place] or not self._is_silent() or since_s < self._stuck_after_s:
            return
        self._stuck_after_s = min(2 * self._stuck_after_s, _MOST_STUCK_S)
        self._woken = now
        with suppress(Exception):  # it is tried again
            self._outsider = Outsider(self._node, self.message_type, self.topic, qos.images())

    def _free_what_is_left(self) -> None:
        """Subscribe anew, while nobody publishes or after many publishers.

        Fast DDS keeps an image of which a part had come when its publisher went, as long as there is the
        subscription (bench/publishers.py). An image that is sent just now is lost by this.
        """
        self._end_subscription()
        self._try_to_open_subscription()

    def decode(self) -> images.DecodedImage:
        """Decode the newest message. Raises `images.ImageError`, and counts it in `bad`."""
        try:
            return decode(self.raw, self.message_type)
        except images.ImageError:
            self.bad += 1
            raise

    def silent_seconds(self) -> float:
        """Time since the newest message [s]."""
        return time.monotonic() - self.last_arrival

    def loss_warning(self) -> str:
        """How many images are lost on the way lately and what to do about it; empty while they are few."""
        return self._advice.loss(self._images())

    def silence_warning(self) -> str:
        """Since when no image has come, which stays true while the text stands, and what to look at."""
        since_ns = time.time_ns() - round(self.silent_seconds() * NS_PER_S)
        moved = not self.raw and self.received > self._received_before
        where = f"of the camera that is read on {self.topic} now" if moved else f"on {self.topic}"
        return f"no image {where} since {utc_text(since_ns)}: {self.missing_images_advice()}"

    def publishers_warning(self) -> str:
        """Who publishes on this topic, when images of several come: those of one are used. Else empty."""
        return self._advice.several_publishers(self._images())

    def missing_images_advice(self) -> str:
        """What to look at when no image comes, by what is known of other nodes now."""
        return self._advice.missing_images(self._images())

    def _images(self) -> Images:
        """What is known of its images now."""
        now_ns = time.monotonic_ns()
        other_ns = self.senders.newest_other_ns()
        return Images(
            place=self.place,
            received=self.received - self._received_before,
            newest_bytes=len(self.raw),
            silent_s=self.silent_seconds(),
            lost_share=self.losses.share(),
            came_late=self.losses.came_late(),
            senders=self.senders.heard(now_ns),
            are_mixed=self.senders.are_mixed(now_ns),
            others_came=other_ns is not None and now_ns - other_ns < _OTHERS_NEWS_S * NS_PER_S,
            publisher_is_new=time.monotonic() - self._joined < _FIRST_IMAGE_S,
            refusal=self.refusal_warning(),
        )

    def _publisher_count(self) -> int:
        count: int = self._node.count_publishers(self.topic)
        return count

    def _who_publishes(self) -> Published:
        """The publishers of each place, by what the graph tells now."""
        found: dict[ImageTopic, set[bytes]] = {place: set() for place in self.places}
        for topic in {place.name for place in self.places}:
            for publisher in self._node.get_publishers_info_by_topic(topic):
                place = ImageTopic(topic, publisher.topic_type)
                if place in found:
                    found[place].add(bytes(publisher.endpoint_gid))
        return found

    def _forget_images(self) -> None:
        self.raw = b""  # of another topic, and perhaps another type
        self.senders.restart()
        self.losses.forget()

    def _try_to_open_subscription(self) -> None:
        """Subscribe to the place that is read, which ROS 2 may refuse: then there is no subscription."""
        self._met, self._gone = False, 0
        self.subscription = self._try_to_subscribe(self.place, self._on_message)

    def _try_to_subscribe(
        self, place: ImageTopic, callback: Callable[[bytes, dict[str, Any]], None]
    ) -> Any | None:
        """A subscription; None where ROS 2 refuses it, and while it is not to be asked again.

        It refuses a topic that another node of this process still reads as of another type, for instance, or
        QoS that was given for this topic and is none.
        """
        refusal = self._refusals.get(place)
        now, holders = time.monotonic(), self._holders(place)
        if refusal and now < refusal.again_s and holders == refusal.holders:
            return None
        try:
            made = self._subscription_to(place, callback)
        except Exception as error:  # rclpy has several
            wait_s = min(2 * refusal.wait_s, _MOST_ASKED_AGAIN_S) if refusal else _ASKED_AGAIN_S
            reason = f"in this process {holders} has the topic with another type" if holders else ""
            self._refusals[place] = _Refusal(reason or said_by_ros(error), now + wait_s, wait_s, holders)
            return None
        self._refusals.pop(place, None)
        return made

    def _holders(self, place: ImageTopic) -> str:
        """Who in this process has the topic of ``place`` with another type, for a human; empty: nobody."""
        return ", ".join(
            sorted(
                f"{node_of(endpoint)} ({endpoint.topic_type})"
                for endpoint in of_this_process(self._node, place.name)
                if endpoint.topic_type != place.type_name
            )
        )

    def _end_subscription(self) -> None:
        if self.subscription is not None:
            self._node.destroy_subscription(self.subscription)
            self.subscription = None

    def _subscription_to(self, place: ImageTopic, callback: Callable[[bytes, dict[str, Any]], None]) -> Any:
        return self._node.create_subscription(
            MESSAGE_TYPES[place.type_name],
            name_for(self._node, place.name, self._names),
            callback,
            qos.images(),
            qos_overriding_options=qos.overrides(),
            raw=True,
        )

    def _on_message(self, raw: bytes, info: dict[str, Any]) -> None:
        self._met = True
        lost_before, changes_before = self.senders.lost, self.senders.changes
        arrival_ns = time.monotonic_ns()
        if self._stuck_after_s > _STUCK_S:
            self.senders.forgive()  # what was lost before it was woken is not the network's fault
        try:
            stamp_ns = images.stamp_ns_of(raw)
        except images.ImageError:
            stamp_ns = 0  # what is wrong with it is told where it would be used
        if not self.senders.take(
            info["publication_sequence_number"],
            arrival_ns,
            stamp_ns,
            images.frame_id_of(raw),
            alone=lambda: self._publisher_count() == 1,
        ):
            return
        if self.senders.changes != changes_before:
            self.losses.forget()
            self._on_change(self)
        late = time.time_ns() - info["received_timestamp"] > _LATE_NS
        self.losses.note(arrival_ns, self.senders.lost - lost_before, late=late)
        self.raw = raw
        self.received += 1
        self.last_arrival = time.monotonic()
        self._stuck_after_s = _STUCK_S
        self._on_image(self)


def _unset_in(node: Node) -> str:
    """The name of ``node``, where its topics of images are at their default; else empty."""
    default = monitor_defaults()[_TOPICS]
    is_set = node.has_parameter(_TOPICS) and node.get_parameter(_TOPICS).value != default
    return "" if is_set else str(node.get_fully_qualified_name())


class CameraRig:
    """All cameras of a monitor as one stream of frames, stamped as the images of the primary camera."""

    def __init__(
        self,
        node: Node,
        topics: list[str],
        transport: str,
        layout: str,
        on_primary: Callable[[int], None],
        on_change: Callable[[str], None] = lambda why: None,
        on_other: Callable[[], None] = lambda: None,
    ) -> None:
        """``on_primary`` is called with the stamp [ns] of every image of the primary camera, ``on_other`` for
        every image of another one; ``on_change``, with a text for a human, where images are from now on those
        of another publisher."""
        self._node = node
        self._log = node.get_logger()
        self._say_once = SayOnce(self._log)
        self._on_primary = on_primary
        self._tell_change = on_change
        self._on_other = on_other
        self._told: dict[str, float] = {}  # why an image was refused -> when that was logged [s]
        self._unreadable = ""  # what is wrong with the newest message of the primary camera
        self.decode_seconds = 0.0  #: how long decoding the last frame took
        # Cameras that would not be scored are not subscribed to either.
        used = topics if layout == "tile" else topics[:1]
        self.cameras: list[Camera] = []
        try:
            where = [{place.name for place in places(node, topic, transport)} for topic in topics]
            for k, topic in enumerate(used):
                others = frozenset().union(*where[:k], *where[k + 1 :])
                self.cameras.append(Camera(node, topic, transport, self._on_image, self._on_change, others))
        except Exception:
            self.let_go()
            raise

    @property
    def primary(self) -> Camera:
        """The camera whose stamps count."""
        return self.cameras[0]

    def let_go(self) -> None:
        """End all subscriptions, until `resume`."""
        for camera in self.cameras:
            camera.let_go()

    def resume(self) -> None:
        """Subscribe again, and count no silence from before."""
        for camera in self.cameras:
            camera.resume()

    def follow_publishers(self) -> bool:
        """Let every camera read what is published; returns whether something changed."""
        changed = [camera for camera in self.cameras if camera.follow_publishers()]
        return bool(changed)

    def why_silent(self, stale_timeout: float) -> str:
        """Why the primary camera has given no stamps for ``stale_timeout`` [s]; empty where it has."""
        if self.primary.silent_seconds() > stale_timeout / 2:
            self._say_once.note_advice(("silence", self.primary), self.primary.missing_images_advice)
            return self.primary.silence_warning()
        return self._unreadable

    def excuse(self, stopped_s: float) -> None:
        """This process was stopped for so long [s]: no camera was silent in that time, and what was lost is
        not the network's fault."""
        now = time.monotonic()
        for camera in self.cameras:
            camera.last_arrival = min(now, camera.last_arrival + stopped_s)
            camera.senders.forgive()
            camera.losses.forget()

    def warn(self, stale_timeout: float, *, watched: bool) -> None:
        """Log what is wrong with the cameras, each problem once.

        A silence is longer than ``stale_timeout`` [s]; it is warned of again when images came in between, or
        when something else has been to be done about it for a while. ``watched``: the primary camera's
        silence has an event of its own.
        """
        for camera in self.cameras:
            if camera.silent_seconds() > stale_timeout and not camera.has_just_come:
                silence = ("silence", camera)
                if not (watched and camera is self.primary) or self._say_once.has_told(silence):
                    advice = camera.missing_images_advice()
                    self._say_once.warn_of_news(silence, advice, camera.silence_warning)
            if camera.subscription is not None:
                self._say_once.forget(("refusal", camera))
            self._say_once.warn(("refusal", camera), camera.refusal_warning)
            self._say_once.warn(("loss", camera), camera.loss_warning)
            self._say_once.warn(("name", camera), camera.name_warning)
            self._say_once.warn(("publishers", camera), camera.publishers_warning)

    def warn_of_no_stamp(self) -> None:
        """Log that the time of arrival stands in for the stamps of the primary camera, once."""
        self._say_once.warn(
            "zero stamp",
            lambda: (
                f"images on {self.primary.topic} carry no stamp; the time of arrival is used instead, so "
                f"results depend on transport delays: have the driver fill header.stamp"
            ),
        )

    def newest_frame(self, stamp_ns: int, max_skew: float) -> Frame:
        """Decode the newest image of every camera into one frame, with the stamp of the primary one.

        Raises `images.ImageError`, and logs it, when an image is bad, or does not belong beside the primary's
        (`images.check_beside`). `images.FrameAwaited`, for one that may still come, is not logged; `give_up`
        does that.
        """
        begun = time.perf_counter()
        others = [images.Beside(it.topic, it.raw, it.silent_seconds()) for it in self.cameras[1:]]
        try:
            images.check_beside(others, self.primary.topic, stamp_ns, max_skew)
        except images.FrameAwaited:
            raise
        except images.ImageError as error:
            raise self._refused(str(error)) from None
        pictures: list[images.DecodedImage] = []
        for camera in self.cameras:
            try:
                pictures.append(camera.decode())
            except images.ImageError as error:
                raise self._refused(f"skipped an image of {camera.topic}: {error}") from None
        try:
            parts = [picture.rgb for picture in pictures]
            rgb = images.tile(parts)
        except images.ImageError as error:
            raise self._refused(f"images of {len(pictures)} cameras cannot be tiled: {error}") from None
        self.decode_seconds = time.perf_counter() - begun
        return Frame(stamp_ns, rgb, pictures[0].frame_id, images.tiled_widths(parts))

    def _refused(self, problem: str) -> images.ImageError:
        """Log why an image cannot be used, each reason once in a while, and make the error of it."""
        reason = _NUMBERS.sub("0", problem)
        now = time.monotonic()
        if now - self._told.get(reason, -_REPEATED_AFTER_S) >= _REPEATED_AFTER_S:
            self._told = {known: when for known, when in self._told.items() if now - when < _REPEATED_AFTER_S}
            self._told[reason] = now
            self._log.warning(problem)
        return images.ImageError(problem)

    def give_up(self, problem: str) -> None:
        """The image that was awaited has not come: log it."""
        self._refused(problem)

    def _on_change(self, camera: Camera) -> None:
        why = f"the images on {camera.topic} are those of another publisher now"
        self._log.info(f"{why}, as the one before has stopped")
        self._tell_change(why)

    def _on_image(self, camera: Camera) -> None:
        self._say_once.forget(("silence", camera))
        if news := camera.news():
            self._log.info(f"the monitor {news}")
        if camera is not self.primary:
            self._on_other()
            return
        try:
            stamp_ns = images.stamp_ns_of(camera.raw)
        except images.ImageError as error:
            camera.bad += 1
            self._unreadable = str(self._refused(f"skipped an image of {camera.topic}: {error}"))
            return
        self._unreadable = ""
        self._on_primary(stamp_ns)
