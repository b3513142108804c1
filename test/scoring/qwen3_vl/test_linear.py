"""Layers with packed weights against the layers that they were made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from transformers.activations import ACT2FN

from topreward_ros.core.frames import NS_PER_S, Frame
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.defaults import monitor_defaults
from topreward_ros.scoring.base import ScorerSettings
from topreward_ros.scoring.qwen3_vl import linear
from topreward_ros.scoring.qwen3_vl.linear import Packer
from topreward_ros.scoring.registry import load_scorer

ACTIVATIONS = ["", "silu", "gelu", "gelu_pytorch_tanh", "relu"]
needs_onednn = pytest.mark.skipif(not linear._has_operations(), reason="PyTorch without oneDNN")


def made(layer: nn.Linear, name: str, any_length: bool = False) -> linear.Layer:
    return Packer(layer, any_length=any_length).linear(layer, ACT2FN[name] if name else None, name)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("tokens", [0, 1, 7, 300, 1208])
def test_it_is_the_layer_and_its_activation(rounding, bias, name, tokens):
    torch.manual_seed(0)
    layer = nn.Linear(96, 80, bias).requires_grad_(False)
    packed = made(layer, name, any_length=tokens > 256)
    weights = [weight.double() for weight in (layer.weight, layer.bias) if weight is not None]
    for hidden in (torch.randn(1, tokens, 96), torch.randn(tokens, 2, 96).transpose(0, 1)):
        expected = torch.nn.functional.linear(hidden.double(), *weights)
        size = torch.nn.functional.linear(hidden.double().abs(), *(weight.abs() for weight in weights))
        if name:
            expected = ACT2FN[name](expected)  # none of them is steeper than 1.13
        with torch.inference_mode():
            assert ((packed(hidden) - expected).abs() <= rounding(1.13 * size)).all()


def test_passes_of_any_length_are_multiplied_in_few_sizes():
    """oneDNN compiles kernels for each of them, and keeps them."""
    met: set[int] = set()

    def product(rows):
        met.add(rows.shape[:-1].numel())
        return rows * 2

    for tokens in range(8, 20_000, 8):
        hidden = torch.arange(tokens, dtype=torch.float32)[None, :, None]
        assert torch.equal(linear.in_blocks(hidden, product), hidden * 2)
    assert met == {*range(8, 257, 8), 512}


@needs_onednn
def test_the_language_model_multiplies_so(monkeypatch):
    met: list[int] = []
    real = linear.in_blocks
    monkeypatch.setattr(linear, "in_blocks", lambda rows, f: (met.append(rows.shape[-2]), real(rows, f))[1])
    scorer = load_scorer("embedded", ScorerSettings.from_parameters(monitor_defaults() | {"device": "cpu"}))
    frames = [Frame(k * NS_PER_S, np.full((64, 96, 3), k, np.uint8)) for k in range(24)]
    scorer.score(ScoreRequest.of_frames("open the drawer", frames))
    assert max(met) > 256
    scorer.close()


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


@pytest.mark.parametrize("bias", [False, True])
def test_layers_of_one_input_are_one_product_without_a_second_copy(bias):
    torch.manual_seed(0)
    layers = [nn.Linear(32, size, bias).requires_grad_(False) for size in (48, 16, 24)]
    hidden = torch.randn(1, 5, 32)
    expected = [layer(hidden) for layer in layers]
    weights = [layer.weight.clone() for layer in layers]
    joined = linear.joined_products(layers)
    for chosen in (slice(None), slice(1, 3), slice(0, 1)):
        for made, other in zip(joined(hidden, chosen), expected[chosen], strict=True):
            torch.testing.assert_close(made, other)
    for layer, weight, other in zip(layers, weights, expected, strict=True):  # of use to others as before
        assert torch.equal(layer.weight, weight)
        assert torch.equal(layer(hidden), other)
    storages = {layer.weight.untyped_storage().data_ptr() for layer in layers}
    assert len(storages) == 1 and layers[0].weight.untyped_storage().nbytes() == 4 * 32 * 88
    linear.joined_products(layers)  # another scorer on the same model
    assert {layer.weight.untyped_storage().data_ptr() for layer in layers} == storages


def test_weights_that_are_quantized_or_on_a_cpu_are_not_joined():
    layers = [nn.Linear(32, 32).requires_grad_(False) for _ in range(2)]
    assert type(Packer(nn.ModuleList(layers)).products(*layers)) is linear.Products
    for layer in layers:
        layer.to("meta")
    assert type(Packer(nn.ModuleList(layers)).products(*layers)) is linear.JoinedProducts
    layers[1].weight = type("Quantized", (nn.Parameter,), {})(layers[1].weight)
    assert type(Packer(nn.ModuleList(layers)).products(*layers)) is linear.Products
