"""What `topreward task` does: it calls one service of a monitor, and prints the answer.

Wiring only. How long is waited, and what is said, is decided in core/monitor_call.py.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

import rclpy
from lifecycle_msgs.srv import GetState
from rclpy.client import Client
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future
from std_srvs.srv import SetBool, Trigger

from topreward_ros.core.errors import UserError
from topreward_ros.core.monitor_call import (
    CallWait,
    MonitorCall,
    answer_line,
    awaited,
    why_no_answer,
)
from topreward_ros.core.printable import printable
from topreward_ros.nodes.end_signals import leaving, stop_signals
from topreward_ros.nodes.graph import count_named
from topreward_ros.nodes.namesakes import KILLED_STAYS_S, several_called
from topreward_ros.nodes.startup import start, why_no_start
from topreward_ros.srv import SetTask

_TYPES = {"set_task": SetTask, "reset": Trigger, "enable": SetBool}
_SET_TASK = "topreward_ros/srv/SetTask"
_ASKED_AGAIN_S, _ANSWER_S = 0.5, 5.0  # how often for the state of a lifecycle, and how long one is waited for
_DISCOVERY_S = 1.5  # until the nodes of this machine know each other
_SAID_AFTER_S = 4.0  # of waiting; an announcement that was lost comes again after 3 s


class TaskError(UserError):
    """The monitor refused, or did not answer."""


def run(call: MonitorCall, timeout_s: float | None, ros_arguments: Sequence[str]) -> int:
    """Make ``call`` and print the answer. Returns the exit status: 0, or that of the signal that came before.

    ``timeout_s``: for all of it; None: the limits of core/monitor_call.py. Raises `StartError`, and
    `TaskError` where the monitor refuses or does not answer.
    """
    status = 1
    with stop_signals() as signals:
        start(ros_arguments)
        try:
            node = _node(ros_arguments)
            executor = SingleThreadedExecutor()
            executor.add_node(node)
            met_s = time.monotonic() + _DISCOVERY_S
            answer = _answer(node, executor, call, timeout_s, signals)
            if answer is None:
                print(f"topreward: stopped by {signal.Signals(signals[0]).name}", file=sys.stderr)
                status = 128 + signals[0]
            elif not answer.success:
                raise TaskError(f"{_monitor(node)} refused: {answer.message}")
            else:
                line = answer_line(answer.message, getattr(answer, "episode_id", ""))
                print(printable(line), flush=True)
                status = 0
                _warn_of_namesakes(node, met_s, signals)
        finally:
            with leaving(status):
                rclpy.try_shutdown()
    return status


def _node(ros_arguments: Sequence[str]) -> Node:
    try:
        return Node(
            "topreward_task", parameter_overrides=[], enable_rosout=False, start_parameter_services=False
        )
    except Exception as error:  # the middleware: it may lack DDS security, or its keys
        raise TaskError(why_no_start(ros_arguments, error)) from error


def _monitor(node: Node) -> str:
    """The full name of the monitor that is called."""
    return str(node.resolve_service_name("monitor/set_task")).rpartition("/")[0]


def _warn_of_namesakes(node: Node, met_s: float, signals: Sequence[int]) -> None:
    """Say that several monitors took the call, once all are known at ``met_s``, or a signal comes."""
    name = _monitor(node)
    while (nodes := count_named(node, name)) < 2 and time.monotonic() < met_s and not signals:
        time.sleep(0.05)
    if nodes > 1:
        late = f"one that was killed stays known for {KILLED_STAYS_S:g} s"
        print(f"topreward: {several_called(name, nodes)} ({late})", file=sys.stderr, flush=True)


def _answer(
    node: Node,
    executor: SingleThreadedExecutor,
    call: MonitorCall,
    timeout_s: float | None,
    signals: Sequence[int],
) -> Any:
    """The answer to ``call``; None: a signal came before. Raises `TaskError` where it does not come."""
    kind: Any = _TYPES[call.service]
    client = node.create_client(kind, f"monitor/{call.service}")
    begun_s = time.monotonic()
    wait = CallWait(begun_s, timeout_s)
    _await_service(node, executor, client, wait, signals)
    if signals:
        return None
    wait.note_sent(time.monotonic())
    future = client.call_async(kind.Request(**call.values))
    while not future.done() and not signals:
        executor.spin_once_until_future_complete(future, timeout_sec=0.1)
        if not future.done() and wait.is_over(time.monotonic()):
            raise TaskError(
                f"{_monitor(node)} has not answered within {time.monotonic() - begun_s:.3g} s: whether it "
                "does what it was told is not known; `topreward watch` shows what it watches"
            )
    return future.result() if future.done() else None


def _await_service(
    node: Node, executor: SingleThreadedExecutor, client: Client, wait: CallWait, signals: Sequence[int]
) -> None:
    """Wait until the monitor can be called, or a signal comes. Raises `TaskError` where it takes too long."""
    monitor, begun_s, said = _monitor(node), time.monotonic(), ""
    lifecycle = _Lifecycle(node)
    while not client.service_is_ready() and not signals:
        now_s = time.monotonic()
        is_there = count_named(node, monitor) > 0
        state = lifecycle.state(now_s)
        if is_there:
            wait.note_monitor(now_s, state)
        waits_for = awaited(monitor, is_there, state)
        if wait.is_over(now_s):
            domain = os.environ.get("ROS_DOMAIN_ID") or "0"
            why = why_no_answer(monitor, now_s - begun_s, domain, _monitors(node))
            raise TaskError(f"given up after {now_s - begun_s:.3g} s, {waits_for}" if is_there else why)
        if now_s - begun_s > _SAID_AFTER_S and said != waits_for:
            said = waits_for
            print(f"topreward: {said}", file=sys.stderr, flush=True)
        executor.spin_once(timeout_sec=0.05)


class _Lifecycle:
    """Asks the monitor for the state of its lifecycle, again and again."""

    def __init__(self, node: Node) -> None:
        self._client = node.create_client(GetState, "monitor/get_state")
        self._asked: Future | None = None
        self._asked_s = 0.0
        self._state = ""

    def state(self, now_s: float) -> str:
        """What it answered last, at most some seconds ago; empty: nothing."""
        if self._asked is not None and self._asked.done():
            self._state, self._asked = str(self._asked.result().current_state.label), None
        elif self._asked is not None and now_s - self._asked_s > _ANSWER_S:
            self._state, self._asked = "", None
        elif (
            self._asked is None and now_s - self._asked_s > _ASKED_AGAIN_S and self._client.service_is_ready()
        ):
            self._asked, self._asked_s = self._client.call_async(GetState.Request()), now_s
        return self._state


def _monitors(node: Node) -> list[str]:
    """The full names of the monitors that are there."""
    services = node.get_service_names_and_types()
    return sorted(
        name.rpartition("/")[0]
        for name, kinds in services
        if _SET_TASK in kinds and node.count_services(name) > 0  # those of clients are listed, too
    )
