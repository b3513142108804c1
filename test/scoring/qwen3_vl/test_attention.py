"""Split attention against PyTorch's own with one mask over everything, in float64.

What may differ: a score is a sum of products, and rounding moves it by some eps of S, the sum of their
absolute values. A weight of the softmax moves by as much, relative to itself, and so does the mean of the
values, relative to the largest of them. See `rounding` in conftest.py.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from test.sequences import sequence_by_sequence
from topreward_ros.scoring.qwen3_vl import attention
from topreward_ros.scoring.qwen3_vl.attention import Context, ValidLength, attend, kernels_of
from topreward_ros.scoring.qwen3_vl.layer_functions import PLAIN, merge

SCALING = 0.3
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def inputs(length: int, tokens: int, heads: tuple[int, int], size: int = 16) -> tuple[torch.Tensor, ...]:
    """Query, key, value, and which new token sees which."""
    query = torch.randn(1, heads[0], tokens, size) * 3
    key, value = torch.randn(2, 1, heads[1], length + tokens, size)
    sees = torch.ones(tokens, tokens).tril().bool()
    sees &= (torch.rand(tokens, tokens) < 0.7) | torch.eye(tokens, dtype=torch.bool)
    return query, key, value, sees


def with_one_mask(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, sees: torch.Tensor):
    context = torch.ones(len(sees), key.shape[2] - len(sees), dtype=torch.bool)
    return torch.nn.functional.scaled_dot_product_attention(
        *(tensor.double() for tensor in (query, key, value)),
        attn_mask=torch.cat([context, sees], dim=1),
        scale=SCALING,
        enable_gqa=True,
    )


def score_size(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """1 + S of the module's docstring, of the key where it is largest: (1, heads, tokens)."""
    key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    return 1 + (query.double().abs() @ key.double().abs().transpose(2, 3) * SCALING).amax(-1)


def bias_of(sees: torch.Tensor) -> torch.Tensor:
    return torch.zeros(sees.shape).masked_fill(~sees, float("-inf"))


