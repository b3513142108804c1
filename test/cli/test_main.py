"""The command `topreward` as a user types it: output, files, errors and exit statuses of real processes."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from test.prepared import completed
from test.videos import write_block
from topreward_ros.cli.main import main
from topreward_ros.core.frames import Frame
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.defaults import monitor_defaults
from topreward_ros.scoring.base import ScorerSettings
from topreward_ros.scoring.checkpoint.random_weights import make_random_checkpoint
from topreward_ros.scoring.registry import load_scorer

DEMO = Path(__file__).parents[2] / "media/demo_success.mp4"
MODULE = "topreward_ros.cli"
COMMAND = [sys.executable, "-m", MODULE]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}


def topreward(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `topreward` with ``arguments`` to its end, where its libraries are imported already."""
    return completed(MODULE, arguments, ENVIRONMENT)


def started(*arguments: object, command: Sequence[str] = COMMAND) -> subprocess.CompletedProcess[str]:
    """Start ``command`` with ``arguments`` as a shell does, and wait for its end."""
    command = [*command, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=ENVIRONMENT)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3 s at 10 Hz: a block that moves to the right."""
    return write_block(tmp_path_factory.mktemp("video") / "block.mp4", 96, 64)


@pytest.mark.installed
def test_help_and_version_are_quick_and_need_nothing_heavy() -> None:
    result = started("--help")
    assert result.returncode == 0
    assert all(name in result.stdout for name in ("score", "watch", "demo", "models"))
    for command in ("score", "watch", "demo", "models"):
        assert started(command, "--help").returncode == 0
    assert re.fullmatch(r"topreward \d+\.\d+\.\d+\n", started("--version").stdout)
    heavy = "{'torch', 'transformers', 'rclpy', 'matplotlib', 'cv2', 'rich', 'numpy'} & set(sys.modules)"
    code = f"import sys; from topreward_ros.cli import main; main._parser(); print({heavy})"
    assert started(command=[sys.executable, "-c", code]).stdout == "set()\n"


@pytest.mark.installed
def test_score_says_what_came_of_it(video: Path, tmp_path: Path) -> None:
    curve, picture = tmp_path / "curve.json", tmp_path / "curve.png"
    result = started("score", video, "--task", "push [the] block", "--json", curve, "--plot", picture)
    assert result.returncode == 0, result.stderr
    assert "random weights" not in result.stdout
    assert "push [the] block" in result.stdout and "EPISODE_STARTED" in result.stdout
    content = json.loads(curve.read_text())
    assert content["model"]["model_id"] == "embedded" and content["model"]["random_weights"] is False
    assert content["settings"]["sample_rate"] == monitor_defaults()["sample_rate"] == 2.0
    assert [score["time"] for score in content["scores"]] == pytest.approx([0.5 * k for k in range(7)])
    assert f"{content['scores'][-1]['log_prob']:.3f}" in result.stdout
    assert cv2.imread(str(picture)).shape[1] == 1200


def test_several_videos_have_a_line_each_and_one_that_fails_is_named(video: Path, tmp_path: Path) -> None:
    bad, flat = tmp_path / "bad.mp4", tmp_path / "flat"
    bad.write_bytes(b"no film")
    flat.mkdir()
    cv2.imwrite(str(flat / "0.png"), np.zeros((2, 804, 3), np.uint8))
    json_file, picture = tmp_path / "curves.json", tmp_path / "curves.png"
    outputs = ("--prefixes", "5", "--json", json_file, "--plot", picture, "--rate", "10")
    films = (video, bad, os.path.relpath(video), flat)
    done = topreward("score", *films, "--task", "open the drawer", *outputs)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["video", video.name, video.name]
    said = [line for line in done.stderr.splitlines() if line.startswith("topreward: ")]
    assert len(said) == 2 and "bad.mp4" in said[0]
    assert f"{flat}: " in said[1] and "804 x 2 pixels" in said[1]
    curves = json.loads(json_file.read_text())["curves"]
    assert [len(curve.get("scores", ())) for curve in curves] == [5, 0, 5, 0]
    assert picture.stat().st_size > 10_000


def test_prefixes_are_asked_about_with_the_times_of_their_frames(tmp_path: Path) -> None:
    """At 15 Hz the authors' frame for 0.5 s is the eighth, at 0.533 s: a mean of 0.3 s, not 0.2 s."""
    # The drawer is half open at the end, where the answer leaves room for what the times add to it.
    film = [image.to_ndarray(format="bgr24") for image in av.open(DEMO).decode(video=0)]
    frames = [*film[0:105:3][:30], film[104]]
    for k, frame in enumerate(frames):
        cv2.imwrite(str(tmp_path / f"{k:02}.png"), frame)
    options = ["--rate", "15", "--json", "-", "--prefixes", "3", "--set", "dtype=float32"]
    content = json.loads(topreward("score", tmp_path, "--task", "open the drawer", *options).stdout)
    assert [score["video_frames"] for score in content["scores"]] == [1, 16, 31]
    assert content["settings"]["sample_rate"] == 2.0
    settings = ScorerSettings.from_parameters({**monitor_defaults(), "dtype": "float32"})
    prefix = [
        Frame(round(k * 1e9 / 15), cv2.cvtColor(frames[k], cv2.COLOR_BGR2RGB)) for k in (0, 8, 15, 22, 30)
    ]
    request = ScoreRequest.of_frames("open the drawer", prefix)
    scored = {}
    for rate in (0.0, 2.0):
        scorer = load_scorer("embedded", replace(settings, sample_rate=rate))
        (score,) = scorer.score_all([request])
        scored[rate] = score.log_prob
        scorer.close()
    assert content["scores"][-1]["log_prob"] == pytest.approx(scored[0.0], abs=1e-4)
    assert abs(scored[2.0] - scored[0.0]) > 1e-3, "the times make no difference here"


