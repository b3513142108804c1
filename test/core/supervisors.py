"""Settings of supervisors for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from topreward_ros.core.retry_settings import RetrySettings
from topreward_ros.core.rules import REASONS, Call, parse_rule


def settings(
    tasks: Sequence[str], rules: Mapping[str, str], calls: Mapping[str, tuple[Call, ...]], **more: Any
) -> RetrySettings:
    """Settings that act; a reason without a rule has `nothing`. ``more``: other fields by name."""
    usual: dict[str, Any] = {
        "dry_run": False,
        "act_on_uncalibrated": False,
        "reset_first": False,
        "repeat_tasks": False,
        "max_episodes": 0,
        "event_max_age": 5.0,
        "monitor_timeout": 4.0,
        "monitor_wait": 20.0,
        "images_timeout": 10.0,
        "episode_limit": 100.0,
        "undecided_wait": 10.0,
    }
    asked = {reason: parse_rule(reason, rules.get(reason, "nothing")) for reason in REASONS}
    return RetrySettings(tasks=tuple(tasks), rules=asked, calls=calls, **(usual | more))
