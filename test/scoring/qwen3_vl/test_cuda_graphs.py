"""Ticks replayed from CUDA graphs against the same ticks run eagerly; a tape (test/tape.py) is the graph."""

from __future__ import annotations

import gc
import logging
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, Qwen3VLForConditionalGeneration

from test.tape import TapeRunner
from topreward_ros.core.frames import EpisodeBuffer
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.scoring.qwen3_vl import attention, cuda_graphs, language
from topreward_ros.scoring.qwen3_vl import scorer as qwen3_vl
from topreward_ros.scoring.qwen3_vl.cuda_graphs import GraphCache, GraphRunner, GraphWork
from topreward_ros.scoring.qwen3_vl.kv_cache import KVCache
from topreward_ros.scoring.qwen3_vl.language import LanguageModel, Pass, PatchFeatures
from topreward_ros.scoring.qwen3_vl.layer_functions import PLAIN
from topreward_ros.scoring.qwen3_vl.references import PlainForward
from topreward_ros.scoring.registry import load_scorer

asked = ScoreRequest.of_frames  # a request for all of some frames

TASK = "put the cup into the drawer"


def work_ahead(scorer, buffer=None) -> None:
    for _ in scorer.capture_ahead() if buffer is None else scorer.ahead(ScoreRequest(TASK, buffer)):
        pass


def kv_cache_of(scorer) -> KVCache:
    """The KV cache of the one episode that the scorer has."""
    (episode,) = scorer._episodes.values()
    return episode._video._kv


@pytest.fixture(scope="module")
def video(make_video):
    return make_video(41, 32, 64)


@pytest.mark.parametrize("prompts", ["", "ten_prompts.txt"])
def test_replayed_ticks_equal_plain_forward_passes(to_rounding, new_scorer, video, prompts):
    """From the first frame to the last, over thinned prefixes, with times of three and of four digits."""
    graphs = TapeRunner()
    scorer = new_scorer(graphs=graphs, max_frames=16, sample_rate=2.0, prompts=prompts)
    plain = PlainForward(scorer._model, scorer._engine.tokens, scorer._engine.preprocessing, scorer.info, 2.0)
    eager = new_scorer(max_frames=16, sample_rate=2.0, prompts=prompts)
    buffer = EpisodeBuffer(16)
    for number, frame in enumerate(video):
        buffer.append(frame)
        score, expected = (each.score(ScoreRequest(TASK, buffer)) for each in (scorer, eager))
        assert score.log_prob == to_rounding(expected.log_prob)
        assert score.log_prob_static == to_rounding(expected.log_prob_static)
        assert score.log_prob_std == to_rounding(expected.log_prob_std, nan_ok=True)
        if number % 4 == 3:
            assert score.log_prob == to_rounding(plain.score(ScoreRequest(TASK, buffer)).log_prob)
        work_ahead(scorer, buffer)
    assert graphs.works
    assert set(graphs.captured) == {"_PassWork", "_VisionWork"}
    assert len(graphs.captured) <= 8, "a few shapes are all there are"
    assert graphs.replayed > 2 * 41, "passes of vision and of language"


@settings(max_examples=settings().max_examples // 4)
@given(
    st.lists(st.tuples(st.integers(1, 41), st.booleans(), st.booleans()), min_size=2, max_size=14),
    st.integers(1, 3),
)
def test_any_steps_replayed_equal_the_same_run_eagerly(to_rounding, new_scorer, video, steps, patience):
    """Prefixes that grow by any number, shrink, or begin with the next frame; captured early or late."""
    graphs = TapeRunner()
    scorer = new_scorer(graphs=graphs, static_baseline=False, max_frames=42)
    eager = new_scorer(static_baseline=False, max_frames=42)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda_graphs, "_PATIENCE", patience)
        for count, later, ahead in steps:
            prefix = video[later:count] or video[:1]
            score, expected = (
                scorer.score(asked(TASK, prefix)),
                eager.score(asked(TASK, prefix)),
            )
            assert score.log_prob == to_rounding(expected.log_prob)
            assert score.log_prob_false == to_rounding(expected.log_prob_false)
            if ahead:
                work_ahead(scorer)
    assert graphs.works


