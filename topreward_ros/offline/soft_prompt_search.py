"""A soft prompt trained on labelled episodes and judged as a wording is: `topreward prompts search --soft`.

Which prefixes of an episode are shown is decided by the state machine that the monitor runs: a scorer that
only notes what it is asked stands in the model's place. How vectors are trained is in
scoring/qwen3_vl/soft_training.py; who judges, in core/prompt_choice.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from topreward_ros.core.errors import UserError
from topreward_ros.core.frames import Frame
from topreward_ros.core.measures import Measure
from topreward_ros.core.output_files import temporary_folder, write_file
from topreward_ros.core.printable import printable
from topreward_ros.core.progress import PrefixScore
from topreward_ros.core.prompt_choice import Choice, choose
from topreward_ros.core.prompt_worth import PromptScores
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.offline.labelled_episodes import LabelledEpisode
from topreward_ros.offline.prefix_schedule import PrefixSchedule
from topreward_ros.offline.prompt_scores import Sweep, score_episodes
from topreward_ros.offline.prompt_search import SearchError, joined_scores
from topreward_ros.offline.prompt_sweep import Templates, verdict_text
from topreward_ros.offline.score_video import Outcome, score_recordings
from topreward_ros.scoring.base import ScorerInfo, SequentialScorer
from topreward_ros.scoring.question.soft_prompt import SUFFIX, SoftPrompt, soft_prompt_file

if TYPE_CHECKING:
    from topreward_ros.scoring.qwen3_vl.soft_training import Epoch
    from topreward_ros.scoring.registry import LoadedModel

PREFIXES = 6  #: of an episode, evenly spread, that training sees


@dataclass(frozen=True, slots=True)
class SoftSearch:
    """How a soft prompt is trained and judged."""

    sweep: Sweep
    measure: Measure
    template: str  #: that it begins as
    vectors: int  #: how many are trained
    seed: int
    load: Callable[[], LoadedModel]
    on_epoch: Callable[[Epoch], None]
    is_over: Callable[[], bool]  #: ends training after an epoch


@dataclass(frozen=True, slots=True)
class SoftResult:
    """What came of it."""

    soft: SoftPrompt
    epochs: list[Epoch]
    choice: Choice  #: between the default and the soft prompt
    templates: Templates  #: the default's, and one that stands for the soft prompt
    used: list[LabelledEpisode]  #: for training, and for the test
    tested: int  #: of these
    failures: list[str]  #: why others were not
    info: ScorerInfo

    def file(self) -> bytes:
        """The content of the file that ``prompts`` takes, with what was found in it."""
        about = {
            **self.soft.about,
            "verdict": self.choice.verdict.value,
            "found": printable(verdict_text(self.choice, self.templates), 1000),
            "epochs": str(self.epochs[-1].number),
        }
        return soft_prompt_file(replace(self.soft, about=about))


def train_and_judge(
    training: Sequence[LabelledEpisode],
    laid_aside: Sequence[LabelledEpisode],
    start: Templates,
    how: SoftSearch,
) -> SoftResult:
    """Train on ``training`` and test once on ``laid_aside``, against the default of ``start``.

    Raises `UserError`.
    """
    soft, epochs = _trained(training, how)
    default = tuple(start.texts[place] for place in start.default)
    templates = Templates(
        (*default, f"soft prompt {soft.digest}"), tuple(range(len(default))), {}, start.question
    )
    learnt, tests = (_scored(episodes, templates, soft, how.sweep) for episodes in (training, laid_aside))
    new = (len(default),)
    choice = choose(learnt.scores, [templates.default, new], how.measure, laid_aside=tests.scores, tested=new)
    return SoftResult(
        soft=soft,
        epochs=epochs,
        choice=choice,
        templates=templates,
        used=[*learnt.used, *tests.used],
        tested=len(tests.used),
        failures=[*learnt.failures, *tests.failures],
        info=tests.info,
    )


def _trained(episodes: Sequence[LabelledEpisode], how: SoftSearch) -> tuple[SoftPrompt, list[Epoch]]:
    """The soft prompt, and how training went; nothing of the model stays in memory."""
    from topreward_ros.scoring.qwen3_vl.soft_training import SoftTraining

    training = SoftTraining(*how.load(), how.sweep.scorer, how.template)
    asked = _Asked(training.info)
    failures = []

    def add(number: int, outcome: Outcome) -> None:
        prefixes, asked.prefixes = asked.prefixes, []
        if isinstance(outcome, UserError):
            failures.append(f"{episodes[number].name}: {outcome}")
        elif prefixes:
            episode = episodes[number]
            training.add(episode.task, bool(episode.succeeded), prefixes, len(episodes))
        how.sweep.on_scores(PREFIXES)

    score_recordings(
        [episode.recording for episode in episodes],
        asked,
        replace(how.sweep.monitor, end_episode_on_success=False, episode_timeout=0.0),
        prefixes=PREFIXES,
        prefix_schedule=PrefixSchedule.MONITOR,
        on_outcome=add,
    )
    if len(failures) == len(episodes):
        raise SearchError(f"no episode could be read; the first problem: {failures[0]}")
    return training.train(how.vectors, how.seed, how.on_epoch, how.is_over)


class _Asked(SequentialScorer):
    """Notes the prefixes of the episode that is asked about; its scores mean nothing, and are not used."""

    def __init__(self, info: ScorerInfo) -> None:
        self.info = info
        self.prefixes: list[Sequence[Frame]] = []

    def score_one(self, request: ScoreRequest) -> PrefixScore:
        """See `PrefixScorer.score`."""
        self.prefixes.append(request.prefix)
        return PrefixScore(-1.0, -1.0, -1.0, num_frames=len(request.prefix))

    def close(self) -> None:
        """See `PrefixScorer.close`."""


class _Scored(NamedTuple):
    """Episodes that were scored."""

    scores: list[PromptScores]
    used: list[LabelledEpisode]
    failures: list[str]  #: why others were not
    info: ScorerInfo


def _scored(
    episodes: Sequence[LabelledEpisode], templates: Templates, soft: SoftPrompt, sweep: Sweep
) -> _Scored:
    """The scores of ``episodes`` with the default and with ``soft``, by the engine that scores live."""
    *default, name = templates.texts
    usual, info = score_episodes(episodes, replace(sweep, texts=tuple(default)))
    with temporary_folder("topreward-soft-prompt-") as folder:
        file = folder / f"soft{SUFFIX}"
        write_file(file, soft_prompt_file(soft))
        learnt, _ = score_episodes(episodes, replace(sweep, texts=(name,), file=str(file)))
    made = _Scored([], [], [], info)
    for episode, one, other in zip(episodes, usual, learnt, strict=True):
        if isinstance(one, PromptScores) and isinstance(other, PromptScores):
            made.scores.append(joined_scores([one, other]))
            made.used.append(episode)
        else:
            error = one if isinstance(one, UserError) else other
            made.failures.append(f"{episode.name}: {error}")
    if not made.used:
        raise SearchError(f"no episode could be scored; the first problem: {made.failures[0]}")
    return made
