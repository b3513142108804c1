"""`topreward watch` and `topreward demo` as real processes, beside a real monitor and player over DDS."""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from test.videos import write_block

pytest.importorskip("rclpy")

from std_msgs.msg import Float32
from topreward_ros.msg import TaskProgress

from test.robot import own_domain
from topreward_ros.defaults import fast_dds_profile_variables
from topreward_ros.nodes import qos
from topreward_ros.nodes.demo import free_domain
from topreward_ros.scoring.checkpoint.random_weights import make_random_checkpoint

COMMAND = [sys.executable, "-m", "topreward_ros.cli"]
VERBATIM = """yes: {x: [1]} 'q' "dq" <|im_end|> $HOME \\n ünï 😀 # no"""


class Command:
    """A running `topreward`, with its output as it comes."""

    def __init__(self, environment: dict[str, str], *arguments: object, terminal: bool = False) -> None:
        self.said = ""
        leader, follower = pty.openpty() if terminal else os.pipe()
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=follower,
            stderr=subprocess.STDOUT,
            env={**environment, "COLUMNS": "90", "TERM": "xterm-256color"},
            start_new_session=True,
        )
        os.close(follower)
        self._reader = threading.Thread(target=self._read, args=(leader,), daemon=True)
        self._reader.start()

    def _read(self, descriptor: int) -> None:
        try:
            while chunk := os.read(descriptor, 65536):
                self.said += chunk.decode(errors="replace")
        except OSError:  # how a terminal says that the other end is closed
            pass
        os.close(descriptor)

    def until(self, done: Callable[[], bool], timeout: float = 60.0) -> None:
        end = time.monotonic() + timeout
        while not done():
            assert time.monotonic() < end, f"still waiting; so far:\n{self.said}"
            time.sleep(0.05)

    def status(self, timeout: float = 60.0) -> int:
        """Its exit status, when it has ended by itself."""
        status = self.process.wait(timeout)
        self._reader.join(5.0)
        return status

    def stop(self, number: int = signal.SIGINT) -> tuple[int, float]:
        """Signal it; its exit status and how long it took [s]."""
        begun = time.monotonic()
        self.process.send_signal(number)
        return self.status(), time.monotonic() - begun

    def children(self) -> list[int]:
        task = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in task.read_text().split()]


@pytest.fixture
def run() -> Iterator[Callable[..., Command]]:
    """Starts `topreward ARGUMENTS`, and ends what is left of it and of its children after the test."""
    commands: list[Command] = []

    def start(environment: dict[str, str], *arguments: object, terminal: bool = False) -> Command:
        commands.append(Command(environment, *arguments, terminal=terminal))
        return commands[-1]

    yield start
    for command in commands:
        if command.process.poll() is None:
            command.stop(signal.SIGTERM)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3 s at 10 Hz: a block that moves to the right."""
    return write_block(tmp_path_factory.mktemp("video") / "block.mp4", 160, 120)


def scores_in(said: str) -> list[tuple[float, float]]:
    """Time [s] and log-probability [nat] of every line that is a score."""
    return [
        (float(t), float(r))
        for t, r in re.findall(r"([\d.]+) s  \w+ +progress .* log p (-[\d.]+) nat, ", said)
    ]


def check_times(times: list[float], halts: list[Any]) -> None:
    """That they are those of the frames due in ``video``, as far as best effort goes.

    Only the newest image waits for the monitor. Where a busy machine held it up, the frame of a slot is
    gone and the next one takes its place; the slots themselves stay where they are, every 0.5 s. A machine
    that halts may cost every slot that it halts in.
    """
    lost = sum(1 + (halt.end_ns - halt.begin_ns) // 500_000_000 for halt in halts)
    slots: list[int] = []
    for t in times:
        # A frame may come half the shortest interval seen before its slot, 0.125 s at most: 0.05 s at 10 Hz,
        # and more while images were lost from the first one on.
        possible = {int((t + early) // 0.5) for early in (0.05, 0.125)}
        slot = min((slot for slot in possible if not slots or slot > slots[-1]), default=None)
        assert slot is not None, f"two frames of one slot, or out of order: {times}"
        slots.append(slot)
    assert len(set(slots) & set(range(7))) >= max(2, 6 - lost), f"too many slots without a frame: {times}"
    assert [round(t, 1) for t in times] == pytest.approx(times) and times[0] == 0.0 and times[-1] <= 3.0
    on_time = [t for t, slot in zip(times, slots, strict=True) if t == pytest.approx(0.5 * slot)]
    assert len(on_time) >= max(1, 5 - lost), f"few of the due frames themselves: {times}"


def is_running(pid: int) -> bool:
    """Whether it is there and more than a name that nobody has collected yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# ---- watch -------------------------------------------------------------------------------------------


