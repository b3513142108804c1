"""The numbers along the axis of a chart: round ones, written with as many digits as tell them apart."""

from __future__ import annotations

from math import ceil, floor, log10

_LARGE = 1e5  # from here on with an exponent


def round_ticks(low: float, high: float, most: int = 6, *, whole: bool = False) -> list[tuple[float, str]]:
    """At most ``most`` round values from ``low`` to ``high``, each with its text.

    They are 1, 2 or 5 times a power of ten apart, and two at least where there is a range, as one alone
    gives no scale; ``whole``: of things that are counted, and 1 apart at least.

    >>> [text for _, text in round_ticks(-0.25, 1.2)]
    ['0.0', '0.5', '1.0']
    >>> [text for _, text in round_ticks(0.0, 2.5, whole=True)]
    ['0', '1', '2']
    >>> [text for _, text in round_ticks(-3.6e-5, 0.024)]
    ['0.000', '0.005', '0.010', '0.015', '0.020']
    >>> [text for _, text in round_ticks(-3.9, -0.1, 2)]
    ['-3', '-2', '-1']
    """
    step = _step((high - low) / most, whole=whole)
    while _last(high, step) - _first(low, step) >= most:
        step = _step(step * 1.01, whole=whole)
    while high > low and _last(high, step) - _first(low, step) < 1 and not (whole and step <= 1.0):
        step = _step(step / 3, whole=whole)
    digits = max(0, -floor(log10(step) + 1e-9))
    return [(k * step, _text(k * step, digits)) for k in range(_first(low, step), _last(high, step) + 1)]


def _first(low: float, step: float) -> int:
    """Of the multiples of ``step``, the number of the first one that is no less than ``low``."""
    return ceil(low / step - 1e-9)


def _last(high: float, step: float) -> int:
    return floor(high / step + 1e-9)


def _step(least: float, *, whole: bool) -> float:
    """The smallest 1, 2 or 5 times a power of ten that is no less than ``least``."""
    if not least > 0.0:
        return 1.0
    power = 10.0 ** floor(log10(least))
    step = next(it * power for it in (1, 2, 5, 10) if it * power >= least * (1 - 1e-9))
    return max(step, 1.0) if whole else step


def _text(value: float, digits: int) -> str:
    return f"{value:.3g}" if abs(value) >= _LARGE else f"{value:.{digits}f}"
