"""Whether the frames of an episode show one view: the shape of the picture, not its resolution.

A model sees every frame of a prefix at the size of the first. Another resolution of the same shape is the
same view; a picture of another shape would be squeezed, and bars around it are something that no model was
trained on. So a single one is not used, and several in a row are another view.
"""

from __future__ import annotations

from enum import Enum

#: Frames of another shape in a row after which the view has changed.
AGREEING = 3
COARSEST = 20  #: times as many pixels a side; beyond that a picture shows too little of the other
_TOLERANCE = 0.02  # of a side, for drivers that round sizes to multiples of 8 or 16

Shape = tuple[int, int]  #: height and width [px]


class View(Enum):
    """What the shape of a frame says about what it shows."""

    SAME = "same"  #: the view of the frames before it
    OTHER = "other"  #: another shape, and too few agree yet
    CHANGED = "changed"  #: the last of several that agree on another shape


class ViewJudge:
    """Compares the frames of an episode with its first one.

    >>> judge = ViewJudge()
    >>> [judge.judge(shape).value for shape in ((480, 640), (640, 480), (240, 320))]
    ['same', 'other', 'same']
    >>> [judge.judge((640, 480)).value for _ in range(3)]
    ['other', 'other', 'changed']
    """

    def __init__(self) -> None:
        self.first: Shape | None = None  #: of the first frame
        self._others: list[Shape] = []  # of the newest frames, while they are of another shape

    def judge(self, shape: Shape) -> View:
        """Judge the shape of the next frame. After `View.CHANGED` the judge has done its work."""
        if self.first is None:
            self.first = shape
        if same_shape(self.first, shape):
            self._others = []
            return View.SAME
        if self._others and not same_shape(self._others[-1], shape):
            self._others = []
        self._others.append(shape)
        return View.CHANGED if len(self._others) >= AGREEING else View.OTHER


def same_shape(one: Shape, other: Shape) -> bool:
    """Whether one picture is, but for rounding, the other at another resolution, up to `COARSEST` times.

    >>> same_shape((480, 640), (241, 320)), same_shape((1080, 1920), (1088, 1920)), same_shape((3, 4), (4, 5))
    (True, True, True)
    >>> same_shape((480, 640), (360, 640)), same_shape((480, 640), (640, 480))
    (False, False)
    >>> same_shape((480, 640), (1, 1)), same_shape((480, 640), (24, 32))  # of which nothing could be seen
    (False, True)
    """
    if max(one) > COARSEST * max(other) or max(other) > COARSEST * max(one):
        return False
    scales = [_scales(side, other_side) for side, other_side in zip(one, other, strict=True)]
    return max(low for low, _ in scales) <= min(high for _, high in scales)


def _scales(side: int, other: int) -> tuple[float, float]:
    """Between which factors one side became the other, which was rounded."""
    rounding = max(0.5, _TOLERANCE / 2 * other)
    return (other - rounding) / side, (other + rounding) / side


def size_text(shape: Shape) -> str:
    """A shape as people write it.

    >>> size_text((480, 640))
    '640x480'
    """
    height, width = shape
    return f"{width}x{height}"
