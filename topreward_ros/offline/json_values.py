"""From our values to what JSON knows."""

from __future__ import annotations

from enum import Enum
from math import isfinite
from typing import Any


def plain(value: Any) -> Any:
    """Replace what JSON does not know: an enum by its name in lower case, NaN and infinity by null."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Enum):
        return value.name.lower()
    if isinstance(value, float) and not isfinite(value):
        return None
    return value
