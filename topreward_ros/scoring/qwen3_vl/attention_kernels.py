"""Which kernel attends to the cached tokens in a CUDA graph: the fastest that is right, found by a trial.

PyTorch's own flash attention is of the generation of Ampere. A newer GPU has better ones: cuDNN's, which
PyTorch brings, and FlashAttention-3 and -4 (Shah et al. 2024) where they are installed and PyTorch knows how
to call them. All take sequences of variable length whose bounds are read on the device. None of them has to
be there or to be right: each is captured as in a tick and replayed, and whatever cannot be captured, raises,
or gives other numbers is left out. The time is that of replays, too: called from Python, a kernel takes less
than what prepares it. Into how many blocks of threads the work is best cut depends on how many run at a time,
so that is tried as well.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from topreward_ros.scoring.base import in_a_line
from topreward_ros.scoring.qwen3_vl.attention import ValidLength, attend_in_splits
from topreward_ros.scoring.qwen3_vl.cuda_graphs import CapturedGraph, GraphRunner, GraphWork
from topreward_ros.scoring.qwen3_vl.layer_functions import PLAIN, Tensors, flash_by_sequences, merge

_log = logging.getLogger(__name__)

_NEAR = 0.02  # of the size of the result: a few eps of half precision
_STALE = 1e4  # the size of what lies behind the valid tokens in the trial: whoever reads it shows
# [tokens] To be right: few, one among them. For the time: a frame and a question behind a long video.
_RIGHT_QUERIES, _RIGHT_CACHED, _RIGHT_LENGTHS = 48, 768, (1, 700)
_TIMED_QUERIES, _TIMED_CACHED = 352, 8192
_RUNS, _WARM_UP = 10, 3
#: What is nearly as fast as the fastest is as good, and is taken if it stands before it: two starts should
#: choose the same, as others round differently.
_AS_FAST = 1.03


class Kernel(NamedTuple):
    """A kernel for attention of sequences of variable length."""

    name: str
    by_sequences: Callable[..., Tensors]  #: as `layer_functions.flash_by_sequences`
    blocks: int = PLAIN.blocks  #: see `layer_functions.LayerFunctions`

    def __str__(self) -> str:
        return f"{self.name} in {self.blocks} blocks"


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


class FlashOf:
    """`layer_functions.flash_by_sequences` by another implementation of flash attention than PyTorch's own.

    PyTorch has one implementation for the whole process. It is another one during a call alone, and a call
    is for the capture of a graph: whatever else runs in this process keeps its numbers.
    """

    _lock = threading.Lock()

    def __init__(self, implementation: str) -> None:
        """``implementation``: as PyTorch calls it."""
        self._implementation = implementation

    def __call__(self, *arguments: Any) -> Tensors:
        """See `layer_functions.flash_by_sequences`."""
        library: Any = torch.nn.attention
        with self._lock:
            before = library.current_flash_attention_impl()
            try:
                library.activate_flash_attention_impl(self._implementation)
                return flash_by_sequences(*arguments)
            finally:
                if before:
                    library.activate_flash_attention_impl(before)
                elif library.current_flash_attention_impl():
                    library.restore_flash_attention_impl()


KERNELS = (
    Kernel("flash attention 2", flash_by_sequences),
    Kernel("cuDNN", cudnn_by_sequences),
    Kernel("flash attention 3", FlashOf("FA3")),
    Kernel("flash attention 4", FlashOf("FA4")),
)


def fastest_kernel(
    heads: Heads,
    new_runner: Callable[[], GraphRunner],
    kernels: Sequence[Kernel] = KERNELS,
    blocks: Sequence[int] = (),
) -> Kernel:
    """The fastest of ``kernels`` that is right for ``heads``; the first where none is. Says so in the log.

    ``new_runner`` makes what captures a trial; each kernel has one of its own, which it may spoil. Each is
    timed with its own number of blocks and with ``blocks``.
    """
    took_ms, problems = dict[Kernel, float](), dict[Kernel, str]()
    with torch.inference_mode():
        for kernel in kernels:
            runner = new_runner()
            try:
                if problem := _wrong(kernel, heads, runner):
                    problems[kernel] = problem
                    continue
                ways = [kernel._replace(blocks=count) for count in dict.fromkeys([kernel.blocks, *blocks])]
                took_ms |= {way: _milliseconds(way, heads, runner) for way in ways}
            except Exception as error:  # of a driver, or a library that may be missing or of another version
                problems[kernel] = in_a_line(error)
    enough = _AS_FAST * min(took_ms.values(), default=0.0)
    best = next((kernel for kernel, took in took_ms.items() if took <= enough), kernels[0])
    tried = [f"{kernel} {took:.3f} ms" for kernel, took in took_ms.items()]
    left_out = [f"{kernel.name}: {problem}" for kernel, problem in problems.items()]
    _log.info(
        "attention to cached tokens by %s (a layer: %s)%s",
        *(
            best,
            ", ".join(tried) or "none was right",
            f"; not used: {'; '.join(left_out)}" if left_out else "",
        ),
    )
    return best


class _Attention(GraphWork):
    """Attention of a layer to cached tokens, of which so many are valid as is loaded."""

    def __init__(self, kernel: Kernel, heads: Heads, queries: int, cached: int) -> None:
        generator = torch.Generator().manual_seed(queries)
        made = []
        for rows in (heads.groups * queries, cached, cached):
            numbers = torch.randn(1, heads.key_heads, rows, heads.size, generator=generator)
            made.append(numbers.to(heads.device, heads.dtype))
        self._functions = PLAIN._replace(by_sequences=kernel.by_sequences, blocks=kernel.blocks)
        self._query, *self._made = made
        self._keys, self._values = (torch.empty_like(each) for each in self._made)
        self._length = torch.zeros(1, dtype=torch.long, device=heads.device)
        self._scaling = float(heads.size**-0.5)

    def load(self, inputs: int) -> None:
        """``inputs``: how many tokens are valid. What lies behind them shows if it is read."""
        self._length.fill_(inputs)
        for tensor, made in zip((self._keys, self._values), self._made, strict=True):
            tensor.copy_(made)
            tensor[:, :, inputs:] = _STALE

    def run(self) -> list[torch.Tensor]:
        """(1, queries, key heads, size)."""
        tokens = self._keys.shape[2]
        valid = ValidLength(self._length, tokens, self._keys.dtype)
        parts = attend_in_splits(
            *(self._query, self._keys, self._values, valid, self._scaling, self._functions)
        )
        nothing = (torch.zeros_like(parts.out[:1]), torch.full_like(parts.log_sum[:1], float("-inf")))
        return [merge(*nothing, parts.out, parts.log_sum, parts.counts, 1, self._query.dtype)]

    def expected(self, length: int) -> torch.Tensor:
        """What `run` has to give, float32."""
        keys, values = (made[:, :, :length].float() for made in self._made)
        logits = self._query.float() @ keys.transpose(2, 3) * self._scaling
        return (logits.softmax(-1) @ values).transpose(1, 2)


def _wrong(kernel: Kernel, heads: Heads, runner: GraphRunner) -> str:
    """What is wrong with the numbers of ``kernel``, in words; '' for nothing."""
    work = _Attention(kernel, heads, _RIGHT_QUERIES, _RIGHT_CACHED)
    work.load(_RIGHT_CACHED)
    graph = CapturedGraph(work, *runner.capture(work))
    for length in _RIGHT_LENGTHS:  # others than that of the capture: they must be read on the device
        expected = work.expected(length)
        (made,) = graph(length)
        distance = float((made.float() - expected).norm() / expected.norm())
        if not distance <= _NEAR:  # also where it is NaN
            return f"its numbers are {distance:.1%} of their size away"
    return ""


def _milliseconds(kernel: Kernel, heads: Heads, runner: GraphRunner) -> float:
    """[ms] What a layer's attention takes in a graph."""
    work = _Attention(kernel, heads, _TIMED_QUERIES, _TIMED_CACHED)
    work.load(_TIMED_CACHED)
    replay, _ = runner.capture(work)
    for _ in range(_WARM_UP):
        replay()
    _wait_for(heads.device)
    begun = time.perf_counter()
    for _ in range(_RUNS):
        replay()
    _wait_for(heads.device)
    return 1e3 * (time.perf_counter() - begun) / _RUNS


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
