"""The progress curve of a video, by the same state machine that the live monitor runs.

Frames go through `TaskMonitor` exactly as the node feeds it. Offline every due frame is scored, however long
a score takes, or only K evenly spaced prefixes as in the paper (`paper_prefixes`). Live, a newer frame
replaces one that still waits for the scorer; where the live monitor scores every due frame, the two curves of
a video are equal. As live, a task in stages has an episode per stage, and nothing is scored once the last
episode has ended. Several videos are scored side by
side, so that the model can share work.
"""

from __future__ import annotations

import json
import logging
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from math import nan
from pathlib import Path
from typing import Any

import numpy as np

from topreward_ros.core.calibration.mapping import calibrations_digest
from topreward_ros.core.calibration.told import DetectorLog
from topreward_ros.core.episode import IgnoredImages, TaskMonitor
from topreward_ros.core.errors import UserError
from topreward_ros.core.events import EventType, SuccessDetector
from topreward_ros.core.frames import NS_PER_S, Frame, FrameSchedule
from topreward_ros.core.instruction import InstructionError, clean_task
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.core.outputs import Event, Output, ProgressReport, Reward, State
from topreward_ros.core.progress import PrefixScore, episode_minmax
from topreward_ros.core.scene import SceneJudge
from topreward_ros.core.stamps import StampJudge
from topreward_ros.offline.json_values import json_value
from topreward_ros.offline.paper_prefixes import PaperPrefixes
from topreward_ros.offline.prefix_schedule import PrefixSchedule
from topreward_ros.offline.side_by_side import Episode, score_side_by_side
from topreward_ros.offline.video import Damage, FrameError, Video, open_video
from topreward_ros.scoring.base import PrefixScorer, ScorerInfo

JSON_FORMAT = "topreward_curve/1"  #: raise the number when a field changes its meaning or goes
JSON_FORMAT_OF_SEVERAL = "topreward_curves/1"

