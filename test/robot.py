"""A monitor in a process of its own, and a node in this one that talks to it over DDS."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("rclpy")

import rclpy
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.client import Client
from rclpy.context import Context
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Float32, String
from topreward_ros.msg import MonitorInfo, TaskEvent, TaskProgress, TaskReward

from topreward_ros.defaults import large_image_environment
from topreward_ros.nodes import qos
from topreward_ros.nodes.demo import free_domain

from .prepared import PreparedProcess

SECOND = 10**9
LONGEST_WAIT = 60.0  # [s] for another process, which may have to start on a busy machine
#: Of a monitor, where a test says nothing else. This process is the camera: it shows one picture of one
#: colour, and may be held up, for longer than the two seconds that are the defaults.
_PATIENCE = {"stale_timeout": 60.0, "frozen_timeout": 0.0, "covered_timeout": 0.0}
_HELD_UP_S = 0.1  # without a turn of a thread that asks for one every 20 ms


Process = subprocess.Popen[bytes] | PreparedProcess


def own_domain() -> int:
    """A free ROS domain that no other process of this test session draws, though they begin at once."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    while (domain := free_domain()) % count != number:
        pass
    return domain


def stamp_of(message: Any) -> int:
    """header.stamp of a message [ns]."""
    return int(message.header.stamp.sec * SECOND + message.header.stamp.nanosec)


