"""What the commands refuse to write to, before any work."""

from __future__ import annotations

import os
from argparse import Namespace
from contextlib import suppress
from pathlib import Path

import pytest

from topreward_ros.cli.output import CommandError, check_outputs
from topreward_ros.scoring.checkpoint.folder import EMBEDDED_FOLDER


def refused(*inputs: Path, model: str | None = None, **outputs: object) -> str:
    """Why the outputs are refused; empty where they are not."""
    try:
        check_outputs(Namespace(**outputs), inputs, model)
    except CommandError as error:
        return str(error)
    return ""


def test_outputs_are_told_apart_by_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").symlink_to(tmp_path)
    for plot in ("x.png", "./x.png", "there/x.png", tmp_path / "x.png", "X.PNG"):
        assert "are one file, and one would replace the other" in refused(json="x.png", plot=Path(plot))
    assert refused(json="x.json", plot=Path("x.png")) == ""
    (tmp_path / "x.png").touch()
    (tmp_path / "link.json").symlink_to("x.png")
    os.link("x.png", "hard.json")
    for name in ("link.json", "hard.json"):
        assert "are one file" in refused(json=name, plot=Path("x.png"))
    assert (
        refused(json="-", plot=Path("x.png")) == "" and refused(json="/dev/stdout", plot=Path("x.png")) == ""
    )


def test_images_of_a_folder_are_inputs(tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    (frames / "0.png").touch()
    os.link(frames / "0.png", tmp_path / "hard.json")
    for output in (frames / "0.png", frames / "1.bmp", frames / "1.TIFF", tmp_path / "hard.json"):
        assert f"--json {output} would change {frames}, which is read" in refused(frames, json=output)
    assert refused(frames, json=frames / "curve.json") == refused(frames, json=tmp_path / "1.png") == ""


def test_nothing_is_written_into_a_model(tmp_path: Path) -> None:
    inside = EMBEDDED_FOLDER / "new.json"
    (tmp_path / "model").symlink_to(EMBEDDED_FOLDER)
    hard = tmp_path / "hard.json"
    with suppress(OSError):  # where both are on one disk
        os.link(EMBEDDED_FOLDER / "config.json", hard)
    for model in ("embedded", str(EMBEDDED_FOLDER), str(tmp_path / "model")):
        for output in (inside, EMBEDDED_FOLDER / "config.json", tmp_path / "model" / "new.json"):
            assert "which is read: name another file" in refused(model=model, json=output)
        if hard.exists():
            assert "which is read: name another file" in refused(model=model, json=hard)
    assert refused(model="embedded", json=tmp_path / "new.json") == ""
    assert refused(model="/no/such/model", json=inside) == "", "of that, loading the model tells"


def test_where_nothing_can_be_written_is_said_before_the_work(tmp_path: Path) -> None:
    loop = tmp_path / "loop.json"
    loop.symlink_to(loop)
    (tmp_path / "dangling.json").symlink_to(tmp_path / "no" / "x.json")
    for output in (tmp_path, tmp_path / "no" / "x.json", loop, tmp_path / "dangling.json"):
        assert refused(json=output).startswith(f"{output} cannot be written")
    for name in (f"{tmp_path}/new/", f"{tmp_path}/new.json/."):
        assert refused(json=name) == f"{name} cannot be written: name a file in a folder that exists"
    assert "must end in one of .png" in refused(plot=tmp_path / "x.xyz")
    assert refused(svg=tmp_path / "v.mp4").endswith("v.mp4: its name must end in .svg")
    assert refused(svg=Path("/dev/stdout")) == ""


def test_an_empty_name_is_refused() -> None:
    for option in ("json", "plot", "svg", "output"):
        assert "name a file in a folder that exists" in refused(**{option: ""})
