"""Hostile texts and unknown numbers over DDS: what `topreward watch` and the monitor's log make of them."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import Image
from topreward_ros.msg import MonitorInfo, TaskEvent, TaskProgress
from topreward_ros.srv import SetTask

from test.hostile import SENT, check_lines
from topreward_ros.nodes import qos

NAMES = ("C0", "C1", "escapes", "lines", "direction", "no text", "markup")
_RICH = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # what rich itself tells a terminal: colours, and where to draw


def _read(descriptor: int, seen: list[bytes]) -> None:
    try:
        while chunk := os.read(descriptor, 65536):
            seen.append(chunk)
    except OSError:  # the other end is closed
        pass


def test_watch(robot, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """On a terminal and without; states and events that this version does not know; then a good score."""
    progress = robot.node.create_publisher(TaskProgress, "/task_progress", qos.progress())
    events = robot.node.create_publisher(TaskEvent, "/task_event", qos.events())
    info = robot.node.create_publisher(MonitorInfo, "/monitor/info", qos.latched())
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "topreward_ros.cli", "watch", "--duration", "600", "--svg"]
    picture = tmp_path / "w.svg"
    environment = {**robot.environment, "COLUMNS": "90", "TERM": "xterm-256color", "PYTHONFAULTHANDLER": "1"}
    output = tmp_path / "lines.txt"
    with output.open("wb") as file:
        lines = subprocess.Popen([*command, picture], env=environment, stdout=file, stderr=subprocess.STDOUT)
    drawn = subprocess.Popen(
        [*command, tmp_path / "d.svg"], env=environment, stdout=follower, stderr=follower
    )
    for process in (lines, drawn):
        request.addfinalizer(process.kill)
    os.close(follower)
    seen: list[bytes] = []
    reader = threading.Thread(target=_read, args=(leader, seen), daemon=True)
    reader.start()
    robot.until(
        lambda: progress.get_subscription_count() == events.get_subscription_count() == 3, "both watch"
    )

    def greet() -> bool:  # again and again: that we know a reader does not say that it knows us
        progress.publish(TaskProgress(episode_id="e", message="hello in a score", num_frames=1))
        events.publish(TaskEvent(episode_id="e", message="hello in an event"))
        return all(heard(store) for store in (output.read_bytes(), b"".join(seen)))

    def heard(said: bytes) -> bool:
        return b"hello in a score" in said and b"hello in an event" in said

    def others() -> list[str]:
        return [line for line in output.read_text().splitlines() if "hello" not in line]

    robot.until(greet, "both know us")
    for k, name in enumerate(NAMES):
        text = SENT[name]
        info.publish(MonitorInfo(model_id=text, device=text, dtype=text, camera_names=[text]))
        events.publish(TaskEvent(episode_id=text, type=77 + k, message=text, instruction=text))
        message = TaskProgress(episode_id=text, instruction=text, message=text, state=99, num_frames=1 + k)
        message.header.frame_id = text
        message.header.stamp.sec = -(2**31) + k
        message.progress, message.log_prob = (float("inf"), -1e300) if k % 2 else (-3e38, float("nan"))
        progress.publish(message)
        robot.until(lambda shown=1 + 3 * (k + 1): len(others()) == shown, f"{name} is shown")
    # A picture every quarter of a second leaves out what something newer replaces.
    robot.until(lambda: all(text in b"".join(seen) for text in (b"state 99", b"event 83")), "that is drawn")
    last = TaskProgress(
        episode_id="e", instruction="good", state=TaskProgress.RUNNING, num_frames=9, progress=0.5
    )
    last.header.stamp.sec = 5
    progress.publish(last)
    robot.until(lambda: b"progress 0.500" in output.read_bytes(), "the good score is shown")
    robot.until(lambda: b"good" in b"".join(seen), "and drawn")
    for process in (lines, drawn):
        process.terminate()
    try:
        lines.wait(60)
        drawn.wait(60)
    except subprocess.TimeoutExpired:
        for process in (lines, drawn):
            process.send_signal(signal.SIGABRT)  # it tells where it hangs
            process.wait()
        pytest.fail(f"it does not end\n{output.read_text()[-3000:]}\n{b''.join(seen)[-3000:].decode()}")
    said = output.read_text()
    reader.join(60)
    os.close(leader)
    assert (lines.returncode, drawn.returncode) == (0, 0), said

    check_lines(said)
    assert "state 99" in said and "event 77" in said and "Traceback" not in said
    assert len(others()) == 1 + 3 * len(NAMES) + 1, said
    terminal = b"".join(seen).decode()
    for row in terminal.replace("\r", "").split("\n"):
        check_lines(_RICH.sub("", row), 1)
    assert "\x1b]" not in terminal and "\x1b[2J" not in terminal
    assert "state 99" in terminal and "event 83" in terminal and "good" in terminal
    for svg in (picture, tmp_path / "d.svg"):
        ElementTree.parse(svg)


def test_the_log_and_the_diagnostics_of_a_monitor(robot) -> None:
    reports: list[DiagnosticArray] = []
    robot.node.create_subscription(DiagnosticArray, "/diagnostics", reports.append, 10)
    monitor = robot.start_monitor(task="open it", diagnostics_rate=5.0)
    for name in NAMES:
        robot.call(SetTask, "monitor/set_task", instruction="open it", episode_id=SENT[name])
        image = Image(encoding=SENT[name], width=4, height=4, step=12, data=[0] * 48)
        image.header.stamp.sec, image.header.frame_id = 1_700_000_000, SENT[name]
        robot.camera.publish(image)
        robot.settle()
    robot.until(lambda: len(reports) > 2, "diagnostics come")
    robot.stop(monitor)
    said = robot.said(monitor)
    assert "skipped an image" in said and "unknown encoding" in said and "Traceback" not in said
    for line in said.splitlines():
        assert re.match(r"\[[A-Z]+\] \[[0-9.]+\] \[monitor\]: ", line), line
        check_lines(line.partition("]: ")[2], 1)
    for status in (status for report in reports for status in report.status):
        for text in (status.name, status.message, status.hardware_id):
            check_lines(text, 1)
        for value in status.values:
            check_lines(value.key, 1)
            check_lines(value.value, 1)
