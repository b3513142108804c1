"""Tasks calibrated from labelled episodes that were scored: into a file, with what the report shows of it.

Scoring is done by evaluation_runs.py, which keeps what is done; what is learnt of the scores stands in
core/calibration/. Here episodes become curves, tasks are told apart, and what cannot be calibrated becomes a
sentence while the other tasks stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from math import isfinite, nan
from pathlib import Path

from topreward_ros.core.calibration.curves import LabelledCurve, Look
from topreward_ros.core.calibration.fit import FEWEST, CalibrationError, Fit, IndistinguishableError, fit_task
from topreward_ros.core.calibration.task import Calibrations, Setup
from topreward_ros.core.errors import UserError
from topreward_ros.core.evaluation import Control, EvaluatedEpisode
from topreward_ros.core.printable import printable
from topreward_ros.core.progress import ProgressMode, live_progress
from topreward_ros.offline.calibration_file import camera_name, read_calibrations, setup_of
from topreward_ros.offline.evaluation_runs import Evaluated, EvaluationSettings
from topreward_ros.offline.label_checks import by_task, class_problems, generic_task_problem
from topreward_ros.offline.labelled_episodes import LabelledEpisode
from topreward_ros.scoring.base import ScorerInfo

_SHOWN = 3  # names in a sentence


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What a run has learnt."""

    setup: Setup
    fits: tuple[Fit, ...]  #: a task each
    problems: tuple[str, ...]  #: tasks that could not be calibrated, and why
    #: Those of them of which the model cannot tell a success: how many successes and failures there were.
    hopeless: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Usable:
    """The labelled episodes that a calibration is made from."""

    episodes: tuple[LabelledEpisode, ...]
    problems: tuple[str, ...]  #: tasks that were left out, and what is needed
    layout: str  #: of the cameras, the same for all
    cameras: tuple[str, ...]  #: their topics without the robot's namespace; none: of videos
    notes: tuple[str, ...] = ()  #: what was left out


def usable(episodes: Sequence[LabelledEpisode], namespace: str = "") -> Usable:
    """The episodes that can serve, seen by one camera. Raises `CalibrationError` where none can.

    ``namespace``: of the robot in bags.
    """
    if generic := generic_task_problem(episodes):
        raise CalibrationError(generic)
    notes = []
    unknown = [it.name for it in episodes if it.succeeded is None]
    if unknown:
        notes.append(f"nobody says whether {_names(unknown)} succeeded: left out; label them")
    known = [it for it in episodes if it.succeeded is not None]
    if not known:
        raise CalibrationError(
            f"no episode is labelled as a success or a failure, {_names(unknown)} among them: say it in the "
            "column success, or by --success and --failure"
        )
    problems = class_problems(known, FEWEST)
    short = {task for task, group in by_task(known).items() if class_problems(group, FEWEST)}
    if len(short) == len(by_task(known)):
        raise CalibrationError("; ".join(problems))
    known = [it for it in known if it.task not in short]
    staged = [it.name for it in known if "\n" in it.task]
    if staged:
        raise CalibrationError(
            f"the task of {_names(staged)} has several stages, each of which is calibrated by itself: cut "
            "the recordings where a stage ends, and give each its own line as the task"
        )
    views = {(it.layout, tuple(camera_name(topic, namespace) for topic in it.cameras)): it for it in known}
    if len(views) > 1:
        (one, first), (other, second) = list(views.items())[:2]
        raise CalibrationError(
            f"{first.name} is seen by {_view(*one)} and {second.name} by {_view(*other)}: a calibration is "
            "of one view; name it by --image-topic, or calibrate one after the other into two files"
        )
    ((layout, cameras),) = views
    return Usable(tuple(known), tuple(problems), layout, cameras, tuple(notes))


def _view(layout: str, cameras: Sequence[str]) -> str:
    return f"{printable(' '.join(cameras), 200) or 'a video'} ({layout})"


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return printable(", ".join(names[:_SHOWN]), 400) + more


def setup_for(data: Usable, settings: EvaluationSettings, info: ScorerInfo) -> Setup:
    """The setup that a calibration of ``data`` holds for."""
    return setup_of(info, settings.monitor, settings.scorer, data.layout, data.cameras)


