"""Timers in wall time: heartbeats, and notices that nothing comes, must come when /clock stands still too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node


def create_steady_timer(node: Node, period_s: float, callback: Callable[[], None]) -> Any:
    """A timer of ``node`` that goes by the steady clock, whatever clock the node goes by."""
    return node.create_timer(period_s, callback, clock=Clock(clock_type=ClockType.STEADY_TIME))