def test_nothing_is_captured_in_a_tick_until_it_was_wanted_often(new_scorer, video):
    graphs = TapeRunner()
    scorer = new_scorer(graphs=graphs, static_baseline=False)
    for tick in range(1, cuda_graphs._PATIENCE + 3):
        scorer.score(asked(TASK, video[: 2 * tick]))
        assert not graphs.captured or tick >= cuda_graphs._PATIENCE
    assert sorted(graphs.captured) == ["_PassWork", "_VisionWork"]
    work_ahead(scorer)
    assert len(graphs.captured) == 2


# ---- several episodes at once ----


@pytest.fixture(scope="module")
def videos(make_video):
    return [make_video(24, *size, seed=seed) for seed, size in enumerate([(32, 32), (32, 64), (32, 32)])]


def assert_equal_scores(to_rounding, scorer, eager, requests) -> None:
    outcomes = zip(*(each.score_all(requests) for each in (scorer, eager)), strict=True)
    for number, (score, expected) in enumerate(outcomes):
        assert score.log_prob == to_rounding(expected.log_prob), number
        assert score.log_prob_static == to_rounding(expected.log_prob_static, nan_ok=True), number


@pytest.mark.parametrize("prompts", ["", "ten_prompts.txt"])
def test_several_episodes_at_once_share_a_graph(to_rounding, new_scorer, videos, prompts):
    graphs = TapeRunner()
    scorer = new_scorer(graphs=graphs, static_baseline=False, prompts=prompts)
    eager = new_scorer(static_baseline=False, prompts=prompts)
    for count in range(1, 25):
        requests = [asked(TASK, video[:count]) for video in videos]
        if count % 2:
            requests.reverse()  # whoever waited longest comes first
        assert_equal_scores(to_rounding, scorer, eager, requests)
        work_ahead(scorer)
    assert graphs.works
    passes = graphs.captured.count("_PassWork")
    assert 1 <= passes <= 3, "tokens of one or two steps more, and not one for each order"
    assert graphs.replayed > 12


@settings(max_examples=settings().max_examples // 4)
@given(
    st.lists(
        st.tuples(st.permutations(range(3)), st.integers(1, 3), st.integers(1, 24), st.booleans()),
        min_size=2,
        max_size=10,
    ),
    st.integers(1, 3),
    st.booleans(),
)
def test_any_episodes_that_come_together_score_as_run_eagerly(
    to_rounding, new_scorer, videos, steps, patience, baseline
):
    graphs = TapeRunner()
    scorer, eager = (new_scorer(graphs=each, static_baseline=baseline) for each in (graphs, None))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda_graphs, "_PATIENCE", patience)
        for order, many, count, ahead in steps:
            requests = [asked(TASK, videos[number][:count]) for number in order[:many]]
            assert_equal_scores(to_rounding, scorer, eager, requests)
            if ahead:
                work_ahead(scorer)
    assert graphs.works


def test_episodes_that_come_together_once_are_not_worth_a_graph(new_scorer, videos):
    graphs = TapeRunner()
    scorer = new_scorer(graphs=graphs, static_baseline=False)
    kept = [video[0] for video in videos]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        for count in (2, 6):  # a new episode runs eagerly, whatever comes with it
            requests = [asked(TASK, videos[number][:count]) for number in (first, second)]
            scorer.score_all(requests, kept)
            work_ahead(scorer)
    assert graphs.captured.count("_PassWork") == 0
    for count in (8, 10, 12):
        scorer.score_all([asked(TASK, videos[number][:count]) for number in (1, 2)], kept)
        work_ahead(scorer)
    assert graphs.captured.count("_PassWork") == 1


