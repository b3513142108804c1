"""From the name of a model to a scorer, with an error that a user can act on for everything in between.

Qwen3-VL, dense or of experts, is scored with incrementally (qwen3_vl/), any other model of images and text
that transformers knows by whole forward passes (any_vlm/). How the name becomes a folder, and the folder a
loaded model, stands in checkpoint/. PyTorch and transformers are imported when a model is loaded, so that
importing this module costs nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from topreward_ros.core.frames import FEWEST_FRAMES
from topreward_ros.scoring.base import PrefixScorer, ScorerError, ScorerInfo, ScorerSettings, in_a_line
from topreward_ros.scoring.checkpoint.folder import (
    CAPTURABLE,
    INCREMENTAL,
    find_folder,
    is_incremental,
    read_config,
    read_tokenizer,
    revision,
)
from topreward_ros.scoring.checkpoint.load import (
    check_settings,
    check_vocabulary,
    load_weights,
    quiet_transformers,
    use_threads,
)
from topreward_ros.scoring.checkpoint.notes import ModelNotes, read_model_notes
from topreward_ros.scoring.checkpoint.random_weights import RANDOM_WEIGHTS_KEY

if TYPE_CHECKING:
    from transformers import Qwen3VLForConditionalGeneration

    from topreward_ros.scoring.any_vlm.family import Family
    from topreward_ros.scoring.patches import Preprocessing
    from topreward_ros.scoring.question.prompts import PromptTokens
    from topreward_ros.scoring.qwen3_vl.cuda_graphs import GraphRunner

_log = logging.getLogger(__name__)


class LoadedModel(NamedTuple):
    """What every way of scoring with a Qwen3-VL checkpoint needs."""

    model: Qwen3VLForConditionalGeneration  #: or Qwen3VLMoeForConditionalGeneration, which has the same parts
    tokens: PromptTokens
    preprocessing: Preprocessing
    info: ScorerInfo


def load_scorer(model: str, settings: ScorerSettings) -> PrefixScorer:
    """Load ``model``: 'embedded', a folder, or a hub id. Raises `ScorerError` and leaves nothing behind."""
    if not is_incremental(read_config(find_folder(model))):
        return _load_any(model, settings)
    loaded = load_model(model, settings)
    from topreward_ros.scoring.qwen3_vl.scorer import Qwen3VLScorer

    graphs = graph_runner_for(loaded.model, settings)
    return Qwen3VLScorer(loaded.model, loaded.tokens, loaded.preprocessing, settings, loaded.info, graphs)


def graph_runner_for(model: Qwen3VLForConditionalGeneration, settings: ScorerSettings) -> GraphRunner | None:
    """What captures ticks as CUDA graphs; None where that cannot be, or is not wanted."""
    from topreward_ros.scoring.qwen3_vl.cuda_graphs import GraphRunner

    # Which experts a mixture runs depends on tensor values; a graph repeats the same kernels always.
    fits = model.device.type == "cuda" and model.config.model_type in CAPTURABLE
    return GraphRunner(model.device) if settings.cuda_graphs and fits else None


def load_model(model: str, settings: ScorerSettings) -> LoadedModel:
    """What the scorer of a Qwen3-VL is made of; arguments and errors as `load_scorer`."""
    folder = find_folder(model)
    from topreward_ros.scoring.checkpoint.vocabulary import TrainedPromptTokens
    from topreward_ros.scoring.patches import read_preprocessing
    from topreward_ros.scoring.question.prompts import Framing, prompt_hash
    from topreward_ros.scoring.question.templates import PAPER, read_templates
    from topreward_ros.scoring.qwen3_vl.attention import kernels_of

    config = read_config(folder)
    if not is_incremental(config):
        raise ScorerError(
            f"{folder} holds a model of type {config['model_type']!r}: only {' and '.join(INCREMENTAL)} can "
            "be scored with incrementally"
        )
    notes = read_model_notes(folder)
    device, dtype = check_settings(settings, config)
    templates = read_templates(settings.prompts)
    if notes.wordings and templates != (PAPER,):
        _log.warning(
            "%s was trained on the paper's question alone, and prompts %r asks in other words: its numbers "
            "mean less then; leave prompts empty with this model",
            model,
            settings.prompts,
        )
    framing = Framing(settings.layout, settings.chat_template)
    tokenizer = read_tokenizer(folder)
    tokens = TrainedPromptTokens(tokenizer, notes.wordings, templates, framing)
    if config.get("video_token_id", tokens.video_pad) != tokens.video_pad:
        raise ScorerError(
            f"{folder}: config.json has video_token_id {config['video_token_id']}, the tokenizer has "
            f"{tokens.video_pad}: they belong to different models"
        )
    check_vocabulary(folder, config, tokenizer)
    preprocessing = read_preprocessing(folder)
    use_threads(settings.threads)
    loaded = load_weights(folder, device, dtype, settings.quantization, attn_implementation="sdpa")
    _log.info("attention of the language model on %s in %s: %s", device, dtype, kernels_of(device, dtype))
    pixels = frame_pixels(preprocessing, notes, settings)
    _check_memory(loaded, settings, pixels)
    info = _info(model, folder, config, loaded, settings, prompt_hash(templates, framing), pixels)
    return LoadedModel(loaded, tokens, preprocessing, info)


def _load_any(model: str, settings: ScorerSettings) -> PrefixScorer:
    """`load_scorer` for a model that is not scored with incrementally."""
    folder = find_folder(model)
    from topreward_ros.scoring.any_vlm.scorer import TransformersVlmScorer
    from topreward_ros.scoring.question.templates import read_templates

    config = read_config(folder)
    device, dtype = check_settings(settings, config)
    templates = read_templates(settings.prompts)
    family = read_family(folder, settings)
    family.answers(templates, settings.chat_template)  # before the weights, which take long
    check_vocabulary(folder, config, read_tokenizer(folder))
    use_threads(settings.threads)
    loaded: Any = load_weights(folder, device, dtype, settings.quantization)
    prompt_hash = family.prompt_hash(templates, settings.chat_template)
    info = _info(model, folder, config, loaded, settings, prompt_hash, family.max_pixels)
    _log.warning(
        "%s is a model of type %r, for which every score is a full forward pass over the whole prefix: "
        "slower than with Qwen3-VL, and the more so the longer the episode",
        model,
        config["model_type"],
    )
    return TransformersVlmScorer(loaded, family, templates, settings, info)


def read_family(folder: Path, settings: ScorerSettings) -> Family:
    """How the model in ``folder`` wants to be asked, for one that is not scored with incrementally.

    Reads no weights. Raises `ScorerError`.
    """
    from transformers import AutoConfig

    from topreward_ros.scoring.any_vlm.image_family import ImageFamily
    from topreward_ros.scoring.any_vlm.video_families import FAMILIES

    notes = read_model_notes(folder)
    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise ScorerError(
            f"{folder / 'config.json'} cannot be used ({in_a_line(error)}): restore it from the checkpoint"
        ) from error
    if getattr(config, "is_encoder_decoder", False):
        raise ScorerError(
            f"{folder} holds a model of type {config.model_type!r}, which reads with an encoder and has no "
            "next word after the question: use a decoder, such as Qwen3-VL"
        )
    pixels = min(settings.max_pixels, notes.frame_pixels or settings.max_pixels)
    with quiet_transformers():
        return FAMILIES.get(config.model_type, ImageFamily)(folder, config, read_tokenizer(folder), pixels)


def _info(
    model: str,
    folder: Path,
    config: Mapping[str, Any],
    loaded: Any,
    settings: ScorerSettings,
    prompt_hash: str,
    pixels: int,
) -> ScorerInfo:
    from topreward_ros.scoring.checkpoint.quantization import described

    return ScorerInfo(
        model_id=model,
        revision=revision(folder),
        random_weights=bool(config.get(RANDOM_WEIGHTS_KEY, False)),
        device=str(loaded.device),
        dtype=described(str(loaded.dtype).removeprefix("torch."), settings.quantization),
        prompt_hash=prompt_hash,
        max_pixels=pixels,
        instructions=read_model_notes(folder).wordings,
    )


def frame_pixels(preprocessing: Preprocessing, notes: ModelNotes, settings: ScorerSettings) -> int:
    """Pixels of one frame at most: by the settings, the checkpoint, and what the model was trained to see."""
    budget = preprocessing.frame_pixels(settings.max_pixels, settings.max_frames)
    return min(budget, notes.frame_pixels or budget)


def _check_memory(model: Qwen3VLForConditionalGeneration, settings: ScorerSettings, pixels: int) -> None:
    """Refuse before the first frame what would fail in mid-episode."""
    from topreward_ros.scoring.device import free_memory
    from topreward_ros.scoring.qwen3_vl.memory_need import memory_need

    need = memory_need(model.config, settings, pixels, model.dtype.itemsize)
    free = free_memory(model.device)
    if need.total <= free:
        return
    less = (replace(settings, max_frames=frames) for frames in range(settings.max_frames // 2 * 2, 0, -2))
    needs = ((one.max_frames, memory_need(model.config, one, pixels, model.dtype.itemsize)) for one in less)
    fitting = next((frames for frames, lesser in needs if lesser.total <= free), 0)
    fewer = (
        f"max_frames to {fitting}, or a smaller max_pixels"
        if fitting >= FEWEST_FRAMES
        else "a smaller max_pixels"
    )
    raise ScorerError(
        f"{settings.max_frames} frames of up to {pixels} pixels need {need.total / 1e9:.2f} GB beside the "
        f"weights ({need.videos} times {need.keys_and_values / 1e9:.2f} GB of keys and values, "
        f"{need.features / 1e9:.2f} GB of features), and {free / 1e9:.2f} GB are free on {model.device}: "
        f"set {fewer}, or another device"
    )
