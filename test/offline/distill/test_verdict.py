"""When a student is called no good judge yet."""

from __future__ import annotations

from math import nan

import pytest

from topreward_ros.core.evaluation import ALL, Control, EvaluatedEpisode, Measure, Mode, Run
from topreward_ros.core.progress import PrefixScore
from topreward_ros.offline.distill.verdict import verdict

TASK = "close the drawer"


def measure(name: str, value: float, scope: str = ALL) -> Measure:
    return Measure(scope, str(Mode.LOG_PROB), name, value, nan, nan, 10)


def episodes(successes: int = 5, failures: int = 5, *, said: bool = True) -> list[EvaluatedEpisode]:
    made = []
    for k in range(successes + failures):
        good = k < successes
        events = ((0.5, "SUCCESS"),) if good and said else ()
        run = Run(TASK, (0.5,), (PrefixScore(-1.0, nan),), (1,), (0.5,), 0.5, events)
        made.append(EvaluatedEpisode(f"{k}", f"{k}", TASK, good, None, {Control.PLAIN: run}))
    return made


GOOD = [measure("auc", 0.95), measure("auc", 0.61, TASK), measure("static_voc", 0.9)]
GOOD += [measure("static_range", 0.29)]
TEACHER = [measure("auc", 0.99)]


def test_nothing_speaks_against_a_good_one() -> None:
    assert verdict(GOOD, TEACHER, episodes()) == verdict(GOOD, [], episodes())
    found = verdict(GOOD, TEACHER, episodes())
    assert not found.faults and not found.too_few


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (measure("auc", 0.93), "its ROC-AUC is 0.93, its teacher's 0.99"),
        (measure("auc", 0.5, TASK), "of 'close the drawer' (0.50)"),
        (measure("static_range", 0.4), "a picture that stands still rises with time (static VOC 0.90"),
    ],
)
def test_a_fault_is_named(changed: Measure, said: str) -> None:
    student = [changed if (it.scope, it.name) == (changed.scope, changed.name) else it for it in GOOD]
    (fault,) = verdict(student, TEACHER, episodes()).faults
    assert said in fault


def test_success_that_never_comes() -> None:
    assert verdict(GOOD, TEACHER, episodes(said=False)).faults == (
        "it said SUCCESS in none of the 5 successes",
    )


def test_too_few_films_to_tell() -> None:
    assert verdict(GOOD, TEACHER, episodes(1, 5)).too_few.startswith("1 success and 5 failures among")
    assert verdict(GOOD, TEACHER, episodes(5, 4)).too_few.startswith("5 successes and 4 failures among")
    nothing_known = verdict([measure("static_voc", nan)], [], [])
    assert not nothing_known.faults and "0 successes and 0 failures" in nothing_known.too_few
