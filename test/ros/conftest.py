"""The robot of test/robot.py for the tests of this folder."""

from test.robot import halts, robot, shared_memory, shared_robot

__all__ = ["halts", "robot", "shared_memory", "shared_robot"]
