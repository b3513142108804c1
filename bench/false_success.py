"""SUCCESS where nothing was done, and SUCCESS that is lost: disturbed films through the shipped model.

The films of test/data/clips are shown to the monitor's state machine with bad starts, covered cameras and
cuts: eleven scenes that were finished before anybody looked, eleven failures, an idle robot, a film that runs
backwards. No SUCCESS is right there. The eleven successes are disturbed as well; there SUCCESS is right.
Offline, with the defaults of config/monitor.yaml, at 10 Hz.

    python bench/false_success.py --json after.json          # some 1,000 runs, 20 minutes on one core
    python bench/false_success.py --before before.json       # compared with the result of an earlier commit
    python bench/false_success.py --margins                  # what the measures of pictures read; no model
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from options import parser
from topreward_ros.core.episode import TaskMonitor
from topreward_ros.core.events import EventType
from topreward_ros.core.frames import NS_PER_S, Frame
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.core.output_files import write_file
from topreward_ros.core.outputs import Event, ProgressReport
from topreward_ros.core.pictures import Picture, examine, likeness
from topreward_ros.core.progress import PrefixScore
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.defaults import monitor_defaults
from topreward_ros.offline.video import open_video
from topreward_ros.scoring.base import PrefixScorer, ScorerSettings
from topreward_ros.scoring.registry import load_scorer

FOLDER = Path(__file__).parents[1] / "test" / "data" / "clips"
RATE = 10  # [Hz] of the films
LENGTH = 14 * RATE  # pictures of a scene that was finished before anybody looked

Pictures = list[np.ndarray]  #: each (H, W, 3) uint8


@dataclass(frozen=True)
class Film:
    """A clip and what is known of it."""

    name: str
    kind: str
    instruction: str
    pictures: Pictures
    success_at: float | None  #: [s]
    ending: Pictures  #: the finished scene of the same task, another attempt or its own

    @classmethod
    def all(cls) -> list[Film]:
        clips = json.loads((FOLDER / "clips.json").read_text(encoding="utf-8"))
        shown = {clip["file"]: [read() for _, read in open_video(FOLDER / clip["file"])] for clip in clips}
        endings = {
            clip["task"]: shown[clip["file"]][round((clip["success_at"] + 2) * RATE) :]
            for clip in clips
            if clip["succeeds"]
        }
        return [
            cls(
                Path(clip["file"]).stem,
                clip["kind"],
                clip["instruction"],
                shown[clip["file"]],
                clip["success_at"],
                endings[clip["task"]],
            )
            for clip in clips
        ]


@dataclass(frozen=True)
class Run:
    """Pictures with their times, and whether SUCCESS would be right."""

    group: str
    disturbance: str
    film: str
    instruction: str
    shown: list[tuple[float, np.ndarray]]  #: stamps [s]
    right: bool  #: SUCCESS is right
    widths: tuple[int, ...] = ()  #: of several cameras' pictures, side by side


def at_rate(pictures: Pictures, start_s: float = 0.0) -> list[tuple[float, np.ndarray]]:
    return [(start_s + k / RATE, picture) for k, picture in enumerate(pictures)]


def held(pictures: Pictures, count: int) -> Pictures:
    """``pictures``, the last one repeated where they are too few."""
    return (pictures + [pictures[-1]] * count)[:count]


# ---- pictures that are none ----------------------------------------------------------------------------


def _like(picture: np.ndarray, value: Any) -> np.ndarray:
    return np.full_like(picture, value)


def black(picture: np.ndarray, k: int, n: int) -> np.ndarray:
    return _like(picture, 0)


def dark_noisy(picture: np.ndarray, k: int, n: int) -> np.ndarray:
    noise = np.random.default_rng(k).normal(4, 3, picture.shape)
    return np.clip(noise, 0, 255).astype(np.uint8)


def white(picture: np.ndarray, k: int, n: int) -> np.ndarray:
    return _like(picture, 255)


def grey(picture: np.ndarray, k: int, n: int) -> np.ndarray:
    return _like(picture, 128)


def noise(picture: np.ndarray, k: int, n: int) -> np.ndarray:
    return np.random.default_rng(k).integers(0, 256, picture.shape, np.uint8)


def coarse_noise(picture: np.ndarray, k: int, n: int) -> np.ndarray:
    height, width = picture.shape[:2]
    cells = np.random.default_rng(k).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return np.kron(cells, np.ones((8, 8, 1), np.uint8))


def _skin(picture: np.ndarray) -> np.ndarray:
    rows, columns = np.indices(picture.shape[:2])
    light = 0.6 + 0.4 * np.exp(-((rows - 80) ** 2 + (columns - 140) ** 2) / 15_000)
    return np.asarray(np.clip(light[..., None] * np.array([205, 150, 125]), 0, 255))


def palm(picture: np.ndarray, k: int, n: int) -> np.ndarray:
    """A hand on the lens: skin, out of focus."""
    return (
        (_skin(picture) + np.random.default_rng(k).normal(0, 2, picture.shape)).clip(0, 255).astype(np.uint8)
    )


def _fingers(picture: np.ndarray, k: int, share: float, speed: float) -> np.ndarray:
    """A hand near the lens over ``share`` of the picture, which moves by ``speed`` px a picture."""
    rows, columns = np.indices(picture.shape[:2])
    place = columns + 0.25 * rows + speed * k
    hand = _skin(picture) * (0.55 + 0.45 * np.abs(np.sin(place / 18)))[..., None]
    hand += 8 * np.sin(rows / 3 + columns / 5)[..., None]
    covered = (columns < share * picture.shape[1])[..., None]
    return np.where(covered, hand.clip(0, 255), picture).astype(np.uint8)


def fingers(picture: np.ndarray, k: int, n: int) -> np.ndarray:
    return _fingers(picture, k, 1.0, 0.0)


def waving_fingers(picture: np.ndarray, k: int, n: int) -> np.ndarray:
    return _fingers(picture, k, 1.0, 7.0)


def half_a_hand(picture: np.ndarray, k: int, n: int) -> np.ndarray:
    return _fingers(picture, k, 0.6, 0.0)


def ramp_from_dark(picture: np.ndarray, k: int, n: int) -> np.ndarray:
    return (picture * ((k + 1) / (n + 1))).astype(np.uint8)


def ramp_from_bright(picture: np.ndarray, k: int, n: int) -> np.ndarray:
    return np.clip(picture * (1.0 + 7.0 * (1 - k / n)), 0, 255).astype(np.uint8)


def dim(picture: np.ndarray, k: int, n: int) -> np.ndarray:
    return (picture * 0.15).astype(np.uint8)


Bad = Callable[[np.ndarray, int, int], np.ndarray]
STARTS: tuple[Bad, ...] = (
    noise, coarse_noise, white, grey, black, dark_noisy, palm, fingers, waving_fingers, half_a_hand,
    ramp_from_dark, ramp_from_bright, dim,
)  # fmt: skip
LONG_STARTS: tuple[Bad, ...] = (noise, black, fingers, waving_fingers, half_a_hand, ramp_from_dark, dim)
COVERS: tuple[Bad, ...] = (black, dark_noisy, white, noise, palm, fingers, waving_fingers, half_a_hand, dim)


def covered(pictures: Pictures, bad: Bad, start_s: float, seconds: float) -> Pictures:
    """``pictures`` with a part made unseen."""
    first, count = round(start_s * RATE), round(seconds * RATE)
    return [
        bad(picture, k - first, count) if first <= k < first + count else picture
        for k, picture in enumerate(pictures)
    ]


# ---- changes that take a while, and cameras that tremble ------------------------------------------------


def moved(picture: np.ndarray, down: float, right: float) -> np.ndarray:
    """What a camera shows that has moved by so many pixels; beyond the edge, the picture mirrored."""
    rows, columns = (np.arange(n) - d for n, d in zip(picture.shape[:2], (down, right), strict=True))
    by_rows = _between(picture.astype(np.float32), rows, 0)
    return np.clip(_between(by_rows, columns, 1) + 0.5, 0, 255).astype(np.uint8)


def _between(picture: np.ndarray, places: np.ndarray, axis: int) -> np.ndarray:
    """A picture at places between its rows or columns."""
    last = picture.shape[axis] - 1
    places = last - np.abs(last - np.abs(places))
    first = np.minimum(places.astype(int), last - 1)
    weight = np.expand_dims((places - first).astype(np.float32), (1, 2) if axis == 0 else (0, 2))
    return np.asarray(
        picture.take(first, axis) * (1 - weight) + picture.take(first + 1, axis) * weight, np.float32
    )


def trembling(pictures: Pictures, share: float) -> Pictures:
    """Each moved by chance, with a standard deviation of ``share`` of the width."""
    by_chance = np.random.default_rng(1)
    return [moved(p, *by_chance.normal(0, share * p.shape[1], 2)) for p in pictures]


def nudged(pictures: Pictures, share: float, at_s: float) -> Pictures:
    """From ``at_s`` on moved by ``share`` of the width, right and half as much down."""
    return [
        moved(p, share / 2 * p.shape[1], share * p.shape[1]) if k >= at_s * RATE else p
        for k, p in enumerate(pictures)
    ]


def bumped(pictures: Pictures, share: float) -> Pictures:
    """Every 3 s the camera swings by ``share`` of the width, and dies out in half a second."""
    shown = []
    for k, picture in enumerate(pictures):
        since_s = k / RATE % 3
        swing = share * picture.shape[1] * np.exp(-since_s / 0.5) * np.cos(2 * np.pi * 4.7 * since_s)
        shown.append(moved(picture, swing / 2, swing))
    return shown


def exposed(pictures: Pictures, share: float, period_s: float) -> Pictures:
    """An exposure that hunts: brightness goes up and down by ``share``."""
    return [
        np.clip(p * (1 + share * np.sin(2 * np.pi * k / RATE / period_s)), 0, 255).astype(np.uint8)
        for k, p in enumerate(pictures)
    ]


def faded(one: np.ndarray, other: np.ndarray, seconds: float) -> Pictures:
    count = round(seconds * RATE)
    weights = (np.arange(count) + 1) / (count + 1)
    return [(one * (1 - weight) + other * weight).astype(np.uint8) for weight in weights]


def wiped(one: np.ndarray, other: np.ndarray, seconds: float) -> Pictures:
    """From the right."""
    count, width = round(seconds * RATE), one.shape[1]
    edges = [width - width * (k + 1) // (count + 1) for k in range(count)]
    return [np.concatenate([one[:, :edge], other[:, edge:]], axis=1) for edge in edges]


def torn(one: np.ndarray, other: np.ndarray, seconds: float) -> Pictures:
    """The lower half comes first."""
    middle = one.shape[0] // 2
    return [np.concatenate([one[:middle], other[middle:]])] * round(seconds * RATE)


def zoomed_out(pictures: Pictures, seconds: float) -> Pictures:
    """From 1.6 times as large."""
    shown = []
    for k, picture in enumerate(pictures):
        zoom = max(1.0, 1.6 - 0.6 * k / RATE / seconds)
        places = [(n - 1) / 2 + (np.arange(n) - (n - 1) / 2) / zoom for n in picture.shape[:2]]
        by_rows = _between(picture.astype(np.float32), places[0], 0)
        shown.append(np.clip(_between(by_rows, places[1], 1) + 0.5, 0, 255).astype(np.uint8))
    return shown


# ---- the runs ------------------------------------------------------------------------------------------


def runs(films: list[Film]) -> Iterator[Run]:
    """All of them."""
    for film in films:
        done = film.kind == "success"
        nothing_done = held(film.ending, LENGTH) if done else film.pictures
        base = "finished before" if done else "failure"

        def run(
            group: str,
            disturbance: str,
            shown: Any,
            right: bool = False,
            film: Film = film,
            widths: tuple[int, ...] = (),
        ) -> Run:
            shown = at_rate(shown) if isinstance(shown[0], np.ndarray) else shown
            return Run(group, disturbance, film.name, film.instruction, shown, right, widths)

        yield run("as is", base, nothing_done)
        for bad in STARTS:
            lead = [nothing_done[0]] * RATE
            yield run(f"bad start, {base}", bad.__name__, covered(lead + nothing_done, bad, 0, 1))
        for bad in LONG_STARTS if done else ():
            lead = [nothing_done[0]] * 5 * RATE
            shown = covered(lead + nothing_done, bad, 0, 5)
            yield run(f"bad start of 5 s, {base}", bad.__name__, shown)
        for bad in COVERS:
            yield run(f"covered for 2 s, {base}", bad.__name__, covered(nothing_done, bad, 4, 2))
        if done:
            yield from successes(film, run)
            yield run("finished before", "zooms out for 4 s", zoomed_out(held(film.ending, LENGTH), 4))
        else:
            yield from cuts(film, run)


def cuts(film: Film, run: Callable[..., Run]) -> Iterator[Run]:
    """From a failure to the finished scene of another attempt at the same task."""
    middle = len(film.pictures) // 2
    before, after = film.pictures[:middle], held(film.ending, LENGTH)
    group = "cut to a finished scene"
    yield run(group, "at once", before + after)
    yield run(group, "after 1 s", film.pictures[:RATE] + after)
    yield run(group, "after the end", film.pictures + after)
    for gap_s in (0.4, 3.0, 60.0):
        start_s = (middle - 1) / RATE + gap_s
        yield run(group, f"gap of {gap_s:g} s", at_rate(before) + at_rate(after, start_s))
    for bad in (black, noise, fingers):
        yield run(
            group,
            f"1 s of {bad.__name__} between",
            before + [bad(after[0], k, RATE) for k in range(RATE)] + after,
        )
    flicker = before + [(after, before)[k // 3 % 2][-1] for k in range(9)] + after
    yield run(group, "flickering", flicker)
    group = "slow change to a finished scene"
    for seconds in (1, 2, 4, 8):
        yield run(group, f"fade of {seconds} s", before + faded(before[-1], after[0], seconds) + after)
    for seconds in (2, 4):
        yield run(group, f"wipe of {seconds} s", before + wiped(before[-1], after[0], seconds) + after)
    yield run(group, "torn for 3 s", before + torn(before[-1], after[0], 3) + after)
    group, cut = "two cameras side by side", before + after
    widths = (film.pictures[0].shape[1],) * 2
    beside = held(film.pictures, len(cut))
    for cameras, left, right in (("the second", beside, cut), ("both", cut, cut)):
        tiled = [np.concatenate(pair, axis=1) for pair in zip(left, right, strict=True)]
        yield run(group, f"a cut of {cameras}", tiled, widths=widths)


def successes(film: Film, run: Callable[..., Run]) -> Iterator[Run]:
    """A robot's own work, disturbed: SUCCESS is right; and what looks like it."""
    pictures, group = film.pictures, "success"
    yield run(group, "as is", pictures, right=True)
    yield run(group, "one noise frame", covered(pictures, noise, 2.0, 0.1), right=True)
    yield run(group, "one noise frame, others than 2 Hz", covered(pictures, noise, 2.7, 0.1), right=True)
    unplugged = [shown for shown in at_rate(pictures) if not 1.0 <= shown[0] < 7.0]
    yield run(group, "6 s unplugged", unplugged, right=True)
    yield run(group, "2 s lights off", covered(pictures, black, 1.0, 2.0), right=True)
    yield run(group, "2 s lights off, noisy", covered(pictures, dark_noisy, 1.0, 2.0), right=True)
    yield run(group, "2 s dim", covered(pictures, dim, 1.0, 2.0), right=True)
    yield run(group, "2 s fingers", covered(pictures, fingers, 1.0, 2.0), right=True)
    grain = np.random.default_rng(0)
    noisy = [np.clip(p + grain.normal(0, 10, p.shape), 0, 255).astype(np.uint8) for p in pictures]
    yield run(group, "sensor noise", noisy, right=True)
    for share in (0.001, 0.003, 0.005, 0.01):
        yield run(group, f"trembles by {share:.1%} of the width", trembling(pictures, share), right=True)
    for at_s in (2, 6):
        yield run(group, f"nudged by 1 % at {at_s} s", nudged(pictures, 0.01, at_s), right=True)
    yield run(group, "bumped by 1 % every 3 s", bumped(pictures, 0.01), right=True)
    yield run(group, "exposure hunts by 40 %, 3 s", exposed(pictures, 0.4, 3), right=True)
    yield run(group, "exposure ramp", covered(pictures, ramp_from_dark, 0, 1), right=True)
    yield run(
        "cannot be told: same scene, same camera",
        "from the start to the end",
        pictures[:20] + held(film.ending, LENGTH),
    )


