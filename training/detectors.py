"""Judge the detectors on held-out clips: `python -m training.detectors data MODEL --json detectors.json`.

STALL on robots that stop, REGRESSION on robots that go back, FROZEN_IMAGES and COVERED_IMAGES on films whose
picture stops or is hidden; and how often each of them comes where it should not. Films go through the
monitor's own state machine with the shipped settings, as `topreward score` would show them.

All films have camera noise of 2 of 255 in standard deviation, but those of "no noise". Each attempt is seen
by one of its three cameras. A robot that stopped stands still for 20 s, an idle one for 30 s: the last true
picture of the clip stays, with fresh noise. The words of the table:

- success, recall: as everywhere. A success is watched until SUCCESS ends it, or to the end of its clip.
- before it was done: what came up to 2 s after the simulator saw the success. What comes later of a success
  that the model does not recognise is the model's: it reads a hand that is drawn back as a fall.
- flicker: standard deviation of the steps of progress from score to score while nothing moves.
- sigma: of `regression_sigma`; the middle 90 % of the steps of sqrt(progress) of robots that stand still,
  over 3.29 (for a normal distribution that is its standard deviation; what jumps now and then is no
  flicker).

Scores of a model are kept in the file of `--scores`, so that other settings are tried in seconds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from topreward_ros.cli.settings import settings_of, with_overrides
from topreward_ros.core.episode import TaskMonitor
from topreward_ros.core.events import EventType
from topreward_ros.core.frames import NS_PER_S, Frame
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.core.output_files import write_file
from topreward_ros.core.outputs import Event, ProgressReport
from topreward_ros.core.progress import PrefixScore
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.defaults import monitor_defaults
from topreward_ros.offline.distill import disturbances
from topreward_ros.offline.engine_bench import machine
from topreward_ros.scoring.base import PrefixScorer
from topreward_ros.scoring.registry import load_scorer
from training.clips import RATE, SIDE, VIEWS, Clip, Listed
from training.generate import EVALUATIONS
from training.instructions import BY_NAME
from training.samples import crop

NOISE = 2.0  # standard deviation of the camera's noise [of 255]
_RESTING = 7.0  # [s] at the end of a clip, in which nothing moves
_STOPPED, _IDLE = 20.0, 30.0  # [s] for which a robot stands still
_DISTURBED = 6.0  # [s] for which a picture is frozen or hidden
_IN_TIME = 3.0  # [s] within which that must be noticed
_DONE = 2.0  # [s] after the success, up to which what comes is of the work
_HIDDEN = ("flat", "dark", "noise")  # what shows nothing, of `disturbances.HIDERS`
_ONE_COLOUR = ("flat", "dark")  # of them; the squares of noise may be as large as things in a scene
_LEVELS = (0.0, 0.1, 0.3, 0.6, 1.1)  # of progress, where flicker is told apart
_STEPS = 3.29  # standard deviations between the 5th and the 95th percentile


@dataclass(frozen=True)
class Film:
    """Pictures of an attempt, `RATE` per second, and what is known of them."""

    name: str
    kind: str  #: of the attempt; or frozen, covered, idle
    instruction: str
    pictures: np.ndarray  #: (N, H, W, 3) uint8 RGB
    since_s: float = 0.0  #: [s] when what is to be noticed began, or when the success was done
    noise: float = NOISE

    def frames(self) -> Iterator[Frame]:
        """The pictures as the camera gives them, from 100 s on; of a camera that is frozen or covered, what
        it gives is the same, or has nothing to do with its noise."""
        rng = np.random.default_rng([len(self.pictures), round(10 * self.noise), 15])
        shown = self.pictures[0]
        for number, picture in enumerate(self.pictures):
            if self.kind not in ("frozen", "covered") or number / RATE < self.since_s:
                grain = rng.normal(0, self.noise, picture.shape) if self.noise else 0.0
                shown = np.clip(np.rint(picture + grain), 0, 255).astype(np.uint8)
            elif self.kind == "covered":
                shown = np.ascontiguousarray(picture)
            yield Frame(round((100 + number / RATE) * NS_PER_S), shown)


@dataclass(frozen=True)
class Seen:
    """What the monitor said of a film."""

    film: Film
    events: dict[str, list[float]]  #: times [s] by the name of the type
    progress: list[tuple[float, float]] = field(default_factory=list)  #: time [s] and progress of each score

    def first(self, kind: EventType) -> float | None:
        """When an event of this type came first [s]; None: never."""
        return min(self.events.get(kind.name, ()), default=None)


class KnownScores:
    """A scorer whose scores outlive the process."""

    def __init__(self, scorer: PrefixScorer, sample_rate: float, path: Path | None) -> None:
        self._scorer, self._path = scorer, path
        self._of = f"{scorer.info.revision} {scorer.info.prompt_hash} {sample_rate:g} Hz"
        kept = json.loads(path.read_text()) if path is not None and path.is_file() else {}
        self._known: dict[str, list[float]] = kept.get(self._of, {})

    def score(self, film: Film, request: ScoreRequest) -> PrefixScore:
        """The score of a prefix of a film."""
        first, newest = request.prefix[0].stamp_ns, request.prefix[-1].stamp_ns
        key = f"{film.name}: {len(request.prefix)} from {first / NS_PER_S:.2f} to {newest / NS_PER_S:.2f} s"
        if key not in self._known:
            score = self._scorer.score(request)
            self._known[key] = [score.log_prob, score.log_prob_false, score.log_prob_static]
        r, r_false, r_static = self._known[key]
        return PrefixScore(r, r_false, r_static, num_frames=len(request.prefix))

    def keep(self) -> None:
        """Write what is known, for the next time."""
        if self._path is not None:
            write_file(self._path, json.dumps({self._of: self._known}))


# ---- films -----------------------------------------------------------------------------------------------


def attempts(data: Path, sets: Sequence[str], every: int) -> list[tuple[str, Path, Listed]]:
    """One clip of each attempt of some evaluation sets: set, its folder, the clip."""
    found: list[tuple[str, Path, Listed]] = []
    for name in sets:
        folder = data / name
        if not folder.is_dir():
            raise SystemExit(f"{folder} is missing: make the data with `python -m training.generate {data}`")
        of_kind: dict[tuple[str, str], int] = {}
        for path in sorted(folder.rglob("*.npz")):
            listed = Listed.of_file(folder, path.relative_to(folder), int(path.name.split("-")[0]))
            if VIEWS.index(listed.view) != listed.seed % len(VIEWS):
                continue
            number = of_kind[listed.task, listed.kind] = of_kind.get((listed.task, listed.kind), -1) + 1
            if number % every == 0:
                found.append((name, folder, listed))
    return found


def films_of(name: str, clip: Clip) -> list[Film]:
    """The films that are scored, of one clip."""
    pictures = crop(clip.frames, SIDE * 3 // 4, SIDE)
    instruction = BY_NAME[clip.task].instruction
    if clip.kind == "success":
        return [Film(name, clip.kind, instruction, pictures, float(np.argmax(clip.success)) / RATE)]
    if clip.kind == "stop":
        since_s = len(pictures) / RATE - _RESTING
        return [Film(name, clip.kind, instruction, _held(pictures, since_s + _STOPPED), since_s)]
    if clip.kind == "retreat":
        top_s = float(np.argmax(clip.progress)) / RATE
        return [Film(name, clip.kind, instruction, pictures, top_s)]
    return []


def disturbed_films(name: str, clip: Clip, number: int) -> list[Film]:
    """The films whose pictures alone matter: frozen, covered, and robots that stand still."""
    pictures = crop(clip.frames, SIDE * 3 // 4, SIDE)
    instruction = BY_NAME[clip.task].instruction
    if clip.kind == "idle":
        idle = _held(pictures, _IDLE)
        return [
            Film(f"{name} {noise:g}", "idle", instruction, idle, noise=noise)
            for noise in (0.5, 1.0, 2.0, 4.0)
        ]
    rng = np.random.default_rng([number, 15])
    first = int(rng.uniform(4.0, len(pictures) / RATE) * RATE)
    count = int(_DISTURBED * RATE)
    frozen = np.concatenate(
        [pictures[:first], np.broadcast_to(pictures[first - 1], (count, *pictures.shape[1:]))]
    )
    kind = _HIDDEN[number % len(_HIDDEN)]
    hidden = disturbances.hidden(_held(pictures, (first + count) / RATE)[first:], rng, kind)
    since_s = first / RATE
    return [
        Film(name, "frozen", instruction, frozen, since_s),
        Film(f"{name}, no noise", "frozen", instruction, frozen, since_s, noise=0.0),
        Film(f"{name}, {kind}", "covered", instruction, np.concatenate([pictures[:first], hidden]), since_s),
    ]


def _held(pictures: np.ndarray, seconds: float) -> np.ndarray:
    """``pictures``, the last one repeated up to so many seconds."""
    return pictures[np.minimum(np.arange(round(seconds * RATE)), len(pictures) - 1)]


# ---- watching --------------------------------------------------------------------------------------------


def watch(film: Film, settings: MonitorSettings, scores: KnownScores | None) -> Seen:
    """Show a film to a monitor. Without ``scores`` each score is the same, as pictures alone matter."""
    monitor = TaskMonitor(settings, lambda: film.name)
    monitor.set_task(film.instruction)
    events: dict[str, list[float]] = {}
    progress: list[tuple[float, float]] = []
    for frame in film.frames():
        due, outputs = monitor.observe(frame.stamp_ns)
        if due:
            request, more = monitor.add_frame(frame)
            outputs += more
            if request is not None:
                score = scores.score(film, request) if scores else PrefixScore(-4.0, -1.0, -8.0)
                reported = monitor.add_score(request, score)
                outputs += reported
                report = next((it for it in reported if isinstance(it, ProgressReport)), None)
                if report is not None and not request.extra:
                    progress.append((report.stamp.ns / NS_PER_S - 100, report.progress))
        for output in outputs:
            if isinstance(output, Event):
                events.setdefault(output.type.name, []).append(output.stamp.ns / NS_PER_S - 100)
    return Seen(film, events, progress)


def resting(seen: Sequence[Seen]) -> list[np.ndarray]:
    """Progress, score after score, of each robot that has stopped, from then on."""
    found = []
    for it in seen:
        if it.film.kind == "stop":
            known = np.array([p for time_s, p in it.progress if time_s > it.film.since_s + 0.5])
            found.append(known[np.isfinite(known)])
    return [progress for progress in found if len(progress) > 1]


def flicker(seen: Sequence[Seen]) -> list[tuple[str, int, float, float]]:
    """By the level at which a robot stopped: how many did, and the standard deviation of the steps of their
    progress and of its square root."""
    lines = []
    for low, high in pairwise(_LEVELS):
        there = [progress for progress in resting(seen) if low <= progress.mean() < high]
        steps = [
            np.sqrt(np.mean([np.diff(of(progress)).var() for progress in there])) if there else float("nan")
            for of in (np.asarray, np.sqrt)
        ]
        lines.append((f"{low:g} to {min(high, 1.0):g}", len(there), float(steps[0]), float(steps[1])))
    return lines


def measured_sigma(seen: Sequence[Seen]) -> float:
    """What sqrt(progress) flickers by from score to score while a robot stands still (see the docstring)."""
    known = np.concatenate([np.diff(np.sqrt(progress)) for progress in resting(seen)] or [np.empty(0)])
    return float(np.subtract(*np.percentile(known, [95, 5])) / _STEPS) if len(known) else float("nan")


@dataclass(frozen=True)
class Line:
    """A row of the table."""

    what: str
    count: int
    share: float
    goal: str
    met: bool | None  #: None: there is no goal
    delay: str = ""  #: median and 95th percentile [s]


def table(seen: Sequence[Seen]) -> list[Line]:
    """What the detectors noticed, and what they should not have."""
    lines: list[Line] = []

    def of(kind: str) -> list[Seen]:
        return [it for it in seen if it.film.kind == kind]

    def recall(
        what: str, films: list[Seen], event: EventType, goal: float | None, within_s: float = np.inf
    ) -> None:
        firsts = [(it.first(event), it.film.since_s) for it in films]
        delays = [at - since for at, since in firsts if at is not None and at - since <= within_s]
        share = len(delays) / max(1, len(films))
        met = None if goal is None else share >= goal
        text = "" if goal is None else f">= {goal:g}"
        lines.append(Line(what, len(films), share, text, met, _delays(delays)))

    def false(
        what: str, films: list[Seen], events: set[EventType], most: float | None, until_done: bool = False
    ) -> None:
        wrong = 0
        for it in films:
            end_s = it.film.since_s + _DONE if until_done else np.inf
            wrong += any(at <= end_s for kind in events for at in it.events.get(kind.name, []))
        share = wrong / max(1, len(films))
        text = "" if most is None else f"<= {most:g}"
        lines.append(Line(what, len(films), share, text, None if most is None else share <= most))

    successes = of("success")
    recall("STALL on robots that stop", of("stop"), EventType.STALL, 0.9)
    recall("REGRESSION on robots that go back", of("retreat"), EventType.REGRESSION, 0.8)
    for kind in (EventType.STALL, EventType.REGRESSION):
        false(f"{kind.name} on successes", successes, {kind}, 0.05)
        false(f"{kind.name} on successes, before it was done", successes, {kind}, None, until_done=True)
    recognised = [it for it in successes if it.first(EventType.SUCCESS) is not None]
    lines.append(
        Line("SUCCESS on successes", len(successes), len(recognised) / max(1, len(successes)), "", None)
    )
    with_noise = [it for it in of("frozen") if it.film.noise]
    without = [it for it in of("frozen") if not it.film.noise]
    recall("FROZEN_IMAGES on frozen pictures", with_noise, EventType.FROZEN_IMAGES, 1.0, _IN_TIME)
    recall("FROZEN_IMAGES on frozen pictures, no noise", without, EventType.FROZEN_IMAGES, 1.0, _IN_TIME)
    covered = of("covered")
    plain = [it for it in covered if it.film.name.endswith(_ONE_COLOUR)]
    noise = [it for it in covered if not it.film.name.endswith(_ONE_COLOUR)]
    recall("COVERED_IMAGES on pictures of nearly one colour", plain, EventType.COVERED_IMAGES, 1.0, _IN_TIME)
    recall(
        "COVERED_IMAGES on noise in squares of 1 to 16 pixels",
        noise,
        EventType.COVERED_IMAGES,
        None,
        _IN_TIME,
    )
    of_pictures = {EventType.FROZEN_IMAGES, EventType.COVERED_IMAGES}
    false("either on idle robots", of("idle"), of_pictures, 0.0)
    false("either on robots at work", [*successes, *of("stop"), *of("retreat")], of_pictures, 0.0)
    return lines


def _delays(delays: Sequence[float]) -> str:
    return f"{np.median(delays):.1f} / {np.percentile(delays, 95):.1f}" if delays else ""


def main() -> None:
    """Judge from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder made by training.generate")
    parser.add_argument("model", help="the model's folder, or any name that `model:=` takes")
    parser.add_argument("--sets", nargs="+", default=list(EVALUATIONS), metavar="SET", help="(%(default)s)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="of N attempts one (%(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="overrides")
    parser.add_argument("--no-pictures", action="store_true", help="leave out frozen and covered cameras")
    parser.add_argument("--scores", type=Path, metavar="FILE", help="keep the model's scores here")
    parser.add_argument("--json", type=Path, help="write every number here, too")
    arguments = parser.parse_args()
    console = Console()
    parameters = with_overrides(monitor_defaults(), arguments.overrides, "detectors", ("task", "model"))
    settings, scorer_settings = settings_of(parameters)
    scores = KnownScores(
        load_scorer(arguments.model, scorer_settings), settings.sample_rate, arguments.scores
    )
    clips = attempts(arguments.data, arguments.sets, arguments.every)
    seen: list[Seen] = []
    for number, (name, folder, listed) in enumerate(track(clips, "attempts", console=console)):
        clip = Clip.load(folder / listed.path)
        called = f"{name}/{listed.path.as_posix()}"
        seen += [watch(film, settings, scores) for film in films_of(called, clip)]
        if not arguments.no_pictures:
            seen += [watch(film, settings, None) for film in disturbed_films(called, clip, number)]
        if number % 20 == 0:
            scores.keep()
    scores.keep()
    lines = [line for line in table(seen) if line.count]
    sigma = measured_sigma(seen)
    shown = Table("what", "films", "share", "goal", "met", "after [s], median / 95 %")
    for line in lines:
        met = "" if not line.goal else "yes" if line.met else "no"
        shown.add_row(line.what, str(line.count), f"{line.share:.3f}", line.goal, met, line.delay)
    console.print(shown)
    levels = Table("progress", "stopped", "flicker", "of its square root")
    for level, count, of_progress, of_root in flicker(seen):
        levels.add_row(level, str(count), f"{of_progress:.3f}", f"{of_root:.3f}")
    console.print(levels)
    console.print(f"sigma: {sigma:.4f} (regression_sigma = {settings.progress.regression.sigma:g})")
    about = machine()
    console.print(f"{about['processor']}, {about['cores']} cores, torch {about['torch']}, {about['date']}")
    if arguments.json:
        content = {
            "machine": about,
            "model": arguments.model,
            "sigma": sigma,
            "flicker": flicker(seen),
            "table": [line.__dict__ for line in lines],
            "films": [
                {"name": it.film.name, "kind": it.film.kind, "since": it.film.since_s, "events": it.events}
                for it in seen
            ],
        }
        write_file(arguments.json, json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
