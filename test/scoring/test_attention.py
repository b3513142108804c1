"""Split attention against PyTorch's own with one mask over everything."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from topreward_ros.scoring import attention
from topreward_ros.scoring.attention import attend, kernels_of

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def inputs(length: int, tokens: int, heads: tuple[int, int], size: int = 16) -> tuple[torch.Tensor, ...]:
    """Query, key, value, and which new token sees which."""
    query = torch.randn(1, heads[0], tokens, size) * 3
    key, value = torch.randn(2, 1, heads[1], length + tokens, size)
    sees = torch.ones(tokens, tokens).tril().bool()
    sees &= (torch.rand(tokens, tokens) < 0.7) | torch.eye(tokens, dtype=torch.bool)
    return query, key, value, sees


def with_one_mask(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, sees: torch.Tensor):
    older = torch.ones(len(sees), key.shape[2] - len(sees), dtype=torch.bool)
    return torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=torch.cat([older, sees], dim=1), scale=0.3, enable_gqa=True
    )


def bias_of(sees: torch.Tensor) -> torch.Tensor:
    return torch.zeros(sees.shape).masked_fill(~sees, float("-inf"))


@pytest.mark.parametrize("by_arithmetic", [False, True])
@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 40),
    st.integers(1, 20),
    st.sampled_from([(1, 1), (4, 2), (6, 2), (4, 4)]),
    st.integers(0, 99),
)
def test_it_is_attention_with_one_mask(by_arithmetic, length, tokens, heads, seed):
    """With the kernel of a CPU, and with what a GPU does in its place."""
    torch.manual_seed(seed)
    given = inputs(length, tokens, heads)
    with pytest.MonkeyPatch.context() as patch:
        if by_arithmetic:
            patch.setattr(attention, "_attend_by_mask", attention._attend_by_arithmetic)
        made = attend(*given[:3], bias_of(given[3]), 0.3)
    torch.testing.assert_close(made, with_one_mask(*given), atol=2e-6, rtol=2e-5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("dtype", "near"), [(torch.float32, 1e-4), (torch.float16, 5e-3), (torch.bfloat16, 4e-2)]
)
@pytest.mark.parametrize("length", [0, 1, 33, 1000])
def test_every_device_and_type_of_number(device, dtype, near, length):
    torch.manual_seed(0)
    given = inputs(length, 45, (8, 2), size=128)
    query, key, value = (tensor.to(device, dtype) for tensor in given[:3])
    made = attend(query, key, value, bias_of(given[3]).to(device, dtype), 0.3)
    assert made.dtype == dtype
    exact = with_one_mask(*(tensor.to(dtype).float() for tensor in given[:3]), given[3])
    torch.testing.assert_close(made.float().cpu(), exact, atol=near, rtol=near)
    assert "attention" in kernels_of(torch.device(device), dtype)
