"""A tick, from frames to numbers: the hot path, in the order in which it runs.

    frames → patches → features (vision model) → passes → answers (language model) → scores

Nothing that is still valid is computed again. New patches are encoded in one pass of the vision model; their
tokens and all prompts run in one pass of the language model. Several episodes share both passes. The drawing
in docs/engine.md shows the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from topreward_ros.core.progress import PrefixScore
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.scoring.qwen3_vl.engine import Engine
from topreward_ros.scoring.qwen3_vl.episode_cache import EpisodeCache
from topreward_ros.scoring.qwen3_vl.temporal_patch import FramePair

#: Patches in one pass of the vision model at most, so that catching up on a long video needs bounded memory.
_MAX_BATCH = 8


def run_tick(
    engine: Engine, episodes: Sequence[EpisodeCache], requests: Sequence[ScoreRequest]
) -> list[PrefixScore]:
    """Score each request; ``episodes[i]`` is the cache of the episode of ``requests[i]``."""
    jobs = list(zip(episodes, requests, strict=True))

    # frames → patches: two frames and their time each; a list of patches is a video
    videos = [episode.begin_tick(request.prefix) for episode, request in jobs]

    # patches → features, of those that are new
    encode(
        engine,
        [(episode, episode.not_encoded(video)) for episode, video in zip(episodes, videos, strict=True)],
    )

    # features → passes: the tokens of new patches and of all prompts, behind the KV caches. Of a video that
    # is too long for one pass all but the end runs here.
    prepared = [
        episode.prepare_passes(request, video) for (episode, request), video in zip(jobs, videos, strict=True)
    ]

    # passes → answers: log-probabilities (prompts, answers) of " True" and " False", or of those of a
    # file; the device is waited for here
    answers = iter(engine.answer([each for passes in prepared for each in passes.all]))

    # answers → scores
    scores = []
    for (episode, request), video, passes in zip(jobs, videos, prepared, strict=True):
        score = engine.read(next(answers), len(video))
        static = None if passes.static_pass is None else engine.read(next(answers), len(video))
        scores.append(episode.end_tick(request, video, score, static))
    return scores


def encode(engine: Engine, wanted: Sequence[tuple[EpisodeCache, Sequence[FramePair]]]) -> None:
    """Encode pairs of frames with the vision model and store the features in their episodes.

    Pairs of frames of one size share a pass, whichever episode they belong to.
    """
    by_size: dict[tuple[int, int], list[tuple[EpisodeCache, FramePair]]] = {}
    for episode, pairs in wanted:
        by_size.setdefault(episode.size, []).extend((episode, pair) for pair in pairs)
    for size, waiting in by_size.items():
        for start in range(0, len(waiting), _MAX_BATCH):
            batch = waiting[start : start + _MAX_BATCH]
            pixels = torch.stack([episode.cut(pair) for episode, pair in batch])
            for (episode, pair), features in zip(batch, engine.encode(pixels, size), strict=True):
                episode.add_features(pair, features)
