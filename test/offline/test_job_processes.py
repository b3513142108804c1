"""Jobs in several processes: each is done once, whatever becomes of a process, and none is left behind."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from topreward_ros.core.errors import UserError
from topreward_ros.offline.job_processes import Work, do_jobs, threads_of_each

#: Of a module that other processes can import.
JOBS = """
import logging, multiprocessing, os, signal, time
from pathlib import Path
from topreward_ros.core.errors import UserError
from topreward_ros.offline.worker_warnings import of

def prepare(folder):
    if folder == "nowhere":
        raise UserError("no such model")
    if folder == "no memory":
        os.kill(os.getpid(), signal.SIGKILL)
    return Path(folder)

def do(folder, job, on_share):
    on_share(0.5)
    died = folder / f"{job} has died"  # of this job alone: two may die at the same time
    if job == "dies" or (job == "dies once" and not died.exists()):
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if job == "dies late" and not died.exists():
        died.touch()
        time.sleep(0.5)  # so that the other process is done
        os.kill(os.getpid(), signal.SIGKILL)
    if job.startswith("warns"):
        log = logging.getLogger("topreward_ros.offline.test")
        log.warning("it is %s", "slow")
        log.warning("gone, says %s", job, extra=of("gone"))
        (folder / job).touch()
        while len(list(folder.glob("warns*"))) < 2:  # until the other has said so, too
            time.sleep(0.01)
        time.sleep(0.3)  # and until that was heard
        log.warning("back, says %s", job, extra=of("gone", is_over=True))
        log.info("this is not for you")
    if job == "locks":
        global lock
        lock = multiprocessing.RLock()
    if job == "fails":
        raise UserError("it is damaged")
    if job == "is wrong":
        raise OverflowError("too much")
    if job == "leaves":
        os._exit(7)
    if job == "writes":
        (folder / "partial").touch()
        try:
            time.sleep(60)
        finally:
            (folder / "partial").unlink()
    return job.upper()
"""
Do = Callable[..., dict[str, Any]]


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    (tmp_path / "jobs_of_a_test.py").write_text(JOBS)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("jobs_of_a_test")
    del sys.modules["jobs_of_a_test"]


@pytest.fixture
def do(jobs: Any, tmp_path: Path) -> Do:
    """Does jobs in two processes; gives their results."""

    def done(asked: list[str], folder: str = str(tmp_path), on_note: Any = pytest.fail) -> dict[str, Any]:
        work = Work(partial(jobs.prepare, folder), jobs.do, str)
        return {asked[number]: result for number, result in do_jobs(asked, work, 2, lambda *_: None, on_note)}

    return done


def test_a_process_that_dies_costs_no_other_job(do: Do) -> None:
    notes: list[str] = []
    done = do(["a", "dies once", "fails", "dies", "b"], on_note=notes.append)
    assert {job: str(result) for job, result in done.items() if not isinstance(result, UserError)} == {
        "a": "A",
        "b": "B",
        "dies once": "DIES ONCE",
    }
    assert str(done["fails"]) == "it is damaged"
    assert "its process was ended by SIGKILL (try 3 of 3): use fewer workers" in str(done["dies"])
    assert sorted(notes) == [
        "dies once: its process was ended by SIGKILL (try 1 of 3); it is tried again",
        "dies: its process was ended by SIGKILL (try 1 of 3); it is tried again",
        "dies: its process was ended by SIGKILL (try 2 of 3); it is tried again",
    ]
    assert not multiprocessing.active_children()


def test_what_two_processes_warn_of_is_told_once_by_the_caller(
    do: Do, capfd: pytest.CaptureFixture[str]
) -> None:
    notes: list[str] = []
    done = do(["warns", "warns too"], on_note=notes.append)
    assert done == {"warns": "WARNS", "warns too": "WARNS TOO"}
    assert [note.split(",")[0] for note in notes] == ["it is slow", "gone", "back"]
    assert not capfd.readouterr().err


def test_a_lock_that_a_library_made_is_no_leak(jobs: Any, tmp_path: Path) -> None:
    """Python tells of one when the process that started all others ends."""
    script = (
        "from functools import partial\n"
        "import jobs_of_a_test as jobs\n"
        "from topreward_ros.offline.job_processes import Work, do_jobs\n"
        "if __name__ == '__main__':\n"
        f"    work = Work(partial(jobs.prepare, {str(tmp_path)!r}), jobs.do, str)\n"
        "    print(*[made for _, made in do_jobs(['locks', 'a'], work, 2, lambda *_: None, print)])\n"
    )
    (tmp_path / "script.py").write_text(script)
    paths = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    ended = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert sorted(ended.stdout.split()) == ["A", "LOCKS"] and not ended.stderr


def test_an_error_that_was_not_foreseen_is_that_of_its_job(do: Do) -> None:
    notes: list[str] = []
    done = do(["is wrong", "a", "leaves", "b"], on_note=notes.append)
    assert (done["a"], done["b"]) == ("A", "B")
    assert "OverflowError: too much (jobs_of_a_test.py, line" in str(done["is wrong"])
    assert "its process ended with status 7 (try 3 of 3)" in str(done["leaves"])
    assert all("leaves" in note for note in notes), "the others' processes live on"


def test_a_job_that_comes_back_goes_to_a_process_that_waits(do: Do) -> None:
    """The other process has found nothing left to do when the job's own dies."""
    assert do(["a", "dies late"], on_note=lambda _: None) == {"a": "A", "dies late": "DIES LATE"}


def test_what_prevents_every_job_is_raised(do: Do) -> None:
    with pytest.raises(UserError, match="no such model"):
        do(["a"], "nowhere")
    notes: list[str] = []
    with pytest.raises(
        UserError, match="9 processes died one after the other, the last was ended by SIGKILL"
    ):
        do(["a", "b"], "no memory", notes.append)
    assert set(notes) == {"a process was ended by SIGKILL while it prepared; another takes its place"}
    assert not multiprocessing.active_children()


def test_who_leaves_leaves_no_process_and_nothing_half_written(jobs: Any, tmp_path: Path) -> None:
    shares: list[tuple[int, float]] = []
    work = Work(partial(jobs.prepare, str(tmp_path)), jobs.do, str)
    asked = ["writes", "a"]
    partial_file = tmp_path / "partial"
    with (
        pytest.raises(KeyboardInterrupt),
        closing(do_jobs(asked, work, 2, lambda *share: shares.append(share), pytest.fail)) as results,
    ):
        assert next(results) == (1, "A")
        while not partial_file.exists():
            time.sleep(0.01)
        raise KeyboardInterrupt
    assert (1, 0.5) in shares
    assert not multiprocessing.active_children() and not partial_file.exists()


def test_processes_share_the_processors() -> None:
    assert threads_of_each(1) >= threads_of_each(2) >= threads_of_each(1000) == 1