# ---- watching ------------------------------------------------------------------------------------------


class KnownScores:
    """A scorer with a memory that outlives the process, so that another detector can be tried in seconds."""

    def __init__(self, scorer: PrefixScorer, path: Path | None) -> None:
        self._scorer, self._path = scorer, path
        self._known: dict[str, list[float]] = {}
        if path is not None and path.is_file():
            self._known = json.loads(path.read_text())
        self._digests: dict[int, tuple[Any, str]] = {}

    def score(self, request: ScoreRequest) -> PrefixScore:
        key = hashlib.sha1(request.instruction.encode())
        start_ns = request.prefix[0].stamp_ns
        for frame in request.prefix:
            key.update(f"{frame.stamp_ns - start_ns} {self._digest(frame.image)}".encode())
        name = key.hexdigest()
        if name not in self._known:
            score = self._scorer.score(request)
            self._known[name] = [score.log_prob, score.log_prob_false, score.log_prob_static]
        r, r_false, r_static = self._known[name]
        return PrefixScore(r, r_false, r_static, num_frames=len(request.prefix))

    def save(self) -> None:
        self._digests.clear()
        if self._path is not None:
            write_file(self._path, json.dumps(self._known))

    def _digest(self, image: np.ndarray) -> str:
        known = self._digests.get(id(image))
        if known is None or known[0] is not image:
            known = self._digests[id(image)] = image, hashlib.sha1(image.tobytes()).hexdigest()
        return known[1]


