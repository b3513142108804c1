"""How many compiled kernels oneDNN keeps, told by its own log of what it had to compile."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from topreward_ros.scoring.checkpoint.load import KERNELS_KEPT

# Twice the same shapes, more of them than are kept: in the second round all of them are compiled again.
SHAPES = KERNELS_KEPT + 6
PROGRAM = f"""
import torch
from topreward_ros.scoring.checkpoint.load import bound_kernels
bound_kernels()
kernels = torch.ops.mkldnn
weight = kernels._reorder_linear_weight(torch.ones(16, 16))
for rows in 2 * list(range(1, {SHAPES + 1})):
    kernels._linear_pointwise(torch.ones(rows, 16), weight, None, "none", [], "")
"""


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch was built without oneDNN")
@pytest.mark.parametrize(("asked", "compiled"), [("", 2 * SHAPES), ("1000", SHAPES)])
def test_few_kernels_are_kept_unless_the_user_says_how_many(asked: str, compiled: int) -> None:
    environment = {
        **{name: value for name, value in os.environ.items() if "PRIMITIVE_CACHE" not in name},
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "ONEDNN_VERBOSE": "profile_create",
        **({"DNNL_PRIMITIVE_CACHE_CAPACITY": asked} if asked else {}),
    }
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
    ).stdout
    products = [line for line in said.splitlines() if "create:cache_miss" in line and "inner_product" in line]
    assert len(products) == compiled, said[-2000:]
