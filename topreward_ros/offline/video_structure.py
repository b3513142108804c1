"""Where a video file is damaged by its own structure, for the formats whose damage FFmpeg passes over.

Only what holds the data is walked: boxes, blocks, chunks, tags, packets. What they hold is left to FFmpeg,
and so is every format that has no walk here. Nothing is decoded.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from io import SEEK_END
from typing import BinaryIO, NamedTuple, TypeAlias

#: A place in the file [byte] and what is wrong there.
Fault: TypeAlias = tuple[int, str]
_Walk: TypeAlias = Callable[[BinaryIO, int], Iterator[Fault]]

_CUT_OFF = "the file breaks off here"
_LOST = "the file is damaged: a part of it is missing or overwritten"
_LONGEST_CHUNK = 1 << 28  # bytes of an APNG chunk that are looked at; no frame is larger
_LONGEST_PAGE = 27 + 255 + 255 * 255  # bytes of a page of Ogg
_SHORTEST_PACKET = 32  # bytes of a packet of ASF with anything in it
_SEARCHED = 1 << 20  # bytes that are searched at once for where a structure goes on


def faults_of(file: BinaryIO, format_name: str) -> list[Fault]:
    """What is damaged in an opened file of FFmpeg's format ``format_name``, in the order of the places."""
    size = file.seek(0, SEEK_END)
    for name in format_name.split(","):
        if name in _WALKS:
            return list(_WALKS[name](file, size))
    return []


def _at(file: BinaryIO, start: int, length: int) -> bytes:
    file.seek(start)
    return file.read(length)


def _find(file: BinaryIO, mark: bytes, start: int) -> int:
    """Where ``mark`` stands next, from ``start`` on; -1 where it does not."""
    while len(block := _at(file, start, _SEARCHED)) >= len(mark):
        if (found := block.find(mark)) >= 0:
            return start + found
        start += len(block) - len(mark) + 1
    return -1


def _mp4(file: BinaryIO, size: int) -> Iterator[Fault]:
    """Boxes (ISO/IEC 14496-12, 4.2). What others append to the file is passed over, as players do."""
    start, is_in_fragments = 0, False
    while len(head := _at(file, start, 16)) >= 8:
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if length == 1:
            length = int.from_bytes(head[8:], "big")
        if length == 0 and kind == b"mdat":  # up to the end of the file
            return
        if length < 8 or start + length > size:
            if kind in (b"mdat", b"moov", b"moof") and length >= 8:
                yield size, _CUT_OFF
            # fragments follow that cannot be found by their lengths, or nothing has ended the fragments
            if is_in_fragments or _find(file, b"moof", start + 8) >= 0:
                yield start, _LOST
            return
        if kind == b"moof":
            is_in_fragments = _holds_boxes(file, start + 8, start + length)
            if not is_in_fragments:  # what follows it was lost with it
                yield start, _LOST
        elif kind == b"mfra":
            is_in_fragments = False
        start += length


def _holds_boxes(file: BinaryIO, start: int, end: int) -> bool:
    """Whether a fragment's header holds boxes up to its end, and those of its tracks do."""
    while start < end:
        head = _at(file, start, 8)
        length = int.from_bytes(head[:4], "big")
        if length < 8 or start + length > end:
            return False
        if head[4:] == b"traf" and not _holds_boxes(file, start + 8, start + length):
            return False
        start += length
    return True


def _gif(file: BinaryIO, size: int) -> Iterator[Fault]:
    """Blocks (GIF89a, sections 15 to 27). FFmpeg ends at the first that it does not know."""

    def table(flags: int) -> int:
        return 3 << (flags & 7) + 1 if flags & 0x80 else 0

    def after_blocks(start: int) -> int:
        while (length := _at(file, start, 1)) and length[0]:
            start += 1 + length[0]
        return start + 1

    start = 13 + table((_at(file, 10, 1) or b"\0")[0])
    while kind := _at(file, start, 1):
        if kind == b";":
            return
        if kind == b"!":  # extension: its label, then blocks
            start = after_blocks(start + 2)
        elif (
            kind == b","
        ):  # image: its place and flags, perhaps a colour table, the size of its codes, blocks
            start = after_blocks(start + 11 + table((_at(file, start + 9, 1) or b"\0")[0]))
        else:
            yield start, _LOST
            return
    yield size, _CUT_OFF


