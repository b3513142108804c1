"""Weights in 8 bits, for models that would not fit into the memory of a small GPU otherwise.

The weights of the language model's linear layers are kept as int8 with one scale per row, by torchao.
Everything else stays as it is: vision model, embeddings, norms, the last layer. A weight is converted back
whenever it is used, so this saves memory, costs time, and changes the numbers (bench/precision.py says by how
much). torchao is optional.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from topreward_ros.scoring.base import ScorerError, quiet_logging

if TYPE_CHECKING:
    import torch

NONE, INT8 = "none", "int8"
QUANTIZATIONS = (NONE, INT8)


def check_quantization(name: str, dtype: torch.dtype) -> None:
    """Raise `ScorerError` for what `quantize` cannot do, before anything is loaded."""
    import torch

    if name not in QUANTIZATIONS:
        raise ScorerError(f"quantization {name!r} is not known: use {' or '.join(QUANTIZATIONS)}")
    if name == NONE:
        return
    if dtype is torch.float16:  # products are summed before they are scaled, and 65504 is its largest number
        raise ScorerError("quantization int8 overflows in dtype float16: use dtype bfloat16 or float32")
    _torchao()


def quantize(model: Any, name: str, device: torch.device) -> None:
    """Quantize a `Qwen3VLForConditionalGeneration` in place, which may still be on the host.

    Each layer is moved to ``device`` first and quantized there, so that the host holds no copy of it.
    """
    if name == NONE:
        return
    torchao = _torchao()
    # Its settings for the compiler would change the precision of all float32 products of this process.
    config = torchao.Int8WeightOnlyConfig(set_inductor_config=False)
    torchao.quantize_(model.model.language_model, config, device=device)


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
        raise ScorerError(
            f"quantization int8 needs torchao, which cannot be used here ({error}): "
            "pip install 'torchao>=0.18', or use quantization none"
        ) from error
    return library
