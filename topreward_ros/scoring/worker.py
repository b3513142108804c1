"""Threads that score, so that no ROS callback ever waits for a model.

A `ScoringThread` owns a scorer. A `ScoringWorker` is the place of one monitor at it, and several monitors may
have one at the same thread: each has a slot for a request, in which a newer one replaces one that has not
begun. Those whose last turn is longest ago come first; as many are scored together as the scorer gains speed
from, and what is kept of the episodes of the others stays. While all slots are empty, the scorer works ahead,
for each in turn. Requests have a generation: an answer to a request from before
`ScoringWorker.start_generation` is dropped, so a late score can never reach the next episode. A failure is
reported to whom it belongs, and the next request of that monitor is tried after a pause that doubles with
every failure in a row. An extra look (core/looks.py) is scored only while there is nothing else to score, and
time for it. An error may say that its pause is short (`ScorerError.longest_pause_s`), as where the next
request may find a server again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextvars import copy_context
from dataclasses import dataclass, replace

from topreward_ros.core.frames import Frame
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.scoring.base import (
    PrefixScore,
    PrefixScorer,
    ScorerError,
    ScorerInfo,
    in_a_line,
    problem_with,
    without_traceback,
)

_LOG = logging.getLogger(__name__)
_FIRST_PAUSE_S = 0.5
_STOP_TIMEOUT_S = 1.5
# A scorer that hangs has not answered for so long; one that is slow, for longer: its last answer tells.
_HANGS_AFTER_S = 10.0
_HANGS_AFTER_ANSWERS = 3
_HANGS_AT_LAST_S = 60.0


@dataclass(frozen=True, slots=True)
class ScoreResult:
    """What became of a request: a score, or the error that took its place."""

    request: ScoreRequest
    score: PrefixScore | None
    error: str  #: empty when there is a score
    seconds: float  #: time that scoring took, that of others which were scored together with it included
    longest_pause_s: float = ScorerError.longest_pause_s  #: after the error


@dataclass(slots=True)
class WorkerCounts:
    """What the worker did since it was started."""

    scored: int = 0
    replaced: int = 0  #: requests that a newer one replaced before they were begun; no extra looks
    left_out: int = 0  #: extra looks for which there was no time
    failed: int = 0
    late: int = 0  #: answers thrown away because their generation was over


@dataclass(frozen=True, slots=True)
class _Taken:
    """A request whose turn it is."""

    worker: ScoringWorker
    generation: int
    request: ScoreRequest


class ScoringThread:
    """A thread with a scorer, and the workers that have a place at it. It ends with the last of them."""

    def __init__(self, scorer: PrefixScorer) -> None:
        self.scorer = scorer
        self.wake = threading.Condition()  #: guards all that is below, and what is private in the workers
        self.workers: list[ScoringWorker] = []
        self.is_over = False  #: the last worker has left
        self.scores = False  #: requests are being scored now
        self.begun: float | None = None  #: [s], monotonic, of what the scorer is asked for now
        self._turns = 0
        # A daemon, so that a scorer that hangs cannot keep the process alive. With the context of who loaded
        # the scorer, in whose log its warnings are to stand.
        self.thread = threading.Thread(
            target=copy_context().run, args=(self._run,), name="scoring", daemon=True
        )

    def join(self, worker: ScoringWorker) -> None:
        """Give ``worker`` a place. Raises `ScorerError` once the thread is over."""
        with self.wake:
            if self.is_over:
                raise ScorerError("the scorer was closed: load it again")
            self.workers.append(worker)
            if len(self.workers) == 1:
                self.thread.start()

    def leave(self, worker: ScoringWorker) -> None:
        """Take the place of ``worker`` from it; the last one closes the scorer. To be called under `wake`."""
        if worker in self.workers:
            self.workers.remove(worker)
            self.is_over = not self.workers
            self.wake.notify_all()

    def is_busy(self) -> bool:
        """Whether something is being scored, or waits for it. To be called under `wake`."""
        return self.scores or any(worker.pending is not None for worker in self.workers)

    def _run(self) -> None:
        while taken := self._take():
            self._note_begun(time.monotonic())
            results = self._score(taken)
            with self.wake:
                self.begun, self.scores = None, False
                for each, result in zip(taken, results, strict=True):
                    each.worker.finish(each.generation, result)
                told = [each.worker for each in taken if each.worker in self.workers]
            for worker in told:
                _notify(worker)
            self._work_ahead()
        self.scorer.close()

    def _take(self) -> list[_Taken]:
        """The next requests, once there are some that need not wait after a failure; empty: time to stop."""
        with self.wake:
            while not self.is_over:
                waiting = [worker for worker in self.workers if worker.pending is not None]
                wait_s = min((worker.not_before_s for worker in waiting), default=0.0) - time.monotonic()
                if ready := self._ready():
                    self.scores = True
                    return [self._take_of(worker) for worker in self._of_this_turn(ready)]
                self.wake.wait(wait_s if waiting else None)
        return []

    def _take_of(self, worker: ScoringWorker) -> _Taken:
        self._turns += 1  # also among those who are scored together: else the first of them is so each time
        return worker.take(self._turns)

    def _ready(self) -> list[ScoringWorker]:
        """The workers whose request can be scored now."""
        now = time.monotonic()
        return [each for each in self.workers if each.pending is not None and each.not_before_s <= now]

    def _of_this_turn(self, ready: list[ScoringWorker]) -> list[ScoringWorker]:
        due = [worker for worker in ready if not worker.waits_with_extra]
        first = sorted(due, key=lambda worker: worker.turn)  # equal ones stay in the order in which they came
        if len(first) < 2:
            return first or ready[:1]
        try:
            at_once = self.scorer.episodes_at_once()
        except BaseException:
            _LOG.exception("unexpected error in the scorer")
            at_once = 1
        return first[: max(1, at_once)]

    def _score(self, taken: Sequence[_Taken]) -> list[ScoreResult]:
        begun = time.perf_counter()
        outcomes = self._outcomes([each.request for each in taken], self._kept(taken))
        seconds = time.perf_counter() - begun
        return [
            _result(each.request, outcome, seconds) for each, outcome in zip(taken, outcomes, strict=True)
        ]

    def _kept(self, taken: Sequence[_Taken]) -> list[Frame]:
        """The first frames of the episodes of all whose turn it is not, those first who had theirs last."""
        served = [each.worker for each in taken]
        with self.wake:
            others = [worker for worker in self.workers if worker not in served and worker.newest is not None]
            others.sort(key=lambda worker: -worker.turn)
            return [worker.newest.prefix[0] for worker in others if worker.newest is not None]

    def _outcomes(
        self, requests: Sequence[ScoreRequest], kept: Sequence[Frame]
    ) -> list[PrefixScore | ScorerError]:
        """Scores, or what went wrong, in the order of the requests."""
        try:
            made = self.scorer.score_all(requests, kept)
            if len(made) != len(requests):
                raise ValueError(f"{len(made)} scores for {len(requests)} requests")
            return made
        except ScorerError as error:
            said = without_traceback(error)
        except BaseException as error:  # must not end the thread; Ctrl-C comes to the main thread alone
            _LOG.exception("unexpected error in the scorer")
            said = ScorerError(in_a_line(error))
        if len(requests) == 1:
            return [said]
        starts = [
            request.prefix[0] for request in requests
        ]  # one of them may be to blame, and not the others
        return [outcome for each in requests for outcome in self._outcomes([each], [*starts, *kept])]

    def _work_ahead(self) -> None:
        """Let the scorer precompute what follows on the newest scores, step by step and for each worker in
        turn, until there is a request to score."""
        with self.wake:
            served = sorted(self.workers, key=lambda worker: -worker.turn)
            wanted = [(worker, worker.newest) for worker in served if worker.newest and not worker.is_ahead]
        running = {worker: self._ahead(request) for worker, request in wanted if request is not None}
        self._note_begun(time.monotonic())
        try:
            while running:
                for worker, steps in [*running.items()]:
                    if not self._step(steps):
                        del running[worker]
                        worker.is_ahead = True
                    with self.wake:
                        self.begun = time.monotonic()
                        if self._ready() or self.is_over:
                            return
        finally:
            self._note_begun(None)

    def _ahead(self, request: ScoreRequest) -> Iterator[None]:
        yield from self.scorer.ahead(request)  # called by the first step, which looks after errors

    def _step(self, steps: Iterator[None]) -> bool:
        """Do a step; whether there are more."""
        try:
            next(steps)
            return True
        except StopIteration:
            pass
        except ScorerError as error:  # if it matters, it recurs when a request is scored
            _LOG.debug("working ahead failed: %s", error)
        except BaseException:  # as in `_outcomes`
            _LOG.exception("unexpected error in the scorer")
        return False

    def _note_begun(self, begun: float | None) -> None:
        with self.wake:  # `excuse` moves it
            self.begun = begun


class ScoringWorker:
    """The place of one monitor at a thread that scores. All methods are called from one other thread.

    What has no underscore and is no method for that thread belongs to `ScoringThread`.
    """

    def __init__(
        self,
        scorer: PrefixScorer | ScoringThread,
        notify: Callable[[], None] = lambda: None,
        model_id: str = "",
        *,
        awaited: bool = False,
    ) -> None:
        """``notify`` is called from the scorer's thread whenever `results` has something new, and may be set
        later. Without a thread, a scorer gets one of its own. ``model_id``: how this monitor names the model;
        empty: as the first one did. ``awaited``: somebody waits for each answer, and sees to pauses after
        failures; so there is none here, and an extra look has its turn as any other request. Raises
        `ScorerError` where the thread is over.
        """
        thread = scorer if isinstance(scorer, ScoringThread) else ScoringThread(scorer)
        self.scorer = thread.scorer
        self.info: ScorerInfo = (
            self.scorer.info
        )  #: of the scorer, with the model's name as this monitor has it
        if model_id:
            self.info = replace(self.info, model_id=model_id)
        self.counts = WorkerCounts()
        self.notify = notify
        self.pending: tuple[int, ScoreRequest] | None = None
        self.newest: ScoreRequest | None = None  #: scored last in this generation, and no extra look
        self.is_ahead = False  #: there is nothing left to precompute for it
        self.turn = 0  #: number of the last one
        self.took_s = 0.0  #: its newest answer: those of others say little of it
        self.not_before_s = 0.0  #: monotonic: end of the pause after a failure
        self._awaited = awaited
        self._thread = thread
        self._wake = thread.wake
        self._generation = 0
        self._pause_s = 0.0  # after the newest failure; 0 after a success
        self._done: deque[tuple[int, ScoreResult]] = deque()
        self._stop_by_s: float | None = None  # monotonic: until when a stop waits
        thread.join(self)

    # ---- for the monitor ------------------------------------------------------------------------

    def submit(self, request: ScoreRequest) -> None:
        """Ask for a score of the newest prefix; replaces a request that has not begun."""
        with self._wake:
            self.counts.replaced += self.pending is not None and not self.pending[1].extra
            self.pending = (self._generation, request)
            self._wake.notify_all()

    def submit_extra(self, request: ScoreRequest) -> bool:
        """Ask for the score of an extra look, unless it would hold up others: False, and nothing is done.

        It would where something is being scored or waits for it, in the pause after a failure, and where the
        last answer took longer than the request has time.
        """
        with self._wake:
            busy = self._thread.is_busy() or time.monotonic() < self.not_before_s
            if busy or self.took_s > request.time_left_s:
                self.counts.left_out += 1
                return False
            self.pending = (self._generation, request)
            self._wake.notify_all()
        return True

    def start_generation(self) -> None:
        """Drop the pending request and every answer to an earlier one, and end the pause after a failure."""
        with self._wake:
            self._generation += 1
            self.pending = self.newest = None
            self._pause_s = self.not_before_s = 0.0

    def results(self) -> list[ScoreResult]:
        """The answers of this generation since the last call, in order. Never blocks."""
        with self._wake:
            current = [result for generation, result in self._done if generation == self._generation]
            self.counts.late += len(self._done) - len(current)
            self._done.clear()
        return current

    def hang(self) -> str:
        """That the scorer has not answered for too long, for a human; else empty."""
        thread = self._thread
        busy_s = self.busy_s()
        with self._wake:
            took_s = max((each.took_s for each in thread.workers), default=0.0)  # whichever is scored now
            slow_s = min(_HANGS_AFTER_ANSWERS * took_s, _HANGS_AT_LAST_S)
        patience_s = max(_HANGS_AFTER_S, slow_s)
        return f"the scorer has not answered for more than {patience_s:.0f} s" if busy_s > patience_s else ""

    def busy_s(self) -> float:
        """For how long the scorer has been at what it does now [s]; 0: it waits."""
        with self._wake:
            return 0.0 if self._thread.begun is None else time.monotonic() - self._thread.begun

    def excuse(self, stopped_s: float) -> None:
        """This process was stopped for so long [s]: the scorer could not work in that time."""
        with self._wake:
            if self._thread.begun is not None:
                self._thread.begun = min(time.monotonic(), self._thread.begun + stopped_s)

    def ask_to_stop(self) -> None:
        """Leave the thread. If this is its last worker, it ends and closes the scorer, after the request that
        is being scored."""
        with self._wake:
            if self._stop_by_s is None:
                self._stop_by_s = time.monotonic() + _STOP_TIMEOUT_S
            self.pending = self.newest = None
            self._thread.leave(self)

    def stop(self) -> bool:
        """Leave the thread; the last worker waits for its end, and for the scorer to be closed. Returns in
        under 2 s, counted from `ask_to_stop`, whatever the scorer does; False when the scorer still hangs,
        and its thread had to be left behind."""
        self.ask_to_stop()
        assert self._stop_by_s is not None
        if not self._thread.is_over:
            return True
        self._thread.thread.join(max(0.0, self._stop_by_s - time.monotonic()))
        return not self._thread.thread.is_alive()

    # ---- for the thread, under `wake` -----------------------------------------------------------

    @property
    def waits_with_extra(self) -> bool:
        """Whether the pending request is an extra look, which can be left out."""
        return self.pending is not None and self.pending[1].extra and not self._awaited

    def take(self, turn: int) -> _Taken:
        """The pending request, whose turn it is; it is no longer pending then."""
        assert self.pending is not None
        (generation, request), self.pending = self.pending, None
        self.turn = turn
        return _Taken(self, generation, request)

    def finish(self, generation: int, result: ScoreResult) -> None:
        """Note what became of a request that was taken."""
        self.counts.scored += not result.error
        self.counts.failed += bool(result.error)
        if not result.error:  # how long one takes that fails says nothing of the next
            self.took_s = result.seconds
        if self._stop_by_s is not None:
            return
        self._done.append((generation, result))
        if generation != self._generation:
            return
        extra, failed = result.request.extra, bool(result.error)
        if not (self._awaited or (extra and failed)):
            self._back_off(failed, result.longest_pause_s)
        if not extra:
            self.newest = None if failed else result.request
        self.is_ahead = failed

    def _back_off(self, failed: bool, longest_s: float) -> None:
        self._pause_s = min(max(2.0 * self._pause_s, _FIRST_PAUSE_S), longest_s) if failed else 0.0
        self.not_before_s = time.monotonic() + self._pause_s


def _notify(worker: ScoringWorker) -> None:
    try:
        worker.notify()
    except Exception:  # it may just be ending, and the thread is that of others, too
        _LOG.exception("a monitor could not be told of its score")


def _result(request: ScoreRequest, outcome: PrefixScore | ScorerError, seconds: float) -> ScoreResult:
    if isinstance(outcome, ScorerError):
        return ScoreResult(request, None, str(outcome), seconds, outcome.longest_pause_s)
    return ScoreResult(request, None if (said := problem_with(outcome)) else outcome, said, seconds)
