"""An evaluation as data and as JSON: measures, and all that is needed to get the same numbers again.

Nothing in it depends on when or where it was made, so that a second run of the same data, code, model and
settings writes the same bytes. How it looks to people is decided in views/.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from topreward_ros.core.calibration.mapping import calibrations_digest
from topreward_ros.core.errors import UserError
from topreward_ros.core.evaluation import (
    Control,
    EvaluatedEpisode,
    Measure,
    Mode,
    evaluate,
    modes_beside,
)
from topreward_ros.core.json_text import parsed_json
from topreward_ros.core.metrics import value_order_correlation
from topreward_ros.core.printable import printable
from topreward_ros.core.text_files import read_text
from topreward_ros.offline.code_version import code_hash, package_version
from topreward_ros.offline.evaluation_runs import (
    Evaluated,
    EvaluationSettings,
    Method,
    monitor_hash,
)
from topreward_ros.offline.json_fields import Field, FieldError
from topreward_ros.offline.json_values import json_value
from topreward_ros.offline.labelled_episodes import Labelled
from topreward_ros.offline.run_json import ImpossibleRunError, run_from_json, run_to_json_value

JSON_FORMAT = "topreward_evaluation/1"  #: raise the number when a field changes its meaning or goes
SEED = 0  #: of the bootstraps


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was evaluated, how, and what came of it."""

    data: Mapping[str, Any]  #: ``path`` as it was given, ``hash`` of frames and labels, ``episodes``
    code: Mapping[str, str]  #: ``version`` and ``hash``
    model: Mapping[str, Any]  #: fields of `ScorerInfo` but the instructions
    settings: Mapping[str, Any]  #: ``monitor``, ``scorer``, ``controls`` and what else the numbers depend on
    threshold: float  #: of success [nat], where no calibration says another
    episodes: tuple[EvaluatedEpisode, ...]
    measures: tuple[Measure, ...]
    problems: tuple[str, ...]  #: what was left out
    notes: tuple[str, ...]  #: what to know of the rest

    @property
    def mode(self) -> Mode:
        """The mode that is what the monitor gives by the settings."""
        if self.settings.get("method") == Method.GVL.value:
            return Mode.LIVE
        name = _progress_mode(self.settings)
        return Mode.LIVE if Mode.LIVE in modes_beside(name) else Mode(name)

    def measure(self, scope: str, mode: str, name: str) -> Measure | None:
        """The measure of that name; None where it was not taken."""
        wanted = (scope, mode, name)
        return next((it for it in self.measures if (it.scope, it.mode, it.name) == wanted), None)


def _progress_mode(settings: Mapping[str, Any]) -> str:
    monitor = settings.get("monitor")
    return str(monitor.get("progress_mode", "")) if isinstance(monitor, dict) else ""


def make_evaluation(
    path: str,
    labelled: Labelled,
    evaluated: Evaluated,
    settings: EvaluationSettings,
    notes: Sequence[str] = (),
) -> Evaluation:
    """Take the measures of what was scored. ``path``: of the data, as the user named it."""
    threshold = settings.monitor.success.threshold
    modes = modes_beside(settings.monitor.progress_mode.value)
    if settings.method is Method.GVL:
        modes = (Mode.LIVE,)  # a value per frame is all there is
    labels = [[it.identity, it.task, it.succeeded, it.done_s] for it in labelled.episodes]
    scorer = {name: value for name, value in asdict(settings.scorer).items() if name not in ("threads",)}
    return Evaluation(
        data={
            "path": path,
            "hash": sha256(json.dumps(labels).encode()).hexdigest()[:16],
            "episodes": len(labelled.episodes),
        },
        code={"version": package_version(), "hash": code_hash()},
        model=evaluated.model,
        settings=json_value(
            {
                "monitor": {
                    name: value for name, value in asdict(settings.monitor).items() if name != "calibrations"
                },
                "monitor_hash": monitor_hash(settings.monitor),  # of calibrations, too
                "calibration": _calibration(settings, evaluated.episodes),
                "scorer": scorer,
                "method": settings.method.value,
                "controls": [it.value for it in settings.controls],
                "other_task": settings.other_task,
                "rate": settings.rate,
                "seed": SEED,
            }
        ),
        threshold=threshold,
        episodes=evaluated.episodes,
        measures=tuple(evaluate(evaluated.episodes, threshold, modes, SEED)),
        problems=(*labelled.problems, *evaluated.problems),
        notes=(*labelled.notes, *notes),
    )


def _calibration(settings: EvaluationSettings, episodes: Sequence[EvaluatedEpisode]) -> dict[str, Any] | None:
    """``file``, ``sha256`` of what it says, and ``success``: of each task the threshold [nat] that was in
    force at the end of its episodes, several where it did not hold for all of them. None: there is none."""
    calibrations = settings.monitor.calibrations
    if not calibrations or settings.method is Method.GVL:
        return None
    success: dict[str, list[float]] = {}
    for episode in episodes:
        found = success.setdefault(episode.task, [])
        found += [it for it in episode.plain.thresholds[-1:] if it not in found]
    return {"file": calibrations.source, "sha256": calibrations_digest(calibrations), "success": success}