def test_watch_prints_a_line_per_score(robot, run, video: Path, tmp_path: Path, halts) -> None:
    picture = tmp_path / "watch.svg"
    lines = run(robot.environment, "watch", "--svg", picture)
    terminal = run(robot.environment, "watch", terminal=True)
    once = run(robot.environment, "watch", "--once")
    lines.until(lambda: "watching /task_progress" in lines.said)
    model = make_random_checkpoint(tmp_path / "small")
    robot.start_monitor(task=VERBATIM, model=str(model))
    lines.until(lambda: f"model {model}, cpu" in lines.said)
    assert once.process.poll() is None, "--once waits for a score, not for a heartbeat"
    halts.clear()
    player = robot.start("video_player", video=str(video))
    robot.until(lambda: player.poll() is not None, "the video has been played")
    robot.until_all_is_scored()
    scored = robot.scored()
    times = [m.elapsed.sec + 1e-9 * m.elapsed.nanosec for m in scored]
    check_times(times, halts)
    lines.until(lambda: len(scores_in(lines.said)) == len(scored))
    terminal.until(lambda: f"{times[-1]:.1f} s" in terminal.said)

    assert [t for t, _ in scores_in(lines.said)] == pytest.approx(times, abs=1e-6)
    assert [r for _, r in scores_in(lines.said)] == pytest.approx([m.log_prob for m in scored], abs=1e-3)
    assert f"EPISODE_STARTED: watching for: {VERBATIM}" in lines.said
    told = [line for line in lines.said.splitlines() if scores_in(line)]
    assert told and all("random weights" in line for line in told)
    assert once.status() == 0 and len(scores_in(once.said)) == 1

    assert "\x1b[" in terminal.said and "random weights: the numbers mean nothing" in terminal.said
    for command in (lines, terminal):
        status, seconds = command.stop()
        assert status == 0 and seconds < 3.0, command.said
        assert "Traceback" not in command.said
    text = picture.read_text()
    assert text.startswith("<svg") and "random" in text and "EPISODE_STARTED" in text
    assert "http" not in text.replace("http://www.w3.org", "").replace("https://www.textualize.io", "")


def test_watch_in_a_namespace_ends_after_its_duration(robot, run) -> None:
    publisher = robot.node.create_publisher(TaskProgress, "/arm/task_progress", qos.progress())
    named = run(robot.environment, "watch", "--once", "--topic", "/arm/task_progress")
    robot.until(lambda: publisher.get_subscription_count() == 1, "one watches the topic")
    remapped = run(robot.environment, "watch", "--duration", 10, "--ros-args", "-r", "__ns:=/arm")
    robot.until(lambda: publisher.get_subscription_count() == 2, "both watch the topic")
    message = TaskProgress(episode_id="e", instruction="x", state=TaskProgress.RUNNING, num_frames=2)
    message.header.stamp.sec = 5
    message.log_prob, message.progress = -1.5, 0.25

    def show() -> bool:  # again and again: that we know a reader does not say that it knows us
        publisher.publish(message)
        return named.process.poll() is not None and remapped.process.poll() is not None

    robot.until(show, "both end")
    assert named.status() == 0 and "progress 0.250" in named.said
    assert remapped.status() == 0
    assert scores_in(remapped.said) == [(0.0, -1.5)]


def test_watch_says_what_to_check_when_nothing_comes(robot, run) -> None:
    robot.node.create_publisher(TaskProgress, "/arm/task_progress", qos.progress())
    command, short, longer = (
        run(robot.environment, "watch", *options)
        for options in ((), ("--duration", 0.5), ("--duration", 4, "--topic", "/nix"))
    )
    command.until(
        lambda: "other topics of this type: /arm/task_progress; choose one with --topic" in command.said
    )
    domain = robot.environment["ROS_DOMAIN_ID"]
    assert re.search(rf"nothing on /task_progress for \d+ s \(ROS_DOMAIN_ID {domain}\)", command.said)
    assert "nobody publishes it: is the monitor running" in command.said
    command.stop()
    assert short.status() == 1
    assert short.said.splitlines()[-1] == "topreward: no score came on /task_progress within 0.5 s"
    assert "nodes may need 1.5 s to find each other" in short.said
    assert longer.status() == 1 and "may need" not in longer.said
    assert re.search(r"nothing on /nix for \d s", longer.said)  # it began to listen a while after it started
    assert "nobody publishes it: is the monitor" in longer.said
    assert "other topics of this type: /arm/task_progress; choose one with --topic" in longer.said


