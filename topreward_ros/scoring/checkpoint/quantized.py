"""Checkpoints whose weights were quantized by others: recognised and refused, with what is supported instead.

Kernels for them come as libraries of their own for certain GPUs, and transformers without these either fails
or drops the scales, and gives numbers that are wrong. Weights in 8 bits are made from unquantized ones here,
see quantization.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from topreward_ros.core.printable import printable
from topreward_ros.scoring.base import ScorerError
from topreward_ros.scoring.checkpoint.weight_files import StoredTensor

_MEND = (
    "take the unquantized checkpoint, and with dense Qwen3-VL the parameter quantization: int8 where memory "
    "is short"
)
#: Keys of a configuration, and files beside it, in which those who quantize write how.
_KEYS = ("quantization_config", "compression_config")
_FILES = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")
#: How tensors end that only quantized weights have.
_MARKS = re.compile(
    r"\.(weight_scale(_inv|_2)?|weight_zero_point|weight_packed|weight_shape|input_scale|activation_scale"
    r"|qweight|qzeros|g_idx|SCB|weight\.(absmax|nested_absmax|quant_map|quant_state\..*)|weight_format)$"
)
#: Types of the format that are numbers as they stand.
_NUMBERS = frozenset(("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"))


def refuse_quantized(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise `ScorerError` where config.json, or a file beside it, says that the weights are quantized."""
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]
    for part in parts:
        for key in _KEYS:
            if part.get(key):
                raise ScorerError(
                    f"{folder} is quantized with {_method(part[key])}, which is not supported: {_MEND}"
                )
    if found := next((name for name in _FILES if (folder / name).is_file()), None):
        raise ScorerError(f"{folder} is quantized, as {found} says, which is not supported: {_MEND}")


def _method(said: Any) -> str:
    """The method as its configuration names it, for example 'fp8'."""
    if not isinstance(said, dict):
        return "an unknown method"
    method = str(said.get("quant_method") or "")
    if said.get("load_in_4bit") or said.get("load_in_8bit"):
        method = "bitsandbytes"
    return printable(method, 40) or "an unknown method"


def refuse_quantized_tensors(folder: Path, tensors: Iterable[StoredTensor]) -> None:
    """Raise `ScorerError` where the weights themselves are of whole numbers, or have scales beside them."""
    for tensor in tensors:
        if _MARKS.search(tensor.name) or (tensor.name.endswith(".weight") and tensor.dtype not in _NUMBERS):
            raise ScorerError(
                f"{folder} has quantized weights ({printable(tensor.name)}, {tensor.dtype}), which are not "
                f"supported: {_MEND}"
            )
