"""Whether the pictures of an episode can be believed: a start that shows the scene, and the same scene since.

A model that compares the newest frames with the first takes any other picture at the start for work that was
done since: noise, a hand, a dark picture before the exposure settled, another scene. So an episode waits for
a picture, and begins anew where the view or the light changed as a whole and then stayed. A robot's own work
leaves parts of a fixed camera's picture as they were. A camera that moves changes all of it with every frame;
that is no cut, but while it moves nothing is sure. What cannot be told from a robot's own work stands in the
README. What follows from all this is decided in episode.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np

from topreward_ros.core.frames import NS_PER_S
from topreward_ros.core.pictures import Picture, examine, likeness

#: [s] in stamp time. An episode whose pictures show nothing begins nevertheless after so long: the laboratory
#: may be dark, the wall white.
PATIENCE = 3.0
#: [s] in stamp time. So long after the first frame, smaller changes count: nobody expects the robot to have
#: done much, and a hand may still be before the camera.
OPENING = 3.0
#: Frames in a row that agree before another view is believed.
AGREEING = 3

# Share of the tiles that stay from one frame to the next. Measured at 2 Hz (bench/RESULTS.md): robots before
# a fixed camera 0.23 to 1, in the opening 0.52 to 1; other scenes and other places of the camera 0 to 0.13.
_CUT = 0.17
_CUT_IN_OPENING = 0.45
_CALM = 0.4
_BACK = 0.3  # after seconds in which the robot has gone on
_RELIT = log(1.5)  # of the contrast
_SETTLED = 0.05  # of the logarithm of the contrast, from frame to frame; daylight changes more slowly


@dataclass(frozen=True, slots=True)
class Sight:
    """What a frame says about the scene."""

    used: bool = True  #: False: the frame shows nothing, leave it out
    sure: bool = True  #: False: what the score of a prefix with this frame means is not sure
    anew: int = 0  #: > 0: another view, which so many of the newest frames show: the prefix begins anew
    back: bool = False  #: the view is that of before the last change: the prefix goes on from there
    message: str = ""  #: for a human: what was seen, where that is out of the ordinary


_ORDINARY = Sight()


class SceneJudge:
    """Judges the frames of one episode in order of their stamps.

    >>> judge = SceneJudge()
    >>> grey = np.full((480, 640, 3), 128, np.uint8)
    >>> [judge.judge(k * NS_PER_S // 2, grey).used for k in range(8)]
    [False, False, False, False, False, False, True, True]
    """

    def __init__(self, *, fixed: bool = True) -> None:
        """``fixed``: the camera stands still; one that moves shows another picture with every frame, so that
        frames are not compared."""
        self._fixed = fixed
        self._refused_since_ns: int | None = None
        self._poor_start = ""  # what was wrong with the first frame, as long as no better one came
        self._start_ns = 0
        self._newest: Picture | None = None
        self._exposing = True  # the exposure has not settled yet
        self._settled = 0  # frames in a row in which the contrast did not change
        self._gain = 0.0  # logarithm of the contrast, as it changed until it settles
        self._calm = True  # the newest frame agrees with the one before
        self._before: Picture | None = None  # the last one before the last view
        self._at_change: Picture | None = None  # the last one before the change
        self._change = ""  # what changed, until it is sure
        self._agreeing = 0  # frames since then

    def judge(self, stamp_ns: int, image: np.ndarray) -> Sight:
        """Judge the next frame: its stamp [ns] and its image, (H, W, 3) uint8 RGB."""
        picture = examine(image)
        if picture is None:
            return _ORDINARY
        if self._newest is None:
            return self._begin(stamp_ns, picture)
        if self._poor_start:
            return self._go_on_after_poor_start(stamp_ns, picture)
        if picture.fault:
            return self._refuse(stamp_ns, picture)
        return self._compare(stamp_ns, picture) if self._fixed else _ORDINARY

    def why_not_used(self, image: np.ndarray) -> str:
        """Why a frame with this image would not be used, which is not judged now; empty: it would."""
        picture = examine(image)
        return "" if picture is None or self._poor_start else _nothing_to_see(picture)

    def _begin(self, stamp_ns: int, picture: Picture) -> Sight:
        if picture.fault:
            since_ns = self._refused_since_ns
            if since_ns is None or (stamp_ns - since_ns) / NS_PER_S < PATIENCE:
                return self._refuse(stamp_ns, picture)
            self._poor_start = picture.fault
        self._start_ns, self._newest = stamp_ns, picture
        if not self._poor_start:
            return _ORDINARY
        return Sight(
            message=f"the pictures were {picture.fault} for {PATIENCE:g} s; the episode begins with one "
            "nevertheless: look at the camera and the light"
        )

    def _go_on_after_poor_start(self, stamp_ns: int, picture: Picture) -> Sight:
        """Use what comes, until there is something to be seen."""
        if picture.fault:
            return _ORDINARY
        fault, self._poor_start = self._poor_start, ""
        self._start_ns, self._newest = stamp_ns, picture
        return Sight(
            anew=1,
            message=f"the first pictures were {fault}: watching begins anew, now that there is more to see",
        )

    def _refuse(self, stamp_ns: int, picture: Picture) -> Sight:
        if self._refused_since_ns is None:
            self._refused_since_ns = stamp_ns
        return Sight(used=False, message=_nothing_to_see(picture))

    def _compare(self, stamp_ns: int, picture: Picture) -> Sight:
        assert self._newest is not None
        seen = likeness(self._newest, picture)
        opening = (stamp_ns - self._start_ns) / NS_PER_S <= OPENING
        was_calm, before, self._newest = self._calm, self._newest, picture
        relit = seen.stays >= _CUT and abs(log(seen.gain)) >= _RELIT
        self._calm = seen.stays >= _CALM and not relit
        self._settled = self._settled + 1 if self._calm and abs(log(seen.gain)) < _SETTLED else 0
        self._exposing = opening or (self._exposing and self._settled < AGREEING)
        if self._exposing and self._calm:
            self._gain += log(seen.gain)
            relit = abs(self._gain) >= _RELIT
        if not self._change:
            self._at_change = before
        if relit:
            self._changed("the light changed")
        elif opening and seen.stays < _CUT_IN_OPENING:
            self._changed("the picture changed as a whole")
        elif seen.stays < _CUT:
            # From a picture that moves as a whole, this may be the camera's own motion.
            self._changed("the picture jumped as a whole" if was_calm else "")
        elif self._change and self._calm:
            self._agreeing += 1
        elif not opening and not self._calm:
            self._changed("")
        if self._change and self._agreeing >= AGREEING:
            change = self._change
            self._changed("")
            is_back = self._before is not None and _same_view(self._before, picture)
            self._before = self._at_change
            if is_back:
                return Sight(
                    anew=AGREEING, back=True, message="the view of before is back: its prefix goes on"
                )
            return Sight(anew=AGREEING, message=f"{change}: watching begins anew with what is seen since")
        if self._change:
            return Sight(sure=False, message=self._change)
        return _ORDINARY if self._calm else Sight(sure=False, message="the picture changes as a whole")

    def _changed(self, what: str) -> None:
        """Something changed, and what follows is to show whether it lasts; empty: nothing did."""
        self._change, self._agreeing, self._gain = what, 1, 0.0


def _nothing_to_see(picture: Picture) -> str:
    return picture.fault and f"the newest picture is {picture.fault}"


def _same_view(one: Picture, other: Picture) -> bool:
    """Whether two pictures, some time apart, show one scene in one light."""
    seen = likeness(one, other)
    return seen.stays >= _BACK and abs(log(seen.gain)) < _RELIT
