"""`topreward annotate`, `export`, `score` on LeRobot datasets, as a user types them, with the real model."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from test.lerobot_datasets import make_dataset
from test.prepared import PreparedProcess, completed
from topreward_ros.cli.main import main

MODULE = "topreward_ros.cli"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
TASKS = ("open the drawer",) * 3
FILM = "videos/observation.images.front/chunk-000/file-000.mp4"


def topreward(*arguments: object) -> subprocess.CompletedProcess[str]:
    return completed(MODULE, arguments, ENVIRONMENT)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset that is annotated, by a second process where the first one was killed."""
    root = make_dataset(tmp_path_factory.mktemp("lerobot") / "d", tasks=TASKS)
    arguments = ["annotate", str(root), "--camera", "wrist"]
    files = sorted(root.rglob("*"))
    kept = root / ".topreward_progress.parquet.topreward-work"
    with open(os.devnull, "w") as nowhere:
        process = PreparedProcess(MODULE, arguments, ENVIRONMENT, stderr=nowhere.fileno())
    while not (kept / "0.json").exists() and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    killed = process.wait(timeout=60) == -signal.SIGKILL
    if killed:
        assert [path for path in sorted(root.rglob("*")) if kept not in (path, *path.parents)] == files
    else:  # it was quicker
        (root / "topreward_progress.parquet").unlink()
    made = topreward(*arguments)
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith(f"{root}/topreward_progress.parquet: 3 of 3 episodes scored")
    assert not killed or "by an earlier run), SUCCESS in 0" in made.stdout
    assert "one task serves all 3 episodes" in made.stderr and "'open the drawer'" in made.stderr
    assert "2 cameras" in made.stderr and "observation.images.wrist is looked at" in made.stderr
    assert not kept.exists()
    return root


def test_what_is_done_is_skipped_and_what_is_other_is_not_replaced(dataset: Path) -> None:
    path = dataset / "topreward_progress.parquet"
    before = path.read_bytes()
    again = topreward("annotate", dataset, "--camera", "wrist")
    assert again.returncode == 0 and "is there already, with these settings: skipped" in again.stdout
    other = topreward("annotate", dataset)
    assert other.returncode == 1 and "exists already, and it was made with other settings" in other.stderr
    assert "--overwrite" in other.stderr
    assert path.read_bytes() == before and [p.name for p in dataset.iterdir() if p.name[0] == "."] == []


def test_workers_make_a_copy_with_the_same_progress(dataset: Path, tmp_path: Path, capsys) -> None:
    arguments = ["annotate", dataset, "--camera", "wrist", "--columns", "--output", tmp_path / "c"]
    made = topreward(*arguments, "--workers", "2")
    assert made.returncode == 0, made.stderr
    again = topreward(*arguments, "--overwrite")
    assert again.returncode == 1 and "is never replaced: name another folder" in again.stderr
    copied = {path: path.read_bytes() for path in (tmp_path / "c").rglob("*") if path.is_file()}
    command = [str(argument) for argument in arguments]
    assert main(command) == 0
    assert "c is there already, with these settings: skipped" in capsys.readouterr().out
    for other in (["--impute", "duplicate"], ["--set", "sample_rate=1"]):
        assert main([*command, *other]) == 1
        assert "is no whole copy of this dataset with these" in capsys.readouterr().err
    assert copied == {path: path.read_bytes() for path in (tmp_path / "c").rglob("*") if path.is_file()}
    (tmp_path / "c" / FILM).unlink()
    assert main(command) == 1, "a video is missing"
    inside = topreward(*arguments[:-1], dataset)
    assert inside.returncode == 1 and "is the dataset itself" in inside.stderr
    ours, theirs = (
        pq.read_table(root / "topreward_progress.parquet")["progress_sparse"].to_numpy()
        for root in (dataset, tmp_path / "c")
    )
    assert np.allclose(ours, theirs, atol=1e-5, equal_nan=True)
    assert "next.reward" in pq.read_schema(tmp_path / "c/data/chunk-000/file-001.parquet").names
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_weights_are_exported(dataset: Path, tmp_path: Path) -> None:
    output = tmp_path / "weights.parquet"
    made = topreward("export", "weights", dataset, "--values", "--chunk-size", "5", "--output", output)
    assert made.returncode == 0, made.stderr
    table = pq.read_table(output)
    assert table.num_rows == 48 and "rabc_weight" in made.stdout
    assert table.column_names == [
        *("index", "episode_index", "frame_index", "rabc_weight", "rabc_weight_normalised"),
        *("awr_weight", "reward", "value"),
    ]
    again = topreward("export", "weights", dataset, "--output", output)
    assert again.returncode == 1 and "exists already: --overwrite replaces it" in again.stderr
    wrong = topreward("export", "weights", dataset, "--gamma", "0.9")
    assert wrong.returncode == 1 and "--gamma goes with --values" in wrong.stderr


def test_an_episode_is_scored_alone_and_a_film_of_several_is_not(dataset: Path) -> None:
    several = topreward("score", dataset / FILM, "--task", "open the drawer")
    assert several.returncode == 1
    assert "holds the 2 episodes 0 to 1 of the LeRobot dataset" in several.stderr
    assert "choose one by --episode K" in several.stderr
    one = topreward("score", dataset, "--episode", "1")
    assert one.returncode == 0 and "d, episode 1" in one.stdout and "open the drawer" in one.stdout


def test_what_could_not_be_scored_is_said_again_where_it_is_skipped(tmp_path: Path, capsys) -> None:
    """A script that asks twice must not take NaN for work that was done."""
    root = make_dataset(tmp_path / "d", tasks=["open the drawer"] * 3, cameras=("observation.images.wrist",))
    (film,) = root.rglob("file-001.mp4")
    film.write_bytes(film.read_bytes()[:400])
    saids = []
    for copy in ([], ["--columns", "--output", str(tmp_path / "c")]):
        for _ in range(2):
            assert main(["annotate", str(root), *copy]) == 1
            saids.append(capsys.readouterr())
    for said in saids:
        assert re.search(r"episode 2 of \S*d has no progress \(NaN\)", said.err)
    assert ["skipped" in said.out for said in saids] == [False, True, False, True]