def test_a_video_that_breaks_off_is_scored_and_said_to_be_damaged(tmp_path: Path) -> None:
    """By the table, on standard error and in the JSON, alone or beside others; there is a curve: status 0."""
    path = tmp_path / "half.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (96, 64))
    for _ in range(40):
        writer.write(np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8))
    writer.release()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    json_file = tmp_path / "curve.json"
    result = topreward("score", path, "--task", "open the drawer", "--json", json_file)
    assert result.returncode == 0
    said = re.sub(r"\s+", " ", result.stdout)
    assert re.search(r"damaged at 1\.[89]\d s: .*the file ends after (1\.9|2\.0)\d s of the 4\.00 s", said)
    assert f"topreward: {path} is damaged: at 1." in result.stderr
    (*_, place) = json.loads(json_file.read_text())["damaged"]
    assert "of the 4.00 s that it states" in place["reason"]
    several = topreward("score", path, path, "--task", "open the drawer", "--json", json_file)
    assert several.returncode == 0
    assert re.sub(r"\s+", " ", several.stdout).count("half.avi is damaged: at 1.") == 2
    assert several.stderr.count(f"topreward: {path} is damaged") == 2
    assert all(curve["damaged"] for curve in json.loads(json_file.read_text())["curves"])


def test_what_is_a_guess_about_a_folder_is_said_once(tmp_path: Path) -> None:
    for name in ("1.png", "1 (1).png"):
        cv2.imwrite(str(tmp_path / name), np.full((64, 96, 3), 120, np.uint8))
    result = topreward("score", tmp_path, "--task", "open the drawer", "--rate", "5")
    assert result.returncode == 0
    assert result.stderr.count("1 (1).png looks like a copy of 1.png") == 1


def test_json_on_standard_output_is_nothing_else(video: Path) -> None:
    how = ("--set", "sample_rate=4", "--set", "max_frames=66")
    result = started("score", video, "--task", "x", "--json", "-", *how)
    assert result.returncode == 0, result.stderr
    content = json.loads(result.stdout)
    assert len(content["scores"]) == 13
    assert "does not know the instruction 'x'" in result.stderr
    assert result.stderr.count("max_frames is 66: ") == 1


def unread(*arguments: str) -> tuple[int, str]:
    """Status and standard error of the command, whose standard output nobody reads."""
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdout=writer, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    os.close(writer)
    os.close(reader)
    said = process.communicate(timeout=120)[1]
    return process.returncode, said


