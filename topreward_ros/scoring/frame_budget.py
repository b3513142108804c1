"""The limit on scored frames, halved whenever memory runs out."""

from __future__ import annotations

import logging
from dataclasses import replace

from topreward_ros.core.frames import FEWEST_FRAMES, EpisodeBuffer
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.scoring.base import ScorerError, ScorerInfo, ScorerSettings

_log = logging.getLogger(__name__)


class FrameBudget:
    """The number of frames that fit into memory.

    Once lowered it stays so: frames that did not fit in one episode will not fit in the next.
    """

    def __init__(self, info: ScorerInfo, settings: ScorerSettings) -> None:
        self._info = info
        self._settings = settings
        self._frames = settings.max_frames

    @property
    def is_lowered(self) -> bool:
        """Whether memory ran out before."""
        return self._frames < self._settings.max_frames

    def within(self, request: ScoreRequest) -> ScoreRequest:
        """``request`` as it is; once memory ran out, with as few frames as fit, by the rule of its window.

        An episode is thinned to every second pair, once more where that is still too long; a sliding window
        keeps its newest pairs, at the rate at which they came.
        """
        if not self.is_lowered or len(request.prefix) <= self._frames:
            return request
        window = request.buffer.window
        return replace(request, buffer=EpisodeBuffer.holding(request.prefix, self._frames, window))

    def lower(self, frames: int) -> None:
        """Lower the budget to half of ``frames``, for which there was too little memory, and log it.

        Raises `ScorerError` where half of them are too few to score, or where as many are shown whatever the
        budget is.
        """
        budget = frames // 4 * 2  # whole pairs
        info, settings = self._info, self._settings
        padding, length = settings.front_padding, settings.fixed_length
        said = (
            f"out of memory on {info.device} with {length or padding + frames} frames of up to "
            f"{info.max_pixels} pixels"
        )
        names = ["max_pixels", "fixed_length" if length else "max_frames", *["front_padding"] * bool(padding)]
        those = " or ".join(f"{name} (now {getattr(settings, name)})" for name in names)
        fix = f"set a smaller {those}, or another device"
        if length or budget < FEWEST_FRAMES:
            raise ScorerError(f"{said}: {fix}")
        self._frames = budget
        _log.warning(
            "%s: from now on at most %d are scored, of which `window` says which; %s",
            said,
            budget,
            fix,
        )
