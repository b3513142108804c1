"""The choice among wordings is judged on what it has not seen, against cases by hand."""

from __future__ import annotations

from dataclasses import replace
from math import isnan, nan

import numpy as np
import pytest

from topreward_ros.core.measures import Measure
from topreward_ros.core.prompt_choice import (
    Choice,
    ChoiceError,
    Verdict,
    candidates,
    choose,
    held_out_parts,
    search_split,
    worth,
)
from topreward_ros.core.prompt_worth import PromptScores, final_scores


def episode(task: str, succeeded: bool, *finals: float) -> PromptScores:
    """An episode that each template scores as ``finals`` say, after a rise by 1 nat."""
    curve = np.array(finals) + np.array([-1.0, 0.0, 0.0, 0.0])[:, None]
    return PromptScores(task, succeeded, curve, np.full_like(curve, -4.0))


def task(name: str, rng: np.random.Generator, *gaps: float, count: int = 8) -> list[PromptScores]:
    """``count`` successes and as many failures; each template tells them apart by its gap [sigma]."""
    noise = rng.normal(size=(2 * count, len(gaps)))
    return [
        episode(name, k < count, *(row + (k < count) * np.array(gaps) - 9)) for k, row in enumerate(noise)
    ]


def test_candidates_are_the_default_every_template_the_files_and_small_ensembles() -> None:
    found, reached = candidates((1, 2), [(0, 1, 2, 3)], ["a", "a", "a", "b"], largest=2)
    assert found == [(1, 2), (0,), (1,), (2,), (3,), (0, 1, 2, 3), (0, 1), (0, 2)]  # no other with 3
    assert reached == 2
    assert candidates((0,), [], ["a"], largest=3) == ([(0,)], 1)
    found, reached = candidates((0,), [], ["a"] * 64, largest=3)
    assert reached == 2 and len(found) == 64 + 64 * 63 // 2


def test_an_ensemble_has_the_mean_of_the_log_probabilities() -> None:
    """Template 0 is wrong about one pair and 1 about another; of the mean each is right."""
    episodes = [
        one
        for name in ("open", "close")
        for one in (
            episode(name, True, -1.0, -5.0),
            episode(name, True, -5.0, -1.0),
            episode(name, False, -4.0, -4.0),
        )
    ]
    made = choose(episodes, [(0,), (1,), (0, 1)], Measure.AUC, draws=20)
    assert made.default.value == made.singles[1].auc == 0.5
    assert made.best.members == (0, 1) and made.best.auc == 1.0
    assert made.held_out == (1.0, 1.0) and made.held_out_default == (0.5, 0.5) and made.gain == 0.5


def test_what_is_best_on_one_task_is_not_chosen_for_it_by_its_own_episodes() -> None:
    rng = np.random.default_rng(0)
    # template 1 is made for "open", 2 for "close": each would be chosen by the one, and fails at the other
    episodes = [*task("open", rng, 2, 9, -1), *task("close", rng, 2, -1, 9)]
    made = choose(episodes, [(0,), (1,), (2,)], Measure.AUC)
    assert made.parts == ("open", "close") and made.of_tasks
    assert made.chosen == ((2,), (1,)) and made.gain < -0.4
    assert made.verdict is Verdict.TOO_FEW and "2 tasks judge, and it takes 3" in made.lacking
    assert made.recommended == made.default


def test_a_wording_that_is_better_everywhere_beats_the_default_beyond_noise() -> None:
    rng = np.random.default_rng(1)
    episodes = [one for name in "abcde" for one in task(name, rng, 0.5, 4, 0.5)]
    made = choose(episodes, [(0,), (1,), (2,), (1, 2)], Measure.AUC, draws=200)
    assert set(made.chosen) == {(1,)}
    assert made.verdict is Verdict.BETTER and 0 < made.interval.low < made.gain < made.interval.high
    assert made.recommended == made.best
    assert [rated.members for rated in made.leading] == [(1,), (1, 2), *sorted_rest(made)]
    assert made == choose(episodes, [(0,), (1,), (2,), (1, 2)], Measure.AUC, draws=200)


