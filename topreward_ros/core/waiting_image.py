"""An image of the primary camera that is due and waits for those of other cameras, which are tiled beside it.

Cameras that publish at the same time do not arrive at the same time. Whether an image belongs beside another
is decided elsewhere (offline/camera_images.py), and so is what becomes of it; live and offline by this rule.
Times are those of arrival, by any steady clock, which the caller reads.
"""

from __future__ import annotations

from dataclasses import dataclass

from topreward_ros.core.frames import NS_PER_S


@dataclass(frozen=True, slots=True)
class WaitingImage:
    """The newest image of the primary camera, which was observed and is due."""

    stamp_ns: int
    episode_id: str  #: for which it was observed
    since_ns: int  #: when it came, by the clock of arrivals
    problem: str = ""  #: what is missing beside it, for a human


class Waiting:
    """At most one image waits: until the next one of its camera, or for ``camera_max_skew``.

    >>> waiting = Waiting()
    >>> waiting.begin(WaitingImage(7, "a", since_ns=0, problem="no image on /wrist yet"))
    >>> waiting.is_over(NS_PER_S // 2, "a", longest_s=0.5), waiting.is_over(NS_PER_S, "a", longest_s=0.5)
    (False, True)
    >>> waiting.resume(NS_PER_S // 2, "a", longest_s=0.5).stamp_ns  # an image of another camera came
    7
    >>> waiting.give_up("a")
    ''
    """

    def __init__(self) -> None:
        self._image: WaitingImage | None = None

    def begin(self, image: WaitingImage) -> None:
        """Let ``image`` wait, in the place of any other."""
        self._image = image

    def is_over(self, now_ns: int, episode_id: str, longest_s: float) -> bool:
        """Whether an image waits for longer than it may, or for an episode that is over."""
        image = self._image
        if image is None:
            return False
        return image.episode_id != episode_id or now_ns - image.since_ns > longest_s * NS_PER_S

    def resume(self, now_ns: int, episode_id: str, longest_s: float) -> WaitingImage | None:
        """Take the image out, to try it again; None where there is none that may still be used."""
        if self.is_over(now_ns, episode_id, longest_s):
            return None
        image, self._image = self._image, None
        return image

    def give_up(self, episode_id: str) -> str:
        """Let no image wait any more. Returns what was missing beside the one that did; empty where there
        was none, or its episode is over."""
        image, self._image = self._image, None
        return image.problem if image is not None and image.episode_id == episode_id else ""
