"""Judge a model on the three evaluation sets: `python -m training.evaluate data MODEL`.

Every clip goes frame by frame through the monitor's own state machine, with the settings that are shipped
and the scorer that is shipped, as `topreward score` does it. Prints the table of the model card; with
`--card` it is written there, too. Each number is the mean over the three sets and, where tasks differ, the
worst task's mean.

The words of the table:

- VOC: Spearman's rank correlation of reward and time over 15 prefixes, evenly spread (TOPReward, 5.1).
- score: mean of the last three rewards of a clip (TOPReward, section 5.2).
- failures: clips in which the robot stops, goes back, misses, shakes or does nothing.
- static: the first frame, held for 12 s; noisy: with camera noise on it, 3 of 255 in standard deviation.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from scipy.stats import rankdata, spearmanr

from topreward_ros.core.episode import MonitorSettings
from topreward_ros.core.frames import NS_PER_S, Frame
from topreward_ros.defaults import monitor_defaults
from topreward_ros.offline.score_video import Curve, score_frames
from topreward_ros.scoring.base import PrefixScorer, ScorerSettings
from topreward_ros.scoring.registry import load_scorer
from training.clips import RATE, Clip, Listed, Manifest
from training.export import TABLE_END, TABLE_START
from training.generate import EVALUATIONS
from training.instructions import BY_NAME, TASKS
from training.samples import crop

PREFIXES = 15
_STATIC_SECONDS, _NOISE = 12.0, 3.0
_HEIGHT, _WIDTH = 96, 128  # [px] the middle of a clip, 4:3 as most cameras


@dataclass(frozen=True)
class Job:
    """One video to be watched. The rest of a clip's facts are in its line of the manifest."""

    role: str  #: what the result is for, see `_jobs`
    clip: Listed
    instruction: str
    fps: float = 2.0
    change: str = ""  #: reversed, static or noisy


@dataclass(frozen=True)
class Result:
    """What the monitor said about it."""

    job: Job
    log_probs: np.ndarray  #: (K,) [nat], one per frame sampled
    progress: np.ndarray  #: (K,)
    fired: bool  #: a SUCCESS event

    @property
    def set(self) -> str:
        return self.job.clip.path.parts[0]

    @property
    def score(self) -> float:
        return float(self.log_probs[-3:].mean())

    @property
    def voc(self) -> float:
        return value_order_correlation(self.log_probs)


def value_order_correlation(log_probs: np.ndarray) -> float:
    """VOC of a curve at 15 evenly spread places; 0 for one that does not move."""
    places = _spread(len(log_probs))
    chosen = log_probs[places]
    return 0.0 if np.ptp(chosen) == 0 else float(spearmanr(chosen, places).statistic)


def roc_auc(successes: Sequence[float], failures: Sequence[float]) -> float:
    """Share of pairs in which the success scores higher; ties count half (Mann-Whitney)."""
    ranks = rankdata([*successes, *failures])
    most = len(successes) * (len(successes) + 1) / 2
    return float((ranks[: len(successes)].sum() - most) / (len(successes) * len(failures)))


# ---- watching ---------------------------------------------------------------------------------------


def _jobs(clips: list[Listed]) -> Iterator[Job]:
    """Everything the table needs of one set."""
    for number, clip in enumerate(clips):
        task = BY_NAME[clip.task]
        rng = np.random.default_rng([clip.seed, number])
        yield Job("main", clip, task.instruction)
        # What costs most is watched from one side of each attempt only.
        one_side = (clip.seed + (clip.view == "side")) % 2 == 1
        if one_side:
            yield Job("1 fps", clip, task.instruction, fps=1.0)
            yield Job("4 fps", clip, task.instruction, fps=4.0)
            yield Job("static", clip, task.instruction, change="static")
            yield Job("noisy", clip, task.instruction, change="noisy")
        if clip.succeeded:
            if one_side:
                yield Job("reversed", clip, task.instruction, change="reversed")
            yield Job("held out", clip, str(rng.choice(task.held_out)))
            same_thing = {task.name, task.opposite}
            others = [other for other in TASKS if other.name not in same_thing]
            yield Job("wrong object", clip, others[int(rng.integers(len(others)))].instruction)
            if task.opposite:
                yield Job("opposite", clip, BY_NAME[task.opposite].instruction)


def _frames(clip: Clip, job: Job) -> Iterable[tuple[int, Callable[[], np.ndarray]]]:
    pictures = crop(clip.frames, _HEIGHT, _WIDTH)
    if job.change == "reversed":
        pictures = pictures[::-1]
    if job.change in ("static", "noisy"):
        pictures = np.repeat(pictures[:1], int(_STATIC_SECONDS * RATE), axis=0)
    if job.change == "noisy":
        rng = np.random.default_rng(job.clip.seed)
        noise = rng.normal(0, _NOISE, pictures.shape)
        pictures = np.clip(np.rint(pictures + noise), 0, 255).astype(np.uint8)
    for number, picture in enumerate(pictures):
        yield round(number / RATE * NS_PER_S), lambda picture=picture: np.ascontiguousarray(picture)


