"""The language model on new tokens behind a KV cache, of one video or of several at once.

It is the model's own arithmetic on the model's own weights (`Qwen3VLTextModel`), written out for four
reasons: keys and values are written in place; the last layer computes the answering tokens only; several
videos share every matrix product while each attends to its own cache; and on a GPU a pass can run as a CUDA
graph (`cuda_graphs`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import nn

from topreward_ros.scoring.device import send
from topreward_ros.scoring.qwen3_vl.attention import (
    ValidLength,
    attend,
    has_flash,
    mask_width,
    rounded_up,
)
from topreward_ros.scoring.qwen3_vl.cuda_graphs import GraphCache, GraphRunner, GraphWork
from topreward_ros.scoring.qwen3_vl.kv_cache import DeviceOffset, HostOffset, KVCache, KVWriter
from topreward_ros.scoring.qwen3_vl.layer_functions import PLAIN, LayerFunctions, rms_norm
from topreward_ros.scoring.qwen3_vl.linear import Packer

if TYPE_CHECKING:
    from transformers import Qwen3VLForConditionalGeneration

#: A captured pass is padded to a multiple of so many tokens: a time of one more digit reuses the graph.
TOKEN_STEP = 16
#: On a CPU every pass is padded: oneDNN compiles kernels for each number of tokens that it meets, which takes
#: time and memory. Uneven times, which are written into the prompt, make many numbers (bench/memory.py). Long
#: passes, as of a task that is set anew in an episode, are multiplied in blocks for the same reason.
CPU_TOKEN_STEP = 8
#: Misses of a pass of several videos until it is captured between two ticks: which come together changes.
_JOINT_WORTH = 2
_CONTEXT_STEP = 2048  # tokens; a graph that attends by a mask reads a multiple of so many cached ones


class PatchFeatures(NamedTuple):
    """What the vision model makes of a patch. A token stands for a block of merged pixel patches."""

    rows: int  #: of tokens
    columns: int
    embeddings: torch.Tensor  #: (rows * columns, hidden), replace the embeddings of its placeholders
    deepstack: list[torch.Tensor]  #: (rows * columns, hidden) each, added after the first language layers


class Pass:
    """One forward pass of the language model for one video: new tokens behind those in its KV cache."""

    def __init__(self, cache: KVCache) -> None:
        self.cache = cache
        self.start = cache.length
        self.ids: list[int] = []
        self.positions: list[torch.Tensor] = []  #: (3, tokens) each, M-RoPE
        self.features: list[tuple[int, PatchFeatures]] = []  #: by the index of a patch's first placeholder
        self.answer_positions: list[int] = []  #: in the pass, of the tokens whose next token is predicted
        self._spans: list[tuple[slice, list[slice]]] = []  # tokens in a row, and the spans that these see

    def append(self, ids: list[int], positions: torch.Tensor, visible: list[slice]) -> slice:
        """Add a span of tokens; each sees the cache, the spans ``visible``, and its own span up to itself.

        ``positions`` (3, tokens). Returns where the span lies in the pass.
        """
        span = slice(len(self.ids), len(self.ids) + len(ids))
        self.ids += ids
        self.positions.append(positions)
        self._spans.append((span, visible))
        return span

    def put_features(self, index: int, features: PatchFeatures) -> None:
        """Let ``features`` replace the embeddings of the placeholders from ``index`` on."""
        self.features.append((index, features))

    @property
    def layout(self) -> Hashable:
        """What `mask` depends on; the passes of one episode have few different ones."""
        return tuple(
            (span.start, span.stop, *((other.start, other.stop) for other in visible))
            for span, visible in self._spans
        )

    def mask(self, dtype: torch.dtype, tokens: int) -> torch.Tensor:
        """0 where a token of the pass (row) sees another (column), -inf elsewhere: (tokens, tokens).

        ``tokens`` may be more than the pass has; the others see themselves alone.
        """
        sees = np.eye(tokens, dtype=bool)
        for span, visible in self._spans:
            for other in visible:
                sees[span, other] = True
            sees[span, span] = np.tri(span.stop - span.start, dtype=bool)
        return torch.from_numpy(np.where(sees, np.float32(0), np.float32(-np.inf))).to(dtype)


class LanguageModel:
    """Runs the language model of a loaded Qwen3-VL, with the weights that it has at construction."""

    def __init__(self, model: Qwen3VLForConditionalGeneration, graphs: GraphRunner | None = None) -> None:
        """``graphs``: of the model's device, where passes may run as CUDA graphs."""
        language: Any = model.model.language_model
        vision: Any = model.config.vision_config
        packer = Packer(language, any_length=True)
        self.head = model.lm_head
        self.device, self.dtype = model.device, model.dtype
        self.embed = language.embed_tokens
        self.deepstack_layers = len(
            vision.deepstack_visual_indexes
        )  #: the first ones, after which features are added
        config = language.config
        self.groups: int = config.num_attention_heads // config.num_key_value_heads  #: heads that share keys
        self.key_heads: int = config.num_key_value_heads
        self.head_size: int = language.layers[0].self_attn.head_dim
        self._rotary = language.rotary_emb
        self._layers = [_Layer(layer, config.hidden_act, packer) for layer in language.layers]
        # Before each layer, and behind the last.
        self._norms = [_norm_of(layer.input_layernorm) for layer in language.layers] + [
            _norm_of(language.norm)
        ]
        self._graphs = graphs
        self._joint_graphs = GraphCache(worth=_JOINT_WORTH)  # of several videos at once
        self._token_step = CPU_TOKEN_STEP if self.device.type == "cpu" else 1

    @property
    def captured_functions(self) -> LayerFunctions:
        """What captured passes call between the matrix products."""
        return PLAIN if self._graphs is None else self._graphs.functions

    def run(self, passes: Sequence[Pass]) -> torch.Tensor:
        """Run ``passes`` and extend their KV caches; returns the hidden states (answers of all, hidden).

        The passes have different caches, and at least one token each.
        """
        if self._graphs is None:
            hidden = self._run_eagerly(passes)
        elif all(each.answer_positions and each.start for each in passes):
            hidden = self._run_by_graph(passes, self._graphs)
        else:
            self._graphs.discard_pending(self)
            hidden = self._run_eagerly(passes)
        for each in passes:
            each.cache.length = each.start + len(each.ids)
        return hidden

    def _run_by_graph(self, passes: Sequence[Pass], graphs: GraphRunner) -> torch.Tensor:
        """Replay the graph for these shapes and caches, where there is one."""
        # One graph serves all orders in which the same episodes may come.
        order = sorted(range(len(passes)), key=lambda number: id(passes[number].cache.graphs))
        ordered = [passes[number] for number in order]
        caches = [each.cache for each in ordered]
        places = [cache.graphs for cache in caches]
        shapes = [self._captured_shape(each) for each in ordered]
        alone = len(passes) == 1
        # No number names two caches: with a cache the graphs go that it is part of.
        shape = shapes[0] if alone else _JointShape(tuple(shapes), tuple(map(id, places)))
        (hidden,) = graphs.run(
            owner=self,
            cache=places[0] if alone else self._joint_graphs,
            shape=shape,
            inputs=ordered,
            make_work=lambda: _PassWork(self, caches, shapes),
            run_eagerly=lambda: [self._run_eagerly(ordered)],
            others=() if alone else places,
        )
        if alone:
            return hidden
        answers = torch.split(hidden, [shape.answers for shape in shapes])
        return torch.cat([answers[order.index(number)] for number in range(len(passes))])

    def _captured_shape(self, single: Pass) -> _PassShape:
        """The shape of the graph that ``single`` can run by; makes room for its padding, too."""
        tokens = rounded_up(len(single.ids), TOKEN_STEP)
        single.cache.reserve(single.start + tokens)
        max_context = single.cache.capacity
        if not has_flash(self.device, self.dtype):
            max_context = min(max_context, rounded_up(single.start, _CONTEXT_STEP))
        return _PassShape(tokens, len(single.answer_positions), max_context)

    def _run_eagerly(self, passes: Sequence[Pass]) -> torch.Tensor:
        streams, ids, positions = [], list[int](), []
        for each in passes:
            count = rounded_up(len(each.ids), self._token_step)
            padding = count - len(each.ids)  # behind the pass's tokens: none of these sees it
            each.cache.reserve(each.start + count)
            tokens = slice(len(ids), len(ids) + count)
            ids += each.ids + [each.ids[-1]] * padding
            positions.append(nn.functional.pad(torch.cat(each.positions, dim=1), (0, padding)))
            positions_of_answers = send(torch.tensor(each.answer_positions, dtype=torch.long), self.device)
            mask = send(each.mask(self.dtype, mask_width(count, self.device))[:count], self.device)
            mask = mask.repeat(self.groups, 1, 1)[..., :count]
            streams.append(_Stream(HostOffset(each.cache, each.start), tokens, mask, positions_of_answers))
        hidden = self.embed(send(torch.tensor([ids]), self.device))  # (1, tokens, hidden)
        deepstack = hidden.new_zeros(self.deepstack_layers, *hidden.shape)
        for stream, each in zip(streams, passes, strict=True):
            _insert_features(each, hidden[0, stream.tokens], deepstack[:, 0, stream.tokens])
        return self.run_layers(
            hidden, deepstack, send(torch.cat(positions, dim=1)[:, None], self.device), streams
        )

    def run_layers(
        self,
        hidden: torch.Tensor,
        deepstack: torch.Tensor,
        positions: torch.Tensor,
        streams: Sequence[_Stream],
        functions: LayerFunctions = PLAIN,
    ) -> torch.Tensor:
        """All layers on embedded tokens: the hot path.

        ``hidden`` (1, tokens, hidden); ``deepstack`` (layers, 1, tokens, hidden); ``positions``
        (3, 1, tokens). Returns (answers of all, hidden).
        """
        cos, sin = self._rotary(hidden, positions)
        rotary = (cos[:, None], sin[:, None])  # (1, 1, tokens, head size), for all heads
        normed = rms_norm(hidden, *self._norms[0])
        last = len(self._layers) - 1
        for number, layer in enumerate(self._layers):
            if number == last:
                streams = [stream.only_answers() for stream in streams]
            hidden, added = layer(number, hidden, normed, rotary, streams, functions)
            if number < min(len(deepstack), last):
                added = added + deepstack[number]
            hidden, normed = functions.add_and_norm(hidden, added, *self._norms[number + 1])
        return normed[0]