def split_attention(query, key, value, sees, more: int = 0):
    """``more`` than nothing: as many tokens lie behind the context ones that are not there."""
    tokens, length = len(sees), key.shape[2] - len(sees)
    context, valid = (key[:, :, :length], value[:, :, :length]), None
    if more:
        rest = torch.full((*key.shape[:2], more, key.shape[3]), 1e4, dtype=key.dtype, device=key.device)
        context = tuple(torch.cat([each, rest], dim=2) for each in context)
        valid = ValidLength(torch.tensor([length], device=key.device), length + more, key.dtype)
    bias = torch.zeros(sees.shape).masked_fill(~sees, float("-inf")).to(key.device, key.dtype)
    bias = bias.repeat(query.shape[1] // key.shape[1], 1)
    new = (key[:, :, -tokens:], value[:, :, -tokens:])
    return attend(query, *new, bias, Context(*context, valid), SCALING).transpose(1, 2)


@pytest.mark.parametrize("by_matmul", [False, True])
@settings(max_examples=settings().max_examples // 3)
@given(
    st.integers(0, 40),
    st.integers(1, 20),
    st.sampled_from([(1, 1), (4, 2), (6, 2), (4, 4)]),
    st.sampled_from([0, 0, 1, 30]),
    st.integers(0, 99),
)
def test_it_is_attention_with_one_mask(rounding, by_matmul, length, tokens, heads, more, seed):
    """With the kernel of a CPU, and with what a GPU does in its place."""
    torch.manual_seed(seed)
    query, key, value, sees = inputs(length, tokens, heads)
    with pytest.MonkeyPatch.context() as patch:
        if by_matmul:
            patch.setattr(attention, "_attend_by_mask", attention._attend_by_matmul)
        made = split_attention(query, key, value, sees, more if length else 0)
    wrong = (made - with_one_mask(query, key, value, sees)).abs()
    assert (wrong <= rounding(score_size(query, key)[..., None] * value.abs().max())).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("length", [0, 1, 33, 1000])
@pytest.mark.parametrize("tokens", [45, 48])  # a GPU has kernels for masks of some widths only
@pytest.mark.parametrize("more", [0, 24])
def test_every_device_and_type_of_number(rounding, device, dtype, length, tokens, more):
    torch.manual_seed(0)
    *given, sees = inputs(length, tokens, (8, 2), size=128)
    query, key, value = (tensor.to(device, dtype) for tensor in given)
    made = split_attention(query, key, value, sees, more if length else 0)
    assert made.dtype == dtype
    query, key, value = (tensor.to(dtype) for tensor in given)
    largest = value.abs().max().double()
    allowed = rounding(score_size(query, key)[..., None] * largest)  # scores are float32 whatever is given
    if dtype is not torch.float32:  # half an eps each: of the weights, of the two parts, of what they make
        allowed = allowed + 1.5 * torch.finfo(dtype).eps * largest
    assert ((made.cpu() - with_one_mask(query, key, value, sees)).abs() <= allowed).all()
    assert "attention" in kernels_of(torch.device(device), dtype)


@pytest.mark.parametrize("flash", [False, True])
@pytest.mark.parametrize("tokens", [45, 48])
@pytest.mark.parametrize("more", [0, 24])
def test_what_is_asked_of_a_gpu_fits_its_kernels(monkeypatch, flash, tokens, more):
    """By their signatures and shapes, which PyTorch knows without a GPU; no numbers come of it."""
    monkeypatch.setattr(attention, "has_flash", lambda device, dtype: flash)
    *given, sees = inputs(100, tokens, (8, 2), size=128)
    query, key, value = (tensor.to("meta", torch.bfloat16) for tensor in given)
    made = split_attention(query, key, value, sees, more)
    assert made.is_meta and made.shape == query.shape and made.dtype == torch.bfloat16


def test_no_part_of_what_is_older_is_empty():
    """However few tokens are valid; the valid ones lie in the parts that count, and only they."""
    for tokens in range(1, 41):
        for splits in range(1, min(tokens, attention.MAX_SPLITS) + 1):
            for length in range(1, tokens + 1):
                valid = ValidLength(torch.tensor([length]), tokens, torch.float32)
                bounds, holds = valid.bounds(splits).tolist(), valid.holds(splits).tolist()
                spans = list(pairwise(bounds))
                assert all(begin < end <= tokens for begin, end in spans)
                read = [k for span, counts in zip(spans, holds, strict=True) if counts for k in range(*span)]
                assert read == list(range(length))
    with pytest.raises(ValueError, match="3 parts of 2 tokens"):
        valid = ValidLength(torch.tensor([1]), 2, torch.float32)
        valid.bounds(3)


@settings(max_examples=2 * settings().max_examples // 5)
@given(st.integers(1, 90), st.integers(0, 20), st.integers(1, 300), st.sampled_from([1, 8]))
def test_what_is_older_may_be_attended_to_in_parts(rounding, length, more, rows, heads):
    """As many as keep a GPU busy; of a length that stands on the device."""
    torch.manual_seed(length)
    query = torch.randn(1, heads, rows, 16) * 3
    keys, values = torch.randn(2, 1, heads, length + more, 16)
    keys[:, :, length:], values[:, :, length:] = 1e4, 1e4
    valid = ValidLength(torch.tensor([length]), length + more, torch.float32)
    functions = PLAIN._replace(by_sequences=sequence_by_sequence)
    out, part_weights, counts = attention.attend_in_splits(query, keys, values, valid, SCALING, functions)
    # Merged with nothing else, which has no weight.
    nothing = (torch.zeros_like(out[:1]), torch.full_like(part_weights[:1], float("-inf")))
    made = merge(*nothing, out, part_weights, counts, 1, torch.float32).transpose(1, 2)
    counted = part_weights if counts is None else part_weights[counts]
    weight = counted.logsumexp(0, keepdim=True)
    key, value = (each[:, :, :length].double() for each in (keys, values))
    scores = query.double() @ key.transpose(2, 3) * SCALING
    size = score_size(query, key)
    assert ((weight - scores.logsumexp(-1)).abs() <= rounding(size)).all()
    wrong = (made - scores.softmax(-1) @ value).abs()
    assert (wrong <= rounding(size[..., None] * value.abs().max())).all()
