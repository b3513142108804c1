"""Fewer bits: refused where that cannot be, else the scores of a plain forward pass with as few."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from topreward_ros.core.frames import Frame
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.scoring.base import ScorerError, ScorerSettings
from topreward_ros.scoring.qwen3_vl.references import PlainForward
from topreward_ros.scoring.qwen3_vl.scorer import Qwen3VLScorer
from topreward_ros.scoring.registry import load_qwen3_vl, load_scorer

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
    [("bfloat16", "none"), ("float16", "none"), ("float32", "int8"), ("bfloat16", "int8")],
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
    either type. Allowed are 0.75 eps of 40: 0.23 in bfloat16, 0.03 in float16.
    """
    if quantization == "int8":
        pytest.importorskip("torchao")
    changed = replace(settings, dtype=dtype, quantization=quantization)
    loaded, video = load_qwen3_vl(str(checkpoint), changed), make_video(7, 64, 96)
    scorer, plain = Qwen3VLScorer(*loaded[:3], changed, loaded.info), PlainForward(*loaded)
    exact = load_scorer(str(checkpoint), settings)
    for count in range(1, 8):
        score = scorer.score(asked(TASK, video[:count])).log_prob
        expected = plain.score(asked(TASK, video[:count])).log_prob
        if dtype == "float32":
            assert score == to_rounding(expected)
        else:
            assert score == pytest.approx(expected, abs=0.75 * torch.finfo(getattr(torch, dtype)).eps * 40)
        assert score != (true := exact.score(asked(TASK, video[:count])).log_prob)
        assert score == pytest.approx(true, abs=0.5)


def test_weights_of_the_language_models_layers_are_in_8_bits_and_no_others(checkpoint, settings):
    pytest.importorskip("torchao")
    precision = torch.get_float32_matmul_precision()
    loaded = load_qwen3_vl(str(checkpoint), replace(settings, quantization="int8"))
    assert loaded.info.dtype == "float32, int8 weights"
    assert torch.get_float32_matmul_precision() == precision
    kinds = {name: type(weight).__name__ for name, weight in loaded.model.named_parameters()}
    layers = {name for name in kinds if "language_model.layers" in name and name.endswith("_proj.weight")}
    assert layers == {name for name, kind in kinds.items() if kind != "Parameter"}
