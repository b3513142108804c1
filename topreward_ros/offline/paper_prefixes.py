"""The prefixes of a video that the code of TOPReward's authors scores, when it is asked for K of them.

A prefix ends after a number of the video's raw frames; the numbers are evenly spaced from 1 to all. Those of
its raw frames are scored that lie on one schedule for the whole video, at ``sample_rate``. The frame at which
a prefix ends is scored only where it is on the schedule, so a prefix that ends between two slots holds the
frames up to the earlier one, and neighbouring prefixes of a short video hold the same frames.

The schedule takes the frame whose index is nearest to the slot, half to even. Which one that is cannot be
told without knowing the frame rate, so the live monitor has a schedule of its own (`core.frames`). Nothing is
read, decoded or scored here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from topreward_ros.core.frames import NS_PER_S


def prefix_lengths(num_frames: int, prefixes: int) -> list[int]:
    """Raw frames of each prefix, ascending: ``prefixes`` of them, fewer where the video has fewer frames.

    A video of one or two frames has one prefix, as in the authors' code.

    >>> prefix_lengths(31, 4), prefix_lengths(3, 15), prefix_lengths(2, 15)
    ([1, 11, 21, 31], [1, 2, 3], [2])
    """
    if num_frames <= 2:
        return [num_frames]
    return sorted(set(np.linspace(1, num_frames, min(prefixes, num_frames), dtype=int).tolist()))


def scheduled_frames(stamps_s: Sequence[float], rate: float, sample_rate: float) -> list[int]:
    """Indices, ascending, of the frames nearest to the slots 0, 1 / ``sample_rate``, 2 / ``sample_rate`` ...

    ``stamps_s``: of all frames [s], from 0, increasing. ``rate`` [Hz]: of the video; one below
    ``sample_rate`` gives every frame. The index goes by ``rate`` alone where the stamps agree with it to half
    a frame, as in the authors' code; otherwise (variable rate) a slot's index is interpolated between those
    of the stamps around it.

    >>> scheduled_frames([k / 5 for k in range(13)], rate=5.0, sample_rate=2.0)  # slots at 0, 2.5, 5, 7.5, 10
    [0, 2, 5, 8, 10, 12]
    """
    stamps = np.asarray(stamps_s, dtype=np.float64)
    count = len(stamps)
    if is_even(stamps_s, rate):
        positions = np.arange(0.0, count, max(rate / sample_rate, 1.0))
    else:
        slots = np.arange(int(stamps[-1] * sample_rate) + 1) / sample_rate
        positions = np.interp(slots, stamps, np.arange(count))
    indices = np.clip(np.round(positions).astype(int), 0, count - 1)
    return list(dict.fromkeys(indices.tolist()))


def is_even(stamps_s: Sequence[float], rate: float) -> bool:
    """Whether every stamp [s] is within half a frame of index / ``rate``.

    >>> is_even([0.0, 0.033, 0.067], 30.0), is_even([0.0, 0.033, 0.1], 30.0)
    (True, False)
    """
    stamps = np.asarray(stamps_s, dtype=np.float64)
    return bool(np.all(np.abs(stamps * rate - np.arange(len(stamps))) < 0.5))


@dataclass(frozen=True, slots=True)
class PaperPrefixes:
    """What is scored of a video."""

    stamps_ns: dict[int, int]  #: of the scheduled frames, by index in the video, ascending
    lengths: dict[int, tuple[int, ...]]  #: number of scheduled frames -> raw frames of the prefixes with them

    @classmethod
    def of(cls, stamps_ns: Sequence[int], rate: float, sample_rate: float, prefixes: int) -> PaperPrefixes:
        """The prefixes of a video whose frames have ``stamps_ns`` [ns], from 0; see `scheduled_frames`.

        The stamp of a scheduled frame is index / ``rate``, without the rounding of its container, unless the
        rate varies.

        >>> PaperPrefixes.of([0, 100_000_000, 200_000_000], rate=10.0, sample_rate=5.0, prefixes=15)
        PaperPrefixes(stamps_ns={0: 0, 2: 200000000}, lengths={1: (1, 2), 2: (3,)})
        """
        stamps_s = [stamp / NS_PER_S for stamp in stamps_ns]
        indices = scheduled_frames(stamps_s, rate, sample_rate)
        even = is_even(stamps_s, rate)
        stamps = {k: round(k * NS_PER_S / rate) if even else stamps_ns[k] for k in indices}
        lengths: dict[int, tuple[int, ...]] = {}
        for length in prefix_lengths(len(stamps_ns), prefixes):
            held = sum(index < length for index in indices)
            lengths[held] = (*lengths.get(held, ()), length)
        return cls(stamps, lengths)
