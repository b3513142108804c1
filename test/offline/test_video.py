"""Video files and folders are read in order, in the right colours and with the right stamps."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from topreward_ros.core.frames import Frame
from topreward_ros.defaults import DEMO_CLIPS, DemoClip, shared_file
from topreward_ros.offline.video import FrameError, Video, VideoError, _DamageLog, _Stamps, open_video
from topreward_ros.offline.video_times import PacketClock


def picture(k: int) -> np.ndarray:
    """Frame k: (48, 64, 3) uint8 RGB, red with a blue bar whose width tells k."""
    rgb = np.full((48, 64, 3), (200, 20, 20), np.uint8)
    rgb[:, : 4 * k] = (20, 20, 200)
    return rgb


def number_of(rgb: np.ndarray) -> int:
    return round(np.count_nonzero(rgb[24, :, 2] > rgb[24, :, 0]) / 4)


def write_file(path: Path, count: int = 12, fps: float = 30.0, codec: str = "mp4v") -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, (64, 48))
    assert writer.isOpened()
    for k in range(count):
        writer.write(np.ascontiguousarray(picture(k)[..., ::-1]))
    writer.release()
    return path


def write_folder(path: Path, names: list[str]) -> Path:
    path.mkdir()
    for k, name in enumerate(names):
        cv2.imwrite(str(path / name), np.ascontiguousarray(picture(k)[..., ::-1]))
    return path


def decoded(video: Video) -> list[Frame]:
    return [Frame(stamp_ns, read()) for stamp_ns, read in video]


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "mp4v"), ("avi", "MJPG"), ("mkv", "mp4v")])
@pytest.mark.parametrize("fps", [10.0, 29.97, 30.0])
def test_file(tmp_path: Path, suffix: str, codec: str, fps: float):
    path = write_file(tmp_path / f"v.{suffix}", fps=fps, codec=codec)
    video = open_video(path)
    assert video.info.rate == pytest.approx(fps, rel=1e-3)
    assert (video.info.width, video.info.height) == (64, 48)
    assert video.info.frame_count == pytest.approx(12, abs=1)
    frames = decoded(video)
    assert [number_of(f.image) for f in frames] == list(range(12))
    clock = 1e6 if suffix == "mkv" else 2  # Matroska counts milliseconds
    assert [f.stamp_ns for f in frames] == pytest.approx([k * 1e9 / fps for k in range(12)], abs=clock)
    assert frames[0].image.dtype == np.uint8
    assert frames[0].image.flags.c_contiguous
    assert np.abs(frames[0].image[24, 32].astype(int) - (200, 20, 20)).max() < 12  # red, not blue
    assert [stamp for stamp, _ in video] == [f.stamp_ns for f in frames]  # once more from the start


def test_given_rate_replaces_the_files_own(tmp_path: Path):
    video = open_video(write_file(tmp_path / "v.mp4"), rate=7.0)
    assert video.info.rate == 7.0
    assert [stamp for stamp, _ in video] == [round(k * 1e9 / 7) for k in range(12)]


def test_stamps_are_the_files_own_where_they_increase():
    """Starts at 5 s, varies its rate, repeats a time, has none, goes on."""
    stamps = _Stamps(rate=10.0, use_file=True)
    presented_s = [5.0, 5.04, 5.2, 5.2, None, 5.50000001]
    ms = [stamps.next(value, begin_s=5.0) / 1e6 for value in presented_s]
    assert ms == pytest.approx([0, 40, 200, 300, 400, 500], abs=1e-4)


def test_stamps_begin_with_a_frame_that_is_lost_and_go_on_with_the_next_recording():
    """A time that goes back within a recording is wrong."""
    stamps = _Stamps(rate=10.0, use_file=True)
    first = [stamps.next(value, 0, 10.0) / 1e6 for value in (10.2, 10.3, 0.0, 10.6)]
    second = [stamps.next(value, 1, 3.0) / 1e6 for value in (None, 3.2, 3.25)]
    assert first + second == pytest.approx([200, 300, 400, 600, 700, 900, 950], abs=1e-4)


@pytest.mark.parametrize(
    ("times", "wrong", "begin"),
    [
        ([100, 101, 0, 103, 104], [2], []),  # one that is wrong
        ([100, 101, 0, 103, 1, 105], [2, 4], []),  # two that are
        ([100, 101, 50, 0, 104], [2, 3], []),  # and disagree
        ([100, 101, 0, 2, 3], [], [2]),  # a new count
        ([100, 101, 30, 32, 33, 0, 1], [], [2, 5]),
        ([100, 101, 200, 201, 202], [], []),  # forwards: may be a wait
        ([100, 101, 200, 201, 103, 104], [2, 3], []),  # and here it is not
        ([100, 101, 98, 99, 102], [], []),  # not far
    ],
)
def test_a_recording_begins_where_two_times_agree(times: list[int], wrong: list[int], begin: list[int]):
    clock = PacketClock(Fraction(1, 10))
    found = [clock.note(time, time, times[k + 1 :], is_key=False) for k, time in enumerate(times)]
    assert [k for k, (is_right, _) in enumerate(found) if not is_right] == wrong
    assert [k for k, (_, begins) in enumerate(found) if begins] == begin


def test_what_is_found_later_lasts_until_the_next_key_frame():
    log = _DamageLog()
    for k in range(20):
        log.pass_frame(k / 10, is_key=k in (0, 10))
    for time_s in (1.3, 0.5, 0.9):
        log.add(time_s, "a hole", 0)
    assert [(place.time_s, place.until_s) for place in log.entries] == [(1.3, 1.9), (0.5, 0.9), (0.9, 0.9)]


def test_frames_that_are_not_due_need_not_be_decoded(tmp_path: Path):
    due = [read() for k, (_, read) in enumerate(open_video(write_file(tmp_path / "v.mp4"))) if k % 4 == 3]
    assert [number_of(image) for image in due] == [3, 7, 11]


def test_folder_in_natural_order(tmp_path: Path):
    names = [f"frame{k}.png" for k in range(12)]
    folder = write_folder(tmp_path / "images", names)
    (folder / "notes.txt").write_text("not an image")
    frames = decoded(open_video(folder, rate=4.0))
    assert [number_of(f.image) for f in frames] == list(range(12))
    assert [f.stamp_ns for f in frames] == [k * 250_000_000 for k in range(12)]
    assert np.array_equal(frames[5].image, picture(5))
    assert open_video(folder, rate=4.0).info.frame_count == 12


def test_names_that_mix_digits_and_letters(tmp_path: Path):
    names = ["1.png", "1a.png", "2.png", "10.png", "a.png", "a²3.png"]
    folder = write_folder(tmp_path / "images", names)
    assert [number_of(f.image) for f in decoded(open_video(folder, rate=1.0))] == list(range(6))


@pytest.mark.parametrize("rate", [-1.0, float("nan"), float("inf")])
def test_rate_that_is_none(tmp_path: Path, rate: float):
    with pytest.raises(VideoError, match="rate"):
        open_video(tmp_path, rate)


@pytest.mark.parametrize(
    "address", ["https://example.org/run.mp4", "S3://runs/1.mp4?key=" + "k" * 300, "file:///runs/1.mp4"]
)
def test_an_address_is_not_taken_for_a_path(address: str):
    with pytest.raises(VideoError, match="is an address, and no address is read: save the video to a file"):
        open_video(address)


def test_what_cannot_be_opened(tmp_path: Path):
    with pytest.raises(VideoError, match=r"no video at .*missing\.mp4"):
        open_video(tmp_path / "missing.mp4")
    for name, content in {"empty.mp4": b"", "zeros.mp4": bytes(5000), "code.py": b"import this\n"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(VideoError, match=f"{name} is not a video"):
            open_video(tmp_path / name)
    for rate in (0.0, 1.0):
        with pytest.raises(VideoError, match="holds no images; expected files ending in"):
            open_video(write_folder(tmp_path / f"none{rate}", []), rate)
    with pytest.raises(VideoError, match=r"images has no frame rate of its own; give one .*--rate"):
        open_video(write_folder(tmp_path / "images", ["1.png"]))


def test_folder_that_holds_no_images_but(tmp_path: Path):
    """What a person meant is said, and first of all that it holds no images."""
    (tmp_path / "runs").mkdir()
    write_file(tmp_path / "runs" / "b.mp4", count=1)
    write_file(tmp_path / "runs" / "a.mp4", count=1)
    with pytest.raises(VideoError, match=r"runs holds no images; it holds 2 videos: name .*runs/a\.mp4"):
        open_video(tmp_path / "runs")
    (tmp_path / "camera").mkdir()
    write_folder(tmp_path / "camera" / "left", ["1.png"])
    (tmp_path / "camera" / "._IMG.jpg").write_bytes(b"notes of macOS")
    (tmp_path / "camera" / "3.png").mkdir()
    with pytest.raises(VideoError, match=r"camera holds no images; its folder left does: name that"):
        open_video(tmp_path / "camera")


def test_hidden_files_and_folders_are_no_images(tmp_path: Path):
    folder = write_folder(tmp_path / "images", ["1.png", "2.jpg"])
    (folder / "._1.png").write_bytes(b"notes of macOS")
    (folder / "3.png").mkdir()
    assert open_video(folder, rate=1.0).info.frame_count == 2


def test_order_that_is_a_guess_is_noted(tmp_path: Path):
    folder = write_folder(tmp_path / "images", ["IMG_1.png", "IMG_1 (1).png"])
    (note,) = open_video(folder, rate=1.0).info.notes
    assert (
        note
        == f"images in {folder}: IMG_1 (1).png looks like a copy of IMG_1.png, and both are used; "
        + ("remove one of them")
    )


def test_video_without_frames(tmp_path: Path):
    with pytest.raises(VideoError, match=r"v\.avi"):
        open_video(write_file(tmp_path / "v.avi", count=0, codec="MJPG"))


def test_damaged_image_in_a_folder(tmp_path: Path):
    folder = write_folder(tmp_path / "images", ["0.png", "1.png"])
    (folder / "1.png").write_bytes(b"not a png")
    video = open_video(folder, rate=1.0)
    frames = iter(video)
    stamp_ns, read = next(frames)
    assert stamp_ns == 0 and number_of(read()) == 0
    _, read = next(frames)
    with pytest.raises(FrameError, match=r"1\.png is corrupt.*repair or remove it"):
        read()
    assert next(frames, None) is None
    (place,) = video.damaged
    assert (place.time_s, place.until_s, place.frames) == (1.0, 1.0, 1) and "1.png" in place.reason


def test_a_link_that_leads_nowhere_keeps_the_place_of_its_image(tmp_path: Path):
    """As git-annex leaves them where the content is elsewhere."""
    folder = write_folder(tmp_path / "images", [f"{k}.png" for k in range(4)])
    for name in ("1.png", "3.png"):
        (folder / name).unlink()
    (folder / "1.png").symlink_to("../.git/annex/objects/1")
    (folder / "3.png").symlink_to("3.png")
    video = open_video(folder, rate=1.0)
    assert len(list(video)) == video.info.frame_count == 4
    assert [(place.time_s, place.frames) for place in video.damaged] == [(1.0, 1), (3.0, 1)]
    assert "1.png cannot be read" in video.damaged[0].reason


def test_numbers_that_are_missing_in_a_folder_are_told(tmp_path: Path):
    folder = write_folder(tmp_path / "images", [f"{k:03}.png" for k in (*range(5), *range(8, 16), 17)])
    (note,) = open_video(folder, rate=1.0).info.notes
    assert "4 numbers are missing, first between 004.png and 008.png" in note and "times are early" in note


def test_cut_jpeg_in_a_folder_is_no_half_grey_picture(tmp_path: Path):
    folder = write_folder(tmp_path / "images", ["0.jpg", "1.jpg", "2.jpg"])
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    cv2.imwrite(str(folder / "1.jpg"), noise)
    data = (folder / "1.jpg").read_bytes()
    (folder / "1.jpg").write_bytes(data[: len(data) // 2] + data[-2:])
    reads = [read for _, read in open_video(folder, rate=1.0)]
    assert [number_of(reads[k]()) for k in (0, 2)] == [0, 2]
    with pytest.raises(FrameError, match=r"1\.jpg, 64x48, has lost a part.*repair or remove it"):
        reads[1]()


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp"])
@pytest.mark.parametrize("lost", ["its end", "all", "all but zeros"])
def test_a_broken_image_that_is_not_due_is_told(tmp_path: Path, suffix: str, lost: str):
    folder = write_folder(tmp_path / "images", [f"{k}.{suffix}" for k in range(4)])
    data = (folder / f"2.{suffix}").read_bytes()
    left = {"its end": data[: len(data) // 2], "all": b"", "all but zeros": bytes(len(data))}[lost]
    (folder / f"2.{suffix}").write_bytes(left)
    video = open_video(folder, rate=2.0)
    for k, (_, read) in enumerate(video):
        if k == 0:
            read()
    if lost == "its end" and suffix not in ("png", "jpg"):  # nothing tells their end but decoding
        assert not video.damaged
    else:
        (place,) = video.damaged
        assert (place.time_s, place.frames) == (1.0, 1) and f"2.{suffix}" in place.reason
    reads = [read for _, read in open_video(folder, rate=2.0)]
    with pytest.raises(FrameError):
        reads[2]()


def test_an_image_that_only_seems_broken_is_not_told(tmp_path: Path):
    """Some programs write notes behind the end of a picture."""
    folder = write_folder(tmp_path / "images", ["0.png", "1.png", "2.jpg"])
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes() + b"notes" * 50)
    video = open_video(folder, rate=1.0)
    assert len(list(video)) == 3 and not video.damaged


def test_folder_whose_first_image_is_damaged(tmp_path: Path):
    folder = write_folder(tmp_path / "images", ["0.png", "1.png"])
    (folder / "0.png").write_bytes(b"")
    video = open_video(folder, rate=1.0)
    assert (video.info.width, video.info.height) == (64, 48)
    (_, first), (stamp_ns, second) = video
    with pytest.raises(FrameError, match=r"0\.png is empty"):
        first()
    assert stamp_ns == 10**9 and number_of(second()) == 1
    (folder / "1.png").write_bytes(b"")
    with pytest.raises(VideoError, match=r"images holds no image that can be read; .*0\.png is empty"):
        open_video(folder, rate=1.0)


@pytest.mark.parametrize("clip", DEMO_CLIPS, ids=lambda clip: clip.name)
def test_demo_clip(clip: DemoClip):
    """The clips that ship: an arm that is idle, works (or does not), and is idle again."""
    path = shared_file(clip.video)
    assert path.stat().st_size < 300_000
    frames = decoded(open_video(path))
    assert 200 <= len(frames) <= 260
    assert [f.stamp_ns for f in frames] == [k * 50_000_000 for k in range(len(frames))]
    assert frames[0].image.shape == (360, 480, 3)

    def change(a: int, b: int) -> float:
        return float(np.abs(frames[a].image.astype(int) - frames[b].image).mean())

    assert change(0, 9) < 1
    assert change(-60, -1) < 1, "a success must last to be noticed"
    assert (change(0, -1) > 3) == (clip.name != "idle")


def write_deep(path: Path, brightest: int, count: int = 3) -> Path:
    """Grey PNGs of 16 bits, from 0 to ``brightest``."""
    path.mkdir()
    for k in range(count):
        ramp = np.linspace(0, brightest, 64 * 48).astype(np.uint16).reshape(48, 64)
        cv2.imwrite(str(path / f"{k}.png"), np.roll(ramp, k, axis=0))
    return path


def test_depth_images_in_a_folder_are_refused(tmp_path: Path):
    with pytest.raises(VideoError, match=r"grey images of 16 bits .* as in depth images: name the folder"):
        open_video(write_deep(tmp_path / "depth", brightest=9000), rate=1.0)
    unknown = write_deep(tmp_path / "unknown", brightest=9000)
    for file in unknown.iterdir():  # some cameras mark unknown depth by the largest value
        samples = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        samples[:3, :5] = 65535
        cv2.imwrite(str(file), samples)
    with pytest.raises(VideoError, match="depth"):
        open_video(unknown, rate=1.0)


def test_brightness_of_16_bits_in_a_folder_is_read_with_a_note(tmp_path: Path):
    folder = write_deep(tmp_path / "grey", brightest=65535)
    cv2.imwrite(str(folder / "0.png"), np.zeros((48, 64), np.uint16))  # the lamp was off
    video = open_video(folder, rate=1.0)
    assert len(video.info.notes) == 1 and "read as brightness from 0 to 65535" in video.info.notes[0]
    assert [int(read().max()) for _, read in video] == [0, 255, 255]


def test_a_depth_image_among_colour_images_is_left_out(tmp_path: Path):
    folder = write_folder(tmp_path / "images", ["0.png", "1.png"])
    cv2.imwrite(str(folder / "1.png"), np.full((48, 64), 40_000, np.uint16))
    _, (_, second) = open_video(folder, rate=1.0)
    with pytest.raises(FrameError, match=r"1\.png is grey of 16 bits, the first image is not"):
        second()


def test_streams_side_by_side_in_a_folder_are_refused(tmp_path: Path):
    folder = write_folder(tmp_path / "images", ["left_0.png", "left_1.png", "right_0.png", "right_1.png"])
    with pytest.raises(VideoError, match=r"images holds several streams .*left_0\.png and right_0\.png"):
        open_video(folder, rate=1.0)