def _insert_features(single: Pass, hidden: torch.Tensor, deepstack: torch.Tensor) -> None:
    """Put the features of the pass's patches into ``hidden`` (tokens, hidden), and those for the first
    layers into ``deepstack`` (layers, tokens, hidden), which holds zeros.
    """
    for index, features in single.features:
        placeholders = slice(index, index + len(features.embeddings))
        hidden[placeholders] = features.embeddings.to(hidden.dtype)
        for layer, added in enumerate(features.deepstack):
            deepstack[layer, placeholders] = added.to(hidden.dtype)


class _Stream(NamedTuple):
    """The tokens of one pass among those that run together."""

    writer: KVWriter
    tokens: slice
    mask: torch.Tensor  #: (heads that share keys, queries, tokens), see `Pass.mask`
    answer_positions: torch.Tensor  #: among ``tokens``
    queries: torch.Tensor | None = None  #: positions, among all tokens, of those computed; None: all

    def only_answers(self) -> _Stream:
        """The same stream, of which only the answering tokens are computed."""
        return self._replace(
            mask=self.mask[:, self.answer_positions], queries=self.answer_positions + self.tokens.start
        )


class _Norm(NamedTuple):
    """What `rms_norm` takes."""

    weight: torch.Tensor
    epsilon: float


