"""When bags of episodes begin and end, what belongs into them, and their names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from topreward_ros.core.episode_bags import (
    Begin,
    EpisodeBags,
    Finish,
    HoldUps,
    LatchedMessages,
    Received,
    RecentMessages,
    bag_name,
)
from topreward_ros.core.events import EventType
from topreward_ros.core.outcome import Outcome
from topreward_ros.core.outputs import State

S = 10**9
STARTED, ENDED = EventType.EPISODE_STARTED, EventType.EPISODE_ENDED


class Follower:
    """A policy, with a monitor that is there and says something every second, as far as a test lets it."""

    def __init__(self) -> None:
        self.bags = EpisodeBags(after_s=1.0, monitor_timeout_s=10.0)
        self.now_ns = 0
        self.begun: list[Begin] = []
        self.finished: list[Finish] = []

    def say(self, kind: EventType, episode: str) -> None:
        self.begun += self.bags.event(self.now_ns, kind, episode, f"task of {episode}")

    def report(self, state: State, episode: str) -> None:
        self.begun += self.bags.report(self.now_ns, state, episode, f"task of {episode}")

    def wait(self, seconds: float, *, monitor_there: bool = True) -> None:
        end_ns = self.now_ns + round(seconds * S)
        while self.now_ns < end_ns:
            self.now_ns += S // 10
            self.finished += self.bags.clock(self.now_ns, monitor_there=monitor_there)

    def outcomes(self) -> list[tuple[str, Outcome, bool]]:
        return [(one.episode_id, one.outcome, one.from_the_start) for one in self.finished]


@pytest.mark.parametrize(
    ("events", "outcome"),
    [
        ([EventType.SUCCESS], Outcome.SUCCESS),
        ([EventType.SUCCESS, EventType.ABORTED], Outcome.SUCCESS),  # watched beyond its success
        ([EventType.SUBTASK_SUCCESS], Outcome.SUBTASK_SUCCESS),
        ([EventType.STALE_IMAGES, EventType.TIMEOUT], Outcome.TIMEOUT),
        ([EventType.ABORTED], Outcome.ABORTED),
        ([EventType.FAILURE, EventType.ABORTED], Outcome.FAILURE),
        ([], Outcome.ENDED),
    ],
)
def test_the_outcome_is_what_the_events_said(events: list[EventType], outcome: Outcome) -> None:
    follower = Follower()
    for kind in (STARTED, *events, ENDED):
        follower.say(kind, "a")
        follower.wait(0.1)
    follower.wait(0.7)
    assert not follower.finished and follower.bags.takers("a") == ("a",)
    follower.wait(0.3)
    assert follower.outcomes() == [("a", outcome, True)]
    assert follower.begun == [Begin("a", "task of a")]


def test_a_recorder_that_was_held_up_goes_by_when_messages_came() -> None:
    """Stopped from 4 s to 24 s, at 5 s of which the episode ended; what waited comes in some order."""
    follower, holdups = Follower(), HoldUps()
    follower.say(STARTED, "a")
    for now_ns in range(0, 4 * S + 1, S // 2):
        assert holdups.turn(now_ns) == 0
        assert holdups.arrival_ns("/image", now_ns, late_ns=-3 * S) == now_ns, "by another clock"
        assert holdups.arrival_ns("/task_event", now_ns, late_ns=S // 10) == now_ns
    follower.wait(4.0)
    span_ns = holdups.turn(24 * S)
    assert span_ns == 20 * S and holdups.turn(24 * S) == 0
    follower.bags.held_up(span_ns)
    follower.now_ns = 24 * S
    follower.wait(0.1)
    assert not follower.finished, "the monitor was not silent, nobody has listened"

    def came(topic: str, sent_s: float, clock_s: float = 0.0) -> int:
        return holdups.arrival_ns(topic, follower.now_ns, follower.now_ns - round((sent_s + clock_s) * S))

    arrival_ns = came("/task_event", 4.9)
    assert arrival_ns == 5 * S
    follower.begun += follower.bags.event(follower.now_ns, ENDED, "a", "", arrival_ns)
    for sent_s, takers in ((4.5, ("a",)), (5.5, ("a",)), (6.5, ()), (23.0, ())):
        assert follower.bags.takers(None, came("/image", sent_s, 3.0)) == takers, sent_s
    assert came("/image", 24.1, 3.0) == follower.now_ns
    assert came("/image", 1.0, 3.0) == follower.now_ns, "it was latched long before"
    assert came("/new", 4.5) == follower.now_ns, "its clock is not known"
    assert follower.bags.takers("a", follower.now_ns) == ("a",), "it names the episode"
    follower.wait(1.1)
    assert follower.outcomes() == [("a", Outcome.ENDED, True)]


@pytest.mark.parametrize(("drift", "jump_s"), [(2e-4, 0.0), (0.0, 3.0)])
def test_a_publishers_clock_that_drifts_or_once_jumped_back_is_believed_as_it_is_now(
    drift: float, jump_s: float
) -> None:
    """It loses 0.2 ms a second for three hours, or was set back by 3 s an hour ago."""
    holdups, now_ns = HoldUps(), 0
    for half in range(2 * 3 * 3600):
        second = half / 2
        now_ns = half * S // 2
        holdups.turn(now_ns)
        late_ns = round((drift * second + (jump_s if second > 7200 else 0.0)) * S)
        holdups.arrival_ns("/image", now_ns, late_ns)
    back_ns = now_ns + 100 * S
    holdups.turn(back_ns)
    came_ns = holdups.arrival_ns("/image", back_ns, late_ns + 40 * S)  # it was sent 40 s ago
    assert came_ns == pytest.approx(now_ns + 60 * S, abs=S // 10)


def test_a_hold_up_after_the_end_closes_no_bag_before_what_waits_is_taken() -> None:
    follower = Follower()
    for kind in (STARTED, ENDED):
        follower.say(kind, "a")
    follower.bags.held_up(20 * S)
    follower.now_ns += 20 * S
    follower.wait(0.9)
    assert not follower.finished and follower.bags.takers(None, S // 2) == ("a",)
    assert follower.bags.takers(None, follower.now_ns) == ()
    follower.wait(0.2)
    assert follower.outcomes() == [("a", Outcome.ENDED, True)]


def test_the_next_episode_does_not_cut_what_comes_after_the_end() -> None:
    follower = Follower()
    for kind, episode in ((STARTED, "a"), (ENDED, "a"), (STARTED, "b")):
        follower.say(kind, episode)
    assert follower.bags.takers("a") == ("a",) and follower.bags.takers("b") == ("b",)
    assert follower.bags.takers(None) == follower.bags.takers("") == ("a", "b")
    assert follower.bags.takers("foreign") == ()
    follower.wait(1.0)
    assert follower.bags.open == ("b",)


def test_an_event_that_comes_twice_or_late_begins_nothing() -> None:
    follower = Follower()
    for kind in (STARTED, STARTED, ENDED, ENDED):
        follower.say(kind, "a")
    follower.wait(1.0)
    for kind in (STARTED, EventType.SUCCESS, ENDED):
        follower.say(kind, "a")
    follower.report(State.RUNNING, "a")
    assert follower.begun == [Begin("a", "task of a")] and not follower.bags.open


def test_an_episode_that_runs_already_is_recorded_and_said_not_to_be_whole() -> None:
    follower = Follower()
    for state in (State.UNKNOWN, State.IDLE, State.WAITING_FOR_IMAGES, State.STALE, State.SUCCEEDED):
        follower.report(state, "a")
    assert not follower.begun
    follower.report(State.RUNNING, "a")
    follower.say(ENDED, "a")
    follower.wait(1.0)
    assert follower.outcomes() == [("a", Outcome.ENDED, False)]
    follower.report(State.RUNNING, "b")  # which may overtake the event
    follower.say(STARTED, "b")
    follower.say(ENDED, "b")
    follower.wait(1.0)
    assert follower.outcomes()[1:] == [("b", Outcome.ENDED, True)]


def test_a_monitor_that_vanishes_closes_the_bag() -> None:
    follower = Follower()
    follower.say(STARTED, "a")
    follower.wait(0.5, monitor_there=False)
    follower.wait(0.5)
    follower.wait(0.9, monitor_there=False)
    assert not follower.finished
    follower.wait(0.3, monitor_there=False)
    assert follower.outcomes() == [("a", Outcome.MONITOR_LOST, True)]
    assert "gone" in follower.finished[0].why


def test_a_monitor_that_is_silent_closes_the_bag_and_may_go_on_in_another() -> None:
    follower = Follower()
    follower.say(STARTED, "a")
    for _ in range(5):
        follower.wait(9.0)
        follower.report(State.STALE, "a")
    assert not follower.finished
    follower.wait(10.1)
    assert follower.outcomes() == [("a", Outcome.MONITOR_LOST, True)]
    follower.report(State.RUNNING, "a")
    assert follower.begun == [Begin("a", "task of a")] * 2
    follower.say(ENDED, "a")
    follower.wait(1.0)
    assert follower.outcomes()[1:] == [("a", Outcome.ENDED, False)]


@pytest.mark.parametrize("state", [State.UNKNOWN, State.WAITING_FOR_IMAGES, State.RUNNING])
def test_a_monitor_that_goes_on_without_the_end_closes_the_bag(state: State) -> None:
    follower = Follower()
    follower.say(STARTED, "a")
    follower.report(state, "" if state is State.UNKNOWN else "b")
    follower.wait(0.9)
    assert not follower.finished
    follower.wait(0.2)
    assert follower.outcomes() == [("a", Outcome.MONITOR_LOST, True)]
    follower = Follower()
    follower.say(STARTED, "a")
    follower.report(state, "b")  # which has overtaken the end
    follower.wait(0.5)
    follower.say(EventType.ABORTED, "a")
    follower.say(ENDED, "a")
    follower.wait(1.1)
    assert follower.outcomes() == [("a", Outcome.ABORTED, True)]


def test_the_end_of_the_recorder_closes_what_is_open() -> None:
    follower = Follower()
    for kind, episode in ((STARTED, "a"), (EventType.SUCCESS, "a"), (ENDED, "a"), (STARTED, "b")):
        follower.say(kind, episode)
    assert [(one.episode_id, one.outcome) for one in follower.bags.stop()] == [
        ("a", Outcome.SUCCESS),
        ("b", Outcome.STOPPED),
    ]


def test_the_last_words_of_an_episode_are_awaited() -> None:
    follower = Follower()
    bags = follower.bags

    def awaits() -> bool:
        return bags.awaits_end(follower.now_ns)

    assert not awaits()
    follower.say(STARTED, "a")
    follower.say(EventType.ABORTED, "a")
    assert awaits(), "EPISODE_ENDED comes behind ABORTED"
    follower.say(ENDED, "a")
    assert awaits(), "another topic may be slower"
    bags.last_reward("somebody else's")
    assert awaits()
    bags.last_reward("a")
    assert not awaits()
    follower.say(STARTED, "without images")
    follower.say(ENDED, "without images")
    assert awaits()
    follower.wait(0.3)
    assert not awaits(), "it has no reward"


def received(at_s: float, size: int = 1, topic: str = "t") -> Received:
    return Received(topic, "k", bytes(size), 0, round(at_s * S))


def test_what_was_received_lately_is_bounded_by_time_and_by_memory() -> None:
    recent = RecentMessages(2.0, most_bytes=10)
    for second in range(5):
        recent.add(received(second))
    assert [message.arrival_ns // S for message in recent.messages()] == [2, 3, 4]
    assert not recent.cut_short_bytes
    recent.add(received(4, size=9))
    assert len(recent.messages()) == 2 and recent.cut_short_bytes == 2
    recent.add(received(4, size=11))
    assert not recent.messages() and recent.cut_short_bytes == 23


def test_latched_messages_are_kept_as_their_publishers_keep_them() -> None:
    latched = LatchedMessages()
    for at in range(3):
        latched.add(received(at, topic="one"), most=1)
        latched.add(received(at, topic="two"), most=2)
    kept = latched.before([])
    assert [(message.topic, message.arrival_ns // S) for message in kept] == [
        ("two", 1),
        ("one", 2),
        ("two", 2),
    ]
    assert latched.before(kept[1:]) == kept[:1]


TASKS = [
    "",
    " ",
    ".",
    "..",
    "/",
    "../../etc/passwd",
    "a/b\0c",
    "-rf *; $(reboot) `x` | & > <",
    "CON",
    "x" * 5000,
    "ä" * 5000,
    "😀 " * 500,
    "\ud800\udc00 lone",
    "\x1b]0;title\x07\n\r\t",
    "\u202ereversed\u200b",
    "word " * 400,
    "你好" * 200,
    "_" * 300,
]


@pytest.mark.parametrize("task", TASKS, ids=range(len(TASKS)))
def test_a_name_is_fit_for_a_file_whatever_the_task_is(task: str, tmp_path: Path) -> None:
    name = bag_name("2026-11-27_12-34-56", task, Outcome.MONITOR_LOST)
    assert name.startswith("2026-11-27_12-34-56_") and name.endswith("_monitor_lost")
    assert "/" not in name and name.isprintable() and len(os.fsencode(name)) < 150
    (tmp_path / f"{name}_1000.partial").mkdir()
    assert len(list(tmp_path.iterdir())) == 1
