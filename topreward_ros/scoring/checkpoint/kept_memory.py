"""What libraries keep of this process's memory once it is free: bounds, without which it grows for hours.

Passes have many lengths, as the times of frames stand in the prompt (bench/memory.py). Each length has
kernels and pieces of memory of its own.
"""

from __future__ import annotations

import ctypes
import os

#: oneDNN compiles kernels for every shape that it multiplies, a quarter of a MiB each, and keeps 1024. The
#: embedded model has fewer than 180 shapes (qwen3_vl/linear.py keeps them few), so that none is dropped and
#: compiled again: what is freed and taken again leaves holes. With more shapes the oldest are dropped.
KERNELS_KEPT = 192
_KERNELS_VARIABLES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "DNNL_PRIMITIVE_CACHE_CAPACITY")

#: glibc takes pieces from here on from the system, each by itself, and gives them back. By default that limit
#: follows the largest piece that was freed, up to 32 MiB; images, keys and values then lie in the heap, and
#: small pieces that stay lie between them.
LARGE_BYTES = 512 << 10
_FREE_AT_THE_END_BYTES = 1 << 20  # of the heap, from which on glibc gives it back
_HEAP_VARIABLES = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def bound_kept_memory() -> None:
    """Bound what oneDNN and glibc keep in this process, each unless the user's environment says how much.

    To be called before the first pass: oneDNN looks when it compiles its first kernel, and PyTorch has no
    call for that, so the environment says it.
    """
    if not any(name in os.environ for name in _KERNELS_VARIABLES):
        os.environ[_KERNELS_VARIABLES[0]] = str(KERNELS_KEPT)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # of glibc; other libraries have none
    if mallopt is not None and not any(os.environ.get(name) for name in _HEAP_VARIABLES):
        mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _FREE_AT_THE_END_BYTES)
