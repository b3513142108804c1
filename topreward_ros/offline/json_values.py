"""From our values to those that JSON can hold."""

from __future__ import annotations

from enum import Enum
from math import isfinite
from typing import Any


def json_value(value: Any) -> Any:
    """``value`` as JSON can hold it: an enum becomes its name in lower case, NaN and infinity become null.

    >>> json_value({"times": (0.0, float("nan"))})
    {'times': [0.0, None]}
    """
    if isinstance(value, dict):
        return {name: json_value(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    if isinstance(value, Enum):
        return value.name.lower()
    if isinstance(value, float) and not isfinite(value):
        return None
    return value
