"""A scorer that raises, gives no number, or hangs: it is told, never progress, and the node lives on."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from std_srvs.srv import Trigger
from topreward_ros.msg import TaskEvent, TaskProgress

from test.faults.pictures import TASK, picture

MONITOR = Path(__file__).with_name("faulty_monitor.py")


def test_what_a_scorer_may_do(robot: Any) -> None:
    """One process: its faults one after the other, good scores in between, and in the end it hangs."""
    fault = robot.folder / "fault.txt"
    robot.environment["FAULT_FILE"] = str(fault)
    fault.write_text("-4.0")
    process = robot.start(
        MONITOR, task=TASK, sample_rate=20.0, heartbeat_rate=5.0, diagnostics_rate=5.0, success_dwell=0.0
    )
    robot.until(lambda: bool(robot.infos) or process.poll() is not None, "the monitor is active")
    robot.introduce("monitor")
    levels: list[bytes] = []  # of the scorer
    robot.node.create_subscription(
        DiagnosticArray,
        "/diagnostics",
        lambda m: levels.extend(s.level for s in m.status if s.name.endswith(": scorer")),
        10,
    )

    def show_until(done: Any, what: str) -> None:
        end = time.monotonic() + 60.0
        while not done():
            assert time.monotonic() < end, f"{what}\n{robot.said(process)}"
            robot.camera.publish(picture(time.time_ns()))
            robot.spin(0.05)

    for what, said in (
        ("raise", "what no scorer says"),
        ("nan", "the scorer gave nan"),
        ("inf", "the scorer gave inf"),
        ("-inf", "the scorer gave -inf"),
        ("1000.0", "the scorer gave 1000.0"),
    ):
        fault.write_text("-4.0")
        robot.call(Trigger, "monitor/reset")
        robot.forget()
        show_until(robot.scored, "a good score")
        show_until(lambda: not robot.states[-1].message, "what is latched is of now")
        fault.write_text(what)
        show_until(lambda: TaskEvent.SCORER_ERROR in robot.event_types(), f"{what} is told")
        (error, *_) = (event for event in robot.events if event.type == TaskEvent.SCORER_ERROR)
        assert said in error.message and "\x1b" not in error.message
        show_until(lambda said=said: said in robot.states[-1].message, "the latched state says so, too")
        assert TaskEvent.SUCCESS not in robot.event_types()
        assert {message.log_prob for message in robot.scored()} == {-4.0}
        assert all(message.progress == 0.5 or math.isnan(message.progress) for message in robot.progress)
    show_until(lambda: DiagnosticStatus.ERROR in levels, "so do the diagnostics")
    robot.call(Trigger, "monitor/reset")
    levels.clear()
    robot.until(lambda: len(levels) > 1, "the diagnostics go on")
    assert DiagnosticStatus.ERROR not in levels[1:], "an error ends with its episode"
    fault.write_text("hang")
    robot.call(Trigger, "monitor/reset")
    robot.forget()
    levels.clear()
    show_until(lambda: TaskEvent.SCORER_ERROR in robot.event_types(), "that it hangs is told")
    heartbeats = len(robot.progress)
    show_until(lambda: len(robot.progress) >= heartbeats + 5, "the heartbeat goes on")
    assert robot.progress[-1].state == TaskProgress.RUNNING and math.isnan(robot.progress[-1].progress)
    assert robot.progress[-1].message == "the scorer has not answered for more than 2 s"
    assert robot.states[-1].message == robot.progress[-1].message
    assert robot.event_types()[-2:] == [TaskEvent.EPISODE_STARTED, TaskEvent.SCORER_ERROR], "once"
    assert robot.events[-1].message.startswith("the scorer has not answered for more than 2 s")
    fault.write_text("-4.0")
    show_until(lambda: robot.scored() and not robot.progress[-1].message, "it answers again")
    show_until(lambda: not robot.states[-1].message, "nobody who comes later is told of it")
    fault.write_text("hang")
    show_until(lambda: robot.event_types().count(TaskEvent.SCORER_ERROR) == 2, "another hang is told, too")
    assert robot.call(Trigger, "monitor/reset").success, "it still answers"
    robot.until(lambda: TaskEvent.EPISODE_ENDED in robot.event_types(), "the episode ends all the same")
    assert "\x1b" not in robot.said(process)
    assert robot.stop(process) < 3.0 and process.returncode == 0, robot.said(process)
