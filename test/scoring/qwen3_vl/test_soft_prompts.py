"""Soft prompts in the engine against plain passes, and their training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import nan
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from test.tape import TapeRunner
from topreward_ros.core.frames import EpisodeBuffer, Frame, Window
from topreward_ros.core.output_files import write_file
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.scoring.base import ScorerError, ScorerSettings
from topreward_ros.scoring.checkpoint.random_weights import make_random_checkpoint
from topreward_ros.scoring.question.prompts import Framing, PromptTokens
from topreward_ros.scoring.question.soft_prompt import SoftPrompt, soft_prompt_file
from topreward_ros.scoring.question.templates import PAPER
from topreward_ros.scoring.qwen3_vl.cuda_graphs import GraphRunner
from topreward_ros.scoring.qwen3_vl.references import PlainForward, PrefixCache
from topreward_ros.scoring.qwen3_vl.scorer import Qwen3VLScorer
from topreward_ros.scoring.qwen3_vl.soft_training import Epoch, SoftTraining
from topreward_ros.scoring.registry import load_scorer

asked = ScoreRequest.of_frames
TASK = "put the cup into the drawer"
_EPOCHS = 6


@pytest.fixture(scope="module")
def training_of(loaded: Qwen3VLScorer, settings: ScorerSettings) -> Callable[..., SoftTraining]:
    def make(template: str = PAPER, **changes: object) -> SoftTraining:
        engine = loaded._engine
        changed = replace(settings, **changes)  # type: ignore[arg-type]
        return SoftTraining(
            loaded._model, engine.tokens, engine.preprocessing, loaded.info, changed, template
        )

    return make


@pytest.fixture
def moved(training_of: Callable[..., SoftTraining]) -> SoftPrompt:
    """A soft prompt that is no template's."""
    start = training_of().start
    rng = np.random.default_rng(0)
    noisy = [
        (array + rng.normal(size=array.shape) * array.std() / 2).astype(np.float32)
        for array in (start.before, start.after)
    ]
    return replace(start, before=noisy[0], after=noisy[1][:5])


def scorer_of(
    soft: SoftPrompt,
    loaded: Qwen3VLScorer,
    checkpoint: Path,
    settings: ScorerSettings,
    graphs: GraphRunner | None = None,
    **changes: object,
) -> Qwen3VLScorer:
    changed = replace(settings, **changes)  # type: ignore[arg-type]
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    tokens = PromptTokens(tokenizer, framing=Framing(changed.layout), soft=soft)
    return Qwen3VLScorer(loaded._model, tokens, loaded._engine.preprocessing, changed, loaded.info, graphs)


def test_before_the_first_step_it_scores_as_its_template(
    training_of: Callable[..., SoftTraining], loaded: Qwen3VLScorer, checkpoint: Path,
    settings: ScorerSettings, new_scorer: Callable[..., Qwen3VLScorer],
    make_video: Callable[..., list[Frame]], to_rounding: Callable[..., object],
) -> None:  # fmt: skip
    video = make_video(7, 64, 64)
    usual = new_scorer()
    soft = scorer_of(training_of().start, loaded, checkpoint, settings)
    for count in (1, 4, 7):
        expected, score = (it.score(asked(TASK, video[:count])) for it in (usual, soft))
        assert score.log_prob == to_rounding(expected.log_prob)
        assert score.log_prob_static == to_rounding(expected.log_prob_static)


@pytest.mark.parametrize("layout", ["v4.57", "v5.10"])
def test_each_prefix_and_its_baseline_are_those_of_plain_passes(
    layout: str, moved: SoftPrompt, loaded: Qwen3VLScorer, checkpoint: Path, settings: ScorerSettings,
    make_video: Callable[..., list[Frame]], to_rounding: Callable[..., object],
    new_scorer: Callable[..., Qwen3VLScorer],
) -> None:  # fmt: skip
    scorer = scorer_of(moved, loaded, checkpoint, settings, layout=layout)
    engine = scorer._engine
    plain, cached = (
        kind(loaded._model, engine.tokens, engine.preprocessing, loaded.info)
        for kind in (PlainForward, PrefixCache)
    )
    buffer, usual = EpisodeBuffer(6, Window.EPISODE), new_scorer(layout=layout)
    differs = 0.0
    for frame in make_video(11, 64, 96):  # with thinnings
        buffer.append(frame)
        prefix = buffer.prefix()
        score = scorer.score(asked(TASK, prefix))
        static = [replace(it, image=prefix[0].image) for it in prefix]
        for reference in (plain, cached):
            expected = reference.score(asked(TASK, prefix))
            assert score.log_prob == to_rounding(expected.log_prob)
            assert score.log_prob_false == to_rounding(expected.log_prob_false)
        if len(prefix) % 2 == 0:
            assert score.log_prob_static == to_rounding(plain.score(asked(TASK, static)).log_prob)
        differs = max(differs, abs(usual.score(asked(TASK, prefix)).log_prob - score.log_prob))
    assert differs > 0.01, "the vectors change nothing"


