"""Whether the pictures of an episode can be believed: a start that shows the scene, and the same scene since.

A model that compares the newest frames with the first takes any other picture at the start for work that
was done since: noise, a hand, a dark picture before the exposure settled, another scene. So an episode
waits for a picture, and begins anew where the view or the light changed as a whole and then stayed. A
robot's own work leaves parts of a fixed camera's picture as they were, since the frame before and since the
first one; of a view that fades into another, nothing is left. A camera that moves changes all of it with
every frame; that is no cut, but while it moves nothing is sure. What cannot be told from a robot's own work
stands in the README. What follows from all this is decided in episode.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from copy import copy
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

# Share of the tiles that stay. Measured at 2 Hz (bench/RESULTS.md): from one frame to the next, robots before
# a fixed camera 0.23 to 1, in the opening 0.52 to 1; other scenes and other places of the camera 0 to 0.13.
_CUT = 0.17
_CUT_IN_OPENING = 0.45
_CALM = 0.4
_BACK = 0.3  # after seconds in which the robot has gone on
# The same of both the first frame of the view and one of seconds ago, whichever agrees better: 0.31 at least.
_CUT_SLOWLY = 0.2
_CUT_SLOWLY_IN_OPENING = 0.35  # 0.52 at least
_SLOWLY = 6.0  # [s] in stamp time: a change that takes longer is no cut
_SLOW_AGREEING = 5  # frames in a row that agree: what changes slowly has come to its end
_APART = 0.4  # [s] in stamp time, at least, between frames that are remembered
_LIGHT = "the light changed"
_OF_MOTION = " (for a camera that moves, set camera_fixed: false)"
_MOTION = 2.0  # [s] in stamp time: a picture that changes as a whole for longer is of a camera that moves
_RELIT = log(2.0)  # of the contrast; a camera's own exposure hunts by less
_NEVER = 2.0  # a share that no picture keeps
_AS_LIT = log(1.2)  # frames of one light
_SETTLED = 0.05  # of the logarithm of the contrast, from frame to frame; daylight changes more slowly


@dataclass(frozen=True, slots=True)
class Sight:
    """What a frame says about the scene."""

    used: bool = True  #: False: the frame shows nothing, leave it out
    sure: bool = True  #: False: what the score of a prefix with this frame means is not sure
    anew: int = 0  #: > 0: another view, which so many of the newest frames show: the prefix begins anew
    back: bool = False  #: the view is that of before the last change: the prefix goes on from there
    message: str = ""  #: for a human: what was seen, where that is out of the ordinary
    fault: str = ""  #: for a human: why nothing is to be seen; empty: something is, used or not


_ORDINARY = Sight()


class SceneJudge:
    """Judges the frames of one episode in order of their stamps.

    Where a frame shows several cameras side by side, each is judged on its own: a cut of one is a cut.
    Watching begins when all of them show something. Later a camera that shows nothing makes the frame not
    sure; where no camera shows anything, it is left out.

    >>> judge = SceneJudge()
    >>> grey = np.full((480, 640, 3), 128, np.uint8)
    >>> [judge.judge(k * NS_PER_S // 2, grey).used for k in range(8)]
    [False, False, False, False, False, False, True, True]
    """

    def __init__(self, *, fixed: bool = True) -> None:
        """``fixed``: the cameras stand still; one that moves shows another picture with every frame, so that
        frames are not compared."""
        self._fixed = fixed
        self._cameras: list[_CameraJudge] = []
        self._begun = False
        self.images: list[np.ndarray] = []  #: of the newest frame, one for each camera
        self._away: set[int] = set()  # cameras that show another view than that of the prefix before

    def judge(self, stamp_ns: int, image: np.ndarray, widths: Sequence[int] = ()) -> Sight:
        """Judge the next frame: its stamp [ns], its image, (H, W, 3) uint8 RGB, and the ``widths`` [px] of
        the pictures of several cameras in it, from left to right; empty: it shows one."""
        parts = self.images = _parts(image, widths)
        if len(parts) != len(self._cameras):
            self._cameras = [_CameraJudge(fixed=self._fixed) for _ in parts]
            self._away = set()
        sights = [camera.judge(stamp_ns, part) for camera, part in zip(self._cameras, parts, strict=True)]
        sight = sights[0] if len(sights) == 1 else self._of_all(sights)
        self._begun = self._begun or sight.used
        return sight

    @property
    def pictures(self) -> list[Picture | None]:
        """What is seen at a glance of each of `images`; None where one is too small to tell."""
        return [camera.picture for camera in self._cameras]

    def would_judge(self, stamp_ns: int, image: np.ndarray, widths: Sequence[int] = ()) -> Sight:
        """What `judge` would say of a frame that is looked at and not kept: nothing of it is remembered."""
        other = copy(self)
        other._cameras = [camera.copy() for camera in self._cameras]
        other._away = set(self._away)
        return other.judge(stamp_ns, image, widths)

    def why_not_used(self, image: np.ndarray, widths: Sequence[int] = ()) -> str:
        """Why a frame with this image would not be used, which is not judged now; empty: it would."""
        parts = _parts(image, widths)
        if len(parts) != len(self._cameras):
            return ""
        whys = [camera.why_not_used(part) for camera, part in zip(self._cameras, parts, strict=True)]
        said = [_of_camera(k, why) if len(parts) > 1 else why for k, why in enumerate(whys) if why]
        return "" if self._begun and len(said) < len(parts) else "; ".join(said)

    def _of_all(self, sights: Sequence[Sight]) -> Sight:
        """What the sights of several cameras say together."""
        message = "; ".join(_of_camera(k, sight.message) for k, sight in enumerate(sights) if sight.message)
        unused = sum(not sight.used for sight in sights)
        faults = [_of_camera(k, sight.fault) for k, sight in enumerate(sights) if sight.fault]
        # A camera that moves may well look at something plain.
        fault = "; ".join(faults) if self._fixed or len(faults) == len(sights) else ""
        if unused and (not self._begun or unused == len(sights)):
            return Sight(used=False, message=message, fault="; ".join(faults))
        anew = max(sight.anew for sight in sights)
        for k, sight in enumerate(sights):
            if sight.back:
                self._away.discard(k)
            elif sight.anew:
                self._away.add(k)
        if anew:
            back = any(sight.back for sight in sights) and not self._away
            return Sight(anew=anew, back=back, message=message, fault=fault)
        sure = all(sight.sure and (sight.used or not self._fixed) for sight in sights)
        return Sight(sure=sure, message=message, fault=fault)


def _parts(image: np.ndarray, widths: Sequence[int]) -> list[np.ndarray]:
    """The pictures of the cameras in an image."""
    return np.split(image, np.cumsum(widths)[:-1], axis=1) if len(widths) > 1 else [image]


def _of_camera(k: int, message: str) -> str:
    return f"camera {k + 1}: {message}"


class _CameraJudge:
    """Judges the pictures of one camera."""

    def __init__(self, *, fixed: bool) -> None:
        self._fixed = fixed
        self.picture: Picture | None = None  #: the newest one at a glance; None: too small to tell
        self._refused_since_ns: int | None = None
        self._poor_start = ""  # what was wrong with the first frame, as long as no better one came
        self._start_ns = 0
        self._newest: Picture | None = None
        self._first: Picture | None = None  # of the view that is watched
        self._past: deque[tuple[int, Picture]] = deque()  # with stamps: of that view, in the last seconds
        self._opening = True  # what is seen at first may not be the scene yet; a picture that moves is not
        self._exposing = True  # the exposure has not settled yet
        self._settled = 0  # frames in a row in which the contrast did not change
        self._calm = True  # the newest frame agrees with the one before
        self._restless_since_ns: int | None = None  # the stamp of the first frame in a row that does not
        self._before: Picture | None = None  # the last one before the last view
        self._at_change: Picture | None = None  # the last one before the change
        self._change = ""  # what changed, until it is sure
        self._stays = _NEVER  # with so much of the view before, it was no change
        self._slow = False  # it took more than one frame
        self._agreeing = 0  # frames since then
        self._agreed: Picture | None = None  # the first of them
        self._advised = False  # what to do about a camera that moves was said

    def copy(self) -> _CameraJudge:
        """An independent judge who remembers the same pictures."""
        other = copy(self)
        other._past = self._past.copy()
        return other

    def judge(self, stamp_ns: int, image: np.ndarray) -> Sight:
        """Judge the next picture: its stamp [ns] and its image, (H, W, 3) uint8 RGB."""
        picture = self.picture = examine(image)
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
        """Why a picture would not be used; empty: it would."""
        picture = examine(image)
        return "" if picture is None or self._poor_start else _nothing_to_see(picture)

    def _begin(self, stamp_ns: int, picture: Picture) -> Sight:
        if picture.fault:
            since_ns = self._refused_since_ns
            if since_ns is None or (stamp_ns - since_ns) / NS_PER_S < PATIENCE:
                return self._refuse(stamp_ns, picture)
            self._poor_start = picture.fault
        self._start_ns, self._newest = stamp_ns, picture
        self._look_from(stamp_ns, picture)
        if not self._poor_start:
            return _ORDINARY
        return Sight(
            message=f"the pictures were {picture.fault} for {PATIENCE:g} s; the episode begins with one "
            "nevertheless: look at the camera and the light",
            fault=_nothing_to_see(picture),
        )

    def _go_on_after_poor_start(self, stamp_ns: int, picture: Picture) -> Sight:
        """Use what comes, until there is something to be seen."""
        if picture.fault:
            return Sight(fault=_nothing_to_see(picture))
        fault, self._poor_start = self._poor_start, ""
        self._start_ns, self._newest = stamp_ns, picture
        self._look_from(stamp_ns, picture)
        return Sight(
            anew=1,
            message=f"the first pictures were {fault}: watching begins anew, now that there is more to see",
        )

    def _refuse(self, stamp_ns: int, picture: Picture) -> Sight:
        if self._refused_since_ns is None:
            self._refused_since_ns = stamp_ns
        nothing = _nothing_to_see(picture)
        return Sight(used=False, message=nothing, fault=nothing)

    def _compare(self, stamp_ns: int, picture: Picture) -> Sight:
        assert self._newest is not None
        seen = likeness(self._newest, picture)
        in_time = (stamp_ns - self._start_ns) / NS_PER_S <= OPENING
        opening = self._opening = self._opening and (in_time or not self._calm)
        was_calm, before, self._newest = self._calm, self._newest, picture
        relit = seen.stays >= _CUT and abs(log(seen.gain)) >= _RELIT
        self._calm = seen.stays >= _CALM and not relit
        self._settled = self._settled + 1 if self._calm and abs(log(seen.gain)) < _SETTLED else 0
        self._exposing = opening or (self._exposing and self._settled < AGREEING)
        if not self._change:
            self._at_change = before
        moves = self._moves(stamp_ns)
        if relit:
            self._changed(_LIGHT, picture, _NEVER)
        elif opening and seen.stays < _CUT_IN_OPENING:
            self._changed("the picture changed as a whole", picture, _CUT_IN_OPENING)
        elif seen.stays < _CUT:
            # From a picture that moves as a whole, this may be the camera's own motion.
            self._changed("the picture jumped as a whole" if was_calm else "", picture)
        elif self._change and self._calm:
            self._agree(picture)
        elif not opening and not self._calm:
            self._changed("", picture)
        if not self._change and not moves:
            self._look_back(stamp_ns, picture, opening)
        if self._change and self._agreeing >= (_SLOW_AGREEING if self._slow else AGREEING):
            return self._begin_anew(stamp_ns, picture)
        if self._change:
            return Sight(sure=False, message=self._change)
        if self._calm:
            return _ORDINARY
        return Sight(sure=False, message=f"the picture changes as a whole{_OF_MOTION if moves else ''}")

    def _moves(self, stamp_ns: int) -> bool:
        """Whether the camera moves: what was before tells nothing of its pictures then."""
        if self._calm:
            self._restless_since_ns = None
            return False
        if self._restless_since_ns is None:
            self._restless_since_ns = stamp_ns
        if (stamp_ns - self._restless_since_ns) / NS_PER_S < _MOTION:
            return False
        self._past.clear()
        self._first = None
        return True

    def _look_back(self, stamp_ns: int, picture: Picture, opening: bool) -> None:
        """Whether the picture has become another one since the first of the view, and within seconds."""
        if self._first is None:
            self._look_from(stamp_ns, picture)
            return
        while len(self._past) > 1 and (stamp_ns - self._past[1][0]) / NS_PER_S >= _SLOWLY:
            self._past.popleft()
        since_first = likeness(self._first, picture)
        if self._exposing and since_first.stays >= _CALM and abs(log(since_first.gain)) >= _RELIT:
            self._changed(_LIGHT, picture, _NEVER)
            self._at_change = self._first
            return
        stays, limit = since_first.stays, _CUT_SLOWLY_IN_OPENING if opening else _CUT_SLOWLY
        if stays < limit:
            stays = max(stays, likeness(self._past[0][1], picture).stays)
        if stays < limit:
            self._changed("the picture changed as a whole, within seconds", picture, limit)
            self._slow, self._at_change = True, self._past[0][1]
        elif (stamp_ns - self._past[-1][0]) / NS_PER_S >= _APART:
            self._past.append((stamp_ns, picture))

    def _look_from(self, stamp_ns: int, picture: Picture) -> None:
        """What comes is compared with this picture from now on."""
        self._first = picture
        self._past.clear()
        self._past.append((stamp_ns, picture))

    def _agree(self, picture: Picture) -> None:
        """One more frame of the new view, unless that is still on its way."""
        assert self._agreed is not None
        seen = likeness(self._agreed, picture)
        if seen.stays >= _CUT_IN_OPENING and abs(log(seen.gain)) < _AS_LIT:
            self._agreeing += 1
        else:
            self._agreeing, self._agreed = 1, picture

    def _begin_anew(self, stamp_ns: int, picture: Picture) -> Sight:
        change, stays = self._change, self._stays
        self._changed("", picture)
        known = [then for then in (self._first, self._at_change) if then is not None]
        if any(likeness(then, picture).stays >= stays for then in known):
            return _ORDINARY  # it was something that passed by
        is_back = self._before is not None and _same_view(self._before, picture)
        self._before = self._at_change
        self._look_from(stamp_ns, picture)
        if is_back:
            return Sight(anew=AGREEING, back=True, message="the view of before is back: its prefix goes on")
        advice = "" if self._advised or change == _LIGHT else _OF_MOTION
        self._advised = self._advised or bool(advice)
        return Sight(anew=AGREEING, message=f"{change}: watching begins anew with what is seen since{advice}")

    def _changed(self, what: str, picture: Picture, stays: float = _CUT_SLOWLY) -> None:
        """Something changed, and what follows is to show whether it lasts: whether less than a share
        ``stays`` of what was before does. Empty: nothing did."""
        self._change, self._stays, self._slow = what, stays, False
        self._agreeing, self._agreed = 1, picture


def _nothing_to_see(picture: Picture) -> str:
    return picture.fault and f"the newest picture is {picture.fault}"


def _same_view(one: Picture, other: Picture) -> bool:
    """Whether two pictures, some time apart, show one scene in one light."""
    seen = likeness(one, other)
    return seen.stays >= _BACK and abs(log(seen.gain)) < _RELIT
