"""A call in a process of its own, which ends with a sentence however the call ends.

It may take too long, or so much memory that the system kills it. The function, its arguments and its result
must be picklable.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import TypeVar

from topreward_ros.core.errors import UserError
from topreward_ros.core.standard_output import leave_standard_output

T = TypeVar("T")

_LONGEST_WAIT = 1e6  # [s], that the system takes


def call_bounded(function: Callable[..., T], *arguments: object, time_limit_s: float, what: str) -> T:
    """What ``function`` gives for ``arguments``, or the `UserError` that it raises.

    Raises `UserError` as well where that takes longer than ``time_limit_s``, or where the process is killed.
    ``what`` was being done then, such as 'checking model x'.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(sender, function, arguments), daemon=True)
    start_deaf_to_ctrl_c(process)
    sender.close()
    try:
        if not receiver.poll(min(time_limit_s, _LONGEST_WAIT)):
            raise UserError(
                f"{what} was not done after {time_limit_s:g} s: the model is too large for this machine, or "
                "damaged in a way that has no end; --time-limit gives it longer"
            )
        outcome = receiver.recv()
    except EOFError as error:
        process.join()
        if process.exitcode == -signal.SIGKILL:
            raise UserError(f"{what} was killed, as where memory runs out: use a smaller model") from error
        raise UserError(
            f"{what} broke off with exit status {process.exitcode}: copy the model again, or use another"
        ) from error
    finally:
        process.kill()
        process.join()
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome  # type: ignore[no-any-return]  # what `_call` got from ``function``


def _call(sender: Connection, function: Callable[..., object], arguments: tuple[object, ...]) -> None:
    Thread(target=_end_with_the_caller, daemon=True).start()
    leave_standard_output()
    try:
        outcome: object = function(*arguments)
    except UserError as error:
        outcome = error.with_traceback(None)
    sender.send(outcome)


def start_deaf_to_ctrl_c(process: BaseProcess) -> None:
    """Start ``process`` so that Ctrl-C reaches the caller alone, who ends it; even while it starts."""
    resource_tracker.ensure_running()  # the first process would start it, and that lifts any block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which it inherits
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_the_caller() -> None:
    if wait_for_the_callers_end():
        os._exit(1)


def wait_for_the_callers_end() -> bool:
    """Wait until the process that started this one has ended; False at once where none did."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return False
    wait([parent.sentinel])
    return True
