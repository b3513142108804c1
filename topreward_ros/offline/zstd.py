"""Compression with zstd: Python's own from 3.14 on, before that the same module for older Pythons.

The latter comes with rosbags, which needs it for the same bags.
"""

from __future__ import annotations

import shutil
import sys
from importlib import import_module
from pathlib import Path

from topreward_ros.core.errors import UserError

_zstd = import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")

#: What damaged data raise; data that are cut off raise `EOFError`.
ZstdError: type[Exception] = _zstd.ZstdError


def compress(data: bytes) -> bytes:
    """``data`` as one frame of zstd."""
    return bytes(_zstd.compress(data))


#: More than a message can hold that anybody records; a few kilobytes can claim to be terabytes.
MOST_BYTES = 1 << 30


class TooLargeError(UserError):
    """Data that would be larger than they may once they are decompressed."""


def decompress(data: bytes, most: int = MOST_BYTES) -> bytes:
    """The content of frames of zstd, of at most ``most`` bytes. Raises `ZstdError`, `TooLargeError`."""
    parts: list[bytes] = []
    left = most
    while data or not parts:
        frame = _zstd.ZstdDecompressor()
        part = frame.decompress(data, left + 1)
        if len(part) > left:
            raise TooLargeError(f"a message has more than {most} bytes once it is decompressed")
        if not frame.eof:
            raise ZstdError("the compressed data end before their end marker")
        parts.append(part)
        left -= len(part)
        data = frame.unused_data
    return parts[0] if len(parts) == 1 else b"".join(parts)


def compress_file(source: Path, target: Path) -> None:
    """Write ``source`` compressed to the new file ``target``. Raises `OSError`."""
    with source.open("rb") as raw, target.open("xb") as file, _zstd.open(file, "wb") as out:
        shutil.copyfileobj(raw, out, 1 << 20)


def decompress_file(source: Path, target: Path) -> None:
    """Write what is in ``source`` to the new file ``target``. Raises `ZstdError`, `EOFError`, `OSError`."""
    with source.open("rb") as file, target.open("xb") as out, _zstd.open(file, "rb") as content:
        shutil.copyfileobj(content, out, 1 << 20)
