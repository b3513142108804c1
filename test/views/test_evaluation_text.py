"""Tables of an evaluation in a terminal of the usual width."""

from __future__ import annotations

from io import StringIO
from math import nan
from typing import Any

from rich.console import Console

from topreward_ros.core.evaluation import KINDS, Mode
from topreward_ros.core.evaluation_difference import Difference
from topreward_ros.core.intervals import UNKNOWN, Interval
from topreward_ros.views.evaluation_tables import Table, differences_table, markdown_of
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


def difference(name: str, first: float, second: float, mode: str = "decisions", **more: Any) -> Difference:
    return Difference(more.pop("scope", ""), mode, name, first, second, more.pop("interval", UNKNOWN))


def test_what_differs_most_stands_first_and_what_is_alike_in_one_line() -> None:
    found = [
        difference("auc", 1.0, 1.0, "log_prob"),
        difference("static_range", 4.0, 4.1, "log_prob"),  # by a fortieth
        difference("voc_failure", 0.4, 0.7, "static_baseline"),
        difference("recall", 0.5, 0.6, interval=Interval(0.05, 0.15)),
        difference("delay_median", 1.0, -0.25),
        difference("false_alarms", 0.1, 0.10001),
        difference("idle_alarms", nan, 0.0),
        difference("wrong_alarms", nan, nan),
    ]
    table = differences_table(found, 8)
    assert [row[0] for row in table.rows] == [
        "recall of SUCCESS",
        "delay, median",
        "VOC, failures (static_baseline)",
        "static range (log_prob)",
    ]
    assert (
        table.note == "3 measures are the same in both, 1 is in one of them alone."
        and "task" not in table.columns
    )
    assert table.rows[0][-1] == "better" and table.note in markdown_of(table)
    one = differences_table([difference("recall", 0.5, 0.6, scope="open it")], 8)
    assert one.columns[1] == "task" and one.rows[0][1] == "open it" and not one.note


def test_no_name_of_a_mode_breaks_in_a_terminal_of_the_usual_width() -> None:
    names = [name for name in KINDS if name not in ("idle_alarms", "covered_alarms")]
    found = [
        difference(name, 0.1, 0.4, mode, interval=Interval(-0.311, 0.911)) for name in names for mode in Mode
    ]
    printed = StringIO()
    Console(width=80, file=printed).print(text_table(differences_table(found, 8)))
    words = {word.strip("()") for word in printed.getvalue().split()}
    assert set(Mode) <= words and max(map(len, printed.getvalue().splitlines())) <= 80
