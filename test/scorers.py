"""What scorers of tests say of themselves."""

from __future__ import annotations

from typing import Any

from topreward_ros.scoring.base import ScorerInfo


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
