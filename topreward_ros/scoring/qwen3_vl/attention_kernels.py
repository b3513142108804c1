"""Which kernel attends to the cached tokens in a CUDA graph: the fastest that is right, found by a trial.

PyTorch's own flash attention is of the generation of Ampere. A newer GPU has better ones: cuDNN's, which
PyTorch brings, and FlashAttention-3 and -4 (Shah et al. 2024) where they are installed and PyTorch knows how
to call them. All take sequences of variable length whose bounds are read on the device. None of them has to
be there or to be right: whatever raises, or gives other numbers, is left out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from topreward_ros.scoring.base import in_a_line
from topreward_ros.scoring.qwen3_vl.attention import ValidLength, attend_in_splits
from topreward_ros.scoring.qwen3_vl.layer_functions import PLAIN, Tensors, flash_by_sequences, merge

_log = logging.getLogger(__name__)

_NEAR = 0.02  # of the size of the result: a few eps of half precision
_STALE = 1e4  # the size of what lies behind the valid tokens in the trial: whoever reads it shows
# [tokens] To be right: few, one among them. For the time: a frame and a question behind a long video.
_RIGHT_QUERIES, _RIGHT_CACHED, _RIGHT_LENGTHS = 48, 768, (1, 700)
_TIMED_QUERIES, _TIMED_CACHED = 352, 8192
_RUNS, _WARM_UP = 10, 3


class Kernel(NamedTuple):
    """A kernel for attention of sequences of variable length."""

    name: str
    by_sequences: Callable[..., Tensors] = flash_by_sequences  #: see `layer_functions.flash_by_sequences`
    implementation: str = ""  #: of flash attention in this process, as PyTorch calls it; empty: PyTorch's own


class Heads(NamedTuple):
    """The attention of a model, and where it runs."""

    key_heads: int
    groups: int  #: heads that share keys
    size: int  #: of a head
    device: torch.device
    dtype: torch.dtype


def cudnn_by_sequences(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    query_bounds: torch.Tensor,
    key_bounds: torch.Tensor,
    queries: int,
    scaling: float,
) -> Tensors:
    """As `layer_functions.flash_by_sequences`, by cuDNN."""
    kernels: Any = torch.ops.aten
    out, log_sum, *_ = kernels._cudnn_attention_forward(
        *(query, keys, values, None, query_bounds, key_bounds, queries, len(keys), True, 0.0, False, False),
        scale=scaling,
    )
    # Of sequences one behind the other some versions give (tokens, heads), or a last dimension of one.
    log_sum = log_sum.reshape(log_sum.shape[:2])
    return out, log_sum if log_sum.shape[0] == query.shape[1] else log_sum.transpose(0, 1)


KERNELS = (
    Kernel("flash attention 2"),
    Kernel("cuDNN", cudnn_by_sequences),
    Kernel("flash attention 3", implementation="FA3"),
    Kernel("flash attention 4", implementation="FA4"),
)


def fastest_kernel(heads: Heads, kernels: Sequence[Kernel] = KERNELS) -> Kernel:
    """The fastest of ``kernels`` that is right for ``heads``; the first where none is. Says so in the log.

    PyTorch uses its `Kernel.implementation` from then on.
    """
    took_ms, problems = dict[Kernel, float](), dict[Kernel, str]()
    with torch.inference_mode():
        for kernel in kernels:
            try:
                _use(kernel.implementation)
                if problem := _wrong(kernel, heads):
                    problems[kernel] = problem
                else:
                    took_ms[kernel] = _milliseconds(kernel, heads)
            except Exception as error:  # of a driver, or a library that may be missing or of another version
                problems[kernel] = in_a_line(error)
    best = min(took_ms, key=lambda kernel: took_ms[kernel], default=kernels[0])
    _use(best.implementation)
    tried = [f"{kernel.name} {took_ms[kernel]:.3f} ms" for kernel in took_ms]
    left_out = [f"{kernel.name}: {problem}" for kernel, problem in problems.items()]
    _log.info(
        "attention to cached tokens by %s (a layer: %s)%s",
        *(
            best.name,
            ", ".join(tried) or "none was right",
            f"; not used: {'; '.join(left_out)}" if left_out else "",
        ),
    )
    return best


def _use(implementation: str) -> None:
    """Let PyTorch use an implementation of flash attention in this process; empty: its own."""
    library: Any = torch.nn.attention
    if implementation:
        library.activate_flash_attention_impl(implementation)
    elif hasattr(library, "current_flash_attention_impl") and library.current_flash_attention_impl():
        library.restore_flash_attention_impl()


def _wrong(kernel: Kernel, heads: Heads) -> str:
    """What is wrong with the numbers of ``kernel``, in words; '' for nothing."""
    for length in _RIGHT_LENGTHS:
        query, keys, values = _tensors(heads, _RIGHT_QUERIES, _RIGHT_CACHED)
        keys[:, :, length:], values[:, :, length:] = _STALE, _STALE
        made = _attend(kernel, query, keys, values, length)
        valid = [each[:, :, :length].float() for each in (keys, values)]
        logits = query.float() @ valid[0].transpose(2, 3) * _scaling(query)
        expected = (logits.softmax(-1) @ valid[1]).transpose(1, 2)
        distance = float((made.float() - expected).norm() / expected.norm())
        if not distance <= _NEAR:  # also where it is NaN
            return f"its numbers are {distance:.1%} of their size away"
    return ""


def _milliseconds(kernel: Kernel, heads: Heads) -> float:
    """[ms] What a layer's attention takes."""
    query, keys, values = _tensors(heads, _TIMED_QUERIES, _TIMED_CACHED)
    begun = 0.0
    for run in range(_WARM_UP + _RUNS):
        if run == _WARM_UP:
            _wait_for(heads.device)
            begun = time.perf_counter()
        _attend(kernel, query, keys, values, _TIMED_CACHED)
    _wait_for(heads.device)
    return 1e3 * (time.perf_counter() - begun) / _RUNS


def _attend(
    kernel: Kernel, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, length: int
) -> torch.Tensor:
    """(1, queries, key heads, size): attention to the first ``length`` of ``keys``."""
    functions = PLAIN._replace(by_sequences=kernel.by_sequences)
    valid = ValidLength(torch.tensor([length], device=keys.device), keys.shape[2], keys.dtype)
    parts = attend_in_splits(query, keys, values, valid, _scaling(query), functions)
    nothing = (torch.zeros_like(parts.out[:1]), torch.full_like(parts.log_sum[:1], float("-inf")))
    return merge(*nothing, parts.out, parts.log_sum, parts.counts, 1, query.dtype)


def _tensors(heads: Heads, queries: int, cached: int) -> list[torch.Tensor]:
    """Query, keys and values of random numbers, as `attention.attend` groups them."""
    generator = torch.Generator().manual_seed(queries)
    made = []
    for rows in (heads.groups * queries, cached, cached):
        numbers = torch.randn(1, heads.key_heads, rows, heads.size, generator=generator)
        made.append(numbers.to(heads.device, heads.dtype))
    return made


def _scaling(query: torch.Tensor) -> float:
    return float(query.shape[3] ** -0.5)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
