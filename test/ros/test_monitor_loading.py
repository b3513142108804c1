"""A monitor whose model takes for ever to load answers all the same.

The model's folder blocks, as a dead disk does: with a lease on a file, whoever opens the file waits.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetAvailableTransitions, GetState
from rcl_interfaces.srv import GetParameters
from rclpy.duration import Duration
from std_msgs.msg import String
from topreward_ros.msg import TaskProgress

from topreward_ros.nodes import qos
from topreward_ros.nodes.graph import why_unpublished
from topreward_ros.scoring.checkpoint.random_weights import make_random_checkpoint


class Blocked:
    """A checkpoint whose config.json cannot be opened for now."""

    def __init__(self, folder: Path) -> None:
        self.folder = make_random_checkpoint(folder)
        self._file = os.open(self.folder / "config.json", os.O_RDWR)
        fcntl.fcntl(self._file, fcntl.F_SETSIG, signal.SIGURG)  # which nobody minds
        fcntl.fcntl(self._file, fcntl.F_SETLEASE, fcntl.F_WRLCK)

    def is_wanted(self) -> bool:
        return fcntl.fcntl(self._file, fcntl.F_GETLEASE) != fcntl.F_WRLCK

    def release(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


@pytest.fixture
def blocked(tmp_path: Path) -> Iterator[Blocked]:
    made = Blocked(tmp_path / "checkpoint")
    yield made
    made.release()


def ask(robot, kind: type, name: str, **request: Any) -> Any:
    """Call a service without waiting; the answer is a future."""
    client = robot.node.create_client(kind, name)
    robot.until(client.service_is_ready, f"service {name} is there")
    return client.call_async(kind.Request(**request))


def change_state(robot, label: str) -> bool:
    return robot.call(ChangeState, "monitor/change_state", transition=Transition(label=label)).success


def test_services_answer_while_the_model_loads_by_itself(robot, blocked) -> None:
    process = robot.start("monitor", model=str(blocked.folder), task="stack the cup", max_frames=1024)
    robot.until(blocked.is_wanted, "it opens the file")
    for _ in range(3):
        assert robot.call(GetState, "monitor/get_state").current_state.label == "configuring"
        answer = robot.call(GetParameters, "monitor/get_parameters", names=["task"])
        assert answer.values[0].string_value == "stack the cup"
    assert not change_state(robot, "activate"), "it activates itself once it can"
    assert "wait until it has configured" in robot.said(process)
    robot.until(
        lambda: "it still loads its model" in why_unpublished(robot.node, "/task_progress", TaskProgress),
        "its name is known",
    )
    assert "is the monitor running" in why_unpublished(robot.node, "/arm/task_progress", TaskProgress)
    told = robot.publisher(String, "task_instruction", qos.instruction_volatile())
    told.publish(String(data="x" * 3000))
    robot.until(lambda: "task_instruction has" in robot.said(process), "what is refused is said")
    for task in ("open the drawer", "fold the towel"):
        told.publish(String(data=task))
    assert told.wait_for_all_acked(Duration(seconds=10.0))
    blocked.release()
    robot.until(lambda: bool(robot.infos), "it is active once the model is loaded")
    robot.until(lambda: bool(robot.progress), "it says what it watches")
    assert {report.instruction for report in robot.progress} == {"fold the towel"}
    assert "max_frames is 1024: " in robot.said(process), "frames are smaller than usual"
    assert robot.stop(process) < 3.0 and process.returncode == 0, robot.said(process)


def scorer_statuses(robot) -> list[DiagnosticStatus]:
    """What the diagnostics say of the scorer; the list grows."""
    found: list[DiagnosticStatus] = []
    robot.node.create_subscription(
        DiagnosticArray,
        "/diagnostics",
        lambda array: found.extend(it for it in array.status if it.name == "/monitor: scorer"),
        10,
    )
    return found


def test_the_diagnostics_tell_of_a_model_that_loads(robot, blocked) -> None:
    statuses = scorer_statuses(robot)
    robot.start("monitor", model=str(blocked.folder), diagnostics_rate=5.0)
    robot.until(lambda: len(statuses) > 2, "the diagnostics come")
    assert {it.level for it in statuses} == {DiagnosticStatus.WARN}
    being = f"the model '{blocked.folder}' is being loaded: nothing is watched yet"
    assert {it.message for it in statuses} == {being}
    waited = [float(value.value) for it in statuses for value in it.values if value.key == "waiting [s]"]
    assert waited[-1] > waited[0]
    assert statuses[-1].hardware_id == str(blocked.folder)
    blocked.release()
    robot.until(lambda: bool(robot.infos), "it is active")
    robot.until(lambda: "being loaded" not in statuses[-1].message, "it tells of the scorer")
    told = len(statuses)
    robot.until(lambda: len(statuses) > told + 3, "it goes on to tell")
    assert all("being loaded" not in it.message for it in statuses[told:]), "and of nothing else"


def test_the_diagnostics_tell_of_a_server_that_is_waited_for(robot) -> None:
    statuses = scorer_statuses(robot)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    process = robot.start("monitor", model=f"http://127.0.0.1:{port}", diagnostics_rate=5.0, autostart=False)
    robot.introduce("monitor")
    robot.until(lambda: bool(statuses), "they say that nobody has asked for it")
    assert {it.level for it in statuses} == {DiagnosticStatus.OK}
    assert "is unconfigured: `ros2 lifecycle set /monitor configure` loads" in statuses[-1].message
    asked = ask(robot, ChangeState, "monitor/change_state", transition=Transition(label="configure"))
    robot.until(lambda: any("waiting for it" in it.message for it in statuses), "they name it")
    told = next(it for it in statuses if "waiting for it" in it.message)
    assert told.level == DiagnosticStatus.WARN and f"127.0.0.1:{port} cannot be reached" in told.message
    assert change_state(robot, "shutdown")
    robot.until(asked.done, "configure is answered")
    robot.until(lambda: "was shut down (finalized)" in statuses[-1].message, "nobody waits any more")
    count = len(statuses)
    robot.until(lambda: len(statuses) > count + 3, "it goes on to tell")
    assert {(it.level, it.message) for it in statuses[count:]} == {
        (DiagnosticStatus.OK, statuses[-1].message)
    }
    assert robot.stop(process) < 3.0 and process.returncode == 0, robot.said(process)


def test_configure_is_answered_when_it_is_done(robot, blocked) -> None:
    process = robot.start("monitor", model=str(blocked.folder), autostart=False)
    first = ask(robot, ChangeState, "monitor/change_state", transition=Transition(label="configure"))
    robot.until(blocked.is_wanted, "it opens the file")
    second = ask(robot, ChangeState, "monitor/change_state", transition=Transition(id=1))
    for number in (10, 11, 12):  # how a transition ends is not for others to say
        assert not robot.call(ChangeState, "monitor/change_state", transition=Transition(id=number)).success
    assert not first.done() and not second.done()
    blocked.release()
    robot.until(lambda: first.done() and second.done(), "both are answered")
    assert first.result().success and second.result().success
    assert robot.said(process).count("loading model") == 1
    assert robot.call(GetState, "monitor/get_state").current_state.label == "inactive"
    assert change_state(robot, "activate")


def test_a_shutdown_breaks_the_loading_off(robot, blocked) -> None:
    process = robot.start("monitor", model=str(blocked.folder), autostart=False)
    configured = ask(robot, ChangeState, "monitor/change_state", transition=Transition(label="configure"))
    robot.until(blocked.is_wanted, "it opens the file")
    offered = robot.call(GetAvailableTransitions, "monitor/get_available_transitions")
    assert [t.transition.label for t in offered.available_transitions] == ["shutdown"]
    assert change_state(robot, "shutdown")
    robot.until(configured.done, "configure is answered, too")
    assert not configured.result().success
    assert robot.call(GetState, "monitor/get_state").current_state.label == "finalized"
    blocked.release()  # what is loaded now goes nowhere
    robot.spin(1.0)
    assert robot.stop(process) < 3.0 and process.returncode == 0, robot.said(process)
    assert "watching" not in robot.said(process) and "ERROR" not in robot.said(process)


def test_a_shutdown_breaks_the_loading_off_that_began_by_itself(robot, blocked) -> None:
    process = robot.start("monitor", model=str(blocked.folder), task="stack the cup")
    robot.until(blocked.is_wanted, "it opens the file")
    assert change_state(robot, "shutdown")
    label = robot.call(GetState, "monitor/get_state").current_state.label
    assert label == "finalized" and not change_state(robot, "configure")
    assert f"was shut down, and its process is to be started again ({label})" in why_unpublished(
        robot.node, "/task_progress", TaskProgress
    )
    assert robot.stop(process) < 3.0 and process.returncode == 0, robot.said(process)
    assert "watching" not in robot.said(process) and "ERROR" not in robot.said(process)


def test_a_signal_ends_it_while_the_model_loads(robot, blocked) -> None:
    process = robot.start("monitor", model=str(blocked.folder))
    robot.until(blocked.is_wanted, "it opens the file")
    assert robot.stop(process) < 3.0 and process.returncode == 0
    assert "watching" not in robot.said(process), "it has loaded all the same"


def test_a_transition_that_cannot_be_made_is_refused_and_ends_nothing(robot) -> None:
    process = robot.start("monitor", autostart=False)
    robot.introduce("monitor")
    for wanted in (
        Transition(id=Transition.TRANSITION_ACTIVATE),
        Transition(label="cleanup"),
        Transition(label="dance"),
        Transition(id=99),
        Transition(id=0),
        Transition(id=Transition.TRANSITION_ACTIVE_SHUTDOWN),
    ):
        assert not robot.call(ChangeState, "monitor/change_state", transition=wanted).success, wanted
    assert "transition 'dance' is refused in state unconfigured: it can configure or shutdown" in robot.said(
        process
    )
    assert robot.call(GetState, "monitor/get_state").current_state.label == "unconfigured"
    assert process.poll() is None
