"""One copy of a model for all that want the same, and another one for who does not."""

from __future__ import annotations

import gc
import shutil
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from test.scorers import Brightness, scorer_info
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.scoring import fp8
from topreward_ros.scoring import pool as pool_module
from topreward_ros.scoring.base import PrefixScorer, ScorerError, ScorerSettings
from topreward_ros.scoring.pool import SHARED, ScorerPool
from topreward_ros.scoring.qwen3_vl import scorer as module
from topreward_ros.scoring.registry import load_scorer


class Loads:
    """Loads scorers that need no model, and holds each up until it is let go."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.asked: list[ScorerSettings] = []
        self.begun = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)
        self.error: BaseException | None = None

    def __call__(self, model: str, settings: ScorerSettings) -> PrefixScorer:
        self.made.append(model)
        self.asked.append(settings)
        self.begun.release()
        assert self.gate.acquire(timeout=60.0)
        if self.error is not None:
            raise self.error
        scorer = Closes()
        scorer.info = scorer_info(model)
        return scorer


class Closes(Brightness):
    """Knows whether it was closed."""

    closed = False

    def close(self) -> None:
        super().close()
        self.closed = True


@pytest.fixture
def loads() -> Loads:
    return Loads()


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "model"))


def test_a_model_is_loaded_once_and_goes_with_the_last(settings: Any, folder: Path, loads: Loads) -> None:
    pool = ScorerPool(loads)
    loads.gate.release()
    first = pool.take(str(folder), settings)
    second = pool.take(str(folder), settings)
    assert not first.said and second.said == SHARED and len(loads.made) == 1
    scorer: Any = first.worker.scorer
    assert second.worker.scorer is scorer
    assert first.worker.stop()
    third = pool.take(str(folder), settings)
    assert third.worker.scorer is scorer and second.worker.stop() and not scorer.closed
    assert third.worker.stop() and scorer.closed
    loads.gate.release()
    assert pool.take(str(folder), settings).worker.stop() and len(loads.made) == 2


def test_who_comes_while_a_model_is_loaded_waits_for_it(settings: Any, folder: Path, loads: Loads) -> None:
    pool = ScorerPool(loads)
    with ThreadPoolExecutor() as threads:
        asked = [threads.submit(pool.take, str(folder), settings)]
        assert loads.begun.acquire(timeout=60.0)
        asked += [threads.submit(pool.take, str(folder), settings) for _ in range(3)]
        while pool._entries[0].waiting < 3:
            pass
        loads.gate.release()
        places = [each.result(timeout=60.0) for each in asked]
    assert loads.made == [str(folder)] and len({id(place.worker.scorer) for place in places}) == 1
    assert [place.worker.stop() for place in places] == [True] * 4


def two_that_wait(
    threads: ThreadPoolExecutor, pool: ScorerPool, folder: Path, settings: Any, loads: Loads
) -> list[Any]:
    """One that loads a model, and one that waits for it."""
    asked = [threads.submit(pool.take, str(folder), settings)]
    assert loads.begun.acquire(timeout=60.0)
    asked.append(threads.submit(pool.take, str(folder), settings))
    while not pool._entries[0].waiting:
        pass
    return asked


@pytest.mark.parametrize("error", [ScorerError("no memory"), ZeroDivisionError("a bug")])
def test_an_error_is_that_of_all_who_wait_and_the_next_one_tries_again(
    settings: Any, folder: Path, loads: Loads, error: Exception
) -> None:
    pool = ScorerPool(loads)
    loads.error = error
    with ThreadPoolExecutor() as threads:
        asked = two_that_wait(threads, pool, folder, settings, loads)
        loads.gate.release()
        for each in asked:
            with pytest.raises((ScorerError, ZeroDivisionError), match=str(error)):
                each.result(timeout=60.0)
    loads.error = None
    loads.gate.release()
    assert pool.take(str(folder), settings).worker.stop() and len(loads.made) == 2


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"sample_rate": 7.0}, "sample_rate"),
        ({"max_frames": 8, "max_pixels": 4096}, "max_pixels, max_frames"),
        ({"static_baseline": False}, "progress_mode"),
        ({"dtype": "bfloat16"}, "dtype"),
        ({"dtype": "bfloat16", "quantization": "fp8"}, "dtype, quantization"),
        ({"prompts": "ten_prompts.txt"}, "prompts"),
        ({"prompts": "roboreward"}, "prompts"),
    ],
)
def test_another_setting_is_another_model_and_is_named(
    settings: Any, folder: Path, loads: Loads, change: dict[str, Any], named: str
) -> None:
    pool = ScorerPool(loads)
    loads.gate.release(2)
    first = pool.take(str(folder), settings)
    other = pool.take(str(folder), replace(settings, **change))
    assert other.worker.scorer is not first.worker.scorer and other.said.endswith(f"another {named}")
    again = pool.take(str(folder), replace(settings, **change))
    assert again.worker.scorer is other.worker.scorer
    assert [place.worker.stop() for place in (first, other, again)] == [True] * 3


def test_two_names_of_one_thing_are_one(settings: Any, folder: Path, loads: Loads) -> None:
    """Of the folder, and of a device and a type; each monitor says it as it was told."""
    pool = ScorerPool(loads)
    loads.gate.release()
    link = folder.with_name("link")
    link.symlink_to(folder)
    first = pool.take(str(folder), replace(settings, device="cpu", dtype="auto"))
    second = pool.take(str(link), replace(settings, device="cpu", dtype="float32"))
    assert second.worker.scorer is first.worker.scorer
    assert (first.worker.info.model_id, second.worker.info.model_id) == (str(folder), str(link))
    assert first.worker.stop() and second.worker.stop()


def test_a_quantization_that_is_not_used_is_none(
    settings: Any, folder: Path, loads: Loads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fp8, "missing_for_fp8", lambda device: "too old")
    pool = ScorerPool(loads)
    loads.gate.release()
    first = pool.take(str(folder), replace(settings, dtype="auto"))
    second = pool.take(str(folder), replace(settings, dtype="float32", quantization="fp8"))
    assert second.worker.scorer is first.worker.scorer
    assert first.worker.stop() and second.worker.stop()


def test_files_that_have_changed_are_another_model(settings: Any, folder: Path, loads: Loads) -> None:
    pool = ScorerPool(loads)
    loads.gate.release(2)
    first = pool.take(str(folder), settings)
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] += 1.0
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    second = pool.take(str(folder), settings)
    assert second.worker.scorer is not first.worker.scorer
    assert "its files have changed" in second.said
    assert first.worker.stop() and second.worker.stop()


def test_the_first_monitor_says_for_all_how_many_threads_there_are(
    settings: Any, folder: Path, loads: Loads
) -> None:
    pool = ScorerPool(loads)
    model = str(folder)
    said = pool.agree_on_threads(
        {
            "/far": ("http://host:8100", 7),
            "/a": (model, 2),
            "/b": (model, 1),
            "/c": (model, 3),
            "/d": (model, 2),
        }
    )
    assert said.startswith("scorer_threads is 2 for all monitors of this process, as /a has it")
    assert said.endswith("/b has 1, /c has 3: give all the same")
    loads.gate.release()
    places = [pool.take(model, replace(settings, threads=threads)) for threads in (3, 2)]
    assert loads.asked[0].threads == 2 and places[1].said == SHARED
    assert [place.worker.stop() for place in places] == [True, True]


def test_numbers_of_threads_that_come_to_the_same_need_no_word(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = ScorerPool(load_scorer)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(4), raising=False)
    assert pool.agree_on_threads({"/a": ("m", 0), "/b": ("m", 3), "/far": ("http://host:8100", 7)}) == ""
    assert pool.agree_on_threads({}) == ""


def test_a_model_beside_one_that_has_gone_meanwhile_is_the_only_one(
    settings: Any, folder: Path, loads: Loads
) -> None:
    pool = ScorerPool(loads)
    loads.gate.release()
    first = pool.take(str(folder), settings)
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(pool.take, str(folder), replace(settings, sample_rate=7.0))
        for _ in range(2):
            assert loads.begun.acquire(timeout=60.0)
        assert first.worker.stop()
        loads.gate.release()
        other = asked.result(timeout=60.0)
    assert not other.said and other.worker.stop()


def test_a_device_that_is_not_there_is_an_error_of_the_one_who_wants_it(
    settings: Any, folder: Path, loads: Loads
) -> None:
    """Whoever comes while the other one's model is about to fail, or fails because of it, gets a model."""
    pool = ScorerPool(loads)
    with ThreadPoolExecutor() as threads:
        bad = threads.submit(pool.take, str(folder), replace(settings, device="cuda:99"))
        assert loads.begun.acquire(timeout=60.0)
        good = threads.submit(pool.take, str(folder), replace(settings, device="cpu"))
        while len(pool._entries) < 2 and not good.done():
            pass
        loads.gate.release(2)
        place = good.result(timeout=60.0)
        assert "another device" in place.said and place.worker.stop()
        assert bad.result(timeout=60.0).worker.stop(), "these loads take any device"


