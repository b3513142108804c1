"""For how long no image could be used, and why: the watch behind STALE.

An image can be used when its stamp was believed (stamps.py) and its picture became a frame. Most images are
never decoded, so one is looked at now and then between two that are due. Times are those of arrival, by any
steady clock, which the caller reads. What follows from a silence is decided in episode.py.
"""

from __future__ import annotations

from topreward_ros.core.frames import NS_PER_S

_LOOK_PERIOD_NS = NS_PER_S // 2


class Silence:
    """The images of one episode, from the time at which it begins to wait for them.

    >>> silence = Silence()
    >>> silence.check(0), silence.check(2 * NS_PER_S)
    (0, 2000000000)
    >>> silence.believed(3 * NS_PER_S)
    >>> silence.usable(looked=True)
    >>> silence.believed(4 * NS_PER_S)
    >>> silence.failed("it is no image")
    >>> silence.check(5 * NS_PER_S), silence.why()
    (2000000000, 'it is no image')
    """

    def __init__(self, now_ns: int | None = None) -> None:
        """``now_ns``: when the episode begins to wait; None: when somebody looks at the clock first."""
        self._arrival_ns = 0  # of the newest image whose stamp was believed
        self._usable_ns = now_ns  # when the last image that could be used came
        self._looked_ns: int | None = None  # the same, of those whose picture was seen
        self._stamp_problem = ""  # of the newest image
        self._picture_problem = ""  # of the newest image that was looked at

    def disbelieved(self, why: str) -> None:
        """The stamp of the newest image cannot be believed."""
        self._stamp_problem = why

    def put_off(self, arrival_ns: int) -> None:
        """An image came that only others can confirm, and will: no silence begins before it.

        Its picture is not seen, so that it ends none.
        """
        if not self._picture_problem:
            self._usable_ns = arrival_ns

    def believed(self, arrival_ns: int) -> None:
        """An image came whose stamp is believed; `usable` or `failed` says what its picture is."""
        self._arrival_ns = arrival_ns
        self._stamp_problem = ""

    def wants_a_look(self, stale_timeout_s: float) -> bool:
        """Whether the newest image is to be decoded though it is not due, to see whether it can be used.

        At a low sample rate, nobody would notice for long that a camera sends what cannot be read.
        """
        if self._looked_ns is None or self._picture_problem:
            return True
        period_ns = min(_LOOK_PERIOD_NS, stale_timeout_s / 2 * NS_PER_S)
        return self._arrival_ns - self._looked_ns >= period_ns

    def usable(self, *, looked: bool) -> None:
        """The newest image can be used; ``looked``: its picture was seen, and not only its stamp."""
        self._usable_ns = self._arrival_ns
        if looked:
            self._looked_ns = self._arrival_ns
            self._picture_problem = ""

    def failed(self, why: str) -> None:
        """The picture of the newest image cannot be used."""
        self._picture_problem = why
        if self._looked_ns is not None:
            self._usable_ns = self._looked_ns  # nobody saw the pictures that came since

    def check(self, now_ns: int, stopped_ns: int = 0, paused_ns: int = 0) -> int:
        """For how long no image could be used [ns].

        Since the last call this process was stopped for ``stopped_ns``, which says nothing about the camera;
        or simulated time stood still for ``paused_ns``, in pauses that are over, in which no episode grows
        older.
        """
        if self._usable_ns is None:
            self._usable_ns = now_ns
        self._usable_ns = min(now_ns, self._usable_ns + stopped_ns)
        self._arrival_ns = min(now_ns, self._arrival_ns + max(stopped_ns, paused_ns))
        return now_ns - self._usable_ns

    def behind_ns(self, now_ns: int, stands_ns: int = 0) -> int:
        """For how long no stamp could be believed [ns], without pauses and stops, and without the
        ``stands_ns`` for which simulated time has been standing still."""
        return max(0, now_ns - self._arrival_ns - stands_ns)

    def why(self) -> str:
        """What was wrong with the newest image; empty where none came."""
        return self._stamp_problem or self._picture_problem
