"""Processes end although ROS 2 does not close: the limit of `leaving`, in processes of their own."""

import os
import random
import subprocess
import sys

import pytest

# What hangs stands in a place of ROS 2's; the rest is the real thing.
HANGS = """
import sys, threading
import rclpy
from topreward_ros.nodes import end_signals
end_signals._LONGEST_LEAVE_S = 0.3
rclpy.try_shutdown = threading.Event().wait
"""
WATCH = (
    HANGS
    + """
from topreward_ros.nodes.watch import run
sys.exit(run("task_progress", False, 0.3, None, [sys.argv[0]]))
"""
)
IN_TIME = (
    HANGS
    + """
with end_signals.leaving(5):
    pass
threading.Event().wait(1.0)
sys.exit(6)
"""
)


@pytest.mark.parametrize(
    ("program", "status", "said"),
    [(WATCH, 1, "cut off, as ROS 2 has not closed for 0.3 s"), (IN_TIME, 6, "")],
    ids=["hangs", "in time"],
)
def test_leaving(program: str, status: int, said: str) -> None:
    environment = {**os.environ, "ROS_DOMAIN_ID": str(random.randrange(1, 102))}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == status, done.stderr
    assert said in done.stderr
    assert bool(said) == ("cut off" in done.stderr)
