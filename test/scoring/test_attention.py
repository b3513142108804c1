"""Split attention against PyTorch's own with one mask over everything."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from topreward_ros.scoring import attention
from topreward_ros.scoring.attention import SPLIT, attention_for, split_attention

TASK = "put the cup into the drawer"


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
    made, _ = split_attention(torch.nn.Module(), query, key, value, mask[None, None], 0.3)
    torch.testing.assert_close(made.transpose(1, 2), expected, atol=2e-6, rtol=2e-5)


def test_a_scorer_with_it_says_the_same(new_scorer, make_video, monkeypatch):
    video = make_video(9, 32, 32)
    expected = [new_scorer(prompts="ten_prompts.txt").score(TASK, video[:n]) for n in (1, 4, 9)]
    scorer = new_scorer(prompts="ten_prompts.txt")
    language = scorer._model.model.language_model
    before = language.config._attn_implementation
    calls, real = [], attention._attend_to_all
    monkeypatch.setattr(attention, "_attend_to_all", lambda *given: calls.append(1) or real(*given))
    try:
        language.config._attn_implementation = SPLIT
        for n, other in zip((1, 4, 9), expected, strict=True):
            score = scorer.score(TASK, video[:n])
            assert score.log_prob == pytest.approx(other.log_prob, abs=1e-4)
            assert score.log_prob_static == pytest.approx(other.log_prob_static, abs=1e-4)
    finally:
        language.config._attn_implementation = before
    assert len(calls) == 2 * 4, (
        "video and baseline, four layers: only nine frames have two patches kept before"
    )


def test_a_cpu_keeps_pytorchs_own():
    assert attention_for(torch.device("cpu")) == "sdpa"
    assert attention_for(torch.device("cuda")) == SPLIT
