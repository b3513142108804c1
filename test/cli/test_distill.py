"""`topreward distill` as a user types it: real films, some real steps from the embedded weights, a folder
that loads."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from test.offline.test_labelled_episodes import write_labels, write_video
from test.scorers import Brightness
from topreward_ros.cli.main import command, main
from topreward_ros.core.errors import UserError
from topreward_ros.core.frames import Frame
from topreward_ros.core.progress import PrefixScore
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.defaults import monitor_defaults
from topreward_ros.offline import evaluation_runs, side_by_side
from topreward_ros.offline.annotation_report import AnnotationSettings
from topreward_ros.offline.distill import distill, sizes, steps, training_run
from topreward_ros.offline.distill.start import Start
from topreward_ros.offline.distill.stories import Shape
from topreward_ros.offline.distill.teacher import read_curves
from topreward_ros.offline.job_processes import plain_error
from topreward_ros.offline.labelled_episodes import LabelledEpisode, Reading, labelled_data
from topreward_ros.offline.video import open_video
from topreward_ros.scoring.base import LinkError, ScorerSettings
from topreward_ros.scoring.checkpoint.folder import EMBEDDED_FOLDER
from topreward_ros.scoring.checkpoint.random_weights import make_random_checkpoint
from topreward_ros.scoring.registry import load_scorer
from topreward_ros.views.distillation import card as card_of
from topreward_ros.views.distillation import verdict_text
from topreward_ros.views.evaluation_tables import escaped

TASK, OTHER = "make it bright", "make the lamp dim"
QUICK = ("--size", "embedded, smallest frames", "--steps", "2")


def curve(video: str, rises: bool, task: str = TASK, scores: int = 9, **more: Any) -> dict[str, Any]:
    """A curve as `topreward score --json` writes it, of a teacher that knows."""
    said = [-3.8 + (3.7 * k / (scores - 1) if rises else 0.3 * (k % 2)) for k in range(scores)]
    return {
        "format": "topreward_curve/1",
        "video": video,
        "duration": (scores - 1) / 2,
        "instruction": task,
        "model": {"model_id": "one that knows"},
        "scores": [{"time": k / 2, "num_frames": k + 1, "log_prob": r} for k, r in enumerate(said)],
        "events": [],
        **more,
    }


def write_curves(folder: Path, curves: list[dict[str, Any]]) -> Path:
    file = folder / "curves.json"
    file.write_text(json.dumps({"format": "topreward_curves/1", "curves": curves}))
    return file


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real steps, of few and short videos."""
    monkeypatch.setattr(steps, "PATCHES", 4)
    monkeypatch.setattr(
        Shape, "drawn", lambda rng, size: Shape(int(rng.integers(1, 4)), False, *size(rng), 4)
    )
    monkeypatch.setattr(sizes, "_ROUNDS", 1)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Six successes that grow bright and six failures, of two tasks, with a teacher's curves of them."""
    folder, rows, curves = write_labels(tmp_path / "runs"), [], []
    for k in range(12):
        name, success, task = f"{k}.mp4", k % 2 == 0, TASK if k < 8 else OTHER
        write_video(folder / name, start=15 + k, frames=13 if success else 11)
        rows.append(f"{name},{task},{int(success)},{'2.5' if k == 0 else ''}")
        curves.append(curve(name, success, task))
    write_curves(folder, curves)
    return write_labels(folder, *rows, head="file,task,success,done_s")


