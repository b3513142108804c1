"""Every event after every other: a monitor is shown what brings about the one, and then the other.

Of an episode that goes on, both come, in that order. Of one that is over nothing more is said, and there is
one event that ended it, whatever comes.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise, product
from math import isnan

import pytest

from topreward_ros.core.events import EventType
from topreward_ros.core.frames import NS_PER_S
from topreward_ros.core.outputs import Event, Output, ProgressReport, Reward, State

from .robots import LIVELY, PIXEL, SIZE, TABLE, Robot
from .scenes import flat, lit

OF_PICTURES = {EventType.FROZEN_IMAGES, EventType.COVERED_IMAGES}


def succeed(robot: Robot) -> None:
    for _ in range(5):
        robot.show(progress=0.98)


def fail(robot: Robot) -> None:
    for _ in range(6):
        robot.show(progress=0.01)


def stand_still(robot: Robot) -> None:
    robot.show(progress=robot.progress + 0.15)
    robot.progress += 0.15
    for _ in range(10):
        robot.show(progress=robot.progress)


def fall_back(robot: Robot) -> None:
    for _ in range(2):
        robot.progress += 0.15
        robot.show(progress=robot.progress)
    robot.progress -= 0.3
    for _ in range(5):
        robot.show(progress=robot.progress)


def take_too_long(robot: Robot) -> None:
    robot.work(65)


def fall_silent(robot: Robot) -> None:
    robot.now_s += 7.0
    robot.outputs += robot.monitor.check_clock(round(robot.now_s * NS_PER_S))
    for _ in range(3):
        robot.work(1)


def freeze(robot: Robot) -> None:
    robot.work(6)
    frozen = lit(TABLE, 1.0, 3.0)
    for _ in range(7):
        robot.show(frozen)
    robot.work(2)


def cover(robot: Robot) -> None:
    for _ in range(6):
        robot.show(flat(20, 1.0, SIZE))
    robot.work(2)


def reset(robot: Robot) -> None:
    robot.outputs += robot.monitor.reset()


def break_the_scorer(robot: Robot) -> None:
    if request := robot.frame():
        robot.outputs += robot.monitor.scorer_failed(request, "out of memory")


CAUSES: dict[EventType, Callable[[Robot], None]] = {
    EventType.SUCCESS: succeed,
    EventType.SUBTASK_SUCCESS: succeed,
    EventType.FAILURE: fail,
    EventType.STALL: stand_still,
    EventType.REGRESSION: fall_back,
    EventType.TIMEOUT: take_too_long,
    EventType.STALE_IMAGES: fall_silent,
    EventType.FROZEN_IMAGES: freeze,
    EventType.COVERED_IMAGES: cover,
    EventType.ABORTED: reset,
    EventType.SCORER_ERROR: break_the_scorer,
}
ENDS = {
    EventType.SUCCESS,
    EventType.SUBTASK_SUCCESS,
    EventType.FAILURE,
    EventType.TIMEOUT,
    EventType.ABORTED,
}
#: The success of a stage is that of the task in the last stage alone: these two do not come in one episode.
SUCCESSES = {EventType.SUCCESS, EventType.SUBTASK_SUCCESS}
PAIRS = [pair for pair in product(CAUSES, CAUSES) if set(pair) != SUCCESSES]
#: What the state is once an event has come; all others leave it as it is.
STATES = {
    EventType.SUCCESS: State.SUCCEEDED,
    EventType.FAILURE: State.FAILED,
    EventType.TIMEOUT: State.FAILED,
    EventType.STALL: State.STALLED,
}


def test_a_cause_is_known_for_every_event() -> None:
    begun = {EventType.EPISODE_STARTED, EventType.EPISODE_ENDED}
    assert set(CAUSES) | begun == set(EventType)


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=lambda kind: kind.name.lower())
def test_after_one_event_another(first: EventType, second: EventType) -> None:
    in_stages = EventType.SUBTASK_SUCCESS in (first, second)
    pictures = LIVELY if OF_PICTURES & {first, second} else PIXEL
    robot = Robot("open it\ntake it out\nclose it" if in_stages else "open it", pictures)
    CAUSES[first](robot)
    told = len(robot.events)
    assert first in [event.type for event in robot.events]
    if first in STATES:
        assert robot.monitor.report.state is STATES[first]
    CAUSES[second](robot)

    of_first = [event.type for event in robot.events if event.episode_id == "first"]
    assert of_first[0] is EventType.EPISODE_STARTED
    over = first in ENDS or second in ENDS
    assert [kind for kind in of_first if kind in ENDS] == (
        [first if first in ENDS else second] if over else []
    ), "one event ends an episode, and the first is the one"
    if over:
        assert of_first[-1] is EventType.EPISODE_ENDED and of_first[-2] in ENDS
        assert of_first.count(EventType.EPISODE_ENDED) == 1
    later = [event.type for event in robot.events[told:]]
    if first not in ENDS:
        assert second in later, "it comes, whatever came before"
    elif first in (EventType.SUCCESS, EventType.FAILURE, EventType.TIMEOUT):
        assert later == [], "nothing is watched any more"
    check_outputs(robot.outputs)


def check_outputs(outputs: list[Output]) -> None:
    """What holds of all that is published, whatever it was."""
    events = [output for output in outputs if isinstance(output, Event)]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    ended: set[str] = set()
    for output in outputs:
        assert output.episode_id not in ended or isinstance(output, ProgressReport)
        if isinstance(output, Event) and output.type is EventType.EPISODE_ENDED:
            ended.add(output.episode_id)
    states = [output.state for output in outputs if isinstance(output, ProgressReport)]
    for before, after in pairwise(states):
        if before is not State.STALLED and after is State.STALLED:
            assert before in (State.RUNNING, State.STALE)
    for output in outputs:
        if isinstance(output, Event) and output.type in OF_PICTURES:
            assert isnan(output.progress), "no score is believed"
    terminated = [output for output in outputs if isinstance(output, Reward) and output.terminated]
    succeeded = [event for event in events if event.type in ENDS - {EventType.TIMEOUT, EventType.ABORTED}]
    assert len(terminated) == len(succeeded)


@pytest.mark.parametrize("cause", [stand_still, freeze, cover, fall_silent])
def test_a_state_is_left_when_its_cause_is_gone(cause: Callable[[Robot], None]) -> None:
    robot = Robot("open it")
    cause(robot)
    robot.work(3, rises=0.1)
    assert robot.monitor.report.state is State.RUNNING
    assert not isnan(robot.monitor.report.progress) and not robot.monitor.report.message
