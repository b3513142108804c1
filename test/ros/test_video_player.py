"""The video player in a process of its own, watched over DDS."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import Trigger

from test.robot import own_domain
from topreward_ros.defaults import config_file, fast_dds_profile_variables
from topreward_ros.nodes import qos
from topreward_ros.nodes.images import decode

SECOND = 10**9


def picture(k: int) -> np.ndarray:
    """Frame k: (48, 64, 3) uint8 RGB, red with a blue bar whose width tells k."""
    rgb = np.full((48, 64, 3), (200, 20, 20), np.uint8)
    rgb[:, : 2 * k] = (20, 20, 200)
    return rgb


def number_of(rgb: np.ndarray) -> int:
    return round(np.count_nonzero(rgb[24, :, 2] > rgb[24, :, 0]) / 2)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 frames at 30 Hz."""
    path = tmp_path_factory.mktemp("video") / "bar.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 30.0, (64, 48))
    for k in range(30):
        writer.write(np.ascontiguousarray(picture(k)[..., ::-1]))
    writer.release()
    return path


class Watcher:
    """Subscribes in this process to what players in other processes publish."""

    def __init__(self) -> None:
        self.domain = own_domain()
        self.context = Context()
        rclpy.init(context=self.context, domain_id=self.domain)
        self.node = Node("watcher", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.players: list[subprocess.Popen[str]] = []
        self.received: list[Image | CompressedImage] = []

    def subscribe(self, topic: str, message_type: type, profile: QoSProfile | None = None) -> None:
        keep_all = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
        self.node.create_subscription(message_type, topic, self.received.append, profile or keep_all)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        player = subprocess.Popen(
            [sys.executable, "-m", "topreward_ros.nodes.video_player", "--ros-args", *arguments],
            env={**os.environ, "ROS_DOMAIN_ID": str(self.domain), **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.players.append(player)
        return player

    def spin_until(self, done: Callable[[], bool], timeout: float = 60.0) -> None:
        end = time.monotonic() + timeout
        while not done():
            assert time.monotonic() < end, "waited too long"
            self.executor.spin_once(timeout_sec=0.1)

    def spin_for(self, seconds: float) -> None:
        """For what must not come, or to let time pass."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.05)

    def take_what_came(self) -> None:
        """Until nothing more comes: what has arrived of a player that is gone, however long it takes."""
        idle = 0
        while idle < 3:
            before = len(self.received)
            self.executor.spin_once(timeout_sec=0.1)
            idle = idle + 1 if len(self.received) == before else 0

    def watch_to_the_end(self, player: subprocess.Popen[str]) -> str:
        """What it wrote to stderr; the last messages are taken, too."""
        self.spin_until(lambda: player.poll() is not None)
        self.take_what_came()
        return player.communicate()[1]

    def stamps(self) -> list[int]:
        return [m.header.stamp.sec * SECOND + m.header.stamp.nanosec for m in self.received]

    def numbers(self) -> list[int]:
        return [number_of(decode(serialize_message(m), type(m)).rgb) for m in self.received]

    def close(self) -> None:
        for player in self.players:
            if player.poll() is None:
                player.kill()
                player.communicate()
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture
def watcher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watcher]:
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    watcher = Watcher()
    yield watcher
    watcher.close()


@pytest.mark.installed
def test_every_frame_arrives_in_order_with_the_stamps_of_the_video(watcher: Watcher, video: Path):
    watcher.subscribe("image", Image)
    before = time.time_ns()
    player = watcher.start("-p", f"video:={video}", "-p", "frame_id:=wrist")
    errors = watcher.watch_to_the_end(player)
    assert player.returncode == 0, errors
    assert watcher.numbers() == list(range(30))
    stamps = watcher.stamps()
    assert before < stamps[0] < time.time_ns()
    assert [s - stamps[0] for s in stamps] == [round(k * SECOND / 30) for k in range(30)]
    first = watcher.received[0]
    assert (first.encoding, first.width, first.height, first.step) == ("rgb8", 64, 48, 192)
    assert first.header.frame_id == "wrist"


def test_best_effort_subscriber_and_given_rate(watcher: Watcher, video: Path):
    best_effort = qos.images()
    best_effort.depth = 100  # of a queue of one, all but one are lost when this process is held up
    watcher.subscribe("image", Image, best_effort)
    started = time.monotonic()
    player = watcher.start("-p", f"video:={video}", "-p", "rate:=60.0")
    errors = watcher.watch_to_the_end(player)
    assert player.returncode == 0, errors
    assert len(watcher.received) >= 25
    assert watcher.numbers() == sorted(watcher.numbers())
    spacing = np.diff([n * SECOND / 60 for n in watcher.numbers()])
    assert np.diff(watcher.stamps()) == pytest.approx(spacing, abs=2)
    assert time.monotonic() - started > 29 / 60


def test_compressed_goes_where_image_is_remapped_to(watcher: Watcher, video: Path):
    watcher.subscribe("/arm/camera/compressed", CompressedImage)
    player = watcher.start(
        *("-p", f"video:={video}", "-p", "image_transport:=compressed", "-p", "rate:=60.0"),
        *("-r", "__ns:=/arm", "-r", "image:=camera"),
    )
    errors = watcher.watch_to_the_end(player)
    assert player.returncode == 0, errors
    assert watcher.numbers() == list(range(30))
    assert bytes(watcher.received[0].data[:2]) == b"\xff\xd8"
    assert "jpeg" in watcher.received[0].format


def test_what_is_to_be_reset_is_reset_before_the_first_frame(watcher: Watcher, video: Path):
    """Also when it refuses at first, as a monitor that is not yet active does."""
    watcher.subscribe("image", Image)
    frames_then: list[int] = []

    def reset(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        frames_then.append(len(watcher.received))
        response.success, response.message = len(frames_then) > 1, "not yet"
        return response

    watcher.node.create_service(Trigger, "monitor/reset", reset)
    player = watcher.start("-p", f"video:={video}", "-p", "rate:=60.0", "-p", "reset_service:=monitor/reset")
    errors = watcher.watch_to_the_end(player)
    assert player.returncode == 0, errors
    assert frames_then == [0, 0]
    assert watcher.numbers() == list(range(30))


@pytest.mark.parametrize("there", [False, True])
def test_what_cannot_be_reset_ends_it_before_the_first_frame(watcher: Watcher, video: Path, there: bool):
    watcher.subscribe("image", Image)
    if there:
        refused = Trigger.Response(success=False, message="disabled")
        watcher.node.create_service(Trigger, "/arm/reset", lambda *_: refused)
    player = watcher.start(
        *("-p", f"video:={video}", "-p", "wait_for_subscriber:=0.0", "-p", "reset_service:=/arm/reset")
    )
    errors = watcher.watch_to_the_end(player)
    assert player.returncode == 1 and watcher.received == []
    assert f"reset_service /arm/reset {'refuses (disabled)' if there else 'is not there'}, for 10 s" in errors
    assert "Traceback" not in errors


def test_folder_in_natural_order(watcher: Watcher, tmp_path: Path):
    for k in range(12):
        cv2.imwrite(str(tmp_path / f"frame{k}.png"), np.ascontiguousarray(picture(k)[..., ::-1]))
    watcher.subscribe("image", Image)
    player = watcher.start("-p", f"video:={tmp_path}", "-p", "rate:=25.0")
    errors = watcher.watch_to_the_end(player)
    assert player.returncode == 0, errors
    assert watcher.numbers() == list(range(12))
    assert set(np.diff(watcher.stamps())) == {SECOND // 25}


def test_stamps_go_on_increasing_in_a_loop(watcher: Watcher, video: Path):
    watcher.subscribe("image", Image)
    player = watcher.start("-p", f"video:={video}", "-p", "loop:=true", "-p", "rate:=100.0")
    watcher.spin_until(lambda: len(watcher.received) >= 75)
    player.send_signal(signal.SIGINT)
    errors = watcher.watch_to_the_end(player)
    assert player.returncode == 0, errors
    assert watcher.numbers()[:75] == [k % 30 for k in range(75)]
    assert set(np.diff(watcher.stamps()[:75])) == {SECOND // 100}


def test_simulated_time(watcher: Watcher, video: Path):
    """Stamps are in simulated time, and nothing is played while it stands still."""
    watcher.subscribe("image", Image)
    clock = watcher.node.create_publisher(Clock, "/clock", 10)
    player = watcher.start(
        "-p", f"video:={video}", "-p", "use_sim_time:=true", "-p", "wait_for_subscriber:=5.0"
    )
    now = Clock()
    now.clock.sec = 1000

    def play_clock(step_ns: int, frames: int) -> None:
        while len(watcher.received) < frames:
            now.clock.nanosec += step_ns
            clock.publish(now)
            watcher.spin_for(0.02)
            assert player.poll() is None

    play_clock(0, frames=1)  # standing at 1000 s
    watcher.spin_for(0.5)
    assert watcher.stamps() == [1000 * SECOND]
    play_clock(5_000_000, frames=10)
    assert watcher.stamps()[:10] == [1000 * SECOND + round(k * SECOND / 30) for k in range(10)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("when", ["waiting", "playing"])
def test_signals_end_it_cleanly(watcher: Watcher, video: Path, number: signal.Signals, when: str):
    if when == "playing":
        watcher.subscribe("image", Image)
    player = watcher.start("-p", f"video:={video}", "-p", "rate:=2.0", "-p", "wait_for_subscriber:=60.0")
    name = "/video_player"
    watcher.spin_until(lambda: name in [f"/{n}" for n in watcher.node.get_node_names()])
    if when == "playing":
        watcher.spin_until(lambda: len(watcher.received) >= 2)
    else:
        watcher.spin_for(0.3)
    sent = time.monotonic()
    player.send_signal(number)
    player.send_signal(number)  # `ros2 launch` passes Ctrl-C on in addition to the terminal
    assert player.wait(timeout=3.0) == 0
    assert time.monotonic() - sent < 3.0
    assert "Traceback" not in player.communicate()[1]


def test_it_plays_when_nobody_subscribes_in_time(watcher: Watcher, video: Path):
    player = watcher.start("-p", f"video:={video}", "-p", "rate:=100.0", "-p", "wait_for_subscriber:=0.2")
    errors = watcher.watch_to_the_end(player)
    assert player.returncode == 0
    assert "nobody subscribed to /image within 0.2 s" in errors
    assert "published 30 frames" in errors


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["video:=''"], "parameter video is empty"),
        (["video:=/missing.mp4"], "no video at /missing.mp4"),
        (["video:={folder}/broken.mp4"], "broken.mp4 is not a video"),
        (["video:={folder}/images"], "has no frame rate of its own"),
        (["video:={folder}/none"], "holds no images"),
        (["video:={folder}/none", "rate:=5.0"], "holds no images"),
        (["video:={folder}/broken.mp4", "image_transport:=theora"], "one of raw, compressed"),
        (
            ["video:={folder}/broken.mp4", "jpeg_quality:=101"],
            "jpeg_quality",
        ),
        (["video:={folder}/broken.mp4", "rate:=fast"], "rate"),
    ],
)
def test_mistakes_end_with_one_line_and_status_1(
    watcher: Watcher, tmp_path: Path, arguments: list[str], says: str
):
    (tmp_path / "broken.mp4").write_bytes(bytes(1000))
    (tmp_path / "none").mkdir()
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.png").touch()
    player = watcher.start(*(x for a in arguments for x in ("-p", a.format(folder=tmp_path))))
    errors = player.communicate(timeout=60)[1]
    assert player.returncode == 1
    assert says in errors
    assert "Traceback" not in errors
    assert errors.count("[ERROR]") == 1


def test_frame_that_is_damaged_ends_it_with_status_1(watcher: Watcher, tmp_path: Path):
    """It is left out, and the others come."""
    for k in range(4):
        cv2.imwrite(str(tmp_path / f"{k}.png"), np.ascontiguousarray(picture(k)[..., ::-1]))
    (tmp_path / "2.png").write_bytes(b"no picture")
    watcher.subscribe("image", Image)
    player = watcher.start("-p", f"video:={tmp_path}", "-p", "rate:=50.0")
    errors = watcher.watch_to_the_end(player)
    assert player.returncode == 1
    assert "is damaged: at 0.04 s: 1 frame" in errors and "2.png is corrupt" in errors
    assert "Traceback" not in errors
    assert watcher.numbers() == [0, 1, 3]


def test_reader_that_looks_late_gets_the_last_frames(watcher: Watcher, video: Path):
    """The player is gone when they are read, but a reliable subscription has them."""
    watcher.subscribe("image", Image)
    player = watcher.start("-p", f"video:={video}", "-p", "rate:=60.0")
    watcher.spin_until(lambda: len(watcher.received) >= 5)
    assert player.wait(timeout=60) == 0
    watcher.take_what_came()
    assert watcher.numbers() == list(range(30))


def test_large_last_frames_are_not_cut_off_by_the_end_of_the_process(watcher: Watcher, tmp_path: Path):
    """Images of 6 MB, published faster than they can be carried over."""
    large = cv2.resize(np.ascontiguousarray(picture(5)[..., ::-1]), (1920, 1080))
    for k in range(8):
        cv2.imwrite(str(tmp_path / f"{k}.jpg"), large)
    watcher.subscribe("image", Image)
    player = watcher.start("-p", f"video:={tmp_path}", "-p", "rate:=500.0")
    errors = watcher.watch_to_the_end(player)
    assert player.returncode == 0, errors
    assert [s - watcher.stamps()[0] for s in watcher.stamps()] == [k * 2_000_000 for k in range(8)]


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no /dev/shm to look into")
@pytest.mark.skipif(rclpy.get_rmw_implementation_identifier() != "rmw_fastrtps_cpp", reason="not Fast DDS")
@pytest.mark.parametrize("own_mib", [0, 24])
def test_there_is_shared_memory_for_large_images_unless_the_user_has_a_profile(
    own_mib: int,
    watcher: Watcher,
    video: Path,
    shared_memory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    variables = fast_dds_profile_variables(os.environ)
    for variable in variables:
        monkeypatch.delenv(variable, raising=False)
    own = {}
    if own_mib:
        shipped = config_file("fastdds_large_images.xml").read_text()
        profile = tmp_path / "own.xml"
        profile.write_text(shipped.replace(str(64 * 2**20), str(own_mib * 2**20)))
        own = {variables[0]: str(profile)}
    watcher.subscribe("image", Image)
    player = watcher.start("-p", f"video:={video}", "-p", "rate:=20.0", **own)
    watcher.spin_until(lambda: len(watcher.received) >= 2)
    largest = max(path.stat().st_size for path in shared_memory(player.pid))
    assert 1.0 <= largest / 2**20 / (own_mib or 64) < 1.2  # Fast DDS adds what it needs to keep the books
    errors = watcher.watch_to_the_end(player)
    assert watcher.numbers() == list(range(30))
    assert "XML" not in errors


@pytest.fixture(params=["fastdds shm clean", "test session"])
def free_dead_memory(request, remove_dead_segments) -> Callable[[], object]:
    """What README.md advises, and what every test session does for what it has killed."""
    if request.param == "test session":
        return remove_dead_segments
    # A virtual environment need not be activated; the tool runs the python3 on PATH.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    tool = shutil.which("fastdds", path=path)
    if tool is None:
        pytest.skip("no fastdds on PATH")
    command, environment = [tool, "shm", "clean"], {**os.environ, "PATH": path}
    tried = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    if tried.returncode:
        pytest.skip(f"{tool} does not work: {(tried.stderr or tried.stdout).strip()[-200:]}")
    return lambda: subprocess.run(command, env=environment, capture_output=True, timeout=60, check=True)


def test_memory_of_a_killed_process_is_freed_and_that_of_a_living_one_kept(
    watcher: Watcher, video: Path, shared_memory, free_dead_memory
):
    players = [watcher.start("-p", f"video:={video}", "-p", "wait_for_subscriber:=60.0") for _ in range(2)]
    watcher.spin_until(lambda: watcher.node.get_node_names().count("video_player") == 2)
    killed, living = (shared_memory(player.pid) for player in players)
    players[0].kill()
    players[0].wait()
    free_dead_memory()
    assert not any(path.exists() for path in killed)
    assert all(path.exists() for path in living)


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_signals_while_it_still_imports_leave_no_trace(number: str):
    """As a module, which `topreward demo` starts. The signal comes with the first import of ROS."""
    code = (
        "import os, runpy, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == 'rclpy': os.kill(os.getpid(), signal.{number})\n"
        "sys.meta_path.insert(0, Finder())\n"
        "runpy.run_module('topreward_ros.nodes.video_player', run_name='__main__')"
    )
    player = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (player.returncode, player.stderr) == (0, "")