def run(runs: Path, output: Path, *more: str) -> int:
    curves = ("--curves", str(runs / "curves.json"))
    return main(["distill", str(runs), *curves, "--output", str(output), *QUICK, *more])


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_a_folder_that_the_monitor_loads_and_the_same_again(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, made, real = tmp_path / "student", [], distill.distill
    monkeypatch.setattr(distill, "distill", lambda *given: made.append(real(*given)) or made[-1])
    assert run(runs, out) == 0
    shown = capsys.readouterr()
    assert "ROC-AUC" in shown.out and "topreward evaluate" in shown.out
    assert "learning: 1 of 2 steps, loss " in shown.err, "where no bar is drawn"
    assert "without --scores FOLDER, a run that is interrupted leaves nothing" in shown.err
    assert (
        "size 'embedded, smallest frames' is taken: it goes on from the weights of the embedded model"
        in shown.err
    )
    assert "his student is no good judge yet: " in shown.err and "too few to tell" in shown.err
    scorer = load_scorer(str(out), ScorerSettings.from_parameters(monitor_defaults() | {"device": "cpu"}))
    frames = [Frame(stamp, read()) for stamp, read in open_video(runs / "0.mp4")]
    score = scorer.score(ScoreRequest.of_frames(TASK, frames[::2]))
    assert score.log_prob < 0 and set(scorer.info.instructions) == {TASK, OTHER}
    assert scorer.info.max_pixels == 12 * 1024
    card = (out / "README.md").read_text()
    assert "must not be used" in card and "never a safety" in card and "# A student of one that knows" in card
    assert scorer.info.revision[:8] in card or re.search(r"model.safetensors \| `[0-9a-f]{64}`", card)
    assert f"- {TASK}\n- {OTHER}\n" in card
    columns = next(
        line for line in card.splitlines() if line.startswith("| ROC-AUC, all tasks pooled |")
    ).split("|")
    assert columns[3].strip().startswith("1.000"), "the teacher tells each success from each failure"
    scorer.close()
    assert verdict_text(made[0]) in shown.err.replace("\n", " ")
    assert escaped(verdict_text(made[0])) in card and "said SUCCESS in none of" in card
    untaught = replace(made[0], learned=replace(made[0].learned, best_step=0))
    assert verdict_text(untaught).startswith("Nothing was learnt: no step made it better")
    assert "has the weights of the embedded model still" in verdict_text(untaught)
    assert "Nothing was learnt" not in verdict_text(
        replace(untaught, learned=replace(untaught.learned, best_step=1))
    )
    assert "it ended because all steps were taken" in card and "gives the same weights" in card
    late = replace(made[0], learned=replace(made[0].learned, by_clock=True))
    text = card_of(late, "topreward distill", 1.0)
    assert "gives other weights" in text and "the same weights" not in text and "would have" not in text

    assert run(runs, tmp_path / "again") == 0
    assert weights(tmp_path / "again") == weights(out), "the same data, seed and steps"
    assert sorted(it.name for it in tmp_path.iterdir()) == ["again", "runs", "student"]


def test_a_teacher_that_is_asked_and_a_run_that_goes_on(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, asked_for = tmp_path / "kept", []

    def load(model: str, settings: ScorerSettings) -> Any:
        asked_for.append(model)
        return Brightness() if model == "embedded" else load_scorer(model, settings)

    monkeypatch.setattr(evaluation_runs, "load_scorer", load)
    assert main(["distill", str(runs), "--teacher", "embedded", "--output", str(tmp_path)]) == 1
    assert "is there already" in capsys.readouterr().err and not asked_for, "before anything is scored"
    asked = ["distill", str(runs), "--teacher", "embedded", "--scores", str(kept), *QUICK]
    assert main([*asked, "--output", str(tmp_path / "student")]) == 0
    assert len(list((kept / "teacher").glob("*.json"))) == 12
    assert main([*asked, "--output", str(tmp_path / "again")]) == 0
    assert asked_for.count("embedded") == 1, "its scores are kept"
    assert "had ended, as all steps were taken: its student is written again" in capsys.readouterr().err
    assert weights(tmp_path / "again") == weights(tmp_path / "student")
    first, again = (
        " ".join((tmp_path / it / "README.md").read_text().split()) for it in ("student", "again")
    )
    assert re.search(r"- It took \d+ (seconds|minutes) in all, on", first)
    assert "in all, on" not in again and "whose time is not counted; it ran, on" in again
    assert re.search(r"It went on from the scores of 1\d films and 2 of the 2 steps that earlier runs", again)
    capsys.readouterr()
    assert main([*asked, "--seed", "3", "--output", str(tmp_path / "third")]) == 1
    assert "made from something else (other: seed)" in capsys.readouterr().err
    assert not (tmp_path / "third").exists()


def test_sizes_are_timed_and_a_budget_that_nothing_keeps_is_refused(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    took = {
        "embedded, larger frames": 44.0,
        "embedded": 30.0,
        "embedded, smaller frames": 21.0,
        "embedded, smallest frames": 12.0,
    }
    names: list[str] = []
    real = sizes.tick_milliseconds

    def tick(scorer: Any, *picture: Any) -> float:
        if not names:  # one of them is enough
            assert real(scorer, *picture) > 0
        name = next(it for it, size in PIXELS.items() if size == scorer.info.max_pixels)
        names.append("a small one" if name in names else name)
        return took.get(names[-1], 5.0)

    PIXELS = {it.name: it.frame_pixels for it in sizes.CANDIDATES[1:5]}
    monkeypatch.setattr(sizes, "tick_milliseconds", tick)
    curves = ["--curves", str(runs / "curves.json"), "--steps", "1"]
    assert main(["distill", str(runs), *curves, "--output", str(tmp_path / "s"), "--budget-ms", "15"]) == 0
    assert names == list(took)
    assert "Size: 'embedded, smallest frames'" in (tmp_path / "s" / "README.md").read_text()
    assert (
        "took: 'embedded, larger frames' 44.0 ms, 'embedded' 30.0 ms, "
        in (tmp_path / "s" / "README.md").read_text()
    )
    names.clear()
    assert main(["distill", str(runs), *curves, "--output", str(tmp_path / "d"), "--budget-ms", "6"]) == 0
    lost = "it starts FROM DRAWN WEIGHTS and knows nothing yet"
    assert lost in (said := capsys.readouterr().err) and "give --budget-ms 12" in said
    assert lost in (tmp_path / "d" / "README.md").read_text()
    names.clear()
    assert main(["distill", str(runs), *curves, "--output", str(tmp_path / "n"), "--budget-ms", "1"]) == 1
    said = capsys.readouterr().err
    assert "--budget-ms 1: the quickest student" in said and "allow more" in said
    assert not list(tmp_path.glob("n*"))


def broken_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_run.csv, "writer", lambda _: FullDisk())


class FullDisk:
    def writerow(self, _: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(distill, "learn", stop)


@pytest.mark.parametrize(
    ("spoil", "status", "said"), [(broken_table, 1, "No space left"), (interrupted, 130, "interrupted")]
)
def test_what_ends_a_training_leaves_nothing(
    runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[pytest.MonkeyPatch], None],
    status: int,
    said: str,
) -> None:
    before = sorted(tmp_path.rglob("*"))
    spoil(monkeypatch)
    assert run(runs, tmp_path / "student") == status
    assert said in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_sigterm_leaves_nothing_either(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object, **__: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:  # `timeout` sends it to the process, and then to its group
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(distill, "learn", stop)
    # Of the process, which goes on here: other tests may have brought foreign code into it.
    monkeypatch.setattr("topreward_ros.cli.main.limit_the_end", lambda _: None)
    arguments = ["distill", str(runs), "--curves", str(runs / "curves.json"), "--output"]
    monkeypatch.setattr(sys, "argv", ["topreward", *arguments, str(tmp_path / "student"), *QUICK])
    before = sorted(tmp_path.rglob("*"))
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        assert command() == 143
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
    assert capsys.readouterr().err.endswith("topreward: terminated\n")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("attempts", "status", "said"),
    [
        (("r", "r"), 1, "all 12 films are held out together, as they are of one attempt"),
        (("s", "f"), 130, "of 'make the lamp dim' are held out, as they are of one attempt"),
        (("", ""), 130, "interrupted"),
    ],
)
def test_attempts_that_leave_nothing_to_learn_from_are_told(
    runs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    attempts: tuple[str, str],
    status: int,
    said: str,
) -> None:
    head, *lines = (runs / "labels.csv").read_text().splitlines()
    named = [f"{line},{attempts[k % 2]}" for k, line in enumerate(lines)]
    write_labels(runs, *named, head=f"{head},attempt")
    interrupted(monkeypatch)
    assert run(runs, tmp_path / "student") == status
    told = capsys.readouterr().err
    assert said in told and ("as they are of one attempt" in told) == (attempts[0] != "")


def test_too_few_films_are_told_before_attempts_are_blamed() -> None:
    with pytest.raises(distill.DistillError, match="0 films with 0 frames in all"):
        distill._check_enough([], [], [])


def constant(folder: Path) -> None:
    scores = [{"time": k / 2, "log_prob": -2.0} for k in range(9)]
    tasks = [TASK] * 8 + [OTHER] * 4
    write_curves(
        folder, [curve(f"{k}.mp4", True, task, scores=9) | {"scores": scores} for k, task in enumerate(tasks)]
    )


def no_numbers(folder: Path) -> None:
    content = json.loads((folder / "curves.json").read_text())
    for one in content["curves"]:
        one["scores"] = [{"time": k / 2, "log_prob": None} for k in range(9)]
    (folder / "curves.json").write_text(json.dumps(content))


def of_others(folder: Path) -> None:
    write_curves(folder, [curve("elsewhere.mp4", True)])


def a_glance_each(folder: Path) -> None:
    for k in range(12):
        write_video(folder / f"{k}.mp4", start=15 + k, frames=3)
    write_curves(folder, [curve(f"{k}.mp4", k % 2 == 0, TASK if k < 8 else OTHER, 2) for k in range(12)])


def no_json(folder: Path) -> None:
    (folder / "curves.json").write_text("{")


def too_few(folder: Path) -> None:
    write_labels(folder, f"0.mp4,{TASK},1,", f"1.mp4,{TASK},0,", head="file,task,success,done_s")


def ten_frames(folder: Path) -> None:
    rows, curves = [], []
    for k in range(9):
        write_video(folder / f"{k}.mp4", start=15 + k, frames=6)
        rows.append(f"{k}.mp4,{TASK},{k % 2},")
        curves.append(curve(f"{k}.mp4", k % 2 == 1, scores=3))
    write_curves(folder, curves)
    write_labels(folder, *rows, head="file,task,success,done_s")


def generic(folder: Path) -> None:
    rows = [f"{k}.mp4,perform the task,{k % 2}," for k in range(12)]
    write_labels(folder, *rows, head="file,task,success,done_s")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (constant, "the teacher says about the same of every frame"),
        (no_numbers, "of 9 scores of the teacher 9 are no numbers"),
        (of_others, "holds no curve of any of the 12 episodes"),
        (of_others, "runs/elsewhere.mp4): write it"),
        (a_glance_each, "no film can be learnt from; the first: "),
        (no_json, "is no JSON of curves"),
        (too_few, "2 episodes can be used, and a student needs at least 8"),
        (ten_frames, "frames in all, at 4 Hz, can be learnt from"),
        (generic, "does not say what is to be done"),
    ],
)
def test_what_cannot_be_learnt_from_is_a_sentence(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], None], said: str
) -> None:
    spoil(runs)
    assert run(runs, tmp_path / "student") == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in last
    assert sorted(it.name for it in tmp_path.iterdir()) == ["runs"]


