"""What a monitor's messages say, without ROS types: nodes/conversions.py makes these, views show them."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan, nan

from topreward_ros.core.outputs import State


@dataclass(frozen=True, slots=True)
class Description:
    """What a MonitorInfo message says of the numbers' origin, without ROS types."""

    model_id: str
    device: str
    dtype: str
    random_weights: bool
    camera_names: tuple[str, ...]
    answers: str = ""  #: as in `ScorerInfo`


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A TaskProgress message without ROS types."""

    episode_id: str
    instruction: str
    state: State | int  #: the number, where it is of a version that knows more states
    stamp_ns: int  #: of the newest frame in the prefix
    progress: float
    log_prob: float
    log_prob_false: float
    log_prob_static: float
    num_frames: int
    elapsed_s: float
    latency_s: float
    message: str
    stage: int = 0  #: of the task, from 1; 0 without a task
    stages: int = 0
    success_probability: float = nan

    @property
    def states_success(self) -> bool:
        """Whether the model states success itself, and has no log p; a message that nobody filled has 0."""
        return isnan(self.log_prob) and not isnan(self.success_probability)

    @property
    def state_name(self) -> str:
        """How people know the state."""
        return self.state.name if isinstance(self.state, State) else f"state {self.state}"


@dataclass(frozen=True, slots=True)
class Happening:
    """A TaskEvent message without ROS types."""

    episode_id: str
    stamp_ns: int
    type: str  #: name of the constant; "event" and the number, where it is of a version that knows more
    message: str
