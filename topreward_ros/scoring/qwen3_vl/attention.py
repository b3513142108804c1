"""Attention of a few new tokens to a long video that all of them see, and to one another by a mask.

A mask as wide as the video bars CUDA's fastest kernels and makes it copy keys and values for grouped queries;
on a CPU it has to be read as well. So the video is attended to without a mask, what is new with a small one,
and the two are merged by their log-sum-exps, exactly (Dao 2023, FlashAttention-2, section 3.1).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

_ALIGNED = 8  # CUDA kernels take masks of which rows lie a multiple of so many numbers apart
MOST_PARTS = 16  #: in which what is older is attended to by a recording; none may be empty
_ROWS_PER_BLOCK = 128  # of queries that flash attention gives to one multiprocessor
_ENOUGH_BLOCKS = 512  # to keep all multiprocessors of a large GPU busy, some times over


class Filled:
    """How many of some tokens are there, kept on the device: recorded work reads it anew every time."""

    def __init__(self, number: torch.Tensor, tokens: int, dtype: torch.dtype) -> None:
        """The first ``number`` (1,) of ``tokens``, at least `MOST_PARTS`; ``dtype``: of the keys."""
        there = torch.arange(tokens, device=number.device) < number
        bias = torch.zeros(tokens, dtype=dtype, device=number.device).masked_fill_(~there, float("-inf"))
        self.bias = bias.view(1, 1, 1, -1)  #: 0 for those that are there, -inf for the others
        self._number = number
        self._bounds: dict[int, torch.Tensor] = {}

    def bounds(self, parts: int) -> torch.Tensor:
        """(parts + 1,) int32: where each of ``parts`` equal parts of those that are there begins and ends."""
        if parts not in self._bounds:  # once, not in every layer
            steps = torch.arange(parts + 1, device=self._number.device)
            self._bounds[parts] = torch.div(steps * self._number, parts, rounding_mode="floor").int()
        return self._bounds[parts]


class Older(NamedTuple):
    """What every new token sees: ``keys`` and ``values``, (1, key heads, tokens, size)."""

    keys: torch.Tensor
    values: torch.Tensor
    filled: Filled | None = None  #: None: all tokens are there


def mask_width(tokens: int, device: torch.device) -> int:
    """How many numbers a row of a mask over ``tokens`` is to take, so that the fast kernels can read it."""
    return tokens if device.type == "cpu" else rounded_up(tokens, _ALIGNED)


def rounded_up(number: int, step: int) -> int:
    """The next multiple of ``step``.

    >>> [rounded_up(number, 16) for number in (0, 1, 16, 17)]
    [0, 16, 16, 32]
    """
    return -(-number // step) * step


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
    if bias.stride(-2) % _ALIGNED:
        return _attend_by_arithmetic(query, keys, values, bias, scaling)
    return _attend_efficiently(query, keys, values, bias, scaling)


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
        weight = weight[..., : query.shape[2]]  # some versions fill rows up
    else:
        return _attend_in_parts(query, keys, values, filled, scaling)
    return out, weight.float()


def _attend_in_parts(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, filled: Filled, scaling: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """By the flash kernel for sequences whose lengths it reads where it runs.

    It gives each sequence to few multiprocessors, however long it is. So what is older is cut into as many
    sequences as keep the GPU busy, and their outcomes are merged (flash decoding, Dao et al. 2023).
    """
    heads, rows, size = query.shape[1:]
    blocks = heads * rounded_up(rows, _ROWS_PER_BLOCK) // _ROWS_PER_BLOCK
    parts = max(1, min(MOST_PARTS, _ENOUGH_BLOCKS // blocks))
    queries = query[0].transpose(0, 1).repeat(parts, 1, 1)
    starts = torch.arange(0, parts * rows + 1, rows, dtype=torch.int32, device=query.device)
    memory = (keys[0].transpose(0, 1), values[0].transpose(0, 1))
    out, weight = _flash_by_sequences(queries, *memory, starts, filled.bounds(parts), rows, scaling)
    out = out.reshape(parts, rows, heads, size).transpose(1, 2)
    weight = weight.reshape(heads, parts, rows).transpose(0, 1)  # float32
    if parts == 1:
        return out, weight
    share = torch.softmax(weight, dim=0)[..., None]
    return (out * share).sum(0, keepdim=True), weight.logsumexp(0, keepdim=True)


def _flash_by_sequences(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    query_bounds: torch.Tensor,
    key_bounds: torch.Tensor,
    rows: int,
    scaling: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of (tokens, heads, size) each; sequences lie one behind the other. Returns it, and (heads, tokens)."""
    kernels: Any = torch.ops.aten
    out, weight, *_ = kernels._flash_attention_forward(
        *(query, keys, values, query_bounds, key_bounds, rows, len(keys), 0.0, False, False), scale=scaling
    )
    return out, weight
