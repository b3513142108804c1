"""The state machine of an episode under random sequences of every call, against invariants stated here.

The caller behaves as nodes/session.py and offline/score_video.py do: the clock of arrivals never goes back,
an image that is asked for is answered at once, and scores come in order, however late, but never after the
end of their episode (scoring/worker.py drops those). Cameras, stamps, scores and settings are as bad as they
like.

`Record` states what holds of everything that is published, `EpisodeMachine` what holds of it beside what was
called: silence, time that is up, ages and stamps.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from math import inf, isfinite, isnan, nan
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from topreward_ros.core.detectors.failure import ConformalBand, FailureSettings
from topreward_ros.core.detectors.of_pictures import PictureSettings
from topreward_ros.core.detectors.of_progress import ProgressSettings
from topreward_ros.core.detectors.regression import RegressionSettings
from topreward_ros.core.detectors.stall import StallSettings
from topreward_ros.core.episode import TaskMonitor
from topreward_ros.core.episode_ids import EpisodeIdError
from topreward_ros.core.events import EventType, SuccessSettings
from topreward_ros.core.frames import NO_STAMP, NS_PER_S, Frame, Window
from topreward_ros.core.instruction import InstructionError
from topreward_ros.core.monitor_settings import NO_OVERRIDES, Overrides
from topreward_ros.core.outputs import Event, Output, ProgressReport, Reward, State
from topreward_ros.core.progress import PrefixScore, ProgressMode
from topreward_ros.core.rewards import RewardSettings, RewardType
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.core.stages import StageError

from . import monitors

SETTINGS = replace(
    monitors.SETTINGS, success=replace(monitors.SETTINGS.success, dwell=0.5), stale_timeout=2.0
)


def scene(seed: int) -> np.ndarray:
    """A picture of the smallest size that is looked at (core/pictures.py), with something everywhere."""
    blocks = np.random.default_rng(seed).integers(0, 255, (9, 12, 1), np.uint8)
    return np.ascontiguousarray(blocks.repeat(8, axis=0).repeat(8, axis=1).repeat(3, axis=2))


PICTURES = {
    "tiny": np.zeros((3, 4, 3), np.uint8),  # nobody can tell what it shows
    "scene": scene(0),
    "another scene": scene(1),
    "of another shape": np.zeros((4, 3, 3), np.uint8),
    "grey": np.full((72, 96, 3), 128, np.uint8),
    "unreadable": None,
}
ENDS = {
    EventType.SUCCESS,
    EventType.SUBTASK_SUCCESS,
    EventType.FAILURE,
    EventType.TIMEOUT,
    EventType.ABORTED,
}
#: What follows from progress, which nobody looks at any more after SUCCESS.
OF_PROGRESS = {EventType.STALL, EventType.REGRESSION, EventType.FAILURE}
#: Between two pictures that are looked at, bad ones may pass unseen for so long.
UNSEEN_NS = NS_PER_S // 2

#: The states that may follow each one. The state of an end is left by a new episode, or for none.
BEGINS = {State.IDLE, State.WAITING_FOR_IMAGES}
FOLLOWING = {
    State.IDLE: BEGINS,
    State.WAITING_FOR_IMAGES: {State.RUNNING, State.STALE} | BEGINS,
    State.RUNNING: {State.STALLED, State.STALE, State.SUCCEEDED, State.FAILED} | BEGINS,
    State.STALLED: {State.RUNNING, State.STALE, State.SUCCEEDED, State.FAILED} | BEGINS,
    # A score that was late may tell of success while the camera is silent already, or of a stall.
    State.STALE: {State.RUNNING, State.STALLED, State.SUCCEEDED, State.FAILED} | BEGINS,
    State.SUCCEEDED: BEGINS,
    State.FAILED: BEGINS,
}

BAD_NUMBERS = [nan, inf, -inf, 1.0, 1e4, 0.0, -0.0]
SCORES = st.one_of(st.sampled_from([-0.1, -0.1, -0.1, -8.0, -8.0, *BAD_NUMBERS]), st.floats(-20.0, 0.0))
STATIC_SCORES = st.sampled_from([-8.0, -8.0, -8.0, nan, inf, -inf, 0.0, -0.1])
STAGES = "open the drawer\nclose it\nclose it"
INSTRUCTIONS = st.sampled_from(
    ["open the drawer", "open the drawer", "close it", "", "caf\ufffd", STAGES, STAGES]
)
OVERRIDES = st.builds(
    Overrides, timeout=st.sampled_from([0.0, 3.0]), success_threshold=st.sampled_from([None, -5.0])
)
EPISODE_IDS = st.sampled_from(["", "", "pick", "place", "pick.2", "x" * 201, "two\nlines"])
STEPS_S = st.one_of(
    st.sampled_from([0.1, 0.1, 0.1, 0.5, 0.5, 1.0, 0.0, -0.1, -0.2, -30.0, 4.0, 3600.0, 1e9, -1e9]),
    st.floats(-3.0, 3.0),
)
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "sample_rate": st.sampled_from([0.5, 2.0, 10.0]),
        "max_frames": st.sampled_from([4, 8]),
        "window": st.sampled_from(Window),
        "progress_mode": st.sampled_from(ProgressMode),
        "reward": st.builds(RewardSettings, st.sampled_from(RewardType), st.just(2.0), st.just(2.0)),
        "success": st.builds(
            SuccessSettings,
            threshold=st.sampled_from([-0.22, 0.0, -5.0]),
            hysteresis=st.sampled_from([0.0, 0.5]),
            dwell=st.sampled_from([0.0, 0.5]),
            min_scores=st.integers(1, 2),
            smoothing=st.integers(1, 3),
            confirm_rate=st.sampled_from([0.0, 5.0, 10.0]),
        ),
        "progress": st.builds(
            ProgressSettings,
            stall=st.builds(
                StallSettings,
                after=st.sampled_from([0.0, 1.0]),
                rise=st.sampled_from([0.0, 0.1]),
                slope=st.sampled_from([0.0, 0.02]),
                nominal_duration=st.sampled_from([0.0, 8.0]),
            ),
            regression=st.builds(
                RegressionSettings, sigma=st.sampled_from([0.0, 0.02]), dwell=st.sampled_from([0.0, 0.5])
            ),
            failure=st.builds(
                FailureSettings,
                threshold=st.sampled_from([0.0, 0.0, 0.5]),
                after=st.just(1.0),
                dwell=st.sampled_from([0.0, 1.0]),
                band=st.sampled_from([None, None, ConformalBand((0.0, 5.0), (0.0, 0.5), successes=19)]),
            ),
        ),
        "pictures": st.builds(
            PictureSettings,
            frozen_timeout=st.sampled_from([0.0, 1.0]),
            covered_timeout=st.sampled_from([0.0, 0.5]),
        ),
        "end_episode_on_success": st.booleans(),
        "episode_timeout": st.sampled_from([0.0, 3.0, 10.0]),
        "stale_timeout": st.sampled_from([0.5, 2.0, 5.0]),
        "camera_fixed": st.booleans(),
    },
)


class Record:
    """What was published, judged output by output as it comes."""

    def __init__(self) -> None:
        self.sequence = 0
        self.state = State.IDLE
        self.open = ""  #: the episode that has begun and not ended
        self.ended: set[str] = set()
        self._begin("")

    def _begin(self, episode_id: str) -> None:
        self.open = episode_id
        self.kinds: list[EventType] = []
        self.steps = 0
        self.sum = 0.0
        self.final: Reward | None = None
        self.newest_ns = 0  #: stamp of the newest reward

    def take(self, output: Output) -> None:
        assert output.episode_id not in self.ended or isinstance(output, ProgressReport), "said after its end"
        if isinstance(output, Event):
            self._take_event(output)
        elif isinstance(output, Reward):
            self._take_reward(output)
        else:
            self._take_report(output)

    def _take_event(self, event: Event) -> None:
        self.sequence += 1
        assert event.sequence == self.sequence, "a gap in the sequence"
        assert event.message and event.instruction and event.episode_id
        if event.type is EventType.EPISODE_STARTED:
            assert not self.open, "the one before has not ended"
            self._begin(event.episode_id)
        elif not self.open:
            assert event.type is EventType.STALE_IMAGES, "all else belongs to an episode that has begun"
            return
        assert event.episode_id == self.open
        assert event.stamp.ns > 0
        assert event.type not in ENDS or event.type not in self.kinds, "said twice"
        assert 1 <= event.stage <= event.stages
        if event.type in (EventType.SUCCESS, EventType.SUBTASK_SUCCESS):
            assert (event.type is EventType.SUCCESS) == (event.stage == event.stages), (
                "SUCCESS is of the task"
            )
        if self.kinds and self.kinds[-1] in ENDS - {EventType.SUCCESS}:
            assert event.type is EventType.EPISODE_ENDED, "EPISODE_ENDED follows its cause at once"
        self.kinds.append(event.type)
        if event.type is EventType.TIMEOUT or event.type in OF_PROGRESS:
            assert EventType.SUCCESS not in self.kinds, "no success, after a success"
        if event.type is EventType.COVERED_IMAGES:
            assert isnan(event.progress), "progress, and nothing to be seen"
        if event.type is EventType.EPISODE_ENDED:
            assert ENDS & set(self.kinds), "an end without a cause"
            assert self.final is not None, "an end without its last reward"
            self.ended.add(self.open)
            self._begin("")

    def _take_reward(self, reward: Reward) -> None:
        assert reward.episode_id == self.open and self.final is None, "a reward behind the last one"
        assert reward.step == self.steps
        assert not (reward.terminated and reward.truncated)
        self.steps += 1
        self.sum += reward.reward if isfinite(reward.reward) else 0.0
        assert reward.episode_return == self.sum, "the return is the sum of the rewards that are numbers"
        if reward.terminated or reward.truncated:
            self.final = reward
        if reward.stamp is not NO_STAMP:
            assert reward.stamp.ns >= self.newest_ns, "stamps go back within an episode"
            self.newest_ns = reward.stamp.ns

    def _take_report(self, report: ProgressReport) -> None:
        assert report.state == self.state or report.state in FOLLOWING[self.state], (
            f"{self.state.name} to {report.state.name}"
        )
        self.state = report.state
        assert isnan(report.progress) or 0.0 <= report.progress <= 1.0
        assert isnan(report.progress) or isfinite(report.score.log_prob), "progress without a score"
        assert report.elapsed_ns >= 0
        if report.task:
            assert report.instruction == report.task.split("\n")[report.stage - 1]
            assert report.stages == len(report.task.split("\n"))
            whole = (report.stage - 1 + report.stage_progress) / report.stages
            assert whole == report.progress or (isnan(report.progress) and isnan(whole))
        else:
            assert (report.instruction, report.stage, report.stages) == ("", 0, 0)


class EpisodeMachine(RuleBasedStateMachine):
    """Random calls of `TaskMonitor`, in any order.

    ``source``: images of a camera; of a file, which do not arrive at any time; or chosen of a file by their
    stamps, which are right.
    """

    @initialize(source=st.sampled_from(["camera", "camera", "file", "chosen"]), changes=CHANGES)
    def make(self, source: str, changes: dict[str, Any]) -> None:
        numbers = count(1)
        self.source = source
        self.monitor = TaskMonitor(replace(SETTINGS, **changes), lambda: f"made-{next(numbers)}")
        self.record = Record()
        self.now_ns = 5 * NS_PER_S
        self.stamp_ns = 1_700_000_000 * NS_PER_S  # of the camera's newest image but for outliers
        self.pending: list[ScoreRequest] = []  # what the scorer has not answered yet
        self.names: set[str] = set()  # of episodes so far
        self.task, self.stage = "open the drawer", 1  # what the next episode is of
        self.overrides = NO_OVERRIDES
        self.expect_nothing_of_the_camera()
        self.publish(self.monitor.set_task("open the drawer"))

    def expect_nothing_of_the_camera(self) -> None:
        self.usable_ns: int | None = None  # when the last image that can be used came
        self.believed_ns = 0  # when the last image came whose stamp can be believed
        self.seen_ns = 0  # when the last one came that shows nothing, and may be used for want of better ones
        self.ahead_ns = 0  # by how much stamps went faster than images came, since the newest of the next
        self.firsts_ns: list[int] = []  # stamps of the episode's first frame; with several, some were wrong
        self.over = False  # the file has ended; another one begins with an episode of its own

    def publish(self, outputs: list[Output]) -> list[Output]:
        for output in outputs:
            self.record.take(output)
            self.names |= {output.episode_id}
            if isinstance(output, Event) and output.type is EventType.SUBTASK_SUCCESS:
                self.stage += 1
            elif isinstance(output, Event) and output.type is EventType.SUCCESS:
                self.stage = 1
            elif isinstance(output, ProgressReport) and output.state is State.WAITING_FOR_IMAGES:
                assert (output.task, output.stage) == (self.task, self.stage), "another stage than comes next"
            if isinstance(output, Event) and output.type is EventType.EPISODE_ENDED:
                self.pending.clear()
                self.firsts_ns = []
        return outputs

    def restarted(self, outputs: list[Output]) -> None:
        """Somebody began an episode, or ended one: what came before counts no more."""
        self.publish(outputs)
        self.expect_nothing_of_the_camera()

    # ---- images ---------------------------------------------------------------------------------

    @precondition(lambda self: not self.over)
    @rule(
        step_s=STEPS_S,
        wait_s=st.floats(0.0, 0.6),
        picture=st.sampled_from(list(PICTURES)),
        stamped=st.sampled_from([True] * 7 + [False]),
    )
    def image(self, step_s: float, wait_s: float, picture: str, stamped: bool = True) -> None:
        self.now_ns += round(wait_s * NS_PER_S)
        step_ns = round(step_s * NS_PER_S)
        if self.source == "chosen":
            step_ns = max(1, step_ns)
        stamp_ns = max(1, self.stamp_ns + step_ns)
        if abs(step_ns) <= 4 * NS_PER_S or self.source == "chosen":
            self.stamp_ns = stamp_ns  # else it was an outlier, and the next image is in line again
        if not stamped and self.source != "chosen":
            stamp_ns = self.monitor.filled_stamp(0, self.now_ns)
            assert stamp_ns in (0, self.now_ns)
        self.show(stamp_ns, picture)

    @precondition(lambda self: not self.over)
    @rule(
        many=st.integers(2, 15),
        step_s=st.sampled_from([0.1, 0.5]),
        start_s=STEPS_S,
        picture=st.sampled_from(["tiny", "tiny", "scene", "another scene", "grey"]),
    )
    def images(self, many: int, step_s: float, start_s: float, picture: str) -> None:
        """A stretch of a healthy camera from any stamp on: without it hardly an episode would grow."""
        if self.source != "chosen":
            self.stamp_ns = max(NS_PER_S, self.stamp_ns + round(start_s * NS_PER_S))
        for _ in range(many):
            self.image(step_s, step_s / 2, picture)

    def show(self, stamp_ns: int, picture: str) -> None:
        watching, before_ns = self.monitor.watching, self.monitor.newest_stamp_ns
        firsts_ns = self.firsts_ns
        arrival_ns = self.now_ns if self.source == "camera" else None
        due, outputs = self.monitor.observe(stamp_ns, arrival_ns, trusted=self.source == "chosen")
        self.publish(outputs)
        if not watching and self.monitor.watching:
            self.expect_nothing_of_the_camera()  # a bag is played again after an end
        if not due and self.monitor.newest_stamp_ns in (None, before_ns):
            return  # its stamp cannot be believed
        assert self.monitor.newest_stamp_ns == stamp_ns
        if self.source == "camera" and before_ns is not None:
            self.ahead_ns += max(0, stamp_ns - before_ns - (self.now_ns - self.believed_ns))
        self.believed_ns = self.now_ns
        self.check_timeouts(outputs, firsts_ns, stamp_ns)
        answered = self.answer(stamp_ns, picture) if due else PICTURES[picture] is not None
        if answered and picture == "grey":
            self.seen_ns = self.now_ns
        elif answered:
            self.usable_ns = self.now_ns
        timeout_s = self.monitor.time_limit
        if answered and timeout_s and self.firsts_ns and self.monitor.watching:
            youngest_s = (stamp_ns - max(self.firsts_ns) - self.ahead_ns) / NS_PER_S
            assert youngest_s < timeout_s, "time was up, and nothing said so"

    def answer(self, stamp_ns: int, picture: str) -> bool:
        """Pass the image that was asked for; returns whether it can be used."""
        pixels = PICTURES[picture]
        if pixels is None:
            self.monitor.frame_failed("it is no image")
            return False
        refused = self.monitor.ignored
        request, outputs = self.monitor.add_frame(Frame(stamp_ns, pixels, "camera"))
        self.publish(outputs)
        if request is not None:
            assert request.prefix[-1].stamp_ns == stamp_ns and request.prefix[-1].image is pixels
            stamps = [frame.stamp_ns for frame in request.prefix]
            assert stamps == sorted(set(stamps))
            assert not (request.extra and self.pending), "a look while others wait for their score"
            self.pending.append(request)
            if len(request.prefix) == 1:  # the first one, or what came before was wrong or showed nothing
                self.firsts_ns = [*self.firsts_ns, stamp_ns]
                self.ahead_ns = 0
                self.record.newest_ns = 0
        return self.monitor.ignored == refused

    @precondition(lambda self: self.source == "file")
    @rule()
    def file_ends(self) -> None:
        self.over = True
        due, outputs = self.monitor.finish()
        self.publish(outputs)
        if due:
            assert self.monitor.newest_stamp_ns is not None
            self.answer(self.monitor.newest_stamp_ns, "tiny")
        assert self.monitor.finish() == (False, [])

    # ---- scores ---------------------------------------------------------------------------------

    @precondition(lambda self: self.pending)
    @rule(log_prob=SCORES, static=STATIC_SCORES, data=st.data())
    def score(self, log_prob: float, static: float, data: st.DataObject) -> None:
        """The scorer answers a request; those before it were replaced by it, however old it is."""
        self.give_score(data.draw(st.integers(0, len(self.pending) - 1)), log_prob, static)

    @precondition(lambda self: self.pending)
    @rule(log_probs=st.lists(st.sampled_from([-8.0, -0.1, -0.1]), min_size=2, max_size=6))
    def scores(self, log_probs: list[float]) -> None:
        """A stretch of a healthy scorer, without which no episode would succeed."""
        for log_prob in log_probs:
            if self.pending:
                self.give_score(0, log_prob, -8.0)

    @precondition(lambda self: not self.over and not self.pending)
    @rule(low=st.integers(2, 8), high=st.integers(2, 12))
    def work(self, low: int, high: int) -> None:
        """A robot that is done: every score is there before the next image, so that there are extra looks."""
        for log_prob in [-8.0] * low + [-0.1] * high:
            if self.source == "chosen" or self.monitor.watching:
                self.image(0.1, 0.1, "tiny")
            while self.pending:
                self.give_score(0, log_prob, -8.0)

    def give_score(self, chosen: int, log_prob: float, static: float) -> None:
        request = self.pending[chosen]
        del self.pending[: chosen + 1]
        newest = request.prefix[-1]
        ages_ns = [newest.stamp_ns - first_ns for first_ns in self.firsts_ns]
        score = PrefixScore(log_prob, -1.0, static, num_frames=len(request.prefix))
        report = self.monitor.report
        for output in self.publish(self.monitor.add_score(request, score)):
            if isinstance(output, ProgressReport) and output.state is State.WAITING_FOR_IMAGES:
                assert self.record.ended and output.stage > 1, "the next stage, as the one before is done"
                continue
            if request.extra and isinstance(output, ProgressReport):
                assert (output.state, output.score) == (State.SUCCEEDED, report.score), "it is no score"
                assert output.stamp == report.stamp
                continue
            assert output.stamp == newest.stamp, "what is said of a score has the stamp of its newest frame"
            if request.extra and isinstance(output, Reward):
                assert output.terminated and output.reward == 0.0
            if isinstance(output, ProgressReport):
                # A jump of the stamps ahead is no time that has passed.
                assert any(age - self.ahead_ns <= output.elapsed_ns <= age for age in ages_ns), "not its age"
                assert repr(output.score) == repr(score)
            elif isinstance(output, Event) and output.type is EventType.SUCCESS:
                assert isfinite(log_prob), "success by what is no number"

    @precondition(lambda self: self.pending and self.pending[0].extra)
    @rule()
    def no_time_for_it(self) -> None:
        self.monitor.leave_out(self.pending.pop(0))

    @precondition(lambda self: self.pending)
    @rule()
    def scorer_fails(self) -> None:
        newest = self.pending[0].prefix[-1]
        for output in self.publish(self.monitor.scorer_failed(self.pending.pop(0), "out of memory")):
            if isinstance(output, ProgressReport):
                assert output.trouble == "no score: out of memory" and output.message.endswith(output.trouble)
                continue
            assert isinstance(output, Event) and output.type is EventType.SCORER_ERROR
            assert output.stamp == newest.stamp and "(-" not in output.message

    # ---- the clock ------------------------------------------------------------------------------

    @precondition(lambda self: self.source == "camera")
    @rule(
        wait_s=st.sampled_from([0.2, 0.2, 1.0, 2.5, 7.0]),
        held=st.sampled_from(["", "", "", "stopped", "paused"]),
    )
    def clock(self, wait_s: float, held: str) -> None:
        wait_ns = round(wait_s * NS_PER_S)
        self.now_ns += wait_ns
        stopped_ns, paused_ns = wait_ns * (held == "stopped"), wait_ns * (held == "paused")
        if self.usable_ns is None:
            self.usable_ns = self.now_ns
        self.usable_ns = min(self.usable_ns + stopped_ns, self.now_ns)
        self.seen_ns = min(self.seen_ns + stopped_ns, self.now_ns)
        silent_ns = self.now_ns - self.usable_ns
        longest_ns = self.now_ns - (min(self.usable_ns, self.seen_ns) if self.seen_ns else self.usable_ns)
        timeout_ns = self.monitor.settings.stale_timeout * NS_PER_S
        firsts_ns, newest_ns = self.firsts_ns, self.monitor.newest_stamp_ns
        was_stale = bool(self.monitor.stale_reason)
        outputs = self.monitor.check_clock(
            self.now_ns, lambda: "the camera is off", stopped_ns=stopped_ns, paused_ns=paused_ns
        )
        said = [o for o in self.publish(outputs) if isinstance(o, Event) and o.type is EventType.STALE_IMAGES]
        if said:
            assert not was_stale, "said once"
            assert longest_ns >= timeout_ns - UNSEEN_NS, "images were there"
        if self.monitor.watching and min(silent_ns, self.now_ns - self.seen_ns) >= timeout_ns + UNSEEN_NS:
            assert self.monitor.stale_reason, "no image can be used, and nothing says so"
        if newest_ns is not None:
            self.check_timeouts(outputs, firsts_ns, newest_ns + self.now_ns - self.believed_ns)

    def check_timeouts(self, outputs: list[Output], firsts_ns: list[int], newest_ns: int) -> None:
        """Time is up only for an episode that is as old as that."""
        if any(isinstance(output, Event) and output.type is EventType.TIMEOUT for output in outputs):
            timeout_s = self.monitor.time_limit
            assert firsts_ns and timeout_s > 0.0
            if self.overrides.timeout:
                return  # earlier episodes of the task count as well
            assert (newest_ns - min(firsts_ns)) / NS_PER_S >= timeout_s, "time was not up"

    # ---- people ---------------------------------------------------------------------------------

    @rule(
        instruction=INSTRUCTIONS,
        episode_id=EPISODE_IDS,
        stage=st.sampled_from([0, 0, 0, 1, 2, 4]),
        overrides=st.one_of(st.just(NO_OVERRIDES), OVERRIDES),
    )
    def set_task(self, instruction: str, episode_id: str, stage: int, overrides: Overrides) -> None:
        before = self.monitor.report
        stages = len(instruction.split("\n"))
        refused = bool(instruction) and stage > stages
        refused |= "\ufffd" in instruction or len(episode_id) > 200 or not episode_id.isprintable()
        refused |= bool(episode_id) and episode_id in self.names
        if refused:
            with pytest.raises((InstructionError, EpisodeIdError, StageError)):
                self.monitor.set_task(instruction, episode_id, stage=stage, overrides=overrides)
            assert self.monitor.report is before
            return
        self.names |= {episode_id}
        self.task, self.stage, self.overrides = instruction, max(stage, 1), overrides
        outputs = self.monitor.set_task(instruction, episode_id, stage=stage, overrides=overrides)
        self.restarted(outputs)
        threshold = self.monitor.settings_in_force.success.threshold
        assert threshold == (overrides.success_threshold or self.monitor.settings.success.threshold)
        if instruction and self.monitor.enabled:
            assert self.monitor.report.state is State.WAITING_FOR_IMAGES
            assert self.monitor.report.episode_id == episode_id or not episode_id
        else:
            assert self.monitor.report.state is State.IDLE

    @rule()
    def reset(self) -> None:
        self.overrides = NO_OVERRIDES
        self.restarted(self.monitor.reset())
        assert self.monitor.report.task == self.task
        assert self.monitor.report.stage == (self.stage if self.task else 0)
        assert self.monitor.settings_in_force == self.monitor.settings

    @rule(enabled=st.sampled_from([True, True, False]))
    def enable(self, enabled: bool) -> None:
        if enabled == self.monitor.enabled:
            assert self.monitor.set_enabled(enabled) == []
            return
        self.overrides = NO_OVERRIDES
        self.restarted(self.monitor.set_enabled(enabled))
        assert self.monitor.report.task == self.task and self.monitor.enabled is enabled

    @rule(changes=CHANGES)
    def change_settings(self, changes: dict[str, Any]) -> None:
        self.monitor.settings = replace(self.monitor.settings, **changes)

    # ---- what holds between any two calls ---------------------------------------------------------

    @invariant()
    def what_it_is_asked_agrees_with_what_it_said(self) -> None:
        report, monitor, record = self.monitor.report, self.monitor, self.record
        assert report.state is record.state
        begun = bool(record.open)
        assert monitor.watching == (bool(report.episode_id) and report.episode_id not in record.ended)
        assert not begun or (monitor.watching and report.episode_id == record.open)
        succeeded = begun and EventType.SUCCESS in record.kinds
        if succeeded:
            assert report.state is State.SUCCEEDED
        elif begun:
            assert report.state in (State.RUNNING, State.STALLED, State.STALE, State.WAITING_FOR_IMAGES)
        elif monitor.watching:
            assert report.state in (State.WAITING_FOR_IMAGES, State.STALE)
        else:
            assert report.state in (State.IDLE, State.SUCCEEDED, State.FAILED)
        assert bool(monitor.stale_reason) == (monitor.watching and report.state is State.STALE) or succeeded
        if not monitor.enabled:
            assert report.state is State.IDLE


def test_a_jump_of_the_stamps_ahead_is_no_age() -> None:
    """Such a sequence is drawn too rarely to be left to chance."""
    machine = EpisodeMachine()
    machine.make("camera", {"camera_fixed": False, "stale_timeout": 0.5, "sample_rate": 2.0})
    machine.images(many=6, step_s=0.1, start_s=0.1, picture="scene")
    machine.scores([-8.0, -8.0])
    machine.image(step_s=4.0, wait_s=0.0, picture="scene")
    machine.images(many=12, step_s=0.1, start_s=0.1, picture="scene")
    first_ns = machine.firsts_ns[0]
    machine.scores([-8.0, -8.0, -8.0])
    report = machine.monitor.report
    assert report.stamp.ns - first_ns > 5 * NS_PER_S > 2 * report.elapsed_ns


TestEpisodes = EpisodeMachine.TestCase
# A plan of calls finds what a single example does not; more plans find more than longer ones.
TestEpisodes.settings = settings(stateful_step_count=40, max_examples=2 * settings().max_examples)
