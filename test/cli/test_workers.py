"""The options by which a command shares its work."""

from __future__ import annotations

import argparse

import pytest

from topreward_ros.cli.workers import add_worker_options


def test_a_path_behind_ray_is_no_address(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_worker_options(parser, "each bag")
    assert parser.parse_args(["--ray", "127.0.0.1:6379"]).ray == "127.0.0.1:6379"
    assert parser.parse_args(["--ray"]).ray == ""
    with pytest.raises(SystemExit):
        parser.parse_args(["--ray", "."])
    assert "is a file or a folder, and --ray takes the address" in capsys.readouterr().err
