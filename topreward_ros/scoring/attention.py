"""Attention of a few new tokens to a long video that all of them see, and to one another by a mask.

A mask as wide as the video bars CUDA's fastest kernels and makes it copy keys and values for grouped queries.
So the video is attended to without a mask, what is new with a small one, and the two are merged by their
log-sum-exps, exactly (Dao 2023, FlashAttention-2, section 3.1).
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

SPLIT = "topreward_split"  #: its name in transformers, as `sdpa` is the name of PyTorch's own


def attention_for(device: torch.device) -> str:
    """Which attention the language model is to use."""
    return SPLIT if device.type == "cuda" else "sdpa"


def split_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """In the place of one of transformers' attention functions; for new tokens that see all that is older.

    ``query`` (1, heads, tokens, size); ``key``, ``value`` (1, key heads, length + tokens, size);
    ``attention_mask`` (1, 1, tokens, length + tokens) bool, all True in its first ``length`` columns. Returns
    (1, tokens, heads, size).
    """
    heads, tokens, size = query.shape[1:]
    key_heads, length = key.shape[1], key.shape[2] - tokens
    groups = heads // key_heads
    # Queries of the heads that share keys, one below the other: no kernel needs to know of groups.
    rows = query.reshape(1, key_heads, groups * tokens, size)
    sees = attention_mask[..., length:].repeat(1, 1, groups, 1)
    out, weight = _attend_by_mask(rows, key[:, :, length:], value[:, :, length:], sees, scaling)
    if length:
        older, older_weight = _attend_to_all(rows, key[:, :, :length], value[:, :, :length], scaling)
        share = torch.sigmoid(older_weight - weight)[..., None]
        out = older.float() * share + out * (1 - share)
    out = out.to(query.dtype).reshape(1, heads, tokens, size)
    return out.transpose(1, 2).contiguous(), None


def _attend_by_mask(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, sees: torch.Tensor, scaling: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention and log-sum-exp of its scores, float32, by arithmetic: ``key`` is short."""
    scores = (query.float() @ key.float().transpose(2, 3)) * scaling
    scores = scores.masked_fill(~sees, float("-inf"))
    weight = scores.logsumexp(-1)
    return (scores - weight[..., None]).exp() @ value.float(), weight


def _attend_to_all(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same without a mask, by the kernels that are behind `scaled_dot_product_attention`."""
    kernels: Any = torch.ops.aten
    if query.device.type == "cpu":
        out, weight = kernels._scaled_dot_product_flash_attention_for_cpu(query, key, value, scale=scaling)
    elif query.dtype is torch.float32:
        out, weight, *_ = kernels._scaled_dot_product_efficient_attention(
            query, key, value, None, True, scale=scaling
        )
    else:
        out, weight, *_ = kernels._scaled_dot_product_flash_attention(query, key, value, scale=scaling)
    return out, weight[..., : query.shape[2]].float()  # some kernels fill rows up


ALL_ATTENTION_FUNCTIONS.register(SPLIT, split_attention)