def test_other_episodes_of_the_same_shape_have_another_graph(to_rounding, new_scorer, make_video):
    graphs = TapeRunner()
    scorer, eager = (new_scorer(graphs=each, static_baseline=False) for each in (graphs, None))
    alike = [make_video(12, 32, 32, seed=seed) for seed in range(3)]
    kept = [video[0] for video in alike]
    for count in (1, 4, 6, 8):
        scorer.score_all([asked(TASK, video[:count]) for video in alike[:2]], kept)
        scorer.score(asked(TASK, alike[2][:count])) if count == 1 else None
        work_ahead(scorer)
    assert "_PassWork" in graphs.captured
    pair = [asked(TASK, video[:10]) for video in (alike[0], alike[2])]
    scorer.score_all([asked(TASK, alike[2][:8])], kept)
    outcomes = scorer.score_all(pair, kept)
    for score, expected in zip(outcomes, eager.score_all(pair), strict=True):
        assert score.log_prob == to_rounding(expected.log_prob)


def joint_graphs(scorer) -> dict:
    return scorer._engine.language._joint_graphs._graphs


def together(scorer, videos, counts) -> None:
    for count in counts:
        scorer.score_all([asked(TASK, video[:count]) for video in videos])
        work_ahead(scorer)


def test_an_episode_that_goes_takes_the_graphs_that_it_is_part_of(new_scorer, videos):
    """They write where its keys and values were, and hold these in memory."""
    scorer = new_scorer(graphs=TapeRunner(), static_baseline=False)
    together(scorer, videos, range(1, 7))
    (graph,) = joint_graphs(scorer).values()
    held = [weakref.ref(layer) for layers in graph.work._layers for layer in layers]
    del graph
    gc.disable()
    try:
        scorer.score_all([asked(TASK, video[:7]) for video in videos[:2]])
        assert not joint_graphs(scorer)
        assert sum(ref() is None for ref in held) == len(held) // 3
    finally:
        gc.enable()


def test_a_kv_cache_that_moves_drops_the_graphs_that_it_is_part_of(to_rounding, new_scorer, videos):
    graphs = TapeRunner()
    scorer, eager = (new_scorer(graphs=each, static_baseline=False) for each in (graphs, None))
    together(scorer, videos, range(1, 7))
    assert joint_graphs(scorer)
    moved = scorer._episodes[videos[1][0]]._video._kv
    moved.reserve(moved.capacity + 1)
    assert not joint_graphs(scorer)
    assert_equal_scores(to_rounding, scorer, eager, [asked(TASK, video[:8]) for video in videos])
    assert graphs.works


def test_the_graph_that_was_used_last_stays():
    cache = GraphCache()
    cache.add("used", object())
    for number in range(cuda_graphs._MAX_GRAPHS):
        assert cache.get("used")
        cache.add(number, object())
    assert cache.get("used") and cache.get(0) is None


def test_what_is_over_is_not_captured_later(to_rounding, new_scorer, video, make_video):
    """A pass that could have been captured, and then another episode in the same KV cache."""
    graphs, other = TapeRunner(), make_video(8, 32, 64, seed=5)
    scorer, eager = (new_scorer(graphs=each, static_baseline=False) for each in (graphs, None))
    for prefix in (video[:2], video[:6], other[:6], other[:8]):
        score = scorer.score(asked(TASK, prefix))
        assert score.log_prob == to_rounding(eager.score(asked(TASK, prefix)).log_prob)
        if prefix[0] is other[0]:
            work_ahead(scorer)
    assert graphs.works


def test_outputs_are_copies():
    class Double(GraphWork):
        places = torch.zeros(2)

        def load(self, given):
            self.places.fill_(given)

        def run(self):
            return [self.places]

    recorded = cuda_graphs.CapturedGraph(Double(), lambda: None, Double().run())
    one, other = recorded(1.0), recorded(2.0)
    assert one[0].tolist() == [1.0, 1.0] and other[0].tolist() == [2.0, 2.0]


