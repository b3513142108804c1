"""Work on a GPU that is recorded once and then repeated as one launch: CUDA graphs.

A tick starts more than a thousand small kernels, and starting one takes the CPU longer than many of them run.
What is recorded has a fixed shape and fixed places in memory, and each repetition fills those places anew.
A recording is used only where it gave what the same work gave without it. Where it cannot be made, or gave
something else, one warning says so, and from then on everything runs kernel by kernel.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, NamedTuple
from weakref import WeakSet

import torch

from topreward_ros.scoring.base import in_a_line
from topreward_ros.scoring.newest import Newest

_log = logging.getLogger(__name__)

_MOST_SHAPES = 16  # of one kind of work that are kept recorded
_PATIENCE = 4  # how often a shape is wanted until it is recorded at once; between two ticks, once is enough
#: How far the outcome may be from that without recording, as a part of its size. Kernels for other shapes
#: round otherwise; a recording that went wrong is wrong altogether.
_NEAR, _NEAR_IN_HALF_PRECISION = 1e-3, 0.1


class Work(ABC):
    """Something to do for one shape, with tensors that stay where they are."""

    @abstractmethod
    def fill(self, given: Any) -> None:
        """Put what is given this time where `run` reads it."""

    @abstractmethod
    def run(self) -> Sequence[torch.Tensor]:
        """Do it with what is there, which may be lost by it; no step of it hangs on the value of a number."""


class Recording(NamedTuple):
    """Work that can be repeated."""

    work: Work  # keeps the places alive
    repeat: Callable[[], None]
    outcome: Sequence[torch.Tensor]  #: after ``repeat``, until anything else that is recorded is repeated

    def __call__(self, given: Any) -> list[torch.Tensor]:
        self.work.fill(given)
        self.repeat()
        return [tensor.clone() for tensor in self.outcome]


class Recordings:
    """Of one kind of work, by shape."""

    def __init__(self) -> None:
        self._by_shape: Newest[Hashable, Recording] = Newest(_MOST_SHAPES)
        self._wanted: dict[Hashable, int] = {}

    def get(self, shape: Hashable) -> Recording | None:
        return self._by_shape.get(shape)

    def add(self, shape: Hashable, recording: Recording) -> None:
        self._by_shape[shape] = recording
        self._wanted.clear()  # of shapes that come once each there may be many

    def is_due(self, shape: Hashable) -> bool:
        """Whether ``shape``, which is not recorded, is wanted again and again."""
        self._wanted[shape] = self._wanted.get(shape, 0) + 1
        return self._wanted[shape] >= _PATIENCE

    def clear(self) -> None:
        self._by_shape.clear()
        self._wanted.clear()


class Recorder:
    """Runs work by recordings, and makes these: at best between two ticks, where nobody waits."""

    def __init__(self, device: torch.device) -> None:
        self.works = True
        self._device = device
        self._missed: dict[object, Callable[[], None]] = {}  # what to record, by who ran it
        self._made: WeakSet[Recordings] = WeakSet()
        cuda: Any = torch.cuda
        with cuda.device(device):
            self._stream = cuda.Stream()
            self._pool = cuda.graph_pool_handle()  # one for all: no two run at the same time

    def run(
        self,
        owner: object,
        recordings: Recordings,
        shape: Hashable,
        given: Any,
        make_work: Callable[[], Work],
        run_unrecorded: Callable[[], Sequence[torch.Tensor]],
    ) -> Sequence[torch.Tensor]:
        """The outcome of ``run_unrecorded``, which may be called again; by a recording where there is one."""
        self.forget(owner)
        if not self.works:
            return run_unrecorded()
        recording = recordings.get(shape)
        if recording is not None:
            return recording(given)
        outcome = run_unrecorded()
        record = partial(self._record, recordings, shape, given, make_work, run_unrecorded, outcome)
        if recordings.is_due(shape):
            record()
        else:
            self._missed[owner] = record
        return outcome

    @property
    def has_missed(self) -> bool:
        """Whether the newest runs would have been faster with a recording that can be made now."""
        return self.works and bool(self._missed)

    def record_missed(self) -> None:
        """Make one of what `has_missed` speaks of."""
        _, record = self._missed.popitem()
        record()

    def forget(self, owner: object) -> None:
        """What ``owner`` ran last cannot be run again."""
        self._missed.pop(owner, None)

    def forget_all(self) -> None:
        """What was run last cannot be run again, and its memory is wanted."""
        self._missed.clear()

    def drop(self) -> None:
        """Let go of everything recorded, and of the memory that goes with the last of it."""
        self.forget_all()
        for recordings in self._made:
            recordings.clear()

    def _record(
        self,
        recordings: Recordings,
        shape: Hashable,
        given: Any,
        make_work: Callable[[], Work],
        run_unrecorded: Callable[[], Sequence[torch.Tensor]],
        expected: Sequence[torch.Tensor],
    ) -> None:
        begun = time.perf_counter()
        problem = self._try(recordings, shape, given, make_work, expected)
        if not problem:
            _log.info("recorded %s in %.2f s", shape, time.perf_counter() - begun)
            return
        self.works = False
        self.drop()
        run_unrecorded()  # what it left in memory is right again
        _log.warning(
            "CUDA graphs are not used from now on, which makes scoring slower: %s does not work recorded "
            "(%s); cuda_graphs: false does without this attempt",
            *(shape, problem),
        )

    def _try(
        self,
        recordings: Recordings,
        shape: Hashable,
        given: Any,
        make_work: Callable[[], Work],
        expected: Sequence[torch.Tensor],
    ) -> str:
        """Record, compare, and keep what is right; says what is wrong, and holds on to nothing then."""
        try:
            work = make_work()
            work.fill(given)
            recording = Recording(work, *self.capture(work))
            problem = _difference(recording(given), expected)
        except Exception as error:  # by the driver, a library, or for want of memory: none is needed to score
            return in_a_line(_first_cause(error))
        if not problem:
            recordings.add(shape, recording)
            self._made.add(recordings)
        return problem

    def capture(self, work: Work) -> tuple[Callable[[], None], Sequence[torch.Tensor]]:
        """Record ``work``, filled, as a CUDA graph: what repeats it, and where its outcome is then."""
        stream = self._stream
        with torch.cuda.device(self._device):
            here = torch.cuda.current_stream()
            with torch.cuda.stream(here):  # comes back to it even where a recording fails half-way
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
                        outcome = work.run()
                finally:
                    _clear_cublas()
        return graph.replay, outcome


def _clear_cublas() -> None:
    library: Any = torch._C
    library._cuda_clearCublasWorkspaces()


def _first_cause(error: BaseException) -> BaseException:
    """What went wrong first; while a recording is given up, more does."""
    while error.__context__ is not None:
        error = error.__context__
    return error


def _difference(made: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> str:
    """What is wrong with ``made``; '' where nothing is."""
    for one, other in zip(made, expected, strict=True):
        near = _NEAR if one.dtype is torch.float32 else _NEAR_IN_HALF_PRECISION
        distance = float((one.float() - other.float()).norm() / other.float().norm())
        if not distance <= near:  # nor where it is no number
            return f"its numbers are {distance:.1%} of their size away from those without"
    return ""
