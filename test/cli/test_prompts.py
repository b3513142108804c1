"""`topreward prompts sweep` from labelled videos to a file that `prompts` takes, with the embedded model."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest

from topreward_ros.cli.main import main
from topreward_ros.scoring.question.templates import PAPER, read_templates


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks, a success and a failure of each, of two seconds; and lines that cannot be used."""
    folder = tmp_path_factory.mktemp("runs")
    lines = ["file,task,success"]
    for number, task in enumerate(("open the drawer", "close the window")):
        for outcome in (1, 0):
            name = f"{number}-{outcome}.mp4"
            with av.open(str(folder / name), "w") as output:
                stream = output.add_stream("mpeg4", rate=2)
                stream.width, stream.height = 64, 64
                for k in range(5):
                    picture = np.full((64, 64, 3), 40 + 20 * number, np.uint8)
                    picture[:, : 1 + k * (4 + 8 * outcome)] = 200
                    output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
                output.mux(stream.encode(None))
            lines.append(f"{name},{task},{outcome}")
    lines += ["gone.mp4,open the drawer,1"]
    (folder / "labels.csv").write_text("\n".join([*lines, ""]))
    return folder


def test_from_labelled_videos_to_a_file_of_templates(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    mine = tmp_path / "mine.txt"
    mine.write_text("Was it done: {instruction}? The answer is:\n")
    results, file, kept = tmp_path / "results.json", tmp_path / "best.txt", tmp_path / "kept"
    call = ["prompts", "sweep", str(runs), "--prompts", str(mine), "--ensembles", "2", "--scores", str(kept)]
    assert main([*call, "--json", str(results), "--output", str(file)]) == 0
    shown = capsys.readouterr()
    assert "there is no file or folder" in shown.err and "gone.mp4" in shown.err
    assert "11 " in shown.out and "Was it done: {instruction}?" in shown.out
    assert "task held out: close the window" in shown.out and "2 tasks are few" in shown.out

    content = json.loads(results.read_text())
    assert content["format"] == "topreward_prompts/1" and content["model"]["model_id"] == "embedded"
    assert content["templates"][0]["text"] == PAPER and len(content["templates"]) == 11
    assert content["candidates"] == 11 + 1 + 11 * 10 // 2  # alone, ten_prompts.txt, pairs
    assert len({it["voc"] for it in content["templates"]}) > 2  # each template has numbers of its own
    assert [it["part"] for it in content["held_out"]] == ["open the drawer", "close the window"]
    assert len({it["identity"] for it in content["episodes"]}) == 4 and len(content["problems"]) == 1
    recommended = [content["templates"][number - 1]["text"] for number in content["recommended"]["templates"]]
    assert list(read_templates(str(file))) == recommended

    left = {path: path.stat().st_mtime_ns for path in kept.iterdir()}
    assert len(left) == 4
    assert main([*call, "--json", "-"]) == 0  # goes on with what was kept
    assert json.loads(capsys.readouterr().out) == content
    assert {path: path.stat().st_mtime_ns for path in kept.iterdir()} == left


def test_wrong_calls_are_told_before_the_model_is_loaded(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from topreward_ros.scoring import registry

    monkeypatch.setattr(registry, "load_scorer", None)
    labels = (runs / "labels.csv").read_text().splitlines()
    for name, kept in (("successes", (1, 3)), ("pair", (1, 2))):
        copy = runs.parent / name
        copy.mkdir(exist_ok=True)
        for number in kept:
            film = labels[number].split(",")[0]
            (copy / film).write_bytes((runs / film).read_bytes())
        (copy / "labels.csv").write_text("\n".join([labels[0], *(labels[number] for number in kept), ""]))
    (tmp_path / "empty.txt").write_text("# nothing\n")
    for arguments, sentence in (
        ([runs.parent / "successes"], "no task has both successes and failures"),
        ([runs.parent / "pair"], "two successes and two failures"),
        ([tmp_path], "has no labels.csv"),
        ([runs, "--prompts", tmp_path / "empty.txt"], "has no template"),
        ([runs, "--prompts", tmp_path / "no.txt"], "no.txt cannot be read"),
        ([runs, "--set", "prompts=no.txt"], "no.txt cannot be read"),
        ([runs, "--set", "model=x"], "takes no parameter 'model'"),
        ([runs, "--ensembles", "0"], "must be at least 1"),
        ([runs, "--task", " "], "--task is empty"),
        ([runs, "--rate", "nan"], "must be above 0"),
        ([runs, "--output", runs / "labels.csv"], "would change"),
        ([runs, "--output", tmp_path / "empty.txt", "--prompts", tmp_path / "empty.txt"], "would change"),
    ):
        assert main(["prompts", "sweep", *map(str, arguments)]) == 1
        assert sentence in capsys.readouterr().err, arguments
