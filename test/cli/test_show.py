"""`topreward show`: where the page goes, and what is refused."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from test import bags
from topreward_ros.cli.main import main
from topreward_ros.core.frames import NS_PER_S
from topreward_ros.offline import zstd


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    frames = [(k * NS_PER_S // 10, np.full((24, 32, 3), 9 * k, np.uint8)) for k in range(20)]
    return bags.write_bag(tmp_path / "run", bags.camera(frames))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_page_is_written(
    bag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(bag)
    monkeypatch.chdir(tmp_path)
    assert main(["show", "run", "--frames", "6"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("run.html: ") and "topreward annotate" in said.err
    page = Path("run.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and page.count("data-time=") == 6
    assert main(["show", "run"]) == 1, "an old page is not replaced unless it is named"
    assert "run.html exists" in capsys.readouterr().err and Path("run.html").read_text() == page
    assert main(["show", "run", "--output", "run.html", "--frames", "9"]) == 0
    assert Path("run.html").read_text().count("data-time=") == 9
    assert contents(bag) == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "is no folder: name the folder of a bag"),
        (["run", "--output", "page.txt"], "must end in .html"),
        (["run", "--output", "nowhere/page.html"], "name a file in a folder that exists"),
        (["run", "--image-topic", "/depth"], "has no images on /depth; there are /image"),
        (["run/run_0.mcap"], "is no folder"),
        (["."], "is a folder of bags, and no bag: name one of them (half.partial, run)"),
        (["half.partial"], "`topreward record --recover --output "),
        (["empty"], "has no metadata.yaml and no files of a bag"),
        (["run", "--output", ""], "--output '' names a folder: name a file that ends in .html"),
        (["run", "--output", "page.html/"], "--output 'page.html/' names a folder"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    arguments: list[str],
    says: str,
    bag: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "half.partial").mkdir()
    (tmp_path / "half.partial" / "half_0.mcap").touch()
    (tmp_path / "empty").mkdir()
    assert main(["show", *arguments]) == 1
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1
    assert not list(tmp_path.glob("*.html"))


@pytest.mark.parametrize("value", ["0", "-1", "1e3", "1001", "x", "²"])
def test_frames_are_a_number_in_bounds(value: str, bag: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["show", str(bag), f"--frames={value}"])
    assert stopped.value.code == 2 and "whole number from 1 to 1000" in capsys.readouterr().err


def test_a_full_temporary_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its disk is full while the content of compressed files is written; or nothing can be made in it."""
    frames = [(k * NS_PER_S // 10, np.full((24, 32, 3), 9 * k, np.uint8)) for k in range(5)]
    bag = bags.write_bag(tmp_path / "run", bags.camera(frames), compression="file")
    monkeypatch.chdir(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(zstd, "decompress_file", full)
    assert main(["show", str(bag)]) == 1
    assert f"temporary folder {tmp_path} (No space left on device): make room" in capsys.readouterr().err
    monkeypatch.setattr(tempfile, "mkdtemp", full)
    assert main(["show", str(bag)]) == 1
    assert "or set TMPDIR" in capsys.readouterr().err
