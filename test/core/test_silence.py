"""What counts as silence, and what it does: the state is true, whatever the images lack."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import pytest

from topreward_ros.core.episode import TaskMonitor
from topreward_ros.core.episode_ids import LONGEST, EpisodeIdError, EpisodeIds
from topreward_ros.core.events import EventType
from topreward_ros.core.frames import NS_PER_S, Frame
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.core.outputs import Event, Output, ProgressReport, Reward, State
from topreward_ros.core.progress import PrefixScore
from topreward_ros.defaults import monitor_defaults

PIXEL = np.zeros((1, 1, 3), np.uint8)
WIDE, TALL = np.zeros((10, 20, 3), np.uint8), np.zeros((20, 10, 3), np.uint8)


class Live:
    """A monitor on a wall clock that is looked at five times a second, and a 10 Hz camera beside it."""

    def __init__(self, episode_id: str = "", **changes: Any) -> None:
        # Its robot rests, which is a stall and nothing of these tests.
        settings = MonitorSettings.from_parameters(monitor_defaults() | {"stall_after": 0.0} | changes)
        numbers = count(1)
        self.monitor = TaskMonitor(settings, lambda: f"episode-{next(numbers)}")
        self.outputs: list[Output] = self.monitor.set_task("open the drawer", episode_id)
        self.now = 1000.0  # of the wall clock, by which images arrive
        self.stamp = 100.0
        self.decoded = 0
        self.log_prob = -4.0

    @property
    def state(self) -> State:
        return self.monitor.report.state

    @property
    def events(self) -> list[Event]:
        return [output for output in self.outputs if isinstance(output, Event)]

    @property
    def event_types(self) -> list[EventType]:
        return [event.type for event in self.events]

    @property
    def rewards(self) -> list[Reward]:
        return [output for output in self.outputs if isinstance(output, Reward)]

    def look(self, **what: int) -> None:
        self.outputs += self.monitor.check_clock(round(self.now * NS_PER_S), **what)

    def run(
        self,
        seconds: float,
        *,
        images: bool = True,
        unreadable: str = "",
        picture: np.ndarray = PIXEL,
        speed: float = 1.0,
        paused: bool = False,
    ) -> None:
        """``speed``: of the stamps against the wall clock; 0: they stand still."""
        for k in range(round(seconds * 10)):
            self.now += 0.1
            self.stamp += 0.1 * speed
            if images:
                self._image(unreadable, picture)
            if k % 2:
                self.look(paused_ns=NS_PER_S // 5 if paused else 0)

    def _image(self, unreadable: str, picture: np.ndarray) -> None:
        stamp_ns = round(self.stamp * NS_PER_S)
        wanted, outputs = self.monitor.observe(stamp_ns, round(self.now * NS_PER_S))
        self.outputs += outputs
        if not wanted:
            return
        self.decoded += 1
        if unreadable:
            self.monitor.frame_failed(unreadable)
            return
        request, outputs = self.monitor.add_frame(Frame(stamp_ns, picture))
        self.outputs += outputs
        if request is not None:
            score = PrefixScore(self.log_prob, -1.0, -8.0, num_frames=len(request.prefix))
            self.outputs += self.monitor.add_score(request, score)

    def time_to_stale(self, **kind: Any) -> float:
        """For how long images of a kind must come until the state is STALE [s]."""
        before = self.now
        while self.state is not State.STALE:
            assert self.now - before < 60.0, "it stays RUNNING for ever"
            self.run(0.2, **kind)
        return self.now - before


def test_the_silence_of_an_episode_counts_from_its_begin_and_not_from_the_next_look() -> None:
    live = Live(stale_timeout=3.0)
    for begin in (
        lambda now_ns: live.monitor.set_task("open the drawer", now_ns=now_ns),
        lambda now_ns: live.monitor.reset(now_ns=now_ns),
        lambda now_ns: (
            live.monitor.set_enabled(False, now_ns=now_ns) + live.monitor.set_enabled(True, now_ns=now_ns)
        ),
    ):
        begun = live.now
        begin(round(begun * NS_PER_S))
        for since in (0.19, 2.9):
            live.now = begun + since
            live.look()
            assert live.state is State.WAITING_FOR_IMAGES, since
        live.now = begun + 3.0
        live.look()
        assert live.state is State.STALE


def test_an_episode_that_stamps_begin_waits_from_then_on() -> None:
    """The one before has ended, and nobody looked at images since."""
    live = Live(stale_timeout=2.0, episode_timeout=1.0)
    live.run(3.0)
    assert live.state is State.FAILED
    live.run(1.5, unreadable="it is no image")
    live.stamp -= 20.0
    begun = live.now
    while live.state is not State.WAITING_FOR_IMAGES:
        assert live.now - begun < 2.0
        live.run(0.1, unreadable="it is no image")
    begun = live.now
    live.now += 1.9
    live.look()
    assert live.state is State.WAITING_FOR_IMAGES
    live.now = begun + 2.0
    live.look()
    assert live.state is State.STALE


@pytest.mark.parametrize("sample_rate", [0.1, 0.5, 2.0, 10.0])
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ({"images": False}, "no image comes"),
        ({"unreadable": "encoding '8UC7' is not one of ours"}, "encoding '8UC7' is not one of ours"),
        ({"speed": 0.0}, "is that of the one before, as where a clock stands still"),
    ],
)
def test_silence_counts_from_the_last_image_that_could_be_used(
    kind: dict[str, Any], reason: str, sample_rate: float
) -> None:
    live = Live(sample_rate=sample_rate)
    live.run(12.3)
    assert 4.3 <= live.time_to_stale(**kind) <= 5.3  # stale_timeout = 5
    live.run(30.0, **kind)
    assert live.event_types == [EventType.EPISODE_STARTED, EventType.STALE_IMAGES]
    assert reason in live.events[-1].message and reason in live.monitor.stale_reason
    live.run(1.0)
    assert live.state is State.RUNNING and not live.monitor.stale_reason


def test_what_stands_stays_true_while_a_silence_goes_on() -> None:
    """The state is latched: whoever looks at it after a minute reads what was said at first."""
    live = Live(stale_timeout=1.0)
    live.run(2.0)
    told = set()
    for second in range(1, 60):
        live.run(1.0, images=False)
        said = live.monitor.report.message, live.monitor.stale_reason, live.events[-1].message
        told |= set(said) if second > 1 else set()
        assert live.monitor.silent_s == pytest.approx(second)
    assert told == {"no image that can be used for more than 1 s (stale_timeout): no image comes"}


def test_the_reason_is_the_one_of_now() -> None:
    live = Live(stale_timeout=1.0)
    live.run(2.0)
    live.run(3.0, images=False)
    assert live.monitor.report.message.endswith(": no image comes")
    events, outputs = len(live.events), len(live.outputs)
    for why in ("no colour", "too short"):
        live.run(1.0, unreadable=why)
        assert live.state is State.STALE and live.monitor.report.message.endswith(f": {why}")
    assert len(live.events) == events, "it is told once"
    told = [output.waits for output in live.outputs[outputs:] if isinstance(output, ProgressReport)]
    assert len(told) == len(set(told)) >= 2, "and the state when the reason is another"


def test_a_reason_is_said_once() -> None:
    """A picture that stands still is news of the score, too."""
    frozen = "the picture has been the same for more than 2 s"
    report = ProgressReport(state=State.STALE, waits=f"no image that can be used: {frozen}", trouble=frozen)
    assert report.message == report.waits
    assert replace(report, news="of the score").message == f"{report.waits}; of the score"


def test_what_is_latched_is_not_of_one_score() -> None:
    report = ProgressReport(state=State.RUNNING, trouble="no score: out of memory", standing="weak")
    assert replace(report, news="the dwell starts anew").lasting == report
    assert report.message == "no score: out of memory; weak"


def test_another_timeout_is_heeded() -> None:
    live = Live(stale_timeout=1.0)
    live.run(2.0)
    live.run(5.0, images=False)
    assert "for more than 1 s (stale_timeout)" in live.monitor.stale_reason
    live.monitor.settings = replace(live.monitor.settings, stale_timeout=60.0)
    live.run(0.2, images=False)
    assert live.state is State.RUNNING and not live.monitor.stale_reason
    live.run(54.0, images=False)
    assert len(live.events) == 2
    live.run(2.0, images=False)
    assert live.event_types[-1] is EventType.STALE_IMAGES and len(live.events) == 3


def test_one_picture_that_cannot_be_read_is_no_silence() -> None:
    live = Live(sample_rate=0.1, stale_timeout=0.5)
    live.run(3.0)
    for _ in range(20):
        live.run(0.1, unreadable="torn")
        live.run(1.9)
    assert live.event_types == [EventType.EPISODE_STARTED]


def test_looking_at_pictures_that_are_not_due_is_rare() -> None:
    live = Live(sample_rate=2.0)
    live.run(20.0)
    assert live.decoded == 40
    slow = Live(sample_rate=0.1)
    slow.run(20.0)
    # Two a second, to see that they can be read; and as many are scored as are due.
    assert 30 <= slow.decoded <= 45 and len(slow.rewards) == 2


def test_a_file_is_not_looked_at_between_slots() -> None:
    monitor = Live(sample_rate=0.1).monitor
    assert [monitor.observe(k * NS_PER_S // 10)[0] for k in range(5)] == [True] * 5  # none was taken
    monitor.add_frame(Frame(4 * NS_PER_S // 10, PIXEL))
    assert not any(monitor.observe(k * NS_PER_S // 10)[0] for k in range(5, 100))


def test_pictures_of_another_shape_name_it() -> None:
    live = Live()
    live.run(2.0, picture=WIDE)
    live.run(0.8, picture=TALL)
    assert EventType.STALE_IMAGES not in live.event_types
    assert live.event_types[-3:] == [
        EventType.ABORTED,
        EventType.EPISODE_ENDED,
        EventType.EPISODE_STARTED,
    ]
    live.run(3.0, picture=TALL)
    assert live.state is State.RUNNING


def test_time_is_up_without_images_and_says_by_which_clock() -> None:
    live = Live(episode_timeout=8.0)
    live.run(4.0)
    live.run(20.0, images=False)
    assert live.event_types[-3:] == [EventType.STALE_IMAGES, EventType.TIMEOUT, EventType.EPISODE_ENDED]
    assert "8 s, by the wall clock" in live.events[-2].message
    assert live.state is State.FAILED
    assert live.rewards[-1].truncated


@pytest.mark.parametrize("kind", [{"unreadable": "torn"}, {"speed": 0.0}, {"images": False}, {}])
def test_time_is_up_in_time_whatever_the_images_are(kind: dict[str, Any]) -> None:
    live = Live(episode_timeout=20.0)
    live.run(2.0)
    live.run(17.7, **kind)
    assert EventType.TIMEOUT not in live.event_types
    live.run(0.8, **kind)
    assert live.event_types[-2:] == [EventType.TIMEOUT, EventType.EPISODE_ENDED]
    by = "by the stamps" if "unreadable" in kind or not kind else "by the wall clock"
    assert by in live.events[-2].message


@pytest.mark.parametrize("speed", [0.1, 0.5, 4.0])
def test_a_bag_at_another_rate_has_the_time_of_its_stamps(speed: float) -> None:
    live = Live(episode_timeout=3.0, sample_rate=1.0)
    live.run(2.8 / speed, speed=speed)
    assert live.event_types == [EventType.EPISODE_STARTED]
    live.run(0.6 / speed, speed=speed)
    assert live.event_types[-2:] == [EventType.TIMEOUT, EventType.EPISODE_ENDED]


def test_simulated_time_that_has_been_standing_ends_no_episode_yet() -> None:
    live = Live(episode_timeout=8.0)
    live.run(4.0)
    for k in range(1, 120):
        live.now += 0.5
        live.look(stands_ns=k * NS_PER_S // 2)
    assert live.state is State.STALE and EventType.TIMEOUT not in live.event_types
    live.look(paused_ns=119 * NS_PER_S // 2)
    live.run(3.5, images=False)
    assert EventType.TIMEOUT not in live.event_types
    live.run(1.0, images=False)
    assert live.event_types[-2:] == [EventType.TIMEOUT, EventType.EPISODE_ENDED]


@pytest.mark.parametrize("ahead_s", [100.0, 1.7e9])
def test_stamps_that_jump_ahead_make_an_episode_no_older_than_it_is(ahead_s: float) -> None:
    """A clock that is set, or another publisher."""
    live = Live(episode_timeout=20.0)
    live.run(3.0)
    live.stamp += ahead_s
    live.run(16.5)
    assert live.event_types == [EventType.EPISODE_STARTED] and live.state is State.RUNNING
    live.run(1.0)
    assert live.event_types[-2:] == [EventType.TIMEOUT, EventType.EPISODE_ENDED]
    assert "by the stamps" in live.events[-2].message


def test_a_pause_is_time_and_so_is_what_a_stopped_process_has_missed() -> None:
    live = Live(episode_timeout=20.0)
    live.run(3.0)
    live.now += 12.0
    live.stamp += 12.0
    live.look(stopped_ns=12 * NS_PER_S)
    live.run(4.5)
    assert live.event_types == [EventType.EPISODE_STARTED]
    live.run(1.0)
    assert live.event_types[-2:] == [EventType.TIMEOUT, EventType.EPISODE_ENDED]


def test_silence_after_a_jump_is_timed_by_the_wall_clock() -> None:
    live = Live(episode_timeout=20.0)
    live.run(3.0)
    live.stamp += 1000.0
    live.run(3.0)
    live.run(13.5, images=False)
    assert live.event_types[-1] is EventType.STALE_IMAGES
    live.run(1.0, images=False)
    assert live.event_types[-2:] == [EventType.TIMEOUT, EventType.EPISODE_ENDED]


def test_a_file_has_no_arrival_and_its_pauses_count() -> None:
    monitor = Live(episode_timeout=20.0).monitor
    ended: list[Output] = []
    for stamp_s in (0.0, 0.1, 0.2, 0.3, 50.0, 50.1, 50.2):
        wanted, outputs = monitor.observe(round(stamp_s * NS_PER_S))
        ended += outputs
        if wanted:
            monitor.add_frame(Frame(round(stamp_s * NS_PER_S), PIXEL))
    assert EventType.TIMEOUT in [output.type for output in ended if isinstance(output, Event)]


def test_simulated_time_that_stands_still_ends_no_episode() -> None:
    live = Live(episode_timeout=8.0)
    live.run(4.0)
    live.run(60.0, images=False, paused=True, speed=0.0)
    assert live.state is State.STALE and EventType.TIMEOUT not in live.event_types
    live.run(2.0)
    assert live.state is State.RUNNING


def test_a_process_that_was_stopped_does_not_blame_the_camera() -> None:
    live = Live(episode_timeout=30.0)
    live.run(4.0)
    live.now += 60.0
    live.look(stopped_ns=60 * NS_PER_S)
    live.stamp += 0.1
    live.run(4.0)
    assert live.event_types == [EventType.EPISODE_STARTED]
    live.run(6.0, images=False)
    assert live.event_types[-1] is EventType.STALE_IMAGES


def test_time_that_is_up_after_a_success_is_no_failure() -> None:
    live = Live(end_episode_on_success=False, episode_timeout=10.0)
    live.run(3.0)
    live.log_prob = -0.01
    live.run(9.0)
    kinds = live.event_types
    assert kinds == [EventType.EPISODE_STARTED, EventType.SUCCESS, EventType.EPISODE_ENDED]
    assert live.state is State.SUCCEEDED
    assert "beyond its success" in live.events[-1].message
    assert live.rewards[-1].truncated and not live.rewards[-1].terminated


def test_a_named_episode_goes_on_under_its_name_and_a_number() -> None:
    live = Live("pick-7")
    for _ in range(3):
        live.stamp = 100.0
        live.run(3.0)
    started = [event.episode_id for event in live.events if event.type is EventType.EPISODE_STARTED]
    assert started == ["pick-7", "pick-7.2", "pick-7.3"]
    live.monitor.reset()
    assert live.monitor.report.episode_id == "episode-1"


@pytest.mark.parametrize(
    "name", ["pick-7", "pick-7.2", " ", "pick-8 ", "two\nlines", "\x1b[31m", "\u202e", "x" * (LONGEST + 1)]
)
def test_a_name_that_cannot_be_changes_nothing(name: str) -> None:
    live = Live("pick-7")
    live.run(3.0)
    live.stamp = 100.0
    live.run(3.0)
    before = live.monitor.report
    with pytest.raises(EpisodeIdError, match="leave it empty"):
        live.monitor.set_task("close the drawer", name)
    assert live.monitor.report == before
    live.monitor.set_task("close the drawer", "Grünes Auto 7")
    assert live.monitor.report.episode_id == "Grünes Auto 7"


def test_names_that_were_given_are_not_remembered_without_end() -> None:
    ids = EpisodeIds()
    for k in range(20_000):
        ids.give(f"episode {k}")
    ids.give("episode 0")
    with pytest.raises(EpisodeIdError):
        ids.give("episode 19999")


@pytest.mark.parametrize("rate", [0.2, 0.25, 0.4])
def test_a_slow_camera_is_not_silent_until_its_second_stamp_is_believed(rate: float) -> None:
    live = Live(stale_timeout=1.1 / rate)
    for _ in range(4):
        live.run(0.1)
        live.run(1 / rate - 0.1, images=False)
    assert live.event_types == [EventType.EPISODE_STARTED] and live.monitor.ignored.out_of_line == 0


def test_a_pause_is_over_with_the_first_image_after_it() -> None:
    """The stamp of a camera of 1 Hz is believed with the third."""
    live = Live(stale_timeout=5.0)
    for pause_s in (1.0, 1.0, 1.0, 4.5, 1.0, 1.0, 1.0):
        live.run(0.1)
        live.run(pause_s - 0.1, images=False)
    assert live.event_types == [EventType.EPISODE_STARTED]


@pytest.mark.parametrize("off_s", [0.0, 0.6, 3600.0, -1.0, -3600.0])
def test_the_first_image_after_a_silence_is_not_said_to_be_wrong(off_s: float) -> None:
    """A driver that was started again, with any clock."""
    live = Live(stale_timeout=2.0)
    live.run(4.0)
    live.run(8.0, images=False)
    live.stamp += off_s
    live.run(0.1)
    live.look()
    assert live.state is State.STALE
    assert "the next ones" in live.monitor.report.waits
    live.run(0.3)
    assert live.state is State.RUNNING


@pytest.mark.parametrize(
    ("off_s", "unreadable", "why"),
    [(7.0, "", "the stamp of the newest image is out of line"), (0.0, "torn", "follows a pause")],
)
def test_an_image_that_is_wrong_puts_off_no_silence(off_s: float, unreadable: str, why: str) -> None:
    live = Live(stale_timeout=5.0)
    live.run(1.0)
    live.run(1.0, unreadable=unreadable or "torn")
    live.run(3.5, images=False)
    live.stamp += off_s
    live.run(0.1, unreadable=unreadable)
    live.run(1.0, images=False)
    assert live.state is State.STALE and why in live.events[-1].message
