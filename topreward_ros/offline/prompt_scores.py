"""The scores of wordings of the question on labelled episodes, kept for a later run.

Each episode is read and its frames are encoded once, for all templates together, as far as one ensemble can
hold them: up to 64 that end alike. Their numbers are those that each template would have alone, to rounding.
What was scored before is not scored again, template by template.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np

from topreward_ros.core.errors import UserError
from topreward_ros.core.metrics import PREFIXES
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.core.output_files import temporary_folder, write_file
from topreward_ros.core.printable import printable
from topreward_ros.core.progress import PrefixScore
from topreward_ros.core.prompt_worth import PromptScores
from topreward_ros.offline.code_version import code_hash
from topreward_ros.offline.json_fields import Field
from topreward_ros.offline.json_values import json_value
from topreward_ros.offline.kept_json import KeptError, kept_text, read_kept, scored_again
from topreward_ros.offline.labelled_episodes import LabelledEpisode
from topreward_ros.offline.prefix_schedule import PrefixSchedule
from topreward_ros.offline.score_video import Curve, Outcome, score_recordings
from topreward_ros.scoring.base import PrefixScorer, ScorerInfo, ScorerSettings, problem_with
from topreward_ros.scoring.question.templates import MAX_TEMPLATES, Question, file_of, kind_of


class SweepError(UserError):
    """An episode cannot be used."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """How episodes are scored, and with which templates."""

    texts: tuple[str, ...]
    question: Question  #: whose answers and reply are those of all
    scorer: ScorerSettings
    monitor: MonitorSettings
    load: Callable[[ScorerSettings], PrefixScorer]
    on_scores: Callable[[int], None]  #: is told of so many more that are done, or known from before
    kept: Path | None = None  #: folder in which scores are kept, for the next run
    on_note: Callable[[str], None] = lambda _: None  #: is told of kept scores that cannot be used
    file: str = ""  #: that ``prompts`` takes as it is and that asks the one text, such as a soft prompt's


def batches(texts: Sequence[str], question: Question) -> list[tuple[str, ...]]:
    """The templates that are scored together."""
    by_kind: dict[str, list[str]] = {}
    for text in texts:
        by_kind.setdefault(kind_of(text, question), []).append(text)
    return [
        tuple(some[start : start + MAX_TEMPLATES])
        for some in by_kind.values()
        for start in range(0, len(some), MAX_TEMPLATES)
    ]


def score_episodes(
    episodes: Sequence[LabelledEpisode], sweep: Sweep
) -> tuple[list[PromptScores | UserError], ScorerInfo]:
    """The scores of each episode by template, or why there are none; and what scored them."""
    books = [_Book(episode) for episode in episodes]
    for batch in batches(sweep.texts, sweep.question):
        info = _score_batch(books, sweep, batch)
    return [book.scores(sweep.texts) for book in books], info


class _Curves(NamedTuple):
    """Log-probabilities (K,) of K prefixes by one template, of the video and of the static one."""

    log_probs: np.ndarray
    static: np.ndarray


class _Book:
    """What is known of an episode, and where that is kept."""

    def __init__(self, episode: LabelledEpisode) -> None:
        self.episode = episode
        self.error: UserError | None = None
        self._curves: dict[str, _Curves] = {}
        self._file: Path | None = None
        self._key = ""

    def keep_in(self, folder: Path, key: str) -> bool:
        """Take what ``folder`` keeps for ``key``, and add to it from now on; whether it can be used."""
        file = folder / f"{key}.json"
        if file == self._file:
            return True
        self._file, self._key = file, key
        try:
            self._curves |= _read_kept(file, key)
        except ValueError:
            return False
        return True

    def lacks(self, texts: Sequence[str]) -> list[str]:
        """Those of ``texts`` that have no scores."""
        return [text for text in texts if text not in self._curves]

    def prefixes(self, text: str) -> int:
        """How many prefixes were scored with ``text``."""
        return len(self._curves[text].log_probs)

    def add(self, texts: Sequence[str], outcome: Outcome) -> None:
        """Add the scores of a curve that was made with ``texts``, or why there are none."""
        if not isinstance(outcome, Curve):
            self.error = outcome
        elif not outcome.points:
            self.error = SweepError(
                f"{self.episode.name}: none of its frames could be scored; look at it, or leave it out"
            )
        elif any(len(point.score.by_prompt) != len(texts) for point in outcome.points):
            self.error = SweepError(
                f"{self.episode.name}: {printable(outcome.model.model_id, 100)} gives no log-probability of "
                "each wording: it is not asked in words, or did not answer all; name a vision-language model"
            )
        else:
            log_probs = np.array([point.score.by_prompt for point in outcome.points])
            static = np.array(
                [point.score.static_by_prompt or [np.nan] * len(texts) for point in outcome.points]
            )
            for text, *curves in zip(texts, log_probs.T, static.T, strict=True):
                self._curves[text] = _Curves(*curves)
            self._write()

    def scores(self, texts: Sequence[str]) -> PromptScores | UserError:
        """The scores with ``texts``, in their order."""
        if self.error is not None:
            return self.error
        log_probs, static = (
            np.stack(curves, axis=1) for curves in zip(*(self._curves[text] for text in texts), strict=True)
        )
        return PromptScores(self.episode.task, bool(self.episode.succeeded), log_probs, static)

    def _write(self) -> None:
        if self._file is not None:
            content = {
                text: {"log_probs": curves.log_probs.tolist(), "static": curves.static.tolist()}
                for text, curves in self._curves.items()
            }
            write_file(self._file, kept_text(self._key, content))


def _score_batch(books: Sequence[_Book], sweep: Sweep, texts: Sequence[str]) -> ScorerInfo:
    """Score what lacks ``texts``; with fewer templates where all episodes have some of them."""
    with _scorer(sweep, texts) as scorer:
        info = scorer.info
        if sweep.kept is not None:
            usable = [book.keep_in(sweep.kept, _key(book.episode, sweep, info)) for book in books]
            if damaged := usable.count(False):
                sweep.on_note(scored_again(damaged, "episode", sweep.kept))
        lacking = dict.fromkeys(text for book in books for text in book.lacks(texts))
        for book in books:
            if not book.lacks(texts):
                sweep.on_scores(book.prefixes(texts[0]))
        if len(lacking) == len(texts):
            _score_lacking(books, sweep, texts, scorer)
    if 0 < len(lacking) < len(texts):
        with _scorer(sweep, list(lacking)) as scorer:
            _score_lacking(books, sweep, list(lacking), scorer)
    return info


def _score_lacking(books: Sequence[_Book], sweep: Sweep, texts: Sequence[str], scorer: PrefixScorer) -> None:
    left = [book for book in books if book.error is None and book.lacks(texts)]
    score_recordings(
        [book.episode.recording for book in left],
        scorer,
        replace(sweep.monitor, end_episode_on_success=False, episode_timeout=0.0),
        prefixes=PREFIXES,
        prefix_schedule=PrefixSchedule.MONITOR,
        at_once=scorer.episodes_at_once(),
        on_score=lambda _: sweep.on_scores(1),
        on_outcome=lambda number, outcome: left[number].add(texts, outcome),
    )


@contextmanager
def _scorer(sweep: Sweep, texts: Sequence[str]) -> Iterator[PrefixScorer]:
    """A scorer of these templates, or of the sweep's file."""
    if sweep.file:
        scorer = sweep.load(replace(sweep.scorer, prompts=sweep.file))
    else:
        with temporary_folder("topreward-prompts-") as folder:
            file = folder / "prompts.txt"
            write_file(file, file_of(texts, sweep.question))
            scorer = sweep.load(replace(sweep.scorer, prompts=str(file)))
    try:
        yield scorer
    finally:
        scorer.close()