def test_a_reader_that_leaves_is_no_error_to_speak_of(video: Path) -> None:
    """As in `topreward score ... --json - | head -1`: of the result, so that the status tells it."""
    status, said = unread("score", str(video), "--task", "x", "--json", "-")
    assert status == 1
    assert "does not know the instruction 'x'" in said and "Error" not in said and "Traceback" not in said


def test_a_reader_that_leaves_changes_neither_work_nor_status(video: Path, tmp_path: Path) -> None:
    """As in `topreward score ... | head -1`: nobody reads to its end what is made for people."""
    written = tmp_path / "curve.json"
    for arguments in (
        ["score", str(video), "--task", "x", "--json", str(written)],
        ["models", "list"],
        ["record", "--recover", "--output", str(tmp_path)],
    ):
        status, said = unread(*arguments)
        assert status == 0 and "Broken" not in said and "Traceback" not in said, said
    assert json.loads(written.read_text())["scores"]


def test_a_full_standard_output_is_one_line(video: Path) -> None:
    command = [*COMMAND, "score", str(video), "--task", "x", "--json", "-"]
    with open("/dev/full", "w") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    said = "topreward: the output cannot be written (No space left on device)"
    assert result.stderr.splitlines()[-1] == said


def test_a_character_that_the_locale_lacks_does_not_undo_the_work(video: Path) -> None:
    ascii_only = {**ENVIRONMENT, "PYTHONIOENCODING": "ascii"}
    command = [*COMMAND, "score", str(video), "--task", "stäck"]
    result = subprocess.run(command, capture_output=True, text=True, env=ascii_only)
    assert result.returncode == 0, result.stderr
    assert "st?ck" in result.stdout and "progress" in result.stdout


def test_ctrl_c_while_the_process_ends_leaves_no_trace() -> None:
    """The interrupt comes when all is written, in what libraries have registered for the end: too late."""
    code = (
        "import atexit, sys, os, signal\n"
        "atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))\n"
        "from topreward_ros.cli.main import command\n"
        "sys.exit(command())"
    )
    result = started("--version", command=[sys.executable, "-c", code])
    assert result.returncode == 0 and result.stderr == ""
    assert result.stdout.startswith("topreward "), "it was written before"


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_an_output_that_fails_late_is_one_line(video: Path, tmp_path: Path, option: str) -> None:
    full = tmp_path / "full.png"
    full.symlink_to("/dev/full")
    result = topreward("score", video, "--task", "open the drawer", option, full)
    assert result.returncode == 1 and "EPISODE_STARTED" in result.stdout
    assert result.stderr == (
        f"topreward: {full} cannot be written (No space left on device): make room, or name a file on "
        "another disk; what was there before is unchanged\n"
    )


def test_a_full_disk_leaves_the_old_file(video: Path, tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    path.write_text("the old one")
    command = [*COMMAND, "score", str(video), "--task", "open the drawer", "--json", str(path)]
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
    )
    assert result.returncode == 1 and "EPISODE_STARTED" in result.stdout
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"topreward: {path} cannot be written (File too large): make room")
    assert path.read_text() == "the old one" and list(tmp_path.iterdir()) == [path]


def test_an_output_without_permission_is_refused_before_the_work(video: Path, tmp_path: Path) -> None:
    kept, folder = tmp_path / "kept.json", tmp_path / "folder"
    kept.touch(0o400)
    folder.mkdir(0o500)
    if os.access(folder, os.W_OK):
        pytest.skip("this user may write everywhere")
    for path in (kept, folder / "new.json"):
        result = topreward("score", video, "--task", "x", "--json", path)
        assert result.returncode == 1 and result.stdout == ""
        assert result.stderr.startswith(f"topreward: {path} cannot be written")


