"""A tape in the place of a CUDA graph, for tests without a GPU.

A tape notes the operations of PyTorch that ran, on which tensors, and runs those again and nothing else. That
is what a CUDA graph does: whatever Python decided meanwhile, lengths and places too, is as it was at the
capture. What a CUDA graph cannot hold, a tape refuses as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from weakref import WeakSet

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from topreward_ros.scoring.qwen3_vl.cuda_graphs import GraphRunner, GraphWork
from topreward_ros.scoring.qwen3_vl.layer_functions import PLAIN, LayerFunctions

ops = torch.ops.aten
#: Operations that wait for the device, or bring something to it from memory that may be gone later.
NOT_IN_A_GRAPH = {
    *(ops._local_scalar_dense, ops.item, ops.is_nonzero, ops.equal),
    *(ops.nonzero, ops.masked_select, ops.lift_fresh, ops._pin_memory),
}


class Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple] = []

    @classmethod
    def is_infra_mode(cls) -> bool:
        """PyTorch's compiler is to run its functions while a tape notes, as while a graph is captured."""
        return True

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if operation.overloadpacket in NOT_IN_A_GRAPH:
            raise RuntimeError(f"{operation} is not permitted when a stream is capturing")
        outcome = operation(*args, **(kwargs or {}))
        self.steps.append((operation, args, kwargs or {}, outcome))
        return outcome

    def repeat(self, outcome: Sequence[torch.Tensor]) -> None:
        """Run it all again, and leave what comes of it where it was the first time."""
        new: dict[int, torch.Tensor] = {}

        def now(leaf):
            return new.get(id(leaf), leaf) if isinstance(leaf, torch.Tensor) else leaf

        for operation, args, kwargs, before in self.steps:
            after = operation(*tree_map(now, args), **tree_map(now, kwargs))
            for one, other in zip(tree_leaves(before), tree_leaves(after), strict=True):
                if isinstance(one, torch.Tensor):
                    new[id(one)] = other
        for tensor in outcome:
            tensor.copy_(now(tensor))


class TapeRunner(GraphRunner):
    def __init__(self, functions: LayerFunctions = PLAIN) -> None:
        self.functions = functions
        self.works = True
        self._pending = {}
        self._caches = WeakSet()
        self.captured: list[str] = []
        self.replayed = 0

    def another(self) -> TapeRunner:
        return TapeRunner(self.functions)

    def capture(self, work: GraphWork) -> tuple[Callable[[], None], Sequence[torch.Tensor]]:
        self.captured.append(type(work).__name__)
        with Tape() as tape:
            outcome = work.run()
        assert len(tape.steps) > 20

        def repeat():
            self.replayed += 1
            tape.repeat(outcome)

        return repeat, outcome
