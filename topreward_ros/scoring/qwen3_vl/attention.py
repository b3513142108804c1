"""Attention of a few new tokens to a long context that all of them see, and to one another by a mask.

A mask as wide as the context rules out CUDA's fastest kernels and makes PyTorch copy keys and values for
grouped queries; on a CPU the mask has to be read as well. So the new tokens attend to the context without a
mask and to one another with a small one, and the two results are merged by their log-sum-exps
(`layer_functions.merge`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from topreward_ros.scoring.qwen3_vl.layer_functions import PLAIN, LayerFunctions, by_tokens

_ALIGNED = 8  # row alignment of masks, in numbers, that CUDA kernels need
MAX_SPLITS = 16  #: of the context in a CUDA graph
_QUERIES_PER_BLOCK = 128  # of threads, in flash attention


class ValidLength:
    """How many of the cached tokens are valid, kept on the device: a CUDA graph reads it at every replay."""

    def __init__(self, length: torch.Tensor, tokens: int, dtype: torch.dtype) -> None:
        """The first ``length`` (1,) of ``tokens`` are valid, one or more; ``dtype``: of the keys."""
        is_valid = torch.arange(tokens, device=length.device) < length
        bias = torch.zeros(tokens, dtype=dtype, device=length.device).masked_fill_(~is_valid, float("-inf"))
        self.bias = bias.view(1, 1, 1, -1)  #: 0 for valid tokens, -inf for the others
        self._length, self._tokens = length, tokens
        self._bounds: dict[int, torch.Tensor] = {}
        self._holds: dict[int, torch.Tensor] = {}

    def bounds(self, splits: int) -> torch.Tensor:
        """(splits + 1,) int32: where each of ``splits`` parts begins and ends, at most one for each token.

        A kernel makes nothing that is of use of a part without a token, so that none is without. The parts
        are equal and hold the valid tokens; where there are fewer valid tokens than parts, each part holds
        one token, and `holds` tells which of them are valid.
        """
        if splits not in self._bounds:  # computed once, not in every layer
            if splits > self._tokens:
                raise ValueError(f"{splits} parts of {self._tokens} tokens: some would be empty")
            steps = torch.arange(splits + 1, device=self._length.device)
            equal = torch.div(steps * self._length, splits, rounding_mode="floor")
            self._bounds[splits] = torch.maximum(equal, steps).int()
        return self._bounds[splits]

    def holds(self, splits: int) -> torch.Tensor:
        """(splits,) bool: whether the part of `bounds` holds valid tokens; else it holds none."""
        if splits not in self._holds:
            self._holds[splits] = self.bounds(splits)[:-1] < self._length
        return self._holds[splits]


class Context(NamedTuple):
    """The cached tokens that every new token attends to: keys and values, (1, key heads, tokens, size)."""

    keys: torch.Tensor
    values: torch.Tensor
    valid: ValidLength | None = None  #: None: all of them are valid


class _Parts(NamedTuple):
    """Attention to parts of the context, as `layer_functions.merge` takes it."""

    out: torch.Tensor  #: (parts, key heads, queries, size)
    log_sum: torch.Tensor  #: (parts, key heads, queries) float32
    counts: torch.Tensor | None  #: (parts,) bool: whether a part is valid; None: all are


def mask_width(tokens: int, device: torch.device) -> int:
    """How many numbers a row of a mask over ``tokens`` must take, so that the fast kernels can read it."""
    return tokens if device.type == "cpu" else rounded_up(tokens, _ALIGNED)


def rounded_up(number: int, step: int) -> int:
    """The next multiple of ``step``.

    >>> [rounded_up(number, 16) for number in (0, 1, 16, 17)]
    [0, 16, 16, 32]
    """
    return -(-number // step) * step


def kernels_of(device: torch.device, dtype: torch.dtype) -> str:
    """Which kernels attend to the context, for the log."""
    if device.type == "cpu":
        return "flash attention for CPUs"
    return "flash attention" if has_flash(device, dtype) else "memory-efficient attention"


def has_flash(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the flash kernels run: on a GPU from Ampere on, in half precision."""
    half = dtype is not torch.float32
    return device.type == "cuda" and half and torch.cuda.get_device_capability(device) >= (8, 0)


