"""The language model's memory of one video, and what to run to extend it and to ask.

What was committed for the last prefix is compared with the patches of this one: the common beginning is
kept, the rest is rolled back, and what is new runs together with all prompts in one pass. The prompts are
written behind the video and never committed: the next call begins with moving the length back, no more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from topreward_ros.core.frames import Frame
from topreward_ros.scoring.question.prompts import PromptTokens
from topreward_ros.scoring.qwen3_vl.language import (
    TOKENS_AT_A_TIME,
    KeysAndValues,
    LanguageModel,
    Pass,
    PatchFeatures,
)
from topreward_ros.scoring.qwen3_vl.prompt_tree import PromptTree

if TYPE_CHECKING:
    from topreward_ros.scoring.base import ScorerSettings

#: Room for the tokens of a patch that are not pads: its time, and where vision starts and ends.
_TEXT_PER_PATCH = 16
#: A pass ends with the patch that brings it to so many tokens, so that catching up needs bounded memory.
_LONGEST_PASS = 1024


class Patch(NamedTuple):
    """Two frames that become one step of the video, and their time. Equal only for the same objects."""

    first: Frame
    second: Frame  #: the same as ``first`` for an odd last frame
    seconds: float  #: mean time of the two since the episode's first frame, to a tenth, as it is told


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
        (patches * (pads + _TEXT_PER_PATCH) + TOKENS_AT_A_TIME) * per_token,
        2 + settings.static_baseline,
        (patches + 2) * pads * text.hidden_size * layers * size,  # one more still, and one that is replaced
    )


class _Committed(NamedTuple):
    """A patch in the cache, and where the stream stands after it."""

    patch: Patch
    length: int  #: tokens so far
    position: int  #: next M-RoPE position; a patch takes fewer positions than tokens


class VideoMemory:
    """Keys and values, and the patches committed to them."""

    def __init__(self, model: LanguageModel, tokens: PromptTokens, max_frames: int) -> None:
        self._model = model
        self._tokens = tokens
        self._max_patches = (max_frames + 1) // 2
        self._memory = KeysAndValues()
        self._committed: list[_Committed] = []

    @property
    def bytes(self) -> int:
        """Memory of keys and values."""
        return self._memory.bytes

    def known(self, video: list[Patch]) -> int:
        """How many patches at the beginning of ``video`` are committed."""
        pairs = enumerate(zip(self._committed, video, strict=False))
        shorter = min(len(self._committed), len(video))
        return next((number for number, (done, patch) in pairs if done.patch != patch), shorter)

    def commit(self, video: list[Patch], see: See, prompts: PromptTree) -> None:
        """Take in ``video``, and ask nothing yet."""
        new = self._take_in(video, see, prompts)
        if new.ids:
            self._model.run([new])

    def ask(self, video: list[Patch], see: See, prompts: PromptTree) -> Pass:
        """What is to be run for the answers after ``video``, see `answers_of`; it counts as committed then.

        ``see`` gives the features of what is new in it.
        """
        new = self._take_in(video, see, prompts)
        everything = slice(0, len(new.ids))
        seen: list[list[slice]] = []  # by every run, itself included
        for run in prompts.runs:
            start = self._position() + run.depth
            positions = torch.arange(start, start + len(run.ids)).expand(3, -1)
            before = [everything] if run.parent < 0 else seen[run.parent]
            seen.append([*before, new.append(run.ids, positions, before)])
        new.ends = [seen[end][-1].stop - 1 for end in prompts.ends]
        return new

    def _take_in(self, video: list[Patch], see: See, prompts: PromptTree) -> Pass:
        """Roll back to what is common with ``video``; returns what follows there, less what was too long."""
        known = self.known(video)
        features = see(video[known:])
        del self._committed[known:]
        self._memory.length = self._length()
        if not known:  # room for the whole episode: too little memory shows now, not in the middle of it
            pads = features[0].rows * features[0].columns
            tokens = self._max_patches * (pads + _TEXT_PER_PATCH) + prompts.tokens
            self._memory.reserve(tokens + TOKENS_AT_A_TIME)
        new = Pass(self._memory)
        for patch, seen in zip(video[known:], features, strict=True):
            if len(new.ids) > _LONGEST_PASS:
                self._model.run([new])
                new = Pass(self._memory)
            self._append(new, patch, seen)
        return new

    def _append(self, new: Pass, patch: Patch, seen: PatchFeatures) -> None:
        """Add a patch behind those committed and those that ``new`` holds already; it counts as committed."""
        before = self._tokens.before_patch(patch.seconds, first=not self._committed)
        pads = seen.rows * seen.columns
        ids = [*before, *[self._tokens.video_pad] * pads, self._tokens.vision_end]
        positions, after = patch_positions(self._position(), len(before), seen.rows, seen.columns)
        start = len(new.ids)
        new.see(start + len(before), seen)
        new.append(ids, positions, [slice(0, start)])
        self._committed.append(_Committed(patch, self._length() + len(ids), after))

    def _position(self) -> int:
        return self._committed[-1].position if self._committed else 0

    def _length(self) -> int:
        return self._committed[-1].length if self._committed else 0


def answers_of(model: LanguageModel, tokens: PromptTokens, passes: Sequence[Pass]) -> list[torch.Tensor]:
    """Run what `VideoMemory.ask` gave, of one video each, and wait for the device: the only time in a tick.

    Returns for each the log-probabilities (prompts, 2) float32 of the true and the false answer.
    """
    logits = model.head(model.run(passes))  # (prompts of all, vocabulary)
    log_probs = torch.log_softmax(logits.float(), dim=-1)
    answers = torch.stack([log_probs[:, tokens.answer_true], log_probs[:, tokens.answer_false]], dim=1).cpu()
    return list(torch.split(answers, [len(one.ends) for one in passes]))
