"""A tiny random checkpoint made on the spot, videos, and scorers on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="scoring needs PyTorch")

import torch
from tokenizers import Tokenizer

from topreward_ros.core.frames import Frame
from topreward_ros.scoring.base import ScorerSettings
from topreward_ros.scoring.checkpoint.random_weights import make_random_checkpoint
from topreward_ros.scoring.patches import Preprocessing
from topreward_ros.scoring.question.prompts import Framing, PromptTokens
from topreward_ros.scoring.question.templates import asked_question
from topreward_ros.scoring.qwen3_vl.cuda_graphs import GraphRunner
from topreward_ros.scoring.qwen3_vl.scorer import Qwen3VLScorer
from topreward_ros.scoring.registry import load_scorer

SETTINGS = ScorerSettings(
    device="cpu", dtype="float32", max_pixels=64 * 96, max_frames=34, threads=1, static_baseline=True
)


@pytest.fixture(scope="session")
def settings() -> ScorerSettings:
    return SETTINGS


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_random_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def loaded(checkpoint: Path) -> Qwen3VLScorer:
    scorer = load_scorer(str(checkpoint), SETTINGS)
    assert isinstance(scorer, Qwen3VLScorer)
    return scorer


@pytest.fixture(scope="session")
def new_scorer(loaded: Qwen3VLScorer, checkpoint: Path) -> Callable[..., Qwen3VLScorer]:
    """Scorers that have seen nothing, on the same weights; settings by keyword."""

    def make(
        preprocessing: Preprocessing = loaded._engine.preprocessing,
        graphs: GraphRunner | None = None,
        **changes: object,
    ) -> Qwen3VLScorer:
        changed = replace(SETTINGS, **changes)  # type: ignore[arg-type]
        pixels = preprocessing.frame_pixels(changed.max_pixels, changed.shown_frames)
        info = replace(loaded.info, max_pixels=pixels)
        tokens = loaded._engine.tokens
        if changed.prompts or changed.layout != SETTINGS.layout:
            tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
            question = asked_question(changed)
            tokens = PromptTokens(tokenizer, question.templates, Framing.of(question, changed))
        return Qwen3VLScorer(loaded._model, tokens, preprocessing, changed, info, graphs)

    return make


@pytest.fixture(scope="session")
def rounding() -> Callable[[torch.Tensor], torch.Tensor]:
    """How far from the exact value a float32 sum may lie, by the sum of the absolute values of its terms.

    Each of n additions rounds the sum so far by half an eps of it. That these errors never add up to more
    than n / 2 eps can be proven; where they have no common sign they come to about one, whatever n is: at
    most 0.8 eps of an attention's output, 2 eps of its log-sum-exp and 0.6 eps of a linear layer's output
    in thousands of draws, with 16 to 1000 terms. A term that is left out is missed by more than this.
    """

    def allowed(size: torch.Tensor) -> torch.Tensor:
        return 6 * torch.finfo(torch.float32).eps * size

    return allowed


@pytest.fixture(scope="session")
def to_rounding() -> Callable[..., Any]:
    """``score.log_prob == to_rounding(expected)``, of two ways to compute a score of a tiny model.

    A log-probability is a logit less the logarithm of a sum: 128 products whose absolute values sum to 40 at
    most. An eps of that is 4.8e-6, and four layers before it round as well: 1.4e-5 was the worst of 6000
    comparisons, with every way to score, any order of calls and transformers itself. Allowed are 12 eps of
    40, 5.7e-5; one key that attention leaves out changes a score by 0.3.
    """

    def near(expected: Any, nan_ok: bool = False) -> Any:
        return pytest.approx(expected, rel=0.0, abs=12 * torch.finfo(torch.float32).eps * 40, nan_ok=nan_ok)

    return near


@pytest.fixture(scope="session")
def make_video() -> Callable[..., list[Frame]]:
    """Frames of noise over a moving gradient; ``every`` seconds apart, with some jitter."""

    def make(count: int, height: int, width: int, every: float = 0.5, seed: int = 0) -> list[Frame]:
        rng = np.random.default_rng(seed)
        rows, columns = np.mgrid[0:height, 0:width]
        start = 1_700_000_000_123_456_789
        frames = []
        for i in range(count):
            image = rng.integers(0, 120, (height, width, 3), dtype=np.uint8)
            image[..., 0] += ((rows * 3 + columns + 20 * i) % 130).astype(np.uint8)
            jitter = int(rng.integers(-20_000_000, 20_000_000)) if i else 0
            frames.append(Frame(start + round(i * every * 1e9) + jitter, image))
        return frames

    return make
