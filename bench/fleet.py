"""What a simulated fleet is: robots, replicas of a server, what happens to them, and what came of it.

Every tick that was due ends in one of three ways: it was scored in time, a newer one replaced it, or its
episode was over before the answer was there. The same seed gives the same run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil, inf, isfinite

import numpy as np

from topreward_ros.core.errors import UserError

_MOST_TICKS = 10_000_000  # of a run: minutes of computing, and a gigabyte
_MOST_ROBOTS, _MOST_REPLICAS = 100_000, 10_000
_START_S = 10.0  # within which robots begin, or within an episode where that is shorter
_SHORTEST_SHARE = 0.5  # of the mean length of an episode; the longest has 1.5


@dataclass(frozen=True, slots=True)
class Fleet:
    """Who asks whom, and what happens to them. Times in seconds, rates in Hz."""

    robots: int
    replicas: int
    rate: float  #: of scores that are due to each robot
    seconds: float
    seed: int = 0
    jitter: float = (
        0.01  #: how late a frame comes: half of a normal distribution, a quarter of a period at most
    )
    phases: str = "random"  #: of the robots: 'random', 'together' or 'even'
    episode: float = 60.0  #: mean length; lengths are even between a half and one and a half of it
    pause: float = 5.0  #: between two episodes of a robot
    network: float = 0.005  #: one way, beside the frames
    network_jitter: float = 0.002  #: mean of what comes on top, exponential
    frame: float = 0.007  #: to send one frame: 88 kB at 100 Mbit/s
    one_in_flight: bool = True  #: a robot waits for its answer before it asks again, and keeps what is newer
    dies_every: float = inf  #: mean time until a replica that lives dies
    repair: float = 60.0  #: until it is back, empty
    notice: float = 1.0  #: until its robots know, and go elsewhere
    stray: float = (
        0.0  #: share of requests that reach another replica than their episode's, which then has it
    )
    max_frames: int = 64  #: of a prefix; thinned to half when full
    lead: int = 64  #: ticks for which baselines are computed ahead at most

    def __post_init__(self) -> None:
        positive = {"rate": self.rate, "seconds": self.seconds, "episode": self.episode}
        for name, value in positive.items():
            if not (isfinite(value) and value > 0):
                raise UserError(f"{name} {value}: give a number above 0")
        never_negative = ("jitter", "pause", "network", "network_jitter", "frame", "repair", "notice")
        for name in never_negative:
            if not (isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise UserError(f"{name} {getattr(self, name)}: give 0 or more seconds")
        if self.episode * self.rate < 2:
            raise UserError(f"episodes of {self.episode:g} s at {self.rate:g} Hz: give two ticks or more")
        if not (1 <= self.robots <= _MOST_ROBOTS and 1 <= self.replicas <= _MOST_REPLICAS):
            raise UserError(
                f"{self.robots} robots, {self.replicas} replicas: give 1 to {_MOST_ROBOTS:,} robots and 1 to "
                f"{_MOST_REPLICAS:,} replicas"
            )
        if not self.dies_every > 0 or not 0 <= self.stray < 1:
            raise UserError(
                f"dies_every {self.dies_every}, stray {self.stray}: give seconds above 0, a share below 1"
            )
        if self.phases not in ("random", "together", "even"):
            raise UserError(f"phases '{self.phases}': give random, together or even")
        if self.robots * self.rate * self.seconds > _MOST_TICKS:
            raise UserError(
                f"{self.robots} robots for {self.seconds:g} s at {self.rate:g} Hz are more than "
                f"{_MOST_TICKS:,} ticks: give fewer seconds"
            )


@dataclass(frozen=True, slots=True)
class Episode:
    """What one robot does between two pauses."""

    ticks: list[float]  #: when the newest frame of each was captured [s]
    end: float  #: answers that come later are of no use


def episodes_of(fleet: Fleet, robot: int) -> Iterator[Episode]:
    """The episodes of ``robot`` from 0 to ``fleet.seconds``; they do not depend on the replicas."""
    draw = np.random.default_rng([fleet.seed, robot])
    period = 1.0 / fleet.rate
    phase = {"together": 0.0, "even": robot / fleet.robots}.get(fleet.phases, float(draw.random()))
    spread = 0 if fleet.phases != "random" else draw.integers(max(1, int(_START_S * fleet.rate)))
    begin = (phase + int(spread)) * period
    while begin < fleet.seconds:
        length = fleet.episode * float(draw.uniform(_SHORTEST_SHARE, 2 - _SHORTEST_SHARE))
        due = np.arange(begin, min(begin + length - period / 2, fleet.seconds), period)
        late = np.minimum(np.abs(draw.normal(0.0, fleet.jitter, len(due))), period / 4)
        yield Episode((due + late).tolist(), begin + length)
        begin += period * ceil((length + fleet.pause) / period)  # in step with the camera, as before


@dataclass(slots=True)
class Outcome:
    """What became of all ticks, and how the replicas fared."""

    due: int = 0
    replaced: int = 0
    late: int = 0  #: the episode was over before the answer was there
    ages: list[float] = field(default_factory=list)  #: [s] of scores when they came, since their newest frame
    times: list[float] = field(default_factory=list)  #: [s] when these scores came
    passes: int = 0
    refills: int = 0  #: passes' episodes that were read anew, beside first ticks
    deaths: int = 0
    down: list[tuple[float, float]] = field(default_factory=list)  #: of a replica, from and to [s]
    busy: float = 0.0  #: [s] of all replicas, in passes
    ahead: float = 0.0  #: [s] of all replicas, in work ahead

    @property
    def scored(self) -> int:
        return len(self.ages)

    @property
    def dropped(self) -> float:
        """Share of the due ticks without a score in time."""
        return 1.0 - self.scored / self.due if self.due else 0.0

    def age(self, quantile: float) -> float:
        """[s]; infinite where nothing was scored."""
        return float(np.quantile(self.ages, quantile)) if self.ages else inf
