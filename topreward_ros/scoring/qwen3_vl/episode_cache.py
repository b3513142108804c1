"""What is kept of one episode for its next scores: resized frames, features, KV caches, baselines.

Three videos are cached: the episode, what the next thinning will leave of it, and its first frame repeated,
for the static baseline. tick.py calls the steps of a tick in their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from topreward_ros.core.frames import Frame
from topreward_ros.core.progress import NO_SCORE, PrefixScore
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.scoring import patches
from topreward_ros.scoring.qwen3_vl.engine import Engine
from topreward_ros.scoring.qwen3_vl.language import Pass, PatchFeatures
from topreward_ros.scoring.qwen3_vl.prompt_tree import PromptTree, make_prompt_tree
from topreward_ros.scoring.qwen3_vl.temporal_patch import FramePair, Patch, pair_up
from topreward_ros.scoring.qwen3_vl.video_cache import VideoCache
from topreward_ros.scoring.shown_video import shown_video
from topreward_ros.scoring.static_baselines import BaselineKey, StaticBaselines


class TickPasses(NamedTuple):
    """The passes of the language model that one score of an episode takes."""

    video_pass: Pass
    static_pass: Pass | None  #: None where the baseline is known, or off

    @property
    def all(self) -> list[Pass]:
        """Both, or the video's alone."""
        return [self.video_pass] if self.static_pass is None else [self.video_pass, self.static_pass]


