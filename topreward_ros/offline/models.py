"""What models there are on this machine, what is in one, and whether it works.

Files are read here and, to check a model, the shipped video is scored with it. Models are downloaded in
model_download.py, and shown in views/models.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from itertools import pairwise
from math import isfinite, prod
from pathlib import Path
from statistics import fmean, median
from time import perf_counter
from typing import TYPE_CHECKING, Any

from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.defaults import DEMO_TASK, DEMO_VIDEO, monitor_defaults, shared_file
from topreward_ros.offline.score_video import Curve, score_video
from topreward_ros.scoring.base import EMBEDDED, PrefixScorer, ScorerError, ScorerInfo, ScorerSettings
from topreward_ros.scoring.checkpoint.checkpoint import Checkpoint, open_checkpoint, read_config
from topreward_ros.scoring.checkpoint.folder import EMBEDDED_FOLDER, missing_files
from topreward_ros.scoring.checkpoint.notes import ModelNotes
from topreward_ros.scoring.checkpoint.vocabulary import is_known
from topreward_ros.scoring.checkpoint.weight_files import read_head
from topreward_ros.scoring.plugins import is_plugin, plugin_names, plugin_problem, refuse_plugin
from topreward_ros.scoring.question.prompts import Framing, PromptTokens, prompt_hash
from topreward_ros.scoring.question.templates import PAPERS, Question, preset_advice, read_question
from topreward_ros.scoring.registry import load_scorer, read_family, scorer_of
from topreward_ros.scoring.served_models import is_served, refuse_served

if TYPE_CHECKING:
    from huggingface_hub import CachedRepoInfo

_ENDS = 3  # scores at each end of a curve that are compared
_LEAST_RISE = 0.5  # [nat]; the embedded model's is above 3

#: Released models of the right kind, from small to large.
KNOWN_MODELS = (
    *(f"Qwen/Qwen3-VL-{size}-Instruct" for size in ("2B", "4B", "8B", "32B")),
    *(f"teetone/RoboReward-{size}" for size in ("4B", "8B")),
    "lerobot/Robometer-4B",
)


class Presence(Enum):
    """How much of a model is on this machine."""

    HERE = "here"
    INCOMPLETE = "incomplete"
    NOT_HERE = "not here"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model that can be used, or downloaded."""

    name: str
    presence: Presence
    size: int = 0  #: [bytes] on this disk
    summary: str = ""
    random_weights: bool = False


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is in the folder of a model."""

    name: str
    folder: Path
    revision: str  #: see `Checkpoint.revision`
    weight_files: int
    size: int  #: [bytes] of the weights
    parameters: int | None  #: None where the format does not tell
    dtypes: tuple[str, ...]  #: as the file names them, such as F16
    random_weights: bool
    incremental: bool  #: a score computes only what is new; else it is a full forward pass over the prefix
    most_frames: int | None  #: of such a pass, by a model that states progress itself; None for any other
    frame_pixels: int  #: at most, with the shipped settings
    prompt_hash: str
    notes: ModelNotes
    hash_matches: bool | None  #: the weights are those of the notes; None where the notes name none
    card: Path | None
    question: Question = PAPERS  #: that ``prompt_hash`` is of
    advice: str = ""  #: where the model was trained on another one


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of scoring the shipped video."""

    info: ScorerInfo
    load_s: float
    score_s: float  #: per score, median
    curve: Curve
    question: Question = PAPERS  #: that was asked


def list_models() -> list[ListedModel]:
    """The embedded model, plug-ins, those in the hub's local cache, and released ones that are not there."""
    cached = _cached_models()
    here = {model.name for model in cached}
    absent = [ListedModel(name, Presence.NOT_HERE) for name in KNOWN_MODELS if name not in here]
    return [_embedded(), *map(_plugin, plugin_names()), *cached, *absent]


def _plugin(name: str) -> ListedModel:
    if problem := plugin_problem(name):
        return ListedModel(name, Presence.BROKEN, summary=problem)
    return ListedModel(name, Presence.HERE, summary="a plug-in")


def _embedded() -> ListedModel:
    if missing_files(EMBEDDED_FOLDER):
        return ListedModel(EMBEDDED, Presence.INCOMPLETE)
    checkpoint = open_checkpoint(EMBEDDED)
    return ListedModel(
        EMBEDDED,
        Presence.HERE,
        size=_size(checkpoint.weight_files),
        summary=checkpoint.notes.summary,
        random_weights=checkpoint.has_random_weights,
    )


def _cached_models() -> list[ListedModel]:
    from huggingface_hub import CacheNotFound, scan_cache_dir

    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return []
    found = [_cached_model(repository) for repository in repositories if repository.repo_type == "model"]
    return sorted((model for model in found if model is not None), key=lambda model: model.name)


def _cached_model(repository: CachedRepoInfo) -> ListedModel | None:
    """A model in the hub's local cache; None for one that cannot be scored with."""
    presence, is_ours = Presence.INCOMPLETE, False
    for version in repository.revisions:
        with suppress(ScorerError):
            read_config(version.snapshot_path)
            is_ours = True
            if "main" in version.refs and not missing_files(version.snapshot_path):
                presence = Presence.HERE
    return ListedModel(repository.repo_id, presence, repository.size_on_disk) if is_ours else None


