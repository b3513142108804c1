"""Encoded images come out as they were stored, or are refused; nothing in between passes unnoticed."""

from __future__ import annotations

import io
import re
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from topreward_ros.offline.encoded_image import EncodedImageError, rgb8_of, samples_of


def scene() -> np.ndarray:
    """(120, 160, 3) uint8 RGB with soft shades, edges and grain, as a camera's."""
    y, x = np.mgrid[:120, :160]
    rgb = np.stack([x + 40, 2 * y, 255 - x], axis=-1).clip(0, 255).astype(np.uint8)
    cv2.circle(rgb, (60, 50), 30, (200, 40, 30), -1)
    cv2.rectangle(rgb, (90, 60), (150, 110), (20, 60, 180), -1)
    grain = np.random.default_rng(3).normal(0, 4, rgb.shape)
    return (rgb + grain).clip(0, 255).astype(np.uint8)


SCENE = scene()


def saved(picture: np.ndarray | Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(file, kind, **options)
    return file.getvalue()


def jpeg(*options: int) -> bytes:
    return cv2.imencode(".jpg", np.ascontiguousarray(SCENE[..., ::-1]), list(options))[1].tobytes()


def without_huffman_tables(data: bytes) -> bytes:
    """As webcams send MJPEG: the tables are those of the standard's annex K."""
    kept, at = data[:2], 2
    while data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] != 0xC4:
            kept += data[at:end]
        at = end
    return kept + data[at:]


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