def attend(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor,
    context: Context,
    scaling: float,
    functions: LayerFunctions = PLAIN,
) -> torch.Tensor:
    """Attention of new tokens to ``context``, and to one another by ``mask``.

    ``query`` (1, heads, queries, size); ``keys``, ``values`` (1, key heads, new tokens, size); ``mask``
    (heads / key heads * queries, new tokens), of the same type, is 0 where a query attends to a new token,
    which includes its own, and -inf elsewhere, once for each of the heads that share keys. ``context`` may be
    empty. Returns (1, queries, heads, size).
    """
    groups = query.shape[1] // keys.shape[1]
    # Queries of the heads that share keys are stacked: no kernel needs to know of groups.
    grouped = query.reshape(1, keys.shape[1], -1, query.shape[3])
    out, log_sum = _attend_by_mask(grouped, keys, values, mask[None, None], scaling)
    if not context.keys.shape[2]:
        return by_tokens(out.to(query.dtype), groups)
    parts = _attend_to_context(grouped, context, scaling, functions)
    return functions.merge(out, log_sum, *parts, groups, query.dtype)


def _attend_by_mask(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, scaling: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention to the few new ``keys``, and the log-sum-exp of its logits, float32."""
    kernels: Any = torch.ops.aten
    if query.device.type == "cpu":
        out, log_sum = kernels._scaled_dot_product_flash_attention_for_cpu(
            query, keys, values, attn_mask=mask, scale=scaling
        )
        return out, log_sum
    if mask.stride(-2) % _ALIGNED:
        return _attend_by_matmul(query, keys, values, mask, scaling)
    return _attend_efficiently(query, keys, values, mask, scaling)


def _attend_by_matmul(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, scaling: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """For a GPU, and a mask that none of its kernels reads."""
    logits = (query.float() @ keys.float().transpose(2, 3)) * scaling + mask.float()
    log_sum = logits.logsumexp(-1)
    return (logits - log_sum[..., None]).exp() @ values.float(), log_sum


def _attend_efficiently(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None, scaling: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """By the memory-efficient kernel, which every GPU has and which reads masks (Rabe and Staats 2021)."""
    kernels: Any = torch.ops.aten
    if mask is not None:
        mask = mask.expand(1, query.shape[1], query.shape[2], -1)
    out, log_sum, *_ = kernels._scaled_dot_product_efficient_attention(
        query, keys, values, mask, True, scale=scaling
    )
    return out, log_sum[..., : query.shape[2]]  # the kernel pads the queries


def _attend_to_context(
    query: torch.Tensor, context: Context, scaling: float, functions: LayerFunctions
) -> _Parts:
    """Attention without a mask, by the kernels behind `scaled_dot_product_attention`."""
    kernels: Any = torch.ops.aten
    keys, values, valid = context
    bias = None if valid is None else valid.bias
    if query.device.type == "cpu":  # as `kernels_of` says
        out, log_sum = kernels._scaled_dot_product_flash_attention_for_cpu(
            query, keys, values, attn_mask=bias, scale=scaling
        )
    elif not has_flash(query.device, query.dtype):
        out, log_sum = _attend_efficiently(query, keys, values, bias, scaling)
    elif valid is None:
        out, log_sum, *_ = kernels._scaled_dot_product_flash_attention(query, keys, values, scale=scaling)
        log_sum = log_sum[..., : query.shape[2]]  # some versions pad the queries
    else:
        return attend_in_splits(query, keys, values, valid, scaling, functions)
    return _Parts(out, log_sum.float(), None)


def attend_in_splits(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    valid: ValidLength,
    scaling: float,
    functions: LayerFunctions = PLAIN,
) -> _Parts:
    """Attention to the valid ``keys`` by a kernel for sequences of variable length.

    The kernel reads the lengths on the device, and spreads each sequence over few multiprocessors, however
    long it is. So the context is cut into sequences that make about ``functions.blocks`` together, whose
    results are to be merged (flash decoding, Dao et al. 2023).
    """
    heads, queries, size = query.shape[1:]
    blocks = heads * rounded_up(queries, _QUERIES_PER_BLOCK) // _QUERIES_PER_BLOCK
    splits = max(1, min(MAX_SPLITS, keys.shape[2], functions.blocks // blocks))
    repeated = query[0].transpose(0, 1).repeat(splits, 1, 1)
    starts = torch.arange(0, splits * queries + 1, queries, dtype=torch.int32, device=query.device)
    cached = (keys[0].transpose(0, 1), values[0].transpose(0, 1))
    out, log_sum = functions.by_sequences(repeated, *cached, starts, valid.bounds(splits), queries, scaling)
    return _Parts(
        out.reshape(splits, queries, heads, size).transpose(1, 2),
        log_sum.reshape(heads, splits, queries).transpose(0, 1),  # float32
        valid.holds(splits) if splits > 1 else None,
    )
