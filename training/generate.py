"""Make the clips for training and evaluation: `python -m training.generate data`.

This simulates good and bad attempts at every task and films each with two or three cameras, whose places
vary a little. Clips that exist are kept, so a run that was interrupted can be continued. The same arguments
give the same clips, with any number of processes; `manifest.jsonl` lists them with their hashes, and the last
line printed is the hash of that list. The three evaluation sets use other seeds than training, and so other
scenes, attempts and cameras; they are made first. Fewer attempts are the first of many: `--train 140` lists a
fifth of what the default makes, and is done at once where a longer run has come so far.

    sudo apt install libosmesa6
    pip install -r training/requirements.txt
    python -m training.generate data
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.queues import Queue
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.progress import Progress

from training.clips import RATE, SIDE, VIEWS, Clip, Listed, Manifest
from training.instructions import TASKS

if TYPE_CHECKING:
    from training.simulation import Simulator

TRAIN, EVALUATIONS = "train", ("eval-0", "eval-1", "eval-2")
#: Kinds of any twenty attempts in a row, see `simulation.KINDS`.
MIX = ("success",) * 9 + ("stop",) * 5 + ("retreat",) * 2 + ("miss",) * 2 + ("noise", "idle")
_SEEDS = {TRAIN: 0, "eval-0": 1_000_000, "eval-1": 2_000_000, "eval-2": 3_000_000}


#: Attempts after which a worker takes up another task, so that what is there is of all tasks.
_BLOCK = 20
#: How far a camera may stand from its usual place, against the evaluation's; what is trained surrounds that.
_FREEDOM_IN_TRAINING = 1.3


@dataclass(frozen=True)
class Attempt:
    """One attempt to simulate, and the views in which it is filmed: for training two, in turn."""

    split: str
    task: str
    number: int

    @property
    def kind(self) -> str:
        return MIX[self.number % len(MIX)]

    @property
    def seed(self) -> int:
        return _SEEDS[self.split] + self.number

    @property
    def views(self) -> tuple[str, ...]:
        if self.split != TRAIN:
            return VIEWS
        # Kinds repeat every twenty attempts, so the view to be left out changes with these, too.
        left_out = (self.number + 2 * (self.number // len(MIX))) % len(VIEWS)
        return VIEWS[:left_out] + VIEWS[left_out + 1 :]

    def path(self, view: str) -> Path:
        return Path(self.split, self.task, f"{self.number:04d}-{view}.npz")


@dataclass(frozen=True)
class Timing:
    """Seconds of a clip during which the arm rests, works, and rests again."""

    before: float
    work: float
    after: float

    @classmethod
    def drawn(cls, rng: np.random.Generator, split: str, share_of_work: float) -> Timing:
        """Draw a timing: the work of a whole attempt takes 4 to 10 s, that of an aborted one its share."""
        work = rng.uniform(4, 10) * share_of_work
        if split == TRAIN:
            return cls(rng.uniform(0, 2), work, rng.uniform(0, 7))
        return cls(
            rng.uniform(0.25, 2), work, rng.uniform(6, 7.5)
        )  # long enough after a success for the monitor to confirm it

    def steps(self, working: int, total: int) -> np.ndarray:
        """The step that each frame shows, of ``total`` steps of which the first ``working`` are work."""
        seconds = np.arange(int((self.before + self.work + self.after) * RATE) + 1) / RATE
        share = (seconds - self.before) / max(self.work, 1e-6)
        return np.clip(share * working, 0, total - 1).astype(int)


def film(simulator: Simulator, attempt: Attempt) -> Iterator[Clip]:
    """Simulate an attempt and yield its clip in each of its views."""
    from training import simulation

    trajectory = simulator.trajectory(attempt.kind, attempt.seed)
    rng = np.random.default_rng([attempt.seed, len(attempt.task), 7])
    # An expert at full speed needs some 80 steps.
    share = min(1.6, max(0.2, trajectory.steps * trajectory.pace / 80))
    timing = Timing.drawn(rng, attempt.split, share)
    steps = timing.steps(trajectory.steps - simulation.RESTING, trajectory.steps)
    freedom = _FREEDOM_IN_TRAINING if attempt.split == TRAIN else 1.0
    for view in attempt.views:
        camera = simulation.Camera.of_view(view, rng, trajectory.work_at, freedom)
        yield Clip(
            task=attempt.task,
            kind=attempt.kind,
            view=view,
            frames=simulator.render(trajectory, steps, camera),
            progress=trajectory.progress[steps].astype(np.float32),
            moved=trajectory.moved[steps].astype(np.float32),
            hand=trajectory.hand[steps].astype(np.float32),
            success=trajectory.success[steps],
        )


#: Attempts at one task: the data folder, the task's name, and the attempts.
Job = tuple[Path, str, list[Attempt]]


def _work(job: Job) -> Iterator[list[Listed]]:
    """Make the missing clips of attempts at one task; yields the lines of the manifest per attempt."""
    folder, task, attempts = job
    simulator = None
    for attempt in attempts:
        paths = [attempt.path(view) for view in attempt.views]
        if not all((folder / path).is_file() for path in paths):
            if simulator is None:
                from training.simulation import Simulator  # not needed where all clips are there

                simulator = Simulator(task, SIDE, SIDE)
            for path, clip in zip(paths, film(simulator, attempt), strict=True):
                clip.save(folder / path)
        yield [Listed.of_file(folder, path, attempt.seed) for path in paths]
    if simulator:
        simulator.close()


def _worker(jobs: Queue[Job | None], results: Queue[list[Listed] | BaseException]) -> None:
    try:
        for job in iter(jobs.get, None):
            for lines in _work(job):
                results.put(lines)
    except BaseException as error:
        results.put(error)
        raise


def generate(folder: Path, attempts: list[Attempt], processes: int) -> str:
    """Make the clips of ``attempts`` that ``folder`` lacks and write the manifest; returns its hash."""
    context = multiprocessing.get_context("spawn")
    jobs: Queue[Job | None] = context.Queue()
    results: Queue[list[Listed] | BaseException] = context.Queue()
    blocks: dict[tuple[bool, int, str, str], list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        key = attempt.split == TRAIN, attempt.number // _BLOCK, attempt.split, attempt.task
        blocks[key].append(attempt)
    for key in sorted(blocks):
        jobs.put((folder, key[-1], blocks[key]))
    for _ in range(processes):
        jobs.put(None)
    os.environ.setdefault("LP_NUM_THREADS", "0")  # Mesa draws in the worker's own thread
    workers = [context.Process(target=_worker, args=(jobs, results), daemon=True) for _ in range(processes)]
    for worker in workers:
        worker.start()
    lines: list[Listed] = []
    with Progress() as progress:
        bar = progress.add_task("attempts", total=len(attempts))
        for _ in attempts:
            result = results.get()
            if isinstance(result, BaseException):
                raise SystemExit(
                    f"a worker failed ({type(result).__name__}: {result}); run again to continue"
                )
            lines.extend(result)
            progress.advance(bar)
    for worker in workers:
        worker.join()
    return Manifest.write(folder, lines)


def main() -> None:
    """Generate from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the clips go; some 6 GB")
    parser.add_argument(
        "--train", type=int, default=420, help="attempts per task to learn from (%(default)s)"
    )
    parser.add_argument("--evaluate", type=int, default=20, help="per task in each of 3 sets (%(default)s)")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="(%(default)s)")
    arguments = parser.parse_args()
    attempts = [
        Attempt(split, task.name, number)
        for split in (TRAIN, *EVALUATIONS)
        for task in TASKS
        for number in range(arguments.train if split == TRAIN else arguments.evaluate)
    ]
    arguments.folder.mkdir(parents=True, exist_ok=True)
    print(generate(arguments.folder, attempts, arguments.processes))


if __name__ == "__main__":
    main()
