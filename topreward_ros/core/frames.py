"""Frames, which of them to keep, and a bounded memory of an episode.

Sampling goes by the stamp of capture alone, so a bag played at any rate, simulated time and a live
camera give the same prefixes. No clock is read here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One image with its time of capture. Compared by identity, so it can key a cache."""

    stamp_ns: int  #: time of capture [ns], any epoch
    image: np.ndarray  #: (H, W, 3) uint8, RGB, C-contiguous, never written to again
