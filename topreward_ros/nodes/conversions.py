"""Conversions between ROS messages and plain data, in both directions. Nothing is decided here.

What our own messages say is put together in offline/task_messages.py, for bags as well.
"""

from __future__ import annotations

from math import nan
from typing import Any, TypeVar

from builtin_interfaces.msg import Duration, Time
from diagnostic_msgs.msg import DiagnosticArray
from std_msgs.msg import Header

from topreward_ros.action import MonitorTask
from topreward_ros.core.events import EventType
from topreward_ros.core.frames import NS_PER_S
from topreward_ros.core.goal import GoalOutcome
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.core.outputs import Event, ProgressReport, Reward, State
from topreward_ros.core.printable import printable
from topreward_ros.core.retry import RetryPolicy
from topreward_ros.core.retry_words import Heard, Seen
from topreward_ros.msg import (
    MonitorInfo,
    SupervisorDecision,
    SupervisorState,
    TaskEvent,
    TaskProgress,
    TaskReward,
)
from topreward_ros.offline import task_messages
from topreward_ros.offline.task_messages import UNKNOWN_LATENCY_NS, time_fields
from topreward_ros.scoring.base import ScorerInfo
from topreward_ros.views.messages import Description, Happening, Sample

DIAGNOSTICS = "/diagnostics"  #: the topic of all nodes
SCORER = "scorer"  #: the part of a monitor that a status of /diagnostics is of
NO_SCORER = {"scorer": "none"}  #: a value that such a status has where there is none

# Another version may send other numbers: they are shown as they are.
_STATES = frozenset(State)
_EVENT_TYPES = frozenset(EventType)

_Message = TypeVar("_Message")


def time_message(time_ns: int) -> Time:
    """A time [ns] as builtin_interfaces/Time; one that does not fit is the first or last that does (2038)."""
    return Time(**time_fields(time_ns))


def duration_message(duration_ns: int) -> Duration:
    """A duration [ns] of either sign as builtin_interfaces/Duration; else the longest that fits."""
    return Duration(**time_fields(duration_ns))


def nanoseconds(message: Time | Duration) -> int:
    """A time or duration message in [ns]."""
    return int(message.sec * NS_PER_S + message.nanosec)


def _message(kind: type[_Message], fields: task_messages.Fields) -> _Message:
    made: dict[str, Any] = dict(fields)
    header = fields["header"]
    made["header"] = Header(stamp=Time(**header["stamp"]), frame_id=header["frame_id"])
    for name in ("elapsed", "latency"):
        if name in fields:
            made[name] = Duration(**fields[name])
    return kind(**made)


def progress_message(report: ProgressReport, info: ScorerInfo, now_ns: int) -> TaskProgress:
    """A report as TaskProgress, see `task_messages.progress_fields`."""
    return _message(TaskProgress, task_messages.progress_fields(report, info, now_ns))


def reward_message(reward: Reward) -> TaskReward:
    """A reward as TaskReward."""
    return _message(TaskReward, task_messages.reward_fields(reward))


def event_message(event: Event, info: ScorerInfo) -> TaskEvent:
    """An event as TaskEvent."""
    return _message(TaskEvent, task_messages.event_fields(event, info))


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
    info: ScorerInfo,
    settings: MonitorSettings,
    camera_names: list[str],
    camera_layout: str,
    now_ns: int,
    *,
    calibrated: bool = False,
) -> MonitorInfo:
    """Model and settings, which produce the numbers, as MonitorInfo; see `task_messages.info_fields`."""
    fields = task_messages.info_fields(
        info, settings, camera_names, camera_layout, now_ns, calibrated=calibrated
    )
    return _message(MonitorInfo, fields)


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
        success_probability=message.success_probability,
        num_frames=message.num_frames,
        elapsed_s=nanoseconds(message.elapsed) / NS_PER_S,
        latency_s=latency_ns / NS_PER_S if latency_ns > UNKNOWN_LATENCY_NS else nan,
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
        answers=message.answers,
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


def waits_for(array: DiagnosticArray, monitor: str) -> str | None:
    """Why the node ``monitor`` has no scorer, as it says on /diagnostics; empty: it has one; None: that is
    of another node."""
    for status in array.status:
        if status.name == f"{monitor}: {SCORER}":
            has_none = any({it.key: it.value} == NO_SCORER for it in status.values)
            return printable(status.message) if has_none else ""
    return None
