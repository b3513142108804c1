"""COVERED_IMAGES: pictures come, and show nothing: something is before the lens, or the light is off.

What a picture shows is judged in core/scene.py: nearly one colour, or noise. A picture or two of that kind
pass (a lamp that flickers, a damaged frame); when they go on, somebody has to be told, because nothing is
known of the task any more.
"""

from __future__ import annotations

from topreward_ros.core.detectors.sample import Finding
from topreward_ros.core.events import EventType
from topreward_ros.core.frames import NS_PER_S


class CoveredDetector:
    """Fires once per stretch of pictures that show nothing; `why` says so until one shows something.

    >>> detector = CoveredDetector(2.0)
    >>> found = [detector.update(k * 10**9, "it is nearly one colour" * (k > 1)) for k in range(5)]
    >>> [k for k, finding in enumerate(found) if finding]
    [4]
    >>> detector.update(5 * 10**9, ""), detector.why
    (None, '')
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout  #: [s] for which pictures must show nothing; 0: never; may be replaced
        self.why = ""  #: why nothing can be seen, since the event; else empty
        self._since_ns: int | None = None

    def update(self, stamp_ns: int, fault: str) -> Finding | None:
        """Take the next picture: its stamp [ns], and why it shows nothing; empty: it shows something."""
        if not fault or not self.timeout:
            self._since_ns, self.why = None, ""
            return None
        if self._since_ns is None:
            self._since_ns = stamp_ns
        lasted_s = (stamp_ns - self._since_ns) / NS_PER_S
        if lasted_s < self.timeout:
            return None
        told = self.why
        self.why = f"nothing is to be seen for more than {self.timeout:g} s (covered_timeout): {fault}"
        if told:
            return None
        return Finding(
            EventType.COVERED_IMAGES,
            f"nothing is to be seen for {lasted_s:.1f} s: {fault} (covered_timeout = {self.timeout:g} s): no "
            "score is believed; look at the lens and the light",
            self.timeout,
        )
