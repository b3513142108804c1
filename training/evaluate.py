"""Judge a model on the three evaluation sets: `python -m training.evaluate data MODEL`.

Every clip is scored as `topreward score` scores a video: frame by frame through the monitor's own state
machine, with the shipped settings. This prints the table of the model card, and `--card` also writes it
there. Each number is the mean over the three sets; where tasks differ, the mean of the worst task stands
beside it.

The words of the table:

- VOC: Spearman's rank correlation of reward and time over 15 prefixes, evenly spread (TOPReward, 5.1).
- score: mean of the last three rewards of a clip (TOPReward, section 5.2).
- failures: clips in which the robot stops, goes back, misses, shakes or does nothing.
- static: the first frame, held for 12 s; noisy: with camera noise on it, 3 of 255 in standard deviation.
- nothing was done, done and hard to see: the films of `controls`. "Without the guards" every frame is scored,
  as if the monitor did not judge pictures and scenes; that is a measure of the model alone.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import inf, isnan
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from topreward_ros.core import metrics
from topreward_ros.core.episode import TaskMonitor
from topreward_ros.core.frames import NS_PER_S, Frame
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.core.output_files import temporary_folder, write_file
from topreward_ros.core.outputs import Event
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.defaults import monitor_defaults
from topreward_ros.offline.engine_bench import machine
from topreward_ros.offline.score_video import score_video
from topreward_ros.scoring.base import PrefixScorer, ScorerSettings
from topreward_ros.scoring.registry import load_scorer
from training import controls
from training.clips import RATE, SIDE, VIEWS, Clip, Listed, Manifest
from training.export import TABLE_END, TABLE_START
from training.generate import EVALUATIONS
from training.instructions import BY_NAME, TASKS
from training.samples import crop

_CONTROL, _BARE_CONTROL = "control", "control without the guards"
_STATIC_SECONDS, _NOISE = 12.0, 3.0
_HEIGHT, _WIDTH = SIDE * 3 // 4, SIDE  # [px] the middle of a clip, 4:3 as most cameras


@dataclass(frozen=True)
class Job:
    """One video to be scored: a clip, what is asked about it, and how it is shown."""

    role: str  #: what the result is for, see `_jobs`
    clip: Listed
    instruction: str
    fps: float = 2.0  #: [Hz] at which frames are sampled
    change: str = ""  #: reversed, static, noisy, or the name of a control; empty: the clip as it is
    cast: tuple[Listed, ...] = ()  #: of a control: the clips of its `controls.Cast`, in that order
    turn: int = 0  #: of a control
    guarded: bool = True  #: the monitor judges pictures and scenes, as shipped


@dataclass(frozen=True)
class Result:
    """What the monitor said about the video of a job."""

    job: Job
    log_probs: np.ndarray  #: (K,) [nat], log p(True) of every scored prefix
    progress: np.ndarray  #: (K,) in [0, 1]; empty where only some prefixes were scored
    fired: bool  #: whether there was a SUCCESS event

    @property
    def set(self) -> str:
        """Name of the evaluation set that the clip belongs to."""
        return self.job.clip.path.parts[0]

    @property
    def score(self) -> float:
        """Mean of the last three rewards [nat] (TOPReward, section 5.2); without any, below all others."""
        return float(self.log_probs[-3:].mean()) if len(self.log_probs) else -inf

    @property
    def voc(self) -> float:
        """VOC of the rewards; a curve without any order, constant or of one prefix, counts as 0."""
        voc = metrics.value_order_correlation(self.log_probs)
        return 0.0 if isnan(voc) and not np.isnan(self.log_probs).any() else voc


# ---- scoring ----------------------------------------------------------------------------------------


def _jobs(clips: list[Listed]) -> Iterator[Job]:
    """All jobs that the table needs of one set."""
    for number, clip in enumerate(clips):
        task = BY_NAME[clip.task]
        rng = np.random.default_rng([clip.seed, number])
        # Whole curves cost most: two of the three views of each attempt, and one of them for the rest.
        turn = (clip.seed + VIEWS.index(clip.view)) % 3
        if turn == 2:
            continue
        yield Job("main", clip, task.instruction)
        if turn == 0 and clip.seed % 2 == 0:
            yield Job("1 fps", clip, task.instruction, fps=1.0)
        if turn == 0 and clip.seed % 4 == 0:
            yield Job("4 fps", clip, task.instruction, fps=4.0)
        if turn == 1 and clip.seed % 4 == 0:
            yield Job("static", clip, task.instruction, change="static")
            yield Job("noisy", clip, task.instruction, change="noisy")
        if clip.succeeded:
            if turn == 0 and clip.seed % 2 == 0:
                yield Job("reversed", clip, task.instruction, change="reversed")
            yield Job("held out", clip, str(rng.choice(task.held_out)))
            same_thing = {task.name, task.opposite}
            others = [other for other in TASKS if other.name not in same_thing]
            yield Job("wrong object", clip, others[int(rng.integers(len(others)))].instruction)
            if task.opposite:
                yield Job("opposite", clip, BY_NAME[task.opposite].instruction)


def _control_jobs(clips: list[Listed], rounds: int) -> Iterator[Job]:
    """The controls of one set. Those that show something done come once per round and task, with other clips
    each time; the others in the first round alone, without the guards and with them."""
    successes = {task.name: [c for c in clips if c.task == task.name and c.succeeded] for task in TASKS}
    failures = {task.name: [c for c in clips if c.task == task.name and not c.succeeded] for task in TASKS}
    names = [name for name in successes if successes[name] and failures[name]]
    for number, name in enumerate(names):
        own, failed = successes[name], failures[name]
        for round_number in range(rounds):
            turn = rounds * number + round_number
            elsewhere = successes[names[(number + 1 + round_number) % len(names)]]
            # One step further is another view of the same attempt; these numbers lead to other attempts.
            places = 7 * round_number + number, 7 * round_number + number + 4, 5 * round_number + number
            cast = (
                own[places[0] % len(own)],
                own[places[1] % len(own)],
                failed[places[2] % len(failed)],
                elsewhere[turn % len(elsewhere)],
            )
            for change in controls.films_of(name):
                if change in controls.DONE or round_number == 0:
                    for guarded in (True,) if change in controls.DONE else (False, True):
                        role = _CONTROL if guarded else _BARE_CONTROL
                        instruction = BY_NAME[name].instruction
                        yield Job(
                            role, cast[0], instruction, change=change, cast=cast, turn=turn, guarded=guarded
                        )


def _images(clips: Mapping[Path, Clip], job: Job) -> np.ndarray:
    """The images (N, _HEIGHT, _WIDTH, 3) that ``job`` shows of ``clips``, `RATE` per second."""
    if job.cast:
        success, another, failure, elsewhere = (clips[listed.path] for listed in job.cast)
        cast = controls.Cast(success, another, failure, elsewhere, job.turn)
        return np.ascontiguousarray(controls.films_of(job.clip.task)[job.change](cast))
    images = crop(clips[job.clip.path].frames, _HEIGHT, _WIDTH)
    if job.change == "reversed":
        images = images[::-1]
    if job.change in ("static", "noisy"):
        images = np.repeat(images[:1], int(_STATIC_SECONDS * RATE), axis=0)
    if job.change == "noisy":
        rng = np.random.default_rng(job.clip.seed)
        noise = rng.normal(0, _NOISE, images.shape)
        images = np.clip(np.rint(images + noise), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(images)


def evaluate_job(
    scorer: PrefixScorer, settings: MonitorSettings, clips: Mapping[Path, Clip], job: Job
) -> Result:
    """Do ``job`` with its ``clips``, by path; where only some rewards count, score only those."""
    images = _images(clips, job)
    if job.role in _ONLY_THESE:
        return Result(job, _score_some(scorer, images, job), np.array([]), fired=False)
    if not job.guarded:
        return _score_without_guards(scorer, settings, images, job)
    with temporary_folder("topreward-evaluate-") as folder:
        _write_images(folder, images)
        curve = score_video(
            folder,
            job.instruction,
            scorer,
            replace(settings, sample_rate=job.fps, end_episode_on_success=False),
            rate=RATE,
        )
    return Result(
        job,
        np.array([point.score.log_prob for point in curve.points]),
        np.array([point.progress for point in curve.points]),
        any(event.type == "SUCCESS" for event in curve.events),
    )


def _score_without_guards(
    scorer: PrefixScorer, settings: MonitorSettings, images: np.ndarray, job: Job
) -> Result:
    monitor = TaskMonitor(replace(settings, end_episode_on_success=False), lambda: "", judge_scene=False)
    monitor.set_task(job.instruction)
    log_probs, fired = [], False
    for number, image in enumerate(images):
        stamp_ns = round(number / RATE * NS_PER_S)
        due, outputs = monitor.observe(stamp_ns, stamp_ns)
        request = None
        if due:
            request, _ = monitor.add_frame(Frame(stamp_ns, image))
        if request is not None:
            score = scorer.score(request)
            log_probs += [] if request.extra else [score.log_prob]
            outputs = monitor.add_score(request, score)
        fired |= any(isinstance(output, Event) and output.type.name == "SUCCESS" for output in outputs)
    return Result(job, np.array(log_probs), np.array([]), fired)


def _write_images(folder: Path, images: np.ndarray) -> None:
    """Write RGB images as `score_video` reads them from a folder: in a format that loses nothing."""
    for number, image in enumerate(images):
        cv2.imwrite(str(folder / f"{number}.bmp"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))


#: Jobs that do not need the whole curve, by role: from the number of prefixes to the places that are scored.
_ONLY_THESE: dict[str, Callable[[int], np.ndarray]] = {
    "held out": metrics.even_places,
    "wrong object": lambda frames: np.arange(frames)[-3:],
    "opposite": lambda frames: np.arange(frames)[-3:],
}


def _score_some(scorer: PrefixScorer, images: np.ndarray, job: Job) -> np.ndarray:
    frames = [Frame(round(number / RATE * NS_PER_S), image) for number, image in enumerate(images)]
    sampled = frames[:: round(RATE / job.fps)]
    ends = _ONLY_THESE[job.role](len(sampled))
    return np.array(
        [scorer.score(ScoreRequest.of_frames(job.instruction, sampled[: end + 1])).log_prob for end in ends]
    )


#: All jobs of one clip: the data folder, the model, and the jobs.
Work = tuple[Path, str, list[Job]]


def _evaluate_clip(work: Work) -> list[Result]:
    """Do the jobs of one clip; runs in a worker process, which keeps its scorer for the next clip."""
    folder, model, jobs = work
    scorer, settings = loaded(model)
    clips = {
        path: Clip.load(folder / path)
        for path in {clip.path for job in jobs for clip in (job.clip, *job.cast)}
    }
    return [evaluate_job(scorer, settings, clips, job) for job in jobs]


_scorers: dict[str, tuple[PrefixScorer, MonitorSettings]] = {}


def loaded(model: str) -> tuple[PrefixScorer, MonitorSettings]:
    """The model, loaded once in a process, on one thread of the CPU; and the monitor's shipped settings."""
    if model not in _scorers:
        parameters = monitor_defaults() | {"device": "cpu", "scorer_threads": 1}
        settings = ScorerSettings.from_parameters(parameters)
        _scorers[model] = load_scorer(model, settings), MonitorSettings.from_parameters(parameters)
    return _scorers[model]


