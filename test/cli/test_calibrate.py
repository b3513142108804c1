"""`topreward calibrate` as a user types it, with a model that sees nothing but brightness."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from math import isfinite, nan
from pathlib import Path

import numpy as np
import pytest

from test import bags
from test.core.calibrations import calibration
from test.offline.test_labelled_episodes import write_labels, write_video
from test.scorers import Brightness, scorer_info
from topreward_ros.cli.main import main
from topreward_ros.core.calibration.task import Calibrations
from topreward_ros.core.calibration.told import Told, fired_at
from topreward_ros.core.events import SuccessDetector
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.defaults import monitor_defaults
from topreward_ros.offline import bag_jobs, calibration_file, evaluation_runs
from topreward_ros.offline.bag_episodes import read_content
from topreward_ros.offline.calibration_file import read_calibrations, setup_of, write_calibrations
from topreward_ros.offline.score_video import score_video
from topreward_ros.scoring.base import ScorerSettings

BRIGHT, DARK = 22, 12  # frames at 4 Hz, each brighter than the one before


@pytest.fixture
def scorers(monkeypatch: pytest.MonkeyPatch) -> list[Brightness]:
    made: list[Brightness] = []

    def load(*_: object) -> Brightness:
        made.append(Brightness())
        return made[-1]

    monkeypatch.setattr(evaluation_runs, "load_scorer", load)
    info = Brightness().info  # which a checkpoint of it would say before it is loaded
    monkeypatch.setattr(calibration_file, "open_checkpoint", lambda *_: info)
    return made


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Three successes that grow bright, one of them with a time, and three failures that do not."""
    rows = []
    folder = write_labels(tmp_path / "runs")
    for k in range(6):
        name, success = f"{k}.mp4", k < 3
        write_video(folder / name, start=15 + k, frames=BRIGHT if success else DARK)
        rows.append(f"{name},make it bright,{int(success)},{'5.0' if k == 0 else ''}")
    return write_labels(folder, *rows, head="file,task,success,done_s")


def test_a_file_and_a_page(
    runs: Path, scorers: list[Brightness], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["calibrate", str(runs), "--output", str(out)]) == 0
    said = capsys.readouterr()
    assert "3 successes and 3 failures (weak)" in said.out and "calibration.yaml" in said.out
    launch, node = map(shlex.split, said.out.splitlines()[-2:])
    named = f"calibration:={out / 'calibration.yaml'}"
    assert launch[:2] == ["ros2", "launch"] and "image_topic:=/camera/image_raw" in launch and named in launch
    assert node[1:3] == ["-m", "topreward_ros.nodes.monitor"] and named in node
    assert "too few episodes to tell whether what was learnt is better" in " ".join(said.out.lower().split())
    made = read_calibrations(str(out / "calibration.yaml"))
    (task,) = made.tasks
    assert task.comparison is not None and not task.comparison.tells and task.detector is None
    assert task.task == "make it bright" and task.weak and task.picture == (96, 72)
    assert task.success.threshold == monitor_defaults()["success_threshold"]
    assert -2.0 < task.comparison.fitted.settings.threshold < -0.3
    assert made.setup is not None and made.setup.revision == "1" and made.setup.sample_rate == 2.0
    page = (out / "report.html").read_text()
    assert page.count("<figcaption>") == 6
    assert not any(outside in page for outside in ("<script", "http:", "https:"))
    assert re.search(r"<b>\d+%</b>recall", page) and "make it bright" in page

    # Another task is added, and what was scored is not scored again.
    assert main(["calibrate", str(runs), "--output", str(out)]) == 0
    assert len(scorers) == 1
    good, bad = ([str(runs / f"{k}.mp4") for k in them] for them in (range(3), range(3, 6)))
    arguments = ["--task", "light <b>it</b>", "--success", *good, "--failure", *bad]
    assert main(["calibrate", *arguments, "--output", str(out)]) == 0
    assert [it.task for it in read_calibrations(str(out / "calibration.yaml")).tasks] == [
        "make it bright",
        "light <b>it</b>",
    ]
    page = (out / "report.html").read_text()
    assert "light &lt;b&gt;it&lt;/b&gt;" in page and "<b>it</b>" not in page
    assert "Also in the file" in page

    # A file for another setup is not added to.
    capsys.readouterr()
    assert main(["calibrate", str(runs), "--output", str(out), "--set", "sample_rate=1"]) == 1
    assert "was made for another setup (sample_rate 2.0, and 1.0 here)" in capsys.readouterr().err

    # What reads it does not replace it.
    file = str(out / "calibration.yaml")
    arguments = ["score", str(runs / "0.mp4"), "--task", "x", "--set", f"calibration={file}", "--json", file]
    assert main(arguments) == 1
    assert "would change" in capsys.readouterr().err

    # An evaluation takes it, and refuses it for another setup as a monitor does.
    arguments = ["evaluate", str(runs), "--controls", "none", "--output", str(tmp_path / "evaluated")]
    arguments += ["--set", f"calibration={out / 'calibration.yaml'}", "--set"]
    assert main([*arguments, "sample_rate=1"]) == 1
    assert "sample_rate was 2 and is 1 here" in capsys.readouterr().err
    assert main([*arguments, "sample_rate=2"]) == 0