class Robot:
    """What surrounds a monitor: one node with cameras, operator and recorder; and the processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "ROS_DOMAIN_ID": str(own_domain()),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            **large_image_environment(os.environ),
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
        }
        self._environment = dict(self.environment)
        self.context = Context()
        rclpy.init(context=self.context, domain_id=int(self.environment["ROS_DOMAIN_ID"]))
        self.node = Node("robot", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.processes: list[Process] = []
        self.clients: dict[str, Client] = {}  # of the services of the newest process
        self.progress: list[TaskProgress] = []
        self.rewards: list[TaskReward] = []
        self.events: list[TaskEvent] = []
        self.states: list[TaskProgress] = []
        self.infos: list[MonitorInfo] = []
        self.progress_values: list[Float32] = []
        for kind, topic, profile, store in (
            (TaskProgress, "task_progress", qos.progress(), self.progress),
            (TaskReward, "task_reward", qos.progress(), self.rewards),
            (TaskEvent, "task_event", qos.events(), self.events),
            (TaskProgress, "task_state", qos.latched(), self.states),
            (MonitorInfo, "monitor/info", qos.latched(), self.infos),
            (Float32, "monitor/progress", qos.progress(), self.progress_values),
        ):
            self.node.create_subscription(kind, topic, store.append, profile)
        self.camera = self.node.create_publisher(Image, "image", qos.image_source())
        self.jpeg_camera = self.node.create_publisher(CompressedImage, "image/compressed", qos.image_source())

    # ---- processes ------------------------------------------------------------------------------

    def start(self, node: str | Path, **parameters: Any) -> Process:
        """Start a node of the package, or a script that is one; what it says goes to `said`."""
        if node == "monitor" or isinstance(node, Path):
            parameters = _PATIENCE | parameters
        while self.clients:
            self.node.destroy_client(self.clients.popitem()[1])
        number = len(self.processes)
        file = self.folder / f"parameters-{number}.yaml"
        file.write_text(yaml.safe_dump({"/**": {"ros__parameters": parameters}}))
        code = (str(node),) if isinstance(node, Path) else ("-m", f"topreward_ros.nodes.{node}")
        return self.run(*code, "--ros-args", "--params-file", str(file))

    def run(self, *arguments: str) -> Process:
        """Start Python with ``arguments``; what it says goes to `said`."""
        path = self.folder / f"log-{len(self.processes)}.txt"
        process: Process
        with path.open("wb") as log:
            if arguments[0] == "-m" and self.environment == self._environment:
                to = log.fileno()
                process = PreparedProcess(arguments[1], arguments[2:], self.environment, stdout=to, stderr=to)
            else:  # a library may read a variable while it is imported
                command = [sys.executable, *arguments]
                process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def start_monitor(self, **parameters: Any) -> Process:
        """Start a monitor and wait until it has loaded its model and watches."""
        process = self.start("monitor", **parameters)
        self.until(lambda: bool(self.infos) or process.poll() is not None, "the monitor is active")
        assert process.poll() is None, self.said(process)
        self.until(
            lambda: self.camera.get_subscription_count() > 0 or self.jpeg_camera.get_subscription_count() > 0,
            "the monitor subscribes",
        )
        self.introduce("monitor")
        return process

    def said(self, process: Process) -> str:
        """Everything that a process wrote so far."""
        return (self.folder / f"log-{self.processes.index(process)}.txt").read_text()

    def stop(self, process: Process, with_signal: int = signal.SIGINT) -> float:
        """Signal a process and wait for its end; returns how long that took [s]."""
        begun = time.monotonic()
        process.send_signal(with_signal)
        process.wait(timeout=LONGEST_WAIT)
        return time.monotonic() - begun

    # ---- spinning -------------------------------------------------------------------------------

    def spin(self, seconds: float) -> None:
        """Take what comes for ``seconds`` in which this process runs: a machine that halts gets them later.

        To see that something does not come, or to let time pass; what has to come is waited for by `until`.
        """
        while seconds > 0:
            begun = time.monotonic()
            self.executor.spin_once(timeout_sec=min(0.05, seconds))
            seconds -= min(time.monotonic() - begun, 0.05)

    def settle(self) -> None:
        """Wait until the monitor has dealt with what was sent to it, and take what it said meanwhile."""
        self.call(GetParameters, "monitor/get_parameters")  # it takes messages before requests
        self.spin(0.2)

    def set_parameter(self, name: str, value: float | str) -> tuple[bool, str]:
        """Set a parameter of the monitor: whether it took it, and else why not."""
        if isinstance(value, float):
            typed = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=value)
        else:
            typed = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=value)
        message = Parameter(name=name, value=typed)
        result = self.call(SetParameters, "monitor/set_parameters", parameters=[message]).results[0]
        return result.successful, result.reason

    def until_all_is_scored(self) -> None:
        """Once nothing more is sent: until the monitor has said all that there is to say of it."""
        self.settle()
        seen, quiet_s = -1, 0.0
        while quiet_s < 1.0:  # a score takes some ten milliseconds
            seen, before = len(self.scored()), seen
            quiet_s = quiet_s + 0.25 if seen == before else 0.0
            self.spin(0.25)

    def until(self, done: Callable[[], bool], what: str, timeout: float = LONGEST_WAIT) -> None:
        """Spin until ``done``; fails with everything the processes said when that takes too long."""
        end = time.monotonic() + timeout
        while not done():
            if time.monotonic() > end:
                pytest.fail(
                    f"waited {timeout:g} s until {what}\n" + "\n".join(map(self.said, self.processes))
                )
            self.executor.spin_once(timeout_sec=0.05)

    def call(self, kind: type, name: str, **request: Any) -> Any:
        """Call a service and return its response."""
        client = self.clients.get(name)
        if client is None:
            client = self.clients[name] = self.node.create_client(kind, name)
            self.introduce(name.rpartition("/")[0])
        self.until(client.service_is_ready, f"service {name} is there")
        future = client.call_async(kind.Request(**request))
        self.until(future.done, f"service {name} answers")
        return future.result()

    def introduce(self, node: str) -> None:
        """Wait until ``node`` knows all that we publish, subscribe to and call.

        That we know its end says nothing: until it knows ours, it takes no image and its answers go nowhere.
        It hears of our ends in order, so it knows them all once it answers a client that was made after them.
        """
        client = self.node.create_client(GetParameters, f"{node}/get_parameters")
        self.until(client.service_is_ready, f"{node} is there")
        answers = [client.call_async(GetParameters.Request())]
        asked = time.monotonic()

        def answered() -> bool:
            nonlocal asked
            if time.monotonic() - asked > 0.5:
                asked = time.monotonic()
                answers.append(client.call_async(GetParameters.Request()))
            return any(answer.done() for answer in answers)

        self.until(answered, f"{node} knows us")
        self.node.destroy_client(client)

    def publisher(self, kind: type, topic: str, profile: QoSProfile, to: str = "monitor") -> Any:
        """A publisher whose first message the node ``to``, which subscribes to ``topic``, takes already."""
        made = self.node.create_publisher(kind, topic, profile)
        self.until(lambda: made.get_subscription_count() > 0, f"{topic} is subscribed to")
        self.introduce(to)
        return made

    def say(self, instruction: str) -> None:
        """Publish an instruction as `ros2 topic pub --once` does: volatile, to whoever is matched."""
        publisher = self.node.create_publisher(String, "task_instruction", qos.instruction_volatile())
        self.until(lambda: publisher.get_subscription_count() >= 1, "the monitor takes instructions")
        publisher.publish(String(data=instruction))
        assert publisher.wait_for_all_acked(Duration(seconds=LONGEST_WAIT)), "the instruction has not arrived"
        self.settle()
        self.node.destroy_publisher(publisher)

    def show(self, message: Image, expect_score: bool = True) -> None:
        """Publish an image; wait for all that is said of it, or long enough to see that it has no score."""
        before = len(self.scored())
        self.camera.publish(message)
        if expect_score:
            self.until(
                lambda: len(self.scored()) > before and self.rewarded() and self.begun(),
                "the image is scored",
            )
        else:
            self.settle()
            self.spin(0.2)  # for the scorer's thread
            assert len(self.scored()) == before

    # ---- what was seen --------------------------------------------------------------------------

    def scored(self) -> list[TaskProgress]:
        """Progress messages with a score, without the heartbeats that repeat them."""
        seen: dict[tuple[str, int], TaskProgress] = {}
        for message in self.progress:
            if message.num_frames:
                seen.setdefault((message.episode_id, stamp_of(message)), message)
        return list(seen.values())

    def rewarded(self) -> bool:
        """Whether the reward of the newest score has arrived, too (it is another topic)."""
        newest, rewards = self.scored()[-1], self.rewards
        return any(r.episode_id == newest.episode_id and stamp_of(r) == stamp_of(newest) for r in rewards)

    def begun(self) -> bool:
        """Whether it has arrived that the newest score's episode began (and with it all events before)."""
        newest = self.scored()[-1]
        return newest.episode_id in {e.episode_id for e in self.events if e.type == TaskEvent.EPISODE_STARTED}

    def event_types(self) -> list[int]:
        return [event.type for event in self.events]

    def forget(self) -> None:
        """Begin a new record; what is latched stays known."""
        for store in (self.progress, self.rewards, self.events, self.states, self.progress_values):
            store.clear()

    def close(self) -> None:
        running = [process for process in self.processes if process.poll() is None]
        for process in running:
            process.terminate()  # killed, it would leave its shared memory behind
        for process in running:
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@dataclass(frozen=True)
class Halt:
    """A time in which this process did not run, and by all appearances the others did not, either."""

    begin_ns: int  #: since the epoch, as the stamps of a video player
    end_ns: int

    def touches(self, stamp_ns: int) -> bool:
        """Whether an image of that time, sent late with those that followed it, may have been lost.

        Best effort keeps the newest image; what comes at once after a halt is more than one.
        """
        return self.begin_ns - SECOND // 4 <= stamp_ns <= self.end_ns + SECOND // 4


