"""One video file, read with PyAV (FFmpeg): the frames of its largest track, in the order they are shown.

A frame comes with its presentation time and can be made an upright RGB picture of square pixels. What FFmpeg
says about damage is passed on. Nothing but the one file is ever opened: no playlist is followed, and no name
is taken for a pattern, a device or an address.
"""

from __future__ import annotations

import logging
import re
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from io import SEEK_END
from pathlib import Path
from time import sleep
from typing import Any, BinaryIO, NamedTuple, TypeVar

import av
import av.logging
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.sidedata.sidedata import SideDataContainer
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorTrc, VideoReformatter
from av.video.stream import VideoStream

from topreward_ros.core.counted import counted
from topreward_ros.core.errors import UserError
from topreward_ros.offline import bag_layout
from topreward_ros.offline.encoded_image import is_zeroed_jpeg
from topreward_ros.offline.video_structure import faults_of
from topreward_ros.offline.video_times import FOLLOWING, LONGEST_DELAY, LostFrames, PacketClock, Reach

#: Called for each damage with what happened, how many frames were lost by it (0: not known), and the
#: presentation time [s] of the first of them; None: they lie between the newest frame and the next.
Report = Callable[[str, int, float | None], None]

_NO_TIMES = 0x80  # AVFMT_NOTIMESTAMPS of FFmpeg's avformat.h: the format holds no times of its own
_COVERS = Disposition.attached_pic | Disposition.timed_thumbnails
#: Formats that FFmpeg reads and that are no video files: other files by name, text, still pictures.
_NOT_VIDEOS = frozenset(("concat", "dash", "hls", "image2", "imf", "rtsp", "sdp", "tty"))
#: A stream may end so much before the length that its file states, which some round: [s], and a share.
_END_TOLERANCE_S = 0.5
_END_TOLERANCE = 0.01
#: A packet is far beyond a stated length from twice the length and this much on [s].
_FAR_S = 10.0
_AVI_CHUNK = 8  # bytes before the data of a packet in an AVI
_WIDEST_PIXEL = 16  # a ratio beyond this or its inverse is a fault in the file
#: BT.2020, DCI-P3 and Display P3, and the curves of PQ and HLG: numbers of ITU-T H.273, tables 2 and 3.
_WIDE_PRIMARIES = frozenset((9, 11, 12))
_HDR_CURVES = frozenset((16, 18))
#: Codes whose decoder shows a picture that lost a part as if it were whole, unless it is told to be strict.
_STRICT = frozenset(("mjpeg",))
#: Codes whose decoder only logs what it finds damaged. They are decoded in this thread, to see it.
_TOLD_IN_LOG = frozenset(("ffv1", "gif"))
#: Codes in which an empty packet repeats the frame before (Theora, 7.1). They are decoded in this thread,
#: so that this is the newest one.
_REPEATING = frozenset(("theora",))
_FRAMES_ALONE = frozenset(("dv", "yuv4mpegpipe"))  # formats that hold frames of one size and nothing else
#: What may follow the last part of a multipart stream (RFC 2046, 5.1.1).
_LONGEST_BOUNDARY = 100
_LAST_BOUNDARY = re.compile(rb"\s*--[^\r\n]*\s*")
#: Where FFmpeg's log says at which byte of the file something is wrong.
_PLACE_IN_LOG = re.compile(
    r"\b(?:at|offset) (?:pos\.? )?(?P<at>0x[0-9a-f]+|\d+)\b|^Packet mismatch -?\d+ \d+ (?P<flv>\d+)$"
)
_SETTLING_S = 0.01  # for decoder threads that are just writing to the log, see `_errors_of`

