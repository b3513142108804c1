"""Write the comments in config/*.yaml: after each default its description in nodes/parameters.py.

    .venv/bin/python -m docs.parameter_comments

Run it from the root of the repository after a change of a description. Values, their order and the headings
between them stay as they are in the files. test/nodes/test_parameters.py fails where a file differs.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

from topreward_ros.core.output_files import write_file
from topreward_ros.nodes.parameters import (
    MONITOR_PARAMETERS,
    MONITORS_PARAMETERS,
    SUPERVISOR_PARAMETERS,
    VIDEO_PLAYER_PARAMETERS,
    Parameter,
)

CONFIG = Path(__file__).resolve().parents[1] / "config"
FILES = {
    "monitor.yaml": MONITOR_PARAMETERS,
    "monitors.yaml": MONITORS_PARAMETERS,
    "supervisor.yaml": SUPERVISOR_PARAMETERS,
    "video_player.yaml": VIDEO_PLAYER_PARAMETERS,
}

_COLUMN = 40  # where comments begin
_WIDTH = 118  # of a line
_SETTING = re.compile(r"(    ([\w.]+): (?:\"[^\"]*\"|[^#])*?)\s*(?:#.*)?")  # a parameter and its value
_CONTINUED = " " * _COLUMN + "#"  # what a comment's second line begins with


def with_comments(text: str, parameters: Sequence[Parameter]) -> str:
    """A parameter file in which every parameter has its description as a comment, and no other."""
    descriptions = {parameter.name: parameter.description for parameter in parameters}
    lines: list[str] = []
    for line in text.splitlines():
        setting = _SETTING.fullmatch(line)
        if setting is not None:
            first, *more = textwrap.wrap(
                descriptions[setting[2]], _WIDTH - len(_CONTINUED) - 1, break_on_hyphens=False
            )
            lines.append(f"{setting[1]:<{_COLUMN - 1}} # {first}")
            lines += [f"{_CONTINUED} {rest}" for rest in more]
        elif not line.startswith(_CONTINUED):
            lines.append(line)
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the comments of all files anew."""
    for name, parameters in FILES.items():
        path = CONFIG / name
        write_file(path, with_comments(path.read_text(encoding="utf-8"), parameters))


if __name__ == "__main__":
    main()
