"""One video in the language model: its KV cache, the patches committed to it, and the next pass.

The patches committed for the last prefix are compared with those of this one: the common beginning stays in
the KV cache, the rest is rolled back, and the new patches run together with all prompts in one pass. The
prompts are written behind the video and never committed: the next pass overwrites them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch

from topreward_ros.scoring.device import send
from topreward_ros.scoring.question.prompts import PromptTokens
from topreward_ros.scoring.qwen3_vl.kv_cache import KVCache
from topreward_ros.scoring.qwen3_vl.language import TOKEN_STEP, LanguageModel, Pass, PatchFeatures
from topreward_ros.scoring.qwen3_vl.prompt_tree import PromptTree
from topreward_ros.scoring.qwen3_vl.temporal_patch import FramePair, Patch, patch_positions

#: Upper bound of the text tokens of a patch: its time, and where vision starts and ends.
TEXT_PER_PATCH = 16
#: [tokens] A pass is split behind the patch that exceeds this, so that catching up needs bounded memory.
_LONGEST_PASS = 1024

FeaturesByPair = Mapping[FramePair, PatchFeatures]


class _Committed(NamedTuple):
    """A patch in the KV cache, and length and position of the token stream after it."""

    patch: Patch
    length: int  #: tokens so far
    position: int  #: next M-RoPE position; a patch takes fewer positions than tokens


def _as_features(vectors: np.ndarray, model: LanguageModel) -> PatchFeatures:
    """The vectors (n, hidden) of a soft prompt, to be put in the place of embeddings as a patch's are."""
    embeddings = send(torch.from_numpy(vectors), model.device).to(model.dtype)
    return PatchFeatures(len(vectors), 1, embeddings, [])


class VideoCache:
    """The KV cache of one video and the patches committed to it."""

    def __init__(self, model: LanguageModel, tokens: PromptTokens, max_frames: int) -> None:
        self._model = model
        self._tokens = tokens
        self._max_patches = (max_frames + 1) // 2
        self._learned = [_as_features(vectors, model) for _, vectors in tokens.learned(0)]
        self._kv = KVCache()
        self._committed: list[_Committed] = []

    @property
    def bytes(self) -> int:
        """Memory of keys and values."""
        return self._kv.bytes

    def known(self, video: list[Patch]) -> int:
        """How many patches at the beginning of ``video`` are committed."""
        pairs = enumerate(zip(self._committed, video, strict=False))
        shorter = min(len(self._committed), len(video))
        return next((number for number, (done, patch) in pairs if done.patch != patch), shorter)

    def new_pairs(self, video: list[Patch]) -> list[FramePair]:
        """The frames of the patches of ``video`` that are not `known`."""
        return [patch.frames for patch in video[self.known(video) :]]

    def commit(self, video: list[Patch], features: FeaturesByPair, prompts: PromptTree) -> None:
        """Bring the cache to ``video``, without prompts; arguments as `prepare_pass`."""
        new = self._prepare_video(video, features, prompts)
        if new.ids:
            self._model.run([new])

    def prepare_pass(self, video: list[Patch], features: FeaturesByPair, prompts: PromptTree) -> Pass:
        """The pass that extends the cache to ``video`` and asks all ``prompts``; to be run next.

        ``features``: of the `new_pairs` of ``video``, at least; these count as committed from now on.
        """
        new = self._prepare_video(video, features, prompts)
        whole_video = slice(0, len(new.ids))
        visible: list[list[slice]] = []  # spans that what follows each run sees, the run included
        for run in prompts.runs:
            start = self._position() + run.depth
            positions = torch.arange(start, start + len(run.ids)).expand(3, -1)
            before = [whole_video] if run.parent < 0 else visible[run.parent]
            visible.append([*before, new.append(run.ids, positions, before)])
        places = [place for place, _ in self._tokens.learned(len(new.ids) - whole_video.stop)]
        for place, vectors in zip(places, self._learned, strict=True):
            new.put_features(whole_video.stop + place, vectors)
        new.answer_positions = [visible[end][-1].stop - 1 for end in prompts.ends]
        return new

    def _prepare_video(self, video: list[Patch], features: FeaturesByPair, prompts: PromptTree) -> Pass:
        """Roll back to the beginning that ``video`` shares; returns the pass for the rest.

        Where the rest is too long for one pass, all but its end runs now.
        """
        known = self.known(video)
        del self._committed[known:]
        self._kv.length = self._length()
        if not known:  # reserve for the whole episode, so that too little memory shows at once
            first = features[video[0].frames]
            tokens = self._max_patches * (first.rows * first.columns + TEXT_PER_PATCH) + prompts.tokens
            self._kv.reserve(tokens + TOKEN_STEP)
        new = Pass(self._kv)
        for patch in video[known:]:
            if len(new.ids) > _LONGEST_PASS:
                self._model.run([new])
                new = Pass(self._kv)
            self._append(new, patch, features[patch.frames])
        return new

    def _append(self, new: Pass, patch: Patch, features: PatchFeatures) -> None:
        """Add a patch to ``new``, behind those that it has; the patch counts as committed."""
        before = self._tokens.before_patch(patch.seconds, first=not self._committed)
        pads = features.rows * features.columns
        ids = [*before, *[self._tokens.video_pad] * pads, self._tokens.vision_end]
        positions, after = patch_positions(self._position(), len(before), features.rows, features.columns)
        start = len(new.ids)
        new.put_features(start + len(before), features)
        new.append(ids, positions, [slice(0, start)])
        self._committed.append(_Committed(patch, self._length() + len(ids), after))

    def _position(self) -> int:
        return self._committed[-1].position if self._committed else 0

    def _length(self) -> int:
        return self._committed[-1].length if self._committed else 0
