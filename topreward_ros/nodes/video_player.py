"""The node `video_player`: a video file or a folder of images, played as if a camera were filming it.

Publishes ``image`` (sensor_msgs/Image, rgb8) or ``image/compressed`` (sensor_msgs/CompressedImage, JPEG).
Every frame is published, in order; ``header.stamp`` is the time of the first frame plus the frame's time in
the video, so the spacing of stamps is the video's and not that of publishing. With ``loop`` the stamps go on
increasing. Without it, the process ends when reliable subscribers have got the last frame, with status 0, or
1 where the video was damaged; frames that cannot be read are left out.
Fast DDS gets room for large images in shared memory, where the environment names no profile of its own.
With ``reset_service`` a monitor is told to begin a new episode before the first frame comes.
Time is ROS time: with ``use_sim_time`` the player waits for /clock and follows it.
"""

from __future__ import annotations

import os
import signal
import sys

if __name__ == "__main__":  # as long as Python imports there is nothing to clean up: leave at once
    for _number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(_number, lambda *_: os._exit(0))

from array import array
from collections.abc import Callable
from contextlib import closing
from time import monotonic
from typing import Any

import cv2
import numpy as np
import yaml
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.time import Time
from rclpy.utilities import try_shutdown
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import Trigger

from topreward_ros.core.counted import counted
from topreward_ros.core.errors import UserError
from topreward_ros.core.printable import make_libraries_printable, printable
from topreward_ros.defaults import config_file, large_image_environment
from topreward_ros.nodes import qos
from topreward_ros.nodes.log import PrintableLog, logger_named
from topreward_ros.nodes.parameters import (
    VIDEO_PLAYER_PARAMETERS,
    ParameterError,
    declare,
    for_others,
    unknown,
)
from topreward_ros.nodes.python_log import work_for
from topreward_ros.nodes.rcl_error import RCLError
from topreward_ros.nodes.startup import said_by_ros, start
from topreward_ros.offline.video import FrameError, Frames, Video, VideoError, open_video
from topreward_ros.views import terminal

_LONGEST_WAIT = 0.1  # [s] between two looks at whether to stop
_SETTLING = 0.5  # [s] until a subscriber that we see also sees us; frames sent before would be lost
_RESET_LIMIT = 10.0  # [s] until the service must have agreed
_RESET_AGAIN = 1.0  # [s] without an answer until it is called again: it may not have seen us yet
_LAST_FRAMES = Duration(seconds=1)  # for reliable subscribers to get the last frames


class ResetError(UserError):
    """The service that is called before the first frame did not answer, or refused."""