# A schedule at which every frame with a stamp of its own is due [Hz]: for frames that were chosen beforehand.
_ALL_DUE = float(NS_PER_S)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One scored prefix."""

    time_s: float  #: of its newest frame, since the first frame of the video
    score: PrefixScore
    progress: float  #: [0, 1] of the whole task or NaN, as live
    reward: float  #: in the unit of the reward type, or NaN
    video_frames: int  #: frames of the video, scored or not, from its first to the end of the prefix
    stage: int = 1  #: of the task, from 1: whose prefix it is
    stage_progress: float = nan  #: [0, 1] of that stage alone, or NaN
    threshold: float = nan  #: of success [nat], that was in force

    @property
    def num_frames(self) -> int:
        """Frames that were scored."""
        return self.score.num_frames


@dataclass(frozen=True, slots=True)
class CurveEvent:
    """Something that happened once, as on `task_event`."""

    time_s: float  #: of the newest frame when it happened
    type: str  #: name of the `EventType`
    threshold: float  #: that fired, or NaN
    message: str
    stage: int = 1  #: of the task, from 1


@dataclass(frozen=True, slots=True)
class Curve:
    """The scores and events of one video, and where the numbers come from."""

    video: str  #: path as it was given
    duration_s: float  #: time of the last frame that was looked at; the whole video unless the episode ended
    instruction: str  #: the task: its stages, one per line
    model: ScorerInfo
    settings: MonitorSettings
    state: State  #: of the monitor at the last frame: RUNNING where nothing ended the episode but the video
    points: tuple[CurvePoint, ...]
    events: tuple[CurveEvent, ...]
    ended_early: bool  #: the episode was over before the video was, and the rest was not scored
    ignored: IgnoredImages  #: frames that were not used, by reason
    prefix_schedule: PrefixSchedule | None = None  #: whose frames the prefixes took; None: all due
    damaged: tuple[Damage, ...] = ()  #: what could not be read, in the part of the video that was looked at
    uncalibrated: Mapping[int, str] = field(default_factory=dict)  #: why a stage (from 1) had no calibration

    @property
    def calibration_notes(self) -> tuple[str, ...]:
        """What a human has to know of the calibrations that were given: which do not decide, or are weak."""
        calibrations = self.settings.calibrations
        known = filter(None, map(calibrations.of, self.instruction.split("\n")))
        weak = [f"{it.weakness}; {it.who_decides}" for it in known if it.weak]
        return tuple(dict.fromkeys(filter(None, [*self.uncalibrated.values(), *weak])))

    @property
    def stages(self) -> int:
        """How many stages the task has."""
        return len(self.instruction.split("\n"))

    def minmax(self) -> np.ndarray:
        """The paper's progress (TOPReward eq. 2), which looks ahead: (K,) in [0, 1], or NaN without spread.

        Of each stage by itself, and then of the whole as progress is.
        """
        stages = np.array([point.stage for point in self.points])
        log_probs = np.array([point.score.success_log_prob for point in self.points])
        values = np.full(len(self.points), nan)
        for stage in range(1, self.stages + 1):
            values[stages == stage] = (stage - 1 + episode_minmax(log_probs[stages == stage])) / self.stages
        return values

    def to_json_value(self) -> dict[str, Any]:
        """The curve as JSON can hold it; NaN is None.

        ``format``: ``topreward_curve/1``; ``video``, ``duration`` [s], ``instruction``, ``state`` of the
        monitor at the last frame, ``ended_early``; ``stages``: the instruction of each, one in most tasks;
        ``ignored``: the fields of `IgnoredImages`; ``prefix_schedule``: None where all due frames are scored;
        ``model``: the fields of `ScorerInfo` but ``instructions``; ``settings``: those of `MonitorSettings`;
        ``calibration``: None without one, else its ``file``, the ``sha256`` of what it says, and per stage
        ``success``: the detector that stood in place of the settings, or None, ``weak``, and ``why_not``: why
        it had no calibration; ``scores``: per prefix ``time`` [s] of its newest frame, ``video_frames`` from
        the first of the video to the end of the prefix, ``num_frames`` that were scored of them,
        ``log_prob``, ``log_prob_std``, ``log_prob_false`` and
        ``log_prob_static`` [nat], where one is not told by a served model ``log_prob_bound`` [nat] and
        ``note``, ``answer_share``, ``stated_progress`` and ``success_probability`` in [0, 1] where there are
        some, ``progress`` as live, ``reward``, ``progress_minmax`` (the paper's,
        over the whole curve, never available live), ``stage`` from 1 and its ``stage_progress``;
        ``events``: ``time`` [s], ``type``, ``threshold``, ``message``, ``stage``; ``damaged``: per place
        ``time`` [s] of the newest frame before it or in it, ``until`` [s], to which pictures may be wrong
        because they are built on what is damaged, ``frames`` that were lost (0: not known) and ``reason``.
        """
        scores = [
            {
                "time": point.time_s,
                "video_frames": point.video_frames,
                **_score_value(point.score),
                "progress": point.progress,
                "reward": point.reward,
                "progress_minmax": float(minmax),
                "stage": point.stage,
                "stage_progress": point.stage_progress,
            }
            for point, minmax in zip(self.points, self.minmax(), strict=True)
        ]
        events = [
            {
                "time": event.time_s,
                "type": event.type,
                "threshold": event.threshold,
                "message": event.message,
                "stage": event.stage,
            }
            for event in self.events
        ]
        content = {
            "format": JSON_FORMAT,
            "video": self.video,
            "duration": self.duration_s,
            "instruction": self.instruction,
            "stages": self.instruction.split("\n"),
            "model": {name: value for name, value in asdict(self.model).items() if name != "instructions"},
            "settings": {
                name: value for name, value in asdict(self.settings).items() if name != "calibrations"
            },
            "calibration": self._calibration(),
            "state": self.state.name,
            "ended_early": self.ended_early,
            "ignored": asdict(self.ignored),
            "prefix_schedule": self.prefix_schedule.value if self.prefix_schedule else None,
            "scores": scores,
            "events": events,
            "damaged": [
                {"time": place.time_s, "until": place.until_s, "frames": place.frames, "reason": place.reason}
                for place in self.damaged
            ],
        }
        made: dict[str, Any] = json_value(content)
        return made

    def _calibration(self) -> dict[str, Any] | None:
        """The file, and what stood in place of the settings, stage by stage."""
        calibrations = self.settings.calibrations
        if not calibrations:
            return None
        found = [
            None if stage in self.uncalibrated else calibrations.of(text)
            for stage, text in enumerate(self.instruction.split("\n"), start=1)
        ]
        return {
            "file": calibrations.source,
            "sha256": calibrations_digest(calibrations),
            "success": [it and it.detector and asdict(it.detector) for it in found],
            "weak": [bool(it and it.weak) for it in found],
            "why_not": [self.uncalibrated.get(stage) for stage in range(1, self.stages + 1)],
        }

    def to_json(self) -> str:
        """The curve as JSON text, see `to_json_value`."""
        return _to_text(self.to_json_value())


#: The result of a video: its curve, or the error that prevented it.
Outcome = Curve | UserError


def outcomes_to_json(videos: Sequence[str], outcomes: Sequence[Outcome]) -> str:
    """The results of several videos as JSON text.

    ``format``: ``topreward_curves/1``; ``curves``: for each video what `Curve.to_json_value` gives, or
    ``video`` and ``error`` where it has no curve.
    """
    curves = [
        outcome.to_json_value() if isinstance(outcome, Curve) else {"video": video, "error": str(outcome)}
        for video, outcome in zip(videos, outcomes, strict=True)
    ]
    return _to_text({"format": JSON_FORMAT_OF_SEVERAL, "curves": curves})


def score_video(
    path: str | Path,
    instruction: str,
    scorer: PrefixScorer,
    settings: MonitorSettings,
    *,
    rate: float = 0.0,
    prefixes: int = 0,
    prefix_schedule: PrefixSchedule = PrefixSchedule.AUTHORS,
    on_score: Callable[[CurvePoint], None] | None = None,
) -> Curve:
    """Score every due frame of the video at ``path`` until its (last) episode or the video ends.

    ``instruction``: the task, a stage per line; ``prefixes`` takes one stage alone.
    ``rate`` [Hz] replaces the frame rate of the file; a folder of images needs it. ``prefixes``: score so
    many evenly spaced prefixes only, the whole video last (TOPReward, section 4: 15); 0: all.
    ``prefix_schedule``: whose frames they take. With that of the authors the times in the prompt are the
    authors' too if ``scorer`` has no sample rate, and a prefix with the frames of the one before has its
    score again. ``on_score`` is called after every score. Raises `VideoError`, `ScorerError`,
    `InstructionError`; `ValueError` for an empty instruction.
    """
    (outcome,) = score_videos(
        [path],
        instruction,
        scorer,
        settings,
        rate=rate,
        prefixes=prefixes,
        prefix_schedule=prefix_schedule,
        on_score=on_score,
    )
    if isinstance(outcome, UserError):
        raise outcome
    return outcome


def score_videos(
    paths: Sequence[str | Path],
    instruction: str,
    scorer: PrefixScorer,
    settings: MonitorSettings,
    *,
    rate: float = 0.0,
    prefixes: int = 0,
    prefix_schedule: PrefixSchedule = PrefixSchedule.AUTHORS,
    at_once: int = 1,
    on_score: Callable[[CurvePoint], None] | None = None,
) -> list[Outcome]:
    """`score_video` for several videos, ``at_once`` of them side by side: the curve of each, or its error.

    A video that fails does not harm the others. Raises `InstructionError`; `ValueError` for an empty
    instruction.
    """
    recordings = [Recording(str(path), instruction, partial(open_video, path, rate)) for path in paths]
    return score_recordings(
        recordings,
        scorer,
        settings,
        prefixes=prefixes,
        prefix_schedule=prefix_schedule,
        at_once=at_once,
        on_score=on_score,
    )


@dataclass(frozen=True, slots=True)
class Recording:
    """An episode that was recorded, wherever its frames come from."""

    name: str  #: as `Curve.video` has it
    instruction: str  #: in natural language
    open: Callable[[], Video]  #: opens it for reading; raises `VideoError`
    log: DetectorLog | None = None  #: writes down what a detector is told; then SUCCESS never comes


def score_recordings(
    recordings: Sequence[Recording],
    scorer: PrefixScorer,
    settings: MonitorSettings,
    *,
    prefixes: int = 0,
    prefix_schedule: PrefixSchedule = PrefixSchedule.AUTHORS,
    at_once: int = 1,
    on_score: Callable[[CurvePoint], None] | None = None,
    on_outcome: Callable[[int, Outcome], None] | None = None,
) -> list[Outcome]:
    """`score_videos` for recordings, each with an instruction of its own.

    ``on_outcome`` is called as soon as a recording is done, with its place in ``recordings``. Raises
    `InstructionError`; `ValueError` for an empty instruction.
    """
    instructions = [clean_task(recording.instruction) for recording in recordings]
    if not all(instructions):
        raise ValueError("the instruction is empty; say what the robot is to do")
    if prefixes and any("\n" in instruction for instruction in instructions):
        raise InstructionError("prefixes of a whole video are of one task: give one without stages")
    choice = _Choice(prefixes, prefix_schedule)
    episodes = [
        _recorded_episode(recording, instruction, scorer.info, settings, choice, on_score)
        for recording, instruction in zip(recordings, instructions, strict=True)
    ]
    outcomes: dict[int, Outcome] = {}
    for number, outcome in score_side_by_side(episodes, scorer, at_once):
        outcomes[number] = outcome
        if on_outcome is not None:
            on_outcome(number, outcome)
    return [outcomes[number] for number in range(len(recordings))]


@dataclass(frozen=True, slots=True)
class _Choice:
    """Which prefixes of a video are asked for."""

    prefixes: int  #: how many; 0: all
    schedule: PrefixSchedule


@dataclass(frozen=True, slots=True)
class _Selection:
    """Which frames of a video are taken, and which of the prefixes are scored."""

    #: Frames of a prefix that is scored -> `CurvePoint.video_frames` of its points; none: one point, which
    #: ends at the newest frame. None: every prefix is scored.
    scored: Mapping[int, Sequence[int]] | None = None
    #: Stamp [ns] of the frames to take, by index in the video. None: the monitor's schedule takes them.
    stamps_ns: Mapping[int, int] | None = None


def _recorded_episode(
    recording: Recording,
    instruction: str,
    info: ScorerInfo,
    settings: MonitorSettings,
    choice: _Choice,
    on_score: Callable[[CurvePoint], None] | None,
) -> Episode[Curve]:
    video = recording.open()
    selection = _selection(recording.name, video, settings, choice)
    interval_ns = round(NS_PER_S / video.info.rate)
    curve = yield from _episode(
        recording.name, video, interval_ns, instruction, info, settings, selection, on_score, recording.log
    )
    return replace(curve, prefix_schedule=choice.schedule if choice.prefixes else None)


def _selection(name: str, video: Video, settings: MonitorSettings, choice: _Choice) -> _Selection:
    """The frames and prefixes that ``choice`` means for a video, which is read through for it."""
    if not choice.prefixes:
        return _Selection()
    if choice.schedule is PrefixSchedule.MONITOR:
        due = len(_due_times(video, settings.sample_rate, None))
        return _Selection({round(end): () for end in np.linspace(due, 1, choice.prefixes)})
    with closing(iter(video)) as frames:
        stamps = [stamp_ns for stamp_ns, _ in frames]
    paper = PaperPrefixes.of(stamps, video.info.rate, settings.sample_rate, choice.prefixes)
    longest = len(paper.stamps_ns)
    if longest > settings.max_frames:
        _log.warning(
            "%s: its longest prefix has %d frames and max_frames is %d, so long prefixes are thinned, which "
            "the authors' code never does: set max_frames to %d",
            name,
            longest,
            settings.max_frames,
            longest + longest % 2,
        )
    return _Selection(paper.lengths, paper.stamps_ns)


def _episode(
    name: str,
    video: Video,
    interval_ns: int,
    instruction: str,
    info: ScorerInfo,
    settings: MonitorSettings,
    selection: _Selection,
    on_score: Callable[[CurvePoint], None] | None,
    log: DetectorLog | None,
) -> Episode[Curve]:
    """Run one episode of a video. ``interval_ns`` lies between most of its frames.

    A frame that cannot be read is left out, and the next one takes its slot, as live.
    """
    watched = settings if selection.stamps_ns is None else replace(settings, sample_rate=_ALL_DUE)
    if selection.scored is not None:  # nothing is confirmed where only some prefixes are scored
        watched = replace(watched, success=replace(watched.success, confirm_rate=0.0))
    monitor = TaskMonitor(
        watched,
        lambda: Path(name).stem,
        interval_ns,
        judge_scene=selection.scored is None,
        new_detector=log.new_detector if log else SuccessDetector,
    )
    monitor.set_task(instruction)
    points: list[CurvePoint] = []
    events: list[CurveEvent] = []
    ended_early = False
    state = monitor.report.state
    last_ns = 0
    count = 0
    uncalibrated: dict[int, str] = {}
    slots = None if selection.stamps_ns is None else sorted(selection.stamps_ns)
    with closing(_observed(video, selection.stamps_ns, monitor)) as observed:
        for number, stamp_ns, image, outputs in observed:
            if _has_ended(events):
                ended_early = True
                break
            last_ns = stamp_ns
            request = None
            if image is not None:
                request, more = monitor.add_frame(Frame(stamp_ns, image, widths=video.info.widths))
                outputs += more
            outputs, ended_early = _of_one_episode(outputs)  # by this frame, which belongs to the next one
            if ended_early:
                request = None
            if request is not None and request.extra:
                events += _events(outputs)
                score = yield request
                assert score is not None
                if log:
                    log.extra = True
                outputs, request = monitor.add_score(request, score), None
                if log:
                    log.extra = False
            if why := monitor.uncalibrated:
                uncalibrated[monitor.report.stage] = why
            count = count + (request is not None) if slots is None else bisect_left(slots, number)
            events += _events(outputs)
            state = _newest_state(outputs, state)
            if request is None or not (selection.scored is None or count in selection.scored):
                continue
            score = yield request
            assert score is not None
            for video_frames in (selection.scored or {}).get(count) or (number,):
                if _has_ended(events):
                    break
                threshold = monitor.settings_in_force.success.threshold  # before a stage is over
                outputs = monitor.add_score(request, score)
                events += _events(outputs)
                state = _newest_state(outputs, state)
                points.append(_point(outputs, video_frames, threshold))
                if on_score is not None:
                    on_score(points[-1])
    return Curve(
        video=name,
        duration_s=last_ns / NS_PER_S,
        instruction=instruction,
        model=info,
        settings=settings,
        state=state,
        points=tuple(points),
        events=tuple(events),
        ended_early=ended_early,
        ignored=monitor.ignored,
        damaged=tuple(video.damaged),
        uncalibrated=uncalibrated,
    )


def due_times(path: str | Path, sample_rate: float, rate: float = 0.0) -> list[float]:
    """Times [s] of the frames of a video that are taken at ``sample_rate`` [Hz]. Raises `VideoError`."""
    return _due_times(open_video(path, rate), sample_rate, SceneJudge())


def _due_times(video: Video, sample_rate: float, scene: SceneJudge | None) -> list[float]:
    """``scene``: which frames are not used because they show nothing; None: all are."""
    judge = StampJudge(round(NS_PER_S / video.info.rate))
    schedule = FrameSchedule(sample_rate)
    times = []

    def take_if_due(stamp_ns: int, read: Callable[[], np.ndarray]) -> None:
        if not schedule.observe(stamp_ns) or (image := _image(read)) is None:
            return
        if scene is None or scene.judge(stamp_ns, image, video.info.widths).used:
            schedule.take()
            times.append(stamp_ns / NS_PER_S)

    read = None
    with closing(iter(video)) as frames:
        for stamp_ns, read in frames:
            if judge.judge(stamp_ns).usable:
                take_if_due(stamp_ns, read)
    if (last_ns := judge.settle()) is not None and read is not None:
        take_if_due(last_ns, read)
    return times


def _image(read: Callable[[], np.ndarray]) -> np.ndarray | None:
    """What ``read`` reads, or None where that cannot be read: `Video.damaged` tells of it."""
    try:
        return read()
    except FrameError:
        return None


def _observed(
    video: Video, stamps_ns: Mapping[int, int] | None, monitor: TaskMonitor
) -> Generator[tuple[int, int, np.ndarray | None, list[Output]], None, None]:
    """Yield the number of each frame, from 1, its stamp, its image where it is due and can be read, and what
    observing it put out.

    ``stamps_ns``: of the frames to take, by index, where it is not the monitor that chooses; the next frame
    stands in for one that cannot be read. A last frame that came after a pause is yielded a second time, as
    due, once it is known to be the last.
    """
    last: tuple[int, int, np.ndarray | None] | None = None
    owed_ns: int | None = None  # the stamp of a frame that is to be taken
    with closing(iter(video)) as frames:
        for number, (stamp_ns, read) in enumerate(frames, start=1):
            image: np.ndarray | None = None
            outputs: list[Output] = []
            if stamps_ns is not None:
                owed_ns = stamps_ns.get(number - 1, owed_ns)
                if owed_ns is not None and (image := _image(read)) is not None:
                    stamp_ns, owed_ns = owed_ns, None
                    due, outputs = monitor.observe(stamp_ns, trusted=True)
                    image = image if due else None
            else:
                due, outputs = monitor.observe(stamp_ns)
                image = _image(read) if due else None
                last = (number, stamp_ns, _image(read)) if monitor.unsettled else None
            yield number, stamp_ns, image, outputs
    if last is not None:
        number, stamp_ns, image = last
        due, outputs = monitor.finish()
        yield number, stamp_ns, image if due else None, outputs


def _of_one_episode(outputs: list[Output]) -> tuple[list[Output], bool]:
    """``outputs`` of an image up to the end of an episode, and whether another one begins behind it."""
    for k, output in enumerate(outputs):
        if isinstance(output, Event) and output.type is EventType.EPISODE_ENDED:
            return outputs[: k + 1], k + 1 < len(outputs)
    return outputs, False


def _has_ended(events: list[CurveEvent]) -> bool:
    """Whether the last episode has: behind the success of a stage comes that of the next."""
    return bool(events) and events[-1].type == "EPISODE_ENDED" and events[-2].type != "SUBTASK_SUCCESS"


def _newest_state(outputs: list[Output], state: State) -> State:
    """The state that ``outputs`` report last; ``state`` where they report none."""
    return [state, *(output.state for output in outputs if isinstance(output, ProgressReport))][-1]


def _point(outputs: list[Any], video_frames: int, threshold: float) -> CurvePoint:
    """What `add_score` reported on its prefix: the first report, and the reward that goes with it."""
    report = next(output for output in outputs if isinstance(output, ProgressReport))
    reward = next(output for output in outputs if isinstance(output, Reward))
    time_s = report.stamp.ns / NS_PER_S
    return CurvePoint(
        time_s,
        report.score,
        report.progress,
        reward.reward,
        video_frames,
        report.stage,
        report.stage_progress,
        threshold,
    )


def _events(outputs: Iterable[Any]) -> list[CurveEvent]:
    return [
        CurveEvent(event.stamp.ns / NS_PER_S, event.type.name, event.threshold, event.message, event.stage)
        for event in outputs
        if isinstance(event, Event)
    ]


def _score_value(score: PrefixScore) -> dict[str, Any]:
    """The fields of a score, without those of each prompt alone; `note` only where there is one."""
    left_out = () if score.note else ("note", "log_prob_bound")
    values = asdict(score)
    return {name: values[name] for name in values if not name.endswith("by_prompt") and name not in left_out}


def _to_text(content: dict[str, Any]) -> str:
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    return "".join(f"{line if line.isprintable() else _escaped(line)}\n" for line in text.split("\n"))


def _escaped(line: str) -> str:
    """A line of JSON with JSON's own escapes for what cannot be printed: the same value when it is read.

    It may go to a terminal; and a file's name may hold bytes that are no UTF-8, which a file cannot take.
    """
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in line)
