"""A robot and its camera for tests of a whole monitor: the test tells its progress, and what is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count, cycle
from typing import Any

import numpy as np

from topreward_ros.core.detectors.failure import FailureSettings
from topreward_ros.core.detectors.of_progress import ProgressSettings
from topreward_ros.core.detectors.regression import RegressionSettings
from topreward_ros.core.detectors.stall import StallSettings
from topreward_ros.core.episode import TaskMonitor
from topreward_ros.core.events import EventType
from topreward_ros.core.frames import NS_PER_S, Frame
from topreward_ros.core.outputs import Event, Output, ProgressReport
from topreward_ros.core.progress import PrefixScore
from topreward_ros.core.score_request import ScoreRequest

from . import monitors
from .scenes import lit, scene

STATIC = -8.0  # [nat] r_static of every score
SETTINGS = replace(
    monitors.SETTINGS,
    success=replace(monitors.SETTINGS.success, threshold=-0.8, hysteresis=0.0),  # progress 0.9
    progress=ProgressSettings(
        stall=StallSettings(after=4.0, rise=0.1, slope=0.02, nominal_duration=0.0),
        regression=RegressionSettings(sigma=0.02, dwell=1.0),
        failure=FailureSettings(threshold=0.05, after=1.0, dwell=1.5),
    ),
    episode_timeout=30.0,
)
SIZE = (72, 96)  #: [px] the smallest that is looked at
TABLE = scene(size=SIZE)
#: What a camera with noise shows of a robot at work.
LIVELY = [lit(scene(arm=0.5 if k % 4 < 2 else None, size=SIZE), 1.0, 3.0, seed=k) for k in range(8)]
#: Nobody can tell what it shows, and it costs nothing to look.
PIXEL = [np.zeros((1, 1, 3), np.uint8)]


class Robot:
    """A monitor, a camera with noise at 2 Hz, and a robot that has worked for a second already."""

    def __init__(
        self, task: str = "open it", pictures: Sequence[np.ndarray] = LIVELY, **changes: Any
    ) -> None:
        numbers = count(1)
        self.monitor = TaskMonitor(replace(SETTINGS, **changes), lambda: f"e{next(numbers)}")
        self.now_s = 100.0
        self.ahead_s = 0.0  #: of the camera's clock, before ours
        self.progress = 0.3
        self.widths: tuple[int, ...] = ()  #: of several cameras in a picture
        self.outputs: list[Output] = []
        self.pictures = cycle(pictures)
        self.outputs += self.monitor.set_task(task, "first")
        self.work(3)

    def frame(self, picture: np.ndarray | None = None, step_s: float = 0.5) -> ScoreRequest | None:
        """The next picture; None: the camera's. Returns what is to be scored."""
        self.now_s += step_s
        now_ns = round(self.now_s * NS_PER_S)
        stamp_ns = round((self.now_s + self.ahead_s) * NS_PER_S)
        picture = next(self.pictures) if picture is None else picture
        due, outputs = self.monitor.observe(stamp_ns, now_ns)
        request = None
        if due:
            request, more = self.monitor.add_frame(Frame(stamp_ns, picture, "camera", self.widths))
            outputs += more
        self.outputs += [*outputs, *self.monitor.check_clock(now_ns)]
        return request

    def score(self, request: ScoreRequest | None, progress: float) -> None:
        """The score of a picture that came."""
        if request is not None:
            log_prob = (1.0 - progress) * STATIC
            score = PrefixScore(log_prob, -1.0, STATIC, num_frames=len(request.prefix))
            self.outputs += self.monitor.add_score(request, score)

    def show(self, picture: np.ndarray | None = None, progress: float | None = None) -> None:
        """The next picture and its score; without progress it is that of before."""
        self.score(self.frame(picture), self.progress if progress is None else progress)

    def work(self, frames: int, rises: float = 0.02) -> None:
        """The robot goes on with its task, at a walk."""
        for _ in range(frames):
            self.progress = min(self.progress + rises, 0.85)
            self.show()

    @property
    def report(self) -> ProgressReport:
        return self.monitor.report

    @property
    def events(self) -> list[Event]:
        return [output for output in self.outputs if isinstance(output, Event)]

    @property
    def kinds(self) -> list[EventType]:
        return [event.type for event in self.events]

    @property
    def scored(self) -> list[ProgressReport]:
        """The reports, one for each score and some more."""
        return [it for it in self.outputs if isinstance(it, ProgressReport) and it.num_frames]
