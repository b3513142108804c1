"""The progress curve of a video, by the same state machine that the live monitor runs.

Frames go through `TaskMonitor` exactly as the node feeds it, so the live and the offline curve of one
video are equal by construction. Offline every due frame is scored, however long a score takes; live a
newer frame may replace one that still waits. As live, nothing is scored once the episode has ended.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from enum import Enum
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from topreward_ros.core.episode import Event, MonitorSettings, ProgressReport, Reward, State, TaskMonitor
from topreward_ros.core.frames import NS_PER_S, Frame, FrameSchedule
from topreward_ros.core.progress import PrefixScore, episode_minmax
from topreward_ros.offline.video import open_video
from topreward_ros.scoring.base import PrefixScorer, ScorerInfo

JSON_FORMAT = "topreward_curve/1"  #: raise the number when a field changes its meaning or goes


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One scored prefix."""

    time_s: float  #: of its newest frame, since the first frame of the video
    num_frames: int  #: frames in the prefix
    score: PrefixScore
    progress: float  #: [0, 1] or NaN, as live
    reward: float  #: in the unit of the reward type, or NaN


@dataclass(frozen=True, slots=True)
class CurveEvent:
    """Something that happened once, as on `task_event`."""

    time_s: float  #: of the newest frame when it happened
    type: str  #: name of the `EventType`
    threshold: float  #: that fired, or NaN
    message: str


@dataclass(frozen=True, slots=True)
class Curve:
    """All that came of one video, and where the numbers come from."""

    video: str  #: path as it was given
    duration_s: float  #: time of the last frame that was looked at; the whole video unless the episode ended
    instruction: str
    model: ScorerInfo
    settings: MonitorSettings
    state: State  #: at the end
    points: tuple[CurvePoint, ...]
    events: tuple[CurveEvent, ...]
    ended_early: bool  #: the episode was over before the video was, and the rest was not scored

    def minmax(self) -> np.ndarray:
        """The paper's progress (TOPReward eq. 2), which looks ahead: (K,) in [0, 1], or all NaN."""
        return episode_minmax(np.array([point.score.log_prob for point in self.points]))

    def to_json(self) -> str:
        """The curve as JSON text; NaN is written as null.

        ``format``: ``topreward_curve/1``; ``video``, ``duration`` [s], ``instruction``, ``state``,
        ``ended_early``; ``model``: the fields of `ScorerInfo` but ``instructions``; ``settings``: those of
        `MonitorSettings`; ``scores``: per prefix ``time`` [s] of its newest frame, ``num_frames``,
        ``log_prob``, ``log_prob_std``, ``log_prob_false`` and ``log_prob_static`` [nat],
        ``progress`` as live, ``reward``, ``progress_minmax`` (the paper's, over the whole curve, never
        available live); ``events``: ``time`` [s], ``type``, ``threshold``, ``message``.
        """
        scores = [
            {
                "time": point.time_s,
                "num_frames": point.num_frames,
                **asdict(point.score),
                "progress": point.progress,
                "reward": point.reward,
                "progress_minmax": float(minmax),
            }
            for point, minmax in zip(self.points, self.minmax(), strict=True)
        ]
        events = [
            {"time": event.time_s, "type": event.type, "threshold": event.threshold, "message": event.message}
            for event in self.events
        ]
        content = {
            "format": JSON_FORMAT,
            "video": self.video,
            "duration": self.duration_s,
            "instruction": self.instruction,
            "model": {name: value for name, value in asdict(self.model).items() if name != "instructions"},
            "settings": asdict(self.settings),
            "state": self.state.name,
            "ended_early": self.ended_early,
            "scores": scores,
            "events": events,
        }
        return json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def score_video(
    path: str | Path,
    instruction: str,
    scorer: PrefixScorer,
    settings: MonitorSettings,
    *,
    rate: float = 0.0,
    on_score: Callable[[CurvePoint], None] | None = None,
) -> Curve:
    """Score every due frame of the video at ``path`` until its episode or the video ends.

    ``rate`` [Hz] replaces the frame rate of the file; a folder of images needs it. ``on_score`` is called
    after every score. Raises `VideoError`, `ScorerError`, and `ValueError` for an empty instruction.
    """
    frames = open_video(path, rate)
    return score_frames(str(path), frames, instruction, scorer, settings, on_score=on_score)


def score_frames(
    name: str,
    frames: Iterable[tuple[int, Callable[[], np.ndarray]]],
    instruction: str,
    scorer: PrefixScorer,
    settings: MonitorSettings,
    *,
    on_score: Callable[[CurvePoint], None] | None = None,
) -> Curve:
    """`score_video` for frames from anywhere; ``name`` stands for the video in the curve.

    ``frames``: stamps [ns] from 0 on, each with what reads its (H, W, 3) uint8 RGB image.
    """
    if not instruction.strip():
        raise ValueError("the instruction is empty; say what the robot is to do")
    monitor = TaskMonitor(settings, lambda: Path(name).stem)
    monitor.set_task(instruction)
    points: list[CurvePoint] = []
    events: list[CurveEvent] = []
    ended_early = False
    last_ns = 0
    for stamp_ns, read in frames:
        if _has_ended(events):
            ended_early = True
            break
        last_ns = stamp_ns
        due, outputs = monitor.observe(stamp_ns, arrival_ns=stamp_ns)
        if not due:
            continue
        request, more = monitor.add_frame(Frame(stamp_ns, read()))
        outputs += more
        if request is not None:
            outputs += monitor.add_score(request, scorer.score(request.instruction, request.prefix))
        events += [_event(output) for output in outputs if isinstance(output, Event)]
        if request is not None:
            points.append(_point(outputs))
            if on_score is not None:
                on_score(points[-1])
    return Curve(
        name,
        last_ns / NS_PER_S,
        instruction.strip(),
        scorer.info,
        settings,
        monitor.report.state,
        tuple(points),
        tuple(events),
        ended_early,
    )


def due_times(path: str | Path, sample_rate: float, rate: float = 0.0) -> list[float]:
    """Times [s] of the frames of a video that are due at ``sample_rate`` [Hz]. Raises `VideoError`."""
    schedule = FrameSchedule(sample_rate)
    times = []
    for stamp_ns, _ in open_video(path, rate):
        if schedule.observe(stamp_ns):
            schedule.take()
            times.append(stamp_ns / NS_PER_S)
    return times


def _has_ended(events: list[CurveEvent]) -> bool:
    return bool(events) and events[-1].type == "EPISODE_ENDED"


def _point(outputs: list[Any]) -> CurvePoint:
    """What `add_score` said about its prefix: the last report, and the reward that goes with it."""
    report = next(output for output in reversed(outputs) if isinstance(output, ProgressReport))
    reward = next(output for output in reversed(outputs) if isinstance(output, Reward))
    return CurvePoint(
        report.stamp_ns / NS_PER_S, report.num_frames, report.score, report.progress, reward.reward
    )


def _event(event: Event) -> CurveEvent:
    return CurveEvent(event.stamp_ns / NS_PER_S, event.type.name, event.threshold, event.message)


def _plain(value: Any) -> Any:
    """Replace what JSON does not know: an enum by its name in lower case, NaN and infinity by null."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Enum):
        return value.name.lower()
    if isinstance(value, float) and not isfinite(value):
        return None
    return value
