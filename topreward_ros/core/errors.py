"""The base of all errors that a user can act on.

A program catches `UserError` once, prints its text in one line and ends with status 1. Any other exception is
a bug of this package and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Sequence


class UserError(Exception):
    """Something failed that the user can fix: a name, a file, a parameter, the machine, the network.

    Its text says what failed, its value and how to fix it, for example: "device 'gpu' is not known: use auto,
    cpu, cuda, or cuda:N".
    """

    temporary: bool = False  #: somebody could not be reached, or had no time: the same may do later
    lines: Sequence[str] = ()  #: more, to be shown below the text: what another program said, other problems
