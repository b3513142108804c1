"""Jobs in several processes: each is done once, whatever becomes of a process, and none is left behind."""

from __future__ import annotations

import importlib
import multiprocessing
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from topreward_ros.core.errors import UserError
from topreward_ros.offline.job_processes import do_jobs

#: Of a module that other processes can import.
JOBS = """
import os, signal, time
from pathlib import Path
from topreward_ros.core.errors import UserError

def prepare(folder):
    if folder == "nowhere":
        raise UserError("no such model")
    return Path(folder)

def do(folder, job):
    if job == "dies" or (job == "dies once" and not (folder / "died").exists()):
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if job == "dies late" and not (folder / "died").exists():
        (folder / "died").touch()
        time.sleep(0.5)  # so that the other process is done
        os.kill(os.getpid(), signal.SIGKILL)
    if job == "fails":
        raise UserError("it is damaged")
    return job.upper()
"""


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    (tmp_path / "jobs_of_a_test.py").write_text(JOBS)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("jobs_of_a_test")
    del sys.modules["jobs_of_a_test"]


def test_a_process_that_dies_costs_no_other_job(jobs: Any, tmp_path: Path) -> None:
    done: dict[str, Any] = {}
    asked = ["a", "dies once", "fails", "dies", "b"]
    do_jobs(jobs.prepare, (str(tmp_path),), jobs.do, asked, 2, done.__setitem__)
    assert {job: str(result) for job, result in done.items() if not isinstance(result, UserError)} == {
        "a": "A",
        "b": "B",
        "dies once": "DIES ONCE",
    }
    assert str(done["fails"]) == "it is damaged"
    assert "was killed, as where memory runs out" in str(done["dies"])
    assert not multiprocessing.active_children()


def test_a_job_that_comes_back_goes_to_a_process_that_waits(jobs: Any, tmp_path: Path) -> None:
    """The other process has found nothing left to do when the job's own dies."""
    done: dict[str, Any] = {}
    do_jobs(jobs.prepare, (str(tmp_path),), jobs.do, ["a", "dies late"], 2, done.__setitem__)
    assert done == {"a": "A", "dies late": "DIES LATE"}


def test_what_prevents_every_job_is_raised(jobs: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such model"):
        do_jobs(jobs.prepare, ("nowhere",), jobs.do, ["a"], 2, lambda *_: pytest.fail("nothing can be done"))

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        do_jobs(jobs.prepare, (str(tmp_path),), jobs.do, ["a", "b", "c"], 2, interrupted)
    assert not multiprocessing.active_children()
