"""The settings of a supervisor, read from the parameters of config/supervisor.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from topreward_ros.core.instruction import clean_task
from topreward_ros.core.rules import REASONS, Call, CallDefaults, Rule, RuleError, parse_call, parse_rule

PURPOSES = ("start", "end", "reset", "stop")  #: what calls are for


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """Everything that is set, as in config/supervisor.yaml."""

    tasks: tuple[str, ...]
    rules: Mapping[str, Rule]  #: by event or condition
    calls: Mapping[str, tuple[Call, ...]]  #: by purpose
    dry_run: bool
    act_on_uncalibrated: bool
    reset_first: bool
    repeat_tasks: bool
    max_episodes: int  #: 0: no limit
    event_max_age: float  #: [s]
    monitor_timeout: float  #: [s] without a report
    monitor_wait: float  #: [s] for the monitor to take a task
    images_timeout: float  #: [s]
    episode_limit: float  #: [s] from the begin
    undecided_wait: float  #: [s] from the end

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> RetrySettings:
        """Take the settings from parameters named as in config/supervisor.yaml, ignoring the others.

        Raises `RuleError` for a rule or a call that means nothing, and `InstructionError` for a task.
        """
        defaults = CallDefaults(
            timeout_s=parameters["call_timeout"],
            wait_s=parameters["call_wait"],
            retries=parameters["call_retries"],
            failure=parameters["call_failure"],
        )
        tasks = list(filter(None, (clean_task(task, "a task of the list") for task in parameters["tasks"])))
        if not tasks and not parameters["dry_run"]:
            raise RuleError(
                'parameter tasks is empty: name at least one task, as in tasks: ["open the drawer"], or '
                "leave dry_run at true to follow the episodes of others"
            )
        return cls(
            tasks=tuple(tasks),
            rules={reason: parse_rule(reason, parameters[f"on.{reason}"]) for reason in REASONS},
            calls={
                purpose: tuple(
                    parse_call(purpose, text, defaults)
                    for text in parameters[f"{purpose}_calls"]
                    if text.strip()
                )
                for purpose in PURPOSES
            },
            dry_run=parameters["dry_run"],
            act_on_uncalibrated=parameters["act_on_uncalibrated"],
            reset_first=parameters["reset_first"],
            repeat_tasks=parameters["repeat_tasks"],
            max_episodes=parameters["max_episodes"],
            event_max_age=parameters["event_max_age"],
            monitor_timeout=parameters["monitor_timeout"],
            monitor_wait=parameters["monitor_wait"],
            images_timeout=parameters["images_timeout"],
            episode_limit=parameters["episode_limit"],
            undecided_wait=parameters["undecided_wait"],
        )
