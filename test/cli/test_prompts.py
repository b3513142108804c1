"""`topreward prompts sweep` from labelled videos to a file that `prompts` takes, with the embedded model."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import av
import numpy as np
import pytest

from test.robometer import make_robometer
from topreward_ros.cli.main import main
from topreward_ros.scoring.question.soft_prompt import read_soft_prompt
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
    assert "task held out: close the window" in shown.out
    assert "will not tell a gain from noise" in shown.err and "2 tasks judge, and it takes 3" in shown.out

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
        ([runs, "--model", "http://127.0.0.1:1"], "asks the one question that it was started with"),
        (
            [runs, "--model", make_robometer(tmp_path / "robometer")],
            "robometer' states progress itself and is",
        ),
        ([runs, "--task", " "], "--task is empty"),
        ([runs, "--rate", "nan"], "must be above 0"),
        ([runs, "--output", runs / "labels.csv"], "would change"),
        ([runs, "--output", tmp_path / "empty.txt", "--prompts", tmp_path / "empty.txt"], "would change"),
    ):
        assert main(["prompts", "sweep", *map(str, arguments)]) == 1
        assert sentence in capsys.readouterr().err, arguments


@pytest.fixture(scope="module")
def twice(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The films of ``runs``, two of each outcome of each task, whose frames are the same."""
    folder = tmp_path_factory.mktemp("twice")
    lines = ["file,task,success"]
    for film, task, outcome in (
        line.split(",") for line in (runs / "labels.csv").read_text().splitlines()[1:5]
    ):
        for copy in ("a", "b"):
            (folder / f"{copy}{film}").write_bytes((runs / film).read_bytes() + copy.encode())
            lines.append(f"{copy}{film},{task},{outcome}")
    (folder / "labels.csv").write_text("\n".join([*lines, ""]))
    return folder