# Titles in an old encoding must not prevent reading. From 19 on PyAV sees to it, and has no argument for it.
_FOREIGN_TEXT: dict[str, Any] = (
    {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
)

# A library is to be silent unless its user asks for its log.
logging.getLogger("libav").addHandler(logging.NullHandler())


class TrackError(UserError):
    """A file holds no video that can be read. The text goes on from the file's name."""


class Complaint(NamedTuple):
    """What is wrong somewhere in a file."""

    reason: str
    packets: int  #: how many came before
    at_s: float | None  #: the latest time of those of its recording [s]
    recording: int  #: as `Track.recording` counts them


class Track:
    """The largest video track of an opened file, FFmpeg's choice among equals. Read it once and close it."""

    def __init__(self, path: Path) -> None:
        """Raises `TrackError`, and `OSError` where the file cannot be opened."""
        self._path = path
        self._file = path.open("rb", buffering=0)
        self._container: InputContainer | None = None
        try:
            self._container = _open(self._file, path.suffix)
            self.notes: list[str] = []  #: what the user should know about how the file is read
            self._stream = self._choose()
            self._reformatter = VideoReformatter()  # a new one for each frame would take longer than its work
            self._damaged: dict[int, _DamagedPacket] = {}  # by their times
            self._count = 0  # of packets
            self._newest_s: float | None = None  # time of the newest frame
            self._failed = 0  # how many times decoding did
            self._losses = LostFrames(self._stream.time_base)
            #: How many recordings, each with a clock of its own, have ended before the newest frame.
            self.recording = 0
            self._is_sought = False
            self._is_behind_damage = False  # the newest packet is marked as damaged
            #: When the first frame of the newest one is to be shown, which may be lost [s]; None: not known.
            self.begin_s: float | None = None
            #: When the first frame was shown that may be built on the newest one, or on those that were lost
            #: just before it, though it came before [s]; None: there is no such frame.
            self.doubtful_s: float | None = None
            #: Packets whose frames never came, after `frames`.
            self.lost: list[Complaint] = []
            #: Per packet, how far it and those before it of its recording reach [s]; None: not known.
            self._reached: list[float | None] = []
            self._begun: list[int] = []  # packets with which recordings begin, but for the first
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        try:
            if self._container is not None:
                sleep(_SETTLING_S)
        finally:  # also where Ctrl-C cuts the sleep
            if self._container is not None:
                self._container.close()
            self._file.close()

    def _choose(self) -> VideoStream:
        assert self._container is not None
        videos = [stream for stream in self._container.streams.video if not stream.disposition & _COVERS]
        if not videos:
            kinds = {stream.type for stream in self._container.streams}
            if "video" in kinds:
                raise TrackError("holds a cover picture and no video")
            raise TrackError("holds no video" + (" but sound" if "audio" in kinds else ""))
        known = [stream for stream in videos if getattr(stream, "codec_context", None) is not None]
        if not known:  # such a stream has no size either
            raise TrackError("holds video in a code that FFmpeg cannot decode; convert it to H.264")
        # FFmpeg's own choice takes what comes first or is marked as default, be it a small preview
        most = max(stream.width * stream.height for stream in known)
        largest = [stream for stream in known if stream.width * stream.height == most]
        best = self._container.streams.best("video")
        if not isinstance(best, VideoStream) or best not in largest:
            best = largest[0]
        self._number = self._container.streams.video.index(best)
        if len(videos) > 1:
            unknown = len(videos) - len(known)
            self.notes.append(
                f"holds {len(videos)} video tracks"
                + (f", {unknown} of them in a code that FFmpeg cannot decode" if unknown else "")
                + f"; number {videos.index(best) + 1} is read, of {best.width}x{best.height} pixels"
            )
        if best.codec_context.name in _STRICT:
            best.codec_context.options = {"err_detect": "explode"}
        best.thread_type = "NONE" if best.codec_context.name in _TOLD_IN_LOG | _REPEATING else "AUTO"
        return best

    @property
    def has_times(self) -> bool:
        """Whether the format has times; a raw stream has none."""
        assert self._container is not None
        return not self._container.format.flags & _NO_TIMES and self._container.format.name != "mpjpeg"

    @property
    def _is_avi(self) -> bool:
        assert self._container is not None
        return self._container.format.name == "avi"

    @property
    def _packets_have_times(self) -> bool:
        """Whether packets say when their frames are shown; those of an AVI do where that is their order."""
        return self.has_times and not (self._is_avi and self._stream.codec_context.has_b_frames)

    @property
    def _is_mp4(self) -> bool:
        assert self._container is not None
        return "mp4" in self._container.format.name.split(",")

    @property
    def rate(self) -> float:
        """Frames per second [Hz] as the file states them, 0 where it states none. FFmpeg would assume 25.

        What AVI and DV state may be how often their clock ticks, so that their frames are asked.
        """
        if self.has_times:
            if self._is_avi or self._stream.average_rate == 1 / (self._stream.time_base or 1):
                return float(self._stream.guessed_rate or self._stream.average_rate or 0)
            return float(self._stream.average_rate or self._stream.guessed_rate or 0)
        return float(self._stream.codec_context.framerate or 0)

    @property
    def frame_count(self) -> int:
        """Number of frames that the file states, or what follows from its length; 0 where unknown."""
        frames = 0 if self._is_avi else self._stream.frames  # an AVI states ticks
        return frames or round(self._stated_s() * self.rate)

    def _stated_s(self) -> float:
        """Length [s] that the file states; 0 where it states none."""
        assert self._container is not None
        duration, unit = self._stream.duration, self._stream.time_base
        if self._is_avi and duration is not None:
            # FFmpeg fits the length to what is there, and keeps the count
            duration = max(duration, self._stream.frames)
        if duration is not None and unit is not None:
            return float(duration * unit)
        return (self._container.duration or 0) / av.time_base

    def start_near(self, time_s: float) -> bool:
        """Let `frames` begin with the key frame at or before ``time_s`` [s]; False where that cannot be done.

        Call it once, before `frames`. A format whose times do not say where they lie may begin elsewhere.
        """
        assert self._container is not None
        unit = self._stream.time_base
        if not self.has_times or not unit:
            return False
        try:
            self._container.seek(int(time_s / unit), stream=self._stream)
        except (av.FFmpegError, OSError, OverflowError):
            return False
        self._is_sought = True
        return True

    def frames(self, report: Report) -> Iterator[tuple[float | None, VideoFrame]]:
        """Yield each frame with its presentation time [s], None where it has none or it is not believed.

        Calls ``report`` where frames were lost, before the next frame. A frame may be damaged, see
        `is_damaged`. One that a damage has brought out of its order is left out. What can only be said after
        the last one is in `lost`.
        """
        assert self._container is not None
        repeats = self._stream.codec_context.name in _REPEATING
        order = _AviOrder(self._stream, self._is_sought) if self._is_avi else None
        shown: VideoFrame | None = None

        def report_lost(frames: int, since: int | None = None) -> None:
            if frames:
                report("cannot be decoded", frames, self._seconds(since))

        def taken(packet: Packet[VideoStream] | None) -> Iterator[tuple[float | None, VideoFrame]]:
            """What decoding a packet gives, or what is left in the decoder (None)."""
            nonlocal shown
            losses = self._losses
            try:
                frames, errors = self._decoded(packet)
            except Exception as error:  # of whatever kind: it is this file's alone
                if not isinstance(error, av.EOFError):
                    self._failed += 1
                    report_lost(losses.fail(self._count))
                return
            for frame in frames:
                if shown is not None and shown.pts is not None:  # a later frame may have the same time
                    self._damaged.pop(shown.pts, None)
                if errors and frame.pts is not None:
                    self._note_damaged(frame.pts)
                assert isinstance(frame, VideoFrame)
                shown = frame
                time = order.time_of(frame) if order is not None else frame.pts
                shown_at = time if self._packets_have_times else None
                is_believed = self._is_believed(frame)
                if losses.is_late(shown_at):
                    report_lost(*losses.late())
                    if not is_believed:
                        report_lost(1)
                    continue
                if is_believed:
                    lost, doubtful = losses.before(shown_at, frame.key_frame, self.is_damaged(frame))
                    self.doubtful_s = self._seconds(doubtful)
                    report_lost(lost)
                    self._newest_s = self._seconds(time)
                else:
                    self.doubtful_s = None
                    losses.damage()
                self.begin_s = self._seconds(time if losses.begin is None else losses.begin)
                yield self._newest_s if is_believed else None, frame
            self.doubtful_s = None
            report_lost(*losses.overdue(self._count))

        for packet, is_right, begins in self._packets(report):
            if repeats and packet is not None and not packet.size and packet.pts is not None:
                if shown is not None:
                    yield self._seconds(packet.pts), shown
                continue
            if begins:  # what the decoder still holds is of the recording before
                yield from taken(None)
                report_lost(*self._losses.rest())
                self._stream.codec_context.flush_buffers()
                self._forget(keep=0)
                self._losses = LostFrames(self._stream.time_base)
                self.recording += 1
            if packet is not None:
                if order is not None:
                    self._losses.lose(order.note(packet), self._count)
                self._expect(packet, is_right)
            yield from taken(packet)
        report_lost(*self._losses.rest())
        if shown is not None and shown.pts is not None:
            self._damaged.pop(shown.pts, None)
        self._forget(keep=0)

    def _seconds(self, time: int | None) -> float | None:
        unit = self._stream.time_base
        return None if not self.has_times or time is None or unit is None else float(time * unit)

    def _decoded(self, packet: Packet[VideoStream] | None) -> tuple[list[VideoFrame], list[str]]:
        """The frames of a packet, or the last ones (None), and the errors that are seen in the log alone."""
        code = self._stream.codec_context.name
        if code not in _TOLD_IN_LOG:
            return self._stream.decode(packet), []
        with _errors_of(code) as errors:
            return self._stream.decode(packet), errors()

    def _packets(self, report: Report) -> Iterator[tuple[Packet[VideoStream] | None, bool, bool]]:
        """The packets of the track, and None after the last where an error ends the file.

        With each, whether its times are believed, and whether a recording begins with it that is not the
        first. Reports an end that comes early.
        """
        assert self._container is not None
        unit = self._stream.time_base
        reach, clock, end_byte = Reach(self._is_mp4, unit), PacketClock(unit), 0
        index, is_placed = _avi_index(self._stream) if self._is_avi else {}, True
        for packet, following in _with_following(_demuxed(self._container, self._stream)):
            if isinstance(packet, Exception):
                yield None, True, False
                if not self._is_at_end_of_parts(end_byte):
                    report(_why_it_ends(packet), 0, None)
                break
            self._count += 1
            end_byte = max(end_byte, (packet.pos or 0) + packet.size)
            if self._is_avi and packet.size:
                is_placed = packet.pos in index
            is_right, begins = True, False
            if packet.pts is not None:
                if packet.dts is not None and self.has_times:
                    times = [it.dts for it in following if isinstance(it, Packet) and it.dts is not None]
                    is_right, begins = clock.note(packet.pts, packet.dts, times, packet.is_keyframe)
                if is_right:
                    shown = packet.dts if self._is_avi and packet.dts is not None else packet.pts
                    reach.note(shown, packet.dts, packet.duration or 0)
            if packet.size:
                self._note_time(packet.dts if self._is_avi else packet.pts, is_right, begins)
            yield packet, is_right and not packet.is_corrupt, begins
        if self._container.format.name in _FRAMES_ALONE and end_byte != self._file.seek(0, SEEK_END):
            report("the file breaks off here or has lost a part before", 0, None)
        stream = self._stream
        if not stream.duration or not stream.time_base or not self.has_times or not reach.is_known:
            return
        stated = self._stated_s()
        # An edit list may leave out a beginning that still comes as packets
        reached, far = reach.seconds(stream.start_time or 0, 2 * stated + _FAR_S)
        if far:
            frames = counted(far, "frame")
            report(f"the times of {frames} are far beyond the {stated:.2f} s that the file states", 0, None)
        period = 1 / self.rate if self.rate else 0.0
        end = f"the file ends after {reached:.2f} s of the {stated:.2f} s that it states"
        if not is_placed and reached < stated - 0.5 * period:
            # where the index does not tell, a part that is lost looks like an end that comes early
            report(f"{end}, or times behind lost parts are early by the rest", 0, None)
        elif reached < stated - max(_END_TOLERANCE_S, _END_TOLERANCE * stated, 2 * period):
            report(end, 0, None)

    def _note_time(self, time: int | None, is_right: bool, begins: bool) -> None:
        """A packet was read whose frame is to be shown at ``time``."""
        if begins:
            self._begun.append(len(self._reached))
        before = self._reached[-1] if self._reached and not begins else None
        here = self._seconds(time) if is_right else None
        known = [one for one in (before, here) if one is not None]
        self._reached.append(max(known, default=None))

    def _expect(self, packet: Packet[VideoStream], is_right: bool) -> None:
        """A packet is going to be decoded; ``is_right``: its times are believed."""
        time = packet.dts if self._is_avi else packet.pts
        if time is None or packet.pts is None:
            return
        if is_right and packet.size and not packet.is_discard and self._packets_have_times:
            self._losses.expect(time, self._count)
        is_jpeg = self._stream.codec_context.name == "mjpeg"
        assert self._container is not None
        is_stream = self._container.format.name == "mpegts"
        # FFmpeg's parser gives a frame when it meets the next one, and with the mark of that
        is_behind, self._is_behind_damage = self._is_behind_damage, is_stream and packet.is_corrupt
        if not is_right or is_behind or (is_jpeg and is_zeroed_jpeg(bytes(packet))):
            self._forget()
            self._note_damaged(packet.pts, is_believed=is_right)
        elif not self._count % LONGEST_DELAY:
            self._forget()

    def complaints(self) -> list[Complaint]:
        """What is wrong with the file around its packets, as FFmpeg and `faults_of` have it; after `frames`.

        For this the file is read once more, without decoding. FFmpeg has no other way than its log of
        telling, for example, that a Matroska file holds a hole; `_errors_of` says why not while it decodes.
        """
        assert self._container is not None
        complaints: list[Complaint] = []
        name = self._container.format.name
        with self._path.open("rb") as blocks:
            found = faults_of(blocks, name)
        # Opening reads far ahead, to know the streams: of a small file to its end
        with (
            self._path.open("rb", buffering=0) as file,
            _errors_of(name) as errors,
            _open(file, self._path.suffix) as container,
        ):
            faults = deque(sorted([*found, *map(_fault_in_log, errors())]))
            stream = container.streams.video[self._number]
            count = 0
            packets = _demuxed(container, stream)
            while True:
                read = next(packets, None)
                packet = None if isinstance(read, Exception) else read  # `_packets` tells of it
                texts = [_fault_in_log(text)[1] for text in errors()]
                while faults and (packet is None or (packet.pos or 0) >= faults[0][0]):
                    texts.append(faults.popleft()[1])
                time_s = self._reached[count - 1] if 0 < count <= len(self._reached) else None
                recording = bisect_left(self._begun, count)
                complaints += [Complaint(text, count, time_s, recording) for text in texts]
                if packet is None:
                    return complaints
                count += packet.size > 0

    def _note_damaged(self, time: int, is_believed: bool = True) -> None:
        """The newest packet, of this time, is damaged; ``is_believed``: the time is not."""
        self._damaged[time] = _DamagedPacket(self._count, self._newest_s, self._failed, is_believed)

    def _is_believed(self, frame: VideoFrame) -> bool:
        packet = None if frame.pts is None else self._damaged.get(frame.pts)
        return packet is None or packet.is_believed

    def _forget(self, keep: int = LONGEST_DELAY) -> None:
        """Forget damaged packets but for the ``keep`` newest packets: their frames will not come any more.

        Where decoding has failed since then, that was told.
        """
        for time, packet in list(self._damaged.items()):
            if packet.number <= self._count - keep:
                del self._damaged[time]
                if packet.failed == self._failed:
                    reason = "a damaged frame is missing"
                    self.lost.append(Complaint(reason, packet.number - 1, packet.newest_s, self.recording))

    def _is_at_end_of_parts(self, end: int) -> bool:
        """Whether all parts of a multipart stream were read: FFmpeg seeks one after the last boundary."""
        assert self._container is not None
        if self._container.format.name != "mpjpeg":
            return False
        self._file.seek(end)
        return _LAST_BOUNDARY.fullmatch(self._file.read(_LONGEST_BOUNDARY)) is not None

    def is_damaged(self, frame: VideoFrame) -> bool:
        """Whether a part of the frame is missing, which the decoder has guessed."""
        return bool(frame.is_corrupt) or frame.pts in self._damaged

    def rgb(self, frame: VideoFrame) -> np.ndarray:
        """The frame as it is to be seen: (H, W, 3) uint8 RGB, upright, of square pixels.

        The matrix and the range that the file states are used, BT.601 and the narrow range where it states
        none; wide gamuts and HDR become BT.709. Fields (interlaced video) stay woven, and an alpha channel
        is left out. Raises `TrackError`.
        """
        turn = _orientation(frame)
        width, height = _square(frame.width, frame.height, self._stream.sample_aspect_ratio)
        try:
            upright = self._reformatter.reformat(
                frame, width, height, "rgb24", interpolation="BICUBIC", **_narrowed(frame)
            )
        except (av.FFmpegError, ValueError) as error:
            raise TrackError(f"cannot be converted to RGB from {frame.format.name}: {error}") from None
        return np.ascontiguousarray(turn(upright.to_ndarray()))


def _open(file: BinaryIO, suffix: str) -> InputContainer:
    try:
        container: InputContainer = av.open(
            _Bytes(file, suffix),
            mode="r",
            options={"protocol_whitelist": "none"},
            **_FOREIGN_TEXT,
            buffer_size=1 << 18,
            io_open=_open_no_other,
        )
    except (av.FFmpegError, OSError) as error:
        if suffix.lower() in bag_layout.SUFFIXES.values():
            raise TrackError("is a file of a bag: `topreward annotate` scores its folder") from error
        raise TrackError("is not a video that can be read; is it complete? H.264 in .mp4 works") from error
    name = container.format.name
    if name in _NOT_VIDEOS or name.endswith("_pipe"):
        container.close()
        if _is_animated_webp(file):
            raise TrackError("is an animated WebP, which FFmpeg cannot read; convert it to MP4 or GIF")
        if name == "image2" or name.endswith("_pipe"):
            raise TrackError("is a picture and not a video; put pictures into a folder and name that")
        raise TrackError(f"is not a video but a list or text ({name}); name the video file itself")
    return container


def _fault_in_log(text: str) -> tuple[int, str]:
    """What the log of a demuxer says, and the place in the file [byte]; 0 where it says none.

    >>> _fault_in_log("0x00 at pos 33047 (0x8117) invalid as first byte of an EBML number")[0]
    33047
    >>> _fault_in_log("Packet mismatch 0 637 54853")[0]
    54853
    """
    found = _PLACE_IN_LOG.search(text)
    return int(found["at"] or found["flv"], 0) if found else 0, f"the file is damaged: {text}"


def _is_animated_webp(file: BinaryIO) -> bool:
    """By the flag of the extended header (RFC 9649, 2.7.1)."""
    file.seek(0)
    head = file.read(21)
    return len(head) == 21 and head[8:16] == b"WEBPVP8X" and bool(head[20] & 2)


class _DamagedPacket(NamedTuple):
    number: int  #: counted from 1
    newest_s: float | None  #: time of the newest frame when it was read
    failed: int  #: how many times decoding had failed before
    is_believed: bool  #: its time is


class _AviOrder:
    """Times of the frames of an AVI, which has no presentation times: its decoding times count the frames in
    the order they are shown."""

    def __init__(self, stream: VideoStream, is_sought: bool) -> None:
        """``is_sought``: the packets begin anywhere."""
        self._times = sorted(_avi_index(stream).values())  # of all packets that the index has, or were read
        self._read = None if is_sought else 0  # how many of the times are of packets up to the newest one
        #: How many packets later the decoder has said a frame is.
        self._delay = None if stream.codec_context.has_b_frames else 0
        self._next = 0

    def note(self, packet: Packet[VideoStream]) -> list[int]:
        """Note a packet. The times of those that are missing before it, where the index tells."""
        if not packet.size or packet.dts is None:
            return []
        at = bisect_left(self._times, packet.dts)
        if packet.dts not in self._times[at : at + 1]:
            self._times.insert(at, packet.dts)
        before, self._read = self._read, at + 1
        return [] if before is None else self._times[before:at]

    def time_of(self, frame: VideoFrame) -> int | None:
        """Time of the next frame. Towards the end the decoder gives none."""
        if frame.dts is not None:
            at = bisect_left(self._times, frame.dts)
            self._delay = at if self._delay is None else self._delay
            self._next = max(0, at - self._delay)
        time = self._times[self._next] if self._next < len(self._times) else None
        self._next += 1
        return time


def _avi_index(stream: VideoStream) -> dict[int, int]:
    """The times of the packets of an AVI by their places [byte], as its index has them before any is read."""
    return {entry.pos + _AVI_CHUNK: entry.timestamp for entry in stream.index_entries}


def _demuxed(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream] | Exception]:
    """The packets of a track, and at last the error that ends the file, if one does.

    FFmpeg counts those of an AVI; behind a hole they get the times that the index has for their places.
    """
    index, shift = _avi_index(stream) if container.format.name == "avi" else {}, 0
    try:
        for packet in container.demux(stream):
            if index and packet.size and packet.dts is not None:
                indexed = index.get(packet.pos or 0, -1)
                if indexed >= packet.dts:  # else the index itself has lost a part
                    shift = indexed - packet.dts
                packet.dts += shift
                packet.pts = None if packet.pts is None else packet.pts + shift
            yield packet
    except Exception as error:  # of whatever kind: it is this file's alone
        yield error