BASELINE = jpeg()
HALF_FLAT = np.concatenate([SCENE, np.full((400, 160, 3), 7, np.uint8)])
RESTARTS = jpeg(cv2.IMWRITE_JPEG_RST_INTERVAL, 2)
WHOLE_JPEGS = {
    "baseline": BASELINE,
    "4:4:4": saved(SCENE, "JPEG", subsampling=0, quality=95),
    "4:2:2": saved(SCENE, "JPEG", subsampling=1),
    "poor": jpeg(cv2.IMWRITE_JPEG_QUALITY, 10),
    "flat": saved(np.full((480, 640, 3), 90, np.uint8), "JPEG"),
    "flat, optimised": saved(np.full((480, 640, 3), 90, np.uint8), "JPEG", optimize=True),
    "half flat": saved(HALF_FLAT, "JPEG", optimize=True, quality=60),
    "progressive": jpeg(cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "restarts": RESTARTS,
    "grey": saved(SCENE[..., 0], "JPEG"),
    "CMYK": saved(Image.fromarray(SCENE).convert("CMYK"), "JPEG"),
    "no Huffman tables": without_huffman_tables(saved(SCENE, "JPEG")),
    "EXIF": saved(SCENE, "JPEG", exif=turned(6)),
    "zeros after the end": BASELINE + bytes(300),
    "a second picture after the end": BASELINE + jpeg(),
    "junk after the end": BASELINE + b"junk\xff\xd8\xff\xda\xff",
    "one stray byte": BASELINE[:-2] + b"\0" + BASELINE[-2:],
    "stray bytes": BASELINE[:-2] + b"abcdefghijklmnop\xff\0qrst" + BASELINE[-2:],
    "stray zeros": BASELINE[:-2] + bytes(2000) + BASELINE[-2:],
    "fill bytes": BASELINE[:-2] + b"\xff" * 50 + BASELINE[-2:],
    "stray zeros and a second picture": BASELINE[:-2] + bytes(70) + BASELINE[-2:] + BASELINE,
}


@pytest.mark.parametrize("name", WHOLE_JPEGS)
def test_whole_jpegs_are_read_as_opencv_reads_them(name: str) -> None:
    data = WHOLE_JPEGS[name]
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.array_equal(rgb8_of(samples_of(data, "it")), expected)
    assert samples_of(data, "it").ndim == (2 if name == "grey" else 3)


def test_a_thumbnail_hides_neither_stray_bytes_nor_a_lost_end() -> None:
    thumbnail = saved(SCENE[:16, :16], "JPEG")
    exif = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    stray = BASELINE[:2] + exif + BASELINE[2:-2] + bytes(60) + BASELINE[-2:]
    assert samples_of(stray, "it").shape == SCENE.shape
    with pytest.raises(EncodedImageError, match=r"it, 160x120, is a JPEG without its end"):
        samples_of(BASELINE[:2] + exif + BASELINE[2:-2], "it")


def scan(data: bytes) -> tuple[int, int]:
    """Where the coded blocks of a JPEG with one scan begin and end."""
    at = data.index(b"\xff\xda")
    return at + 2 + int.from_bytes(data[at + 2 : at + 4], "big"), len(data) - 2


def lost_restart_interval(data: bytes) -> bytes:
    begin, end = data.index(b"\xff\xd3"), data.index(b"\xff\xd4")
    return data[:begin] + data[end:]


def damaged(data: bytes, kind: str, begin: float, share: float) -> bytes:
    """``share`` of the scan from ``begin`` on (both of 1) left out, zeroed or overwritten."""
    first, last = scan(data)
    at = first + round(begin * (last - first))
    end = min(last, at + round(share * (last - first)))
    noise = np.random.default_rng(1).bytes(end - at)
    return data[:at] + {"hole": b"", "zeros": bytes(end - at), "noise": noise}[kind] + data[end:]


DAMAGED_JPEGS = {
    "cut short": (BASELINE[: len(BASELINE) // 2], "without its end"),
    "only its end is missing": (BASELINE[:-2], "without its end"),
    "cut short, with an end": (damaged(BASELINE, "hole", 0.4, 1.0), "premature end"),
    "first part lost": (damaged(BASELINE, "hole", 0.0, 0.6), "premature end"),
    "a hole": (damaged(BASELINE, "hole", 0.3, 0.1), "premature end"),
    "zeroed": (damaged(BASELINE, "zeros", 0.3, 0.3), "lost a part"),
    "zeroed, to the end": (damaged(BASELINE, "zeros", 0.5, 0.5), "lost a part"),
    "zeroed, few": (damaged(BASELINE, "zeros", 0.7, 0.02), "zeros in place"),
    "overwritten": (damaged(BASELINE, "noise", 0.3, 0.3), "lost a part"),
    "a hole in a progressive one": (damaged(WHOLE_JPEGS["progressive"], "hole", 0.01, 0.05), "lost a part"),
    "a lost restart interval": (lost_restart_interval(RESTARTS), "instead of RST3"),
    "a foreign picture before its end": (BASELINE[:-2] + BASELINE[700:900] + BASELINE[-2:], "lost a part"),
    "no scan": (BASELINE[: BASELINE.index(b"\xff\xda")] + b"\xff\xd9", "JPEG"),
    "nothing": (b"\xff\xd8\xff\xd9", "header is damaged"),
}


@pytest.mark.parametrize("name", DAMAGED_JPEGS)
def test_damaged_jpegs_are_refused(name: str) -> None:
    data, says = DAMAGED_JPEGS[name]
    with pytest.raises(EncodedImageError, match=f"^it.*{says}"):
        samples_of(data, "it")


SEEN = {name: samples_of(data, name).astype(int) for name, data in {"BASELINE": BASELINE}.items()}


@settings(max_examples=3 * settings().max_examples)
@given(st.sampled_from(["hole", "zeros", "noise"]), st.floats(0, 1), st.floats(0.25, 1))
def test_a_jpeg_that_has_lost_a_quarter_of_its_scan_is_refused(kind: str, begin: float, share: float) -> None:
    """What is decoded in spite of it would have to be the whole picture but for a hundredth of its pixels.

    It is a share, because a JPEG has no checksum: of changes of a few bytes many cannot be told.
    """
    begin = min(begin, 1 - share)
    data = damaged(BASELINE, kind, begin, share)
    try:
        seen = samples_of(data, "it").astype(int)
    except EncodedImageError:
        return
    assert (np.abs(seen - SEEN["BASELINE"]).max(axis=-1) > 16).mean() < 0.01


@settings(max_examples=3 * settings().max_examples)
@given(st.floats(0, 1), st.integers(1, 400), st.booleans())
def test_a_hole_in_a_jpeg_with_restart_markers_harms_an_interval_at_most(
    begin: float, size: int, zeroed: bool
) -> None:
    first, last = scan(RESTARTS)
    at = first + round(begin * (last - first - size))
    data = RESTARTS[:at] + bytes(size if zeroed else 0) + RESTARTS[at + size :]
    assume(data != RESTARTS)
    try:
        seen = rgb8_of(samples_of(data, "it")).astype(int)
    except EncodedImageError:
        return
    expected = samples_of(RESTARTS, "it").astype(int)
    assert (np.abs(seen - expected).max(axis=-1) > 16).sum() <= 6 * 16 * 16  # three intervals of two blocks


@settings(max_examples=3 * settings().max_examples)
@given(st.sampled_from(["JPEG", "PNG", "BMP", "TIFF", "WEBP"]), st.data())
def test_any_damage_ends_in_an_image_or_an_error(kind: str, data: st.DataObject) -> None:
    raw = bytearray(saved(SCENE[:24, :32], kind))
    for at in data.draw(st.lists(st.integers(0, len(raw) - 1), max_size=4)):
        raw[at] = data.draw(st.integers(0, 255))
    try:
        seen = samples_of(bytes(raw[: data.draw(st.integers(0, len(raw)))]), "it")
    except EncodedImageError as error:
        assert str(error).startswith("it")
    else:
        assert seen.ndim in (2, 3) and seen.dtype in (np.uint8, np.uint16)


# ---- PNG ----------------------------------------------------------------------------------------


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(rows: np.ndarray, colour: int, *extra: bytes) -> bytes:
    """A PNG of (H, W, C) samples as they are, of colour type ``colour`` (PNG specification, 11.2.2)."""
    height, width = rows.shape[:2]
    depth = 8 * rows.itemsize
    packed = rows.astype(rows.dtype.newbyteorder(">")).reshape(height, -1)
    content = b"".join(b"\0" + row.tobytes() for row in packed)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(content)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


COLOUR_16 = (np.arange(6 * 8 * 3).reshape(6, 8, 3) * 455).astype(np.uint16)
NEAREST = np.round(COLOUR_16 / 257).astype(np.uint8)


def test_every_colour_type_of_png() -> None:
    alpha = np.full((120, 160, 1), 9, np.uint8)
    grey = SCENE[..., :1]
    three = np.repeat(grey, 3, axis=-1)
    pairs = {
        "grey": (png(grey, 0), three),
        "colour": (png(SCENE, 2), SCENE),
        "grey and alpha": (png(np.dstack([grey, alpha]), 4), three),
        "colour and alpha": (png(np.dstack([SCENE, alpha]), 6), SCENE),
        "a transparent colour": (png(SCENE, 2, chunk(b"tRNS", bytes(6))), SCENE),
        "16 bits": (png(COLOUR_16, 2), NEAREST),
        "16 bits and alpha": (png(np.dstack([COLOUR_16, COLOUR_16[..., :1]]), 6), NEAREST),
        "16 bits grey": (png(COLOUR_16[..., :1], 0), np.repeat(NEAREST[..., :1], 3, axis=-1)),
        "16 bits grey and alpha": (png(COLOUR_16[..., :2], 4), np.repeat(NEAREST[..., :1], 3, axis=-1)),
    }
    for name, (data, expected) in pairs.items():
        assert np.array_equal(rgb8_of(samples_of(data, name)), expected), name


def test_palette_and_one_bit() -> None:
    palette = Image.fromarray(SCENE).quantize(32)
    expected = np.asarray(palette.convert("RGB"))
    for options in ({}, {"transparency": 3}):
        assert np.array_equal(rgb8_of(samples_of(saved(palette, "PNG", **options), "it")), expected)
    bits = SCENE[..., 0] > 128
    expected = np.repeat(np.where(bits, 255, 0).astype(np.uint8)[..., None], 3, axis=-1)
    assert np.array_equal(rgb8_of(samples_of(saved(Image.fromarray(bits), "PNG"), "it")), expected)


def test_interlaced_png() -> None:
    """Adam7 of 8x8 pixels: seven reduced images, one after the other (PNG specification, 8.2)."""
    picture = SCENE[40:48, 50:58]
    passes = (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    )
    content = b"".join(b"\0" + row.tobytes() for y, x, dy, dx in passes for row in picture[y::dy, x::dx])
    header = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 1)
    chunks = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(content)), chunk(b"IEND", b""))
    assert np.array_equal(samples_of(b"\x89PNG\r\n\x1a\n" + b"".join(chunks), "it"), picture)