def _apng(file: BinaryIO, size: int) -> Iterator[Fault]:
    """Chunks and their checksums (PNG, 5.3)."""
    start, is_lost = 8, False
    while len(head := _at(file, start, 8)) == 8:
        length = int.from_bytes(head[:4], "big")
        if not head[4:].isalpha():
            if not is_lost:
                yield start, _LOST
            return
        if start + 12 + length > size:
            break
        rest = _at(file, start + 8, min(length, _LONGEST_CHUNK) + 4)
        checksum = zlib.crc32(rest[:-4], zlib.crc32(head[4:]))
        is_lost = length <= _LONGEST_CHUNK and checksum != int.from_bytes(rest[-4:], "big")
        if is_lost:
            yield start, _LOST
        if head[4:] == b"IEND":
            return
        start += 12 + length
    yield size, _CUT_OFF


def _flv(file: BinaryIO, size: int) -> Iterator[Fault]:
    """Tags, and their lengths again behind them (Adobe Flash Video File Format 10.1, annex E.3 and E.4).

    Some programs write other lengths there; these are looked at where the first one is right.
    """
    start = int.from_bytes(_at(file, 5, 4), "big") + 4
    length, is_linked = 0, False
    while head := _at(file, start, 11):
        if head.startswith(b"FLV"):
            yield start, "a second recording begins here, which is not read; split the file"
            return
        is_right = length > 0 and int.from_bytes(_at(file, start - 4, 4), "big") == length
        if len(head) < 11 or head[0] & 0x1F not in (8, 9, 18) or (is_linked and not is_right):
            yield start, _CUT_OFF if len(head) < 11 else _LOST
            return
        is_linked = is_right
        length = 11 + int.from_bytes(head[1:4], "big")
        start += length + 4
    if start - 4 > size:
        yield size, _CUT_OFF


def _ogg(file: BinaryIO, size: int) -> Iterator[Fault]:
    """The last page (RFC 3533, 6). FFmpeg compares the checksums of all."""
    tail = _at(file, max(0, size - _LONGEST_PAGE), _LONGEST_PAGE)
    page = tail.rfind(b"OggS")
    count = tail[page + 26] if 0 <= page < len(tail) - 26 else 0
    table = tail[page + 27 : page + 27 + count]
    if page < 0 or not count or page + 27 + count + sum(table) > len(tail):
        yield size, _CUT_OFF


_MXF_KEY = b"\x06\x0e\x2b\x34"  # how the universal labels of SMPTE begin


def _mxf(file: BinaryIO, size: int) -> Iterator[Fault]:
    """Keys, lengths and values (SMPTE ST 379-1; lengths as in ST 336)."""
    start = max(0, _find(file, _MXF_KEY, 0))
    while start < size and len(head := _at(file, start, 25)) >= 17:
        if not head.startswith(_MXF_KEY):
            if (found := _find(file, _MXF_KEY, start)) < 0:  # what was appended
                return
            yield start, _LOST
            start = found
            continue
        more = head[16] & 0x7F if head[16] & 0x80 else 0
        length = int.from_bytes(head[17 : 17 + more], "big") if more else head[16] & 0x7F
        start += 17 + more + length
    if start > size:
        yield size, _CUT_OFF


_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")  # GUID of the File Properties Object
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")  # of the Data Object


