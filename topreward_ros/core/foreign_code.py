"""Which code of other packages is in this process, and a limit to how long it holds up the process's end.

Python waits at its end for every thread that is no daemon, for processes, and for what was registered with
`atexit`. Foreign code may have left any of these behind; the work is done all the same.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from threading import Timer

END_S = 5.0  #: [s] that it has, from the end of the work on

_present: list[str] = []


def note_foreign_code(name: str) -> None:
    """``name``, printable, is in this process from now on."""
    if name not in _present:
        _present.append(name)


def has_foreign_code() -> bool:
    """Whether some is in this process."""
    return bool(_present)


def limit_the_end(status: int) -> None:
    """The work is done: a process that foreign code keeps ends with ``status`` in `END_S` seconds."""
    if _present:
        limit = Timer(END_S, _leave, (status,))
        limit.daemon = True
        limit.start()


def _leave(status: int) -> None:
    with suppress(OSError, ValueError):  # nobody reads it any more
        sys.stdout.flush()
        sys.stderr.write(
            f"topreward: {', '.join(_present)} keeps the process for {END_S:g} s after the work was done, by "
            "a thread, a process or a function of atexit: it is left behind; see to that package\n"
        )
        sys.stderr.flush()
    os._exit(status)