@pytest.mark.installed
def test_score_needs_no_ros(video: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('rclpy', 'rcl_interfaces', 'builtin_interfaces', 'sensor_msgs', 'std_msgs'):\n"
        "    sys.modules[name] = None\n"
        "from topreward_ros.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    without_ros = [sys.executable, "-c", code]
    result = started("score", video, "--task", "x", "--set", "sample_rate=1", command=without_ros)
    assert result.returncode == 0, result.stderr
    assert started("models", "info", "embedded", command=without_ros).returncode == 0
    for arguments in (("watch",), ("demo",), ("task", "x")):
        result = started(*arguments, command=without_ros)
        assert result.returncode == 1
        assert "needs ROS 2" in result.stderr and "make setup" in result.stderr
        assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("sample_rat=1", "did you mean sample_rate?"),
        ("sample_rate=900", "must lie between 0.01 and 60"),
        ("image_topics=x", "demo takes no parameter 'image_topics'"),
        ("prompts=/dev/zero", "/dev/zero is a pipe or a device, and no file"),
        ("prompts=/dev/zero.safetensors", "'/dev/zero.safetensors', a soft prompt, cannot be read"),
        ("prompts=/", "/ cannot be read (Is a directory)"),
        ("adapter=/", "/ has no adapter_config.json"),
    ],
)
def test_the_demo_refuses_parameters_before_it_starts_anything(override: str, said: str) -> None:
    result = topreward("demo", "--set", override)
    assert result.returncode == 1 and said in result.stderr
    assert len(result.stderr.splitlines()) == 1 and result.stdout == ""


def test_score_warns_once_of_an_instruction_that_the_model_does_not_know(video: Path, tmp_path: Path) -> None:
    model = make_random_checkpoint(tmp_path / "small")
    (model / "topreward.json").write_text(json.dumps({"instructions": {"push the block": []}}))
    arguments = ["score", video, "--model", model, "--json", "-", "--task"]
    unknown = topreward(*arguments, "pull the [block]")
    assert unknown.returncode == 0
    (line,) = [line for line in unknown.stderr.splitlines() if line.startswith("topreward: ")]
    assert "does not know the instruction 'pull the [block]'" in line and "'push the block'" in line
    assert "--model Qwen/Qwen3-VL-8B-Instruct" in line
    assert "instructions" not in json.loads(unknown.stdout)["model"]
    assert "does not know" not in topreward(*arguments, "Push the block.").stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "sample_rat=1"], "did you mean sample_rate?"),
        (["--set", "image_topics=x"], "score takes no parameter 'image_topics'"),
        (["--set", "sample_rate"], "NAME=VALUE"),
        (["--set", "sample_rate=fast"], "--set sample_rate=fast: must be a number"),
        (["--set", "sample_rate=900"], "--set sample_rate = 900.0: must lie between 0.01 and 60"),
        (["--set", "sample_rate=nan"], "must lie between 0.01 and 60"),
        (["--set", "max_frames=5"], "must be even"),
        (["--set", "end_episode_on_success=yes"], "must be true or false"),
        (["--set", "progress_mode=magic"], "static_baseline, raw_probability"),
        (["--model", "/no/such/model"], "model '/no/such/model': no such folder"),
        (["--model", "no/model"], "get it with `topreward models download no/model`"),
        (["--plot", "curve.xyz"], "--plot curve.xyz: its name must end in"),
        (["--json", "/no/such/folder/x.json"], "/no/such/folder/x.json cannot be written"),
        (["--rate", "-1"], "--rate -1: must be above 0"),
        (["--rate", "0"], "--rate 0: must be above 0"),
        (["--rate", "nan"], "--rate nan: must be above 0"),
        (["--plot", "/no/such/folder/x.png"], "/no/such/folder/x.png cannot be written"),
        (
            ["--set", "sample_rate=1", "--set", "sample_rate=2"],
            "sample_rate is set twice, first to 1; set it",
        ),
        (["--prefixes", "0"], "--prefixes 0: must be at least 1, or be left out for all"),
        (["--prefixes", "-3"], "--prefixes -3: must be at least 1"),
        (["--prefixes", "1"], "give 2 or more, or --prefix-schedule monitor"),
        (["--prefix-schedule", "authors"], "--prefix-schedule goes with --prefixes"),
        (["--set", "layout=v5"], "--set layout = 'v5': must be one of v4.57, v5.10"),
    ],
)
def test_errors_are_one_line_with_the_mend(video: Path, arguments: list[str], said: str) -> None:
    result = topreward("score", video, "--task", "x", *arguments)
    assert result.returncode == 1
    assert said in result.stderr
    assert result.stderr.startswith("topreward: ") and len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_outputs_never_overwrite_each_other_or_what_is_read(video: Path, tmp_path: Path) -> None:
    film, frames, questions = tmp_path / "film.png", tmp_path / "frames", tmp_path / "questions.txt"
    film.write_bytes(video.read_bytes())
    (tmp_path / "link.mp4").symlink_to(film)
    os.link(film, tmp_path / "hard.mp4")
    (tmp_path / "there").symlink_to(tmp_path)
    questions.write_text("Is it true that {instruction}? Answer:\n")
    frames.mkdir()
    cv2.imwrite(str(frames / "0.png"), np.zeros((64, 64, 3), np.uint8))
    before = {path: path.read_bytes() for path in (film, frames / "0.png", questions)}

    def said(*arguments: object) -> str:
        result = topreward("score", *arguments, "--task", "x", "--rate", "10")
        assert result.returncode == 1 and len(result.stderr.splitlines()) == 1, result.stderr
        return result.stderr

    one = tmp_path / "x.png"
    for spelling in (one, tmp_path / "." / "frames" / ".." / "x.png", tmp_path / "there" / "x.png"):
        assert "are one file" in said(video, "--json", one, "--plot", spelling)
    assert "are one file" in said(video, "--json", os.path.relpath(one), "--plot", one)
    for other in (film, tmp_path / "link.mp4", tmp_path / "hard.mp4", tmp_path / "there" / "film.png"):
        assert f"--json {other} would change {film}, which is read" in said(video, film, "--json", other)
        assert f"--plot {film} would change {other}, which is read" in said(other, "--plot", film)
    assert "which is read" in said(frames, "--plot", frames / "1.png")
    assert "which is read" in said(frames, "--plot", tmp_path / "there" / "frames" / "1.png")
    assert "which is read" in said(video, "--json", questions, "--set", f"prompts={questions}")
    assert before == {path: path.read_bytes() for path in before} and not one.exists()
    assert (
        topreward("score", frames, "--task", "x", "--rate", "10", "--json", frames / "x.json").returncode == 0
    )


