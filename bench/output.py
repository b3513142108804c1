"""How the scripts of bench/ write what they measured: JSON, and pictures of one look."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from topreward_ros.core.output_files import write_file

BLUE, YELLOW, RED, GREY = "#1769aa", "#f9a825", "#c62828", "#757575"


def write_json(path: Path | None, content: dict[str, Any]) -> None:
    """Write ``content`` to ``path``, if there is one."""
    if path is not None:
        write_file(path, json.dumps(content, indent=2) + "\n")


def new_axes(width: float, height: float, grid: Literal["x", "y"] | None = None) -> tuple[Figure, Axes]:
    """A white figure of ``width`` x ``height`` inches with one pair of axes, and the axes."""
    figure = Figure(figsize=(width, height), dpi=110, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    if grid is not None:
        axes.grid(axis=grid, color="0.92")
        axes.set_axisbelow(True)
    return figure, axes


def legend_above(axes: Axes) -> None:
    """A legend of two columns above the upper right corner."""
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), frameon=False, ncols=2)