def sorted_rest(made: Choice) -> list[tuple[int, ...]]:
    rest = [made.singles[0], made.singles[2]]
    return [rated.members for rated in sorted(rest, key=lambda rated: -rated.value)]


def test_wordings_that_differ_by_noise_are_no_gain() -> None:
    better, tempting = 0, 0
    for seed in range(15):
        rng = np.random.default_rng(seed)
        episodes = [one for name in "abc" for one in task(name, rng, *[1.0] * 5)]
        found, _ = candidates((0,), [], ["a"] * 5, largest=1)
        made = choose(episodes, found, Measure.AUC, draws=40)
        better += made.verdict is Verdict.BETTER
        tempting += made.best != made.default
        assert made.recommended == (made.best if made.verdict is Verdict.BETTER else made.default)
    assert better <= 2 and tempting > 5  # better: 1 in 40 by chance


def test_three_tasks_say_less_than_their_range() -> None:
    """All gain, but by so different amounts that the next one may lose."""
    rng = np.random.default_rng(0)
    gaps = [(-1.0, 0.5), (-3.0, 9.0), (-1.0, 0.5)]
    episodes = [one for name, some in zip("abc", gaps, strict=True) for one in task(name, rng, *some)]
    made = choose(episodes, [(0,), (1,)], Measure.AUC, laid_aside=episodes)
    gains = np.array(made.held_out) - made.held_out_default
    assert min(gains) > 0 and made.interval.low < 0 and made.verdict is Verdict.NO_DIFFERENCE
    far = 4.303 * gains.std(ddof=1) / np.sqrt(3)  # Student's t of two degrees of freedom
    assert made.interval.high == pytest.approx(gains.mean() + far, abs=1e-3)


@pytest.mark.parametrize("measure", list(Measure))
@pytest.mark.parametrize(
    ("tasks", "count", "is_enough"),
    [(1, 4, False), (1, 5, True), (2, 9, False), (3, 1, False), (3, 2, True), (5, 1, True)],
)
def test_too_few_say_nothing_however_clear_they_look(
    tasks: int, count: int, is_enough: bool, measure: Measure
) -> None:
    """Of one task too, five of each outcome; and three tasks with five of each in all."""
    rng = np.random.default_rng(5)
    episodes = [one for name in "abcde"[:tasks] for one in task(name, rng, 0.1, 1.5, count=count)]
    for aside in ([], episodes):
        made = choose(episodes, [(0,), (1,)], measure, laid_aside=aside, draws=100)
        assert (made.lacking == "") is is_enough and (made.verdict is not Verdict.TOO_FEW) is is_enough
        assert is_enough or (not made.interval.is_known and "at least: label more" in made.lacking)
        assert made.verdict is Verdict.BETTER or made.recommended == made.default


@pytest.mark.parametrize(("tasks", "each"), [(1, 5), (1, 10), (3, 2), (4, 4)])
def test_equally_good_wordings_are_hardly_ever_called_better(tasks: int, each: int) -> None:
    """Of 40 draws each is called better once by chance; four happen in one of fifty such tests."""
    for aside in (False, True):
        better = 0
        for seed in range(40):
            rng = np.random.default_rng([seed, tasks, each])
            episodes, judges = (
                [one for name in "abcd"[:tasks] for one in task(name, rng, 1, 1, 1, 1, count=each)]
                for _ in range(2)
            )
            found = [(0,), (1,), (2,), (3,)]
            made = choose(episodes, found, Measure.BOTH, laid_aside=judges if aside else [], draws=60)
            better += made.verdict is Verdict.BETTER
        assert better <= 4


def test_one_task_laid_aside_judges_as_a_whole() -> None:
    rng = np.random.default_rng(4)
    training, aside = task("a", rng, 0.2, 3), task("a", rng, 0.2, 3)
    made = choose(training, [(0,), (1,)], Measure.AUC, laid_aside=aside, draws=200)
    assert made.parts == ("all that is laid aside",) and not made.of_tasks
    assert made.verdict is Verdict.BETTER and 0 < made.interval.low < made.gain < made.interval.high


