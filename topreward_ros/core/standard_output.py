"""Standard output is for results: what foreign code writes there goes to standard error."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress

_OUT, _ERR = 1, 2  # descriptors


@contextmanager
def standard_output_aside() -> Iterator[None]:
    """What this process writes to standard output within this goes to standard error.

    That is what Python prints, what is written to the descriptor, what C has in its buffer at the end, and
    what processes print that are started. It acts on the whole process: for its main thread, where no other
    thread writes results.
    """
    with redirect_stdout(sys.stderr):
        try:
            kept = os.dup(_OUT)
            os.dup2(_ERR, _OUT)
        except OSError:  # one of them is closed: nothing can come among results
            yield
            return
        try:
            yield
        finally:
            ctypes.CDLL(None).fflush(None)
            os.dup2(kept, _OUT)
            os.close(kept)


def drop_standard_output() -> None:
    """Send the rest of standard output nowhere: its reader has left, and the last flush is to succeed."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def leave_standard_output() -> None:
    """Send all that this process writes to standard output to standard error: its caller has the results."""
    with suppress(OSError):
        os.dup2(_ERR, _OUT)
