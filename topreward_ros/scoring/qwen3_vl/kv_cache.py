"""The KV cache of one video: keys and values of its tokens, layer by layer, in preallocated tensors."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch

from topreward_ros.scoring.qwen3_vl.attention import Context, ValidLength
from topreward_ros.scoring.qwen3_vl.cuda_graphs import GraphCache


class KVCache:
    """KV cache of one video; entries past `length` are stale, and the next write replaces them."""

    def __init__(self) -> None:
        self.length = (
            0  #: tokens that are valid, those of the last pass included; rolled back by `VideoCache`
        )
        self.capacity = 0  #: tokens that there is room for
        self.layers: list[torch.Tensor] = []  #: (2, 1, key heads, capacity, head size): keys, values
        self.graphs = GraphCache()  #: CUDA graphs of passes that write into this cache

    def reserve(self, tokens: int) -> None:
        """Make room for ``tokens`` in all; grows by a quarter at least, so that copies are rare."""
        if tokens <= self.capacity:
            return
        self.graphs.clear()  # they write where the tensors were
        self.capacity = max(tokens, self.capacity + self.capacity // 4)
        for number, old in enumerate(self.layers):
            self.layers[number] = old.new_zeros(*old.shape[:3], self.capacity, old.shape[4])
            self.layers[number][..., : self.length, :] = old[..., : self.length, :]

    @property
    def bytes(self) -> int:
        """Memory of all keys and values."""
        return sum(layer.numel() * layer.itemsize for layer in self.layers)

    def write(self, layer: int, start: int, keys: torch.Tensor, values: torch.Tensor) -> Context:
        """Put keys and values of new tokens, (1, key heads, tokens, head size), at ``start``.

        Returns the context: those of all tokens before.
        """
        if layer == len(self.layers):
            _, heads, _, head_size = keys.shape
            # Zeros: a kernel that masks stale entries still multiplies by them.
            self.layers.append(keys.new_zeros(2, 1, heads, self.capacity, head_size))
        stored = self.layers[layer]
        stored[0][..., start : start + keys.shape[2], :] = keys
        stored[1][..., start : start + keys.shape[2], :] = values
        return Context(stored[0][..., :start, :], stored[1][..., :start, :])


class KVWriter(Protocol):
    """Where a pass writes the keys and values of its tokens, and what these attend to beside one another."""

    def write(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> Context:
        """Write keys and values of ``layer``, (1, key heads, tokens, head size); returns the context."""
        ...


class HostOffset(NamedTuple):
    """Writes at an offset that the CPU knows."""

    cache: KVCache
    start: int

    def write(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> Context:
        """See `KVWriter.write`."""
        return self.cache.write(layer, self.start, keys, values)


class DeviceOffset(NamedTuple):
    """Writes at an offset in a tensor of the device, as a CUDA graph needs it."""

    layers: list[torch.Tensor]  #: of the `KVCache`
    slots: torch.Tensor  #: (tokens,) long, where the new tokens go in the cache
    max_context: int  #: cached tokens that may be valid
    valid: ValidLength  #: how many of these are

    def write(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> Context:
        """See `KVWriter.write`."""
        stored = self.layers[layer]
        stored[0].index_copy_(2, self.slots, keys)
        stored[1].index_copy_(2, self.slots, values)
        end = self.max_context
        return Context(stored[0][:, :, :end], stored[1][:, :, :end], self.valid)