def to_json(evaluation: Evaluation) -> str:
    """The evaluation as JSON text.

    ``format``: ``topreward_evaluation/1``; ``data``, ``code``, ``model``, ``settings``, ``threshold``,
    ``problems``, ``notes``: the fields of `Evaluation`; ``measures``: those of `Measure`, with null for NaN;
    ``episodes``: per episode ``name``, ``identity``, ``task``, ``success`` (null: not known), ``done`` [s],
    ``plain``: its curve, and ``controls``: of each ``instruction``, ``final`` and ``voc`` by mode,
    ``success`` [s] or null, ``events``: time [s] and type.
    """
    content = {
        "format": JSON_FORMAT,
        "data": dict(evaluation.data),
        "code": dict(evaluation.code),
        "model": dict(evaluation.model),
        "settings": dict(evaluation.settings),
        "threshold": evaluation.threshold,
        "measures": [asdict(measure) for measure in evaluation.measures],
        "episodes": [_episode_value(it, evaluation.threshold) for it in evaluation.episodes],
        "problems": list(evaluation.problems),
        "notes": list(evaluation.notes),
    }
    return json.dumps(json_value(content), indent=1, ensure_ascii=True, allow_nan=False) + "\n"


def _episode_value(episode: EvaluatedEpisode, threshold: float) -> dict[str, Any]:
    controls = {
        control.value: {
            "instruction": run.instruction,
            "final": {mode.value: run.final(mode, threshold) for mode in Mode},
            "voc": {mode.value: value_order_correlation(run.values(mode, threshold)) for mode in Mode},
            "success": run.success_s,
            "events": [[time_s, kind] for time_s, kind in run.events],
        }
        for control, run in episode.runs.items()
        if control is not Control.PLAIN
    }
    return {
        "name": episode.name,
        "identity": episode.identity,
        "task": episode.task,
        "success": episode.succeeded,
        "done": episode.done_s,
        "plain": run_to_json_value(episode.plain),
        "controls": controls,
    }


def read_evaluation(path: Path) -> Evaluation:
    """The evaluation in a file that `to_json` made, with the curves of the plain films alone.

    Raises `UserError` for any other file, and for one with a field that nothing here could have written.
    """
    shown = printable(str(path))
    text = read_text(path)
    try:
        content = Field(parsed_json(text))
        if content["format"].value != JSON_FORMAT:
            raise content["format"].error(JSON_FORMAT)
        if content["threshold"].number() > 0:
            raise content["threshold"].error("0 or less")
        return Evaluation(
            data=_with_texts(content["data"], "path", "hash"),
            code=_with_texts(content["code"], "version", "hash"),
            model=_model(content["model"]),
            settings=_settings(content["settings"]),
            threshold=content["threshold"].number(),
            episodes=tuple(map(_episode_of, content["episodes"].items())),
            measures=tuple(map(_measure, content["measures"].items())),
            problems=tuple(it.text() for it in content["problems"].items()),
            notes=tuple(it.text() for it in content["notes"].items()),
        )
    except ValueError as error:
        why = printable(str(error), 300)
        raise UserError(
            f"{shown} is no evaluation of `topreward evaluate` ({why}): name its evaluation.json"
        ) from error


def _with_texts(field: Field, *names: str) -> dict[str, Any]:
    """The object, whose fields ``names`` are texts."""
    for name in names:
        field[name].text()
    return dict(field.members())


def _model(field: Field) -> dict[str, Any]:
    if field.get("answers").value is not None:
        field["answers"].text()
    return _with_texts(field, "model_id", "revision", "device", "dtype", "prompt_hash")


def _settings(field: Field) -> dict[str, Any]:
    field["monitor"].members()
    for control in field["controls"].items():
        control.text()
    calibration = field.get("calibration")
    if calibration.value is not None:
        _with_texts(calibration, "file", "sha256")
        success = calibration["success"]
        for task in success.members():
            for threshold in success[task].items():
                threshold.number()
    return _with_texts(field, "method")


def _measure(field: Field) -> Measure:
    scope, mode, name = (field[key].text() for key in ("scope", "mode", "name"))
    value, low, high = (field[key].number_or_nan() for key in ("value", "low", "high"))
    return Measure(scope, mode, name, value, low, high, field["count"].whole())


def _episode_of(field: Field) -> EvaluatedEpisode:
    success, done = field["success"], field["done"]
    plain = field["plain"]
    try:
        run = run_from_json(plain)
    except ImpossibleRunError as error:
        raise FieldError(f"{plain.path}: {error}") from error
    if not run.scores:
        raise FieldError(f"{plain.path} has no score")
    if done.value is not None and done.number() < 0:
        raise done.error("0 or more")
    return EvaluatedEpisode(
        field["name"].text(),
        field["identity"].text(),
        field["task"].text(),
        None if success.value is None else success.flag(),
        None if done.value is None else done.number(),
        {Control.PLAIN: run},
    )
