"""`topreward evaluate` as a user types it, with the real model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from test.offline.test_labelled_episodes import write_labels, write_video
from test.plugins import install_plugin
from topreward_ros.cli.main import main
from topreward_ros.defaults import DEMO_CLIPS, DEMO_TASK, shared_file
from topreward_ros.scoring.checkpoint.folder import EMBEDDED_FOLDER


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data ``runs`` and its evaluation ``out``."""
    place = tmp_path_factory.mktemp("evaluate")
    runs = write_labels(
        place / "runs",
        *(f"{clip.name}.mp4,{int(clip.succeeds)}" for clip in DEMO_CLIPS),
        "missing.mp4,1",
        head="file,success",
    )
    for clip in DEMO_CLIPS:
        shutil.copy(shared_file(clip.video), runs / f"{clip.name}.mp4")
    arguments = ["--task", DEMO_TASK, "--controls", "wrong_instruction", "--output", str(place / "out")]
    assert main(["evaluate", str(runs), *arguments, "--set", "sample_rate=1"]) == 1  # a file is missing
    return place


def test_the_shipped_videos_are_told_apart(evaluated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads((evaluated / "out" / "evaluation.json").read_text())
    measures = {(it["mode"], it["name"]): it["value"] for it in content["measures"]}
    assert measures["static_baseline", "auc"] == 1.0
    assert measures["static_baseline", "instruction_share"] == 1.0
    assert [it["success"] for it in content["episodes"]] == [clip.succeeds for clip in DEMO_CLIPS]
    assert "there is no file or folder" in content["problems"][0]
    assert sorted(path.name for path in (evaluated / "out").iterdir()) == [
        "evaluation.html",
        "evaluation.json",
        "evaluation.md",
        "films",
    ]


def test_two_evaluations_are_compared(
    evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(evaluated / "out" / "evaluation.json")
    other = shutil.copy(path, tmp_path / "other.json")
    assert main(["evaluate", "--compare", path, str(other), "--output", str(tmp_path / "both")]) == 0
    text = (tmp_path / "both" / "comparison.md").read_text()
    assert "Episodes in both, with the same frames, task and label: 3." in text
    assert "measures are the same in both." in capsys.readouterr().out


def test_an_evaluation_that_is_named_twice_is_refused(
    evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = evaluated / "out" / "evaluation.json"
    other = shutil.copy(file, tmp_path / "other.json")
    (tmp_path / "link").symlink_to(evaluated / "out")
    for same in (file, file.parent, evaluated / "out" / ".." / "out", tmp_path / "link"):
        for named in ([file, same], [file, other, same]):
            assert main(["evaluate", "--compare", *map(str, named)]) == 1
            assert "are one evaluation; name each once" in capsys.readouterr().err


def test_several_models_stand_side_by_side(
    evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(EMBEDDED_FOLDER, tmp_path / "copy")
    data = ["evaluate", "--success", shared_file(DEMO_CLIPS[0].video), "--failure"]
    data += [shared_file(DEMO_CLIPS[1].video), "--task", DEMO_TASK, "--set", "sample_rate=1"]
    out = tmp_path / "out"
    models = ["--model", "embedded", "--model", str(copy)]
    assert main([*map(str, data), "--controls", "none", *models, "--output", str(out)]) == 0
    folders = sorted(path.name for path in out.iterdir() if path.is_dir())
    assert folders == ["copy", "embedded"]
    text = (out / "comparison.md").read_text()
    assert "| measure | embedded | copy |" in text and "| ROC-AUC | 1.000 | 1.000 |" in text
    assert "better" not in text.split("## Side by side")[1].split("\n\n", 2)[2], "they are the same"
    assert f"- copy: {copy}" in text.replace("\\", "")
    three = [str(evaluated / "out"), str(out / "embedded"), str(out / "copy")]
    assert main(["evaluate", "--compare", *three, "--output", str(tmp_path / "three")]) == 0
    assert "Side by side" in (tmp_path / "three" / "comparison.md").read_text()


def test_a_model_that_fails_does_not_end_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    good = install_plugin(tmp_path, name="good")
    bad = install_plugin(tmp_path, "return PrefixScore(-1.0 / (3 - len(request.prefix)), -0.5)", name="bad")
    video = str(shared_file(DEMO_CLIPS[0].video))
    data = ["evaluate", "--success", video, "--task", DEMO_TASK, "--controls", "none"]
    models = ["--model", f"{good}:1", "--model", bad, "--model", f"{good}:2"]
    assert main([*data, *models, "--output", str(tmp_path / "out")]) == 1
    assert f"model {bad} is left out: no episode could be scored" in capsys.readouterr().err
    text = (tmp_path / "out" / "comparison.md").read_text()
    assert "plugin:good:1" in text and "plugin:good:2" in text and "bad" not in text


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--compare", "a"], "--compare: name two evaluations, or more"),
        (["{runs}", "--model", "embedded", "--model", "plugin:none"], "no installed package has a plug-in"),
        (["{runs}", "--controls", "mirror"], "there is no 'mirror': say all, none, or some of idle"),
        (["{runs}", "--output", "{runs}/out"], "lies in the data"),
        (["{runs}", "--output", "{runs}/no/out"], "name a folder, in a folder that exists"),
        (["{runs}", "--output", "{other}"], "is there, and is no evaluation"),
        (["{runs}", "--set", "end_episode_on_success=true"], "evaluate takes no parameter"),
        (["{runs}", "--rate", "0"], "--rate 0: must be above 0"),
        (["{runs}", "--wrong-task", " "], "--wrong-task is empty"),
        (["{runs}", "--compare", "a", "b"], "--compare scores nothing: leave the data and the models out"),
        (["--compare", "{runs}/labels.csv", "b"], "is no evaluation"),
        (["{runs}/nowhere"], "does not exist"),
        (["--failure", "{runs}/short.mp4", "--task", "open"], "has 1 frame, and an episode needs at least 2"),
    ],
)
def test_what_cannot_be_done_is_said_before_a_model_is_loaded(
    arguments: list[str], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = write_labels(tmp_path / "runs", "a.mp4,open,1")
    write_video(runs / "a.mp4")
    write_video(runs / "short.mp4", frames=1)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "evaluation.json").write_text("{}")
    places = {"runs": runs, "other": tmp_path / "other"}
    filled = [it.format(**places) for it in arguments]
    if "--output" not in filled and "--compare" not in filled:
        filled += ["--output", str(tmp_path / "out")]
    assert main(["evaluate", *filled]) == 1
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_data_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate"])
    assert "name the data: DATASET, or --success and --failure" in capsys.readouterr().err
