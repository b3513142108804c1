"""From the name of a model to a scorer; whatever fails on the way is a `ScorerError`.

Qwen3-VL, dense or a mixture of experts, is scored incrementally (qwen3_vl/), any other model of images and
text that transformers knows by whole forward passes (any_vlm/), and one that states progress by heads of its
own as that asks (reward_heads/). How the name becomes a folder, and the folder
a loaded model, is in checkpoint/. PyTorch and transformers are imported when a model is loaded, so that
importing this module costs nothing.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from math import isnan
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from topreward_ros.core.frames import NS_PER_S, Frame
from topreward_ros.core.printable import printable
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.scoring.base import PrefixScorer, ScorerError, ScorerInfo, ScorerSettings, quiet_logging
from topreward_ros.scoring.checkpoint.adapter_files import check_peft
from topreward_ros.scoring.checkpoint.checkpoint import (
    CAPTURABLE,
    INCREMENTAL,
    Checkpoint,
    open_checkpoint,
)
from topreward_ros.scoring.checkpoint.load import (
    check_vocabulary_size,
    load_weights,
    model_config,
    quiet_transformers,
    resolve_precision,
    use_threads,
)
from topreward_ros.scoring.checkpoint.quantization import check_library
from topreward_ros.scoring.plugins import import_plugin, is_plugin, load_plugin
from topreward_ros.scoring.question.answer_set import expected_of
from topreward_ros.scoring.question.prompts import LAYOUTS
from topreward_ros.scoring.question.soft_prompt import asked_of
from topreward_ros.scoring.served_models import is_served, load_served, refuse_own_server, served_info
from topreward_ros.scoring.start_times import StartTimes

if TYPE_CHECKING:
    from transformers import Qwen3VLForConditionalGeneration

    from topreward_ros.scoring.any_vlm.family import Family
    from topreward_ros.scoring.patches import Preprocessing
    from topreward_ros.scoring.question.prompts import PromptTokens
    from topreward_ros.scoring.question.soft_prompt import SoftPrompt
    from topreward_ros.scoring.question.templates import Question
    from topreward_ros.scoring.qwen3_vl.cuda_graphs import GraphRunner

_log = logging.getLogger(__name__)
_importing = threading.Lock()  # transformers is not made to be imported by two threads at once

_TRIAL_SIDE = 64  # [pixels] of a frame
_LEAST_LOG_PROB = -1000.0  # [nat] of a model that works; logits of trained models differ by tens


class LoadedModel(NamedTuple):
    """What every way of scoring with a Qwen3-VL checkpoint needs."""

    model: Qwen3VLForConditionalGeneration  #: or Qwen3VLMoeForConditionalGeneration, which has the same parts
    tokens: PromptTokens
    preprocessing: Preprocessing
    info: ScorerInfo


class ModelAbout(NamedTuple):
    """What is known of a model before it is loaded."""

    revision: str  #: see `ScorerInfo`
    random_weights: bool
    instructions: tuple[str, ...]  #: all that it understands; empty: any


def load_scorer(model: str, settings: ScorerSettings) -> PrefixScorer:
    """Load ``model``: 'embedded', a folder, a hub id, the URL of a server, see `served_models`, or a plug-in,
    see `plugins`.

    Raises `ScorerError` and leaves nothing behind.
    """
    if is_served(model):
        return load_served(model, settings)
    if is_plugin(model):
        scorer = load_plugin(model, settings)
        _try_out(scorer, f"model '{printable(model, 200)}'", "see to that package", _plugin_fails)
        return scorer
    return scorer_of(open_checkpoint(model, settings.adapter), settings)


def import_libraries(model: str) -> bool:
    """Import what ``model`` is loaded with; takes seconds the first time. Raises whatever that raises.

    Returns whether PyTorch is there by then.
    """
    if is_served(model):
        return False
    if is_plugin(model):
        import_plugin(model)
        return "torch" in sys.modules
    with _importing, quiet_logging():
        from transformers import AutoModelForImageTextToText, Qwen3VLForConditionalGeneration  # noqa: F401

        import topreward_ros.scoring.qwen3_vl.scorer  # noqa: F401
    return True


def about_model(model: str, settings: ScorerSettings) -> ModelAbout:
    """What ``model``, named as for `load_scorer`, is. Raises `ScorerError`.

    No weights are loaded, but those of a plug-in, of which only itself knows.
    """
    if is_served(model):
        info = served_info(model, settings)
        return ModelAbout(info.revision, info.random_weights, info.instructions)
    if is_plugin(model):
        scorer = load_plugin(model, settings)
        scorer.close()
        return ModelAbout(scorer.info.revision, scorer.info.random_weights, scorer.info.instructions)
    checkpoint = open_checkpoint(model, settings.adapter)
    return ModelAbout(checkpoint.revision, checkpoint.has_random_weights, checkpoint.notes.wordings)


def check_wish(model: str, settings: ScorerSettings) -> str:
    """What a user who asks for ``model`` with ``settings`` should know before it is loaded: that frames
    become smaller by them; empty: nothing.

    Raises `ScorerError` for files of a model on this machine, or of its question, that cannot be used, and
    where a library is missing for its adapter or its quantization: what is found without loading weights,
    building a plug-in or asking a server, which may not be there yet.
    """
    if is_served(model) or is_plugin(model):
        return ""
    checkpoint = open_checkpoint(model, settings.adapter)
    if checkpoint.adapter is not None:
        check_peft()
    check_library(settings.quantization)
    asked_of(settings)
    return checkpoint.smaller_frames(settings)


def refuse_own_question(model: str, settings: ScorerSettings, work: str) -> None:
    """Raise `ScorerError` for a model that is asked its own question, whatever is given, where ``work`` tries
    others: a server of `topreward serve`, or a model that states progress by heads of its own."""
    refuse_own_server(model, work)
    if is_served(model) or is_plugin(model):
        return
    checkpoint = open_checkpoint(model, settings.adapter)
    if checkpoint.reward is not None:
        raise ScorerError(
            f"model '{checkpoint.name}' states progress itself and is asked its own question, and {work} "
            "tries others: name a model that answers a question"
        )


class ModelSettings:
    """Settings that name a model, and how it scores."""

    model: str  #: as `load_scorer` takes it
    scorer: ScorerSettings

    @cached_property
    def about(self) -> ModelAbout:
        """What is known of the model before it is loaded, asked once: a plug-in is built for it.

        Raises `ScorerError`.
        """
        return about_model(self.model, self.scorer)


def scorer_of(checkpoint: Checkpoint, settings: ScorerSettings) -> PrefixScorer:
    """`load_scorer` for a checkpoint that is open already."""
    if checkpoint.reward is not None:
        make = _reward_scorer
    else:
        make = _incremental_scorer if checkpoint.is_incremental else _any_scorer
    times = StartTimes()
    scorer = make(checkpoint, settings, times)
    damaged = "its weights are damaged; copy the checkpoint again"
    _try_out(scorer, str(checkpoint.folder), damaged, _checkpoint_fails)
    times.done("first score")
    scorer.start_times = times
    return scorer


def _checkpoint_fails(info: ScorerInfo, error: ScorerError) -> str:
    usual = "another checkpoint"
    if "int8" in info.dtype:
        usual = f"quantization none, or {usual}"
    elif info.dtype != "float32":
        usual = f"dtype float32, or {usual}"
    return f"was loaded in {info.dtype} on {info.device} and cannot score ({error}): use {usual}"


def _plugin_fails(_: ScorerInfo, error: ScorerError) -> str:
    return f"was loaded, and fails in a trial with two small frames: {error}"


def _try_out(
    scorer: PrefixScorer, shown: str, mend: str, fails: Callable[[ScorerInfo, ScorerError], str]
) -> None:
    """Score two small frames, so that a model that cannot score is refused here and not with every image.

    ``shown``: what an error calls the model; ``mend``: what is to blame, or to do, where its numbers cannot
    be; ``fails``: what is said after the name where it raises. Raises `ScorerError`, after the scorer was
    closed.
    """
    frame = np.tile(np.arange(_TRIAL_SIDE, dtype=np.uint8)[:, None, None], (1, _TRIAL_SIDE, 3))
    frames = [Frame(0, frame), Frame(NS_PER_S, frame[::-1].copy())]
    try:
        score = scorer.score(ScoreRequest.of_frames("lift", frames))
    except ScorerError as error:
        scorer.close()
        raise ScorerError(f"{shown} {fails(scorer.info, error)}") from error
    if isnan(score.success_log_prob):
        scorer.close()
        raise ScorerError(
            f"{shown} gives neither a log-probability nor progress in a trial ({score.note}): {mend}"
        )
    least = min(score.log_prob, score.log_prob_false)
    if least < _LEAST_LOG_PROB:
        scorer.close()
        raise ScorerError(
            f"{shown}: the log-probability of an answer is {least:.3g} nat in a trial, and no model that was "
            f"trained goes below {_LEAST_LOG_PROB:g}: {mend}"
        )
    scorer.forget()


def _incremental_scorer(checkpoint: Checkpoint, settings: ScorerSettings, times: StartTimes) -> PrefixScorer:
    from topreward_ros.scoring.qwen3_vl.scorer import Qwen3VLScorer

    loaded = _load_incremental(checkpoint, settings, times)
    graphs = graph_runner_for(loaded.model, settings)
    scorer = Qwen3VLScorer(loaded.model, loaded.tokens, loaded.preprocessing, settings, loaded.info, graphs)
    times.done("engine")
    return scorer


def graph_runner_for(model: Qwen3VLForConditionalGeneration, settings: ScorerSettings) -> GraphRunner | None:
    """The runner that captures ticks as CUDA graphs; None where they cannot be captured or are not wanted."""
    from topreward_ros.scoring.fp8 import Fp8Linear
    from topreward_ros.scoring.qwen3_vl.cuda_graphs import GraphRunner

    # Which experts a mixture runs depends on tensor values; a graph always repeats the same kernels.
    fits = model.device.type == "cuda" and model.config.model_type in CAPTURABLE
    if not (settings.cuda_graphs and fits):
        return None
    return GraphRunner(model.device, in_fp8=any(isinstance(part, Fp8Linear) for part in model.modules()))


def load_qwen3_vl(model: str, settings: ScorerSettings) -> LoadedModel:
    """What the scorer of a Qwen3-VL is made of; arguments and errors as `load_scorer`."""
    return _load_incremental(open_checkpoint(model, settings.adapter), settings, StartTimes())


def _load_incremental(checkpoint: Checkpoint, settings: ScorerSettings, times: StartTimes) -> LoadedModel:
    from topreward_ros.scoring.checkpoint.vocabulary import TrainedPromptTokens
    from topreward_ros.scoring.question.answer_set import TRUE_FALSE
    from topreward_ros.scoring.question.prompts import Framing, prompt_hash
    from topreward_ros.scoring.question.soft_prompt import is_soft_prompt
    from topreward_ros.scoring.question.templates import PAPERS
    from topreward_ros.scoring.qwen3_vl.attention import kernels_of
    from topreward_ros.scoring.qwen3_vl.memory_need import check_memory

    folder, config = checkpoint.folder, checkpoint.config
    if not checkpoint.is_incremental:
        what = "a reward model on one" if checkpoint.reward else "a model"
        raise ScorerError(
            f"{folder} holds {what} of type {checkpoint.model_type!r}: only {' and '.join(INCREMENTAL)} can "
            "be scored incrementally"
        )
    device, dtype, quantization, unused = resolve_precision(settings, checkpoint)
    if unused:
        _log.warning("%s", unused)
    soft = _soft_prompt(checkpoint, settings) if is_soft_prompt(settings.prompts) else None
    question = PAPERS if soft else _question(checkpoint, settings)
    same_answers = replace(question, answers=None) if question.answers == TRUE_FALSE else question
    if checkpoint.notes.wordings and same_answers != PAPERS:
        _log.warning(
            "%s was trained on the paper's question and answers alone, and prompts asks %s: its numbers mean "
            "less then; leave prompts empty with this model",
            checkpoint.name,
            question.shown,
        )
    framing = Framing.of(question, settings)
    wordings, templates = checkpoint.notes.wordings, question.templates
    tokens = TrainedPromptTokens(checkpoint.tokenizer, wordings, templates, framing, soft)
    if config.get("video_token_id", tokens.video_pad) != tokens.video_pad:
        raise ScorerError(
            f"{folder}: config.json has video_token_id {config['video_token_id']}, the tokenizer has "
            f"{tokens.video_pad}: they belong to different models"
        )
    check_vocabulary_size(checkpoint)
    pixels = checkpoint.frame_pixels(settings)
    use_threads(settings.threads)
    weights = load_weights(
        checkpoint,
        device=device,
        dtype=dtype,
        quantization=quantization,
        times=times,
        attn_implementation="sdpa",
    )
    loaded = cast("Qwen3VLForConditionalGeneration", weights)  # `is_incremental`: or one of experts
    _log.info("attention of the language model on %s in %s: %s", device, dtype, kernels_of(device, dtype))
    check_memory(loaded, settings, pixels)
    info = _info(
        checkpoint,
        loaded,
        settings,
        prompt_hash=prompt_hash(templates, framing, soft),
        max_pixels=pixels,
        answers=expected_of(question.answers, settings.contrastive),
        quantization=quantization,
    )
    return LoadedModel(loaded, tokens, checkpoint.preprocessing, info)


def _soft_prompt(checkpoint: Checkpoint, settings: ScorerSettings) -> SoftPrompt:
    """The soft prompt that ``settings`` name, which was trained with this model and framing."""
    from topreward_ros.scoring.question.soft_prompt import check_fits, read_soft_prompt

    soft = read_soft_prompt(settings.prompts)
    hidden = model_config(checkpoint).get_text_config().hidden_size
    shown = f"model '{checkpoint.name}'"
    check_fits(soft, settings.prompts, model=shown, revision=checkpoint.revision, hidden=hidden)
    for name in ("layout", "chat_template", "contrastive"):
        if getattr(soft, name) != getattr(settings, name):
            raise ScorerError(
                f"prompts '{printable(settings.prompts, 200)}' was trained with {name} "
                f"{printable(str(getattr(soft, name)), 60)}, and {getattr(settings, name)} is asked for: set "
                f"the same, or train one with `topreward prompts search --soft --set "
                f"{name}={str(getattr(settings, name)).lower()}`"
            )
    if soft.about.get("verdict", "better") != "better":
        _log.warning(
            "prompts %r, a soft prompt, did not beat the default beyond noise where it was trained",
            settings.prompts,
        )
    return soft


def _any_scorer(checkpoint: Checkpoint, settings: ScorerSettings, times: StartTimes) -> PrefixScorer:
    """`scorer_of` for a model that is not scored incrementally."""
    from topreward_ros.scoring.any_vlm.scorer import TransformersVlmScorer
    from topreward_ros.scoring.question.prompts import Framing

    device, dtype, quantization, _ = resolve_precision(settings, checkpoint)
    question = _question(checkpoint, settings)
    framing = Framing.of(question, settings)
    family = read_family(checkpoint, settings)
    family.answer_tokens(question, framing)  # before the weights, which take long
    check_vocabulary_size(checkpoint)
    use_threads(settings.threads)
    loaded: Any = load_weights(checkpoint, device=device, dtype=dtype, quantization=quantization, times=times)
    info = _info(
        checkpoint,
        loaded,
        settings,
        prompt_hash=family.prompt_hash(question, framing),
        max_pixels=family.max_pixels,
        answers=expected_of(question.answers, settings.contrastive),
    )
    _log.warning(
        "%s is a model of type %r, for which every score is a full forward pass over the whole prefix: "
        "slower than with Qwen3-VL, and the more so the longer the episode",
        checkpoint.name,
        checkpoint.model_type,
    )
    return TransformersVlmScorer(loaded, family, question, settings, info)


def _question(checkpoint: Checkpoint, settings: ScorerSettings) -> Question:
    """What is asked; said once where the model was made for another question. Raises `ScorerError`."""
    from topreward_ros.scoring.question.templates import asked_question, preset_advice

    question = asked_question(settings)
    if advice := preset_advice(checkpoint.name, question):
        _log.warning("%s", advice)
    return question


def _reward_scorer(checkpoint: Checkpoint, settings: ScorerSettings, times: StartTimes) -> PrefixScorer:
    """`scorer_of` for a model that states progress by heads of its own."""
    from topreward_ros.scoring.reward_heads.heads import load_heads
    from topreward_ros.scoring.reward_heads.scorer import RewardHeadsScorer
    from topreward_ros.scoring.reward_heads.stream import RewardStream

    assert checkpoint.reward is not None, checkpoint.folder
    device, dtype, quantization, _ = resolve_precision(settings, checkpoint)
    stream = RewardStream(checkpoint, checkpoint.frame_pixels(settings))
    for name, value in _not_asked(settings):
        _log.warning(
            "%s is %r, which %s does not use: it states progress itself, and is asked its own question",
            *(name, value, checkpoint.name),
        )
    check_vocabulary_size(checkpoint)
    use_threads(settings.threads)
    loaded: Any = load_weights(
        checkpoint,
        device=device,
        dtype=dtype,
        quantization=quantization,
        times=times,
        attn_implementation="sdpa",
    )
    heads = load_heads(checkpoint, loaded.config.text_config.hidden_size, device)
    info = _info(checkpoint, loaded, settings, prompt_hash=stream.prompt_hash(), max_pixels=stream.max_pixels)
    return RewardHeadsScorer(loaded.model, heads, stream, checkpoint.reward.most_frames, info)


def _not_asked(settings: ScorerSettings) -> Iterator[tuple[str, Any]]:
    """Settings of a question, and of the video before it, that were set and have no use without one."""
    for name, usual in (
        ("prompts", ""),
        ("contrastive", False),
        ("chat_template", False),
        ("layout", LAYOUTS[0]),
        ("front_padding", 0),
        ("fixed_length", 0),
    ):
        if (value := getattr(settings, name)) != usual:
            yield name, value


def read_family(checkpoint: Checkpoint, settings: ScorerSettings) -> Family:
    """The family that makes the inputs of a model that is not scored incrementally.

    Reads no weights. Raises `ScorerError`.
    """
    from topreward_ros.scoring.any_vlm.image_family import ImageFamily
    from topreward_ros.scoring.any_vlm.video_families import FAMILIES

    folder, config = checkpoint.folder, model_config(checkpoint)
    if getattr(config, "is_encoder_decoder", False):
        raise ScorerError(
            f"{folder} holds a model of type {config.model_type!r}, which reads with an encoder and has no "
            "next word after the question: use a decoder, such as Qwen3-VL"
        )
    family = FAMILIES.get(config.model_type, ImageFamily)
    with quiet_transformers():
        return family(folder, config, checkpoint.tokenizer, checkpoint.frame_pixels(settings))


def _info(
    checkpoint: Checkpoint,
    loaded: Any,
    settings: ScorerSettings,
    *,
    prompt_hash: str,
    max_pixels: int,
    answers: str = "",
    quantization: str = "none",
) -> ScorerInfo:
    from topreward_ros.scoring.checkpoint.quantization import precision_text

    return ScorerInfo(
        model_id=checkpoint.model_id,
        revision=checkpoint.revision,
        random_weights=checkpoint.has_random_weights,
        device=str(loaded.device),
        dtype=precision_text(str(loaded.dtype).removeprefix("torch."), quantization),
        prompt_hash=prompt_hash,
        max_pixels=max_pixels,
        instructions=checkpoint.notes.wordings,
        summary=checkpoint.notes.summary,
        front_padding=settings.front_padding,
        fixed_length=settings.fixed_length,
        answers=answers,
    )
