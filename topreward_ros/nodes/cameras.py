"""The monitor's cameras: subscriptions that cost next to nothing until a frame is due.

Messages arrive as bytes and only the newest one of a camera is kept; a frame is decoded when the
schedule asks for it. The first camera is the primary: its stamps are the stamps of the frames.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.qos import QoSCompatibility, qos_check_compatible
from rclpy.time import Time
from sensor_msgs.msg import CompressedImage, Image

from topreward_ros.core.frames import Frame
from topreward_ros.nodes import images, qos
from topreward_ros.nodes.say_once import SayOnce

RCLError = rclpy_implementation.RCLError
MESSAGE_TYPES = {"raw": Image, "compressed": CompressedImage}
_TYPE_NAMES = {kind: f"sensor_msgs/msg/{kind.__name__}" for kind in MESSAGE_TYPES.values()}
_LOST_SHARE_WORTH_A_WARNING = 0.1
_MESSAGES_BEFORE_LOSS_IS_JUDGED = 30
_LARGE_BYTES = 100_000  # several of these fill the default shared-memory segment of Fast DDS
_LARGE_IMAGES_ADVICE = (
    "Large images overflow the default shared-memory segment of Fast DDS: start the camera's node with "
    "FASTRTPS_DEFAULT_PROFILES_FILE set to config/fastdds_large_images.xml of this package"
)
# How often a warning may be repeated; rclpy tells warnings apart by the line that logs them.
_THROTTLED = {"throttle_duration_sec": 10.0}


class Camera:
    """One image topic: its subscription, the newest message, and counts for the diagnostics."""

    def __init__(self, node: Node, topic: str, transport: str, on_image: Callable[[Camera], None]) -> None:
        """``on_image`` is called for every message, with nothing decoded yet."""
        self.name = topic
        self.message_type = MESSAGE_TYPES[transport]
        self.raw = b""  #: the newest message, serialised; empty before the first
        self.received = 0  #: messages
        self.lost = 0  #: messages that the publisher sent and that did not come
        self.bad = 0  #: messages that could not be decoded
        self.last_arrival = time.monotonic()  #: [s] when the newest message came; at first, when we started
        self._node = node
        self._on_image = on_image
        self._last_sequence: int | None = None
        self.subscription = node.create_subscription(
            self.message_type,
            topic_name(node, topic, transport),
            self._on_message,
            qos.images(),
            qos_overriding_options=qos.overrides(),
            raw=True,
        )
        self.topic: str = self.subscription.topic_name

    def destroy(self) -> None:
        """End the subscription."""
        self._node.destroy_subscription(self.subscription)

    def decode(self) -> images.DecodedImage:
        """Decode the newest message. Raises `images.ImageError`, and counts it in `bad`."""
        try:
            return images.decode(self.raw, self.message_type)
        except images.ImageError:
            self.bad += 1
            raise

    def silent_seconds(self) -> float:
        """Time since the newest message [s]."""
        return time.monotonic() - self.last_arrival

    def loss_warning(self) -> str:
        """How many images are lost on the way and what to do about it; empty while they are few."""
        sent = self.lost + self.received
        if not self.lost or sent < _MESSAGES_BEFORE_LOSS_IS_JUDGED or self._publisher_count() != 1:
            return ""  # with several publishers it cannot be told whose messages are missing
        share = self.lost / sent
        if share <= _LOST_SHARE_WORTH_A_WARNING:
            return ""
        cause = (
            _LARGE_IMAGES_ADVICE
            if len(self.raw) >= _LARGE_BYTES
            else "This process did not keep up: the machine is busy, or it was stopped for a while"
        )
        return f"{share:.0%} of the images on {self.topic} are lost on the way. {cause}"

    def silence_warning(self) -> str:
        """How long no image has come, and what to look at."""
        return f"no image on {self.topic} for {self.silent_seconds():.0f} s: {self._missing_images_advice()}"

    def publishers_warning(self) -> str:
        """Who publishes on this topic, when several do: their stamps do not fit together. Else empty."""
        if self._publisher_count() < 2:
            return ""
        publishers = self._node.get_publishers_info_by_topic(self.topic)
        names = sorted(_node_name(publisher) for publisher in publishers)
        if any("UNKNOWN" in name for name in names):
            return ""  # not all of their names have been discovered yet
        return f"{len(names)} nodes publish on {self.topic}: {', '.join(names)}: remap all but one"

    def _publisher_count(self) -> int:
        count: int = self._node.count_publishers(self.topic)
        return count

    def _missing_images_advice(self) -> str:
        expected = _TYPE_NAMES[self.message_type]
        publishers = self._node.get_publishers_info_by_topic(self.topic)
        if not publishers:
            return f"nobody publishes on {self.topic} ({expected}); {self._other_image_topics()}"
        for publisher in publishers:
            who = _node_name(publisher)
            if publisher.topic_type != expected:
                return (
                    f"{who} publishes {publisher.topic_type} on {self.topic}, but {expected} is expected; "
                    f"set image_transport (raw or compressed) or another image topic"
                )
            compatibility, reason = qos_check_compatible(publisher.qos_profile, self.subscription.qos_profile)
            if compatibility == QoSCompatibility.ERROR:
                return (
                    f"the QoS of {who} on {self.topic} is incompatible with ours: {reason.strip()} "
                    f"Set qos_overrides.{self.topic}.subscription.reliability to best_effort"
                )
        names = ", ".join(_node_name(publisher) for publisher in publishers)
        return (
            f"{names} publishes on {self.topic} with a matching QoS, but no image arrives: is it sending "
            f"(`ros2 topic hz {self.topic}`)? {_LARGE_IMAGES_ADVICE}"
        )

    def _other_image_topics(self) -> str:
        others = [
            f"{name} ({kind})"
            for name, kinds in self._node.get_topic_names_and_types()
            for kind in kinds
            if kind in _TYPE_NAMES.values() and name != self.topic and self._node.count_publishers(name)
        ]
        if not others:
            return "nor do other topics carry images: is the camera running, with the same ROS_DOMAIN_ID?"
        return f"images are on {', '.join(sorted(others))}: set image_topics to the one that you mean"

    def _on_message(self, raw: bytes, info: dict[str, Any]) -> None:
        self.raw = raw
        self.received += 1
        self.last_arrival = time.monotonic()
        # The middleware counts what one publisher sent; a number that goes back is another publisher.
        sequence = info["publication_sequence_number"]
        if sequence is not None:
            if self._last_sequence is not None and sequence > self._last_sequence:
                self.lost += sequence - self._last_sequence - 1
            self._last_sequence = sequence
        self._on_image(self)


class CameraRig:
    """All cameras of a monitor as one stream of frames, stamped as the images of the primary camera."""

    def __init__(
        self, node: Node, topics: list[str], transport: str, layout: str, on_primary: Callable[[int], None]
    ) -> None:
        """``on_primary`` is called with the stamp [ns] of every image of the primary camera."""
        self._node = node
        self._log = node.get_logger()
        self._say_once = SayOnce(self._log)
        self._on_primary = on_primary
        self.last_stamp_ns = 0  #: stamp of the primary camera's newest image; 0 before the first
        self.decode_seconds = 0.0  #: how long decoding the last frame took
        # Cameras that would not be scored are not subscribed to either.
        used = topics if layout == "tile" else topics[:1]
        self.cameras: list[Camera] = []
        try:
            for topic in used:
                self.cameras.append(Camera(node, topic, transport, self._on_image))
        except Exception:
            self.destroy()
            raise

    @property
    def primary(self) -> Camera:
        """The camera whose stamps count."""
        return self.cameras[0]

    def destroy(self) -> None:
        """End all subscriptions."""
        for camera in self.cameras:
            camera.destroy()

    def warn(self, stale_timeout: float) -> None:
        """Log what is wrong with the cameras, each problem once.

        A silence is longer than ``stale_timeout`` [s]; it is warned of again when images came in between.
        """
        for camera in self.cameras:
            if camera.silent_seconds() > stale_timeout:
                self._say_once.warn(("silence", camera), camera.silence_warning)
            self._say_once.warn("loss", camera.loss_warning)
        self._say_once.warn("publishers", self.primary.publishers_warning)

    def newest_frame(self, stale_timeout: float) -> Frame | None:
        """Decode the newest image of every camera into one frame.

        Returns None, with a warning, when an image is bad, or when a camera other than the primary sent none
        for ``stale_timeout`` [s]: its old image beside a new one would be scored as current.
        """
        begun = time.perf_counter()
        for camera in self.cameras[1:]:
            if not camera.raw or camera.silent_seconds() > stale_timeout:
                since = f"for {camera.silent_seconds():.0f} s" if camera.raw else "yet"
                self._log.warning(
                    f"no image on {camera.topic} {since}, so no frame can be tiled", **_THROTTLED
                )
                return None
        pictures: list[images.DecodedImage] = []
        for camera in self.cameras:
            try:
                pictures.append(camera.decode())
            except images.ImageError as error:
                self._log.warning(
                    f"skipped an image of {camera.topic} ({camera.bad} so far): {error}", **_THROTTLED
                )
                return None
        try:
            rgb = images.tile([picture.rgb for picture in pictures])
        except images.ImageError as error:
            self._log.warning(f"images of {len(pictures)} cameras cannot be tiled: {error}", **_THROTTLED)
            return None
        self.decode_seconds = time.perf_counter() - begun
        return Frame(self.last_stamp_ns, rgb, pictures[0].frame_id)

    def _on_image(self, camera: Camera) -> None:
        self._say_once.forget(("silence", camera))
        if camera is not self.primary:
            return
        try:
            stamp_ns = images.stamp_ns_of(camera.raw)
        except images.ImageError as error:
            camera.bad += 1
            self._log.warning(
                f"skipped an image of {camera.topic} ({camera.bad} so far): {error}", **_THROTTLED
            )
            return
        if stamp_ns <= 0:
            stamp_ns = self._arrival_stamp(camera)
        self.last_stamp_ns = stamp_ns
        self._on_primary(stamp_ns)

    def _arrival_stamp(self, camera: Camera) -> int:
        self._say_once.warn(
            "zero stamp",
            lambda: (
                f"images on {camera.topic} carry no stamp; the time of arrival is used instead, so results "
                f"depend on transport delays: have the driver fill header.stamp"
            ),
        )
        now: Time = self._node.get_clock().now()
        return int(now.nanoseconds)


def topic_name(node: Node, topic: str, transport: str) -> str:
    """The name after remapping, which acts on the base topic also when images are compressed.

    Raises `ValueError` when ``topic`` is not a valid name.
    """
    try:
        resolved: str = node.resolve_topic_name(topic)
    except RCLError as error:
        raise ValueError(f"image topic '{topic}': {str(error).partition(', at ')[0]}") from error
    return resolved + ("/compressed" if transport == "compressed" else "")


def _node_name(publisher: Any) -> str:
    return f"{publisher.node_namespace.rstrip('/')}/{publisher.node_name}"
