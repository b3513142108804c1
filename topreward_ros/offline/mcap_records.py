"""The records that an mcap file is made of, as bytes. What a file is made of them for is not known here.

Layout: https://mcap.dev/spec, version 0. A file is `MAGIC`, records, and `MAGIC` again; a record is its kind
(1 byte), the length of its content (8 bytes) and the content. Numbers are little-endian.
"""

from __future__ import annotations

import struct

MAGIC = b"\x89MCAP0\r\n"
HEADER, FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, MESSAGE_INDEX, CHUNK_INDEX = range(1, 9)
ATTACHMENT, ATTACHMENT_INDEX, STATISTICS, METADATA, METADATA_INDEX, SUMMARY_OFFSET, DATA_END = range(9, 16)
HEAD_SIZE = 9  #: of a record, before its content
#: Messages, schemas, channels, attachments, metadata, chunks, first and last time; the counts follow.
STATISTICS_LAYOUT = "<QHIIIIQQ"


def record(kind: int, content: bytes) -> bytes:
    """A whole record."""
    return struct.pack("<BQ", kind, len(content)) + content


def text(content: bytes) -> bytes:
    """A string, or an array or map that is packed already: its length before it."""
    return struct.pack("<I", len(content)) + content


def texts(data: bytes, count: int) -> list[str]:
    """The first ``count`` strings of ``data``. Raises `struct.error` where it is too short."""
    found, at = [], 0
    for _ in range(count):
        (length,) = struct.unpack_from("<I", data, at)
        found.append(data[at + 4 : at + 4 + length].decode(errors="replace"))
        at += 4 + length
    return found


def pack_statistics(
    messages: int, schemas: int, channels: int, attachments: int, metadata: int, chunks: int,
    start_ns: int, end_ns: int, counts: dict[int, int],
) -> bytes:  # fmt: skip
    """The content of STATISTICS; ``counts``: messages by channel."""
    fixed = struct.pack(
        STATISTICS_LAYOUT, messages, schemas, channels, attachments, metadata, chunks, start_ns, end_ns
    )
    return fixed + text(b"".join(struct.pack("<HQ", *item) for item in sorted(counts.items())))
