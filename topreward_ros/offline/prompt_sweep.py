"""Every wording of the question on labelled episodes: what `topreward prompts sweep` does.

Each episode is read and its frames are encoded once, for all templates together, as far as one ensemble can
hold them: up to 64 that end alike. Their numbers are those that each template would have alone, to rounding.
Which is best is decided in core/prompt_choice.py; here are the scores, the file of templates and the JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from topreward_ros.core.errors import UserError
from topreward_ros.core.metrics import PREFIXES
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.core.output_files import temporary_folder, write_file
from topreward_ros.core.printable import printable
from topreward_ros.core.prompt_choice import Choice, Members, PromptScores, Rated, Verdict
from topreward_ros.offline.code_version import code_hash, package_version
from topreward_ros.offline.json_values import json_value
from topreward_ros.offline.labelled_episodes import LabelledEpisode
from topreward_ros.offline.prefix_schedule import PrefixSchedule
from topreward_ros.offline.score_video import Curve, Outcome, score_recordings
from topreward_ros.scoring.base import RANDOM_WEIGHTS, PrefixScorer, ScorerError, ScorerInfo, ScorerSettings
from topreward_ros.scoring.question.templates import MAX_TEMPLATES, Question, ending, file_line, read_question

JSON_FORMAT = "topreward_prompts/1"  #: raise the number when a field changes its meaning or goes
SHIPPED = ("", "ten_prompts.txt")  #: of True and False: the paper's question, and the file that ships


class SweepError(UserError):
    """An episode cannot be used."""


@dataclass(frozen=True, slots=True)
class Templates:
    """All templates, each once, and the files in which they stand."""

    texts: tuple[str, ...]
    default: Members  #: what `prompts` says now
    files: dict[str, Members]  #: by the name as it was given
    question: Question  #: whose answers and reply are those of all

    @property
    def kinds(self) -> tuple[str, ...]:
        """How each template ends, before the answer; only those that end alike can be averaged."""
        return tuple("" if self.question.reply else ending(text) for text in self.texts)

    def file_text(self, texts: Sequence[str]) -> str:
        """A file of ``texts``, some of the templates."""
        return self.question.head + "".join(file_line(text, self.question) for text in texts)

    def batches(self) -> list[Members]:
        """The templates that are scored together."""
        by_kind: dict[str, list[int]] = {}
        for place, kind in enumerate(self.kinds):
            by_kind.setdefault(kind, []).append(place)
        return [
            tuple(some[start : start + MAX_TEMPLATES])
            for some in by_kind.values()
            for start in range(0, len(some), MAX_TEMPLATES)
        ]

    def name_of(self, members: Members) -> str:
        """What a candidate is called: the default, a file as it is, or the numbers of its templates from
        1."""
        if members == self.default:
            return "default"
        for file, inside in self.files.items():
            if members == inside and len(inside) > 1:
                return printable(Path(file).name, 60)
        return " + ".join(str(place + 1) for place in members)


def read_all_templates(default: str, files: Sequence[str]) -> Templates:
    """The templates of ``default`` (as the parameter ``prompts`` has it), of ``files``, and where the default
    asks for True and False those that ship.

    Raises `ScorerError` for a file that cannot be read, and for one with other answers than the default.
    """
    usual = read_question(default)
    places: dict[str, int] = {}
    members: dict[str, Members] = {}
    shipped = SHIPPED if usual.answers is None else ()
    for name in dict.fromkeys([default, *shipped, *files]):
        question = read_question(name)
        if question.head != usual.head:
            raise ScorerError(
                f"prompts {name!r} asks for {_asked_for(question)}, and the default "
                f"{f'{default!r} ' if default else ''}for {_asked_for(usual)}: a sweep compares wordings for "
                f"the same answers; give it such files alone, or make this the default (--set prompts={name})"
            )
        inside = [places.setdefault(text, len(places)) for text in question.templates]
        members[name] = tuple(sorted(inside))
    named = {name: inside for name, inside in members.items() if name}
    return Templates(tuple(places), members[default], named, usual)


def _asked_for(question: Question) -> str:
    reply = f" behind {question.reply!r}" if question.reply else ""
    return f"the answers {question.answers}{reply}" if question.answers else "True and False"


def usable(episodes: Sequence[LabelledEpisode]) -> tuple[list[LabelledEpisode], list[str]]:
    """The episodes that the sweep can take, and a sentence for each of the others."""
    made, problems = [], []
    for episode in episodes:
        if episode.succeeded is None:
            problems.append(f"{episode.name}: nobody has said whether it succeeded, so it is left out")
        elif "\n" in episode.task:
            problems.append(
                f"{episode.name}: its task has stages, and a curve of all is of one; it is left out"
            )
        else:
            made.append(episode)
    return made, problems


# ---- scores -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sweep:
    """How episodes are scored."""

    templates: Templates
    scorer: ScorerSettings
    monitor: MonitorSettings
    load: Callable[[ScorerSettings], PrefixScorer]
    on_scores: Callable[[int], None]  #: is told of so many more that are done, or known from before
    kept: Path | None = None  #: folder in which scores are kept, for the next run


def score_episodes(
    episodes: Sequence[LabelledEpisode], sweep: Sweep
) -> tuple[list[PromptScores | UserError], ScorerInfo]:
    """The scores of each episode by template, or why there are none; and what scored them."""
    parts: list[list[_Scores | UserError]] = []
    batches = sweep.templates.batches()
    for batch in batches:
        texts = [sweep.templates.texts[place] for place in batch]
        with _scorer(sweep, texts) as scorer:
            parts.append(_score_batch(episodes, sweep, texts, scorer))
            info = scorer.info
    order = np.argsort([place for batch in batches for place in batch])
    by_episode = zip(*parts, strict=True)
    return [_joined(one, of, order) for one, of in zip(episodes, by_episode, strict=True)], info


#: Log-probabilities (K, P) of K prefixes and P templates, of the video and of the static one.
_Scores = tuple[np.ndarray, np.ndarray]


@contextmanager
def _scorer(sweep: Sweep, texts: Sequence[str]) -> Iterator[PrefixScorer]:
    """A scorer of these templates."""
    with temporary_folder("topreward-prompts-") as folder:
        file = folder / "prompts.txt"
        write_file(file, sweep.templates.file_text(texts))
        scorer = sweep.load(replace(sweep.scorer, prompts=str(file)))
    try:
        yield scorer
    finally:
        scorer.close()


def _score_batch(
    episodes: Sequence[LabelledEpisode], sweep: Sweep, texts: Sequence[str], scorer: PrefixScorer
) -> list[_Scores | UserError]:
    made: dict[int, _Scores | UserError] = {}
    files: dict[int, Path] = {}
    for place, episode in enumerate(episodes):
        if sweep.kept is not None:
            files[place] = sweep.kept / f"{_key(episode, sweep, texts, scorer.info)}.json"
            known = _read_kept(files[place], len(texts))
            if known is not None:
                made[place] = known
                sweep.on_scores(len(known[0]))
    left = [place for place in range(len(episodes)) if place not in made]

    def on_outcome(number: int, outcome: Outcome) -> None:
        place = left[number]
        made[place] = scores = _scores_of(outcome, len(texts), episodes[place])
        if place in files and not isinstance(scores, UserError):
            log_probs, static = (array.tolist() for array in scores)
            write_file(files[place], json.dumps(json_value({"log_probs": log_probs, "static": static})))

    score_recordings(
        [episodes[place].recording for place in left],
        scorer,
        replace(sweep.monitor, end_episode_on_success=False, episode_timeout=0.0),
        prefixes=PREFIXES,
        prefix_schedule=PrefixSchedule.MONITOR,
        at_once=scorer.episodes_at_once(),
        on_score=lambda _: sweep.on_scores(1),
        on_outcome=on_outcome,
    )
    return [made[place] for place in range(len(episodes))]


def _scores_of(outcome: Outcome, count: int, episode: LabelledEpisode) -> _Scores | UserError:
    """The scores of a curve that was made with ``count`` templates."""
    if not isinstance(outcome, Curve):
        return outcome
    if not outcome.points:
        return SweepError(f"{episode.name}: none of its frames could be scored; look at it, or leave it out")
    log_probs = np.array([point.score.by_prompt for point in outcome.points])
    static = np.array([point.score.static_by_prompt or [np.nan] * count for point in outcome.points])
    return log_probs, static


def _joined(
    episode: LabelledEpisode, parts: Sequence[_Scores | UserError], order: np.ndarray
) -> PromptScores | UserError:
    """The scores of all batches, in the ``order`` of the templates; the first error where there is one."""
    made: list[_Scores] = []
    for part in parts:
        if isinstance(part, UserError):
            return part
        made.append(part)
    log_probs, static = (np.concatenate(arrays, axis=1)[:, order] for arrays in zip(*made, strict=True))
    return PromptScores(episode.task, bool(episode.succeeded), log_probs, static)


# ---- what an earlier run left -----------------------------------------------------------------------


def _key(episode: LabelledEpisode, sweep: Sweep, texts: Sequence[str], info: ScorerInfo) -> str:
    """All that the scores of an episode depend on, as a hash."""
    settings = {
        name: value
        for name, value in asdict(sweep.scorer).items()
        if name not in ("device", "threads", "prompts", "cuda_graphs", "compile")
    }
    parts = {
        "code": code_hash(),
        "episode": [episode.identity, episode.task],
        "templates": [sweep.templates.question.head, *texts],
        "model": [info.revision, info.dtype, info.max_pixels],
        "scorer": settings,
        "monitor": asdict(sweep.monitor),
        "prefixes": PREFIXES,
    }
    return sha256(json.dumps(json_value(parts), sort_keys=True).encode()).hexdigest()[:32]


def _read_kept(path: Path, count: int) -> _Scores | None:
    """The scores of ``count`` templates in a file that was kept; None where there are none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        log_probs, static = (np.array(content[name], np.float64) for name in ("log_probs", "static"))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    fits = log_probs.ndim == 2 and log_probs.shape == static.shape and log_probs.shape[1] == count
    return (log_probs, static) if fits and len(log_probs) and np.isfinite(log_probs).all() else None


