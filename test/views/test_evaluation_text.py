"""Tables of an evaluation in a terminal of the usual width."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from topreward_ros.views.evaluation_tables import Table
from topreward_ros.views.evaluation_text import text_table


def test_titles_break_before_the_name_of_a_task_does() -> None:
    columns = ("task", "episodes", "ROC-AUC", "recall of SUCCESS", "false alarms", "delay, median")
    row = ("start the coffee machine", "1/1", "1.000", "1.000", "0.000", "-0.25 s")
    printed = StringIO()
    console = Console(width=80, file=printed)
    console.print(text_table(Table("By task", "", columns, (row,))))
    lines = printed.getvalue().splitlines()
    assert "  ".join(row).split() == lines[-1].split() and lines[-1].startswith(row[0])
    assert max(map(len, lines)) <= 80
    empty = text_table(Table("By task", "", ("task", ""), ()))
    console.print(empty)  # nothing was measured
