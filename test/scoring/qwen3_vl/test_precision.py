"""Fewer bits: refused where that cannot be, else the scores of a plain forward pass with as few."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from test.tape import TapeRunner
from topreward_ros.core.frames import Frame
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.scoring import fp8
from topreward_ros.scoring.base import ScorerError, ScorerSettings
from topreward_ros.scoring.qwen3_vl import cuda_graphs
from topreward_ros.scoring.qwen3_vl.compiling import compiled, try_out
from topreward_ros.scoring.qwen3_vl.language import LanguageModel
from topreward_ros.scoring.qwen3_vl.layer_functions import PLAIN
from topreward_ros.scoring.qwen3_vl.references import PlainForward
from topreward_ros.scoring.qwen3_vl.scorer import Qwen3VLScorer
from topreward_ros.scoring.qwen3_vl.vision import VisionModel
from topreward_ros.scoring.registry import graph_runner_for, load_qwen3_vl, load_scorer

asked = ScoreRequest.of_frames  # a request for all of some frames

TASK = "open the drawer"


def test_without_the_library_it_is_refused_with_the_command(checkpoint, settings, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(ScorerError, match=r"needs torchao, .*: pip install 'torchao>=0.18'"):
        load_scorer(str(checkpoint), replace(settings, quantization="int8"))


def test_a_library_of_another_time_is_refused_the_same_way(checkpoint, settings, monkeypatch, tmp_path):
    (tmp_path / "torchao").mkdir()
    (tmp_path / "torchao" / "__init__.py").touch()
    (tmp_path / "torchao" / "quantization.py").write_text("def int8_weight_only(): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchao"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ScorerError, match=r"no attribute 'Int8WeightOnlyConfig'.*'torchao>=0.18'"):
        load_scorer(str(checkpoint), replace(settings, quantization="int8"))
    for name in ("torchao", "torchao.quantization"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("dtype", "quantization"),
    [
        *(("bfloat16", "none"), ("float16", "none")),
        *(("float32", "int8"), ("bfloat16", "int8"), ("bfloat16", "fp8")),
    ],
)
def test_scores_are_those_of_a_plain_forward_pass_in_the_same_precision(
    checkpoint: Path,
    settings: ScorerSettings,
    make_video: Callable[..., list[Frame]],
    dtype: str,
    quantization: str,
    to_rounding: Callable[..., Any],
):
    """In half precision it is the hidden states that round, and seldom with one sign: a score differs from
    another way to compute it by 0.16 eps of the 40 of `to_rounding`, root mean square over 84 prefixes in
    either type. Allowed are 0.75 eps of 40: 0.23 in bfloat16, 0.03 in float16. In fp8, whose products round
    what goes into them, it is 0.14 eps of 40 with the eps of fp8, and 1.9 is allowed.
    """
    if quantization == "int8":
        pytest.importorskip("torchao")
    changed = replace(settings, dtype=dtype, quantization=quantization)
    loaded, video = load_qwen3_vl(str(checkpoint), changed), make_video(7, 64, 96)
    scorer, plain = Qwen3VLScorer(*loaded[:3], changed, loaded.info), PlainForward(*loaded)
    exact = load_scorer(str(checkpoint), settings)
    eps = 2.0**-4 if quantization == "fp8" else torch.finfo(getattr(torch, dtype)).eps
    for count in range(1, 8):
        score = scorer.score(asked(TASK, video[:count])).log_prob
        expected = plain.score(asked(TASK, video[:count])).log_prob
        if dtype == "float32":
            assert score == to_rounding(expected)
        else:
            assert score == pytest.approx(expected, abs=0.75 * eps * 40)
        assert score != (true := exact.score(asked(TASK, video[:count])).log_prob)
        assert score == pytest.approx(true, abs=max(0.5, 0.75 * eps * 40))


def test_weights_of_the_language_models_layers_are_in_8_bits_and_no_others(checkpoint, settings):
    pytest.importorskip("torchao")
    precision = torch.get_float32_matmul_precision()
    loaded = load_qwen3_vl(str(checkpoint), replace(settings, quantization="int8"))
    assert loaded.info.dtype == "float32, int8 weights"
    assert torch.get_float32_matmul_precision() == precision
    kinds = {name: type(weight).__name__ for name, weight in loaded.model.named_parameters()}
    layers = {name for name in kinds if "language_model.layers" in name and name.endswith("_proj.weight")}
    assert layers == {name for name, kind in kinds.items() if kind != "Parameter"}


def test_fp8_is_in_the_language_models_layers_and_in_no_others(checkpoint, settings):
    loaded = load_qwen3_vl(str(checkpoint), replace(settings, dtype="bfloat16", quantization="fp8"))
    assert loaded.info.dtype == "bfloat16, fp8 weights"
    kinds = {name: weight.dtype for name, weight in loaded.model.named_parameters()}
    layers = {name for name in kinds if "language_model.layers" in name and name.endswith("_proj.weight")}
    assert layers == {name for name, kind in kinds.items() if kind is torch.float8_e4m3fn}
    scales = {name for name in kinds if name.endswith("_proj.scales")}
    assert {kinds[name] for name in kinds.keys() - layers - scales} == {torch.bfloat16}


def test_a_device_that_does_not_multiply_fp8_computes_as_ever_and_says_so_once(
    checkpoint, settings, make_video, monkeypatch, caplog
):
    def raises(*_):
        raise RuntimeError("only supported on devices with compute capability >= 8.9")

    monkeypatch.setattr(fp8, "product", raises)
    video = make_video(3, 64, 96)
    with caplog.at_level(logging.WARNING):
        scorer = load_scorer(str(checkpoint), replace(settings, quantization="fp8"))
    (line,) = [record.getMessage() for record in caplog.records if "fp8" in record.getMessage()]
    assert "not used" in line and "capability >= 8.9" in line
    assert scorer.info.dtype == "float32"
    expected = load_scorer(str(checkpoint), settings).score(asked(TASK, video))
    assert scorer.score(asked(TASK, video)).log_prob == expected.log_prob


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_fp8_with_another_type_is_refused_with_the_one_that_fits(checkpoint, settings, dtype):
    with pytest.raises(ScorerError, match=f"fp8 goes with dtype bfloat16, and this is {dtype}"):
        load_scorer(str(checkpoint), replace(settings, dtype=dtype, quantization="fp8"))


def other_kernel(hidden, added, *norm):
    return PLAIN.add_and_norm(hidden, added * (1 + 2.0**-8), *norm)


def test_ticks_in_fp8_are_captured_as_others(checkpoint, settings, make_video):
    """A difference that only rounds otherwise is no reason to give graphs up; it grows in three bits."""
    changed = replace(settings, dtype="bfloat16", quantization="fp8", static_baseline=False)
    loaded, video = load_qwen3_vl(str(checkpoint), changed), make_video(24, 64, 96)
    graphs = TapeRunner(PLAIN._replace(add_and_norm=other_kernel))
    graphs.in_fp8 = True
    scorer = Qwen3VLScorer(*loaded[:3], changed, loaded.info, graphs)
    eager = Qwen3VLScorer(*loaded[:3], changed, loaded.info)
    for count in range(1, 25):
        score, expected = (each.score(asked(TASK, video[:count])).log_prob for each in (scorer, eager))
        assert score == pytest.approx(expected, abs=0.75 * 2.0**-4 * 40)
        for _ in scorer.capture_ahead():
            pass
    assert graphs.works and graphs.functions != PLAIN and graphs.replayed > 20


def test_layers_in_fp8_are_compiled_as_others(checkpoint, settings):
    """What goes into a product is quantized by one graph, for any number of tokens and any width."""
    made = []

    def backend(graph, inputs):
        made.append(str(graph.graph))
        return graph.forward

    torch._dynamo.reset()
    model = load_qwen3_vl(str(checkpoint), replace(settings, dtype="bfloat16", quantization="fp8")).model
    graphs = TapeRunner()
    graphs.in_fp8 = True
    models = VisionModel(model.model.visual, graphs), LanguageModel(model, graphs)
    assert try_out(compiled(backend), graphs, *models) == ""
    assert graphs.functions != PLAIN
    of_rows = [text for text in made if "float8" in text]
    assert 1 <= len(of_rows) <= 6, "widths of a head's outputs, of the hidden states and within the MLP"


def test_a_runner_knows_products_in_fp8(checkpoint, settings, monkeypatch):
    known = []
    monkeypatch.setattr(cuda_graphs, "GraphRunner", lambda device, in_fp8: known.append(in_fp8))
    for quantization in ("none", "fp8"):
        model = load_qwen3_vl(
            str(checkpoint), replace(settings, dtype="bfloat16", quantization=quantization)
        ).model
        monkeypatch.setattr(type(model), "device", torch.device("cuda"))
        graph_runner_for(model, settings)
        monkeypatch.undo()
        monkeypatch.setattr(cuda_graphs, "GraphRunner", lambda device, in_fp8: known.append(in_fp8))
    assert known == [False, True]