def test_demo_and_watch_do_not_overwrite_what_they_read(video: Path, tmp_path: Path) -> None:
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text("/**: {ros__parameters: {}}\n")
    (tmp_path / "v.svg").symlink_to(video)
    (tmp_path / "p.svg").symlink_to(parameters)
    before = video.read_bytes()
    for arguments in (
        ["demo", "--video", video, "--task", "x", "--svg", tmp_path / "v.svg"],
        ["watch", "--svg", tmp_path / "p.svg", "--ros-args", "--params-file", parameters],
    ):
        result = topreward(*arguments)
        assert result.returncode == 1 and "which is read: name another file" in result.stderr, result
    assert video.read_bytes() == before and parameters.read_text().startswith("/**")


def test_an_output_never_replaces_the_file_that_standard_output_goes_to(video: Path, tmp_path: Path) -> None:
    """As in `topreward score ... --json all.txt >> all.txt`."""
    path = tmp_path / "all.txt"
    path.write_text("before\n")
    command = ["score", video, "--task", "open the drawer", "--json"]
    with path.open("a") as output:
        run = partial(completed, MODULE, environment=ENVIRONMENT, stdout=output.fileno())
        result = run([*command, path])
        assert result.returncode == 1 and "the file that standard output goes to" in result.stderr
        assert path.read_text() == "before\n"
        assert run([*command, "/dev/stdout"]).returncode == 0
    said = path.read_text()
    assert said.startswith("before\n") and "EPISODE_STARTED" in said[: said.index("{")]
    assert json.loads(said[said.index("{") :])["instruction"] == "open the drawer"


def test_the_task_is_what_can_be_seen_of_it(video: Path) -> None:
    arguments = ["score", video, "--json", "-", "--set", "sample_rate=1", "--task"]
    plain = json.loads(topreward(*arguments, "open the drawer").stdout)
    said = topreward(*arguments, "\ufeff\r\nopen\u00a0the\t drawer\u200b\n")
    assert json.loads(said.stdout) == plain and plain["instruction"] == "open the drawer"