def test_a_kv_cache_that_moves_drops_its_graphs(to_rounding, new_scorer, video, monkeypatch):
    monkeypatch.setattr(language, "_CONTEXT_STEP", 16)  # so that shapes do not tell memory that moved
    graphs = TapeRunner()
    scorer, eager = (new_scorer(graphs=each, max_frames=2, static_baseline=False) for each in (graphs, None))
    for count in range(2, 42, 2):
        score = scorer.score(asked(TASK, video[:count]))
        assert score.log_prob == to_rounding(eager.score(asked(TASK, video[:count])).log_prob)
        work_ahead(scorer)
    assert graphs.captured.count("_PassWork") > 2
    assert graphs.replayed > 20


def test_a_place_in_memory_that_is_not_a_number_harms_nothing(new_scorer, video):
    """What was rolled back stays where it was, and a mask only multiplies it by 0."""
    graphs = TapeRunner()
    scorer = new_scorer(graphs=graphs, static_baseline=False)
    for count in (2, 4, 6, 8):
        scorer.score(asked(TASK, video[:count]))
        work_ahead(scorer)
        assert all(layer.isfinite().all() for layer in kv_cache_of(scorer).layers)
    assert graphs.replayed


# ---- what cannot be captured ----


def assert_goes_on(to_rounding, scorer, new_scorer, video, caplog, said: str) -> None:
    eager = new_scorer(static_baseline=False)
    with caplog.at_level(logging.WARNING):
        for count in (2, 4, 6, 8, 11):
            score = scorer.score(asked(TASK, video[:count]))
            assert score.log_prob == to_rounding(eager.score(asked(TASK, video[:count])).log_prob)
            work_ahead(scorer)
    (warning,) = (record.getMessage() for record in caplog.records)
    assert "CUDA graphs are not used from now on" in warning and "cuda_graphs: false" in warning
    assert said in warning
    assert not scorer._graphs.works and not scorer._graphs.has_pending
    assert not any(cache._graphs for cache in scorer._graphs._caches), "of no use any more"


def test_work_that_reads_from_the_device_is_not_captured(to_rounding, new_scorer, video, caplog, monkeypatch):
    real = language.ValidLength

    def reads(number, tokens, dtype):
        number.item()
        return real(number, tokens, dtype)

    monkeypatch.setattr(language, "ValidLength", reads)
    scorer = new_scorer(graphs=TapeRunner(), static_baseline=False)
    assert_goes_on(to_rounding, scorer, new_scorer, video, caplog, "not permitted when a stream is capturing")


def test_a_graph_with_other_numbers_is_not_used_and_what_it_wrote_is_put_right(
    to_rounding, new_scorer, video, caplog
):
    class Wrong(TapeRunner):
        def capture(self, work):
            repeat, outcome = super().capture(work)
            if isinstance(work, language._PassWork):

                def repeat():
                    for layers, slots in zip(work._layers, work._slots, strict=True):
                        for layer in layers:
                            layer[:, :, :, slots] = 7.0
                    outcome[0].fill_(1.0)

            return repeat, outcome

    scorer = new_scorer(graphs=Wrong(), static_baseline=False)
    assert_goes_on(to_rounding, scorer, new_scorer, video, caplog, "of their size away from those without")


def test_compiled_layers_that_cannot_be_captured_are_left_and_graphs_go_on(
    to_rounding, new_scorer, video, caplog
):
    def wrong(*arguments):
        total, normed = PLAIN.add_and_norm(*arguments)
        return total, 2 * normed

    graphs = TapeRunner(PLAIN._replace(add_and_norm=wrong))
    scorer, eager = (new_scorer(graphs=each, static_baseline=False) for each in (graphs, None))
    with caplog.at_level(logging.WARNING):
        for count in (2, 4, 6, 8, 11):
            score = scorer.score(asked(TASK, video[:count]))
            assert score.log_prob == to_rounding(eager.score(asked(TASK, video[:count])).log_prob)
            work_ahead(scorer)
    (warning,) = (record.getMessage() for record in caplog.records)
    assert (
        "compiled layers and the kernel" in warning
        and "not used from now on" in warning
        and "compile: false" in warning
    )
    assert graphs.works and graphs.functions is PLAIN and graphs.replayed > 5


