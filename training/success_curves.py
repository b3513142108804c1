"""Score the evaluation clips once, for the comparison of detectors of SUCCESS:

    python -m training.success_curves data MODEL curves.npz                        # two of three views
    python -m training.success_curves data MODEL curves.npz --every 4 --views 1    # a part

Each film goes through the monitor's own state machine at the shipped settings, with one difference: a
detector that never fires sees every frame of the clip, those that are due and all others as extra looks
(`topreward_ros.core.looks`), and writes down all that it is told. `success_detectors` tells the same to other
detectors, in seconds. The films are the clips of the three evaluation sets and the controls in which nothing
was done (`controls`). Nothing is compared here. It lies in training/ because clips and their truth do.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from io import BytesIO
from math import nan
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

from topreward_ros.core.calibration.told import DetectorLog, Told
from topreward_ros.core.episode import TaskMonitor
from topreward_ros.core.frames import NS_PER_S, Frame
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.core.output_files import write_file
from topreward_ros.scoring.base import PrefixScorer
from training import controls
from training.clips import RATE, SIDE, VIEWS, Clip
from training.evaluate import loaded
from training.generate import EVALUATIONS, MIX
from training.instructions import BY_NAME, TASKS
from training.samples import crop

_HEIGHT, _WIDTH = SIDE * 3 // 4, SIDE  # [px] the middle of a clip, 4:3 as most cameras


@dataclass(frozen=True)
class Film:
    """A film, what is true of it, and what a detector is told of it."""

    set: str  #: name of the evaluation set
    task: str
    kind: str  #: one of `simulation.KINDS`; of a control, its name
    view: str
    attempt: int
    done_s: float  #: [s] when the task is done, by `samples.done`; NaN: it never is
    told: np.ndarray  #: (M, 5), see `told.Row`

    @cached_property
    def rows(self) -> list[list[float]]:
        """`told` as numbers of Python, which are read faster one by one."""
        return [list(map(float, row)) for row in self.told]

    @property
    def is_control(self) -> bool:
        """Whether it is a film of `controls`."""
        return self.kind in controls.films_of(self.task)


def record(
    images: np.ndarray, instruction: str, scorer: PrefixScorer, settings: MonitorSettings
) -> np.ndarray:
    """What a detector is told of a film: `Film.told`. ``images``: (N, H, W, 3) uint8 RGB, at `RATE`."""
    log = DetectorLog(RATE)
    monitor = TaskMonitor(settings, lambda: "film", new_detector=log.new_detector)
    monitor.set_task(instruction)
    for number, image in enumerate(images):
        stamp_ns = round(number / RATE * NS_PER_S)
        asked, _ = monitor.observe(stamp_ns, stamp_ns)
        request, _ = monitor.add_frame(Frame(stamp_ns, image)) if asked else (None, [])
        if request is not None:
            log.extra = request.extra
            monitor.add_score(request, scorer.score(request))
    return np.array(log.told, np.float64).reshape(-1, 5)


# ---- which films ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    """A film to be scored: a clip, or a control with its cast."""

    set: str
    task: str
    attempt: int
    view: str
    control: str = ""
    cast: tuple[Path, ...] = ()
    turn: int = 0

    @property
    def path(self) -> Path:
        return _path(self.set, self.task, self.attempt, self.view)


def _path(of_set: str, task: str, attempt: int, view: str) -> Path:
    return Path(of_set) / task / f"{attempt:04d}-{view}.npz"


def _jobs(every: int, views: int, attempts: int) -> Iterator[_Job]:
    """One attempt in ``every``, of each task another one, in so many of the three views, which take turns."""
    successes = [number for number in range(attempts) if MIX[number % len(MIX)] == "success"]
    failures = [number for number in range(attempts) if MIX[number % len(MIX)] != "success"]
    for set_number, of_set in enumerate(EVALUATIONS):
        for task_number, task in enumerate(TASKS):
            turn = set_number + task_number
            for attempt in range(attempts):
                if (attempt + turn) % every == 0:
                    first = (attempt + turn) // every
                    for k in range(views):
                        yield _Job(of_set, task.name, attempt, VIEWS[(first + k) % len(VIEWS)])
            elsewhere = TASKS[(task_number + 1) % len(TASKS)].name
            view = VIEWS[turn % len(VIEWS)]
            cast = (
                _path(of_set, task.name, successes[turn % len(successes)], view),
                _path(of_set, task.name, successes[(turn + 1) % len(successes)], view),
                _path(of_set, task.name, failures[turn % len(failures)], view),
                _path(of_set, elsewhere, successes[turn % len(successes)], view),
            )
            names = [n for n in controls.films_of(task.name) if n not in controls.DONE]
            for number, name in enumerate(names):
                if (number + turn) % every == 0:
                    yield _Job(of_set, task.name, turn, view, name, cast, turn)


def _film(work: tuple[Path, str, _Job]) -> Film:
    """Score one film; runs in a worker process, which keeps its scorer for the next."""
    data, model, job = work
    scorer, settings = loaded(model)
    instruction = BY_NAME[job.task].instruction
    if job.control:
        success, another, failure, elsewhere = (Clip.load(data / path) for path in job.cast)
        cast = controls.Cast(success, another, failure, elsewhere, job.turn)
        images = controls.films_of(job.task)[job.control](cast)
        kind, done_s = job.control, nan
    else:
        clip = Clip.load(data / job.path)
        images = crop(clip.frames, _HEIGHT, _WIDTH)
        kind, done_s = clip.kind, controls.done_at(clip) / RATE if clip.succeeded else nan
    told = record(np.ascontiguousarray(images), instruction, scorer, settings)
    return Film(job.set, job.task, kind, job.view, job.attempt, done_s, told)


# ---- files ------------------------------------------------------------------------------------------


def write_films(path: Path, films: Sequence[Film], model: str) -> None:
    """Write films to a file, with the revision of the model that scored them."""
    names = [field.name for field in fields(Film) if field.name != "told"]
    about = [{name: getattr(film, name) for name in names} for film in films]
    written = BytesIO()
    np.savez_compressed(
        written,
        films=np.array(json.dumps(about)),
        model=np.array(model),
        lengths=np.array([len(film.told) for film in films]),
        told=np.concatenate([film.told for film in films]),
    )
    write_file(path, written.getvalue())


def read_films(path: Path) -> tuple[list[Film], str]:
    """The films of a file that `write_films` wrote, and the model. Raises SystemExit for any other file."""
    try:
        with np.load(path) as file:
            about = json.loads(str(file["films"]))
            parts = np.split(file["told"], np.cumsum(file["lengths"])[:-1])
            model = str(file["model"])
        return [Film(told=told, **film) for told, film in zip(parts, about, strict=True)], model
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SystemExit(f"{path} holds no curves ({error}): make it by training.success_curves") from None


def main() -> None:
    """Score from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder made by training.generate")
    parser.add_argument("model", help="the model's folder, or any name that `model:=` takes")
    parser.add_argument("curves", type=Path, help="the file that is written (.npz)")
    parser.add_argument("--every", type=int, default=1, help="one attempt in so many (%(default)s)")
    parser.add_argument("--views", type=int, default=2, help="of 3 of each attempt (%(default)s)")
    parser.add_argument("--attempts", type=int, default=20, help="of each task in each set (%(default)s)")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="(%(default)s)")
    options = parser.parse_args()
    jobs = list(_jobs(options.every, options.views, options.attempts))
    needed = {path for job in jobs for path in (job.cast if job.control else (job.path,))}
    if missing := [path for path in sorted(needed) if not (options.data / path).is_file()]:
        raise SystemExit(
            f"{options.data / missing[0]} is missing, and {len(missing) - 1} others: make the data with "
            f"`python -m training.generate {options.data}`"
        )
    scorer, _ = loaded(options.model)  # a model that cannot be loaded is refused before work is done
    films: list[Film] = []
    with (
        Progress(console=Console(stderr=True)) as progress,
        multiprocessing.get_context("spawn").Pool(options.processes) as pool,
    ):
        work = [(options.data, options.model, job) for job in jobs]
        films += progress.track(pool.imap(_film, work), total=len(work), description="films")
    write_films(options.curves, films, f"{scorer.info.model_id} ({scorer.info.revision})")
    scores = sum(int((film.told[:, 0] <= Told.EXTRA).sum()) for film in films)
    Console().print(f"{len(films)} films, {scores} scores: {options.curves}")


if __name__ == "__main__":
    main()
