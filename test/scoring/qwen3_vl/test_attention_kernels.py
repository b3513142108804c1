"""The kernel of attention that is chosen is right, and the fastest of those that are."""

from __future__ import annotations

import logging
import time

import pytest
import torch

from test.sequences import sequence_by_sequence
from test.tape import TapeRunner
from topreward_ros.scoring.qwen3_vl import attention_kernels, compiling
from topreward_ros.scoring.qwen3_vl.attention_kernels import (
    KERNELS,
    Heads,
    Kernel,
    cudnn_by_sequences,
    fastest_kernel,
)
from topreward_ros.scoring.qwen3_vl.compiling import compile_layers
from topreward_ros.scoring.qwen3_vl.language import LanguageModel
from topreward_ros.scoring.qwen3_vl.layer_functions import PLAIN
from topreward_ros.scoring.qwen3_vl.vision import VisionModel

HEADS = Heads(2, 3, 16, torch.device("cpu"), torch.bfloat16)


@pytest.fixture(autouse=True)
def small_trial(monkeypatch):
    monkeypatch.setattr(attention_kernels, "_TIMED_QUERIES", 16)
    monkeypatch.setattr(attention_kernels, "_TIMED_CACHED", 256)


def exact(query, keys, values, *others):
    out, log_sum = sequence_by_sequence(query.float(), keys.float(), values.float(), *others)
    return out.to(query.dtype), log_sum


def slow(*arguments):
    time.sleep(0.02)
    return exact(*arguments)


def raises(*arguments):
    raise RuntimeError("no kernel image is available")


def doubles(*arguments):
    out, log_sum = exact(*arguments)
    return 2 * out, log_sum


def not_a_number(*arguments):
    out, log_sum = exact(*arguments)
    return out * float("nan"), log_sum


def wrong_log_sum(*arguments):
    out, log_sum = exact(*arguments)
    return out, log_sum * torch.linspace(0.0, 2.0, log_sum.shape[1])


def reads_behind_the_end(query, keys, values, query_bounds, key_bounds, *others):
    bounds = key_bounds.clone()
    bounds[-1] = len(keys)
    return exact(query, keys, values, query_bounds, bounds, *others)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (raises, "no kernel image is available"),
        (doubles, "100.0% of their size away"),
        (not_a_number, "nan% of their size away"),
        (wrong_log_sum, "of their size away"),
        (reads_behind_the_end, "of their size away"),
    ],
)
def test_a_kernel_that_fails_or_is_wrong_is_left_out(caplog, bad, said):
    kernels = [Kernel("good", slow), Kernel("bad", bad)]
    for order in (kernels, kernels[::-1]):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            assert fastest_kernel(HEADS, order) == kernels[0]
        (line,) = [record.getMessage() for record in caplog.records]
        assert "by good (a layer: good " in line and "not used: bad: " in line and said in line


def test_the_fastest_is_chosen():
    kernels = [Kernel("slow", slow), Kernel("fast", exact), Kernel("slow, too", slow)]
    assert fastest_kernel(HEADS, kernels).name == "fast"


def test_where_none_is_right_it_is_the_usual_one(caplog):
    with caplog.at_level(logging.INFO):
        assert fastest_kernel(HEADS) is KERNELS[0]  # on a CPU
    assert "by flash attention 2 (a layer: none was right)" in caplog.text
    for kernel in KERNELS:
        assert f"{kernel.name}: " in caplog.text


@pytest.mark.parametrize("chosen", [True, False])
def test_what_pytorch_was_told_to_use_stays_only_if_it_is_chosen(monkeypatch, chosen):
    class Handle:
        def remove(self):
            active.clear()

    def activate():
        active.append(True)
        return Handle()

    def only_then(*arguments):
        if not active:
            raise RuntimeError("not there")
        return exact(*arguments) if chosen else doubles(*arguments)

    active: list[bool] = []
    torch.nn.attention.register_flash_attention_impl("FOR_A_TEST", register_fn=activate)
    kernels = [Kernel("usual", slow), Kernel("other", only_then, "FOR_A_TEST"), Kernel("wrong", doubles)]
    try:
        assert fastest_kernel(HEADS, kernels).name == ("other" if chosen else "usual")
        assert bool(active) == chosen
        assert torch.nn.attention.current_flash_attention_impl() == ("FOR_A_TEST" if chosen else None)
    finally:
        torch.nn.attention.restore_flash_attention_impl(_raise_warn=False)


def test_what_is_asked_of_cudnn_fits_its_operation():
    """By its signature; PyTorch knows no shapes of it without a GPU."""
    query, keys = (torch.empty(tokens, 4, 128, dtype=torch.bfloat16, device="meta") for tokens in (96, 64))
    bounds = torch.empty(3, dtype=torch.int32, device="meta")
    with pytest.raises(NotImplementedError, match="no fake impl or Meta kernel"):
        cudnn_by_sequences(query, keys, keys, bounds, bounds, 48, 0.1)


@pytest.mark.parametrize("turn", [lambda it: it, lambda it: it.T, lambda it: it.T[..., None]])
def test_log_sums_of_cudnn_in_any_order_come_by_heads(monkeypatch, turn):
    def operation(query, keys, values, bias, query_bounds, key_bounds, *others, scale):
        queries, _, wants_log_sum, dropout, causal, debug = others
        assert (bias, wants_log_sum, dropout, causal, debug) == (None, True, 0.0, False, False)
        out, log_sum = exact(query, keys, values, query_bounds, key_bounds, queries, scale)
        return out, turn(log_sum), None, None

    monkeypatch.setattr(torch.ops.aten, "_cudnn_attention_forward", operation)
    kernels = [Kernel("usual", doubles), Kernel("cuDNN", cudnn_by_sequences)]
    assert fastest_kernel(HEADS, kernels).name == "cuDNN"


def test_a_graph_is_captured_with_the_kernel_that_was_chosen(loaded, monkeypatch, caplog):
    """Also where layers cannot be compiled; not with `compile: false`."""
    graphs = TapeRunner()
    models = (VisionModel(loaded._model.model.visual, graphs), LanguageModel(loaded._model, graphs))
    monkeypatch.setattr(compiling, "has_flash", lambda device, dtype: True)
    asked = []

    def choose(heads):
        asked.append(heads)
        return Kernel("other", exact)

    monkeypatch.setattr(compiling, "fastest_kernel", choose)
    compile_layers("false", graphs, *models)
    assert graphs.functions is PLAIN and not asked
    with caplog.at_level(logging.INFO):
        compile_layers("auto", graphs, *models)
    assert graphs.functions == PLAIN._replace(by_sequences=exact)
    text = loaded._model.config.text_config
    assert asked[0][:3] == (
        text.num_key_value_heads,
        text.num_attention_heads // text.num_key_value_heads,
        text.head_dim,
    )
    assert "layers are not compiled" in caplog.text


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("kernel", KERNELS[:2], ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_kernels_that_are_chosen_among_are_right(kernel, dtype):
    """Those that PyTorch brings; a GPU may be too old for cuDNN's."""
    heads = Heads(8, 4, 128, torch.device("cuda"), dtype)
    assert attention_kernels._wrong(kernel, heads) == ""
