"""Scoring with a reward model that states progress and success itself, by heads beside the language model.

No question is answered, so there is no log-probability of True and no static baseline. Each score is one
whole forward pass over at most eight frames, whatever the length of the episode; nothing is kept between
calls. The frames reach from the first one of the prefix to the newest, whose progress and success are the
score.
"""

from __future__ import annotations

from contextlib import suppress
from math import isfinite, nan
from typing import Any

import torch

from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.scoring.base import PrefixScore, ScorerError, ScorerInfo, SequentialScorer, check_frames
from topreward_ros.scoring.device import OutOfMemory, as_scorer_errors, release_cached_memory, send
from topreward_ros.scoring.reward_heads.heads import RewardHeads
from topreward_ros.scoring.reward_heads.stream import RewardStream, chosen_frames

NO_LOG_PROB = "this model states progress and success itself, and has no log p"  #: of every score


class RewardHeadsScorer(SequentialScorer):
    """Scores prefixes with a Robometer; `registry` loads one."""

    def __init__(
        self, backbone: Any, heads: RewardHeads, stream: RewardStream, most_frames: int, info: ScorerInfo
    ) -> None:
        self.info = info
        self._backbone = backbone  # the language model without its head: no logits are computed
        self._heads = heads
        self._stream = stream
        self._most_frames = most_frames

    def score_one(self, request: ScoreRequest) -> PrefixScore:
        """See `PrefixScorer.score`."""
        check_frames(request.prefix)
        frames = chosen_frames(request.prefix, self._most_frames)
        with suppress(OutOfMemory), as_scorer_errors(len(frames), self.forget), torch.inference_mode():
            inputs = self._stream.inputs(request.instruction, frames)
            stated = self._heads.read(self._hidden(inputs))
            if not all(map(isfinite, stated)):
                raise ScorerError(
                    f"progress and success are {stated.progress} and {stated.success_probability} after "
                    f"{len(frames)} frames in {self._backbone.dtype}: try dtype float32, or check the weights"
                )
            return PrefixScore(
                nan,
                nan,
                num_frames=len(frames),
                note=NO_LOG_PROB,
                stated_progress=min(max(stated.progress, 0.0), 1.0),
                success_probability=stated.success_probability,
            )
        release_cached_memory(self._backbone.device)
        raise ScorerError(
            f"out of memory on {self.info.device} with {len(frames)} frames of up to {self.info.max_pixels} "
            "pixels: set a smaller max_pixels, or another device"
        )

    def close(self) -> None:
        """See `PrefixScorer.close`."""
        device = self._backbone.device
        del self._backbone, self._heads
        release_cached_memory(device)

    def _hidden(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """The last hidden state (width,) at the last token."""
        device, dtype = self._backbone.device, self._backbone.dtype
        given = {name: send(value, device) for name, value in inputs.items()}
        given["pixel_values"] = given["pixel_values"].to(dtype)
        states: torch.Tensor = self._backbone(**given, use_cache=False).last_hidden_state
        return states[0, -1]
