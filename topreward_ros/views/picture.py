"""How a figure of matplotlib becomes a file: it is drawn in memory, and the file is whole or not there."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from topreward_ros.core.output_files import write_file


def write_picture(figure: Figure, path: str | Path) -> None:
    """Write ``figure`` to ``path`` in the format that its suffix names (.png, .svg, .pdf, .jpg).

    Text of an SVG stays text. Raises `OutputFileError`, and `ValueError` for a format that is not known.
    """
    drawn = BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(drawn, format=Path(path).suffix.lower().removeprefix("."))
    write_file(path, drawn.getvalue())
