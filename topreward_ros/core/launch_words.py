"""The words that arguments of the launch files take, in any case, and what each means.

Launch files cannot use one another, so what they share stands here. Nothing here knows ROS.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

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
