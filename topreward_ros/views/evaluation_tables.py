"""An evaluation as tables of text: the same rows in the terminal, in Markdown and on the HTML page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, isnan
from typing import Any

from topreward_ros.core.counted import counted
from topreward_ros.core.evaluation import (
    ALL,
    DECISIONS,
    KINDS,
    Control,
    EvaluatedEpisode,
    Kind,
    Measure,
    Mode,
    Run,
)
from topreward_ros.core.evaluation_difference import Difference
from topreward_ros.core.intervals import FEWEST
from topreward_ros.core.metrics import TaskConfusion
from topreward_ros.core.printable import printable
from topreward_ros.core.stages import on_one_line
from topreward_ros.offline.evaluation_report import Evaluation

NOTHING = "-"  #: what was not measured
_WORDS = {True: "success", False: "failure", None: "not known"}
_BY_CURVE = (
    "auc", "voc_success", "voc_failure", "voc_unknown", "static_voc", "static_range", "static_share",
    "reversed_voc", "stretched_0.5", "stretched_2", "false_progress", "instruction_share",
    "instruction_difference", "ece", "ece_by_chance", "ranking", "ranking_tau", "ranking_margin",
    "confusion_own", "confusion_other",
)  # fmt: skip
_BY_DECISION = tuple(name for name in KINDS if name not in _BY_CURVE)
_LONGEST_TASK, _LONGEST_NAME = 80, 60  # characters


@dataclass(frozen=True, slots=True)
class Table:
    """A table: the first cell of a row names it."""

    title: str
    about: str  #: a sentence or two for who reads it
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""  #: a sentence below it


def tables(evaluation: Evaluation, *, short: bool = False) -> list[Table]:
    """All tables of an evaluation but that of its episodes; ``short``: as far as a terminal is wide."""
    made = [_decisions(evaluation), _curves(evaluation, value_text if short else with_interval)]
    if len({it.task for it in evaluation.episodes}) > 1:
        made.insert(1, _tasks(evaluation, short=short))
    if not short:
        made.append(_events(evaluation))
    return [table for table in made if table.rows]


def _decisions(evaluation: Evaluation) -> Table:
    measures = [evaluation.measure(ALL, DECISIONS, name) for name in _BY_DECISION]
    rows = [
        (KINDS[it.name].label, value_text(it), interval_text(it), str(it.count), KINDS[it.name].about)
        for it in measures
        if it is not None
    ]
    return Table(
        "What the monitor decided",
        "SUCCESS by the monitor's settings, whatever the mode of the progress.",
        ("measure", "value", "95 % interval", "of", "meaning"),
        tuple(rows),
    )


def _curves(evaluation: Evaluation, text: Callable[[Measure], str]) -> Table:
    modes = [mode for mode in Mode if any(it.mode == mode for it in evaluation.measures)]
    rows = []
    for name in _BY_CURVE:
        found = [evaluation.measure(ALL, mode, name) for mode in modes]
        if any(found):
            cells = [NOTHING if it is None else text(it) for it in found]
            rows.append((KINDS[name].label, *cells, KINDS[name].about))
    return Table(
        "What the curves show, by mode",
        "Value with its 95 % interval. log_prob is in nats, all others from 0 to 1; episode_minmax looks "
        "ahead and cannot be had live. The final value is the mean of the last three. A mean of "
        f"fewer than {FEWEST} films, or of films that all have the same value, has no interval.",
        ("measure", *(mode.value for mode in modes), "meaning"),
        tuple(rows),
    )


_NO_NEWS = frozenset(("EPISODE_STARTED", "EPISODE_ENDED"))


def _events(evaluation: Evaluation) -> Table:
    """In how many films each event came."""
    groups: dict[str, list[Run]] = {
        word: runs
        for label, word in _WORDS.items()
        if (runs := [it.plain for it in evaluation.episodes if it.succeeded is label])
    }
    for control in Control:
        runs = [it.runs[control] for it in evaluation.episodes if control in it.runs]
        if runs and control is not Control.PLAIN:
            groups[control.value.replace("_", " ")] = runs
    kinds = sorted({kind for runs in groups.values() for run in runs for _, kind in run.events} - _NO_NEWS)
    rows = [
        (
            kind,
            *(
                f"{sum(any(it == kind for _, it in run.events) for run in runs)}/{len(runs)}"
                for runs in groups.values()
            ),
        )
        for kind in kinds
    ]
    return Table(
        "Events",
        "In how many films an event came: of episodes as they were recorded, by label, and of controls.",
        ("event", *groups),
        tuple(rows),
    )


#: Columns of the tasks: mode (empty: that of the evaluation) and name of a measure.
_OF_TASKS = (
    ("", "auc"),
    (DECISIONS, "recall"),
    (DECISIONS, "false_alarms"),
    (DECISIONS, "delay_median"),
    (DECISIONS, "delay_p95"),
    ("", "voc_success"),
    (DECISIONS, "idle_alarms"),
    ("", "instruction_share"),
)


_FEW = 4  # of them, that a terminal has room for


def _tasks(evaluation: Evaluation, *, short: bool) -> Table:
    """``short``: with few columns, which are narrow, so that the title names the mode of the curves."""
    wanted = _OF_TASKS[:_FEW] if short else _OF_TASKS
    tasks = list(dict.fromkeys(it.task for it in evaluation.episodes))
    columns = [(mode or evaluation.mode.value, name) for mode, name in wanted]
    found = {task: [evaluation.measure(task, *column) for column in columns] for task in tasks}
    used = [k for k in range(len(columns)) if any(found[task][k] for task in tasks)]
    rows = []
    for task in tasks:
        episodes = [it for it in evaluation.episodes if it.task == task]
        counts = "/".join(str(sum(it.succeeded is kind for it in episodes)) for kind in (True, False))
        measures = [found[task][k] for k in used]
        rows.append(
            (task_text(task), counts, *(NOTHING if it is None else value_text(it) for it in measures))
        )
    for title, pick in (("mean of the tasks", _mean), ("worst task", _worst)):
        cells = [
            _text(pick([it.value for it in column if it and not isnan(it.value)], KINDS[name]), KINDS[name])
            for (_, name), column in ((columns[k], [found[task][k] for task in tasks]) for k in used)
        ]
        rows.append((title, "", *cells))
    return Table(
        f"By task, curves in the mode {evaluation.mode.value}" if short else "By task",
        f"Curves in the mode {evaluation.mode.value}; episodes: successes/failures.",
        ("task", "episodes", *(KINDS[columns[k][1]].label if short else label_in(*columns[k]) for k in used)),
        tuple(rows),
    )


def label_in(mode: str, name: str) -> str:
    """What a measure is called where measures of several modes stand side by side.

    >>> label_in("static_baseline", "auc"), label_in("decisions", "recall")
    ('ROC-AUC (static_baseline)', 'recall of SUCCESS')
    """
    return KINDS[name].label if mode == DECISIONS else f"{KINDS[name].label} ({mode})"


def _mean(values: Sequence[float], _: Kind) -> float:
    return sum(values) / len(values) if values else float("nan")


def _worst(values: Sequence[float], kind: Kind) -> float:
    if not values:
        return float("nan")
    return min(values) if kind.wanted == "high" else max(values, key=abs)


def episodes_table(evaluation: Evaluation) -> Table:
    """A row for each episode."""
    rows = [_episode_row(it, evaluation) for it in evaluation.episodes]
    return Table(
        "Episodes",
        f"Final value in the mode {evaluation.mode.value}.",
        ("episode", "task", "label", "final", "done", "SUCCESS"),
        tuple(rows),
    )


def _episode_row(episode: EvaluatedEpisode, evaluation: Evaluation) -> tuple[str, ...]:
    final = episode.plain.final(evaluation.mode, evaluation.threshold)
    times = [NOTHING if it is None else f"{it:.1f} s" for it in (episode.done_s, episode.plain.success_s)]
    name = printable(episode.name, 200)
    return name, task_text(episode.task), _WORDS[episode.succeeded], f"{final:.2f}", *times


def confusion_table(confusion: TaskConfusion) -> Table:
    """The confusion matrix of tasks; a row per instruction."""
    rows = [
        (task_text(task), *(NOTHING if isnan(value) else f"{value:.2f}" for value in confusion.progress[k]))
        for k, task in enumerate(confusion.tasks)
    ]
    return Table(
        "Tasks that are taken for each other",
        "Mean final value of episodes that are not labelled a failure. Row: the instruction that was asked "
        "for; column: the task of the film. High on the diagonal and low elsewhere is wanted.",
        ("asked for", *map(task_text, confusion.tasks)),
        tuple(rows),
    )


def differences_table(found: Iterable[Difference], episodes: int) -> Table:
    """A row for each measure that is not the same in two evaluations, those first that differ by more than
    noise, and then those that differ most; ``episodes``: that are in both."""
    measures = list(found)
    in_both = [it for it in measures if isnan(it.first) == isnan(it.second)]
    differing = [it for it in in_both if not _reads_alike(it)]
    differing.sort(key=lambda it: (not it.is_more_than_noise, -_change(it)))
    has_tasks = any(it.scope != ALL for it in differing)
    rows = []
    for it in differing:
        kind = _kind(it)
        change = it.second - it.first
        noise = it.lack or NOTHING
        if it.interval.is_known:
            noise = f"[{_signed(it.interval.low)}, {_signed(it.interval.high)}]"
        where = [task_text(it.scope) if it.scope else "all"] if has_tasks else []
        name = kind.label if it.mode == DECISIONS else f"{kind.label} ({printable(it.mode, _LONGEST_NAME)})"
        values = _text(it.first, kind), _text(it.second, kind), _signed(change), noise
        rows.append((name, *where, *values, verdict(change, kind) if it.is_more_than_noise else ""))
    alike, lone = len(in_both) - len(rows), len(measures) - len(in_both)
    notes = [f"{counted(alike, 'measure is', 'measures are')} the same in both"] if alike else []
    notes += [f"{counted(lone, 'is', 'are')} in one of them alone"] if lone else []
    return Table(
        "What differs",
        f"Episodes in both, with the same frames, task and label: {episodes}. The interval is of the "
        "difference over these; where it holds 0, the difference may be noise. It has none where fewer than "
        f"{FEWEST} have the measure in both (too few), and where each differs by the same (all alike), which "
        "says nothing of other episodes. Those that differ by more than noise come first, then those that "
        "differ most: shares and correlations by how much, others by their share of the larger value.",
        ("measure", *["task"] * has_tasks, "first", "second", "difference", "95 % interval", ""),
        tuple(rows),
        note=f"{', '.join(notes)}." if notes else "",
    )


def _kind(it: Difference) -> Kind:
    return KINDS.get(it.name, Kind(printable(it.name, _LONGEST_NAME)))


def _reads_alike(it: Difference) -> bool:
    """Whether both values, and their difference, are the same as they are written."""
    kind = _kind(it)
    return _text(it.first, kind) == _text(it.second, kind) and not abs(it.second - it.first) >= 0.0005


def _change(it: Difference) -> float:
    """How large a difference is, beside those of other measures: of what is no share or correlation, as a
    share of the larger value."""
    change = abs(it.second - it.first)
    has_unit = bool(_kind(it).unit) or it.mode == Mode.LOG_PROB
    return change / max(abs(it.first), abs(it.second)) if has_unit and change else change


def verdict(change: float, kind: Kind) -> str:
    """What a change by more than noise is: better, worse, or neither."""
    if kind.wanted not in ("high", "low"):
        return "more than noise"
    return "better" if (change > 0) == (kind.wanted == "high") else "worse"


def _signed(value: float) -> str:
    return NOTHING if isnan(value) else f"{value:+.3f}"


def task_text(task: str) -> str:
    """A task as it stands in a cell."""
    return printable(on_one_line(task), _LONGEST_TASK)


def value_text(measure: Measure) -> str:
    """The value, with its unit.

    >>> value_text(Measure("", "decisions", "delay_median", 1.25, 0.0, 0.0, 3))
    '1.25 s'
    """
    return _text(measure.value, KINDS[measure.name])


def _text(value: float, kind: Kind) -> str:
    if not isfinite(value):
        return NOTHING
    unit = f" {kind.unit}" if kind.unit and kind.unit != "value" else ""
    return f"{value:.2f}{unit}" if unit else f"{value:.3f}"


def interval_text(measure: Measure) -> str:
    """Its interval, or a dash."""
    if not (isfinite(measure.low) and isfinite(measure.high)):
        return NOTHING
    return f"{measure.low:.3f} to {measure.high:.3f}"


def with_interval(measure: Measure) -> str:
    """Value and interval in one cell."""
    interval = interval_text(measure)
    return value_text(measure) + ("" if interval == NOTHING else f" ({interval})")


def about(evaluation: Evaluation) -> dict[str, str]:
    """What was evaluated and how, by what it is called."""
    model, data, code = evaluation.model, evaluation.data, evaluation.code
    counts = {kind: sum(it.succeeded is kind for it in evaluation.episodes) for kind in (True, False, None)}
    parts = [counted(counts[True], "success", "successes"), counted(counts[False], "failure", "failures")]
    if counts[None]:
        parts.append(f"{counts[None]} of unknown success")
    seconds = sum(it.plain.duration_s for it in evaluation.episodes)
    settings: Mapping[str, object] = evaluation.settings.get("monitor", {})
    calibration = evaluation.settings.get("calibration")
    monitor = (
        f"sample_rate {settings.get('sample_rate')} Hz, progress_mode {settings.get('progress_mode')}, "
        f"success_threshold {evaluation.threshold:g} nat{' where no calibration holds' * bool(calibration)}"
    )
    frames = (
        f"at most {settings.get('max_frames')}, window {settings.get('window')}, front_padding "
        f"{model.get('front_padding', 0)}, fixed_length {model.get('fixed_length', 0)}, of up to "
        f"{model.get('max_pixels')} pixels"
    )
    return {
        "method": printable(str(evaluation.settings.get("method")), 40),
        "data": printable(f"{data['path']} (hash {data['hash']})", 400),
        "episodes": f"{len(evaluation.episodes)}: {', '.join(parts)}; {seconds / 60:.1f} min",
        "model": printable(
            f"{model['model_id']} ({model['revision']}), {model['device']}, {model['dtype']}, prompt "
            f"{model['prompt_hash']}" + (f", answers {answers}" if (answers := model.get("answers")) else ""),
            400,
        ),
        "code": printable(f"topreward_ros {code['version']} (hash {code['hash']})", 400),
        "settings": printable(monitor, 400),
        "frames": printable(frames, 400),
        "calibration": _shown_calibration(calibration) if calibration else "none",
        "controls": printable(", ".join(evaluation.settings.get("controls", [])) or "none", 400),
    }


def _shown_calibration(calibration: Mapping[str, Any]) -> str:
    """The file, and by which threshold each task was decided."""
    shown = [
        f"'{printable(on_one_line(task), 100)}' at {' and '.join(f'{it:g}' for it in thresholds)} nat"
        for task, thresholds in calibration["success"].items()
    ]
    return printable(f"{calibration['file']} (hash {calibration['sha256'][:16]}): {', '.join(shown)}", 1000)


def markdown(evaluation: Evaluation, more: Sequence[Table] = ()) -> str:
    """The evaluation as a page of Markdown, with the tables ``more`` at its end."""
    lines = ["# Evaluation", ""]
    if evaluation.model.get("random_weights"):
        lines += ["**Random weights: the numbers mean nothing.**", ""]
    lines += [f"- {name}: {escaped(text)}" for name, text in about(evaluation).items()]
    for title, sentences in (("Left out", evaluation.problems), ("Notes", evaluation.notes)):
        if sentences:
            lines += ["", f"## {title}", "", *(f"- {escaped(printable(it, 1000))}" for it in sentences)]
    for table in (*tables(evaluation), *more):
        lines += ["", *_markdown_table(table)]
    return "\n".join(lines) + "\n"


def markdown_of(table: Table) -> str:
    """One table as Markdown."""
    return "\n".join(_markdown_table(table)) + "\n"


def _markdown_table(table: Table) -> list[str]:
    rows = [table.columns, ("---",) * len(table.columns), *table.rows]
    lines = [
        f"| {' | '.join(cell if k == 1 else escaped(cell) for cell in row)} |" for k, row in enumerate(rows)
    ]
    below = ["", table.note] if table.note else []
    return [f"## {table.title}", "", table.about, "", *lines, *below]


def escaped(text: str) -> str:
    """Text from outside on a line of Markdown: no table, link, emphasis or HTML comes of it.

    >>> escaped("a|b <i> [x](y) *z*")
    'a\\\\|b &lt;i> \\\\[x](y) \\\\*z\\\\*'
    """
    for sign in "\\`*_[|#":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("&", "&amp;").replace("<", "&lt;")
