"""Several monitors in one process, each in a namespace of its own, on one copy of a model.

    ros2 run topreward_ros monitors --ros-args -p namespaces:="[/arm1,/arm2]" --params-file lab.yaml

Each is the node of monitor.py, with its own parameters, topics, services and lifecycle, and with an executor
in a thread of its own: one that fails, waits or ends holds up no other. They share a model where they want
the same one (scoring/pool.py). Wiring only.
"""

from __future__ import annotations

import sys
import threading
import traceback
from typing import NoReturn

import rclpy
from rclpy.node import Node

from topreward_ros.core.errors import UserError
from topreward_ros.core.namespaces import read_namespaces
from topreward_ros.core.printable import make_libraries_printable, printable
from topreward_ros.defaults import parameter_defaults
from topreward_ros.nodes import monitor, parameters
from topreward_ros.nodes.end_signals import EndSignals, end_process
from topreward_ros.nodes.log import PrintableLog
from topreward_ros.nodes.monitor import Company, MonitorNode
from topreward_ros.nodes.rcl_error import RCLError
from topreward_ros.nodes.startup import said_by_ros, start
from topreward_ros.scoring.pool import ScorerPool
from topreward_ros.scoring.registry import load_scorer


def main(args: list[str] | None = None) -> NoReturn:
    """Run the monitors until a signal, and end the process: status 1 when none could start, else 0.

    A monitor that cannot start, or fails, ends alone; the others go on.
    """
    end_process(_run_until_signal(args))


def _run_until_signal(args: list[str] | None) -> int:
    make_libraries_printable()
    signals = EndSignals()
    try:
        start(args)
        process = PrintableLog("monitors")
        try:
            return _run(process, signals)
        finally:
            process.destroy_node()
    except Exception as error:
        _say("", error)
        return 1
    finally:
        rclpy.try_shutdown()


def _run(process: Node, signals: EndSignals) -> int:
    """Run the monitors that the node of the process was given. Raises `UserError`."""
    given = parameters.declare(process, parameters.MONITORS_PARAMETERS, parameter_defaults("monitors.yaml"))
    namespaces = read_namespaces(given["namespaces"], process.get_namespace())
    names = tuple(f"{namespace}/{monitor.NAME}" for namespace in namespaces)
    company = Company(ScorerPool(load_scorer), (process.get_fully_qualified_name(), *names), tuple(given))
    statuses = dict.fromkeys(namespaces, 1)  # until it is known

    def run_one(namespace: str, node: MonitorNode) -> None:
        try:
            statuses[namespace] = monitor.run(node, signals)
        except BaseException as error:
            _say(namespace, error)

    nodes = {}
    for namespace in namespaces:
        try:
            nodes[namespace] = MonitorNode(namespace, company)
        except Exception as error:
            _say(namespace, error)
    if differing := company.pool.agree_on_threads(
        {
            node.get_fully_qualified_name(): (node.values["model"], node.values["scorer_threads"])
            for node in nodes.values()
        }
    ):
        process.get_logger().warning(differing)
    threads = [
        threading.Thread(target=run_one, args=(namespace, node), daemon=True, name=namespace)
        for namespace, node in nodes.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return min(statuses.values())


def _say(namespace: str, error: BaseException) -> None:
    """Write what went wrong, of a monitor or of all, to standard error."""
    where = f"monitors: {namespace}" if namespace else "monitors"
    if isinstance(error, (UserError, RCLError)):
        lines = [said_by_ros(error)]
    else:
        lines = [line for part in traceback.format_exception(error) for line in part.splitlines()]
    for line in lines:
        print(f"{where}: {printable(line)}", file=sys.stderr)


if __name__ == "__main__":
    main()
