"""The fields of our messages, without ROS types: what core puts out, as a monitor says it.

A field is a number, a text, a list, or the fields of a message in a dict. In a node rclpy's messages are made
of them (nodes/conversions.py), where a bag is written those of rosbags (task_types.py). Nothing is decided
here.
"""

from __future__ import annotations

from typing import Any

from topreward_ros.core.frames import NS_PER_S, Stamp
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.core.outputs import Event, ProgressReport, Reward
from topreward_ros.core.printable import printable
from topreward_ros.scoring.base import RANDOM_WEIGHTS, ScorerInfo
from topreward_ros.scoring.checkpoint.vocabulary import UNKNOWN_INSTRUCTION, is_known

Fields = dict[str, Any]

UNKNOWN_LATENCY_NS = -NS_PER_S  #: in messages, which have no NaN for it


def time_fields(time_ns: int) -> Fields:
    """A time or duration [ns]: seconds in 32 bits and nanoseconds; one that does not fit is the first or last
    that does (2038)."""
    seconds, rest_ns = divmod(min(max(time_ns, -(2**31) * NS_PER_S), 2**31 * NS_PER_S - 1), NS_PER_S)
    return {"sec": seconds, "nanosec": rest_ns}


def _header(stamp: Stamp) -> Fields:
    return {"stamp": time_fields(stamp.ns), "frame_id": stamp.frame_id}


def progress_fields(report: ProgressReport, info: ScorerInfo, now_ns: int) -> Fields:
    """A report as TaskProgress, published at ``now_ns`` of the clock that the stamps belong to.

    ``now_ns``: 0 while that clock does not run.
    """
    score = report.score
    notes = [RANDOM_WEIGHTS] if info.random_weights else []
    notes += [] if is_known(report.instruction, info) else [UNKNOWN_INSTRUCTION]
    return dict(
        header=_header(report.stamp),
        episode_id=report.episode_id,
        instruction=report.instruction,
        state=int(report.state),
        progress=report.progress,
        log_prob=score.log_prob,
        log_prob_std=score.log_prob_std,
        log_prob_false=score.log_prob_false,
        log_prob_static=score.log_prob_static,
        answer_share=score.answer_share,
        success_probability=score.success_probability,
        num_frames=report.num_frames,
        elapsed=time_fields(report.elapsed_ns),
        latency=time_fields(_latency_ns(report.stamp.ns, now_ns)),
        calibrated=report.calibrated,
        message=printable("; ".join([*notes, *filter(None, [report.message])])),
        task=report.task,
        stage=report.stage,
        stages=report.stages,
        stage_progress=report.stage_progress,
    )


def _latency_ns(stamp_ns: int, now_ns: int) -> int:
    if not stamp_ns:
        return 0
    return max(now_ns - stamp_ns, UNKNOWN_LATENCY_NS) if now_ns else UNKNOWN_LATENCY_NS


def reward_fields(reward: Reward) -> Fields:
    """A reward as TaskReward."""
    return dict(
        header=_header(reward.stamp),
        episode_id=reward.episode_id,
        step=reward.step,
        type=int(reward.type),
        reward=reward.reward,
        episode_return=reward.episode_return,
        terminated=reward.terminated,
        truncated=reward.truncated,
    )


def event_fields(event: Event, info: ScorerInfo) -> Fields:
    """An event as TaskEvent."""
    return dict(
        header=_header(event.stamp),
        sequence=event.sequence,
        episode_id=event.episode_id,
        instruction=event.instruction,
        type=int(event.type),
        progress=event.progress,
        log_prob=event.log_prob,
        threshold=event.threshold,
        calibrated=event.calibrated,
        message=printable(event.message) + (f" ({RANDOM_WEIGHTS})" if info.random_weights else ""),
        stage=event.stage,
        stages=event.stages,
    )


def info_fields(
    info: ScorerInfo,
    settings: MonitorSettings,
    camera_names: list[str],
    camera_layout: str,
    now_ns: int,
    *,
    calibrated: bool = False,
) -> Fields:
    """Model and settings in force, which produce the numbers, as MonitorInfo. ``calibrated``: see
    `TaskMonitor.calibrated`."""
    return dict(
        header={"stamp": time_fields(now_ns), "frame_id": ""},
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
        front_padding=info.front_padding,
        fixed_length=info.fixed_length,
        answers=info.answers,
        progress_mode=settings.progress_mode.value,
        success_threshold=settings.success.threshold,
        success_hysteresis=settings.success.hysteresis,
        success_dwell=settings.success.dwell,
        success_min_scores=settings.success.min_scores,
        success_smoothing=settings.success.smoothing,
        confirm_rate=settings.success.confirm_rate,
        stall_after=settings.progress.stall.after,
        stall_rise=settings.progress.stall.rise,
        stall_slope=settings.progress.stall.slope,
        nominal_duration=settings.progress.stall.nominal_duration,
        regression_sigma=settings.progress.regression.sigma,
        regression_dwell=settings.progress.regression.dwell,
        failure_threshold=settings.progress.failure.threshold,
        failure_after=settings.progress.failure.after,
        failure_dwell=settings.progress.failure.dwell,
        frozen_timeout=settings.pictures.frozen_timeout,
        covered_timeout=settings.pictures.covered_timeout,
        episode_timeout=settings.episode_timeout,
        stale_timeout=settings.stale_timeout,
        calibrated=calibrated,
    )
