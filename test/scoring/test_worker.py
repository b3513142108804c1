"""The scoring thread: newest wins, late answers die, a bad scorer harms nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from topreward_ros.core.episode import ScoreRequest
from topreward_ros.core.frames import Frame
from topreward_ros.scoring import worker as worker_module
from topreward_ros.scoring.base import PrefixScore, ScorerError, ScorerInfo, SequentialScorer
from topreward_ros.scoring.worker import ScoreResult, ScoringWorker

PIXEL = np.zeros((1, 1, 3), np.uint8)


class GatedScorer(SequentialScorer):
    """A scorer whose calls wait until the test lets them go, and fail when the test says so.

    What is under test is the thread around a scorer; a real model would only hide its timing.
    """

    def __init__(self) -> None:
        self.info = ScorerInfo(
            model_id="gated",
            revision="",
            random_weights=True,
            device="cpu",
            dtype="float32",
            prompt_hash="",
            max_pixels=1,
        )
        self.gate = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)
        self.seen: list[int] = []
        self.error: Exception | None = None
        self.closed = False

    def score_one(self, request: ScoreRequest) -> PrefixScore:
        prefix = request.prefix
        self.seen.append(prefix[-1].stamp_ns)
        self.begun.release()
        self.gate.acquire()
        if self.error is not None:
            raise self.error
        return PrefixScore(-float(prefix[-1].stamp_ns), -1.0)

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
    assert semaphore.acquire(timeout=10.0), "the worker did not come to it"


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
        assert result.error == "" and result.score == PrefixScore(-2.0, -1.0, result.score.log_prob_static)


def test_back_off_doubles_and_is_forgotten_after_a_success_or_with_the_episode() -> None:
    worker = ScoringWorker(GatedScorer(), lambda: None)
    pauses = []
    for failed in [True] * 8 + [False, True]:
        worker._back_off(failed)
        pauses.append(worker._pause_s)
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 0.0, 0.5]
    worker.start_generation()
    assert worker._pause_s == 0.0 and worker._not_before_s == 0.0
    assert worker.stop()


def test_the_pause_is_kept_and_the_newest_request_is_what_is_tried_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_module, "_FIRST_PAUSE_S", 0.3)
    scorer = GatedScorer()
    with running(scorer) as (worker, told):
        scorer.error = ScorerError("no")
        worker.submit(request(1))
        scorer.gate.release()
        wait(told)
        failed = time.monotonic()
        worker.submit(request(2))
        worker.submit(request(3))
        wait(scorer.begun)  # of the first
        wait(scorer.begun)
        assert time.monotonic() - failed >= 0.25
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
    assert time.monotonic() - begun < 2.0
    scorer.gate.release()  # let the thread end with the test


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