def test_replayed_ticks_are_those_without_graphs(
    moved: SoftPrompt, loaded: Qwen3VLScorer, checkpoint: Path, settings: ScorerSettings,
    make_video: Callable[..., list[Frame]], to_rounding: Callable[..., object],
) -> None:  # fmt: skip
    graphs = TapeRunner()
    scorer = scorer_of(moved, loaded, checkpoint, settings, graphs, max_frames=8, sample_rate=2.0)
    eager = scorer_of(moved, loaded, checkpoint, settings, max_frames=8, sample_rate=2.0)
    buffer = EpisodeBuffer(8)
    for frame in make_video(21, 32, 64):
        buffer.append(frame)
        request = ScoreRequest(TASK, buffer.copy())
        score, expected = (each.score(request) for each in (scorer, eager))
        assert score.log_prob == to_rounding(expected.log_prob)
        assert score.log_prob_static == to_rounding(expected.log_prob_static)
        for _ in scorer.ahead(request):
            pass
    assert graphs.works and graphs.replayed > 21


def test_the_instruction_counts_and_two_episodes_at_once_are_as_alone(
    moved: SoftPrompt, loaded: Qwen3VLScorer, checkpoint: Path, settings: ScorerSettings,
    make_video: Callable[..., list[Frame]], to_rounding: Callable[..., object],
) -> None:  # fmt: skip
    scorer = scorer_of(moved, loaded, checkpoint, settings)
    videos = [make_video(5, 64, 64, seed=seed) for seed in (1, 2)]
    requests = [asked(text, video) for text, video in zip((TASK, "wave"), videos, strict=True)]
    together = scorer.score_all(requests)
    alone = [scorer_of(moved, loaded, checkpoint, settings).score(it) for it in requests]
    for one, other in zip(together, alone, strict=True):
        assert not isinstance(one, ScorerError) and one.log_prob == to_rounding(other.log_prob)
    changed = scorer.score(asked("wave", videos[0]))
    assert abs(changed.log_prob - alone[0].log_prob) > 1e-3