def describe_model(name: str, prompts: str = "") -> ModelFacts:
    """Read what is in the folder of a model, without loading it.

    ``prompts``: the question, as the parameter has it. Raises `ScorerError`, also where the model's tokenizer
    lacks its answers.
    """
    refuse_served(name, "a description of it")
    refuse_plugin(name, "a description of it")
    checkpoint = open_checkpoint(name)
    weights = checkpoint.weight_files
    parameters, dtypes = _count_parameters(weights)
    question = read_question(prompts)
    stream, pixels = _shown(checkpoint, question)
    card = checkpoint.folder / "README.md"
    return ModelFacts(
        name=name,
        folder=checkpoint.folder,
        revision=checkpoint.revision,
        weight_files=len(weights),
        size=_size(weights),
        parameters=parameters,
        dtypes=dtypes,
        random_weights=checkpoint.has_random_weights,
        incremental=checkpoint.is_incremental,
        most_frames=checkpoint.reward.most_frames if checkpoint.reward else None,
        frame_pixels=pixels,
        prompt_hash=stream,
        notes=checkpoint.notes,
        hash_matches=checkpoint.hash_matches,
        card=card if card.is_file() else None,
        question=question,
        advice=preset_advice(checkpoint.name, question),
    )


def _shown(checkpoint: Checkpoint, question: Question) -> tuple[str, int]:
    """Hash of the prompt and pixels of a frame, with the shipped settings. Tries the tokens of a file's own
    answers."""
    settings = ScorerSettings.from_parameters(monitor_defaults())
    framing = Framing.of(question, settings)
    if checkpoint.is_incremental:
        if question.answers is not None:
            PromptTokens(checkpoint.tokenizer, question.templates, framing)
        return prompt_hash(question.templates, framing), checkpoint.frame_pixels(settings)
    if checkpoint.reward is not None:
        from topreward_ros.scoring.reward_heads.stream import RewardStream

        stream = RewardStream(checkpoint, checkpoint.frame_pixels(settings))
        return stream.prompt_hash(), stream.max_pixels
    family = read_family(checkpoint, settings)
    if question.answers is not None:
        family.answer_tokens(question, framing)
    return family.prompt_hash(question, framing), family.max_pixels


def _size(files: list[Path]) -> int:
    return sum(file.stat().st_size for file in files)


def _count_parameters(weights: list[Path]) -> tuple[int | None, tuple[str, ...]]:
    """How many numbers the safetensors files hold, and of which types, from the heads of the files."""
    count, dtypes = 0, set()
    for file in weights:
        if file.suffix != ".safetensors":
            return None, ()
        for tensor in read_head(file):
            count += prod(tensor.shape)
            dtypes.add(tensor.dtype)
    return count, tuple(sorted(dtypes))


def check_model(name: str, changes: Mapping[str, Any] | None = None) -> CheckResult:
    """Load a model, which verifies its files and answer tokens, and score the shipped video with it.

    ``changes``: parameters of the monitor that differ from the shipped ones. Raises `ScorerError` where that
    fails, and where, without any, the score of a model that was trained for this task does not rise.
    """
    parameters = monitor_defaults() | dict(changes or {})
    started = perf_counter()
    scorer = _load_checked(name, ScorerSettings.from_parameters(parameters))
    times = [perf_counter()]
    load_s = times[0] - started
    settings = replace(MonitorSettings.from_parameters(parameters), end_episode_on_success=False)
    try:
        curve = score_video(
            shared_file(DEMO_VIDEO),
            DEMO_TASK,
            scorer,
            settings,
            on_score=lambda _: times.append(perf_counter()),
        )
    finally:
        scorer.close()
    if not any(isfinite(point.score.success_log_prob) for point in curve.points):
        note = curve.points[-1].score.note if curve.points else "no frame was scored"
        raise ScorerError(
            f"model '{scorer.info.model_id}' tells no log-probability and no progress in the shipped video "
            f"({note}): it cannot score"
        )
    if scorer.info.instructions and not changes and (reason := why_not_rising(scorer.info, curve)):
        raise ScorerError(f"{reason}. It was trained for this task: install the model again")
    score_s = median(after - before for before, after in pairwise(times))
    return CheckResult(scorer.info, load_s, score_s, curve, read_question(parameters["prompts"]))


def _load_checked(name: str, settings: ScorerSettings) -> PrefixScorer:
    """The scorer of a model whose weights have the hash that its notes say. Raises `ScorerError`."""
    if is_served(name) or is_plugin(name):
        return load_scorer(name, settings)
    checkpoint = open_checkpoint(name, settings.adapter)
    if checkpoint.hash_matches is False:
        raise ScorerError(
            f"the weights in {checkpoint.folder} have the SHA-256 {checkpoint.weights_hash}, and its "
            f"notes say {checkpoint.notes.sha256}: they are damaged or of another version; install the model "
            "again"
        )
    return scorer_of(checkpoint, settings)


def why_not_rising(info: ScorerInfo, curve: Curve, question: Question = PAPERS) -> str:
    """What to say where the score does not rise in ``curve``, of the shipped video of a success; else empty.

    Nothing is said of random weights, and of a task that the model does not know.
    """
    if info.random_weights or not is_known(DEMO_TASK, info):
        return ""
    log_probs = [point.score.success_log_prob for point in curve.points]
    rise = fmean(log_probs[-_ENDS:]) - fmean(log_probs[:_ENDS])
    if rise >= _LEAST_RISE:
        return ""
    rises = f"changes by {rise:.2f} nat over a video in which the robot does as told ({DEMO_TASK!r})"
    if question.answers is not None:
        return (
            f"model '{info.model_id}': the logarithm of the expected answer {rises}, and should rise: look "
            "at the values of the answers, and whether the model was trained on this question"
        )
    return (
        f"model '{info.model_id}': log p(True) {rises}, and should rise: the tokenizer may be of another "
        "model, or have True and False exchanged"
    )
