"""What lies between the matrix products of a layer, as functions of tensors alone.

Every layer calls the same functions with its own weights as arguments. So one compilation serves all layers
(`compiling`), and on a GPU each function then is one or two kernels in the place of up to a dozen. Plain,
they are the model's own arithmetic. They neither read values nor keep anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.nn.functional import layer_norm, silu

from topreward_ros.scoring.fp8 import quantize_rows

Tensors = tuple[torch.Tensor, ...]


def rms_norm(hidden: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Root mean square norm of the last dimension (Zhang and Sennrich 2019), computed in float32."""
    wide = hidden.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
    return weight * wide.to(hidden.dtype)


def apply_rotary(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding (Su et al. 2021) of queries or keys, (..., tokens, head size).

    The first half of a head pairs with the second. ``cos`` and ``sin`` of the angles broadcast to ``heads``
    and have the same two halves.
    """
    half = heads.shape[-1] // 2
    rotated = heads * cos
    rotated[..., :half].addcmul_(heads[..., half:], sin[..., :half], value=-1)
    rotated[..., half:].addcmul_(heads[..., :half], sin[..., half:])
    return rotated


def add_and_norm(hidden: torch.Tensor, added: torch.Tensor, weight: torch.Tensor, epsilon: float) -> Tensors:
    """``hidden`` + ``added``, both (1, tokens, hidden), and its `rms_norm`."""
    total = hidden + added
    return total, rms_norm(total, weight, epsilon)


def rotate(
    queries: torch.Tensor,
    keys: torch.Tensor,
    query_norm: torch.Tensor,
    key_norm: torch.Tensor,
    epsilon: float,
    query_rotary: tuple[torch.Tensor, torch.Tensor],
    key_rotary: tuple[torch.Tensor, torch.Tensor],
) -> Tensors:
    """Queries (1, queries, heads * size) and keys (1, tokens, key heads * size), normed and rotated by heads.

    The norms (size,) are those of one head; ``query_rotary`` and ``key_rotary``: cos and sin, (1, 1, tokens,
    size) each. Returns (1, heads, queries, size) and (1, key heads, tokens, size).
    """
    made = []
    for hidden, weight, rotary in ((queries, query_norm, query_rotary), (keys, key_norm, key_rotary)):
        heads = torch.unflatten(hidden, -1, (hidden.shape[-1] // len(weight), len(weight)))
        made.append(apply_rotary(rms_norm(heads, weight, epsilon).transpose(1, 2), *rotary))
    return tuple(made)


def gate(gates: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The middle of a gated feed-forward layer with silu (Shazeer 2020)."""
    return silu(gates) * values


def merge(
    out: torch.Tensor,
    log_sum: torch.Tensor,
    more: torch.Tensor,
    more_log_sum: torch.Tensor,
    counts: torch.Tensor | None,
    groups: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Attention to two sets of keys from attention to each, exactly (FlashAttention-2, section 3.1).

    ``out`` (1, key heads, groups * queries, size) and its log-sum-exp ``log_sum`` (1, key heads, groups *
    queries) of the one; of the other ``more`` (parts, key heads, groups * queries, size) and ``more_log_sum``
    of each of its parts, of which those ``counts`` (parts,) bool, or all. Returns (1, queries, heads, size).
    """
    if counts is not None:
        more_log_sum = more_log_sum.masked_fill(~counts[:, None, None], float("-inf"))
    if len(more) > 1:
        part_share = torch.softmax(more_log_sum, dim=0)[..., None]
        more = (more * part_share).sum(0, keepdim=True)
        more_log_sum = more_log_sum.logsumexp(0, keepdim=True)
    share = torch.sigmoid(more_log_sum - log_sum)[..., None]
    merged = torch.lerp(out.float(), more.float(), share).to(dtype)
    return by_tokens(merged, groups)


def by_tokens(out: torch.Tensor, groups: int) -> torch.Tensor:
    """From (1, key heads, groups * queries, size) to (1, queries, heads, size) in one piece."""
    return torch.unflatten(out, 2, (groups, -1)).permute(0, 3, 1, 2, 4).flatten(2, 3).contiguous()


def add_and_layer_norm(
    hidden: torch.Tensor, added: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, epsilon: float
) -> Tensors:
    """``hidden`` + ``added``, both (patches, pixel patches, hidden), and its layer norm."""
    total = hidden + added
    return total, layer_norm(total, total.shape[-1:], weight, bias, epsilon)


def split_and_rotate(projected: torch.Tensor, heads: int, cos: torch.Tensor, sin: torch.Tensor) -> Tensors:
    """Query, key and value, (patches, heads, pixel patches, size) each, the first two rotated.

    ``projected`` (patches, pixel patches, 3 * heads * size); ``cos`` and ``sin`` (1, pixel patches, size)
    float32: rotated in float32, as the model's own code does.
    """
    split = torch.unflatten(projected, -1, (3, heads, -1))
    query, key, value = split.permute(2, 0, 3, 1, 4)
    query, key = (apply_rotary(each.float(), cos, sin).to(each.dtype) for each in (query, key))
    return query, key, value


def flash_by_sequences(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    query_bounds: torch.Tensor,
    key_bounds: torch.Tensor,
    queries: int,
    scaling: float,
) -> Tensors:
    """Attention of sequences that lie one behind the other, (tokens, heads, size) each, by the flash kernel.

    ``query_bounds`` and ``key_bounds`` (sequences + 1,) int32 tell where they begin and end; ``queries``: of
    the longest. Returns (tokens, heads, size) and the log-sum-exps (heads, tokens) float32.
    """
    kernels: Any = torch.ops.aten
    out, log_sum, *_ = kernels._flash_attention_forward(
        *(query, keys, values, query_bounds, key_bounds, queries, len(keys), 0.0, False, False), scale=scaling
    )
    return out, log_sum


class LayerFunctions(NamedTuple):
    """What the layers call: plain functions, compiled ones, or another kernel of attention."""

    add_and_norm: Callable[..., Tensors] = add_and_norm
    rotate: Callable[..., Tensors] = rotate
    gate: Callable[..., torch.Tensor] = gate
    merge: Callable[..., torch.Tensor] = merge
    add_and_layer_norm: Callable[..., Tensors] = add_and_layer_norm
    split_and_rotate: Callable[..., Tensors] = split_and_rotate
    quantize_rows: Callable[..., Tensors] = quantize_rows
    by_sequences: Callable[..., Tensors] = flash_by_sequences  #: on a GPU with flash attention
    blocks: int = 512  #: of threads, in which ``by_sequences`` is to run at most


PLAIN = LayerFunctions()
