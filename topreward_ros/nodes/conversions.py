"""Conversions between ROS messages and plain data, in both directions. Nothing is decided here."""

from __future__ import annotations

from math import nan

from builtin_interfaces.msg import Duration, Time
from std_msgs.msg import Header

from topreward_ros.action import MonitorTask
from topreward_ros.core.episode import Event, MonitorSettings, ProgressReport, Reward, State
from topreward_ros.core.events import EventType
from topreward_ros.core.frames import NS_PER_S, Stamp
from topreward_ros.core.goal import GoalOutcome
from topreward_ros.core.printable import printable
from topreward_ros.core.retry import Heard, RetryPolicy, Seen
from topreward_ros.msg import (
    MonitorInfo,
    SupervisorDecision,
    SupervisorState,
    TaskEvent,
    TaskProgress,
    TaskReward,
)
from topreward_ros.scoring.base import RANDOM_WEIGHTS, ScorerInfo
from topreward_ros.scoring.checkpoint.vocabulary import UNKNOWN_INSTRUCTION, is_known
from topreward_ros.views.messages import Description, Happening, Sample

# Another version may send other numbers: they are shown as they are.
_STATES = frozenset(State)
_EVENT_TYPES = frozenset(EventType)

_UNKNOWN_LATENCY_NS = -NS_PER_S  # in messages, which have no NaN for it


def time_message(time_ns: int) -> Time:
    """A time [ns] as builtin_interfaces/Time; one that does not fit is the first or last that does (2038)."""
    return Time(**_parts(time_ns))


def duration_message(duration_ns: int) -> Duration:
    """A duration [ns] of either sign as builtin_interfaces/Duration; else the longest that fits."""
    return Duration(**_parts(duration_ns))


def _parts(value_ns: int) -> dict[str, int]:
    """Seconds in 32 bits and nanoseconds; in order, also where they do not fit."""
    seconds, rest_ns = divmod(min(max(value_ns, -(2**31) * NS_PER_S), 2**31 * NS_PER_S - 1), NS_PER_S)
    return {"sec": seconds, "nanosec": rest_ns}


def nanoseconds(message: Time | Duration) -> int:
    """A time or duration message in [ns]."""
    return int(message.sec * NS_PER_S + message.nanosec)


def _header(stamp: Stamp) -> Header:
    return Header(stamp=time_message(stamp.ns), frame_id=stamp.frame_id)


def progress_message(report: ProgressReport, info: ScorerInfo, now_ns: int) -> TaskProgress:
    """A report as TaskProgress, published at ``now_ns`` of the clock that the stamps belong to.

    ``now_ns``: 0 while that clock does not run.
    """
    score = report.score
    notes = [RANDOM_WEIGHTS] if info.random_weights else []
    notes += [] if is_known(report.instruction, info) else [UNKNOWN_INSTRUCTION]
    return TaskProgress(
        header=_header(report.stamp),
        episode_id=report.episode_id,
        instruction=report.instruction,
        state=int(report.state),
        progress=report.progress,
        log_prob=score.log_prob,
        log_prob_std=score.log_prob_std,
        log_prob_false=score.log_prob_false,
        log_prob_static=score.log_prob_static,
        num_frames=report.num_frames,
        elapsed=duration_message(report.elapsed_ns),
        latency=duration_message(_latency_ns(report.stamp.ns, now_ns)),
        calibrated=False,
        message=printable("; ".join([*notes, *filter(None, [report.message])])),
        task=report.task,
        stage=report.stage,
        stages=report.stages,
        stage_progress=report.stage_progress,
    )


def _latency_ns(stamp_ns: int, now_ns: int) -> int:
    if not stamp_ns:
        return 0
    return max(now_ns - stamp_ns, _UNKNOWN_LATENCY_NS) if now_ns else _UNKNOWN_LATENCY_NS


def reward_message(reward: Reward) -> TaskReward:
    """A reward as TaskReward."""
    return TaskReward(
        header=_header(reward.stamp),
        episode_id=reward.episode_id,
        step=reward.step,
        type=int(reward.type),
        reward=reward.reward,
        episode_return=reward.episode_return,
        terminated=reward.terminated,
        truncated=reward.truncated,
    )


def event_message(event: Event, info: ScorerInfo) -> TaskEvent:
    """An event as TaskEvent."""
    return TaskEvent(
        header=_header(event.stamp),
        sequence=event.sequence,
        episode_id=event.episode_id,
        instruction=event.instruction,
        type=int(event.type),
        progress=event.progress,
        log_prob=event.log_prob,
        threshold=event.threshold,
        calibrated=False,
        message=printable(event.message) + (f" ({RANDOM_WEIGHTS})" if info.random_weights else ""),
        stage=event.stage,
        stages=event.stages,
    )


