"""Small charts as SVG, for HTML pages that need nothing else: lines and dots over two axes.

Text is escaped here; where numbers come from is not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from topreward_ros.views.axis_ticks import round_ticks
from topreward_ros.views.html_page import shown

_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 12.0, 22.0, 34.0
_LETTER = 6.2  # width of one in the numbers of an axis, at most
_ROW = 14.0  # height of a number
_MOST_POINTS = 500


@dataclass(frozen=True, slots=True)
class Line:
    """A line through points; a value that is NaN or infinite is a gap."""

    points: Sequence[tuple[float, float]]
    colour: str
    width: float = 1.6
    dashes: str = ""
    opacity: float = 1.0
    title: str = ""  #: shown where the pointer rests
    label: str = ""  #: stands at its last point, always


@dataclass(frozen=True, slots=True)
class Dot:
    """A mark at a place."""

    x: float
    y: float
    colour: str
    is_filled: bool = True
    title: str = ""


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: its ends and what it shows, with the unit."""

    low: float
    high: float
    label: str
    ticks: Sequence[tuple[float, str]] | None = None  #: where a text stands; None: round numbers

    def marks(self, most: int) -> list[tuple[float, str]]:
        """Values with their texts, ``most`` of those that are round."""
        if self.ticks is None:
            return round_ticks(self.low, self.high, most)
        return [it for it in self.ticks if self.low <= it[0] <= self.high]

    def share(self, value: float) -> float:
        """Where a value stands, from 0 to 1; what lies outside stands at the edge."""
        span = self.high - self.low
        return min(max((value - self.low) / span, 0.0), 1.0) if span > 0 else 0.5


def chart(
    x: Axis,
    y: Axis,
    lines: Sequence[Line] = (),
    dots: Sequence[Dot] = (),
    size: tuple[int, int] = (360, 220),
) -> str:
    """An SVG of ``size`` in its own units; it takes the width that it is given."""
    width, height = size
    right, bottom = width - _RIGHT, height - _BOTTOM

    def place(px: float, py: float) -> tuple[float, float]:
        return _LEFT + x.share(px) * (right - _LEFT), bottom - y.share(py) * (bottom - _TOP)

    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{shown(y.label, 200)}">']
    for value, text in y.marks(max(int((bottom - _TOP) / (2 * _ROW)), 2)):
        _, at = place(x.low, value)
        parts.append(
            f'<path d="M{_LEFT:g} {at:.1f}H{right:g}" stroke="#e4e7eb"/>'
            f'<text x="{_LEFT - 5:g}" y="{at + 4:.1f}" text-anchor="end">{shown(text)}</text>'
        )
    for value, text in x.marks(max(int((right - _LEFT) / 40), 2)):
        at, _ = place(value, y.low)
        at = min(at, width - _LETTER * len(text) / 2)
        parts.append(
            f'<path d="M{at:.1f} {bottom:g}v4" stroke="#8c959f"/>'
            f'<text x="{at:.1f}" y="{bottom + 15:g}" text-anchor="middle">{shown(text)}</text>'
        )
    parts.append(
        f'<text x="{(_LEFT + right) / 2:g}" y="{height - 4}" text-anchor="middle">'
        f'{shown(x.label, 200)}</text><text x="0" y="11">{shown(y.label, 200)}</text>'
    )
    for line in lines:
        path = _path(
            [place(*point) if all(map(isfinite, point)) else None for point in _thinned(line.points)]
        )
        dashes = f' stroke-dasharray="{line.dashes}"' if line.dashes else ""
        parts.append(
            f'<path d="{path}" fill="none" stroke="{line.colour}" stroke-width="{line.width:g}"{dashes} '
            f'opacity="{line.opacity:g}" stroke-linejoin="round" stroke-linecap="round">'
            f"{_title(line.title)}</path>"
        )
    for line in lines:
        if line.label:
            at_x, at_y = place(*line.points[-1])
            is_right = at_x > (_LEFT + right) / 2
            below = 11 if at_y < _TOP + _ROW else -4
            parts.append(
                f'<text class="label" x="{at_x + (-4 if is_right else 4):.1f}" y="{at_y + below:.1f}" '
                f'text-anchor="{"end" if is_right else "start"}">{shown(line.label, 200)}</text>'
            )
    for dot in dots:
        if isfinite(dot.x) and isfinite(dot.y):
            at_x, at_y = place(dot.x, dot.y)
            fill = dot.colour if dot.is_filled else "#fff"
            parts.append(
                f'<circle cx="{at_x:.1f}" cy="{at_y:.1f}" r="3.4" fill="{fill}" stroke="{dot.colour}" '
                f'stroke-width="1.6">{_title(dot.title)}</circle>'
            )
    return "".join(parts) + "</svg>"


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """Names with their colours."""
    spans = [
        f'<span class="key"><i style="background:{colour}"></i>{shown(name, 200)}</span>'
        for name, colour in entries
    ]
    return f'<p class="legend">{"".join(spans)}</p>'


def _title(text: str) -> str:
    return f"<title>{shown(text, 200)}</title>" if text else ""


def _path(points: Sequence[tuple[float, float] | None]) -> str:
    """The commands of a line; a lone point is a short stroke.

    >>> _path([(0.0, 1.0), (1.0, 2.0), None, (3.0, 4.0)])
    'M0.0 1.0L1.0 2.0M3.0 4.0h0'
    """
    said, length = "", 0
    for point in [*points, None]:
        if point is None:
            said += "h0" if length == 1 else ""
            length = 0
        else:
            said += f"{'L' if length else 'M'}{point[0]:.1f} {point[1]:.1f}"
            length += 1
    return said


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    stride = -(-len(points) // _MOST_POINTS) or 1
    return [*points[:-1:stride], *points[-1:]]
