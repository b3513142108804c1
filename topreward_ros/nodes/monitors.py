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
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from topreward_ros.core.errors import UserError
from topreward_ros.core.namespaces import read_namespaces
from topreward_ros.core.nearest import nearest
from topreward_ros.core.printable import make_libraries_printable, printable
from topreward_ros.defaults import monitor_defaults, parameter_defaults
from topreward_ros.nodes import monitor, parameters
from topreward_ros.nodes.diagnostics import FailureDiagnostics
from topreward_ros.nodes.end_signals import EndSignals, end_process
from topreward_ros.nodes.log import PrintableLog
from topreward_ros.nodes.monitor import Company, MonitorNode
from topreward_ros.nodes.rcl_error import RCLError
from topreward_ros.nodes.startup import said_by_ros, start
from topreward_ros.scoring.compile_cache import leave_out_unusable_folder
from topreward_ros.scoring.pool import ScorerPool
from topreward_ros.scoring.registry import load_scorer

_LOOK_S = 1.0  # how often it is looked whether the monitors run, if nothing says that one has ended


def main(args: list[str] | None = None) -> NoReturn:
    """Run the monitors until a signal, and end the process: status 1 where one could not start, else 0.

    A monitor that cannot start, or fails, does so alone: the others go on, and /diagnostics tells of it. One
    that cannot be configured stays, to be configured again. Where none can start, the process ends.
    """
    end_process(_run_until_signal(args))


def _run_until_signal(args: list[str] | None) -> int:
    make_libraries_printable()
    leave_out_unusable_folder()
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
    warnings = parameters.unknown(process, None)
    misspelt = [name for name in warnings if nearest(name, [*given, *parameters.MONITOR]) in given]
    for name in misspelt:
        process.get_logger().warning(warnings[name])
    namespaces = read_namespaces(given["namespaces"], process.get_namespace())
    names = {f"{namespace}/{monitor.NAME}": namespace for namespace in namespaces}
    company = Company(
        ScorerPool(load_scorer), tuple(names), process.get_fully_qualified_name(), (*given, *misspelt)
    )
    executor = SingleThreadedExecutor()
    executor.add_node(process)
    rate = monitor_defaults()["diagnostics_rate"]

    def lose(name: str, error: BaseException) -> None:
        """There is no node that could tell of this monitor: say it here, and in the diagnostics."""
        company.failed.add(name)
        why = f"{_say(names[name], error)}; mend it, and start the process again"
        executor.create_task(FailureDiagnostics, process, why, "", rate, name)

    def run_one(name: str, node: MonitorNode) -> None:
        try:
            monitor.run(node, signals)
        except BaseException as error:
            lose(name, error)
        executor.wake()

    nodes = {}
    for name, namespace in names.items():
        try:
            nodes[name] = MonitorNode(namespace, company)
        except Exception as error:
            lose(name, error)
    told = {*parameters.MONITOR, *misspelt}.union(*(parameters.overrides_of(node) for node in nodes.values()))
    for name in warnings.keys() - told:  # given to the process alone
        process.get_logger().warning(warnings[name])
    if differing := company.pool.agree_on_threads(
        {name: (node.values["model"], node.values["scorer_threads"]) for name, node in nodes.items()}
    ):
        process.get_logger().warning(differing)
    threads = [
        threading.Thread(target=run_one, args=(name, node), daemon=True, name=name)
        for name, node in nodes.items()
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        signals.status_if_cut_off = int(bool(company.failed))
        executor.spin_once(timeout_sec=_LOOK_S)
    executor.shutdown(timeout_sec=0.5)
    return int(bool(company.failed))


def _say(namespace: str, error: BaseException) -> str:
    """Write what went wrong, of a monitor or of all, to standard error; returns it in a line."""
    where = f"monitors: {namespace}" if namespace else "monitors"
    if isinstance(error, (UserError, RCLError)):
        lines = [said_by_ros(error)]
    else:
        lines = [line for part in traceback.format_exception(error) for line in part.splitlines()]
    for line in lines:
        print(f"{where}: {printable(line)}", file=sys.stderr)
    return lines[-1]


if __name__ == "__main__":
    main()