def test_watch_says_what_a_topic_that_is_not_watched_lacks(robot, run) -> None:
    """A monitor that publishes is not said to load; what has another type or no publisher is not offered."""
    robot.start_monitor(task="open the drawer")
    robot.until(lambda: bool(robot.progress), "it publishes")
    values = [robot.node.create_publisher(Float32, "/values", qos.progress()) for _ in "12"]
    robot.node.create_subscription(TaskProgress, "/only/heard", lambda _: None, qos.progress())
    unknown, value, values_of_two = (
        run(robot.environment, "watch", "--topic", topic)
        for topic in ("/nix", "/monitor/progress", "/values")
    )
    others = "other topics of this type: /task_progress; choose one with --topic"
    for command in (unknown, value, values_of_two):
        command.until(lambda command=command: others in command.said)
        assert "/only/heard" not in command.said and "is it active" not in command.said
    assert "nobody publishes it: /monitor is there and has its TaskProgress on /task_progress" in unknown.said
    assert "loads its model" not in unknown.said
    another = "published with another type than topreward_ros/msg/TaskProgress"
    assert f"{another} (/monitor: std_msgs/msg/Float32)" in value.said
    assert f"{another} (/robot: std_msgs/msg/Float32)" in values_of_two.said
    assert "scores are mixed" not in values_of_two.said and len(values) == 2


def test_watch_tells_of_a_monitor_that_waits_for_its_server(robot, run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    lines, picture = run(robot.environment, "watch"), run(robot.environment, "watch", terminal=True)
    robot.start("monitor", model=f"http://127.0.0.1:{port}")
    for command in (lines, picture):
        command.until(lambda command=command: f"127.0.0.1:{port} cannot be reached" in command.said)
    lines.until(lambda: lines.said.count("waiting for it: nothing is watched yet") >= 2)
    assert "is the monitor running" not in lines.said.partition(f":{port} cannot")[2], "it is there"


def test_watch_names_a_publisher_that_is_silent(robot, run) -> None:
    robot.node.create_publisher(TaskProgress, "/task_progress", qos.progress())
    command = run(robot.environment, "watch")
    command.until(lambda: "ros2 lifecycle get /robot" in command.said)
    assert command.stop(signal.SIGTERM)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--topic", "no topic"], "topreward: topic 'no topic' is not a name"),
        (["--ros-args", "-r", "x"], "topreward: ROS 2 does not start (--ros-args -r x)"),
        (["--svg", "/no/such/folder/x.svg"], "topreward: /no/such/folder/x.svg cannot be written"),
    ],
)
def test_watch_refuses_what_cannot_be(run, arguments: list[str], said: str) -> None:
    command = run(dict(os.environ), "watch", *arguments)
    assert command.status() == 1
    assert said in command.said and "Traceback" not in command.said


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("ROS_DOMAIN_ID", "abc", "ROS_DOMAIN_ID=abc is no ROS domain: set it to a number from 0 to 101"),
        ("ROS_DOMAIN_ID", "999", "ROS_DOMAIN_ID=999 is no ROS domain: set it to a number from 0 to 101"),
        ("ROS_LOG_DIR", "/proc/no", "ROS_LOG_DIR=/proc/no cannot be used"),
    ],
)
@pytest.mark.parametrize("name", ["watch", "demo"])
def test_a_variable_that_cannot_be_is_named(run, variable: str, value: str, said: str, name: str) -> None:
    command = run({**os.environ, variable: value}, name)
    assert command.status() == 1
    assert command.said.startswith(f"topreward: {said}") and len(command.said.splitlines()) == 1


def test_watch_hears_a_latched_topic_and_names_several_publishers(robot, run) -> None:
    latched = robot.node.create_publisher(TaskProgress, "/task_state", qos.latched())
    message = TaskProgress(episode_id="e", instruction="x", state=TaskProgress.RUNNING, num_frames=2)
    message.progress = 0.25
    latched.publish(message)
    command = run(robot.environment, "watch", "--once", "--topic", "/task_state", "--duration", 55)
    assert command.status() == 0 and "progress 0.250" in command.said
    publishers = [robot.node.create_publisher(TaskProgress, "/task_progress", qos.progress()) for _ in "12"]
    assert len(publishers) == 2
    command = run(robot.environment, "watch")
    command.until(
        lambda: "2 nodes publish /task_progress, their scores are mixed: /robot, /robot" in command.said
    )
    command.stop()


