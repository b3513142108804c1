"""The incremental scorer against one plain forward pass of transformers, and against itself."""

from __future__ import annotations

import gc
import logging
import math
import re
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from topreward_ros.core.frames import EpisodeBuffer, Frame, Window
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.scoring import device, patches
from topreward_ros.scoring.base import PrefixScore, ScorerError
from topreward_ros.scoring.device import send_image
from topreward_ros.scoring.question.prompts import PromptTokens
from topreward_ros.scoring.question.templates import fill, read_templates
from topreward_ros.scoring.qwen3_vl import scorer as qwen3_vl
from topreward_ros.scoring.qwen3_vl import video_cache
from topreward_ros.scoring.qwen3_vl.attention import rounded_up
from topreward_ros.scoring.qwen3_vl.engine import Engine
from topreward_ros.scoring.qwen3_vl.kv_cache import KVCache
from topreward_ros.scoring.qwen3_vl.language import CPU_TOKEN_STEP
from topreward_ros.scoring.qwen3_vl.memory_need import memory_need
from topreward_ros.scoring.qwen3_vl.references import PlainForward as FullPasses
from topreward_ros.scoring.qwen3_vl.references import PrefixCache
from topreward_ros.scoring.qwen3_vl.scorer import Qwen3VLScorer
from topreward_ros.scoring.qwen3_vl.tick import run_tick
from topreward_ros.scoring.qwen3_vl.video_cache import VideoCache
from topreward_ros.scoring.registry import load_scorer

asked = ScoreRequest.of_frames  # a request for all of some frames

TASK = "put the cup into the drawer"
PROMPT = (
    "The above video shows a robot manipulation trajectory that completes the following task: "
    + TASK
    + " Decide whether the above statement is True or not. The answer is:"
)


