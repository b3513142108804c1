"""Commands with a scorer that another package brings, and what that may do to a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from test.plugins import install_plugin
from test.videos import write_block


def command(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`topreward` with the plug-ins of ``folder``, to its end."""
    path = os.pathsep.join([str(folder), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, "-m", "topreward_ros.cli", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    "how",
    [
        {"init": "import threading, time; threading.Thread(target=time.sleep, args=(1000,)).start()"},
        {"methods": "def close(self):\n    import time; time.sleep(1000)"},
        {"init": "import atexit, time; atexit.register(time.sleep, 1000)"},
    ],
    ids=["a thread that is no daemon", "a close() without end", "a function of atexit without end"],
)
def test_the_command_leaves_once_its_work_is_done(tmp_path: Path, how: dict[str, str]) -> None:
    film = write_block(tmp_path / "block.mp4", 32, 32)
    done = command(
        tmp_path, "score", film, "--model", install_plugin(tmp_path, **how), "--task", "push", "--json", "-"
    )
    assert done.returncode == 0 and json.loads(done.stdout)["scores"]
    assert "plug-in 'mine' of mine 1.5" in done.stderr and "left behind" in done.stderr


def test_what_it_writes_by_any_way_is_not_among_the_results(tmp_path: Path) -> None:
    """By Python, by the descriptor, by C, which writes late, and by a process; also where others score."""
    body = """
    import ctypes, os, subprocess
    print("by Python")
    os.write(1, b"by its descriptor\\n")
    ctypes.CDLL(None).printf(b"by C\\n")
    subprocess.run(["echo", "by a process"], check=True)
    return PrefixScore(-1.0, -0.5)
    """
    film = write_block(tmp_path / "block.mp4", 32, 32)
    ask = ("--model", install_plugin(tmp_path, body), "--task", "push", "--json", "-")
    for films in ([film], [film, film, "--workers", "2"]):
        done = command(tmp_path, "score", *films, *ask)
        assert done.returncode == 0, done.stderr
        content = json.loads(done.stdout)
        assert len(content.get("curves", [content])) == films.count(film)
        for way in ("Python", "its descriptor", "C", "a process"):
            assert f"by {way}\n" in done.stderr


def test_an_evaluation_builds_it_once_to_ask_what_it_is_and_once_to_score(tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    write_block(films / "a.mp4", 32, 32)
    write_block(films / "b.mp4", 64, 32)
    (films / "labels.csv").write_text("file,task,success\na.mp4,push,1\nb.mp4,push,0\n")
    built = tmp_path / "built"
    model = install_plugin(tmp_path, init=f"open({str(built)!r}, 'a').write('once\\n')")
    done = command(tmp_path, "evaluate", films, "--model", model, "--output", tmp_path / "evaluation")
    assert done.returncode == 0, done.stderr
    assert built.read_text().count("once") == 2