def watch(run: Run, scorer: KnownScores, settings: MonitorSettings) -> dict[str, Any]:
    """Show a run to a monitor: when SUCCESS fired, and what else it said."""
    monitor = TaskMonitor(settings, partial(str, run.film))
    monitor.set_task(run.instruction)
    success_s, said, scores = None, [], []
    for time_s, picture in run.shown:
        stamp_ns = round((time_s + 100) * NS_PER_S)
        due, outputs = monitor.observe(stamp_ns, stamp_ns)
        if due:
            request, more = monitor.add_frame(Frame(stamp_ns, picture, widths=run.widths))
            outputs += more
            if request is not None:
                score = scorer.score(request)
                scores.append([round(time_s, 2), round(score.log_prob, 4), round(score.log_prob_static, 4)])
                outputs += monitor.add_score(request, score)
        for output in outputs:
            if isinstance(output, Event):
                if output.type is EventType.SUCCESS and success_s is None:
                    success_s = round(output.stamp.ns / NS_PER_S - 100, 2)
                said.append(f"{output.type.name} {output.message}")
            elif isinstance(output, ProgressReport) and output.message and output.message not in said:
                said.append(output.message)
    return {
        "group": run.group,
        "disturbance": run.disturbance,
        "film": run.film,
        "right": run.right,
        "success": success_s,
        "said": said,
        "scores": scores,
    }


