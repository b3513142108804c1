"""What a model is shown of a prefix: its frames and their times, as they are or against length bias.

A video that grows reads as progress even where nothing happens (docs/length_bias.md). Two settings change
what is shown. ``front_padding`` puts copies of the first frame before the prefix, so that the steep start of
that rise is over before the robot moves. ``fixed_length`` resamples every prefix to one number of frames at
fixed times, so that no length is left to read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from topreward_ros.core.frames import Frame


class ShownFrame(NamedTuple):
    """A frame as it is shown, and when."""

    frame: Frame
    seconds: float  #: since the start of what is shown


def shown_video(
    prefix: Sequence[Frame], sample_rate: float = 0.0, front_padding: int = 0, fixed_length: int = 0
) -> list[ShownFrame]:
    """The frames and times that stand for ``prefix``, which holds at least one frame.

    ``sample_rate`` [Hz]: see `seconds_of`; above 0 where one of the others is. These are even, one
    of them 0; a fixed length is 4 or more.

    Padding takes places 0, 1, 2 ... of the schedule, and the prefix follows it. A video of fixed length takes
    all its frames from the prefix in pairs of neighbours, because a video model merges two frames and what it
    made of a pair can be used again: the first pair, the newest one, and pairs at even distances between
    them; with too few, pairs are repeated. Its times are those of as many frames on schedule, whatever the
    prefix's were.
    """
    if fixed_length:
        frames = _resampled(prefix, fixed_length)
        return [ShownFrame(frame, number / sample_rate) for number, frame in enumerate(frames)]
    padding = [ShownFrame(prefix[0], number / sample_rate) for number in range(front_padding)]
    later = front_padding / sample_rate if padding else 0.0
    times = seconds_of(prefix, sample_rate)
    return padding + [ShownFrame(frame, later + time) for frame, time in zip(prefix, times, strict=True)]


def _resampled(prefix: Sequence[Frame], count: int) -> list[Frame]:
    """``count`` frames of ``prefix``, 4 or more, in pairs; an odd last frame makes a pair with itself."""
    pairs = [
        (prefix[number], prefix[min(number + 1, len(prefix) - 1)]) for number in range(0, len(prefix), 2)
    ]
    last, places = len(pairs) - 1, count // 2 - 1
    # In whole numbers, a half rounded up: the same on every machine.
    chosen = [(2 * place * last + places) // (2 * places) for place in range(places + 1)]
    return [frame for number in chosen for frame in pairs[number]]


def seconds_of(prefix: Sequence[Frame], sample_rate: float = 0.0) -> list[float]:
    """Times [s] since the first frame, as they are written for a model.

    At ``sample_rate`` [Hz] a frame is due every period. A frame within a quarter period of its due time gets
    the due time, as in the authors' code for videos, so that jitter does not turn 0.2 s into 0.3 s and the
    baseline's times can be predicted. Without a rate (0) the times are those of the stamps.
    """
    start = prefix[0].stamp_ns
    seconds = [(frame.stamp_ns - start) / 1e9 for frame in prefix]
    if sample_rate > 0:
        due = [round(time * sample_rate) / sample_rate for time in seconds]
        seconds = [d if abs(d - t) <= 0.25 / sample_rate else t for d, t in zip(due, seconds, strict=True)]
    return seconds
