"""An episode of ten thousand frames on the shipped model: memory stays what it was."""

from __future__ import annotations

import numpy as np

from topreward_ros.core.frames import NS_PER_S, EpisodeBuffer, Frame
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.scoring.base import EMBEDDED, ScorerSettings
from topreward_ros.scoring.qwen3_vl.scorer import Qwen3VLScorer
from topreward_ros.scoring.registry import load_scorer

FRAMES, EVERY = 10_000, 16  # a busy scorer skips frames; one in sixteen is scored
EARLY = 62 * EVERY  # memory is noted there, and must not grow any more
SETTINGS = ScorerSettings(
    device="cpu", dtype="float32", max_pixels=32 * 32, max_frames=16, threads=1, static_baseline=True,
    sample_rate=2.0,
)  # fmt: skip


def held(scorer: Qwen3VLScorer) -> dict[str, int]:
    """What the scorer keeps, counted."""
    (episode,) = scorer._episodes.values()
    videos = (episode._video, episode._next_video, episode._static_video)
    return {
        "bytes of keys and values": sum(video.bytes for video in videos),
        "patches with features": len(episode._features),
        "resized frames": len(episode._resized),
        "static baselines": len(episode._static_baselines),
    }


def test_ten_thousand_frames_hold_no_more_memory_than_hundreds():
    scorer = load_scorer(EMBEDDED, SETTINGS)
    assert isinstance(scorer, Qwen3VLScorer)
    rng = np.random.default_rng(0)
    buffer, most, early = EpisodeBuffer(SETTINGS.max_frames), {}, {}
    memory = 0
    for number in range(FRAMES):
        image = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        buffer.append(Frame(round(number * NS_PER_S / SETTINGS.sample_rate), image))
        if number % EVERY:
            continue
        scorer.score(ScoreRequest("open the drawer", buffer))
        next(scorer.ahead(ScoreRequest("open the drawer", buffer.copy())), None)
        most = {name: max(count, most.get(name, 0)) for name, count in held(scorer).items()}
        if number == EARLY:
            early, memory = dict(most), scorer.memory_bytes()
    assert buffer.stride >= 1024
    static = {name: counts.pop("static baselines") for name, counts in (("early", early), ("late", most))}
    assert most == early
    assert most["patches with features"] <= SETTINGS.max_frames // 2 + 2
    assert static["late"] <= 4096
    assert scorer.memory_bytes() - memory < 20e6
