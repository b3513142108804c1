"""Several episodes scored side by side, so that the model can share work among them.

An episode is a generator: it yields a request, is sent its score, and returns its result in the end. Where
its frames come from, and what becomes of scores, is its own matter.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Sequence
from time import sleep
from typing import TypeVar
from weakref import WeakKeyDictionary

from topreward_ros.core.errors import UserError
from topreward_ros.core.printable import printable
from topreward_ros.core.progress import PrefixScore
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.offline.worker_warnings import of
from topreward_ros.scoring.base import BusyError, LinkError, PrefixScorer, ScorerError

_TRIES = 6
_PAUSE_S = 1.0  # after the first failure; longer after each further one

_log = logging.getLogger(__name__)

Result = TypeVar("Result")

#: Yields the next request, is sent its score (None at first), and returns its result. A score that cannot be
#: computed is raised in it as a `ScorerError`.
Episode = Generator[ScoreRequest, PrefixScore | None, Result]


def score_side_by_side(
    episodes: Sequence[Episode[Result]], scorer: PrefixScorer, at_once: int
) -> Iterator[tuple[int, Result | UserError]]:
    """Yield the number and the result of each episode, or the error that ended it, as they end.

    ``at_once`` of them run at a time. One that fails does not harm the others. All are closed in the end.
    A server that is busy, or cannot be reached, is asked again, `_TRIES` times in all. That is told once
    of a scorer, whichever episodes and calls it delays, and again where it had answered meanwhile. Once that
    was in vain, a server that cannot be reached is asked once for each further score, until it answers.
    """
    running: dict[int, ScoreRequest] = {}
    waiting = list(range(len(episodes)))
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                number = waiting.pop(0)
                yield from _go_on(episodes, number, None, running)
            if not running:
                continue
            # After memory ran out the scorer takes fewer: the others wait where they are.
            some = [*running.items()][: max(1, min(at_once, scorer.episodes_at_once()))]
            scores = _patiently(scorer, [request for _, request in some])
            for (number, _), score in zip(some, scores, strict=True):
                yield from _go_on(episodes, number, score, running)
    finally:
        for episode in episodes:
            episode.close()


def _patiently(scorer: PrefixScorer, requests: Sequence[ScoreRequest]) -> list[PrefixScore | ScorerError]:
    """The scores of ``requests``, of which those are asked for again that a server may answer later.

    Nobody waits for them as a robot does, and a score that is lacking would end its episode.
    """
    outage = _outages.setdefault(scorer, _Outage())
    scores = scorer.score_all(requests)
    for tried in range(1, _TRIES):
        failed = [error for error in scores if isinstance(error, BusyError | LinkError)]
        if not failed or (outage.is_given_up and not any(isinstance(it, BusyError) for it in failed)):
            break
        pause_s = max(error.pause_s if isinstance(error, BusyError) else 0.0 for error in failed)
        outage.tell(failed[0])
        sleep(max(pause_s, _PAUSE_S * tried))
        places = [place for place, error in enumerate(scores) if isinstance(error, BusyError | LinkError)]
        kept = [request.prefix[0] for request in requests]
        again = scorer.score_all([requests[place] for place in places], kept)
        for place, score in zip(places, again, strict=True):
            scores[place] = score
    if not all(isinstance(score, BusyError | LinkError) for score in scores):
        outage.end(scorer)
    elif any(isinstance(score, LinkError) for score in scores):
        outage.is_given_up = True
    return scores


class _Outage:
    """What was said of a server that does not answer."""

    def __init__(self) -> None:
        self._is_gone = self._is_busy = False  # and that was told
        self.is_given_up = False  #: it was asked as often as it is, in vain

    def tell(self, error: ScorerError) -> None:
        """Say what is done about ``error``, where that is news. A server that is busy may be so all the time,
        between its answers."""
        if isinstance(error, BusyError):
            if not self._is_busy:
                self._is_busy = True
                _log.warning(
                    "%s; whenever it says so, it is asked again after a pause, %d times in all for a score",
                    error,
                    _TRIES,
                    extra=of("busy"),
                )
        elif not self._is_gone:
            self._is_gone = True
            _log.warning(
                "%s; it is asked %d times for a score, in %.0f s, before an episode is given up, and those "
                "that follow at once while it is away; this is not said again before it answers",
                error,
                _TRIES,
                sum(_PAUSE_S * tried for tried in range(1, _TRIES)),
                extra=of("gone"),
            )

    def end(self, scorer: PrefixScorer) -> None:
        """There is an answer."""
        self.is_given_up = False
        if self._is_gone:
            self._is_gone = False
            name = printable(scorer.info.model_id, 200)
            _log.warning("%s answers again", name, extra=of("gone", is_over=True))


#: Of a scorer, for as long as it lives: a worker asks one for job after job, and another run loads its own.
_outages: WeakKeyDictionary[PrefixScorer, _Outage] = WeakKeyDictionary()


def _go_on(
    episodes: Sequence[Episode[Result]],
    number: int,
    score: PrefixScore | ScorerError | None,
    running: dict[int, ScoreRequest],
) -> Iterator[tuple[int, Result | UserError]]:
    """Let an episode run until its next request, which is noted in ``running``; yield its end, if it ends."""
    episode = episodes[number]
    try:
        running[number] = episode.throw(score) if isinstance(score, ScorerError) else episode.send(score)
    except StopIteration as end:
        running.pop(number, None)
        yield number, end.value
    except UserError as error:
        running.pop(number, None)
        yield number, error