def goal_result(outcome: GoalOutcome) -> MonitorTask.Result:
    """What became of a goal, as the result of MonitorTask."""
    return MonitorTask.Result(
        error_code=int(outcome.code),
        error_msg=printable(outcome.message),
        episode_id=outcome.episode_id,
        progress=outcome.progress,
        elapsed=duration_message(outcome.elapsed_ns),
        stage=outcome.stage,
        stages=outcome.stages,
    )


def info_message(
    info: ScorerInfo, settings: MonitorSettings, camera_names: list[str], camera_layout: str, now_ns: int
) -> MonitorInfo:
    """Model and settings, which produce the numbers, as MonitorInfo."""
    return MonitorInfo(
        header=Header(stamp=time_message(now_ns)),
        model_id=printable(info.model_id),
        model_revision=printable(info.revision),
        random_weights=info.random_weights,
        device=info.device,
        dtype=info.dtype,
        prompt_hash=info.prompt_hash,
        camera_names=camera_names,
        camera_layout=camera_layout,
        max_pixels=info.max_pixels,
        sample_rate=settings.sample_rate,
        max_frames=settings.max_frames,
        progress_mode=settings.progress_mode.value,
        success_threshold=settings.success.threshold,
        success_hysteresis=settings.success.hysteresis,
        success_dwell=settings.success.dwell,
        success_min_scores=settings.success.min_scores,
        success_smoothing=settings.success.smoothing,
        episode_timeout=settings.episode_timeout,
        stale_timeout=settings.stale_timeout,
        calibrated=False,
    )


def sample(message: TaskProgress) -> Sample:
    """What a TaskProgress says."""
    latency_ns = nanoseconds(message.latency)
    return Sample(
        episode_id=message.episode_id,
        instruction=message.instruction,
        state=State(message.state) if message.state in _STATES else message.state,
        stamp_ns=nanoseconds(message.header.stamp),
        progress=message.progress,
        log_prob=message.log_prob,
        log_prob_false=message.log_prob_false,
        log_prob_static=message.log_prob_static,
        num_frames=message.num_frames,
        elapsed_s=nanoseconds(message.elapsed) / NS_PER_S,
        latency_s=latency_ns / NS_PER_S if latency_ns > _UNKNOWN_LATENCY_NS else nan,
        message=message.message,
        stage=message.stage,
        stages=message.stages,
    )


def happening(message: TaskEvent) -> Happening:
    """What a TaskEvent says."""
    return Happening(
        episode_id=message.episode_id,
        stamp_ns=nanoseconds(message.header.stamp),
        type=EventType(message.type).name if message.type in _EVENT_TYPES else f"event {message.type}",
        message=message.message,
    )


def description(message: MonitorInfo) -> Description:
    """What a MonitorInfo says of the numbers' origin."""
    return Description(
        model_id=message.model_id,
        device=message.device,
        dtype=message.dtype,
        random_weights=message.random_weights,
        camera_names=tuple(message.camera_names),
    )


def heard(message: TaskEvent, age_ns: int, published_ns: int) -> Heard | None:
    """What a TaskEvent tells a supervisor; None where its type is not known here.

    ``age_ns``: since its publication, at ``published_ns`` by the publisher's clock (0: not known).
    """
    if message.type not in _EVENT_TYPES:
        return None
    return Heard(
        sequence=message.sequence,
        episode_id=message.episode_id,
        type=EventType(message.type),
        calibrated=message.calibrated,
        message=message.message,
        instruction=message.instruction,
        stage=message.stage,
        age_s=age_ns / NS_PER_S,
        published_ns=published_ns,
    )


def seen(message: TaskProgress, age_ns: int, published_ns: int) -> Seen:
    """What a TaskProgress tells a supervisor; a state not known here is UNKNOWN. Times as in `heard`."""
    return Seen(
        episode_id=message.episode_id,
        state=State(message.state) if message.state in _STATES else State.UNKNOWN,
        instruction=message.instruction,
        stage=message.stage,
        age_s=age_ns / NS_PER_S,
        published_ns=published_ns,
    )


def supervisor_message(policy: RetryPolicy, now_ns: int) -> SupervisorState:
    """What a supervisor is doing, and what it decided, as SupervisorState."""
    return SupervisorState(
        header=Header(stamp=time_message(now_ns)),
        state=int(policy.phase),
        dry_run=policy.settings.dry_run,
        episode_id=policy.episode_id,
        instruction=policy.instruction,
        task_index=policy.task_index,
        episodes=policy.episodes,
        retries=sum(policy.retries.values()),
        message=printable(policy.message),
        problem=printable(policy.problem),
        history=[
            SupervisorDecision(
                header=Header(stamp=time_message(decision.stamp_ns)),
                episode_id=decision.episode_id,
                instruction=decision.instruction,
                reason=decision.reason,
                action=decision.action,
                detail=decision.detail,
                outcome=printable(decision.outcome),
            )
            for decision in policy.history
        ],
    )
