"""How long a call of a monitor is waited for, and what is said where nobody answers."""

from __future__ import annotations

import pytest

from topreward_ros.core.monitor_call import (
    LONGEST_ABSENCE_S,
    LONGEST_ANSWER_S,
    CallWait,
    awaited,
    why_no_answer,
)


def test_without_a_monitor_it_is_given_up_soon() -> None:
    wait = CallWait(100.0)
    assert not wait.is_over(100.0 + LONGEST_ABSENCE_S - 0.1) and wait.is_over(100.0 + LONGEST_ABSENCE_S)


def test_a_monitor_that_loads_its_model_is_waited_for_until_it_is_gone() -> None:
    wait = CallWait(0.0)
    for second in range(600):
        wait.note_monitor(float(second), "configuring")
        assert not wait.is_over(float(second))
    assert not wait.is_over(599.0 + LONGEST_ABSENCE_S - 0.1) and wait.is_over(599.0 + LONGEST_ABSENCE_S)


def test_a_monitor_that_people_have_to_configure_is_given_up_soon() -> None:
    wait = CallWait(0.0)
    wait.note_monitor(1.0, "")
    for second in range(2, 11):
        wait.note_monitor(float(second), "unconfigured")
        assert not wait.is_over(float(second))
    assert wait.is_over(1.0 + LONGEST_ABSENCE_S)


@pytest.mark.parametrize("limit_s", [None, 60.0])
def test_a_monitor_that_was_shut_down_is_given_up_at_once(limit_s: float | None) -> None:
    wait = CallWait(0.0, limit_s)
    wait.note_monitor(1.0, "finalized")
    assert wait.is_over(1.0)


def test_an_answer_has_a_limit_of_its_own() -> None:
    wait = CallWait(0.0)
    wait.note_sent(5.0)
    wait.note_monitor(20.0, "configuring")  # that it is there does not say that it answers
    assert not wait.is_over(5.0 + LONGEST_ANSWER_S - 0.1) and wait.is_over(5.0 + LONGEST_ANSWER_S)


def test_a_limit_of_the_user_holds_for_all_of_it() -> None:
    wait = CallWait(0.0, 60.0)
    wait.note_monitor(50.0, "configuring")
    wait.note_sent(55.0)
    assert not wait.is_over(59.9) and wait.is_over(60.0)


def test_what_is_said_names_what_to_do() -> None:
    absent = why_no_answer("/arm1/monitor", 10.02, "7", [])
    assert absent.startswith("no /arm1/monitor within 10 s (ROS_DOMAIN_ID 7): ") and absent.endswith("?")
    assert why_no_answer("/arm1/monitor", 10.0, "7", ["/monitor"]).endswith("-r __ns:=/")
    assert "loads its model" in awaited("/monitor", True) and "loads" not in awaited("/monitor", False)
    assert "started again (finalized)" in awaited("/monitor", True, "finalized")
    assert "loads" not in awaited("/monitor", True, "unconfigured")
