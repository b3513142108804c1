"""A thread that scores, so that no ROS callback ever waits for a model.

There is one slot for a request: a newer one replaces one that has not begun. While the slot is empty, the
scorer works ahead. Requests have a generation: an answer to a request from before
`ScoringWorker.start_generation` is dropped, so a late score can never reach the next episode. A failure is
reported, and the next request is tried after a pause that doubles with every failure in a row. An extra look
(core/looks.py) is scored only while there is nothing else to score, and time for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite

from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.scoring.base import PrefixScore, PrefixScorer, ScorerError

_LOG = logging.getLogger(__name__)
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_STOP_TIMEOUT_S = 1.5
# A scorer that hangs has not answered for so long; one that is slow, for longer: its last answer tells.
_HANGS_AFTER_S = 10.0
_HANGS_AFTER_ANSWERS = 3
_HANGS_AT_LAST_S = 60.0
_ROUNDING = 1e-3  # [nat] by which a log-probability may lie above 0


@dataclass(frozen=True, slots=True)
class ScoreResult:
    """What became of a request: a score, or the error that took its place."""

    request: ScoreRequest
    score: PrefixScore | None
    error: str  #: empty when there is a score
    seconds: float  #: time that scoring took


@dataclass(slots=True)
class WorkerCounts:
    """What the worker did since it was started."""

    scored: int = 0
    replaced: int = 0  #: requests that a newer one replaced before they were begun; no extra looks
    left_out: int = 0  #: extra looks for which there was no time
    failed: int = 0
    late: int = 0  #: answers thrown away because their generation was over


class ScoringWorker:
    """Runs a scorer in a thread of its own. All methods are called from one other thread."""

    def __init__(self, scorer: PrefixScorer, notify: Callable[[], None]) -> None:
        """``notify`` is called from the worker's thread whenever `results` has something new."""
        self.scorer = scorer
        self.counts = WorkerCounts()
        self._notify = notify
        self._wake = threading.Condition()
        self._generation = 0
        self._pending: tuple[int, ScoreRequest] | None = None
        self._newest: ScoreRequest | None = None  # the last one that was scored and is no extra look
        self._scores = False  # a request is being scored now
        self._begun: float | None = None  # [s], monotonic, of what the scorer is asked for now
        self._newest_took_s = 0.0
        self._pause_s = 0.0  # after the newest failure; 0 after a success
        self._not_before_s = 0.0  # monotonic: end of that pause
        self._done: deque[tuple[int, ScoreResult]] = deque()
        self._stopping = False
        self._stop_by_s = 0.0  # monotonic: until when a stop waits
        # A daemon, so that a scorer that hangs cannot keep the process alive.
        self._thread = threading.Thread(target=self._run, name="scoring", daemon=True)
        self._thread.start()

    def submit(self, request: ScoreRequest) -> None:
        """Ask for a score of the newest prefix; replaces a request that has not begun."""
        with self._wake:
            self.counts.replaced += self._pending is not None and not self._pending[1].extra
            self._pending = (self._generation, request)
            self._wake.notify()

    def submit_extra(self, request: ScoreRequest) -> bool:
        """Ask for the score of an extra look, unless it would hold up others: False, and nothing is done.

        It would where something is being scored or waits for it, in the pause after a failure, and where the
        last answer took longer than the request has time.
        """
        with self._wake:
            busy = self._scores or self._pending is not None or time.monotonic() < self._not_before_s
            if busy or self._newest_took_s > request.time_left_s:
                self.counts.left_out += 1
                return False
            self._pending = (self._generation, request)
            self._wake.notify()
        return True

    def start_generation(self) -> None:
        """Drop the pending request and every answer to an earlier one, and end the pause after a failure."""
        with self._wake:
            self._generation += 1
            self._pending = None
            self._pause_s = self._not_before_s = 0.0

    def results(self) -> list[ScoreResult]:
        """The answers of this generation since the last call, in order. Never blocks."""
        with self._wake:
            current = [result for generation, result in self._done if generation == self._generation]
            self.counts.late += len(self._done) - len(current)
            self._done.clear()
        return current

    def hang(self) -> str:
        """For how long the scorer has not answered, for a human, when that is too long; else empty."""
        with self._wake:
            busy_s = 0.0 if self._begun is None else time.monotonic() - self._begun
        slow_s = min(_HANGS_AFTER_ANSWERS * self._newest_took_s, _HANGS_AT_LAST_S)
        patience_s = max(_HANGS_AFTER_S, slow_s)
        return f"the scorer has not answered for {busy_s:.0f} s" if busy_s > patience_s else ""

    def excuse(self, stopped_s: float) -> None:
        """This process was stopped for so long [s]: the scorer could not work in that time."""
        with self._wake:
            if self._begun is not None:
                self._begun = min(time.monotonic(), self._begun + stopped_s)

    def ask_to_stop(self) -> None:
        """Let the thread end and close the scorer, after the request that is being scored."""
        with self._wake:
            if not self._stopping:
                self._stop_by_s = time.monotonic() + _STOP_TIMEOUT_S
            self._stopping = True
            self._pending = None
            self._wake.notify()

    def stop(self) -> bool:
        """End the thread and close the scorer. Returns in under 2 s, counted from `ask_to_stop`, whatever the
        scorer does; False when the scorer still hangs, and its thread had to be left behind."""
        self.ask_to_stop()
        self._thread.join(max(0.0, self._stop_by_s - time.monotonic()))
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (taken := self._take()) is not None:
            generation, request = taken
            self._note_begun(time.monotonic())
            result = self._score(request)
            with self._wake:
                self._begun, self._newest_took_s, self._scores = None, result.seconds, False
                if generation == self._generation and not (request.extra and result.error):
                    self._back_off(failed=bool(result.error))
                self._done.append((generation, result))
                stopping = self._stopping
            if not stopping:
                self._notify()
                if not request.extra:
                    self._newest = None if result.error else request
                if self._newest is not None and not result.error:
                    self._work_ahead(self._newest)
        self.scorer.close()

    def _work_ahead(self, request: ScoreRequest) -> None:
        """Let the scorer precompute what follows on ``request``, step by step, until there is another one to
        score."""
        self._note_begun(time.monotonic())
        try:
            for _ in self.scorer.ahead(request):
                with self._wake:
                    self._begun = time.monotonic()
                    if self._pending is not None or self._stopping:
                        return
        except ScorerError as error:  # if it matters, it recurs when a request is scored
            _LOG.debug("working ahead failed: %s", error)
        except Exception:  # as in `_score`
            _LOG.exception("unexpected error in the scorer")
        finally:
            self._note_begun(None)

    def _note_begun(self, begun: float | None) -> None:
        with self._wake:  # `excuse` moves it
            self._begun = begun

    def _back_off(self, failed: bool) -> None:
        self._pause_s = min(max(2.0 * self._pause_s, _FIRST_PAUSE_S), _LONGEST_PAUSE_S) if failed else 0.0
        self._not_before_s = time.monotonic() + self._pause_s

    def _take(self) -> tuple[int, ScoreRequest] | None:
        """The next request, once the pause after a failure is over; None when it is time to stop."""
        with self._wake:
            while not self._stopping:
                wait_s = self._not_before_s - time.monotonic()
                if self._pending is not None and wait_s <= 0.0:
                    taken, self._pending = self._pending, None
                    self._scores = True
                    return taken
                self._wake.wait(wait_s if wait_s > 0.0 else None)
        return None

    def _score(self, request: ScoreRequest) -> ScoreResult:
        begun = time.perf_counter()
        score, error = None, ""
        try:
            score = self.scorer.score(request)
            if not (isfinite(score.log_prob) and score.log_prob <= _ROUNDING):
                error = (
                    f"the scorer gave {score.log_prob} for a log-probability, which is finite and at most 0"
                )
                score = None
        except ScorerError as exc:
            error = str(exc)
        except Exception as exc:  # a scorer must never take the robot's node down
            _LOG.exception("unexpected error in the scorer")
            error = f"{type(exc).__name__}: {exc}"
        self.counts.scored += not error
        self.counts.failed += bool(error)
        return ScoreResult(request, score, error, time.perf_counter() - begun)
