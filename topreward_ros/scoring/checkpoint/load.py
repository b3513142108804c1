"""From a checkpoint to a loaded model of transformers, on a device and in a dtype.

Settings and tokenizer can be checked here before the weights are read, which takes long.

PyTorch and transformers are imported when a model is loaded, so that importing this module costs nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from topreward_ros.scoring.base import ScorerError, ScorerSettings, in_a_line, quiet_logging
from topreward_ros.scoring.checkpoint.checkpoint import QUANTIZABLE, Checkpoint

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def resolve_device_and_dtype(
    settings: ScorerSettings, checkpoint: Checkpoint
) -> tuple[torch.device, torch.dtype]:
    """Check the settings, and choose the device and dtype that they ask for.

    Raises `ScorerError` for a setting that cannot be used.
    """
    from topreward_ros.scoring.checkpoint.quantization import NONE, check_quantization
    from topreward_ros.scoring.question.prompts import LAYOUTS

    device = _choose_device(settings.device)
    dtype = _choose_dtype(settings.dtype, device)
    check_quantization(settings.quantization, dtype)
    if settings.quantization != NONE and checkpoint.model_type not in QUANTIZABLE:
        raise ScorerError(
            f"quantization {settings.quantization!r} is for dense Qwen3-VL models, this one is of type "
            f"{checkpoint.model_type!r}: use quantization none"
        )
    _check_limits(settings)
    if settings.layout not in LAYOUTS:
        raise ScorerError(f"layout {settings.layout!r} is not known: use {' or '.join(LAYOUTS)}")
    return device, dtype


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
        # Older GPUs emulate bfloat16, which is slow.
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bfloat16 else torch.float16
    if name not in known:
        raise ScorerError(f"dtype {name!r} is not known: use auto, {', '.join(known)}")
    return known[name]


def _check_limits(settings: ScorerSettings) -> None:
    for name, value, least in (
        ("max_pixels", settings.max_pixels, 1),
        ("max_frames", settings.max_frames, 1),
        ("scorer_threads", settings.threads, 0),
    ):
        if value < least:
            raise ScorerError(f"{name} is {value}: it must be at least {least}")


def check_vocabulary_size(checkpoint: Checkpoint) -> None:
    """Refuse a tokenizer with more tokens than the model has embeddings for. Raises `ScorerError`."""
    text = checkpoint.config.get("text_config")
    if not isinstance(text, dict) or not isinstance(vocabulary := text.get("vocab_size"), int):
        return  # not in config.json: the default of its model type holds
    # Molmo2 keeps the embeddings of its video tokens apart.
    more = text.get("additional_vocab_size", 128 if checkpoint.model_type == "molmo2" else 0)
    tokens = checkpoint.tokenizer.get_vocab_size()
    if tokens > vocabulary + more:
        raise ScorerError(
            f"{checkpoint.folder}: the tokenizer has {tokens} tokens, config.json has vocab_size "
            f"{vocabulary}: they belong to different models"
        )


def use_threads(threads: int) -> None:
    """Let PyTorch use ``threads`` CPU threads; 0: one less than the cores that this process may use."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(threads or max(1, cores - 1))


def load_weights(
    checkpoint: Checkpoint,
    *,
    device: torch.device,
    dtype: torch.dtype,
    quantization: str,
    **options: Any,
) -> PreTrainedModel:
    """Load the model of ``checkpoint`` on ``device``, ready to run and without gradients.

    Its class is the one that transformers has for its type; ``options`` go to `from_pretrained`. Raises
    `ScorerError`.
    """
    with quiet_logging():
        from transformers import AutoModelForImageTextToText

    from topreward_ros.scoring.checkpoint.quantization import quantize
    from topreward_ros.scoring.device import is_out_of_memory

    try:
        with quiet_transformers():
            loaded: Any = AutoModelForImageTextToText.from_pretrained(
                checkpoint.folder,
                dtype=dtype,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
                **options,
            )
        quantize(loaded[0], quantization)  # before the move to the device, where the full weights may not fit
        model: PreTrainedModel = loaded[0].to(device).eval()
    except Exception as error:
        if is_out_of_memory(error):
            fix = "use a smaller model, another device, or dtype bfloat16"
        else:
            fix = "the checkpoint is damaged or of another architecture; copy it again"
        raise ScorerError(
            f"{checkpoint.folder} cannot be loaded on {device} in {dtype} ({in_a_line(error)}): {fix}"
        ) from error
    missing = sorted(loaded[1]["missing_keys"])
    if missing:  # transformers would fill them with random numbers
        raise ScorerError(
            f"{checkpoint.folder} lacks {len(missing)} weights, first {missing[0]!r}: "
            "the checkpoint is not complete; copy it again"
        )
    model.requires_grad_(False)
    return model


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence the progress bars and log messages of transformers; what fails is raised as our own error."""
    from transformers.utils import logging

    library: Any = logging  # without type hints of its own
    verbosity, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity_error()
    library.disable_progress_bar()
    try:
        with quiet_logging():
            yield
    finally:
        library.set_verbosity(verbosity)
        if bars:
            library.enable_progress_bar()
