"""Small charts as SVG, for HTML pages that need nothing else: lines and dots over two axes.

Text is escaped here; where numbers come from is not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from topreward_ros.views.html_page import shown

_LEFT, _RIGHT, _TOP, _BOTTOM = 40.0, 10.0, 10.0, 34.0
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
    """One axis: its ends and what it shows."""

    low: float
    high: float
    label: str

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
    for share in (0.0, 0.5, 1.0):
        value = y.low + share * (y.high - y.low)
        _, at = place(x.low, value)
        parts.append(
            f'<path d="M{_LEFT:g} {at:.1f}H{right:g}" stroke="#e4e7eb"/>'
            f'<text x="{_LEFT - 5:g}" y="{at + 4:.1f}" text-anchor="end">{value:.3g}</text>'
        )
    for share, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        value = x.low + share * (x.high - x.low)
        at, _ = place(value, y.low)
        parts.append(f'<text x="{at:.1f}" y="{bottom + 14:g}" text-anchor="{anchor}">{value:.3g}</text>')
    parts.append(
        f'<text x="{(_LEFT + right) / 2:g}" y="{height - 4}" text-anchor="middle">'
        f"{shown(x.label, 200)}</text>"
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
