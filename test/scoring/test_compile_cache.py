"""Where PyTorch's compiler keeps what it made, and what happens where that cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from topreward_ros.cli.main import main
from topreward_ros.scoring.compile_cache import VARIABLE, leave_out_unusable_folder, use_folder_of_user

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def environment(monkeypatch, tmp_path):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return monkeypatch


def test_what_is_compiled_is_kept_in_the_users_cache_folder(environment, tmp_path):
    folder = tmp_path / "cache" / "topreward_ros" / "compiled"
    for _ in range(2):
        assert use_folder_of_user() == os.environ[VARIABLE] == str(folder) and folder.is_dir()


def test_a_folder_that_the_user_names_is_used(environment, tmp_path):
    environment.setenv(VARIABLE, "as the user says")
    assert use_folder_of_user() == os.environ[VARIABLE] == "as the user says"
    assert not any(tmp_path.iterdir())


def test_what_pytorch_names_itself_when_it_is_imported_is_not_what_the_user_says(environment, tmp_path):
    pytest.importorskip("torch", reason="scoring needs PyTorch")
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    assert cache_dir() == os.environ[VARIABLE]  # as torch._dynamo calls it
    folder = tmp_path / "cache" / "topreward_ros" / "compiled"
    assert use_folder_of_user() == str(folder) == cache_dir()


def test_a_cache_folder_that_cannot_be_written_is_no_error(environment, tmp_path):
    (tmp_path / "file").touch()
    environment.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    use_folder_of_user()
    assert VARIABLE not in os.environ


@pytest.mark.parametrize("named", ["", "/proc/nope", "/dev/null/x", "file", "file/below"])
def test_a_folder_that_cannot_be_used_is_left_out_with_a_line(environment, tmp_path, caplog, named):
    environment.chdir(tmp_path)
    (tmp_path / "file").touch()
    environment.setenv(VARIABLE, named)
    leave_out_unusable_folder()
    assert VARIABLE not in os.environ
    assert [record.getMessage() for record in caplog.records] == [
        f"{VARIABLE}={named!r} is left out: that folder cannot be made or written"
    ]


@pytest.mark.parametrize("named", ["there", "not/yet/there"])
def test_a_folder_that_can_be_used_stays(environment, tmp_path, caplog, named):
    environment.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    environment.setenv(VARIABLE, named)
    leave_out_unusable_folder()
    assert os.environ[VARIABLE] == named and not caplog.records


def test_every_command_looks_at_it_before_pytorch_is_imported(environment, capsys):
    environment.setenv(VARIABLE, "/proc/nope")
    assert main(["models", "list"]) == 0
    assert VARIABLE not in os.environ


def test_libraries_that_cannot_be_imported_are_not_a_fault_of_the_model(environment):
    """As where a program of another package loads a scorer without a look at the folder."""
    environment.setenv(VARIABLE, "/proc/nope")
    loads = (
        "from topreward_ros.scoring.base import ScorerSettings\n"
        "from topreward_ros.scoring.registry import load_scorer\n"
        "load_scorer('embedded', ScorerSettings('cpu', 'float32', 65536, 16, 1, False))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", loads], capture_output=True, text=True, cwd=ROOT, check=False
    )
    said = ended.stderr.strip().splitlines()[-1]
    assert "ScorerError: PyTorch and transformers cannot be imported (FileNotFoundError: " in said
    assert "'/proc/nope'" in said
