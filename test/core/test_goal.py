"""What becomes of a goal, with a real `TaskMonitor` that says what it sees, a clock and scores by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from math import isnan, nan

import numpy as np
import pytest

from test.core.test_episode_machine import SETTINGS
from topreward_ros.core.episode import TaskMonitor
from topreward_ros.core.events import EventType
from topreward_ros.core.frames import NO_STAMP, NS_PER_S, Frame
from topreward_ros.core.goal import ERRORS_IN_A_ROW, GoalCode, GoalOutcome, GoalWatch
from topreward_ros.core.monitor_settings import Overrides
from topreward_ros.core.outputs import Event, Output, ProgressReport, Reward, State
from topreward_ros.core.progress import PrefixScore
from topreward_ros.core.score_request import ScoreRequest

FIRST_NS = 1_700_000_000 * NS_PER_S
TWO_STAGES = "open the drawer\ntake out the cup"


class Run:
    """A monitor with a goal, a camera at 2 Hz and a steady clock that goes with it."""

    def __init__(self, task: str = "open the drawer", timeout: float = 0.0, **goal: float) -> None:
        numbers = count(1)
        self.monitor = TaskMonitor(SETTINGS, lambda: f"made-{next(numbers)}")
        self.watch = GoalWatch()
        self.outcome: GoalOutcome | None = None
        self.seconds = 0.0
        self.requests: list[ScoreRequest] = []
        self.events: list[Event] = []
        self.rewards: list[Reward] = []
        overrides = Overrides(timeout=timeout, success_threshold=goal.get("threshold"))
        self.monitor.set_task(task, "pick", overrides=overrides)
        self.watch.take(self.monitor.report, timeout)

    def take(self, outputs: list[Output]) -> None:
        self.events += [output for output in outputs if isinstance(output, Event)]
        self.rewards += [output for output in outputs if isinstance(output, Reward)]
        for output in outputs:
            self.outcome = self.outcome or self.watch.take(output, self.monitor.time_limit)

    def image(self, log_prob: float | None = -8.0) -> None:
        """The next image; None: nobody scores it."""
        self.seconds += 0.5
        now_ns = round(self.seconds * NS_PER_S)
        due, outputs = self.monitor.observe(FIRST_NS + now_ns, now_ns)
        self.take(outputs)
        if not due:
            return
        request, outputs = self.monitor.add_frame(Frame(FIRST_NS + now_ns, np.zeros((3, 4, 3), np.uint8)))
        self.take(outputs)
        if request is not None and log_prob is not None:
            score = PrefixScore(log_prob, -1.0, -8.0, num_frames=len(request.prefix))
            self.take(self.monitor.add_score(request, score))
        elif request is not None:
            self.requests.append(request)

    def fail(self) -> None:
        self.image(None)
        self.take(self.monitor.scorer_failed(self.requests.pop(), "out of memory"))

    def wait(self, seconds: float, paused: bool = False) -> None:
        """Let time pass without an image."""
        for _ in range(round(seconds / 0.25)):
            self.seconds += 0.25
            now_ns = round(self.seconds * NS_PER_S)
            paused_ns = NS_PER_S // 4 * paused
            self.take(self.monitor.check_clock(now_ns, paused_ns=paused_ns))
            self.outcome = self.outcome or self.watch.look(now_ns, paused_ns, self.monitor.time_limit)

    def succeed(self) -> None:
        for log_prob in (-8.0, -8.0, -0.1, -0.1):
            self.image(log_prob)

    @property
    def code(self) -> GoalCode | None:
        return None if self.outcome is None else self.outcome.code


def test_success_is_no_error_and_tells_the_whole_of_it() -> None:
    run = Run()
    run.succeed()
    assert run.outcome == GoalOutcome(
        code=GoalCode.NONE,
        episode_id="pick",
        progress=run.monitor.report.progress,
        elapsed_ns=3 * NS_PER_S // 2,
        stage=1,
        stages=1,
    )
    assert run.outcome.succeeded and run.outcome.progress > 0.9


def test_a_success_of_a_stage_is_none_of_the_goal() -> None:
    run = Run(TWO_STAGES)
    run.succeed()
    assert run.code is None
    run.succeed()
    assert run.outcome is not None and run.outcome.succeeded
    assert (run.outcome.episode_id, run.outcome.stage, run.outcome.stages) == ("pick.2", 2, 2)
    assert run.outcome.elapsed_ns == 3 * NS_PER_S, "of both"


def test_the_time_of_a_goal_is_that_of_all_its_stages_and_the_monitors_that_of_each() -> None:
    run = Run(TWO_STAGES, timeout=3.0)
    run.succeed()
    for _ in range(3):
        run.image()
    assert run.code is None
    run.image()
    assert run.outcome is not None and run.outcome.code is GoalCode.TASK_TIMEOUT
    assert (
        run.outcome.message == "no success within the timeout of this task = 3 s, by the stamps of the images"
    )
    assert run.outcome.stage == 2, "where to go on"
    assert run.outcome.elapsed_ns == 3 * NS_PER_S, "not that of the newest score"

    run = Run(TWO_STAGES)
    run.monitor.settings = replace(run.monitor.settings, episode_timeout=3.0)
    run.succeed()
    for _ in range(6):
        run.image()
    assert run.code is None
    run.image()
    assert run.code is GoalCode.TASK_TIMEOUT and "episode_timeout" in run.outcome.message


@pytest.mark.parametrize("seen", [True, False])
def test_images_that_stop_end_a_goal_at_once_only_where_it_has_no_time_limit(seen: bool) -> None:
    code = GoalCode.STALE_IMAGES if seen else GoalCode.NO_IMAGES
    run = Run()
    if seen:
        run.image()
    run.wait(1.75)
    assert run.code is None
    run.wait(0.75)  # stale_timeout is 2 s; the clock that is looked at first begins it
    assert run.code is code and "no image" in run.outcome.message

    run = Run(timeout=6.0)
    if seen:
        run.image()
    run.wait(5.5)
    assert run.code is None, "they may come again"
    run.wait(1.0)
    assert run.code is code and "6 s" in run.outcome.message and "stale_timeout" in run.outcome.message
    assert run.outcome.elapsed_ns == pytest.approx(6 * NS_PER_S, abs=NS_PER_S // 4)


def test_images_that_come_again_are_forgiven() -> None:
    run = Run(timeout=6.0)
    run.image()
    run.wait(3.0)
    for _ in range(8):
        run.image()
    assert run.code is GoalCode.TASK_TIMEOUT and "stale" not in run.outcome.message


def test_a_stage_that_gets_no_image_ends_in_time_though_it_has_not_begun() -> None:
    run = Run(TWO_STAGES, timeout=4.0)
    run.succeed()
    run.wait(5.0)
    assert run.code is GoalCode.STALE_IMAGES and run.outcome.stage == 2
    assert run.outcome.elapsed_ns == pytest.approx(5.5 * NS_PER_S, abs=NS_PER_S // 4), "1.5 s and the wait"


def test_time_in_which_simulated_time_stands_is_not_waited() -> None:
    run = Run(timeout=4.0)
    run.wait(20.0, paused=True)
    assert run.code is None
    run.wait(4.25)
    assert run.code is GoalCode.NO_IMAGES


def test_time_in_which_simulated_time_has_been_standing_is_not_waited() -> None:
    watch = GoalWatch()
    watch.take(ProgressReport(state=State.WAITING_FOR_IMAGES, episode_id="pick"), 0.0)
    for k in range(200):
        assert watch.look(k * NS_PER_S, 0, 30.0, stands_ns=k * NS_PER_S) is None
    assert watch.look(200 * NS_PER_S, 200 * NS_PER_S, 30.0) is None
    assert watch.look(229 * NS_PER_S, 0, 30.0) is None
    assert watch.look(230 * NS_PER_S, 0, 30.0) is not None


def test_a_scorer_that_fails_ends_a_goal_in_time_or_after_a_few() -> None:
    run = Run()
    for _ in range(ERRORS_IN_A_ROW - 1):
        run.fail()
    run.image()  # a score between them
    for k in range(ERRORS_IN_A_ROW):
        assert run.code is None, k
        run.fail()
    assert run.code is GoalCode.SCORER_ERROR and "out of memory" in run.outcome.message

    run = Run(timeout=3.0)
    for _ in range(ERRORS_IN_A_ROW + 3):
        run.fail()
    assert run.code is None
    run.image(None)
    assert run.code is GoalCode.SCORER_ERROR and "timeout of this task = 3 s" in run.outcome.message


def test_a_scorer_that_hangs_ends_only_a_goal_without_a_time_limit() -> None:
    watch = GoalWatch()
    assert watch.scorer_hangs("it hangs", 5.0) is None
    outcome = watch.scorer_hangs("it hangs", 0.0)
    assert outcome is not None and (outcome.code, outcome.message) == (GoalCode.SCORER_ERROR, "it hangs")


def test_a_goal_is_over_once() -> None:
    run = Run()
    outcome = run.watch.end(GoalCode.PREEMPTED, "another task")
    assert isnan(outcome.progress) and outcome.stage == 1
    run.succeed()
    run.wait(10.0)
    assert run.code is None


def test_the_threshold_of_a_goal_ends_with_it() -> None:
    run = Run(threshold=-5.0)
    for log_prob in (-8.0, -8.0, -4.0):
        run.image(log_prob)
    run.monitor.settings = replace(run.monitor.settings, stale_timeout=9.0)  # a parameter is set meanwhile
    run.image(-4.0)
    assert run.code is GoalCode.NONE
    run.monitor.reset()
    assert run.monitor.settings_in_force == run.monitor.settings
    assert run.monitor.settings.success.threshold == -0.22


def test_images_that_are_back_are_forgotten_where_progress_stands_still() -> None:
    watch = GoalWatch()
    report = ProgressReport(state=State.RUNNING, episode_id="pick")
    said = Event(
        type=EventType.STALE_IMAGES, sequence=2, episode_id="pick", instruction="x", stamp=NO_STAMP,
        progress=nan, log_prob=nan, threshold=5.0, message="no image for 5 s",
    )  # fmt: skip
    for output in (report, replace(said, type=EventType.EPISODE_STARTED), said):
        watch.take(output, 30.0)
    watch.take(replace(report, state=State.STALLED), 30.0)
    outcome = watch.take(replace(said, type=EventType.TIMEOUT, message="too long"), 30.0)
    assert outcome is not None and (outcome.code, outcome.message) == (GoalCode.TASK_TIMEOUT, "too long")
