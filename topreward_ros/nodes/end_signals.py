"""SIGINT and SIGTERM as requests to end in order, and the limits of that: three seconds, or a second signal.

Leaving ROS 2 has a limit, too, where nobody asked for an end (`leaving`).

rclpy's own handlers shut ROS 2 down at once, so that nothing can be published any more. These only take note,
in a thread of their own: the main thread may be waiting for a message, or hang in native code.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from select import select
from typing import NoReturn

_LONGEST_END_S = 2.8  # from the first signal to the end of the process
# One Ctrl-C may come twice: `ros2 launch` passes on what the terminal has sent to all already.
_SAME_REQUEST_S = 0.5
_LONGEST_LEAVE_S = 5.0  # for the middleware to let go of its sockets and shared memory


class EndSignals:
    """Takes note of signals. One per process; the main thread makes it."""

    def __init__(self) -> None:
        """Take note from now on."""
        self.name = ""  #: of the first signal, such as SIGINT; empty before
        #: Written by whoever ends in order, for the case that the end is cut off: the exit status then, and
        #: what is not done, for the message.
        self.status_if_cut_off = 0
        self.not_done = ""
        self._wakes: list[Callable[[], None]] = []
        self._reader, writer = os.pipe()
        os.set_blocking(writer, False)  # as Python demands
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, name="signals", daemon=True).start()

    def __bool__(self) -> bool:
        """Whether the process was asked to end."""
        return bool(self.name)

    def call(self, wake: Callable[[], None]) -> None:
        """Call ``wake``, too, once a signal has come, in the thread of the signals."""
        self._wakes.append(wake)
        if self:
            wake()

    def _watch(self) -> None:
        self.name = self._next(None)
        first = time.monotonic()
        for wake in [*self._wakes]:
            wake()
        time.sleep(_SAME_REQUEST_S)
        while self._next(0.0):  # however late this thread gets its turn, these came before
            pass
        self._next(max(0.0, first + _LONGEST_END_S - time.monotonic()))
        left = f"; {self.not_done}" if self.not_done else ""
        sys.stderr.write(f"cut off {time.monotonic() - first:.1f} s after {self.name}{left}\n")
        sys.stderr.flush()
        os._exit(self.status_if_cut_off)

    def _next(self, timeout_s: float | None) -> str:
        """The next signal; empty when none comes in time."""
        while select([self._reader], [], [], timeout_s)[0]:
            number = os.read(self._reader, 1)[0]
            if number in (signal.SIGINT, signal.SIGTERM):
                return signal.Signals(number).name
        return ""


@contextmanager
def leaving(status: int) -> Iterator[None]:
    """The body leaves ROS 2. Where it hangs, as DDS was seen to, the process ends with ``status``."""
    limit = threading.Timer(_LONGEST_LEAVE_S, _cut_off, (status,))
    limit.daemon = True
    limit.start()
    try:
        yield
    finally:
        limit.cancel()


def _cut_off(status: int) -> NoReturn:
    sys.stderr.write(f"cut off, as ROS 2 has not closed for {_LONGEST_LEAVE_S:g} s\n")
    end_process(status)


def end_process(status: int) -> NoReturn:
    """End the process at once, with what it has said; nothing is taken apart."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT, SIGTERM and SIGHUP instead of being interrupted by them."""
    received: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, lambda number, _: received.append(number)) for number in numbers]
    try:
        yield received
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