def watch(scorer: PrefixScorer, settings: MonitorSettings, clip: Clip, job: Job) -> Result:
    """Let the monitor watch a clip as ``job`` says; where only some rewards count, score only those."""
    if job.role in _ONLY_THESE:
        return Result(job, _score_some(scorer, clip, job), np.array([]), fired=False)
    curve: Curve = score_frames(
        str(job.clip.path),
        _frames(clip, job),
        job.instruction,
        scorer,
        replace(settings, sample_rate=job.fps, end_episode_on_success=False),
    )
    return Result(
        job,
        np.array([point.score.log_prob for point in curve.points]),
        np.array([point.progress for point in curve.points]),
        any(event.type == "SUCCESS" for event in curve.events),
    )


#: Which prefixes count, of a curve of that many, where the whole curve is not needed.
_ONLY_THESE: dict[str, Callable[[int], np.ndarray]] = {
    "held out": lambda frames: _spread(frames),
    "wrong object": lambda frames: np.arange(frames)[-3:],
    "opposite": lambda frames: np.arange(frames)[-3:],
}


def _spread(frames: int) -> np.ndarray:
    return np.unique(np.linspace(0, frames - 1, PREFIXES).round().astype(int))


def _score_some(scorer: PrefixScorer, clip: Clip, job: Job) -> np.ndarray:
    video = [Frame(stamp, read()) for stamp, read in _frames(clip, job)][:: round(RATE / job.fps)]
    return np.array(
        [
            scorer.score(job.instruction, video[: end + 1]).log_prob
            for end in _ONLY_THESE[job.role](len(video))
        ]
    )


def _watch_all(work: tuple[Path, str, list[Job]]) -> list[Result]:
    """One clip's jobs, in a process of its own that keeps its scorer."""
    folder, model, jobs = work
    scorer, settings = _loaded(model)
    clip = Clip.load(folder / jobs[0].clip.path)
    return [watch(scorer, settings, clip, job) for job in jobs]


_scorers: dict[str, tuple[PrefixScorer, MonitorSettings]] = {}


def _loaded(model: str) -> tuple[PrefixScorer, MonitorSettings]:
    if model not in _scorers:
        parameters = monitor_defaults() | {"device": "cpu", "scorer_threads": 1}
        settings = ScorerSettings.from_parameters(parameters)
        _scorers[model] = load_scorer(model, settings), MonitorSettings.from_parameters(parameters)
    return _scorers[model]


