"""Work on a GPU that is captured once as a CUDA graph and then replayed as one launch.

A tick starts more than a thousand small kernels, and starting one takes the CPU longer than many of them run.
A graph has fixed shapes and fixed addresses; each replay reads new inputs there. A graph is
used only if its first replay gave what the same work gave without it. Where it cannot be captured, or gave
something else, one warning says so, and from then on everything runs kernel by kernel ("eagerly").
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, NamedTuple
from weakref import ReferenceType, WeakSet, ref

import torch

from topreward_ros.scoring.base import in_a_line
from topreward_ros.scoring.bounded_dict import BoundedDict
from topreward_ros.scoring.qwen3_vl.layer_functions import PLAIN, LayerFunctions

_log = logging.getLogger(__name__)

_MAX_GRAPHS = 16  # in a `GraphCache`
_MAX_MISSES = 256  # shapes whose misses are counted
_PATIENCE = 4  # misses of a shape until it is captured within a tick
#: How far a replay may be from the eager result, relative to the result's norm. Kernels for other shapes
#: round differently; a capture that went wrong is wrong altogether.
_NEAR, _NEAR_IN_HALF_PRECISION = 1e-3, 0.1
_NEAR_IN_FP8 = 0.4  # three bits: where a sum rounds otherwise, the next product rounds by 6 % otherwise


class GraphWork(ABC):
    """Work of one shape, on tensors that are not replaced."""

    @abstractmethod
    def load(self, inputs: Any) -> None:
        """Copy ``inputs`` to where `run` reads them."""

    @abstractmethod
    def run(self) -> Sequence[torch.Tensor]:
        """Compute the outputs from the loaded inputs, which it may overwrite.

        Control flow must not depend on tensor values: a replay repeats the kernels of the capture.
        """


class CapturedGraph(NamedTuple):
    """Work that can be replayed."""

    work: GraphWork  # keeps the tensors alive that the graph reads and writes
    replay: Callable[[], None]
    outputs: Sequence[torch.Tensor]  #: valid after ``replay``, until any other graph is replayed

    def __call__(self, inputs: Any) -> list[torch.Tensor]:
        """The outputs for ``inputs``, as copies."""
        self.work.load(inputs)
        self.replay()
        return [tensor.clone() for tensor in self.outputs]


class GraphCache:
    """The captured graphs of one kind of work, by shape.

    Work may belong to several caches: of a pass of several videos, one holds the graph, and the others take
    it with them when they are cleared or go themselves, as it writes where their tensors are.
    """

    def __init__(self, worth: int = 1) -> None:
        """``worth``: misses of a shape until it is captured between two ticks."""
        self._graphs: BoundedDict[Hashable, CapturedGraph] = BoundedDict(_MAX_GRAPHS)
        self._misses: BoundedDict[Hashable, int] = BoundedDict(_MAX_MISSES)
        self._held_by: list[tuple[ReferenceType[GraphCache], Hashable]] = []  # graphs of ours, elsewhere
        self.worth = worth

    def get(self, shape: Hashable) -> CapturedGraph | None:
        """The graph for ``shape``, which is the newest from now on; None where there is none."""
        graph = self._graphs.pop(shape, None)
        if graph is not None:
            self._graphs[shape] = graph
        return graph

    def add(self, shape: Hashable, graph: CapturedGraph, others: Sequence[GraphCache] = ()) -> None:
        """Keep ``graph``, which belongs to ``others``, too; the oldest goes when there are too many."""
        self._graphs[shape] = graph
        self._misses.clear()  # there may be many shapes that come once each
        for other in others:
            other._held_by = [(held, key) for held, key in other._held_by if _holds(held(), key)]
            other._held_by.append((ref(self), shape))

    def count_miss(self, shape: Hashable) -> int:
        """Note that ``shape`` was wanted and is not captured; how often it was."""
        self._misses[shape] = self._misses.get(shape, 0) + 1
        return self._misses[shape]

    def clear(self) -> None:
        """Free all graphs, and those elsewhere that belong here, too."""
        self._graphs.clear()
        self._misses.clear()
        for held, shape in self._held_by:
            if (cache := held()) is not None:
                cache._graphs.pop(shape, None)
        self._held_by.clear()

    def __del__(self) -> None:
        self.clear()


def _holds(cache: GraphCache | None, shape: Hashable) -> bool:
    return cache is not None and shape in cache._graphs


class _Wanted(NamedTuple):
    """A graph that is to be captured: what `GraphRunner.run` was given, and what it gave."""

    cache: GraphCache
    shape: Hashable
    inputs: Any
    make_work: Callable[[], GraphWork]
    run_eagerly: Callable[[], Sequence[torch.Tensor]]
    expected: Sequence[torch.Tensor]
    others: Sequence[GraphCache]


class GraphRunner:
    """Runs work by its graph where there is one, and captures graphs: preferably between two ticks.

    ``owner``, in its methods, is the model that runs: only its newest run can be captured later.
    """

    in_fp8 = False  #: the products of the model are

    def __init__(
        self, device: torch.device, functions: LayerFunctions = PLAIN, *, in_fp8: bool = False
    ) -> None:
        """``functions``: what captured work calls between the matrix products of a layer."""
        self.functions = functions
        self.in_fp8 = in_fp8
        self.works = True  #: False once a capture failed: from then on everything runs eagerly
        self._device = device
        self._pending: dict[object, Callable[[], None]] = {}  # captures that were put off, by owner
        self._caches: WeakSet[GraphCache] = WeakSet()
        cuda: Any = torch.cuda
        with cuda.device(device):
            self._stream = cuda.Stream()
            self._pool = cuda.graph_pool_handle()  # one for all: no two run at the same time

    def another(self) -> GraphRunner:
        """A runner with memory of its own, for a trial: a capture that fails may spoil what it uses."""
        return GraphRunner(self._device, self.functions, in_fp8=self.in_fp8)

    def run(
        self,
        owner: object,
        cache: GraphCache,
        shape: Hashable,
        inputs: Any,
        make_work: Callable[[], GraphWork],
        run_eagerly: Callable[[], Sequence[torch.Tensor]],
        others: Sequence[GraphCache] = (),
    ) -> Sequence[torch.Tensor]:
        """The outputs for ``inputs``: replayed from the graph for ``shape`` in ``cache``, else run eagerly.

        ``run_eagerly`` may be called more than once. ``make_work`` makes what is captured, which belongs to
        the caches ``others``, too.
        """
        self.discard_pending(owner)
        if not self.works:
            return run_eagerly()
        graph = cache.get(shape)
        if graph is not None:
            return graph(inputs)
        outputs = run_eagerly()
        wanted = _Wanted(cache, shape, inputs, make_work, run_eagerly, outputs, others)
        misses = cache.count_miss(shape)
        if misses >= _PATIENCE:
            self._capture_checked(wanted)
        elif misses >= cache.worth:
            self._pending[owner] = partial(self._capture_checked, wanted)
        return outputs

    @property
    def has_pending(self) -> bool:
        """Whether `capture_pending` can do something that will make the next runs faster."""
        return self.works and bool(self._pending)

    def capture_pending(self) -> None:
        """Capture one graph that a run missed."""
        _, capture = self._pending.popitem()
        capture()

    def discard_pending(self, owner: object) -> None:
        """Discard the capture that is pending for ``owner``, whose newest run cannot be repeated."""
        self._pending.pop(owner, None)

    def discard_all_pending(self) -> None:
        """Discard all pending captures: what they would run is gone, or its memory is needed."""
        self._pending.clear()

    def discard_graphs(self) -> None:
        """Free all graphs, pending captures, and the memory pool that goes with the last graph."""
        self.discard_all_pending()
        for cache in self._caches:
            cache.clear()

    def _capture_checked(self, wanted: _Wanted) -> None:
        """Capture, compare and keep a graph; where that fails, give graphs up for good."""
        begun, shape = time.perf_counter(), wanted.shape
        problem = self._try_capture(wanted)
        if problem and self.functions != PLAIN:
            # Graphs of other shapes that were right stay.
            _log.warning(
                "compiled layers and the kernel chosen for attention are not used from now on, which makes "
                "scoring slower: %s cannot be captured with them (%s); set compile: false to start "
                "without them",
                *(shape, problem),
            )
            self.functions = PLAIN
            problem = self._try_capture(wanted)
        if not problem:
            _log.info("captured %s in %.2f s", shape, time.perf_counter() - begun)
            return
        self.works = False
        self.discard_graphs()
        wanted.run_eagerly()  # rewrites the KV entries that the failed capture overwrote
        _log.warning(
            "CUDA graphs are not used from now on, which makes scoring slower: %s cannot be captured as one "
            "(%s); set cuda_graphs: false to start without the attempt",
            *(shape, problem),
        )

    def _try_capture(self, wanted: _Wanted) -> str:
        """Capture a graph and keep it if it is right; returns what is wrong, and keeps nothing then."""
        try:
            work = wanted.make_work()
            work.load(wanted.inputs)
            graph = CapturedGraph(work, *self.capture(work))
            problem = self.difference(graph(wanted.inputs), wanted.expected)
        except Exception as error:  # of the driver, a library, or memory: scoring needs no graph
            return in_a_line(_first_cause(error))
        if not problem:
            wanted.cache.add(wanted.shape, graph, wanted.others)
            self._caches.add(wanted.cache)
        return problem

    def difference(self, replayed: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> str:
        """How ``replayed`` differs from ``expected``, in words; '' where it is near enough."""
        for one, other in zip(replayed, expected, strict=True):
            near = _NEAR if one.dtype is torch.float32 else _NEAR_IN_HALF_PRECISION
            if self.in_fp8:
                near = _NEAR_IN_FP8
            distance = float((one.float() - other.float()).norm() / other.float().norm())
            if not distance <= near:  # also where it is NaN
                return f"its numbers are {distance:.1%} of their size away from those without"
        return ""

    def capture(self, work: GraphWork) -> tuple[Callable[[], None], Sequence[torch.Tensor]]:
        """Capture ``work``, whose inputs are loaded: what replays it, and the outputs that this fills."""
        stream = self._stream
        with torch.cuda.device(self._device):
            here = torch.cuda.current_stream()
            with torch.cuda.stream(here):  # comes back to it even where a capture fails half-way
                stream.wait_stream(here)
                with torch.cuda.stream(stream):
                    work.run()  # libraries choose kernels and take memory with the first run
                here.wait_stream(stream)
                graph = torch.cuda.CUDAGraph()
                # What cuBLAS works in belongs to the stream, and is freed with any graph of it (pytorch issue
                # 193402). Cleared before, it is taken from the pool of the graphs, and lives as long as they.
                _clear_cublas()
                try:
                    # Other threads of this process may use the GPU for something else meanwhile.
                    with torch.cuda.graph(graph, self._pool, stream, capture_error_mode="thread_local"):
                        outputs = work.run()
                finally:
                    _clear_cublas()
        return graph.replay, outputs


def _clear_cublas() -> None:
    library: Any = torch._C
    library._cuda_clearCublasWorkspaces()


def _first_cause(error: BaseException) -> BaseException:
    """The error that came first; while a capture is given up, more follow."""
    while error.__context__ is not None:
        error = error.__context__
    return error
