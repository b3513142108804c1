"""A scorer for tests that needs no model, and what scorers of tests say of themselves."""

from __future__ import annotations

from typing import Any

from topreward_ros.core.frames import Frame
from topreward_ros.core.progress import PrefixScore
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.scoring.base import ScorerInfo, SequentialScorer


def scorer_info(model_id: str, **more: Any) -> ScorerInfo:
    """A model with trained weights on the CPU, unless ``more`` says otherwise."""
    usual: dict[str, Any] = {
        "revision": "",
        "random_weights": False,
        "device": "cpu",
        "dtype": "float32",
        "prompt_hash": "",
        "max_pixels": 1,
    }
    return ScorerInfo(model_id=model_id, **(usual | more))


class Brightness(SequentialScorer):
    """The brighter the newest frame, the surer: from -4 nat for black to 0 for white."""

    info = scorer_info("brightness", revision="1", prompt_hash="0" * 16, max_pixels=4096)

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[Frame, ...]]] = []

    def score_one(self, request: ScoreRequest) -> PrefixScore:
        prefix = request.prefix
        self.asked.append((request.instruction, prefix))
        brightness = [float(frame.image.mean()) / 255.0 for frame in (prefix[-1], prefix[0])]
        log_prob, static = (-4.0 * (1.0 - value) for value in brightness)
        return PrefixScore(log_prob, -1.0, static, num_frames=len(prefix))

    def close(self) -> None:
        self.asked.clear()
