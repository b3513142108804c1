"""Three tasks that the embedded model does not know: films, labels and a teacher's curves for a distillation.

    python -m training.new_tasks films        # needs Metaworld; films/learn (360 films), films/judge (120)
    topreward distill films/learn --curves films/learn/teacher.json --output student
    python -m training.new_tasks films --judge student       # the student beside its teacher, on films/judge
    python -m training.new_tasks films --first 40            # films/judge-40: others, not looked at yet

Forty attempts at each task are there to learn from, and three cameras film each of them. Forty others, with
other seeds, are there to judge by, and one camera films each, in turn. The teacher is made: its curve of a
film is the progress that the simulator knows, with noise that drifts within about a second, as log p that a
model might have given; nobody's weights are in it. Its curves are written as `topreward score --json` writes
those of a model. Run again, it goes on where it was.
"""

from __future__ import annotations

import argparse
import csv
import json
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from topreward_ros.core.evaluation import Mode, evaluate
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.core.output_files import write_file
from topreward_ros.defaults import monitor_defaults
from topreward_ros.offline.annotation_report import AnnotationSettings
from topreward_ros.offline.distill.stories import LOWEST
from topreward_ros.offline.distill.teacher import read_curves
from topreward_ros.offline.evaluation_runs import EvaluationSettings, monitor_for_evaluation, score_episodes
from topreward_ros.offline.labelled_episodes import Reading, labelled_data
from topreward_ros.offline.labels import LABELS
from topreward_ros.offline.score_video import JSON_FORMAT, JSON_FORMAT_OF_SEVERAL
from topreward_ros.scoring.base import ScorerSettings
from topreward_ros.views.distillation import comparison
from topreward_ros.views.evaluation_tables import Table, markdown_of
from topreward_ros.views.terminal import film_progress
from training.clips import RATE, VIEWS, Clip
from training.generate import EVALUATIONS, MIX, TRAIN, Attempt, film
from training.labelled_clips import write_film
from training.samples import footage

#: Names of Metaworld's environments, less their version, and what the robot is told.
TASKS = {
    "plate-slide": "slide the plate into the goal",
    "dial-turn": "turn the dial",
    "door-lock": "lock the door",
}
NOISE, DRIFT_S = 0.12, 1.0  # of progress: its standard deviation, and the time in which it is forgotten [s]
_CURVES = "teacher.json"
_MONITOR_RATE = 2.0  # [Hz] of the teacher's scores


@dataclass(frozen=True)
class AllViews(Attempt):
    """An attempt that all cameras film."""

    @property
    def views(self) -> tuple[str, ...]:
        """See `Attempt.views`."""
        return VIEWS


