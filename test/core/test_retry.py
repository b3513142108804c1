"""What a supervisor does next, one case after the other; test_retry_stream.py has a thousand at once."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from topreward_ros.core.errors import UserError
from topreward_ros.core.events import EventType
from topreward_ros.core.frames import NS_PER_S
from topreward_ros.core.instruction import InstructionError
from topreward_ros.core.outputs import State
from topreward_ros.core.retry import HISTORY, RetryPolicy
from topreward_ros.core.retry_settings import RetrySettings
from topreward_ros.core.retry_state import StateError
from topreward_ros.core.retry_words import (
    Command,
    Heard,
    Log,
    MakeCall,
    Moment,
    Outcome,
    Phase,
    Seen,
    SetTask,
)
from topreward_ros.core.rules import REASONS, Call, RuleError, parse_rule

from . import supervisors


def call(name: str, **more: Any) -> Call:
    usual: dict[str, Any] = {"timeout_s": 2.0, "wait_s": 1.0, "retries": 0, "goes_on": False}
    return Call(name, "Trigger", None, **(usual | more))


SETTINGS = supervisors.settings(
    ("open it", "close it"),
    {"SUCCESS": "next", "TIMEOUT": "retry 2 after 1", "OVERDUE": "stop"},
    {"start": (), "end": (call("end"),), "reset": (call("reset"),), "stop": (call("stop"),)},
)


class Supervised:
    """A policy, a clock, and a world that does at once what it is told, unless a test says otherwise."""

    def __init__(self, rules: dict[str, str] | None = None, **settings: Any) -> None:
        ruled = {reason: parse_rule(reason, rule) for reason, rule in (rules or {}).items()}
        self.settings = replace(SETTINGS, rules={**SETTINGS.rules, **ruled}, **settings)
        self.now = 0.0
        self.numbers = count(1)
        self.sequence = 0
        self.done: list[str] = []  # calls and tasks, in order
        self.stages: list[int] = []  # that the monitor was told to begin with
        self.said: list[str] = []
        self.outcomes: dict[str, list[Outcome | None]] = {}  # of the next calls of a name; None: no answer
        self.unanswered: list[int] = []
        self.new_process()

    def new_process(self) -> None:
        self.policy = RetryPolicy(self.settings, lambda: f"e{next(self.numbers)}")

    def moment(self) -> Moment:
        return Moment(round(self.now * NS_PER_S), round(self.now * NS_PER_S))

    def start(self) -> Supervised:
        self.do(self.policy.start(self.moment()))
        return self

    def do(self, commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, Log):
                self.said.append(command.text)
            elif isinstance(command, MakeCall | SetTask):
                name = command.call.name if isinstance(command, MakeCall) else "task"
                outcome = self.outcomes.get(name, []).pop(0) if self.outcomes.get(name) else Outcome.DONE
                if outcome is not Outcome.ABSENT:
                    if isinstance(command, MakeCall):
                        self.policy.sending(command.token, self.moment())
                    elif command.instruction:
                        self.stages.append(command.stage)
                    self.done.append(command.instruction or "idle" if isinstance(command, SetTask) else name)
                if outcome is None:
                    self.unanswered.append(command.token)
                    continue
                episode = command.episode_id if isinstance(command, SetTask) else ""
                self.do(self.policy.answer(command.token, outcome, "because", self.moment(), episode))

    def tell(self, kind: EventType, episode: str = "", **more: Any) -> None:
        self.sequence += 1
        usual: dict[str, Any] = {"sequence": self.sequence, "calibrated": True}
        heard = Heard(episode_id=episode or self.policy.episode_id, type=kind, **(usual | more))
        self.do(self.policy.on_event(heard, self.moment()))

    def report(self, episode: str | None = None, state: State = State.RUNNING, **more: Any) -> None:
        name = self.policy.episode_id if episode is None else episode
        self.do(self.policy.on_report(Seen(name, state, **more), self.moment()))

    def wait(
        self, seconds: float, *, episode: str | None = None, reports: bool = True, **report: Any
    ) -> None:
        """Let time pass, with a tick every 0.1 s and a report every second."""
        for step in range(round(seconds * 10)):
            self.now = round(self.now + 0.1, 6)
            if reports and step % 10 == 9:
                self.report(episode, **report)
            self.do(self.policy.tick(self.moment()))


def test_a_retry_ends_resets_waits_and_begins_anew_until_all_are_used_up() -> None:
    world = Supervised().start()
    assert world.done == ["open it"] and world.policy.phase is Phase.WATCHING
    for retry in (1, 2):
        world.tell(EventType.TIMEOUT, message="too long")
        world.tell(EventType.EPISODE_ENDED)
        assert world.done[-2:] == ["end", "reset"], "at once"
        world.wait(0.9)
        assert world.done[-1] == "reset"
        world.wait(0.2)
        assert world.done[-1] == "open it" and world.policy.retries["TIMEOUT"] == retry
    world.tell(EventType.TIMEOUT)
    world.wait(0.2)
    assert world.done[-3:] == ["end", "idle", "stop"] or world.done[-3:] == ["end", "stop", "idle"]
    assert world.policy.phase is Phase.STOPPED and world.policy.history[-1].action.startswith("stop (all 2")
    world.wait(200, episode="")
    assert world.done.count("open it") == 3, "it waits for a person"
    world.start()
    assert world.done[-1] == "open it" and not world.policy.retries


def test_retries_are_counted_anew_for_another_task_and_apart_for_each_reason() -> None:
    world = Supervised({"FAILURE": "retry 1 then next", "TIMEOUT": "retry 1"}).start()
    for kind in (EventType.FAILURE, EventType.TIMEOUT, EventType.FAILURE, EventType.FAILURE):
        assert world.policy.phase is Phase.WATCHING
        world.tell(kind)
    tasks = [task for task in world.done if task.endswith("it")]
    assert tasks == ["open it"] * 3 + ["close it"] * 2


def test_success_goes_through_the_list_and_is_done() -> None:
    world = Supervised().start()
    for task in ("close it", "stop"):
        world.tell(EventType.SUCCESS)
        world.tell(EventType.EPISODE_ENDED)
        assert world.done[-1] == task
    world.wait(1.0)
    assert world.policy.phase is Phase.DONE and "idle" not in world.done, "the monitor ended them itself"
    assert world.done.count("reset") == 2
    world.start()
    assert world.done[-1] == "open it", "a list that is over begins anew"


def test_each_event_counts_once_and_only_in_its_episode() -> None:
    world = Supervised({"STALL": "reset"}).start()
    first = world.policy.episode_id
    for episode in ("", "e", f"{first}0", f"{first}.x", f"{first}.1", f"{first}.2.2", "another"):
        world.tell(EventType.SUCCESS, episode=episode or "?")
    world.tell(EventType.SUCCESS, age_s=5.1)
    assert "was published 5.1 s ago" in world.said[-1] and world.done == ["open it"]
    world.tell(EventType.STALL, sequence=20)
    world.tell(EventType.STALL, episode=first, sequence=20)
    world.tell(EventType.SUCCESS, episode=first, sequence=21)
    world.tell(EventType.EPISODE_ENDED, episode=first, sequence=22)
    assert world.done == ["open it", "end", "reset", "open it"]


def test_an_episode_that_goes_on_is_followed_and_its_past_is_not() -> None:
    world = Supervised().start()
    name = world.policy.episode_id
    world.tell(EventType.ABORTED, episode=name)
    world.tell(EventType.EPISODE_ENDED, episode=name)
    assert world.policy.phase is Phase.UNDECIDED
    world.report(f"{name}.2", State.WAITING_FOR_IMAGES)
    assert world.policy.phase is Phase.WATCHING and world.policy.episode_id == f"{name}.2"
    world.tell(EventType.TIMEOUT, episode=name)
    world.wait(SETTINGS.undecided_wait + 2.0)
    assert world.done == ["open it"]
    world.tell(EventType.SUCCESS, episode=f"{name}.3")
    assert world.done[-1] == "close it"


def test_success_without_calibration_counts_only_where_that_is_allowed() -> None:
    world = Supervised({"EPISODE_ENDED": "reset"}).start()
    world.tell(EventType.SUCCESS, calibrated=False)
    world.tell(EventType.EPISODE_ENDED)
    world.wait(9.0)
    assert world.done == ["open it"] and world.policy.phase is Phase.UNDECIDED, "nor does what follows it"
    world.wait(2.0)
    assert world.policy.history[-1].reason == "OVERDUE" and world.policy.phase is Phase.STOPPED
    allowed = Supervised(act_on_uncalibrated=True).start()
    allowed.tell(EventType.SUCCESS, calibrated=False)
    assert allowed.done[-1] == "close it"


def test_end_leaves_the_rest_to_the_rule_of_the_end() -> None:
    world = Supervised({"STALL": "end", "EPISODE_ENDED": "reset"}).start()
    world.tell(EventType.STALL)
    world.wait(0.2)
    assert world.done == ["open it", "end", "idle"]
    world.tell(EventType.ABORTED)
    world.tell(EventType.EPISODE_ENDED)
    world.wait(0.2)
    assert world.done == ["open it", "end", "idle", "reset", "open it"]
    silent = Supervised({"STALL": "end"}).start()
    silent.tell(EventType.STALL)
    silent.wait(5.0, reports=False)
    assert silent.policy.phase is Phase.STOPPED, "EPISODE_ENDED is not waited for without a limit"


def test_a_missing_event_before_the_end_is_waited_for_a_moment() -> None:
    world = Supervised({"EPISODE_ENDED": "stop"}).start()
    world.tell(EventType.EPISODE_STARTED, sequence=1)
    world.tell(EventType.EPISODE_ENDED, sequence=3)
    world.wait(0.1)
    world.tell(EventType.SUCCESS, sequence=2)
    assert world.done[-1] == "close it"
    world.tell(EventType.EPISODE_STARTED, sequence=4)
    world.tell(EventType.EPISODE_ENDED, sequence=6)
    world.wait(0.4)
    assert world.policy.phase is Phase.STOPPED and world.policy.missing == 1


@pytest.mark.parametrize(
    ("outcomes", "resets", "waits", "said", "goes_on"),
    [
        ([Outcome.REFUSED], 1, 0.1, "refused ('because')", False),
        ([Outcome.REFUSED, Outcome.DONE], 2, 1.0, "refused ('because'): retry 1 of 2", True),
        ([Outcome.REFUSED] * 3, 3, 2.0, "refused ('because')", False),
        ([Outcome.ABSENT] * 5 + [Outcome.DONE], 1, 1.0, "waiting up to 1 s", True),
        ([Outcome.ABSENT] * 50, 0, 2.0, "is not there, after 1 s", False),
        ([Outcome.WRONG_TYPE], 1, 0.1, "because", False),
        ([None], 1, 3.0, "has not answered for 2 s; it may have been done", False),
    ],
)
def test_a_call_that_fails(
    outcomes: list[Outcome | None], resets: int, waits: float, said: str, goes_on: bool
) -> None:
    retries = 0 if outcomes == [Outcome.REFUSED] else 2
    world = Supervised(calls={"reset": (call("reset", retries=retries),), "stop": (call("stop"),)}).start()
    world.outcomes["reset"] = list(outcomes)
    world.tell(EventType.SUCCESS)
    world.wait(waits)
    assert world.done.count("reset") == resets and any(said in line for line in world.said), world.said
    assert (world.policy.phase is Phase.WATCHING) == goes_on
    assert goes_on or (world.policy.phase is Phase.STOPPED and world.done[-1] in ("stop", "idle"))
    assert goes_on == (not world.policy.problem)


def test_a_call_that_may_fail_changes_nothing_and_a_late_answer_neither() -> None:
    world = Supervised(calls={"reset": (call("reset", goes_on=True),)}).start()
    world.outcomes["reset"] = [None]
    world.tell(EventType.SUCCESS)
    world.wait(2.2)
    assert world.done == ["open it", "reset", "idle", "close it"]
    assert "may have been done" in world.policy.history[-1].outcome
    world.do(world.policy.answer(world.unanswered[0], Outcome.DONE, "", world.moment()))
    world.wait(1.0)
    assert world.done[-1] == "close it" and world.policy.phase is Phase.WATCHING


def test_a_retry_goes_on_at_the_stage_that_failed() -> None:
    world = Supervised({"FAILURE": "retry 1 then reset"}).start()
    name = world.policy.episode_id
    world.tell(EventType.SUBTASK_SUCCESS, stage=1)
    world.tell(EventType.EPISODE_ENDED, stage=1)
    world.tell(EventType.EPISODE_STARTED, episode=f"{name}.2", stage=2)
    assert world.policy.episode_id == f"{name}.2" and world.policy.phase is Phase.WATCHING
    world.tell(EventType.FAILURE)
    assert world.stages == [0, 2]
    restarted(world)
    world.report()
    world.tell(EventType.TIMEOUT)
    world.wait(1.2)
    assert world.stages == [0, 2, 2], "also when no report of the new episode has come"
    world.report(stage=3)
    world.tell(EventType.FAILURE)
    assert world.stages[-1] == 0, "a reset begins the task anew"


def test_what_fails_while_stopping_is_said_and_no_more() -> None:
    world = Supervised({"STALL": "stop"}).start()
    world.outcomes["stop"] = [Outcome.WRONG_TYPE]
    world.tell(EventType.STALL)
    world.wait(0.2)
    assert world.policy.resting and world.done == ["open it", "end", "stop", "idle"]
    assert any("stop: service stop because; going on" in line for line in world.said)


def test_a_policy_that_cannot_be_started_ends_the_episode() -> None:
    world = Supervised(calls={"start": (call("start"),)})
    world.outcomes["start"] = [Outcome.REFUSED]
    world.start().wait(0.2)
    assert world.done == ["open it", "start", "idle"] and world.policy.phase is Phase.STOPPED


def test_the_monitor_is_waited_for_and_not_for_ever() -> None:
    world = Supervised()
    world.outcomes["task"] = [Outcome.ABSENT] * 20 + [Outcome.REFUSED, None]
    world.start().wait(10.0, reports=False)
    assert world.policy.phase is Phase.WATCHING and world.policy.episode_id == "e3", "a new name each time"
    never = Supervised()
    never.outcomes["task"] = [Outcome.ABSENT] * 1000
    never.start().wait(21.0, reports=False)
    assert never.policy.phase is Phase.STOPPED and "monitor/set_task is not there" in never.policy.problem
    never.outcomes.clear()
    assert never.start().policy.phase is Phase.WATCHING and not never.policy.problem


def test_an_event_that_overtakes_the_answer_begins_the_episode() -> None:
    world = Supervised()
    world.outcomes["task"] = [None]
    world.start()
    world.tell(EventType.EPISODE_STARTED, episode="e1")
    assert world.policy.phase is Phase.WATCHING
    world.tell(EventType.SUCCESS, episode="e1")
    assert world.done[-1] == "close it"


def test_a_monitor_that_vanished() -> None:
    world = Supervised({"MONITOR_VANISHED": "retry 1"}).start()
    world.wait(4.5, reports=False)
    assert world.policy.history[-1].reason == "MONITOR_VANISHED" and "idle" not in world.done
    assert world.done == ["open it", "end", "reset", "open it"]
    noted = Supervised().start()
    noted.wait(50, reports=False)
    assert sum("MONITOR_VANISHED" in line for line in noted.said) == 1, "once"
    noted.wait(60, reports=False)
    assert noted.policy.history[-1].reason == "OVERDUE"


def test_a_process_that_was_stopped_blames_nobody() -> None:
    world = Supervised({"MONITOR_VANISHED": "stop", "IMAGES_SILENT": "stop"}).start()
    world.wait(3.0, state=State.STALE)
    world.now += 30.0
    world.wait(2.0, state=State.RUNNING)
    assert world.policy.phase is Phase.WATCHING


def test_a_camera_that_went_silent() -> None:
    world = Supervised({"IMAGES_SILENT": "reset"}).start()
    world.wait(8.0, state=State.STALE)
    world.wait(8.0)
    world.wait(8.0, state=State.WAITING_FOR_IMAGES)
    assert world.done == ["open it"]
    world.wait(3.5, state=State.STALE)
    assert world.policy.history[-1].reason == "IMAGES_SILENT"


def test_a_monitor_that_lost_the_episode_was_started_again_or_taken_over() -> None:
    rules = {"MONITOR_RESTARTED": "retry 1", "TAKEN_OVER": "stop"}
    anew = Supervised(rules).start()
    anew.tell(EventType.EPISODE_STARTED, sequence=7, published_ns=1000)
    anew.tell(EventType.EPISODE_STARTED, episode="its own", sequence=1, published_ns=2000)
    anew.report("its own")
    anew.wait(2.0, episode="its own")
    assert anew.policy.history[0].reason == "MONITOR_RESTARTED" and anew.done[-1] == "open it"
    seen = Supervised(rules).start()
    seen.policy.on_publishers(frozenset({"a"}))
    seen.policy.on_publishers(frozenset({"a", "b"}))  # the dead one stays in the graph for a while
    seen.wait(3.0, episode="", state=State.IDLE)
    assert seen.policy.history[0].reason == "MONITOR_RESTARTED"
    other = Supervised(rules).start()
    other.wait(1.5, episode="an operator's")
    assert other.policy.phase is Phase.WATCHING, "one report may have been on its way"
    other.wait(2.0, episode="an operator's")
    assert other.policy.phase is Phase.STOPPED and "idle" not in other.done, "theirs is not ended"
    replayed = Supervised(rules).start()
    replayed.tell(EventType.STALL, sequence=7, published_ns=1000)
    replayed.tell(EventType.SUCCESS, episode="of a bag", sequence=3, published_ns=2000)
    replayed.wait(5.0)
    assert replayed.policy.phase is Phase.WATCHING and replayed.done == ["open it"]
    replayed.wait(3.0, episode="an operator's")
    assert replayed.policy.history[0].reason == "TAKEN_OVER"


def test_reports_from_before_the_begin_say_nothing() -> None:
    world = Supervised({"TAKEN_OVER": "stop"}).start()
    for _ in range(3):
        world.now += 0.9
        world.report("before", age_s=world.now + 0.5)
    assert world.policy.phase is Phase.WATCHING
    world.report("old", age_s=6.0)
    world.report(published_ns=9)
    for _ in range(3):
        world.now += 1.5
        world.report("late", published_ns=8, age_s=world.now - 2.7)
    assert world.policy.phase is Phase.WATCHING
    for _ in range(3):
        world.now += 0.2
        world.report("sudden")
    assert world.policy.phase is Phase.WATCHING, "a monitor that scores fast is believed no earlier"


@pytest.mark.parametrize("step_s", [-3.0, -100.0, -1e6, 100.0])
def test_a_wall_clock_that_steps_makes_no_monitor_vanish(step_s: float) -> None:
    rules = {"MONITOR_VANISHED": "stop", "IMAGES_SILENT": "stop", "TAKEN_OVER": "stop"}
    world = Supervised(rules, episode_limit=1e4).start()
    wall = 1e7
    for step in range(200):
        if step == 40:
            wall += step_s
        world.wait(0.5, reports=False)
        # What is reported must count again soon, too: there are no images from 15 s to 22 s.
        state = State.STALE if 30 <= step < 44 else State.RUNNING
        world.report(state=state, age_s=0.001, published_ns=round((wall + world.now) * NS_PER_S))
    assert world.policy.phase is Phase.WATCHING and world.done == ["open it"]
    for _ in range(10):
        world.wait(0.5, reports=False)
        published_ns = round((wall + world.now) * NS_PER_S)
        world.report("an operator's", age_s=0.001, published_ns=published_ns)
    assert world.policy.history[-1].reason == "TAKEN_OVER", "reports are believed after the step"


@pytest.mark.parametrize(("step_s", "age_s"), [(-12.0, 0.001), (-20.0, 20.0)])
def test_a_report_of_a_clock_that_was_set_back_counts_at_once(step_s: float, age_s: float) -> None:
    """The clock of this computer, with which the age stays, or that of another one."""
    world = Supervised({"IMAGES_SILENT": "stop"}, monitor_timeout=50.0, event_max_age=60.0).start()
    world.report(state=State.STALE, age_s=0.001, published_ns=1000 * NS_PER_S)
    world.wait(9.0, reports=False)
    world.report(age_s=age_s, published_ns=round((1009 + step_s) * NS_PER_S))
    world.wait(3.0, reports=False)
    assert world.policy.phase is Phase.WATCHING


@pytest.mark.parametrize("ahead_s", [2.0, 3600.0])
def test_one_report_of_a_clock_ahead_spoils_nothing(ahead_s: float) -> None:
    world = Supervised({"MONITOR_VANISHED": "stop", "IMAGES_SILENT": "stop"}).start()
    world.report(state=State.STALE, published_ns=round((1e6 + ahead_s) * NS_PER_S))
    for _ in range(80):
        world.wait(0.5, reports=False)
        world.report(age_s=0.001, published_ns=round((1e6 + world.now) * NS_PER_S))
    assert world.policy.phase is Phase.WATCHING


def test_a_monitor_whose_clock_is_behind_lives_and_is_named_once() -> None:
    world = Supervised({"MONITOR_VANISHED": "stop"}).start()
    world.wait(20.0, age_s=9.0)
    assert world.policy.phase is Phase.WATCHING
    named = [line for line in world.said if "task_progress" in line]
    assert len(named) == 1 and "9.0 s ago" in named[0] and "clocks of two computers differ" in named[0]
    world.wait(1.0)
    world.wait(1.0, age_s=8.0)
    assert "8.0 s ago" in world.said[-1], "again, once it was well in between"


def test_numbers_that_begin_anew_are_noticed_after_a_step_of_the_clock() -> None:
    world = Supervised({"MONITOR_RESTARTED": "retry 1", "TAKEN_OVER": "stop"}).start()
    world.tell(EventType.STALL, sequence=7, published_ns=500 * NS_PER_S)
    world.now += 1.0
    world.tell(EventType.EPISODE_STARTED, episode="its own", sequence=1, published_ns=400 * NS_PER_S)
    world.wait(2.5, episode="its own")
    assert world.policy.history[0].reason == "MONITOR_RESTARTED"
    late = Supervised({"MONITOR_RESTARTED": "retry 1", "TAKEN_OVER": "stop"}).start()
    late.tell(EventType.STALL, sequence=7, published_ns=500 * NS_PER_S)
    late.now += 1.0
    late.tell(EventType.STALL, episode="?", sequence=6, published_ns=498 * NS_PER_S, age_s=3.0)
    late.tell(EventType.STALL, episode="?", sequence=5, published_ns=480 * NS_PER_S, age_s=21.0)
    late.wait(2.5, episode="an operator's")
    assert late.policy.history[0].reason == "TAKEN_OVER", "what only came late is no new beginning"


@pytest.mark.parametrize("tick_first", [False, True])
def test_what_comes_while_the_process_is_stopped_counts_when_it_goes_on(tick_first: bool) -> None:
    world = Supervised(episode_limit=300.0).start()
    world.wait(3.0)
    for _ in range(2):  # stopped twice, with a moment in between
        world.now += 200.0
        if tick_first:
            world.wait(0.2, reports=False)
    world.tell(EventType.STALL, age_s=world.now - 3.0 + 5.1)
    assert world.policy.counts["too old"] == 1, "that was too old before"
    world.tell(EventType.SUCCESS, age_s=399.5)
    world.tell(EventType.EPISODE_ENDED, episode="e1", age_s=399.5)
    assert world.done == ["open it", "end", "reset", "close it"]
    world.wait(7.0)
    world.tell(EventType.STALL, age_s=6.0)
    assert world.policy.counts["too old"] == 2, "as always, of what came after the stop"


def test_overdue_comes_though_the_process_is_always_late() -> None:
    world = Supervised().start()
    for _ in range(60):
        world.now += 2.0
        world.report()
        world.do(world.policy.tick(world.moment()))
    assert world.policy.history[0].reason == "OVERDUE"


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.FAILED, State.IDLE])
def test_an_end_that_was_not_heard_is_known_by_the_reports(state: State) -> None:
    world = Supervised({"EPISODE_ENDED": "reset"}).start()
    world.tell(EventType.SUCCESS, age_s=7.0)
    assert "this process was stopped" in world.said[-1]
    world.report(state=state)
    world.wait(0.9, reports=False)
    world.report(state=state)
    assert world.policy.phase is Phase.WATCHING, "its event may be on its way"
    world.wait(0.2, state=state, reports=False)
    world.report(state=state)
    assert world.policy.phase is Phase.UNDECIDED and state.name in world.policy.message
    world.wait(SETTINGS.undecided_wait - 0.5, state=state)
    assert world.done == ["open it"], "what the end was of is not known, so that its rule is not asked"
    world.wait(1.0, state=state)
    assert world.policy.history[0].reason == "OVERDUE" and state.name in world.policy.history[0].detail
    late = Supervised().start()
    late.wait(3.0, state=state)
    late.tell(EventType.SUCCESS)
    assert late.done[-1] == "close it", "an event that came after all decides"
    stopped = Supervised().start()
    stopped.wait(1.0, state=state)
    stopped.now += 30.0
    stopped.wait(0.1, reports=False)
    stopped.report(state=state)
    assert stopped.policy.phase is Phase.WATCHING, "its event may be on its way to a process that goes on"
    ended = Supervised({"EPISODE_ENDED": "reset"}).start()
    ended.wait(3.0, state=state)
    ended.tell(EventType.EPISODE_ENDED)
    assert ended.policy.history[0].reason == "EPISODE_ENDED"


def test_an_end_that_reports_took_back_is_none() -> None:
    world = Supervised().start()
    world.wait(3.0, state=State.FAILED)
    assert world.policy.phase is Phase.UNDECIDED
    world.wait(30.0)
    assert world.policy.phase is Phase.WATCHING and not world.policy.history
    beyond = Supervised({"SUCCESS": "nothing"}).start()
    beyond.tell(EventType.SUCCESS)
    beyond.wait(30.0, state=State.SUCCEEDED)
    assert beyond.policy.phase is Phase.WATCHING, "the monitor may watch on beyond a success"


def test_a_person_stops_and_starts() -> None:
    world = Supervised().start()
    world.do(world.policy.stop(world.moment(), "stopped by ~/stop"))
    world.wait(0.2)
    assert world.done == ["open it", "end", "stop", "idle"] and world.policy.resting
    world.tell(EventType.SUCCESS, episode="e1")
    world.do(world.policy.stop(world.moment(), "again"))
    assert world.done[-1] == "idle"
    world.start()
    world.start()
    assert world.done[-1] == "open it" and world.policy.episodes == 2


def test_a_person_stops_while_a_call_is_under_way() -> None:
    world = Supervised().start()
    world.outcomes["reset"] = [None]
    world.tell(EventType.SUCCESS)
    world.do(world.policy.stop(world.moment(), "stopped by ~/stop"))
    world.wait(5.0)
    assert world.done == ["open it", "end", "reset", "stop", "idle"] and world.policy.resting
    assert "whether it was done is not known" in world.policy.history[0].outcome


@pytest.mark.parametrize(
    ("end", "failed", "done"),
    [
        ([Outcome.ABSENT] * 50, "service end: is not there", ["second", "stop"]),
        ([None], "service end: has not answered", ["end", "second", "stop"]),
        ([Outcome.REFUSED] * 50, "service end: refused ('because')", ["end", "end", "second", "stop"]),
        ([Outcome.WRONG_TYPE], "service end: because", ["end", "second", "stop"]),
    ],
)
def test_the_end_of_the_process_lets_no_call_hold_up_the_others(
    end: list[Outcome | None], failed: str, done: list[str]
) -> None:
    ends = call("end", wait_s=5.0, timeout_s=60.0, retries=9), call("second")
    world = Supervised(calls={"end": ends, "stop": (call("stop"),)}).start()
    world.outcomes["end"] = list(end)
    world.done.clear()
    world.do(world.policy.stop(world.moment(), "the process ends", 1.8))
    world.wait(1.0)
    assert [name for name in world.done if name != "idle"] == done and world.policy.resting
    (said,) = world.policy.not_made
    assert said.startswith(failed)


def test_what_the_end_of_the_process_leaves_is_named() -> None:
    ends = tuple(call(f"end {k}", timeout_s=60.0) for k in range(3))
    world = Supervised({"STALL": "stop"}, calls={"end": ends, "stop": (call("stop"),)}).start()
    world.outcomes["end 1"] = [None]
    world.tell(EventType.STALL)
    world.wait(5.0)
    assert world.done[-1] == "end 1", "a decision that is under way when the process is asked to end"
    world.outcomes["end 2"] = [None]
    world.do(world.policy.stop(world.moment(), "the process ends", 1.8))
    world.wait(0.5)
    first, left = world.policy.not_made
    assert first.startswith("service end 1: its answer was not waited for")
    assert left == "service stop: not made" and not world.policy.resting
    world.wait(1.0)
    assert [name for name in world.done if name != "idle"] == ["open it", "end 0", "end 1", "end 2", "stop"]
    assert world.policy.not_made[0] == first
    assert world.policy.not_made[1].startswith("service end 2: has not answered; it may have been done")


@pytest.mark.parametrize("within_s", [None, 1.8])
def test_a_stop_call_under_way_is_tried_again_when_somebody_stops_again(within_s: float | None) -> None:
    stops = call("stop", retries=2), call("brake")
    world = Supervised(calls={"end": (call("end"),), "stop": stops}).start()
    world.outcomes["stop"] = [None]
    world.do(world.policy.stop(world.moment(), "stopped by ~/stop"))
    world.wait(0.2)
    assert "stop" in world.done
    world.do(world.policy.stop(world.moment(), "again", within_s))
    world.do(world.policy.answer(world.unanswered[0], Outcome.REFUSED, "busy", world.moment(), ""))
    world.wait(1.5)
    assert [name for name in world.done if name != "idle"] == ["open it", "end", "stop", "stop", "brake"]
    assert world.policy.resting and not world.policy.not_made and not world.policy.problem


def test_a_person_stops_while_the_monitor_is_asked() -> None:
    world = Supervised()
    world.outcomes["task"] = [None]
    world.start()
    world.do(world.policy.stop(world.moment(), "stopped by ~/stop"))
    world.wait(0.2)
    assert world.done[-1] == "idle" and world.policy.phase is Phase.STOPPED
    world.tell(EventType.EPISODE_STARTED, episode="e1")
    world.do(world.policy.answer(world.unanswered[0], Outcome.DONE, "", world.moment(), "e1"))
    assert world.policy.phase is Phase.STOPPED, "an answer that comes late begins nothing"


def test_a_monitor_that_was_never_there_need_not_end_anything() -> None:
    world = Supervised()
    world.outcomes["task"] = [Outcome.ABSENT] * 5
    world.start().wait(0.3, reports=False)
    world.do(world.policy.stop(world.moment(), "stopped by ~/stop"))
    assert world.policy.resting and world.done == ["stop"]


def test_max_episodes_and_a_reset_at_first() -> None:
    world = Supervised({"SUCCESS": "reset"}, reset_first=True, max_episodes=2).start()
    assert world.done == ["reset", "open it"]
    world.tell(EventType.SUCCESS)
    world.tell(EventType.SUCCESS)
    assert world.policy.phase is Phase.DONE and world.done[-2:] == ["reset", "stop"]


def test_a_dry_run_does_nothing_and_follows_everybody() -> None:
    world = Supervised({"MONITOR_VANISHED": "retry 1"}, dry_run=True, tasks=()).start()
    world.report("theirs", instruction="fold it")
    assert world.policy.episode_id == "theirs" and world.policy.instruction == "fold it"
    world.tell(EventType.TIMEOUT)
    world.wait(1.0, episode="theirs")
    assert world.policy.phase is Phase.BEGINNING, "what was decided is not followed again"
    world.tell(EventType.EPISODE_STARTED, episode="the next")
    world.tell(EventType.SUCCESS)
    world.tell(EventType.EPISODE_STARTED, episode="yet another")
    world.wait(3.0, episode="somebody's")
    assert world.policy.episode_id == "somebody's"
    world.tell(EventType.STALL)
    assert not world.done and not world.policy.problem
    world.do(world.policy.stop(world.moment(), "ended by SIGINT"))
    assert world.policy.resting and world.policy.phase is Phase.STOPPED and not world.done
    world.policy.history.pop()
    assert any("would call service reset to reset" in line for line in world.said)
    assert [d.action for d in world.policy.history] == [
        "dry run, would retry (1 of 2)",
        "dry run, would next",
    ]


# ---- another process ---------------------------------------------------------------------------------


def restarted(world: Supervised) -> None:
    """Kill the process and start it again, with the file as it is."""
    saved = json.loads(json.dumps(world.policy.snapshot()))
    world.new_process()
    world.do(world.policy.restore(saved, world.moment()))


def test_another_process_watches_on() -> None:
    world = Supervised().start()
    world.tell(EventType.TIMEOUT)
    world.wait(1.2)
    episode = world.policy.episode_id
    restarted(world)
    world.report(episode)
    assert world.policy.phase is Phase.WATCHING and world.policy.retries["TIMEOUT"] == 1
    world.tell(EventType.SUCCESS, episode=episode)
    assert world.done[-1] == "close it" and len(world.policy.history) == 2


@pytest.mark.parametrize(("episode", "state"), [("e1", State.FAILED), ("", State.IDLE), ("x", State.RUNNING)])
def test_an_episode_that_is_over_meanwhile_is_a_reason_of_its_own(episode: str, state: State) -> None:
    world = Supervised({"SUPERVISOR_RESTARTED": "retry 1"}).start()
    restarted(world)
    world.wait(2.5, episode=episode, state=state)
    assert world.policy.history[0].reason == "SUPERVISOR_RESTARTED"
    assert world.done.count("reset") == 1 and world.done[-1] == "open it"


def test_a_call_that_was_under_way_is_not_made_again() -> None:
    world = Supervised().start()
    world.outcomes["reset"] = [None]
    world.tell(EventType.SUCCESS)
    world.tell(EventType.EPISODE_ENDED, episode="e1")
    restarted(world)
    assert world.done.count("reset") == 1 and world.policy.phase is Phase.STOPPED
    assert "whether it was done is not known" in world.policy.history[-1].outcome
    going = Supervised(calls={"reset": (call("reset", goes_on=True),)}).start()
    going.outcomes["reset"] = [None]
    going.tell(EventType.SUCCESS)
    restarted(going)
    assert going.done.count("reset") == 1 and going.done[-1] == "close it"
    waiting = Supervised().start()
    waiting.outcomes["reset"] = [Outcome.ABSENT]
    waiting.tell(EventType.SUCCESS)
    restarted(waiting)
    assert waiting.done[-2:] == ["reset", "close it"], "what was not sent is made"


def test_what_a_person_stopped_stays_stopped() -> None:
    world = Supervised().start()
    world.do(world.policy.stop(world.moment(), "stopped by ~/stop"))
    world.wait(0.2)
    restarted(world)
    assert world.policy.phase is Phase.STOPPED and world.policy.message == "stopped by ~/stop"


@pytest.mark.parametrize(
    "damage",
    [
        lambda saved: [],
        lambda saved: saved | {"version": 0},
        lambda saved: saved | {"phase": "ASLEEP"},
        lambda saved: saved | {"steps": [["call", "reset", 7, 0, "STOPPED", ""]]},
        lambda saved: saved | {"steps": [["dance"]]},
        lambda saved: saved | {"watch": ["e1"]},
        lambda saved: saved | {"retries": "many"},
        lambda saved: saved | {"history": [[1]]},
        lambda saved: {key: value for key, value in saved.items() if key != "episodes"},
        lambda saved: {**saved, "episodes": float("inf")},
    ],
)
def test_a_file_that_is_damaged_is_refused(damage: Any) -> None:
    saved = json.loads(json.dumps(Supervised().start().policy.snapshot()))
    with pytest.raises(StateError):
        RetryPolicy(SETTINGS, lambda: "").restore(damage(saved), Moment(0))


def test_a_task_is_found_again_where_the_list_has_changed() -> None:
    world = Supervised().start()
    world.tell(EventType.SUCCESS)
    world.settings = replace(world.settings, tasks=("first", "second", "close it"))
    restarted(world)
    assert world.policy.task_index == 2


def test_the_history_is_bounded() -> None:
    world = Supervised({"STALL": "reset"}).start()
    for _ in range(HISTORY + 10):
        world.tell(EventType.STALL)
    assert len(world.policy.history) == HISTORY and world.policy.episodes == HISTORY + 11


# ---- settings ----------------------------------------------------------------------------------------


def parameters(**changes: Any) -> dict[str, Any]:
    from topreward_ros.defaults import parameter_defaults

    return parameter_defaults("supervisor.yaml") | {"tasks": ["open it", ""], "dry_run": False} | changes


def test_settings_are_those_of_the_parameters() -> None:
    settings = RetrySettings.from_parameters(parameters(reset_calls=["", "service /reset timeout 7"]))
    assert settings.tasks == ("open it",) and settings.calls["reset"][0].timeout_s == 7.0
    assert settings.calls["end"] == () and set(settings.rules) == set(REASONS)
    assert RetrySettings.from_parameters(parameters(tasks=[""], dry_run=True)).tasks == ()


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"tasks": ["", " "]}, RuleError, "parameter tasks is empty"),
        ({"tasks": ["x" * 2001]}, InstructionError, "a task of the list has 2,001 characters"),
        ({"on.STALL": "retry"}, RuleError, "on.STALL"),
        ({"stop_calls": ["call me"]}, RuleError, "stop_calls"),
    ],
)
def test_settings_that_mean_nothing_are_named(changes: Any, error: type[UserError], text: str) -> None:
    with pytest.raises(error, match=text.replace(".", r"\.")):
        RetrySettings.from_parameters(parameters(**changes))
