"""Split attention against PyTorch's own with one mask over everything."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from topreward_ros.scoring.attention import attend


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 40),
    st.integers(1, 20),
    st.sampled_from([(1, 1), (4, 2), (6, 2), (4, 4)]),
    st.integers(0, 99),
)
def test_it_is_attention_with_one_mask(length, tokens, heads, seed):
    torch.manual_seed(seed)
    query = torch.randn(1, heads[0], tokens, 16) * 3
    key, value = torch.randn(2, 1, heads[1], length + tokens, 16)
    mask = torch.ones(tokens, length + tokens, dtype=torch.bool).tril(length)
    mask[:, length:] &= (torch.rand(tokens, tokens) < 0.7) | torch.eye(tokens, dtype=torch.bool)
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=0.3, enable_gqa=True
    )
    bias = torch.zeros(tokens, tokens).masked_fill(~mask[:, length:], float("-inf"))
    made = attend(query, key, value, bias, 0.3)
    torch.testing.assert_close(made, expected, atol=2e-6, rtol=2e-5)
