"""The colours of events, states and curves on a light ground, the same wherever they are drawn.

A terminal has colours of its own (watch.py, demo.py).
"""

from __future__ import annotations

_GREEN, _RED, _ORANGE = "#2e7d32", "#c62828", "#b26a00"
#: By the name of an `EventType`.
EVENTS = {
    "SUCCESS": _GREEN,
    "SUBTASK_SUCCESS": _GREEN,
    "FAILURE": _RED,
    "TIMEOUT": _RED,
    "ABORTED": _RED,
    "SCORER_ERROR": _RED,
    "STALL": _ORANGE,
    "REGRESSION": _ORANGE,
    "STALE_IMAGES": _ORANGE,
    "FROZEN_IMAGES": _ORANGE,
    "COVERED_IMAGES": _ORANGE,
}
#: By the name of a `State`.
STATES = {"RUNNING": "#00838f", "SUCCEEDED": _GREEN, "FAILED": _RED, "STALE": _ORANGE, "STALLED": _ORANGE}
OTHER = "#57606a"  #: an event or a state without a colour

PROGRESS, LOG_PROB, LOG_PROB_FALSE, LOG_PROB_STATIC = "#1769aa", _GREEN, _RED, "#757575"  #: curves


def rgb(colour: str) -> tuple[int, int, int]:
    """Red, green and blue of a colour, 0 to 255.

    >>> rgb("#b26a00")
    (178, 106, 0)
    """
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue
