"""The numbers along the axis of a chart: round ones, written with as many digits as tell them apart."""

from __future__ import annotations

from math import ceil, floor, log10

_LARGE = 1e5  # from here on with an exponent


def round_ticks(low: float, high: float, most: int = 6, *, whole: bool = False) -> list[tuple[float, str]]:
    """At most ``most`` round values from ``low`` to ``high``, each with its text.

    They are 1, 2 or 5 times a power of ten apart; ``whole``: of things that are counted, and 1 at least.

    >>> [text for _, text in round_ticks(-0.25, 1.2)]
    ['0.0', '0.5', '1.0']
    >>> [text for _, text in round_ticks(0.0, 2.5, whole=True)]
    ['0', '1', '2']
    >>> [text for _, text in round_ticks(-3.6e-5, 0.024)]
    ['0.000', '0.005', '0.010', '0.015', '0.020']
    """
    step = _step((high - low) / most, whole=whole)
    while floor(high / step + 1e-9) - ceil(low / step - 1e-9) >= most:
        step = _step(step * 1.01, whole=whole)
    digits = max(0, -floor(log10(step) + 1e-9))
    return [
        (k * step, _text(k * step, digits))
        for k in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)
    ]


def _step(least: float, *, whole: bool) -> float:
    """The smallest 1, 2 or 5 times a power of ten that is no less than ``least``."""
    if not least > 0.0:
        return 1.0
    power = 10.0 ** floor(log10(least))
    step = next(it * power for it in (1, 2, 5, 10) if it * power >= least * (1 - 1e-9))
    return max(step, 1.0) if whole else step


def _text(value: float, digits: int) -> str:
    return f"{value:.3g}" if abs(value) >= _LARGE else f"{value:.{digits}f}"
