"""The search for a better wording of the question: propose, score what is new, keep the best, propose again.

Episodes that judge the result have no part in it: `search` sees those of the training tasks alone, and
`judged` scores the default and the best of them once on the tasks that were laid aside. What a wording is
worth, and whether the best is better than noise, is decided in core/prompt_choice.py, as for the sweep.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import isnan
from typing import Protocol

import numpy as np

from topreward_ros.core.errors import UserError
from topreward_ros.core.measures import Measure
from topreward_ros.core.prompt_choice import Choice, candidates, choose, worth
from topreward_ros.core.prompt_worth import Members, PromptScores
from topreward_ros.offline.labelled_episodes import LabelledEpisode
from topreward_ros.offline.prompt_scores import Sweep, score_episodes
from topreward_ros.offline.prompt_sweep import Templates
from topreward_ros.scoring.base import ScorerError, ScorerInfo
from topreward_ros.scoring.question.templates import PAPERS, Question, ending
from topreward_ros.scoring.question.wordings import recombined, wordings_in

PER_ROUND = 16  #: new wordings of a round; they share its passes
_ENSEMBLED = 12  # of the best wordings, of which all ensembles are tried
_SHORTEST_S = 1.0  # in which no writer answers
_FAILURES = 2  # of a writer in a row, after which it is not asked again

Ranked = Sequence[tuple[str, float]]  #: wordings that end alike and what they are worth, the best first


class SearchError(UserError):
    """Nothing can be searched with these episodes."""


class Proposer(Protocol):
    """Somebody who proposes new wordings."""

    def propose(self, ranked: Ranked, known: Mapping[str, object], count: int, seconds: float) -> list[str]:
        """Up to ``count`` wordings that are not ``known``, after what is known of others, within about
        ``seconds``."""


class Recombiner:
    """Puts together parts of the best wordings."""

    def __init__(self, seed: int, question: Question = PAPERS) -> None:
        """``question``: whose answers are asked for."""
        self._rng = np.random.default_rng(seed)
        self._question = question

    def propose(self, ranked: Ranked, known: Mapping[str, object], count: int, seconds: float) -> list[str]:
        """See `Proposer`; it takes milliseconds."""
        return recombined([text for text, _ in ranked], known, count, self._rng, self._question)


class WrittenBy:
    """Asks a model that writes; where it fails, the search goes on without it."""

    def __init__(
        self,
        write: Callable[[Ranked, int, float], str],
        shown: str,
        on_problem: Callable[[str], None],
        question: Question = PAPERS,
    ) -> None:
        """``write`` gives the model's text, for so many wordings and within so many seconds, or raises
        `ScorerError`; ``shown``: what the writer is called;
        ``question``: whose answers are asked for."""
        self._write, self._shown, self._on_problem, self._question = write, shown, on_problem, question
        self._failures = 0  # in a row

    def propose(self, ranked: Ranked, known: Mapping[str, object], count: int, seconds: float) -> list[str]:
        """See `Proposer`."""
        if self._failures >= _FAILURES or seconds < _SHORTEST_S:
            return []
        try:
            text = self._write(ranked, count, seconds)
        except ScorerError as error:
            made, problem = [], str(error)
        else:
            made = wordings_in(text, known, ending(ranked[0][0]), self._question)[:count]
            problem = f"{self._shown} wrote no new wording that can be asked" if not made else ""
        self._failures = 0 if made else self._failures + 1
        if problem:
            over = "; it is not asked again" if self._failures >= _FAILURES else ""
            self._on_problem(f"{problem}: the search goes on without it{over}")
        return made


@dataclass(frozen=True, slots=True)
class Round:
    """What a round has brought."""

    number: int  #: from 1
    new: int  #: wordings
    known: int  #: all so far
    best: str
    value: float  #: of the best
    default: float


@dataclass(frozen=True, slots=True)
class Search:
    """How to search."""

    sweep: Sweep
    measure: Measure
    candidates: int  #: wordings that are scored at most; those to start with always are
    proposers: Sequence[Proposer]  #: the last one fills what the others leave
    ensembles: int = 3  #: the largest that is tried
    seconds: float = float("inf")  #: after which no round begins; one that would end later does not either
    on_round: Callable[[Round], None] = lambda _: None
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True, slots=True)
class Found:
    """What the search has found on the training tasks."""

    templates: Templates  #: all that were scored
    scores: tuple[PromptScores, ...]  #: of the episodes that could be scored
    used: tuple[LabelledEpisode, ...]  #: those
    failures: tuple[str, ...]  #: why others could not
    candidates: tuple[Members, ...]  #: the default first
    best: Members
    rounds: tuple[Round, ...]
    info: ScorerInfo


def search(episodes: Sequence[LabelledEpisode], start: Templates, how: Search) -> Found:
    """Search by the training ``episodes``, from the wordings of ``start`` on. Raises `UserError`."""
    begun = how.clock()
    known = _Known(episodes)
    templates, new = start, start.texts
    rounds: list[Round] = []
    while new:
        took = how.clock()
        info = known.score(new, how.sweep)
        scores = known.scores()
        values = worth(scores, [(place,) for place in range(len(known.texts))], how.measure)
        ranked = _ranked(known.texts, values, ending(start.texts[start.default[0]]))
        default = worth(scores, [start.default], how.measure)[0]
        rounds.append(Round(len(rounds) + 1, len(new), len(known.texts), *ranked[0], default))
        how.on_round(rounds[-1])
        now = how.clock()
        if now + (now - took) > begun + how.seconds:
            break
        count = min(PER_ROUND, how.candidates - len(known.texts))
        rest = begun + how.seconds - now - (now - took)
        new = tuple(_proposed(how.proposers, ranked, known.texts, count, rest))
        if how.clock() > now + rest:  # the writer took what the round needs
            break
    templates = replace(start, texts=tuple(known.texts))
    found = _candidates(templates, [text for text, _ in ranked], how.ensembles)
    best = found[int(np.argmax(worth(scores, found, how.measure)))]
    return Found(
        templates, tuple(scores), tuple(known.used), tuple(known.failures), tuple(found), best,
        tuple(rounds), info,
    )  # fmt: skip


def judged(
    found: Found, laid_aside: Sequence[LabelledEpisode], how: Search
) -> tuple[Choice, list[LabelledEpisode], list[str]]:
    """The one test of what was found on episodes that had no part in it.

    Returns the choice, which of ``laid_aside`` could be scored, and why others could not. Raises `UserError`.
    """
    default = found.templates.default
    asked = sorted({*default, *found.best})
    texts = tuple(found.templates.texts[place] for place in asked)
    known = _Known(laid_aside)
    known.score(texts, how.sweep)
    scores = [_spread(it, asked, len(found.templates.texts)) for it in known.scores()]
    choice = choose(found.scores, found.candidates, how.measure, laid_aside=scores)
    return choice, known.used, known.failures


class _Known:
    """The scores of episodes with wordings that become more; an episode that fails once is left out."""

    def __init__(self, episodes: Sequence[LabelledEpisode]) -> None:
        self.used = list(episodes)
        self.texts: dict[str, int] = {}  #: with their places
        self.failures: list[str] = []
        self._parts: list[list[PromptScores]] = [[] for _ in episodes]

    def score(self, texts: Sequence[str], sweep: Sweep) -> ScorerInfo:
        """Score all episodes with ``texts``. Raises `SearchError` where none can be scored."""
        outcomes, info = score_episodes(self.used, replace(sweep, texts=tuple(texts)))
        self.texts |= {text: len(self.texts) + place for place, text in enumerate(texts)}
        left = []
        for episode, parts, outcome in zip(self.used, self._parts, outcomes, strict=True):
            if isinstance(outcome, UserError):
                named = episode.name in str(outcome)
                self.failures.append(str(outcome) if named else f"{episode.name}: {outcome}")
            else:
                left.append((episode, [*parts, outcome]))
        if not left:
            raise SearchError(f"no episode could be scored; the first problem: {self.failures[0]}")
        self.used, self._parts = ([pair[column] for pair in left] for column in (0, 1))  # type: ignore[assignment]
        return info

    def scores(self) -> list[PromptScores]:
        """Of each episode that is used, with all wordings."""
        return [joined_scores(parts) for parts in self._parts]


def joined_scores(parts: Sequence[PromptScores]) -> PromptScores:
    """The scores of one episode with all templates of ``parts``."""
    log_probs = np.concatenate([part.log_probs for part in parts], axis=1)
    static = np.concatenate([part.static for part in parts], axis=1)
    return replace(parts[0], log_probs=log_probs, static=static)


def _ranked(texts: Mapping[str, int], values: Sequence[float], last: str) -> list[tuple[str, float]]:
    """The wordings that end in ``last`` and what they are worth, the best first."""
    pairs = [(text, values[place]) for text, place in texts.items() if ending(text) == last]
    return sorted(pairs, key=lambda pair: -np.inf if isnan(pair[1]) else pair[1], reverse=True)


def _proposed(
    proposers: Sequence[Proposer], ranked: Ranked, known: Mapping[str, object], count: int, seconds: float
) -> list[str]:
    """Up to ``count`` new wordings; each proposer but the last has an equal share of them."""
    made: dict[str, None] = {}
    for place, proposer in enumerate(proposers):
        is_last = place == len(proposers) - 1
        share = count - len(made) if is_last else count // len(proposers)
        if share > 0:
            made |= dict.fromkeys(proposer.propose(ranked, {**known, **made}, share, seconds))
    return list(made)


def _candidates(templates: Templates, ranked: Sequence[str], largest: int) -> list[Members]:
    """The default, every wording alone, the files as they are, and ensembles of the best."""
    found, _ = candidates(templates.default, list(templates.files.values()), templates.kinds, 1)
    best = sorted(templates.texts.index(text) for text in ranked[:_ENSEMBLED])
    for size in range(2, min(largest, len(best)) + 1):
        found += [some for some in combinations(best, size) if some not in found]
    return found


def _spread(scores: PromptScores, places: Sequence[int], count: int) -> PromptScores:
    """``scores`` of the templates at ``places`` among ``count``; the others have none."""
    wide = []
    for array in (scores.log_probs, scores.static):
        wide.append(np.full((len(array), count), np.nan))
        wide[-1][:, places] = array
    return replace(scores, log_probs=wide[0], static=wide[1])