_Item = TypeVar("_Item")


def _with_following(items: Iterator[_Item]) -> Iterator[tuple[_Item, Sequence[_Item]]]:
    """Each item, and up to `FOLLOWING` that come next."""
    ahead: deque[_Item] = deque()
    for item in items:
        ahead.append(item)
        if len(ahead) > FOLLOWING:
            yield ahead.popleft(), ahead
    while ahead:
        yield ahead.popleft(), ahead


def _why_it_ends(error: Exception) -> str:
    if isinstance(error, (av.FFmpegError, OSError)):
        return f"the rest of the file cannot be read: {error.strerror or error}"
    return f"the file is damaged: PyAV ends reading it with {type(error).__name__}"


class _Bytes:
    """A file for PyAV under a harmless name; FFmpeg needs the suffix to know some raw streams."""

    def __init__(self, file: BinaryIO, suffix: str) -> None:
        suffix = suffix[1:]
        self.name = "video" + (f".{suffix}" if suffix.isascii() and suffix.isalnum() else "")
        self.read = file.read
        self.seek = file.seek
        self.tell = file.tell


def _open_no_other(url: str, flags: int, options: dict[str, Any]) -> Any:
    raise PermissionError(f"a video file must not open others: {url}")


@contextmanager
def _errors_of(name: str) -> Iterator[Callable[[], list[str]]]:
    """Yield what gives the errors that the demuxer or decoder ``name`` has logged in this thread since then.

    No decoder of ours may have threads that work meanwhile: one that writes to the log needs Python's lock,
    and whoever frees the decoder holds that while it waits for the thread to end. Where another file is being
    read by the side, `_SETTLING_S` lets its threads finish writing.
    """
    before = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_skip_repeated(False)  # what one file was said to have may be true of the next
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture(local=False), av.logging.Capture(local=True) as records:
            told = 0

            def errors() -> list[str]:
                nonlocal told
                new, told = records[told:], len(records)
                return [text.strip() for _, source, text in new if source == name]

            yield errors
    finally:
        av.logging.set_level(before[0])
        av.logging.set_skip_repeated(before[1])


