"""A model fitted to the GPU at hand: what lies between a layer's matrix products compiled, and the fastest
kernel of attention chosen.

A compilation serves all layers, and any number of tokens: it is done at the start, on passes of the model
itself, and not in the middle of an episode. The compiled functions are used if they then give what the plain
ones give. Where there is no compiler, or anything fails, one line in the log says so and the plain ones stay.
They run inside CUDA graphs alone, where what PyTorch checks before each call costs nothing.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from topreward_ros.scoring.base import in_a_line
from topreward_ros.scoring.compile_cache import use_folder_of_user
from topreward_ros.scoring.qwen3_vl.attention import has_flash
from topreward_ros.scoring.qwen3_vl.attention_kernels import Heads, fastest_kernel
from topreward_ros.scoring.qwen3_vl.cuda_graphs import CapturedGraph, GraphRunner, GraphWork
from topreward_ros.scoring.qwen3_vl.kv_cache import KVCache
from topreward_ros.scoring.qwen3_vl.language import LanguageModel, Pass, pass_work
from topreward_ros.scoring.qwen3_vl.layer_functions import PLAIN, LayerFunctions
from topreward_ros.scoring.qwen3_vl.vision import VisionModel

_log = logging.getLogger(__name__)

AUTO, ALWAYS, NEVER = "auto", "true", "false"  #: whether to compile
_COMPILERS = ("gcc", "cc", "clang")  # of C, one of which Triton calls, unless CC names another
_OLDEST_CAPABILITY = (7, 0)  # of a GPU that Triton knows
_MOST_VARIANTS = 64  # of a compiled function; PyTorch's own limit, 8, is soon reached by unlike shapes

#: Which dimensions of each tensor that a function takes have the size of what it is given: tokens, parts.
#: The others are the model's.
_FREE_DIMENSIONS: dict[str, Sequence[tuple[int, ...]]] = {
    "add_and_norm": [(1,), (1,)],
    "rotate": [(1,), (1,), (), (), (2,), (2,), (2,), (2,)],
    "gate": [(1,), (1,)],
    "merge": [(2,), (2,), (0, 2), (0, 2), (0,)],
    "add_and_layer_norm": [(1,), (1,)],
    "split_and_rotate": [(1,), (1,), (1,)],
    "quantize_rows": [(1,)],
}
_WAVES = (1, 2, 4)  # of blocks of threads, one on each multiprocessor at a time
# Passes to compile on: tokens and answers, no number twice (PyTorch takes equal sizes for one size). One
# answer is a case of its own to PyTorch, and so are one patch, and a context in one part, as behind a long
# question; `LayerFunctions.blocks` makes one part of it.
_TRIAL_PASSES = ((32, 1, PLAIN.blocks), (48, 3, PLAIN.blocks), (64, 2, 1))
_TRIAL_PATCHES = (1, 2)
_TRIAL_GRID = (4, 6)  # rows and columns of pixel patches
_TRIAL_START = 40  # tokens that are cached


def compile_layers(wanted: str, graphs: GraphRunner, vision: VisionModel, language: LanguageModel) -> None:
    """Let what ``graphs`` captures call compiled functions and the fastest kernel of attention, where they
    can be had and give the same numbers.

    ``wanted``: `AUTO`, `ALWAYS` (what is in the way is a warning) or `NEVER`. Takes half a minute at the
    first start on a machine, and seconds with what that left in the cache folder.
    """
    if wanted == NEVER:
        return
    begun = time.perf_counter()
    kernels = _kernels_for(language, graphs)
    problem, folder = missing_for(language.device), ""
    if not problem:
        folder = use_folder_of_user()
        problem = try_out(compiled()._replace(**kernels), graphs, vision, language)
    if problem:
        level = logging.WARNING if wanted == ALWAYS else logging.INFO
        _log.log(level, "layers are not compiled, which is slower and gives the same scores: %s", problem)
        chosen = PLAIN._replace(**kernels)
        if chosen != PLAIN and (problem := try_out(chosen, graphs, vision, language)):
            _log.log(
                level, "PyTorch's own kernels of attention are used, as those that were chosen: %s", problem
            )
        return
    took = time.perf_counter() - begun
    _log.info("compiled the layers in %.1f s; a later start takes less, by what is kept in %s", took, folder)


def _kernels_for(language: LanguageModel, graphs: GraphRunner) -> dict[str, Any]:
    """What is to be replaced in `LayerFunctions` by kernels for the GPU at hand."""
    if not has_flash(language.device, language.dtype):
        return {}
    heads = Heads(language.key_heads, language.groups, language.head_size, language.device, language.dtype)
    chosen = fastest_kernel(heads, graphs.another, blocks=_blocks_to_try(language.device))
    return {"by_sequences": chosen.by_sequences, "blocks": chosen.blocks}


def _blocks_to_try(device: torch.device) -> list[int]:
    at_a_time = torch.cuda.get_device_properties(device).multi_processor_count
    return [waves * at_a_time for waves in _WAVES]


def missing_for(device: torch.device) -> str:
    """What the compiler lacks on this machine, in words; '' for nothing."""
    if device.type != "cuda":
        return f"that is for GPUs, and the model is on {device}"
    capability = torch.cuda.get_device_capability(device)
    if capability < _OLDEST_CAPABILITY:
        return f"the compiler does not know GPUs as old as {torch.cuda.get_device_name(device)}"
    if find_spec("triton") is None:
        return "Triton is not installed (pip install triton)"
    named = os.environ.get("CC", "")
    if not any(shutil.which(name) for name in ([named] if named else _COMPILERS)):
        return f"there is no C compiler ({named or ', '.join(_COMPILERS)}); install gcc"
    return ""


def compiled(backend: str = "inductor") -> LayerFunctions:
    """The functions, each compiled with its first call. ``backend``: of `torch.compile`."""
    functions = PLAIN._asdict()
    made: dict[str, Any] = {name: _Compiled(name, functions[name], backend) for name in _FREE_DIMENSIONS}
    return PLAIN._replace(**made)


class _Compiled:
    """A compiled function."""

    def __init__(self, name: str, function: Callable[..., Any], backend: str) -> None:
        self._free = _FREE_DIMENSIONS[name]
        self._run: Callable[..., Any] = torch.compile(function, fullgraph=True, backend=backend)

    def __call__(self, *arguments: Any) -> Any:
        dynamo: Any = torch._dynamo
        tensors = [each for each in tree_leaves(arguments) if isinstance(each, torch.Tensor)]
        for tensor, dimensions in zip(tensors, self._free, strict=False):
            dynamo.maybe_mark_dynamic(tensor, list(dimensions))
        with dynamo.config.patch(recompile_limit=_MOST_VARIANTS):
            return self._run(*arguments)


def try_out(
    functions: LayerFunctions, graphs: GraphRunner, vision: VisionModel, language: LanguageModel
) -> str:
    """Run both models with ``functions``, captured as in a tick, and without, and leave the better in
    ``graphs``.

    Returns what is wrong with ``functions``, in words; '' for nothing.
    """
    trial = graphs.another()
    try:
        with torch.inference_mode():
            for work, inputs, blocks in _trials(vision, language):
                graphs.functions = PLAIN
                work.load(inputs)
                expected = [tensor.clone() for tensor in work.run()]
                graphs.functions = functions._replace(blocks=blocks)
                work.load(inputs)
                graph = CapturedGraph(work, *trial.capture(work))
                if problem := trial.difference(graph(inputs), expected):
                    graphs.functions = PLAIN
                    return problem
        graphs.functions = functions
    except Exception as error:  # of a compiler, a driver, or memory: scoring needs none of it
        graphs.functions = PLAIN
        return in_a_line(error)
    return ""


def _trials(vision: VisionModel, language: LanguageModel) -> Iterator[tuple[GraphWork, Any, int]]:
    """Work of both models on random numbers, what it loads, and the `LayerFunctions.blocks` to run it in."""
    generator = torch.Generator().manual_seed(0)
    for patches in _TRIAL_PATCHES:
        pixels = torch.randn(patches, *vision.input_shape(*_TRIAL_GRID), generator=generator)
        pixels = pixels.to(language.device, language.dtype)
        yield vision.work(pixels, *_TRIAL_GRID), pixels, PLAIN.blocks
    cache = KVCache()
    cache.reserve(_TRIAL_START + 2 * max(tokens for tokens, *_ in _TRIAL_PASSES))
    language.run([_trial_pass(cache, _TRIAL_START, answers=1)])
    cache.graphs.clear()
    for tokens, answers, blocks in _TRIAL_PASSES:
        yield pass_work(language, cache, tokens, answers), [_trial_pass(cache, tokens, answers)], blocks


def _trial_pass(cache: KVCache, tokens: int, answers: int) -> Pass:
    """Tokens behind what is cached, of which the last ``answers`` answer."""
    trial = Pass(cache)
    positions = torch.arange(trial.start, trial.start + tokens).expand(3, -1)
    trial.append([1 + k % 50 for k in range(tokens)], positions, [])
    trial.answer_positions = list(range(tokens - answers, tokens))
    return trial
