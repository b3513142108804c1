"""A recorded bag as one HTML page: images, curves and events of each episode side by side, over one time.

Pure: what was read of a bag in (offline/bag_episodes.py), a text out. The page needs nothing beside itself:
images are data URIs, curves are SVG, and its Content-Security-Policy forbids everything else, other scripts
than ours included. Ours, a few lines, moves a cursor through the curves and shows the images of that time;
without it the page shows the same, and the images as a strip. Every text from outside is made printable and
escaped.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite

from topreward_ros.core.counted import counted
from topreward_ros.core.frames import NS_PER_S
from topreward_ros.core.stages import on_one_line
from topreward_ros.offline.bag_episodes import BagContent, BagEpisode, BagEvent, Score, ShownFrame
from topreward_ros.views import colours
from topreward_ros.views.axis_ticks import round_ticks
from topreward_ros.views.html_page import document, prose, shown
from topreward_ros.views.score_names import ScoreNames, score_names
from topreward_ros.views.terminal import RANDOM_WARNING, number

_WIDTH, _LEFT, _RIGHT = 640, 56, 8  # of a chart, in its own units, and the margins of its panel
_AXIS = 18  # height of the time axis under a chart
_SECOND = 20  # half the width of a time on it
_LARGEST = 1e9  # what claims more is drawn at the edge
_MOST_POINTS = 1000  # of a curve that are drawn
_MOST_ABOUT = 20
_COLOURS = {**colours.EVENTS, **colours.STATES}
_NOT_DRAWN = ("EPISODE_STARTED", "EPISODE_ENDED")  # they are the ends of the axis

_STYLE = """
body { max-width: 1240px; } h2 { margin: 0; } p { margin: 2px 0; } .wrap { overflow-wrap: anywhere; }
.warning { margin: 8px 0; }
.badge { color: #fff; border-radius: 3px; padding: 1px 7px; font-size: 13px; font-weight: 600;
  vertical-align: 2px; margin-left: 6px; white-space: nowrap; }
