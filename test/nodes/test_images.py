"""Camera messages become the right colours, or an `ImageError` that says why not."""

from __future__ import annotations

import array

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")

from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image

from topreward_ros.nodes.images import decode
from topreward_ros.offline.camera_images import ImageError, stamp_ns_of, tile, tiled_widths

RED, GREEN, BLUE, WHITE = (230, 20, 30), (25, 200, 40), (15, 35, 220), (240, 240, 240)
#: Bayer names give the top left 2x2 pixels of the sensor, row by row.
BAYER = {"rggb": "RGGB", "bggr": "BGGR", "gbrg": "GBRG", "grbg": "GRBG"}


def card(height: int = 16, width: int = 24) -> np.ndarray:
    """Red, green / blue, white: (H, W, 3) uint8 RGB."""
    rgb = np.empty((height, width, 3), np.uint8)
    rgb[: height // 2, : width // 2], rgb[: height // 2, width // 2 :] = RED, GREEN
    rgb[height // 2 :, : width // 2], rgb[height // 2 :, width // 2 :] = BLUE, WHITE
    return rgb


def corners(rgb: np.ndarray) -> np.ndarray:
    """The middles of the card's four fields: (4, 3)."""
    h, w = rgb.shape[:2]
    return rgb[[h // 4, h // 4, 3 * h // 4, 3 * h // 4], [w // 4, 3 * w // 4] * 2].astype(int)


def grey(rgb: np.ndarray) -> np.ndarray:
    return np.round(rgb @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)


def yuv(rgb: np.ndarray) -> np.ndarray:
    """ITU-R BT.601, studio range: (H, W, 3) uint8."""
    r, g, b = np.moveaxis(rgb / 255.0, -1, 0)
    y = 16 + 65.481 * r + 128.553 * g + 24.966 * b
    u = 128 - 37.797 * r - 74.203 * g + 112.0 * b
    v = 128 + 112.0 * r - 93.786 * g - 18.214 * b
    return np.round(np.stack([y, u, v], axis=-1)).astype(np.uint8)


def mosaic(rgb: np.ndarray, order: str) -> np.ndarray:
    out = np.empty(rgb.shape[:2], np.uint8)
    for i, letter in enumerate(order):
        out[i // 2 :: 2, i % 2 :: 2] = rgb[i // 2 :: 2, i % 2 :: 2, "RGB".index(letter)]
    return out


def packed_yuv(rgb: np.ndarray, luma_first: bool) -> np.ndarray:
    """Two pixels in four bytes, U Y V Y or Y U Y V: (H, W, 2) uint8."""
    planes = yuv(rgb)
    chroma = planes[..., 1].copy()
    chroma[:, 1::2] = planes[:, ::2, 2]
    pair = (planes[..., 0], chroma) if luma_first else (chroma, planes[..., 0])
    return np.stack(pair, axis=-1)


def semi_planar(rgb: np.ndarray, swapped: bool) -> np.ndarray:
    planes = yuv(rgb)
    chroma = planes[::2, ::2, :0:-1] if swapped else planes[::2, ::2, 1:]
    return np.concatenate([planes[..., 0], chroma.reshape(-1, rgb.shape[1])])


def encoded(rgb: np.ndarray, encoding: str) -> np.ndarray:
    """The card as an array of samples in ``encoding``; 16-bit ones in this machine's byte order."""
    if encoding.endswith("16"):
        return encoded(rgb, encoding[:-2] + "8").astype(np.uint16) * 257  # white stays white
    alpha = np.full((*rgb.shape[:2], 1), 77, np.uint8)
    bgr = rgb[..., ::-1]
    if encoding.startswith("bayer_"):
        return mosaic(rgb, BAYER[encoding[6:10]])
    makers = {
        "rgb8": lambda: rgb,
        "bgr8": lambda: bgr,
        "8UC3": lambda: bgr,
        "rgba8": lambda: np.concatenate([rgb, alpha], axis=-1),
        "bgra8": lambda: np.concatenate([bgr, alpha], axis=-1),
        "8UC4": lambda: np.concatenate([bgr, alpha], axis=-1),
        "mono8": lambda: grey(rgb),
        "8UC1": lambda: grey(rgb),
        "yuv422": lambda: packed_yuv(rgb, luma_first=False),
        "uyvy": lambda: packed_yuv(rgb, luma_first=False),
        "yuyv": lambda: packed_yuv(rgb, luma_first=True),
        "yuv422_yuy2": lambda: packed_yuv(rgb, luma_first=True),
        "nv12": lambda: semi_planar(rgb, swapped=False),
        "nv21": lambda: semi_planar(rgb, swapped=True),
    }
    return makers[encoding]()


def message(
    encoding: str, padding: int = 0, big_endian: bool = False, rgb: np.ndarray | None = None
) -> Image:
    rgb = card() if rgb is None else rgb
    samples = np.ascontiguousarray(encoded(rgb, encoding))
    if big_endian:
        samples = samples.astype(samples.dtype.newbyteorder(">"))
    rows = np.frombuffer(samples.tobytes(), np.uint8).reshape(samples.shape[0], -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=99)
    msg = Image(height=rgb.shape[0], width=rgb.shape[1], encoding=encoding, step=rows.shape[1])
    msg.is_bigendian = int(big_endian)
    msg.header.stamp.sec, msg.header.stamp.nanosec, msg.header.frame_id = 1_700_000_000, 123_456_789, "wrist"
    msg.data = array.array("B", rows.tobytes())
    return msg


def compressed(data: bytes, format: str = "rgb8; jpeg compressed bgr8") -> CompressedImage:
    msg = CompressedImage(format=format)
    msg.header.stamp.sec = 3
    msg.data = array.array("B", data)
    return msg


def jpeg(rgb: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", np.ascontiguousarray(rgb[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 95])[
        1
    ].tobytes()


def with_size(data: bytes, height: int, width: int) -> bytes:
    """A JPEG whose header claims another size."""
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + data[at + 4 :]


def png(samples: np.ndarray) -> bytes:
    return cv2.imencode(".png", samples)[1].tobytes()


def decoded(msg: Image | CompressedImage):
    return decode(serialize_message(msg), type(msg))


EXACT = ["rgb8", "bgr8", "8UC3", "rgba8", "bgra8", "8UC4", "rgb16", "bgr16", "rgba16", "bgra16"]
GREY = ["mono8", "8UC1", "mono16"]
BAYERS = [f"bayer_{order}{bits}" for order in BAYER for bits in (8, 16)]
YUVS = ["yuv422", "uyvy", "yuyv", "yuv422_yuy2", "nv12", "nv21"]


@pytest.mark.parametrize("padding", [0, 8])
@pytest.mark.parametrize("encoding", EXACT + GREY + BAYERS + YUVS)
def test_red_comes_out_red(encoding: str, padding: int):
    out = decoded(message(encoding, padding))
    assert (out.stamp_ns, out.frame_id) == (1_700_000_000_123_456_789, "wrist")
    assert out.rgb.shape == (16, 24, 3)
    assert out.rgb.dtype == np.uint8
    assert out.rgb.flags.c_contiguous
    if encoding in EXACT:
        assert np.array_equal(out.rgb, card())
    elif encoding in GREY:
        assert np.array_equal(out.rgb, np.repeat(grey(card())[..., None], 3, axis=-1))
    else:
        assert np.abs(corners(out.rgb) - [RED, GREEN, BLUE, WHITE]).max() <= (0 if encoding in BAYERS else 3)


@pytest.mark.parametrize(("big_endian", "expected"), [(False, [18, 254]), (True, [52, 2])])
@pytest.mark.parametrize("padding", [0, 6])
def test_byte_order_of_mono16(big_endian: bool, expected: list[int], padding: int):
    """0x1234 and 0xff01 as a little-endian sender writes them; a big-endian one means 0x3412 and 0x01ff.

    The nearest of 256 levels is taken: these are 18.1 and 254.0, and 51.9 and 2.0.
    """
    msg = Image(encoding="mono16", height=1, width=2, step=4 + padding, is_bigendian=int(big_endian))
    msg.data = array.array("B", b"\x34\x12\x01\xff" + bytes(padding))
    assert decoded(msg).rgb.tolist() == [[[value] * 3 for value in expected]]


@pytest.mark.parametrize("encoding", ["rgb16", "bgra16", "bayer_rggb16", "rgb8", "bgr8"])
def test_big_endian_colour(encoding: str):
    big = message(encoding, padding=6, big_endian=True)
    assert np.array_equal(decoded(big).rgb, decoded(message(encoding)).rgb)


def test_odd_step_of_16_bit_rows():
    assert np.array_equal(decoded(message("rgb16", padding=3)).rgb, card())


def test_one_pixel():
    assert decoded(message("rgb8", rgb=np.array([[RED]], np.uint8))).rgb.tolist() == [[list(RED)]]


def test_rgb8_is_not_copied_per_pixel():
    """The common case is a view of the message's own bytes."""
    assert not decoded(message("rgb8")).rgb.flags.owndata


@pytest.mark.parametrize("change", [{"sec": -7, "nanosec": 5}, {"sec": 2**31 - 1, "nanosec": 999_999_999}])
def test_stamp_without_deserialising(change: dict[str, int]):
    msg = message("mono8")
    msg.header.stamp.sec, msg.header.stamp.nanosec = change["sec"], change["nanosec"]
    assert stamp_ns_of(serialize_message(msg)) == change["sec"] * 10**9 + change["nanosec"]


def test_stamp_of_a_big_endian_sender():
    raw = b"\0\0\0\0" + (12).to_bytes(4, "big") + (34).to_bytes(4, "big") + bytes(20)
    assert stamp_ns_of(raw) == 12 * 10**9 + 34


@pytest.mark.parametrize("raw", [b"", bytes(11), b"\0\x03" + bytes(20), b"\x01\x01" + bytes(20)])
def test_no_header(raw: bytes):
    with pytest.raises(ImageError):
        stamp_ns_of(raw)
    with pytest.raises(ImageError):
        decode(raw, Image)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"encoding": "rgb9"}, "'rgb9'.*24x16.*unknown encoding.*rgb8"),
        ({"encoding": ""}, "unknown encoding"),
        ({"encoding": "x" * 10_000}, "unknown encoding"),
        ({"encoding": "16UC1"}, "16UC1.*depth image.*colour topic"),
        ({"encoding": "32FC1"}, "32FC1.*depth image.*colour topic"),
        ({"height": 0}, "24x0.*empty"),
        ({"width": 0}, "0x16.*empty"),
        ({"height": 0, "width": 0}, "0x0.*empty"),
        ({"step": 71}, "step 71.*a row takes 72 bytes"),
        ({"step": 0}, "step 0.*a row takes 72 bytes"),
        ({"step": 80}, "step 80, 1152 bytes.*take 1280 bytes"),
        ({"height": 17}, "24x17.*take 1224 bytes"),
        ({"height": 15}, "24x15.*take 1080 bytes"),
        ({"height": 2**31, "width": 2**31, "step": 2**32 - 1}, "pixels"),
        ({"encoding": "yuyv", "width": 23}, "even"),
        ({"encoding": "nv12", "height": 15}, "even"),
        ({"encoding": "nv12", "step": 24}, "24 rows of step take 576 bytes"),
        ({"data": array.array("B")}, "0 bytes.*cut off"),
    ],
)
def test_bad_raw_image(change: dict, says: str):
    msg = message("rgb8")
    for field, value in change.items():
        setattr(msg, field, value)
    with pytest.raises(ImageError, match=says) as failure:
        decoded(msg)
    assert len(str(failure.value)) < 500


def test_jpeg():
    out = decoded(compressed(jpeg(card(64, 96))))
    assert out.stamp_ns == 3 * 10**9
    assert np.abs(corners(out.rgb) - [RED, GREEN, BLUE, WHITE]).max() <= 4
    assert out.rgb.flags.c_contiguous


def test_progressive_jpeg_with_trailing_zeros():
    data = cv2.imencode(".jpg", card(64, 96)[..., ::-1].copy(), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[
        1
    ].tobytes()
    assert np.abs(corners(decoded(compressed(data + bytes(100))).rgb) - [RED, GREEN, BLUE, WHITE]).max() <= 4


def test_grey_jpeg():
    data = cv2.imencode(".jpg", grey(card(64, 96)))[1].tobytes()
    expected = np.repeat(grey(np.array([[RED, GREEN, BLUE, WHITE]]))[0][:, None], 3, axis=1)
    assert np.abs(corners(decoded(compressed(data)).rgb) - expected).max() <= 2


def test_png():
    bgr = np.ascontiguousarray(card()[..., ::-1])
    bgra = np.dstack([bgr, np.full(bgr.shape[:2], 9, np.uint8)])
    for samples in (bgr, bgra, bgr.astype(np.uint16) * 257):
        assert np.array_equal(decoded(compressed(png(samples), "rgb8; png compressed bgr8")).rgb, card())
    mono = np.repeat(grey(card())[..., None], 3, axis=-1)
    for samples in (grey(card()), grey(card()).astype(np.uint16) * 257):
        assert np.array_equal(decoded(compressed(png(samples), "mono16; png compressed")).rgb, mono)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("order", BAYER)
def test_png_of_a_bayer_mosaic_is_converted(order: str, bits: int):
    """As image_transport writes it; a grey picture would have been scored without a word."""
    samples = encoded(card(), f"bayer_{order}{bits}")
    for format in (
        f"bayer_{order}{bits}; png compressed ",
        f"bayer_{order}8; png compressed ",
        f"bayer_{order}16",
    ):
        assert np.abs(corners(decoded(compressed(png(samples), format)).rgb) - corners(card())).max() == 0


def test_png_of_planar_yuv_is_converted():
    for encoding in ("nv12", "nv21"):
        out = decoded(compressed(png(encoded(card(), encoding)), f"{encoding}; png compressed "))
        assert out.rgb.shape == card().shape
        assert np.abs(corners(out.rgb) - corners(card())).max() <= 3


@pytest.mark.parametrize(
    "format",
    [
        *("mono8; png compressed ", "mono16; png compressed mono16", "8UC1; png compressed "),
        *("png", "", ";", "bgr8", "bayer_rggb8; jpeg compressed mono8", "yuv422; jpeg compressed mono8"),
    ],
)
def test_what_says_that_it_is_grey_stays_grey(format: str):
    """The last two are what image_transport makes of colour mosaics: it converts them to grey first."""
    mono = np.repeat(grey(card())[..., None], 3, axis=-1)
    assert np.array_equal(decoded(compressed(png(grey(card())), format)).rgb, mono)


def test_colours_that_were_made_before_compression_stay_as_they_are():
    bgr = np.ascontiguousarray(card()[..., ::-1])
    for format in (
        "bayer_rggb8; png compressed bgr8",
        "yuv422; png compressed bgr8",
        "rgb8; png compressed rgb8",
    ):
        assert np.array_equal(decoded(compressed(png(bgr), format)).rgb, card())


@pytest.mark.parametrize(
    "format", ["bayer_grbg8; jpeg compressed ", "bayer_grbg16; jpeg compressed", "bayer_rggb8"]
)
def test_jpeg_of_a_bayer_mosaic_is_refused(format: str):
    data = cv2.imencode(".jpg", mosaic(card(64, 96), "GRBG"))[1].tobytes()
    with pytest.raises(ImageError, match=r"JPEG of bayer_.*colours are lost; set the format .* to png"):
        decoded(compressed(data, format))


@pytest.mark.parametrize(
    "format",
    ["yuv422; png compressed ", "yuyv; png", "nv24; png compressed", "nv12; png", "bayer_xyzw8; png"],
)
def test_one_channel_of_which_no_colours_can_be_made_is_refused(format: str):
    with pytest.raises(
        ImageError, match=r"one channel, from which no colours of (yuv422|yuyv|nv24|nv12|bayer)"
    ):
        decoded(compressed(png(np.zeros((7, 8), np.uint8)), format))


@pytest.mark.parametrize("encoding", ["bayer_rggb12", "bayer_gbrg10", "mono12", "mono10", "rgb12"])
def test_16_bits_that_are_filled_in_part_are_refused(encoding: str):
    """Scaled from 16 bits they would be nearly black."""
    data = png(np.full((8, 8), 4095, np.uint16))
    with pytest.raises(ImageError, match="where in 16 bits these lie is not known"):
        decoded(compressed(data, f"{encoding}; png compressed "))


def test_16_bits_become_the_nearest_of_8():
    samples = (np.arange(48).reshape(6, 8) * 1394).astype(np.uint16)
    nearest = np.repeat(np.round(samples / 257).astype(np.uint8)[..., None], 3, axis=-1)
    assert np.array_equal(decoded(compressed(png(samples), "mono16; png compressed ")).rgb, nearest)
    raw = Image(encoding="mono16", height=6, width=8, step=16, data=samples.astype("<u2").tobytes())
    assert np.array_equal(decoded(raw).rgb, nearest)


def test_jpeg_that_lost_part_of_its_scan_but_not_its_end():
    noise = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    data = jpeg(noise)
    begin = data.index(b"\xff\xda") + 14
    lost = data[:begin] + data[begin + int(0.6 * (len(data) - begin)) :]
    with pytest.raises(ImageError, match=r"96x64, has lost a part.*premature end.*damaged on the way"):
        decoded(compressed(lost))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_truncated_picture(kind: str, share: float):
    noise = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    data = jpeg(noise) if kind == "jpeg" else png(noise)
    with pytest.raises(ImageError, match="cut off"):
        decoded(compressed(data[: int(share * len(data))], kind))


def test_truncated_jpeg_with_a_whole_thumbnail():
    """The thumbnail's end marker must not be taken for the picture's."""
    thumbnail, data = jpeg(card(8, 8)), jpeg(card(64, 96))
    exif = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    whole = data[:2] + exif + data[2:]
    assert decoded(compressed(whole)).rgb.shape == (64, 96, 3)
    with pytest.raises(ImageError, match=r"96x64.*cut off"):
        decoded(compressed(whole[:-40]))


@pytest.mark.parametrize(
    ("data", "format", "says"),
    [
        (b"", "jpeg", "'jpeg', 0 bytes is neither JPEG nor PNG"),
        (b"GIF89a" + bytes(40), "gif", "neither JPEG nor PNG"),
        (b"\xff\xd8\xff\xd9", "jpeg", "header is damaged"),
        (with_size(jpeg(card()), 60000, 50000), "jpeg", "50000x60000"),
        (with_size(jpeg(card()), 0, 24), "jpeg", "header is damaged"),
        (png(np.zeros((8, 8), np.uint16)), "16UC1; png compressed ", "depth image.*colour topic"),
        (
            bytes(12) + png(np.zeros((8, 8), np.uint16)),
            "16UC1; compressedDepth png",
            "depth image.*colour topic",
        ),
    ],
)
def test_bad_compressed_image(data: bytes, format: str, says: str):
    with pytest.raises(ImageError, match=says):
        decoded(compressed(data, format))


def test_corrupt_jpeg_with_good_ends():
    data = bytearray(jpeg(card(64, 96)))
    start = data.index(b"\xff\xc4")  # without its Huffman tables it cannot be read
    data[start + 4 : start + 24] = bytes([255] * 20)
    with pytest.raises(ImageError, match="header is damaged"):
        decoded(compressed(bytes(data)))


@pytest.mark.parametrize(
    ("at", "says"), [(19, "checksum"), (60, "checksum"), (13, "without a header"), (-1, "checksum")]
)
def test_damaged_png(at: int, says: str):
    data = bytearray(png(card()))
    data[at] ^= 0x10
    with pytest.raises(ImageError, match=says):
        decoded(compressed(bytes(data), "png"))


ENCODINGS = st.sampled_from([*EXACT, *GREY, *BAYERS, *YUVS, "16UC1", "32FC1", "8UC2", "rgb8 ", "é"])
SIZES = st.one_of(st.integers(0, 9), st.integers(0, 2**32 - 1))


def image_or_error(raw: bytes, message_type: type) -> None:
    try:
        out = decode(raw, message_type)
    except ImageError as error:
        assert str(error)
    else:
        assert out.rgb.ndim == 3
        assert out.rgb.shape[2] == 3
        assert out.rgb.size > 0
        assert out.rgb.dtype == np.uint8


@settings(max_examples=3 * settings().max_examples)
@given(ENCODINGS, SIZES, SIZES, SIZES, st.booleans(), st.binary(max_size=300))
def test_any_raw_fields(encoding: str, height: int, width: int, step: int, big_endian: bool, data: bytes):
    msg = Image(encoding=encoding, height=height, width=width, step=step, is_bigendian=int(big_endian))
    msg.data = array.array("B", data)
    image_or_error(serialize_message(msg), Image)


@settings(max_examples=2 * settings().max_examples)
@given(ENCODINGS, st.integers(1, 8), st.integers(1, 8), st.integers(0, 5), st.integers(-1, 1), st.booleans())
def test_nearly_right_raw_fields(
    encoding: str, height: int, width: int, extra: int, off: int, big_endian: bool
):
    """Sizes that fit the data, or miss it by one byte."""
    sample = encoding if encoding in (*EXACT, *GREY, *BAYERS) else "rgb8"
    row = encoded(card(2, 2), sample)[0].nbytes // 2 * width
    msg = Image(encoding=encoding, height=height, width=width, step=row + extra, is_bigendian=int(big_endian))
    msg.data = array.array("B", bytes((row + extra) * height + off))
    image_or_error(serialize_message(msg), Image)


@settings(max_examples=3 * settings().max_examples)
@given(st.sampled_from([Image, CompressedImage]), st.binary(max_size=200), st.booleans())
def test_any_bytes(message_type: type, data: bytes, with_header: bool):
    image_or_error(b"\0\1\0\0" + data if with_header else data, message_type)


@settings(max_examples=3 * settings().max_examples)
@given(st.sampled_from(["jpeg", "png", "raw"]), st.data())
def test_damaged_messages(kind: str, data: st.DataObject):
    """Whole messages with a few bytes overwritten anywhere, and perhaps cut."""
    picture = card(16, 16)
    whole = {"raw": message("rgb8"), "jpeg": compressed(jpeg(picture)), "png": compressed(png(picture))}[kind]
    raw = bytearray(serialize_message(whole))
    for at in data.draw(st.lists(st.integers(0, len(raw) - 1), max_size=4)):
        raw[at] = data.draw(st.integers(0, 255))
    image_or_error(bytes(raw[: data.draw(st.integers(0, len(raw)))]), type(whole))


def test_tile_keeps_every_pixel_of_the_primary_and_the_shape_of_the_others():
    primary, other = card(40, 60), np.full((80, 100, 3), RED, np.uint8)
    tiled = tile([primary, other, card(40, 20)])
    assert tiled.shape == (40, 60 + 50 + 20, 3)
    assert np.array_equal(tiled[:, :60], primary)
    assert np.array_equal(tiled[:, 60:110], np.full((40, 50, 3), RED))
    assert np.array_equal(tiled[:, 110:], card(40, 20))
    assert tiled.flags.c_contiguous
    assert tiled_widths([primary, other, card(40, 20)]) == (60, 50, 20)


def test_tile_of_one():
    assert tile([primary := card()]) is primary


def test_tile_refuses_a_frame_larger_than_any_camera():
    with pytest.raises(ImageError, match="60000x1"):
        tile([card(48, 64), np.zeros((1, 60000, 3), np.uint8)])


def test_tile_of_a_sliver():
    assert tile([card(4, 4), np.zeros((1000, 1, 3), np.uint8)]).shape == (4, 5, 3)