# ---- what is said of it -----------------------------------------------------------------------------


def verdict_text(choice: Choice, templates: Templates) -> str:
    """What was found: whether to choose by these data is better than the default, by how much, what to do."""
    kind = "tasks" if choice.of_tasks else "episodes of the only task"
    usual, mine = np.mean(choice.held_out_default), np.mean(choice.held_out)
    change = f"{choice.measure.name} goes from {usual:.3f} to {mine:.3f} ({choice.gain:+.3f}"
    if choice.interval.is_known:
        change += f", 95 % of {choice.interval.low:+.3f} to {choice.interval.high:+.3f})"
    else:
        change += ", in every draw)"
    best = templates.name_of(choice.best.members)
    verdict, advice = {
        Verdict.BETTER: ("beats the default beyond noise", f"Use {best}."),
        Verdict.NO_DIFFERENCE: ("does not beat the default beyond noise", "Keep the default."),
        Verdict.WORSE: ("does worse than the default", "Keep the default."),
    }[choice.verdict]
    return f"On {kind} that had no part in the choice, the best {verdict}: {change}. {advice}"


def prompts_file(
    choice: Choice, templates: Templates, episodes: Sequence[LabelledEpisode], info: ScorerInfo
) -> str:
    """A file that ``prompts`` takes: what is recommended, and above it why."""
    data = sha256("".join(sorted(episode.identity for episode in episodes)).encode()).hexdigest()[:16]
    count = len({episode.task for episode in episodes})
    tasks = "one task" if count == 1 else f"{count} tasks"
    weights = f", {RANDOM_WEIGHTS}: it means nothing" if info.random_weights else ""
    head = [
        "Templates of the question, chosen by `topreward prompts sweep`.",
        f"{len(episodes)} episodes of {tasks} (data {data}), "
        f"scored by {info.model_id} ({info.revision}){weights}.",
        verdict_text(choice, templates),
    ]
    lines = [f"# {printable(text, 1000)}\n" for text in head]
    lines.append(templates.file_text([templates.texts[place] for place in choice.recommended.members]))
    if choice.verdict is not Verdict.BETTER and choice.best.members != choice.default.members:
        lines.append("# The best by these data alone, too good by nature, to try on others:\n")
        best = (templates.texts[place] for place in choice.best.members)
        lines += [f"# {file_line(text, templates.question)}" for text in best]
    return "".join(lines)


