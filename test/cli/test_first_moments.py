"""Ctrl-C and SIGTERM in the first moments of every program: no trace, and the status that is promised.

The signal comes in the middle of the n-th import of the program's own code. Before that code Python itself
starts, with a trace of its own for Ctrl-C, and so does `runpy` for -m, which finds the package first.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NODES = ("monitor", "supervisor", "video_player")
PROGRAMS = {
    **{name: [str(ROOT / "scripts" / name)] for name in (*NODES, "topreward")},
    **{f"-m {name}": ["-m", f"topreward_ros.nodes.{name}"] for name in NODES},
    "-m topreward": ["-m", "topreward_ros.cli"],
}
#: Python runs a module of this name, where it finds one, before the program.
SITE = """
import os, signal, sys
class Finder:
    left = int(os.environ["IMPORTS_BEFORE"])
    begun = False
    def find_spec(self, name, *_):
        self.begun = self.begun or hasattr(sys.modules["__main__"], "__file__")  # its code runs
        self.left -= self.begun
        if self.begun and self.left < 0:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), int(os.environ["SIGNAL"]))
sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("imports", [1, 20])
def test_a_signal_while_it_imports_leaves_no_trace(tmp_path: Path, program: str, imports: int) -> None:
    (tmp_path / "sitecustomize.py").write_text(SITE)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)]),
        "IMPORTS_BEFORE": str(imports),
    }
    command = [sys.executable, *PROGRAMS[program]]
    for number in (signal.SIGINT, signal.SIGTERM):
        environment["SIGNAL"] = str(int(number))
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        of_shell = 130 if number is signal.SIGINT else -signal.SIGTERM
        wanted = of_shell if program.endswith("topreward") else 0
        assert (result.returncode, result.stdout, result.stderr) == (wanted, "", ""), number.name
