"""The robot of test/robot.py for the tests of this folder."""

from test.camera_rig import bare, new_node, new_rig
from test.robot import halts, robot, shared_memory, shared_robot

__all__ = ["bare", "halts", "new_node", "new_rig", "robot", "shared_memory", "shared_robot"]
