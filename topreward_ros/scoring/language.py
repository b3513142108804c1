"""The language model on new tokens behind what it remembers, of one video or of several at once.

It is the model's own arithmetic on the model's own weights (`Qwen3VLTextModel`), written out for three
reasons: keys and values are written in place; what nobody asks for is not computed (of the last layer, only
the tokens that answer); and several videos share every matrix product while each attends to its own memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from topreward_ros.scoring.attention import attend, rotate
from topreward_ros.scoring.device import send

if TYPE_CHECKING:
    from transformers import Qwen3VLForConditionalGeneration


class PatchFeatures(NamedTuple):
    """What the vision model makes of a patch. A token stands for a block of merged pixel patches."""

    rows: int  #: of tokens
    columns: int
    embeddings: torch.Tensor  #: (rows * columns, hidden), take the place of the pads' embeddings
    deepstack: list[torch.Tensor]  #: (rows * columns, hidden) each, added after the first language layers


class KeysAndValues:
    """Of one video, in place: written behind ``length``, kept only when ``length`` is moved past them."""

    def __init__(self) -> None:
        self.length = 0
        self._capacity = 0
        self._stores: list[torch.Tensor] = []  # per layer (2, 1, heads, capacity, head size): keys, values

    def reserve(self, tokens: int) -> None:
        """Make room for ``tokens`` in all; grows by a quarter at least, so that copies stay rare."""
        if tokens <= self._capacity:
            return
        self._capacity = max(tokens, self._capacity + self._capacity // 4)
        for layer, old in enumerate(self._stores):
            self._stores[layer] = old.new_empty(*old.shape[:3], self._capacity, old.shape[4])
            self._stores[layer][..., : self.length, :] = old[..., : self.length, :]

    @property
    def bytes(self) -> int:
        return sum(store.numel() * store.itemsize for store in self._stores)

    def write(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Put those of new tokens, (1, heads, tokens, head size), behind ``length``.

        Returns all up to these, (2, 1, heads, length + tokens, head size).
        """
        if layer == len(self._stores):
            _, heads, _, head_size = keys.shape
            self._stores.append(keys.new_empty(2, 1, heads, self._capacity, head_size))
        total = self.length + keys.shape[2]
        store = self._stores[layer][..., :total, :]
        store[0][..., self.length :, :] = keys
        store[1][..., self.length :, :] = values
        return store


class Pass:
    """Tokens of one video that run through the language model at once, behind what is in ``memory``."""

    def __init__(self, memory: KeysAndValues) -> None:
        self.memory = memory
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

    def bias(self, dtype: torch.dtype) -> torch.Tensor:
        """0 where a token of the pass (rows) sees another (columns), -inf elsewhere: (tokens, tokens)."""
        sees = np.zeros((len(self.ids), len(self.ids)), bool)
        for span, seen in self._spans:
            for other in seen:
                sees[span, other] = True
            sees[span, span] = np.tri(span.stop - span.start, dtype=bool)
        return torch.from_numpy(np.where(sees, np.float32(0), np.float32(-np.inf))).to(dtype)


def run_passes(model: Qwen3VLForConditionalGeneration, passes: Sequence[Pass]) -> torch.Tensor:
    """Take the tokens of all ``passes`` into their memories; hidden states (ends, hidden) after their ends.

    The passes have different memories, and one token each at least.
    """
    language: Any = model.model.language_model
    device = model.device
    streams = _streams(passes, model.dtype, device)
    ids = [token for one in passes for token in one.ids]
    hidden = language.embed_tokens(send(torch.tensor([ids]), device))  # (1, tokens, hidden)
    positions = torch.cat([place for one in passes for place in one.positions], dim=1)
    cosine, sine = language.rotary_emb(hidden, send(positions[:, None], device))
    turn = (cosine[:, None], sine[:, None])  # (1, 1, tokens, head size), for all heads
    for stream, one in zip(streams, passes, strict=True):
        for pads, features in _pads(stream, one):
            hidden[0, pads] = features.embeddings.to(hidden.dtype)
    *layers, last = language.layers
    for number, layer in enumerate(layers):
        hidden = _run_layer(layer, number, hidden, turn, streams)
        for stream, one in zip(streams, passes, strict=True):
            for pads, features in _pads(stream, one):
                if number < len(features.deepstack):
                    hidden[0, pads] += features.deepstack[number].to(hidden.dtype)
    hidden = _run_layer(last, len(layers), hidden, turn, [stream.answering() for stream in streams])
    for stream in streams:
        stream.memory.length += stream.tokens.stop - stream.tokens.start
    normed: torch.Tensor = language.norm(hidden)
    return normed[0]


