"""Ctrl-C and SIGTERM while a command works: each gives the work up, and none is lost.

Python raises an interrupt wherever the main thread just is. What is raised in a ``__del__`` or in a callback
goes no further, and code of others may catch what it does not know: the command would go on as if nothing had
been said. An interrupt that is gone before the command has answered it was lost in this way, and is raised
again. While the main thread is in native code nothing can be raised; another thread says then that the signal
was noticed.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
from _thread import start_new_thread
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import main_thread
from types import FrameType
from typing import Any, ClassVar, NoReturn

from topreward_ros.cli.output import say
from topreward_ros.core.foreign_code import has_foreign_code

_COPY_S = 1.0  # after a SIGTERM in which another one is the same: to the process, and to its group
_AGAIN_S = 0.05  # for the code that has lost an interrupt to be left before it is raised again
_SAID_AFTER_S = 1.0  # when it has not been answered


class Interrupted(KeyboardInterrupt):
    """SIGINT came, as by Ctrl-C: the work is given up."""

    number: ClassVar[signal.Signals] = signal.SIGINT
    status: ClassVar[int] = 130  #: of the command
    said: ClassVar[str] = "interrupted"

    def __del__(self) -> None:
        # No `Thread`: its locks may be held where an object is just taken apart.
        if _work.goes_on:
            start_new_thread(_raise_again, (type(self), _work.raised))


class Terminated(Interrupted):
    """SIGTERM came, as from `timeout`, systemd or a batch system: the work is given up as by Ctrl-C."""

    number, status, said = signal.SIGTERM, 143, "terminated"


class _Work:
    """What signals have to do with; written by the main thread, but for ``lost``."""

    goes_on = False  #: and an interrupt that is gone was lost
    raised = 0  #: interrupts so far
    lost: type[Interrupted] | None = None
    terminated_s: float | None = None  #: when SIGTERM came

    def take_lost(self) -> type[Interrupted] | None:
        """The interrupt that is to be raised again; None where there is none."""
        lost, self.lost = self.lost, None
        return lost


_work = _Work()


def answered() -> None:
    """The work was given up, or has ended as interrupts are to end it: to be called where one is caught."""
    _work.goes_on = False


@contextmanager
def interruptible() -> Iterator[None]:
    """Within this, SIGINT and SIGTERM raise `Interrupted` and `Terminated`; for a process's main thread.

    Afterwards they end the process at once, with their status, until Python takes itself apart: the command's
    status stands then. A signal that is ignored, as SIGINT in the background of a shell, stays so.
    """
    _work.lost = _work.terminated_s = None
    numbers = [number for number in (signal.SIGINT, signal.SIGTERM) if not _is_ignored(number)]
    atexit.register(_ignore, numbers)
    usual_hook = sys.unraisablehook
    reader, writer = os.pipe()
    os.set_blocking(writer, False)  # as Python demands
    try:
        _work.goes_on = True
        sys.unraisablehook = _hook(usual_hook)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        start_new_thread(_say_what_takes_long, (reader,))
        for number in numbers:
            signal.signal(number, _interrupt if number == signal.SIGINT else _terminate)
        yield
    finally:
        answered()
        for number in numbers:  # not just one step of the clean-up is to be broken off
            signal.signal(number, _leave)
        if (other := signal.set_wakeup_fd(-1)) not in (-1, writer):
            signal.set_wakeup_fd(other)
        os.close(writer)  # by which the thread ends
        sys.unraisablehook = usual_hook


def _is_ignored(number: signal.Signals) -> bool:
    return signal.getsignal(number) is signal.SIG_IGN


def _interrupt(*_: object) -> NoReturn:
    _work.raised += 1
    raise (_work.take_lost() or Interrupted)()


def _terminate(*_: object) -> None:
    """Give the work up. Another SIGTERM ends the process, but for a copy of this one, as of `timeout`."""
    now = time.monotonic()
    if _work.take_lost() is None and _work.terminated_s is not None:
        if now - _work.terminated_s > _COPY_S:
            os._exit(Terminated.status)
        return
    _work.terminated_s = _work.terminated_s or now
    _work.raised += 1
    raise Terminated


def _leave(number: int, _: FrameType | None) -> NoReturn:
    os._exit(128 + number)


def _ignore(numbers: list[signal.Signals]) -> None:
    """The last of what Python does at its end, before it takes apart its modules, PyTorch's for a second.

    Those of foreign code may take for ever.
    """
    for number in numbers:
        if not has_foreign_code() and signal.getsignal(number) is _leave:
            signal.signal(number, signal.SIG_IGN)


def _raise_again(kind: type[Interrupted], raised: int) -> None:
    """Raise one of ``kind`` again, unless another was raised after the ``raised`` ones before it was lost.

    That one stands for both: two would come one behind the other, the second into the answer to the first.
    """
    time.sleep(_AGAIN_S)
    if _work.goes_on and _work.raised == raised:
        _work.lost = kind
        with suppress(OSError):  # it has just ended
            signal.pthread_kill(main_thread().ident or 0, kind.number)


def _hook(usual: Callable[[Any], object]) -> Callable[[Any], None]:
    """Says nothing of an interrupt that nobody could catch; it is raised again."""

    def hook(unraisable: Any) -> None:
        if not issubclass(unraisable.exc_type, Interrupted):
            usual(unraisable)

    return hook


def _say_what_takes_long(reader: int) -> None:
    """Say that a signal was noticed where its answer takes long; ends when the work has ended."""
    said: dict[int, str] = {kind.number: kind.said for kind in (Interrupted, Terminated)}
    while got := os.read(reader, 1):
        time.sleep(_SAID_AFTER_S)
        if got[0] in said and _work.goes_on and signal.getsignal(got[0]) in (_interrupt, _terminate):
            with suppress(OSError, ValueError):
                say(f"{said.pop(got[0])}: the work is being given up")
    os.close(reader)
