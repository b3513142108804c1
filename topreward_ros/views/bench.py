"""How `topreward bench` shows what offline/engine_bench.py measured: a table, and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from topreward_ros.core.counted import counted
from topreward_ros.core.printable import printable
from topreward_ros.offline.engine_bench import CACHE, OURS, PLAIN, PREFIXES, Row
from topreward_ros.views.picture import write_picture
from topreward_ros.views.terminal import number, shown

_COLOURS = {OURS: "#1769aa", CACHE: "#f9a825", PLAIN: "#757575"}


def bench_table(rows: Sequence[Row], machine: dict[str, Any]) -> RenderableType:
    """What `topreward bench` prints: times of the incremental scorer, and how many times the others take."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    for name in (
        "model",
        "frames",
        "prompts",
        f"{PREFIXES} prefixes",
        "plain",
        "cache",
        "last tick",
        "plain",
        "cache",
    ):
        table.add_column(name, justify="left" if name == "model" else "right", no_wrap=True)
    table.add_column("diff", justify="right", no_wrap=True)
    for row in rows:
        ours = row.ways[OURS]
        plain = [_times(row.speed_up(PLAIN, of)) for of in ("episode", "last_tick")]
        if PLAIN not in row.ways and (one := _with_one_prompt(row, rows)):
            ratios = (getattr(one.ways[PLAIN], of) / getattr(ours, of) for of in ("episode", "last_tick"))
            plain = [f"~{_times(row.case.prompts * ratio)}" for ratio in ratios]
        table.add_row(
            shown(row.case.model),
            str(row.case.frames),
            str(row.case.prompts),
            number(ours.episode, 2, "s"),
            plain[0],
            _times(row.speed_up(CACHE, "episode")),
            number(1e3 * ours.last_tick, 1, "ms"),
            plain[1],
            _times(row.speed_up(CACHE, "last_tick")),
            f"{row.difference:.0e}" if row.difference == row.difference else "-",
        )
    legend = (
        "plain: a whole forward pass per prefix and prompt; cache: the KV cache of complete patches is kept, "
        "with a pass per prompt; how many times slower they are, for an episode and for its last frame alone "
        "(~: that of one prompt, times the prompts). "
        "diff: largest distance of log p(True) from plain [nat]."
    )
    return Group(table, Text(legend, style="dim"), shown(machine_line(machine), style="dim"))


def _with_one_prompt(row: Row, rows: Sequence[Row]) -> Row | None:
    """The same episode asked about once, where a plain forward pass was measured."""
    for other in rows:
        same = (other.case.model, other.case.frames) == (row.case.model, row.case.frames)
        if same and other.case.prompts == 1 and PLAIN in other.ways:
            return other
    return None


def plot_bench(rows: Sequence[Row], machine: dict[str, Any], picture: Path) -> None:
    """Seconds per episode by case and way, as bars. Raises as `write_picture` does."""
    figure = Figure(figsize=(10, 0.9 + 0.62 * len(rows)), dpi=110, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    height = 0.27
    for place, row in enumerate(rows):
        for number_of_way, (way, colour) in enumerate(_COLOURS.items()):
            if way not in row.ways:
                continue
            seconds = row.ways[way].episode
            y = place + (number_of_way - 1) * height
            axes.barh(y, seconds, height * 0.9, color=colour, label=way if place == 0 else None)
            factor = "" if way == OURS else f"  {_times(row.speed_up(way, 'episode'))}"
            axes.text(seconds, y, f" {seconds:.2f} s{factor}", va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [_case_label(row) for row in rows])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.set_xlabel(f"seconds for {PREFIXES} prefixes of an episode (logarithmic)")
    axes.set_title(f"The same numbers, three ways\n{machine_line(machine)}", fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper right", frameon=False)
    write_picture(figure, picture)


def _case_label(row: Row) -> str:
    return f"{printable(row.case.model, 60)}\n{row.case.frames} frames, {counted(row.case.prompts, 'prompt')}"


def _times(value: float) -> str:
    return f"{value:.1f}x" if value == value else "-"


def machine_line(machine: dict[str, Any]) -> str:
    """What `engine_bench.machine` says, for a person."""
    return printable(
        f"{machine['processor']}, {machine['threads']} of {machine['cores']} cores, load average "
        f"{machine['load_average']}, torch {machine['torch']}, {machine['date']}"
    )
