"""Two robots on one server: each with a monitor and a video player of its own, all of them processes.

The monitors start before their server. It is killed in the middle of both episodes, and started again.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("ray.serve")

from topreward_ros.msg import TaskEvent

from test.robot import Robot, stamp_of
from topreward_ros.defaults import DEMO_TASK, DEMO_VIDEO, shared_file

ROOT = Path(__file__).resolve().parents[2]
LONGEST_S = 300.0  # [s] for Ray Serve to start on a busy machine
NAT = 1e-4
_MARK = "TOPREWARD_TEST_SERVER"


class Server:
    """`topreward serve` as a process, with the processes that Ray starts for it."""

    def __init__(self, folder: Path, port: int) -> None:
        self._log = folder / "server.txt"
        self._port = port
        self._mark = ""

    def start(self) -> None:
        self._mark = token_hex(8)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), _MARK: self._mark, "TOPREWARD_TOKEN": "sesame"}
        command = [sys.executable, "-m", "topreward_ros.cli", "serve", "--port", str(self._port)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)

    def is_ready(self) -> bool:
        said = self._log.read_text(errors="replace")
        assert self._process.poll() is None, said
        return "serving model 'embedded'" in said

    def pids(self) -> list[int]:
        """All of its processes."""
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdigit() and f"{_MARK}={self._mark}\0" in (entry / "environ").read_text():
                    found.append(int(entry.name))
        return found

    def kill(self) -> None:
        """End it as a power cut does."""
        if not self._mark:
            return
        while pids := self.pids():
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.poll()
            time.sleep(0.1)
        self._process.wait()

    def stop(self) -> int:
        """End it in order; returns its status."""
        self._process.terminate()
        return self._process.wait(LONGEST_S)

    def listens_at(self) -> set[str]:
        """The addresses of all its listening sockets, in hex as the kernel shows them, without ports."""
        inodes = set()
        for pid in self.pids():
            with suppress(OSError):
                for entry in os.scandir(f"/proc/{pid}/fd"):
                    with suppress(OSError):
                        inodes.add(os.readlink(entry.path))
        found = set()
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                    found.add(fields[1].partition(":")[0])
        return found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    made = Server(tmp_path, port)
    yield made
    made.kill()


class Watched:
    """A robot with its monitor and player."""

    def __init__(self, folder: Path, url: str) -> None:
        folder.mkdir()
        self.robot = Robot(folder)
        self.compared = folder / "compared.jsonl"
        self.robot.environment |= {"COMPARED_FILE": str(self.compared), "TOPREWARD_TOKEN": "sesame"}
        parameters = folder / "monitor.yaml"
        values = f"{{model: '{url}', task: {DEMO_TASK}, end_episode_on_success: false, episode_timeout: 0.0}}"
        parameters.write_text(f"/**: {{ros__parameters: {values}}}")
        self.monitor = self.robot.run(
            str(ROOT / "test/ros/comparing_monitor.py"), "--ros-args", "--params-file", str(parameters)
        )

    def play(self) -> None:
        self.robot.start("video_player", video=str(shared_file(DEMO_VIDEO)), loop=True)

    def until(self, done: Callable[[], bool], what: str) -> None:
        self.robot.until(lambda: done() or self.monitor.poll() is not None, what, LONGEST_S)
        assert self.monitor.poll() is None, self.robot.said(self.monitor)

    def scores(self) -> int:
        return len(self.robot.scored())

    def errors(self) -> list[Any]:
        return [event for event in self.robot.events if event.type == TaskEvent.SCORER_ERROR]

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.compared.read_text().splitlines()]


@pytest.fixture
def watched(tmp_path: Path, server: Server) -> Iterator[list[Watched]]:
    made = [Watched(tmp_path / name, f"http://127.0.0.1:{server._port}") for name in ("arm1", "arm2")]
    yield made
    for one in made:
        one.robot.close()


def test_two_robots_keep_their_curves_through_the_death_of_their_server(
    server: Server, watched: list[Watched]
) -> None:
    for one in watched:
        one.until(lambda one=one: "waiting for it" in one.robot.said(one.monitor), "it waits for the server")
    server.start()
    watched[0].until(server.is_ready, "the server serves")
    assert server.listens_at() <= {"0100007F", "0000000000000000FFFF00000100007F"}, "127.0.0.1 alone"
    for one in watched:
        one.until(lambda one=one: bool(one.robot.infos), "the monitor is active")
        one.play()
    for one in watched:
        one.until(lambda one=one: one.scores() >= 6, "there are scores")
        assert one.robot.infos[-1].device.startswith("cpu at http://127.0.0.1:")
        assert one.robot.infos[-1].model_id == "embedded"

    server.kill()
    for one in watched:
        one.until(lambda one=one: bool(one.errors()), "SCORER_ERROR says that the server is gone")
        assert "cannot be reached" in one.errors()[-1].message
    before = [one.scores() for one in watched]
    server.start()
    for one, scores in zip(watched, before, strict=True):
        one.until(lambda one=one, scores=scores: one.scores() >= scores + 6, "there are scores again")

    for one in watched:
        published = {stamp_of(message): message for message in one.robot.scored()}
        assert len({message.episode_id for message in published.values()}) == 1, "one episode throughout"
        lines = one.lines()
        assert {line["stamp"] for line in lines} >= published.keys()
        for line in lines:
            assert line["frames"][0] == line["frames"][1]
            for name in ("log_prob", "log_prob_static"):
                found, expected = line[name]  # an extra look has no baseline
                assert found == pytest.approx(expected, abs=NAT, nan_ok=True), (name, line)
        for line in lines:
            if line["stamp"] in published:
                assert published[line["stamp"]].log_prob == pytest.approx(line["log_prob"][0], abs=1e-6)
    assert server.stop() == 0
