"""Linear layers on a CPU, with weights packed beforehand into the layout that oneDNN multiplies fastest.

PyTorch multiplies float32 with MKL, which packs the weights anew in every call; with the few tokens of a tick
that takes a notable part of the time. The activation behind a layer is fused into it. These are the
operations that PyTorch's own compiler uses on CPUs. On other devices, in other precisions, and where memory
is short, a layer runs unpacked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from topreward_ros.scoring.device import free_memory

Layer = Callable[[torch.Tensor], torch.Tensor]

_SHARE = 4  # packed copies of the weights may take a quarter of the free memory


class Packer:
    """Packs the present weights of one model's linear layers, or leaves all unpacked."""

    def __init__(self, model: nn.Module) -> None:
        parameters = list(model.parameters())
        size = sum(parameter.numel() * parameter.itemsize for parameter in parameters)
        as_stored = all(type(each) is nn.Parameter and each.dtype is torch.float32 for each in parameters)
        eligible = as_stored and all(each.device.type == "cpu" for each in parameters)
        self._packs = eligible and _has_operations() and size * _SHARE <= free_memory(torch.device("cpu"))

    def linear(self, layer: nn.Linear, activation: nn.Module | None = None, name: str = "") -> Layer:
        """``layer`` followed by ``activation``, which transformers calls ``name``."""
        if not self._packs:
            return layer if activation is None else nn.Sequential(layer, activation)
        kernels: Any = torch.ops.mkldnn
        packed, bias = kernels._reorder_linear_weight(layer.weight.detach()), layer.bias
        kind, variant = _FUSED.get(name, ("none", ""))

        def run(hidden: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = kernels._linear_pointwise(hidden, packed, bias, kind, [], variant)
            return made

        if activation is None or name in _FUSED:
            return run
        return lambda hidden: activation(run(hidden))


#: Name of an activation in transformers: name and variant in oneDNN.
_FUSED = {"gelu": ("gelu", "none"), "gelu_pytorch_tanh": ("gelu", "tanh"), "silu": ("swish", "")}


def _has_operations() -> bool:
    library: Any = torch
    names = ("_linear_pointwise", "_reorder_linear_weight")
    return library.backends.mkldnn.is_available() and all(hasattr(library.ops.mkldnn, name) for name in names)
