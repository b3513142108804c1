"""Whose frames the prefixes of a video take: the names of the choice, which need no numpy to be listed.

The frames themselves are chosen in paper_prefixes.py and score_video.py.
"""

from __future__ import annotations

from enum import Enum


class PrefixSchedule(Enum):
    """Whose frames a given number of prefixes takes."""

    AUTHORS = "authors"  #: those of the authors' code: evenly spaced raw frames, half to even
    MONITOR = "monitor"  #: those of the live monitor: prefixes evenly spaced over the frames that are due