def with_content(data: bytes, change) -> bytes:
    """A PNG whose compressed content is changed, with the right checksum."""
    at = data.index(b"IDAT")
    end = at + 4 + int.from_bytes(data[at - 4 : at], "big")
    return data[: at - 4] + chunk(b"IDAT", change(data[at + 4 : end])) + data[end + 4 :]


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: content[:200] + bytes(60) + content[260:],
        lambda content: zlib.compress(zlib.decompress(content)[:5000]),
        lambda content: b"",
    ],
    ids=["cut", "checksum", "zeroed", "rows are missing", "nothing"],
)
def test_png_with_bad_content_and_right_checksums(change) -> None:
    with pytest.raises(EncodedImageError, match=r"^it is corrupt"):
        samples_of(with_content(png(SCENE, 2), change), "it")


def test_png_that_claims_too_many_pixels() -> None:
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    with pytest.raises(EncodedImageError, match="claims 60000x60000 pixels"):
        samples_of(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b""), "it")


# ---- other kinds, as folders hold them -----------------------------------------------------------


@pytest.mark.parametrize("kind", ["BMP", "PNG", "TIFF", "WEBP"])
def test_lossless_kinds_come_out_as_they_went_in(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(rgb8_of(samples_of(saved(SCENE, kind, **options), "it")), SCENE)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_orientation_of_exif_is_applied_to_every_kind(kind: str, orientation: int) -> None:
    if kind == "WEBP" and tuple(map(int, cv2.__version__.split(".")[:2])) < (4, 11):
        pytest.skip("OpenCV reads the EXIF of WEBP since 4.11")
    data = saved(SCENE, kind, exif=turned(orientation))
    expected = np.rot90(SCENE, {1: 0, 3: 2, 6: -1, 8: 1}[orientation]).astype(int)
    seen = rgb8_of(samples_of(data, "it"))
    assert seen.shape == expected.shape
    assert np.abs(seen - expected).mean() < 8


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("share", [0.3, 0.9, 0.99])
def test_other_kinds_cut_short(kind: str, share: float) -> None:
    data = saved(SCENE, kind)
    with pytest.raises(EncodedImageError, match=r"^it"):
        samples_of(data[: int(share * len(data))], "it")


@pytest.mark.parametrize(("compression", "fill"), [("tiff_lzw", 0), ("tiff_deflate", 85)])
def test_damaged_tiff(compression: str, fill: int) -> None:
    data = bytearray(saved(SCENE, "TIFF", compression=compression))
    assert np.array_equal(samples_of(bytes(data), "it"), SCENE)
    data[len(data) // 2 : len(data) // 2 + 500] = bytes([fill]) * 500
    with pytest.raises(EncodedImageError, match=r"^it is a damaged TIFF"):
        samples_of(bytes(data), "it")


def test_16_bit_tiff_is_scaled() -> None:
    data = cv2.imencode(".tif", np.ascontiguousarray(COLOUR_16[..., ::-1]))[1].tobytes()
    assert np.array_equal(rgb8_of(samples_of(data, "it")), NEAREST)


def test_samples_without_a_range_are_refused() -> None:
    data = saved(Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)), "TIFF")
    with pytest.raises(EncodedImageError, match="float32"):
        samples_of(data, "it")


@pytest.mark.parametrize(
    ("data", "says"), [(b"", "is empty"), (b"text", "unknown kind"), (bytes(99), "unknown")]
)
def test_what_is_no_image(data: bytes, says: str) -> None:
    with pytest.raises(EncodedImageError, match=re.escape(says)):
        samples_of(data, "it")


def test_what_libraries_say_of_damaged_images_is_not_on_standard_error(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """It is in the error that names the image."""
    picture = np.random.default_rng(1).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    for suffix in (".bmp", ".tiff", ".gif"):
        data = cv2.imencode(suffix, picture)[1].tobytes()
        for length in (20, len(data) * 6 // 10):
            with pytest.raises(EncodedImageError, match=r"^it "):
                samples_of(data[:length], "it")
    assert capfd.readouterr() == ("", "")
