"""The state machine: what is published, in which order, whatever happens to it."""

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from math import inf, isnan, log, nan
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topreward_ros.core.detectors.of_pictures import PictureSettings
from topreward_ros.core.episode import IgnoredImages, TaskMonitor
from topreward_ros.core.events import EventType, SuccessSettings
from topreward_ros.core.frames import NO_STAMP, NS_PER_S, Frame, Window
from topreward_ros.core.outputs import Event, Output, ProgressReport, Reward, State
from topreward_ros.core.progress import PrefixScore, ProgressMode
from topreward_ros.core.rewards import RewardSettings, RewardType
from topreward_ros.core.score_request import ScoreRequest

from .monitors import SETTINGS
from .scenes import flat, noise, scene

#: Where the same drawing is shown again and again.
AS_DRAWN = PictureSettings(frozen_timeout=0.0, covered_timeout=2.0)
PIXEL = np.zeros((1, 1, 3), np.uint8)


_CALM = [33.4, 33.4, 33.4, 33.3, 33.4, 133.65, -100.31, 155.5, -122.2, 33.4, 100.0]
_BUSY = [33.4, 66.7, 33.7, -67.0, 100.1, 53.5, 49.9, 38.3, 0.8, 24.2, 33.3]
#: Intervals [ms] of a healthy 30 Hz camera whose driver reorders under load.
REORDERED = [*_CALM, *_BUSY]


def score_of(request: ScoreRequest, log_prob: float, static: float = -8.0) -> PrefixScore:
    return PrefixScore(log_prob, -1.0, static, num_frames=len(request.prefix))


class Rig:
    """Drives a TaskMonitor as a node does, with every output collected."""

    def __init__(self, **changes: Any) -> None:
        numbers = count(1)
        self.monitor = TaskMonitor(replace(SETTINGS, **changes), lambda: f"episode-{next(numbers)}")
        self.outputs: list[Output] = []

    def take(self, outputs: list[Output]) -> list[Output]:
        self.outputs += outputs
        return outputs

    def image(
        self,
        stamp_s: float,
        log_prob: float | None = None,
        static: float = -8.0,
        picture: np.ndarray = PIXEL,
    ) -> ScoreRequest | None:
        stamp_ns = round(stamp_s * NS_PER_S)
        due, outputs = self.monitor.observe(stamp_ns, stamp_ns)
        self.take(outputs)
        if not due:
            return None
        request, outputs = self.monitor.add_frame(Frame(stamp_ns, picture, "camera"))
        self.take(outputs)
        if request is not None and log_prob is not None:
            self.take(self.monitor.add_score(request, score_of(request, log_prob, static)))
        return request

    def images(self, log_probs: Sequence[float], start_s: float = 100.0) -> None:
        for k, log_prob in enumerate(log_probs):
            self.image(start_s + k / 2, log_prob)

    @property
    def events(self) -> list[Event]:
        return [o for o in self.outputs if isinstance(o, Event)]

    @property
    def event_types(self) -> list[EventType]:
        return [event.type for event in self.events]

    @property
    def rewards(self) -> list[Reward]:
        return [o for o in self.outputs if isinstance(o, Reward)]

    @property
    def scored(self) -> list[ProgressReport]:
        return [o for o in self.outputs if isinstance(o, ProgressReport) and o.num_frames]


def watching(**changes: Any) -> Rig:
    rig = Rig(**changes)
    rig.take(rig.monitor.set_task("open the drawer"))
    return rig


def test_idle_without_an_instruction() -> None:
    rig = Rig()
    rig.images([-1.0] * 3)
    assert rig.outputs == [] and rig.monitor.report.state is State.IDLE
    rig.take(rig.monitor.set_task("   "))
    assert rig.monitor.report.state is State.IDLE


def test_a_success_from_start_to_end() -> None:
    rig = watching()
    assert rig.monitor.report.state is State.WAITING_FOR_IMAGES
    rig.images([-8.0, -4.0, -0.1, -0.1, -0.1, -0.1, -0.1])
    assert rig.event_types == [EventType.EPISODE_STARTED, EventType.SUCCESS, EventType.EPISODE_ENDED]
    assert rig.monitor.report.state is State.SUCCEEDED
    success = rig.events[1]
    assert success.threshold == -0.22 and success.stamp.ns == round(102.0 * NS_PER_S)
    assert success.progress == pytest.approx(1 - 0.1 / 8) and success.log_prob == -0.1
    # nothing is scored after the end
    assert [report.num_frames for report in rig.scored] == [1, 2, 3, 4, 5]
    assert [r.terminated for r in rig.rewards] == [False] * 4 + [True]
    assert not any(r.truncated for r in rig.rewards)
    assert [r.step for r in rig.rewards] == list(range(5))


def test_a_model_that_states_progress_and_success_itself_decides_as_any_other() -> None:
    rig = watching()
    for k, success in enumerate([0.01, 0.05, 0.9, 0.9, 0.9, 0.9]):
        if (request := rig.image(100 + k / 2)) is None:
            break
        score = PrefixScore(nan, nan, stated_progress=k / 10, success_probability=success, num_frames=k + 1)
        rig.take(rig.monitor.add_score(request, score))
    assert rig.event_types == [EventType.EPISODE_STARTED, EventType.SUCCESS, EventType.EPISODE_ENDED]
    assert [report.progress for report in rig.scored] == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert rig.events[1].log_prob == pytest.approx(log(0.9)) and isnan(rig.scored[-1].score.log_prob)
    assert [reward.reward for reward in rig.rewards] == pytest.approx([0.0, 0.1, 0.1, 0.1, 0.1])


