"""The kernel of attention that is chosen is right, and the fastest of those that are."""

from __future__ import annotations

import logging

import pytest
import torch
from torch.utils._python_dispatch import _disable_current_modes

from test.tape import TapeRunner
from topreward_ros.scoring.qwen3_vl import attention_kernels, compiling
from topreward_ros.scoring.qwen3_vl.attention import MAX_SPLITS
from topreward_ros.scoring.qwen3_vl.attention_kernels import (
    KERNELS,
    FlashOf,
    Heads,
    Kernel,
    cudnn_by_sequences,
    fastest_kernel,
)
from topreward_ros.scoring.qwen3_vl.compiling import compile_layers
from topreward_ros.scoring.qwen3_vl.cuda_graphs import GraphRunner
from topreward_ros.scoring.qwen3_vl.language import LanguageModel
from topreward_ros.scoring.qwen3_vl.layer_functions import PLAIN
from topreward_ros.scoring.qwen3_vl.vision import VisionModel

HEADS = Heads(2, 3, 16, torch.device("cpu"), torch.bfloat16)


@pytest.fixture(autouse=True)
def small_trial(monkeypatch):
    monkeypatch.setattr(attention_kernels, "_TIMED_QUERIES", 16)
    monkeypatch.setattr(attention_kernels, "_TIMED_CACHED", 256)
    monkeypatch.setattr(attention_kernels, "_RIGHT_QUERIES", 12)
    monkeypatch.setattr(attention_kernels, "_RIGHT_CACHED", 192)
    monkeypatch.setattr(attention_kernels, "_RIGHT_LENGTHS", (1, 170))
    monkeypatch.setattr(attention_kernels.time, "perf_counter", CLOCK)


def exact(query, keys, values, query_bounds, key_bounds, rows, scaling):
    """In plain words, the bounds read on the device."""
    heads, size = query.shape[1:]
    one = query.float().view(-1, rows, heads, size).transpose(1, 2)
    scores = one @ keys.float().permute(1, 2, 0) * scaling
    at = torch.arange(len(keys))
    begin, end = (bounds.view(-1, 1, 1, 1) for bounds in (key_bounds[:-1], key_bounds[1:]))
    scores = torch.where((at >= begin) & (at < end), scores, float("-inf"))
    out = scores.softmax(-1) @ values.float().transpose(0, 1)
    log_sum = scores.logsumexp(-1).transpose(0, 1).flatten(1)
    return out.transpose(1, 2).flatten(0, 1).to(query.dtype), log_sum


