"""Episodes are scored once, with their controls; what was scored is kept, and the results name all of it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from test.core.calibrations import calibration, setup
from test.offline.test_labelled_episodes import reading, write_labels, write_video
from test.scorers import Brightness
from topreward_ros.core.calibration.task import Calibrations
from topreward_ros.core.errors import UserError
from topreward_ros.core.evaluation import Control, Mode, evaluate
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.defaults import monitor_defaults
from topreward_ros.offline import evaluation_report, evaluation_runs
from topreward_ros.offline.evaluation_report import make_evaluation, read_evaluation, to_json
from topreward_ros.offline.evaluation_runs import (
    Evaluated,
    EvaluationSettings,
    monitor_for_evaluation,
    score_episodes,
)
from topreward_ros.offline.kept_json import kept_text
from topreward_ros.offline.labelled_episodes import Labelled, labelled_data
from topreward_ros.scoring.base import ScorerSettings
from topreward_ros.views.evaluation_page import page
from topreward_ros.views.evaluation_tables import about, episodes_table, markdown

ALL = tuple(it for it in Control if it is not Control.PLAIN)
CURVE = re.compile(r'<path d="([^"]*)" fill="none"[^>]*><title>(\w+)<')
HOSTILE = "</title><script>alert(1)</script>|\x1b[2J"


def settings(controls: Sequence[Control] = ALL, **parameters: object) -> EvaluationSettings:
    chosen = {**monitor_defaults(), "scorer_threads": 1, **parameters}
    monitor = monitor_for_evaluation(MonitorSettings.from_parameters(chosen))
    return EvaluationSettings("embedded", monitor, ScorerSettings.from_parameters(chosen), tuple(controls))


@pytest.fixture
def scorers(monkeypatch: pytest.MonkeyPatch) -> list[Brightness]:
    """The scorers that were loaded."""
    made: list[Brightness] = []

    def load(*_: object) -> Brightness:
        made.append(Brightness())
        return made[-1]

    monkeypatch.setattr(evaluation_runs, "load_scorer", load)
    monkeypatch.setattr(evaluation_report, "evaluate", partial(evaluate, draws=20))  # 2000 take long
    return made


@pytest.fixture
def data(tmp_path: Path) -> Labelled:
    folder = write_labels(
        tmp_path / "runs",
        "up.mp4,make it bright,1,1.5",
        "dark.mp4,make it bright,0,",
        "other.mp4,make it white,1,",
        head="file,task,success,done_s",
    )
    write_video(folder / "up.mp4", 20, 10)
    write_video(folder / "dark.mp4", 10, 10)
    write_video(folder / "other.mp4", 90, 10)
    return labelled_data(folder, reading())


def scored(data: Labelled, folder: Path, chosen: EvaluationSettings) -> tuple[Evaluated, list[float]]:
    counts: list[float] = []

    def on_start(expected: int):
        counts.append(-expected)
        return counts.append

    return score_episodes(data.episodes, chosen, folder, on_start), counts


def test_a_film_per_control_is_scored_by_what_scores_videos(
    data: Labelled, scorers: list[Brightness], tmp_path: Path
) -> None:
    made, counts = scored(data, tmp_path / "films", settings())

    assert made.problems == () and made.resumed == 0
    assert [set(it.runs) for it in made.episodes] == [set(Control)] * 3
    assert sum(counts) == 0  # a progress bar that ends where it should
    first, _, other = made.episodes
    assert first.runs[Control.WRONG_INSTRUCTION].instruction == "make it white"
    assert other.runs[Control.WRONG_INSTRUCTION].instruction == "make it bright"
    assert [it.instruction for it in first.runs.values()].count("make it bright") == len(ALL)
    assert first.plain.times_s == (0.0, 0.5, 1.0, 1.5, 2.0)
    rise = first.plain.values(Mode.LOG_PROB, -0.22)
    assert (rise[1:] > rise[:-1]).all()
    fall = first.runs[Control.REVERSED].values(Mode.LOG_PROB, -0.22)
    assert (fall[1:] < fall[:-1]).all()
    assert len(first.runs[Control.SLOWER].times_s) > len(first.runs[Control.FASTER].times_s)
    assert made.model["model_id"] == "brightness" and "instructions" not in made.model


def test_what_was_scored_is_not_scored_again_unless_something_differs(
    data: Labelled, scorers: list[Brightness], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "films"
    first, _ = scored(data, folder, settings((Control.IDLE,)))
    again, counts = scored(data, folder, settings((Control.IDLE,)))
    assert again.resumed == 6 and counts == [] and len(scorers) == 1
    assert [it.runs for it in again.episodes] == [it.runs for it in first.episodes]

    one = next(folder.glob("*.json"))
    one.write_text(one.read_text()[:-20])  # cut short by a disk that was full
    mended, _ = scored(data, folder, settings((Control.IDLE,)))
    assert mended.resumed == 5 and [it.runs for it in mended.episodes] == [it.runs for it in first.episodes]

    others = [
        settings((Control.IDLE,), success_threshold=-0.5),
        settings((Control.IDLE,), layout="v5.10"),
        replace(settings((Control.IDLE,)), rate=3.0),
    ]
    assert [scored(data, folder, it)[0].resumed for it in others] == [0, 0, 0]
    assert scored(data, folder, settings((Control.IDLE, Control.FROZEN)))[0].resumed == 6
    assert scored(data, folder, settings((), scorer_threads=2))[0].resumed == 3

    count = len(list(folder.iterdir()))
    monkeypatch.setattr(evaluation_runs, "code_hash", lambda: "other")
    assert scored(data, folder, settings(()))[0].resumed == 0
    assert len(list(folder.iterdir())) == 3 < count


def test_what_cannot_be_or_was_changed_is_scored_again_and_told(
    data: Labelled, scorers: list[Brightness], tmp_path: Path
) -> None:
    folder, chosen = tmp_path / "films", settings(())
    first, _ = scored(data, folder, chosen)
    file = sorted(folder.glob("*.json"))[0]
    key = file.stem.partition("_")[2]
    whole = json.loads(file.read_text())
    values = {name: value for name, value in whole.items() if name != "sha256"}
    columns = ("times", "log_prob", "log_prob_false", "log_prob_static", "log_prob_std", "num_frames")
    shorter = {name: whole[name][:-1] for name in (*columns, "stages", "progress", "thresholds")}
    impossible: list[dict[str, object]] = [
        {"log_prob": [5.0, *whole["log_prob"][1:]]},
        {"log_prob_static": [0.5, *whole["log_prob_static"][1:]]},
        {"progress": [7.0, *whole["progress"][1:]]},
        {"times": whole["times"][::-1]},
        {"times": [None, *whole["times"][1:]]},
        {"stages": [2, *whole["stages"][1:]]},
        {"num_frames": whole["num_frames"][:-1]},
        {"duration": None},
        {"thresholds": [None, *whole["thresholds"][1:]]},
    ]
    changed: list[dict[str, object]] = [
        {"progress": [0.5, *whole["progress"][1:]]},
        shorter,
        {"events": []},
        {"sha256": "0"},
        {"duration": 10**400},
    ]
    texts = [kept_text(key, values | more) for more in impossible]
    texts += [json.dumps(whole | more) for more in changed]
    texts += [kept_text("of another film", values), "[" * 100_000, "", "[]", "{}"]
    for text in texts:
        file.write_text(text)
        notes: list[str] = []
        made = score_episodes(data.episodes, chosen, folder, lambda _: lambda _: None, on_note=notes.append)
        assert made.resumed == 2 and [it.runs for it in made.episodes] == [it.runs for it in first.episodes]
        assert notes == [f"what {folder} keeps of 1 film was damaged: it is scored again"], text[:300]
        assert json.loads(file.read_text()) == whole, "what was scored again is kept"
    file.unlink()  # is no damage
    score_episodes(data.episodes, chosen, folder, lambda _: lambda _: None, on_note=pytest.fail)


def calibrated(source: str, threshold: float) -> EvaluationSettings:
    """Settings with a calibration of "make it bright" alone."""
    plain = settings((), success_threshold=-0.01)
    tasks = (calibration("make it bright", threshold),)
    return replace(plain, monitor=replace(plain.monitor, calibrations=Calibrations(setup(), tasks, source)))


def test_the_thresholds_of_a_calibration_are_those_that_decided_and_are_named(
    data: Labelled, scorers: list[Brightness], tmp_path: Path
) -> None:
    made, _ = scored(data, tmp_path / "films", settings(()))
    up, dark, white = (it.plain.final(Mode.LOG_PROB, 0.0) for it in made.episodes)
    assert dark < up < -0.01 and white < -0.01
    threshold = (up + dark) / 2
    chosen = calibrated("a.yaml", threshold)

    made, _ = scored(data, tmp_path / "films", chosen)
    evaluation = make_evaluation("runs", data, made, chosen)

    assert [set(it.plain.thresholds) for it in made.episodes] == [{threshold}] * 2 + [{-0.01}]
    said = evaluation.settings["calibration"]
    assert said["success"] == {"make it bright": [threshold], "make it white": [-0.01]}
    assert said["file"] == "a.yaml" and len(said["sha256"]) == 64
    at_end = evaluation.measure("make it bright", "decisions", "recall_at_end")
    assert at_end is not None and at_end.value == 1.0  # none is above the threshold of the settings
    assert evaluation.measure("make it white", "decisions", "recall_at_end").value == 0.0  # type: ignore[union-attr]
    head = about(evaluation)
    assert head["calibration"] == (
        f"a.yaml (hash {said['sha256'][:16]}): 'make it bright' at {threshold:g} nat, 'make it white' at "
        "-0.01 nat"
    )
    assert head["settings"].endswith("success_threshold -0.01 nat where no calibration holds")
    (tmp_path / "evaluation.json").write_text(to_json(evaluation))
    read = read_evaluation(tmp_path / "evaluation.json")
    assert about(read) == head and read.episodes[0].plain == made.episodes[0].plain
    assert about(make_evaluation("runs", data, made, settings(())))["calibration"] == "none"


def test_a_calibration_is_known_by_what_it_says_and_not_by_its_file(
    data: Labelled, scorers: list[Brightness], tmp_path: Path
) -> None:
    first, _ = scored(data, tmp_path / "films", calibrated("a.yaml", -0.5))
    moved, _ = scored(data, tmp_path / "films", calibrated("moved/b.yaml", -0.5))
    other, _ = scored(data, tmp_path / "films", calibrated("a.yaml", -0.4))
    assert (moved.resumed, other.resumed) == (3, 0)
    hashes = [
        make_evaluation("runs", data, made, chosen).settings["monitor_hash"]
        for made, chosen in (
            (first, calibrated("a.yaml", -0.5)),
            (moved, calibrated("b.yaml", -0.5)),
            (other, calibrated("a.yaml", -0.4)),
            (other, settings((), success_threshold=-0.01)),
        )
    ]
    assert hashes[0] == hashes[1] and len(set(hashes)) == 3


def test_a_run_that_was_cut_off_goes_on(
    data: Labelled, scorers: list[Brightness], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = Brightness.score_one

    def interrupted(self: Brightness, request: object) -> object:
        if len(self.asked) == 12:
            raise KeyboardInterrupt
        return score(self, request)  # type: ignore[arg-type]

    with monkeypatch.context() as context:
        context.setattr(Brightness, "score_one", interrupted)
        with pytest.raises(KeyboardInterrupt):
            scored(data, tmp_path / "films", settings())
    made, _ = scored(data, tmp_path / "films", settings())
    assert made.resumed == 2  # films of five scores that were whole; the third was not


def test_an_episode_that_cannot_be_scored_is_told_and_the_others_stay(
    data: Labelled, scorers: list[Brightness], tmp_path: Path
) -> None:
    (tmp_path / "runs" / "dark.mp4").unlink()
    made, _ = scored(data, tmp_path / "films", settings((Control.IDLE,)))
    assert [Path(it.name).name for it in made.episodes] == ["up.mp4", "other.mp4"]
    assert len(made.problems) == 2 and all("dark.mp4" in it for it in made.problems)
    for name in ("up.mp4", "other.mp4"):
        (tmp_path / "runs" / name).unlink()
    with pytest.raises(UserError, match="no episode could be scored; the first: no video at"):
        scored(data, tmp_path / "nothing", settings((Control.IDLE,)))


def test_the_results_are_the_same_bytes_and_can_be_read(
    data: Labelled, scorers: list[Brightness], tmp_path: Path
) -> None:
    chosen = settings()
    texts = []
    for folder in ("one", "two"):
        made, _ = scored(data, tmp_path / folder, chosen)
        evaluation = make_evaluation("runs", data, made, chosen, ["a note"])
        texts.append(to_json(evaluation))
    assert texts[0] == texts[1]

    (tmp_path / "evaluation.json").write_text(texts[0])
    back = read_evaluation(tmp_path / "evaluation.json")
    assert repr(back.measures) == repr(evaluation.measures)  # NaN is not equal to itself
    assert repr(back.episodes[0].plain) == repr(evaluation.episodes[0].plain)
    content = json.loads(texts[0])
    assert content["model"]["revision"] == "1" and content["code"]["hash"] and content["data"]["hash"]
    assert [it["identity"] for it in content["episodes"]] == [it.identity for it in data.episodes]
    assert content["settings"]["monitor"]["end_episode_on_success"] is False
    assert set(content["episodes"][0]["controls"]) == {it.value for it in ALL}


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '{"format": "topreward_curve/1"}', '{"format": "topreward_evaluation/1"}']
)
def test_another_file_is_no_evaluation(text: str, tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"is no evaluation of `topreward evaluate`"):
        read_evaluation(path)


def test_the_page_and_the_text_hold_nothing_that_could_run(
    data: Labelled, scorers: list[Brightness], tmp_path: Path
) -> None:
    made, _ = scored(data, tmp_path / "films", settings())
    hostile = tuple(
        replace(it, name=HOSTILE, task=HOSTILE if k else it.task) for k, it in enumerate(made.episodes)
    )
    evaluation = make_evaluation(
        HOSTILE, data, replace(made, episodes=hostile, problems=(HOSTILE,)), settings(), [HOSTILE]
    )
    html = page(evaluation)
    assert "<script" not in html and "&lt;script&gt;" in html and "\x1b" not in html
    assert "http" not in html.replace("http-equiv", "")  # nothing is fetched
    for name in (
        "recall of SUCCESS",
        "Tasks that are taken for each other",
        "ROC of the final value",
        "Controls:",
    ):
        assert name in html
    text = markdown(evaluation, [episodes_table(evaluation)])
    assert "<script" not in text and "\x1b" not in text
    lines = [line for line in text.split("\n") if line.startswith("|")]
    tables = [line.replace("\\|", "").count("|") for line in lines]
    assert len(lines) > 30 and all(count > 4 for count in tables)
    random = replace(evaluation, model={**evaluation.model, "random_weights": True})
    assert "the numbers mean nothing" in page(random) and "the numbers mean nothing" in markdown(random)


def test_controls_are_drawn_over_their_own_time_and_stand_behind_what_was_recorded(
    data: Labelled, scorers: list[Brightness], tmp_path: Path
) -> None:
    chosen = settings((Control.IDLE, Control.FROZEN))
    made, _ = scored(data, tmp_path / "films", chosen)
    html = page(make_evaluation("runs", data, made, chosen, ()))
    figure = html[html.index("Controls: mean of 2 episodes labelled a success") :]
    figure = figure[: figure.index("</svg>")]
    plain, frozen = (
        [it.runs[control].duration_s for it in made.episodes[::2]]
        for control in (Control.PLAIN, Control.FROZEN)
    )
    ends = {title: float(path.split("L")[-1].split()[0]) for path, title in CURVE.findall(figure)}
    drawn = {name: (at - 44.0) / (ends["frozen"] - 44.0) for name, at in ends.items()}  # 44: the left edge
    assert drawn["plain"] == pytest.approx(sum(plain) / sum(frozen), abs=0.01) and drawn["plain"] < 0.3
    assert html.index("<th>event</th><th>success</th><th>failure</th><th>idle</th><th>frozen</th>")
