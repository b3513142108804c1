"""Layers with packed weights against the layers that they were made of."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.activations import ACT2FN

from topreward_ros.scoring.qwen3_vl import linear
from topreward_ros.scoring.qwen3_vl.linear import Packer

ACTIVATIONS = ["", "silu", "gelu", "gelu_pytorch_tanh", "relu"]
needs_onednn = pytest.mark.skipif(not linear._has_operations(), reason="PyTorch without oneDNN")


def made(layer: nn.Linear, name: str) -> linear.Layer:
    return Packer(layer).linear(layer, ACT2FN[name] if name else None, name)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("tokens", [0, 1, 7, 300])
def test_it_is_the_layer_and_its_activation(rounding, bias, name, tokens):
    torch.manual_seed(0)
    layer = nn.Linear(96, 80, bias).requires_grad_(False)
    packed = made(layer, name)
    weights = [weight.double() for weight in (layer.weight, layer.bias) if weight is not None]
    for hidden in (torch.randn(1, tokens, 96), torch.randn(tokens, 2, 96).transpose(0, 1)):
        expected = torch.nn.functional.linear(hidden.double(), *weights)
        size = torch.nn.functional.linear(hidden.double().abs(), *(weight.abs() for weight in weights))
        if name:
            expected = ACT2FN[name](expected)  # none of them is steeper than 1.13
        with torch.inference_mode():
            assert ((packed(hidden) - expected).abs() <= rounding(1.13 * size)).all()


@needs_onednn
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_packed_layer_keeps_the_weights_it_was_made_of(name):
    layer = nn.Linear(32, 32).requires_grad_(False)
    packed = made(layer, name)
    before = packed(torch.ones(1, 32))
    layer.weight.zero_()
    assert torch.equal(packed(torch.ones(1, 32)), before)


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer.to(torch.bfloat16),
        lambda layer: layer.to("meta"),
        lambda layer: setattr(layer, "weight", type("Quantized", (nn.Parameter,), {})(layer.weight)),
    ],
    ids=["bfloat16", "another device", "quantized"],
)
def test_what_is_not_float32_on_a_cpu_runs_as_it_is(change):
    layer = nn.Linear(32, 32).requires_grad_(False)
    change(layer)
    assert made(layer, "") is layer


@needs_onednn
def test_a_model_that_takes_most_of_the_memory_is_not_packed(monkeypatch):
    layer = nn.Linear(100, 100).requires_grad_(False)
    size = 4 * (100 * 100 + 100)
    for free, packs in ((4 * size, True), (4 * size - 1, False)):
        monkeypatch.setattr(linear, "free_memory", lambda _, free=free: free)
        assert (made(layer, "") is not layer) == packs
