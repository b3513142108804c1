"""Attention of a few new tokens to a long video that all of them see, and to one another by a mask.

A mask as wide as the video bars CUDA's fastest kernels and makes it copy keys and values for grouped queries;
on a CPU it has to be read as well. So the video is attended to without a mask, what is new with a small one,
and the two are merged by their log-sum-exps, exactly (Dao 2023, FlashAttention-2, section 3.1).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch


class Filled(NamedTuple):
    """How many of some tokens are there, kept on the device: recorded work reads it anew every time."""

    bias: torch.Tensor  #: (1, 1, 1, tokens), of the type of the keys: 0 for those, -inf for the others
    bounds: torch.Tensor  #: (2,) int32, 0 and their number: how kernels for sequences of any length want it


class Older(NamedTuple):
    """What every new token sees: ``keys`` and ``values``, (1, key heads, tokens, size)."""

    keys: torch.Tensor
    values: torch.Tensor
    filled: Filled | None = None  #: None: all tokens are there


def first_of(number: torch.Tensor, tokens: int, dtype: torch.dtype) -> Filled:
    """The first ``number`` (1,) of ``tokens``."""
    there = torch.arange(tokens, device=number.device) < number
    bias = torch.zeros(tokens, dtype=dtype, device=number.device).masked_fill_(~there, float("-inf"))
    return Filled(bias.view(1, 1, 1, -1), torch.nn.functional.pad(number, (1, 0)).int())


def kernels_of(device: torch.device, dtype: torch.dtype) -> str:
    """By which kernels the video is attended to, in words."""
    if device.type == "cpu":
        return "flash attention for CPUs"
    return "flash attention" if has_flash(device, dtype) else "memory-efficient attention"


def has_flash(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this is a GPU with tensor cores that the flash kernels are written for: from Ampere on."""
    half = dtype is not torch.float32
    return device.type == "cuda" and half and torch.cuda.get_device_capability(device) >= (8, 0)


def attend(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    bias: torch.Tensor,
    older: Older,
    scaling: float,
) -> torch.Tensor:
    """Of new tokens, by a mask among themselves, to all that is older as well.

    ``query`` (1, heads, asking tokens, size); ``keys``, ``values`` (1, key heads, new tokens, size);
    ``bias`` (heads / key heads * asking tokens, new tokens), of the same type, is 0 where a token sees one of
    the new ones, as it sees itself, and -inf elsewhere, once for each of the heads that share keys. ``older``
    has a token at least, or is empty. Returns (1, heads, asking tokens, size).
    """
    heads, asking, size = query.shape[1:]
    # Queries of the heads that share keys, one below the other: no kernel needs to know of groups.
    rows = query.reshape(1, keys.shape[1], -1, size)
    out, weight = _attend_by_mask(rows, keys, values, bias[None, None], scaling)
    if older.keys.shape[2]:
        older_out, older_weight = _attend_to_older(rows, older, scaling)
        share = torch.sigmoid(older_weight - weight)[..., None]
        out = torch.lerp(out.float(), older_out.float(), share)
    return out.to(query.dtype).reshape(1, heads, asking, size)


def rotate(heads: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Rotary positions (Su et al. 2021) of (..., tokens, size), whose first half pairs with the second.

    ``cosine`` and ``sine`` of the angles fit ``heads`` and have the same two halves.
    """
    half = heads.shape[-1] // 2
    rotated = heads * cosine
    rotated[..., :half].addcmul_(heads[..., half:], sine[..., :half], value=-1)
    rotated[..., half:].addcmul_(heads[..., :half], sine[..., half:])
    return rotated


def _attend_by_mask(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, bias: torch.Tensor, scaling: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention and log-sum-exp of its scores, float32; there are few ``keys``."""
    kernels: Any = torch.ops.aten
    if query.device.type == "cpu":
        out, weight = kernels._scaled_dot_product_flash_attention_for_cpu(
            query, keys, values, attn_mask=bias, scale=scaling
        )
        return out, weight
    if bias.shape[-1] % _ALIGNED:
        return _attend_by_arithmetic(query, keys, values, bias, scaling)
    return _attend_efficiently(query, keys, values, bias, scaling)


_ALIGNED = 8  # CUDA kernels take masks of which each row begins at a multiple of 16 bytes


def _attend_by_arithmetic(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, bias: torch.Tensor, scaling: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """For a GPU, and a mask that none of its kernels takes."""
    scores = (query.float() @ keys.float().transpose(2, 3)) * scaling + bias.float()
    weight = scores.logsumexp(-1)
    return (scores - weight[..., None]).exp() @ values.float(), weight


def _attend_efficiently(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, bias: torch.Tensor | None, scaling: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """By the kernel of every GPU that takes a mask (Rabe and Staats 2021)."""
    kernels: Any = torch.ops.aten
    if bias is not None:
        bias = bias.expand(1, query.shape[1], query.shape[2], -1)
    out, weight, *_ = kernels._scaled_dot_product_efficient_attention(
        query, keys, values, bias, True, scale=scaling
    )
    return out, weight[..., : query.shape[2]]  # it fills rows up


def _attend_to_older(query: torch.Tensor, older: Older, scaling: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention without a mask and its log-sum-exp, by the kernels behind `scaled_dot_product_attention`."""
    kernels: Any = torch.ops.aten
    keys, values, filled = older
    bias = None if filled is None else filled.bias
    if query.device.type == "cpu":  # as `kernels_of` says
        out, weight = kernels._scaled_dot_product_flash_attention_for_cpu(
            query, keys, values, attn_mask=bias, scale=scaling
        )
    elif not has_flash(query.device, query.dtype):
        out, weight = _attend_efficiently(query, keys, values, bias, scaling)
    elif filled is None:
        out, weight, *_ = kernels._scaled_dot_product_flash_attention(query, keys, values, scale=scaling)
        weight = weight[..., : query.shape[2]]
    else:  # a batch of one sequence, whose length the kernel reads where it runs
        rows, reach = query.shape[2], keys.shape[2]
        all_rows = torch.arange(0, rows + 1, rows, dtype=torch.int32, device=query.device)
        one, other, third = (tensor[0].transpose(0, 1) for tensor in (query, keys, values))
        out, weight, *_ = kernels._flash_attention_forward(
            one, other, third, all_rows, filled.bounds, rows, reach, 0.0, False, False, scale=scaling
        )
        out, weight = out.transpose(0, 1)[None], weight[None]
    return out, weight.float()
