"""`bench/gpu.py --quick`: what fails takes nothing else with it, and every figure is out at once."""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="scoring needs PyTorch")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "bench")
    import gpu_quick

    return gpu_quick


def fails():
    raise RuntimeError("CUDA error: no kernel image")


def test_a_part_that_fails_does_not_end_the_others(quick, tmp_path, capsys):
    run = quick.Run(60.0, tmp_path / "found.json", {"machine": "one"})
    run.part("first", fails)
    run.part("second", lambda: run.say("a figure"))
    said = capsys.readouterr().out
    assert "FAILED: first: RuntimeError: CUDA error: no kernel image" in said and "s] a figure" in said
    assert json.loads((tmp_path / "found.json").read_text())["failed"] == ["first"]


def test_a_part_that_takes_too_long_is_broken_off_and_what_follows_is_named(quick, tmp_path, capsys):
    def slow():
        try:
            time.sleep(60)
        except Exception:  # a library that goes on whatever happens
            time.sleep(60)

    begun = time.monotonic()
    run = quick.Run(0.2, tmp_path / "found.json", {})
    run.part("slow", slow)
    run.part("never begun", lambda: run.say("too late"))
    assert time.monotonic() - begun < 20
    assert run.found["not_done"] == ["slow", "never begun"] and not run.found["failed"]
    assert "too late" not in capsys.readouterr().out


def test_each_figure_is_out_when_it_is_known(quick, monkeypatch):
    written = []

    class Out:
        def write(self, text):
            written.append(text)

        def flush(self):
            written.append("flush")

    monkeypatch.setattr(sys, "stdout", Out())
    quick.Run(60.0, None, {}).say("p50 31.0 ms")
    assert written[-1] == "flush" and "p50 31.0 ms" in "".join(written)


def test_what_was_chosen_and_every_warning_is_noted_once(quick, capsys):
    run = quick.Run(60.0, None, {})
    log = quick.Log(run)

    def logs(name, level, text):
        log.handle(logging.LogRecord(name, level, "", 0, text, (), None))

    for _ in range(2):
        logs(quick.TOLD[0], logging.INFO, "attention to cached tokens by cuDNN")
    logs("another", logging.INFO, "captured a pass")
    logs("another", logging.WARNING, "CUDA graphs are not used from now on")
    expected = ["attention to cached tokens by cuDNN", "CUDA graphs are not used from now on"]
    assert run.found["log"] == expected
    assert [line.partition("log: ")[2] for line in capsys.readouterr().out.splitlines()] == expected


def test_a_profile_is_summed_by_kind(quick):
    found = quick.profile_of(
        [
            ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n", 100, 8.0),
            ("nvjet_tst_128x256_64x4_1x2_h_bz_coopA_TNT", 50, 2.5),
            ("void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<128>>", 36, 8.0),
            ("fmha_cutlassF_bf16_aligned_64x128_rf_sm80", 36, 1.0),
            ("triton_poi_fused_add_mul_3", 72, 0.5),
            ("Memcpy HtoD (Pinned -> Device)", 3, 0.25),
            (
                "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>>",
                600,
                4.0,
            ),
        ]
    )
    sums = {kind: (each["count"], each["ms"]) for kind, each in found["kinds"].items()}
    assert sums == {
        "products": (150, 10.5),
        "attention": (72, 9.0),
        "compiled": (72, 0.5),
        "copies": (3, 0.25),
        "small ones": (600, 4.0),
    }
    assert found["ms"] == 24.25 and found["longest"][0]["ms"] == 8.0
    assert next(iter(quick.profile_lines("8B", found))) == "8B: 897 kernels, 24.25 ms in a tick"


@pytest.mark.parametrize(
    "words",
    [
        *("--device nonsense", "--size 0 96", "--prompts 0", "--ticks 3", "--frames -4", "--seconds nan"),
        *("--episodes 1", "--prompts 1 x"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_in_a_line(quick, monkeypatch, capsys, words):
    import gpu

    monkeypatch.setattr(sys, "argv", ["gpu.py", "--quick", *words.split()])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    assert ended.value.code == 2
    assert f"argument {words.split()[0]}: " in capsys.readouterr().err.splitlines()[-1]


def test_a_file_that_cannot_be_written_is_told_before_the_work(quick, monkeypatch, capsys, tmp_path):
    import gpu

    (tmp_path / "file").touch()
    path = tmp_path / "file" / "found.json"
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", "--json", str(path)])
    monkeypatch.setattr(gpu, "run", lambda options: pytest.fail("it began"))
    assert gpu.main() == 1
    assert f"gpu.py: {path} cannot be written" in capsys.readouterr().err


def test_a_part_that_failed_makes_the_exit_status(quick, monkeypatch):
    class Setup:
        device, machine, video = "cpu", lambda self: {"processor": "one"}, lambda self: []

    monkeypatch.setattr(quick.Quick, "_load", lambda self, key: fails())
    monkeypatch.setattr(quick.Quick, "_begin_tests", lambda self: None)
    one = quick.Quick(Setup(), ["8B"], [1], 60.0, None)
    assert one.run() == 1 and "weights of 8B" in one._run.found["failed"]
