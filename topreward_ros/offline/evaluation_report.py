"""An evaluation as data and as JSON: measures, and all that is needed to get the same numbers again.

Nothing in it depends on when or where it was made, so that a second run of the same data, code, model and
settings writes the same bytes. How it looks to people is decided in views/.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from math import nan
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
    run_from_json_value,
    run_to_json_value,
)
from topreward_ros.offline.json_values import json_value
from topreward_ros.offline.labelled_episodes import Labelled

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

    Raises `UserError` for any other file.
    """
    shown = printable(str(path))
    try:
        content = parsed_json(read_text(path))
        if content["format"] != JSON_FORMAT:
            raise ValueError(f"its format is {printable(repr(content['format']), 60)}, and not {JSON_FORMAT}")
        episodes = tuple(_episode_of(it) for it in content["episodes"])
        measures = tuple(
            Measure(**{name: _number(value) for name, value in it.items()}) for it in content["measures"]
        )
        return Evaluation(
            data=dict(content["data"]),
            code=dict(content["code"]),
            model=dict(content["model"]),
            settings=dict(content["settings"]),
            threshold=float(content["threshold"]),
            episodes=episodes,
            measures=measures,
            problems=tuple(map(str, content["problems"])),
            notes=tuple(map(str, content["notes"])),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        why = printable(f"{type(error).__name__}: {error}", 200)
        raise UserError(
            f"{shown} is no evaluation of `topreward evaluate` ({why}): name its evaluation.json"
        ) from error


def _number(value: Any) -> Any:
    return nan if value is None else value


def _episode_of(content: Mapping[str, Any]) -> EvaluatedEpisode:
    done = content["done"]
    return EvaluatedEpisode(
        str(content["name"]),
        str(content["identity"]),
        str(content["task"]),
        None if content["success"] is None else bool(content["success"]),
        None if done is None else float(done),
        {Control.PLAIN: run_from_json_value(content["plain"])},
    )
