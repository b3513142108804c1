"""Packages for tests that bring a scorer, as pip would have installed them into a folder."""

from __future__ import annotations

import textwrap
from pathlib import Path

_IMPORTS = """
import numpy as np
from math import nan, inf
from topreward_ros.core.progress import PrefixScore
from topreward_ros.scoring.base import LinkError, ScorerError
from topreward_ros.scoring.plugins import ScorerPlugin
"""


def install_plugin(
    folder: Path,
    body: str = "return PrefixScore(-1.0, -0.5)",
    name: str = "mine",
    package: str = "",
    target: str = "",
    head: str = "",
    init: str = "self.argument = argument",
    methods: str = "",
    revision: str = "weights-1",
) -> str:
    """Write the package ``package`` (else ``name``), version 1.5, into ``folder``; gives the model's name.

    ``body``: of `score_one`, ``init``: of `__init__`, ``methods``: more; ``head``: code before all else;
    ``target``: of the entry point, else the class Mine.
    """
    module = f"plugin_of_a_test_{name}"
    lines = [
        textwrap.dedent(head),
        _IMPORTS,
        "class Mine(ScorerPlugin):",
        f"    revision = {revision!r}",
        "    def __init__(self, argument, settings):",
        f"        {init}",
        "    def score_one(self, request):",
        textwrap.indent(textwrap.dedent(body), 8 * " "),
        textwrap.indent(textwrap.dedent(methods), "    "),
    ]
    (folder / f"{module}.py").write_text("\n".join(lines))
    package = package or name
    about = folder / f"{package}-1.5.dist-info"
    about.mkdir(exist_ok=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.5\n")
    (about / "entry_points.txt").write_text(
        f"[topreward_ros.scorers]\n{name} = {target or module + ':Mine'}\n"
    )
    return f"plugin:{name}"
