"""An evaluation as one HTML page: what was decided, curves with their truth, controls, tables.

Pure: an `Evaluation` in, a text out. The page needs nothing beside itself and has no script; its
Content-Security-Policy forbids everything but its own styles. Text from outside is made printable and
escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, isnan, nan

import numpy as np

from topreward_ros.core.counted import counted
from topreward_ros.core.evaluation import (
    ALL,
    DECISIONS,
    Control,
    Mode,
    Run,
    confusion,
)
from topreward_ros.core.metrics import TaskConfusion
from topreward_ros.offline.evaluation_report import Evaluation
from topreward_ros.views import colours
from topreward_ros.views.evaluation_tables import (
    NOTHING,
    Table,
    about,
    confusion_table,
    episodes_table,
    interval_text,
    label_in,
    tables,
    task_text,
    value_text,
)
from topreward_ros.views.html_page import document, prose, shown
from topreward_ros.views.score_names import score_names
from topreward_ros.views.svg_charts import Axis, Dot, Line, chart, legend
from topreward_ros.views.terminal import RANDOM_WARNING

_GREEN, _RED, _GREY = colours.EVENTS["SUCCESS"], colours.EVENTS["FAILURE"], colours.OTHER
_OF_LABEL = {True: _GREEN, False: _RED, None: _GREY}
_LABELS = {True: "labelled a success", False: "labelled a failure", None: "without a label"}
_OF_CONTROL = {
    Control.PLAIN: _GREEN,
    Control.IDLE: "#b26a00",
    Control.REVERSED: "#6a1b9a",
    Control.FROZEN: "#00838f",
    Control.COVERED: "#1f2328",
    Control.WRONG_INSTRUCTION: _RED,
}
_TILES = (
    (DECISIONS, "recall"),
    (DECISIONS, "false_alarms"),
    (DECISIONS, "delay_median"),
    (DECISIONS, "delay_p95"),
    (DECISIONS, "idle_alarms"),
    ("", "auc"),
    ("", "voc_success"),
    (Mode.LOG_PROB, "static_share"),
    ("", "instruction_share"),
    ("", "ece"),
)
_MOST_EPISODES = 400  # rows of the table
_MOST_CURVES = 60  # of a task
_STEPS = 41  # of mean curves

_STYLE = """
h3 { font-size: 14px; margin: 0 0 2px; overflow-wrap: anywhere; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(320px, 100%), 1fr)); gap: 18px; }
thead th { vertical-align: bottom; } tbody th { color: #1f2328; min-width: 120px; }
.scroll td, .scroll thead th { white-space: nowrap; }
.scroll td.text { white-space: normal; min-width: 220px; }
td.cell { padding: 6px 10px; text-align: center; }
table.about th { color: #57606a; min-width: 0; } table.about td { overflow-wrap: anywhere; }
"""


def page(evaluation: Evaluation) -> str:
    """The page, as HTML."""
    parts = [_top(evaluation), _tiles(evaluation), _curves(evaluation), _quality(evaluation)]
    found = tables(evaluation)
    parts += [_section(table.title, _table(table)) for table in found]
    if len({it.task for it in evaluation.episodes}) > 1:
        parts.append(_confusion(confusion(evaluation.episodes, evaluation.mode, evaluation.threshold)))
    parts.append(_episodes(episodes_table(evaluation)))
    return document(f"Evaluation of {evaluation.data['path']}", _STYLE, "".join(parts))


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{shown(title)}</h2>\n{content}</section>\n"


def _top(evaluation: Evaluation) -> str:
    rows = "".join(
        f"<tr><th>{shown(name)}</th><td>{shown(text)}</td></tr>" for name, text in about(evaluation).items()
    )
    warning = ""
    if evaluation.model.get("random_weights"):
        warning = f'<p class="warning">{shown(RANDOM_WARNING)}</p>\n'
    notes = "".join(
        f'<p class="note">{prose(sentence)}</p>\n'
        for sentence in (*(f"Left out: {it}" for it in evaluation.problems), *evaluation.notes)
    )
    return (
        f'<h1>Evaluation</h1>\n{warning}<table class="about"><tbody>{rows}</tbody></table>\n{notes}'
        '<p class="dim">A score is advice, never a safety function. Every number holds for these cameras, '
        "tasks and settings alone.</p>\n"
    )


def _tiles(evaluation: Evaluation) -> str:
    made = []
    for wanted, name in _TILES:
        mode = wanted or evaluation.mode.value
        measure = evaluation.measure(ALL, mode, name)
        if measure is None or isnan(measure.value):
            continue
        interval = interval_text(measure)
        said = f"of {measure.count}" if interval == NOTHING else f"{interval}, of {measure.count}"
        made.append(
            f'<div class="tile">{shown(label_in(mode, name))}<b>{shown(value_text(measure))}</b>'
            f'<span class="dim">{shown(said)}</span></div>'
        )
    return f'<div class="tiles">{"".join(made)}</div>\n'


# ---- curves ---------------------------------------------------------------------------------------------


def _axis(evaluation: Evaluation, runs: Sequence[Run]) -> Axis:
    """The axis of the values: [0, 1] of a progress, what there is of a log-probability."""
    if evaluation.mode is not Mode.LOG_PROB:
        return Axis(0.0, 1.0, "progress")
    name = score_names(str(evaluation.model.get("answers") or "")).log_prob
    values = [value for run in runs for value in _values(run, evaluation) if isfinite(value)]
    low = min(values, default=-1.0)
    return Axis(low if low < 0 else -1.0, 0.0, f"{name} [nat]")


def _values(run: Run, evaluation: Evaluation) -> list[float]:
    return [float(value) for value in run.values(evaluation.mode, evaluation.threshold)]


def _curves(evaluation: Evaluation) -> str:
    y = _axis(evaluation, [it.plain for it in evaluation.episodes])
    figures = []
    for task in dict.fromkeys(it.task for it in evaluation.episodes):
        episodes = [it for it in evaluation.episodes if it.task == task]
        drawn = episodes[:_MOST_CURVES]
        longest = max(max(it.plain.duration_s for it in drawn), 0.5)
        lines, dots = [], []
        for episode in drawn:
            colour, run = _OF_LABEL[episode.succeeded], episode.plain
            values = _values(run, evaluation)
            points = list(zip(run.times_s, values, strict=True))
            lines.append(Line(points, colour, 1.3, opacity=0.75, title=episode.name))
            for time_s, is_filled, what in (
                (episode.done_s, False, "done"),
                (run.success_s, True, "SUCCESS"),
            ):
                if time_s is not None:
                    title = f"{what} at {time_s:.1f} s: {episode.name}"
                    dots.append(Dot(time_s, _at(time_s, points), colour, is_filled, title))
        more = f", {len(drawn)} of {len(episodes)} episodes" if len(drawn) < len(episodes) else ""
        figures.append(
            f"<div><h3>{shown(task_text(task))}{more}</h3>"
            f"{chart(Axis(0.0, longest, 'time [s]'), y, lines, dots)}</div>"
        )
    keys = [("success", _GREEN), ("failure", _RED)]
    if any(it.succeeded is None for it in evaluation.episodes):
        keys.append(("not known", _GREY))
    text = (
        f"<p>{shown(y.label)} ({shown(evaluation.mode.value)}) of each episode. An open circle: when it "
        "was done by its label; a full one: SUCCESS of the monitor.</p>"
    )
    return _section("Curves", f'{text}{legend(keys)}<div class="charts">{"".join(figures)}</div>\n')


def _at(time_s: float, points: Sequence[tuple[float, float]]) -> float:
    """The value at a time, on the line between two scores."""
    finite = [(x, y) for x, y in points if isfinite(y)]
    if not finite:
        return nan
    return float(np.interp(time_s, [x for x, _ in finite], [y for _, y in finite]))


# ---- what the values can tell ----------------------------------------------------------------------------


def _quality(evaluation: Evaluation) -> str:
    figures = [_controls(evaluation)]
    groups = {
        kind: [
            it.plain.final(evaluation.mode, evaluation.threshold)
            for it in evaluation.episodes
            if it.succeeded is kind
        ]
        for kind in (True, False)
    }
    if groups[True] and groups[False]:
        figures.append(_roc(groups[True], groups[False]))
        if evaluation.mode is not Mode.LOG_PROB:
            figures.append(_reliability(groups[True], groups[False]))
    return _section(
        "What the values can tell", f'<div class="charts">{"".join(filter(None, figures))}</div>\n'
    )


def _controls(evaluation: Evaluation) -> str:
    """Mean curves of the controls, each over the mean length of its films, of episodes that are not labelled
    a failure, if there are some."""
    episodes = [it for it in evaluation.episodes if it.succeeded is not False] or list(evaluation.episodes)
    labels = {it.succeeded for it in episodes}
    whose = _LABELS[labels.pop()] if len(labels) == 1 else "not labelled a failure"
    shares = np.linspace(0.0, 1.0, _STEPS)
    lines, keys, end_s = [], [], 0.5
    runs = [it.plain for it in episodes]
    for control, colour in _OF_CONTROL.items():
        films = [it.runs[control] for it in episodes if control in it.runs]
        if not films:
            continue
        means = [_resampled(run, shares, evaluation) for run in films]
        times = shares * float(np.mean([run.duration_s for run in films]))
        end_s = max(end_s, float(times[-1]))
        curve = np.nanmean(np.vstack(means), axis=0) if np.isfinite(np.vstack(means)).any() else means[0]
        width = 2.4 if control is Control.PLAIN else 1.5
        lines.append(
            Line(list(zip(times.tolist(), curve.tolist(), strict=True)), colour, width, title=control)
        )
        keys.append((control.value.replace("_", " "), colour))
    if len(lines) < 2:
        return ""
    y = _axis(evaluation, runs)
    return (
        f"<div><h3>Controls: mean of {counted(len(episodes), 'episode')} {whose}</h3>"
        f"{chart(Axis(0.0, end_s, 'time [s]'), y, lines)}{legend(keys)}</div>"
    )


def _resampled(run: Run, shares: np.ndarray, evaluation: Evaluation) -> np.ndarray:
    """The curve at shares of the film; a value that is NaN counts as 0, as in the final value."""
    values = np.array(_values(run, evaluation))
    values = np.where(np.isnan(values), 0.0, values)
    return np.asarray(np.interp(shares, np.array(run.times_s) / max(run.duration_s, 1e-9), values))


def _roc(high: Sequence[float], low: Sequence[float]) -> str:
    thresholds = sorted({*high, *low}, reverse=True)
    points = [(0.0, 0.0)]
    for threshold in thresholds:
        called = [sum(value >= threshold for value in group) / len(group) for group in (low, high)]
        points.append((called[0], called[1]))
    lines = [Line([(0.0, 0.0), (1.0, 1.0)], "#d0d7de", 1.0, "4 4"), Line(points, colours.PROGRESS, 2.0)]
    x, y = Axis(0.0, 1.0, "share of failures called a success"), Axis(0.0, 1.0, "recall")
    return f"<div><h3>ROC of the final value, over all tasks</h3>{chart(x, y, lines)}</div>"


def _reliability(high: Sequence[float], low: Sequence[float]) -> str:
    """The share of successes among episodes whose final progress lies in a fifth of [0, 1]."""
    stated = np.array([*high, *low])
    happened = np.array([1.0] * len(high) + [0.0] * len(low))
    dots = []
    for begin in np.linspace(0.0, 0.8, 5):
        inside = (stated >= begin) & ((stated < begin + 0.2) | (begin > 0.7))
        if inside.any():
            share, count = float(happened[inside].mean()), int(inside.sum())
            dots.append(
                Dot(float(stated[inside].mean()), share, colours.PROGRESS, title=counted(count, "episode"))
            )
    lines = [Line([(0.0, 0.0), (1.0, 1.0)], "#d0d7de", 1.0, "4 4")]
    lines.append(Line([(dot.x, dot.y) for dot in dots], colours.PROGRESS, 1.2))
    x, y = Axis(0.0, 1.0, "final progress, mean of a fifth"), Axis(0.0, 1.0, "share of successes")
    return f"<div><h3>Is progress a probability of success?</h3>{chart(x, y, lines, dots)}</div>"


# ---- tables ---------------------------------------------------------------------------------------------


def _table(table: Table) -> str:
    head = "".join(f"<th>{shown(name)}</th>" for name in table.columns)
    rows = "".join(
        f"<tr><th>{shown(row[0])}</th>{''.join(map(_cell, table.columns[1:], row[1:]))}</tr>"
        for row in table.rows
    )
    return (
        f'<p class="dim">{shown(table.about)}</p>\n<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>\n"
    )


def _cell(column: str, text: str) -> str:
    kind = ' class="text"' if column in ("meaning", "task") else ""
    return f"<td{kind}>{shown(text)}</td>"


def _confusion(made: TaskConfusion) -> str:
    table = confusion_table(made)
    head = "".join(f"<th>{shown(name)}</th>" for name in table.columns)
    rows = []
    for row, values in zip(table.rows, made.progress, strict=True):
        cells = "".join(
            f'<td class="cell" style="background:{_shade(float(value))}">{shown(cell)}</td>'
            for cell, value in zip(row[1:], values, strict=True)
        )
        rows.append(f"<tr><th>{shown(row[0])}</th>{cells}</tr>")
    content = (
        f'<p class="dim">{shown(table.about)}</p>\n<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>\n"
    )
    return _section(table.title, content)


def _shade(value: float) -> str:
    """A blue that is the fuller the nearer ``value`` is to 1."""
    if not isfinite(value):
        return "#fff"
    share = min(max(value, 0.0), 1.0)
    red, green = round(255 - 150 * share), round(255 - 90 * share)
    return f"rgb({red},{green},255)"


def _episodes(table: Table) -> str:
    cut = Table(table.title, table.about, table.columns, table.rows[:_MOST_EPISODES])
    more = len(table.rows) - len(cut.rows)
    note = f'<p class="dim">and {more} more, in the JSON</p>' if more > 0 else ""
    return _section(table.title, _table(cut) + note)
