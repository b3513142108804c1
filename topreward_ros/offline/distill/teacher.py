"""A teacher's curves: of a model that is asked now, or of files that `topreward score --json` wrote."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from math import isfinite, nan
from pathlib import Path
from typing import Any

from topreward_ros.core.counted import counted
from topreward_ros.core.errors import UserError
from topreward_ros.core.evaluation import Control, EvaluatedEpisode, Run
from topreward_ros.core.instruction import normalized_instruction
from topreward_ros.core.json_text import JsonError, parsed_json
from topreward_ros.core.plain_files import PlainFileError, TooLargeError, read_plain
from topreward_ros.core.printable import printable
from topreward_ros.core.progress import PrefixScore
from topreward_ros.offline.labelled_episodes import LabelledEpisode
from topreward_ros.offline.run_json import check_run
from topreward_ros.offline.score_video import JSON_FORMAT, JSON_FORMAT_OF_SEVERAL

_LARGEST_FILE = 512 << 20  # bytes
_MOST_SCORES = 1_000_000  # of a curve
_LEAST_LOG_PROB = -1000.0  # [nat] of a score of a model
_MEND = "write it with `topreward score --json`"


class CurvesError(UserError):
    """Curves cannot be read."""


def read_curves(
    files: Sequence[Path], episodes: Sequence[LabelledEpisode]
) -> tuple[dict[int, EvaluatedEpisode], str, list[str]]:
    """The curves of ``episodes`` that ``files`` hold, by the place of the episode; what the teacher calls
    itself; and why others have none. Raises `CurvesError` where none has.

    A curve belongs to the video that it names, as seen from here or from the folder of its file. The end of a
    path says nothing: many data sets have an episode_0000.mp4.
    """
    places = {_real(Path(it.name)): number for number, it in enumerate(episodes)}
    names = {it.name: number for number, it in enumerate(episodes)}
    strange = ""  # a video that is none of the episodes
    found: dict[int, EvaluatedEpisode] = {}
    models: list[str] = []
    problems = []
    for file in files:
        for curve in _curves_in(file):
            video = curve.get("video")
            if not isinstance(video, str):
                continue
            try:
                here = (_real(Path(video)), _real(file.parent / video))
            except ValueError:  # no name that a file can have
                continue
            number = next((places[it] for it in here if it in places), names.get(video))
            if number is None:
                strange = strange or here[1]
                continue
            episode = episodes[number]
            try:
                if number in found:
                    raise ValueError("another curve of it came before, and which of them counts is not known")
                run = _run(curve, episode)
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                problems.append(
                    f"{episode.name}: its curve in {printable(str(file))} cannot be used "
                    f"({printable(str(error), 200)}): {_MEND}"
                )
                continue
            found[number] = EvaluatedEpisode(
                episode.name,
                episode.identity,
                episode.task,
                episode.succeeded,
                episode.done_s,
                {Control.PLAIN: run},
            )
            model = curve.get("model")
            if isinstance(model, Mapping):
                models.append(teacher_name(model))
    if not found:
        raise CurvesError(
            problems[0]
            if problems
            else f"{', '.join(printable(str(it), 200) for it in files[:3])} holds no curve of any of the "
            f"{counted(len(episodes), 'episode')} (the first is {episodes[0].name}"
            f"{f', and a curve is of {printable(strange, 300)}' if strange else ''}): {_MEND}, of the same "
            "files; names without a folder count from here and from the folder of the file of curves"
        )
    without = [it.name for number, it in enumerate(episodes) if number not in found]
    shown = {problem.split(":")[0] for problem in problems}
    problems += [f"{name}: no curve of it is there: it is left out" for name in without if name not in shown]
    return found, ", ".join(dict.fromkeys(filter(None, models))) or "curves of files", problems


def teacher_name(model: Mapping[str, Any]) -> str:
    """What a card calls the teacher, from the fields of its `ScorerInfo`: its name, and which weights it had.

    >>> teacher_name({"model_id": "Qwen/Qwen3-VL-8B-Instruct", "revision": "0c351dd"}), teacher_name({})
    ('Qwen/Qwen3-VL-8B-Instruct, revision 0c351dd', '')
    """
    name, revision = (printable(str(model.get(key) or ""), 200) for key in ("model_id", "revision"))
    return f"{name}, revision {revision}" if name and revision else name


def _real(path: Path) -> str:
    return os.path.realpath(os.path.expanduser(path))


def _curves_in(file: Path) -> list[dict[str, Any]]:
    """The curves in a file of one or of several. Raises `CurvesError`."""
    shown = printable(str(file))
    try:
        content = parsed_json(read_plain(file, _LARGEST_FILE))
    except TooLargeError as error:
        raise CurvesError(f"{shown} {error}: split it") from error
    except PlainFileError as error:
        raise CurvesError(f"{shown} {error}") from error
    except OSError as error:
        raise CurvesError(f"{shown} cannot be read ({error.strerror}): check the path of --curves") from error
    except JsonError as error:
        raise CurvesError(f"{shown} is no JSON of curves ({printable(str(error), 200)}): {_MEND}") from error
    kind = content.get("format") if isinstance(content, dict) else None
    curves = (
        [content] if kind == JSON_FORMAT else content.get("curves") if kind == JSON_FORMAT_OF_SEVERAL else 0
    )
    if not isinstance(curves, list):
        raise CurvesError(f"{shown} is not of the format {JSON_FORMAT} or {JSON_FORMAT_OF_SEVERAL}: {_MEND}")
    return [it for it in curves if isinstance(it, dict) and "error" not in it]


def _run(curve: Mapping[str, Any], episode: LabelledEpisode) -> Run:
    """A curve as a run. Raises `KeyError`, `TypeError`, `ValueError`, `OverflowError`."""
    instruction = str(curve.get("instruction", episode.task))
    if normalized_instruction(instruction) != normalized_instruction(episode.task):
        raise ValueError(f"it is of the instruction '{instruction}', the episode of '{episode.task}'")
    if curve.get("ended_early"):
        raise ValueError(
            "it stops where the monitor ended the episode, before the video does: score with --set "
            "end_episode_on_success=false --set episode_timeout=0 --set failure_threshold=0"
        )
    scores = curve["scores"]
    if not isinstance(scores, list) or not 0 < len(scores) <= _MOST_SCORES:
        raise ValueError("scores must be a list of at least one score")
    times = tuple(_number(score["time"]) for score in scores)
    made = [
        PrefixScore(
            _number(score.get("log_prob")),
            _number(score.get("log_prob_false")),
            log_prob_static=_number(score.get("log_prob_static")),
            stated_progress=_number(score.get("stated_progress")),
            num_frames=int(score.get("num_frames") or 0),
        )
        for score in scores
    ]
    log_probs = (it for score in made for it in (score.log_prob, score.log_prob_static))
    lowest = next((it for it in log_probs if it < _LEAST_LOG_PROB), None)
    if lowest is not None:
        raise ValueError(f"a log-probability of {lowest:g} is lower than a model says")
    duration = _number(curve.get("duration"))
    run = Run(
        episode.task,
        times,
        tuple(made),
        (1,) * len(made),
        tuple(_number(score.get("progress")) for score in scores),
        duration if isfinite(duration) else times[-1],
        tuple((_number(it["time"]), str(it["type"])) for it in curve.get("events") or ()),
    )
    check_run(run)
    return run


def _number(value: Any) -> float:
    """A number of a file; NaN where there is none, or an infinite one."""
    if value is None:
        return nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return float(value) if isfinite(value) else nan