class Clock:
    """In the place of the machine's, on which a test may have to wait for others."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


CLOCK = Clock()


@torch.library.custom_op("topreward_ros_test::take_long", mutates_args=())
def take_long(tensor: torch.Tensor) -> torch.Tensor:
    """An operation, so that a replay takes long, too."""
    CLOCK.now += 1.0
    return tensor.clone()


def slow(query, *others):
    return exact(take_long(query), *others)


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
    bounds[-1].fill_(len(keys))
    return exact(query, keys, values, query_bounds, bounds, *others)


def reads_lengths_on_the_host(query, keys, values, query_bounds, key_bounds, *others):
    end = int(key_bounds[-1])
    return exact(query, keys[:end], values[:end], query_bounds, key_bounds, *others)


class KeepsTheFirstLengths:
    def __init__(self):
        self._bounds = {}

    def __call__(self, query, keys, values, query_bounds, key_bounds, *others):
        with _disable_current_modes():  # unseen by the tape, as by a graph
            bounds = self._bounds.setdefault(len(keys), key_bounds.clone())
        return exact(query, keys, values, query_bounds, bounds, *others)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (raises, "no kernel image is available"),
        (doubles, "100.0% of their size away"),
        (not_a_number, "nan% of their size away"),
        (wrong_log_sum, "of their size away"),
        (reads_behind_the_end, "of their size away"),
        (reads_lengths_on_the_host, "not permitted when a stream is capturing"),
    ],
)
def test_a_kernel_that_fails_or_is_wrong_is_left_out(caplog, bad, said):
    kernels = [Kernel("good", slow), Kernel("bad", bad)]
    for order in (kernels, kernels[::-1]):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            assert fastest_kernel(HEADS, TapeRunner, order) == kernels[0]
        (line,) = [record.getMessage() for record in caplog.records]
        assert (
            "by good in 512 blocks (a layer: good in 512 blocks 1" in line
            and "not used: bad: " in line
            and said in line
        )


def test_lengths_that_are_kept_from_the_capture_are_found(caplog):
    kernels = [Kernel("good", slow), Kernel("keeps", KeepsTheFirstLengths())]
    with caplog.at_level(logging.INFO):
        assert fastest_kernel(HEADS, TapeRunner, kernels) == kernels[0]
    assert "not used: keeps: its numbers are " in caplog.text


def test_the_fastest_is_chosen(caplog):
    kernels = [Kernel("slow", slow), Kernel("fast", exact), Kernel("slow, too", slow)]
    with caplog.at_level(logging.INFO):
        assert fastest_kernel(HEADS, TapeRunner, kernels).name == "fast"
    for name, took in (("slow", 1000), ("fast", 0), ("slow, too", 1000)):
        assert f"{name} in 512 blocks {took}.000 ms" in caplog.text


@pytest.mark.parametrize(("faster_by", "chosen"), [(0.5, 100), (0.02, 512)])
def test_the_number_of_blocks_is_chosen_too_but_not_for_a_trifle(monkeypatch, faster_by, chosen):
    """What takes as long is the same at each start: other numbers of blocks round differently."""
    seen = []

    def takes(kernel, heads, runner):
        seen.append(kernel.blocks)
        return 1.0 - faster_by if kernel.blocks == 100 else 1.0

    monkeypatch.setattr(attention_kernels, "_milliseconds", takes)
    assert fastest_kernel(HEADS, TapeRunner, [Kernel("one", exact)], [100, 200, 512]).blocks == chosen
    assert seen == [512, 100, 200]


def test_attention_runs_in_as_many_blocks_as_are_wanted():
    parts = []

    def counts(query, keys, values, query_bounds, key_bounds, *others):
        parts.append(len(key_bounds) - 1)
        return exact(query, keys, values, query_bounds, key_bounds, *others)

    heads = HEADS._replace(groups=16)  # 128 queries, in a block for each of two heads
    for blocks in (1, 4, 9, 1000):
        work = attention_kernels._Attention(Kernel("one", counts, blocks), heads, 8, 256)
        work.load(200)
        torch.testing.assert_close(work.run()[0].float(), work.expected(200), rtol=0.02, atol=0.02)
    assert parts == [1, 2, 4, MAX_SPLITS]


def test_where_none_is_right_it_is_the_usual_one(caplog):
    with caplog.at_level(logging.INFO):
        assert fastest_kernel(HEADS, TapeRunner) == KERNELS[0]  # on a CPU
    assert "by flash attention 2 in 512 blocks (a layer: none was right)" in caplog.text
    for kernel in KERNELS:
        assert f"{kernel.name}: " in caplog.text


@pytest.mark.parametrize("before", ["", "OF_ANOTHER"])
def test_another_flash_attention_is_used_for_a_call_alone(monkeypatch, before):
    """Whatever PyTorch was told to use before is used afterwards, also where the call fails."""
    active: list[str] = []

    class Handle:
        def remove(self):
            active.clear()

    def activates(name):
        def activate():
            active.append(name)
            return Handle()

        torch.nn.attention.register_flash_attention_impl(name, register_fn=activate)

    def missing():
        raise ModuleNotFoundError("it is not installed")

    def operation(*arguments, scale):
        assert active == ["FOR_A_TEST"]
        query, keys, values, query_bounds, key_bounds, rows, _, *others = arguments
        assert others == [0.0, False, False]
        return *exact(query, keys, values, query_bounds, key_bounds, rows, scale), None

    monkeypatch.setattr(torch.ops.aten, "_flash_attention_forward", operation)
    activates("FOR_A_TEST")
    activates("OF_ANOTHER")
    torch.nn.attention.register_flash_attention_impl("NOT_THERE", register_fn=missing)
    if before:
        torch.nn.attention.activate_flash_attention_impl(before)
    kernels = [Kernel(name, FlashOf(name)) for name in ("NOT_THERE", "FOR_A_TEST", "UNKNOWN")]
    try:
        for _ in range(2):
            assert fastest_kernel(HEADS, TapeRunner, kernels) == kernels[1]
            assert active == ([before] if before else [])
            assert torch.nn.attention.current_flash_attention_impl() == (before or None)
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
    assert fastest_kernel(HEADS, TapeRunner, kernels).name == "cuDNN"


def test_a_graph_is_captured_with_the_kernel_that_was_chosen(loaded, monkeypatch, caplog):
    """Also where layers cannot be compiled; not with `compile: false`."""
    graphs = TapeRunner()
    models = (VisionModel(loaded._model.model.visual, graphs), LanguageModel(loaded._model, graphs))
    monkeypatch.setattr(compiling, "has_flash", lambda device, dtype: True)
    monkeypatch.setattr(compiling, "_blocks_to_try", lambda device: [100, 200])
    asked = []

    def choose(heads, new_runner, blocks):
        assert new_runner() is not graphs and blocks == [100, 200]
        asked.append(heads)
        return Kernel("other", exact, 200)

    monkeypatch.setattr(compiling, "fastest_kernel", choose)
    compile_layers("false", graphs, *models)
    assert graphs.functions is PLAIN and not asked
    with caplog.at_level(logging.INFO):
        compile_layers("auto", graphs, *models)
    assert graphs.functions == PLAIN._replace(by_sequences=exact, blocks=200)
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
    assert attention_kernels._wrong(kernel, heads, GraphRunner(heads.device)) == ""
