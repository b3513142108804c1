"""What the command line shows in a terminal: pure functions from data to what rich can print.

No ROS 2 here, and no output but the signs that work goes on. Every view of a number from random weights says
that it means nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import isfinite, isinf, isnan, nan

from rich.console import Console, Group, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from topreward_ros.core.outputs import State
from topreward_ros.core.printable import printable
from topreward_ros.core.stages import on_one_line
from topreward_ros.core.standard_output import drop_standard_output
from topreward_ros.offline.score_video import Curve, CurvePoint
from topreward_ros.offline.video import Damage
from topreward_ros.scoring.base import RANDOM_WEIGHTS
from topreward_ros.scoring.checkpoint.vocabulary import made_for
from topreward_ros.views.score_names import score_names

RANDOM_WARNING = f"{RANDOM_WEIGHTS}: the numbers mean nothing"

_SHOWN_DAMAGES = 3
_ENDS = ("SUCCESS", "FAILURE", "TIMEOUT", "ABORTED")  # events that end an episode
_UNDECIDED = "undecided"
_SMALL_SHARE = 0.5  # of the probability, on the answers: below it the model may speak another format
_MANY_DIGITS = 1e9  # numbers from here on are shown with an exponent


def shown(text: str, longest: int = 10_000, style: str = "") -> Text:
    """Text from outside for rich: `printable`, and nothing in it is taken for markup."""
    return Text(printable(text, longest), style=style)


def number(value: float, digits: int = 3, unit: str = "") -> str:
    """A number with its unit, or a dash for NaN; one too large to be read in full has an exponent.

    >>> number(-0.25, unit="nat"), number(nan), number(float("-inf"), unit="nat"), number(2e38)
    ('-0.250 nat', '-', '-inf nat', '2.000e+38')
    """
    if isnan(value):
        return "-"
    kind = "f" if abs(value) < _MANY_DIGITS or isinf(value) else "e"
    return f"{value:.{digits}{kind}}{unit and ' ' + unit}"


@contextmanager
def working(console: Console, text: str) -> Iterator[None]:
    """Show ``text`` with a spinner while something runs; nothing where there is no terminal."""
    if not console.is_terminal:
        yield
        return
    with console.status(shown(text)):
        yield


@contextmanager
def score_progress(
    console: Console, expected: int, random_weights: bool
) -> Iterator[Callable[[CurvePoint], None]]:
    """A progress bar over ``expected`` scores (0: not known); yields what to call after each of them."""
    note = f" [bold red]({RANDOM_WEIGHTS})" if random_weights else ""
    columns = (
        TextColumn("scoring"), BarColumn(bar_width=20), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("progress {task.fields[progress]}" + note),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("scoring", total=expected or None, progress="-")
        yield lambda point: bar.update(task, advance=1, progress=number(point.progress, 2))


@contextmanager
def episode_progress(console: Console, episodes: int) -> Iterator[Callable[[], None]]:
    """A progress bar over so many ``episodes``; yields what to call after each of them."""
    columns = (
        TextColumn("annotating"), BarColumn(bar_width=30), MofNCompleteColumn(), TextColumn("episodes"),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("annotating", total=episodes)
        yield lambda: bar.advance(task)


@contextmanager
def looking(console: Console) -> Iterator[Callable[[str], None]]:
    """Say which recording is looked at; yields what to call with its name."""
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status("looking at the recordings") as status:
        yield lambda name: status.update(shown(f"looking at {name}", 100))


@contextmanager
def film_progress(console: Console) -> Iterator[Callable[[int], Callable[[float], None]]]:
    """A progress bar with the time left; yields what to call with the number of scores that are expected.

    That gives what is called with 1 after each score, and with what will not come.
    """
    columns = (
        TextColumn("scoring"), BarColumn(bar_width=30), MofNCompleteColumn(), TextColumn("scores"),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:

        def on_start(expected: int) -> Callable[[float], None]:
            task = bar.add_task("scoring", total=expected)
            return lambda count: bar.advance(task, count)

        yield on_start


class _OutputConsole(Console):
    def on_broken_pipe(self) -> None:
        self.quiet = True
        drop_standard_output()


def output_console(*, stderr: bool = False) -> Console:
    """Where what is made for people goes.

    A reader that leaves, as in `topreward ... | head`, has all it wanted: the rest goes nowhere, and neither
    the work nor the status of the command changes.
    """
    return _OutputConsole(stderr=stderr, highlight=False)


def damage_text(damaged: Sequence[Damage]) -> str:
    """Where and why a video could not be read: the first places, and how many more there are."""
    places = [str(place) for place in damaged[:_SHOWN_DAMAGES]]
    more = len(damaged) - len(places)
    return printable("; ".join(places) + (f"; and {more} more" if more else ""), 1000)


def curves_table(curves: Sequence[Curve]) -> RenderableType:
    """A line for each of several videos that were scored with one model for one task."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("video", overflow="fold")
    for name in ("scored until", "scores", "progress", "highest", "log p", "outcome"):
        table.add_column(name, justify="left" if name == "outcome" else "right", no_wrap=True)
    paths = [os.path.abspath(curve.video) for curve in curves]
    common = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""
    is_root = common == os.path.dirname(common)  # names without it would look like those of other files
    names = paths if is_root else [os.path.relpath(path, common) for path in paths]
    for curve, name in zip(curves, names, strict=True):
        last = curve.points[-1] if curve.points else None
        finite = [point.progress for point in curve.points if isfinite(point.progress)]
        table.add_row(
            shown(name),
            number(curve.duration_s, 1, "s"),
            str(len(curve.points)),
            f"[bold]{number(last.progress) if last else '-'}[/bold]",
            number(max(finite, default=nan)),
            number(last.score.log_prob) if last else "-",
            _outcome(curve),
        )
    if not curves:
        return table
    model = curves[0].model
    task = on_one_line(curves[0].instruction)
    about = f"task: {task}; model {model.model_id} ({model.revision}), {model.device}"
    parts: list[RenderableType] = [table]
    for curve, name in zip(curves, map(printable, names), strict=True):
        if curve.damaged:
            parts.append(Text(f"{name} is damaged: {damage_text(curve.damaged)}", style="yellow"))
    parts.append(shown(about, 400, "dim"))
    if what := made_for(model):
        parts.append(shown(f"{model.model_id} is {what}", 400, "dim"))
    if model.random_weights:
        parts.append(Text(RANDOM_WARNING, style="bold red"))
    for curve, name in zip(curves, map(printable, names), strict=True):
        parts += [shown(f"{name}: {printable(note, 400)}", style="yellow") for note in _notes(curve)]
    return Group(*parts)


