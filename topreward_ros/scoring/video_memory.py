"""The language model's memory of one video, and the pass that extends it and asks.

What was committed for the last prefix is compared with the patches of this one: the common beginning is
kept, the rest is rolled back, and what is new runs together with all prompts in one pass. The prompts are
written behind the video and never committed: the next call begins with moving the length back, no more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from transformers.cache_utils import Cache

from topreward_ros.core.frames import Frame
from topreward_ros.scoring.prompt_tree import PromptTree
from topreward_ros.scoring.prompts import PromptTokens

if TYPE_CHECKING:
    from transformers import Qwen3VLForConditionalGeneration

    from topreward_ros.scoring.base import ScorerSettings

#: Room for the tokens of a patch that are not pads: its time, and where vision starts and ends.
_TEXT_PER_PATCH = 16
#: New tokens of the video in one pass at most, so that catching up on a long one needs bounded memory.
_LONGEST_PASS = 2048


class Patch(NamedTuple):
    """Two frames that become one step of the video, and their time. Equal only for the same objects."""

    first: Frame
    second: Frame  #: the same as ``first`` for an odd last frame
    seconds: float  #: mean time of the two since the episode's first frame, to a tenth, as it is told


class PatchFeatures(NamedTuple):
    """What the vision model makes of a patch. A token stands for a block of merged pixel patches."""

    rows: int  #: of tokens
    columns: int
    embeddings: torch.Tensor  #: (rows * columns, hidden), take the place of the pads' embeddings
    deepstack: list[torch.Tensor]  #: (rows * columns, hidden) each, added after the first language layers


See = Callable[[list[Patch]], list[PatchFeatures]]


def patch_positions(start: int, before: int, rows: int, columns: int) -> tuple[torch.Tensor, int]:
    """M-RoPE positions (3, before + rows * columns + 1) of a patch's tokens, and the position after them.

    The three count time, row and column. In text all three count tokens; a patch stands at one time and
    spreads in rows and columns, and the text after it goes on behind its longer side.
    """
    corner = start + before
    after = corner + max(rows, columns)
    positions = torch.empty(3, before + rows * columns + 1, dtype=torch.long)
    positions[:, :before] = torch.arange(start, corner)
    grid = positions[:, before:-1].view(3, rows, columns)
    grid[0] = corner
    grid[1] = torch.arange(corner, corner + rows)[:, None]
    grid[2] = torch.arange(corner, corner + columns)[None, :]
    positions[:, -1] = after
    return positions, after + 1


class MemoryNeed(NamedTuple):
    """What scoring takes at most beside the weights, whatever the length of an episode."""

    keys_and_values: int  #: [bytes] of one video
    videos: int  #: that are held: this one, the one behind the next thinning, and the still one
    features: int  #: [bytes] of all patches

    @property
    def total(self) -> int:
        return self.keys_and_values * self.videos + self.features


def memory_need(config: Any, settings: ScorerSettings, frame_pixels: int, size: int) -> MemoryNeed:
    """For ``settings.max_frames`` frames of ``frame_pixels`` pixels each, in numbers of ``size`` bytes.

    ``config``: of the model, a Qwen3VLConfig. The tokens of the prompts, some hundreds, come on top.
    """
    text, vision = config.text_config, config.vision_config
    patches = (settings.max_frames + 1) // 2
    pads = -(-frame_pixels // (vision.patch_size * vision.spatial_merge_size) ** 2)
    head_size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    per_token = text.num_hidden_layers * 2 * text.num_key_value_heads * head_size * size
    layers = 1 + len(vision.deepstack_visual_indexes)
    return MemoryNeed(
        patches * (pads + _TEXT_PER_PATCH) * per_token,
        2 + settings.static_baseline,
        (patches + 2) * pads * text.hidden_size * layers * size,  # one more still, and one that is replaced
    )


class _Committed(NamedTuple):
    """A patch in the cache, and where the stream stands after it."""

    patch: Patch
    length: int  #: tokens so far
    position: int  #: next M-RoPE position; a patch takes fewer positions than tokens


class VideoMemory:
    """A cache of keys and values, and the patches committed to it."""

    def __init__(self, model: Qwen3VLForConditionalGeneration, tokens: PromptTokens, max_frames: int) -> None:
        self._model = model
        self._tokens = tokens
        self._max_patches = (max_frames + 1) // 2
        self._cache = _CommittedCache()
        self._committed: list[_Committed] = []

    def starts_with(self, frame: Frame) -> bool:
        return bool(self._committed) and self._committed[0].patch.first is frame

    @property
    def bytes(self) -> int:
        """Memory of keys and values."""
        return self._cache.bytes

    def known(self, video: list[Patch]) -> int:
        """How many patches at the beginning of ``video`` are committed."""
        pairs = enumerate(zip(self._committed, video, strict=False))
        shorter = min(len(self._committed), len(video))
        return next((number for number, (done, patch) in pairs if done.patch != patch), shorter)

    def commit(self, video: list[Patch], see: See, prompts: PromptTree) -> None:
        """Take in ``video`` as `answer` does, and ask nothing yet."""
        new = self._begin(video, see, prompts)
        if new.ids:
            self._run(new)

    def answer(self, video: list[Patch], see: See, prompts: PromptTree) -> torch.Tensor:
        """Log-probabilities (prompts, 2) float32 of the true and the false answer after ``video``.

        ``see`` gives the features of what is new in it.
        """
        new = self._begin(video, see, prompts)
        ends = self._append_prompts(new, prompts)
        hidden = self._run(new)
        logits = self._model.lm_head(hidden[0, ends])  # (prompts, vocabulary)
        log_probs = torch.log_softmax(logits.float(), dim=-1)
        return log_probs[:, [self._tokens.answer_true, self._tokens.answer_false]]

    def _begin(self, video: list[Patch], see: See, prompts: PromptTree) -> _Pass:
        """Roll back to what is common with ``video``; returns what follows there, less what was too long."""
        known = self.known(video)
        features = see(video[known:])
        del self._committed[known:]
        self._cache.length = self._length()
        if not known:  # room for the whole episode: too little memory shows now, not in the middle of it
            pads = features[0].rows * features[0].columns
            self._cache.reserve(self._max_patches * (pads + _TEXT_PER_PATCH) + prompts.tokens)
        new = _Pass()
        for patch, seen in zip(video[known:], features, strict=True):
            if len(new.ids) > _LONGEST_PASS:
                self._run(new)
                new = _Pass()
            self._append(new, patch, seen)
        return new

    def _append(self, new: _Pass, patch: Patch, seen: PatchFeatures) -> None:
        """Add a patch behind those committed and those that ``new`` holds already; it counts as committed."""
        before = self._tokens.before_patch(patch.seconds, first=not self._committed)
        pads = seen.rows * seen.columns
        ids = [*before, *[self._tokens.video_pad] * pads, self._tokens.vision_end]
        positions, after = patch_positions(self._position(), len(before), seen.rows, seen.columns)
        start = len(new.ids)
        new.see(start + len(before), seen)
        new.append(ids, positions, [slice(0, start)])
        self._committed.append(_Committed(patch, self._length() + len(ids), after))

    def _append_prompts(self, new: _Pass, prompts: PromptTree) -> list[int]:
        """Add all prompts behind the video; returns where in ``new`` the last token of each stands."""
        video = slice(0, len(new.ids))
        seen: list[list[slice]] = []  # by every run, itself included
        for run in prompts.runs:
            start = self._position() + run.depth
            positions = torch.arange(start, start + len(run.ids)).expand(3, -1)
            before = [video] if run.parent < 0 else seen[run.parent]
            seen.append([*before, new.append(run.ids, positions, before)])
        return [seen[end][-1].stop - 1 for end in prompts.ends]

    def _position(self) -> int:
        return self._committed[-1].position if self._committed else 0

    def _length(self) -> int:
        return self._committed[-1].length if self._committed else 0

    def _run(self, new: _Pass) -> torch.Tensor:
        """Last hidden states (1, tokens, hidden) of what follows the cache, which is longer by it then."""
        tokens, length = len(new.ids), self._cache.length
        self._cache.reserve(length + tokens)
        device = self._model.device
        embeddings = self._model.get_input_embeddings()(torch.tensor([new.ids], device=device))
        is_pad = deepstack = None
        if new.seen:
            is_pad = torch.zeros(1, tokens, dtype=torch.bool, device=device)
            for start, features in new.seen:
                where = slice(start, start + features.rows * features.columns)
                embeddings[0, where] = features.embeddings.to(embeddings.dtype)
                is_pad[0, where] = True
            layers = zip(*(features.deepstack for _, features in new.seen), strict=True)
            deepstack = [torch.cat(layer) for layer in layers]
        hidden: torch.Tensor = self._model.model.language_model(
            inputs_embeds=embeddings,
            attention_mask=new.sees(length).to(device)[None, None],  # (1, 1, tokens, length + tokens)
            position_ids=torch.cat(new.positions, dim=1)[:, None].to(device),  # (3, 1, tokens)
            past_key_values=self._cache,
            visual_pos_masks=is_pad,
            deepstack_visual_embeds=deepstack,
        ).last_hidden_state
        self._cache.length += tokens
        return hidden


class _Pass:
    """Tokens that run through the language model at once, behind what is in the cache."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.positions: list[torch.Tensor] = []  #: (3, tokens) each
        self.seen: list[tuple[int, PatchFeatures]] = []  #: place of a patch's first pad, and what goes there
        self._spans: list[tuple[slice, list[slice]]] = []  # tokens in a row, and those of the pass they see

    def append(self, ids: list[int], positions: torch.Tensor, seen: list[slice]) -> slice:
        """Add tokens in a row that see all of the cache, ``seen``, and each what stands before it."""
        span = slice(len(self.ids), len(self.ids) + len(ids))
        self.ids += ids
        self.positions.append(positions)
        self._spans.append((span, seen))
        return span

    def see(self, place: int, features: PatchFeatures) -> None:
        self.seen.append((place, features))

    def sees(self, length: int) -> torch.Tensor:
        """Which token (rows) sees which (columns): (tokens, length + tokens) bool."""
        mask = torch.zeros(len(self.ids), length + len(self.ids), dtype=torch.bool)
        mask[:, :length] = True
        new = mask[:, length:]
        for span, seen in self._spans:
            for other in seen:
                new[span, other] = True
            new[span, span] = torch.ones(span.stop - span.start, span.stop - span.start).tril().bool()
        return mask


class _CommittedCache(Cache):
    """Keys and values in place: written behind ``length``, kept only when ``length`` is moved past them."""

    def __init__(self) -> None:
        super().__init__(layers=[])
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

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Called by each language layer, with (1, heads, tokens, head size); returns all up to these."""
        if layer_idx == len(self._stores):
            _, heads, _, head_size = key_states.shape
            self._stores.append(key_states.new_empty(2, 1, heads, self._capacity, head_size))
        total = self.length + key_states.shape[2]
        store = self._stores[layer_idx][..., :total, :]
        store[0][..., self.length :, :] = key_states
        store[1][..., self.length :, :] = value_states
        return store[0], store[1]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.length
