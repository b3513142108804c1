"""A call of a service of a monitor: what is called, how long that may take, and what is said of it.

No ROS 2 and no clock here: nodes/task.py looks at the graph, and makes the call. Times called ``now_s`` are
of a clock that only goes forward.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from topreward_ros.core.absent_monitor import IS_IT_RUNNING, why_not_ready

#: Seconds for which a monitor may be absent or not configured. One that loads its model has all the time.
LONGEST_ABSENCE_S = 10.0
#: Seconds from the call to its answer.
LONGEST_ANSWER_S = 30.0


@dataclass(frozen=True, slots=True)
class MonitorCall:
    """A service of a monitor, and what its request says."""

    service: str  #: below the monitor's name, such as set_task
    values: Mapping[str, str | bool] = field(default_factory=dict)


class CallWait:
    """How long a call is waited for: by the limits above, or by one limit for all of it."""

    def __init__(self, now_s: float, limit_s: float | None = None) -> None:
        """``limit_s``: from now to the answer, in place of the limits above."""
        self._end_s = now_s + (LONGEST_ABSENCE_S if limit_s is None else limit_s)
        self._is_fixed = limit_s is not None
        self._is_sent = False

    def note_monitor(self, now_s: float, state: str) -> None:
        """The monitor is there, in a lifecycle ``state`` as ROS 2 calls it; empty: that is not known yet.

        Loading a model may take minutes; out of the other states it is brought by people alone.
        """
        if not self._is_fixed and not self._is_sent and state in ("", "configuring"):
            self._end_s = now_s + LONGEST_ABSENCE_S
        if state == "finalized":
            self._end_s = now_s

    def note_sent(self, now_s: float) -> None:
        """The request is on its way."""
        self._is_sent = True
        if not self._is_fixed:
            self._end_s = now_s + LONGEST_ANSWER_S

    def is_over(self, now_s: float) -> bool:
        """Whether to give up."""
        return now_s >= self._end_s


def answer_line(message: str, episode_id: str = "") -> str:
    """What a monitor answered, with the episode that begins.

    >>> answer_line("waiting for images", "take-7")
    "episode 'take-7': waiting for images"
    >>> answer_line("disabled")
    'disabled'
    """
    return f"episode '{episode_id}': {message}" if episode_id else message


def awaited(monitor: str, is_there: bool, state: str = "") -> str:
    """What is waited for before a call can be made.

    >>> awaited("/arm1/monitor", False)
    'waiting for /arm1/monitor'
    """
    if is_there:
        return f"waiting for {monitor}, which takes no calls now: {why_not_ready(monitor, state)}"
    return f"waiting for {monitor}"


def why_no_answer(monitor: str, waited_s: float, domain: str, others: Sequence[str]) -> str:
    """Why a call could not be made within ``waited_s``, where ``monitor`` is not there.

    ``domain``: the ROS domain. ``others``: the monitors that are there.

    >>> why_no_answer("/monitor", 10.0, "0", ["/arm1/monitor"])[-64:]
    'there is /arm1/monitor: choose it with --ros-args -r __ns:=/arm1'
    """
    said = f"no {monitor} within {waited_s:.3g} s (ROS_DOMAIN_ID {domain}): {IS_IT_RUNNING}"
    if not others:
        return said
    namespace = others[0].rpartition("/")[0] or "/"
    return f"{said} there is {', '.join(others)}: choose it with --ros-args -r __ns:={namespace}"
