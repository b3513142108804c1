"""Measures of labelled episodes, against numbers that were counted by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isnan, log, nan

import pytest

from topreward_ros.core.evaluation import (
    ALL,
    DECISIONS,
    KINDS,
    Control,
    EvaluatedEpisode,
    Measure,
    Mode,
    Run,
    confusion,
    evaluate,
    modes_beside,
)
from topreward_ros.core.evaluation_difference import common, differences
from topreward_ros.core.progress import PrefixScore
from topreward_ros.views.evaluation_tables import differences_table

THRESHOLD = -0.22
STATIC = -4.0
MODES = modes_beside("static_baseline")


def run_of(
    progress: Sequence[float], success_s: float | None = None, instruction: str = "open", step_s: float = 1.0
) -> Run:
    """A run whose static baseline is -4 nat and whose live progress is ``progress``."""
    scores = tuple(PrefixScore(STATIC * (1 - value), nan, STATIC) for value in progress)
    times = tuple(k * step_s for k in range(len(progress)))
    events = ((0.0, "EPISODE_STARTED"), *([] if success_s is None else [(success_s, "SUCCESS")]))
    return Run(instruction, times, scores, (1,) * len(times), tuple(progress), times[-1], events)


def episode(
    name: str, succeeded: bool | None, plain: Run, done_s: float | None = None, **controls: Run
) -> EvaluatedEpisode:
    runs = {Control.PLAIN: plain, **{Control[name.upper()]: run for name, run in controls.items()}}
    return EvaluatedEpisode(name, name, plain.instruction, succeeded, done_s, runs)


RISE, HALF, NONE = (0.0, 0.3, 0.6, 0.9, 0.9, 0.9), (0.0, 0.2, 0.4, 0.4, 0.4, 0.4), (0.0,) * 6


def evaluated(episodes: Sequence[EvaluatedEpisode], modes: Sequence[Mode] = MODES) -> list[Measure]:
    return evaluate(episodes, THRESHOLD, modes, draws=50)


def value(measures: Sequence[Measure], mode: str, name: str, scope: str = ALL) -> Measure:
    (found,) = [it for it in measures if (it.scope, it.mode, it.name) == (scope, mode, name)]
    return found


def names(measures: Sequence[Measure]) -> set[tuple[str, str]]:
    return {(it.mode, it.name) for it in measures}


def test_finals_decide_and_events_are_counted() -> None:
    episodes = [
        episode("a", True, run_of(RISE, success_s=4.5), done_s=3.0),
        episode("b", True, run_of(HALF), done_s=3.0),
        episode("c", False, run_of(HALF, success_s=2.0)),
        episode("d", False, run_of(NONE)),
        episode("e", None, run_of(RISE, success_s=1.0)),  # nobody knows: in no count of decisions
    ]
    made = evaluated(episodes)
    # 0.9 beats 0.4 and 0; 0.4 ties with 0.4 and beats 0
    assert value(made, "static_baseline", "auc").value == pytest.approx(3.5 / 4)
    assert value(made, "log_prob", "auc").value == pytest.approx(3.5 / 4)
    assert value(made, DECISIONS, "recall").value == 0.5
    assert value(made, DECISIONS, "precision").value == 0.5
    assert value(made, DECISIONS, "false_alarms").value == 0.5
    assert value(made, DECISIONS, "recall_at_end").value == 0.0  # -0.4 nat is below the threshold
    delay = value(made, DECISIONS, "delay_median")
    assert (delay.value, delay.count) == (1.5, 1)
    assert value(made, DECISIONS, "early").value == 0.0
    assert (DECISIONS, "idle_alarms") not in names(made)  # no such film was made
    assert ("log_prob", "ece") not in names(made)  # a log-probability is no probability
    assert all(it.name in KINDS for it in made)


def test_a_success_that_is_early_is_wrong_as_in_a_calibration() -> None:
    made = evaluated(
        [
            episode("far too early", True, run_of(RISE, success_s=0.5), done_s=4.0),
            episode("a key pressed late", True, run_of(RISE, success_s=3.0), done_s=4.0),
            episode("nobody said when", True, run_of(RISE, success_s=0.5)),
            episode("f", False, run_of(NONE)),
        ]
    )
    assert value(made, DECISIONS, "recall").value == value(made, DECISIONS, "precision").value == 2 / 3
    assert value(made, DECISIONS, "early").value == 0.5 and value(made, DECISIONS, "early").count == 2
    assert value(made, DECISIONS, "false_alarms").value == 0.0  # which is of failures
    assert value(made, DECISIONS, "delay_median").value == -2.25


def test_a_start_that_looks_finished_has_made_no_progress() -> None:
    finished = Run("open", (0.0, 1.0), (PrefixScore(-0.1, nan, -0.1),) * 2, (1, 1), (nan, nan), 1.0)
    made = evaluated([episode("a", True, finished), episode("b", False, run_of(HALF))])
    assert value(made, "static_baseline", "auc").value == 0.0
    assert value(made, "log_prob", "auc").value == 1.0
    assert ("static_baseline", "voc_success") not in names(made)  # no order in what has no value


def test_without_labels_the_order_of_curves_is_all_there_is() -> None:
    made = evaluated([episode("a", None, run_of(RISE)), episode("b", None, run_of(HALF))])
    assert value(made, "log_prob", "voc_unknown").count == 2
    assert not {"auc", "voc_success", "ece", "recall"} & {it.name for it in made}


def test_the_static_sweep_is_that_of_the_baseline() -> None:
    scores = tuple(PrefixScore(r, nan, s) for r, s in ((-4.0, -4.0), (-3.0, -3.5), (-2.0, -3.0)))
    run = Run("open", (0.0, 1.0, 2.0), scores, (1,) * 3, (0.0, 0.1, 0.3), 2.0)
    made = evaluated([episode("a", True, run)])
    assert value(made, "log_prob", "static_voc").value == pytest.approx(1.0)
    assert value(made, "log_prob", "static_range").value == pytest.approx(1.0)
    assert value(made, "log_prob", "static_share").value == pytest.approx(0.5)
    assert value(made, "static_baseline", "static_range").value == 0.0
    without = replace(run, scores=tuple(replace(it, log_prob_static=nan) for it in scores))
    made = evaluated([episode("a", True, without)])
    assert not [it for it in made if it.name.startswith("static") or it.mode == "static_baseline"]


def test_controls_are_measured_where_they_mean_something() -> None:
    still = run_of([0.0, 0.3, *[0.6, 0.6, 0.7, 0.7, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8], 0.9, 0.9, 0.9, 0.9])
    episodes = [
        episode(
            "a",
            True,
            run_of(RISE, success_s=4.0),
            idle=run_of(NONE, success_s=5.0),
            covered=run_of(NONE),
            reversed=run_of(RISE[::-1]),
            faster=run_of([*RISE[:-3], 0.6, 0.6, 0.6], step_s=0.5),
            frozen=still,
            wrong_instruction=run_of(NONE, success_s=2.0, instruction="close"),
        ),
        episode(
            "b",
            False,
            run_of(NONE),
            idle=run_of(NONE),
            reversed=run_of(RISE),  # nothing was done: nothing to be undone
            wrong_instruction=run_of(RISE, success_s=2.0, instruction="close"),
        ),
    ]
    made = evaluated(episodes)
    assert value(made, "static_baseline", "reversed_voc").value == pytest.approx(
        -value(made, "static_baseline", "voc_success").value
    )
    assert value(made, "static_baseline", "stretched_0.5").value == pytest.approx(-0.3)
    # from 2.5 to 12.5 s, of which the prefixes at 3 and 12 s are the first and the last: 0.6 to 0.9
    assert value(made, "static_baseline", "false_progress").value == pytest.approx(0.3 * 10 / 9)
    assert value(made, "static_baseline", "instruction_share").count == 1
    assert value(made, "static_baseline", "instruction_difference").value == pytest.approx(0.9)
    idle = value(made, DECISIONS, "idle_alarms")
    assert idle.value == pytest.approx(1 / (10 / 3600)) and idle.low < idle.value < idle.high
    assert value(made, DECISIONS, "covered_alarms").value == 0.0
    assert value(made, DECISIONS, "wrong_alarms").value == 1.0


def test_tasks_are_measured_by_themselves_and_against_each_other() -> None:
    close = [
        episode("c", True, run_of(RISE, 4.0, "close"), wrong_instruction=run_of(HALF, None, "open")),
        episode("d", False, run_of(HALF, None, "close")),
    ]
    open_ = [
        episode("a", True, run_of(HALF), wrong_instruction=run_of(NONE, None, "close")),
        episode("b", False, run_of(RISE, 4.0)),
    ]
    made = evaluated([*open_, *close])
    assert value(made, "static_baseline", "auc", "open").value == 0.0
    assert value(made, "static_baseline", "auc", "close").value == 1.0
    assert value(made, "static_baseline", "ranking").value == 0.5
    assert value(made, "static_baseline", "ranking_tau").value == 0.0
    assert value(made, DECISIONS, "false_alarms", "open").value == 1.0
    matrix = confusion([*open_, *close], Mode.STATIC_BASELINE, THRESHOLD)
    assert matrix.tasks == ("close", "open")
    assert matrix.progress.tolist() == [
        [pytest.approx(0.9), pytest.approx(0.0)],
        [pytest.approx(0.4), pytest.approx(0.4)],
    ]
    assert value(made, "static_baseline", "confusion_own").value == pytest.approx(0.65)
    assert value(made, "static_baseline", "confusion_other").value == pytest.approx(0.2)
    assert not [it for it in made if it.scope and it.name.startswith(("ranking", "confusion"))]


def test_stages_are_parts_of_the_whole() -> None:
    scores = (PrefixScore(-2.0, nan, -4.0), PrefixScore(-0.01, nan, -4.0), PrefixScore(-2.0, nan, -4.0))
    run = Run("open\nclose", (0.0, 1.0, 2.0), scores, (1, 1, 2), (0.25, 0.5, 0.75), 2.0)
    assert run.values(Mode.STATIC_BASELINE, THRESHOLD).tolist() == pytest.approx([0.25, 0.49875, 0.75])
    assert run.values(Mode.LIVE, THRESHOLD).tolist() == [0.25, 0.5, 0.75]
    assert run.values(Mode.RAW_PROBABILITY, log(0.5)).tolist()[2] == pytest.approx((1 + 0.1353352832) / 2)
    minmax = run.values(Mode.EPISODE_MINMAX, THRESHOLD).tolist()
    assert minmax[:2] == [0.0, 0.5] and isnan(minmax[2])  # one score of a stage has no spread


def test_a_mode_of_its_own_stands_beside_the_others() -> None:
    assert Mode.LIVE not in modes_beside("raw_probability")
    assert Mode.LIVE in modes_beside("calibrated")
    made = evaluated(
        [episode("a", True, run_of(RISE)), episode("b", False, run_of(NONE))],
        modes_beside("calibrated"),
    )
    assert value(made, "live", "auc").value == 1.0 and ("live", "static_range") not in names(made)


# ---- two evaluations --------------------------------------------------------------------------------------


def both(first: Sequence[EvaluatedEpisode], second: Sequence[EvaluatedEpisode]):
    measures = [evaluated(it) for it in (first, second)]
    return differences(*measures, (first, second), (THRESHOLD, THRESHOLD), draws=200)


def test_a_difference_is_more_than_noise_where_most_episodes_agree() -> None:
    before = [episode(f"s{k}", True, run_of(HALF)) for k in range(12)]
    after = [episode(f"s{k}", True, run_of(HALF, success_s=3.0 if k else None)) for k in range(12)]
    one_more = [episode(f"s{k}", True, run_of(HALF, success_s=3.0 if k == 5 else None)) for k in range(12)]
    recalls = [
        next(it for it in both(before, other) if it.name == "recall") for other in (after, one_more, before)
    ]
    assert [it.is_more_than_noise for it in recalls] == [True, False, False]
    assert (recalls[0].first, recalls[0].second) == (0.0, pytest.approx(11 / 12))
    assert 0 < recalls[2].interval.high == -recalls[2].interval.low < 0.3  # what so few leave open


@pytest.mark.parametrize("each", [6, 20])
def test_the_largest_difference_there_can_be_is_more_than_noise(each: int) -> None:
    """All against none, of which every draw of a bootstrap is the same; and no difference at all is none."""
    names = [f"{kind}{k}" for kind in "sf" for k in range(each)]
    quiet, wrong = (
        [
            episode(it, it[0] == "s", run_of(RISE if rises(it) else NONE, success_s=4.0 if fires else None))
            for it in names
        ]
        for rises, fires in ((lambda it: it[0] == "s", False), (lambda it: it[0] == "f", True))
    )
    made = {(it.mode, it.name): it for it in both(quiet, wrong) if it.scope == ALL}
    for key in ((DECISIONS, "recall"), (DECISIONS, "false_alarms"), (Mode.LOG_PROB.value, "auc")):
        assert made[key].is_more_than_noise, key
    same = {(it.mode, it.name): it for it in both(wrong, wrong) if it.scope == ALL}
    for key in ((DECISIONS, "recall"), (DECISIONS, "false_alarms"), (Mode.LOG_PROB.value, "auc")):
        assert same[key].interval.is_known and not same[key].is_more_than_noise, key


def test_two_against_two_are_no_news() -> None:
    quiet, loud = (
        [episode(f"f{k}", False, run_of(NONE, success_s=at_s)) for k in range(2)]
        + [episode(f"s{k}", True, run_of(RISE, success_s=4.0)) for k in range(2)]
        for at_s in (None, 4.0)
    )
    (alarms,) = [it for it in both(quiet, loud) if it.scope == ALL and it.name == "false_alarms"]
    assert alarms.second - alarms.first == 1.0
    assert alarms.interval.is_known and not alarms.is_more_than_noise


def test_a_difference_without_an_interval_says_why() -> None:
    def rising(count: int, each: bool) -> list[EvaluatedEpisode]:
        values = (0.0, 0.6, 0.3, 0.9, 0.9, 0.9)
        return [episode(f"s{k}", True, run_of(values if each or k else RISE)) for k in range(count)]

    steady = [episode(f"s{k}", True, run_of(RISE)) for k in range(8)]
    for first, second, lack in (
        (steady, rising(8, True), "all alike"),  # each falls by the same
        (steady, steady, "all alike"),
        (steady, rising(8, False), ""),
        (steady[:4], rising(4, False), "too few"),
        (steady, [replace(it, identity="other" + it.name) for it in steady], "no episode in both"),
    ):
        (voc,) = (
            it
            for it in both(first, second)
            if (it.scope, it.mode, it.name) == (ALL, Mode.LOG_PROB, "voc_success")
        )
        assert voc.lack == lack and voc.interval.is_known is not bool(lack)
        for row in differences_table([voc], 8).rows:
            assert row[4] == (lack or f"[{voc.interval.low:+.3f}, {voc.interval.high:+.3f}]")


def test_only_the_same_episodes_are_compared() -> None:
    one = [episode("a", True, run_of(RISE)), episode("b", True, run_of(HALF))]
    other = [episode("b", True, run_of(RISE)), replace(episode("a", False, run_of(RISE)), identity="a")]
    assert common(one, other) == 1
    found = {(it.mode, it.name): it for it in both(one, other)}
    assert not found["static_baseline", "voc_success"].interval.is_known  # of one episode
    assert isnan(found["static_baseline", "auc"].first)  # which only the second has