# ---- margins -------------------------------------------------------------------------------------------


def examined(picture: np.ndarray) -> Picture:
    made = examine(np.ascontiguousarray(picture))
    assert made is not None
    return made


def margins_of_pictures(films: list[Film]) -> Table:
    """What tells pictures from what is none: texture and correlation, least and most."""
    table = Table("pictures", "textured tiles of 48", "correlation", "of pairs", "called")
    shown = [picture for film in films for picture in film.pictures[:: 2 * RATE]]
    grain = np.random.default_rng(0)

    def changed(gain: float, sigma: float) -> Pictures:
        return [np.clip(p * gain + grain.normal(0, sigma, p.shape), 0, 255).astype(np.uint8) for p in shown]

    groups = {
        "films": shown,
        "films, noise of 20 levels": changed(1, 20),
        "films, a tenth of the light, noise of 1 level": changed(0.1, 1),
        "films, a twentieth of the light": changed(0.05, 0),
        "films, eight times the light": changed(8, 0),
    }
    for bad in (black, dark_noisy, white, palm, noise, coarse_noise):
        groups[bad.__name__] = [bad(shown[0], k, RATE) for k in range(20)]
    for name, pictures in groups.items():
        seen = [examined(picture) for picture in pictures]
        values: list[list[float]] = [
            [picture.textured for picture in seen],
            [picture.correlation[0] for picture in seen],
            [picture.correlation[1] for picture in seen],
        ]
        texts = [f"{min(column):.3g} to {max(column):.3g}" for column in values]
        table.add_row(name, *texts, ", ".join(sorted({picture.fault or "a picture" for picture in seen})))
    return table