def existing(path: Path) -> Calibrations:
    """The calibrations that a file holds already, none where there is no file. Raises `CalibrationError`,
    `TextFileError`."""
    return read_calibrations(str(path)) if path.exists() else Calibrations(source=str(path))


def check_same_setup(there: Calibrations, setup: Setup) -> None:
    """Raise `CalibrationError` where a file is of another setup, so that no task can be added to it."""
    if there.setup is None:
        return
    differences = there.setup.differences(setup)
    if differences:
        name, was, now = differences[0]
        raise CalibrationError(
            f"{printable(there.source, 300)} is there, and was made for another setup ({name} {was}, and "
            f"{now} here): remove it, or name another folder by --output"
        )


def calibrate(
    data: Usable,
    evaluated: Evaluated,
    settings: EvaluationSettings,
    false_alarms: float,
    on_step: Callable[[], None] = lambda: None,
) -> Calibrated:
    """Calibrate every task of ``data`` at a rate of ``false_alarms`` in [0, 1].

    ``on_step`` is called twice per episode that was scored. Raises `CalibrationError` where no task can be.
    """
    info = ScorerInfo(
        **{it.name: evaluated.model[it.name] for it in fields(ScorerInfo) if it.name in evaluated.model}
    )
    runs = {(it.identity, it.task): it for it in evaluated.episodes}
    fits, problems, hopeless = [], [], {}
    for task, episodes in by_task(data.episodes).items():
        scored = [(it, runs[it.identity, it.task]) for it in episodes if (it.identity, it.task) in runs]
        curves = [_curve(episode, run, settings) for episode, run in scored]
        try:
            fits.append(
                fit_task(
                    task,
                    [curve for curve in curves if curve.looks],
                    settings.monitor.success,
                    settings.monitor.sample_rate,
                    false_alarms,
                    picture=_picture([episode for episode, _ in scored]),
                    on_step=on_step,
                )
            )
        except CalibrationError as error:
            problems.append(str(error))
            if isinstance(error, IndistinguishableError):
                of_class = [curve.success for curve in curves if curve.looks]
                hopeless[task] = of_class.count(True), of_class.count(False)
    if not fits and not hopeless:
        raise CalibrationError("; ".join(problems))
    return Calibrated(setup_for(data, settings, info), tuple(fits), tuple(problems), hopeless)


def written(there: Calibrations, calibrated: Calibrated) -> Calibrations:
    """What the file holds afterwards: what is there, with the new tasks, and without those of which as many
    new episodes as they were made from show that the model cannot tell."""
    new = [fit.calibration for fit in calibrated.fits]
    gone = [
        task
        for task, (successes, failures) in calibrated.hopeless.items()
        if (old := there.of(task)) and successes >= old.successes and failures >= old.failures
    ]
    return replace(there, setup=calibrated.setup).with_tasks(new).without(gone)


def _curve(
    episode: LabelledEpisode, evaluated: EvaluatedEpisode, settings: EvaluationSettings
) -> LabelledCurve:
    run = evaluated.runs[Control.PLAIN]
    threshold = settings.monitor.success.threshold
    looks = tuple(
        Look(
            round(time_s * 1e9),
            score.success_log_prob,
            score.log_prob_static,
            live_progress(score, ProgressMode.STATIC_BASELINE, threshold),
        )
        for time_s, score in zip(run.times_s, run.scores, strict=True)
    )
    if not any(isfinite(look.log_prob) for look in looks):
        looks = ()
    done_s = nan if episode.done_s is None else episode.done_s
    return LabelledCurve(episode.name, bool(episode.succeeded), looks, done_s, run.duration_s, run.told)


def _picture(episodes: Sequence[LabelledEpisode]) -> tuple[int, int] | None:
    """Width and height of the frames [px], where all have the same."""
    sizes = set()
    for episode in episodes:
        with suppress(UserError):
            info = episode.open().info
            sizes.add((info.width, info.height))
    return sizes.pop() if len(sizes) == 1 else None


def sizes_note(calibrated: Calibrated) -> list[str]:
    """What to say of tasks whose episodes have frames of several sizes."""
    return [
        f"'{printable(fit.calibration.task, 100)}': its episodes have frames of several sizes, so that a "
        "monitor cannot tell whether its own are like them"
        for fit in calibrated.fits
        if fit.calibration.picture is None
    ]
