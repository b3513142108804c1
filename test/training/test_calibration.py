"""How calibrations are judged: by films that had no part in them."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest

from test.core.calibrations import drawn
from topreward_ros.core.calibration.told import Told
from training.calibration import judge_all
from training.clips import VIEWS
from training.generate import EVALUATIONS
from training.success_curves import Film


def films(task: str, apart: float) -> list[Film]:
    """Twenty films of each evaluation set, whose scores are ``apart`` in log-odds."""
    made = []
    for number, name in enumerate(EVALUATIONS):
        for attempt, curve in enumerate(drawn(10, 10, seed=number, apart=apart)):
            told = [[Told.DUE, 0, look.time_s, look.log_prob, look.log_prob_static] for look in curve.looks]
            kind = "success" if curve.success else "stop"
            view = VIEWS[attempt % len(VIEWS)]
            made.append(Film(name, task, kind, view, attempt, curve.done_s, np.array(told)))
    return made


def test_what_can_be_told_apart_reaches_the_goals() -> None:
    judged = judge_all(films("drawer-open", 6.0), 0.02)
    assert {it.set for it in judged} == set(EVALUATIONS)
    assert all(it.recall >= 0.9 and it.false_alarms <= 0.1 for it in judged)
    assert np.mean([it.lost for it in judged]) <= 0.03
    assert all(0.0 <= it.delay_median <= it.delay_p95 for it in judged)


def test_what_cannot_is_no_success() -> None:
    judged = judge_all(films("coffee-button", 0.3), 0.02)
    assert all(it.recall <= 0.5 or it.problem for it in judged)
    assert all(isnan(it.ece) for it in judged if it.problem) and pytest.approx(3) == len(judged)