class _Stream(NamedTuple):
    """The tokens of one pass among those that run together."""

    memory: KeysAndValues
    tokens: slice
    bias: torch.Tensor  #: (asking tokens, tokens), see `attend`
    ends: torch.Tensor  #: among ``tokens``
    asking: torch.Tensor | None = None  #: the tokens whose outcome matters, among all; None: all

    def answering(self) -> _Stream:
        """The same, where nothing matters but what stands at the ends."""
        return self._replace(bias=self.bias[self.ends], asking=self.ends + self.tokens.start)


def _streams(passes: Sequence[Pass], dtype: torch.dtype, device: torch.device) -> list[_Stream]:
    streams, start = [], 0
    for one in passes:
        tokens = slice(start, start + len(one.ids))
        start = tokens.stop
        one.memory.reserve(one.memory.length + len(one.ids))
        ends = send(torch.tensor(one.ends, dtype=torch.long), device)
        streams.append(_Stream(one.memory, tokens, send(one.bias(dtype), device), ends))
    return streams


def _pads(stream: _Stream, one: Pass) -> list[tuple[slice, PatchFeatures]]:
    """Where in the joined stream the features of each patch belong."""
    places = [(stream.tokens.start + place, features) for place, features in one.seen]
    return [(slice(place, place + len(features.embeddings)), features) for place, features in places]


def _run_layer(
    layer: Any,
    number: int,
    hidden: torch.Tensor,
    turn: tuple[torch.Tensor, torch.Tensor],
    streams: Sequence[_Stream],
) -> torch.Tensor:
    """One decoder layer on (1, tokens, hidden); gives back those that matter, in order."""
    attention = layer.self_attn
    heads = (-1, attention.head_dim)
    normed = layer.input_layernorm(hidden)
    keys = attention.k_norm(attention.k_proj(normed).unflatten(-1, heads)).transpose(1, 2)
    keys = rotate(keys, *turn)
    values = attention.v_proj(normed).unflatten(-1, heads).transpose(1, 2)
    chosen = None
    if streams[0].asking is not None:
        chosen = torch.cat([stream.asking for stream in streams if stream.asking is not None])
        hidden, normed = hidden[:, chosen], normed[:, chosen]
        turn = (turn[0][..., chosen, :], turn[1][..., chosen, :])
    queries = attention.q_norm(attention.q_proj(normed).unflatten(-1, heads)).transpose(1, 2)
    queries = rotate(queries, *turn)
    outcomes, start = [], 0
    for stream in streams:
        rows = slice(start, start + len(stream.bias))
        start = rows.stop
        store = stream.memory.write(number, keys[:, :, stream.tokens], values[:, :, stream.tokens])
        if len(stream.bias):
            query = queries[:, :, rows]
            outcomes.append(attend(query, store[0], store[1], stream.bias, attention.scaling))
    if not start:  # taken into memory, nothing asked
        return hidden
    attended = torch.cat(outcomes, dim=2) if len(outcomes) > 1 else outcomes[0]
    hidden += attention.o_proj(attended.transpose(1, 2).flatten(2))
    hidden += layer.mlp(layer.post_attention_layernorm(hidden))
    return hidden