def test_elapsed_is_the_age_of_the_episode_though_a_sliding_window_lost_its_start() -> None:
    rig = watching(window=Window.SLIDING, max_frames=4)
    requests = []
    for k in range(20):
        requests.append(rig.image(100 + k / 2, -4.0))
    assert [report.elapsed_ns for report in rig.scored] == [k * NS_PER_S // 2 for k in range(20)]
    assert requests[-1] is not None
    rig.take(rig.monitor.scorer_failed(requests[-1], "out of memory"))
    assert rig.events[-1].message == "out of memory (9.5 s into the episode, 4 frames)"


def test_a_score_of_fewer_frames_than_there_were_says_so() -> None:
    rig = watching()
    requests = [rig.image(float(second)) for second in range(4)]
    assert requests[-1] is not None
    rig.take(rig.monitor.add_score(requests[-1], PrefixScore(-2.0, -1.0, -8.0, num_frames=2)))
    assert rig.monitor.report.num_frames == 2 and rig.monitor.report.elapsed_ns == 3 * NS_PER_S


def test_stamps_elapsed_and_camera_are_those_of_the_newest_frame() -> None:
    rig = watching()
    rig.images([-8.0, -4.0])
    report = rig.monitor.report
    assert (report.stamp.ns, report.elapsed_ns) == (round(100.5 * NS_PER_S), NS_PER_S // 2)
    assert (report.stamp.frame_id, report.episode_id, report.instruction) == (
        "camera",
        "episode-1",
        "open the drawer",
    )
    assert rig.rewards[-1].stamp == report.stamp and rig.rewards[-1].reward == pytest.approx(0.5)


def test_a_late_score_keeps_its_own_stamp() -> None:
    rig = watching()
    early = rig.image(100.0)
    rig.image(100.5)
    assert early is not None
    rig.take(rig.monitor.add_score(early, score_of(early, -2.0)))
    assert rig.monitor.report.stamp.ns == rig.rewards[-1].stamp.ns == 100 * NS_PER_S


def test_scoring_goes_on_after_success_when_told_to() -> None:
    rig = watching(end_episode_on_success=False)
    rig.images([-8.0] + [-0.1] * 8)
    assert rig.event_types == [EventType.EPISODE_STARTED, EventType.SUCCESS]
    assert len(rig.scored) == 9 and rig.monitor.report.state is State.SUCCEEDED
    assert not any(r.terminated for r in rig.rewards)
    rig.take(rig.monitor.reset())
    assert rig.event_types[-2:] == [EventType.ABORTED, EventType.EPISODE_ENDED]
    ended = [o for o in rig.outputs if isinstance(o, ProgressReport) and o.episode_id == "episode-1"]
    assert ended[-1].state is State.SUCCEEDED  # a success that was fired is not taken back


def test_start_that_looks_finished() -> None:
    rig = watching(progress_mode=ProgressMode.STATIC_BASELINE)
    for k in range(10):
        rig.image(100.0 + k / 2, -0.05, static=-0.05)
    assert all(isnan(report.progress) for report in rig.scored)
    assert all("first frame, held still" in report.message for report in rig.scored)
    assert EventType.SUCCESS not in rig.event_types
    assert rig.rewards[-1].episode_return == 0.0 and isnan(rig.rewards[-1].reward)


def test_timeout_cuts_the_episode() -> None:
    rig = watching(episode_timeout=2.0)
    rig.images([-8.0] * 10)
    assert rig.event_types == [EventType.EPISODE_STARTED, EventType.TIMEOUT, EventType.EPISODE_ENDED]
    assert rig.monitor.report.state is State.FAILED and rig.events[1].threshold == 2.0
    assert [(r.reward, r.truncated) for r in rig.rewards[-2:]] == [(0.0, False), (0.0, True)]
    assert len(rig.rewards) == 5  # four scores, and the cut


def test_stamps_that_go_back_end_the_episode_and_begin_another() -> None:
    rig = watching()
    rig.images([-8.0, -4.0, -2.0])
    rig.images([-9.0, -9.0, -8.0, -6.0], start_s=49.0)  # the third confirms it
    assert rig.event_types == [
        EventType.EPISODE_STARTED,
        EventType.ABORTED,
        EventType.EPISODE_ENDED,
        EventType.EPISODE_STARTED,
    ]
    assert [event.episode_id for event in rig.events] == ["episode-1"] * 3 + ["episode-2"]
    assert "went back by 52.000 s" in rig.events[1].message
    assert rig.monitor.report.episode_id == "episode-2" and rig.monitor.report.elapsed_ns == NS_PER_S // 2
    assert rig.monitor.report.num_frames == 2


@pytest.mark.parametrize("off_s", [4.0, 3600.0, -3600.0, -1.7e9])
def test_a_first_stamp_that_was_wrong_is_forgotten(off_s: float) -> None:
    rig = watching()
    rig.image(1.7e9 + off_s, -8.0)
    stream(rig, [1.7e9 + k / 30 for k in range(1, 90)])
    assert rig.event_types == [EventType.EPISODE_STARTED]
    assert rig.monitor.report.state is State.RUNNING
    assert rig.monitor.report.elapsed_ns < 3 * NS_PER_S
    assert rig.monitor.report.num_frames == 6  # of its own slots
    assert rig.monitor.ignored.out_of_line == 1


@pytest.mark.parametrize("off_s", [3600.0, -3600.0])
def test_an_episode_whose_first_stamp_was_wrong_has_an_end_before_its_next_frame(off_s: float) -> None:
    rig = watching()
    rig.image(7200.0 + off_s, -8.0)
    for k in range(3):  # cannot be decoded
        rig.take(rig.monitor.observe(7200 * NS_PER_S + k, 0)[1])
    rig.take(rig.monitor.reset())
    assert rig.event_types == [EventType.EPISODE_STARTED, EventType.ABORTED, EventType.EPISODE_ENDED]
    assert {event.stamp.ns for event in rig.events} == {round((7200.0 + off_s) * NS_PER_S)}


def test_nothing_is_said_of_a_first_frame_whose_stamp_was_wrong() -> None:
    rig = watching()
    request = rig.image(3700.0)
    assert request is not None
    stream(rig, [100.0 + k / 30 for k in range(1, 4)])
    assert rig.monitor.scorer_failed(request, "out of memory") == []  # else "3599.9 s into the episode"
    assert rig.monitor.add_score(request, score_of(request, -1.0)) == []


def test_a_success_is_said_once_though_the_first_stamp_was_wrong() -> None:
    at_once = SuccessSettings(threshold=-0.22, hysteresis=0.5, dwell=0.0, min_scores=1, smoothing=1)
    rig = watching(success=at_once, end_episode_on_success=False)
    rig.image(3700.0, -0.1)
    assert rig.event_types == [EventType.EPISODE_STARTED, EventType.SUCCESS]
    for k in range(60):
        rig.image(100.0 + k / 10, -0.1)
    assert rig.event_types == [EventType.EPISODE_STARTED, EventType.SUCCESS]
    assert rig.monitor.report.state is State.SUCCEEDED and rig.monitor.report.elapsed_ns < 6 * NS_PER_S


def test_a_bag_played_again_after_its_end_is_not_silent_since_then() -> None:
    rig = watching(stale_timeout=5.0)
    rig.images([-8.0, -0.1, -0.1, -0.1, -0.1])
    assert rig.event_types[-1] is EventType.EPISODE_ENDED
    for k in range(3):  # an hour later; the pictures cannot be decoded at once
        rig.take(rig.monitor.observe(50 * NS_PER_S + k, 3600 * NS_PER_S)[1])
    assert rig.monitor.report.episode_id == "episode-2"
    rig.take(rig.monitor.check_clock(3600 * NS_PER_S))
    assert EventType.STALE_IMAGES not in rig.event_types
    rig.take(rig.monitor.check_clock(3605 * NS_PER_S))
    assert rig.event_types[-1] is EventType.STALE_IMAGES


@pytest.mark.parametrize("mode", ProgressMode)
@pytest.mark.parametrize("log_prob", [nan, inf, -inf, 1000.0])
def test_a_score_that_is_no_number_is_no_progress(mode: ProgressMode, log_prob: float) -> None:
    rig = watching(progress_mode=mode)
    rig.images([-8.0, log_prob])
    assert len(rig.scored) == 2
    assert isnan(rig.scored[-1].progress) or (log_prob == 1000.0 and rig.scored[-1].progress == 1.0)


def test_a_camera_that_pauses_after_its_first_image_keeps_it() -> None:
    rig = watching()
    rig.image(100.0, -8.0)
    stream(rig, [104 + k / 30 for k in range(90)])
    assert rig.event_types == [EventType.EPISODE_STARTED]
    assert rig.monitor.report.elapsed_ns > 6 * NS_PER_S and rig.monitor.ignored.out_of_line == 0


def test_a_bag_played_again_after_success_is_a_new_episode() -> None:
    rig = watching()
    rig.images([-8.0] + [-0.1] * 5)
    assert rig.monitor.report.state is State.SUCCEEDED
    rig.images([-8.0] * 3)
    assert rig.event_types[-1] is EventType.EPISODE_STARTED and rig.events[-1].episode_id == "episode-2"
    assert EventType.ABORTED not in rig.event_types  # the first had ended by itself


def test_a_bag_that_played_on_after_success_may_be_wound_back_a_little() -> None:
    rig = watching()
    rig.images([-8.0] + [-0.1] * 5)
    rig.images([-0.1] * 3, start_s=140.0)  # ignored, but seen
    assert len(rig.events) == 3
    rig.images([-0.1] * 3, start_s=120.0)
    assert rig.event_types[-1] is EventType.EPISODE_STARTED and rig.events[-1].episode_id == "episode-2"


def test_stale_images_after_a_success_that_did_not_end_the_episode() -> None:
    rig = watching(end_episode_on_success=False)
    rig.images([-8.0] + [-0.1] * 5)
    rig.take(rig.monitor.check_clock(200 * NS_PER_S))
    rig.take(rig.monitor.check_clock(210 * NS_PER_S))
    assert rig.event_types[-1] is EventType.STALE_IMAGES
    assert rig.event_types.count(EventType.STALE_IMAGES) == 1
    assert rig.monitor.report.state is State.SUCCEEDED


def test_a_repeated_stamp_is_ignored() -> None:
    rig = watching()
    assert rig.image(100.0) is not None
    assert rig.image(100.0) is None
    assert rig.event_types == [EventType.EPISODE_STARTED]


def test_images_a_little_out_of_order_are_ignored() -> None:
    rig = watching()
    for stamp in (100.0, 100.5, 100.45, 100.55, 101.0, 100.95, 101.5):
        rig.image(stamp, -4.0)
    assert [report.stamp.ns for report in rig.scored] == [
        round(s * NS_PER_S) for s in (100, 100.5, 101, 101.5)
    ]
    assert rig.event_types == [EventType.EPISODE_STARTED]


def test_the_report_says_why_nothing_is_scored_as_long_as_that_is_so() -> None:
    rig = watching()
    report = rig.monitor.report
    assert report.state is State.WAITING_FOR_IMAGES and report.message == "no frame of this episode yet"
    rig.images([-8.0])
    assert rig.monitor.report.message == ""
    rig.take(rig.monitor.check_clock(105 * NS_PER_S, lambda: "the cable is out"))
    assert rig.monitor.report.state is State.STALE
    assert rig.monitor.report.message.startswith("no image that can be used for more than 5 s")
    assert "the cable is out" in rig.monitor.report.message and rig.monitor.report.warning == ""
    rig.image(101.5, -7.0)
    assert rig.monitor.report.state is State.RUNNING and rig.monitor.report.message == ""
    rig.take(rig.monitor.set_enabled(False))
    assert rig.monitor.report.message == "the monitor is disabled"
    rig.take(rig.monitor.set_enabled(True))
    assert rig.monitor.report.message == "no frame of this episode yet"


def test_stale_images_are_said_once_and_end_with_the_next_image() -> None:
    rig = watching()
    rig.images([-8.0])
    now = 100 * NS_PER_S
    assert rig.take(rig.monitor.check_clock(now + 4 * NS_PER_S)) == []
    rig.take(rig.monitor.check_clock(now + 5 * NS_PER_S))
    rig.take(rig.monitor.check_clock(now + 6 * NS_PER_S))
    assert rig.event_types == [EventType.EPISODE_STARTED, EventType.STALE_IMAGES]
    assert rig.monitor.report.state is State.STALE
    rig.image(101.5, -7.0)
    assert rig.monitor.report.state is State.RUNNING and rig.monitor.report.episode_id == "episode-1"


def test_stale_before_the_first_image() -> None:
    rig = watching()
    rig.take(rig.monitor.check_clock(0))
    rig.take(rig.monitor.check_clock(5 * NS_PER_S))
    assert rig.event_types == [EventType.STALE_IMAGES] and rig.events[0].stamp == NO_STAMP
    rig.image(100.0)
    assert rig.monitor.report.state is State.RUNNING


def test_disable_and_enable() -> None:
    rig = watching()
    rig.images([-8.0])
    rig.take(rig.monitor.set_enabled(False))
    assert rig.event_types[-2:] == [EventType.ABORTED, EventType.EPISODE_ENDED]
    assert rig.monitor.report.state is State.IDLE
    assert rig.image(101.0) is None
    rig.take(rig.monitor.set_task("close the drawer"))
    assert rig.monitor.report.state is State.IDLE  # still disabled, but the new task is kept
    rig.take(rig.monitor.set_enabled(True))
    assert rig.monitor.report.instruction == "close the drawer"
    assert rig.image(101.5) is not None
    assert rig.monitor.set_enabled(True) == []


def test_scorer_error_is_an_event_and_the_episode_goes_on() -> None:
    rig = watching()
    rig.image(100.0, -4.0)
    failing = rig.image(100.5)
    rig.image(101.0)  # came while that was tried
    before = rig.monitor.report
    assert failing is not None
    rig.take(rig.monitor.scorer_failed(failing, "out of memory"))
    event = rig.events[-1]
    assert event.type is EventType.SCORER_ERROR
    assert event.stamp.ns == 100_500_000_000, "the tick that failed"
    assert event.message == "out of memory (0.5 s into the episode, 2 frames)"
    assert event.log_prob == -4.0, "of the last score that there is"
    assert rig.monitor.report == replace(before, trouble="no score: out of memory")
    rig.image(101.5, -4.0)
    assert rig.monitor.report.num_frames == 4 and rig.monitor.report.state is State.RUNNING


def test_failures_in_a_row_are_told_ever_more_rarely_and_in_the_report_until_there_is_a_score() -> None:
    rig = watching()
    rig.image(100.0, -4.0)
    told = []
    for k in range(1, 41):
        request = rig.image(100.0 + k / 2)
        assert request is not None
        before = len(rig.events)
        rig.take(rig.monitor.scorer_failed(request, "no server"))
        told += [k] * (len(rig.events) - before)
        assert rig.monitor.report.message == "no score: no server"
    assert told == [1, 2, 3, 4, 8, 16, 32]
    said = rig.events[-1].message
    assert said.startswith("no server (16.0 s into the episode, ") and said.endswith(", 32 times in a row)")
    rig.image(121.0, -4.0)
    assert rig.monitor.report.message == ""
    request = rig.image(121.5)
    assert request is not None
    rig.take(rig.monitor.scorer_failed(request, "no server"))
    assert rig.events[-1].type is EventType.SCORER_ERROR and rig.events[-1].stamp.ns == 121_500_000_000


def test_a_scorer_that_hangs_is_told_once_in_every_episode_and_in_the_report() -> None:
    rig = watching()
    assert rig.monitor.note_hang("none for 10 s") == [], "nothing was to be scored"
    rig.image(100.0, -4.0)
    request = rig.image(100.5)
    assert request is not None
    for _ in range(2):
        rig.take(rig.monitor.note_hang("none for 10 s"))
        assert rig.monitor.report.message == "none for 10 s"
    assert rig.event_types == [EventType.EPISODE_STARTED, EventType.SCORER_ERROR]
    assert rig.events[-1].message.startswith("none for 10 s")
    rig.take(rig.monitor.add_score(request, score_of(request, -4.0)))
    rig.take(rig.monitor.note_hang(""))
    assert rig.monitor.report.message == "" and rig.monitor.report.state is State.RUNNING
    rig.take(rig.monitor.note_hang("none for 10 s"))
    rig.take(rig.monitor.reset())
    rig.image(200.0)
    rig.take(rig.monitor.note_hang("none for 12 s"))
    assert rig.event_types.count(EventType.SCORER_ERROR) == 3
    rig.take(rig.monitor.note_hang(""))
    assert rig.monitor.report.message == ""


def test_what_a_hang_is_not_leaves_the_report_alone() -> None:
    rig = watching()
    rig.image(100.0, -0.1, static=-0.1)
    message = rig.monitor.report.message
    assert rig.monitor.note_hang("") == [] and rig.monitor.report.message == message != ""


def test_an_unreadable_frame_is_replaced_by_the_next() -> None:
    rig = watching()
    stamp = 100 * NS_PER_S
    assert rig.monitor.observe(stamp, stamp)[0]  # due, but never added
    assert rig.image(100.033) is not None


def test_new_thresholds_act_at_once() -> None:
    rig = watching()
    rig.images([-8.0, -2.0, -2.0, -2.0])
    success = replace(SETTINGS.success, threshold=-3.0)
    rig.monitor.settings = replace(SETTINGS, success=success)
    rig.images([-2.0, -2.0, -2.0], start_s=102.0)
    assert EventType.SUCCESS in rig.event_types and rig.events[1].threshold == -3.0


def test_a_new_reward_type_waits_for_the_next_episode() -> None:
    rig = watching()
    rig.images([-8.0])
    rig.monitor.settings = replace(SETTINGS, reward=RewardSettings(RewardType.LOG_PROB, 2.0, 2.0))
    rig.image(100.5, -4.0)
    assert rig.rewards[-1].type is RewardType.PROGRESS_DELTA
    rig.take(rig.monitor.reset())
    rig.images([-8.0], start_s=200.0)
    assert rig.rewards[-1].type is RewardType.LOG_PROB and rig.rewards[-1].reward == -8.0


def test_episode_names_given_by_the_caller_are_kept() -> None:
    rig = Rig()
    rig.take(rig.monitor.set_task("open the drawer", episode_id="take-7"))
    rig.images([-8.0])
    assert rig.events[0].episode_id == "take-7"


OPERATION = st.one_of(
    st.tuples(st.just("image"), st.floats(-1.0, 3.0), st.floats(-10.0, 0.0)),
    st.tuples(st.just("quiet"), st.floats(0.0, 8.0), st.just(0.0)),
    st.tuples(st.just("reset"), st.just(0.0), st.just(0.0)),
    st.tuples(st.just("enable"), st.just(0.0), st.just(0.0)),
    st.tuples(st.just("disable"), st.just(0.0), st.just(0.0)),
    st.tuples(st.just("task"), st.just(0.0), st.just(0.0)),
    st.tuples(st.just("idle"), st.just(0.0), st.just(0.0)),
    st.tuples(st.just("error"), st.just(0.0), st.just(0.0)),
)


@given(operations=st.lists(OPERATION, max_size=60), go_on=st.booleans(), timeout=st.sampled_from([0.0, 4.0]))
def test_whatever_happens_the_record_makes_sense(
    operations: list[tuple[str, float, float]], go_on: bool, timeout: float
) -> None:
    rig = watching(end_episode_on_success=not go_on, episode_timeout=timeout)
    stamp = now = 100.0
    for kind, step, log_prob in operations:
        if kind == "image":
            stamp, now = stamp + step, now + abs(step)
            stamp_ns = round(stamp * NS_PER_S)
            due, outputs = rig.monitor.observe(stamp_ns, round(now * NS_PER_S))
            rig.take(outputs)
            if due:
                request, outputs = rig.monitor.add_frame(Frame(stamp_ns, PIXEL))
                rig.take(outputs)
                if request is not None:
                    rig.take(rig.monitor.add_score(request, score_of(request, log_prob)))
        elif kind == "quiet":
            now += step
            rig.take(rig.monitor.check_clock(round(now * NS_PER_S)))
        elif kind == "reset":
            rig.take(rig.monitor.reset())
        elif kind in ("enable", "disable"):
            rig.take(rig.monitor.set_enabled(kind == "enable"))
        elif kind == "error":
            rig.take(
                rig.monitor.scorer_failed(
                    ScoreRequest.of_frames("it", [Frame(round(now * NS_PER_S), PIXEL)]), "broken"
                )
            )
        else:
            rig.take(rig.monitor.set_task("close the drawer" if kind == "task" else ""))

    assert [event.sequence for event in rig.events] == list(range(1, len(rig.events) + 1))
    by_episode: dict[str, list[Output]] = {}
    for output in rig.outputs:
        if not isinstance(output, ProgressReport):
            by_episode.setdefault(output.episode_id, []).append(output)
    for record in by_episode.values():
        events = [o.type for o in record if isinstance(o, Event)]
        rewards = [o for o in record if isinstance(o, Reward)]
        assert events.count(EventType.SUCCESS) <= 1
        assert events.count(EventType.EPISODE_STARTED) <= 1
        ended = EventType.EPISODE_ENDED in events
        if ended:
            assert events.count(EventType.EPISODE_ENDED) == 1
            assert isinstance(record[-1], Event) and record[-1].type is EventType.EPISODE_ENDED
            assert EventType.EPISODE_STARTED in events
            cause = {EventType.SUCCESS, EventType.TIMEOUT, EventType.ABORTED} & set(events)
            assert cause
        finals = [r for r in rewards if r.terminated or r.truncated]
        assert len(finals) == ended and (not finals or finals[0] is rewards[-1])
        assert [r.step for r in rewards] == list(range(len(rewards)))
    for report in rig.scored:
        assert isnan(report.progress) or 0.0 <= report.progress <= 1.0


def test_the_same_input_gives_the_same_record() -> None:
    records = []
    for _ in range(2):
        rig = watching()
        rig.images([-8.0, nan, -3.0, -0.1, -0.1, -0.1])
        records.append(repr(rig.outputs))
    assert records[0] == records[1]


def stream(rig: Rig, stamps: Sequence[float], **frames: Any) -> list[float]:
    """Show images at ``stamps`` [s]; returns those of the frames that are scored."""
    return [stamp for stamp in stamps if rig.image(stamp, -4.0, **frames) is not None]


def test_a_driver_that_reorders_aborts_nothing_and_loses_hardly_a_slot() -> None:
    rig = watching()
    stamps = [100.0]
    for interval in REORDERED * 12:
        stamps.append(stamps[-1] + interval / 1e3)
    taken = stream(rig, stamps)
    assert rig.event_types == [EventType.EPISODE_STARTED]
    slots = int((max(stamps) - 100.0) * 2) + 1
    assert slots - 1 <= len(taken) <= slots
    assert all(abs((stamp - 100.0) * 2 - k) < 0.5 for k, stamp in enumerate(taken))
    assert rig.monitor.ignored.out_of_order > 40 and rig.monitor.ignored.out_of_line == 0


@pytest.mark.parametrize("wrong", [4.0, 3600.0, -4.0, -3600.0, -100.0, 1e10])
@pytest.mark.parametrize("at", [1, 15, 16, 100])
def test_one_wrong_stamp_changes_nothing(wrong: float, at: int) -> None:
    rig, other = watching(episode_timeout=60.0), watching(episode_timeout=60.0)
    stamps = [100.0 + k / 30 for k in range(300)]
    seen = [stamp + wrong * (k == at) for k, stamp in enumerate(stamps)]
    stream(rig, seen)
    stream(other, [stamp for k, stamp in enumerate(stamps) if k != at])
    assert repr(rig.outputs) == repr(other.outputs), "as if that image had never come"
    assert rig.monitor.ignored == IgnoredImages(out_of_order=0, out_of_line=1, other_shape=0)
    assert rig.monitor.ignored.counts() == {"with a stamp out of line": 1}


def test_a_bag_played_again_in_a_loop_ends_an_episode_each_time() -> None:
    rig = watching()
    bag = [50.0 + k / 10 for k in range(40)]
    stream(rig, bag * 3)
    assert rig.event_types == [
        *[EventType.EPISODE_STARTED, EventType.ABORTED, EventType.EPISODE_ENDED] * 2,
        EventType.EPISODE_STARTED,
    ]
    assert "went back by 3.900 s" in rig.events[1].message
    assert rig.monitor.report.elapsed_ns == 3 * NS_PER_S + NS_PER_S // 2
    assert rig.monitor.ignored == IgnoredImages(0, 0, 0)


def test_stamps_that_go_back_before_the_first_frame_leave_the_waiting_episode_alone() -> None:
    rig = Rig()
    rig.take(rig.monitor.set_task("open the drawer", episode_id="take-7"))
    for k in range(20):  # cannot be decoded
        rig.monitor.observe((100 + k) * NS_PER_S, k)
    stream(rig, [50.0, 50.5, 51.0, 51.5])
    assert [(event.type, event.episode_id) for event in rig.events] == [(EventType.EPISODE_STARTED, "take-7")]
    assert rig.monitor.report.num_frames == 2


def test_images_after_a_reset_may_have_any_stamps() -> None:
    rig = watching()
    rig.images([-8.0] * 5)
    rig.take(rig.monitor.reset())
    assert rig.image(7.0, -8.0) is not None
    assert rig.monitor.report.stamp.ns == 7 * NS_PER_S


@pytest.mark.parametrize("stamps", [[100.0] * 200, [100.0 - k for k in range(200)]])
def test_stamps_that_are_never_right_are_no_healthy_stream(stamps: list[float]) -> None:
    """Nothing can be used, however many images come: the state says so."""
    rig = watching()
    rig.images([-8.0])
    for k, stamp in enumerate(stamps):
        rig.take(rig.monitor.observe(round(stamp * NS_PER_S), (100 + k) * NS_PER_S)[1])
        rig.take(rig.monitor.check_clock((100 + k) * NS_PER_S))
    assert rig.event_types == [EventType.EPISODE_STARTED, EventType.STALE_IMAGES]
    assert rig.monitor.report.state is State.STALE
    assert rig.monitor.ignored.out_of_line + rig.monitor.ignored.out_of_order >= 190


def test_images_that_cannot_be_decoded_are_no_healthy_stream() -> None:
    rig = watching()
    rig.images([-8.0])
    for k in range(1, 80):
        stamp = 100 * NS_PER_S + k * NS_PER_S // 10
        rig.take(rig.monitor.observe(stamp, stamp)[1])
        rig.take(rig.monitor.check_clock(stamp))
    assert rig.event_types == [EventType.EPISODE_STARTED, EventType.STALE_IMAGES]
    assert "that can be used for more than 5 s" in rig.events[-1].message
    rig.image(108.0, -7.0)
    assert rig.monitor.report.state is State.RUNNING


def test_a_pause_goes_on_in_the_same_episode_after_two_images() -> None:
    rig = watching()
    stamps = [100.0 + k / 10 for k in range(20)]
    assert stream(rig, [*stamps, *(stamp + 14.0 for stamp in stamps)])[4:6] == [114.2, 114.5]
    assert rig.event_types == [EventType.EPISODE_STARTED]


def test_the_last_image_of_a_file_after_a_pause() -> None:
    rig = watching()
    stream(rig, [100.0 + k / 10 for k in range(20)])
    assert rig.image(160.0) is None
    due, outputs = rig.monitor.finish(160 * NS_PER_S)
    assert due and outputs == []
    assert rig.monitor.add_frame(Frame(160 * NS_PER_S, PIXEL))[0] is not None
    assert rig.monitor.finish(161 * NS_PER_S) == (False, [])


WIDE, HIGH = np.zeros((48, 64, 3), np.uint8), np.zeros((64, 48, 3), np.uint8)


def test_a_lone_picture_of_another_shape_leaves_its_slot_to_the_next() -> None:
    rig = watching()
    rig.image(100.0, -4.0, picture=WIDE)
    assert rig.image(100.5, picture=HIGH) is None
    assert rig.image(100.533, -4.0, picture=WIDE[::2, ::2]) is not None, "another resolution is no matter"
    assert rig.image(101.0, picture=HIGH) is None and rig.image(101.033, picture=HIGH) is None
    assert rig.image(101.066, -4.0, picture=WIDE) is not None
    assert rig.event_types == [EventType.EPISODE_STARTED]
    assert rig.monitor.ignored == IgnoredImages(0, 0, other_shape=3)


def test_a_picture_that_changes_its_shape_ends_the_episode_and_begins_another() -> None:
    rig = watching()
    rig.image(100.0, -4.0, picture=WIDE)
    rig.image(100.5, -2.0, picture=WIDE)
    for k in range(3):
        rig.image(101.0 + k / 30, -6.0, picture=HIGH)
    rig.image(101.6, -5.0, picture=HIGH)
    assert rig.event_types == [
        EventType.EPISODE_STARTED,
        EventType.ABORTED,
        EventType.EPISODE_ENDED,
        EventType.EPISODE_STARTED,
    ]
    assert rig.events[1].message.startswith("the picture changed from 64x48 to 48x64")
    assert rig.rewards[2].truncated and rig.rewards[2].episode_id == "episode-1"
    report = rig.monitor.report
    assert (report.episode_id, report.num_frames, report.instruction) == ("episode-2", 2, "open the drawer")
    assert report.state is State.RUNNING and rig.image(101.7, picture=HIGH) is None


# ---- wrong stamps of a healthy camera ----

STARTED = [EventType.EPISODE_STARTED]


def times(rate: float, count: int, start_s: float = 1.7e9) -> list[float]:
    return [start_s + k / rate for k in range(count)]


def after_a_reset(rate: float = 30.0, **changes: float) -> tuple[Rig, float]:
    """A monitor that has watched the camera for 2 s before the task, and the time of the next image."""
    rig = Rig(**changes)
    seen = times(rate, round(2 * rate))
    stream(rig, seen)
    rig.take(rig.monitor.set_task("open the drawer"))
    return rig, seen[-1] + 1 / rate


def with_wrong(stamps: Sequence[float], wrong: dict[int, float]) -> list[float]:
    return [stamp + wrong.get(k, 0.0) for k, stamp in enumerate(stamps)]


@pytest.mark.parametrize("rate", [5.0, 10.0, 30.0, 60.0, 120.0])
@pytest.mark.parametrize("first", [0.3, 0.35, 0.45, 0.55])
@pytest.mark.parametrize("count", [1, 2])
def test_small_wrong_stamps_do_not_add_up(rate: float, first: float, count: int) -> None:
    """Each is ahead of the one before by no more than what is taken."""
    rig = watching()
    wrong = {300 + k: first * (k + 1) for k in range(count)}
    stream(rig, with_wrong(times(rate, 600), wrong))
    assert rig.event_types == STARTED
    lead = max(wrong.values())
    assert sum(rig.monitor.ignored.counts().values()) <= lead * rate + count, "and no image beyond their lead"


@pytest.mark.parametrize(
    ("rate", "share", "reach"), [(30, 0.05, 0.4), (30, 0.1, 0.7), (60, 0.05, 1.0), (60, 1, 0.3)]
)
def test_many_stamps_a_little_wrong_end_no_episode(rate: int, share: float, reach: float) -> None:
    chance = random.Random(2)
    rig = watching()
    stream(
        rig,
        [
            stamp + (chance.uniform(-reach, reach) if k and chance.random() < share else 0.0)
            for k, stamp in enumerate(times(rate, 40 * rate))
        ],
    )
    assert rig.event_types == STARTED


@pytest.mark.parametrize("off_s", [0.7, 1.0, 1.9, 2.1, 10.0, -0.7, -1.9, -10.0, -40.0, -59.0, -61.0, -3600.0])
@pytest.mark.parametrize("at", [(0,), (1,), (0, 1), (0, 2), (1, 2)])
def test_wrong_stamps_among_the_first_after_a_reset_are_forgotten(off_s: float, at: tuple[int, ...]) -> None:
    """What came before the reset tells which ones are wrong."""
    rig, next_s = after_a_reset(episode_timeout=30.0)
    good = times(30.0, 200, next_s)
    taken = stream(rig, with_wrong(good, {k: off_s for k in at}))
    assert rig.event_types == STARTED
    assert set(taken[-8:]) <= set(good)
    (last,) = [o for o in rig.outputs if isinstance(o, ProgressReport)][-1:]
    assert good[0] - 0.1 < last.stamp.ns / NS_PER_S - last.elapsed_ns / NS_PER_S < good[7]
    assert sum(rig.monitor.ignored.counts().values()) <= len(at) + 3


@pytest.mark.parametrize("off_s", [0.7, 1.5, 1.9])
@pytest.mark.parametrize("at", [0, 1])
def test_a_wrong_stamp_a_little_ahead_among_the_first_of_all(off_s: float, at: int) -> None:
    rig = watching()
    stream(rig, with_wrong(times(30.0, 100), {at: off_s}))
    assert rig.event_types == STARTED
    assert sum(rig.monitor.ignored.counts().values()) <= 5


@pytest.mark.parametrize(("rate", "seconds"), [(30.0, 1.0), (30.0, 5.0), (10.0, 1.9), (5.0, 2.0), (1.0, 5.0)])
@pytest.mark.parametrize("stray", [1, 2])
def test_an_image_on_its_way_at_a_reset_does_not_stop_the_bag_that_is_played_again(
    rate: float, seconds: float, stray: int
) -> None:
    bag = times(rate, round(rate * seconds))
    rig = watching(sample_rate=10.0)
    stream(rig, bag)
    rig.take(rig.monitor.reset())
    stream(rig, bag[-stray:])
    assert len(stream(rig, bag)) >= min(10 * seconds, len(bag)) - 2
    ended = rig.event_types.count(EventType.EPISODE_ENDED)
    assert len(stream(rig, bag)) >= min(10 * seconds, len(bag)) - 2
    assert rig.event_types.count(EventType.EPISODE_ENDED) == ended + 1


@pytest.mark.parametrize("skew_s", [5.0, -3600.0, 3600.0])
@pytest.mark.parametrize("rate", [0.2, 1.0, 30.0])
def test_every_second_image_without_a_stamp_and_the_first_one_too(rate: float, skew_s: float) -> None:
    rig = watching()
    lost = 0
    for k, arrival in enumerate(times(rate, 60)):
        stamp_ns = round((arrival + skew_s) * NS_PER_S) if k % 2 else 0
        filled_ns = rig.monitor.filled_stamp(stamp_ns, round(arrival * NS_PER_S))
        rig.monitor.observe(filled_ns, round(arrival * NS_PER_S))
        lost += stamp_ns > 0 and rig.monitor.newest_stamp_ns != stamp_ns
    assert lost <= 3


def test_two_frames_with_wrong_stamps_are_forgotten_with_their_scores() -> None:
    rig, next_s = after_a_reset(rate=2.0)
    good = times(2.0, 12, next_s)
    first, second = rig.image(good[0] + 100.0), rig.image(good[1] + 100.0)
    assert first is not None and second is not None
    assert [rig.image(stamp) for stamp in good[2:4]] == [None, None]
    request = rig.image(good[4])
    assert request is not None and len(request.prefix) == 1
    for late in (first, second):
        assert rig.monitor.add_score(late, PrefixScore(-0.1, -1.0, -8.0, num_frames=2)) == []
    assert rig.event_types == STARTED and rig.monitor.ignored == IgnoredImages(0, 2, 0)


def seen(rig: Rig, pictures: Sequence[np.ndarray], scores: Sequence[float], start_s: float = 100.0) -> None:
    """Show ``pictures`` at 2 Hz, each with its score of the prefix."""
    for k, (picture, log_prob) in enumerate(zip(pictures, scores, strict=True)):
        rig.image(start_s + k / 2, log_prob, picture=picture)


@pytest.mark.parametrize("bad", [flat(0), flat(255), noise()])
def test_pictures_that_show_nothing_are_counted_and_start_no_episode(bad: np.ndarray) -> None:
    rig = watching()
    seen(rig, [bad] * 3, [-8.0] * 3)
    assert rig.event_types == [] and rig.monitor.report.state is State.WAITING_FOR_IMAGES
    rig.image(101.5, -8.0, picture=scene())
    assert rig.event_types == [EventType.EPISODE_STARTED] and rig.monitor.report.num_frames == 1
    assert rig.monitor.ignored.counts() == {"of one colour or noise": 3}


def test_an_episode_begins_in_the_dark_in_the_end_and_says_so() -> None:
    rig = watching()
    seen(rig, [flat(0)] * 8, [-8.0] * 8)
    assert rig.event_types == [EventType.EPISODE_STARTED, EventType.COVERED_IMAGES]
    assert rig.events[1].stamp.ns - 100 * NS_PER_S <= 3 * NS_PER_S
    assert "look at the camera and the light" in rig.scored[0].message
    for report in rig.scored:
        assert isnan(report.progress) and "nothing is to be seen" in report.message


def test_lights_that_go_off_are_silence() -> None:
    """The frames go on and none can be used: the state says so, and nothing is scored."""
    rig = watching()
    seen(rig, [scene()] * 3, [-8.0] * 3)
    for k in range(16):
        stamp = (102 + k / 2) * NS_PER_S
        rig.image(stamp / NS_PER_S, -8.0, picture=flat(0))
        rig.take(rig.monitor.check_clock(round(stamp)))
    assert rig.event_types == [
        EventType.EPISODE_STARTED,
        EventType.COVERED_IMAGES,
        EventType.STALE_IMAGES,
    ]
    assert rig.monitor.report.num_frames == 3 and rig.monitor.report.state is State.STALE
    rig.image(110.0, -7.0, picture=scene())
    assert rig.monitor.report.state is State.RUNNING and rig.monitor.report.num_frames == 4


def test_a_cut_begins_the_prefix_anew_in_the_same_episode() -> None:
    rig = watching(pictures=AS_DRAWN)
    seen(rig, [scene()] * 8 + [scene(3)] * 4, [-8.0] * 12)
    assert rig.event_types == [EventType.EPISODE_STARTED]
    assert [report.num_frames for report in rig.scored] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 3, 4]
    report = rig.scored[10]
    assert report.message.startswith("the picture jumped as a whole: watching begins anew")
    assert report.elapsed_ns == 5 * NS_PER_S and report.episode_id == "episode-1"
    assert [reward.step for reward in rig.rewards] == list(range(12))


def test_a_cut_to_a_finished_scene_is_no_success() -> None:
    """After it the start looks finished: progress has no meaning, and the message says why."""
    rig = watching()
    seen(rig, [scene()] * 8, [-8.0] * 8)
    for k in range(20):
        rig.image(104 + k / 2, -0.05, static=-8.0 if k < 2 else -0.05, picture=scene(3))
    assert EventType.SUCCESS not in rig.event_types
    assert isnan(rig.scored[-1].progress) and "already reads as success" in rig.scored[-1].message


def test_what_is_not_sure_counts_neither_for_the_dwell_nor_for_success() -> None:
    rig = watching()
    jumping = [scene(k % 2 * 7) for k in range(20)]
    seen(rig, [scene()] * 8 + jumping, [-8.0] * 8 + [-0.05] * 20)
    assert EventType.SUCCESS not in rig.event_types


def test_after_a_cover_the_prefix_goes_on_without_it() -> None:
    rig = watching()
    seen(rig, [scene()] * 8 + [scene(3)] * 5 + [scene()] * 8, [-8.0] * 8 + [-5.0] * 5 + [-0.05] * 8)
    counts = [report.num_frames for report in rig.scored]
    assert counts[:13] == [*range(1, 11), 3, 4, 5] and counts[13:16] == [6, 7, 11]
    assert "goes on" in rig.scored[15].message
    success = next(event for event in rig.events if event.type is EventType.SUCCESS)
    assert success.stamp.ns == round((100 + (15 + 2) / 2) * NS_PER_S), "a second after the view was back"


def test_a_score_that_comes_after_a_cut_belongs_to_the_past() -> None:
    rig = watching()
    seen(rig, [scene()] * 8, [-8.0] * 8)
    late = rig.image(104.0, picture=scene(3))
    rig.image(104.5, picture=scene(3))
    newest = rig.image(105.0, picture=scene(3))
    assert late is not None and newest is not None
    assert rig.monitor.add_score(late, score_of(late, -0.01)) == []
    rig.take(rig.monitor.add_score(newest, score_of(newest, -3.0)))
    assert rig.scored[-1].num_frames == 3


def test_chosen_frames_are_used_whatever_they_show() -> None:
    monitor = TaskMonitor(SETTINGS, lambda: "it", judge_scene=False)
    monitor.set_task("open the drawer")
    for k, picture in enumerate([flat(0), noise(), scene(1), scene(2), scene(2), scene(2)]):
        assert monitor.observe(k * NS_PER_S // 2, 0)[0]
        request, _ = monitor.add_frame(Frame(k * NS_PER_S // 2, picture))
        assert request is not None and len(request.prefix) == k + 1


def test_a_gap_in_the_dwell_is_told() -> None:
    rig = watching()
    rig.images([-8.0, -8.0, -0.1, -0.1])
    stream(rig, [110.0])  # alone, it is not believed
    for k in range(3):
        rig.image(110.1 + k / 2, -0.1)
    messages = [report.message for report in rig.scored if report.message]
    assert messages == ["no score for 9.1 s: the dwell for SUCCESS starts anew"]
    assert EventType.SUCCESS not in rig.event_types


def test_the_message_of_success_says_what_was_true() -> None:
    rig = watching()
    rig.images([-8.0, -8.0, -0.1, -0.2, -0.15, -0.1])
    message = next(event.message for event in rig.events if event.type is EventType.SUCCESS)
    assert message == (
        "log-probability -0.150 nat, at or above -0.22 nat for 1.0 s in 3 scores, none below "
        "-0.200 nat; it had been below -0.72 nat"
    )


def test_after_a_success_there_is_no_timeout() -> None:
    rig = watching(end_episode_on_success=False, episode_timeout=6.0)
    rig.images([-8.0] * 2 + [-0.1] * 20)
    assert rig.event_types == [EventType.EPISODE_STARTED, EventType.SUCCESS, EventType.EPISODE_ENDED]
    assert rig.events[-1].message == (
        "it was watched beyond its success for episode_timeout = 6 s, by the stamps of the images"
    )
    assert rig.monitor.report.state is State.SUCCEEDED
    assert rig.rewards[-1].truncated and not any(reward.terminated for reward in rig.rewards)


def test_a_success_before_a_cut_is_not_taken_back_by_the_timeout() -> None:
    rig = watching(end_episode_on_success=False, episode_timeout=12.0, pictures=AS_DRAWN)
    seen(rig, [scene()] * 12 + [scene(3)] * 16, [-8.0] * 3 + [-0.1] * 9 + [-8.0] * 5 + [-0.1] * 11)
    assert rig.event_types == [EventType.EPISODE_STARTED, EventType.SUCCESS, EventType.EPISODE_ENDED]
    assert rig.monitor.report.state is State.SUCCEEDED
