"""Labelled episodes scored, each as it was recorded and as its controls, by the code that scores videos.

What scoring a film gave is kept in a file of its own, under a key of all that it depends on: the model's
weights, the settings, the code, the frames, the instruction and the control. A run that was cut off goes on
where it was, and one with more episodes scores the new ones alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from functools import partial
from hashlib import sha256
from math import isfinite
from pathlib import Path
from typing import Any, Protocol

from topreward_ros.core.calibration.mapping import calibrations_digest
from topreward_ros.core.calibration.task import NO_CALIBRATIONS
from topreward_ros.core.calibration.told import DetectorLog
from topreward_ros.core.errors import UserError
from topreward_ros.core.evaluation import Control, EvaluatedEpisode, Run
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.core.output_files import kept_folder, write_file
from topreward_ros.offline.code_version import code_hash
from topreward_ros.offline.controls import OtherTasks, control_seconds, open_control
from topreward_ros.offline.job_processes import OnNote, OnShare, Work
from topreward_ros.offline.json_values import json_value
from topreward_ros.offline.kept_json import kept_text, read_kept, scored_again
from topreward_ros.offline.labelled_episodes import LabelledEpisode
from topreward_ros.offline.run_json import run_from_json, run_to_json_value
from topreward_ros.offline.score_video import Curve, CurvePoint, Recording, score_recordings
from topreward_ros.offline.video import Video
from topreward_ros.offline.workers import HERE, Workers
from topreward_ros.scoring.base import ScorerInfo, ScorerSettings
from topreward_ros.scoring.question.templates import file_digest
from topreward_ros.scoring.registry import ModelSettings, load_scorer

_FORMAT = "topreward_evaluated_film/1"  # raise the number when what is kept of a film changes its meaning


class Method(StrEnum):
    """How a film becomes a curve; the values stand in results."""

    TOPREWARD = "topreward"  #: by the monitor
    GVL = "gvl"  #: by a model that writes percentages, see `evaluation_gvl`


@dataclass(frozen=True)
class EvaluationSettings(ModelSettings):
    """How episodes are scored for an evaluation."""

    model: str  #: as `load_scorer` takes it
    monitor: MonitorSettings
    scorer: ScorerSettings
    controls: tuple[Control, ...]  #: beside the plain film
    other_task: str = ""  #: the wrong instruction for all; empty: another task of the data, or of the model
    rate: float = 0.0  #: [Hz] of films that state none
    method: Method = Method.TOPREWARD
    #: Whether runs hold what a detector is told (core/calibration/told.py), so that others can be asked when
    #: they would have fired. SUCCESS then never comes.
    with_told: bool = False


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The episodes with their runs."""

    episodes: tuple[EvaluatedEpisode, ...]
    model: Mapping[str, Any]  #: fields of `ScorerInfo` but the instructions
    problems: tuple[str, ...]  #: films that could not be scored
    resumed: int  #: films that an earlier run had scored
    unreached: int = 0  #: films that were not scored, as who scores them could not be reached


@dataclass(frozen=True, slots=True)
class Film:
    """One film that is to be scored."""

    episode: LabelledEpisode
    control: Control
    instruction: str
    key: str

    def open(self, sample_rate: float) -> Video:
        """Opens it for reading at ``sample_rate`` [Hz]. Raises `VideoError`."""
        return open_control(self.episode.open, self.control, sample_rate)


class FilmScorer(Protocol):
    """What makes curves of films."""

    info: ScorerInfo

    def __init__(self, settings: EvaluationSettings) -> None:
        """Load the model. Raises `ScorerError`."""

    @staticmethod
    def expected(film: Film, settings: EvaluationSettings) -> int:
        """How many steps of work a film is expected to need."""

    def scored(
        self, films: Sequence[Film], on_step: Callable[[float], None]
    ) -> Iterable[tuple[Film, Run | UserError]]:
        """The curve of each film, or the error that prevented it. ``on_step`` is called with 1 after each
        step, and with what was expected too many after each film."""

    def close(self) -> None:
        """Free memory."""


def score_episodes(
    episodes: Sequence[LabelledEpisode],
    settings: EvaluationSettings,
    folder: Path,
    on_start: Callable[[int], Callable[[float], None]],
    on_model: Callable[[ScorerInfo], None] = lambda _: None,
    make: type[FilmScorer] | None = None,
    workers: Workers = HERE,
    on_note: OnNote = lambda _: None,
) -> Evaluated:
    """Score ``episodes`` and their controls; what ``folder`` has is not scored again.

    ``on_start`` is called with the number of steps that are expected, before the first, and gives the
    ``on_step`` of `FilmScorer.scored`. ``make``: what makes the curves; None: `MonitorScorer`.
    ``workers``: who scores; others than this process are given film by film. ``on_note`` is told of what
    died, and of what an earlier run kept and cannot be used.

    Raises `UserError` where the model cannot be loaded, or no episode can be scored; and as `Workers.do`.
    """
    films = _films(episodes, settings, settings.about.instructions, settings.about.revision)
    with kept_folder(folder) as place:
        kept, damaged = _kept(films, place)
        if damaged:
            on_note(scored_again(damaged, "film", folder))
        missing = [film for film in films if film.key not in kept]
        errors: dict[str, str] = {}
        resumed, unreached = len(kept), 0
        make = make or MonitorScorer
        if workers.are_needed(len(missing)):
            scored = _scored_by(workers, make, settings, missing, on_start, on_model, on_note)
        else:
            scored = _scored_here(make, settings, missing, on_start, on_model)
        with closing(scored):
            for film, made in scored:
                if isinstance(made, UserError):
                    errors[film.key] = str(made)
                    unreached += made.temporary
                    continue
                kept[film.key] = made.run, _model(made.info)
                write_file(place / _name(film.key), _to_text(film.key, *kept[film.key]))
        _remove_old(place)
    return _evaluated(episodes, films, kept, errors, resumed, unreached)


