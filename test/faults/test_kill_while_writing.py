"""A process that is killed while it writes leaves the old file or the new one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("kill_while_writing.py")


def killed(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[2])}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


def test_a_kill_leaves_the_old_or_the_new_file() -> None:
    result = killed("--times", "30")
    assert result.returncode == 0, result
    assert re.fullmatch(r"seed \d+: kills: 30; kills that left a temporary file: \d+\n", result.stdout)


def test_the_check_notices_files_that_are_written_in_place() -> None:
    result = killed("--times", "12", "--plainly")
    assert result.returncode == 1 and "curve.json is torn" in result.stdout, result
