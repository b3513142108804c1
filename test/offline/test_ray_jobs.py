"""Jobs on a Ray cluster of several nodes on this machine: the files of a run without it, whatever dies.

Runs where Ray is installed (the extra `ray`). Cluster and callers are processes of their own.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from test import bags
from test.videos import write_block
from topreward_ros.defaults import DEMO_TASK
from topreward_ros.offline.code_version import code_hash

if importlib.util.find_spec("ray") is None:
    pytest.skip("needs the extra ray", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[2]
#: All of it stays on this machine's loopback, and asks for no token.
ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_health_check_failure_threshold": "2",
}
#: Two nodes of one CPU beside the head; a line of input kills one of them.
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
print(cluster.address, flush=True)
for _ in sys.stdin:
    cluster.remove_node(nodes.pop(), allow_graceful=False)
    print("killed", flush=True)
cluster.shutdown()
"""
#: Of a module that the workers can import.
JOBS = """
import os, signal, time
from pathlib import Path
from topreward_ros.core.errors import UserError

def prepare(folder):
    if folder == "nowhere":
        raise UserError("no such model")
    return Path(folder)

def do(folder, job, on_share):
    if job == "dies" or (job == "dies once" and not (folder / "died").exists()):
        (folder / job.replace("dies once", "died")).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if job == "fails":
        raise UserError("it is damaged")
    if job == "is wrong":
        raise OverflowError("too much")
    if job == "writes":
        (folder / "partial").write_text(str(os.getpid()))
        try:
            while True:
                time.sleep(0.05)
        finally:
            (folder / "partial").unlink()
    if job == "waits" and not (folder / "go").exists():
        (folder / f"waits in {os.getpid()}").touch()
        while not (folder / "go").exists():
            time.sleep(0.05)
    return job.upper()
"""
#: Does jobs, and writes down what became of them.
CALLER = """
import json, sys
from contextlib import closing
from functools import partial
import jobs_on_ray
from topreward_ros.core.errors import UserError
from topreward_ros.offline import ray_jobs
from topreward_ros.offline.job_processes import Work

folder, address, device, patience, code, *asked = sys.argv[1:]
ray_jobs._PATIENCE_S = float(patience)
if code:
    ray_jobs.code_hash = lambda: code
made, notes = {}, []
work = Work(partial(jobs_on_ray.prepare, folder), jobs_on_ray.do, str)
def note(text):
    notes.append(text)
    print(text, flush=True)
try:
    with closing(ray_jobs.do_on_ray(asked, work, address, device, note)) as done:
        for number, result in done:
            made[number] = [isinstance(result, UserError), str(result)]
except UserError as error:
    notes.append("RAISED " + str(error))
print("\\nRESULT " + json.dumps([[made.get(number) for number in range(len(asked))], notes]), flush=True)
"""