def test_what_cannot_be_used_is_told_and_the_rest_is_kept(
    runs: Path, scorers: list[Brightness], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (runs / "labels.csv").open("a") as file:
        file.write("none.mp4,make it bright,1,\n0.mp4,lift it,1,\n1.mp4,lift it,1,\n")
    assert main(["calibrate", str(runs), "--output", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "none.mp4" in said and "the task 'lift it' has no failures among its episodes" in said
    assert [it.task for it in read_calibrations(str(tmp_path / "out" / "calibration.yaml")).tasks] == [
        "make it bright"
    ]
    assert "lift it" in (tmp_path / "out" / "report.html").read_text()


def test_a_task_that_new_episodes_show_to_be_hopeless_is_taken_out_of_the_file(
    runs: Path, scorers: list[Brightness], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    file = out / "calibration.yaml"
    for task in ("make it bright", "light it"):
        good, bad = ([str(runs / f"{k}.mp4") for k in them] for them in (range(3), range(3, 6)))
        assert (
            main(["calibrate", "--task", task, "--success", *good, "--failure", *bad, "--output", str(out)])
            == 0
        )
    for task, left in (("Light it.", ["make it bright"]), ("make it bright", [])):
        swapped = ["--task", task, "--success", *bad, "--failure", *good, "--output", str(out)]
        assert main(["calibrate", *swapped]) == 1
        said = capsys.readouterr().err
        assert "does not tell its successes" in said and "is taken out of" in said
        assert [it.task for it in read_calibrations(str(file)).tasks] == left if left else not file.exists()
        before = read_calibrations(str(out / "calibration.before.yaml"))
        assert len(before.tasks) == len(left) + 1
        assert "is taken out of" in (out / "report.html").read_text()


def test_a_few_odd_episodes_take_out_no_calibration_of_more(
    runs: Path, scorers: list[Brightness], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["calibrate", str(runs), "--output", str(out)]) == 0
    before = (out / "calibration.yaml").read_bytes()
    good, bad = ([str(runs / f"{k}.mp4") for k in them] for them in ((3, 4), (0, 1)))
    few = ["--success", *good, "--failure", *bad, "--output", str(out)]
    assert main(["calibrate", "--task", "make it bright", *few]) == 1
    assert "still has 'make it bright' of an earlier run with more episodes" in capsys.readouterr().err
    assert (out / "calibration.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{runs}", "--task", "x", "--false-alarms", "2"], "must be a share from 0.001 to 0.5"),
        (["{runs}", "--output", "{runs}/no/out"], "name a folder, in a folder that exists"),
        (["{runs}", "--output", "{broken}"], "lacks the key format"),
        (["{runs}", "--set", "calibration=x"], "calibrate takes no parameter 'calibration'"),
        (
            ["--success", "{runs}/0.mp4", "--failure", "{runs}/3.mp4", "--task", "Do the task."],
            "generic text",
        ),
        (["{runs}", "--task", "x", "--set", "sample_rate=fast"], "must be a number"),
        (
            ["--success", "{runs}/0.mp4", "--failure", "{runs}/3.mp4", "--task", "x"],
            "at least 2 successes are needed",
        ),
        (["--success", "{runs}", "--task", "x"], "'x' has no failures among its episodes"),
        (
            [
                *("--success", "{runs}/0.mp4", "{runs}/1.mp4", "--failure", "{runs}/3.mp4", "{runs}/4.mp4"),
                *("--task", "a\nb"),
            ],
            "several stages",
        ),
    ],
)
def test_what_is_refused_before_a_model_is_loaded(
    arguments: list[str],
    said: str,
    runs: Path,
    scorers: list[Brightness],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "calibration.yaml").write_text("a: 1\n")
    filled = [it.format(runs=runs, broken=broken) for it in arguments]
    try:
        assert main(["calibrate", *filled]) == 1
    except SystemExit as end:
        assert end.code == 2
    assert said in capsys.readouterr().err
    assert not scorers


def test_the_detector_with_its_extra_looks_is_the_one_that_decides_later(
    runs: Path, scorers: list[Brightness], tmp_path: Path
) -> None:
    """When the calibration thinks that SUCCESS would come is when a monitor with the file says it."""
    out = tmp_path / "out"
    assert main(["calibrate", str(runs), "--output", str(out)]) == 0
    made = read_calibrations(str(out / "calibration.yaml"))
    (task,) = made.tasks
    assert task.comparison is not None
    task = replace(task, success=task.comparison.fitted.settings, comparison=None)  # as of more episodes
    made = made.with_tasks([task])
    assert task.success.confirm_rate == 4.0, "a witness more costs nothing here"
    kept = [json.loads(path.read_text()) for path in sorted((out / "films").glob("*.json"))]
    assert len(kept) == 6
    told = [[tuple(nan if value is None else value for value in row) for row in it["told"]] for it in kept]
    foretold = [fired_at(rows, SuccessDetector, task.success, 0.5) for rows in told]
    assert {row[0] for rows in told for row in rows} == {Told.DUE, Told.EXTRA}
    parameters = monitor_defaults() | {"end_episode_on_success": False}
    settings = replace(MonitorSettings.from_parameters(parameters), calibrations=replace(made, accepted=True))
    live = []
    for number in range(6):
        curve = score_video(runs / f"{number}.mp4", "make it bright", Brightness(), settings)
        live += [event.time_s for event in curve.events if event.type == "SUCCESS"] or [nan]
    assert sorted(live, key=str) == pytest.approx(sorted(foretold, key=str), nan_ok=True)
    assert sum(map(isfinite, live)) >= 3 and any(time_s % 0.5 for time_s in live if isfinite(time_s))


def brightening(start: int, most: int) -> list[tuple[int, np.ndarray]]:
    """Times [ns] and pictures at 4 Hz that grow brighter, up to ``most``."""
    texture = np.kron(np.random.default_rng(start).integers(-15, 16, (9, 12, 1)), np.ones((8, 8, 3), int))
    return [(k * 250_000_000, (texture + min(start + 10 * k, most)).astype(np.uint8)) for k in range(BRIGHT)]


def test_bags_say_which_camera_it_is_for(
    scorers: list[Brightness], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for k in range(4):
        frames = brightening(15 + k, 230 if k < 2 else 120)
        topic = "/arm/front/image_raw"
        images = bags.camera(frames, topic, compressed=False)
        bags.write_bag(tmp_path / f"{k}", [bags.instruction("make it bright"), *images])
    out = tmp_path / "out"
    recordings = ["--success", *(str(tmp_path / f"{k}") for k in (0, 1)), "--failure"]
    recordings += [str(tmp_path / f"{k}") for k in (2, 3)]
    options = ["--namespace", "/arm", "--image-topic", "front/image_raw", "--output", str(out)]
    assert main(["calibrate", *recordings, *options]) == 0, capsys.readouterr().err
    made = read_calibrations(str(out / "calibration.yaml"))
    assert made.setup is not None and made.setup.cameras == ("front/image_raw",)
    assert made.tasks[0].picture == (96, 72)

    bags.write_bag(
        tmp_path / "other", [bags.instruction("make it bright"), *bags.camera(brightening(40, 120))]
    )
    capsys.readouterr()
    assert main(["calibrate", *recordings, str(tmp_path / "other"), "--output", str(tmp_path / "two")]) == 1
    said = capsys.readouterr().err
    assert "is seen by arm/front/image_raw (primary)" in said and "image (primary)" in said, said


def test_an_annotated_bag_is_judged_by_the_file(
    scorers: list[Brightness],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "c.yaml"
    parameters = monitor_defaults()
    here = setup_of(
        Brightness.info,
        MonitorSettings.from_parameters(parameters),
        ScorerSettings.from_parameters(parameters),
        "primary",
        ["image"],
    )
    write_calibrations(file, Calibrations(here, (calibration("make it bright", -1.0),)))
    bag = bags.write_bag(
        tmp_path / "bag",
        [bags.instruction("make it bright"), *bags.camera(brightening(15, 230), compressed=False)],
    )
    monkeypatch.setattr(bag_jobs, "load_scorer", lambda *_: Brightness())
    for name, options in (("with", ["--set", f"calibration={file}"]), ("without", [])):
        arguments = ["annotate", str(bag), "--output", str(tmp_path / name), *options]
        assert main(arguments) == 0, capsys.readouterr().err
    said = read_content(tmp_path / "with" / "bag", (), 1, 64).episodes[0]
    assert [event.type for event in said.events][:2] == ["EPISODE_STARTED", "SUCCESS"]
    plain = read_content(tmp_path / "without" / "bag", (), 1, 64).episodes[0]
    assert "SUCCESS" not in [event.type for event in plain.events]

    monkeypatch.setattr(Brightness, "info", scorer_info("brightness", revision="2", prompt_hash="0" * 16))
    arguments = ["annotate", str(bag), "--output", str(tmp_path / "refused"), "--set", f"calibration={file}"]
    assert main(arguments) == 1
    assert "revision was '1' and is '2' here" in capsys.readouterr().err
