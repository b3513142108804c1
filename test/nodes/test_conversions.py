"""What the core returns survives the way into a message and out of it again."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

pytest.importorskip("rclpy")

from test.scorers import scorer_info
from topreward_ros.core.events import EventType
from topreward_ros.core.frames import NS_PER_S, Stamp
from topreward_ros.core.outputs import Event, ProgressReport, Reward, State
from topreward_ros.core.progress import PrefixScore
from topreward_ros.core.rewards import RewardType
from topreward_ros.nodes import conversions
from topreward_ros.scoring.base import RANDOM_WEIGHTS
from topreward_ros.views.messages import Happening, Sample

STAMP = Stamp(1_700_000_000 * NS_PER_S + 123_456_789, "wrist")
INFO = scorer_info("m", revision="r", prompt_hash="h", max_pixels=1024)
RANDOM_INFO = replace(INFO, random_weights=True)
REPORT = ProgressReport(
    state=State.RUNNING,
    instruction="open the drawer",
    episode_id="take-7",
    stamp=STAMP,
    progress=0.25,  # and below: numbers that float32 holds exactly
    task="open the drawer\nclose it",
    stage=1,
    stages=2,
    stage_progress=0.5,
    score=PrefixScore(
        log_prob=-1.5,
        log_prob_false=-0.25,
        log_prob_static=-2.0,
        num_frames=5,
        answer_share=0.75,
        success_probability=0.5,
    ),
    elapsed_ns=2 * NS_PER_S + 1,
    news="because",
    standing="and still",
)


def test_a_report_becomes_a_message_and_a_sample() -> None:
    message = conversions.progress_message(REPORT, INFO, now_ns=STAMP.ns + NS_PER_S // 4)
    assert conversions.nanoseconds(message.header.stamp) == STAMP.ns
    assert message.header.frame_id == "wrist"
    assert conversions.sample(message) == Sample(
        episode_id="take-7",
        instruction="open the drawer",
        state=State.RUNNING,
        stamp_ns=STAMP.ns,
        progress=0.25,
        log_prob=-1.5,
        log_prob_false=-0.25,
        log_prob_static=-2.0,
        num_frames=5,
        elapsed_s=2.000000001,
        latency_s=0.25,
        message="because; and still",
        stage=1,
        stages=2,
        success_probability=0.5,
    )
    assert message.answer_share == 0.75
    assert (message.task, message.stage_progress) == (REPORT.task, 0.5)
    assert (
        conversions.progress_message(REPORT, RANDOM_INFO, 0).message
        == f"{RANDOM_WEIGHTS}; because; and still"
    )


def test_a_report_without_a_score_has_no_latency() -> None:
    message = conversions.progress_message(ProgressReport(state=State.IDLE), INFO, now_ns=STAMP.ns)
    assert conversions.nanoseconds(message.latency) == conversions.nanoseconds(message.header.stamp) == 0


def test_an_event_becomes_a_message_and_a_happening() -> None:
    event = Event(
        type=EventType.TIMEOUT,
        sequence=3,
        episode_id="take-7",
        instruction="open the drawer",
        stamp=STAMP,
        progress=0.5,
        log_prob=-1.0,
        threshold=2.0,
        message="too long",
    )
    message = conversions.event_message(event, INFO)
    assert (message.sequence, message.threshold, message.header.frame_id) == (3, 2.0, "wrist")
    assert conversions.happening(message) == Happening("take-7", STAMP.ns, "TIMEOUT", "too long")


def test_a_reward_keeps_its_numbers() -> None:
    reward = Reward(
        episode_id="take-7",
        stamp=STAMP,
        step=4,
        type=RewardType.LOG_PROB,
        reward=-1.0,
        episode_return=-7.0,
        truncated=True,
    )
    message = conversions.reward_message(reward)
    assert (message.step, message.type, message.reward, message.episode_return) == (4, 0, -1.0, -7.0)
    assert message.truncated and not message.terminated
    assert conversions.nanoseconds(message.header.stamp) == STAMP.ns


@pytest.mark.parametrize("duration_ns", [0, 1, -1, NS_PER_S, -NS_PER_S - 1, 5 * NS_PER_S + 999_999_999])
def test_durations_of_either_sign_are_kept(duration_ns: int) -> None:
    assert conversions.nanoseconds(conversions.duration_message(duration_ns)) == duration_ns


@pytest.mark.parametrize("convert", [conversions.duration_message, conversions.time_message])
def test_what_does_not_fit_becomes_the_last_that_does_and_never_wraps(convert) -> None:
    last = 2**31 * NS_PER_S - 1
    for value in (last, last + 1, 2**31 * NS_PER_S + 5, 10**30):
        assert conversions.nanoseconds(convert(value)) == last
    for value in (-(2**31) * NS_PER_S, -(2**31) * NS_PER_S - 1, -(10**30)):
        assert conversions.nanoseconds(convert(value)) == -(2**31) * NS_PER_S


@pytest.mark.parametrize("now_ns", [0, STAMP.ns - 2 * NS_PER_S, STAMP.ns - 86_400 * NS_PER_S])
def test_a_latency_that_cannot_be_told_is_minus_one_second_and_nan(now_ns: int) -> None:
    message = conversions.progress_message(REPORT, INFO, now_ns)
    assert (message.latency.sec, message.latency.nanosec) == (-1, 0)
    assert math.isnan(conversions.sample(message).latency_s)
    slightly = conversions.progress_message(REPORT, INFO, STAMP.ns - 1000)
    assert conversions.sample(slightly).latency_s == -1e-6, "clocks of two computers"
