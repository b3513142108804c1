"""Files that people name, read whole: a pipe, a device and a file that is too large are refused unread.

A pipe that nobody writes into would be waited for, and a device may have no end.
"""

from __future__ import annotations

import os
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from topreward_ros.core.errors import UserError


class PlainFileError(UserError):
    """What is there is no file that can be read whole. The text follows the name of the file."""


class TooLargeError(PlainFileError):
    """A file has more bytes than anybody needs."""


def read_plain(path: Path, most: int) -> bytes:
    """The content of the file ``path``, of ``most`` bytes. Raises `PlainFileError`, and `OSError`."""
    # Without O_NONBLOCK a pipe is waited for before it can be looked at.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if not (S_ISREG(status.st_mode) or S_ISDIR(status.st_mode)):  # a folder is told as such below
            raise PlainFileError("is a pipe or a device, and no file: name a file that holds the same")
        content = file.read(most + 1) if status.st_size <= most else b""
    if max(status.st_size, len(content)) > most:
        raise TooLargeError(f"has more than {most >> 20} MiB")
    return content
