"""What an evaluation found, in a terminal: its tables as what rich can print."""

from __future__ import annotations

from dataclasses import replace

from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from topreward_ros.offline.evaluation_report import Evaluation
from topreward_ros.views.evaluation_tables import Table, tables
from topreward_ros.views.terminal import RANDOM_WARNING, shown


def text_table(table: Table) -> RenderableType:
    """A table of text. Its first column gets the room: titles of others break where cells are short."""
    made = RichTable(
        title=table.title,
        title_justify="left",
        caption=table.note or None,
        caption_justify="left",
        box=None,
        padding=(0, 2, 0, 0),
    )
    for k, name in enumerate(table.columns):
        needed = [*(shown(row[k]).cell_len for row in table.rows), *map(len, name.split())]
        made.add_column(shown(name), overflow="fold", max_width=max(needed, default=None) if k else None)
    for row in table.rows:
        made.add_row(*map(shown, row))
    return made


def evaluation_tables(evaluation: Evaluation) -> RenderableType:
    """The tables without what explains them."""
    parts: list[RenderableType] = []
    for table in tables(evaluation, short=True):
        kept = [k for k, name in enumerate(table.columns) if name != "meaning"]
        rows = tuple(tuple(row[k] for k in kept) for row in table.rows)
        parts += [text_table(replace(table, columns=tuple(table.columns[k] for k in kept), rows=rows)), ""]
    if evaluation.model.get("random_weights"):
        parts.insert(0, Text(RANDOM_WARNING, style="bold red"))
    return Group(*parts)