def test_what_is_odd_is_told_and_the_rest_is_learnt(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One class, two instructions that differ in a letter, a curve with holes, an episode without a curve."""
    rows = [f"{k}.mp4,{TASK if k < 6 else 'make it brights'},1," for k in range(0, 12)]
    write_labels(runs, *rows, head="file,task,success,done_s")
    curves = [curve(f"{k}.mp4", True, TASK if k < 6 else "make it brights") for k in range(11)]
    for number in (2, 5, 6):
        curves[1]["scores"][number]["log_prob"] = None
    curves[3]["scores"][2]["time"] = 99.0
    write_curves(runs, curves)
    assert run(runs, tmp_path / "student") == 0
    said = capsys.readouterr().err
    assert "has no failures among its episodes" in said
    assert f"'{TASK}' and 'make it brights' differ in one character" in said
    assert "3.mp4: its curve in" in said and "times must be numbers that increase" in said
    assert "11.mp4: no curve of it is there" in said
    assert "| ROC-AUC" not in (tmp_path / "student" / "README.md").read_text()


def test_whose_judgement_is_said_once(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = ("--teacher", "embedded", "--curves", str(runs / "curves.json"))
    for more, said in (((), "say whose judgement is to be learnt"), (both, "give one of them")):
        with pytest.raises(SystemExit):
            main(["distill", str(runs), *more])
        assert said in capsys.readouterr().err


def test_folders_and_numbers_that_cannot_be(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = tmp_path / "there"
    there.mkdir()
    for output, more, said in [
        (there, (), "is there already"),
        (runs / "student", (), "would lie in"),
        (tmp_path / "no" / "where", (), f"{tmp_path / 'no'} is no folder that exists"),
        (tmp_path / "s", ("--budget-ms", "nan"), "--budget-ms nan"),
        (tmp_path / "s", ("--minutes", "0"), "--minutes 0"),
        (tmp_path / "s", ("--steps", "-1"), "--steps -1"),
        (tmp_path / "s", ("--steps", "0"), "--steps 0"),
        (
            tmp_path / "s",
            ("--size", "huge"),
            "--size 'huge' is none: take 'large', 'embedded, larger frames', ",
        ),
        (tmp_path / "s", ("--device", "toaster"), "--device toaster cannot be used here"),
        (tmp_path / "s", ("--scores", str(tmp_path / "s" / "kept")), "would lie in --output"),
    ]:
        assert run(runs, output, *more) == 1
        assert said in capsys.readouterr().err
    assert sorted(it.name for it in tmp_path.iterdir()) == ["runs", "there"]


def test_an_earlier_student_is_taught_again(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, again, made, real = tmp_path / "first", tmp_path / "again", [], distill.distill
    monkeypatch.setattr(distill, "distill", lambda *given: made.append(real(*given)) or made[-1])
    assert run(runs, first) == 0
    capsys.readouterr()
    kept = tmp_path / "kept"
    assert run(runs, again, "--start-from", str(first), "--seed", "1", "--scores", str(kept)) == 0
    shown = capsys.readouterr().err.replace("\n", " ")
    assert f"it goes on from the weights of the student in {first}" in shown
    assert f"the student in {first} may have learnt from films that are held out now" in shown
    before, after = made[0].learned.first_loss, made[0].learned.loss
    assert before - after > 0.005
    assert made[1].learned.first_loss == pytest.approx(after, abs=0.001), "stored as float16"
    assert made[1].recipe.rate < made[0].recipe.rate
    card = (again / "README.md").read_text()
    assert "**The student in " in card and "--start-from " in card.split("On a CPU the same data with")[1]

    assert (
        run(runs, tmp_path / "other", "--start-from", str(again), "--seed", "1", "--scores", str(kept)) == 1
    )
    assert "made from something else (other: start)" in capsys.readouterr().err


def test_what_no_student_can_start_from(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it is told before a teacher is asked."""
    monkeypatch.setattr(distill, "_curves", lambda *_: pytest.fail("too late"))
    small, damaged, large = tmp_path / "small", tmp_path / "damaged", tmp_path / "large"
    make_random_checkpoint(large)
    for folder in (small, damaged):
        shutil.copytree(EMBEDDED_FOLDER, folder)
    for name, change in [
        ("act", ('"silu"', '"relu"')),
        ("eps", ("1e-06", "0.5")),
        ("theta", ("100000.0", "5.0")),
    ]:
        other = shutil.copytree(EMBEDDED_FOLDER, tmp_path / name)
        text = (other / "config.json").read_text()
        assert change[0] in text
        (other / "config.json").write_text(text.replace(*change))
    (damaged / "model.safetensors").write_bytes((damaged / "model.safetensors").read_bytes()[:-100])
    for start, more, said in [
        (
            tmp_path / "no",
            (),
            f"--start-from '{tmp_path / 'no'}' is no folder: name the folder of an earlier",
        ),
        ("", (), "--start-from '' is no folder"),
        ("x" * 300, (), "name the folder of an earlier student, 'embedded' or 'nothing'"),
        (runs, (), "holds no model (no config.json): name the folder"),
        (runs / "labels.csv", (), "is a file: name the folder of an earlier student"),
        (large, (), f"{large} holds no student (its config.json is none that `topreward distill` makes)"),
        (damaged, (), "model.safetensors"),
        *((tmp_path / name, (), "holds no student") for name in ("act", "eps", "theta")),
        (small, ("--size", "smallest"), "--size 'smallest' is no size of the student in "),
    ]:
        assert run(runs, tmp_path / "s", "--start-from", str(start), *more) == 1
        assert said in capsys.readouterr().err
        assert not (tmp_path / "s").exists()


def test_a_task_that_an_earlier_student_knows_and_the_new_one_will_not_is_told() -> None:
    start = Start("s", name="the student in s", sha256="1", instructions=("Lock the door", "turn it", "x"))
    said = start.given_up(["Turn it.", "X"])
    assert said.startswith("the student in s understands 'Lock the door', of which there are no episodes")
    assert "'turn it' and 1 more, of which" in start.given_up(["lock the door"])
    assert start.given_up(["lock the door", "turn it", "x", "more"]) == ""


def test_a_teacher_that_is_gone_ends_it_and_no_student_is_made_of_what_it_had_said(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: set[bytes] = set()

    class Gone(Brightness):
        """Answers for two films, and cannot be reached then."""

        def score_one(self, request: ScoreRequest) -> PrefixScore:
            asked.add(request.prefix[0].image.tobytes())
            if len(asked) > 2:
                raise LinkError("nobody answers")
            return super().score_one(request)

    monkeypatch.setattr(evaluation_runs, "load_scorer", lambda *_: Gone())
    monkeypatch.setattr(side_by_side, "sleep", lambda _: None)
    kept, output = tmp_path / "kept", tmp_path / "student"
    order = ["distill", str(runs), "--teacher", "embedded", "--output", str(output), *QUICK]
    assert main([*order, "--scores", str(kept)]) == 1
    said = capsys.readouterr().err
    assert "10 of 12 episodes have no score of the teacher, which cannot be reached (" in said
    assert "nobody answers" in said and "run it again" in said and "learning" not in said
    assert not output.exists() and len(list((kept / "teacher").glob("*.json"))) == 2
    assert plain_error(LinkError("gone")).temporary and not plain_error(UserError("bad")).temporary


def test_one_film_in_five_is_held_out_wherever_it_lies() -> None:
    def episode(task: str, succeeded: bool | None, k: int) -> LabelledEpisode:
        return LabelledEpisode(f"{k}", task, succeeded, None, f"hash {k}", lambda: None, 1.0)  # type: ignore[arg-type]

    episodes = [episode("a", k < 10, k) for k in range(20)] + [episode("b", None, 20)]
    apart = distill.held_out(episodes)
    assert [sum(k in apart for k in part) for part in (range(10), range(10, 20))] == [
        2,
        2,
    ] and 20 not in apart
    turned = distill.held_out(episodes[::-1])
    assert {episodes[::-1][k].name for k in turned} == {episodes[k].name for k in apart}
    assert len(distill.held_out([episode(f"task {k}", None, k) for k in range(30)])) == 6, "an episode a task"


def test_films_of_one_attempt_are_held_out_together() -> None:
    def films(attempt: str, k: int) -> list[LabelledEpisode]:
        one = LabelledEpisode(f"{k}", "a", k < 10, None, f"hash {k}", lambda: None, 1.0)  # type: ignore[arg-type]
        return [replace(one, identity=f"{one.identity} {side}", attempt=attempt) for side in "lr"]

    episodes = [film for k in range(20) for film in films(f"run {k}", k)]
    apart = distill.held_out(episodes)
    assert len(apart) == 8 and {k // 2 for k in apart} == {k // 2 for k in apart if k % 2}
    renamed = [replace(it, attempt=f"{it.attempt} in another folder") for it in episodes]
    assert distill.held_out(renamed) == apart, "names say what belongs together, and nothing else"
    two_tasks = [replace(it, task=f"task {k % 2}") for k, it in enumerate(episodes)]
    assert {k // 2 for k in distill.held_out(two_tasks)} == {
        k // 2 for k in distill.held_out(two_tasks) if k % 2
    }
    alone = [replace(it, attempt="") for it in episodes]
    assert {k // 2 for k in distill.held_out(alone)} != {k // 2 for k in distill.held_out(alone) if k % 2}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda it: it | {"ended_early": True}, "it stops where the monitor ended the episode"),
        (lambda it: it | {"duration": 0.5}, "its times reach from"),
        (lambda it: it | {"scores": [score | {"log_prob": -1e300} for score in it["scores"]]}, "lower than"),
        (
            lambda it: it | {"scores": [score | {"log_prob_static": 5.0} for score in it["scores"]]},
            "at most 0",
        ),
    ],
)
def test_curves_that_are_not_of_the_film_are_told(
    runs: Path, change: Callable[[dict[str, Any]], dict[str, Any]], said: str
) -> None:
    whole = json.loads((runs / "curves.json").read_text())["curves"]
    write_curves(runs, [change(whole[0]), *whole[1:], {"video": "a\0b"}])
    episodes = labelled_data(
        runs, Reading(AnnotationSettings(monitor_defaults() | {"image_topics": ["/image"]}))
    ).episodes
    found, _, problems = read_curves([runs / "curves.json"], episodes)
    assert len(found) == len(episodes) - 1 and said in problems[0]
    write_curves(runs, [*whole, whole[0]])
    assert "another curve of it came before" in read_curves([runs / "curves.json"], episodes)[2][0]


def test_a_damaged_checkpoint_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(training_run.RunError, match="is no checkpoint of a training"):
        training_run.Run(tmp_path, {})