def test_of_wordings_that_are_the_same_the_default_stays() -> None:
    episodes = [one for name in "abc" for one in task(name, np.random.default_rng(2), 9)]
    episodes = [replace(one, log_probs=np.repeat(one.log_probs, 3, axis=1)) for one in episodes]
    episodes = [replace(one, static=np.repeat(one.static, 3, axis=1)) for one in episodes]
    made = choose(episodes, [(2,), (0,), (1,), (0, 1), (0, 1, 2)], Measure.AUC, draws=50)
    assert made.best.members == (2,) and set(made.chosen) == {(2,)}
    assert not made.interval.is_known and made.verdict is Verdict.NO_DIFFERENCE


def test_of_one_task_episodes_are_held_out() -> None:
    episodes = task("open", np.random.default_rng(3), 1, 9, count=7)
    parts, of_tasks = held_out_parts(episodes, Measure.AUC)
    assert not of_tasks and [len(part) for part in parts.values()] == [4, 4, 2, 2, 2]
    assert all({one.succeeded for one in part} == {True, False} for part in parts.values())
    assert sorted(id(one) for part in parts.values() for one in part) == sorted(map(id, episodes))
    made = choose(episodes, [(0,), (1,)], Measure.AUC, draws=50)
    assert made.held_out == (1.0,) * 5 and not made.of_tasks


def test_the_order_of_successes_needs_no_failures() -> None:
    """The first template falls, the second rises, the third is constant, which counts as no order."""
    rising = np.linspace(-4, -1, 15)
    curves = np.stack([-5 - rising, rising, np.full(15, -2.0)], axis=1)
    episodes = [PromptScores(name, True, curves, np.full((15, 3), nan)) for name in "aabb"]
    made = choose(episodes, [(0,), (1,), (2,)], Measure.VOC, draws=20)
    assert [rated.voc for rated in made.singles] == pytest.approx([-1, 1, 0])
    assert made.best.members == (1,) and made.gain == pytest.approx(2)
    assert isnan(made.best.auc) and isnan(made.best.static_voc)


def test_length_bias_is_told_of_every_wording() -> None:
    curve = np.linspace(-4, 0, 15)[:, None]
    static = np.linspace(-4, -3, 15)[:, None]
    episodes = [PromptScores(name, outcome, curve, static) for name in "ab" for outcome in (True, False)]
    made = choose(episodes, [(0,)], Measure.AUC, draws=10)
    assert (made.default.static_voc, made.default.static_share) == pytest.approx((1.0, 0.25))


def test_the_score_of_an_episode_is_the_mean_of_its_last_three() -> None:
    assert final_scores(np.array([[-9.0], [-3.0], [-2.0], [-1.0]])).tolist() == [-2.0]
    assert final_scores(np.array([[-3.0], [-1.0]])).tolist() == [-2.0]


@pytest.mark.parametrize(
    ("outcomes", "measure", "sentence"),
    [
        ([("open", True)] * 4, Measure.AUC, "no task has both successes and failures"),
        ([("open", True), ("close", False)], Measure.AUC, "no task has both"),
        ([("open", False)] * 4, Measure.VOC, "no episode is labelled a success"),
        ([("open", True), ("open", False)], Measure.AUC, "two successes and two failures"),
        ([("open", True), ("close", False)], Measure.VOC, "label two tasks, or two successes"),
        ([], Measure.AUC, "no task has both"),
    ],
)
def test_data_that_do_not_allow_it_are_refused(
    outcomes: list[tuple[str, bool]], measure: Measure, sentence: str
) -> None:
    episodes = [episode(name, succeeded, -1.0) for name, succeeded in outcomes]
    with pytest.raises(ChoiceError, match=sentence):
        held_out_parts(episodes, measure)


