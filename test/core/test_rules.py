"""Rules and calls as users write them: what they mean, and what is wrong with them."""

from __future__ import annotations

import pytest

from topreward_ros.core.rules import (
    Action,
    Call,
    CallDefaults,
    Rule,
    RuleError,
    parse_call,
    parse_rule,
    unknown_reason,
)

DEFAULTS = CallDefaults(timeout_s=30.0, wait_s=5.0, retries=0, failure="stop")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("nothing", Rule(Action.NOTHING)),
        (" end ", Rule(Action.END)),
        ("reset after 2.5", Rule(Action.RESET, delay_s=2.5)),
        ("next after 0", Rule(Action.NEXT)),
        ("retry 3", Rule(Action.RETRY, 3, 0.0, Action.STOP)),
        ("retry 0 then next", Rule(Action.RETRY, 0, 0.0, Action.NEXT)),
        ("retry 12 after 1e1 then reset", Rule(Action.RETRY, 12, 10.0, Action.RESET)),
    ],
)
def test_a_rule_means_what_it_says_and_says_what_it_means(text: str, rule: Rule) -> None:
    assert parse_rule("TIMEOUT", text) == rule
    assert parse_rule("TIMEOUT", str(rule)) == rule


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        ("Retry 3", "'Retry' is none of nothing, end, retry"),
        ("retry", "does not say how often: write 'retry 3'"),
        ("retry after 3", "does not say how often"),
        ("retry -1", "'-1' for retries must be a whole number from 0"),
        ("retry 2.5", "'2.5' for retries"),
        ("retry 3 after -2", "'-2' for a delay must be a number from 0 to 86400"),
        ("retry 3 after nan", "'nan' for a delay"),
        ("retry 3 after 1e400", "for a delay"),
        ("retry 3 after", "a value is missing after 'after'"),
        ("retry 3 then", "a value is missing after 'then'"),
        ("retry 3 then retry", "'retry' is none of end, reset, next, stop"),
        ("stop after 3", "'stop' begins no episode"),
        ("reset then stop", "'then' goes with retry alone"),
        ("next please", "'please' is too much"),
        ("rm\x1b[2J", "is none of nothing"),
    ],
)
def test_a_rule_that_means_nothing_is_named(text: str, problem: str) -> None:
    with pytest.raises(RuleError) as error:
        parse_rule("TIMEOUT", text)
    assert problem in str(error.value) and str(error.value).startswith("on.TIMEOUT")
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("SUCESS", "SUCCESS"),
        ("STALE", "STALE_IMAGES"),  # a state
        ("stalled", "STALL"),
        ("SUCCEEDED", "SUCCESS"),
        ("FAILED", "FAILURE"),
        ("VANISHED", "MONITOR_VANISHED"),
        ("IMAGES_FROZEN", "FROZEN_IMAGES"),
        ("COVER", "COVERED_IMAGES"),
    ],
)
def test_a_reason_that_there_is_not_is_named_with_the_one_that_was_meant(name: str, meant: str) -> None:
    with pytest.raises(RuleError, match=rf"; did you mean {meant}\?$"):
        parse_rule(name, "next")


def test_a_reason_that_is_like_none_is_told_what_there_is() -> None:
    assert "there are SUCCESS, FAILURE" in str(unknown_reason("\x07"))
    with pytest.raises(RuleError, match="name start_calls"):
        parse_rule("EPISODE_STARTED", "next")


def test_no_rule_lets_an_episode_wait_for_ever() -> None:
    with pytest.raises(RuleError, match="wait for ever"):
        parse_rule("OVERDUE", "nothing")


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("service /scene/reset", Call("/scene/reset", "Trigger", None, 30.0, 5.0, 0, False)),
        (
            "service ~/a timeout 1 wait 0 retries 2 else go_on",
            Call("~/a", "Trigger", None, 1.0, 0.0, 2, True),
        ),
        ("topic run std_msgs/msg/Empty", Call("run", "Empty", None, 30.0, 5.0, 0, False)),
        ("topic run Bool True wait 2", Call("run", "Bool", True, 30.0, 2.0, 0, False)),
        ('topic run String "go home" else stop', Call("run", "String", "go home", 30.0, 5.0, 0, False)),
        ("topic run String ''", Call("run", "String", "", 30.0, 5.0, 0, False)),
    ],
)
def test_a_call_is_read(text: str, call: Call) -> None:
    assert parse_call("reset", text, DEFAULTS) == call


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("/scene/reset", "write 'service NAME'"),
        ("service", "write 'service NAME'"),
        ("service 'a", "cannot be read (No closing quotation)"),
        ("service /a//b", "is no name of a service"),
        ("service /scene/2nd", "is no name of a service"),
        ("service /räumen", "is no name of a service"),
        ("service /a timeout -1", "'-1' for timeout must be a number from 0"),
        ("service /a retries 1.5", "must be a whole number"),
        ("service /a timeout", "a value is missing after 'timeout'"),
        ("service /a wait 1 wait 2", "says 'wait' twice"),
        ("service /a else explode", "neither stop nor go_on"),
        ("service /a Empty", "'Empty' means nothing here"),
        ("topic /a", "is none of Empty, Bool, String"),
        ("topic /a Twist", "'Twist' is none of Empty, Bool, String"),
        ("topic /a Bool", "does not say what to publish"),
        ("topic /a Bool 1", "neither true nor false"),
        ("topic /a Empty timeout 3", "'timeout' means nothing here"),
    ],
)
def test_a_call_that_means_nothing_is_named(text: str, problem: str) -> None:
    with pytest.raises(RuleError) as error:
        parse_call("reset", text, DEFAULTS)
    assert problem in str(error.value) and str(error.value).startswith("reset_calls")