@dataclass(frozen=True, slots=True)
class _Scored:
    """What became of a film, and by which model."""

    run: Run
    info: ScorerInfo


_Kept = tuple[Run, dict[str, Any]]  # and the model
_Films = Generator[tuple[Film, _Scored | UserError], None, None]
_OnStart = Callable[[int], Callable[[float], None]]


def _scored_here(
    make: type[FilmScorer],
    settings: EvaluationSettings,
    films: Sequence[Film],
    on_start: _OnStart,
    on_model: Callable[[ScorerInfo], None],
) -> _Films:
    """Score ``films`` in this process; a model is loaded where there are any."""
    if not films:
        return
    scorer = make(settings)
    try:
        on_model(scorer.info)
        on_step = on_start(sum(make.expected(film, settings) for film in films))
        for film, made in scorer.scored(films, on_step):
            yield film, made if isinstance(made, UserError) else _Scored(made, scorer.info)
    finally:
        scorer.close()


def _scored_by(
    workers: Workers,
    make: type[FilmScorer],
    settings: EvaluationSettings,
    films: Sequence[Film],
    on_start: _OnStart,
    on_model: Callable[[ScorerInfo], None],
    on_note: OnNote,
) -> _Films:
    """Have ``workers`` score ``films``. ``on_model`` is called with the model of the first that is done."""
    settings = replace(settings, scorer=workers.scorer(settings.scorer))
    work = Work(
        partial(_FilmWorker, make, settings, tuple(films)),
        _FilmWorker.score,
        lambda number: f"{films[number].episode.name} ({films[number].control.value})",
    )
    on_step = on_start(sum(make.expected(film, settings) for film in films))
    known = False
    done = workers.do(range(len(films)), work, settings.scorer.device, lambda *_: None, on_note)
    with closing(done) as outcomes:
        for number, outcome in outcomes:
            if isinstance(outcome, _Scored) and not known:
                known = True
                on_model(outcome.info)
            on_step(make.expected(films[number], settings))
            yield films[number], outcome


class _FilmWorker:
    """What a worker has: the films, sent once, and a model of its own."""

    def __init__(self, make: type[FilmScorer], settings: EvaluationSettings, films: tuple[Film, ...]) -> None:
        self._films = films
        self._scorer = make(settings)

    def score(self, number: int, _: OnShare) -> _Scored:
        ((__, made),) = self._scorer.scored([self._films[number]], lambda _: None)
        if isinstance(made, UserError):
            raise made
        return _Scored(made, self._scorer.info)


def _name(key: str) -> str:
    """The name of the file that keeps a film; what other code made is known by it."""
    return f"{code_hash()}_{key}.json"


def _remove_old(folder: Path) -> None:
    """Remove films that other code scored: they are never used again."""
    for path in folder.glob("*_*.json"):
        if not path.name.startswith(f"{code_hash()}_"):
            path.unlink(missing_ok=True)


def _films(
    episodes: Sequence[LabelledEpisode],
    settings: EvaluationSettings,
    known: Sequence[str],
    revision: str,
) -> list[Film]:
    others = OtherTasks(tuple(dict.fromkeys(it.task for it in episodes)), tuple(known), settings.other_task)
    places: dict[str, int] = {}
    films = []
    for episode in episodes:
        place = places[episode.task] = places.get(episode.task, -1) + 1
        for control in (Control.PLAIN, *settings.controls):
            instruction = episode.task
            if control is Control.WRONG_INSTRUCTION:
                instruction = others.of(episode.task, place)
            if instruction:
                key = _key(episode, control, instruction, settings, revision)
                films.append(Film(episode, control, instruction, key))
    return films


def _key(
    episode: LabelledEpisode,
    control: Control,
    instruction: str,
    settings: EvaluationSettings,
    revision: str,
) -> str:
    content = {
        "format": _FORMAT,
        "model": revision,
        "monitor": monitor_hash(settings.monitor),
        "scorer": {name: value for name, value in asdict(settings.scorer).items() if name != "threads"},
        "prompts": file_digest(settings.scorer.prompts),
        "frames": episode.identity,
        "rate": settings.rate,
        "method": settings.method.value,
        "control": control.value,
        "instruction": instruction,
    }
    if settings.with_told:
        content["told"] = True
    text = json.dumps(json_value(content), sort_keys=True)
    return sha256(text.encode(errors="backslashreplace")).hexdigest()[:32]


