"""Linear layers in floating point of 8 bits, for GPUs that multiply such numbers (Ada, Hopper and newer).

Weights and what they are multiplied by are rounded to float8_e4m3fn, row by row with a scale each, as "FP8
Formats for Deep Learning" (Micikevicius et al. 2022) has them; sums are wider. That halves the time of a
product and the memory of a weight, and costs accuracy (bench/precision.py says how much).
"""

from __future__ import annotations

import torch
from torch import nn

from topreward_ros.scoring.base import in_a_line

FP8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FP8).max
_SMALLEST_SCALE = 1e-12  # for rows of zeros
_UNIT = 16  # of rows and columns, that the kernels need


def missing_for_fp8(device: torch.device) -> str:
    """Why products of such numbers cannot be had on ``device``, in words; '' where they can."""
    try:
        ones = torch.ones(_UNIT, _UNIT, device=device, dtype=torch.bfloat16)
        made = product(*quantize_rows(ones), *quantize_rows(ones))
    except Exception as error:  # of an old GPU or driver, or a PyTorch without them
        return in_a_line(error)
    right = torch.full_like(made, _UNIT)
    return "" if torch.equal(made, right) else "a product of ones is wrong there"


def quantize_rows(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(..., size) as (rows, size) float8 and the scales of its rows, (rows, 1) float32."""
    rows = matrix.flatten(0, -2)
    scales = (rows.abs().amax(-1, keepdim=True).float() / LARGEST).clamp(min=_SMALLEST_SCALE)
    return (rows.float() / scales).clamp(-LARGEST, LARGEST).to(FP8), scales


def product(
    rows: torch.Tensor, row_scales: torch.Tensor, weight: torch.Tensor, weight_scales: torch.Tensor
) -> torch.Tensor:
    """``rows`` (rows, inputs) times ``weight`` (outputs, inputs), both of `quantize_rows`: (rows, outputs)
    bfloat16."""
    return torch._scaled_mm(
        *(rows, weight.t(), row_scales, weight_scales.t()), out_dtype=torch.bfloat16, use_fast_accum=True
    )


class Fp8Linear(nn.Module):
    """A linear layer without bias: weights of `quantize_rows`, which inputs go through with each call."""

    def __init__(self, weight: torch.Tensor) -> None:
        """``weight`` (outputs, inputs) in any floating point type."""
        super().__init__()
        made, scales = quantize_rows(weight.detach())
        self.weight = nn.Parameter(made, requires_grad=False)
        self.scales = nn.Parameter(scales, requires_grad=False)
        self.out_features, self.in_features = weight.shape

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(..., inputs) bfloat16 to (..., outputs)."""
        made = product(*quantize_rows(hidden), self.weight, self.scales)
        return torch.unflatten(made, 0, hidden.shape[:-1])


def quantize_layers(model: nn.Module, device: torch.device) -> None:
    """Replace the linear layers of ``model`` by `Fp8Linear`, one after the other, on ``device``.

    Those with a bias, or of sizes that the kernels do not take, stay as they are.
    """
    for module in list(model.modules()):
        for name, layer in module.named_children():
            if isinstance(layer, nn.Linear) and _fits(layer):
                setattr(module, name, Fp8Linear(layer.weight.to(device)))


def _fits(layer: nn.Linear) -> bool:
    is_biased = dict(layer.named_parameters()).get("bias") is not None
    return not (is_biased or layer.in_features % _UNIT or layer.out_features % _UNIT)