def test_no_memory_for_a_graph_is_no_error(to_rounding, new_scorer, video, caplog):
    class Full(TapeRunner):
        def capture(self, work):
            raise torch.OutOfMemoryError("CUDA out of memory")

    scorer = new_scorer(graphs=Full(), static_baseline=False)
    assert_goes_on(to_rounding, scorer, new_scorer, video, caplog, "OutOfMemoryError: CUDA out of memory")


def test_the_first_cause_is_told(to_rounding, new_scorer, video, caplog):
    """Once a capture is given up, what follows fails, too."""

    class GivenUp(TapeRunner):
        def capture(self, work):
            try:
                raise RuntimeError("the cause")
            finally:
                raise RuntimeError("previous error during capture")

    scorer = new_scorer(graphs=GivenUp(), static_baseline=False)
    assert_goes_on(to_rounding, scorer, new_scorer, video, caplog, "RuntimeError: the cause")


def test_what_is_closed_is_gone_at_once(new_scorer, video):
    """Without a collection of garbage, which does not know how much memory of a GPU is held."""
    scorer = new_scorer(graphs=TapeRunner())
    for count in range(1, 9):
        scorer.score(asked(TASK, video[:count]))
        if count < 8:  # something is left to capture
            work_ahead(scorer)
    engine = scorer._engine
    held = [weakref.ref(each) for each in (engine.vision, engine.language, kv_cache_of(scorer))]
    del engine
    gc.disable()
    try:
        scorer.close()
        assert [ref() for ref in held] == [None] * 3
    finally:
        gc.enable()


def test_memory_that_runs_out_takes_the_graphs_with_it(new_scorer, video, monkeypatch, caplog):
    """They hold memory that all of them share, until the last one goes."""
    graphs = TapeRunner()
    scorer = new_scorer(graphs=graphs, static_baseline=False, max_frames=20)
    for count in range(1, 13):
        scorer.score(asked(TASK, video[:count]))
        work_ahead(scorer)
    assert sum(len(cache._graphs) for cache in graphs._caches) >= 2
    monkeypatch.setattr(
        GraphRunner, "run", raises_once(GraphRunner.run, torch.OutOfMemoryError("out of memory"))
    )
    held: list[int] = []
    monkeypatch.setattr(
        qwen3_vl,
        "release_cached_memory",
        lambda _device: held.append(sum(len(cache._graphs) for cache in graphs._caches)),
    )
    scorer.score(asked(TASK, video[:13]))
    assert held == [0]
    assert "out of memory" in caplog.records[0].getMessage()


def raises_once(function, error):
    left = [error]

    def wrapped(*arguments, **named):
        if left:
            raise left.pop()
        return function(*arguments, **named)

    return wrapped


def test_catching_up_is_not_captured_by_the_vision_model(new_scorer, video):
    graphs = TapeRunner()
    new_scorer(graphs=graphs, static_baseline=False, max_frames=42).score(asked(TASK, video))
    assert not graphs.captured and not graphs._pending


def test_only_the_newest_shapes_are_kept():
    cache = GraphCache()
    for number in range(20):
        cache.add(number, None)
        assert number in cache._graphs
    assert list(cache._graphs) == list(range(20 - cuda_graphs._MAX_GRAPHS, 20))


def test_a_kv_cache_begins_with_zeros():
    """A graph multiplies stale entries by 0, and that is a number only where they are."""
    cache = KVCache()
    for length in (8, 40):
        cache.reserve(length)
        cache.write(0, cache.length, *torch.ones(2, 1, 2, 4, 16))
        assert (cache.layers[0][:, :, :, 4:] == 0).all()


# ---- on a GPU ----


