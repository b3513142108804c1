"""A tick, from frames to numbers: the hot path, in the order in which it runs.

    frames → patches → features (vision model) → passes → answers (language model) → scores

Everything is computed once. What an episode needs and has not computed yet is encoded in one pass of the
vision model; what its KV cache lacks, and all prompts, run in one pass of the language model. Several
episodes share both passes. The drawing in docs/engine.md shows the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from topreward_ros.core.episode import ScoreRequest
from topreward_ros.core.progress import PrefixScore
from topreward_ros.scoring.qwen3_vl.engine import Engine
from topreward_ros.scoring.qwen3_vl.episode_cache import EpisodeCache
from topreward_ros.scoring.qwen3_vl.patch import FramePair

#: Patches in one pass of the vision model at most, so that catching up on a long video needs bounded memory.
_MOST_ENCODED_AT_ONCE = 8


def run_tick(
    engine: Engine, episodes: Sequence[EpisodeCache], requests: Sequence[ScoreRequest]
) -> list[PrefixScore]:
    """The score of each request, whose episode stands at the same place in ``episodes``."""
    pairs = list(zip(episodes, requests, strict=True))

    # frames → patches: (first frame, second frame, time) each
    videos = [episode.begin_tick(request.prefix) for episode, request in pairs]

    # patches → features, of those that are new
    encode(
        engine,
        [(episode, episode.not_encoded(video)) for episode, video in zip(episodes, videos, strict=True)],
    )

    # features → passes: the tokens of new patches and of all prompts, behind the KV caches
    planned = [
        episode.plan_passes(request.instruction, video)
        for (episode, request), video in zip(pairs, videos, strict=True)
    ]

    # passes → answers: log-probabilities (prompts, 2) of " True" and " False"; the device is waited for here
    answers = iter(engine.answer([each for passes in planned for each in passes.all]))

    # answers → scores
    scores = []
    for (episode, request), video, passes in zip(pairs, videos, planned, strict=True):
        score = engine.read(next(answers), len(video))
        static = None if passes.static is None else engine.read(next(answers), len(video))
        scores.append(episode.end_tick(request, video, score, static))
    return scores


def encode(engine: Engine, wanted: Sequence[tuple[EpisodeCache, Sequence[FramePair]]]) -> None:
    """Let the vision model encode pairs of frames, and their episodes keep the features.

    Pairs of frames of one size share a pass, whichever episode they belong to.
    """
    by_size: dict[tuple[int, int], list[tuple[EpisodeCache, FramePair]]] = {}
    for episode, pairs in wanted:
        by_size.setdefault(episode.size, []).extend((episode, frames) for frames in pairs)
    for size, waiting in by_size.items():
        for start in range(0, len(waiting), _MOST_ENCODED_AT_ONCE):
            batch = waiting[start : start + _MOST_ENCODED_AT_ONCE]
            pixels = torch.stack([episode.cut(frames) for episode, frames in batch])
            for (episode, frames), features in zip(batch, engine.encode(pixels, size), strict=True):
                episode.add_features(frames, features)
