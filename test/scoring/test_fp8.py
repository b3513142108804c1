"""Products of numbers in 8 bits against the same products in float32, and what they are made of."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from topreward_ros.scoring import fp8
from topreward_ros.scoring.fp8 import FP8, LARGEST, Fp8Linear, quantize_layers, quantize_rows
from topreward_ros.scoring.qwen3_vl.layer_functions import PLAIN
from topreward_ros.scoring.qwen3_vl.linear import Fp8Products, Packer, Products

EPS = 2.0**-4  # half a step of three bits behind the point, relative to the number
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_keep_their_numbers_to_three_bits(dtype):
    matrix = (torch.randn(2, 5, 64) * torch.logspace(-6, 6, 5)[:, None]).to(dtype)
    made, scales = quantize_rows(matrix)
    assert made.dtype == FP8 and made.shape == (10, 64) and scales.shape == (10, 1)
    rows = matrix.flatten(0, 1).float()
    wrong = (made.float() * scales - rows).abs()
    smallest = 2.0**-10 * scales  # half of the smallest number
    assert (wrong <= EPS * rows.abs() + smallest).all()
    assert (made.float().abs().amax(-1) == LARGEST).all(), "the whole range is used"


def test_rows_of_zeros_stay_so_and_what_is_no_number_shows():
    made, scales = quantize_rows(torch.tensor([[0.0] * 16, [1.0] * 15 + [float("nan")]]))
    assert (made[0].float() == 0).all() and scales[0].isfinite()
    assert (made[1].float() * scales[1]).isnan().any()
    layer = Fp8Linear(torch.ones(16, 16))
    assert layer(torch.full((1, 16), float("inf"), dtype=torch.bfloat16)).isnan().all()


@pytest.mark.parametrize("shape", [(3, 64), (1, 7, 64), (2, 3, 64)])
def test_a_layer_is_the_product_to_the_steps_of_its_numbers(shape):
    layer = nn.Linear(64, 48, bias=False)
    hidden = torch.randn(shape).bfloat16()
    made = Fp8Linear(layer.weight)(hidden)
    assert made.shape == (*shape[:-1], 48) and made.dtype == torch.bfloat16
    expected = hidden.float() @ layer.weight.T
    size = hidden.float().abs() @ layer.weight.abs().T
    assert ((made - expected).abs() <= (2.2 * EPS + 2**-8) * size).all()
    assert (made - expected).norm() < 0.06 * expected.norm()


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(32, outputs, bias=False) for outputs in (64, 16, 16))
        self.norm = nn.LayerNorm(32)
        self.inner = nn.ModuleList([nn.Linear(32, 32), nn.Linear(32, 24, bias=False)])


def test_layers_with_a_bias_or_of_other_sizes_stay():
    block = Block().bfloat16()
    quantize_layers(block, CPU)
    kinds = {name: type(module).__name__ for name, module in block.named_modules()}
    assert [name for name, kind in kinds.items() if kind == "Fp8Linear"] == ["q", "k", "v"]
    assert kinds["inner.0"] == kinds["inner.1"] == "Linear" and kinds["norm"] == "LayerNorm"


def test_layers_of_one_input_are_one_product_with_one_quantization():
    block = Block().bfloat16()
    quantize_layers(block, CPU)
    hidden = torch.randn(1, 5, 32).bfloat16()
    expected = [layer(hidden) for layer in (block.q, block.k, block.v)]
    products = Packer(block).products(block.q, block.k, block.v)
    assert isinstance(products, Fp8Products)
    quantized = []

    def counted(rows):
        quantized.append(rows)
        return quantize_rows(rows)

    functions = PLAIN._replace(quantize_rows=counted)
    for chosen in (slice(None), slice(1, 3), slice(0, 1)):
        made = products(hidden, chosen, functions)
        for one, other in zip(made, expected[chosen], strict=True):
            torch.testing.assert_close(one, other)
    assert len(quantized) == 3
    places = [layer.weight.untyped_storage().data_ptr() for layer in (block.q, block.k, block.v)]
    assert len(set(places)) == 1, "a second copy"


def test_layers_of_which_some_stay_are_products_of_their_own():
    block = Block().bfloat16()
    quantize_layers(block, CPU)
    products = Packer(block).products(block.q, block.inner[1])
    assert type(products) is Products
    hidden = torch.randn(1, 5, 32).bfloat16()
    for made, layer in zip(products(hidden), (block.q, block.inner[1]), strict=True):
        torch.testing.assert_close(made, layer(hidden))


def test_a_device_without_them_is_known_by_a_trial(monkeypatch):
    assert fp8.missing_for_fp8(CPU) == ""

    def raises(*_):
        raise RuntimeError(
            "torch._scaled_mm is only supported on CUDA devices with compute capability >= 9.0"
        )

    monkeypatch.setattr(fp8, "product", raises)
    assert "compute capability >= 9.0" in fp8.missing_for_fp8(CPU)
    monkeypatch.setattr(fp8, "product", lambda *_: torch.zeros(16, 16))
    assert "is wrong there" in fp8.missing_for_fp8(CPU)
