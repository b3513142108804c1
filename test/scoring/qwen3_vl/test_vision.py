"""The vision pass against the model's own."""

from __future__ import annotations

import pytest
import torch

from topreward_ros.scoring.qwen3_vl.vision import VisionModel


@pytest.mark.parametrize(("rows", "columns"), [(2, 2), (4, 6), (16, 16), (20, 34)])
@pytest.mark.parametrize("count", [1, 3])
def test_it_sees_what_the_model_sees(loaded, rows, columns, count):
    """For grids smaller than, as large as, and larger than the 16 x 16 that positions were learned for."""
    visual = loaded._model.model.visual
    pixels = torch.randn(count, rows * columns, 3 * 2 * 16 * 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        made = VisionModel(visual)(pixels, rows, columns)
        expected = visual(pixels.flatten(0, 1), grid_thw=torch.tensor([[1, rows, columns]] * count))
    assert len(made.deepstack) == len(expected.deepstack_features) == 3
    for one, other in zip(
        [made.embeddings, *made.deepstack],
        [expected.pooler_output, *expected.deepstack_features],
        strict=True,
    ):
        assert one.shape == (count, rows * columns // 4, 128)
        # One layer after another rounds: up to 17 eps of the largest value were seen in 300 draws.
        allowed = 64 * torch.finfo(torch.float32).eps * other.abs().max()
        assert (one.flatten(0, 1) - other).abs().max() <= allowed
        assert one.std() > 0.01
