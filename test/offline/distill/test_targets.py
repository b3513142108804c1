"""What a student is told to say: counted by hand from a teacher's scores and labels."""

from __future__ import annotations

from math import nan

import numpy as np
import pytest

from topreward_ros.core.evaluation import Control, EvaluatedEpisode, Run
from topreward_ros.core.progress import PrefixScore
from topreward_ros.offline.distill import targets
from topreward_ros.offline.distill.films import Film, Packed
from topreward_ros.offline.distill.targets import TargetError, baselines, check_targets, footage, progress_of
from topreward_ros.offline.labelled_episodes import LabelledEpisode


def run(*log_probs: float, static: float = nan, task: str = "open it") -> Run:
    scores = tuple(PrefixScore(r, nan, log_prob_static=static) for r in log_probs)
    times = tuple(k / 2 for k in range(len(scores)))
    return Run(task, times, scores, (1,) * len(scores), (nan,) * len(scores), times[-1])


def film(frames: int, succeeded: bool | None, done_s: float | None = None) -> Film:
    episode = LabelledEpisode("a", "open it", succeeded, done_s, "id", lambda: None, nan)  # type: ignore[arg-type]
    return Film(episode, Packed([b""] * frames), np.arange(frames) / 4, (32, 32))


def told(film: Film, curve: Run, baseline: float = -4.0) -> targets.Footage:
    episode = EvaluatedEpisode("a", "id", "open it", None, None, {Control.PLAIN: curve})
    return footage(film, episode, baseline)


def test_a_score_becomes_the_progress_that_the_monitor_shows() -> None:
    assert progress_of(run(-4.0, -2.0, -1.0, -5.0, static=-4.0), nan).tolist() == [0.0, 0.5, 0.75, 0.0]
    stated = Run("", (0.0,), (PrefixScore(nan, nan, stated_progress=0.3),), (1,), (nan,), 0.0)
    assert progress_of(stated, nan).tolist() == [0.3]


def test_without_a_static_score_the_first_scores_of_the_task_stand_for_it() -> None:
    runs = [run(-4.0, -1.0), run(nan, -3.0, -2.0), run(-5.0, -2.0), run(-1.0, task="close it")]
    assert baselines(runs) == {"open it": -4.0, "close it": -1.0}
    assert progress_of(run(-4.0, -1.0, nan), -4.0)[:2].tolist() == [0.0, 0.75]
    assert np.isnan(progress_of(run(-1.0), 0.0)).all(), "a teacher that is sure of the start tells nothing"


def test_a_label_has_the_last_word_on_the_outcome() -> None:
    curve = run(-4.0, -2.0, -0.4, -0.4)
    places = np.arange(7)
    success = told(film(7, True, done_s=1.0), curve)
    assert success.target(places)[:4] == pytest.approx([0.0, 0.25, 0.5, 0.7])
    assert success.target(places)[4:].min() >= 0.97
    failure = told(film(7, False), curve)
    assert failure.target(places).max() == targets.FAILED and not failure.done.any()
    unknown = told(film(7, None), curve)
    assert unknown.target(places)[-1] == pytest.approx(0.9) and unknown.succeeded
    assert not unknown.certain


def test_a_success_without_a_time_is_done_where_its_curve_stays_high() -> None:
    done = told(film(9, True), run(-4.0, -0.2, -3.0, -0.4, -0.1)).done
    assert np.flatnonzero(done).tolist() == [6, 7, 8]
    late = told(film(9, True), run(-1.0, -2.0, -3.0, -3.5, -4.0)).done
    assert np.flatnonzero(late).tolist() == [8], "at last at its end"


def test_targets_are_finite_as_log_odds_whatever_a_teacher_says() -> None:
    sure = told(film(5, None), run(-4.0, 0.0, 0.0))
    assert sure.target(np.arange(5)).max() < 1.0


def test_holes_are_bridged_and_a_curve_of_holes_is_refused() -> None:
    progress = told(film(9, None), run(-4.0, nan, -2.0, nan, 0.0))
    assert progress.target(np.arange(9))[:5] == pytest.approx([0.0, 0.125, 0.25, 0.375, 0.5])
    with pytest.raises(TargetError, match="of 5 scores of the teacher 3 are no numbers"):
        told(film(9, None), run(-4.0, nan, nan, nan, -1.0))


def test_a_teacher_that_says_one_thing_is_refused() -> None:
    with pytest.raises(TargetError, match="says about the same of every frame"):
        check_targets({"a": told(film(5, None), run(-2.0, -2.05, -2.0))})