class Cluster:
    """A cluster on this machine."""

    def __init__(self, folder: Path) -> None:
        (folder / "jobs_on_ray.py").write_text(JOBS)
        self.environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": f"{ROOT}:{folder}"}
        command = [sys.executable, "-c", CLUSTER]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=self.environment
        )
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()
        assert self.address.startswith("127.0.0.1:")

    def kill_a_node(self) -> None:
        """Kill the raylet of one of its two nodes, and all that belongs to it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "killed\n"

    def end(self) -> None:
        """End it with all its processes."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=120)

    def start(self, folder: Path, *command: object, **more: str) -> subprocess.Popen[str]:
        """A process of Python in ``folder``."""
        return subprocess.Popen(
            [sys.executable, *map(str, command)],
            cwd=folder,
            env={**self.environment, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def caller(
        self, folder: Path, *jobs: str, prepared: str = "", device: str = "cpu", code: str = ""
    ) -> subprocess.Popen[str]:
        """A process that has ``jobs`` done."""
        about = (prepared or folder, self.address, device, 1.0 if device == "cuda" else 20.0, code)
        return self.start(folder, "-c", CALLER, *about, *jobs)

    def topreward(self, folder: Path, *arguments: object) -> tuple[int, str]:
        """Status and output of ``topreward`` on the cluster."""
        process = self.start(folder, "-m", "topreward_ros.cli", *arguments, RAY_ADDRESS=self.address)
        said, _ = process.communicate(timeout=600)
        return process.returncode, said


@contextmanager
def started(folder: Path) -> Iterator[Cluster]:
    cluster = Cluster(folder)
    try:
        yield cluster
    finally:
        cluster.end()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with started(tmp_path_factory.mktemp("cluster")) as made:
        yield made


def result(process: subprocess.Popen[str]) -> tuple[list[Any], list[str]]:
    """What became of the jobs, and what was said of them."""
    said, _ = process.communicate(timeout=300)
    (line,) = [line for line in said.splitlines() if line.startswith("RESULT ")]
    made, notes = json.loads(line.removeprefix("RESULT "))
    return made, notes


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_worker_that_dies_costs_no_other_job(cluster: Cluster, tmp_path: Path) -> None:
    made, said = result(cluster.caller(tmp_path, "a", "dies once", "fails", "dies", "is wrong", "b"))
    assert [made[k] for k in (0, 1, 2, 5)] == [
        [False, "A"],
        [False, "DIES ONCE"],
        [True, "it is damaged"],
        [False, "B"],
    ]
    assert "(try 3 of 3): use fewer workers" in made[3][1]
    assert "OverflowError: too much (jobs_on_ray.py, line" in made[4][1]
    assert len([line for line in said if line.startswith("dies: ")]) == 2
    assert len([line for line in said if line.startswith("dies once: ")]) == 1


def test_what_prevents_every_job_is_raised_once(cluster: Cluster, tmp_path: Path) -> None:
    made, said = result(cluster.caller(tmp_path, "a", "b", prepared="nowhere"))
    assert made == [None, None]
    assert [line for line in said if line.startswith("RAISED no such model (so says ")]
    made, said = result(cluster.caller(tmp_path, "a", "b", code="0123"))
    assert made == [None, None]
    assert "(code 0123) asks: install the same on all machines" in said[-1] and code_hash() in said[-1]


def test_what_the_cluster_lacks_is_told_while_it_waits(cluster: Cluster, tmp_path: Path) -> None:
    process = cluster.caller(tmp_path, "a", device="cuda")
    assert process.stdout is not None
    while "no machine of the Ray cluster has 1 CPU and 1 GPU" not in (line := process.stdout.readline()):
        assert process.poll() is None
    assert "all 3 together: 2 CPUs, 0 GPUs" in line and "leave --set device=cuda out" in line
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)


def test_ctrl_c_ends_the_tasks_and_leaves_nothing_half_written(cluster: Cluster, tmp_path: Path) -> None:
    process = cluster.caller(tmp_path, "writes", "a")
    partial_file = tmp_path / "partial"
    wait_for(lambda: partial_file.exists() and partial_file.read_text() != "")
    worker = Path("/proc") / partial_file.read_text()
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode != 0 and "KeyboardInterrupt" in said, said
    assert not partial_file.exists(), said
    wait_for(lambda: not worker.exists())


def test_an_address_without_a_cluster_is_told_soon(cluster: Cluster, tmp_path: Path) -> None:
    video = write_block(tmp_path / "a.mp4", 64, 64)
    dead = cluster.start(
        tmp_path,
        *("-m", "topreward_ros.cli", "score", video, "--task", DEMO_TASK, "--ray"),
        RAY_ADDRESS="127.0.0.1:1",
    )
    said, _ = dead.communicate(timeout=60)
    assert dead.returncode == 1 and "no Ray cluster can be reached at 127.0.0.1:1 (" in said


def test_commands_write_what_they_write_without_ray(cluster: Cluster, tmp_path: Path) -> None:
    """With paths that are relative to the folder of the caller."""
    folder = tmp_path / "here"
    frames = bags.video_frames(seconds=1.0)
    bags.write_bag(folder / "runs" / "one", [*bags.camera(frames), bags.instruction()])
    for name in ("a.mp4", "b.mp4"):
        write_block(folder / "runs" / name, 64 + 16 * (name == "b.mp4"), 64)
    (folder / "runs" / "no.mp4").write_text("no video")
    labels = f"file,task,success\na.mp4,{DEMO_TASK},1\none,{DEMO_TASK},0\n"
    (folder / "runs" / "labels.csv").write_text(labels)
    (folder / "m").symlink_to(ROOT / "topreward_ros" / "models" / "embedded")
    common = ("--model", "m", "--set", "scorer_threads=1")
    score = ("score", "runs/a.mp4", "runs/b.mp4", "runs/no.mp4", "--task", DEMO_TASK, *common)
    commands: list[tuple[tuple[str, ...], str, int]] = [
        (("annotate", "runs/one", *common, "--output"), "bags", 0),
        (("evaluate", "runs", "--controls", "idle", *common, "--output"), "evaluation", 0),
        ((*score, "--json"), "curves.json", 1),
    ]
    for arguments, name, status in commands:
        for where, more in (("alone", ("--workers", "2")), ("ray", ("--ray",))):
            (folder / where).mkdir(exist_ok=True)
            done = cluster.topreward(folder, *arguments, f"{where}/{name}", *more)
            assert done[0] == status, done[1]
    alone, ray = (
        {path.relative_to(folder / it): path for path in (folder / it).rglob("*")} for it in ("alone", "ray")
    )
    assert alone.keys() == ray.keys() and len([it for it in alone if it.suffix == ".json"]) > 5
    for name, path in alone.items():
        assert path.is_dir() or path.read_bytes() == ray[name].read_bytes(), name


def test_a_caller_that_is_killed_goes_on_where_it_was(cluster: Cluster, tmp_path: Path) -> None:
    video = write_block(tmp_path / "a.mp4", 64, 64)
    command = ("evaluate", "--success", video.name, "--task", DEMO_TASK, "--ray", "--output", "out")
    process = cluster.start(tmp_path, "-m", "topreward_ros.cli", *command, RAY_ADDRESS=cluster.address)
    films = tmp_path / "out" / "films"
    wait_for(lambda: any(films.glob("*.json")) if films.exists() else False)
    process.kill()
    process.wait()
    kept = {path: path.stat().st_ino for path in films.glob("*.json")}
    status, said = cluster.topreward(tmp_path, *command)
    assert status == 0 and f"({len(kept)} films by an earlier run)" in said
    assert {path: path.stat().st_ino for path in kept} == kept, "what was done is not done again"
    assert len(list(films.iterdir())) == 8


def test_a_node_that_dies_costs_no_job(tmp_path: Path) -> None:
    with started(tmp_path) as cluster:
        process = cluster.caller(tmp_path, "waits", "waits")
        wait_for(lambda: len(list(tmp_path.glob("waits in *"))) == 2)
        cluster.kill_a_node()
        (tmp_path / "go").touch()
        made, said = result(process)
        assert made == [[False, "WAITS"]] * 2
        assert [line for line in said if "its process died on the cluster" in line]
