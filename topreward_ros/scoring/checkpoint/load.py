"""From the name of a model to a scorer, with an error that a user can act on for everything in between.

'embedded' is the model that ships with this package; a folder is a checkpoint; `org/name` is one on the
Hugging Face hub, of which the copy on this machine is read: nothing is ever downloaded here
(offline/model_download.py does that). Qwen3-VL, dense or of experts, is scored with incrementally
(qwen3_vl/), any other model of images and text that transformers knows by whole forward passes
(any_vlm/). PyTorch and transformers are imported when a model is loaded, so that importing this
module costs nothing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from topreward_ros.core.frames import FEWEST_FRAMES
from topreward_ros.scoring.base import (
    PrefixScorer,
    ScorerError,
    ScorerInfo,
    ScorerSettings,
    in_a_line,
    no_warnings,
)
from topreward_ros.scoring.checkpoint.notes import ModelNotes, read_model_notes
from topreward_ros.scoring.checkpoint.random_weights import RANDOM_WEIGHTS_KEY

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from transformers import Qwen3VLForConditionalGeneration

    from topreward_ros.scoring.any_vlm.family import Family
    from topreward_ros.scoring.patches import Preprocessing
    from topreward_ros.scoring.question.prompts import PromptTokens
    from topreward_ros.scoring.qwen3_vl.recording import Recorder

_log = logging.getLogger(__name__)

EMBEDDED = "embedded"
EMBEDDED_FOLDER = Path(__file__).resolve().parents[2] / "models" / "embedded"

#: Model types in config.json of which every prefix is scored incrementally.
INCREMENTAL = ("qwen3_vl", "qwen3_vl_moe")
QUANTIZABLE = ("qwen3_vl",)  #: those whose weights may be kept in 8 bits; a mixture's experts could not
RECORDABLE = ("qwen3_vl",)  #: those of which ticks can be recorded as CUDA graphs

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")  #: names of files of weights, the better format first
_WHOLE = ("model.safetensors", "pytorch_model.bin")  # a model in one file; in several, the index has its name
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


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

    recorder = recorder_for(loaded.model, settings)
    return Qwen3VLScorer(loaded.model, loaded.tokens, loaded.preprocessing, settings, loaded.info, recorder)


def recorder_for(model: Qwen3VLForConditionalGeneration, settings: ScorerSettings) -> Recorder | None:
    """What records ticks as CUDA graphs; None where that cannot be, or is not wanted."""
    from topreward_ros.scoring.qwen3_vl.recording import Recorder

    # Which experts a mixture uses hangs on numbers, and a recording can hang on none.
    fits = model.device.type == "cuda" and model.config.model_type in RECORDABLE
    return Recorder(model.device) if settings.cuda_graphs and fits else None


def is_incremental(config: Mapping[str, Any]) -> bool:
    """Whether a model with this config.json is scored with incrementally, not by whole forward passes."""
    return config["model_type"] in INCREMENTAL


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
    device, dtype = _check_settings(settings, config)
    templates = read_templates(settings.prompts)
    if notes.wordings and templates != (PAPER,):
        _log.warning(
            "%s was trained on the paper's question alone, and prompts %r asks in other words: its numbers "
            "mean less then; leave prompts empty with this model",
            model,
            settings.prompts,
        )
    framing = Framing(settings.layout, settings.chat_template)
    tokenizer = _read_tokenizer(folder)
    tokens = TrainedPromptTokens(tokenizer, notes.wordings, templates, framing)
    if config.get("video_token_id", tokens.video_pad) != tokens.video_pad:
        raise ScorerError(
            f"{folder}: config.json has video_token_id {config['video_token_id']}, the tokenizer has "
            f"{tokens.video_pad}: they belong to different models"
        )
    _check_vocabulary(folder, config, tokenizer)
    preprocessing = read_preprocessing(folder)
    _use_threads(settings.threads)
    loaded = _load_model(folder, device, dtype, settings.quantization, attn_implementation="sdpa")
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
    device, dtype = _check_settings(settings, config)
    templates = read_templates(settings.prompts)
    family = read_family(folder, settings)
    family.answers(templates, settings.chat_template)  # before the weights, which take long
    _check_vocabulary(folder, config, _read_tokenizer(folder))
    _use_threads(settings.threads)
    loaded: Any = _load_model(folder, device, dtype, settings.quantization)
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
        with _quiet_transformers():
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
    with _quiet_transformers():
        return FAMILIES.get(config.model_type, ImageFamily)(folder, config, _read_tokenizer(folder), pixels)


def _check_settings(settings: ScorerSettings, config: Mapping[str, Any]) -> tuple[torch.device, torch.dtype]:
    """Device and type of numbers. Raises `ScorerError` for a setting that cannot be."""
    from topreward_ros.scoring.checkpoint.quantization import NONE, check_quantization
    from topreward_ros.scoring.question.prompts import LAYOUTS

    device = _choose_device(settings.device)
    dtype = _choose_dtype(settings.dtype, device)
    check_quantization(settings.quantization, dtype)
    if settings.quantization != NONE and config["model_type"] not in QUANTIZABLE:
        raise ScorerError(
            f"quantization {settings.quantization!r} is for dense Qwen3-VL models, this one is of type "
            f"{config['model_type']!r}: use quantization none"
        )
    _check_limits(settings)
    if settings.layout not in LAYOUTS:
        raise ScorerError(f"layout {settings.layout!r} is not known: use {' or '.join(LAYOUTS)}")
    return device, dtype


def _check_vocabulary(folder: Path, config: Mapping[str, Any], tokenizer: Tokenizer) -> None:
    text = config.get("text_config")
    if not isinstance(text, dict) or not isinstance(vocabulary := text.get("vocab_size"), int):
        return  # as the model type has it
    more = text.get("additional_vocab_size", 128 if config["model_type"] == "molmo2" else 0)  # of the video
    if tokenizer.get_vocab_size() > vocabulary + more:
        raise ScorerError(
            f"{folder}: the tokenizer has {tokenizer.get_vocab_size()} tokens, config.json has vocab_size "
            f"{vocabulary}: they belong to different models"
        )


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


def find_folder(model: str) -> Path:
    """Folder of the model that a user named. Raises `ScorerError` where there is none, or not all of it."""
    folder = EMBEDDED_FOLDER if model == EMBEDDED else _look_up(model)
    _check_folder(folder)
    return folder


def _look_up(model: str) -> Path:
    try:
        folder = Path(model).expanduser()
        is_folder, is_file = folder.is_dir(), folder.is_file()
    except (OSError, RuntimeError) as error:  # no such user, no permission, too long a name
        raise ScorerError(
            f"model {model!r} cannot be looked up ({in_a_line(error)}): "
            "write the whole path, of a folder that may be read"
        ) from error
    if model and is_folder:
        return folder
    if is_file:
        raise ScorerError(f"model {model!r} is a file: name the folder it lies in")
    if is_hub_id(model):
        return _hub_folder(model)
    raise ScorerError(
        f"model {model!r}: no such folder. Use 'embedded', the folder of a checkpoint, "
        "or a Hugging Face hub id such as Qwen/Qwen3-VL-2B-Instruct"
    )


def is_hub_id(model: str) -> bool:
    """Whether ``model`` is written as the hub writes names: ``org/name``."""
    return bool(_HUB_ID.fullmatch(model))


def hub_copy(name: str) -> Path | None:
    """Where the hub's local cache has ``name``, in whole or in part; None where it has not."""
    import huggingface_hub

    try:
        config = huggingface_hub.try_to_load_from_cache(name, "config.json")
    except ValueError:  # the hub allows fewer names than we tell from folders
        return None
    return Path(config).parent if isinstance(config, str) else None