def margins_of_views(films: list[Film]) -> Table:
    """What tells another view from a robot's own work: the share of the picture that stays."""
    table = Table("from one picture to the other", "pairs", "least", "1 %", "median", "99 %", "most")
    taken = {film.name: [examined(p) for p in film.pictures[:: RATE // 2]] for film in films}
    endings = {film.name: examined(film.ending[-1]) for film in films}
    middles = {film.name: taken[film.name][len(taken[film.name]) // 2] for film in films}
    same_camera = {"coffee-button-failure", "handle-pull-failure"}  # filmed with the success's camera

    def after(half_seconds: int, most: int | None = None) -> list[tuple[Picture, Picture]]:
        return [
            pair
            for pictures in taken.values()
            for pair in zip(pictures[:most], pictures[half_seconds:], strict=False)
        ]

    def followed(change: Callable[[Pictures], Pictures]) -> list[tuple[Picture, Picture]]:
        made = [[examined(p) for p in change(film.pictures[:: RATE // 2])] for film in films]
        return [pair for pictures in made for pair in pairwise(pictures)]

    grain = np.random.default_rng(0)

    def noisy(pictures: Pictures) -> Pictures:
        return [
            np.clip(p * 0.6 + 20 + grain.normal(0, 25, p.shape), 0, 255).astype(np.uint8) for p in pictures
        ]

    failures = [film for film in films if film.name.endswith("-failure")]
    pairs = {
        "0.5 s later, a robot at work": after(1),
        "0.5 s later, in the first 3 s": after(1, 6),
        "0.5 s later, the camera trembles by 0.3 %": followed(partial(trembling, share=0.003)),
        "0.5 s later, it trembles by 1 %": followed(partial(trembling, share=0.01)),
        "0.5 s later, noise of 25 levels, 0.6 of the light": followed(noisy),
        "0.5 s later, a twelfth of the light": followed(lambda pictures: [p // 12 for p in pictures]),
        "6 s later": after(12),
        "later than 3 s, from the first": [
            (pictures[0], later) for pictures in taken.values() for later in pictures[7:]
        ],
        "another attempt, finished, another place of the camera": [
            (middles[film.name], endings[film.name]) for film in failures if film.name not in same_camera
        ],
        "another attempt, finished, the same place": [
            (middles[film.name], endings[film.name]) for film in failures if film.name in same_camera
        ],
        "another scene": [
            (middles[one.name], endings[other.name])
            for one in failures
            for other in failures
            if one is not other
        ],
    }
    read = {name: [likeness(one, other).stays for one, other in found] for name, found in pairs.items()}
    read["later than 3 s, from the first or 6 s before, the better"] = [
        max(likeness(pictures[0], later).stays, likeness(pictures[max(0, k - 12)], later).stays)
        for pictures in taken.values()
        for k, later in enumerate(pictures)
        if k > 6
    ]
    for name, shares in read.items():
        stays = np.array(shares)
        points = (stays.min(), *np.percentile(stays, [1, 50, 99]), stays.max())
        table.add_row(name, str(len(stays)), *(f"{point:.2f}" for point in points))
    return table


def cost(film: Film) -> str:
    """How long a picture of 640x480 takes, in one thread."""
    picture = np.ascontiguousarray(np.resize(film.pictures[0], (480, 640, 3)))
    made = examined(picture)
    times = {}
    for name, work in (("examine", partial(examine, picture)), ("compare", partial(likeness, made, made))):
        begun = time.perf_counter()
        for _ in range(200):
            work()
        times[name] = (time.perf_counter() - begun) / 200
    return ", ".join(f"{name} {seconds * 1e3:.2f} ms" for name, seconds in times.items())


def table_of(results: list[dict[str, Any]], before: list[dict[str, Any]]) -> Table:
    """SUCCESS by disturbance: how many films of how many, before and now."""
    table = Table("group", "disturbance", "right", "films", *(["before"] if before else []), "SUCCESS")
    counts: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        counts[result["group"], result["disturbance"]].append(result)
    for (group, disturbance), of_it in counts.items():
        cells = [group, disturbance, "yes" if of_it[0]["right"] else "no", str(len(of_it))]
        if before:
            same = [r for r in before if (r["group"], r["disturbance"]) == (group, disturbance)]
            cells.append(str(sum(r["success"] is not None for r in same)) if same else "-")
        table.add_row(*cells, str(sum(r["success"] is not None for r in of_it)))
    return table


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--json", type=Path, help="write the results here")
    command.add_argument("--before", type=Path, help="results of an earlier commit, to compare with")
    command.add_argument("--cache", type=Path, help="keep the scores here, and take them from here")
    command.add_argument("--only", default="", help="only groups and disturbances with this text")
    command.add_argument("--margins", action="store_true", help="only tell what the measures read")
    options: argparse.Namespace = command.parse_args()
    console = Console()
    if options.margins:
        films = Film.all()
        console.print(margins_of_pictures(films), margins_of_views(films), cost(films[0]))
        return
    parameters = {**monitor_defaults(), "device": "cpu", "scorer_threads": 1}
    settings = MonitorSettings.from_parameters(parameters)
    scorer = KnownScores(
        load_scorer(parameters["model"], ScorerSettings.from_parameters(parameters)), options.cache
    )
    chosen = (run for run in runs(Film.all()) if options.only in f"{run.group}, {run.disturbance}")
    begun = time.monotonic()
    results = []
    for run in track(chosen, "watching", console=console, transient=True):
        results.append(watch(run, scorer, settings))
        if len(results) % 50 == 0:
            scorer.save()
    scorer.save()
    before = json.loads(options.before.read_text()) if options.before else []
    console.print(table_of(results, before))
    console.print(f"{len(results)} runs in {time.monotonic() - begun:.0f} s")
    if options.json:
        write_file(options.json, json.dumps(results))


if __name__ == "__main__":
    main()