@pytest.fixture
def halts() -> Iterator[list[Halt]]:
    """When the machine was held up so far: what best effort loses then is not the fault of who is tested."""
    seen: list[Halt] = []
    over = threading.Event()

    def look() -> None:
        last_ns = time.time_ns()
        while not over.wait(0.02):
            now_ns = time.time_ns()
            if now_ns - last_ns > _HELD_UP_S * SECOND:
                seen.append(Halt(last_ns, now_ns))
            last_ns = now_ns

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    yield seen
    over.set()
    thread.join()


@pytest.fixture
def shared_memory() -> Callable[[int], list[Path]]:
    """What a running process holds in /dev/shm. Fast DDS leaves it there when it is not closed in order."""

    def held(pid: int) -> list[Path]:
        segments: list[Path] = []
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(FileNotFoundError):  # closed meanwhile
                lock = os.readlink(entry.path)
                if re.fullmatch(r"/dev/shm/fast(rtps|dds)_[0-9a-z]{16}_el", lock):
                    segments += [Path(lock), Path(lock.removesuffix("_el"))]
        if rclpy.get_rmw_implementation_identifier() == "rmw_fastrtps_cpp" and Path("/dev/shm").is_dir():
            assert segments and all(segment.exists() for segment in segments)
        return segments

    return held


@pytest.fixture
def robot(tmp_path: Path) -> Iterator[Robot]:
    robot = Robot(tmp_path)
    yield robot
    robot.close()


@pytest.fixture(scope="module")
def shared_robot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Robot]:
    """One for a whole module, where a new monitor for every test would only cost time."""
    robot = Robot(tmp_path_factory.mktemp("robot"))
    yield robot
    robot.close()
