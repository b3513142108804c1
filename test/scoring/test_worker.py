"""The scoring thread: newest wins, late answers die, a bad scorer harms nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import inf, nan

import numpy as np
import pytest

from test.scorers import scorer_info
from topreward_ros.core.frames import Frame
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.scoring import worker as worker_module
from topreward_ros.scoring.base import PrefixScore, ScorerError, SequentialScorer
from topreward_ros.scoring.worker import ScoreResult, ScoringWorker

PIXEL = np.zeros((1, 1, 3), np.uint8)


class GatedScorer(SequentialScorer):
    """A scorer whose calls wait until the test lets them go, and fail when the test says so.

    What is under test is the thread around a scorer; a real model would only hide its timing.
    """

    def __init__(self) -> None:
        self.info = scorer_info("gated", random_weights=True)
        self.gate = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)
        self.seen: list[int] = []
        self.error: Exception | None = None
        self.log_prob: float | None = None
        self.closed = False

    def score_one(self, request: ScoreRequest) -> PrefixScore:
        prefix = request.prefix
        self.seen.append(prefix[-1].stamp_ns)
        self.begun.release()
        self.gate.acquire()
        if self.error is not None:
            raise self.error
        log_prob = -float(prefix[-1].stamp_ns) if self.log_prob is None else self.log_prob
        return PrefixScore(log_prob, -1.0)

    def close(self) -> None:
        self.closed = True


def request(stamp_ns: int) -> ScoreRequest:
    return ScoreRequest.of_frames("open the drawer", [Frame(stamp_ns, PIXEL)])


@contextmanager
def running(scorer: GatedScorer) -> Iterator[tuple[ScoringWorker, threading.Semaphore]]:
    told = threading.Semaphore(0)
    worker = ScoringWorker(scorer, told.release)
    try:
        yield worker, told
    finally:
        for _ in range(10):
            scorer.gate.release()
        assert worker.stop()


def wait(semaphore: threading.Semaphore) -> None:
    assert semaphore.acquire(timeout=60.0), "the worker did not come to it"


def stamps(results: list[ScoreResult]) -> list[int]:
    return [result.request.prefix[-1].stamp_ns for result in results]


def test_newest_wins() -> None:
    scorer = GatedScorer()
    with running(scorer) as (worker, told):
        worker.submit(request(1))
        wait(scorer.begun)
        for stamp in (2, 3, 4):
            worker.submit(request(stamp))
        for _ in range(2):
            scorer.gate.release()
            wait(told)
        assert scorer.seen == [1, 4] and worker.counts.replaced == 2
        assert stamps(worker.results()) == [1, 4] and worker.results() == []


def test_a_late_answer_never_reaches_the_next_generation() -> None:
    scorer = GatedScorer()
    with running(scorer) as (worker, told):
        worker.submit(request(1))
        wait(scorer.begun)
        worker.submit(request(2))
        worker.start_generation()  # 1 is being computed, 2 waits: both belong to the past
        worker.submit(request(3))
        for _ in range(2):
            scorer.gate.release()
            wait(told)
        assert stamps(worker.results()) == [3]
        assert worker.counts.late == 1 and scorer.seen == [1, 3]


def test_an_answer_that_nobody_fetched_dies_with_its_generation() -> None:
    scorer = GatedScorer()
    with running(scorer) as (worker, told):
        worker.submit(request(1))
        scorer.gate.release()
        wait(told)
        worker.start_generation()
        assert worker.results() == []


@pytest.mark.parametrize(
    ("error", "said"),
    [(ScorerError("the mend"), "the mend"), (ZeroDivisionError("by zero"), "ZeroDivisionError: by zero")],
)
def test_errors_are_reported_and_the_next_request_is_tried(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "_FIRST_PAUSE_S", 0.01)
    scorer = GatedScorer()
    with running(scorer) as (worker, told):
        scorer.error = error
        worker.submit(request(1))
        scorer.gate.release()
        wait(told)
        (result,) = worker.results()
        assert result.error == said and result.score is None and worker.counts.failed == 1
        scorer.error = None
        worker.submit(request(2))
        scorer.gate.release()
        wait(told)
        (result,) = worker.results()
        assert result.error == "" and repr(result.score) == repr(
            PrefixScore(-2.0, -1.0, result.score.log_prob_static)
        )


@pytest.mark.parametrize("log_prob", [nan, inf, -inf, 0.5])
def test_what_is_no_log_probability_is_an_error(log_prob: float) -> None:
    scorer = GatedScorer()
    with running(scorer) as (worker, told):
        scorer.log_prob = log_prob
        worker.submit(request(1))
        scorer.gate.release()
        wait(told)
        (result,) = worker.results()
        assert result.score is None and f"the scorer gave {log_prob} for a log-prob" in result.error
        assert worker.counts.failed == 1


@pytest.mark.parametrize("name", ["answer_share", "stated_progress", "success_probability"])
@pytest.mark.parametrize("value", [inf, -0.5, 1.5])
def test_what_is_no_share_is_an_error(name: str, value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = GatedScorer()
    wrong = PrefixScore(-1.0, -1.0, **{name: value})
    monkeypatch.setattr(scorer, "score_one", lambda _: wrong)
    with running(scorer) as (worker, told):
        worker.submit(request(1))
        wait(told)
        (result,) = worker.results()
        assert result.score is None and result.error.startswith(f"the scorer gave {value} for {name}")


class Clock:
    """Stands in for `time` in the worker: pauses of half a minute pass when the test says so."""

    perf_counter = staticmethod(time.perf_counter)

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


def test_pauses_double_and_are_forgotten_after_a_success_or_with_the_episode(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(worker_module, "time", clock)
    scorer = GatedScorer()
    stamps = iter(range(1, 100))

    def let(error: Exception | None) -> None:
        """What has begun ends so."""
        scorer.error = error
        scorer.gate.release()
        wait(told)

    def check_pause(pause_s: float) -> None:
        """A request is begun after so long, and not before. Each makes the worker look at the clock."""
        if pause_s:
            clock.now_s += pause_s - 0.01
            worker.submit(request(next(stamps)))
            assert not scorer.begun.acquire(timeout=0.05), f"begun before {pause_s} s were over"
            clock.now_s += 0.02
        worker.submit(request(next(stamps)))
        wait(scorer.begun)

    with running(scorer) as (worker, told):
        check_pause(0.0)
        for pause_s in (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0):
            let(ScorerError("no"))
            check_pause(pause_s)
        let(None)
        check_pause(0.0)
        let(ScorerError("no"))
        check_pause(0.5)
        let(ScorerError("no"))
        worker.start_generation()
        check_pause(0.0)


def test_the_newest_request_is_what_is_tried_after_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "_FIRST_PAUSE_S", 0.3)
    scorer = GatedScorer()
    with running(scorer) as (worker, told):
        scorer.error = ScorerError("no")
        worker.submit(request(1))
        wait(scorer.begun)
        not_failed_yet = time.monotonic()
        scorer.gate.release()
        wait(told)
        worker.submit(request(2))
        worker.submit(request(3))
        wait(scorer.begun)
        assert time.monotonic() - not_failed_yet >= 0.3
        assert scorer.seen == [1, 3]


def test_stop_closes_the_scorer() -> None:
    scorer = GatedScorer()
    worker = ScoringWorker(scorer, lambda: None)
    assert worker.stop() and scorer.closed


def test_stop_returns_although_the_scorer_hangs() -> None:
    scorer = GatedScorer()
    worker = ScoringWorker(scorer, lambda: None)
    worker.submit(request(1))
    wait(scorer.begun)
    begun = time.monotonic()
    assert not worker.stop()
    assert time.monotonic() - begun < 5.0  # 1.5 s, and what a busy machine adds
    scorer.gate.release()  # let the thread end with the test


def test_a_scorer_that_does_not_answer_hangs_and_a_stopped_process_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scorer = GatedScorer()
    with running(scorer) as (worker, told):
        assert not worker.hang(), "it is not asked"
        worker.submit(request(1))
        wait(scorer.begun)
        assert not worker.hang()
        monkeypatch.setattr(worker._thread, "begun", time.monotonic() - 41.0)
        assert worker.hang() == "the scorer has not answered for more than 10 s"
        assert 41.0 <= worker.busy_s() < 50.0
        worker.excuse(30.0)
        assert worker.hang() == "the scorer has not answered for more than 10 s"
        worker.excuse(30.0)
        assert not worker.hang() and worker.busy_s() < 1.0
        monkeypatch.setattr(worker._thread, "begun", time.monotonic() - 41.0)
        monkeypatch.setattr(worker, "took_s", 15.0)
        assert not worker.hang(), "it is as slow as before"
        monkeypatch.setattr(worker, "took_s", 3600.0)
        monkeypatch.setattr(worker._thread, "begun", time.monotonic() - 61.0)
        assert worker.hang(), "but not that slow"
        scorer.gate.release()
        wait(told)
        monkeypatch.setattr(worker_module, "_HANGS_AFTER_S", 0.0)
        assert not worker.hang()


def test_how_long_a_failure_takes_says_nothing_of_an_answer() -> None:
    scorer = GatedScorer()
    scorer.error = ScorerError("no answer within 8 s")
    with running(scorer) as (worker, told):
        worker.submit(request(1))
        wait(scorer.begun)
        time.sleep(0.05)
        scorer.gate.release()
        wait(told)
        assert worker.took_s == 0.0


def test_a_scorer_that_hangs_while_it_works_ahead_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "_HANGS_AFTER_S", 0.0)
    scorer, working, go_on = GatedScorer(), threading.Semaphore(0), threading.Semaphore(0)

    def ahead(_: ScoreRequest) -> Iterator[None]:
        working.release()
        go_on.acquire()
        yield

    monkeypatch.setattr(scorer, "ahead", ahead)
    with running(scorer) as (worker, told):
        worker.submit(request(1))
        scorer.gate.release()
        wait(told)
        wait(working)
        monkeypatch.setattr(worker, "took_s", 0.0)
        assert worker.hang()
        go_on.release()


def look(stamp_ns: int, time_left_s: float = inf) -> ScoreRequest:
    return replace(request(stamp_ns), extra=True, time_left_s=time_left_s)


def test_an_extra_look_holds_up_nobody() -> None:
    scorer = GatedScorer()
    with running(scorer) as (worker, told):
        worker.submit(request(1))
        assert not worker.submit_extra(look(2)), "a frame that is due waits"
        wait(scorer.begun)
        assert not worker.submit_extra(look(3)), "a frame that is due is being scored"
        scorer.gate.release()
        wait(told)
        assert not worker.submit_extra(look(4, time_left_s=0.0)), "the last answer took longer"
        assert worker.submit_extra(look(5))
        wait(scorer.begun)
        worker.submit(request(6))
        assert not worker.submit_extra(look(7)), "one look at a time"
        for _ in range(2):
            scorer.gate.release()
            wait(told)
        assert scorer.seen == [1, 5, 6] and stamps(worker.results()) == [1, 5, 6]
        assert worker.counts.left_out == 4 and worker.counts.replaced == 0


def test_a_frame_that_is_due_takes_the_place_of_a_look_that_has_not_begun() -> None:
    scorer = GatedScorer()
    with running(scorer) as (worker, told):
        with worker._wake:  # the thread does not come to it
            assert worker.submit_extra(look(1))
            worker.submit(request(2))
        scorer.gate.release()
        wait(told)
        assert scorer.seen == [2] and worker.counts.replaced == 0


def test_a_look_that_fails_is_no_reason_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "_FIRST_PAUSE_S", 600.0)
    scorer = GatedScorer()
    with running(scorer) as (worker, told):
        scorer.error = ScorerError("no")
        assert worker.submit_extra(look(1))
        scorer.gate.release()
        wait(told)
        assert [result.error for result in worker.results()] == ["no"]
        scorer.error = None
        worker.submit(request(2))
        scorer.gate.release()
        wait(told)
        assert stamps(worker.results()) == [2]
        scorer.error = ScorerError("no")
        worker.submit(request(3))
        scorer.gate.release()
        wait(told)
        assert not worker.submit_extra(look(4)), "in the pause after a failure"


def test_what_follows_on_a_look_is_what_follows_on_the_frame_before_it() -> None:
    scorer, followed = GatedScorer(), threading.Semaphore(0)
    ahead: list[int] = []

    def work(request: ScoreRequest) -> Iterator[None]:
        ahead.append(request.prefix[-1].stamp_ns)
        followed.release()
        yield

    scorer.ahead = work  # type: ignore[method-assign]
    with running(scorer) as (worker, told):
        for submit, asked in ((worker.submit, request(1)), (worker.submit_extra, look(2))):
            submit(asked)
            scorer.gate.release()
            wait(told)
            wait(followed)
        assert ahead == [1, 1]


def test_stop_during_a_pause_does_not_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "_FIRST_PAUSE_S", 600.0)
    scorer = GatedScorer()
    told = threading.Semaphore(0)
    worker = ScoringWorker(scorer, told.release)
    scorer.error = ScorerError("no")
    worker.submit(request(1))
    scorer.gate.release()
    wait(told)
    worker.submit(request(2))
    assert worker.stop()
    assert scorer.seen == [1]
