"""Copies of requests for code that is not trusted: what it writes into them reaches nobody else.

Pixels are shared and cannot be written to. All else is copied, which costs some microseconds a frame, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from topreward_ros.core.frames import Frame
from topreward_ros.core.score_request import ScoreRequest

_Episode = dict[Frame, Frame]  # each frame, and its copy


class RequestCopies:
    """Gives a frame that comes again the same copy, as scorers know frames by identity.

    As a scorer does, it forgets an episode without a request in a call, unless that is among those kept.
    """

    def __init__(self) -> None:
        self._episodes: dict[Frame, _Episode] = {}  # by their first frame

    def of_call(
        self, requests: Sequence[ScoreRequest], kept: Sequence[Frame]
    ) -> tuple[list[ScoreRequest], list[Frame]]:
        """Copies of the arguments of `PrefixScorer.score_all`."""
        before, self._episodes = self._episodes, {}
        for request in requests:
            if not request.prefix:
                continue
            first = request.prefix[0]
            here = self._episodes.setdefault(first, {})  # several requests may be of one episode
            known = before.get(first, {}) | here
            here.update((frame, known.get(frame) or _copy(frame)) for frame in request.prefix)
        for first in kept:
            self._episodes.setdefault(first, before.get(first) or {first: _copy(first)})
        return [self.of(request) for request in requests], [self._episodes[it][it] for it in kept]

    def of(self, request: ScoreRequest) -> ScoreRequest:
        """A copy of a request, such as one of the last call."""
        episode = self._episodes.get(request.prefix[0], {}) if request.prefix else {}
        return replace(
            request, buffer=request.buffer.with_frames(lambda frame: episode.get(frame) or _copy(frame))
        )


def _copy(frame: Frame) -> Frame:
    frame.image.flags.writeable = False  # else the view could be made writable
    return replace(frame, image=frame.image.view())