def test_a_thread_that_cannot_be_started_is_an_error_of_all_who_wait(
    settings: Any, folder: Path, loads: Loads, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = ScorerPool(loads)

    def start(_: object) -> None:
        raise RuntimeError("can't start new thread")

    with ThreadPoolExecutor() as threads:
        asked = two_that_wait(threads, pool, folder, settings, loads)
        with monkeypatch.context() as patch:
            patch.setattr(pool_module, "ScoringThread", start)
            loads.gate.release()
            for each in asked:
                with pytest.raises((RuntimeError, ScorerError), match="can't start new thread"):
                    each.result(timeout=60.0)
    loads.gate.release()
    assert pool.take(str(folder), settings).worker.stop() and len(loads.made) == 2


def test_the_page_names_all_that_keeps_monitors_from_sharing() -> None:
    page = (Path(__file__).parents[2] / "docs" / "several_robots.md").read_text(encoding="utf-8")
    shared = page.split("**What is shared.**")[1].split("**Failures.**")[0]
    names = {pool_module._PARAMETERS.get(each.name, each.name) for each in fields(ScorerSettings)}
    assert [name for name in sorted(names) if f"`{name}`" not in shared] == []


def test_scores_are_those_of_a_monitor_alone(
    settings: Any, folder: Path, make_video: Any, to_rounding: Any
) -> None:
    """The real engine: two episodes that grow by turns, and each as if it were the only one."""
    pool = ScorerPool(load_scorer)
    places = [pool.take(str(folder), settings) for _ in range(2)]
    videos = [make_video(6, 32, 32), make_video(6, 48, 32)]
    told = [threading.Semaphore(0) for _ in places]
    for place, each in zip(places, told, strict=True):
        place.worker.notify = each.release
    found: list[list[float]] = [[], []]
    for length in range(1, 7):
        for number, video in enumerate(videos):
            places[number].worker.submit(ScoreRequest.of_frames("lift", video[:length]))
            assert told[number].acquire(timeout=60.0)
            (result,) = places[number].worker.results()
            found[number].append(result.score.log_prob)
    engine: Any = places[0].worker.scorer
    assert len(engine._episodes) == 2, "what was computed of the other is gone with every turn"
    for number, video in enumerate(videos):
        alone = load_scorer(str(folder), settings)
        scores = [alone.score(ScoreRequest.of_frames("lift", video[:length])) for length in range(1, 7)]
        assert found[number] == [to_rounding(score.log_prob) for score in scores]
    weights, engine = weakref.ref(engine._model), None
    assert [place.worker.stop() for place in places] == [True, True]
    gc.collect()
    assert weights() is None, "something holds the model although nobody uses it"


def test_models_are_loaded_one_after_the_other(settings: Any, folder: Path, loads: Loads) -> None:
    """While it builds a model, transformers changes PyTorch's default type for all threads."""
    pool = ScorerPool(loads)
    with ThreadPoolExecutor() as threads:
        asked = [threads.submit(pool.take, str(folder), settings)]
        assert loads.begun.acquire(timeout=60.0)
        asked.append(threads.submit(pool.take, str(folder), replace(settings, sample_rate=7.0)))
        while len(pool._entries) < 2:
            pass
        assert not loads.begun.acquire(timeout=0.1)
        loads.gate.release(2)
        places = [each.result(timeout=60.0) for each in asked]
    assert [place.worker.stop() for place in places] == [True, True] and len(loads.made) == 2


@pytest.mark.parametrize("other", [torch.bfloat16, torch.float64])
def test_scores_do_not_depend_on_the_default_type_of_pytorch(
    settings: Any, folder: Path, make_video: Any, other: torch.dtype
) -> None:
    """It is another one for a moment while a second model is loaded."""
    scorer = load_scorer(str(folder), settings)
    asked = ScoreRequest.of_frames("lift", make_video(4, 48, 32))
    expected = scorer.score(asked)
    scorer.forget()
    sizes: Any = scorer
    sizes._engine.vision._positions.clear()
    torch.set_default_dtype(other)
    try:
        assert scorer.score(asked) == expected
    finally:
        torch.set_default_dtype(torch.float32)


def test_where_memory_runs_out_fewer_episodes_are_kept_before_frames_are_given_up(
    settings: Any, folder: Path, make_video: Any, to_rounding: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer: Any = load_scorer(str(folder), settings)
    first, second = (ScoreRequest.of_frames("lift", make_video(4, *size)) for size in ((48, 32), (32, 48)))
    expected = [scorer.score(each).log_prob for each in (first, second)]
    scorer.score_all([first], [second.prefix[0]])
    scorer.score_all([second], [first.prefix[0]])
    assert len(scorer._episodes) == 2
    real, failures = module.run_tick, [MemoryError("out of memory")]
    monkeypatch.setattr(
        module, "run_tick", lambda *given: real(*given) if not failures else _raise(failures.pop())
    )
    (score,) = scorer.score_all([first], [second.prefix[0]])
    assert score.log_prob == to_rounding(expected[0]) and score.num_frames == 4
    assert scorer.episodes_at_once() == 1 and not scorer._budget.is_lowered
    (score,) = scorer.score_all([second], [first.prefix[0]])
    assert score.log_prob == to_rounding(expected[1]) and len(scorer._episodes) == 1


def _raise(error: Exception) -> None:
    raise error
