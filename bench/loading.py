"""How long a monitor takes to say its state while it loads its model.

    python bench/loading.py --rounds 3

`get_state` is called again and again, from the first answer until the monitor is active. In turns with the
loading as it is, and with one that leaves the interpreter as Python has it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

import rclpy
from lifecycle_msgs.srv import GetState
from rclpy.node import Node

from topreward_ros.nodes.demo import free_domain

_MONITOR = "from topreward_ros.nodes import monitor; {}monitor.main()"
WAYS = {
    "as it is": _MONITOR.format(""),
    "as Python has it": _MONITOR.format(
        "from contextlib import nullcontext; monitor.beside_others = lambda _: nullcontext(); "
    ),
}
_LATE_S = 0.2


def answers_s(program: str) -> list[float]:
    """How long each answer took [s]."""
    os.environ |= {"ROS_DOMAIN_ID": str(free_domain()), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    rclpy.init()
    node = Node("asks")
    client = node.create_client(GetState, "monitor/get_state")
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    took: list[float] = []
    try:
        client.wait_for_service(60.0)
        label = ""
        while label != "active":
            asked = time.perf_counter()
            answer = client.call_async(GetState.Request())
            while not answer.done():
                rclpy.spin_once(node, timeout_sec=0.5)
                if process.poll() is not None or time.perf_counter() - asked > 60.0:
                    raise SystemExit("the monitor does not answer")
            took.append(time.perf_counter() - asked)
            label = answer.result().current_state.label
            time.sleep(0.01)
    finally:
        process.terminate()
        process.wait()
        rclpy.shutdown()
    return took[1:]  # the first one waits for discovery


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    arguments = parser.parse_args()
    for number in range(arguments.rounds):
        for way, program in WAYS.items():
            took = answers_s(program)
            late = sum(one > _LATE_S for one in took)
            print(f"{number + 1}. {way}: longest {max(took):.2f} s, {late} of {len(took)} above {_LATE_S} s")


if __name__ == "__main__":
    main()
