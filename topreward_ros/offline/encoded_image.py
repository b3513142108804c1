"""From the bytes of an encoded image (JPEG, PNG, and whatever else OpenCV reads) to an array of its samples.

Used for compressed camera topics and for folders of images. OpenCV makes the pixels, and applies the EXIF
orientation. It says nothing when a JPEG has lost a part of its scan, and shows grey or smeared blocks there:
so libjpeg-turbo goes through every JPEG first, and its warnings count as errors. PNG chunks have checksums,
and these are compared. No ROS, no file is opened here.

What cannot be told: a JPEG has no checksum. Where changed bits happen to be valid codes that end at the right
block, the decoder has nothing to warn of: a hole of a few bytes or one flipped bit often passes, one of more
than 512 bytes in a baseline JPEG was not seen to (docs/images.md has the numbers). BMP, TIFF without
compression and WEBP have no checksum either, so that only a missing part is noticed there.
"""

from __future__ import annotations

import io
import re
import warnings
import zlib

import cv2
import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from topreward_ros.core.errors import UserError
from topreward_ros.core.printable import printable

MAX_PIXELS = 1 << 26  #: no camera has more; a damaged header that claims so must not fill the memory

ENDS = 64  #: bytes at either end of an image that `looks_whole` needs

_JPEG_MAGIC = b"\xff\xd8"
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB`\x82"  # the last chunk, which is empty, and its checksum
_TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_OTHER_MAGICS = (*_TIFF_MAGICS, b"BM", b"RIFF")
_END_OF_IMAGE = b"\xff\xd9"
#: Webcams leave a few bytes, or any number of one and the same, between the scan and the end marker. A scan
#: that was damaged may end early, too; what was left then had 41 bytes and more, a block of the picture.
_MAX_STRAY_BYTES = 32
_STRAY_BYTES = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
_READ_AHEAD = 16  # bytes that the decoder may have read before it knows that they stray
_MAX_ZEROS = 32  # bytes of zeros that a scan may have in a row: the signs of more than 80 coefficients
_MARKER = re.compile(rb"\xff+([^\x00\x01\xd0-\xd7\xff])")  # leaves out stuffed bytes and restarts
_MAX_END_MARKERS = 8  # of how many places that look like the end of a JPEG the stray bytes are looked for

_BRIGHT_SHARE = 100  # one of so many samples


# What the libraries have to say of an image comes as `EncodedImageError`, and not as lines on standard error.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")


class EncodedImageError(UserError):
    """An encoded image is damaged or cannot be used. The text begins with its name."""


def is_jpeg(data: bytes) -> bool:
    """Whether the bytes begin as a JPEG does."""
    return data.startswith(_JPEG_MAGIC)


def is_png(data: bytes) -> bool:
    """Whether the bytes begin as a PNG does."""
    return data.startswith(_PNG_MAGIC)


def looks_whole(head: bytes, tail: bytes) -> bool:
    """Whether an image begins as a known kind does and, as JPEG or PNG, ends so: no look at the rest.

    ``head``, ``tail``: its first and last `ENDS` bytes. Where this is False the image may still be right.
    """
    if is_jpeg(head):
        return _END_OF_IMAGE in tail
    if is_png(head):
        return _PNG_END in tail
    return head.startswith(_OTHER_MAGICS)


def samples_of(data: bytes, name: str) -> np.ndarray:
    """Decode an image: (H, W) for one channel, else (H, W, 3) RGB; uint8 or uint16, as stored.

    Palettes are looked up, transparency is dropped, and the image is turned as its EXIF orientation says.
    ``name`` begins the text of errors. Raises `EncodedImageError`, and nothing else, whatever the bytes are.
    """
    if is_jpeg(data):
        data = _checked_jpeg(data, name)
    elif is_png(data):
        _check_png(data, name)
    elif data.startswith(_TIFF_MAGICS):
        _check_tiff(data, name)
    elif not data:
        raise EncodedImageError(f"{name} is empty")
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error as error:
        raise EncodedImageError(f"{name} could not be decoded: {printable(str(error.err))}") from error
    if picture is None or not picture.size:
        raise EncodedImageError(f"{name} is corrupt, cut off or of an unknown kind and could not be decoded")
    if picture.dtype not in (np.uint8, np.uint16):
        raise EncodedImageError(
            f"{name} holds {picture.dtype} samples, which have no fixed range; save it with 8 or 16 bits"
        )
    return picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def is_zeroed_jpeg(data: bytes) -> bool:
    """Whether zeros stand in a JPEG where its picture should, which a decoder says nothing about."""
    if bytes(_MAX_ZEROS) not in data or not _has_zeroed_scan(data):  # the first alone takes no time
        return False
    try:
        _checked_jpeg(data, "")  # zeros that fill up its end are none of the picture's
    except EncodedImageError:
        return True
    return False


def rgb8_of(samples: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB of what `samples_of` gives: 16 bits scaled to 8, grey as three channels."""
    eight = samples if samples.dtype == np.uint8 else eight_bits_of(samples)
    return np.ascontiguousarray(cv2.cvtColor(eight, cv2.COLOR_GRAY2RGB) if eight.ndim == 2 else eight)


def eight_bits_of(samples: np.ndarray) -> np.ndarray:
    """uint16 samples, 0 to 65535, as the nearest of 0 to 255 in uint8.

    >>> eight_bits_of(np.array([0, 128, 129, 65278, 65407, 65535], np.uint16)).tolist()
    [0, 0, 1, 254, 255, 255]
    """
    return ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)


def is_deep_grey(samples: np.ndarray) -> bool:
    """Whether what `samples_of` gives is grey of 16 bits: brightness, or a depth image."""
    return samples.dtype == np.uint16 and samples.ndim == 2


def is_dark(samples: np.ndarray) -> bool:
    """Whether hardly a sample of 16 bits reaches the upper half of their range.

    So are depth images in millimetres, and 10 or 12 bits in the lower end of 16. A few samples at the top
    do not count: some cameras mark unknown depth so.
    """
    return int(np.count_nonzero(samples >= 1 << 15)) * _BRIGHT_SHARE < samples.size


# ---- JPEG ---------------------------------------------------------------------------------------


def _checked_jpeg(data: bytes, name: str) -> bytes:
    """The bytes of a JPEG that libjpeg-turbo reads without a warning, without those that stray at its end."""
    width, height = _jpeg_size(data, name)
    if not 0 < width * height <= MAX_PIXELS:
        raise EncodedImageError(
            f"{name} claims {width}x{height} pixels; between 1 and {MAX_PIXELS} can be read"
        )
    problem = _jpeg_problem(data)
    if problem and (stray := _STRAY_BYTES.search(problem)):
        data, problem = _without_stray_bytes(data, int(stray[1])) or (data, problem)
    if problem and "Premature end of JPEG file" in problem:
        raise EncodedImageError(f"{name}, {width}x{height}, is a JPEG without its end and so is cut off")
    if not problem and _has_zeroed_scan(data):
        problem = "zeros in place of coded blocks"
    if problem:
        raise EncodedImageError(
            f"{name}, {width}x{height}, has lost a part or is corrupt ('{printable(problem)}')"
        )
    return data


def _jpeg_size(data: bytes, name: str) -> tuple[int, int]:
    """Width and height as the header says."""
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(data, strict=False)
    except KeyError:  # it has no name for chroma subsampling 4:4:1, which it decodes
        return _size_by_pillow(data)
    except ValueError as error:
        raise EncodedImageError(
            f"{name} is a JPEG whose header is damaged or of a kind that libjpeg-turbo does not read"
        ) from error
    return int(width), int(height)


def _size_by_pillow(data: bytes) -> tuple[int, int]:
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            return image.size
    except Exception:  # of many kinds, for a damaged header
        return 0, 0


def _jpeg_problem(data: bytes) -> str | None:
    """What libjpeg-turbo first complains about in the whole JPEG, in its words, or None.

    Every bit of every scan is read, but only an eighth of the width and height is computed.
    """
    try:
        simplejpeg.decode_jpeg(data, "GRAY", min_height=1, min_width=1, strict=True)
    except ValueError as error:
        return str(error)
    return None


def _without_stray_bytes(data: bytes, count: int) -> tuple[bytes, None] | None:
    """The JPEG without the ``count`` bytes before its end marker, if they are stray and all else is right.

    The decoder tells its first warning alone: without these bytes it would tell the second. Which of several
    end markers is the picture's, and not a thumbnail's or that of a second picture, is found by trial.
    """
    end = len(data)
    for _ in range(_MAX_END_MARKERS):
        if (end := data.rfind(_END_OF_IMAGE, 0, end)) < count:
            return None
        stray = data[end - count : end]
        if count > _MAX_STRAY_BYTES and len(set(stray)) > 1:
            continue
        cleaned = data[: end - count] + _END_OF_IMAGE
        problem = _jpeg_problem(cleaned)
        if not problem:
            return cleaned, None
        # it had read some of them ahead, and did not count these
        rest = _STRAY_BYTES.search(problem)
        if rest and int(rest[1]) <= _READ_AHEAD:
            return _without_stray_bytes(cleaned, int(rest[1]))
    return None


def _has_zeroed_scan(data: bytes) -> bool:
    """Whether zeros stand in a baseline JPEG where blocks should, as after a lost packet that was filled up.

    To the decoder they are codes as good as any, and about as many blocks as were there. In a right scan,
    zeros in a row are blocks of one colour, if zeros are the code of "the rest of the block is 0" in the
    table of every component. Else they are coefficients of -1 in block after block, which no picture has.
    """
    first_symbols = {0: 0x01, 1: 0x00}  # of the standard's own tables, which may be left out (T.81 annex K.3)
    at = len(_JPEG_MAGIC)
    while (found := _MARKER.search(data, at)) and (kind := found[1][0]) != 0xD9:
        segment = data[
            found.end() + 2 : found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
        ]
        at = found.end() + 2 + len(segment)
        if kind == 0xC2:  # progressive: a scan that refines has zeros for all that stays
            return False
        if kind == 0xC4:
            first_symbols |= _first_symbols(segment)
        if kind == 0xDA and segment:
            used = {selectors & 15 for selectors in segment[2 : 1 + 2 * segment[0] : 2]}
            end = after.start() if (after := _MARKER.search(data, at)) else len(data)
            if any(first_symbols.get(table) for table in used) and data.find(bytes(_MAX_ZEROS), at, end) >= 0:
                return True
    return False


def _first_symbols(tables: bytes) -> dict[int, int]:
    """The symbol coded by zeros of each table of AC coefficients in a segment DHT (T.81 B.2.4.2)."""
    found = {}
    at = 0
    while at + 17 < len(tables):
        if tables[at] >> 4:
            found[tables[at] & 15] = tables[at + 17]
        at += 17 + sum(tables[at + 1 : at + 17])
    return found


# ---- PNG, TIFF ----------------------------------------------------------------------------------


def _check_png(data: bytes, name: str) -> None:
    """Walk the chunks of a PNG up to IEND and compare their checksums.

    OpenCV reads chunks by itself before it looks at checksums, and takes gigabytes for a damaged one.
    """
    if data[12:16] != b"IHDR":
        raise EncodedImageError(f"{name} is a PNG without a header and so is corrupt")
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    at = len(_PNG_MAGIC)
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")  # length and name, then the content
        checksum = data[end : end + 4]
        if len(checksum) < 4:
            break
        if zlib.crc32(memoryview(data)[at + 4 : end]) != int.from_bytes(checksum, "big"):
            raise EncodedImageError(
                f"{name}, {width}x{height}, is a PNG with a wrong checksum and so is corrupt"
            )
        if data[at + 4 : at + 8] == b"IEND":
            if 0 < width * height <= MAX_PIXELS:
                return
            raise EncodedImageError(
                f"{name} claims {width}x{height} pixels; between 1 and {MAX_PIXELS} can be read"
            )
        at = end + 4
    raise EncodedImageError(f"{name}, {width}x{height}, is a PNG without its end and so is cut off")


def _check_tiff(data: bytes, name: str) -> None:
    """Have a compressed TIFF unpacked by Pillow, because OpenCV shows what it gets of a damaged one.

    What Pillow does not know (16-bit colour) is left to OpenCV.
    """
    try:
        with Image.open(io.BytesIO(data), formats=["TIFF"]) as image:
            image.load()
    except UnidentifiedImageError:
        return
    except Exception as error:  # of many kinds
        raise EncodedImageError(f"{name} is a damaged TIFF: {printable(str(error))}") from error