# ---- what an earlier run left -----------------------------------------------------------------------


def _key(episode: LabelledEpisode, sweep: Sweep, info: ScorerInfo) -> str:
    """All that the scores of an episode depend on beside the template, as a hash."""
    settings = {
        name: value
        for name, value in asdict(sweep.scorer).items()
        if name not in ("device", "threads", "prompts", "cuda_graphs", "compile")
    }
    parts = {
        "code": code_hash(),
        "episode": [episode.identity, episode.task],
        "model": [info.revision, info.dtype, info.max_pixels],
        "scorer": settings,
        "answers": sweep.question.head,
        "monitor": asdict(sweep.monitor),
        "prefixes": PREFIXES,
    }
    return sha256(json.dumps(json_value(parts), sort_keys=True).encode()).hexdigest()[:32]


def _read_kept(path: Path, key: str) -> dict[str, _Curves]:
    """The scores by template that were kept; those that were not told are not there. Raises `ValueError`."""
    content = read_kept(path, key)
    if content is None:
        return {}
    kept = {
        text: _Curves(*(_numbers(content[text][name]) for name in _Curves._fields))
        for text in content.members()
    }
    lengths = {array.shape for curves in kept.values() for array in curves}
    if len(lengths) != 1 or (0,) in lengths:
        raise KeptError("its curves are of different lengths, or of none")
    told = {text: curves for text, curves in kept.items() if np.isfinite(curves.log_probs).all()}
    for curves in told.values():
        for log_prob, static in zip(*curves, strict=True):
            if problem := problem_with(PrefixScore(log_prob, np.nan, static)):
                raise KeptError(problem)
    return told


def _numbers(field: Field) -> np.ndarray:
    return np.array([it.number_or_nan() for it in field.items()], np.float64)