def tick_milliseconds(model: str, frames: int = 32, ticks: int = 100) -> float:
    """Median time [ms] of one tick on one thread, with ``frames`` in the prefix and the static baseline."""
    scorer, _ = loaded(model)
    rng = np.random.default_rng(0)
    times = []
    for _ in range(ticks // 10):
        video = [
            Frame(number * NS_PER_S // 2, rng.integers(0, 255, (_HEIGHT, _WIDTH, 3), np.uint8))
            for number in range(frames + 5)
        ]
        for end in range(1, len(video) + 1):
            start = time.perf_counter()
            scorer.score(ScoreRequest.of_frames("open the drawer", video[:end]))
            if abs(end - frames) <= 5:
                times.append(time.perf_counter() - start)
    return float(np.median(times) * 1e3)


# ---- the table --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """A line of the table."""

    name: str
    mean: str
    worst: str
    goal: str  #: empty where there is none
    met: bool

    @property
    def verdict(self) -> str:
        return "" if not self.goal else "yes" if self.met else "**no**"


#: `min` or `max`: which of some values is the worst.
Worst = Callable[..., str]


class Results:
    """All results, and means of them: a number is computed within each set, then averaged over the sets."""

    def __init__(self, results: list[Result]) -> None:
        self.all = results
        self.sets = sorted({result.set for result in results})

    def of(self, *roles: str, succeeded: bool | None = None, kind: str = "", task: str = "") -> list[Result]:
        """The results for these roles; of clips with this outcome, kind and task, where they are given."""
        return [
            result
            for result in self.all
            if result.job.role in roles
            and (succeeded is None or result.job.clip.succeeded is succeeded)
            and (not kind or result.job.clip.kind == kind)
            and (not task or result.job.clip.task == task)
        ]

    def mean(self, results: list[Result], of: Callable[[list[Result]], float]) -> float:
        """Mean over the sets of what ``of`` makes of the results in each."""
        by_set: dict[str, list[Result]] = defaultdict(list)
        for result in results:
            by_set[result.set].append(result)
        return float(np.mean([of(found) for found in by_set.values()]))

    def worst_task(self, of: Callable[[str], float], worst: Worst = min) -> tuple[str, float]:
        """The task for which ``of`` gives the worst value, and that value."""
        values = {task.name: of(task.name) for task in TASKS if self.of("main", task=task.name)}
        name = worst(values, key=lambda key: values[key])
        return name, values[name]

    def right_scores_higher(self, role: str) -> float:
        """Share of clips that score higher with their own instruction than with the one of ``role``."""
        own = {result.job.clip.path: result.score for result in self.of("main")}
        asked = self.of(role)
        return metrics.instruction_sensitivity(
            [own[result.job.clip.path] for result in asked], [result.score for result in asked]
        ).share


def _voc(results: list[Result]) -> float:
    return float(np.mean([result.voc for result in results]))


def _fired(results: list[Result]) -> float:
    return float(np.mean([result.fired for result in results]))


def _auc(results: list[Result]) -> float:
    scores = {
        outcome: [r.score for r in results if r.job.clip.succeeded is outcome] for outcome in (True, False)
    }
    return metrics.roc_auc(scores[True], scores[False])


def table(results: Results, tick_ms: float) -> list[Line]:
    """The lines of the table, in the order of the goals."""
    lines: list[Line] = []

    def add(
        name: str, mean: float, goal: str, met: bool, worst: tuple[str, float] | None = None, unit: str = ""
    ) -> None:
        said = f"{worst[1]:.3f}{unit} ({worst[0]})" if worst else ""
        lines.append(Line(name, f"{mean:.3f}{unit}", said, goal, met))

    def per_task(
        role: str,
        of: Callable[[list[Result]], float],
        worst: Worst = min,
        succeeded: bool | None = None,
    ) -> tuple[str, float]:
        def mean(task: str) -> float:
            return results.mean(results.of(role, task=task, succeeded=succeeded), of)

        return results.worst_task(mean, worst)

    voc, worst = (
        results.mean(results.of("main", succeeded=True), _voc),
        per_task("main", _voc, succeeded=True),
    )
    add("VOC on successes", voc, ">= 0.95, worst task >= 0.88", voc >= 0.95 and worst[1] >= 0.88, worst)
    auc, worst = results.mean(results.of("main"), _auc), per_task("main", _auc)
    add(
        "ROC-AUC of the score, successes against failures",
        auc,
        ">= 0.985, worst task >= 0.97",
        auc >= 0.985 and worst[1] >= 0.97,
        worst,
    )
    recall = results.mean(results.of("main", succeeded=True), _fired)
    worst = per_task("main", _fired, succeeded=True)
    met = recall >= 0.95 and worst[1] >= 0.85
    add("SUCCESS fires on successes", recall, ">= 0.95, worst task >= 0.85", met, worst)
    alarms = results.mean(results.of("main", succeeded=False), _fired)
    worst = per_task("main", _fired, max, succeeded=False)
    add("SUCCESS fires on failures", alarms, "<= 0.02", alarms <= 0.02, worst)
    for view in VIEWS:
        found = [result for result in results.of("main") if result.job.clip.view == view]
        good = [result for result in found if result.job.clip.succeeded]
        said = f"{_auc(found):.3f}; {_fired(good):.3f}" if good and len(good) < len(found) else "none"
        lines.append(Line(f"... camera {view}: AUC; SUCCESS fires on successes", said, "", "", True))
    for name, found in (
        ("idle", results.of("main", kind="idle")),
        ("static", results.of("static", "noisy")),
        ("reversed", results.of("reversed")),
    ):
        number = sum(result.fired for result in found)
        lines.append(
            Line(f"SUCCESS fires on {name} clips", f"{number} of {len(found)}", "", "0", number == 0)
        )
    for role in ("static", "noisy"):
        found = results.of(role)
        spans = np.array([np.ptp(result.progress) for result in found])
        ends = np.array([result.progress[-1] for result in found])
        share = float(np.mean(spans <= 0.15)), float(np.mean(ends <= 0.10))
        worst = per_task(role, lambda some: float(np.mean([np.ptp(r.progress) for r in some])), max)
        add(f"range of progress, {role} clips", spans.mean(), "<= 0.15", spans.max() <= 0.15, worst)
        lines.append(
            Line("... largest; share within the goal", f"{spans.max():.3f}; {share[0]:.3f}", "", "", True)
        )
        worst = per_task(role, lambda some: float(np.mean([r.progress[-1] for r in some])), max)
        add(f"final progress, {role} clips", ends.mean(), "<= 0.10", ends.max() <= 0.10, worst)
        lines.append(
            Line("... largest; share within the goal", f"{ends.max():.3f}; {share[1]:.3f}", "", "", True)
        )
    for role in ("wrong object", "opposite"):
        right = results.right_scores_higher(role)
        add(f"right instruction scores above {role}", right, ">= 0.99", right >= 0.99)
    held_out = results.mean(results.of("held out"), _voc)
    add("VOC with held-out wordings", held_out, ">= 0.90", held_out >= 0.90, per_task("held out", _voc))
    for role, name in (("1 fps", "1 fps"), ("main", "2 fps"), ("4 fps", "4 fps")):
        auc = results.mean(results.of(role), _auc)
        recall = results.mean(results.of(role, succeeded=True), _fired)
        alarms = results.mean(results.of(role, succeeded=False), _fired)
        add(f"ROC-AUC at {name}", auc, ">= 0.98", auc >= 0.98)
        add(f"SUCCESS fires on successes at {name}", recall, ">= 0.90", recall >= 0.90)
        add(f"SUCCESS fires on failures at {name}", alarms, "", True)
    lines += _control_lines(results)
    add("one tick, 32 frames, one CPU thread, p50", tick_ms, "<= 25 ms", tick_ms <= 25, unit=" ms")
    return lines


def _control_lines(results: Results) -> list[Line]:
    """What the controls say: how often SUCCESS fires without the guards; beside it, with them."""
    fired: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for result in results.of(_CONTROL, _BARE_CONTROL):
        fired[result.job.change, result.job.role].append(result.fired)

    def share(names: Iterable[str], role: str) -> float:
        found = [did for name in names for did in fired[name, role]]
        return float(np.mean(found)) if found else 0.0

    lines: list[Line] = []
    if not fired:
        return lines
    wrong = [name for name in (*controls.NOTHING_DONE, *controls.UNDONE) if (name, _CONTROL) in fired]
    bare, guarded = share(wrong, _BARE_CONTROL), share(wrong, _CONTROL)
    said = f"{bare:.3f}; {guarded:.3f}"
    name = "SUCCESS where nothing was done, without the monitor's guards; with them"
    lines.append(Line(name, said, "", "<= 0.02; 0", bare <= 0.02 and guarded == 0))
    for name in wrong:
        said = f"{share([name], _BARE_CONTROL):.3f}; {share([name], _CONTROL):.3f}"
        lines.append(Line(f"... {name}", said, "", "", True))
    as_is = share(["as is"], _CONTROL)
    for name in controls.DONE:
        guarded = share([name], _CONTROL)
        goal = "" if name == "as is" else f">= {as_is - 0.03:.3f}"
        met = guarded >= as_is - 0.03
        lines.append(Line(f"SUCCESS where it was done, {name}", f"{guarded:.3f}", "", goal, met))
    return lines


def by_task_table(results: Results) -> list[str]:
    """A Markdown table of the tasks, so that a weak one can be seen."""
    lines = ["| task | VOC | AUC | SUCCESS on successes | on failures |", "|---|---|---|---|---|"]
    for task in TASKS:
        good = results.of("main", task=task.name, succeeded=True)
        bad = results.of("main", task=task.name, succeeded=False)
        if good and bad:
            numbers = (_voc(good), _auc(good + bad), _fired(good), _fired(bad))
            lines.append(f"| {task.name} | " + " | ".join(f"{number:.3f}" for number in numbers) + " |")
    return lines


def markdown(lines: list[Line], results: Results) -> str:
    """The table as it stands in the model card."""
    rows = [
        "| what | mean | worst task | goal | met |",
        "|---|---|---|---|---|",
        *(f"| {line.name} | {line.mean} | {line.worst} | {line.goal} | {line.verdict} |" for line in lines),
    ]
    clips = len({result.job.clip.path for result in results.all})
    about = machine()
    note = (
        f"{clips} clips of held-out scenes, attempts and cameras in {len(results.sets)} sets, scored frame "
        "by frame at the monitor's defaults (2 fps unless said otherwise). Static and noisy clips meet a "
        f"goal when all of them do. Timed on {about['processor']}, {about['cores']} cores, shared with other "
        "work."
    )
    return "\n".join([note, "", *rows, "", *by_task_table(results)])


def evaluate(
    data: Path, model: str, attempts: int, sets: int, rounds: int, processes: int, console: Console
) -> Results:
    """Score the first ``attempts`` of every task in the first ``sets`` sets of ``data`` with ``model``, and
    so many ``rounds`` of controls."""
    listed, _ = Manifest.read(data)
    work: list[Work] = []
    for name in EVALUATIONS[:sets]:
        clips = [clip for clip in listed if clip.path.parts[0] == name]
        clips = [clip for clip in clips if int(clip.path.stem[:4]) < attempts]
        jobs: dict[Path, list[Job]] = defaultdict(list)
        for job in (*_jobs(clips), *_control_jobs(clips, rounds)):
            jobs[job.clip.path].append(job)
        work += [(data, model, jobs_of_clip) for jobs_of_clip in jobs.values()]
    results: list[Result] = []
    with (
        Progress(console=console) as progress,
        multiprocessing.get_context("spawn").Pool(processes) as pool,
    ):
        evaluated = pool.imap(_evaluate_clip, work)
        for results_of_clip in progress.track(evaluated, total=len(work), description="clips"):
            results += results_of_clip
    return Results(results)


def main() -> None:
    """Evaluate from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="folder made by training.generate")
    parser.add_argument("model", help="the model's folder, or any name that `model:=` takes")
    parser.add_argument("--card", action="store_true", help="write the table into the model's README.md")
    parser.add_argument("--attempts", type=int, default=20, help="of each task in each set (%(default)s)")
    parser.add_argument("--sets", type=int, default=3, help="of 3 (%(default)s)")
    parser.add_argument("--controls", type=int, default=2, help="rounds of controls, or 0 (%(default)s)")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="(%(default)s)")
    parser.add_argument("--json", type=Path, help="also write every curve here")
    arguments = parser.parse_args()
    console = Console()
    results = evaluate(
        arguments.data,
        arguments.model,
        attempts=arguments.attempts,
        sets=arguments.sets,
        rounds=arguments.controls,
        processes=arguments.processes,
        console=console,
    )
    lines = table(results, tick_milliseconds(arguments.model))
    shown = Table("what", "mean", "worst task", "goal", "met")
    for line in lines:
        shown.add_row(line.name, line.mean, line.worst, line.goal, line.verdict)
    console.print(shown)
    for row in by_task_table(results):
        console.print(row)
    if arguments.json:
        write_file(arguments.json, json.dumps([_to_plain(result) for result in results.all]))
    if arguments.card:
        card = Path(arguments.model) / "README.md"
        before, rest = card.read_text().split(TABLE_START)
        _, after = rest.split(TABLE_END)
        write_file(card, f"{before}{TABLE_START}\n{markdown(lines, results)}\n{TABLE_END}{after}")


def _to_plain(result: Result) -> dict[str, object]:
    """A result as plain data for JSON."""
    job = result.job
    return {
        "role": job.role,
        "clip": job.clip.path.as_posix(),
        "kind": job.clip.kind,
        "succeeded": job.clip.succeeded,
        "instruction": job.instruction,
        "log_probs": np.round(result.log_probs, 4).tolist(),
        "progress": np.round(result.progress, 4).tolist(),
        "fired": result.fired,
    }


if __name__ == "__main__":
    main()
