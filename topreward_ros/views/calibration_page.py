"""A calibration as one HTML page: what was chosen for each task and why, and what to record next.

Pure: fits in, a text out. The page needs nothing beside itself and has no script; its Content-Security-Policy
forbids everything but its own styles. Text from outside is made printable and escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isfinite

import numpy as np

from topreward_ros.core.calibration.curves import LabelledCurve, log_odds, log_prob_of
from topreward_ros.core.calibration.estimates import Estimate, LeftOut
from topreward_ros.core.calibration.fit import Fit
from topreward_ros.core.calibration.replay import GRID
from topreward_ros.core.calibration.task import Calibrations, Setup
from topreward_ros.core.counted import counted
from topreward_ros.views import colours
from topreward_ros.views.axis_ticks import round_ticks
from topreward_ros.views.calibration import detector_text
from topreward_ros.views.html_page import document, prose, shown
from topreward_ros.views.svg_charts import Axis, Dot, Line, chart, legend

_GREEN, _RED, _GREY, _BLUE = colours.EVENTS["SUCCESS"], colours.EVENTS["FAILURE"], colours.OTHER, "#1769aa"
_ORANGE = colours.EVENTS["STALL"]
_MOST_EPISODES = 200  # charts of single ones
_MOST_CONFUSED = 6
_LOW, _HIGH = -7.0, 9.0  # log-odds of charts
_NATS = (-7.0, -4.0, -2.0, -0.5, -0.1, -0.01, -0.001, -0.0001)  # on the axes of scores
_THRESHOLD = "#1f2328"

_STYLE = """
h3 { font-size: 14px; margin: 18px 0 4px; } figcaption b { font-weight: 600; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(270px, 100%), 1fr)); gap: 18px; }
.small { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(210px, 47%), 1fr)); gap: 10px; }
td, th { overflow-wrap: anywhere; } ul { margin: 4px 0; padding-left: 20px; } li { margin: 3px 0; }
"""

_VERDICTS = {
    "detected": _GREEN,
    "kept quiet": _GREY,
    "missed": _ORANGE,
    "false alarm": _RED,
    "early": _RED,
}


def page(
    calibrations: Calibrations, fits: Sequence[Fit], problems: Sequence[str], notes: Sequence[str]
) -> str:
    """The page of what was fitted just now, as HTML. ``calibrations``: all that the file holds."""
    assert calibrations.setup is not None
    others = [task for task in calibrations.tasks if task.task not in {fit.calibration.task for fit in fits}]
    top = (
        "<h1>Calibration</h1>\n<p>When the monitor says SUCCESS, learnt from labelled episodes. "
        "Every promise below was measured on episodes that were left out. It is advice, and no safety "
        "function.</p>\n"
    )
    top += "".join(f'<p class="warning">{prose(text)}</p>\n' for text in problems[:_MOST_EPISODES])
    top += "".join(f'<p class="note">{prose(text)}</p>\n' for text in notes)
    if others:
        names = ", ".join(f"'{it.task}'" for it in others)
        top += f'<p class="dim">Also in the file, from earlier runs: {shown(names, 2000)}</p>\n'
    parts = [_section(fit) for fit in fits]
    return document("Calibration", _STYLE, f"{top}{''.join(parts)}{_setup(calibrations.setup)}")


def _section(fit: Fit) -> str:
    calibration = fit.calibration
    made = (
        f"{calibration.made_from}; at most {calibration.allowed_false_alarms:.1%} false alarms were asked for"
    )
    weak = (
        '<p class="warning">Weak: too few episodes. Messages say calibrated: false, and '
        f"{calibration.who_decides}.</p>\n"
        if calibration.weak
        else ""
    )
    advice = "".join(f"<li>{prose(text)}</li>" for text in fit.advice)
    return (
        f'<section>\n<h2>{shown(calibration.task)}</h2>\n<p class="dim">{made}</p>\n{weak}{_tiles(fit)}'
        f"<p><b>SUCCESS</b> comes after {shown(detector_text(fit))}.</p>\n"
        f"<h3>What to know, and what to record next</h3>\n<ul>{advice}</ul>\n"
        f'<div class="charts">{_trade(fit)}{_roc(fit)}{_delays(fit)}{_probability(fit)}</div>\n'
        f"{_confused(fit)}{_episodes(fit)}</section>\n"
    )


# ---- tiles --------------------------------------------------------------------------------------


def _tiles(fit: Fit) -> str:
    it = fit.estimates
    tiles = [
        _tile("recall", it.recall, "{:.0%}"),
        _tile("false alarms", it.false_alarms, "{:.0%}"),
        _tile("too early", it.early, "{:.0%}"),
        _tile("delay, median", it.delay_median, "{:.2f} s"),
        _tile("delay, p95", it.delay_p95, "{:.2f} s"),
        _tile("ROC-AUC", it.auc, "{:.2f}"),
        _tile("calibration error", it.calibration_error, "{:.2f}"),
        f'<div class="tile"><b>{_nats(fit.calibration.success.threshold)}</b>threshold</div>',
    ]
    return f'<div class="tiles">{"".join(tiles)}</div>\n'


def _tile(name: str, estimate: Estimate, form: str) -> str:
    value = form.format(estimate.value) if isfinite(estimate.value) else "-"
    interval = estimate.interval
    between = f"{form.format(interval.low)} to {form.format(interval.high)}" if interval.is_known else ""
    return f'<div class="tile"><b>{value}</b>{name}<br><span class="dim">{between or "&nbsp;"}</span></div>'


# ---- charts -------------------------------------------------------------------------------------


def _nats(log_prob: float) -> str:
    return f"{log_prob:.3f} nat"


def _scores(low: float, high: float, label: str) -> Axis:
    """An axis of scores: spaced by their log-odds, in which ``low`` and ``high`` are, and numbered in nat."""
    return Axis(low, high, f"{label} [nat]", [(log_odds(nats), f"{nats:g}") for nats in _NATS])


def _figure(svg: str, title: str, about: str, entries: Sequence[tuple[str, str]] = ()) -> str:
    return (
        f"<figure><h3>{title}</h3>{svg}{legend(entries) if entries else ''}"
        f'<p class="dim">{about}</p></figure>'
    )


def _trade(fit: Fit) -> str:
    """What every threshold is expected to do, with the detector that was chosen."""
    place, of_all = fit.choice.place, fit.expected
    shares = (
        ("recall", _GREEN, of_all.recall),
        ("false alarms", _RED, of_all.false_alarms),
        ("too early", _ORANGE, of_all.early),
    )
    lines = [
        Line(list(zip(GRID.tolist(), values[place[0]].tolist(), strict=True)), colour)
        for _, colour, values in shares
    ]
    at = float(GRID[place[1]])
    learnt = _nats(log_prob_of(at))
    lines.append(Line([(at, 0.0), (at, 1.0)], _THRESHOLD, dashes="4 3", label=learnt))
    kept = "" if fit.comparison.keeps_fitted else ", which is not kept"
    svg = chart(_scores(float(GRID[0]), float(GRID[-1]), "threshold"), Axis(0, 1, "share"), lines)
    about = (
        f"Dashed: the threshold that was learnt, {learnt}{kept}. Scores are taken to be off by as much as so "
        "few episodes leave open. The axis is spaced by log-odds."
    )
    return _figure(
        svg, "What each threshold is expected to do", about, [(name, colour) for name, colour, _ in shares]
    )


def _roc(fit: Fit) -> str:
    """ROC of the score at the end, and where the decisions stand."""
    ends = np.array([curve.end_log_odds for curve in fit.curves])
    high, low = ends[fit.truth.success], ends[~fit.truth.success]
    thresholds = [np.inf, *sorted(set(ends.tolist()), reverse=True)]
    points = [(float((low >= t).mean()), float((high >= t).mean())) for t in thresholds]
    it = fit.estimates
    svg = chart(
        Axis(0, 1, "share of failures above"),
        Axis(0, 1, "share of successes above"),
        [Line([(0, 0), (1, 1)], "#d0d7de", dashes="4 3"), Line(points, _BLUE, width=2)],
        [Dot(it.false_alarms.value, it.recall.value, "#1f2328", title="SUCCESS, each episode left out")],
    )
    return _figure(
        svg,
        "ROC of the score at the end",
        "The dot is what SUCCESS does with each episode left out. A curve along the diagonal means that the "
        "model says nothing.",
    )


def _delays(fit: Fit) -> str:
    """From done to SUCCESS, of each success, shortest first."""
    delays = sorted(
        (it.fired_s - float(done_s), curve.name)
        for it, curve, done_s in zip(fit.left_out, fit.curves, fit.truth.done_s, strict=True)
        if curve.success and isfinite(it.fired_s)
    )
    missed = sum(curve.success for curve in fit.curves) - len(delays)
    far = max((abs(delay) for delay, _ in delays), default=1.0)
    most = max(len(delays), 1) + 0.5
    svg = chart(
        Axis(0, most, "successes, shortest first", round_ticks(0, most, whole=True)),
        Axis(min(0.0, *(d for d, _ in delays), 0.0), max(far, 1.0), "delay [s]"),
        [Line([(0, 0), (len(delays) + 0.5, 0)], "#8c959f")],
        [Dot(k, delay, _GREEN, title=name) for k, (delay, name) in enumerate(delays, 1)],
    )
    more = f" {counted(missed, 'success was', 'successes were')} missed." if missed else ""
    return _figure(svg, "From done to SUCCESS", f"Seconds, each episode left out.{more}")


def _probability(fit: Fit) -> str:
    """The map from score to probability, and the ends of the episodes."""
    odds = np.linspace(_LOW, _HIGH, 121).tolist()
    line = [(x, fit.calibration.probability.of(log_prob_of(x))) for x in odds]
    dots = [
        Dot(
            curve.end_log_odds,
            1.0 if curve.success else 0.0,
            _GREEN if curve.success else _RED,
            is_filled=False,
            title=curve.name,
        )
        for curve in fit.curves
    ]
    threshold = fit.calibration.success.threshold
    at = log_odds(threshold)
    lines = [
        Line(line, _BLUE, width=2),
        Line([(at, 0), (at, 1)], _THRESHOLD, width=1, dashes="4 3", label=_nats(threshold)),
    ]
    svg = chart(_scores(_LOW, _HIGH, "score"), Axis(0, 1, "probability"), lines, dots)
    about = (
        f"By {fit.calibration.probability.kind.value}; circles: where successes (top) and failures (bottom) "
        "end; dashed: the threshold. It is that of the mix that was labelled."
    )
    return _figure(svg, "How likely it is done", about)


# ---- episodes -----------------------------------------------------------------------------------


def _confused(fit: Fit) -> str:
    """The failures that look most like successes, and the other way round."""
    peaks = list(zip(fit.truth.peak.tolist(), fit.curves, strict=True))
    lowest = min(peak for peak, curve in peaks if curve.success)
    highest = max(peak for peak, curve in peaks if not curve.success)
    if highest < lowest:
        least, most = _nats(log_prob_of(lowest)), _nats(log_prob_of(highest))
        return (
            "<h3>What the model cannot tell apart</h3>\n<p>Nothing here: the best score of every success "
            f"is {least} or higher, that of every failure {most} or lower.</p>\n"
        )
    failures = sorted(
        ((peak, curve) for peak, curve in peaks if not curve.success and peak >= lowest),
        key=lambda it: -it[0],
    )
    successes = sorted(
        ((peak, curve) for peak, curve in peaks if curve.success and peak <= highest),
        key=lambda it: it[0],
    )
    rows = "".join(
        f"<tr><td>{kind}</td><td>{shown(curve.name, 200)}</td><td>{_nats(log_prob_of(peak))}</td></tr>"
        for kind, group in (("failure", failures), ("success", successes))
        for peak, curve in group[:_MOST_CONFUSED]
    )
    return (
        "<h3>What the model cannot tell apart</h3>\n<p>These failures score as high as some success, and "
        "these successes no higher than some failure. Look at what they have in common, and record more of "
        "it.</p>\n"
        f'<div class="scroll"><table><thead><tr><th></th><th>episode</th><th>best score</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>\n"
    )


def _episodes(fit: Fit) -> str:
    drawn = list(zip(fit.curves, fit.left_out, fit.truth.done_s.tolist(), strict=True))[:_MOST_EPISODES]
    end_s = max(curve.end_s for curve, _, _ in drawn)
    threshold = fit.calibration.success.threshold
    figures = "".join(_episode(curve, it, done_s, end_s, threshold) for curve, it, done_s in drawn)
    more = len(fit.curves) - len(drawn)
    note = f'<p class="dim">and {more} more episodes</p>' if more else ""
    return (
        "<h3>Every episode</h3>\n"
        + legend(
            [
                ("score of a success", _GREEN),
                ("score of a failure", _RED),
                (f"threshold, {_nats(threshold)}", _THRESHOLD),
                ("done", _BLUE),
                ("SUCCESS, left out", _ORANGE),
            ]
        )
        + f'<div class="small">{figures}</div>\n{note}'
    )


def _episode(curve: LabelledCurve, left_out: LeftOut, done_s: float, end_s: float, threshold: float) -> str:
    verdict, at = left_out.verdict(curve, done_s), log_odds(threshold)
    lines = [
        Line([(end_s, at), (0, at)], _THRESHOLD, width=1, dashes="4 3", label=_nats(threshold)),
        Line(
            [(look.time_s, log_odds(look.log_prob)) for look in curve.looks],
            _GREEN if curve.success else _RED,
            title=curve.name,
        ),
    ]
    if isfinite(done_s):
        told = isfinite(curve.done_s)
        lines.append(Line([(done_s, _LOW), (done_s, _HIGH)], _BLUE, dashes="" if told else "2 3"))
    if isfinite(left_out.fired_s):
        lines.append(Line([(left_out.fired_s, _LOW), (left_out.fired_s, _HIGH)], _ORANGE))
    svg = chart(Axis(0, end_s, "time [s]"), _scores(_LOW, _HIGH, "score"), lines, size=(240, 170))
    return (
        f'<figure>{svg}<figcaption><b style="color:{_VERDICTS[verdict]}">{verdict}</b> '
        f"{shown(curve.name, 120)}</figcaption></figure>"
    )


# ---- setup --------------------------------------------------------------------------------------


def _setup(setup: Setup) -> str:
    rows: Iterable[tuple[str, str]] = (
        ("model", f"{setup.model} ({setup.revision}), {setup.dtype}"),
        ("prompt", f"{setup.prompt_hash}, layout {setup.layout}"),
        ("frames", f"{setup.sample_rate:g} Hz, at most {setup.max_frames}, window {setup.window}"),
        ("length", f"front_padding {setup.front_padding}, fixed_length {setup.fixed_length}"),
        ("pixels", f"{setup.max_pixels} of a frame at most"),
        ("cameras", f"{' '.join(setup.cameras) or 'videos, which do not say'} ({setup.camera_layout})"),
    )
    cells = "".join(f"<tr><th>{name}</th><td>{shown(value)}</td></tr>" for name, value in rows)
    return (
        "<section>\n<h2>Setup</h2>\n<p>The calibration holds for this alone; a monitor with another one "
        f"refuses it.</p>\n<table>{cells}</table>\n</section>\n"
    )