@pytest.mark.parametrize("flash", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_is_captured_on_a_gpu_fits_its_operations(checkpoint, monkeypatch, flash, dtype):
    """By shapes and types alone, which PyTorch knows without a GPU; no numbers come of it."""
    for module in (attention, language):
        monkeypatch.setattr(module, "has_flash", lambda device, dtype: flash)
    config = AutoConfig.from_pretrained(checkpoint)
    with torch.device("meta"):
        model = LanguageModel(Qwen3VLForConditionalGeneration(config).to(dtype))
    seen = torch.empty(6, 128, dtype=dtype, device="meta")
    patch = PatchFeatures(2, 3, seen, [seen] * 3)
    cache = KVCache()
    cache.reserve(100)
    passes = []
    for _ in range(2):
        one = Pass(cache)
        one.put_features(4, patch)
        one.append(list(range(21)), torch.zeros(3, 21, dtype=torch.long), [])
        one.answer_positions = [15, 20]
        passes.append(one)
        hidden = model.run([one])
        assert hidden.is_meta and hidden.shape == (2, 128) and hidden.dtype == dtype
    work = language.pass_work(model, cache, 32, 2)
    work.load(passes[1:])
    (outcome,) = work.run()
    assert outcome.is_meta and outcome.shape == hidden.shape and outcome.dtype == dtype


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize(("dtype", "near"), [("float32", 1e-4), ("bfloat16", 0.3), ("float16", 0.05)])
@pytest.mark.parametrize("compile_layers", ["false", "true"])
def test_cuda_graphs_give_the_numbers_of_kernel_by_kernel(
    checkpoint, video, settings, dtype, near, caplog, compile_layers
):
    from dataclasses import replace

    gpu = replace(settings, device="cuda", dtype=dtype, static_baseline=False, max_frames=42)
    gpu = replace(gpu, compile=compile_layers)
    scorer = load_scorer(str(checkpoint), gpu)
    assert (scorer._graphs.functions != PLAIN) == (compile_layers == "true")
    eager = load_scorer(str(checkpoint), replace(gpu, cuda_graphs=False))
    with caplog.at_level(logging.INFO):
        for count in range(1, 34):
            score, expected = (
                scorer.score(asked(TASK, video[:count])),
                eager.score(asked(TASK, video[:count])),
            )
            assert score.log_prob == pytest.approx(expected.log_prob, abs=near)
            work_ahead(scorer)
    assert scorer._graphs.works
    assert (scorer._graphs.functions != PLAIN) == (compile_layers == "true")
    assert sum("captured a pass" in record.getMessage() for record in caplog.records) >= 1
    # What libraries work in is shared by all graphs, and outlives each of them.
    kv_cache_of(scorer).graphs.clear()
    torch.cuda.empty_cache()
    others = torch.full((2**28,), 7.0, device="cuda")
    for count in range(34, 42):
        score, expected = (
            scorer.score(asked(TASK, video[:count])),
            eager.score(asked(TASK, video[:count])),
        )
        assert score.log_prob == pytest.approx(expected.log_prob, abs=near)
        work_ahead(scorer)
    assert (others == 7.0).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize(("dtype", "near"), [("float32", 1e-4), ("bfloat16", 0.3), ("float16", 0.05)])
@pytest.mark.parametrize("compile_layers", ["false", "true"])
def test_cuda_graphs_of_several_episodes_give_the_numbers_of_kernel_by_kernel(
    checkpoint, videos, settings, dtype, near, caplog, compile_layers
):
    from dataclasses import replace

    gpu = replace(settings, device="cuda", dtype=dtype, max_frames=42, compile=compile_layers)
    scorer, eager = (
        load_scorer(str(checkpoint), replace(gpu, cuda_graphs=graphs)) for graphs in (True, False)
    )
    with caplog.at_level(logging.INFO):
        for count in range(1, 25):
            requests = [asked(TASK, video[:count]) for video in videos]
            outcomes = zip(scorer.score_all(requests), eager.score_all(requests), strict=True)
            for score, expected in outcomes:
                assert score.log_prob == pytest.approx(expected.log_prob, abs=near)
            work_ahead(scorer)
    assert scorer._graphs.works
    assert sum("captured a pass of 3 videos" in record.getMessage() for record in caplog.records) >= 1