def test_a_reader_that_leaves_ends_watch(robot) -> None:
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [*COMMAND, "watch", "--duration", "600"], stdout=writer, stderr=subprocess.PIPE, env=robot.environment
    )
    os.close(writer)
    os.close(reader)
    assert process.communicate(timeout=60)[1] == b"" and process.returncode == 1


def test_a_terminal_without_utf_8_gets_lines(robot, run) -> None:
    command = run(
        {**robot.environment, "PYTHONIOENCODING": "latin-1"}, "watch", "--duration", 2, terminal=True
    )
    assert command.status() == 1
    assert "watching /task_progress" in command.said and "\x1b[?25l" not in command.said


# ---- demo --------------------------------------------------------------------------------------------


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """As of a user who has set nothing; files of the demonstration go to ``tmp_path``."""
    unset = ("ROS_DOMAIN_ID", *fast_dds_profile_variables(os.environ))
    kept = {k: v for k, v in os.environ.items() if k not in unset}
    return {**kept, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}


@pytest.mark.installed
def test_demo_plays_scores_and_ends_by_itself(run, environment, video: Path, tmp_path: Path, halts) -> None:
    picture = tmp_path / "demo.svg"
    model = make_random_checkpoint(tmp_path / "small")
    options = ["--video", video, "--task", VERBATIM, "--svg", picture, "--model", model]
    command = run(environment, "demo", *options)
    command.until(lambda: len(command.children()) == 2 or command.process.poll() is not None)
    children = command.children()
    assert command.status(90.0) == 0, command.said
    times = [t for t, _ in scores_in(command.said)]
    check_times(times, halts)
    assert f"EPISODE_STARTED: watching for: {VERBATIM}" in command.said
    summary = next(line for line in command.said.splitlines() if line.startswith("demo: "))
    assert summary.startswith(f"demo: {len(times)} scores of 7 due frames, final progress ")
    assert "median latency" in summary and "random weights" in summary
    assert "block.mp4" in picture.read_text() and "random" in picture.read_text()
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)
    assert list(tmp_path.glob("topreward-demo-*")) == []


def test_a_task_alone_is_asked_of_the_shipped_video_as_parameters_say(run, environment) -> None:
    """And nothing is expected of it."""
    command = run(environment, "demo", "--task", "close the drawer", "--set", "sample_rate=1")
    command.until(lambda: len(scores_in(command.said)) >= 3, timeout=90.0)
    times = [t for t, _ in scores_in(command.said)]
    assert np.diff(times[:3]) == pytest.approx([1.0, 1.0], abs=0.15)
    assert "watching for: close the drawer" in command.said and "1 of 3" not in command.said
    command.stop()


def test_demo_shows_why_a_child_died(run, environment, video: Path) -> None:
    command = run(environment, "demo", "--video", video, "--task", "x", "--set", "device=cuda:99")
    assert command.status() == 1
    assert "the monitor ended with status 1" in command.said
    assert "device 'cuda:99' was asked for" in command.said
    log = re.search(r"all of (\S+monitor\.log)\)", command.said)
    assert log is not None and "cuda:99" in Path(log[1]).read_text()


def test_demo_starts_nothing_with_a_model_that_is_not_there(run, environment, video: Path) -> None:
    command = run(environment, "demo", "--video", video, "--task", "x", "--model", "/no/such/model")
    assert command.status() == 1
    assert "model '/no/such/model': no such folder" in command.said
    assert "the monitor ended" not in command.said


def test_demo_notices_a_child_that_is_killed(run, environment, video: Path) -> None:
    command = run(environment, "demo", "--video", video, "--task", "x")
    command.until(lambda: "model embedded" in command.said and len(command.children()) == 2)
    monitor, player = command.children()
    os.kill(monitor, signal.SIGKILL)
    assert command.status() == 1
    assert "the monitor ended with status -9" in command.said
    assert not Path(f"/proc/{player}").exists()