@pytest.mark.parametrize("command", ["score", "demo"])
def test_a_task_that_is_no_utf8_is_refused_before_the_work(video: Path, tmp_path: Path, command: str) -> None:
    curve = tmp_path / "curve.json"
    arguments = [str(video), "--json", str(curve)] if command == "score" else ["--video", str(video)]
    task = b"fermer le caf\xe9"  # as a terminal in Latin-1 sends it
    line = [*map(os.fsencode, [*COMMAND, command, *arguments]), b"--task", task]
    result = subprocess.run(line, capture_output=True, text=True, timeout=120, env=ENVIRONMENT)
    assert result.returncode == 1 and not curve.exists()
    assert result.stderr == (
        "topreward: --task is not UTF-8: it has the byte 0xe9 after 'fermer le caf'; write it in UTF-8\n"
    )


def test_a_missing_video_and_an_empty_task(video: Path) -> None:
    result = topreward("score", "missing.mp4", "--task", "x")
    assert result.returncode == 1 and "topreward: no video at missing.mp4" in result.stderr
    result = topreward("score", video, "--task", "  ")
    assert result.returncode == 1 and "--task is empty" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [[], ["score"], ["score", "x.mp4"], ["fly"], ["watch", "--duration", "0"], ["demo", "--ros-args"]],
)
def test_wrong_usage_is_2(arguments: list[str]) -> None:
    result = topreward(*arguments)
    assert result.returncode == 2
    assert "usage: topreward" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "usage", "said"),
    [
        (
            ["score", "x.mp4", "--taks", "x"],
            "score",
            "unrecognized arguments: --taks x; did you mean --task?",
        ),
        (["export", "weights", "x", "--what"], "export weights", "unrecognized arguments: --what"),
        (["export", "--what", "weights", "x"], "export", "unrecognized arguments: --what"),
        (["--what", "models", "list"], "", "unrecognized arguments: --what"),
        (["plan", "tidy up"], "plan", "required: --model: a model that writes text and follows instructions"),
    ],
)
def test_wrong_usage_shows_the_usage_of_its_command(
    arguments: list[str], usage: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    shown = capsys.readouterr().err
    assert said in shown and shown.startswith(f"usage: topreward {usage}".rstrip() + " [-h]")


def test_ctrl_c_ends_score_without_a_trace(video: Path, tmp_path: Path, interrupted_on_a_terminal) -> None:
    """On a terminal, as a person would do it, once loading is over."""
    videos = [str(video)] * 40  # so that it is still scoring when Ctrl-C comes, however late
    arguments = ["score", *videos, "--task", "x", "--rate", "0.01", "--set", "max_frames=1024"]
    arguments += ["--model", str(make_random_checkpoint(tmp_path / "small"))]
    status, said = interrupted_on_a_terminal([*COMMAND, *arguments], ENVIRONMENT, b"scoring")
    assert status == 130
    assert b"interrupted" in said and b"Traceback" not in said
    assert b"(random weights)" in said, "beside the number that moves"


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["score", "-x.mp4", "--task", "x"], "-x.mp4 is taken for an option: write ./-x.mp4"),
        (["score", "a.mp4", "-x.mp4", "--task", "x"], "-x.mp4 is taken for an option: write ./-x.mp4"),
        (["score", "a.mp4", "--task", "-open"], "as in --task=-VALUE"),
        (["score", "a.mp4"], "the following arguments are required: --task"),
    ],
)
def test_a_dash_that_is_taken_for_an_option_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    hint: str,
) -> None:
    (tmp_path / "-x.mp4").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert capsys.readouterr().err.rstrip().endswith(hint)


def test_help_needs_no_numpy() -> None:
    code = (
        "import sys\n"
        "from topreward_ros.cli.main import main\n"
        "try: main(['score', '--help'])\n"
        "except SystemExit: sys.exit('numpy' in sys.modules)"
    )
    result = started(command=[sys.executable, "-c", code])
    assert result.returncode == 0 and "{authors,monitor}" in result.stdout, result.stderr
