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


#: Share of the free room on a disk that a file which is decompressed leaves.
KEPT_FREE = 0.1
_HEADER = 18  # bytes of a frame's header, at most
_PART = 1 << 20
#: More than a message can hold that anybody records; a few kilobytes can claim to be terabytes.
MOST_BYTES = 1 << 30


class TooLargeError(UserError):
    """Data that would be larger than they may once they are decompressed."""


def decompress(data: bytes, most: int = MOST_BYTES) -> bytes:
    """The content of frames of zstd, of at most ``most`` bytes. Raises `ZstdError`,
    `TooLargeError`: at once where a frame states its size."""
    parts: list[bytes] = []
    left = most
    while data or not parts:
        stated = _stated_size(data[:_HEADER])
        _check_part(_counted(data, left) if stated is None else stated, left, most)
        frame = _zstd.ZstdDecompressor()
        part = frame.decompress(data, left + 1)
        _check_part(len(part), left, most)
        if not frame.eof:
            raise ZstdError("the compressed data end before their end marker")
        parts.append(part)
        left -= len(part)
        data = frame.unused_data
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _counted(data: bytes, most: int) -> int:
    """How many bytes the frame of zstd that ``data`` begin with has, without keeping them, or more than
    ``most``."""
    frame, count = _zstd.ZstdDecompressor(), 0
    while not frame.eof and count <= most:
        part = frame.decompress(data, _PART)
        if not part and frame.needs_input:
            break
        data, count = b"", count + len(part)
    return count


def _check_part(size: int, left: int, most: int) -> None:
    if size > left:
        raise TooLargeError(f"a part of it has more than {most} bytes once it is decompressed")


def compress_file(source: Path, target: Path) -> None:
    """Write ``source`` compressed to the new file ``target``, which states its size. Raises `OSError`."""
    frame = _zstd.ZstdCompressor()
    frame.set_pledged_input_size(source.stat().st_size)
    with source.open("rb") as raw, target.open("xb") as out:
        while part := raw.read(_PART):
            out.write(frame.compress(part))
        out.write(frame.flush(frame.FLUSH_FRAME))


def decompress_file(source: Path, target: Path) -> None:
    """Write what is in ``source`` to the new file ``target``, and leave room on its disk.

    Raises `ZstdError`, `EOFError`, `OSError`; `TooLargeError` where less than `KEPT_FREE` of what is free
    would be left, at once where the file states its size.
    """
    most = int(shutil.disk_usage(target.parent).free * (1.0 - KEPT_FREE))
    with source.open("rb") as file:
        stated = _stated_size(file.read(_HEADER))
        file.seek(0)
        _check_fits(stated or 0, most)
        with target.open("xb") as out, _zstd.open(file, "rb") as content:
            written = 0
            while part := content.read(_PART):
                written += len(part)
                _check_fits(written, most)
                out.write(part)


def _check_fits(size: int, most: int) -> None:
    if size > most:
        raise TooLargeError(
            f"it has more than {most >> 20} MiB once it is decompressed, and the disk has no room for them"
        )


def _stated_size(header: bytes) -> int | None:
    """How large the content of the frame of zstd is that begins so, if it says so."""
    try:
        return _zstd.get_frame_info(header).decompressed_size  # type: ignore[no-any-return]
    except _zstd.ZstdError:
        return None
