"""What a monitor's messages say, without ROS types: nodes/conversions.py makes these, views show them."""

from __future__ import annotations

from dataclasses import dataclass

from topreward_ros.core.episode import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A TaskProgress message without ROS types."""

    episode_id: str
    instruction: str
    state: State
    stamp_ns: int  #: of the newest frame in the prefix
    progress: float
    log_prob: float
    log_prob_false: float
    log_prob_static: float
    num_frames: int
    elapsed_s: float
    latency_s: float
    message: str


@dataclass(frozen=True, slots=True)
class Happening:
    """A TaskEvent message without ROS types."""

    episode_id: str
    stamp_ns: int
    type: str  #: name of the constant
    message: str