def test_a_search_lays_tasks_aside_by_the_seed() -> None:
    rng = np.random.default_rng(0)
    episodes = [one for name in "abcde" for one in task(name, rng, 1.0, count=2)]
    episodes += [episode("only successes", True, -1.0)]
    training, aside = search_split(episodes, Measure.BOTH)
    tasks = [{it.task for it in part} for part in (training, aside)]
    assert tasks[0] | tasks[1] == set("abcde") and not tasks[0] & tasks[1] and len(tasks[1]) == 3
    assert search_split(episodes, Measure.BOTH) == (training, aside)
    drawn = {
        frozenset(it.task for it in search_split(episodes, Measure.AUC, 1, seed)[1]) for seed in range(20)
    }
    assert len(drawn) > 2 and all(len(it) == 1 for it in drawn)


def test_of_a_single_task_half_of_the_episodes_is_laid_aside() -> None:
    episodes = task("a", np.random.default_rng(0), 1.0, count=4)
    for part in search_split(episodes, Measure.BOTH):
        assert [it.succeeded for it in part] == [True, True, False, False]


@pytest.mark.parametrize(
    ("episodes", "count", "said"),
    [
        ([("a", True), ("b", True)], 0, "no task has both successes and failures"),
        ([("a", True), ("a", False)] * 3, 0, "label a second task, or four successes and four failures"),
        (
            [("a", True), ("a", False), ("b", True), ("b", False)],
            0,
            "label two tasks, or two successes and two",
        ),
        ([("a", True), ("a", False), ("b", True), ("b", False)] * 2, 2, "2 tasks cannot be laid aside of 2"),
        ([("a", True), ("a", False), ("b", True), ("b", False)] * 2, -1, "-1 tasks cannot be laid aside"),
    ],
)
def test_what_cannot_be_split_is_said(episodes: list[tuple[str, bool]], count: int, said: str) -> None:
    with pytest.raises(ChoiceError, match=said):
        search_split([episode(name, outcome, -1.0) for name, outcome in episodes], Measure.BOTH, count)


def test_tasks_that_were_laid_aside_judge_alone_and_what_was_chosen_alone() -> None:
    """Template 1 is best where it was searched, and worse where it was not; 2 is not even scored there."""
    rng = np.random.default_rng(2)
    training = [one for name in "ab" for one in task(name, rng, 1, 9, 0)]
    aside = [one for name in "cdefg" for one in task(name, rng, 9, 1, nan)]
    made = choose(training, [(0,), (1,), (2,)], Measure.AUC, laid_aside=aside, draws=200)
    assert made.best.members == (1,) and made.best.auc == 1.0
    assert made.parts == tuple("cdefg") and made.chosen == ((1,),) * 5
    assert made.verdict is Verdict.WORSE and made.recommended == made.default
    good = [one for name in "hijkl" for one in task(name, rng, 1, 9, nan)]
    better = choose(training, [(0,), (1,), (2,)], Measure.AUC, laid_aside=good, draws=200)
    assert better.verdict is Verdict.BETTER and better.recommended.members == (1,)


def test_both_is_the_mean_of_auc_and_of_voc_less_the_static_voc() -> None:
    rise, fall, flat = np.arange(4.0) - 9, -np.arange(4.0) - 9, np.full(4, -9.0)

    def of(outcome: bool, curve: np.ndarray, static: np.ndarray) -> PromptScores:
        return PromptScores("a", outcome, curve[:, None], static[:, None])

    good, bad = of(True, rise, flat), of(False, fall, flat)
    assert worth([good, bad], [(0,)], Measure.BOTH) == [1.0]
    assert worth([of(True, rise, rise), of(False, fall, rise)], [(0,)], Measure.BOTH) == [0.5]
    assert worth([of(True, rise, fall), of(False, fall, fall)], [(0,)], Measure.BOTH) == [0.5]
    assert worth([of(True, flat, flat), bad], [(0,)], Measure.BOTH) == [0.5]  # no order, and tells apart
    assert worth([of(True, flat, flat), of(False, flat, flat)], [(0,)], Measure.BOTH) == [0.25]