@dataclass(frozen=True)
class OneView(Attempt):
    """An attempt that one camera films."""

    @property
    def views(self) -> tuple[str, ...]:
        """See `Attempt.views`."""
        # Kinds repeat every twenty attempts, so the view changes with these, too.
        return (VIEWS[(self.number + self.number // len(MIX)) % len(VIEWS)],)


#: The folders, with the seeds of their attempts, and by which cameras they are filmed.
PARTS: dict[str, tuple[str, type[Attempt]]] = {
    "learn": (TRAIN, AllViews),
    # Those of the other two were looked at when the recipe was chosen.
    "judge": (EVALUATIONS[2], OneView),
}


def teacher_scores(clip: Clip, seed: int, view: int) -> list[dict[str, Any]]:
    """What the made teacher says of a clip, prefix by prefix, as the scores of `Curve.to_json_value`."""
    rng = np.random.default_rng([seed, view, 11])
    step = round(RATE / _MONITOR_RATE)
    places = np.arange(0, len(clip.frames), step)
    kept = np.exp(-1 / (DRIFT_S * _MONITOR_RATE))
    noise = np.zeros(len(places))
    drawn = rng.normal(0, NOISE, len(places))
    for place in range(len(places)):
        before = noise[place - 1] if place else rng.normal(0, NOISE)
        noise[place] = kept * before + np.sqrt(1 - kept**2) * drawn[place]
    said = np.clip(footage(clip).target(places) + noise, 0, 1)
    return [
        {"time": place / RATE, "num_frames": number + 1, "log_prob": round(float(LOWEST * (1 - value)), 4)}
        for number, (place, value) in enumerate(zip(places, said, strict=True))
    ]


def write_part(folder: Path, split: str, kind: type[Attempt], attempts: range) -> None:
    """Film those attempts of a part that ``folder`` lacks, and write labels and curves of all."""
    from training.simulation import Simulator

    folder.mkdir(parents=True, exist_ok=True)
    rows = StringIO()
    table = csv.writer(rows, lineterminator="\n")
    table.writerow(("file", "task", "success", "done_s", "attempt"))
    curves = []
    for task, instruction in TASKS.items():
        simulator = None
        for number in track(attempts, f"{folder.name}: {task}"):
            attempt = kind(split, task, number)
            stored = [folder / "clips" / task / f"{number:04d}-{view}.npz" for view in attempt.views]
            if not all(path.is_file() for path in stored):
                simulator = simulator or Simulator(task, 224, 224)
                for path, made in zip(stored, film(simulator, attempt), strict=True):
                    made.save(path)
            for path, view in zip(stored, attempt.views, strict=True):
                clip = Clip.load(path)
                name = f"{task}_{number:04d}-{view}.mkv"
                if not (folder / name).is_file():
                    write_film(clip, folder / name)
                done_s = int(np.argmax(clip.success)) / RATE if clip.succeeded else ""
                table.writerow((name, instruction, int(clip.succeeded), done_s, f"{task} {number}"))
                curves.append(
                    {
                        "format": JSON_FORMAT,
                        "video": name,
                        "duration": (len(clip.frames) - 1) / RATE,
                        "instruction": instruction,
                        "model": {"model_id": f"the simulator's progress, noise {NOISE:g}"},
                        "scores": teacher_scores(clip, attempt.seed, VIEWS.index(view)),
                        "events": [],
                    }
                )
        if simulator:
            simulator.close()
    write_file(folder / LABELS, rows.getvalue())
    write_file(folder / _CURVES, json.dumps({"format": JSON_FORMAT_OF_SEVERAL, "curves": curves}))


def judged(folder: Path, models: list[str]) -> Table:
    """What ``models`` and the teacher are worth on the films in ``folder``."""
    parameters = monitor_defaults() | {"device": "cpu", "scorer_threads": 1}
    monitor = monitor_for_evaluation(MonitorSettings.from_parameters(parameters))
    reading = Reading(AnnotationSettings(parameters))
    episodes = labelled_data(folder, reading).episodes
    curves, _, problems = read_curves([folder / _CURVES], episodes)
    if problems:
        raise SystemExit("\n".join(problems))
    found = {}
    for model in models:
        settings = EvaluationSettings(model, monitor, ScorerSettings.from_parameters(parameters), ())
        with film_progress(Console(stderr=True)) as on_start:
            found[model] = score_episodes(episodes, settings, folder / "scores", on_start).episodes
    found["teacher"] = tuple(curves.values())
    limit = monitor.success.threshold
    measures = {name: evaluate(scored, limit, (Mode.LOG_PROB,)) for name, scored in found.items()}
    return comparison(measures, list(TASKS.values()), len(episodes))


def main() -> None:
    """Make both parts from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", type=Path, help="folder of the films")
    parser.add_argument("--attempts", type=int, default=40, help="at each task in each part (%(default)s)")
    parser.add_argument(
        "--first",
        type=int,
        default=0,
        metavar="N",
        help="number of the first attempt that students are judged by, in a folder of its own (%(default)s)",
    )
    parser.add_argument(
        "--judge", nargs="+", metavar="MODEL", help="score the films that are there with these models instead"
    )
    arguments = parser.parse_args()
    first, count = arguments.first, arguments.attempts
    judge = arguments.output / (f"judge-{first}" if first else "judge")
    if arguments.judge:
        print(markdown_of(judged(judge, arguments.judge)))
        return
    for name, (split, kind) in PARTS.items():
        if name == "judge":
            write_part(judge, split, kind, range(first, first + count))
        else:
            write_part(arguments.output / name, split, kind, range(count))


if __name__ == "__main__":
    main()
