"""Attention of a few new tokens to a long video that all of them see, and to one another by a mask.

A mask as wide as the video bars CUDA's fastest kernels and makes it copy keys and values for grouped queries;
on a CPU it has to be read as well. So the video is attended to without a mask, what is new with a small one,
and the two are merged by their log-sum-exps, exactly (Dao 2023, FlashAttention-2, section 3.1).
"""

from __future__ import annotations

from typing import Any

import torch


def kernels_of(device: torch.device, dtype: torch.dtype) -> str:
    """By which kernels the video is attended to, in words."""
    if device.type == "cpu":
        return "flash attention for CPUs"
    return "flash attention" if _has_flash(device, dtype) else "memory-efficient attention"


def _has_flash(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a GPU has tensor cores that the flash kernels are written for: from Ampere on."""
    return dtype is not torch.float32 and torch.cuda.get_device_capability(device) >= (8, 0)


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor, scaling: float
) -> torch.Tensor:
    """Of new tokens that see all that is older.

    ``query`` (1, heads, asking tokens, size); ``key``, ``value`` (1, key heads, length + tokens, size);
    ``bias`` (asking tokens, tokens), of the same type: 0 where a token sees one of the new ones, as it sees
    itself, and -inf elsewhere. Returns (1, heads, asking tokens, size).
    """
    heads, asking, size = query.shape[1:]
    key_heads, length = key.shape[1], key.shape[2] - bias.shape[1]
    groups = heads // key_heads
    # Queries of the heads that share keys, one below the other: no kernel needs to know of groups.
    rows = query.reshape(1, key_heads, groups * asking, size)
    bias = bias.repeat(groups, 1)[None, None]
    out, weight = _attend_by_mask(rows, key[:, :, length:], value[:, :, length:], bias, scaling)
    if length:
        older, older_weight = _attend_to_all(rows, key[:, :, :length], value[:, :, :length], scaling)
        share = torch.sigmoid(older_weight - weight)[..., None]
        out = torch.lerp(out.float(), older.float(), share)
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
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor, scaling: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention and log-sum-exp of its scores, float32; ``key`` is short."""
    if query.device.type == "cpu":
        kernel: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        out, weight = kernel(query, key, value, attn_mask=bias, scale=scaling)
        return out, weight
    return _attend_by_arithmetic(query, key, value, bias, scaling)


def _attend_by_arithmetic(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor, scaling: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """For a GPU, of which no kernel gives the log-sum-exp with such a mask."""
    scores = (query.float() @ key.float().transpose(2, 3)) * scaling + bias.float()
    weight = scores.logsumexp(-1)
    return (scores - weight[..., None]).exp() @ value.float(), weight


def _attend_to_all(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same without a mask, by the kernels that are behind `scaled_dot_product_attention`."""
    kernels: Any = torch.ops.aten
    if query.device.type == "cpu":  # as `kernels_of` says
        out, weight = kernels._scaled_dot_product_flash_attention_for_cpu(query, key, value, scale=scaling)
    elif not _has_flash(query.device, query.dtype):
        out, weight, *_ = kernels._scaled_dot_product_efficient_attention(
            query, key, value, None, True, scale=scaling
        )
    else:
        out, weight, *_ = kernels._scaled_dot_product_flash_attention(query, key, value, scale=scaling)
    return out, weight[..., : query.shape[2]].float()  # some kernels fill rows up
