"""Video files of all kinds are read right: track, times, orientation, colours; what is damaged is told."""

from __future__ import annotations

import io
import os
import random
import signal
import socket
import stat
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import count, islice, pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.stream import VideoStream
from PIL import Image

from topreward_ros.core.frames import NS_PER_S
from topreward_ros.offline import video_track
from topreward_ros.offline.video import Damage, FrameError, VideoError, open_video
from topreward_ros.offline.video_structure import faults_of
from topreward_ros.views import curve_plot

Setup = Callable[[VideoStream], None]


def picture(k: int, width: int = 64, height: int = 48) -> np.ndarray:
    """Frame k: (H, W, 3) uint8 RGB, red with a blue bar on the left that tells k, and a green floor."""
    rgb = np.full((height, width, 3), (200, 20, 20), np.uint8)
    rgb[:, : width * k // 16] = (20, 20, 200)
    rgb[height * 3 // 4 :] = (20, 180, 20)
    return rgb


def number_of(rgb: np.ndarray) -> int:
    height, width = rgb.shape[:2]
    row = rgb[height // 4].astype(int)
    return round(np.count_nonzero(row[:, 2] > row[:, 0]) * 16 / width)


def busy(k: int, width: int = 160, height: int = 120) -> np.ndarray:
    """A picture that takes many bytes in every code."""
    noise = np.random.default_rng(k).integers(0, 255, (height // 4, width // 4, 3), dtype=np.uint8)
    return np.kron(noise, np.ones((4, 4, 1), np.uint8))


def write(
    path: Path,
    pictures: Sequence[np.ndarray],
    codec: str = "libx264",
    *,
    rate: Fraction | int = 10,
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    times_ms: Sequence[int] | None = None,
    setup: Setup | None = None,
    movflags: str = "",
    muxer: dict[str, str] | None = None,
    form: str | None = None,
) -> Path:
    """Encode the pictures, at the times or evenly at ``rate``."""
    height, width = pictures[0].shape[:2]
    quiet = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    flags = {"movflags": movflags} if movflags else muxer or {}
    with av.open(str(path), "w", format=form, options=flags) as container:
        stream = container.add_stream(codec, rate=rate, options=quiet | (options or {}))
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        if times_ms is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if setup is not None:
            setup(stream)
        for k, rgb in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            if times_ms is not None:
                frame.pts, frame.time_base = times_ms[k], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def counted(count: int = 12, **size: int) -> list[np.ndarray]:
    return [picture(k, **size) for k in range(count)]


def read(path: Path, rate: float = 0.0) -> tuple[list[float], list[np.ndarray | None], list[Damage]]:
    """Times [s], pictures (None where it cannot be read) and damage."""
    video = open_video(path, rate)
    times, pictures = [], []
    for stamp_ns, decode in video:
        times.append(stamp_ns / NS_PER_S)
        try:
            pictures.append(decode())
        except FrameError:
            pictures.append(None)
    assert times[0] == 0 and all(a < b for a, b in pairwise(times))
    return times, pictures, video.damaged


LARGE = {"b": "4000000"}  # bits per second
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "H.264 with B-frames": ("v.mp4", "libx264", {"options": {"bf": "3"}}),
    "H.264 with B-frames in AVI": ("v.avi", "libx264", {"options": {"bf": "3"}}),
    "H.264 in fragments": ("v.mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}),
    "H.264 in a transport stream": ("v.ts", "libx264", {}),
    "H.265 of 10 bits": ("v.mp4", "libx265", {"pixels": "yuv420p10le"}),
    "VP8": ("v.webm", "libvpx", {}),
    "VP9": ("v.webm", "libvpx-vp9", {}),
    "AV1": ("v.mp4", "libsvtav1", {"options": {"preset": "6", "crf": "5"}}),
    "MPEG-4": ("v.mp4", "mpeg4", {}),
    "MJPEG": ("v.avi", "mjpeg", {"pixels": "yuvj420p"}),
    "GIF": ("v.gif", "gif", {"pixels": "rgb8"}),
    "ProRes": ("v.mov", "prores_ks", {"pixels": "yuv422p10le"}),
    "ProRes with alpha": ("v.mov", "prores_ks", {"pixels": "yuva444p10le"}),
    "FFV1": ("v.mkv", "ffv1", {}),
    "FFV1 in RGB": ("v.mkv", "ffv1", {"pixels": "bgr0"}),
    "PNG in MOV": ("v.mov", "png", {"pixels": "rgb24"}),
    "APNG": ("v.apng", "apng", {"pixels": "rgb24"}),
    "APNG by the name of a picture": ("v.png", "apng", {"pixels": "rgb24", "form": "apng"}),
    "WMV": ("v.wmv", "wmv2", {"options": LARGE}),
    "FLV": ("v.flv", "flv", {"options": LARGE}),
    "H.264 in FLV": ("v.flv", "libx264", {"options": {"bf": "3"}}),
    "H.264 in 3GP": ("v.3gp", "libx264", {}),
    "MPEG-2 in MXF": ("v.mxf", "mpeg2video", {"options": LARGE, "rate": 25}),
    "YUV4MPEG": ("v.y4m", "rawvideo", {"form": "yuv4mpegpipe"}),
}


@pytest.mark.parametrize(("name", "codec", "more"), KINDS.values(), ids=KINDS)
def test_every_frame_at_its_time_and_in_its_colours(
    tmp_path: Path, name: str, codec: str, more: dict[str, Any]
) -> None:
    path = write(tmp_path / name, counted(), codec, **more)
    times, pictures, damaged = read(path)
    rate = more.get("rate", 10)
    assert times == pytest.approx([k / rate for k in range(12)], abs=1e-3)
    assert [number_of(rgb) for rgb in pictures if rgb is not None] == list(range(12))
    colours = pictures[6][[12, 12, 44], [10, 54, 54]].astype(int)
    # a GIF has few colours, others lose a little
    assert np.abs(colours - [(20, 20, 200), (200, 20, 20), (20, 180, 20)]).max() < (
        80 if codec == "gif" else 14
    )
    assert pictures[0].dtype == np.uint8 and pictures[0].flags.c_contiguous
    assert not damaged
    info = open_video(path).info
    assert info.rate == pytest.approx(rate) and (info.width, info.height) == (64, 48) and not info.notes


@pytest.mark.parametrize("b_frames", [0, 3])
def test_avi_whose_clock_ticks_faster_than_its_frames(tmp_path: Path, b_frames: int) -> None:
    """H.264 that was copied into an AVI often has two ticks per frame, and this one has a hundred."""
    times_ms = [100 * k for k in range(12)]
    if not b_frames:
        times_ms[7] += 40
    path = write(tmp_path / "v.avi", counted(), times_ms=times_ms, options={"bf": str(b_frames)})
    times, pictures, damaged = read(path)
    assert times == pytest.approx([t / 1000 for t in times_ms])
    assert [number_of(rgb) for rgb in pictures if rgb is not None] == list(range(12))
    assert not damaged
    info = open_video(path).info
    if b_frames:
        assert (info.rate, info.frame_count) == (pytest.approx(10), pytest.approx(12, abs=1))


def test_picture_that_is_shown_on_is_shown_on(tmp_path: Path) -> None:
    """Theora holds an empty packet where a picture does not change."""
    path = (
        Path(__file__).parents[1] / "data" / "held_pictures.ogv"
    )  # four, held for three frames and the last for two
    times, pictures, damaged = read(path)
    assert times == pytest.approx([k / 10 for k in range(11)])
    assert [number_of(rgb) for rgb in pictures if rgb is not None] == [4 * (k // 3) for k in range(11)]
    assert not damaged
    short = tmp_path / "v.ogv"
    short.write_bytes(path.read_bytes()[:-20])
    assert "breaks off" in str(read(short)[2])


def test_multipart_stream_ends_with_a_boundary(tmp_path: Path) -> None:
    path = write(tmp_path / "v.mpjpeg", counted(), "mjpeg", pixels="yuvj420p", form="mpjpeg")
    times, pictures, damaged = read(path, rate=10.0)
    assert len(times) == 12 and all(rgb is not None for rgb in pictures) and not damaged
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + data[len(data) // 2 + 1500 :])
    assert read(path, rate=10.0)[2]


def test_animated_webp_is_refused(tmp_path: Path) -> None:
    images = [Image.fromarray(rgb) for rgb in counted(3)]
    images[0].save(tmp_path / "v.webp", save_all=True, append_images=images[1:], duration=100)
    with pytest.raises(VideoError, match=r"v\.webp is an animated WebP, .*convert it"):
        open_video(tmp_path / "v.webp")


@pytest.mark.parametrize("size", [(63, 47), (1, 1), (2, 3), (17, 16)])
def test_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    width, height = size
    path = write(tmp_path / "v.mkv", counted(3, width=width, height=height), "ffv1", pixels="bgr0")
    _, pictures, _ = read(path)
    assert all(np.array_equal(rgb, picture(k, width, height)) for k, rgb in enumerate(pictures))


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.gif"])
def test_one_frame(tmp_path: Path, name: str) -> None:
    more = {"codec": "gif", "pixels": "rgb8"} if name.endswith("gif") else {}
    times, pictures, damaged = read(write(tmp_path / name, counted(1), **more))
    assert times == [0] and len(pictures) == 1 and not damaged


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize(
    "times_ms",
    [[0, 33, 66, 1000, 1033, 9000], [3_600_000, 3_600_100, 3_600_200], [0, 100, 200, 300, 20_000]],
    ids=["variable rate", "begins at an hour", "a long last wait"],
)
def test_times_are_those_of_the_file(tmp_path: Path, suffix: str, times_ms: list[int]) -> None:
    """None of these is damaged, however few frames its average rate makes of its length."""
    path = write(tmp_path / f"v.{suffix}", counted(len(times_ms)), times_ms=times_ms)
    times, _, damaged = read(path)
    assert times == pytest.approx([(t - times_ms[0]) / 1000 for t in times_ms], abs=2e-3)
    assert not damaged


def with_edit_list(path: Path, *, leave_out_ms: int) -> Path:
    """Make an MP4's edit list begin the presentation later (ISO/IEC 14496-12, 8.6.6)."""
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 4
    media, movie = data.index(b"mdhd") + 4, data.index(b"mvhd") + 4
    scale = int.from_bytes(data[media + 12 : media + 16], "big")
    movie_scale = int.from_bytes(data[movie + 12 : movie + 16], "big")
    assert data[at] == 0 and data[at + 7] == 1  # version 0, one entry
    length = int.from_bytes(data[at + 8 : at + 12], "big") - leave_out_ms * movie_scale // 1000
    start = int.from_bytes(data[at + 12 : at + 16], "big") + leave_out_ms * scale // 1000
    data[at + 8 : at + 16] = length.to_bytes(4, "big") + start.to_bytes(4, "big")
    path.write_bytes(data)
    return path


def test_edit_list_leaves_out_the_beginning_and_is_no_damage(tmp_path: Path) -> None:
    path = write(tmp_path / "v.mp4", counted(16), options={"bf": "2", "g": "4"})
    times, pictures, damaged = read(with_edit_list(path, leave_out_ms=1200))
    assert [number_of(rgb) for rgb in pictures if rgb is not None] == [12, 13, 14, 15]
    assert times == pytest.approx([0, 0.1, 0.2, 0.3])
    assert not damaged


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_display_matrix(tmp_path: Path, degrees: int, mirrored: bool) -> None:
    """Turned counter-clockwise and then mirrored, as FFmpeg's display.h has it and its program shows it."""

    def turn(stream: VideoStream) -> None:
        stream.set_display_rotation(degrees, hflip=mirrored)

    stored = counted(4)
    path = write(tmp_path / "v.mp4", stored, setup=turn)
    _, pictures, _ = read(path)
    shown = np.rot90(stored[3], degrees // 90)
    shown = shown[:, ::-1] if mirrored else shown
    assert np.abs(pictures[3].astype(int) - shown).mean() < 6
    info = open_video(path).info
    assert (info.height, info.width) == shown.shape[:2]


def test_a_turn_that_is_no_quarter_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "v.mp4", counted(2), setup=lambda stream: stream.set_display_rotation(30))
    with pytest.raises(VideoError, match=r"v\.mp4 .*turned by -?30 degrees.*convert it"):
        open_video(path)


@pytest.mark.parametrize(
    ("ratio", "size"), [(Fraction(2), (128, 48)), (Fraction(1, 2), (64, 96)), (Fraction(16, 15), (68, 48))]
)
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_pixels_become_square(tmp_path: Path, suffix: str, ratio: Fraction, size: tuple[int, int]) -> None:
    def stretch(stream: VideoStream) -> None:
        stream.codec_context.sample_aspect_ratio = ratio

    path = write(tmp_path / f"v.{suffix}", counted(8), setup=stretch)
    _, pictures, _ = read(path)
    info = open_video(path).info
    assert (info.width, info.height) == size and pictures[7].shape == (size[1], size[0], 3)
    assert number_of(pictures[7]) == 7


def encoded(rgb: np.ndarray, matrix: str, is_full: bool) -> tuple[int, int, int]:
    """Y, Cb and Cr of a colour, by the equations of BT.601, BT.709 and BT.2020."""
    red, blue = {"601": (0.299, 0.114), "709": (0.2126, 0.0722), "2020": (0.2627, 0.0593)}[matrix]
    r, g, b = rgb / 255
    luma = red * r + (1 - red - blue) * g + blue * b
    chroma = (b - luma) / (2 * (1 - blue)), (r - luma) / (2 * (1 - red))
    if is_full:
        y, cb, cr = 255 * luma, 128 + 255 * chroma[0], 128 + 255 * chroma[1]
    else:
        y, cb, cr = 16 + 219 * luma, 128 + 224 * chroma[0], 128 + 224 * chroma[1]
    return round(y), round(cb), round(cr)


@pytest.mark.parametrize(("matrix", "number"), [("601", 5), ("601", 2), ("709", 1), ("2020", 9)])
@pytest.mark.parametrize("is_full", [False, True])
def test_colours_follow_the_matrix_and_range_of_the_file(
    tmp_path: Path, matrix: str, number: int, is_full: bool
) -> None:
    """Number 2 states no matrix: BT.601, as FFmpeg and OpenCV have it."""
    colour = np.array((180, 60, 90))
    planes = [np.full((48, 64), value, np.uint8) for value in encoded(colour, matrix, is_full)]
    frame = av.VideoFrame.from_ndarray(np.stack(planes), format="yuv444p", channel_last=False)
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p"
        stream.codec_context.colorspace = number
        stream.codec_context.color_range = frame.color_range = 2 if is_full else 1
        frame.colorspace = number
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    _, (rgb,), _ = read(path)
    assert np.abs(rgb.astype(int) - colour).max() <= 2


@pytest.mark.skipif(int(av.__version__.split(".")[0]) < 18, reason="this PyAV leaves gamuts as they are")
def test_wide_gamut_becomes_bt_709(tmp_path: Path) -> None:
    """A colour of BT.709 that was written in BT.2020 (ITU-R BT.2087) comes back."""
    colour = np.array((180, 60, 90))

    def linear(value: np.ndarray) -> np.ndarray:
        return np.where(value < 0.081, value / 4.5, ((value + 0.099) / 1.099) ** (1 / 0.45))

    def curved(value: np.ndarray) -> np.ndarray:
        return np.where(value < 0.018, 4.5 * value, 1.099 * value**0.45 - 0.099)

    to_2020 = np.array(((0.6274, 0.3293, 0.0433), (0.0691, 0.9195, 0.0114), (0.0164, 0.0880, 0.8956)))
    wide = 255 * curved(to_2020 @ linear(colour / 255))
    assert np.abs(wide - colour).max() > 10
    planes = [np.full((48, 64), value, np.uint8) for value in encoded(wide, "2020", is_full=False)]
    frame = av.VideoFrame.from_ndarray(np.stack(planes), format="yuv444p", channel_last=False)
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as container:
        says = {"x264-params": "colorprim=bt2020:transfer=bt2020-10:colormatrix=bt2020nc", "qp": "0"}
        stream = container.add_stream("libx264", rate=10, options=says)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p"
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    _, (rgb,), _ = read(path)
    assert np.abs(rgb.astype(int) - colour).max() <= 4


def two_tracks(path: Path) -> Path:
    """A preview of 16x12 before the film of 64x48."""
    with av.open(str(path), "w") as container:
        streams = []
        for width, height in ((16, 12), (64, 48)):
            stream = container.add_stream("libx264", rate=10)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            streams.append(stream)
        for k in range(12):
            for stream in streams:
                rgb = busy(k, stream.width, stream.height)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        for stream in streams:
            container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_larger_of_two_tracks(tmp_path: Path, suffix: str) -> None:
    """MP4 marks the first one as the default, where nothing else is said."""
    path = two_tracks(tmp_path / f"v.{suffix}")
    info = open_video(path).info
    assert (info.width, info.height) == (64, 48)
    assert info.notes == (f"{path} holds 2 video tracks; number 2 is read, of 64x48 pixels",)


@pytest.mark.parametrize("codec", ["libx265", "mjpeg"])
def test_raw_stream_without_a_rate_asks_for_one(tmp_path: Path, codec: str) -> None:
    name, pixels = ("v.hevc", "yuv420p") if codec == "libx265" else ("v.mjpeg", "yuvj420p")
    silent = {"x265-params": "log-level=none:vui-timing-info=0:bframes=2"} if codec == "libx265" else None
    path = write(tmp_path / name, counted(), codec, pixels=pixels, options=silent)
    with pytest.raises(VideoError, match=r"v\.\w+ states no frame rate; give one .*--rate"):
        open_video(path)
    times, pictures, _ = read(path, rate=20.0)
    assert times == pytest.approx([k / 20 for k in range(12)])
    assert [number_of(rgb) for rgb in pictures if rgb is not None] == list(range(12))


@pytest.mark.parametrize(
    ("name", "codec", "form"),
    [
        ("v.h264", "libx264", None),
        ("v.hevc", "libx265", None),
        ("v.m4v", "mpeg4", "m4v"),
        ("v", "libx264", "h264"),
    ],
)
def test_raw_stream_that_states_its_rate(tmp_path: Path, name: str, codec: str, form: str | None) -> None:
    path = write(tmp_path / name, counted(), codec, form=form, options={"bf": "2"})
    times, pictures, _ = read(path)
    assert times == pytest.approx([k / 10 for k in range(12)])
    assert [number_of(rgb) for rgb in pictures if rgb is not None] == list(range(12))


@pytest.mark.parametrize(
    "name",
    [
        "2026-01-01T10:00:00.mp4",
        "http:__127.0.0.1.mp4",
        "frame%03d.mp4",
        "a*[b]?.mp4",
        "~v.mp4",
        "pipe:0",
        "-v.mp4",
    ],
)
def test_no_name_is_more_than_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("v.mp4"), counted(3)).rename(name)
    times, _, _ = read(Path(name))
    assert len(times) == 3


def test_no_other_file_and_no_address_is_opened(tmp_path: Path) -> None:
    """Playlists and the like are files by whose help others can be read."""
    film = write(tmp_path / "film.ts", counted(3))
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        address = f"127.0.0.1:{server.getsockname()[1]}"
        lists = {
            "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n",
            "list.ffconcat": "ffconcat version 1.0\nfile '{}'\n",
            "list.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
            "<Period><BaseURL>{}</BaseURL></Period></MPD>",
            "list.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
            "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        }
        for name, text in lists.items():
            for other in (f"http://{address}/film.ts", str(film), "film.ts"):
                (tmp_path / name).write_text(text.format(other))
                with pytest.raises(VideoError, match=name):
                    open_video(tmp_path / name)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_what_is_no_video_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.mp4"))
    (tmp_path / "text.mp4").write_text("a text that says nothing\n" * 200)
    av.VideoFrame.from_ndarray(picture(1), format="rgb24").save(str(tmp_path / "picture.png"))
    sound = tmp_path / "sound.mp4"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    for path, says in (
        (tmp_path / "pipe.mp4", "is a pipe and not a file"),
        (tmp_path / "socket.mp4", "is a socket and not a file"),
        (Path("/dev/null"), "is a device and not a file"),
        (tmp_path / "text.mp4", "is not a video"),
        (tmp_path / "picture.png", "is a picture and not a video; put pictures into a folder"),
        (sound, "holds no video but sound"),
        (Path("x" * 300), "cannot be opened: File name too long"),
    ):
        with pytest.raises(VideoError) as caught:
            open_video(path)
        assert str(path) in str(caught.value) and says in str(caught.value)
    for path, says in (
        ("", "path of the video is empty"),
        ("a\0b", "cannot be opened"),
        ("~/no.mp4", "at ~/no.mp4"),
    ):
        with pytest.raises(VideoError, match=says):
            open_video(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="this user may read everything")
def test_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = write(tmp_path / "v.mp4", counted(1))
    path.chmod(stat.S_IWUSR)
    with pytest.raises(VideoError, match="cannot be opened: Permission denied"):
        open_video(path)


def cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: round(len(data) * share)])
    return path


CUT = {
    "MP4": ("v.mp4", "libx264", {"movflags": "faststart"}),
    "MP4 in fragments": ("v.mp4", "libx264", {"movflags": "frag_keyframe+empty_moov", "options": {"g": "5"}}),
    "MOV": ("v.mov", "prores_ks", {"movflags": "faststart", "pixels": "yuv422p10le"}),
    "Matroska": ("v.mkv", "libx264", {}),
    "WebM": ("v.webm", "libvpx", {}),
    "AVI": ("v.avi", "mjpeg", {"pixels": "yuvj420p"}),
    "GIF": ("v.gif", "gif", {"pixels": "rgb8"}),
}


@pytest.mark.parametrize(("name", "codec", "more"), CUT.values(), ids=CUT)
def test_file_that_breaks_off_says_where(tmp_path: Path, name: str, codec: str, more: dict[str, Any]) -> None:
    path = write(tmp_path / name, [busy(k) for k in range(40)], codec, **more)
    assert not read(path)[2]
    times, pictures, damaged = read(cut(path, 0.55))
    assert 5 < len(times) < 36
    assert sum(rgb is not None for rgb in pictures) > 5
    assert damaged
    assert all(times[-1] - 1.0 <= place.time_s <= times[-1] for place in damaged)


def test_length_that_was_stated_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "v.mp4", [busy(k) for k in range(40)], movflags="faststart")
    _, _, damaged = read(cut(path, 0.5))
    assert any(place.reason.endswith("of the 4.00 s that it states") for place in damaged)


def test_sound_that_goes_on_after_the_picture_is_no_damage(tmp_path: Path) -> None:
    for name in ("v.mp4", "v.mkv", "v.avi"):
        with av.open(str(tmp_path / name), "w") as container:
            video = container.add_stream("mpeg4", rate=10)
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            sound = container.add_stream("mp3", rate=16000, layout="mono")
            for k in range(5):
                container.mux(video.encode(av.VideoFrame.from_ndarray(picture(k), format="rgb24")))
            container.mux(video.encode(None))
            for k in range(300):
                frame = av.AudioFrame.from_ndarray(
                    np.zeros((1, 1152), np.int16), format="s16p", layout="mono"
                )
                frame.sample_rate, frame.pts, frame.time_base = 16000, 1152 * k, Fraction(1, 16000)
                container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
        times, _, damaged = read(tmp_path / name)
        assert len(times) == 5 and not damaged, name


def sizes_and_places(path: Path) -> list[tuple[int, int]]:
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


OF_FIVE = {"g": "5", "bf": "0", "sc_threshold": "0"}  # a key frame before every fifth frame and no other


def test_frame_that_cannot_be_decoded_is_left_out_and_told(tmp_path: Path) -> None:
    path = write(tmp_path / "v.mp4", [busy(k) for k in range(20)], options=OF_FIVE)
    data = bytearray(path.read_bytes())
    at, size = sizes_and_places(path)[7]
    data[at : at + size] = bytes(size)
    path.write_bytes(data)
    times, pictures, damaged = read(path)
    assert sum(rgb is not None for rgb in pictures) == 19
    (place,) = damaged
    assert place.frames == 1 and 0.6 <= place.time_s <= 0.7 and "decoded" in str(place)
    assert place.until_s == pytest.approx(0.9)  # the next key frame is at 1.0 s
    assert times[-1] == pytest.approx(1.9)
    assert read(path, rate=5.0)[0] == pytest.approx([2 * time for time in times])


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("v.mp4", "libx264", {"bf": "3", "g": "20"}),
        ("v.mp4", "libx264", {"bf": "3", "g": "250"}),
        ("v.ts", "libx264", {"bf": "3", "g": "20"}),
        ("v.mp4", "libx265", {}),
        ("v.mp4", "mpeg4", {"bf": "2", "b": "4000000"}),
        ("v.webm", "libvpx-vp9", {"b": "2000000"}),
    ],
    ids=["H.264", "H.264 of one key frame", "transport stream", "H.265", "MPEG-4", "VP9"],
)
def test_frames_behind_a_hole_keep_their_times(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    """A decoder may give a frame of the hole behind those that follow it."""
    pictures = [np.roll(busy(k // 15, 320, 240), 3 * k, axis=1) for k in range(60)]
    path = write(tmp_path / name, pictures, codec, options=options)
    whole, data = np.array(read(path)[0]), path.read_bytes()
    for seed in range(14):
        chance = random.Random(seed)
        size = chance.choice([2000, len(data) // 10, len(data) // 4])
        at = chance.randrange(len(data) // 8, len(data) * 7 // 8 - size)
        hole = bytes(size) if chance.random() < 0.5 else chance.randbytes(size)
        path.write_bytes(data[:at] + hole + data[at + size :])
        times, read_pictures, damaged = read(path)
        assert np.abs(np.array(times)[:, None] - whole).min(axis=1).max() < 1e-3, (seed, times)
        if not name.endswith(
            "mp4"
        ):  # a hole may swallow packets there, and then no frame is known to be lost
            continue
        places = [(it.time_s, min((t for t in times if t > it.until_s), default=99.0)) for it in damaged]
        missing = [t for t in whole if np.abs(np.array(times) - t).min() > 1e-3]
        assert all(any(a < t < b for a, b in places) for t in missing), (seed, missing, damaged)
        lost = len(missing) + sum(rgb is None for rgb in read_pictures)
        if codec != "mpeg4":  # a frame that came may have been told to be lost
            assert sum(it.frames for it in damaged) == lost, (seed, lost, damaged)


@pytest.mark.parametrize(("name", "group", "lost"), [("v.ts", "12", 6), ("v.mp4", "24", 15)])
def test_frames_behind_packets_that_were_lost_keep_their_times(
    tmp_path: Path, name: str, group: str, lost: int
) -> None:
    """A decoder gives what it still held, key frames among it, behind frames of the hole's end."""
    pictures = [np.roll(busy(1), 3 * k, axis=1) for k in range(72)]
    path = write(tmp_path / name, pictures, options={"bf": "3", "g": group, "sc_threshold": "0"})
    whole, data = np.array(read(path)[0]), path.read_bytes()
    places = sizes_and_places(path)
    for k in range(8, 32):
        begin, end = (at + size // 2 for at, size in (places[k], places[k + lost]))
        path.write_bytes(data[:begin] + bytes(end - begin) + data[end:])
        times, _, _ = read(path)
        assert np.abs(np.array(times)[:, None] - whole).min(axis=1).max() < 1e-3, (k, times)
        assert times[-1] == pytest.approx(whole[-1])


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("v.mp4", "libx264", {"bf": "3", "g": "24"}),
        ("v.mp4", "mpeg4", {"bf": "2", "g": "12", "b": "4000000"}),
        ("v.ts", "libx264", {"bf": "3", "g": "24"}),
        ("v.ts", "mpeg2video", {"bf": "2", "g": "12", "b": "4000000"}),
    ],
)
def test_pictures_that_a_damage_spoils_are_in_its_span(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    """Also those that are built on the damaged one and shown before it."""
    moving = [np.roll(busy(1), 3 * k, axis=1) for k in range(60)]
    path = write(tmp_path / name, moving, codec, rate=25, options=options)
    (whole, pictures, _), data, places = read(path), path.read_bytes(), sizes_and_places(path)
    right = dict(zip([round(time, 3) for time in whole], pictures, strict=True))
    for k in range(14, 46):
        at = places[k][0] + places[k][1] // 3
        path.write_bytes(data[:at] + bytes(200) + data[at + 200 :])
        times, pictures, damaged = read(path)
        if not damaged and name == "v.ts":  # FFmpeg passed over it
            continue
        for time, rgb in zip(times, pictures, strict=True):
            if rgb is not None and np.abs(rgb.astype(int) - right[round(time, 3)]).mean() > 2:
                spans = [(place.time_s, place.until_s) for place in damaged]
                assert any(a - 1e-3 <= time <= b + 1e-3 for a, b in spans), (k, time, spans)


@pytest.mark.parametrize("name", ["v.mp4", "v.avi"])
def test_frames_behind_a_beginning_that_is_lost_keep_their_times(tmp_path: Path, name: str) -> None:
    codec, options = ("mpeg4", {"g": "5"}) if name.endswith("avi") else ("libx264", OF_FIVE)
    path = write(tmp_path / name, [busy(k) for k in range(20)], codec, options=options)
    data = bytearray(path.read_bytes())
    at, size = sizes_and_places(path)[0]
    data[at : at + size] = bytes(size)
    path.write_bytes(data)
    video = open_video(path)
    times = [stamp_ns / NS_PER_S for stamp_ns, _ in video]
    lost = 20 - len(times)
    assert lost in (1, 5)  # some codes show what is built on the lost frame
    assert times == pytest.approx([k / 10 for k in range(lost, 20)])
    assert [(place.time_s, place.frames) for place in video.damaged] == [(0, lost)]
    assert video.damaged[0].until_s == pytest.approx(0 if lost == 5 else 0.4)


@pytest.mark.parametrize("how", ["zeroed", "left out"])
@pytest.mark.parametrize("codec", ["mjpeg", "mpeg4"])
def test_frames_behind_a_hole_in_an_avi_keep_their_times(tmp_path: Path, codec: str, how: str) -> None:
    """FFmpeg counts those that it finds. The index has all, but where bytes are left out it is not found."""
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = write(tmp_path / "v.avi", [busy(k) for k in range(30)], codec, pixels=pixels, options={"g": "5"})
    places, data = sizes_and_places(path), path.read_bytes()
    begin, end = (at + size // 2 for at, size in (places[11], places[16]))
    path.write_bytes(data[:begin] + bytes(end - begin if how == "zeroed" else 0) + data[end:])
    times, pictures, damaged = read(path)
    assert sum(rgb is not None for rgb in pictures) < 27
    if how == "zeroed":
        assert any(1.0 <= place.time_s <= 1.2 and place.frames > 1 for place in damaged)
        assert times[-12:] == pytest.approx([k / 10 for k in range(18, 30)])
    else:
        assert "times behind lost parts are early" in str(damaged)


def test_avi_whose_index_has_lost_a_part_is_read_by_its_count(tmp_path: Path) -> None:
    path = write(tmp_path / "v.avi", [busy(k) for k in range(40)], "mjpeg", pixels="yuvj420p")
    data = bytearray(path.read_bytes())
    at = data.rindex(b"idx1") + 8 + 16 * 11
    data[at : at + 16 * 15] = bytes(16 * 15)
    path.write_bytes(data)
    times, pictures, _ = read(path)
    assert times == pytest.approx([k / 10 for k in range(40)])
    assert all(rgb is not None for rgb in pictures)


def test_avi_without_an_index_says_that_times_may_be_early(tmp_path: Path) -> None:
    path = write(tmp_path / "v.avi", [busy(k) for k in range(30)], "mjpeg", pixels="yuvj420p")
    places, data = sizes_and_places(path), bytearray(path.read_bytes())
    begin, end = (at + size // 2 for at, size in (places[8], places[18]))
    data[begin:end] = bytes(end - begin)
    at = data.rindex(b"idx1")
    path.write_bytes(data[:at])
    assert any("times behind lost parts are early" in str(place) for place in read(path)[2])


def test_any_error_of_the_library_is_the_damage_of_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyAV raises IndexError where FFmpeg finds a new stream in the middle, as memory happens to be."""
    path = write(tmp_path / "v.mp4", counted(12))
    demux = video_track.InputContainer.demux

    class Failing:
        """A container whose demuxer fails after seven packets."""

        def __init__(self, container: Any) -> None:
            self.format = container.format
            self._container = container

        def demux(self, stream: VideoStream) -> Any:
            yield from islice(demux(self._container, stream), 7)
            raise IndexError("list index out of range")

    demuxed = video_track._demuxed
    monkeypatch.setattr(
        video_track, "_demuxed", lambda container, stream: demuxed(Failing(container), stream)
    )
    times, _, (place,) = read(path)
    assert len(times) == 7 and place.time_s == times[-1]
    assert place.reason == "the file is damaged: PyAV ends reading it with IndexError"


def test_picture_that_lost_a_part_of_its_scan_is_left_out(tmp_path: Path) -> None:
    """As webcams under load write it: the end marker is there, a part before it is not."""
    whole = write(tmp_path / "whole.avi", [busy(k) for k in range(10)], "mjpeg", pixels="yuvj420p")
    with av.open(str(whole)) as source, av.open(str(tmp_path / "v.avi"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for k, packet in enumerate(source.demux(video=0)):
            if not packet.size:
                continue
            data = bytes(packet)
            scan = data.index(b"\xff\xda")
            if k == 4:
                data = data[: scan + (len(data) - scan) * 2 // 5] + b"\xff\xd9"
            copy = av.Packet(data)
            copy.stream, copy.pts, copy.dts, copy.time_base = stream, k, k, Fraction(1, 10)
            target.mux(copy)
    times, _, damaged = read(tmp_path / "v.avi")
    assert times == pytest.approx([k / 10 for k in range(10) if k != 4])
    (place,) = damaged
    assert place.frames == 1 and place.time_s == place.until_s == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("name", "codec", "pixels"), [("v.mkv", "ffv1", "yuv420p"), ("v.gif", "gif", "rgb8")]
)
def test_what_a_decoder_only_logs(tmp_path: Path, name: str, codec: str, pixels: str) -> None:
    path = write(tmp_path / name, [busy(k) for k in range(10)], codec, pixels=pixels)
    data = bytearray(path.read_bytes())
    for at in range(len(data) // 2, len(data) // 2 + 200):
        data[at] ^= 0x5A
    path.write_bytes(data)
    _, pictures, damaged = read(path)
    assert sum(rgb is not None for rgb in pictures) < 10
    assert damaged and 0.3 <= damaged[0].time_s <= 0.6


#: Formats whose lost packets FFmpeg passes over; key frames stand at every tenth frame.
PACKED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "GIF": ("v.gif", "gif", {"pixels": "rgb8"}),
    "APNG": ("v.apng", "apng", {"pixels": "rgb24"}),
    "WMV": ("v.wmv", "wmv2", {"options": LARGE | {"g": "10"}}),
    "FLV": ("v.flv", "flv", {"options": LARGE | {"g": "10"}}),
    "MXF": ("v.mxf", "mpeg2video", {"options": LARGE | {"g": "10"}, "rate": 25}),
    "MP4 in fragments": (
        "v.mp4",
        "libx264",
        {"options": {"g": "10", "bf": "0"}, "movflags": "frag_keyframe+empty_moov"},
    ),
    "YUV4MPEG": ("v.y4m", "rawvideo", {"form": "yuv4mpegpipe"}),
    "JPEGs": ("v.mjpeg", "mjpeg", {"pixels": "yuvj420p", "options": {"q:v": "2"}}),
}


@pytest.mark.parametrize("how", ["zeroed", "left out"])
@pytest.mark.parametrize(("name", "codec", "more"), PACKED.values(), ids=PACKED)
def test_packets_that_were_lost_are_told(
    tmp_path: Path, name: str, codec: str, more: dict[str, Any], how: str
) -> None:
    """From half a packet on, and for three packets."""
    path = write(tmp_path / name, [busy(k) for k in range(40)], codec, **more)
    rate = 10.0 if name.endswith("mjpeg") else 0.0
    whole, pictures, damaged = read(path, rate)
    assert len(whole) == 40 and all(rgb is not None for rgb in pictures) and not damaged
    places = sizes_and_places(path)
    begin, end = (at + size // 2 for at, size in (places[17], places[20]))
    end += 7  # else three raw frames would be missing, which nothing tells
    data = path.read_bytes()
    path.write_bytes(data[:begin] + bytes(end - begin if how == "zeroed" else 0) + data[end:])
    for _ in range(2):
        times, _, damaged = read(path, rate)
        assert len(times) < 40 and damaged
        if name != "v.y4m" or how == "zeroed":  # raw frames that were moved look like others
            assert any(whole[14] <= place.time_s <= whole[21] for place in damaged), damaged


@pytest.mark.parametrize("name", ["GIF", "APNG"])
def test_zeros_between_two_pictures_are_told(tmp_path: Path, name: str) -> None:
    """FFmpeg takes them for the end."""
    name, codec, more = PACKED[name]
    path = write(tmp_path / name, [busy(k) for k in range(20)], codec, **more)
    places = sizes_and_places(path)
    data = bytearray(path.read_bytes())
    (begin, _), (end, _) = places[10], places[12]
    data[begin:end] = bytes(end - begin)
    path.write_bytes(data)
    times, _, damaged = read(path)
    assert len(times) in (9, 10) and damaged  # FFmpeg drops the picture before zeros in an APNG
    assert {place.time_s for place in damaged} == {times[-1]}


@pytest.mark.parametrize("is_aligned", [False, True])
def test_packets_cut_out_of_a_wmv_are_told(tmp_path: Path, is_aligned: bool) -> None:
    """Where whole packets are missing, the numbers of the pictures tell."""
    path = write(tmp_path / "v.wmv", [busy(k) for k in range(40)], "wmv2", options=LARGE | {"g": "10"})
    data = path.read_bytes()
    begin = sizes_and_places(path)[14][0]
    end = begin + 5 * 3200 + (0 if is_aligned else 100)
    path.write_bytes(data[:begin] + data[end:])
    _, _, damaged = read(path)
    assert any(1.0 <= place.time_s <= 1.6 and place.until_s < 2.0 for place in damaged)


def test_times_of_a_wmv_may_jump(tmp_path: Path) -> None:
    times_ms = [0, 33, 66, 1000, 1033, 9000, 9033]
    times, _, damaged = read(write(tmp_path / "v.wmv", counted(7), "wmv2", times_ms=times_ms))
    assert times == pytest.approx([t / 1000 for t in times_ms], abs=2e-3) and not damaged


def test_second_recording_in_an_flv_is_not_passed_over(tmp_path: Path) -> None:
    data = write(tmp_path / "v.flv", counted(), "flv").read_bytes()
    (tmp_path / "v.flv").write_bytes(data + data)
    times, _, (place,) = read(tmp_path / "v.flv")
    assert len(times) == 12 and place.time_s == times[-1] and "second recording" in str(place)


def test_hole_in_a_matroska_file_is_told(tmp_path: Path) -> None:
    """By FFmpeg's log alone."""
    moving = [
        np.roll(busy(1), 4 * k, axis=1) for k in range(40)
    ]  # without cuts, for which it sets key frames
    clusters = {"cluster_time_limit": "500"}  # ms: one begins where no key frame does
    options = {"g": "30", "lag-in-frames": "0"}
    path = write(tmp_path / "v.webm", moving, "libvpx", options=options, muxer=clusters)
    places = sizes_and_places(path)
    data = bytearray(path.read_bytes())
    (begin, _), (end, _) = places[22], places[25]
    data[begin:end] = bytes(end - begin)
    path.write_bytes(data)
    for _ in range(2):  # FFmpeg's log leaves out what it has just said
        times, _, damaged = read(path)
        holes = [place for place in damaged if place.reason.startswith("the file is damaged")]
        assert times[21:23] == pytest.approx([2.1, 3.0]), "FFmpeg goes on at the next key frame"
        assert [(hole.time_s, hole.until_s) for hole in holes] == [(times[21], times[21])]


@pytest.mark.parametrize("lost", [(1, 20), (22, 25)], ids=["the first cluster", "a part of the second"])
def test_hole_that_ffmpeg_meets_while_it_opens_the_file(tmp_path: Path, lost: tuple[int, int]) -> None:
    """It reads up to 5 MB ahead, which is the whole of a small file."""
    path = write(tmp_path / "v.mkv", [busy(k) for k in range(60)], options=OF_FIVE | {"bf": "2", "g": "20"})
    assert not read(path)[2]
    places = sizes_and_places(path)
    begin, end = (places[k][0] for k in lost)
    data = bytearray(path.read_bytes())
    data[begin:end] = bytes(end - begin)
    path.write_bytes(data)
    for _ in range(2):
        times, _, damaged = read(path)
        holes = [place for place in damaged if place.reason.startswith("the file is damaged")]
        assert len(times) < 50 and holes
        assert all(abs(hole.time_s - (lost[0] - 1) / 10) < 0.3 for hole in holes)


def test_track_in_a_code_that_ffmpeg_does_not_know(tmp_path: Path) -> None:
    """It has no size. The other one is read, and where there is none, one sentence says so."""
    path = two_tracks(tmp_path / "v.mp4")
    data = path.read_bytes()
    first = data.index(b"avc1", data.index(b"stsd"))
    second = data.index(b"avc1", first + 4)
    for known, number, size in ((first, 1, (16, 12)), (second, 2, (64, 48))):
        unknown = second if known == first else first
        path.write_bytes(data[:unknown] + b"zzz9" + data[unknown + 4 :])
        info = open_video(path).info
        assert (info.width, info.height) == size and len(read(path)[0]) == 12
        assert info.notes == (
            f"{path} holds 2 video tracks, 1 of them in a code that FFmpeg cannot decode; "
            f"number {number} is read, of {size[0]}x{size[1]} pixels",
        )
    path.write_bytes(data.replace(b"avc1", b"zzz9"))
    with pytest.raises(VideoError, match=r"v\.mp4 holds video in a code that FFmpeg cannot decode; convert"):
        open_video(path)


def in_one_fragment(path: Path) -> tuple[bytearray, int]:
    """An MP4 of 40 frames in a fragment of its own, and where the table of frames stands in it.

    An entry is duration, size and offset, four bytes each (ISO/IEC 14496-12, 8.8.8).
    """
    flags = "empty_moov+frag_keyframe+default_base_moof"
    options = {"g": "40", "bf": "2", "sc_threshold": "0"}
    times_ms = [100 * k + 20 * (k % 3) for k in range(40)]  # evenly, their duration would stand there once
    write(path, [busy(k) for k in range(40)], options=options, movflags=flags, times_ms=times_ms)
    assert not read(path)[2]
    data = bytearray(path.read_bytes())
    at = data.index(b"trun")
    assert int.from_bytes(data[at + 5 : at + 8], "big") == 0xB05 and data[at + 11] == 40
    return data, at + 20


def test_frame_of_a_fragment_whose_time_is_damaged_is_told(tmp_path: Path) -> None:
    """Its time would be 36 hours; FFmpeg says nothing."""
    data, table = in_one_fragment(tmp_path / "v.mp4")
    at = table + 12 * 20 + 8
    data[at : at + 4] = (0x7F000000).to_bytes(4, "big")
    (tmp_path / "v.mp4").write_bytes(data)
    times, pictures, damaged = read(tmp_path / "v.mp4")
    assert times[-1] < 4.2 and sum(rgb is None for rgb in pictures) == 1
    assert any(1.5 < place.time_s < 2.5 and place.frames == 1 for place in damaged)


def test_fragment_that_ends_early_is_told_whatever_its_times(tmp_path: Path) -> None:
    """A time far too late would hide it, and the next size is so wrong that the rest cannot be found."""
    data, table = in_one_fragment(tmp_path / "v.mp4")
    at = table + 12 * 20
    data[at + 8 : at + 12] = (0x7F000000).to_bytes(4, "big")
    data[at + 16 : at + 20] = (0x19C00000).to_bytes(4, "big")
    (tmp_path / "v.mp4").write_bytes(data)
    times, _, damaged = read(tmp_path / "v.mp4")
    assert len(times) < 23
    reasons = {place.reason for place in damaged}
    assert "a damaged frame is missing" in reasons
    assert any(reason.endswith("of the 4.06 s that it states") for reason in reasons)


@pytest.mark.parametrize("lost", ["header", "both"])
def test_last_fragment_that_is_lost_is_told(tmp_path: Path, lost: str) -> None:
    """Nothing follows it but the index of fragments."""
    options = OF_FIVE | {"g": "10"}
    flags = "frag_keyframe+empty_moov"
    path = write(tmp_path / "v.mp4", [busy(k) for k in range(40)], options=options, movflags=flags)
    data = bytearray(path.read_bytes())
    begin, end = data.rindex(b"moof") - 4, data.rindex(b"mdat") - 4
    if lost == "both":
        end = data.rindex(b"mfra") - 4
    data[begin:end] = bytes(end - begin)
    path.write_bytes(data)
    times, _, damaged = read(path)
    assert len(times) == 30
    assert [place.time_s for place in damaged] == [times[-1]]
    assert "a part of it is missing" in str(damaged)


def test_times_far_beyond_the_stated_length_are_told(tmp_path: Path) -> None:
    """One duration in the table of an MP4 is damaged (ISO/IEC 14496-12, 8.6.1.2)."""
    times_ms = [100 * k + 20 * (k % 3) for k in range(40)]
    path = write(tmp_path / "v.mp4", counted(40), times_ms=times_ms, options={"bf": "0"})
    data = bytearray(path.read_bytes())
    at = data.index(b"stts") + 12 + 8 * 20 + 4
    data[at : at + 4] = (0x3F000000).to_bytes(4, "big")
    path.write_bytes(data)
    _, _, damaged = read(path)
    assert any("frames are far beyond the 4." in place.reason for place in damaged)


def test_two_recordings_in_one_file_go_on(tmp_path: Path) -> None:
    """The second begins at its own zero."""
    parts = [write(tmp_path / f"{k}.ts", counted(12), rate=rate) for k, rate in enumerate((10, 5))]
    (tmp_path / "v.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    times, _, _ = read(tmp_path / "v.ts")
    assert len(times) == 24
    assert np.diff(times[:12]) == pytest.approx(0.1)
    assert np.diff(times[13:]) == pytest.approx(0.2)


def test_what_the_log_tells_is_in_its_own_recording(tmp_path: Path) -> None:
    """The log of NUT tells of the place where the second begins."""
    path = write(tmp_path / "v.nut", [busy(k) for k in range(30)], rate=25, options=OF_FIVE)
    data = path.read_bytes()
    path.write_bytes(data + data)
    times, _, damaged = read(path)
    assert len(times) >= 60
    assert damaged and all(1.1 < place.time_s < 1.3 for place in damaged)


def test_damage_of_one_recording_is_not_that_of_the_next(tmp_path: Path) -> None:
    """Their clocks agree, and the first one is cut off."""
    data = write(tmp_path / "v.ts", [busy(k) for k in range(12)]).read_bytes()
    (tmp_path / "v.ts").write_bytes(data[:-188] + data)
    _, pictures, damaged = read(tmp_path / "v.ts")
    assert len(pictures) == 24
    lost = [k for k, rgb in enumerate(pictures) if rgb is None]
    assert lost and set(lost) <= {10, 11}
    assert sum(place.frames for place in damaged) == len(lost)


@pytest.mark.parametrize(("stage", "closing"), [("open", 1), ("open", 2), ("plot", 1)])
def test_ctrl_c_while_a_video_is_closed_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, closing: int
) -> None:
    """The signal comes at that very moment. Whoever leaves the closing to the garbage collector loses it."""
    path = write(tmp_path / "v.mp4", counted(30))
    opened = open_video(path)
    monkeypatch.setattr(curve_plot, "open_video", lambda *_: opened)
    stages: dict[str, Callable[[], object]] = {
        "open": lambda: open_video(path),
        "plot": lambda: curve_plot.frames_at(open_video(path), [0.0]),
    }
    with monkeypatch.context() as patches:
        closings = count(1)

        def interrupt(_: float) -> None:
            if next(closings) == closing:
                signal.raise_signal(signal.SIGINT)

        patches.setattr(video_track, "sleep", interrupt)
        with pytest.raises(KeyboardInterrupt):
            stages[stage]()


def test_size_that_changes_is_passed_on(tmp_path: Path) -> None:
    parts = [write(tmp_path / f"{w}.ts", counted(6, width=w)) for w in (64, 96)]
    (tmp_path / "v.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    _, pictures, _ = read(tmp_path / "v.ts")
    assert {rgb.shape[1] for rgb in pictures if rgb is not None} == {64, 96}


def test_cover_picture_is_no_video(tmp_path: Path) -> None:
    """The cover comes first and has more pixels."""
    cover = av.VideoFrame.from_ndarray(busy(1, 320, 240), format="rgb24")
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as container:
        picture_track = container.add_stream("mjpeg", rate=10)
        picture_track.width, picture_track.height, picture_track.pix_fmt = 320, 240, "yuvj420p"
        picture_track.disposition = av.stream.Disposition.attached_pic
        film = container.add_stream("libx264", rate=10)
        film.width, film.height, film.pix_fmt = 64, 48, "yuv420p"
        container.mux(picture_track.encode(cover))
        container.mux(picture_track.encode(None))
        for rgb in counted():
            container.mux(film.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(film.encode(None))
    assert (open_video(path).info.width, len(read(path)[0])) == (64, 12)
    assert not open_video(path).info.notes


def test_title_in_an_old_encoding(tmp_path: Path) -> None:
    path = write(tmp_path / "v.mkv", counted(3), setup=lambda stream: stream.metadata.update(title="Zug xyz"))
    data = path.read_bytes()
    assert b"Zug xyz" in data
    path.write_bytes(data.replace(b"Zug xyz", b"Zug \xfc\xff\xfe"))
    assert len(read(path)[0]) == 3


@pytest.mark.parametrize(
    ("name", "form"), [("GIF", "gif"), ("APNG", "apng"), ("WMV", "asf"), ("FLV", "flv"), ("MXF", "mxf")]
)
def test_structure_of_any_bytes_is_walked_to_an_end(tmp_path: Path, name: str, form: str) -> None:
    """Lengths and flags that are wrong lead to no place outside the file, and to no error."""
    name, codec, more = PACKED[name]
    data = write(tmp_path / name, counted(3), codec, **more).read_bytes()
    assert not faults_of(io.BytesIO(data), form)
    for at in range(0, min(len(data), 300)):
        for value in (b"\0", b"\x7f", b"\xff"):
            broken = data[:at] + 8 * value + data[at + 8 :]
            places = [place for place, _ in faults_of(io.BytesIO(broken), form)]
            assert places == sorted(places) and all(0 <= place <= len(broken) for place in places)


def test_a_bag_is_sent_to_what_reads_bags(tmp_path: Path) -> None:
    bag = tmp_path / "run"
    bag.mkdir()
    (bag / "metadata.yaml").write_text("rosbag2_bagfile_information: {}")
    (bag / "run_0.mcap").write_bytes(b"\x89MCAP0\r\n")
    for path in (bag, bag / "run_0.mcap"):
        with pytest.raises(VideoError, match="topreward annotate"):
            open_video(path)


def test_a_film_of_times_that_no_camera_has_says_so(tmp_path: Path) -> None:
    path = tmp_path / "fast.mp4"
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=1000)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for k in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 10 * k, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    (note,) = open_video(path).info.notes
    assert "fast.mp4 has 1000 frames per second by its own times" in note and "--rate" in note
    assert open_video(path, 20.0).info.notes == ()
