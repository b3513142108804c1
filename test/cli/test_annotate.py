"""`topreward annotate BAG`: which bags are done, with which task, in how many processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from test import bags
from topreward_ros.cli.main import main
from topreward_ros.offline import annotate_bag
from topreward_ros.offline.bags import OpenBag


@pytest.fixture(scope="module")
def frames() -> list[tuple[int, np.ndarray]]:
    return bags.video_frames(seconds=1.0)


def write(path: Path, frames: list[tuple[int, np.ndarray]], *, with_task: bool = False) -> Path:
    return bags.write_bag(path, [*bags.camera(frames), *([bags.instruction()] if with_task else [])])


def test_tasks_come_from_a_csv_and_what_is_done_is_skipped(frames, tmp_path: Path, capfd) -> None:
    one, two = write(tmp_path / "one", frames), write(tmp_path / "two", frames)
    tasks, output = tmp_path / "tasks.csv", tmp_path / "out"
    tasks.write_text('bag,task,remark\none,open the drawer,\n"two","close, then open",x\n')
    command = ["annotate", str(one), str(two), "--tasks", str(tasks), "--output", str(output)]
    assert main(command) == 0
    said = capfd.readouterr()
    assert said.out.count("2 scores of 0.9 s") == 2
    assert "does not know the instruction 'close, then open'" in said.err
    assert main([command[0], str(output / "one"), *command[1:]]) == 0
    said = capfd.readouterr()
    assert said.err.count("is done already: skipped") == 2
    assert "is an annotation itself: skipped" in said.err
    assert sorted(path.name for path in output.iterdir()) == ["one", "two"]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("name,task\none,x\n", "its first line must name the columns: bag,task"),
        ("bag,task\ntwo,x\n", "says no task for"),
        ("bag,task\none,\n", "line 2: it needs a bag and a task"),
        ("bag,task\none,x\none,y\n", "line 3: one has another task further up"),
        ("bag,task\none,x\n./one,y\n", "says several tasks for"),
    ],
)
def test_a_wrong_table_is_named(table: str, said: str, frames, tmp_path: Path, capsys) -> None:
    bag = write(tmp_path / "one", frames[:2])
    (tmp_path / "tasks.csv").write_text(table)
    assert main(["annotate", str(bag), "--tasks", str(tmp_path / "tasks.csv")]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--task", "x", "--tasks", "y"], "give one of them"),
        (["--task", " "], "--task is empty"),
        (["--workers", "0"], "--workers 0: must be at least 1"),
        (["--workers", "2", "--ray"], "two ways to do the same"),
        (["--namespace", "a b"], "is no namespace of ROS 2"),
        (["--set", "model=x"], "annotate takes no parameter 'model'"),
        (["--image-topic", "a", "--image-topic", "a"], "none of them empty or twice"),
    ],
)
def test_wrong_options_are_named(options: list[str], said: str, frames, tmp_path: Path, capsys) -> None:
    bag = write(tmp_path / "one", frames[:2])
    assert main(["annotate", str(bag), *options]) == 1
    assert said in capsys.readouterr().err


def test_what_can_be_told_without_a_model_is_told_before_it_is_loaded(
    frames, tmp_path: Path, capsys, monkeypatch
) -> None:
    """Of each bag; and no folder is made for what is refused."""
    monkeypatch.setattr("topreward_ros.offline.bag_jobs.load_scorer", lambda *_: pytest.fail("loaded"))
    taken = bags.write_bag(tmp_path / "taken", [*bags.camera(frames[:3]), bags.report("one", 0, "x")])
    two = [*bags.camera(frames[:3], "/a"), *bags.camera(frames[:3], "/b")]
    unnamed = bags.write_bag(tmp_path / "unnamed", two)
    without_task = write(tmp_path / "without_task", frames[:3])
    command = ["annotate", str(taken), str(unnamed), str(without_task), "--output", str(tmp_path / "out")]
    assert main([*command, "--set", "max_frames=1024"]) == 1
    said = capsys.readouterr().err
    assert "model 'embedded': max_frames is 1024: " in said
    assert "has /task_progress already (1 message," in said and "by --image-topic" in said
    assert "has no instruction" in said
    assert not (tmp_path / "out").exists()


def test_no_recording_and_two_of_one_name(frames, tmp_path: Path, capsys) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, other = write(tmp_path / "a" / "run", frames[:2]), write(tmp_path / "b" / "run", frames[:2])
    assert main(["annotate", str(one), str(other), "--output", str(tmp_path / "out")]) == 1
    assert "would both be written to" in capsys.readouterr().err
    assert main(["annotate", str(tmp_path)]) == main(["annotate", str(tmp_path / "none")]) == 1
    assert "is no bag" in (said := capsys.readouterr().err) and "does not exist" in said


def test_a_call_that_is_refused_leaves_no_folder(frames, tmp_path: Path, capsys) -> None:
    bag = write(tmp_path / "run", frames[:2])
    before = sorted(tmp_path.rglob("*"))
    command = ["annotate", str(bag), "--task", "open the drawer"]
    for more in (["--image-topic", "/none"], ["--model", str(tmp_path / "no_model")]):
        assert main([*command, "--output", str(tmp_path / "a" / "b"), *more]) == 1
        assert main([*command, *more]) == 1
    assert sorted(tmp_path.rglob("*")) == before
    assert "/none" in (said := capsys.readouterr().err) and "no_model" in said
    (tmp_path / "file").write_text("")
    assert main([*command, "--output", str(tmp_path / "file" / "b")]) == 1
    assert "name another folder" in capsys.readouterr().err


@pytest.mark.parametrize("step", ["check_free", "write_copy"])  # before and after the model is loaded
def test_an_error_that_was_not_foreseen_costs_no_other_bag(
    step: str, frames, tmp_path: Path, capfd, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [str(write(tmp_path / name, frames, with_task=True)) for name in ("one", "two")]
    do = getattr(annotate_bag, step)

    def do_or_fail(*arguments: Any) -> None:
        (bag,) = [it for it in arguments if isinstance(it, OpenBag)]
        if bag.bag.path.name == "one":
            raise TypeError("no such thing")
        do(*arguments)

    monkeypatch.setattr(annotate_bag, step, do_or_fail)
    assert main(["annotate", *sources, "--output", str(tmp_path / "out")]) == 1
    said = capfd.readouterr().err
    assert f"{sources[0]}: TypeError: no such thing (test_annotate.py, line" in said
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["two"]


def test_a_process_that_dies_costs_no_bag(frames, tmp_path: Path) -> None:
    """Two processes; one is killed, and another takes its place."""
    sources = [write(tmp_path / name, frames, with_task=True) for name in ("one", "two")]
    output = tmp_path / "out"
    command = [sys.executable, "-m", "topreward_ros.cli", "annotate", *map(str, sources)]
    command += ["--output", str(output), "--workers", "2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        end = time.monotonic() + 60
        workers: list[int] = []
        while not workers and time.monotonic() < end:
            workers = [pid for pid in map(int, children.read_text().split()) if is_worker(pid)]
            time.sleep(0.01)
        os.kill(workers[0], signal.SIGKILL)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "was ended by SIGKILL" in said
    assert "another takes its place" in said or "(try 1 of 3); it is tried again" in said  # it had none yet
    assert sorted(path.name for path in output.iterdir()) == ["one", "two"]


def is_worker(pid: int) -> bool:
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