def _asf(file: BinaryIO, size: int) -> Iterator[Fault]:
    """Packets and the parts of media objects in them (ASF 01.20.05, 3.2, 5 and 5.2)."""
    header = _at(file, 0, min(size, int.from_bytes(_at(file, 16, 8), "little")))
    at = header.find(_ASF_FILE)
    data = len(header)
    if at < 0 or at + 104 > data or _at(file, data, 16) != _ASF_DATA:
        return
    stated, is_broadcast = int.from_bytes(header[at + 56 : at + 64], "little"), header[at + 88] & 1
    length = int.from_bytes(header[at + 92 : at + 96], "little")
    if length < _SHORTEST_PACKET or length != int.from_bytes(header[at + 96 : at + 100], "little"):
        return
    start, end = data + 50, size
    if stated and not is_broadcast:
        end = data + 50 + stated * length
    newest: dict[int, _AsfPayload] = {}  # of each stream
    is_lost, is_whole = False, True
    while start + length <= min(end, size):
        try:
            payloads = list(_asf_payloads(_at(file, start, length)))
        except (IndexError, ValueError):
            if not is_lost:
                yield start, _LOST
            is_lost, is_whole, newest = True, False, {}
            start += length
            continue
        is_lost = False
        for payload in payloads:
            before = newest.get(payload.stream)
            if before is not None and not payload.follows(before):
                is_whole = False
                yield start, _LOST
            newest[payload.stream] = payload
        start += length
    if end > size and is_whole:  # else the part that is missing was told
        yield size, _CUT_OFF


class _AsfPayload(NamedTuple):
    """A part of a media object, which is a frame."""

    stream: int
    media_object: int  #: its number
    numbers: int  #: how many there are before they begin again
    begin: int  #: place in the media object [byte]
    end: int
    size: int  #: of the media object [byte]; 0: not known

    def follows(self, before: _AsfPayload) -> bool:
        """Whether nothing is missing between the two."""
        if self.media_object == before.media_object and self.begin == before.end:
            return True
        is_next = (self.media_object - before.media_object) % self.numbers == 1 % self.numbers
        is_whole = self.begin == 0 and before.end >= before.size
        return not self.size or not before.size or (is_next and is_whole)


def _asf_payloads(packet: bytes) -> Iterator[_AsfPayload]:
    """The payloads of a packet. Raises `IndexError` or `ValueError` where the packet is none."""
    at = 0

    def number(code: int) -> int:
        """The next number, of no, one, two or four bytes."""
        nonlocal at
        length = (0, 1, 2, 4)[code & 3]
        if at + length > len(packet):
            raise ValueError
        at += length
        return int.from_bytes(packet[at - length : at], "little")

    if packet[0] & 0x80:
        if packet[0] & 0x70:  # error correction data has a length of its own, never used
            raise ValueError
        at = 1 + (packet[0] & 15)
    lengths, properties = packet[at], packet[at + 1]
    at += 2
    if properties & 3 != 1 or properties >> 6 != 1:  # fixed by the specification
        raise ValueError
    for code in (lengths >> 5, lengths >> 1):
        number(code)
    padding = number(lengths >> 3)
    at += 6  # send time and duration
    flags = number(1) if lengths & 1 else 1
    for _ in range(flags & 63):
        stream = number(1) & 127
        object_code = properties >> 4
        media_object = number(object_code)
        begin = number(properties >> 2)
        replicated = number(properties)
        whole = int.from_bytes(packet[at : at + 4], "little") if replicated >= 8 else 0
        at += replicated
        size = number(flags >> 6) if lengths & 1 else len(packet) - padding - at
        if size < 0 or at + size > len(packet):
            raise ValueError
        numbers = 1 << 8 * (0, 1, 2, 4)[object_code & 3]
        yield _AsfPayload(stream, media_object, numbers, begin, begin + size, whole)
        at += size


_WALKS: dict[str, _Walk] = {
    "mp4": _mp4,
    "gif": _gif,
    "apng": _apng,
    "flv": _flv,
    "mxf": _mxf,
    "ogg": _ogg,
    "asf": _asf,
}
