"""Film the golden clips, which tests and the demonstration use and which a model must judge correctly.

There is one attempt at every task that succeeds and one that clearly fails, a robot that does nothing, and a
success played backwards. Scenes, attempts and cameras are new to training and evaluation. The simulator alone
chooses what is filmed, never a model: see `is_clear`. For each clip, `clips.json` says what it shows, which
instruction goes with it, and whether it succeeds. The same versions of the libraries render the same
pictures, but x264 does not always compress them to the same bytes.

The 24 films of the first edition were made by an earlier `simulation`, whose attempts were others; they stay
as they are. ``--trials`` films twenty that put a model to the test, in which nothing was done: bad starts,
covered cameras, cuts, photos, and work that is undone (see `controls`). `trials.json` lists them.

    sudo apt install libosmesa6
    pip install -r training/requirements.txt
    python -m training.golden_clips test/data/clips
    python -m training.golden_clips test/data/clips --trials
    python -m training.golden_clips media --demo       # the three that `topreward demo` plays, larger
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from pathlib import Path

import av
import numpy as np
from rich.progress import track

from topreward_ros.core.output_files import temporary_folder, write_file
from training import controls
from training.clips import Clip
from training.instructions import BY_NAME, TASKS
from training.simulation import IDLE, MISS, RESTING, RETREAT, STOP, SUCCESS, Camera, Simulator, Trajectory

REVERSED = "reversed"
_FIRST_SEED = 9_000_000  # training and evaluation use seeds below 4 million

#: A failure is clear to the eye when the object hardly moves and progress stays well below a half, but the
#: arm does something; see `simulation.Trajectory`.
_MOST_MOVED, _MOST_PROGRESS, _LEAST_PROGRESS = 0.35, 0.45, 0.15


@dataclass(frozen=True)
class Format:
    """Size, rate and length of a clip. Pictures are rendered square and cropped to the middle."""

    width: int  #: [px]
    height: int
    rate: int  #: [Hz]
    shortest: float  #: [s] least length of a clip
    hold: float  #: [s] that a success stays in view, at least
    crf: int = 26  #: H.264 quality, lower is better


TEST = Format(256, 192, rate=10, shortest=12.0, hold=6.5)
DEMO = Format(480, 360, rate=20, shortest=10.0, hold=5.0)


@dataclass(frozen=True)
class Scene:
    """A clip to be made."""

    file: str
    task: str
    kind: str  #: one of `simulation.KINDS`, or `REVERSED`
    first_seed: int  #: the first seed from here on with a clear attempt is filmed
    least_moved: float = (
        0.0  #: share of the way that the object moves, at least, so that the goal of a failure can be seen
    )

    @property
    def attempt(self) -> str:
        """What the simulated robot does."""
        return SUCCESS if self.kind == REVERSED else self.kind


def scenes_of_tests() -> Iterator[Scene]:
    """A success and a failure of every task, with kinds of failure in turn; one idle; one reversed."""
    for number, task in enumerate(TASKS):
        seed = _FIRST_SEED + 1000 * number
        failure = (STOP, RETREAT, MISS)[number % 3]
        yield Scene(f"{task.name}-success.mp4", task.name, SUCCESS, seed)
        yield Scene(f"{task.name}-failure.mp4", task.name, failure, seed)
        if number == 0:
            yield Scene("idle.mp4", task.name, IDLE, seed)
            yield Scene("reversed.mp4", task.name, REVERSED, seed)


def scenes_of_demo() -> Iterator[Scene]:
    """Three attempts at one task: a success, one that stops half-way, and one that never starts."""
    seed = _FIRST_SEED + 100_000
    yield Scene("demo_success.mp4", "drawer-open", SUCCESS, seed)
    yield Scene("demo_failure.mp4", "drawer-open", STOP, seed, least_moved=0.1)
    yield Scene("demo_idle.mp4", "drawer-open", IDLE, seed)


def is_clear(trajectory: Trajectory, least_moved: float = 0.0) -> bool:
    """Whether an attempt shows its outcome beyond doubt, judged by the simulator."""
    if trajectory.kind in (SUCCESS, IDLE):
        return True
    progress, moved = trajectory.progress.max(), trajectory.moved.max()
    return bool(_LEAST_PROGRESS <= progress <= _MOST_PROGRESS and least_moved <= moved <= _MOST_MOVED)


def clear_attempt(simulator: Simulator, scene: Scene) -> tuple[int, Trajectory]:
    """The first seed that gives a clear attempt, and that attempt."""
    for seed in range(scene.first_seed, scene.first_seed + 1000):
        trajectory = simulator.trajectory(scene.attempt, seed)
        if is_clear(trajectory, scene.least_moved):
            return seed, trajectory
    raise SystemExit(f"{scene.file}: no clear {scene.kind} in 1000 seeds")


def timeline(trajectory: Trajectory, rng: np.random.Generator, form: Format) -> np.ndarray:
    """The step that each frame shows: the arm rests, works at the speed of a real one, and rests again."""
    working = trajectory.steps - RESTING
    # An expert at full speed needs some 80 steps, and one that gives up fewer.
    share = 1.0 if trajectory.kind == SUCCESS else np.clip(trajectory.steps * trajectory.pace / 80, 0.2, 1.0)
    before, work = rng.uniform(0.5, 1.5), rng.uniform(5, 8) * share
    succeeded = int(np.argmax(trajectory.success)) if trajectory.kind == SUCCESS else working
    end = max(form.shortest, before + work * max(succeeded / working + form.hold / work, 1))
    seconds = np.arange(round(end * form.rate)) / form.rate
    return np.clip((seconds - before) / work * working, 0, trajectory.steps - 1).astype(int)


def film(simulator: Simulator, scene: Scene, form: Format, folder: Path) -> dict[str, object]:
    """Write the clip of ``scene``; returns its entry in `clips.json`."""
    seed, trajectory = clear_attempt(simulator, scene)
    rng = np.random.default_rng([seed, len(scene.attempt), 9])
    steps = timeline(trajectory, rng, form)
    camera = Camera.of_view("right", rng)
    if scene.kind == REVERSED:
        steps = steps[::-1]
    pictures = simulator.render(trajectory, steps, camera)
    margin = (form.width - form.height) // 2
    write_h264(folder / scene.file, pictures[:, margin : margin + form.height], form)
    succeeds = scene.kind == SUCCESS
    success_at = int(np.argmax(trajectory.success[steps])) / form.rate if succeeds else None
    return {
        "file": scene.file,
        "task": scene.task,
        "kind": scene.kind,
        "seed": seed,
        "instruction": BY_NAME[scene.task].instruction,
        "succeeds": succeeds,
        "success_at": success_at,
        "wrong_instruction": wrong_instruction(scene.task) if succeeds else None,
    }


#: Films in which nothing was done: the task, and what happens, see `controls`.
TRIALS = (
    ("drawer-open", "bad start 1"),
    ("window-close", "bad start 1"),
    ("handle-press", "bad start 1"),
    ("button-press-topdown", "bad start 1"),
    ("faucet-open", "bad start of 5 s"),
    ("coffee-button", "bad start, other scene"),
    ("door-open", "bad start, then a failure"),
    ("handle-pull", "covered"),
    ("drawer-close", "finished before"),
    ("window-open", "photo"),
    ("faucet-close", "photo cut in"),
    ("button-press-topdown", "photo cut in"),
    ("drawer-open", "cut"),
    ("coffee-button", "cut"),
    ("handle-pull", "cut, black between"),
    ("door-open", "faded"),
    ("handle-press", "other task"),
    ("window-open", "undone"),
    ("drawer-close", "undone"),
    ("faucet-open", "undone"),
)
_FIRST_SEED_OF_TRIALS = _FIRST_SEED + 200_000


def film_trial(number: int, form: Format, folder: Path) -> dict[str, object]:
    """Write one of `TRIALS`; returns its entry in `trials.json`."""
    task, change = TRIALS[number]
    seed = _FIRST_SEED_OF_TRIALS + 1000 * number
    names = [known.name for known in TASKS]
    elsewhere = names[(names.index(task) + 1 + number) % len(names)]
    if elsewhere == task:
        elsewhere = names[names.index(task) - 1]
    cast = controls.Cast(
        success=_clip(task, SUCCESS, seed, form),
        another=_clip(task, SUCCESS, seed + 100, form),
        failure=_clip(task, STOP, seed + 200, form),
        elsewhere=_clip(elsewhere, SUCCESS, seed + 300, form),
        turn=number,
        rate=form.rate,
    )
    words = change.replace(",", "").split()
    file = f"{'-'.join([task, *words])}.mp4"
    write_h264(folder / file, controls.films_of(task)[change](cast), form)
    return {
        "file": file,
        "task": task,
        "kind": change,
        "seed": seed,
        "instruction": BY_NAME[task].instruction,
        "succeeds": False,
    }


def _clip(task: str, kind: str, first_seed: int, form: Format) -> Clip:
    """The first clear attempt from a seed on, as square pictures at the rate of the film."""
    simulator = Simulator(task, form.width, form.width, smooth=True)
    seed, trajectory = clear_attempt(simulator, Scene("", task, kind, first_seed))
    rng = np.random.default_rng([seed, len(kind), 9])
    steps = timeline(trajectory, rng, form)
    pictures = simulator.render(trajectory, steps, Camera.of_view("right", rng))
    simulator.close()
    return Clip(
        task,
        kind,
        "right",
        pictures,
        progress=trajectory.progress[steps].astype(np.float32),
        moved=trajectory.moved[steps].astype(np.float32),
        hand=trajectory.hand[steps].astype(np.float32),
        success=trajectory.success[steps],
    )


def wrong_instruction(task: str) -> str:
    """An instruction that a clip of ``task`` does not show: the opposite task, or else another object's."""
    names = [known.name for known in TASKS]
    other = BY_NAME[task].opposite or names[names.index(task) - 2]
    return BY_NAME[other].instruction