def _hub_folder(name: str) -> Path:
    copy = hub_copy(name)
    missing = missing_files(copy) if copy else []
    if copy and not missing:
        return copy
    found = f"has no {' and no '.join(missing)} in the local hub cache" if copy else "is not on this machine"
    raise ScorerError(
        f"model {name!r} is no folder and {found}: get it with `topreward models download {name}` "
        "(once, needs the network), or name a folder"
    )


def _check_folder(folder: Path) -> None:
    missing = missing_files(folder)
    if missing:
        mend = "copy all files of the checkpoint there, or name a folder that has them"
        if folder == EMBEDDED_FOLDER:
            mend = "the installation is not complete; install the package again"
        raise ScorerError(f"{folder} has no {' and no '.join(missing)}: {mend}")


def missing_files(folder: Path) -> list[str]:
    """What a scorer will need and ``folder`` lacks. Raises `ScorerError` for a damaged index of weights."""
    missing = [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]
    return [*missing, *_missing_weights(folder)]


def _missing_weights(folder: Path) -> list[str]:
    """What the loader will want and not find: it takes one file of all weights, or an index and shards."""
    for whole in _WHOLE:
        index = folder / f"{whole}.index.json"
        if (folder / whole).is_file():
            return []
        if index.is_file():
            return [shard for shard in _shards(index) if not (folder / shard).is_file()]
    return [f"{_WHOLE[0]}.index.json"] if weight_files(folder) else ["weights (*.safetensors)"]


