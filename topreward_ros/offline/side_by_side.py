"""Several episodes scored side by side, so that the model can share work among them.

An episode is a generator: it yields a request, is sent its score, and returns its result in the end. Where
its frames come from, and what becomes of scores, is its own matter.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import TypeVar

from topreward_ros.core.errors import UserError
from topreward_ros.core.progress import PrefixScore
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.scoring.base import PrefixScorer, ScorerError

Result = TypeVar("Result")

#: Yields the next request, is sent its score (None at first), and returns its result. A score that cannot be
#: computed is raised in it as a `ScorerError`.
Episode = Generator[ScoreRequest, PrefixScore | None, Result]


def score_side_by_side(
    episodes: Sequence[Episode[Result]], scorer: PrefixScorer, at_once: int
) -> Iterator[tuple[int, Result | UserError]]:
    """Yield the number and the result of each episode, or the error that ended it, as they end.

    ``at_once`` of them run at a time. One that fails does not harm the others. All are closed in the end.
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
            scores = scorer.score_all([request for _, request in some])
            for (number, _), score in zip(some, scores, strict=True):
                yield from _go_on(episodes, number, score, running)
    finally:
        for episode in episodes:
            episode.close()


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
