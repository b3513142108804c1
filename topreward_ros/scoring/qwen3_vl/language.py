"""The language model on new tokens behind what it remembers, of one video or of several at once.

It is the model's own arithmetic on the model's own weights (`Qwen3VLTextModel`), written out for four
reasons: keys and values are written in place; what nobody asks for is not computed (of the last layer, only
the tokens that answer); several videos share every matrix product while each attends to its own memory; and
on a GPU a pass of one video is a recording, as shapes and places can be held fixed (`recording`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch

from topreward_ros.scoring.device import send
from topreward_ros.scoring.qwen3_vl.attention import (
    MOST_PARTS,
    Filled,
    Older,
    attend,
    has_flash,
    mask_width,
    rotate,
    rounded_up,
)
from topreward_ros.scoring.qwen3_vl.cuda_graphs import Recorder, Recordings, Work
from topreward_ros.scoring.qwen3_vl.linear import Packer

if TYPE_CHECKING:
    from transformers import Qwen3VLForConditionalGeneration

#: A recorded pass is filled up to a multiple of so many tokens, so that a time of one more digit needs no
#: recording of its own.
TOKENS_AT_A_TIME = 16
_REACH = 2048  # tokens; a recording that attends by a mask reads a multiple of so many older ones


class PatchFeatures(NamedTuple):
    """What the vision model makes of a patch. A token stands for a block of merged pixel patches."""

    rows: int  #: of tokens
    columns: int
    embeddings: torch.Tensor  #: (rows * columns, hidden), take the place of the pads' embeddings
    deepstack: list[torch.Tensor]  #: (rows * columns, hidden) each, added after the first language layers


class KeysAndValues:
    """Of one video, in place: what stands behind ``length`` is written over."""

    def __init__(self) -> None:
        self.length = 0
        self.capacity = 0
        self.stores: list[torch.Tensor] = []  #: per layer (2, 1, heads, capacity, head size): keys, values
        self.recordings = Recordings()  #: of passes behind this memory

    def reserve(self, tokens: int) -> None:
        """Make room for ``tokens`` in all; grows by a quarter at least, so that copies stay rare."""
        if tokens <= self.capacity:
            return
        self.recordings.clear()  # they write where the memory was
        self.capacity = max(tokens, self.capacity + self.capacity // 4)
        for layer, old in enumerate(self.stores):
            self.stores[layer] = old.new_zeros(*old.shape[:3], self.capacity, old.shape[4])
            self.stores[layer][..., : self.length, :] = old[..., : self.length, :]

    @property
    def bytes(self) -> int:
        return sum(store.numel() * store.itemsize for store in self.stores)

    def write(self, layer: int, start: int, keys: torch.Tensor, values: torch.Tensor) -> Older:
        """Put those of new tokens, (1, heads, tokens, head size), behind ``start``; returns all before."""
        if layer == len(self.stores):
            _, heads, _, head_size = keys.shape
            # Zeros: a kernel that masks them still multiplies by them.
            self.stores.append(keys.new_zeros(2, 1, heads, self.capacity, head_size))
        store = self.stores[layer]
        store[0][..., start : start + keys.shape[2], :] = keys
        store[1][..., start : start + keys.shape[2], :] = values
        return Older(store[0][..., :start, :], store[1][..., :start, :])


class Pass:
    """Tokens of one video that run through the language model at once, behind what is in ``memory``."""

    def __init__(self, memory: KeysAndValues) -> None:
        self.memory = memory
        self.start = memory.length
        self.ids: list[int] = []
        self.positions: list[torch.Tensor] = []  #: (3, tokens) each
        self.seen: list[tuple[int, PatchFeatures]] = []  #: place of a patch's first pad, and what goes there
        self.ends: list[int] = []  #: places of the tokens after which an answer is wanted
        self._spans: list[tuple[slice, list[slice]]] = []  # tokens in a row, and those of the pass they see

    def append(self, ids: list[int], positions: torch.Tensor, seen: list[slice]) -> slice:
        """Add tokens in a row that see all of the memory, ``seen``, and each what stands before it."""
        span = slice(len(self.ids), len(self.ids) + len(ids))
        self.ids += ids
        self.positions.append(positions)
        self._spans.append((span, seen))
        return span

    def see(self, place: int, features: PatchFeatures) -> None:
        self.seen.append((place, features))

    def bias(self, dtype: torch.dtype, tokens: int) -> torch.Tensor:
        """0 where a token of the pass (rows) sees another (columns), -inf elsewhere: (tokens, tokens).

        Those beyond the pass see themselves alone.
        """
        sees = np.eye(tokens, dtype=bool)
        for span, seen in self._spans:
            for other in seen:
                sees[span, other] = True
            sees[span, span] = np.tri(span.stop - span.start, dtype=bool)
        return torch.from_numpy(np.where(sees, np.float32(0), np.float32(-np.inf))).to(dtype)


class LanguageModel:
    """Runs the language model of a loaded Qwen3-VL. Its weights count as they are when this is made."""

    def __init__(self, model: Qwen3VLForConditionalGeneration, recorder: Recorder | None = None) -> None:
        language: Any = model.model.language_model
        vision: Any = model.config.vision_config
        packer = Packer(language)
        self.head = model.lm_head
        self.device, self.dtype = model.device, model.dtype
        self.embed = language.embed_tokens
        self.deepstack = len(vision.deepstack_visual_indexes)  #: layers after which features are added
        config = language.config
        self.groups: int = config.num_attention_heads // config.num_key_value_heads  #: heads that share keys
        self._rotary, self._norm = language.rotary_emb, language.norm
        self._layers = [_Layer(layer, config.hidden_act, packer) for layer in language.layers]
        self._recorder = recorder

    def run(self, passes: Sequence[Pass]) -> torch.Tensor:
        """Take all ``passes`` into their memories; hidden states (ends, hidden) after their ends.

        The passes have different memories, and one token each at least.
        """
        if self._recorder is None:
            hidden = self._run_as_is(passes)
        elif len(passes) == 1 and passes[0].ends and passes[0].start >= MOST_PARTS:
            hidden = self._run_recorded(passes[0], self._recorder)
        else:
            self._recorder.forget(self)
            hidden = self._run_as_is(passes)
        for one in passes:
            one.memory.length = one.start + len(one.ids)
        return hidden

    def _run_recorded(self, one: Pass, recorder: Recorder) -> torch.Tensor:
        """By a recording where there is one, of this shape and behind this memory."""
        tokens = rounded_up(len(one.ids), TOKENS_AT_A_TIME)
        one.memory.reserve(one.start + tokens)
        reach = one.memory.capacity
        if not has_flash(self.device, self.dtype):
            reach = min(reach, rounded_up(one.start, _REACH))
        shape = _Shape(tokens, len(one.ends), reach)
        (hidden,) = recorder.run(
            *(self, one.memory.recordings, shape, one),
            make_work=lambda: _RecordedPass(self, one.memory, shape),
            run_unrecorded=lambda: [self._run_as_is([one])],
        )
        return hidden

    def _run_as_is(self, passes: Sequence[Pass]) -> torch.Tensor:
        streams, start = [], 0
        for one in passes:
            one.memory.reserve(one.start + len(one.ids))
            tokens = slice(start, start + len(one.ids))
            start = tokens.stop
            ends = send(torch.tensor(one.ends, dtype=torch.long), self.device)
            width = mask_width(len(one.ids), self.device)
            bias = send(one.bias(self.dtype, width)[: len(one.ids)], self.device)
            bias = bias.repeat(self.groups, 1, 1)[..., : len(one.ids)]
            streams.append(_Stream(_Behind(one.memory, one.start), tokens, bias, ends))
        ids = torch.tensor([[token for one in passes for token in one.ids]])
        hidden = self.embed(send(ids, self.device))  # (1, tokens, hidden)
        deepstack = hidden.new_zeros(self.deepstack, *hidden.shape)
        for stream, one in zip(streams, passes, strict=True):
            put_features(one, hidden[0, stream.tokens], deepstack[:, 0, stream.tokens])
        positions = torch.cat([place for one in passes for place in one.positions], dim=1)
        return self.run_layers(hidden, deepstack, send(positions[:, None], self.device), streams)

    def run_layers(
        self,
        hidden: torch.Tensor,
        deepstack: torch.Tensor,
        positions: torch.Tensor,
        streams: Sequence[_Stream],
    ) -> torch.Tensor:
        """The hot path. ``hidden`` (1, tokens, hidden) is written over; ``positions`` (3, 1, tokens);
        ``deepstack`` (layers, 1, tokens, hidden). Returns (ends, hidden).
        """
        cosine, sine = self._rotary(hidden, positions)
        turn = (cosine[:, None], sine[:, None])  # (1, 1, tokens, head size), for all heads
        *layers, last = self._layers
        for number, layer in enumerate(layers):
            hidden = layer(number, hidden, turn, streams)
            if number < len(deepstack):
                hidden += deepstack[number]
        hidden = last(len(layers), hidden, turn, [stream.answering() for stream in streams])
        normed: torch.Tensor = self._norm(hidden)
        return normed[0]


def put_features(one: Pass, hidden: torch.Tensor, deepstack: torch.Tensor) -> None:
    """Put the features of the pass's patches into ``hidden`` (tokens, hidden), and those for the first
    layers into ``deepstack`` (layers, tokens, hidden), which is 0.
    """
    for place, features in one.seen:
        pads = slice(place, place + len(features.embeddings))
        hidden[pads] = features.embeddings.to(hidden.dtype)
        for layer, added in enumerate(features.deepstack):
            deepstack[layer, pads] = added.to(hidden.dtype)


class _Memory(Protocol):
    """Where a pass leaves keys and values of its tokens, and what its tokens see beside themselves."""

    def write(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> Older: ...


class _Behind(NamedTuple):
    """The memory of a video, behind a length that is known."""

    memory: KeysAndValues
    start: int

    def write(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> Older:
        return self.memory.write(layer, self.start, keys, values)


class _Anywhere(NamedTuple):
    """The memory of a video, behind a length that stands on the device."""

    stores: list[torch.Tensor]
    places: torch.Tensor  #: (tokens,) in the stores
    reach: int  #: tokens of the stores that may be there
    filled: Filled  #: and how many are

    def write(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> Older:
        store = self.stores[layer]
        store[0].index_copy_(2, self.places, keys)
        store[1].index_copy_(2, self.places, values)
        return Older(store[0][:, :, : self.reach], store[1][:, :, : self.reach], self.filled)


class _Stream(NamedTuple):
    """The tokens of one pass among those that run together."""

    memory: _Memory
    tokens: slice
    bias: torch.Tensor  #: (heads that share keys, asking tokens, tokens), see `Pass.bias`
    ends: torch.Tensor  #: among ``tokens``
    asking: torch.Tensor | None = None  #: the tokens whose outcome matters, among all; None: all

    def answering(self) -> _Stream:
        """The same, where nothing matters but what stands at the ends."""
        return self._replace(bias=self.bias[:, self.ends], asking=self.ends + self.tokens.start)


class _Layer:
    """A decoder layer."""

    def __init__(self, layer: Any, activation: str, packer: Packer) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._head_size: int = attention.head_dim
        self._scaling: float = attention.scaling
        self._norm, self._mlp_norm = layer.input_layernorm, layer.post_attention_layernorm
        self._query_norm, self._key_norm = attention.q_norm, attention.k_norm
        self._query, self._key = packer.linear(attention.q_proj), packer.linear(attention.k_proj)
        self._value, self._out = packer.linear(attention.v_proj), packer.linear(attention.o_proj)
        self._mlp = mlp
        if hasattr(mlp, "gate_proj"):  # not a mixture of experts
            gate, up = packer.linear(mlp.gate_proj, mlp.act_fn, activation), packer.linear(mlp.up_proj)
            down = packer.linear(mlp.down_proj)
            self._mlp = lambda hidden: down(gate(hidden) * up(hidden))

    def __call__(
        self,
        number: int,
        hidden: torch.Tensor,
        turn: tuple[torch.Tensor, torch.Tensor],
        streams: Sequence[_Stream],
    ) -> torch.Tensor:
        """On (1, tokens, hidden), as layer ``number``; gives back those that matter, in order."""
        normed = self._norm(hidden)
        keys = rotate(self._key_norm(self._by_heads(self._key(normed))).transpose(1, 2), *turn)
        values = self._by_heads(self._value(normed)).transpose(1, 2)
        chosen = [stream.asking for stream in streams if stream.asking is not None]
        if chosen:
            asking = torch.cat(chosen)
            hidden, normed = hidden[:, asking], normed[:, asking]
            turn = (turn[0][..., asking, :], turn[1][..., asking, :])
        queries = rotate(self._query_norm(self._by_heads(self._query(normed))).transpose(1, 2), *turn)
        outcomes, start = [], 0
        for stream in streams:
            rows = slice(start, start + stream.bias.shape[1])
            start = rows.stop
            new = (keys[:, :, stream.tokens], values[:, :, stream.tokens])
            older = stream.memory.write(number, *new)
            if stream.bias.shape[1]:
                bias = stream.bias.flatten(0, 1)
                outcomes.append(attend(queries[:, :, rows], *new, bias, older, self._scaling))
        if not start:  # taken into memory, nothing asked
            return hidden
        attended = torch.cat(outcomes, dim=2) if len(outcomes) > 1 else outcomes[0]
        hidden += self._out(attended.transpose(1, 2).flatten(2))
        hidden += self._mlp(self._mlp_norm(hidden))
        return hidden

    def _by_heads(self, hidden: Any) -> Any:
        return hidden.unflatten(-1, (hidden.shape[-1] // self._head_size, self._head_size))


class _Shape(NamedTuple):
    """What is fixed in a recorded pass."""

    tokens: int
    ends: int
    reach: int  #: older tokens that it can attend to

    def __str__(self) -> str:
        return f"a pass of {self.tokens} tokens and {self.ends} answers behind up to {self.reach} tokens"


class _RecordedPass(Work):
    """A pass of one video behind a memory that stays in its place."""

    def __init__(self, model: LanguageModel, memory: KeysAndValues, shape: _Shape) -> None:
        self._model, self._shape = model, shape
        self._stores = list(memory.stores)
        tokens, device = shape.tokens, model.device
        # All whole numbers in one tensor, so that they travel at once.
        self._numbers = torch.zeros(5 * tokens + shape.ends + 1, dtype=torch.long, device=device)
        sizes = [tokens, 3 * tokens, tokens, shape.ends, 1]
        self._ids, positions, self._places, self._ends, self._start = torch.split(self._numbers, sizes)
        self._positions = positions.view(3, 1, tokens)
        self._bias = torch.zeros(tokens, tokens, dtype=model.dtype, device=device)
        self._hidden = model.embed(self._ids[None])
        self._deepstack = self._hidden.new_zeros(model.deepstack, *self._hidden.shape)

    def fill(self, given: Pass) -> None:
        """See `Work.fill`. The tokens that fill it up stand behind those of the pass, and see nothing new."""
        tokens, filled = self._shape.tokens, self._shape.tokens - len(given.ids)
        positions = torch.nn.functional.pad(torch.cat(given.positions, dim=1), (0, filled))
        numbers = torch.cat(
            [
                torch.tensor(given.ids + [given.ids[-1]] * filled),
                positions.flatten(),
                torch.arange(given.start, given.start + tokens),
                torch.tensor([*given.ends, given.start]),
            ]
        )
        self._numbers.copy_(send(numbers, self._model.device))
        self._bias.copy_(send(given.bias(self._model.dtype, tokens), self._model.device))
        self._hidden.copy_(self._model.embed(self._ids[None]))
        self._deepstack.zero_()
        put_features(given, self._hidden[0], self._deepstack[:, 0])

    def run(self) -> list[torch.Tensor]:
        """See `Work.run`."""
        reach = self._shape.reach
        filled = Filled(self._start, reach, self._model.dtype)
        memory = _Anywhere(self._stores, self._places, reach, filled)
        bias = self._bias.repeat(self._model.groups, 1, 1)
        stream = _Stream(memory, slice(0, self._shape.tokens), bias, self._ends)
        return [self._model.run_layers(self._hidden, self._deepstack, self._positions, [stream])]
