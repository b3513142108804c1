"""Tasks in stages: their text, and the episodes that a `TaskMonitor` makes of them."""

from __future__ import annotations

import pytest

from test.core.test_goal import TWO_STAGES, Run
from topreward_ros.core.episode_ids import EpisodeIdError
from topreward_ros.core.events import EventType
from topreward_ros.core.instruction import LONGEST, InstructionError, clean_task
from topreward_ros.core.outputs import Event, State
from topreward_ros.core.progress import PrefixScore
from topreward_ros.core.stages import StageError, Stages


@pytest.mark.parametrize(
    ("text", "task"),
    [
        ("open it\ntake it\n", "open it\ntake it"),
        ("\r\n open it \r\n\r\n take  it\r\n", "open it\ntake it"),
        ("a\u2028b\u2029c\x85d\x0be\x0cf\rg", "a\nb\nc\nd\ne\nf\ng"),
        ("open\tit", "open it"),
        ("open it\n\u200b\n \ufeff\ntake it", "open it\ntake it"),
        ("\n\u200b\n", ""),
        (["open it", "", "take it\nclose it"], "open it\ntake it\nclose it"),
        ([], ""),
        ("press it\npress it", "press it\npress it"),
    ],
)  # fmt: skip
def test_a_line_that_shows_something_is_a_stage(text: str | list[str], task: str) -> None:
    assert clean_task(text) == task == clean_task(task)


def test_a_list_may_be_as_long_as_one_task_and_is_refused_by_the_same_rule() -> None:
    with pytest.raises(InstructionError, match="has 2,001 characters"):
        clean_task(["x" * (LONGEST // 2)] * 2)
    with pytest.raises(InstructionError, match="--task is not UTF-8: it has the byte 0xe9 after 'the caf'"):
        clean_task("open it\nthe caf\udce9", "--task")
    with pytest.raises(StageError, match="stage 3 of a task that has 2 stages: give 1 to 2, or 0"):
        Stages.of(TWO_STAGES, 3)


def kinds(run: Run) -> list[tuple[str, EventType, int]]:
    return [(event.episode_id, event.type, event.stage) for event in run.events]


def test_each_stage_is_an_episode_and_success_comes_at_the_last() -> None:
    run = Run(TWO_STAGES)
    run.succeed()
    assert run.monitor.report.state is State.WAITING_FOR_IMAGES
    run.image(-4.0)
    report = run.monitor.report
    assert (report.instruction, report.task, report.num_frames) == ("take out the cup", TWO_STAGES, 1)
    assert (report.stage_progress, report.progress) == (0.5, 0.75)
    run.image(-8.0)
    for _ in range(2):
        run.image(-0.1)
    assert run.monitor.report.state is State.SUCCEEDED
    assert kinds(run) == [
        ("pick", EventType.EPISODE_STARTED, 1),
        ("pick", EventType.SUBTASK_SUCCESS, 1),
        ("pick", EventType.EPISODE_ENDED, 1),
        ("pick.2", EventType.EPISODE_STARTED, 2),
        ("pick.2", EventType.SUCCESS, 2),
        ("pick.2", EventType.EPISODE_ENDED, 2),
    ]
    assert run.events[1].message.startswith(
        "stage 1 of 2 is done, now comes 'take out the cup': log-probability"
    )
    assert [reward.step for reward in run.rewards] == [0, 1, 2, 3] * 2
    assert [k for k, reward in enumerate(run.rewards) if reward.terminated] == [3, 7]
    run.monitor.reset()
    assert run.monitor.report.stage == 1, "the task was done"


def test_a_retry_goes_on_with_the_stage_that_failed() -> None:
    run = Run(TWO_STAGES)
    run.succeed()
    run.image()
    run.monitor.reset()
    assert run.monitor.report.stage == 2
    run.monitor.set_enabled(False)
    assert (run.monitor.report.state, run.monitor.report.stage) == (State.IDLE, 2)
    run.monitor.set_enabled(True)
    assert run.monitor.report.stage == 2
    run.monitor.set_task(TWO_STAGES, "again", stage=2)
    assert (run.monitor.report.stage, run.monitor.report.episode_id) == (2, "again")
    run.monitor.set_task(TWO_STAGES)
    assert run.monitor.report.stage == 1, "a task that is set begins at its beginning"
    with pytest.raises(EpisodeIdError):
        run.monitor.set_task(TWO_STAGES, "pick.2")


def test_a_score_of_the_stage_before_says_nothing_of_the_next() -> None:
    run = Run(TWO_STAGES)
    run.image(None)
    (late,) = run.requests
    run.succeed()
    run.image()
    before = run.monitor.report
    assert run.monitor.add_score(late, PrefixScore(-0.1, -1.0, -8.0, num_frames=1)) == []
    assert run.monitor.scorer_failed(late, "late") == [] and run.monitor.report is before


def test_stamps_that_go_back_begin_the_same_stage_again() -> None:
    run = Run(TWO_STAGES)
    run.succeed()
    run.image()
    run.seconds -= 100.0
    for _ in range(4):
        run.image()
    assert [event.type for event in run.events if isinstance(event, Event)][-3:-1] == [
        EventType.ABORTED,
        EventType.EPISODE_ENDED,
    ]
    assert (run.monitor.report.stage, run.monitor.report.episode_id) == (2, "pick.3")


def test_made_names_are_counted_as_given_ones_are() -> None:
    run = Run(TWO_STAGES)
    run.take(run.monitor.set_task(TWO_STAGES))
    name = run.monitor.report.episode_id
    run.succeed()
    assert run.monitor.report.episode_id == f"{name}.2"
