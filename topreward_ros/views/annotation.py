"""What `topreward annotate` shows: a bar over all bags, and a line for each that is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from topreward_ros.core.counted import counted
from topreward_ros.offline.annotation_report import Annotation
from topreward_ros.views.terminal import number, output_console, shown


class BagsBar:
    """A bar over bags, each of which counts alike."""

    def __init__(self, bar: Progress, task: TaskID, total: int) -> None:
        self._bar = bar
        self._task = task
        self._shares = dict.fromkeys(range(total), 0.0)
        self._done = 0

    def on_progress(self, bag: int, share: float) -> None:
        """So much of a bag is done, [0, 1]."""
        self._shares[bag] = share
        self._bar.update(self._task, completed=sum(self._shares.values()))

    def end(self, bag: int) -> None:
        """A bag is done, or has failed."""
        self._done += 1
        self._bar.update(self._task, done=self._done)
        self.on_progress(bag, 1.0)

    def print(self, line: Text) -> None:
        """Print a line to standard output, above the bar where both go to one terminal."""
        self._bar.stop()
        output_console().print(line, soft_wrap=True)
        self._bar.start()


@contextmanager
def bags_progress(console: Console, total: int) -> Iterator[BagsBar]:
    """Show a bar over ``total`` bags where there is a terminal."""
    columns = (
        TextColumn("annotating"), BarColumn(bar_width=20),
        TextColumn("{task.fields[done]}/{task.fields[bags]} bags"),
        TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("annotating", total=total, done=0, bags=total)
        yield BagsBar(bar, task, total)


def annotation_line(done: Annotation) -> Text:
    """What was done with a bag, in a line."""
    ends = ", ".join(done.outcomes) or "no episode"
    return shown(
        f"{done.target}: {counted(done.scores, 'score')} of {number(done.duration_s, 1, 's')}, progress at "
        f"the end {number(done.progress)}, {ends}"
    )
