"""The error of rcl, for which rclpy has no public name: a name is not valid, or a node cannot be made."""

from __future__ import annotations

from rclpy.impl.implementation_singleton import rclpy_implementation

RCLError = rclpy_implementation.RCLError
