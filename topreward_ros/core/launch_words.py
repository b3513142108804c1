"""What the launch files have in common: how they read the texts of their arguments, and which they refuse.

Launch files cannot use one another, so what they share stands here. Nothing here knows ROS.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

from topreward_ros.core.nearest import nearest
from topreward_ros.core.printable import printable

Meaning = TypeVar("Meaning")

TRUTHS = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}
LOG_LEVELS = {
    **{name: name for name in ("debug", "info", "warn", "error", "fatal")},
    "warning": "warn",  # as Python calls them
    "critical": "fatal",
}
TRANSPORTS = {name: name for name in ("raw", "compressed")}

#: Which launch reads by itself, whatever is launched, or `ros2 launch` adds.
_OF_LAUNCH = ("launch-prefix", "launch-prefix-filter", "emulate_tty", "sigterm_timeout", "sigkill_timeout")
_SEPARATOR = ":="


def meant(name: str, value: str, words: Mapping[str, Meaning]) -> Meaning:
    """What ``value`` of the argument ``name`` means, one of ``words``. Raises `ValueError` for any other.

    >>> meant("autostart", " Off ", TRUTHS)
    False
    >>> meant("log_level", "loud", LOG_LEVELS)
    Traceback (most recent call last):
    ValueError: log_level:=loud is none of debug, info, warn, error, fatal, warning, critical
    """
    word = value.strip().lower()
    if word not in words:
        raise ValueError(f"{name}:={value} is none of {', '.join(words)}")
    return words[word]


def path_of(name: str, value: str) -> str:
    """The path ``value`` of the argument ``name`` with ~ as the home folder: shells leave it alone behind :=.

    Raises `ValueError` where there is no such home.

    >>> path_of("output", "episodes/~"), path_of("output", "")
    ('episodes/~', '')
    >>> path_of("output", "~nobody at all/episodes")
    Traceback (most recent call last):
    ValueError: output:=~nobody at all/episodes: there is no home folder of that name; write the path out
    """
    expanded = os.path.expanduser(value)
    if expanded.startswith("~"):
        raise ValueError(
            f"{name}:={printable(value, 300)}: there is no home folder of that name; write the path out"
        )
    return expanded


def shell_words(name: str, value: str) -> list[str]:
    """The words of the argument ``name``, quoted as in a shell. Raises `ValueError` for an open quotation.

    >>> shell_words("options", "--before '1 2'")
    ['--before', '1 2']
    >>> shell_words("options", "--before 'x")
    Traceback (most recent call last):
    ValueError: options:=--before 'x has no closing quotation mark; write one more ', or none
    """
    try:
        return [os.path.expanduser(word) for word in shlex.split(value)]
    except ValueError as error:
        what = {
            "No closing quotation": "has no closing quotation mark; write one more {mark}, or none",
            "No escaped character": "ends with a backslash; leave it out, or write two",
        }.get(str(error))
        if what is None:
            raise
        mark = max("'\"", key=value.rfind)
        raise ValueError(f"{name}:={printable(value, 300)} {what.format(mark=mark)}") from None


def not_taken(
    file: str,
    command: Sequence[str],
    configurations: Mapping[str, str],
    declared: Collection[str],
    instead: Mapping[str, str] | None = None,
) -> list[str]:
    """What to say of the arguments that the launch file ``file`` was given and does not have.

    ``command``: words of the process. Where one names ``file``, its NAME:=VALUE are meant for that file; else
    another launch file includes it, and has arguments of its own.
    ``configurations``: values of launch by name, which every included file sees.
    ``instead``: names that a file has which ``file`` includes, and what to give instead, with {value} for
    what was given. On the command line they are an error: raises `ValueError`.

    >>> not_taken("a.launch.py", ["launch", "a.launch.py", "robot:=arm"], {}, ["robots"])
    ['robot:=arm is no argument of a.launch.py and changes nothing: did you mean robots?']
    >>> not_taken("a.launch.py", ["launch", "my.launch.py", "robot:=arm"], {}, ["robots"])
    []
    """
    given = {}
    if any(os.path.basename(word) == file for word in command if _SEPARATOR not in word):
        given = dict(word.split(_SEPARATOR, 1) for word in command if _SEPARATOR in word)
    elsewhere = instead or {}
    said = []
    for name, value in {**configurations, **given}.items():
        shown_value = printable(value, 200)
        shown = f"{printable(name, 100)}:={shown_value} is no argument of {file}"
        if name in declared or not value:
            continue
        if name in elsewhere:
            text = f"{shown}: {elsewhere[name].format(value=shown_value)}"
            if name in given:
                raise ValueError(text)
            said.append(text)
        elif name in given and name not in _OF_LAUNCH:
            close = nearest(name, declared)
            hint = f"did you mean {close}?" if close else "--show-args lists what it takes"
            said.append(f"{shown} and changes nothing: {hint}")
    return said