td .badge { margin-left: 0; vertical-align: 0; }
.row { display: flex; gap: 18px; align-items: flex-start; margin-top: 10px; }
.cameras { flex: 0 0 330px; display: grid; gap: 8px; } .charts { flex: 1 1 auto; min-width: 0; }
figure img { width: 100%; display: block; border-radius: 4px; background: #eee; }
figcaption { color: #57606a; }
svg .name { font-weight: 600; }
.strip { display: flex; gap: 3px; overflow-x: auto; margin-top: 10px; padding-bottom: 4px; }
.strip span { flex: none; font-size: 11px; color: #57606a; text-align: center; }
.strip img { height: 62px; border-radius: 2px; display: block; }
table { margin: 8px 0 0; } th { white-space: nowrap; }
td, th { padding: 2px 12px 2px 0; overflow-wrap: anywhere; } td.time { white-space: nowrap; }
@media (max-width: 820px) { .row { flex-direction: column; } .cameras { flex-basis: auto; width: 100%; } }
"""

#: For each episode: the pointer over a chart, or the event that is pointed at, says the time that is shown.
_SCRIPT = """
for (const section of document.querySelectorAll("section")) {
  const show = (time) => {
    for (const line of section.querySelectorAll(".cursor")) {
      const box = line.ownerSVGElement.dataset;
      const share = (time - box.from) / (box.to - box.from);
      const x = Number(box.left) + Math.min(Math.max(share, 0), 1) * box.span;
      line.setAttribute("x1", x); line.setAttribute("x2", x); line.removeAttribute("visibility");
    }
    for (const figure of section.querySelectorAll("figure")) {
      let best = null;
      for (const image of section.querySelectorAll(".strip[data-camera='" + figure.dataset.camera + "'] img"))
        if (!best || Math.abs(image.dataset.time - time) < Math.abs(best.dataset.time - time)) best = image;
      if (!best) continue;
      figure.querySelector("img").src = best.src;
      figure.querySelector(".time").textContent = Number(best.dataset.time).toFixed(2) + " s";
    }
  };
  for (const chart of section.querySelectorAll("svg"))
    chart.addEventListener("pointermove", (event) => {
      const box = chart.getBoundingClientRect(), data = chart.dataset;
      const share = ((event.clientX - box.left) / box.width * data.width - data.left) / data.span;
      show(Number(data.from) + Math.min(Math.max(share, 0), 1) * (data.to - data.from));
    });
  for (const timed of section.querySelectorAll("[data-time]"))
    timed.addEventListener("pointerenter", () => show(Number(timed.dataset.time)));
}
"""


def report(content: BagContent) -> str:
    """The page, as HTML."""
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    sections = "".join(_section(episode, content, place) for place, episode in enumerate(content.episodes, 1))
    body = f"{_top(content)}{sections}<script>{_SCRIPT}</script>\n"
    return document(content.name, _STYLE, body, policy)


def facts(content: BagContent) -> str:
    """How much the page shows, in a line."""
    images = sum(len(frames) for episode in content.episodes for frames in episode.frames.values())
    episodes = sum(bool(episode.name) for episode in content.episodes)
    return (
        f"{counted(episodes, 'episode')}, {counted(images, 'image')} shown, of "
        f"{counted(len(content.cameras), 'camera')}"
    )


def _top(content: BagContent) -> str:
    whole = f"{content.duration_s:.1f} s, {counted(content.messages, 'message')}, {facts(content)}"
    parts = [f"<h1>{shown(content.name)}</h1>\n", f'<p class="dim">{whole}</p>\n']
    if content.model:
        parts.append(f'<p class="dim wrap">model {shown(content.model)}</p>\n')
    if content.random_weights:
        parts.append(f'<p class="warning">{shown(RANDOM_WARNING)}</p>\n')
    parts += [f'<p class="note">{prose(note, 2000)}</p>\n' for note in content.notes]
    if content.about:
        rows = list(content.about.items())[:_MOST_ABOUT]
        cells = "".join(f"<tr><th>{shown(name)}</th><td>{shown(value)}</td></tr>" for name, value in rows)
        parts.append(f"<table>{cells}</table>\n")
    return "".join(parts)


def _section(episode: BagEpisode, content: BagContent, place: int) -> str:
    """An episode; or the whole bag, where it has none."""
    badge = _ending(episode)
    title = shown(on_one_line(episode.task)) or ("without a task" if episode.name else "The whole bag")
    said = [f"{(episode.end_ns - episode.start_ns) / NS_PER_S:.1f} s"]
    if episode.name:
        said = [f"episode {place}", shown(episode.name, 120), *said, counted(len(episode.scores), "score")]
    if episode.namespace:
        said.append(f"in {shown(episode.namespace, 120)}")
    if episode.stages > 1:
        said.append(f"stage {episode.stage} of {episode.stages}")
    if episode.scores:
        said.append(f"progress {number(episode.scores[-1].progress, 2)} at the end")
    own = episode.model and not content.model
    model = f'<p class="dim wrap">model {shown(episode.model)}</p>\n' if own else ""
    if model and episode.random_weights:
        model += f'<p class="warning">{shown(RANDOM_WARNING)}</p>\n'
    message = f'<p class="note">{prose(episode.message)}</p>\n' if episode.message else ""
    figures = [
        _figure(name, camera, frames, episode)
        for camera, name in enumerate(content.cameras)
        if (frames := episode.frames.get(name))
    ]
    strips = [
        _strip(name, camera, frames, episode)
        for camera, name in enumerate(content.cameras)
        if (frames := episode.frames.get(name))
    ]
    cameras = f'<div class="cameras">{"".join(figures)}</div>\n' if figures else ""
    charts = f'<div class="charts">{_charts(episode)}{_events(episode)}</div>\n' if episode.name else ""
    return (
        f'<section>\n<h2>{title}{badge}</h2>\n<p class="dim wrap">{" · ".join(said)}</p>\n{model}{message}'
        f'<div class="row">\n{cameras}{charts}</div>\n{"".join(strips)}</section>\n'
    )


def _ending(episode: BagEpisode) -> str:
    """How an episode ended; where the bag does not say it, the state that was reported last."""
    if outcome := episode.outcome:
        return _badge(outcome.name)
    return _badge(episode.state, ", no end in the bag") if episode.state else ""


def _badge(name: str, more: str = "") -> str:
    colour = _COLOURS.get(name, colours.OTHER)
    text = shown(name.replace("_", " ") + more, 60)
    return f'<span class="badge" style="background:{colour}">{text}</span>'


def _seconds(stamp_ns: int, episode: BagEpisode) -> float:
    return (stamp_ns - episode.start_ns) / NS_PER_S


def _source(frame: ShownFrame) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(frame.jpeg).decode()}"


def _figure(name: str, camera: int, frames: Sequence[ShownFrame], episode: BagEpisode) -> str:
    """The large image of a camera: the last one, until the script shows another."""
    last = frames[-1]
    return (
        f'<figure data-camera="{camera}"><img alt="{shown(name, 120)}" src="{_source(last)}"><figcaption>'
        f'{shown(name, 120)} · <span class="time">{_seconds(last.stamp_ns, episode):.2f} s</span>'
        "</figcaption></figure>"
    )


def _strip(name: str, camera: int, frames: Sequence[ShownFrame], episode: BagEpisode) -> str:
    images = "".join(
        f'<span><img alt="" title="{shown(name, 120)}, {(at := _seconds(frame.stamp_ns, episode)):.2f} s" '
        f'data-time="{at:.3f}" src="{_source(frame)}">{at:.2f} s</span>'
        for frame in frames
    )
    return f'<div class="strip" data-camera="{camera}">{images}</div>\n'


def _events(episode: BagEpisode) -> str:
    if not episode.events:
        return '<p class="dim">No events in the bag.</p>'
    rows = []
    for event in episode.events:
        time = f"{_seconds(event.stamp_ns, episode):.2f}" if event.stamp_ns else ""
        data = f' data-time="{time}"' if time else ""
        rows.append(
            f'<tr{data}><td class="time">{time + " s" if time else "-"}</td>'
            f"<td>{_badge(event.type)}</td><td>{shown(event.message)}</td></tr>"
        )
    more = episode.events_left_out
    note = f'<p class="dim">and {counted(more, "event")} more</p>' if more else ""
    return f"<table>{''.join(rows)}</table>{note}"


# ---- charts -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Series:
    label: str
    colour: str
    value: Callable[[Score], float]
    dashes: str = ""


_PROGRESS = (
    _Series("progress", colours.PROGRESS, lambda score: score.progress),
    _Series("probability of success", colours.LOG_PROB, lambda score: score.success_probability, "5 4"),
)
_REWARDS = (_Series("reward", "#6a1b9a", lambda score: score.reward),)


def _log_probs(names: ScoreNames) -> tuple[_Series, ...]:
    held = f"{names.log_prob}, first frame held"
    return (
        _Series(f"{names.log_prob} [nat]", colours.LOG_PROB, lambda score: score.log_prob),
        _Series(names.log_prob_false, colours.LOG_PROB_FALSE, lambda score: score.log_prob_false),
        _Series(held, colours.LOG_PROB_STATIC, lambda score: score.log_prob_static, "5 4"),
    )


def _charts(episode: BagEpisode) -> str:
    if not episode.scores:
        return '<p class="dim">No scores of this episode in the bag.</p>'
    log_probs = _log_probs(score_names(episode.answers))
    return "".join(
        _chart(episode, series, height, limits, events=not place)
        for place, (series, height, limits) in enumerate(
            ((_PROGRESS, 190, (0.0, 1.0)), (log_probs, 140, None), (_REWARDS, 100, None))
        )
    )


@dataclass(frozen=True, slots=True)
class _Panel:
    """Where a time and a value stand in a chart."""

    height: int
    end_s: float  #: of the time axis
    low: float
    high: float

    top = 20.0
    span = float(_WIDTH - _LEFT - _RIGHT)

    @property
    def bottom(self) -> float:
        return float(self.height - _AXIS)

    def x(self, seconds: float) -> float:
        return _LEFT + min(max(seconds / self.end_s, 0.0), 1.0) * self.span

    def y(self, value: float) -> float:
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.bottom - share * (self.bottom - self.top)


def _chart(
    episode: BagEpisode,
    series: Sequence[_Series],
    height: int,
    limits: tuple[float, float] | None,
    *,
    events: bool,
) -> str:
    """Curves over the time of the episode; empty where no value is finite."""
    scores = _thinned(episode.scores)
    finite = [value for it in series for score in scores if isfinite(value := it.value(score))]
    if not finite:
        return '<p class="dim">progress is NaN throughout</p>' if limits else ""
    low, high = _limits(*(limits or (min(finite), max(finite))))
    panel = _Panel(height, max(_seconds(episode.end_ns, episode), 0.5), low, high)
    marks = [
        _event_mark(event, panel.x(_seconds(event.stamp_ns, episode)), panel)
        for event in episode.events
        if events and event.stamp_ns and event.type not in _NOT_DRAWN
    ]
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" data-from="0" data-to="{panel.end_s:.3f}" '
        f'data-left="{_LEFT}" data-span="{panel.span:g}" data-width="{_WIDTH}">{_axes(panel)}{"".join(marks)}'
        f"{_curves(episode, scores, series, panel)}"
        f'<line class="cursor" y1="{panel.top:g}" y2="{panel.bottom:g}" stroke="#1f2328" '
        'visibility="hidden"/></svg>'
    )


def _limits(low: float, high: float) -> tuple[float, float]:
    """The ends of the axis for values from ``low`` to ``high``; a level line stands in the middle.

    >>> _limits(-2.0, -2.0), _limits(-1.0, 1e300)
    ((-3.0, -1.0), (-1.0, 1000000000.0))
    """
    low, high = (min(max(edge, -_LARGEST), _LARGEST) for edge in (low, high))
    if high - low < 1e-6 * max(abs(low), abs(high), 1.0):
        room = max(abs(low), abs(high), 1.0) / 2
        low, high = low - room, high + room
    return low, high


def _axes(panel: _Panel) -> str:
    parts = []
    for value, text in round_ticks(panel.low, panel.high, max(int((panel.bottom - panel.top) / 28), 2)):
        parts.append(
            f'<path d="M{_LEFT} {panel.y(value):.1f}H{_WIDTH - _RIGHT}" stroke="#e4e7eb"/>'
            f'<text x="{_LEFT - 6}" y="{panel.y(value) + 4:.1f}" text-anchor="end">{text}</text>'
        )
    for seconds, text in round_ticks(0.0, panel.end_s, 8):
        at = min(panel.x(seconds), _WIDTH - _SECOND)
        parts.append(f'<text x="{at:.1f}" y="{panel.height - 4}" text-anchor="middle">{text} s</text>')
    return "".join(parts)


def _curves(episode: BagEpisode, scores: Sequence[Score], series: Sequence[_Series], panel: _Panel) -> str:
    """Each of ``series`` that has a finite value, and its name above the panel."""
    parts, start = [], float(_LEFT)
    for it in series:
        values = [it.value(score) for score in scores]
        if not any(map(isfinite, values)):
            continue
        times = [panel.x(_seconds(score.stamp_ns, episode)) for score in scores]
        heights = [panel.y(value) if isfinite(value) else value for value in values]
        dashes = f' stroke-dasharray="{it.dashes}"' if it.dashes else ""
        parts.append(
            f'<path d="{_path(list(zip(times, heights, strict=True)))}" fill="none" stroke="{it.colour}" '
            f'stroke-width="2"{dashes} stroke-linecap="round" stroke-linejoin="round"/>'
            f'<text class="name" x="{start:g}" y="12" style="fill:{it.colour}">{it.label}</text>'
        )
        start += 8.0 + 6.6 * len(it.label)
    return "".join(parts)


def _event_mark(event: BagEvent, at: float, panel: _Panel) -> str:
    """A line through the chart, with the name of the event above it."""
    colour = _COLOURS.get(event.type, colours.OTHER)
    anchor = "end" if at > _WIDTH / 2 else "start"
    return (
        f'<path d="M{at:.1f} {panel.top:g}V{panel.bottom:g}" stroke="{colour}" stroke-width="1.4"/>'
        f'<text x="{at:.1f}" y="{panel.top - 8:g}" text-anchor="{anchor}" style="fill:{colour}">'
        f"{shown(event.type, 60)}</text>"
    )


def _path(points: Sequence[tuple[float, float]]) -> str:
    """The curve through points, with a gap where a value is missing; a lone point is a dot.

    >>> _path([(0.0, 1.0), (1.0, 2.0), (2.0, float("nan")), (3.0, 4.0)])
    'M0.0 1.0L1.0 2.0M3.0 4.0h0'
    """
    said, length = "", 0
    for x, y in [*points, (0.0, float("nan"))]:
        if isfinite(y):
            said += f"{'L' if length else 'M'}{x:.1f} {y:.1f}"
            length += 1
        else:
            said += "h0" if length == 1 else ""
            length = 0
    return said


def _thinned(scores: Sequence[Score]) -> list[Score]:
    """At most `_MOST_POINTS` of them, evenly, and the last."""
    stride = -(-len(scores) // _MOST_POINTS)
    return [*scores[:-1:stride], scores[-1]]