class EpisodeCache:
    """Caches of one episode at a time. A prefix of another episode replaces what it does not share."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.forget()

    def forget(self) -> None:
        """Start as new: nothing computed, no memory taken."""
        self.size = (0, 0)  #: (height, width) of the frames as the model sees them
        self.prefix: Sequence[Frame] = ()  #: the last one that was scored
        self.newest_score = NO_SCORE  #: its score
        self.unthinned: Sequence[Frame] = ()  #: that prefix before thinning; empty unless it was just thinned
        self._resized: dict[Frame, torch.Tensor] = {}  # the newest frames, each (3, height, width) uint8
        self._features: dict[FramePair, PatchFeatures] = {}
        self._video, self._next_video, self._static_video = (
            VideoCache(self._engine.language, self._engine.tokens, self._engine.settings.shown_frames)
            for _ in range(3)
        )
        self._static_baselines = StaticBaselines()
        self._prompts: tuple[str, PromptTree] | None = None  # of the newest instruction

    # ---- the steps of a tick, in their order ----------------------------------------------------------

    def begin_tick(self, prefix: Sequence[Frame]) -> list[Patch]:
        """The patches of ``prefix``, which is scored next; caches that it invalidates are cleared."""
        size = self._engine.frame_size(prefix[0])
        if size != self.size:  # features depend on the frame size
            self.forget()
            self.size = size
        self._static_baselines.use_start(prefix[0])
        video = self.patches_of(prefix)
        if self._next_video.known(video) > self._video.known(video):  # thinned, as prefilled
            self._video, self._next_video = self._next_video, self._video
            self.unthinned = [*self.prefix, prefix[-1]]
        else:
            self.unthinned = ()  # too late to compare: `_next_video` may have been overwritten
        return video

    def not_encoded(self, video: list[Patch]) -> list[FramePair]:
        """The pairs of frames that must be encoded before ``video`` can be scored."""
        start = video[0].first
        static = [(start, start)] if self._engine.settings.static_baseline else []
        return self._lacking([*self._video.new_pairs(video), *static])

    def cut(self, frames: FramePair) -> torch.Tensor:
        """The vision model's input for a patch, (rows * columns, 3 * 2 * patch * patch) float32."""
        for frame in frames:
            if frame not in self._resized:
                self._resized[frame] = self._engine.resize(frame, self.size)
        first, second = (self._resized[frame] for frame in frames)
        engine = self._engine
        return patches.cut(first, second, engine.preprocessing, engine.patch_side, engine.merge_side)

    def add_features(self, frames: FramePair, features: PatchFeatures) -> None:
        """Store what the vision model made of a pair of frames."""
        self._features[frames] = features

    def prepare_passes(self, request: ScoreRequest, video: list[Patch]) -> TickPasses:
        """The passes for the score of ``video``, all of whose features are computed. An extra look has no
        baseline: its times are those of no later prefix."""
        instruction = request.instruction
        video_pass = self._video.prepare_pass(video, self._features, self.prompts(instruction))
        key = baseline_key(instruction, video)
        wanted = self._engine.settings.static_baseline and not request.extra
        if not wanted or key in self._static_baselines:
            return TickPasses(video_pass, None)
        return TickPasses(video_pass, self._prepare_static_pass(instruction, video[0].first, key))

    def end_tick(
        self, request: ScoreRequest, video: list[Patch], score: PrefixScore, static: PrefixScore | None
    ) -> PrefixScore:
        """Complete the ``score`` of ``request`` by the baseline; drop what no later score needs.

        ``video``: what `begin_tick` gave; ``static``: the score of the static pass, if there was one.
        """
        score = replace(score, num_frames=len(request.prefix))
        if self._engine.settings.static_baseline and not request.extra:
            key = baseline_key(request.instruction, video)
            if static is not None:
                self._static_baselines[key] = static
            score = self._static_baselines.complete(score, key)
        self._drop_all_but(video, request.prefix)
        self.prefix, self.newest_score = request.prefix, score
        return score

    def prompts(self, instruction: str) -> PromptTree:
        """All prompts about ``instruction``."""
        if self._prompts is None or self._prompts[0] != instruction:
            self._prompts = (instruction, make_prompt_tree(self._engine.tokens.after_video(instruction)))
        return self._prompts[1]

    def patches_of(self, prefix: Sequence[Frame]) -> list[Patch]:
        """The temporal patches of ``prefix``."""
        settings = self._engine.settings
        return pair_up(
            shown_video(prefix, settings.sample_rate, settings.front_padding, settings.fixed_length)
        )

    def _lacking(self, pairs: Iterable[FramePair]) -> list[FramePair]:
        return [frames for frames in dict.fromkeys(pairs) if frames not in self._features]

    def _prepare_static_pass(self, instruction: str, start: Frame, key: BaselineKey) -> Pass:
        video = [Patch(start, start, float(seconds)) for seconds in key[1:]]
        return self._static_video.prepare_pass(video, self._features, self.prompts(instruction))

    def _drop_all_but(self, video: list[Patch], prefix: Sequence[Frame]) -> None:
        """Keep features of ``video`` and of all pairs of ``prefix``, which later prefixes may need.

        Of resized frames only the newest are kept.
        """
        start, newest = video[0].first, video[-1]
        pairs = zip(prefix[::2], prefix[1::2], strict=False)
        kept = {patch.frames for patch in video} | {(start, start)} | set(pairs)
        self._features = {frames: features for frames, features in self._features.items() if frames in kept}
        self._resized = {frame: pixels for frame, pixels in self._resized.items() if frame in newest.frames}

    # ---- between two ticks ----------------------------------------------------------------------------

    def prefilled(self, video: list[Patch]) -> int:
        """How many patches of ``video`` the KV cache for the next thinning holds."""
        return self._next_video.known(video)

    def not_encoded_next(self, video: list[Patch]) -> list[FramePair]:
        """As `not_encoded`, for `prefill` and `prepare_unthinned_pass`."""
        return self._lacking(self._next_video.new_pairs(video))

    def prefill(self, instruction: str, video: list[Patch]) -> None:
        """Bring the KV cache for the next thinning to ``video``, all of whose features are computed."""
        self._next_video.commit(video, self._features, self.prompts(instruction))

    def knows_static(self, key: BaselineKey) -> bool:
        """Whether the baseline for ``key``, of this episode's first frame, is known."""
        return key in self._static_baselines

    def prepare_static_pass(self, instruction: str, key: BaselineKey) -> Pass:
        """The pass for the baseline for ``key``; the features of the first frame are computed."""
        return self._prepare_static_pass(instruction, self.prefix[0], key)

    def add_static(self, key: BaselineKey, static: PrefixScore) -> None:
        """Store the baseline for ``key``."""
        self._static_baselines[key] = static

    def prepare_unthinned_pass(self, instruction: str, video: list[Patch]) -> Pass:
        """The pass that scores ``video``, the patches of `unthinned`; clears `unthinned`."""
        self.unthinned = ()
        return self._next_video.prepare_pass(video, self._features, self.prompts(instruction))


def baseline_key(instruction: str, video: list[Patch]) -> BaselineKey:
    """What a static baseline depends on beside the first frame: the instruction, and the patches' times."""
    return (instruction, *(patch.seconds for patch in video))
