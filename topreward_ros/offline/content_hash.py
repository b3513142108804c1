"""Which pictures a recorded episode has, as a hash: the same wherever it lies and whatever it is called.

It names the data in results, and tells what was scored before from what was not. Labels and tasks are not in
it. A change of any byte of a file changes it, also of one that no picture depends on.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import lru_cache
from hashlib import file_digest, sha256
from pathlib import Path
from stat import S_ISREG

from topreward_ros.core.errors import UserError
from topreward_ros.core.printable import printable

_DIGITS = 32


def hash_of_files(files: Iterable[Path], *more: object) -> str:
    """A hash of the files' contents in their order, and of what is said with ``more``. Raises `UserError`."""
    digest = sha256()
    for file in files:
        digest.update(_hash_of_file(file).encode())
    for it in more:
        digest.update(f"\0{it!r}".encode(errors="surrogatepass"))
    return digest.hexdigest()[:_DIGITS]


def _hash_of_file(path: Path) -> str:
    try:
        status = os.stat(path)
        if not S_ISREG(status.st_mode):  # a pipe or a device may have no end
            raise UserError(f"{printable(str(path))} is no regular file: remove it")
        return _kept_hash(str(path), status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise UserError(
            f"{printable(str(path))} cannot be read ({error.strerror}): check its permissions"
        ) from error


@lru_cache(maxsize=256)  # a video of a dataset holds many episodes
def _kept_hash(path: str, size: int, changed_ns: int) -> str:  # the same file, by these
    with open(path, "rb") as file:
        return file_digest(file, "sha256").hexdigest()
