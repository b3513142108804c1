"""What is warned of through Python's loggers stands in the log of the node that it is of.

What is below this room knows no node. Python writes what no handler takes bare to standard error: without
level and name, and /rosout has nothing of it. What libraries handle themselves stays theirs.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar

from topreward_ros.nodes.log import PrintableLog, PrintableLogger

_of_thread: ContextVar[PrintableLogger] = ContextVar("logger")


def hear_python(otherwise: PrintableLogger) -> None:
    """From now on log what Python would write bare; ``otherwise``: what threads say that work for no node."""
    logging.lastResort = _ToNode(otherwise)


def work_for(node: PrintableLog) -> None:
    """This thread works for ``node``, and so do those that are started in its context."""
    _of_thread.set(node.get_logger())


class _ToNode(logging.Handler):
    def __init__(self, otherwise: PrintableLogger) -> None:
        super().__init__(logging.WARNING)
        self._otherwise = otherwise

    def emit(self, record: logging.LogRecord) -> None:
        logger = _of_thread.get(self._otherwise)
        for line in self.format(record).splitlines():
            if record.levelno >= logging.ERROR:
                logger.error(line)
            else:  # rclpy allows a place in the code one level
                logger.warning(line)