def _norm_of(module: Any) -> _Norm:
    return _Norm(module.weight, module.variance_epsilon)


class _Layer:
    """A decoder layer, behind its first norm."""

    def __init__(self, layer: Any, activation: str, packer: Packer) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._head_size: int = attention.head_dim
        self._scaling: float = attention.scaling
        self._mlp_norm = _norm_of(layer.post_attention_layernorm)
        self._query_norm, (self._key_norm, self._epsilon) = (
            attention.q_norm.weight,
            _norm_of(attention.k_norm),
        )
        self._products = packer.products(attention.q_proj, attention.k_proj, attention.v_proj)
        self._out = packer.products(attention.o_proj)
        is_dense = hasattr(mlp, "gate_proj")  # not a mixture of experts
        self._mlp = _mlp_of(mlp, activation, packer) if is_dense else lambda hidden, _: mlp(hidden)

    def __call__(
        self,
        number: int,
        hidden: torch.Tensor,
        normed: torch.Tensor,
        rotary: tuple[torch.Tensor, torch.Tensor],
        streams: Sequence[_Stream],
        functions: LayerFunctions,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Apply layer ``number`` to (1, tokens, hidden) and its norm.

        Returns what is to be added up to (1, queries of all streams, hidden).
        """
        query_rotary = rotary
        chosen = [stream.queries for stream in streams if stream.queries is not None]
        if chosen:
            at = torch.cat(chosen)
            keys, values = self._products(normed, slice(1, 3), functions)
            hidden, normed = hidden[:, at], normed[:, at]
            query_rotary = (rotary[0][..., at, :], rotary[1][..., at, :])
            (queries,) = self._products(normed, slice(0, 1), functions)
        else:
            queries, keys, values = self._products(normed, functions=functions)
        norms = (self._query_norm, self._key_norm, self._epsilon)
        queries, keys = functions.rotate(queries, keys, *norms, query_rotary, rotary)
        values = torch.unflatten(values, -1, (keys.shape[1], self._head_size)).transpose(1, 2)
        attended, start = [], 0
        for stream in streams:
            rows = slice(start, start + stream.mask.shape[1])
            start = rows.stop
            new = (keys[:, :, stream.tokens], values[:, :, stream.tokens])
            context = stream.writer.write(number, *new)
            if stream.mask.shape[1]:
                mask = stream.mask.flatten(0, 1)
                attention = attend(queries[:, :, rows], *new, mask, context, self._scaling, functions)
                attended.append(attention.flatten(2))
        if not start:  # the cache is extended, and no answer requested
            return hidden, hidden
        joined = torch.cat(attended, dim=1) if len(attended) > 1 else attended[0]
        (added,) = self._out(joined, functions=functions)
        hidden, normed = functions.add_and_norm(hidden, added, *self._mlp_norm)
        return hidden, self._mlp(normed, functions)


_Mlp = Callable[[torch.Tensor, LayerFunctions], torch.Tensor]


def _mlp_of(mlp: Any, activation: str, packer: Packer) -> _Mlp:
    """The gated feed-forward part of a layer."""
    if packer.packs:  # the activation is part of the product
        gate, up = packer.linear(mlp.gate_proj, mlp.act_fn, activation), packer.linear(mlp.up_proj)
        packed = packer.linear(mlp.down_proj)
        return lambda hidden, _: packed(gate(hidden) * up(hidden))
    products, down = packer.products(mlp.gate_proj, mlp.up_proj), packer.products(mlp.down_proj)
    act, is_silu = mlp.act_fn, activation == "silu"

    def run(hidden: torch.Tensor, functions: LayerFunctions) -> torch.Tensor:
        gates, values = products(hidden, functions=functions)
        gated = functions.gate(gates, values) if is_silu else act(gates) * values
        (made,) = down(gated, functions=functions)
        return made

    return run


class _PassShape(NamedTuple):
    """What is fixed in a captured pass, and tells its graph from others."""

    tokens: int
    answers: int
    max_context: int  #: cached tokens that it can attend to

    def __str__(self) -> str:
        size = f"{self.tokens} tokens and {self.answers} answers"
        return f"a pass of {size} behind up to {self.max_context} tokens"


class _JointShape(NamedTuple):
    """What is fixed in a captured pass of several videos."""

    passes: tuple[_PassShape, ...]
    caches: tuple[int, ...]  #: of each, by identity

    def __str__(self) -> str:
        tokens = sum(shape.tokens for shape in self.passes)
        answers = sum(shape.answers for shape in self.passes)
        return f"a pass of {len(self.passes)} videos, {tokens} tokens and {answers} answers"


def pass_work(model: LanguageModel, cache: KVCache, tokens: int, answers: int) -> GraphWork:
    """A pass of ``tokens`` and ``answers`` behind what is in ``cache``, as it is captured."""
    return _PassWork(model, [cache], [_PassShape(tokens, answers, cache.capacity)])


class _PassWork(GraphWork):
    """A pass of some videos behind KV caches whose tensors are not replaced."""

    def __init__(self, model: LanguageModel, caches: Sequence[KVCache], shapes: Sequence[_PassShape]) -> None:
        self._model, self._shapes = model, shapes
        self._layers = [list(cache.layers) for cache in caches]
        counts = [shape.tokens for shape in shapes]
        answers = [shape.answers for shape in shapes]
        self._total, device = sum(counts), model.device
        # All whole numbers in one tensor: one copy to the device.
        sizes = [self._total, 3 * self._total, self._total, sum(answers), len(shapes)]
        self._numbers = torch.zeros(sum(sizes), dtype=torch.long, device=device)
        self._ids, positions, slots, answer_positions, starts = torch.split(self._numbers, sizes)
        self._positions = positions.view(3, 1, self._total)
        self._slots = torch.split(slots, counts)
        self._answer_positions = torch.split(answer_positions, answers)
        self._starts = torch.split(starts, 1)
        ends = list(accumulate(counts))
        self._tokens = [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]
        self._masks = [torch.zeros(count, count, dtype=model.dtype, device=device) for count in counts]
        self._layouts: list[Hashable] = [None] * len(shapes)  # of the masks
        self._hidden = model.embed(self._ids[None])
        self._deepstack = self._hidden.new_zeros(model.deepstack_layers, *self._hidden.shape)

    def load(self, inputs: Sequence[Pass]) -> None:
        """See `GraphWork.load`. Padding goes behind a pass's tokens, and none of these sees it."""
        ids, positions, slots = list[int](), [], []
        for each, shape in zip(inputs, self._shapes, strict=True):
            padding = shape.tokens - len(each.ids)
            ids += each.ids + [each.ids[-1]] * padding
            positions.append(nn.functional.pad(torch.cat(each.positions, dim=1), (0, padding)))
            slots.append(torch.arange(each.start, each.start + shape.tokens))
        ends = [
            *(place for each in inputs for place in each.answer_positions),
            *(each.start for each in inputs),
        ]
        numbers = [torch.tensor(ids), torch.cat(positions, dim=1).flatten(), *slots, torch.tensor(ends)]
        self._numbers.copy_(send(torch.cat(numbers), self._model.device))
        self._hidden.copy_(self._model.embed(self._ids[None]))
        self._deepstack.zero_()
        for number, (each, tokens) in enumerate(zip(inputs, self._tokens, strict=True)):
            if each.layout != self._layouts[number]:  # a mask takes longest to make, and is seldom another
                mask = each.mask(self._model.dtype, self._shapes[number].tokens)
                self._masks[number].copy_(send(mask, self._model.device))
                self._layouts[number] = each.layout
            _insert_features(each, self._hidden[0, tokens], self._deepstack[:, 0, tokens])

    def run(self) -> list[torch.Tensor]:
        """See `GraphWork.run`."""
        streams = []
        for number, shape in enumerate(self._shapes):
            valid = ValidLength(self._starts[number], shape.max_context, self._model.dtype)
            writer = DeviceOffset(self._layers[number], self._slots[number], shape.max_context, valid)
            mask = self._masks[number].repeat(self._model.groups, 1, 1)
            streams.append(_Stream(writer, self._tokens[number], mask, self._answer_positions[number]))
        inputs = (self._hidden, self._deepstack, self._positions, streams)
        return [self._model.run_layers(*inputs, self._model.captured_functions)]