class PlainForward:
    """One ordinary forward pass over the whole stream; the model finds positions and masks by itself."""

    def __init__(self, scorer: Qwen3VLScorer, checkpoint: Path) -> None:
        self.model = scorer._model
        self.tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))

    def __call__(
        self, frames: list[Frame], height: int, width: int, prompt: str = PROMPT
    ) -> tuple[float, float]:
        seconds = [(frame.stamp_ns - frames[0].stamp_ns) / 1e9 for frame in frames]
        images = [self.resized(frame.image, height, width) for frame in frames]
        if len(frames) % 2:
            seconds.append(seconds[-1])
            images.append(images[-1])
        steps = len(images) // 2
        text = "<|im_start|>user\n"
        for i in range(steps):
            text += f"<{(seconds[2 * i] + seconds[2 * i + 1]) / 2:.1f} seconds><|vision_start|>"
            text += "<|video_pad|>" * (height // 32 * width // 32) + "<|vision_end|>"
        ids = torch.tensor([self.tokenizer.encode(text + prompt, add_special_tokens=False).ids])
        rows = [row for i in range(steps) for row in self.patch_rows(images[2 * i], images[2 * i + 1])]
        with torch.inference_mode():
            logits = self.model(
                input_ids=ids,
                pixel_values_videos=torch.from_numpy(np.stack(rows)),
                video_grid_thw=torch.tensor([[steps, height // 16, width // 16]]),
                mm_token_type_ids=2 * (ids == self.tokenizer.token_to_id("<|video_pad|>")).int(),
            ).logits
        log_probs = torch.log_softmax(logits[0, -1].double(), -1)
        true, false = (self.tokenizer.encode(answer).ids for answer in (" True", " False"))
        return float(log_probs[true[0]]), float(log_probs[false[0]])

    @staticmethod
    def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
        planes = torch.from_numpy(image).permute(2, 0, 1)[None]
        fitted = torch.nn.functional.interpolate(planes, (height, width), mode="bicubic", antialias=True)
        return (fitted[0].numpy().astype(np.float32) / 255 - 0.5) / 0.5  # (3, height, width)

    @staticmethod
    def patch_rows(first: np.ndarray, second: np.ndarray) -> list[np.ndarray]:
        """16 x 16 patches in blocks of 2 x 2, each flattened as (channel, frame, row, column)."""
        rows = []
        _, height, width = first.shape
        for block_y in range(0, height, 32):
            for block_x in range(0, width, 32):
                for y in (block_y, block_y + 16):
                    for x in (block_x, block_x + 16):
                        window = (slice(None), slice(y, y + 16), slice(x, x + 16))
                        rows.append(np.stack([first[window], second[window]], axis=1).reshape(-1))
        return rows


@pytest.fixture(scope="module")
def plain(loaded: Qwen3VLScorer, checkpoint: Path) -> PlainForward:
    return PlainForward(loaded, checkpoint)


@pytest.mark.parametrize(
    ("height", "width", "every", "seen_height", "seen_width"),
    [(64, 64, 0.5, 64, 64), (90, 150, 4.0, 32, 96)],  # as it is, up to 16 s; shrunk, not square, up to 128 s
)
def test_every_prefix_equals_one_plain_forward_pass(
    to_rounding, height, width, every, seen_height, seen_width, new_scorer, make_video, plain
):
    video = make_video(33, height, width, every)
    scorer = new_scorer()
    values = []
    for count in range(1, len(video) + 1):
        score = scorer.score(asked(TASK, video[:count]))
        expected = plain(video[:count], seen_height, seen_width)
        still = plain(
            [Frame(frame.stamp_ns, video[0].image) for frame in video[:count]], seen_height, seen_width
        )
        assert score.log_prob == to_rounding(expected[0])
        assert score.log_prob_false == to_rounding(expected[1])
        assert score.log_prob_static == to_rounding(still[0])
        assert math.isnan(score.log_prob_std)
        values.append((score.log_prob, score.log_prob_static))
    # the comparison means something only where the numbers move
    assert np.ptp(np.array(values), axis=0).min() > 0.05
    assert len(set(values)) == len(values)


def test_an_idle_camera_scores_the_static_baseline(to_rounding, new_scorer, make_video):
    image = make_video(1, 70, 50)[0].image
    idle = [Frame(frame.stamp_ns, image.copy()) for frame in make_video(17, 8, 8)]
    scorer = new_scorer()
    for count in range(1, len(idle) + 1):
        score = scorer.score(asked(TASK, idle[:count]))
        assert score.log_prob == to_rounding(score.log_prob_static)


def padded(prefix: list[Frame], copies: int) -> list[Frame]:
    """A prefix with copies of its first frame before it, written down by hand."""
    period = 500_000_000
    begin = prefix[0].stamp_ns - copies * period
    return [Frame(begin + k * period, prefix[0].image) for k in range(copies)] + prefix


def resampled(prefix: list[Frame], length: int) -> list[Frame]:
    """A prefix as pairs of it at fixed times, the first and the last among them, written down by hand."""
    pairs = [(prefix[k], prefix[min(k + 1, len(prefix) - 1)]) for k in range(0, len(prefix), 2)]
    places = [math.floor(k * (len(pairs) - 1) / (length // 2 - 1) + 0.5) for k in range(length // 2)]
    chosen = [frame for place in places for frame in pairs[place]]
    return [Frame(k * 500_000_000, frame.image) for k, frame in enumerate(chosen)]


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"front_padding": 8}, lambda prefix: padded(prefix, 8)),
        ({"fixed_length": 8}, lambda prefix: resampled(prefix, 8)),
        ({"fixed_length": 16}, lambda prefix: resampled(prefix, 16)),
    ],
)
def test_what_is_shown_against_length_bias_equals_plain_forward_passes(
    to_rounding, changes, shown, new_scorer, make_video, plain
):
    """Over thinned prefixes, extra looks and a second episode, with what is computed ahead between them."""
    scorer = new_scorer(max_frames=8, sample_rate=2.0, **changes)
    seen = []
    for seed in (0, 1):
        images = [frame.image for frame in make_video(19, 64, 64, seed=seed)]
        video = [Frame(10**18 + k * 500_000_000, image) for k, image in enumerate(images)]
        buffer = EpisodeBuffer(max_frames=8)
        for number, frame in enumerate(video[:-1]):
            buffer.append(frame)
            request = ScoreRequest(TASK, buffer.copy())
            prefix = [*request.prefix]
            still = [Frame(it.stamp_ns, prefix[0].image) for it in prefix]
            score = scorer.score(request)
            assert score.log_prob == to_rounding(plain(shown(prefix), 64, 64)[0])
            assert score.log_prob_static == to_rounding(plain(shown(still), 64, 64)[0])
            assert score.num_frames == len(prefix)
            seen.append((score.log_prob, score.log_prob_static))
            if number % 3 == 0:
                look = buffer.copy()
                look.append(Frame(frame.stamp_ns + 250_000_000, video[-1].image))
                extra = ScoreRequest(TASK, look, extra=True)
                expected = plain(shown([*extra.prefix]), 64, 64)[0]
                assert scorer.score(extra).log_prob == to_rounding(expected)
            if number % 2:
                for _ in scorer.ahead(request):
                    pass
    assert np.ptp([log_prob for log_prob, _ in seen]) > 0.05
    if "fixed_length" in changes:  # one baseline holds for an episode
        assert len({static for _, static in seen}) == 2


def test_what_is_prefilled_for_the_next_thinning_is_used_with_padding_too(new_scorer, make_video, caplog):
    scorer = new_scorer(max_frames=8, sample_rate=2.0, front_padding=4)
    images = [frame.image for frame in make_video(10, 64, 64)]
    buffer = EpisodeBuffer(max_frames=8)
    with caplog.at_level(logging.INFO):
        for k, image in enumerate(images):
            buffer.append(Frame(10**18 + k * 500_000_000, image))
            request = ScoreRequest(TASK, buffer.copy())
            scorer.score(request)
            for _ in scorer.ahead(request):
                pass
    assert any("prefix thinned from 9 to 5 frames" in record.getMessage() for record in caplog.records)


def test_an_idle_robot_has_one_score_at_a_fixed_length(new_scorer, make_video):
    image = make_video(1, 64, 64)[0].image
    idle = [Frame(k * 500_000_000, image.copy()) for k in range(21)]
    scorer = new_scorer(fixed_length=8, sample_rate=2.0)
    scores = [scorer.score(asked(TASK, idle[:count])) for count in range(1, len(idle) + 1)]
    assert np.ptp([score.log_prob for score in scores]) < 1e-4
    assert {score.log_prob_static for score in scores} == {scores[0].log_prob_static}


def test_memory_is_reserved_for_what_is_shown(loaded, settings):
    def need(**changes: int):
        return memory_need(loaded._model.config, replace(settings, **changes), 64 * 96, 4)

    usual, longer, shorter = need(), need(front_padding=settings.max_frames), need(fixed_length=8)
    assert longer.kv_cache > 1.8 * usual.kv_cache and longer.features == usual.features
    assert shorter.kv_cache < usual.kv_cache and shorter.features == usual.features


TEN_FILE = "ten_prompts.txt"
TEN_TEMPLATES = read_templates(TEN_FILE)
TEN = [fill(template, TASK) for template in TEN_TEMPLATES]


def test_the_mean_over_prompts_is_that_of_plain_forward_passes(to_rounding, new_scorer, make_video, plain):
    video = make_video(9, 64, 64)
    scorer, contrastive = new_scorer(prompts=TEN_FILE), new_scorer(prompts=TEN_FILE, contrastive=True)
    for count in (1, 4, 9):
        still = [Frame(frame.stamp_ns, video[0].image) for frame in video[:count]]
        (true, false), (true_still, false_still) = (
            np.array([plain(frames, 64, 64, prompt) for prompt in TEN]).T for frames in (video[:count], still)
        )
        score = scorer.score(asked(TASK, video[:count]))
        assert score.log_prob == to_rounding(true.mean())
        assert score.log_prob_false == to_rounding(false.mean())
        assert score.log_prob_static == to_rounding(true_still.mean())
        assert score.log_prob_std == to_rounding(true.std(ddof=1))
        assert score.log_prob_std > 0.05
        assert score.by_prompt == to_rounding(tuple(true))
        assert score.static_by_prompt == to_rounding(tuple(true_still))

        score = contrastive.score(asked(TASK, video[:count]))
        assert score.log_prob == to_rounding(-np.log1p(np.exp(false - true)).mean())
        assert score.log_prob_false == to_rounding(-np.log1p(np.exp(true - false)).mean())
        expected = -np.log1p(np.exp(false_still - true_still)).mean()
        assert score.log_prob_static == to_rounding(expected)


def test_without_baseline_it_is_nan_and_the_rest_is_the_same(assert_same, new_scorer, make_video):
    video = make_video(5, 64, 64)
    score, full = (
        new_scorer(static_baseline=False).score(asked(TASK, video)),
        new_scorer().score(asked(TASK, video)),
    )
    assert math.isnan(score.log_prob_static)
    assert_same(replace(full, log_prob_static=math.nan), score)


def test_a_new_size_in_mid_episode_is_seen_at_the_size_of_the_first_frame(
    to_rounding, new_scorer, make_video, plain
):
    video = make_video(3, 64, 64) + make_video(6, 40, 90)[3:]
    assert new_scorer().score(asked(TASK, video)).log_prob == to_rounding(plain(video, 64, 64)[0])


def test_a_prefix_beyond_the_frame_budget_only_grows_the_cache(to_rounding, new_scorer, make_video, plain):
    video = make_video(41, 32, 32)
    scorer = new_scorer(max_frames=2)
    scorer.score(asked(TASK, video[:1]))
    assert scorer.score(asked(TASK, video)).log_prob == to_rounding(plain(video, 32, 32)[0])


# ---- the same arguments give the same numbers, whatever was scored before ----

VIDEOS = 3


def prefix_of(videos: list[list[Frame]], video: int, count: int, thinned: int) -> list[Frame]:
    """The first ``count`` frames; each thinning keeps the first pair and drops every second one."""
    frames = videos[video][:count]
    for _ in range(thinned):
        frames = [frame for i, frame in enumerate(frames) if i // 2 % 2 == 0]
    return frames


@pytest.fixture(scope="module")
def videos(make_video) -> list[list[Frame]]:
    """Two of one size and one of another."""
    return [make_video(12, 32, 32, seed=1), make_video(12, 32, 32, seed=2), make_video(12, 40, 64, seed=3)]


@pytest.fixture(scope="module")
def fresh_scores(new_scorer, videos) -> Callable[..., PrefixScore]:
    known: dict[tuple, PrefixScore] = {}

    def score(task: str, *what: int) -> PrefixScore:
        call = (task, *what)
        if call not in known:
            known[call] = new_scorer().score(asked(task, prefix_of(videos, *what)))
        return known[call]

    return score


calls = st.tuples(
    st.sampled_from([TASK, "open it"]), st.integers(0, VIDEOS - 1), st.integers(1, 12), st.integers(0, 2)
)


@settings(max_examples=2 * settings().max_examples // 5)
@given(st.lists(calls, min_size=2, max_size=10))
def test_any_order_of_calls_equals_a_fresh_scorer(assert_same, new_scorer, videos, fresh_scores, order):
    scorer = new_scorer()
    for task, *what in order:
        assert_same(scorer.score(asked(task, prefix_of(videos, *what))), fresh_scores(task, *what))


@pytest.fixture(scope="session")
def assert_same(to_rounding) -> Callable[[PrefixScore, PrefixScore], None]:
    """To rounding: what was scored before decides how the same sums are grouped."""

    def check(one: PrefixScore, other: PrefixScore) -> None:
        assert values_of(one) == to_rounding(values_of(other), nan_ok=True)

    return check


def values_of(score: PrefixScore) -> tuple[float, float, float]:
    return score.log_prob, score.log_prob_false, score.log_prob_static


@settings(max_examples=settings().max_examples // 6)
@given(
    st.lists(st.sampled_from(TEN_TEMPLATES), min_size=1, max_size=4, unique=True),
    st.lists(st.tuples(st.integers(1, 12), st.integers(0, 2)), min_size=1, max_size=5),
)
def test_any_prompts_and_steps_equal_the_references(
    to_rounding, new_scorer, videos, checkpoint, templates, calls
):
    """Frames come in any number per tick, prefixes grow, shrink and are thinned."""
    tokens = PromptTokens(Tokenizer.from_file(str(checkpoint / "tokenizer.json")), templates)
    one = new_scorer(static_baseline=False)
    scorer = Qwen3VLScorer(one._model, tokens, one._engine.preprocessing, one._settings, one.info)
    references = [
        way(one._model, tokens, one._engine.preprocessing, one.info) for way in (FullPasses, PrefixCache)
    ]
    for count, thinned in calls:
        prefix = prefix_of(videos, 0, count, thinned)
        score = scorer.score(asked(TASK, prefix))
        for reference in references:
            expected = reference.score(asked(TASK, prefix))
            assert score.log_prob == to_rounding(expected.log_prob)
            assert score.log_prob_false == to_rounding(expected.log_prob_false)
            assert score.log_prob_std == to_rounding(expected.log_prob_std, nan_ok=True)


@settings(max_examples=settings().max_examples // 6)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(1, 12), st.integers(0, 1)), min_size=VIDEOS, max_size=VIDEOS),
        min_size=1,
        max_size=4,
    ),
    st.permutations(range(VIDEOS)),
    st.booleans(),
)
def test_episodes_scored_together_score_as_each_alone(
    assert_same, new_scorer, videos, fresh_scores, rounds, order, static
):
    """Of two sizes, in step or not, with steps back, and with one that ends early."""
    scorer = new_scorer(static_baseline=static)
    for number, counts in enumerate(rounds):
        chosen = order[: max(1, VIDEOS - number)]
        tasks = [TASK if video else "open it" for video in chosen]
        calls = [(task, video, *counts[video]) for task, video in zip(tasks, chosen, strict=True)]
        scores = scorer.score_all([asked(task, prefix_of(videos, *what)) for task, *what in calls])
        for score, call in zip(scores, calls, strict=True):
            expected = fresh_scores(*call)
            assert_same(score, expected if static else replace(expected, log_prob_static=math.nan))


def test_an_extra_look_is_rolled_back_and_has_no_baseline(assert_same, to_rounding, new_scorer, make_video):
    """Behind an odd number of frames, which it completes to a patch, and behind an even one."""
    video = make_video(10, 64, 64, 0.25)
    scorer, without = new_scorer(), new_scorer()
    for count in range(1, 6):
        due = video[: 2 * count : 2]
        assert_same(scorer.score(asked(TASK, due)), without.score(asked(TASK, due)))
        look = asked(TASK, [*due, video[2 * count - 1]])
        score = scorer.score(replace(look, extra=True))
        assert score.log_prob == to_rounding(new_scorer().score(look).log_prob)
        assert math.isnan(score.log_prob_static)


def note_tokens(scorer, tokens, monkeypatch) -> None:
    """Let ``tokens`` be told of every pass of the language model: how many it has."""
    language, run_layers = scorer._engine.language, scorer._engine.language.run_layers

    def counted(hidden, *others):
        tokens.append(hidden.shape[1])
        return run_layers(hidden, *others)

    monkeypatch.setattr(language, "run_layers", counted)


def test_episodes_scored_together_share_each_pass_and_keep_what_they_know(new_scorer, videos, monkeypatch):
    """In whatever order they are named."""
    scorer = new_scorer()
    prompt = len(scorer._engine.tokens.after_video(TASK)[0])
    tokens: list[int] = []
    seen: list[int] = []
    note_tokens(scorer, tokens, monkeypatch)
    vision = scorer._model.model.visual.merger.norm.register_forward_hook(lambda *_: seen.append(1))
    try:
        for count in range(1, 9):
            tokens.clear()
            seen.clear()
            order = videos[count % 3 :] + videos[: count % 3]
            scorer.score_all([asked(TASK, video[:count]) for video in order])
            assert len(tokens) == 1
            assert tokens[0] <= 2 * VIDEOS * (prompt + 20), "a patch and a prompt each, and the baseline's"
            assert len(seen) == 2, "two sizes"
    finally:
        vision.remove()


def test_as_many_episodes_at_once_as_memory_holds(new_scorer, make_video, monkeypatch, tmp_path):
    """Of a container, whose limit is read; what the episodes take is what their tensors hold."""
    monkeypatch.setattr(device, "_CONTROL_GROUP", tmp_path)
    (tmp_path / "memory.current").write_text("700000000\n")
    seen = []
    for room in (0, 4_000_000, 6_000_000):
        (tmp_path / "memory.max").write_text(f"{700_000_000 + room}\n")
        scorer = new_scorer(max_frames=12)
        seen.append(scorer.episodes_at_once())
        requests = [asked(TASK, make_video(12, 64, 96, seed=seed)) for seed in range(seen[-1])]
        assert all(isinstance(score, PrefixScore) for score in scorer.score_all(requests))
        taken = sum(bytes_of(episode) for episode in scorer._episodes.values())
        assert taken <= room or seen[-1] == 1
        assert 3 * taken / seen[-1] * (seen[-1] + 1) > room, "many more would have had room"
    assert seen == sorted(set(seen)) and seen[0] == 1 and seen[-1] < 8
    (tmp_path / "memory.max").write_text("max\n")
    assert new_scorer(max_frames=12).episodes_at_once() == 8, "no more are faster"


def test_more_episodes_stay_than_are_scored_together(assert_same, new_scorer, make_video, monkeypatch):
    """Monitors of one process in turns, more than a pass has room for: none is read anew."""
    scorer = new_scorer(max_frames=12)
    videos = [make_video(6, 64, 96, seed=seed) for seed in range(12)]
    tokens: list[int] = []
    note_tokens(scorer, tokens, monkeypatch)
    of_all: dict[int, list[int]] = {}
    for count in (4, 5, 6):
        for first in range(0, 12, 6):
            kept = [video[0] for video in videos[:first] + videos[first + 6 :]]
            tokens.clear()
            scores = scorer.score_all(
                [asked(TASK, video[:count]) for video in videos[first : first + 6]], kept
            )
            assert all(isinstance(score, PrefixScore) for score in scores)
            of_all.setdefault(count, []).append(sum(tokens))
    assert sum(of_all[6]) < sum(of_all[4]), "one frame is new, not six"
    (again,) = scorer.score_all([asked(TASK, videos[0])], [video[0] for video in videos[1:]])
    assert_same(again, new_scorer(max_frames=12).score(asked(TASK, videos[0])))


def bytes_of(episode) -> int:
    """What the tensors of an episode hold."""
    features = [
        tensor for seen in episode._features.values() for tensor in (seen.embeddings, *seen.deepstack)
    ]
    videos = (episode._video, episode._next_video, episode._static_video)
    return sum(video.bytes for video in videos) + sum(each.untyped_storage().nbytes() for each in features)


def test_one_bad_episode_among_several_is_the_one_that_is_named(
    assert_same, new_scorer, videos, fresh_scores
):
    scorer = new_scorer()
    flat = [Frame(0, np.zeros((1, 60_000, 3), np.uint8))]
    good, bad = scorer.score_all([asked(TASK, videos[0][:4]), asked(TASK, flat)])
    assert isinstance(bad, ScorerError) and "60000 x 1 pixels" in str(bad)
    assert_same(good, fresh_scores(TASK, 0, 4, 0))
    (score,) = scorer.score_all([asked(TASK, videos[0][:5])])
    assert_same(score, fresh_scores(TASK, 0, 5, 0))


def test_a_fault_of_the_shared_pass_is_told_and_costs_no_score(
    assert_same, new_scorer, videos, fresh_scores, monkeypatch, caplog
):
    def broken(engine, episodes, requests):
        if len(requests) > 1:
            raise TypeError("a mistake of ours")
        return run_tick(engine, episodes, requests)

    scorer = new_scorer()
    with monkeypatch.context() as patch:
        patch.setattr(qwen3_vl, "run_tick", broken)
        scores = scorer.score_all([asked(TASK, video[:4]) for video in videos])
    for number, score in enumerate(scores):
        assert_same(score, fresh_scores(TASK, number, 4, 0))
    (warning,) = (record.getMessage() for record in caplog.records)
    assert warning.startswith("3 episodes could not be scored together (TypeError: a mistake of ours)")


@pytest.mark.parametrize(("room", "at_once"), [(1.5, 1), (2.5, 1), (3.5, 3)])
def test_memory_for_fewer_episodes_than_asked_for_thins_none_of_them(
    assert_same, new_scorer, videos, fresh_scores, monkeypatch, caplog, room, at_once
):
    """Memory counts what is alive, so what an error still holds on to counts, too."""
    scorer = new_scorer(static_baseline=False)
    alive: weakref.WeakSet[KVCache] = weakref.WeakSet()
    made, reserve = KVCache.__init__, KVCache.reserve

    def counted(cache):
        made(cache)
        alive.add(cache)

    def reserve_if_there_is_room(cache, tokens):
        reserve(cache, tokens)
        if sum(other.capacity > 0 for other in alive) > room:
            raise torch.OutOfMemoryError("out of memory")

    expected = {
        (number, count): replace(fresh_scores(TASK, number, count, 0), log_prob_static=math.nan)
        for number in range(VIDEOS)
        for count in (4, 5)
    }
    monkeypatch.setattr(KVCache, "__init__", counted)
    monkeypatch.setattr(KVCache, "reserve", reserve_if_there_is_room)
    for count in (4, 5):
        requests = [asked(TASK, video[:count]) for video in videos[: scorer.episodes_at_once()]]
        for number, score in enumerate(scorer.score_all(requests)):
            assert isinstance(score, PrefixScore)
            assert_same(score, expected[number, count])
    assert scorer.episodes_at_once() == (at_once if at_once < 3 else 8)
    assert sum("could not be scored together" in record.getMessage() for record in caplog.records) == (
        at_once < 3
    )
    assert not any("from now on" in record.getMessage() for record in caplog.records)


def test_what_filled_the_memory_is_free_when_it_is_given_back(new_scorer, make_video, monkeypatch):
    """An error's frames hold on to all that they had."""

    class Large:
        pass

    def fills_the_memory(*_):
        large = Large()
        held.append(weakref.ref(large))
        raise MemoryError("out of memory")

    held: list[weakref.ref[Large]] = []
    free: list[bool] = []
    scorer = new_scorer(max_frames=16)
    monkeypatch.setattr(VideoCache, "_prepare_video", fills_the_memory)
    monkeypatch.setattr(qwen3_vl, "release_cached_memory", lambda _device: free.append(held[-1]() is None))
    with pytest.raises(ScorerError, match="out of memory"):
        scorer.score(asked(TASK, make_video(16, 32, 32)))
    assert free and all(free)


@pytest.mark.parametrize("together", [False, True])
def test_a_failed_tick_holds_on_to_nothing(new_scorer, make_video, monkeypatch, together):
    """Without a collection of garbage: a device that is full would halve the frames for good."""
    scorer = new_scorer(static_baseline=False)
    videos = [make_video(8, 32, 32, seed=seed) for seed in range(1 + together)]
    requests = [asked(TASK, video) for video in videos]
    held: list[weakref.ref[torch.Tensor]] = []

    def fails(cache, number, start, keys, values):
        held.append(weakref.ref(keys))
        raise RuntimeError("the driver is in a bad mood")

    caches: weakref.WeakSet[KVCache] = weakref.WeakSet()
    made = KVCache.__init__

    def counted(cache):
        made(cache)
        caches.add(cache)

    monkeypatch.setattr(KVCache, "__init__", counted)
    scorer.score_all(requests)
    engine = weakref.ref(scorer._engine.language)
    gc.collect()
    gc.disable()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(KVCache, "write", fails)
            later = [asked(TASK, [*video, *make_video(2, 32, 32, seed=9)]) for video in videos]
            if together:
                assert all("bad mood" in str(error) for error in scorer.score_all(later))
            else:
                with pytest.raises(ScorerError, match="bad mood"):
                    scorer.score(later[0])
        assert held and not any(ref() is not None for ref in held), "tensors of the failed pass"
        assert not any(cache.capacity for cache in caches), "KV caches that no episode has"
        scorer.close()
        assert engine() is None
    finally:
        gc.enable()


def test_a_long_video_at_once_is_taken_in_by_parts(to_rounding, new_scorer, make_video, plain, monkeypatch):
    monkeypatch.setattr(video_cache, "_LONGEST_PASS", 30)
    video = make_video(20, 64, 64)
    assert new_scorer().score(asked(TASK, video)).log_prob == to_rounding(plain(video, 64, 64)[0])


def test_equal_frames_in_other_objects_are_another_episode(assert_same, new_scorer, make_video):
    scorer = new_scorer()
    before = scorer.score(asked(TASK, make_video(6, 32, 32, seed=4)))
    assert scorer.score(asked(TASK, make_video(6, 32, 32, seed=5))).log_prob != pytest.approx(before.log_prob)
    assert_same(scorer.score(asked(TASK, make_video(6, 32, 32, seed=4))), before)


# ---- nothing is computed twice ----


def test_each_patch_goes_once_through_vision_and_once_through_language(new_scorer, make_video, monkeypatch):
    video = make_video(9, 32, 32)
    scorer = new_scorer()
    seen, tokens = [], []
    vision = scorer._model.model.visual.merger.norm.register_forward_hook(lambda *_: seen.append(1))
    note_tokens(scorer, tokens, monkeypatch)
    try:
        for count in range(1, 9):
            scorer.score(asked(TASK, video[:count]))
        assert len(seen) == 8  # the four tails and the four patches that replaced them
        prompt = len(scorer._engine.tokens.after_video(TASK)[0])
        tokens.clear()
        scorer.score(asked(TASK, video[:9]))
        assert len(seen) == 9
        assert len(tokens) == 1, "patch, baseline and both prompts run together"
        per_patch = sum(tokens) - 2 * prompt
        assert 0 < per_patch < 2 * 20  # one patch in the video, one in the baseline
        assert not sum(tokens) % CPU_TOKEN_STEP, "few lengths, for each of which oneDNN compiles its kernels"
        tokens.clear()
        scorer.score(asked(TASK, video[:9]))
        assert tokens == [rounded_up(prompt, CPU_TOKEN_STEP)]
        assert len(seen) == 9
        (episode,) = scorer._episodes.values()
        assert len(episode._features) == 6  # five patches and the static one; no tail of old
    finally:
        vision.remove()


# ---- work done ahead ----

MANY = 40


def ticks_of(video: list[Frame], window: Window) -> list[EpisodeBuffer]:
    """A buffer of eight frames as it stands after each frame of a jittery camera, with a gap."""
    buffer, after = EpisodeBuffer(8, window), []
    for number, frame in enumerate(video):
        if number != 21:
            buffer.append(frame)
            after.append(buffer.copy())
    return after


@pytest.fixture(scope="module")
def ticks(make_video) -> list[EpisodeBuffer]:
    return ticks_of(make_video(MANY + 1, 32, 32), Window.EPISODE)


@pytest.mark.parametrize("window", Window)
def test_work_ahead_changes_no_score(assert_same, to_rounding, new_scorer, make_video, window):
    """Done all, done a step, not done: thinned prefixes, gap and all."""
    ticks = ticks_of(make_video(MANY + 1, 32, 32), window)
    patient, hasty, idle = (new_scorer(max_frames=8, sample_rate=2.0) for _ in range(3))
    plain = FullPasses(idle._model, idle._engine.tokens, idle._engine.preprocessing, idle.info, 2.0)
    for buffer in ticks:
        prefix = buffer.prefix()
        expected = idle.score(asked(TASK, prefix))
        assert expected.log_prob == to_rounding(plain.score(asked(TASK, prefix)).log_prob)
        assert_same(patient.score(asked(TASK, prefix)), expected)
        assert_same(hasty.score(asked(TASK, prefix)), expected)
        for _ in patient.ahead(ScoreRequest(TASK, buffer)):
            pass
        next(hasty.ahead(ScoreRequest(TASK, buffer)), None)


def test_what_was_done_ahead_is_not_done_again(new_scorer, ticks, caplog, monkeypatch):
    """No tick pays for the baseline or for a thinned prefix, but where a frame did not come."""
    scorer = new_scorer(max_frames=8, sample_rate=2.0)
    prompt = len(scorer._engine.tokens.after_video(TASK)[0])
    tokens: list[int] = []
    note_tokens(scorer, tokens, monkeypatch)
    thinned = []
    for number, buffer in enumerate(ticks[:20]):
        tokens.clear()
        with caplog.at_level(logging.INFO):
            scorer.score(ScoreRequest(TASK, buffer))
            if number > 0:
                assert len(tokens) == 1, f"tick {number}: {tokens}"
                assert tokens[0] <= prompt + 2 * 20, f"tick {number}: more than two patches and the prompt"
            for _ in scorer.ahead(ScoreRequest(TASK, buffer)):
                pass
        thinned.append(len(buffer.prefix()) < len(ticks[max(0, number - 1)].prefix()))
    said = [record.getMessage() for record in caplog.records if "prefix thinned" in record.getMessage()]
    strides = [buffer.stride for buffer in ticks[:20]]
    assert len(said) == len(set(strides)) - 1 >= 2
    assert all("instead of" in line for line in said)


def test_the_step_at_a_switch_is_that_of_the_two_layouts(new_scorer, ticks, caplog):
    scorer = new_scorer(max_frames=8, sample_rate=2.0)
    plain = FullPasses(scorer._model, scorer._engine.tokens, scorer._engine.preprocessing, scorer.info, 2.0)
    with caplog.at_level(logging.INFO):
        for buffer in ticks[:9]:
            scorer.score(ScoreRequest(TASK, buffer))
            for _ in scorer.ahead(ScoreRequest(TASK, buffer)):
                pass
    before = [*ticks[7].prefix(), ticks[8].prefix()[-1]]
    values = [plain.score(asked(TASK, prefix)).log_prob for prefix in (ticks[8].prefix(), before)]
    (said,) = (record.getMessage() for record in caplog.records)
    assert said.startswith("prefix thinned from 9 to 5 frames: log p(True) is ")
    read = [float(number) for number in re.findall(r"-\d+\.\d+", said)]
    assert read == pytest.approx(values, abs=1e-3)


def test_memory_that_runs_out_costs_half_the_frames_and_not_the_score(
    to_rounding, new_scorer, make_video, plain, caplog
):
    video = make_video(16, 32, 32)
    scorer = new_scorer(max_frames=16)
    real, room = VideoCache._prepare_video, [12]

    def plan_video(cache, video, *arguments):
        if len(video) > room[0] // 2:
            raise torch.OutOfMemoryError("out of memory")
        return real(cache, video, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VideoCache, "_prepare_video", plan_video)
        scores = [scorer.score(asked(TASK, video[:count])) for count in range(1, 17)]
        warnings = [record.getMessage() for record in caplog.records]
        assert len(warnings) == 1
        assert "out of memory on cpu with 13 frames" in warnings[0]
        assert "at most 6 are scored" in warnings[0]
        thinned = EpisodeBuffer(6)
        for frame in video:
            thinned.append(frame)
        expected = plain(list(thinned.prefix()), 32, 32)
        assert scores[-1].log_prob == to_rounding(expected[0])
        assert [score.num_frames for score in scores] == [*range(1, 13), 5, 6, 5, 6]
        room[0] = 0
        with pytest.raises(ScorerError, match="out of memory on cpu with 6 frames"):
            scorer.score(asked(TASK, video))


def test_memory_that_runs_out_in_work_ahead_harms_no_score(
    to_rounding, new_scorer, make_video, plain, caplog
):
    def no_room(*_):
        raise MemoryError("out of memory")

    video = make_video(16, 32, 32)
    scorer = new_scorer(max_frames=16, sample_rate=2.0)
    buffer = EpisodeBuffer(16)
    for frame in video[:14]:
        buffer.append(frame)
    scorer.score(ScoreRequest(TASK, buffer))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VideoCache, "commit", no_room)
        for _ in scorer.ahead(ScoreRequest(TASK, buffer)):
            pass
    (warning,) = (record.getMessage() for record in caplog.records)
    assert "out of memory on cpu with 14 frames" in warning and "at most 6 are scored" in warning
    exact = [Frame(video[0].stamp_ns + k * 500_000_000, frame.image) for k, frame in enumerate(video[:6])]
    assert scorer.score(asked(TASK, exact)).log_prob == to_rounding(plain(exact, 32, 32)[0])


# ---- what cannot be scored ----


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_an_image_of_the_wrong_kind_is_named(new_scorer, image):
    with pytest.raises(ScorerError, match=r"uint8 of shape \(height, width, 3\)"):
        new_scorer().score(asked(TASK, [Frame(0, image)]))


def test_no_frames_are_refused(new_scorer):
    with pytest.raises(ScorerError, match="at least one"):
        new_scorer().score(asked(TASK, []))


def test_read_only_and_extreme_images_are_scored(new_scorer, recwarn):
    for shape in [(1, 1, 3), (1, 200, 3), (200, 1, 3), (33, 31, 3)]:
        image = np.full(shape, 200, np.uint8)
        image.flags.writeable = False
        assert math.isfinite(new_scorer().score(asked(TASK, [Frame(0, image)])).log_prob)
    assert not recwarn.list


def test_a_shape_that_the_model_does_not_take_is_refused_and_the_next_call_works(new_scorer, make_video):
    scorer = new_scorer()
    with pytest.raises(ScorerError, match="60000 x 1 pixels"):
        scorer.score(asked(TASK, [Frame(0, np.zeros((1, 60_000, 3), np.uint8))]))
    assert math.isfinite(scorer.score(asked(TASK, make_video(1, 32, 32))).log_prob)


def test_a_result_that_is_no_number_is_an_error_and_the_next_call_works(assert_same, new_scorer, make_video):
    video = make_video(4, 32, 32)
    scorer = new_scorer()
    expected = scorer.score(asked(TASK, video))
    weight = scorer._model.model.language_model.norm.weight
    kept = weight.clone()
    try:
        weight.fill_(math.nan)
        with pytest.raises(ScorerError, match=r"nan.*float32"):
            scorer.score(asked(TASK, video))
    finally:
        weight.copy_(kept)
    assert_same(scorer.score(asked(TASK, video)), expected)


def test_out_of_memory_names_what_to_make_smaller(new_scorer, make_video):
    scorer = new_scorer(max_frames=10**13)
    with pytest.raises(ScorerError, match=r"out of memory on cpu.*max_pixels.*max_frames"):
        scorer.score(asked(TASK, make_video(1, 32, 32)))


def test_closing_gives_the_memory_of_the_weights_back(checkpoint, settings, make_video):
    """At once: a monitor that is configured again loads the next model then."""
    scorer = load_scorer(str(checkpoint), settings)
    scorer.score(asked(TASK, make_video(1, 32, 32)))
    weights = [weakref.ref(weight) for weight in scorer._model.parameters()]
    gc.disable()
    try:
        scorer.close()
        assert len(weights) > 50 and not any(weight() is not None for weight in weights)
    finally:
        gc.enable()


# ---- frames on a GPU ----


@pytest.mark.parametrize(("size", "near"), [((64, 64), 0.0), ((71, 90), 0.02)])
def test_frames_that_a_gpu_resizes_give_the_numbers_of_a_cpu(new_scorer, make_video, monkeypatch, size, near):
    """To the bit where nothing is resized. One key that attention leaves out changes a score by 0.3."""

    def resize(self, frame, size):
        return patches.resize_in_float(send_image(frame.image, torch.device("cpu")), size)

    video = make_video(7, *size)
    of_a_cpu, scorer = new_scorer(), new_scorer()
    expected = [of_a_cpu.score(asked(TASK, video[:count])) for count in range(1, 8)]
    monkeypatch.setattr(Engine, "resize", resize)
    for count in range(1, 8):
        score = scorer.score(asked(TASK, video[:count]))
        assert score.log_prob == pytest.approx(expected[count - 1].log_prob, abs=near)
        assert score.log_prob_static == pytest.approx(expected[count - 1].log_prob_static, abs=near)