def test_a_search_from_labelled_videos_to_a_file_of_templates(
    twice: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    results, file, kept = tmp_path / "results.json", tmp_path / "best.txt", tmp_path / "kept"
    call = ["prompts", "search", str(twice), "--candidates", "12", "--scores", str(kept), "--ensembles", "2"]
    assert main([*call, "--json", str(results), "--output", str(file)]) == 0
    shown = capsys.readouterr()
    assert "round 1: the wordings to start with, 10 in all" in shown.err
    assert "round 2: 2 new wordings, 12 in all" in shown.err
    warned = [
        it.getMessage() for it in caplog.records if "was trained on the paper's question" in it.getMessage()
    ]
    assert len(warned) == 1 and "and prompts asks 'The above" in warned[0] and "topreward-" not in warned[0]
    assert "part held out: all that is laid aside" in shown.out and "searched on 4 episodes" in shown.out
    content = json.loads(results.read_text())
    assert len(content["templates"]) == 12 and len(content["search"]["rounds"]) == 2
    (trained,) = content["search"]["trained"]
    aside = {it["task"] for it in content["episodes"]} - {trained}
    assert len(aside) == 1 and len(content["episodes"]) == 8
    recommended = [content["templates"][number - 1]["text"] for number in content["recommended"]["templates"]]
    assert list(read_templates(str(file))) == recommended
    assert main([*call, "--json", "-"]) == 0  # goes on with what was kept
    assert json.loads(capsys.readouterr().out) == content

    # a JSON that cannot be written keeps no other result from the disk
    sync, templates = os.fsync, file.read_text()

    def full(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").startswith(str(tmp_path / "full")):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    (tmp_path / "full").mkdir()
    monkeypatch.setattr("topreward_ros.core.output_files.os.fsync", full)
    other, lost = tmp_path / "other.txt", tmp_path / "full" / "lost"
    assert main([*call, "--json", str(lost), "--output", str(other)]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert other.read_text() == templates and not lost.exists()
    assert main([*call, "--json", str(results), "--output", str(lost)]) == 1
    assert not lost.exists() and json.loads(results.read_text())["format"] == content["format"]


def test_wrong_searches_are_told_before_the_model_is_loaded(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from topreward_ros.scoring import registry

    monkeypatch.setattr(registry, "load_scorer", None)
    for arguments, sentence in (
        ([runs], "label two tasks, or two successes and two failures"),
        ([runs, "--laid-aside", "2"], "2 tasks cannot be laid aside of 2"),
        ([runs, "--measure", "voc", "--laid-aside", "3"], "3 tasks cannot be laid aside"),
        ([runs, "--candidates", "0"], "--candidates 0: must be 1 to"),
        ([runs, "--minutes", "nan"], "--minutes nan: must be above 0"),
        ([runs, "--seed", "-1"], "--seed -1: must be at least 0"),
        ([runs, "--set", "progress_mode=raw_probability"], "looks at the static VOC"),
        ([runs, "--soft"], "label two tasks, or two successes and two failures"),
        ([runs, "--soft", "--writer", "http://x/v1"], "name one of them"),
        ([runs, "--soft", "--output", tmp_path / "x.txt"], "must end in .safetensors"),
        ([runs, "--soft", "--model", "http://127.0.0.1:1/v1"], "is served elsewhere, and"),
        ([runs, "--soft", "--set", "quantization=int8"], "which quantized weights have not"),
        ([runs, "--soft", "--vectors", "0"], "--vectors 0: must be 1 to"),
        ([runs, "--set", "prompts=x.safetensors"], "is a soft prompt, which only a Qwen3-VL"),
        ([runs, "--writer", "nowhere"], "--writer: model 'nowhere' is no URL of http"),
    ):
        assert main(["prompts", "search", *map(str, arguments)]) == 1, arguments
        assert sentence in capsys.readouterr().err, arguments


def test_a_soft_prompt_from_labelled_videos_to_a_score(
    twice: Path, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("topreward_ros.scoring.qwen3_vl.soft_training.EPOCHS", 2)
    monkeypatch.setenv("COLUMNS", "120")
    results, file = tmp_path / "results.json", tmp_path / "mine.safetensors"
    call = ["prompts", "search", str(twice), "--soft", "--vectors", "6", "--json", str(results)]
    assert main([*call, "--output", str(file)]) == 0
    shown = capsys.readouterr()
    assert "trained on 4 episodes, judged on 4; validation loss" in shown.out
    assert (
        "the soft prompt" in shown.out
        and "part held out: all that is laid aside: the soft prompt" in shown.out
    )
    content = json.loads(results.read_text())
    assert [it["number"] for it in content["search"]["epochs"]] == [0, 1, 2]
    assert content["templates"][1]["text"] == f"soft prompt {read_soft_prompt(str(file)).digest}"
    before = file.read_bytes()

    film = str(runs / "0-1.mp4")
    score = ["score", film, "--task", "open the drawer", "--set", f"prompts={file}", "--json", "-"]
    assert main(score) == 0
    curve = json.loads(capsys.readouterr().out)
    assert curve["model"]["prompt_hash"] != content["model"].get("prompt_hash")
    assert all(it["log_prob"] < 0 and it["log_prob_static"] < 0 for it in curve["scores"])
    file.write_bytes(before[:-1])
    assert main(score) == 1
    assert "is damaged, or cut short" in capsys.readouterr().err

    # a disk that is full when the result is to be written: a sentence, and what was there stays
    sync = os.fsync

    def full(descriptor: int) -> None:
        if Path(os.readlink(f"/proc/self/fd/{descriptor}")).parent == tmp_path:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    monkeypatch.setattr("topreward_ros.core.output_files.os.fsync", full)
    assert main([*call[:-2], "--output", str(file)]) == 1
    shown = capsys.readouterr()
    assert "trained on 4 episodes" in shown.out and "No space left on device" in shown.err
    assert file.read_bytes() == before[:-1] and list(tmp_path.glob(".*")) == []
