"""What `topreward calibrate` shows in a terminal: a bar, and of each task what was chosen and promised."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isnan

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from topreward_ros.core.calibration.estimates import Estimate
from topreward_ros.core.calibration.fit import Fit
from topreward_ros.views.terminal import number, shown


@contextmanager
def fit_progress(console: Console, steps: int) -> Iterator[Callable[[], None]]:
    """A progress bar over the steps of a fit; yields what to call after each of them."""
    columns = (
        TextColumn("calibrating"), BarColumn(bar_width=30), MofNCompleteColumn(), TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("calibrating", total=steps)
        yield lambda: bar.advance(task)


def summary(fit: Fit) -> RenderableType:
    """What was chosen for a task, what it promises, and what to know of it."""
    calibration, estimates = fit.calibration, fit.estimates
    success = calibration.success
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    weak = " (weak)" if calibration.weak else ""
    table.add_row("task", shown(calibration.task, 400))
    table.add_row("made from", f"{calibration.made_from}{weak}")
    table.add_row("SUCCESS", detector_text(fit))
    table.add_row("recall", share_text(estimates.recall))
    table.add_row("false alarms", share_text(estimates.false_alarms))
    table.add_row("early", share_text(estimates.early))
    table.add_row(
        "delay",
        f"median {seconds_text(estimates.delay_median)}, p95 {seconds_text(estimates.delay_p95)}",
    )
    table.add_row("duration", f"{number(calibration.nominal_duration, 2, 's')} until a success is done")
    table.add_row("threshold", f"{number(success.threshold, 3, 'nat')}")
    return Group(table, *(Text(f"- {text}", style="yellow") for text in fit.advice))


def detector_text(fit: Fit) -> str:
    """When SUCCESS comes, in words."""
    success = fit.calibration.success
    held = f" held for {success.dwell:g} s" if success.dwell else ""
    smooth = f", averaged over {success.smoothing}" if success.smoothing > 1 else ""
    looks = f", with extra looks at up to {success.confirm_rate:g} Hz" if success.confirm_rate else ""
    kept = "" if fit.comparison.keeps_fitted else ", by the parameters success_*"
    return (
        f"{success.min_scores} scores in a row at or above {success.threshold:.3f} nat{smooth}{held}{looks}"
        f"{kept}"
    )


def share_text(estimate: Estimate) -> str:
    """A share in percent, with its interval."""
    interval = estimate.interval
    between = f" (95 %: {interval.low:.0%} to {interval.high:.0%})" if interval.is_known else ""
    return "-" if isnan(estimate.value) else f"{estimate.value:.0%}{between}"


def seconds_text(estimate: Estimate) -> str:
    """A time with its interval."""
    interval = estimate.interval
    between = f" (95 %: {interval.low:.2f} to {interval.high:.2f})" if interval.is_known else ""
    return "-" if isnan(estimate.value) else f"{estimate.value:.2f} s{between}"