def _narrowed(frame: VideoFrame) -> dict[str, Any]:
    """What makes `VideoReformatter.reformat` map a wide gamut or HDR to BT.709; PyAV 17 does not."""
    if frame.color_primaries in _WIDE_PRIMARIES or frame.color_trc in _HDR_CURVES:
        return {"dst_color_trc": ColorTrc.BT709, "dst_color_primaries": ColorPrimaries.BT709}
    return {}


def _square(width: int, height: int, ratio: Fraction | None) -> tuple[int, int]:
    """Size of the picture with square pixels, where one pixel is ``ratio`` times as wide as high.

    >>> _square(720, 576, Fraction(16, 15)), _square(720, 480, Fraction(8, 9)), _square(4, 4, None)
    ((768, 576), (720, 540), (4, 4))
    """
    if not ratio or not Fraction(1, _WIDEST_PIXEL) <= ratio <= _WIDEST_PIXEL:
        return width, height
    if ratio > 1:  # the shorter side grows, so that nothing is lost
        return round(width * ratio), height
    return width, round(height / ratio)


def _orientation(frame: VideoFrame) -> Callable[[np.ndarray], np.ndarray]:
    """How the stored picture is turned and mirrored to be upright.

    FFmpeg's display matrix (libavutil/display.h) takes (x, y) to (a x + c y, b x + d y). Raises `TrackError`
    where that is no quarter turn.
    """
    # not frame.side_data, which the frame would keep: in a circle, and so in memory for long
    container: Any = SideDataContainer  # PyAV's hints leave out its argument and its keys
    matrix = container(frame).get(SideDataType.DISPLAYMATRIX)
    if matrix is None:
        return lambda picture: picture
    a, b, _, c, d = np.frombuffer(bytes(matrix)[:20], np.int32).astype(float)
    size = max(abs(a), abs(b), abs(c), abs(d))
    is_upright = max(abs(b), abs(c)) < 0.02 * size
    is_transposed = max(abs(a), abs(d)) < 0.02 * size
    if not size:
        return lambda picture: picture
    if not (is_upright or is_transposed):
        angle = np.degrees(np.arctan2(b, a))
        raise TrackError(
            f"is to be shown turned by {angle:.0f} degrees, and only quarter turns can be read; convert it "
            "with ffmpeg"
        )
    x, y = (a, d) if is_upright else (c, b)

    def turn(picture: np.ndarray) -> np.ndarray:
        turned = picture if is_upright else picture.swapaxes(0, 1)
        return turned[:: -1 if y < 0 else 1, :: -1 if x < 0 else 1]

    return turn