@pytest.mark.parametrize("terminal", [pytest.param(False, marks=pytest.mark.installed), True])
def test_ctrl_c_ends_the_demo_and_its_children(
    run, environment, terminal: bool, tmp_path: Path, shared_memory
) -> None:
    command = run(environment, "demo", terminal=terminal)
    command.until(lambda: "RUNNING" in command.said)
    children = command.children()
    segments = [path for pid in (command.process.pid, *children) for path in shared_memory(pid)]
    status, seconds = command.stop(signal.SIGINT)
    assert status == 130 and seconds < 3.0, command.said
    assert len(children) == 2 and not any(Path(f"/proc/{pid}").exists() for pid in children)
    assert not any(path.exists() for path in segments), "memory lost"
    assert "Traceback" not in command.said
    assert list(tmp_path.glob("topreward-demo-*")) == []


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="no setpriv (util-linux)")
@pytest.mark.parametrize("wait_s", [0.0, 1.0, 4.0], ids="after {} s".format)
def test_children_end_with_a_demo_that_is_killed(run, environment, wait_s: float) -> None:
    """Also while they still import."""
    command = run(environment, "demo")
    command.until(lambda: bool(command.children()))
    time.sleep(wait_s)
    children = command.children()
    command.stop(signal.SIGKILL)
    command.until(lambda: not any(map(is_running, children)))


def test_the_folder_of_a_demo_that_was_killed_goes_with_the_next(run, environment, tmp_path: Path) -> None:
    killed = run(environment, "demo")
    killed.until(lambda: bool(killed.children()))
    killed.stop(signal.SIGKILL)
    (left,) = tmp_path.glob("topreward-demo-*")
    following = run(environment, "demo")
    following.until(lambda: bool(following.children()))
    assert not left.exists() and len(list(tmp_path.glob("topreward-demo-*"))) == 1
    assert following.stop(signal.SIGINT)[0] == 130
    assert list(tmp_path.glob("topreward-demo-*")) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("wait_s", [0.0, 0.3, 1.0, 2.0], ids="after {} s".format)
def test_children_that_still_import_end_with_the_demo(run, environment, wait_s: float, number: int) -> None:
    command = run(environment, "demo")
    command.until(lambda: bool(command.children()))
    time.sleep(wait_s)
    children = command.children()
    status, seconds = command.stop(number)
    assert status == 128 + number and seconds < 3.0, command.said
    assert not any(map(is_running, children)) and "Traceback" not in command.said


def test_a_domain_in_use_is_not_drawn() -> None:
    domain = free_domain()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("", 7410 + 250 * domain))
        assert all(free_domain() != domain for _ in range(300))


def test_demo_refuses_a_domain_in_which_others_publish(robot, run, environment) -> None:
    robot.node.create_publisher(TaskProgress, "/task_progress", qos.progress())
    domain = robot.environment["ROS_DOMAIN_ID"]
    command = run({**environment, "ROS_DOMAIN_ID": domain}, "demo")
    assert command.status() == 1
    assert command.said == (
        f"topreward: /robot already publishes task_progress in ROS_DOMAIN_ID={domain}; "
        "end it, or have a free domain drawn: ROS_DOMAIN_ID= topreward demo\n"
    )
    empty = run({**environment, "ROS_DOMAIN_ID": ""}, "demo")
    empty.until(lambda: len(empty.children()) == 2)
    assert empty.stop()[0] == 130


def test_demo_waits_for_others_that_answer_late(run, environment, video: Path, tmp_path: Path) -> None:
    """They hold a port of the domain, so it is known that they are there; here they are halted meanwhile."""
    environment |= {"ROS_DOMAIN_ID": str(own_domain()), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    module = [sys.executable, "-m", "topreward_ros.nodes.video_player"]
    arguments = ["-p", f"video:={video}", "-p", "wait_for_subscriber:=600.0"]
    log = tmp_path / "player.log"
    with log.open("wb") as output:
        player = subprocess.Popen([*module, "--ros-args", *arguments], stderr=output, env=environment)
    try:
        end = time.monotonic() + 60.0
        while "waiting up to" not in log.read_text():
            assert player.poll() is None and time.monotonic() < end
            time.sleep(0.05)
        player.send_signal(signal.SIGSTOP)
        command = run(environment, "demo")
        command.until(lambda: command.process.poll() is not None or _participants_in(environment) == 2)
        time.sleep(2.5)  # longer than nodes need that are not halted
        player.send_signal(signal.SIGCONT)
        assert command.status() == 1
        assert "/video_player already publishes image in ROS_DOMAIN_ID=" in command.said
    finally:
        player.send_signal(signal.SIGCONT)
        player.terminate()
        player.wait(60.0)


def _participants_in(environment: dict[str, str]) -> int:
    """How many processes hold one of the first discovery ports of the domain."""
    count = 0
    for participant in range(4):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", 7410 + 250 * int(environment["ROS_DOMAIN_ID"]) + 2 * participant))
            except OSError:
                count += 1
    return count