def _shards(index: Path) -> list[str]:
    """The files that together hold all weights, by name."""
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        return sorted({str(shard) for shard in content["weight_map"].values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ScorerError(f"{index} cannot be read ({in_a_line(error)}): restore it") from error


def weight_files(folder: Path) -> list[Path]:
    """The files of weights in ``folder``, in order of names."""
    return sorted(path for pattern in WEIGHTS for path in folder.glob(pattern) if path.is_file())


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model that can be scored with. Raises `ScorerError` for that of any other."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        model_type = config.get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise ScorerError(f"{path} cannot be read ({in_a_line(error)}): restore it") from error
    if model_type not in INCREMENTAL:
        _check_type(folder, model_type)
        return dict(config)
    for part in ("text_config", "vision_config"):
        if not isinstance(config.get(part, {}), dict):
            raise ScorerError(
                f"{path}: {part} is {config[part]!r} and must be an object: restore it from the checkpoint"
            )
    if config.get("vision_config", {}).get("temporal_patch_size", 2) != 2:
        raise ScorerError(f"{path}: temporal_patch_size must be 2, as in every released Qwen3-VL")
    return dict(config)


def _check_type(folder: Path, model_type: Any) -> None:
    """Raises `ScorerError` for a type that transformers does not know as a model of images and text."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as KNOWN

    if isinstance(model_type, str) and model_type in KNOWN:
        return
    mend = (
        "use Qwen3-VL ('qwen3_vl', 'qwen3_vl_moe'), or another model of images and text that it knows, such "
        "as Qwen2.5-VL, InternVL3, SmolVLM2 or Molmo2"
    )
    if model_type == "internvl_chat":
        mend = "get the same model in the layout of transformers, whose name on the hub ends in -hf"
    raise ScorerError(
        f"{folder} holds a model of type {model_type!r}, which transformers {transformers.__version__} does "
        f"not know as one that reads images and text: {mend}"
    )


def _read_tokenizer(folder: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the library raises nothing narrower
        raise ScorerError(
            f"{folder / 'tokenizer.json'} cannot be read ({in_a_line(error)}): restore it"
        ) from error


def _choose_device(name: str) -> torch.device:
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ScorerError(f"device {name!r} is not known: use auto, cpu, cuda, or cuda:N")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ScorerError(
            f"device {name!r} was asked for, and PyTorch {torch.__version__} sees "
            f"{torch.cuda.device_count()} CUDA devices: use device cpu or auto, "
            "or install a PyTorch with CUDA and the driver"
        )
    return device


def _choose_dtype(name: str, device: torch.device) -> torch.dtype:
    import torch

    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name == "auto":
        if device.type != "cuda":
            return torch.float32
        # What older GPUs do in bfloat16 is emulated, and slow.
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bfloat16 else torch.float16
    if name not in known:
        raise ScorerError(f"dtype {name!r} is not known: use auto, {', '.join(known)}")
    return known[name]


def _check_limits(settings: ScorerSettings) -> None:
    for name, value, least in (
        ("max_pixels", settings.max_pixels, 1),
        ("max_frames", settings.max_frames, 1),
        ("threads", settings.threads, 0),
    ):
        if value < least:
            raise ScorerError(f"{name} is {value}: it must be at least {least}")


def _check_memory(model: Qwen3VLForConditionalGeneration, settings: ScorerSettings, pixels: int) -> None:
    """Refuse before the first frame what would fail in mid-episode."""
    from topreward_ros.scoring.device import free_memory
    from topreward_ros.scoring.qwen3_vl.video_memory import memory_need

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


def _use_threads(threads: int) -> None:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(threads or max(1, cores - 1))


def _load_model(
    folder: Path, device: torch.device, dtype: torch.dtype, quantization: str, **options: Any
) -> Qwen3VLForConditionalGeneration:
    with no_warnings():
        from transformers import AutoModelForImageTextToText

    from topreward_ros.scoring.checkpoint.quantization import quantize
    from topreward_ros.scoring.device import is_out_of_memory

    try:
        with _quiet_transformers():
            loaded: Any = AutoModelForImageTextToText.from_pretrained(
                folder,
                dtype=dtype,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
                **options,
            )
        quantize(loaded[0], quantization)  # before the device, which may have no room for more
        model: Qwen3VLForConditionalGeneration = loaded[0].to(device).eval()
    except Exception as error:
        if is_out_of_memory(error):
            mend = "use a smaller model, another device, or dtype bfloat16"
        else:
            mend = "the checkpoint is damaged or of another architecture; copy it again"
        raise ScorerError(
            f"{folder} cannot be loaded on {device} in {dtype} ({in_a_line(error)}): {mend}"
        ) from error
    missing = sorted(loaded[1]["missing_keys"])
    if missing:  # transformers would fill them with random numbers
        raise ScorerError(
            f"{folder} lacks {len(missing)} weights, first {missing[0]!r}: "
            "the checkpoint is not complete; copy it again"
        )
    model.requires_grad_(False)
    return model


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No progress bars and no advice while a model loads: what matters is in our errors."""
    from transformers.utils import logging

    library: Any = logging  # without type hints of its own
    verbosity, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity_error()
    library.disable_progress_bar()
    try:
        with no_warnings():
            yield
    finally:
        library.set_verbosity(verbosity)
        if bars:
            library.enable_progress_bar()


def revision(folder: Path) -> str:
    """The hub's commit for a folder of its cache, else the first 16 digits of `weights_hash`."""
    if folder.parent.name == "snapshots" and re.fullmatch(r"[0-9a-f]{40}", folder.name):
        return folder.name
    return weights_hash(folder)[:16]


def weights_hash(folder: Path) -> str:
    """SHA-256 of the weights in hex, one file after the other where there are several."""
    digest = hashlib.sha256()
    for path in weight_files(folder):
        with path.open("rb") as weights:
            while block := weights.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