def sweep_json(
    choice: Choice,
    templates: Templates,
    episodes: Sequence[LabelledEpisode],
    info: ScorerInfo,
    parameters: dict[str, Any],
    problems: Sequence[str],
) -> str:
    """The result as JSON text.

    ``format``: ``topreward_prompts/1``; ``verdict``, ``gain`` and its ``interval``; ``measure``;
    ``templates`` with ``number`` from 1, text and rating; ``leading``: the best candidates by the numbers of
    their templates; ``held_out``: per part what was chosen on the others, its value and the default's;
    ``recommended``; ``model``, ``parameters``, ``version`` and hash of the ``code``, ``episodes`` with the
    hashes of their frames; ``problems``.
    """

    def rating(rated: Rated) -> dict[str, Any]:
        value = asdict(rated)
        return {"templates": [place + 1 for place in value.pop("members")], **value}

    content = {
        "format": JSON_FORMAT,
        "verdict": choice.verdict.value,
        "measure": choice.measure.value,
        "gain": choice.gain,
        "interval": [choice.interval.low, choice.interval.high],
        "candidates": choice.candidates,
        "default": rating(choice.default),
        "best": rating(choice.best),
        "recommended": rating(choice.recommended),
        "templates": [
            {"number": place + 1, "text": text, **rating(rated)}
            for place, (text, rated) in enumerate(zip(templates.texts, choice.singles, strict=True))
        ],
        "leading": [rating(rated) for rated in choice.leading],
        "held_out_are": "tasks" if choice.of_tasks else "episodes",
        "held_out": [
            {"part": part, "templates": [place + 1 for place in members], "value": value, "default": usual}
            for part, members, value, usual in zip(
                choice.parts, choice.chosen, choice.held_out, choice.held_out_default, strict=True
            )
        ],
        "model": {
            name: value for name, value in asdict(info).items() if name not in ("instructions", "prompt_hash")
        },
        "parameters": parameters,
        "version": package_version(),
        "code": code_hash(),
        "episodes": [
            {"name": it.name, "task": it.task, "succeeded": it.succeeded, "identity": it.identity}
            for it in episodes
        ],
        "problems": list(problems),
    }
    return json.dumps(json_value(content), indent=2, ensure_ascii=True, allow_nan=False) + "\n"