class MonitorScorer:
    """Curves by the monitor's state machine, as live."""

    def __init__(self, settings: EvaluationSettings) -> None:
        """Load the model. Raises `ScorerError`."""
        self._all = settings
        self._settings = settings.monitor
        self._with_told = settings.with_told
        self._scorer = load_scorer(settings.model, settings.scorer)
        self.info = self._scorer.info

    @staticmethod
    def expected(film: Film, settings: EvaluationSettings) -> int:
        """See `FilmScorer.expected`."""
        seconds = film.episode.duration_s if isfinite(film.episode.duration_s) else 0.0
        return 1 + int(control_seconds(film.control, seconds) * settings.monitor.sample_rate)

    def scored(
        self, films: Sequence[Film], on_step: Callable[[float], None]
    ) -> Iterable[tuple[Film, Run | UserError]]:
        """See `FilmScorer.scored`; group by group, so that what is done can be kept before the end."""
        at_once = max(1, self._scorer.episodes_at_once())
        for first in range(0, len(films), at_once):
            group = films[first : first + at_once]
            left = sum(self.expected(film, self._all) for film in group)

            def count(_: CurvePoint) -> None:
                nonlocal left
                left -= 1
                on_step(1)

            rate = self._settings.sample_rate
            logs = [
                DetectorLog(self._settings.success.confirm_rate) if self._with_told else None for _ in group
            ]
            recordings = [
                Recording(film.episode.name, film.instruction, partial(film.open, rate), log)
                for film, log in zip(group, logs, strict=True)
            ]
            outcomes = score_recordings(
                recordings, self._scorer, self._settings, at_once=at_once, on_score=count
            )
            on_step(left)
            for film, outcome, log in zip(group, outcomes, logs, strict=True):
                yield film, _run(outcome, log) if isinstance(outcome, Curve) else outcome

    def close(self) -> None:
        """See `FilmScorer.close`."""
        self._scorer.close()


def _run(curve: Curve, log: DetectorLog | None) -> Run:
    return Run(
        curve.instruction,
        tuple(point.time_s for point in curve.points),
        tuple(point.score for point in curve.points),
        tuple(point.stage for point in curve.points),
        tuple(point.progress for point in curve.points),
        curve.duration_s,
        tuple((event.time_s, event.type) for event in curve.events),
        tuple(point.threshold for point in curve.points),
        tuple(log.told) if log else (),
    )


def _model(info: ScorerInfo) -> dict[str, Any]:
    return {name: value for name, value in asdict(info).items() if name != "instructions"}


def _evaluated(
    episodes: Sequence[LabelledEpisode],
    films: Sequence[Film],
    kept: Mapping[str, _Kept],
    errors: Mapping[str, str],
    resumed: int,
    unreached: int,
) -> Evaluated:
    made, problems = [], []
    for episode in episodes:
        runs = {}
        for film in films:
            if film.episode is not episode:
                continue
            run = kept[film.key][0] if film.key in kept else None
            if run is not None and run.scores:
                runs[film.control] = run
            else:
                why = errors.get(film.key) or f"{episode.name} has no frame that can be scored"
                problems.append(why if film.control is Control.PLAIN else f"{film.control.value}: {why}")
        if Control.PLAIN in runs:
            made.append(
                EvaluatedEpisode(
                    episode.name, episode.identity, episode.task, episode.succeeded, episode.done_s, runs
                )
            )
    if not made:
        raise UserError(f"no episode could be scored; the first: {problems[0]}")
    model = next(kept[film.key][1] for film in films if film.key in kept)
    return Evaluated(tuple(made), model, tuple(dict.fromkeys(problems)), resumed, unreached)


# ---- what is kept -----------------------------------------------------------------------------------------


def _to_text(key: str, run: Run, model: Mapping[str, Any]) -> str:
    return kept_text(key, {"format": _FORMAT, "model": dict(model), **run_to_json_value(run)})


def _kept(films: Sequence[Film], folder: Path) -> tuple[dict[str, _Kept], int]:
    """What ``folder`` has of ``films``, by key; and of how many it has what cannot be used."""
    found, damaged = {}, 0
    for key in dict.fromkeys(film.key for film in films):
        try:
            content = read_kept(folder / _name(key), key)
            if content is not None:
                found[key] = run_from_json(content), dict(content["model"].members())
        except ValueError:
            damaged += 1
    return found, damaged


def monitor_for_evaluation(settings: MonitorSettings) -> MonitorSettings:
    """Settings with which the whole film is scored, whatever the monitor decides."""
    return replace(settings, end_episode_on_success=False)


def monitor_hash(settings: MonitorSettings) -> str:
    """A hash of all settings, and of what the calibrations say, whatever file they are in."""
    said = calibrations_digest(settings.calibrations) if settings.calibrations else ""
    plain = repr(replace(settings, calibrations=NO_CALIBRATIONS))
    return sha256((plain + said).encode()).hexdigest()[:16]