def write_h264(path: Path, pictures: np.ndarray, form: Format) -> None:
    """Write pictures (N, height, width, 3), with the index first so that a player can start at once."""
    with temporary_folder("topreward-film-") as folder:
        unfinished = folder / path.name
        _encode_h264(unfinished, pictures, form)
        write_file(path, unfinished.read_bytes())


def _encode_h264(path: Path, pictures: np.ndarray, form: Format) -> None:
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(form.rate))
        stream.width, stream.height, stream.pix_fmt = form.width, form.height, "yuv420p"
        stream.options = {"crf": str(form.crf), "preset": "veryslow", "threads": "1"}
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _list(path: Path, films: list[dict[str, object]]) -> None:
    write_file(path, json.dumps(films, indent=2, ensure_ascii=False) + "\n")


def main() -> None:
    """Film from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the clips go")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--demo", action="store_true", help="the three clips of the demonstration")
    which.add_argument("--trials", action="store_true", help="films in which nothing was done")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.trials:
        shown = [film_trial(n, TEST, arguments.folder) for n in track(range(len(TRIALS)), "trials")]
        _list(arguments.folder / "trials.json", shown)
        return
    scenes, form = (scenes_of_demo(), DEMO) if arguments.demo else (scenes_of_tests(), TEST)
    lines = []
    for task, of_task in groupby(track(list(scenes), "clips"), key=lambda scene: scene.task):
        simulator = Simulator(task, form.width, form.width, smooth=True)
        lines += [film(simulator, scene, form, arguments.folder) for scene in of_task]
        simulator.close()
    if not arguments.demo:
        _list(arguments.folder / "clips.json", lines)
    for line in lines:
        size = (arguments.folder / str(line["file"])).stat().st_size
        at = "" if line["success_at"] is None else f", success at {line['success_at']} s"
        print(f"{line['file']}: seed {line['seed']}{at}, {size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
