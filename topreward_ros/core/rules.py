"""What a supervisor is told to do: a rule per event or condition, and the calls that reach the robot.

Both are lines of text, as they stand in config/supervisor.yaml. Here they are read and checked; when a rule
applies is decided in retry.py, and the calls are made in nodes/supervisor.py.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from math import isfinite

from topreward_ros.core.errors import UserError
from topreward_ros.core.events import EventType
from topreward_ros.core.nearest import nearest
from topreward_ros.core.printable import printable

LONGEST_TIME_S = 86400.0  #: of a delay, a timeout or a wait
MOST_RETRIES = 1_000_000


class RuleError(UserError):
    """A rule or a call is written in a way that means nothing."""


class Condition(Enum):
    """What a supervisor notices by itself, beside the events of the monitor."""

    MONITOR_VANISHED = "the monitor says nothing any more"
    MONITOR_RESTARTED = "the monitor was started again, and forgot the episode"
    TAKEN_OVER = "somebody else set a task, reset, disabled or deactivated the monitor"
    IMAGES_SILENT = "the monitor has been STALE, or has waited for images, for images_timeout"
    OVERDUE = "no rule has acted, for episode_limit after the begin or undecided_wait after the end"
    SUPERVISOR_RESTARTED = "the supervisor was started again, and the episode on file is over or gone"


#: What a rule can be made for. EPISODE_STARTED is what a supervisor brings about itself.
REASONS: tuple[str, ...] = tuple(
    [kind.name for kind in EventType if kind is not EventType.EPISODE_STARTED]
    + [condition.name for condition in Condition]
)


class Action(Enum):
    """What follows from an event; each ends the episode but `NOTHING`."""

    NOTHING = "nothing"
    END = "end"  #: end the episode; the rule of EPISODE_ENDED says how it goes on
    RETRY = "retry"  #: reset, and try the same task again, some times
    RESET = "reset"  #: reset, and begin the same task as if for the first time
    NEXT = "next"  #: reset, and begin the next task of the list
    STOP = "stop"  #: stop supervising until somebody calls ~/start


@dataclass(frozen=True, slots=True)
class Rule:
    """What to do for one reason."""

    action: Action
    limit: int = 0  #: retries because of this reason, of one task
    delay_s: float = 0.0  #: [s] between the reset and the next episode
    then: Action = Action.STOP  #: when the retries are used up

    def __str__(self) -> str:
        text = self.action.value + (f" {self.limit}" if self.action is Action.RETRY else "")
        text += f" after {self.delay_s:g}" if self.delay_s else ""
        return text + (f" then {self.then.value}" if self.action is Action.RETRY else "")


_DELAYED = (Action.RETRY, Action.RESET, Action.NEXT)
_AFTER_RETRIES = (Action.END, Action.RESET, Action.NEXT, Action.STOP)


def parse_rule(reason: str, text: str) -> Rule:
    """Read a rule: ``ACTION``, ``retry N``, each with ``after SECONDS``; after retries ``then ACTION``.

    Raises `RuleError`.

    >>> parse_rule("TIMEOUT", "retry 3 after 2.5 then next")
    Rule(action=<Action.RETRY: 'retry'>, limit=3, delay_s=2.5, then=<Action.NEXT: 'next'>)
    >>> str(parse_rule("SUCCESS", "next"))
    'next'
    """
    words = text.split()
    where = f"on.{printable(reason, 60)}: '{printable(text, 100)}'"
    if reason not in REASONS:
        raise unknown_reason(reason)
    if not words:
        raise RuleError(f"{where} is empty: write one of {', '.join(a.value for a in Action)}")
    action = _action(words.pop(0), where, tuple(Action))
    limit = 0
    if action is Action.RETRY:
        if not words or words[0] in ("after", "then"):
            raise RuleError(f"{where} does not say how often: write 'retry 3'")
        limit = int(_number(words.pop(0), "retries", where, MOST_RETRIES, whole=True))
    delay_s, then = 0.0, Action.STOP
    if words[:1] == ["after"]:
        if action not in _DELAYED:
            raise RuleError(f"{where}: '{action.value}' begins no episode, so leave 'after' out")
        delay_s = _number(_value_of(words, where), "a delay", where, LONGEST_TIME_S)
    if words[:1] == ["then"]:
        if action is not Action.RETRY:
            raise RuleError(f"{where}: 'then' goes with retry alone; leave it out")
        then = _action(_value_of(words, where), where, _AFTER_RETRIES)
    if words:
        raise RuleError(
            f"{where}: '{printable(words[0], 40)}' is too much; a rule is ACTION [N] [after SECONDS] "
            "[then ACTION]"
        )
    if reason == Condition.OVERDUE.name and action is Action.NOTHING:
        raise RuleError(f"{where} would let an episode wait for ever: write stop, or retry 3")
    return Rule(action, limit, delay_s, then)


@dataclass(frozen=True, slots=True)
class CallDefaults:
    """What holds of a call that does not say otherwise."""

    timeout_s: float  #: [s] for the answer of a service
    wait_s: float  #: [s] for a service, or somebody who listens to a topic, to be there
    retries: int  #: calls again after a refusal
    failure: str  #: stop or go_on


@dataclass(frozen=True, slots=True)
class Call:
    """A service to call (std_srvs/Trigger), or a message to publish on a topic."""

    name: str
    kind: str  #: Trigger; or of the message: Empty, Bool, String
    value: bool | str | None
    timeout_s: float
    wait_s: float
    retries: int
    goes_on: bool  #: whether its failure changes nothing; else it stops the supervisor

    @property
    def is_service(self) -> bool:
        """Whether it is answered."""
        return self.kind == "Trigger"

    def __str__(self) -> str:
        if self.is_service:
            return f"service {self.name}"
        return f"topic {self.name} ({self.kind}{'' if self.value is None else f' {self.value!r}'})"


_MESSAGES = ("Empty", "Bool", "String")
_TRUTHS = {"true": True, "false": False}
_FAILURES = ("stop", "go_on")
_NAME = re.compile(r"[~/]?\w+(?:/\w+)*|~/\w+(?:/\w+)*")
_GRAMMAR = (
    "write 'service NAME' or 'topic NAME Empty', 'topic NAME Bool true', 'topic NAME String TEXT', each with "
    "'timeout S', 'wait S', 'retries N', 'else stop' or 'else go_on' behind it"
)


def parse_call(purpose: str, text: str, defaults: CallDefaults) -> Call:
    """Read a call of ``purpose``, such as 'reset'. Raises `RuleError`.

    >>> defaults = CallDefaults(timeout_s=30.0, wait_s=5.0, retries=0, failure="stop")
    >>> str(parse_call("reset", "service /scene/reset timeout 60", defaults))
    'service /scene/reset'
    >>> parse_call("end", "topic policy/run Bool false else go_on", defaults).value
    False
    """
    where = f"{purpose}_calls: '{printable(text, 200)}'"
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise RuleError(f"{where} cannot be read ({error}): {_GRAMMAR}") from error
    if len(words) < 2 or words[0] not in ("service", "topic"):
        raise RuleError(f"{where}: {_GRAMMAR}")
    way, name = words.pop(0), words.pop(0)
    if not _is_name(name):
        raise RuleError(
            f"{where}: '{printable(name, 60)}' is no name of a {way}: letters, digits, _ and / as in "
            "/scene/reset"
        )
    kind, value = ("Trigger", None) if way == "service" else _message(words, where)
    options = {"timeout": defaults.timeout_s, "wait": defaults.wait_s, "retries": float(defaults.retries)}
    failure, seen = defaults.failure, set()
    while words:
        word = words[0]
        if word in seen:
            raise RuleError(f"{where} says '{word}' twice: leave one out")
        seen.add(word)
        if word == "else":
            failure = _value_of(words, where)
            if failure not in _FAILURES:
                raise RuleError(f"{where}: 'else {printable(failure, 40)}' is neither stop nor go_on")
        elif word in options and (way == "service" or word == "wait"):
            most = MOST_RETRIES if word == "retries" else LONGEST_TIME_S
            options[word] = _number(_value_of(words, where), word, where, most, whole=word == "retries")
        else:
            raise RuleError(f"{where}: '{printable(word, 40)}' means nothing here; {_GRAMMAR}")
    return Call(
        name, kind, value, options["timeout"], options["wait"], int(options["retries"]), failure == "go_on"
    )


def _message(words: list[str], where: str) -> tuple[str, bool | str | None]:
    """Take the type and the content of a message off the front of ``words``."""
    kind = words.pop(0).removeprefix("std_msgs/").removeprefix("msg/") if words else ""
    if kind not in _MESSAGES:
        raise RuleError(f"{where}: '{printable(kind, 40)}' is none of {', '.join(_MESSAGES)}; {_GRAMMAR}")
    if kind == "Empty":
        return kind, None
    if not words:
        raise RuleError(f"{where} does not say what to publish: {_GRAMMAR}")
    value = words.pop(0)
    if kind == "String":
        return kind, value
    if value.lower() not in _TRUTHS:
        raise RuleError(f"{where}: '{printable(value, 40)}' is neither true nor false")
    return kind, _TRUTHS[value.lower()]


def _is_name(name: str) -> bool:
    return name.isascii() and _NAME.fullmatch(name) is not None and re.search(r"(^|/)\d", name) is None


def _value_of(words: list[str], where: str) -> str:
    """Take an option and its value off the front of ``words``."""
    option = words.pop(0)
    if not words:
        raise RuleError(f"{where}: a value is missing after '{option}'")
    return words.pop(0)


def _number(text: str, what: str, where: str, most: float, *, whole: bool = False) -> float:
    try:
        value = float(int(text)) if whole else float(text)
    except (ValueError, OverflowError):
        value = float("nan")
    if not isfinite(value) or not 0 <= value <= most:
        kind = "a whole number" if whole else "a number"
        raise RuleError(f"{where}: '{printable(text, 40)}' for {what} must be {kind} from 0 to {most:.0f}")
    return value


def _action(word: str, where: str, allowed: Sequence[Action]) -> Action:
    names = [action.value for action in allowed]
    if word not in names:
        raise RuleError(f"{where}: '{printable(word, 40)}' is none of {', '.join(names)}")
    return Action(word)


def unknown_reason(name: str) -> RuleError:
    """The error for a rule whose event or condition is not known."""
    if name == EventType.EPISODE_STARTED.name:
        return RuleError(
            f"on.{name}: the begin of an episode has no rule; name start_calls for what is to be done"
        )
    meant = nearest(name, REASONS)
    hint = f"did you mean {meant}?" if meant else f"there are {', '.join(REASONS)}"
    return RuleError(f"on.{printable(name, 60)}: there is no event or condition of that name; {hint}")