class VideoPlayer(PrintableLog):
    """Plays a video. The constructor raises `ParameterError` or `VideoError` before anything is published."""

    def __init__(self) -> None:
        super().__init__("video_player")
        defaults = yaml.safe_load(config_file("video_player.yaml").read_text(encoding="utf-8"))
        self._settings: dict[str, Any] = declare(
            self, VIDEO_PLAYER_PARAMETERS, defaults["/**"]["ros__parameters"]
        )
        for warning in (*unknown(self).values(), *for_others(sys.argv, self.get_fully_qualified_name())):
            self.get_logger().warning(warning)
        if not self._settings["video"]:
            raise ParameterError("parameter video is empty: name a video file or a folder of images")
        self._video = open_video(self._settings["video"], self._settings["rate"])
        compressed = self._settings["image_transport"] == "compressed"
        # Resolve first, so that remapping `image` moves `image/compressed`, too.
        topic = self.resolve_topic_name("image") + ("/compressed" if compressed else "")
        self._publisher = self.create_publisher(
            CompressedImage if compressed else Image,
            topic,
            qos.image_source(),
            qos_overriding_options=qos.overrides(),
        )
        self._message = self._jpeg if compressed else _raw
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)

    def play(self, stopped: Callable[[], bool]) -> None:
        """Play to the end, or until ``stopped()`` is true.

        A frame that cannot be read is left out. Raises `ResetError`, and `VideoError` in the end where the
        video was damaged.
        """
        self._wait_for_subscriber(stopped)
        self._wait_for_clock(stopped)
        self._reset(stopped)
        if stopped():
            return
        info = self._video.info
        self.get_logger().info(
            f"playing {self._settings['video']} ({info.width}x{info.height}, {info.rate:g} Hz) "
            f"on {self._publisher.topic_name}"
        )
        for note in info.notes:
            self.get_logger().warning(note)
        count = 0
        start_ns = 0
        try:
            with closing(_repeated(self._video, self._settings["loop"])) as frames:
                for video_ns, read in frames:
                    try:
                        message = self._message(read())  # before the wait: decoding makes no frame late
                    except FrameError as error:
                        self.get_logger().warning(f"left out: {error}")
                        continue
                    start_ns = start_ns or self._now_ns()
                    self._wait_until(start_ns + video_ns, stopped)
                    if stopped():
                        break
                    message.header.stamp = Time(nanoseconds=start_ns + video_ns).to_msg()
                    message.header.frame_id = self._settings["frame_id"]
                    self._publisher.publish(message)
                    count += 1
        finally:
            self._publisher.wait_for_all_acked(_LAST_FRAMES)
        self.get_logger().info(f"published {counted(count, 'frame')}")
        if self._video.damaged and not stopped():
            what = terminal.damage_text(self._video.damaged)
            raise VideoError(f"{printable(self._settings['video'])} is damaged: {what}")

    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    def _wait_for_subscriber(self, stopped: Callable[[], bool]) -> None:
        limit = self._settings["wait_for_subscriber"]
        if not limit:
            return
        topic = self._publisher.topic_name
        self.get_logger().info(f"waiting up to {limit:g} s for a subscriber on {topic}")
        end = monotonic() + limit
        while not stopped() and monotonic() < end:
            if self._publisher.get_subscription_count():
                end = monotonic() + _SETTLING
                while not stopped() and (left := end - monotonic()) > 0:
                    self._executor.spin_once(timeout_sec=min(_LONGEST_WAIT, left))
                return
            self._executor.spin_once(timeout_sec=_LONGEST_WAIT)
        if not stopped():
            self.get_logger().warning(
                f"nobody subscribed to {topic} within {limit:g} s; playing all the same"
            )

    def _wait_for_clock(self, stopped: Callable[[], bool]) -> None:
        """Wait for simulated time, which stands at zero until the first message on /clock."""
        if not self._now_ns():
            self.get_logger().info("use_sim_time is set: waiting for /clock")
        while not stopped() and not self._now_ns():
            self._executor.spin_once(timeout_sec=_LONGEST_WAIT)

    def _reset(self, stopped: Callable[[], bool]) -> None:
        if not self._settings["reset_service"]:
            return
        client = self.create_client(Trigger, self._settings["reset_service"])
        why = "is not there"
        end = monotonic() + _RESET_LIMIT
        while not stopped() and monotonic() < end:
            if not client.service_is_ready():
                self._executor.spin_once(timeout_sec=_LONGEST_WAIT)
                continue
            answer = client.call_async(Trigger.Request())
            why = "does not answer"
            again = monotonic() + _RESET_AGAIN
            while not stopped() and monotonic() < again:
                self._executor.spin_once(timeout_sec=_LONGEST_WAIT)
                if answer.done() and answer.result().success:
                    return
                if answer.done():
                    why = f"refuses ({answer.result().message})"
        if not stopped():
            raise ResetError(
                f"reset_service {client.srv_name} {why}, for {_RESET_LIMIT:g} s: start what it belongs to, "
                "name another, or leave reset_service empty to play all the same"
            )

    def close(self) -> None:
        """End the executor while rclpy's context still lives; later it would complain on stderr."""
        self._executor.shutdown(timeout_sec=0.5)

    def _wait_until(self, due_ns: int, stopped: Callable[[], bool]) -> None:
        while not stopped() and (left := due_ns - self._now_ns()) > 0:
            self._executor.spin_once(timeout_sec=min(_LONGEST_WAIT, left * 1e-9))

    def _jpeg(self, rgb: np.ndarray) -> CompressedImage:
        quality = [cv2.IMWRITE_JPEG_QUALITY, self._settings["jpeg_quality"]]
        _, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), quality)
        return CompressedImage(format="rgb8; jpeg compressed bgr8", data=array("B", data.tobytes()))


def _raw(rgb: np.ndarray) -> Image:
    height, width = rgb.shape[:2]
    image = Image(height=height, width=width, encoding="rgb8", step=3 * width)
    image.data = array("B", rgb.tobytes())  # an array is taken as it is; bytes would be checked one by one
    return image


def _repeated(video: Video, loop: bool) -> Frames:
    """Yield the video's frames once or for ever; it starts again one frame period after the last frame."""
    begin_ns = 0
    while True:
        stamp_ns = 0
        with closing(iter(video)) as frames:
            for stamp_ns, read in frames:
                yield begin_ns + stamp_ns, read
        if not loop:
            return
        begin_ns += stamp_ns + round(1e9 / video.info.rate)


def main(args: list[str] | None = None) -> int:
    """Run the node. Returns the exit status: 0 after the last frame, SIGINT or SIGTERM, 1 after an error."""
    # A flag instead of rclpy's handlers: these shut the context down under a publish that is under way,
    # and Ctrl-C in `ros2 launch` sends SIGINT twice, the second into the clean-up of the first.
    make_libraries_printable()
    os.environ |= large_image_environment(os.environ)  # read when the node is made
    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: signals.append(received))
    player = None
    try:
        start(args)
        player = VideoPlayer()
        work_for(player)
        player.play(stopped=lambda: bool(signals))
    except (UserError, RCLError) as error:  # the latter: a node that cannot be, as without DDS security
        logger_named("video_player").error(said_by_ros(error))
        return 1
    finally:
        if player is not None:
            player.close()
        try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
