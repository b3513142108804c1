"""What libraries keep of a process's memory.

oneDNN tells by its own log which kernels it had to compile, glibc how many pieces it took from the system.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest
import torch

from topreward_ros.scoring.checkpoint.kept_memory import KERNELS_KEPT, LARGE_BYTES

# Twice the same shapes, more of them than are kept: in the second round all of them are compiled again.
SHAPES = KERNELS_KEPT + 6
PROGRAM = f"""
import torch
from topreward_ros.scoring.checkpoint.kept_memory import bound_kept_memory
bound_kept_memory()
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


# A large piece that is freed lets glibc put the next ones of that size into its heap, unless that is bounded.
PIECES = f"""
import ctypes
from topreward_ros.scoring.checkpoint.kept_memory import bound_kept_memory
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
libc.mallinfo2.restype = type("mallinfo2", (ctypes.Structure,), {{
    "_fields_": [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd a b c d e".split()]
}})
bound_kept_memory()
libc.free(libc.malloc(16 << 20))
before = libc.mallinfo2().hblks
piece = libc.malloc({LARGE_BYTES} + 1)
print(libc.mallinfo2().hblks - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="this is no glibc that tells")
@pytest.mark.parametrize(("asked", "by_itself"), [("", 1), ("33554432", 0)])
def test_large_pieces_do_not_stay_in_the_heap_unless_the_user_says_so(asked: str, by_itself: int) -> None:
    environment = {
        **{name: value for name, value in os.environ.items() if "MALLOC" not in name},
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        **({"MALLOC_MMAP_THRESHOLD_": asked} if asked else {}),
    }
    environment.pop("GLIBC_TUNABLES", None)
    said = subprocess.run(
        [sys.executable, "-c", PIECES], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert int(said) == by_itself
