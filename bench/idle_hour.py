"""One hour in which nothing is done: what the shipped model and detectors say of it.

Footage of 25 s is made of each film of test/data/clips (another folder with a clips.json of that form can be
named): an idle robot before a camera that rustles, whose exposure hunts, or whose picture is grainy; a feed
that always gives the same picture, from the start or from the middle of a movement; a lens that is covered.
SUCCESS and FAILURE are wrong in all of it. FROZEN_IMAGES and COVERED_IMAGES are right where the picture stops
or goes, and wrong elsewhere. Played with the defaults of config/monitor.yaml at 10 Hz, extra looks included.

    .venv/bin/python bench/idle_hour.py            # 3 minutes on two cores
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from options import add_files, parser
from output import write_json
from topreward_ros.core.events import EventType
from topreward_ros.core.frames import NS_PER_S
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.defaults import monitor_defaults
from topreward_ros.offline.engine_bench import machine
from topreward_ros.offline.score_video import Curve, Recording, score_recordings
from topreward_ros.offline.video import Frames, Video, VideoInfo, open_video
from topreward_ros.scoring.base import ScorerSettings
from topreward_ros.scoring.registry import load_scorer
from topreward_ros.views.bench import machine_line

FOLDER = Path(__file__).parents[1] / "test" / "data" / "clips"
RATE = 10  # [Hz]
SECONDS = 25.0
COVERED_AT_S = 5.0
FOUND_WITHIN_S = 3.0
_MOVES_UNTIL = 0.4  #: of a film, or of the time to its success: the task is not done there

Picture = np.ndarray
Show = Callable[[list[Picture], int], Picture]  #: the pictures of a film, and the number of a frame


def rustling(pictures: list[Picture], k: int, deviation: float = 2.0, light: float = 1.0) -> Picture:
    """The first picture with a sensor's noise of that standard deviation [of 255]."""
    noise = deviation * np.random.default_rng(k).standard_normal(pictures[0].shape, np.float32)
    return np.asarray(np.clip(np.rint(light * pictures[0] + noise), 0, 255), np.uint8)


def hunting(pictures: list[Picture], k: int) -> Picture:
    """Exposure that swings by 10 % within 8 s."""
    return rustling(pictures, k, light=1.0 + 0.1 * np.sin(2.0 * np.pi * k / (8.0 * RATE)))


def frozen(pictures: list[Picture], k: int) -> Picture:
    """A movement, and then its last picture for good."""
    return pictures[min(k, len(pictures) - 1)]


def covered(pictures: list[Picture], k: int) -> Picture:
    """An idle robot, and then the inside of a cap."""
    if k < COVERED_AT_S * RATE:
        return rustling(pictures, k)
    return rustling([np.full_like(pictures[0], 6)], k)


@dataclass(frozen=True)
class Kind:
    """A kind of footage."""

    name: str
    show: Show
    due: EventType | None = None  #: what has to be said of it


KINDS = (
    Kind("idle, camera noise of 2", rustling),
    Kind("idle, exposure hunts by 10 %", hunting),
    Kind("idle, camera noise of 20", partial(rustling, deviation=20.0)),
    Kind("always the same picture", lambda pictures, k: pictures[0], EventType.FROZEN_IMAGES),
    Kind("frozen in a movement", frozen, EventType.FROZEN_IMAGES),
    Kind("covered after 5 s", covered, EventType.COVERED_IMAGES),
)


class Footage(Video):
    """Pictures that are made while they are read."""

    def __init__(self, pictures: list[Picture], show: Show) -> None:
        self._pictures, self._show = pictures, show
        height, width = pictures[0].shape[:2]
        self.info = VideoInfo(RATE, round(SECONDS * RATE), width, height)
        self.damaged = []

    def __iter__(self) -> Frames:
        for k in range(round(SECONDS * RATE)):
            yield k * NS_PER_S // RATE, partial(self._show, self._pictures, k)


@dataclass(frozen=True)
class Film:
    """What of a film is shown, and what it is about."""

    name: str
    instruction: str
    pictures: list[Picture]  #: the task is not done in any


def films(folder: Path) -> Iterator[Film]:
    """Those of a folder with a clips.json."""
    for clip in json.loads((folder / "clips.json").read_text(encoding="utf-8")):
        shown = [read() for _, read in open_video(folder / clip["file"], RATE)]
        length = clip["success_at"] * RATE if clip["success_at"] else len(shown)
        yield Film(clip["file"], clip["instruction"], shown[: max(2, round(_MOVES_UNTIL * length))])


@dataclass
class Row:
    """What was said of a kind of footage."""

    kind: str
    films: int = 0
    ends: int = 0  #: SUCCESS or FAILURE: wrong
    regressions: int = 0
    found: int = 0  #: what is due, soon enough
    slowest_s: float = 0.0  #: until it was said
    wrong: int = 0  #: FROZEN_IMAGES or COVERED_IMAGES where it is not due


def judge(kind: Kind, shown: Sequence[Film], curves: Sequence[Curve]) -> Row:
    """Count what was said."""
    row = Row(kind.name, len(curves))
    for film, curve in zip(shown, curves, strict=True):
        times: dict[str, float] = {}
        for event in curve.events:
            times.setdefault(event.type, event.time_s)
        row.ends += bool({"SUCCESS", "FAILURE"} & times.keys())
        row.regressions += "REGRESSION" in times
        row.wrong += any(
            name in times
            for name in ("FROZEN_IMAGES", "COVERED_IMAGES")
            if kind.due is None or name != kind.due.name
        )
        if kind.due is None or kind.due.name not in times:
            continue
        begins: dict[Show, float] = {frozen: (len(film.pictures) - 1) / RATE, covered: COVERED_AT_S}
        since = begins.get(kind.show, 0.0)
        took_s = times[kind.due.name] - since
        row.slowest_s = max(row.slowest_s, took_s)
        row.found += 0.0 <= took_s <= FOUND_WITHIN_S
    return row


def main() -> None:
    command = parser(__doc__)
    command.add_argument("folder", type=Path, nargs="?", default=FOLDER, help="(default: test/data/clips)")
    add_files(command, plot=False)
    options = command.parse_args()
    console = Console(highlight=False)
    console.print(machine_line(machine()))
    parameters: dict[str, Any] = monitor_defaults()
    settings = MonitorSettings.from_parameters(parameters)
    scorer = load_scorer(parameters["model"], ScorerSettings.from_parameters(parameters))
    shown = list(films(options.folder))
    rows: list[Row] = []
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("watching", total=len(KINDS) * len(shown))
        for kind in KINDS:
            recordings = [
                Recording(film.name, film.instruction, partial(Footage, film.pictures, kind.show))
                for film in shown
            ]
            outcomes = score_recordings(
                recordings, scorer, settings, at_once=8, on_outcome=lambda *_: progress.advance(bar)
            )
            if failed := [str(it) for it in outcomes if not isinstance(it, Curve)]:
                raise SystemExit(failed[0])
            rows.append(judge(kind, shown, [it for it in outcomes if isinstance(it, Curve)]))
    table = Table(
        "footage", "minutes", "SUCCESS, FAILURE", "REGRESSION", "found in 3 s", "slowest", "wrongly"
    )
    for row in rows:
        due = (f"{row.found} of {row.films}", f"{row.slowest_s:.1f} s") if row.slowest_s else ("-", "-")
        minutes = f"{row.films * SECONDS / 60.0:.0f}"
        table.add_row(row.kind, minutes, str(row.ends), str(row.regressions), *due, str(row.wrong))
    console.print(table)
    write_json(options.json, {"machine": machine(), "rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
