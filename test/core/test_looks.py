"""Extra looks: further scores for the detector of SUCCESS, and nothing else than before for all others."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf, isnan, nan

import numpy as np
import pytest

from topreward_ros.core.episode import TaskMonitor
from topreward_ros.core.events import EventType
from topreward_ros.core.frames import NS_PER_S, Frame
from topreward_ros.core.looks import Look, LookSchedule
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.core.outputs import Event, Output, ProgressReport, Reward, State
from topreward_ros.core.progress import PrefixScore
from topreward_ros.core.scene import SceneJudge, Sight
from topreward_ros.core.score_request import ScoreRequest

from .monitors import SETTINGS
from .scenes import flat, scene

PIXEL = np.zeros((1, 1, 3), np.uint8)
#: 0.5 s at or above the threshold, in three scores.
CONFIRMED = replace(SETTINGS, success=replace(SETTINGS.success, dwell=0.5, min_scores=3, confirm_rate=4.0))
WITHOUT = replace(CONFIRMED, success=replace(CONFIRMED.success, confirm_rate=0.0))


def ns(seconds: float) -> int:
    return round(seconds * NS_PER_S)


class Run:
    """Shows images at 20 Hz to a monitor; ``score`` knows the log-probability at each stamp [s]."""

    def __init__(
        self,
        score: Callable[[float], float],
        settings: MonitorSettings = CONFIRMED,
        arrives: bool = True,
        static: float = -8.0,
    ) -> None:
        self.monitor = TaskMonitor(settings, lambda: "episode")
        self.monitor.set_task("open the drawer")
        self.score = score
        self.arrives = arrives
        self.static = static
        self.outputs: list[Output] = []
        self.requests: list[ScoreRequest] = []

    def image(self, stamp_s: float, picture: np.ndarray = PIXEL) -> ScoreRequest | None:
        asked, outputs = self.monitor.observe(ns(stamp_s), ns(stamp_s) if self.arrives else None)
        self.outputs += outputs
        request = None
        if asked:
            request, outputs = self.monitor.add_frame(Frame(ns(stamp_s), picture))
            self.outputs += outputs
        if request is not None:
            self.requests.append(request)
        return request

    def answer(self, request: ScoreRequest) -> None:
        stamp_s = request.prefix[-1].stamp_ns / NS_PER_S
        static = nan if request.extra else self.static
        score = PrefixScore(self.score(stamp_s), -1.0, static, num_frames=len(request.prefix))
        self.outputs += self.monitor.add_score(request, score)

    def images(self, until_s: float, from_s: float = 0.0, pictures: Sequence[np.ndarray] = (PIXEL,)) -> None:
        for k in range(round(from_s * 20), round(until_s * 20)):
            if request := self.image(k / 20, pictures[k % len(pictures)]):
                self.answer(request)

    @property
    def extra_s(self) -> list[float]:
        """When there were extra looks."""
        return [r.prefix[-1].stamp_ns / NS_PER_S for r in self.requests if r.extra]

    def of(self, kind: type) -> list:  # type: ignore[type-arg]
        return [output for output in self.outputs if isinstance(output, kind)]

    @property
    def success(self) -> Event | None:
        return next((event for event in self.of(Event) if event.type is EventType.SUCCESS), None)


def rises(at_s: float) -> Callable[[float], float]:
    """Low scores until then, all of them different, and high ones after."""
    return lambda stamp_s: -0.1 - stamp_s / 1000 if stamp_s >= at_s else -5.0 - stamp_s / 1000


def test_success_is_confirmed_between_two_frames_that_are_due() -> None:
    quick, slow = Run(rises(4.9)), Run(rises(4.9), WITHOUT)
    quick.images(9.0)
    slow.images(9.0)
    assert quick.success is not None and slow.success is not None
    assert quick.success.stamp.ns == ns(5.5) and slow.success.stamp.ns == ns(6.0)
    assert quick.extra_s == [5.25] and slow.extra_s == []


def test_there_is_no_look_while_the_score_is_low_or_the_detector_is_not_armed() -> None:
    low, finished = Run(rises(inf)), Run(rises(0.0), static=-0.1)
    for run in (low, finished):
        run.images(9.0)
        assert run.requests and run.extra_s == []


def test_the_prefix_of_a_look_is_that_of_the_frames_that_were_due_and_the_newest_one() -> None:
    run = Run(rises(4.9))
    run.images(5.3)
    *due, look = run.requests
    assert look.extra and [frame.stamp_ns for frame in look.prefix] == [
        *(frame.stamp_ns for frame in due[-1].prefix),
        ns(5.25),
    ]
    run.images(6.0, from_s=5.3)
    after = run.requests[len(due) + 1]
    assert not after.extra and ns(5.25) not in [frame.stamp_ns for frame in after.prefix]


@pytest.mark.parametrize("at_s", [4.9, 30.0])  # before and after the prefix is thinned
def test_progress_rewards_and_prefixes_are_the_same_with_looks_and_without(at_s: float) -> None:
    """Until SUCCESS, which takes long here."""
    settings = [replace(it, success=replace(it.success, dwell=1000.0)) for it in (CONFIRMED, WITHOUT)]
    looking, plain = (Run(rises(at_s), of_run) for of_run in settings)
    for run in (looking, plain):
        run.images(at_s + 20.0)
    assert len(looking.extra_s) > 10 and looking.success is None
    for kind in (ProgressReport, Reward):
        said = [[repr(replace(it, news="") if kind is ProgressReport else it) for it in run.of(kind)]
                for run in (looking, plain)]  # fmt: skip
        assert said[0] == said[1]
    prefixes = [
        [[frame.stamp_ns for frame in request.prefix] for request in run.requests if not request.extra]
        for run in (looking, plain)
    ]
    assert prefixes[0] == prefixes[1]


def test_success_by_a_look_ends_the_episode_with_a_last_reward_of_nothing() -> None:
    run = Run(rises(4.9), replace(CONFIRMED, success=replace(CONFIRMED.success, dwell=0.25, min_scores=2)))
    run.images(9.0)
    event, reward, report = run.success, run.of(Reward)[-1], run.of(ProgressReport)[-1]
    assert event is not None and event.stamp.ns == reward.stamp.ns == ns(5.25)
    assert event.log_prob == pytest.approx(-0.10525)
    assert (reward.reward, reward.terminated, reward.truncated) == (0.0, True, False)
    assert report.state is State.SUCCEEDED and report.stamp.ns == ns(5.0)
    assert [event.type for event in run.of(Event)] == [
        EventType.EPISODE_STARTED, EventType.SUCCESS, EventType.EPISODE_ENDED,
    ]  # fmt: skip
    assert "in 2 scores" in event.message


def test_success_by_a_look_goes_on_when_told_to() -> None:
    success = replace(CONFIRMED.success, dwell=0.25, min_scores=2)
    run = Run(rises(4.9), replace(CONFIRMED, success=success, end_episode_on_success=False))
    run.images(9.0)
    assert run.success is not None and run.success.stamp.ns == ns(5.25)
    assert run.extra_s == [5.25], "what has fired needs no look"
    assert not any(reward.terminated for reward in run.of(Reward))
    assert run.of(ProgressReport)[-1].state is State.SUCCEEDED and len(run.of(Reward)) == 18


def test_a_stage_succeeds_by_a_look() -> None:
    run = Run(rises(4.9), replace(CONFIRMED, success=replace(CONFIRMED.success, dwell=0.25, min_scores=2)))
    run.monitor.set_task("open it\nclose it")
    run.images(6.0)
    kinds = [event.type for event in run.of(Event)]
    assert kinds[1:3] == [EventType.SUBTASK_SUCCESS, EventType.EPISODE_ENDED]
    assert run.monitor.report.instruction == "close it"


def test_a_look_below_the_threshold_starts_the_dwell_anew() -> None:
    run = Run(lambda stamp_s: -1.0 if stamp_s == 5.25 else rises(4.9)(stamp_s))
    run.images(9.0)
    assert run.success is not None and run.success.stamp.ns == ns(6.0)


def test_a_look_waits_for_the_score_of_the_frame_before() -> None:
    """So a recording, in which every score is there at once, has no other looks than this."""
    run = Run(rises(4.9), replace(CONFIRMED, success=replace(CONFIRMED.success, dwell=1000.0)))
    run.images(5.5)
    due = run.image(5.5)
    assert due is not None and not due.extra and run.extra_s == [5.25]
    for k in range(111, 119):
        assert run.image(k / 20) is None
    run.answer(due)
    look = run.image(5.95)
    assert look is not None and look.extra


def test_live_and_recorded_are_equal_where_scores_come_in_time() -> None:
    """Live an answer takes a while: here up to one frame of the camera."""
    recorded = Run(rises(4.9), arrives=False)
    recorded.images(9.0)
    live = Run(rises(4.9))
    waiting: ScoreRequest | None = None
    for k in range(180):
        request = live.image(k / 20)
        if waiting is not None:
            live.answer(waiting)
        waiting = request
    assert live.extra_s == recorded.extra_s == [5.25]
    assert [repr(output) for output in live.outputs] == [repr(output) for output in recorded.outputs]


OFTEN = replace(CONFIRMED, success=replace(CONFIRMED.success, confirm_rate=10.0))


def test_a_look_for_which_there_is_no_time_is_the_last_one_before_a_frame_is_due() -> None:
    run = Run(rises(4.9), OFTEN)
    run.images(5.1)
    look = run.image(5.1)
    assert look is not None and look.extra
    run.monitor.leave_out(look)
    run.images(9.0, from_s=5.15)
    assert run.extra_s == [5.1, 5.6], "the next look comes behind the next frame that is due"
    assert run.success is not None and run.success.stamp.ns == ns(5.6)


def test_a_look_that_fails_is_told_once_per_frame_that_is_due() -> None:
    run = Run(rises(4.9), OFTEN)
    run.images(5.1)
    look = run.image(5.1)
    assert look is not None
    report, event = run.monitor.scorer_failed(look, "out of memory")
    assert isinstance(report, ProgressReport) and report.message == "no score: out of memory"
    assert isinstance(event, Event) and event.type is EventType.SCORER_ERROR and event.stamp.ns == ns(5.1)
    run.images(5.5, from_s=5.15)
    assert run.extra_s == [5.1]


def test_nobody_looks_at_a_picture_of_which_is_not_sure_what_it_shows() -> None:
    """A cut, or a hand before the lens, between two frames that are due."""
    for picture in (scene(1), flat(0)):
        run = Run(rises(4.9))
        run.images(5.2, pictures=[scene(0)])
        run.images(5.5, from_s=5.2, pictures=[picture])
        assert run.extra_s == []
        run.images(7.0, from_s=5.5, pictures=[scene(0)])
        assert run.extra_s and run.success is not None


def test_what_a_look_shows_is_not_remembered() -> None:
    """Whatever was looked at between two frames, the next one of the same scene is nothing new."""
    judge = SceneJudge()
    for k in range(10):
        assert judge.judge(ns(k / 2), scene(0)) == Sight()
    for _ in range(2):
        assert not judge.would_judge(ns(4.75), scene(1)).sure
        assert not judge.would_judge(ns(4.75), flat(0)).used
    assert judge.would_judge(ns(4.75), scene(0)) == judge.judge(ns(5.0), scene(0)) == Sight()


def test_how_much_time_a_scorer_has_for_a_look() -> None:
    schedule = LookSchedule(2.0)
    for k in range(6):
        schedule.observe(ns(k / 20), ns(k / 40), confirm_rate=4.0)  # played twice as fast as it was recorded
        if k == 0:
            schedule.take(Look.DUE)
            schedule.answered(0)
    # 0.25 s until the slot, less half a frame, by which the frame of the slot may be early; half of it live
    assert schedule.time_left_s() == pytest.approx((0.25 - 0.025) / 2)
    schedule.observe(ns(0.3), None, confirm_rate=4.0)
    assert schedule.time_left_s() == inf, "a file does not arrive"
    slow = LookSchedule(2.0)
    slow.observe(0, 0)
    slow.take(Look.DUE)
    slow.observe(ns(0.25), ns(2.5))
    assert slow.time_left_s() <= 0.25, "time is not taken to pass more slowly than the stamps"


@pytest.mark.parametrize(("rate", "looks"), [(0.0, 0), (1.0, 0), (2.0, 0), (3.0, 1), (4.0, 1), (10.0, 4)])
def test_the_rate_counts_the_frames_that_are_due(rate: float, looks: int) -> None:
    run = Run(
        lambda stamp_s: -0.1 if 5.0 <= stamp_s < 5.5 else -5.0,
        replace(CONFIRMED, success=replace(CONFIRMED.success, dwell=5.0, confirm_rate=rate)),
    )
    run.images(8.0)
    assert len(run.extra_s) == looks


def test_another_rate_acts_at_the_next_score() -> None:
    run = Run(rises(4.9), replace(WITHOUT, success=replace(WITHOUT.success, dwell=5.0)))
    run.images(6.05)
    assert run.extra_s == []
    settings = run.monitor.settings
    run.monitor.settings = replace(settings, success=replace(settings.success, confirm_rate=4.0))
    run.images(7.0, from_s=6.05)
    assert run.extra_s == [6.25, 6.75]


def test_an_extra_look_has_no_baseline_of_its_own() -> None:
    run = Run(rises(4.9))
    run.images(9.0)
    assert all(
        not isnan(report.score.log_prob_static) for report in run.of(ProgressReport) if report.num_frames
    )