def tick_milliseconds(model: str, frames: int = 32, ticks: int = 100) -> float:
    """Median time of one tick on one thread, with ``frames`` in the prefix, static baseline included."""
    scorer, _ = _loaded(model)
    rng = np.random.default_rng(0)
    times = []
    for _ in range(ticks // 10):
        video = [
            Frame(number * NS_PER_S // 2, rng.integers(0, 255, (_HEIGHT, _WIDTH, 3), np.uint8))
            for number in range(frames + 5)
        ]
        for end in range(1, len(video) + 1):
            start = time.perf_counter()
            scorer.score("open the drawer", video[:end])
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


class Results:
    """All results, and numbers from them: first within a set, then the mean over sets."""

    def __init__(self, results: list[Result]) -> None:
        self.all = results
        self.sets = sorted({result.set for result in results})

    def of(self, *roles: str, succeeded: bool | None = None, kind: str = "", task: str = "") -> list[Result]:
        return [
            result
            for result in self.all
            if result.job.role in roles
            and (succeeded is None or result.job.clip.succeeded is succeeded)
            and (not kind or result.job.clip.kind == kind)
            and (not task or result.job.clip.task == task)
        ]

    def mean(self, results: list[Result], of: Callable[[list[Result]], float]) -> float:
        by_set: dict[str, list[Result]] = defaultdict(list)
        for result in results:
            by_set[result.set].append(result)
        return float(np.mean([of(found) for found in by_set.values()]))

    def by_task(self, of: Callable[[str], float], worst: Callable = min) -> tuple[str, float]:
        values = {task.name: of(task.name) for task in TASKS if self.of("main", task=task.name)}
        name = worst(values, key=lambda key: values[key])
        return name, values[name]

    def wrong_pairs(self, role: str) -> list[bool]:
        right = {result.job.clip.path: result.score for result in self.of("main")}
        return [right[result.job.clip.path] > result.score for result in self.of(role)]


def _voc(results: list[Result]) -> float:
    return float(np.mean([result.voc for result in results]))


def _fired(results: list[Result]) -> float:
    return float(np.mean([result.fired for result in results]))


def _auc(results: list[Result]) -> float:
    scores = {
        outcome: [r.score for r in results if r.job.clip.succeeded is outcome] for outcome in (True, False)
    }
    return roc_auc(scores[True], scores[False])


def table(results: Results, tick_ms: float) -> list[Line]:
    """The lines of the table, in the order of the goals."""
    lines: list[Line] = []

    def add(
        name: str, mean: float, goal: str, met: bool, worst: tuple[str, float] | None = None, unit: str = ""
    ) -> None:
        said = f"{worst[1]:.3f}{unit} ({worst[0]})" if worst else ""
        lines.append(Line(name, f"{mean:.3f}{unit}", said, goal, met))

    def per_task(
        role: str, of: Callable[[list[Result]], float], worst: Callable = min, **which
    ) -> tuple[str, float]:
        return results.by_task(lambda task: results.mean(results.of(role, task=task, **which), of), worst)

    voc, worst = (
        results.mean(results.of("main", succeeded=True), _voc),
        per_task("main", _voc, succeeded=True),
    )
    add("VOC on successes", voc, ">= 0.93, worst task >= 0.80", voc >= 0.93 and worst[1] >= 0.80, worst)
    auc = results.mean(results.of("main"), _auc)
    add(
        "ROC-AUC of the score, successes against failures",
        auc,
        ">= 0.97",
        auc >= 0.97,
        per_task("main", _auc),
    )
    recall = results.mean(results.of("main", succeeded=True), _fired)
    add(
        "SUCCESS fires on successes",
        recall,
        ">= 0.90",
        recall >= 0.90,
        per_task("main", _fired, succeeded=True),
    )
    alarms = results.mean(results.of("main", succeeded=False), _fired)
    worst = per_task("main", _fired, max, succeeded=False)
    add("SUCCESS fires on failures", alarms, "<= 0.03", alarms <= 0.03, worst)
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
        right = float(np.mean(results.wrong_pairs(role)))
        add(f"right instruction scores above {role}", right, ">= 0.98", right >= 0.98)
    held_out = results.mean(results.of("held out"), _voc)
    add("VOC with held-out wordings", held_out, ">= 0.85", held_out >= 0.85, per_task("held out", _voc))
    for role, name in (("1 fps", "1 fps"), ("main", "2 fps"), ("4 fps", "4 fps")):
        auc = results.mean(results.of(role), _auc)
        recall = results.mean(results.of(role, succeeded=True), _fired)
        alarms = results.mean(results.of(role, succeeded=False), _fired)
        add(f"ROC-AUC at {name}", auc, ">= 0.95", auc >= 0.95)
        add(f"SUCCESS fires on successes at {name}", recall, ">= 0.80", recall >= 0.80)
        add(f"SUCCESS fires on failures at {name}", alarms, "", True)
    add("one tick, 32 frames, one CPU thread, p50", tick_ms, "<= 25 ms", tick_ms <= 25, unit=" ms")
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
    note = (
        f"{clips} clips of held-out scenes, attempts and cameras in {len(results.sets)} sets, scored frame "
        "by frame at the monitor's defaults (2 fps unless said otherwise). Static and noisy clips meet a "
        f"goal when all of them do. Timed on {_machine()}."
    )
    return "\n".join([note, "", *rows, "", *by_task_table(results)])


def _machine() -> str:
    found = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return f"{found[0] if found else platform.machine()}, {os.cpu_count()} cores, shared with other work"


def main() -> None:
    """Evaluate from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="folder made by training.generate")
    parser.add_argument("model", help="the model's folder, or any name that `model:=` takes")
    parser.add_argument("--card", action="store_true", help="write the table into the model's README.md")
    parser.add_argument("--attempts", type=int, default=20, help="of each task in each set (%(default)s)")
    parser.add_argument("--sets", type=int, default=3, help="of 3 (%(default)s)")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="(%(default)s)")
    parser.add_argument("--json", type=Path, help="also write every curve here")
    arguments = parser.parse_args()
    listed, _ = Manifest.read(arguments.data)
    work = []
    for name in EVALUATIONS[: arguments.sets]:
        clips = [clip for clip in listed if clip.path.parts[0] == name]
        clips = [clip for clip in clips if int(clip.path.stem[:4]) < arguments.attempts]
        jobs: dict[Path, list[Job]] = defaultdict(list)
        for job in _jobs(clips):
            jobs[job.clip.path].append(job)
        work += [(arguments.data, arguments.model, of_clip) for of_clip in jobs.values()]
    found: list[Result] = []
    console = Console()
    with (
        Progress(console=console) as progress,
        multiprocessing.get_context("spawn").Pool(arguments.processes) as pool,
    ):
        for results in progress.track(pool.imap(_watch_all, work), total=len(work), description="clips"):
            found += results
    results = Results(found)
    lines = table(results, tick_milliseconds(arguments.model))
    shown = Table("what", "mean", "worst task", "goal", "met")
    for line in lines:
        shown.add_row(line.name, line.mean, line.worst, line.goal, line.verdict)
    console.print(shown)
    for row in by_task_table(results):
        console.print(row)
    if arguments.json:
        arguments.json.write_text(json.dumps([_plain(result) for result in found]))
    if arguments.card:
        card = Path(arguments.model) / "README.md"
        before, rest = card.read_text().split(TABLE_START)
        _, after = rest.split(TABLE_END)
        card.write_text(f"{before}{TABLE_START}\n{markdown(lines, results)}\n{TABLE_END}{after}")


def _plain(result: Result) -> dict[str, object]:
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
