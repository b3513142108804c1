"""Several monitors at one scoring thread: turns are fair, and none harms another."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest

from test.scoring.test_worker import GatedScorer, look, request, stamps, wait
from topreward_ros.core.frames import Frame
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.scoring import worker as worker_module
from topreward_ros.scoring.base import PrefixScore, ScorerError
from topreward_ros.scoring.worker import ScoringThread, ScoringWorker


class Shared(GatedScorer):
    """A gated scorer that takes several at once, and notes which were scored together and what was kept."""

    def __init__(self, at_once: int = 1) -> None:
        super().__init__()
        self.at_once = at_once
        self.calls: list[tuple[list[int], list[int]]] = []  # stamps, those of the kept first frames
        self.bad: dict[int, Exception] = {}  # by stamp

    def episodes_at_once(self) -> int:
        return self.at_once

    def score_all(
        self, requests: Sequence[ScoreRequest], kept: Sequence[Frame] = ()
    ) -> list[PrefixScore | ScorerError]:
        self.calls.append(([each.prefix[-1].stamp_ns for each in requests], [it.stamp_ns for it in kept]))
        return super().score_all(requests, kept)

    def score_one(self, request: ScoreRequest) -> PrefixScore:
        self.error = self.bad.get(request.prefix[-1].stamp_ns)
        return super().score_one(request)

    @property
    def turns(self) -> list[list[int]]:
        return [scored for scored, _ in self.calls]


@contextmanager
def sharing(scorer: Shared, number: int) -> Iterator[tuple[list[ScoringWorker], list[threading.Semaphore]]]:
    told = [threading.Semaphore(0) for _ in range(number)]
    thread = ScoringThread(scorer)
    workers = [ScoringWorker(thread, each.release) for each in told]
    try:
        yield workers, told
    finally:
        scorer.gate.release(20)
        for worker in workers:
            assert worker.stop()
        assert scorer.closed


def let(scorer: Shared, *told: threading.Semaphore) -> None:
    """What is being scored ends, and these are told."""
    scorer.gate.release(len(told))
    for each in told:
        wait(each)


def test_who_asks_often_gets_no_more_turns_than_the_others() -> None:
    scorer = Shared()
    with sharing(scorer, 3) as ((busy, second, third), (told, *others)):
        busy.submit(request(1))
        wait(scorer.begun)
        busy.submit(request(2))  # asks first, and had a turn
        third.submit(request(31))
        second.submit(request(21))
        busy.submit(request(3))  # newest wins
        let(scorer, told)
        for each in (*others, told):
            wait(scorer.begun)
            busy.submit(request(3))
            let(scorer, each)
        assert scorer.turns[:4] == [[1], [21], [31], [3]] and busy.counts.replaced >= 2
        assert stamps(second.results()) == [21] and stamps(third.results()) == [31]


def test_as_many_are_scored_together_as_the_scorer_takes() -> None:
    scorer = Shared(at_once=2)
    with sharing(scorer, 3) as (workers, told):
        workers[0].submit(request(1))
        wait(scorer.begun)
        for number, worker in enumerate(workers):
            worker.submit(request(10 + number))
        let(scorer, told[0])
        let(scorer, told[1], told[2])
        let(scorer, told[0])
        assert scorer.turns == [[1], [11, 12], [10]]


def test_what_is_kept_of_an_episode_stays_until_it_ends() -> None:
    scorer = Shared()
    with sharing(scorer, 3) as ((first, second, third), told):
        for number, worker in enumerate((first, second, third)):
            worker.submit(request(10 + number))
            let(scorer, told[number])
        second.start_generation()
        first.submit(request(20))
        let(scorer, told[0])
        third.ask_to_stop()
        first.submit(request(21))
        let(scorer, told[0])
        assert scorer.calls == [
            ([10], []),
            ([11], [10]),
            ([12], [11, 10]),
            ([20], [12]),
            ([21], []),
        ]


@pytest.mark.parametrize("at_once", [1, 2])
@pytest.mark.parametrize("error", [ScorerError("the mend"), ZeroDivisionError("by zero")])
def test_an_error_and_its_pause_are_those_of_one_alone(
    at_once: int, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "_FIRST_PAUSE_S", 600.0)
    scorer = Shared(at_once)
    scorer.bad[11] = error
    scorer.gate.release(20)
    with sharing(scorer, 2) as ((good, bad), (good_told, bad_told)):
        with good._wake:  # both wait before the thread comes to it
            good.submit(request(10))
            bad.submit(request(11))
        wait(good_told)
        wait(bad_told)
        (failed,) = bad.results()
        assert failed.score is None and str(error) in failed.error
        (scored,) = good.results()
        assert scored.score is not None and scored.score.log_prob == -10.0
        bad.submit(request(12))  # in its pause
        for stamp in (13, 14, 15):
            good.submit(request(stamp))
            wait(good_told)
        assert stamps(good.results()) == [13, 14, 15] and not bad.results()
        assert (good.counts.failed, bad.counts.failed) == (0, 1)


def test_one_that_leaves_takes_nothing_with_it_and_the_last_one_closes_the_scorer() -> None:
    scorer = Shared()
    with sharing(scorer, 2) as ((leaves, stays), (_, told)):
        leaves.submit(request(1))
        wait(scorer.begun)
        assert leaves.stop(), "it does not wait for a scorer that others use"
        stays.submit(request(2))
        scorer.gate.release()
        let(scorer, told)
        assert not leaves.results() and stamps(stays.results()) == [2] and not scorer.closed


def test_nobody_gets_a_place_at_a_thread_that_is_over() -> None:
    thread = ScoringThread(Shared())
    assert ScoringWorker(thread).stop()
    with pytest.raises(ScorerError, match="was closed"):
        ScoringWorker(thread)


def test_an_extra_look_holds_up_no_other_monitor() -> None:
    scorer = Shared(at_once=2)
    with sharing(scorer, 2) as ((first, second), (told, second_told)):
        first.submit(request(1))
        wait(scorer.begun)
        assert not second.submit_extra(look(2)), "a frame of the other is being scored"
        let(scorer, told)
        with first._wake:
            assert first.submit_extra(look(3))
            second.submit(request(4))
        let(scorer, second_told)
        let(scorer, told)
        assert scorer.turns == [[1], [4], [3]]


def test_work_ahead_goes_on_for_each_in_turn_and_stops_for_a_request_of_any() -> None:
    scorer, steps = Shared(), threading.Semaphore(0)
    seen: list[int] = []
    stepped = threading.Semaphore(0)

    def ahead(request: ScoreRequest) -> Iterator[None]:
        for _ in range(3):
            steps.acquire()
            seen.append(request.prefix[-1].stamp_ns)
            stepped.release()
            yield

    scorer.ahead = ahead  # type: ignore[method-assign]
    with sharing(scorer, 2) as ((first, second), (told, second_told)):
        first.submit(request(1))
        let(scorer, told)
        steps.release()
        wait(stepped)
        second.submit(request(2))
        steps.release()  # the step that has begun
        wait(stepped)
        let(scorer, second_told)
        for _ in range(6):
            steps.release()
            wait(stepped)
        assert seen == [1, 1, 2, 1, 2, 1, 2, 1], "each from its own beginning, after what was interrupted"
        for _ in range(10):
            steps.release()


def test_a_request_knows_nothing_of_the_others() -> None:
    """The same object may be asked for by two; each gets its own answer."""
    scorer = Shared(at_once=2)
    same = replace(request(5))
    with sharing(scorer, 2) as (workers, told):
        with workers[0]._wake:
            for worker in workers:
                worker.submit(same)
        let(scorer, *told)
        assert [stamps(worker.results()) for worker in workers] == [[5], [5]]


def test_turns_are_fair_where_not_all_are_scored_together() -> None:
    scorer = Shared(at_once=2)
    with sharing(scorer, 3) as (workers, told):
        workers[0].submit(request(9))
        wait(scorer.begun)
        for turn in range(7):
            for number, worker in enumerate(workers):
                worker.submit(request(number))
            let(scorer, *(told[stamp] if stamp < 9 else told[0] for stamp in scorer.turns[-1]))
            wait(scorer.begun)
            assert len(scorer.turns) == turn + 2
        served = [stamp for stamps_of_turn in scorer.turns[1:7] for stamp in stamps_of_turn]
        assert [served.count(number) for number in range(3)] == [4, 4, 4]


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_monitor_that_cannot_be_told_takes_no_other_with_it(at_once: int) -> None:
    """The executor of one that ends goes while the thread is about to tell it."""
    scorer = Shared(at_once)
    scorer.gate.release(20)
    with sharing(scorer, 2) as ((gone, other), (_, told)):

        def notify() -> None:
            raise AttributeError("its executor is over")

        gone.notify = notify
        with gone._wake:
            gone.submit(request(1))
            other.submit(request(2))
        wait(told)
        other.submit(request(3))
        wait(told)
        assert stamps(other.results()) == [2, 3]


def test_a_scorer_with_a_wrong_number_of_scores_fails_and_the_thread_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scorer = Shared()
    with sharing(scorer, 2) as ((first, second), (first_told, second_told)):
        with monkeypatch.context() as patch:
            patch.setattr(scorer, "score_all", lambda requests, kept: [])
            first.submit(request(1))
            wait(first_told)
        assert "0 scores for 1 requests" in first.results()[0].error
        second.submit(request(2))
        let(scorer, second_told)
        assert stamps(second.results()) == [2]


def test_an_error_before_the_first_step_of_work_ahead_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = Shared()
    scorer.gate.release(20)

    def ahead(_: ScoreRequest) -> Iterator[None]:
        raise ZeroDivisionError

    monkeypatch.setattr(scorer, "ahead", ahead)
    with sharing(scorer, 1) as ((worker,), (told,)):
        for stamp in (1, 2):
            worker.submit(request(stamp))
            wait(told)
        assert stamps(worker.results()) == [1, 2]


def test_how_long_an_answer_takes_is_learned_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """One with few frames is answered soon; its answers make another one no hanging scorer."""
    scorer = Shared()
    with sharing(scorer, 2) as ((slow, quick), (slow_told, quick_told)):
        slow.submit(request(1))
        let(scorer, slow_told)
        monkeypatch.setattr(slow, "took_s", 15.0)
        quick.submit(request(2))
        let(scorer, quick_told)
        assert not slow.submit_extra(look(3, time_left_s=10.0)), "its last answer took longer"
        monkeypatch.setattr(worker_module, "_HANGS_AFTER_S", 0.0)
        slow.submit(request(4))
        wait(scorer.begun)
        wait(scorer.begun)
        wait(scorer.begun)
        monkeypatch.setattr(slow._thread, "begun", time.monotonic() - 40.0)
        assert not slow.hang() and not quick.hang()