def test_it_is_loaded_by_its_file_and_refused_with_another_model(
    moved: SoftPrompt, checkpoint: Path, settings: ScorerSettings, tmp_path: Path,
    make_video: Callable[..., list[Frame]], to_rounding: Callable[..., object], loaded: Qwen3VLScorer,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    file = tmp_path / "mine.safetensors"
    write_file(file, soft_prompt_file(replace(moved, about={"model": "it", "verdict": "no_difference"})))
    mine = replace(settings, prompts=str(file))
    scorer = load_scorer(str(checkpoint), mine)
    assert "did not beat the default" in caplog.text
    video = make_video(4, 64, 64)
    expected = scorer_of(moved, loaded, checkpoint, settings).score(asked(TASK, video))
    assert scorer.score(asked(TASK, video)).log_prob == to_rounding(expected.log_prob)
    assert scorer.info.prompt_hash != loaded.info.prompt_hash
    scorer.close()
    with pytest.raises(ScorerError, match=r"trained with layout v4\.57, and v5\.10 is asked for"):
        load_scorer(str(checkpoint), replace(mine, layout="v5.10"))
    with pytest.raises(ScorerError, match=r"contrastive False, and True .*--set contrastive=true"):
        load_scorer(str(checkpoint), replace(mine, contrastive=True))
    other = make_random_checkpoint(tmp_path / "other", seed=5)
    with pytest.raises(ScorerError, match=r"is a soft prompt of it .* means nothing to model"):
        load_scorer(str(other), mine)


def bright(make_video: Callable[..., list[Frame]], seed: int, succeeded: bool) -> list[Frame]:
    """A video that grows bright at its end, or does not."""
    frames = make_video(6, 64, 64, seed=seed)
    return [
        Frame(it.stamp_ns, np.maximum(it.image, 230) if succeeded and k > 2 else it.image)
        for k, it in enumerate(frames)
    ]


def filled(training: SoftTraining, make_video: Callable[..., list[Frame]], count: int = 4) -> SoftTraining:
    for seed in range(count):
        for succeeded in (True, False):
            video = bright(make_video, seed, succeeded)
            prefixes = [video[:2], video[:4], video]
            training.add(TASK, succeeded, prefixes, 2 * count)
    return training


def test_training_tells_successes_from_failures_and_leaves_the_model_as_it_is(
    training_of: Callable[..., SoftTraining], make_video: Callable[..., list[Frame]],
    loaded: Qwen3VLScorer, checkpoint: Path, settings: ScorerSettings,
) -> None:  # fmt: skip
    weights = {name: weight.clone() for name, weight in loaded._model.state_dict().items()}
    training = filled(training_of(), make_video)
    seen: list[Epoch] = []
    soft, epochs = training.train(16, 0, seen.append, lambda: len(seen) > _EPOCHS)
    assert seen == epochs and len(epochs) == _EPOCHS + 1
    best = epochs[epochs[-1].best]
    assert best.number > 0 and best.validation < epochs[0].validation - 0.1
    assert best.validation == min(it.validation for it in epochs)
    # half of the vectors on each side are others now, the last ones
    changed = [
        (one != other).any(axis=1)
        for one, other in ((soft.before, training.start.before), (soft.after, training.start.after))
    ]
    assert [it.sum() for it in changed] == [8, 8] and all(it[-8:].all() for it in changed)
    assert all(torch.equal(weights[name], weight) for name, weight in loaded._model.state_dict().items())
    # the engine that scores live gives what was trained, on videos that were not seen
    usual, learnt = (scorer_of(it, loaded, checkpoint, settings) for it in (training.start, soft))
    gaps = []
    for scorer in (usual, learnt):
        finals = [
            [scorer.score(asked(TASK, bright(make_video, seed, outcome))).log_prob for seed in (20, 21)]
            for outcome in (True, False)
        ]
        gaps.append(np.mean(finals[0]) - np.mean(finals[1]))
    assert gaps[1] > gaps[0] + 0.1


def test_training_sees_the_scores_that_the_engine_gives(
    training_of: Callable[..., SoftTraining], make_video: Callable[..., list[Frame]],
    loaded: Qwen3VLScorer, checkpoint: Path, settings: ScorerSettings, to_rounding: Callable[..., object],
) -> None:  # fmt: skip
    """All prefixes of an episode in one pass, those included that are no beginnings of later ones."""
    training = training_of()
    video = make_video(9, 64, 64)
    prefixes = [video[:2], video[:4], video[:6], [*video[:2], *video[4:8]]]
    training.add(TASK, True, prefixes, 1)
    scorer = scorer_of(training.start, loaded, checkpoint, settings)
    (example,) = training._examples
    scores = training._scores(example.contexts, TASK, training._vectors(4))
    for score, prefix in zip(scores.tolist(), prefixes, strict=True):
        assert score == to_rounding(scorer.score(asked(TASK, prefix)).log_prob)


def test_the_seed_alone_draws(
    training_of: Callable[..., SoftTraining], make_video: Callable[..., list[Frame]]
) -> None:
    made = []
    for seed in (0, 0, 1):
        over = iter((False, True))
        soft, _ = filled(training_of(), make_video).train(
            4, seed, lambda _: None, lambda over=over: next(over)
        )
        made.append(soft.after)
    assert np.array_equal(made[0], made[1]) and not np.array_equal(made[0], made[2])


def test_an_epoch_that_is_no_better_is_not_kept(
    training_of: Callable[..., SoftTraining], make_video: Callable[..., list[Frame]]
) -> None:
    """Labels at random: nothing can be learnt but these, and what was there stays."""
    training = training_of()
    for succeeded in (True, False) * 4:
        training.add(TASK, succeeded, [make_video(4, 64, 64, seed=9)], 8)
    soft, epochs = training.train(4, 0, lambda _: None, is_over=lambda: True)
    assert len(epochs) == 1 and epochs[0].best == 0
    assert np.array_equal(soft.after, training.start.after) and np.array_equal(
        soft.before, training.start.before
    )


def test_the_epoch_that_was_best_on_validation_is_kept(
    training_of: Callable[..., SoftTraining],
    make_video: Callable[..., list[Frame]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = []
    for losses in ([1.0, 0.5], [1.0, 0.5, 0.9, 0.7]):
        training, said = filled(training_of(), make_video, 3), list(losses)
        monkeypatch.setattr(training, "_loss_of", lambda *_, said=said: said.pop(0))
        soft, epochs = training.train(4, 0, lambda _: None, is_over=lambda said=said: not said)
        assert [it.validation for it in epochs] == losses and epochs[-1].best == 1
        made.append(soft.after)
    assert np.array_equal(*made)


@pytest.mark.parametrize("outcomes", [[True] * 8, [True, False], [True, True, False], []])
def test_too_few_episodes_are_told(
    outcomes: list[bool], training_of: Callable[..., SoftTraining], make_video: Callable[..., list[Frame]]
) -> None:
    training = training_of()
    for seed, outcome in enumerate(outcomes):
        training.add(TASK, outcome, [make_video(2, 64, 64, seed=seed)], len(outcomes))
    with pytest.raises(ScorerError, match="have not both successes and failures"):
        training.train(4, 0, lambda _: None)


def test_a_model_without_numbers_is_told(
    training_of: Callable[..., SoftTraining],
    make_video: Callable[..., list[Frame]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    training = filled(training_of(), make_video, 2)
    monkeypatch.setattr(training, "_scores", lambda *_: torch.tensor([nan]))
    with pytest.raises(ScorerError, match=r"loss of training is nan in torch\.float32: try dtype float32"):
        training.train(4, 0, lambda _: None)


def test_too_many_episodes_for_memory_are_told(
    training_of: Callable[..., SoftTraining], make_video: Callable[..., list[Frame]]
) -> None:
    with pytest.raises(ScorerError, match="GB of each of 999999999 more episodes"):
        training_of().add(TASK, True, [make_video(4, 64, 64)], 10**9)
