"""Weights in 8 bits: int8 for models that would not fit into the memory of a small GPU, fp8 for speed.

The weights of the language model's linear layers are kept in 8 bits with one scale per row. Everything else
stays as it is: vision model, embeddings, norms, the last layer. It changes the numbers (bench/precision.py
says by how much). With int8, by torchao, which is optional, a weight is converted back whenever it is used:
that saves memory and costs time. With fp8 (scoring/fp8.py) what it is multiplied by has 8 bits, too: that
saves time, on a GPU that multiplies such numbers.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from topreward_ros.scoring.base import ScorerError, quiet_logging

if TYPE_CHECKING:
    import torch

NONE, INT8, FP8 = "none", "int8", "fp8"
QUANTIZATIONS = (NONE, INT8, FP8)


def usable_quantization(name: str, device: torch.device, dtype: torch.dtype) -> tuple[str, str]:
    """``name``, or `NONE` and why, where it is `FP8` and ``device`` does not multiply such numbers.

    Raises `ScorerError` for what `quantize` cannot do, before anything is loaded.
    """
    import torch

    if name not in QUANTIZATIONS:
        raise ScorerError(f"quantization {name!r} is not known: use {' or '.join(QUANTIZATIONS)}")
    if name == FP8:
        from topreward_ros.scoring.fp8 import missing_for_fp8

        if problem := missing_for_fp8(device):
            return NONE, (
                "quantization fp8 is not used, which makes scoring slower: "
                f"{device} does not multiply such numbers ({problem})"
            )
        if dtype is not torch.bfloat16:
            shown = str(dtype).removeprefix("torch.")
            raise ScorerError(
                f"quantization fp8 goes with dtype bfloat16, and this is {shown}: set dtype to bfloat16"
            )
    elif name == INT8:
        _check_int8(dtype)
    return name, ""


def _check_int8(dtype: torch.dtype) -> None:
    import torch

    if dtype is torch.float16:  # products are summed before they are scaled, and 65504 is its largest number
        raise ScorerError("quantization int8 overflows in dtype float16: use dtype bfloat16 or float32")
    _torchao()


def quantize(model: Any, name: str, device: torch.device) -> None:
    """Quantize a `Qwen3VLForConditionalGeneration` in place, which may still be on the host.

    Each layer is moved to ``device`` first and quantized there, so that the host holds no copy of it.
    """
    language: Any = model.model.language_model
    if name == NONE:
        return
    if name == FP8:
        from topreward_ros.scoring.fp8 import quantize_layers

        quantize_layers(language, device)
        return
    torchao = _torchao()
    # Its settings for the compiler would change the precision of all float32 products of this process.
    config = torchao.Int8WeightOnlyConfig(set_inductor_config=False)
    torchao.quantize_(language, config, device=device)


def precision_text(dtype: str, name: str) -> str:
    """The precision of a model as written in `ScorerInfo`: ``dtype``, and ``name`` where it is quantized."""
    return dtype if name == NONE else f"{dtype}, {name} weights"


def _torchao() -> Any:
    """The module torchao.quantization. Raises `ScorerError` where it is missing, or of an unfit version."""
    try:
        with quiet_logging():
            import torchao.quantization as library

        library.Int8WeightOnlyConfig(set_inductor_config=False)
    except (ImportError, AttributeError, TypeError) as error:
        raise ScorerError(_no_torchao(str(error))) from error
    return library


def check_library(name: str) -> None:
    """Raise `ScorerError` where the library that quantization ``name`` needs is not installed, without
    importing it."""
    if name == INT8 and find_spec("torchao") is None:
        raise ScorerError(_no_torchao("it is not installed"))


def _no_torchao(why: str) -> str:
    return (
        f"quantization int8 needs torchao, which cannot be used here ({why}): "
        "pip install 'torchao>=0.18', or use quantization none"
    )