def _notes(curve: Curve) -> list[str]:
    """What a line of the table does not show: frames that were not used, and why the episode broke off."""
    notes = [f"{_ignored_text(curve)} were not used"] if curve.ignored.counts() else []
    return notes + [
        f"broken off at {number(event.time_s, 2, 's')}, {event.message}; the rest was not scored"
        for event in curve.events
        if event.type == "ABORTED"
    ]


def _outcome(curve: Curve) -> str:
    """By which event the episode ended; where only the video did, nothing was decided."""
    return next((event.type for event in curve.events if event.type in _ENDS), _UNDECIDED)


def _ignored_text(curve: Curve) -> str:
    return ", ".join(
        f"{count} {'frame' if count == 1 else 'frames'} {reason}"
        for reason, count in curve.ignored.counts().items()
    )


def _returns_text(curve: Curve) -> str:
    """The sum of the rewards of each stage: a stage is an episode of its own, and rewards belong to that."""
    returns = dict.fromkeys((point.stage for point in curve.points), 0.0)
    for point in curve.points:
        returns[point.stage] += point.reward if isfinite(point.reward) else 0.0
    kind = curve.settings.reward.type.name.lower()
    if curve.stages == 1:
        return f"{sum(returns.values()):.3f} ({kind})"
    texts = [f"{total:.3f} in stage {stage}" for stage, total in returns.items()]
    return f"{', '.join(texts)} ({kind}; each stage is an episode of its own)"


def curve_summary(curve: Curve) -> RenderableType:
    """Final numbers and events of a curve."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    model = curve.model
    table.add_row("task", shown(on_one_line(curve.instruction), 400))
    table.add_row("video", shown(curve.video))
    table.add_row("model", shown(f"{model.model_id} ({model.revision}), {model.device}, {model.dtype}"))
    if what := made_for(model):
        table.add_row("", shown(what, 400))
    if model.random_weights:
        table.add_row("", Text(RANDOM_WARNING, style="bold red"))
    rest = ", the rest of the video was not scored" if curve.ended_early else ""
    table.add_row("scores", f"{len(curve.points)} of {number(curve.duration_s, 2, 's')}{rest}")
    if curve.ignored.counts():
        table.add_row("not used", _ignored_text(curve))
    if curve.damaged:
        table.add_row("damaged", Text(damage_text(curve.damaged), style="yellow"))
    for note in curve.calibration_notes:
        table.add_row("calibration", shown(note, style="yellow"))
    outcome = _outcome(curve)
    if outcome == _UNDECIDED:
        state = f" ({curve.state.name})" if curve.state is not State.RUNNING else ""
        outcome += f" when the video ended{state}"
    table.add_row("outcome", outcome)
    if curve.points and curve.stages > 1:
        table.add_row("stage", f"{curve.points[-1].stage} of {curve.stages}")
    if curve.points:
        last = curve.points[-1]
        finite = [point.progress for point in curve.points if isfinite(point.progress)]
        why = last.score.note or "the start already looks finished"
        highest = f", highest {max(finite):.3f}" if finite else f", because {printable(why, 300)}"
        at = f"at {number(last.time_s, 2, 's')}"
        table.add_row("progress", f"[bold]{number(last.progress)}[/bold] {at}{highest}")
        if not isnan(last.score.success_probability):
            table.add_row("success", f"probability {number(last.score.success_probability)}")
        if not isnan(last.score.log_prob) or not last.score.states_progress:
            names = score_names(curve.model.answers)
            if answer := names.on_own_scale(last.score.log_prob):
                table.add_row("answer", f"{answer} is expected")
            sides = (names.good, last.score.log_prob), (names.bad, last.score.log_prob_false)
            said = ", ".join(f"{name} {number(value)}" for name, value in sides)
            held = f"first frame held {number(last.score.log_prob_static)} nat"
            table.add_row(names.short, f"{said}, {held}")
        if last.score.answer_share < _SMALL_SHARE:
            share = f"{number(100.0 * last.score.answer_share, 1)} % of the probability falls on the answers"
            table.add_row("answers", Text(f"{share}: the model may not know this question", style="yellow"))
        table.add_row("return", _returns_text(curve))
    for index, event in enumerate(curve.events):
        label = "events" if index == 0 else ""
        about = Text.assemble(
            f"{event.time_s:7.2f} s  {printable(event.type)}  ", (printable(event.message, 400), "dim")
        )
        table.add_row(label, about)
    return Group(table)
