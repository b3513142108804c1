"""The judge of bench/soak.py notices what it is there for; the soak shows that a monitor can content it."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy")

from topreward_ros.msg import TaskEvent, TaskProgress, TaskReward

FILE = Path(__file__).parents[2] / "bench" / "invariants.py"
if not FILE.is_file():
    pytest.skip("bench/ is not installed with the package", allow_module_level=True)


@pytest.fixture
def judge() -> Any:
    spec = importlib.util.spec_from_file_location("soak_invariants", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look for their module there
    spec.loader.exec_module(module)
    return module.Invariants(stale_timeout=2.0)


def tell(judge: Any, *kinds: int, episode: str = "a", first: int = 1) -> None:
    for number, kind in enumerate(kinds, first):
        judge.event(TaskEvent(type=kind, sequence=number, episode_id=episode, message="so", log_prob=-1.0))


def reward(judge: Any, step: int, value: float, total: float, **fields: Any) -> None:
    judge.reward(TaskReward(step=step, reward=value, episode_return=total, episode_id="a", **fields))


STARTED, ENDED, ABORTED = TaskEvent.EPISODE_STARTED, TaskEvent.EPISODE_ENDED, TaskEvent.ABORTED


def test_an_episode_in_order(judge: Any) -> None:
    tell(judge, STARTED, TaskEvent.STALE_IMAGES, ABORTED, ENDED)
    for step, value in enumerate([0.5, math.nan, -0.25]):
        reward(judge, step, value, [0.5, 0.5, 0.25][step], truncated=step == 2)
    judge.progress(TaskProgress(state=TaskProgress.RUNNING, progress=0.5, num_frames=1, episode_id="a"), 1.0)
    judge.finish()
    assert judge.broken == []


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        ((STARTED, STARTED), "comes twice"),
        ((STARTED, ABORTED, ABORTED), "comes twice"),
        ((STARTED, ENDED), "has no cause"),
        ((STARTED, ABORTED, ENDED, TaskEvent.STALE_IMAGES), "after the end"),
        ((TaskEvent.TIMEOUT,), "before EPISODE_STARTED"),
        ((STARTED, TaskEvent.SUCCESS, TaskEvent.TIMEOUT), "after SUCCESS"),
        ((STARTED,), "has no end"),
        ((STARTED, ABORTED, ENDED), "without a last reward"),
    ],
)
def test_events_out_of_order(judge: Any, kinds: tuple[int, ...], said: str) -> None:
    tell(judge, *kinds)
    judge.finish()
    assert any(said in sentence for sentence in judge.broken), judge.broken


def test_a_gap_an_episode_within_another_and_one_of_the_dead(judge: Any) -> None:
    tell(judge, STARTED)
    tell(judge, STARTED, episode="b", first=3)
    judge.new_life(1.0)
    tell(judge, ABORTED, episode="b")
    for said in ("follows event 1", "before the end of ['a']", "of a monitor that was killed"):
        assert any(said in sentence for sentence in judge.broken), judge.broken


@pytest.mark.parametrize(
    ("step", "value", "total", "said"),
    [
        (1, 0.5, 0.5, "follows 0 rewards"),
        (0, 0.5, 0.6, "the sum is 0.5"),
        (0, math.inf, math.inf, "sum is 0.0"),
    ],
)
def test_rewards_that_do_not_add_up(judge: Any, step: int, value: float, total: float, said: str) -> None:
    reward(judge, step, value, total)
    assert any(said in sentence for sentence in judge.broken), judge.broken


def test_states_that_are_not_true(judge: Any) -> None:
    judge.progress(TaskProgress(state=TaskProgress.RUNNING, progress=1.5, episode_id="a"), 0.0)
    assert "1.5" in judge.broken.pop()
    for tenth in range(10):
        judge.shown(tenth / 10, usable=True)
    judge.look(4.3)
    assert judge.broken == [], "2 s, and what a busy machine may need"
    judge.look(4.5)
    judge.look(4.6)
    (sentence,) = judge.broken
    assert "no image that can be used for 3.6 s" in sentence
    judge.progress(TaskProgress(state=TaskProgress.STALE, progress=math.nan, episode_id="a"), 5.0)
    for tenth in range(50, 90):
        judge.shown(tenth / 10, usable=True)
        judge.look(tenth / 10)
    assert "and the state is STALE" in judge.broken[-1] and len(judge.broken) == 2


def test_a_stamp_that_was_sent_as_a_wrong_one_may_lie_anywhere_and_no_other(judge: Any) -> None:
    """Two that agree are believed against a first one, whichever was right."""
    judge.false_stamps.add(40 * 10**9)

    def told_at(second: int, step: int) -> list[str]:
        judge.broken.clear()
        message = TaskProgress(state=TaskProgress.RUNNING, progress=0.5, num_frames=1, episode_id="a")
        message.header.stamp.sec, message.elapsed.sec = second, 0
        judge.progress(message, 1.0)
        rewarded = TaskReward(step=step, episode_id="a")
        rewarded.header.stamp.sec = second
        judge.reward(rewarded)
        return list(judge.broken)

    event = TaskEvent(type=STARTED, sequence=1, episode_id="a", message="so")
    event.header.stamp.sec = 100
    judge.event(event)
    assert told_at(100, 0) == []
    assert told_at(40, 1) == [], "it was sent as a wrong one"
    assert told_at(101, 2) == []
    early = told_at(60, 3)
    assert any("of -40000000000 ns" in said for said in early) and any(
        "goes back by 41" in it for it in early
    )
