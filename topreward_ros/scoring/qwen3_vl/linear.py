"""Linear layers: packed for oneDNN on a CPU, several as one product on a GPU, else as they are.

PyTorch multiplies float32 with MKL, which packs the weights anew in every call; with the few tokens of a tick
that takes a notable part of the time. The activation behind a layer is fused into it. These are the
operations that PyTorch's own compiler uses on CPUs. In other precisions, and where memory is short, a layer
runs unpacked. Layers with int8 weights run as they are, on any device; those in fp8 that share an input
share its quantization, and are one product, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from topreward_ros.scoring import fp8
from topreward_ros.scoring.device import free_memory
from topreward_ros.scoring.fp8 import Fp8Linear
from topreward_ros.scoring.qwen3_vl.layer_functions import PLAIN, LayerFunctions

Layer = Callable[[torch.Tensor], torch.Tensor]

_ALL = slice(None)
#: Rows that are multiplied together where there are more than `_WHOLE`, from the largest block down; what is
#: left is fewer than the last. oneDNN compiles kernels for every number of rows, and keeps them.
_WHOLE, _BLOCKS = 256, (512, 128)
_SHARE = 4  # packed copies of the weights may take a quarter of the free memory


class Packer:
    """Packs the present weights of one model's linear layers, or leaves all unpacked."""

    def __init__(self, model: nn.Module, *, any_length: bool = False) -> None:
        """``any_length``: passes have any number of tokens, so that large ones go `in_blocks`."""
        self._any_length = any_length
        parameters = list(model.parameters())
        size = sum(parameter.numel() * parameter.itemsize for parameter in parameters)
        as_stored = all(type(each) is nn.Parameter and each.dtype is torch.float32 for each in parameters)
        eligible = as_stored and all(each.device.type == "cpu" for each in parameters)
        self.packs = eligible and _has_operations() and size * _SHARE <= free_memory(torch.device("cpu"))

    def linear(self, layer: nn.Linear, activation: nn.Module | None = None, name: str = "") -> Layer:
        """``layer`` followed by ``activation``, which transformers calls ``name``."""
        if not self.packs:
            return layer if activation is None else nn.Sequential(layer, activation)
        kernels: Any = torch.ops.mkldnn
        packed, bias = kernels._reorder_linear_weight(layer.weight.detach()), layer.bias
        kind, variant = _FUSED.get(name, ("none", ""))

        def multiplied(hidden: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = kernels._linear_pointwise(hidden, packed, bias, kind, [], variant)
            return made

        def run(hidden: torch.Tensor) -> torch.Tensor:
            return in_blocks(hidden, multiplied) if self._any_length else multiplied(hidden)

        if activation is None or name in _FUSED:
            return run
        return lambda hidden: activation(run(hidden))

    def products(self, *layers: nn.Linear | Fp8Linear) -> Products:
        """Linear ``layers`` that all take the same input."""
        in_fp8 = [layer for layer in layers if isinstance(layer, Fp8Linear)]
        if len(in_fp8) == len(layers):
            return Fp8Products(in_fp8)
        others = [layer for layer in layers if isinstance(layer, nn.Linear)]
        if in_fp8:  # some did not fit
            return Products(layers)
        weights = [layer.weight for layer in others]
        plain = all(type(weight) is nn.Parameter and weight.device.type != "cpu" for weight in weights)
        if plain and len({layer.bias is None for layer in others}) == 1:
            return joined_products(others)
        return Products([self.linear(layer) for layer in others])


def in_blocks(hidden: torch.Tensor, product: Layer) -> torch.Tensor:
    """``product``, which takes each row by itself, of (..., rows, inputs), in blocks of few sizes."""
    count = hidden.shape[:-1].numel()
    if count <= _WHOLE:
        return product(hidden)
    sizes, left = [], count
    for block in _BLOCKS:
        sizes += [block] * (left // block)
        left %= block
    sizes += [left] if left else []
    parts = torch.split(hidden.reshape(count, -1), sizes)
    made = torch.cat([product(part) for part in parts])
    return made.reshape(*hidden.shape[:-1], -1)


class Products:
    """Linear layers that take the same input, one after the other."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = layers

    def __call__(
        self, hidden: torch.Tensor, chosen: slice = _ALL, functions: LayerFunctions = PLAIN
    ) -> Sequence[torch.Tensor]:
        """The output of each of the ``chosen`` layers, which are neighbours."""
        return [layer(hidden) for layer in self._layers[chosen]]


class JoinedProducts(Products):
    """The same as one product, for a GPU, where one large product takes less time than several small ones."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, sizes: Sequence[int]) -> None:
        """``weight`` and ``bias`` of all layers, of which each has so many rows of ``sizes``."""
        self._weight, self._bias, self._sizes = weight, bias, sizes

    def __call__(
        self, hidden: torch.Tensor, chosen: slice = _ALL, functions: LayerFunctions = PLAIN
    ) -> Sequence[torch.Tensor]:
        """See `Products`."""
        rows = _rows_of(chosen, self._sizes)
        bias = None if self._bias is None else self._bias[rows]
        product = nn.functional.linear(hidden, self._weight[rows], bias)
        return torch.split(product, list(self._sizes[chosen]), dim=-1)


class Fp8Products(Products):
    """`Fp8Linear` layers as one product of an input that is quantized once."""

    def __init__(self, layers: Sequence[Fp8Linear]) -> None:
        """The weights of ``layers`` become parts of one tensor: there is no second copy."""
        self._sizes = [layer.out_features for layer in layers]
        self._weight = _joined([layer.weight for layer in layers])
        self._scales = torch.cat([layer.scales.detach() for layer in layers])
        for number, layer in enumerate(layers):
            rows = _rows_of(slice(number, number + 1), self._sizes)
            layer.weight = nn.Parameter(self._weight[rows], requires_grad=False)

    def __call__(
        self, hidden: torch.Tensor, chosen: slice = _ALL, functions: LayerFunctions = PLAIN
    ) -> Sequence[torch.Tensor]:
        """See `Products`."""
        rows = _rows_of(chosen, self._sizes)
        quantized, scales = functions.quantize_rows(hidden)
        product = fp8.product(quantized, scales, self._weight[rows], self._scales[rows])
        product = torch.unflatten(product, 0, hidden.shape[:-1])
        return torch.split(product, list(self._sizes[chosen]), dim=-1)


def _rows_of(chosen: slice, sizes: Sequence[int]) -> slice:
    """The rows of the ``chosen`` ones of matrices that lie one behind the other, of so many rows each."""
    start, stop, _ = chosen.indices(len(sizes))
    return slice(sum(sizes[:start]), sum(sizes[:stop]))


def joined_products(layers: Sequence[nn.Linear]) -> JoinedProducts:
    """``layers`` as one product. Their weights become parts of one tensor: there is no second copy."""
    sizes = [layer.out_features for layer in layers]
    weight = _joined([layer.weight for layer in layers])
    bias = None if layers[0].bias is None else _joined([layer.bias for layer in layers])
    for number, layer in enumerate(layers):
        rows = slice(sum(sizes[:number]), sum(sizes[: number + 1]))
        layer.weight = nn.Parameter(weight[rows], requires_grad=False)
        if bias is not None:
            layer.bias = nn.Parameter(bias[rows], requires_grad=False)
    return JoinedProducts(weight, bias, sizes)


def _joined(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """``tensors`` one behind the other in one; no copy where they lie so, as another scorer left them."""
    first, *others = (tensor.detach() for tensor in tensors)
    end = first.storage_offset() + first.numel()
    for other in others:
        same = other.untyped_storage()._cdata == first.untyped_storage()._cdata
        if not (same and other.storage_offset() == end and other.is_contiguous()):
            return torch.cat([first, *others])
        end += other.numel()
    rows = sum(len(tensor) for tensor in tensors)
    return first.as_strided((rows, *first.shape[1:]), first.stride())


#: Name of an activation in transformers: name and variant in oneDNN.
_FUSED = {"gelu": ("gelu", "none"), "gelu_pytorch_tanh": ("gelu", "tanh"), "silu": ("swish", "")}


def _has_operations() -> bool:
    library: Any = torch
    names = ("_linear_pointwise", "_reorder_linear_weight")
    return library.backends.mkldnn.is_available() and all(hasattr(library.ops.mkldnn, name) for name in names)
