"""Layers compiled, and what happens where they cannot be.

Without a GPU PyTorch's compiler is tried up to what it would generate code for: each function is one whole
graph, of any number of tokens, and gives the same numbers.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch

from test.tape import TapeRunner
from topreward_ros.scoring.qwen3_vl import compiling
from topreward_ros.scoring.qwen3_vl.compiling import compile_layers, compiled, missing_for, try_out
from topreward_ros.scoring.qwen3_vl.language import LanguageModel, pass_work
from topreward_ros.scoring.qwen3_vl.layer_functions import PLAIN
from topreward_ros.scoring.qwen3_vl.vision import VisionModel
from topreward_ros.scoring.registry import load_scorer


@pytest.fixture
def models(loaded):
    """A runner, and both models on it."""
    torch._dynamo.reset()
    graphs = TapeRunner()
    return graphs, VisionModel(loaded._model.model.visual, graphs), LanguageModel(loaded._model, graphs)


@pytest.fixture
def a_gpu(monkeypatch):
    """As if there were all that the compiler needs."""
    monkeypatch.setattr(compiling, "missing_for", lambda device: "")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/nowhere")


def test_every_function_is_one_graph_for_any_number_of_tokens(models):
    made = []

    def backend(graph, inputs):
        made.append(graph)
        return graph.forward

    graphs, vision, language = models
    assert try_out(compiled(backend), graphs, vision, language) == ""
    assert graphs.functions != PLAIN
    of_the_trial = len(made)
    # Each function, for one patch and two, for all tokens, for some answers and for one.
    assert len(PLAIN) <= of_the_trial <= 2 * len(PLAIN) + 2
    with torch.inference_mode():
        for patches in (1, 2):
            pixels = torch.randn(patches, *vision.input_shape(6, 8))
            work = vision.work(pixels, 6, 8)
            work.load(pixels)
            work.run()
        for tokens, answers in ((64, 1), (80, 2), (96, 10)):
            cache = compiling.KVCache()
            cache.reserve(200)
            language.run([compiling._trial_pass(cache, 70, answers=1)])
            work = pass_work(language, cache, tokens, answers)
            work.load([compiling._trial_pass(cache, tokens, answers)])
            found = work.run()[0].clone()
            graphs.functions, before = PLAIN, graphs.functions
            work.load([compiling._trial_pass(cache, tokens, answers)])
            torch.testing.assert_close(found, work.run()[0])
            graphs.functions = before
    assert len(made) == of_the_trial, "compiled in the middle of an episode"


def raises(graph, inputs):
    raise RuntimeError("InductorError: no such compiler")


def doubles(graph, inputs):
    return lambda *arguments: [2 * each for each in graph.forward(*arguments)]


def waits(graph, inputs):
    def run(*arguments):
        float(next(each for each in arguments if isinstance(each, torch.Tensor)).sum())
        return graph.forward(*arguments)

    return run


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        (raises, "no such compiler"),
        (doubles, "of their size away from those without"),
        (waits, "not permitted when a stream is capturing"),
    ],
)
@pytest.mark.parametrize(("wanted", "level"), [("auto", "INFO"), ("true", "WARNING")])
def test_what_fails_or_is_wrong_leaves_the_plain_functions_and_one_line(
    models, a_gpu, monkeypatch, caplog, backend, said, wanted, level
):
    monkeypatch.setattr(compiling, "compiled", lambda: compiled(backend))
    with caplog.at_level(logging.INFO, logger=compiling.__name__):
        compile_layers(wanted, *models)
    (record,) = caplog.records
    assert record.levelname == level and said in record.getMessage()
    assert "layers are not compiled" in record.getMessage()
    assert models[0].functions is PLAIN


def test_what_is_right_is_used(models, a_gpu, monkeypatch, caplog):
    monkeypatch.setattr(compiling, "compiled", lambda: compiled("eager"))
    with caplog.at_level(logging.INFO, logger=compiling.__name__):
        compile_layers("auto", *models)
    assert models[0].functions != PLAIN
    assert "compiled the layers in" in caplog.text and "/nowhere" in caplog.text


def test_false_compiles_nothing(models, a_gpu, monkeypatch, caplog):
    monkeypatch.setattr(compiling, "compiled", raises)
    compile_layers("false", *models)
    assert models[0].functions is PLAIN and not caplog.records


def test_what_is_missing_is_named(models, monkeypatch, tmp_path):
    assert "for GPUs" in missing_for(torch.device("cpu"))
    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Old GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
    assert "Old GPU" in missing_for(gpu)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(compiling, "find_spec", lambda name: None)
    assert "Triton is not installed" in missing_for(gpu)
    monkeypatch.setattr(compiling, "find_spec", lambda name: "there")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert "no C compiler" in missing_for(gpu)
    (tmp_path / "my-cc").touch(mode=0o755)
    monkeypatch.setenv("CC", "my-cc")
    assert missing_for(gpu) == ""


def test_without_a_gpu_true_is_a_warning_and_auto_is_not(checkpoint, settings, caplog):
    for wanted, lines in (("false", 0), ("auto", 0), ("true", 1)):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            load_scorer(str(checkpoint), replace(settings, compile=wanted)).close()
        said = [
            line.getMessage() for line in caplog.records if "compile: true has no effect" in line.getMessage()
        ]
        assert len(said) == lines and all("the model is on cpu" in line for line in said)
