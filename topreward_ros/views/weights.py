"""What `topreward export weights` shows of what it has written: nothing is computed but counts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table

from topreward_ros.core.sample_weights import RabcWeights
from topreward_ros.views.terminal import number, shown


def weights_table(columns: Mapping[str, np.ndarray], weights: RabcWeights, output: str) -> RenderableType:
    """The range of each column, and RA-BC's statistics, as LeRobot's log has them."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("column")
    for name in ("lowest", "mean", "highest", "zero", "NaN"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, values in columns.items():
        if name.endswith("index"):
            continue
        finite = values[np.isfinite(values)].astype(np.float64)
        ends = [finite.min(), finite.mean(), finite.max()] if finite.size else [np.nan] * 3
        table.add_row(
            name,
            *(number(float(end)) for end in ends),
            str(int((values == 0).sum())),
            str(int(np.isnan(values).sum())),
        )
    rows = len(columns["index"])
    about = (
        f"{rows} rows in {output}; progress over a chunk: mean {number(weights.delta_mean, 4)}, "
        f"standard deviation {number(weights.delta_std, 4)}"
    )
    return Group(table, shown(about))
