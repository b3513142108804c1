"""The options by which a command shares its work."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from test import bags
from topreward_ros.cli.main import main
from topreward_ros.cli.workers import add_worker_options
from topreward_ros.defaults import DEMO_CLIPS, shared_file
from topreward_ros.offline import job_processes
from topreward_ros.scoring.checkpoint import quantization


def test_a_path_behind_ray_is_no_address(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_worker_options(parser, "each bag")
    assert parser.parse_args(["--ray", "127.0.0.1:6379"]).ray == "127.0.0.1:6379"
    assert parser.parse_args(["--ray"]).ray == ""
    with pytest.raises(SystemExit):
        parser.parse_args(["--ray", "."])
    assert "is a file or a folder, and --ray takes the address" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        (["--set", "quantization=int8"], "topreward: quantization int8 needs torchao"),
        (["--model", "http://127.0.0.1:9"], "topreward: http://127.0.0.1:9 cannot be reached"),
    ],
)
@pytest.mark.parametrize("command", ["score", "evaluate", "annotate"])
def test_what_no_worker_can_do_is_told_before_they_are_started(
    command: str,
    wish: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(job_processes, "_Process", lambda *_: pytest.fail("started"))
    monkeypatch.setattr(quantization, "find_spec", lambda _: None)
    films = [str(shared_file(clip.video)) for clip in DEMO_CLIPS[:2]]
    if command == "evaluate":
        given = ["--success", films[0], "--failure", films[1], "--output", str(tmp_path / "evaluation")]
    elif command == "annotate":
        camera = [*bags.camera(bags.video_frames(seconds=0.2))]
        given = [str(bags.write_bag(tmp_path / name, camera)) for name in ("one", "two")]
    else:
        given = films
    assert main([command, *given, "--task", "open the drawer", "--workers", "2", *wish]) == 1
    assert capsys.readouterr().err.startswith(said)
