"""The loggers of our nodes: what they are given is printable and on one line in the log.

A log goes to a terminal, to files and to /rosout, where a line break in a text from outside could begin a
line that looks like one of ours. Nothing else is changed: levels, throttling and names are rclpy's.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from rclpy.impl import rcutils_logger
from rclpy.impl.logging_severity import LoggingSeverity
from rclpy.node import Node

from topreward_ros.core.printable import printable

_LONGEST_LINE = 2000  # characters; an instruction may be a whole book

# rclpy throttles by the place that logs. It looks for that place outside of the files in this list, which it
# keeps open for wrappers like this one.
rcutils_logger._internal_callers.append(os.path.realpath(__file__))


class PrintableLogger(rcutils_logger.RcutilsLogger):
    """A logger of rclpy whose lines are printable."""

    def log(self, message: object, severity: LoggingSeverity, **kwargs: Any) -> bool:
        """Log ``message`` on one line, made printable and cut after 2000 characters."""
        text = printable(str(message), _LONGEST_LINE, stand_in="\N{REPLACEMENT CHARACTER}")
        logged: bool = super().log(text, severity, **kwargs)
        return logged


@cache
def logger_named(name: str) -> PrintableLogger:
    """The one logger of this name: what was throttled is remembered in it."""
    return PrintableLogger(name)


class PrintableLog(Node):
    """A node that logs nothing raw. To be named before the kind of node that it is."""

    def get_logger(self) -> PrintableLogger:
        """The node's logger."""
        return logger_named(super().get_logger().name)
